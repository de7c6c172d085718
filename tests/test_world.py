"""The world comes to agree from any seed, and says no to a planted bug; who finds which stands in test_planted.py."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from sim.world import FAULT_SETS, World


@pytest.mark.parametrize("seed", range(11, 15))
def test_money_agrees_in_four_places_whatever_fails(seed, tmp_path):
    summary = World(seed, 80, FAULT_SETS["ci"], tmp_path).run()
    assert summary["breaches"] == [] and summary["boots"] > 8


def test_a_seed_is_the_same_run_twice(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (one, two) = (World(5, 30, FAULT_SETS["ci"], tmp_path / name).run() for name in "ab")
    assert one == two


def test_the_command_prints_its_summary_and_says_no_to_a_planted_fault():
    command = [sys.executable, "-m", "sim.world", "--seed", "1", "--sales", "40", "--json"]
    whole = subprocess.run(command, capture_output=True, text=True)
    assert whole.returncode == 0 and json.loads(whole.stdout.splitlines()[-1])["agree"] is True
    broken = subprocess.run([*command, "--plant", "record_beside_the_sale"], capture_output=True, text=True)
    assert broken.returncode == 1
