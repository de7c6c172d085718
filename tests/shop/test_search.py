"""Every order of seven events at every kind of channel breaks no law, and from every state there is a way to rest.

The command goes deeper: `python -m sim.search --depth 9`.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from device.txn.books import Phase
from sim.search import TABLES, Search
from sim.search_truth import KINDS

DEPTH = 7


@pytest.mark.parametrize("name", TABLES)
def test_no_order_of_events_breaks_a_law(name):
    found = Search(TABLES[name]).run(DEPTH)
    assert "breach" not in found, [found["breach"], *found["trace"]]
    assert found["depth"] == DEPTH and found["states"] > 1_000


def test_every_kind_of_channel_is_searched():
    assert {kind for table in TABLES.values() for kind in table.kinds} == set(KINDS)


def test_a_restart_in_every_state_is_one_of_the_moves():
    laws = Search(TABLES["qr"]).laws
    node = laws.root
    for key in ("a customer's goods", "PAY"):
        node = next(after for how, after in laws.moves(node) if how == key)
    assert "a restart" in {how for how, _ in laws.moves(node)}
    (order,) = laws.books_of(node).orders.values()
    assert order.phase is Phase.PLACING and node.disk is None          # the intent was synced with it


def test_a_breach_is_told_with_its_shortest_story_and_exit_1():
    command = [sys.executable, "-m", "sim.search", "--depth", "7", "--plant", "late_money_ignored", "--json"]
    run = subprocess.run(command, capture_output=True, text=True)
    *tables, summary = map(json.loads, run.stdout.splitlines())
    assert run.returncode == 1 and summary["breaches"] == 1
    assert tables[-1]["breach"] == "PAID is not heard: order 1 stays closed"
    assert tables[-1]["trace"] == ["a customer's goods", "CODE", "CANCEL", "undo of order 1 finds nothing to undo",
                                   "charge of order 1 arrives, is paid"]
