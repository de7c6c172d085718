"""Hours at a counter with two routes for one wallet, one of which fails now and then: what the choice of a route is worth.

The real box, runner and drivers on virtual time, against the real local servers of both routes.  A script is the table `[routes]`
of a TOML file (tests/days/routes.toml says what each key means); the same file may hold `[[step]]` for the counter's own day.

    python -m sim.routes tests/days/routes.toml --json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import statistics
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from device import rules
from device.txn.books import Phase
from device.txn.desk import Verdict
from device.txn.facts import OrderIntended
from device.txn.inputs import Input
from device.types import Found, Item, Terms
from sim.virtual.channels import Alipay, Channel, Gateway, Unionpay, Wechat
from sim.virtual.fate import Fate, WorldClock
from sim.virtual.loop import VirtualLoop
from sim.virtual.till import Till

GOODS = Found(Item("6902538004045", "脉动青柠味600ml", "Mizone lime 600ml", 500))
CHANNELS: dict[str, type[Channel]] = {channel.name: channel for channel in (Wechat, Alipay, Unionpay, Gateway)}
PLACING = {"create", "place", "precreate"}
LIVE = (Phase.PLACING, Phase.AWAITING, Phase.ASKING)
HOUR_S = 3_600
SUCCESS_MIN, SWITCHES_MAX = .97, 1


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """In `from_min` to `to_min` of each hour `share` of the orders at `channel` are struck: their `calls` suffer `kind`.

    `calls` is `place`, all requests for a QR, or `all`: then nobody can say either what became of it.
    """

    channel: str
    from_min: Annotated[float, msgspec.Meta(ge=0, le=60)]
    to_min: Annotated[float, msgspec.Meta(ge=0, le=60)]
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    calls: Literal["place", "all"] = "place"
    kind: str = "lost_request"


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    route: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    hours: Annotated[float, msgspec.Meta(gt=0, le=24)]
    every_s: Annotated[float, msgspec.Meta(ge=10, le=3600)]
    patience_s: Annotated[float, msgspec.Meta(ge=10, le=600)] = 60
    seed: int = 1
    fault: tuple[Fault, ...] = ()


def read(file: Path) -> Script:
    """ValueError, one sentence, when there is no script in it, or not such a one."""
    try:
        script = msgspec.convert(tomllib.loads(file.read_text("utf-8")).get("routes"), Script)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as why:
        raise ValueError(f"{file}: no [routes] to play: {why}") from None
    if strange := {*script.route, *(f.channel for f in script.fault)} - set(CHANNELS):
        raise ValueError(f"{file}: no channel here is called {sorted(strange)[0]}")
    return script


class Trouble(Fate):
    """Strikes the orders that the script names, all their requests for a QR, and nothing else."""

    def __init__(self, script: Script, clock: WorldClock, faulty: bool) -> None:
        super().__init__(script.seed, {})
        self._script, self._clock, self._faulty = script, clock, faulty

    def choose(self, place: str, call: str, kinds: Iterable[str], order_no: str = "", *rare: object) -> str:
        minute = self._clock.ms() / 1000 % HOUR_S / 60
        for fault in self._script.fault if self._faulty and not self.quiet else ():
            if (fault.channel == place and fault.from_min <= minute < fault.to_min and self._lot(order_no) < fault.share
                    and (fault.calls == "all" or call in PLACING)):
                self.note(place, fault.kind, order_no)
                return fault.kind
        return ""

    def _lot(self, order_no: str) -> float:
        return int.from_bytes(hashlib.sha256(f"{self._script.seed} {order_no}".encode()).digest()[:4], "big") / (1 << 32)


class Counting:
    """What the box decided: who got each sale's first attempt, how many were rerouted, and whether two were ever live."""

    def __init__(self) -> None:
        self.firsts: list[tuple[float, str]] = []
        self.rerouted = self.two_live = 0
        self.attempts: Counter[str] = Counter()


