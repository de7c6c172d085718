"""The world comes to agree from any seed, and says no to a planted bug; who finds which stands in test_planted.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sim.world import FAULT_SETS, World


@pytest.mark.parametrize("seed", range(11, 14))
def test_money_agrees_in_four_places_whatever_fails(seed, tmp_path):
    summary = World(seed, 60, FAULT_SETS["ci"], tmp_path).run()
    assert summary["breaches"] == [] and summary["boots"] > 3
    assert summary["channel_fen"] == summary["wallet_fen"] > 0 and summary["journal_fen"] == summary["cloud_fen"] > 0


def test_without_faults_nothing_is_lost_and_nothing_fires(tmp_path):
    summary = World(3, 30, FAULT_SETS["none"], tmp_path).run()
    assert summary["breaches"] == []
    assert {fault for fault, times in summary["fired"].items() if times and not fault.startswith("customer_")} == set()


def test_a_seed_is_the_same_run_twice(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (one, two) = (World(5, 25, FAULT_SETS["ci"], tmp_path / name).run() for name in "ab")
    assert one == two


def test_the_command_prints_its_summary_and_says_no_to_a_planted_fault():
    command = [sys.executable, "-m", "sim.world", "--seed", "1", "--sales", "30", "--json"]
    whole = subprocess.run(command, capture_output=True, text=True)
    assert whole.returncode == 0 and json.loads(whole.stdout.splitlines()[-1])["agree"] is True
    broken = subprocess.run([*command, "--plant", "record_beside_the_sale"], capture_output=True, text=True)
    assert broken.returncode == 1
