"""SIGKILL at many moments of many sales: the real daemon goes on from what is on disk, and the books still agree.

Each kind of sale is first rehearsed whole.  What happened in it, a journal row or a first byte at the channel or the
printer, are the moments at which later sales of that kind lose their daemon.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter as Tally
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from device.drivers.printer.escpos_bytes import drawer_bytes
from device.txn import facts
from sim.counter import kept
from sim.counter.calls import Refusal
from sim.counter.counter import Counter
from sim.counter.sums import is_copy, order_no_of, payload_of
from tests import ROOT
from tests.canary import secrets_stayed

pytestmark = pytest.mark.skipif(
    not (Path("/usr/sbin/mosquitto").exists() or shutil.which("mosquitto")), reason="Mosquitto is not installed")

SEED = 20_260_901
KILLS_MIN, KILLS_MAX = 50, 60
BOOT_TOO = 0.2                 # of the kills are followed by one of the boot that comes next
SALE_S_MAX = 40.0
MISSED_S = 3.0                 # a moment that did not come so long after its sale will not come
TEA, COFFEE = "4891028705949", "6901715291209"
# Facts of a row that another fact opens: killing after the second is killing after the same row.
FOLLOWERS = {"ReceiptDue", "RecordDue", "DrawerDue", "ScreenCleared", "Booted", "ReceiptUnsure", "LineChanged"}
FOLLOWS = {("PaymentConfirmed", "SaleClosed"), ("OrderParked", "CancelWished"), ("CancelWished", "SaleClosed"),
           ("LatePaymentFound", "RefundIntended")}
FACT_LINE = re.compile(r"^\S+ \S+ INFO ([A-Z][A-Za-z]+)(?: |$)")


class Moment(NamedTuple):
    """The `nth` time that `event` happens in a sale of `kind`."""

    kind: str
    event: str
    nth: int


class Kill(NamedTuple):
    """A daemon killed at `moment`, when `rows` of the sale had been written, at least one, and its end was still to come."""

    moment: Moment
    rows: int


class Killer:
    """Sees every row and first byte of a sale; kills the daemon the moment that the armed one comes."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.kills: list[Kill] = []
        self.again, self.boots_killed = False, 0     # whether the next boot dies as well, as soon as it has said so
        self._lock = threading.RLock()
        self._armed: Moment | None = None
        self._seen: Tally[str] | None = None         # None: no sale is under way
        self._order: list[Moment] = []
        self._kind, self._part, self._before = "", "", ""
        self._rows = 0                               # of the sale under way
        self._old: set[str] = set()                  # orders of earlier sales, which are still asked about
        self._ends = threading.Event()
        self._log = open(counter.folder / "daemon.log", encoding="utf-8")
        self._log.seek(0, os.SEEK_END)
        self._hook()
        self._tail = threading.Thread(target=self._follow, name="tail", daemon=True)
        self._tail.start()

    def _hook(self) -> None:
        server, printer = self.counter.channels["gateway"].server, self.counter.printer    # where PAY goes
        answer, receive = server.rules_say, printer.receive

        def answered(ask: Any) -> Any:
            done = answer(ask)
            if ask.call != "query" or not any(no.encode() in ask.body for no in self._old):
                self._reached(f"channel {ask.call}")
            return done

        def received(data: bytes) -> None:
            if data.startswith(drawer_bytes(2)):
                self._reached("drawer")
            elif len(data) > 64:
                self._reached("paper")
            receive(data)

        server.rules_say, printer.receive = answered, received  # type: ignore[assignment,method-assign]

    def _follow(self) -> None:
        while not self._ends.wait(0.001):
            self._read_on()

    def _read_on(self) -> None:
        """Every line that the daemon has logged by now."""
        with self._lock:
            while more := self._log.readline():
                self._part += more
                if self._part.endswith("\n"):
                    fact, self._part = FACT_LINE.match(self._part), ""
                    if fact is not None:
                        self._logged(fact[1])

    def _logged(self, name: str) -> None:
        if name == "Booted" and self.again:
            self.again = False
            self.boots_killed += self._kill()
        if name in FOLLOWERS:
            return
        before, self._before = self._before, name
        if (before, name) not in FOLLOWS:
            self._rows += 1
            self._happened(name)

    def _reached(self, event: str) -> None:
        """A first byte is outside; the rows it rests upon were logged before, so they are counted before."""
        with self._lock:
            self._read_on()
            self._happened(event)

    def _happened(self, event: str) -> None:
        if self._seen is None:
            return
        self._seen[event] += 1
        moment = Moment(self._kind, event, self._seen[event])
        self._order.append(moment)
        if moment == self._armed:
            self._armed = None
            if self._kill():
                self.kills.append(Kill(moment, self._rows))

    def _kill(self) -> bool:
        pid = self.counter.daemon.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    @contextlib.contextmanager
    def sale(self, kind: str, at: Moment | None = None) -> Iterator[list[Moment]]:
        """One sale of `kind`, killed at `at`; yields what happens in it."""
        with self._lock:
            self._read_on()                           # what was logged before belongs to no sale
            self._kind, self._armed, self._seen, self._order, self._rows = kind, at, Tally(), [], 0
            self._old = {order["order_no"] for order in self.counter.channel_orders()}
        try:
            yield self._order
        finally:
            with self._lock:
                self._seen = self._armed = None

    @property
    def waits(self) -> bool:
        return self._armed is not None

    def end(self) -> None:
        self._ends.set()
        self._tail.join()
        self._log.close()