class Hours:
    """One play of `script`; `routed` off leaves the shop's first route alone."""

    def __init__(self, script: Script, folder: Path, *, routed: bool, faulty: bool) -> None:
        self.script, self.routed, self.faulty = script, routed, faulty
        self.loop = VirtualLoop()
        self.clock = WorldClock(self.loop.time)
        self.fate = Trouble(script, self.clock, faulty)
        self.channels: dict[str, Channel] = {
            name: CHANNELS[name](self.fate, self.clock, script.seed, 0) for name in (script.route if routed else script.route[:1])}
        table = rules.parse(Path(rules.__file__).with_name("rules.json").read_bytes())
        terms = Terms(accounts=tuple(c.account() for c in self.channels.values()), route=tuple(self.channels),
                      rules=table.rules, codes=table.codes)
        self.counted, self.paid_s = Counting(), list[float]()
        self.till = Till(self.fate, self.clock, folder, terms, self._parts, met=lambda till: None, rows=lambda: None,
                         watch=self._watch)

    def _parts(self, till: Till) -> dict[str, Any]:
        return {f"channel:{name}": channel.made(till.later) for name, channel in self.channels.items()}

    def _watch(self, event: Input, verdict: Verdict) -> None:
        counted, books = self.counted, self.till.box.books
        for fact in verdict.facts:
            if isinstance(fact, OrderIntended):
                counted.attempts[fact.intent.channel] += 1
                counted.rerouted += bool(fact.reroutes)
                if not fact.reroutes:
                    counted.firsts.append((self.loop.time(), fact.intent.channel))
        live = [no for no, o in books.orders.items() if not o.park and o.basket is None and o.phase in LIVE]
        counted.two_live += len(live) > 1 or any(no != books.basket.order_no for no in live)

    def run(self) -> dict[str, Any]:
        """The figures of the hours."""
        try:
            self.loop.run_until_complete(self._hours())
        finally:
            self.loop.close()
        return self._figures()

    async def _hours(self) -> None:
        living = self.loop.create_task(self.till.live())
        await asyncio.sleep(1)
        for n in range(int(self.script.hours * HOUR_S / self.script.every_s)):
            await asyncio.sleep(max(0.0, 1 + n * self.script.every_s - self.loop.time()))
            await self._customer()
        self.fate.quiet = True
        await self.till.until(lambda: all(o.phase is Phase.CLOSED for o in self.till.books.orders.values())
                              and not self.till.books.refunds, HOUR_S)
        self.till.kill(HOUR_S)
        await asyncio.sleep(1)                        # and its tasks end
        living.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await living

    async def _customer(self) -> None:
        """One basket, PAY once, a phone that scans what it sees; who waits too long pays cash."""
        till, began_s = self.till, self.loop.time()
        await till.scan(GOODS.item.gtin, GOODS)
        await till.press("PAY")
        last_s, seen = began_s + self.script.patience_s, {""}
        while till.phase != "PAID" and (left_s := last_s - self.loop.time()) > 0:
            if not await till.until(lambda: till.phase == "PAID" or self._qr() not in seen, left_s) or till.phase == "PAID":
                continue
            seen.add(qr := self._qr())
            await asyncio.sleep(self.fate.random.uniform(2, 4))
            if self._qr() == qr:
                self.channels[till.books.orders[till.books.basket.order_no].intent.channel].scan(qr, "wechat", "pay", 0)
        if till.phase == "PAID":
            self.paid_s.append(self.loop.time() - began_s)
        else:
            await till.press("CASH")
        await till.press("CLEAR")

    def _qr(self) -> str:
        order = self.till.books.orders.get(self.till.books.basket.order_no)
        return order.qr if order is not None and order.phase is Phase.AWAITING else ""

    def _figures(self) -> dict[str, Any]:
        counted, paid, patience_s = self.counted, sorted(self.paid_s), self.script.patience_s
        sales = len(counted.firsts)
        switches = Counter(int(at // HOUR_S) for (_, before), (at, now) in zip(counted.firsts, counted.firsts[1:], strict=False)
                           if now != before)
        held = sum(row["captured_fen"] - row["refunded_fen"] for c in self.channels.values() for row in c.orders())
        return {"routing": self.routed, "faults": self.faulty, "customers": sales, "paid": len(paid),
                "success": round(len(paid) / sales, 4), "median_s": round(statistics.median(paid), 2),
                "p95_s": waited_s(paid, sales, .95, patience_s), "p99_s": waited_s(paid, sales, .99, patience_s),
                "struck": self._struck(), "rerouted": counted.rerouted,
                "attempts": dict(sorted(counted.attempts.items())), "switches": sum(switches.values()),
                "switches_an_hour_max": max(switches.values(), default=0), "two_live": counted.two_live,
                "channel_fen": held, "books_fen": self.till.books.wallet_fen}

    def _struck(self) -> int:
        return len(set().union(*self.fate.struck.values()))


def waited_s(paid: list[float], customers: int, share: float, patience_s: float) -> float:
    """How long `share` of all customers waited at most; who never paid by phone waited until patience ended."""
    place = int(customers * share)
    return round(paid[place], 2) if place < len(paid) else patience_s


def play(script: Script, *, routed: bool, faulty: bool) -> dict[str, Any]:
    root = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=root) as folder:
        return Hours(script, Path(folder), routed=routed, faulty=faulty).run()


def faults_of(before: dict[str, Any], after: dict[str, Any], clean: dict[str, Any]) -> list[str]:
    """What does not hold of three plays: one route and two, with faults, and two without."""
    said = [f"success {after['success']} is below {SUCCESS_MIN}"] if after["success"] < SUCCESS_MIN else []
    if clean["switches_an_hour_max"] > SWITCHES_MAX:
        said.append(f"{clean['switches_an_hour_max']} switches in one clean hour")
    for row in (before, after, clean):
        said += ["two attempts of one sale were live"] if row["two_live"] else []
        said += ["channel and books disagree"] if row["channel_fen"] != row["books_fen"] else []
    return said


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.routes", description="Two routes, one of which fails now and then.")
    parser.add_argument("file", type=Path, nargs="?", default=Path("tests/days/routes.toml"))
    parser.add_argument("--hours", type=float, help="in place of the script's own")
    parser.add_argument("--json", action="store_true", help="one object a line, the summary last")
    args = parser.parse_args(argv)
    try:
        script = read(args.file)
    except ValueError as why:
        print(why, file=sys.stderr)
        return 2
    logging.getLogger("tillbox").setLevel(logging.CRITICAL)
    script = msgspec.structs.replace(script, hours=args.hours or script.hours)
    rows = [play(script, routed=routed, faulty=faulty) for routed, faulty in ((False, True), (True, True), (True, False))]
    broken = faults_of(*rows)
    summary = {"success_before": rows[0]["success"], "success_after": rows[1]["success"], "p95_s_before": rows[0]["p95_s"],
               "p95_s_after": rows[1]["p95_s"], "clean_switches_an_hour_max": rows[2]["switches_an_hour_max"], "broken": broken}
    for row in (*rows, summary):
        print(json.dumps(row, ensure_ascii=False) if args.json else "  ".join(f"{k} {v}" for k, v in row.items()))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
