"""Broker, channel or printer away, at start or in mid-sale: the box says so, cash still sells, and everything catches up."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sim.counter import kept
from sim.counter.calls import Refusal
from sim.counter.counter import Counter
from sim.counter.sums import is_copy, order_no_of

pytestmark = pytest.mark.skipif(
    not (Path("/usr/sbin/mosquitto").exists() or shutil.which("mosquitto")), reason="Mosquitto is not installed")

TEA, TEA_FEN = "4891028705949", 700
CATCHES_UP_S = 60.0            # the longest pause between two looks at the broker is half of it
# What is away: the fault, where `/state` says so, with which word, and what the customer's display says.
AWAY = {
    "broker": ("broker", "link", "down", "离线：记录待上传"),
    "channel": ("channel_down", "channel:gateway", "gone", "任意钱包支付暂不可用，可收现金"),
    "printer": ("printer_off", "printer", "gone", "打印机未连接"),
}


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    patch = pytest.MonkeyPatch()
    patch.setattr(kept, "RESTART_S", 0.0)
    counter = Counter(tmp_path_factory.mktemp("away"))
    counter.start()
    yield counter
    counter.stop()
    patch.undo()


def until(met: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    until_s, pause = time.monotonic() + within_s, threading.Event()
    while time.monotonic() < until_s:
        with suppress(Refusal):
            if met():
                return
        pause.wait(0.02)
    raise AssertionError(f"never: {what}")


def switch(counter: Counter, name: str, away: bool) -> None:
    counter.fault(AWAY[name][0], away, None, None)


def says(counter: Counter, name: str) -> bool:
    _, part, word, words = AWAY[name]
    return counter.state()["health"].get(part) == word and words in counter.display_json()["footer"]


def agrees(counter: Counter) -> dict[str, Any]:
    """The day's books once nothing waits any more."""
    until(counter.quiet, "everything caught up", CATCHES_UP_S)
    summary = counter.summary()
    assert summary["agree"] is True, summary
    originals = [order_no_of(r.text) for r in counter.printer.receipts() if "合计" in r.text and not is_copy(r.text)]
    assert len(originals) == len(set(originals)) == summary["sales"]
    return summary


def sold_for_cash(counter: Counter) -> None:
    counter.scan(TEA)
    counter.key("CASH")
    until(lambda: counter.state()["phase"] == "PAID", "a cash sale")


@pytest.mark.parametrize("name", AWAY)
def test_a_part_away_at_start_is_said_and_cash_still_sells(counter: Counter, name: str) -> None:
    before = agrees(counter)
    counter.daemon.stop()
    switch(counter, name, True)
    try:
        counter.daemon.start()
        if name == "channel":                         # nobody can know before it is asked
            counter.scan(TEA)
            counter.key("PAY")
            until(lambda: says(counter, name), "the channel is said to be away")
            assert counter.state()["phase"] == "PLACING" and counter.display_json()["qr"] == ""
            counter.key("CASH")
            until(lambda: counter.state()["phase"] == "PAID", "cash instead")
        else:
            until(lambda: says(counter, name), f"the {name} is said to be away")
            sold_for_cash(counter)
        assert says(counter, name)
        assert counter.state()["unacked"] > 0 or name != "broker"
        assert any(paper["state"] == "due" for paper in counter.state()["papers"]) == (name == "printer")
    finally:
        switch(counter, name, False)
    after = agrees(counter)
    assert (after["sales"], after["journal_fen"]) == (before["sales"] + 1, before["journal_fen"] + TEA_FEN)
    until(lambda: not says(counter, name) and not counter.display_json()["footer"], "the display is clear again")


@pytest.mark.parametrize("name", AWAY)
def test_a_part_that_goes_away_in_mid_sale_is_said_and_the_sale_ends_well(counter: Counter, name: str) -> None:
    before = agrees(counter)
    counter.scan(TEA)
    counter.key("PAY")
    until(lambda: bool(counter.display_json()["qr"]), "a QR")
    qr = counter.display_json()["qr"]
    switch(counter, name, True)
    try:
        counter.key("CHECK")
        until(lambda: says(counter, name), f"the {name} is said to be away")
        assert counter.state()["phase"] == "AWAITING" and counter.display_json()["qr"] == qr
    finally:
        if name == "channel":
            switch(counter, name, False)
    counter.phone_scan("wechat", qr, "pay")
    counter.key("CHECK")
    until(lambda: counter.state()["phase"] == "PAID", "a paid sale")
    switch(counter, name, False)
    after = agrees(counter)
    assert (after["sales"], after["wallet_fen"]) == (before["sales"] + 1, before["wallet_fen"] + TEA_FEN)
    until(lambda: not says(counter, name), "the box is well again")


def test_with_everything_away_at_once_cash_sells_and_all_of_it_catches_up(counter: Counter) -> None:
    before = agrees(counter)
    counter.daemon.stop()
    for name in AWAY:
        switch(counter, name, True)
    try:
        counter.daemon.start()
        for _ in range(3):
            sold_for_cash(counter)
        until(lambda: says(counter, "broker") and says(counter, "printer"), "both are said to be away")
        assert counter.state()["unacked"] >= 3
    finally:
        for name in AWAY:
            switch(counter, name, False)
    assert agrees(counter)["sales"] == before["sales"] + 3
