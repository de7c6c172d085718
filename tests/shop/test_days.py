"""Scripted days: what is read, what is refused, and how a step waits.  The clock is moved by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sim.counter.day import DayError, dig, parse_day, play, read_day, read_scale

SCAN = '[[step]]\nat_s = 1\ncall = "POST /scan"\nbody = {code = "6901234567892"}\n'


class HandClock:
    def __init__(self) -> None:
        self.s = 0.0

    def now_s(self) -> float:
        return self.s

    def wait(self, seconds: float) -> None:
        self.s += seconds


class Till:
    """Answers calls from a table of functions of the time; keeps what it was asked by POST."""

    def __init__(self, clock: HandClock, **answers: Any) -> None:
        self.clock, self.answers, self.posts = clock, answers, []

    def ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST":
            self.posts.append((path, body, round(self.clock.s, 1)))
        found = self.answers.get(path.strip("/").replace(".", "_").replace("/", "_"), {"ok": True})
        found = found(self.clock.s) if callable(found) else found
        return (400 if isinstance(found, dict) and "error" in found else 200), found


def played(text: str, **answers: Any) -> tuple[list[dict[str, Any]], Till]:
    clock = HandClock()
    till = Till(clock, **answers)
    return list(play(parse_day(text), till.ask, clock)), till


def test_a_step_waits_for_its_second():
    results, till = played(SCAN + SCAN.replace("at_s = 1", "at_s = 4"))
    assert [p[2] for p in till.posts] == [1.0, 4.0]
    assert all(r["ok"] for r in results) and results[0]["call"] == "POST /scan"


def test_an_expectation_is_polled_until_it_holds():
    results, till = played(
        SCAN + 'expect = {path = "phase", value = "PAID"}\nwithin_s = 5\n',
        state=lambda s: {"phase": "PAID" if s >= 3 else "AWAITING"},
    )
    assert results[0]["expect"] == {"path": "phase", "value": "PAID", "held": True}
    assert 3 <= till.clock.s < 3.3


def test_an_expectation_that_never_holds_says_what_was_seen():
    results, _ = played(SCAN + 'expect = {path = "phase", value = "PAID", within_s = 2}\n', state={"phase": "AWAITING"})
    assert not results[0]["ok"]
    assert results[0]["expect"] == {"path": "phase", "value": "PAID", "held": False, "seen": "AWAITING"}


def test_a_refused_call_is_not_ok_unless_its_answer_was_expected():
    refused = {"error": "no."}
    assert not played(SCAN, scan=refused)[0][0]["ok"]
    assert played(SCAN + 'expect = {path = "answer.error", value = "no."}\n', scan=refused)[0][0]["ok"]


def test_a_get_expects_of_its_own_answer_and_asks_again():
    results, _ = played(
        '[[step]]\ncall = "GET /receipts"\nexpect = {path = "0.state", value = "printed"}\n',
        receipts=lambda s: [{"state": "printed" if s > 1 else "due"}],
    )
    assert results[0]["ok"]


def test_a_phone_waits_for_the_qr_and_scans_what_is_shown():
    text = '[[step]]\ncall = "POST /phone/scan"\nbody = {wallet = "wechat"}\n'
    _, till = played(text, display_json=lambda s: {"qr": "weixin://q" if s > 2 else ""})
    assert till.posts[0][:2] == ("/phone/scan", {"wallet": "wechat", "qr": "weixin://q"})
    assert till.posts[0][2] >= 2


def test_a_phone_with_no_qr_in_sight_is_left_to_the_counter():
    _, till = played(
        '[[step]]\ncall = "POST /phone/scan"\nbody = {wallet = "wechat", qr = "$qr"}\nwithin_s = 1\n',
        display_json={"qr": ""},
    )
    assert till.posts[0][1] == {"wallet": "wechat"}


def test_a_receipt_scan_names_the_last_receipt():
    _, till = played(
        SCAN.replace("6901234567892", "$order_no:-1"), receipts=[{"order_no": "A"}, {"order_no": "B"}, {"order_no": ""}]
    )
    assert till.posts[0][1] == {"code": "B"}


def test_true_is_not_one():
    assert not played(SCAN + 'expect = {path = "up", value = 1, within_s = 0}\n', state={"up": True})[0][0]["ok"]


@pytest.mark.parametrize(("path", "found"), [("a.b", 1), ("c[1]", 3), ("c.-1", 3), ("c.#", 2)])
def test_paths_reach_into_tables_and_lists(path, found):
    assert dig({"a": {"b": 1}, "c": [2, 3]}, path) == found


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no [[step]]"),
        ("[[step", "not TOML"),
        ("step = 3", "no [[step]]"),
        ("[[step]]\n", "call must be"),
        ('[[step]]\ncall = "POST /fly"', "no call POST /fly"),
        ('[[step]]\ncall = "GET /scan"', "called with POST"),
        ('[[step]]\ncall = "PUT /scan"', "GET or POST"),
        ('[[step]]\ncall = "POST /scan"\nbody = 3', "body must be"),
        ('[[step]]\ncall = "POST /scan"\nwhen = 3', "unknown key 'when'"),
        ('[[step]]\ncall = "POST /scan"\nat_s = -1', "seconds"),
        ('[[step]]\ncall = "POST /scan"\nat_s = true', "seconds"),
        (SCAN + "expect = {path = 'x'}", "path and value"),
        (SCAN + "expect = 4", "expect must be"),
        (SCAN + SCAN.replace("= 1", "= 0.5"), "lies before"),
        ('[[step]]\ncall = "GET /state"\nbody = {}', "no body"),
    ],
)
def test_a_malformed_day_is_refused_in_one_sentence(text, word):
    with pytest.raises(DayError) as refused:
        parse_day(text, "day.toml")
    assert word in str(refused.value) and str(refused.value).startswith("day.toml") and "\n" not in str(refused.value)


def test_a_day_that_cannot_be_read_says_so(tmp_path: Path):
    with pytest.raises(DayError, match="cannot be read"):
        read_day(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9")
    with pytest.raises(DayError, match="not UTF-8"):
        read_day(tmp_path / "latin.toml")


def test_a_day_may_divide_the_times_of_the_rule_table(tmp_path: Path):
    day = tmp_path / "day.toml"
    day.write_text("rules_scale = 20\n" + SCAN)
    assert (read_scale(day), len(read_day(day))) == (20, 1)
    day.write_text(SCAN)
    assert read_scale(day) == 1
    day.write_text("rules_scale = 0\n" + SCAN)
    with pytest.raises(DayError, match="1 to 60"):
        read_scale(day)
