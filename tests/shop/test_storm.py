"""The storm of payments: one box's part of it agrees, a seed is the same run in any process, a fault that never came is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from sim.storm import PROMISED, Row, Storm, boxful

COMMAND = [sys.executable, "-m", "sim.storm", "--seed", "5", "--json"]


def test_one_box_of_a_storm_agrees_with_every_channel():
    told = boxful(11, 0, 100)
    assert told.breaches == [] and told.sums["undecided"] == 0
    assert told.sums["channel_fen"] == told.sums["wallet_fen"] and told.sums["journal_fen"] == told.sums["cloud_fen"]
    assert set(told.fen) == {"wechat", "alipay", "unionpay", "gateway", "card"} and all(told.fen.values())
    assert told.sums["boots"] > 10 and told.sums["late_paid"] and sum(row.undecided for row in told.rows)


def test_a_seed_is_the_same_run_in_another_process():
    said = []
    for salt in ("1", "2"):                           # sets lie in memory in another order
        run = subprocess.run([*COMMAND, "--payments", "40", "--jobs", "1"], capture_output=True, text=True,
                             env=os.environ | {"PYTHONHASHSEED": salt})
        *rows, summary = (json.loads(line) for line in run.stdout.splitlines())
        assert run.returncode == 0 and summary["agree"] and summary["payments"] >= 40
        assert set(rows[0]) == {"channel", "fault", "fired", "undecided", "late_paid", "breaches"}
        said.append((rows, {k: v for k, v in summary.items() if k not in ("seconds", "per_second")}))
    assert said[0] == said[1]


def test_a_planted_bug_ends_the_command_with_one():
    plant = ["--payments", "80", "--jobs", "1", "--plant", "record_beside_the_sale"]
    run = subprocess.run([*COMMAND, *plant], capture_output=True, text=True)
    *rows, summary = (json.loads(line) for line in run.stdout.splitlines())
    assert run.returncode == 1 and summary["breaches"] and not summary["agree"] and sum(row["breaches"] for row in rows)


def test_a_fault_that_came_too_seldom_is_a_failure():
    storm = Storm(1, 2 * PROMISED)
    storm.rows = {("wechat", kind): Row("wechat", kind, fired) for kind, fired in (("lying", 2), ("slow", 1), ("down", 0))}
    storm.rows["printer", "paper"] = Row("printer", "paper")
    assert storm.missed == ["wechat down", "wechat slow"] and storm.summary()["agree"] is False
    few = Storm(1, PROMISED - 1)
    few.rows = storm.rows
    assert few.missed == [] and few.summary()["agree"] is True
