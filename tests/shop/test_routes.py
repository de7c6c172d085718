"""Hours with a route that fails now and then, on the real box and both routes' real servers: what the choice of a route is worth.

The whole script is `python -m sim.routes tests/days/routes.toml --json`; here is its first hour.
"""

from __future__ import annotations

import msgspec
import pytest

from sim.counter.day import read_day
from sim.routes import Fault, faults_of, main, play, read
from tests import ROOT

FILE = ROOT / "tests" / "days" / "routes.toml"
SCRIPT = msgspec.structs.replace(read(FILE), hours=1)


@pytest.fixture(scope="module")
def plays():
    """One route and two, with faults; two without."""
    return [play(SCRIPT, routed=routed, faulty=faulty) for routed, faulty in ((False, True), (True, True), (True, False))]


def test_on_the_script_at_least_97_in_a_hundred_are_paid_and_waiting_stays_short(plays):
    before, after, _ = plays
    assert before["success"] < .97 <= after["success"] and after["struck"] > 0
    assert before["p95_s"] == SCRIPT.patience_s and after["p95_s"] < 15
    assert abs(after["median_s"] - before["median_s"]) < 1


def test_on_a_clean_script_the_route_is_not_switched(plays):
    assert plays[2]["switches_an_hour_max"] <= 1 and plays[2]["attempts"] == {"wechat": plays[2]["customers"]}


def test_never_two_live_attempts_and_channels_and_books_agree(plays):
    assert faults_of(*plays) == [] and plays[1]["rerouted"] > 0


@pytest.mark.parametrize("fault", [
    Fault("wechat", 0, 10, 0.3, kind="lost_answer"),              # the order stands there, and its QR never came
    Fault("wechat", 5, 15, calls="all"),                          # nobody can say what became of it either
], ids=["answers", "dead"])
def test_other_ways_to_fail_cost_no_more(fault):
    after = play(msgspec.structs.replace(SCRIPT, fault=(fault,)), routed=True, faulty=True)
    assert after["struck"] > 0 and after["success"] >= .97
    assert after["two_live"] == 0 and after["channel_fen"] == after["books_fen"]


def test_one_file_is_a_script_of_hours_and_a_counters_day():
    assert len(read_day(FILE)) > 5 and read(FILE).fault[0].share == .3


@pytest.mark.parametrize(("text", "word"), [("", "routes"), ("[routes]\nroute = ['wechat']\nhours = 99\nevery_s = 30", "hours"),
                                            ("[routes]\nroute = ['paypal']\nhours = 1\nevery_s = 30", "paypal")])
def test_a_script_that_cannot_be_played_is_refused_in_one_sentence(text, word, tmp_path, capsys):
    (tmp_path / "hours.toml").write_text(text)
    assert main([str(tmp_path / "hours.toml")]) == 2
    said = capsys.readouterr().err
    assert word in said and len(said.splitlines()) == 1