class Till:
    """A cashier and a customer who look at the box and do what it calls for next, however often it dies."""

    def __init__(self, counter: Counter) -> None:
        self.counter, self._pause = counter, threading.Event()

    def until(self, done: Callable[[dict[str, Any], list[dict[str, Any]]], bool], what: str) -> None:
        """Look at state and papers and let `done` act on them until it says True; a box that is away is waited for."""
        until_s, state = time.monotonic() + SALE_S_MAX, {}
        while time.monotonic() < until_s:
            with contextlib.suppress(Refusal):       # away, or dead between two of our words
                state = self.counter.state()         # asked first: papers are never older than it
                if done(state, self.counter._asked("receipts")["receipts"]):
                    return
            self._pause.wait(0.01)
        raise AssertionError(f"{what} did not come to an end: {json.dumps(state, ensure_ascii=False)}")

    def keys(self, words: str) -> None:
        for key in words.split():
            self.counter.key(key)

    def pays(self, qr: str) -> None:
        with contextlib.suppress(Refusal):           # paid before the box died: the wallet says so
            self.counter.phone_scan("wechat", qr, "pay")
        self.counter.key("CHECK")

    def sell(self, kind: str) -> None:
        """One sale of `kind` to its end."""
        before: list[int] = []
        closed: set[str] = set()

        def step(state: dict[str, Any], papers: list[dict[str, Any]]) -> bool:
            if not before:
                before.append(max((p["job"] for p in papers), default=0))
                closed.update(o["order_no"] for o in state["orders"])
            new = [p for p in papers if p["job"] > before[0]]
            made = {p["kind"] for p in new if not p["copy"]}
            orders = [o for o in state["orders"] if o["order_no"] not in closed]
            return KINDS[kind](self, state, made, orders)

        self.until(step, kind)

    def settled(self) -> None:
        """No paper, refund or payment is on its way: a copy of each unsure paper was asked for."""
        asked: set[int] = set()

        def step(state: dict[str, Any], papers: list[dict[str, Any]]) -> bool:
            originals = [p for p in papers if not p["copy"]]
            for nth, paper in enumerate(reversed(originals), 1):
                if paper["state"] == "unsure" and paper["job"] not in asked:
                    asked.add(paper["job"])
                    self.keys(" ".join(str(nth)) + " REPRINT")
                    return False
            busy = [o for o in state["orders"] if o["phase"] != "closed"]
            return not busy and not state["refunds"] and not any(p["state"] in ("due", "started") for p in papers)

        self.until(step, "settling")


Step = Callable[[Till, dict[str, Any], set[str], list[dict[str, Any]]], bool]


