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


def test_a_signer_that_dies_and_returns_in_the_middle_of_sales_loses_no_record_and_marks_what_waited(tmp_path):
    summary = World(2, 20, FAULT_SETS["signer"], tmp_path).run()
    assert summary["breaches"] == [] and summary["journal_fen"] == summary["cloud_fen"] > 0
    assert summary["fired"]["signer"] > 1 and summary["fired"]["signer_slow"] > 1 and summary["boots"] > 1


def test_the_world_finds_a_record_that_waited_and_says_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("device.txn.record.late", lambda body: body)
    assert any(breach.startswith("I14") for breach in World(2, 20, FAULT_SETS["signer"], tmp_path).run()["breaches"])


def test_a_flash_page_spoilt_at_every_other_power_cut_loses_nothing(tmp_path):
    summary = World(5, 40, FAULT_SETS["flash"], tmp_path).run()
    assert summary["breaches"] == [] and summary["journal_fen"] == summary["cloud_fen"] > 0
    assert summary["fired"]["flash"] > 3


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