def cash(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if "sale" in made:
        return True
    till.keys("CASH") if state["phase"] == "BASKET" else till.counter.scan(TEA)
    return False


def to_the_qr(till: Till, state: dict[str, Any]) -> str:
    """Whatever leads to a QR; it, once it is shown."""
    if state["phase"] in ("IDLE", "PAID", "REFUNDING"):
        till.counter.scan(COFFEE)
    elif state["phase"] == "BASKET":
        till.keys("PAY")
    shown = [o["qr"] for o in state["orders"] if o["phase"] == "awaiting" and o["qr"]]
    return shown[-1] if shown and state["phase"] == "AWAITING" else ""


def wallet(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if "sale" in made:
        return True
    if qr := to_the_qr(till, state):
        till.pays(qr)
    return False


def split(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if state["phase"] == "BASKET" and not state["tenders"]:
        till.keys("1 00 CASH")
        return False
    return wallet(till, state, made, orders)


def cancelled(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if any(o["phase"] == "closed" for o in orders):
        if state["phase"] == "BASKET":
            till.keys("CLEAR")
        return not state["lines"]
    if to_the_qr(till, state):
        till.keys("CANCEL")
    return False


def paid_while_cancelling(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if "sale" in made:
        return True
    if "alert" in made:                               # the box died while it asked: the money goes back
        if state["phase"] == "BASKET":
            till.keys("CLEAR")
        return not state["lines"] and not state["refunds"]
    if any(o["phase"] == "asking" for o in orders):
        till.keys("ENTER")
    elif qr := to_the_qr(till, state):
        till.counter.phone_scan("wechat", qr, "pay")
        till.keys("CANCEL CHECK")
    return False


def parked_and_booked(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if "sale" in made:
        return True
    if state["parked"]:
        till.pays(state["parked"][-1]["qr"])
    elif to_the_qr(till, state):
        till.keys("PARK ENTER")
    return False


def parked_and_given_back(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if "alert" in made:
        return not state["refunds"]
    if not state["parked"] and "park" not in made and (qr := to_the_qr(till, state)):
        with contextlib.suppress(Refusal):
            till.counter.phone_scan("wechat", qr, "pay")
        till.keys("PARK CANCEL CHECK")
    return "sale" in made                             # found paid before it could be parked


def replaced_by_cash(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if "sale" in made:
        return all(o["phase"] == "closed" for o in orders)
    if to_the_qr(till, state):
        till.keys("CASH")
    return False


def held(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
    if "sale" in made:
        return True
    if state["held"] and not state["lines"]:
        till.keys(f"{state['held'][0]['slot']} HOLD")
    elif "hold" not in made and state["lines"]:
        till.keys("HOLD")
    else:
        cash(till, state, made, orders)
    return False


def refund_of(order_no: Callable[[Till], str]) -> Step:
    def refunded(till: Till, state: dict[str, Any], made: set[str], orders: list[dict[str, Any]]) -> bool:
        if "refund" in made:
            return True
        if not state["refunds"]:
            till.keys("REFUND")
            till.counter.scan(order_no(till))
            till.keys("ENTER")
        return False
    return refunded


def last_wallet_sale(till: Till) -> str:
    return next(o["order_no"] for o in reversed(till.counter.channel_orders()) if o["state"] == "paid")


def last_cash_sale(till: Till) -> str:
    jobs = till.counter._asked("receipts")["receipts"]
    wallets = {o["order_no"] for o in till.counter.channel_orders()}
    refunded = {j["order_no"] for j in jobs if j["kind"] == "refund"}
    return next(j["order_no"] for j in reversed(jobs)
                if j["kind"] == "sale" and j["order_no"] not in wallets | refunded)


KINDS: dict[str, Step] = {
    "cash": cash, "wallet": wallet, "split": split, "cancelled": cancelled, "held": held,
    "paid while cancelling": paid_while_cancelling, "parked and booked": parked_and_booked,
    "parked and given back": parked_and_given_back, "replaced by cash": replaced_by_cash,
    "refund to a wallet": refund_of(last_wallet_sale), "refund in cash": refund_of(last_cash_sale),
}
NEEDS = {"refund to a wallet": "wallet", "refund in cash": "cash"}


def one(till: Till, killer: Killer, kind: str, at: Moment | None = None) -> list[Moment]:
    """A sale of `kind` from a box at rest to a box at rest; what happened in it."""
    if kind in NEEDS:
        till.sell(NEEDS[kind])
        till.settled()
    pause = threading.Event()
    captured = {o["order_no"] for o in till.counter.channel_orders()}
    with killer.sale(kind, at) as happened:
        till.sell(kind)
        until_s = time.monotonic() + MISSED_S
        while killer.waits and time.monotonic() < until_s:
            pause.wait(0.01)
        if at is None:
            till.settled()
            pause.wait(0.1)                           # the last line of the log
    till.settled()
    charged = [o for o in till.counter.channel_orders()
               if o["order_no"] not in captured and o["captured_fen"] > o["refunded_fen"]]
    assert len(charged) <= 1, (kind, at, charged)
    return happened


def moments_of(happened: list[Moment]) -> list[Moment]:
    """Those worth dying at: the first of each event, and the second where one sale has two of them."""
    return [m for m in dict.fromkeys(happened) if m.nth <= (1 if m.event == "channel query" else 2)]


def test_a_daemon_killed_at_any_moment_of_a_sale_goes_on_from_what_is_on_disk(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "RESTART_S", 0.0)
    counter, choice = Counter(tmp_path / "state"), random.Random(SEED)
    counter.start()
    try:
        till, killer = Till(counter), Killer(counter)
        try:
            till.settled()
            moments = [m for kind in KINDS for m in moments_of(one(till, killer, kind))]
            choice.shuffle(moments)
            assert len(moments) >= KILLS_MIN, moments
            for moment in moments:
                if len(killer.kills) < KILLS_MAX:
                    killer.again = choice.random() < BOOT_TOO
                    one(till, killer, moment.kind, moment)
        finally:
            killer.end()
        killed = {kill.moment for kill in killer.kills}
        assert len(killed) == len(killer.kills) >= KILLS_MIN, set(moments) - killed
        assert {moment.kind for moment in killed} == set(KINDS)
        assert [kill for kill in killer.kills if kill.rows < 1] == []      # none while idle
        assert killer.boots_killed >= 3 and counter.daemon.starts == 1 + len(killer.kills) + killer.boots_killed
        till.until(lambda state, papers: counter.quiet(), "the day")
        summary = counter.summary()
        assert summary["agree"] is True, summary
        tokens, orders = counter.cloud_records()["tokens"], counter.channel_orders()
        papers = [paper.text for paper in counter.printer.receipts()]
    finally:
        counter.stop()
    secrets_stayed(tmp_path / "state", codes=[])
    closed = sales_on_disk(tmp_path / "state" / "box" / "journal.db")
    records = [payload_of(token) for token in tokens]
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    sold = [r["body"] for r in records if r["kind"] == "sale"]
    assert sorted(body["order_no"] for body in sold) == sorted(closed)
    assert len(set(closed)) == len(closed) == summary["sales"]
    owed = Tally({t["order_no"]: t["amount_fen"] for body in sold for t in body["tenders"] if t["order_no"]})
    for record in records:
        if record["kind"] == "refund" and record["body"]["method"] != "cash":
            owed[record["body"]["order_no"]] -= record["body"]["amount_fen"]
    assert +owed == +Tally({o["order_no"]: o["captured_fen"] - o["refunded_fen"] for o in orders})
    originals = Tally(order_no_of(p) for p in papers if "合计" in p and not is_copy(p) and "退款号" not in p)
    assert [no for no, times in originals.items() if times > 1] == []


def sales_on_disk(journal: Path) -> list[str]:
    """Order numbers of the sales that the journal tells, in order."""
    with contextlib.closing(sqlite3.connect(journal)) as db:
        rows = [facts.decode(row) for (row,) in db.execute("SELECT facts FROM journal ORDER BY n")]
    return [fact.sale.order_no for row in rows for fact in row.facts if isinstance(fact, facts.SaleClosed)]


def test_a_second_daemon_on_the_same_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    counter = Counter(tmp_path / "state")
    counter.start()
    try:
        second = subprocess.run([sys.executable, "-m", "device", "run", "--config", str(counter.folder / "box.toml")],
                                cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
        assert second.returncode == 1
        assert len(second.stderr.splitlines()) == 1 and "journal" in second.stderr, second.stderr
        assert counter.state()["phase"] == "IDLE" and counter.daemon.starts == 1
    finally:
        counter.stop()
