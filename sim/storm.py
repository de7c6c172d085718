"""A storm of payments: every channel's real codec against its real server, every fault of every channel, the box's own deaths.

One seed decides it all.  The payments are dealt to many boxes, each with a journal, days and nights of its own, and two processes
share the boxes.  In the end each order's money is counted at its channel, in the journal and in the cloud.

    python -m sim.storm --seed 1 --payments 20000 --json
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import multiprocessing
import os
import pkgutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from sim.virtual.fate import RATES
from sim.virtual.shop import Breach, Shop
from sim.virtual.sums import Sums

BOX_PAYMENTS = 150             # of one box: its days stay short, and there are many of them
# How many of its payments are tried by the end of each day, and for how long nobody comes in the morning: once for longer than a
# closed QR is watched.
DAYS = ((.4, 0), (.8, 7_800), (1.0, 0))
PROMISED = 1_000               # payments among which every fault happens at least once
GATEWAYS = ("gateway", "shouqianba")       # a box has one of them
ENCORE_PAYMENTS, ENCORES_MAX = 40, 12     # two boxes more, as often as that, for faults that chance left out
JOBS = 2
ASIDE = ("box", "cloud", "counter", "printer")       # places that are no channel


class Row(msgspec.Struct):
    """What became of the orders that were under way while one fault happened at one channel."""

    channel: str
    fault: str
    fired: int = 0
    undecided: int = 0                 # outlived their time: only the bill, or a later word, told
    late_paid: int = 0                 # paid when nobody waited for it any more
    breaches: int = 0

    def add(self, other: Row) -> None:
        for name in ("fired", "undecided", "late_paid", "breaches"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class BoxTold(msgspec.Struct):
    """One box's part of the storm."""

    number: int
    rows: list[Row] = []
    breaches: list[str] = []
    fen: dict[str, int] = {}           # what each channel holds for the shop
    sums: dict[str, int] = {}
    trace: str = ""


def boxful(seed: int, number: int, payments: int, first: bool = False, owed: tuple[tuple[str, str], ...] = ()) -> BoxTold:
    """One box, from its first morning until everything is decided; or until its `first` breach.  `owed` faults come first."""
    told = BoxTold(number)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        names = ("wechat", "alipay", "unionpay", GATEWAYS[number % 2], "card")
        shop = Shop(seed * 1_000_003 + number, RATES["storm"], Path(folder), names, variant=number // 2, first=first)
        shop.fate.owed = set(owed)

        async def story() -> None:
            for part, pause_s in DAYS:
                await shop.day(round(payments * part), pause_s)
            _count(told, shop, Sums(shop, await shop.rest()))
        try:
            shop.play(story())
        except Exception as why:                      # noqa: BLE001  a box that cannot go on is a breach, whatever stopped it
            told.breaches += shop.breaches if isinstance(why, Breach) else [f"the box stopped: {type(why).__name__}: {why}"]
            told.sums = {"payments": len(shop.attempts)}
            told.rows = _rows(shop, set(shop.attempts))
        told.trace = shop.till.trace
    return told


def _count(told: BoxTold, shop: Shop, sums: Sums) -> None:
    told.breaches, told.fen, told.rows = sums.breaches, sums.fen_by_channel(), _rows(shop, sums.broken)
    books = shop.till.books
    told.sums = {"payments": len(shop.attempts), "sales": books.chain.count, "boots": shop.till.boots,
                 "channel_fen": sums.channel_fen, "wallet_fen": books.wallet_fen,
                 "journal_fen": books.chain.sales_fen - books.chain.refunds_fen, "cloud_fen": sums.cloud_fen,
                 "undecided": sum(o.phase == "undecided" for o in books.orders.values()), "late_paid": len(shop.late),
                 "virtual_s": shop.clock.ms() // 1000}


def _rows(shop: Shop, broken: set[str]) -> list[Row]:
    ends = (shop.overdue, shop.late, broken)
    return [Row(place, fault, fired, *(len(shop.fate.struck[place, fault] & orders) for orders in ends))
            for (place, fault), fired in shop.fate.fired.items() if place != "counter"]


class Storm:
    """All boxes together; or until the `first` breach, for a box that is known to be broken."""

    def __init__(self, seed: int, payments: int, first: bool = False) -> None:
        boxes = max(1, -(-payments // BOX_PAYMENTS))
        self.seed, self.payments, self._first = seed, payments, first
        self.parts: list[tuple[Any, ...]] = [
            (seed, n, payments * (n + 1) // boxes - payments * n // boxes, first, ()) for n in range(boxes)]
        self.rows: dict[tuple[str, str], Row] = {}
        self.sums, self.fen = Counter[str](), Counter[str]()
        self.breaches: list[str] = []
        self._trace = hashlib.sha256()

    def run(self, jobs: int, plant: str) -> None:
        if jobs == 1:
            _begin(plant)
            self._play(map)
        else:
            with multiprocessing.get_context("spawn").Pool(jobs, _begin, (plant,)) as pool:
                self._play(pool.imap)

    def _play(self, each: Callable[[Callable[[Any], BoxTold], Iterable[Any]], Iterable[BoxTold]]) -> None:
        """All boxes; then, two at a time, some more, in which what chance left out comes first."""
        self._take(each(_box, self.parts))
        for _ in range(ENCORES_MAX):
            if not self.missed or self.breaches:
                return
            owed, n = tuple((row.channel, row.fault) for row in self._short()), len(self.parts)
            more = [(self.seed, n + k, ENCORE_PAYMENTS, self._first, owed) for k in (0, 1)]
            self.parts += more
            self._take(each(_box, more))

    def _take(self, told: Iterable[BoxTold]) -> None:
        for box in told:
            for row in box.rows:
                self.rows.setdefault((row.channel, row.fault), Row(row.channel, row.fault)).add(row)
            self.sums.update(box.sums)
            self.fen.update(box.fen)
            self.breaches += [f"box {box.number}: {what}" for what in box.breaches]
            self._trace.update(box.trace.encode())
            if self._first and self.breaches:
                return

    @property
    def missed(self) -> list[str]:
        """Faults that happened less often than promised."""
        return [f"{row.channel} {row.fault}" for row in self._short()]

    def _short(self) -> list[Row]:
        least = self.payments // PROMISED if not self._first else 0
        return [row for row in self.table() if row.channel not in ASIDE and row.fired < least]

    def table(self) -> list[Row]:
        return [self.rows[at] for at in sorted(self.rows)]

    def summary(self) -> dict[str, Any]:
        return {"seed": self.seed, "boxes": len(self.parts), **self.sums, "fen": dict(sorted(self.fen.items())),
                "missed": self.missed, "breaches": self.breaches, "agree": not (self.breaches or self.missed),
                "trace": self._trace.hexdigest()}


def _begin(plant: str) -> None:
    logging.disable(logging.ERROR)                    # a box says much in a storm, and none of it counts here
    if plant:
        importlib.import_module(f"tests.planted.{plant}").plant(setattr)


def _box(part: tuple[Any, ...]) -> BoxTold:
    return boxful(*part)


def all_planted(seed: int, payments: int, jobs: int) -> int:
    """Break the box in every way that stands in tests/planted, one after the other; 0 when the storm sees each of them."""
    names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module("tests.planted").__path__))
    unseen = []
    for name in names:
        began, storm = time.monotonic(), Storm(seed, payments, first=True)
        storm.run(max(2, jobs), name)                 # in processes of their own: what is planted cannot be pulled out
        unseen += [] if storm.breaches else [name]
        told = {"plant": name, "found": bool(storm.breaches), "payments": storm.sums["payments"], "breach": storm.breaches[:1],
                "seconds": round(time.monotonic() - began, 1)}
        print(json.dumps(told, ensure_ascii=False), flush=True)
    print(json.dumps({"plants": len(names), "unseen": unseen, "agree": not unseen}))
    return 1 if unseen else 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.storm", description="Payments over all channels with every fault.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--payments", type=int, default=20_000, help=f"tries to pay; from {PROMISED} on every fault happens")
    parser.add_argument("--jobs", type=int, default=min(JOBS, os.cpu_count() or 1), help="processes")
    parser.add_argument("--plant", default="", metavar="NAME",
                        help="break the box by tests/planted/NAME.py: must exit 1; all: by each")
    parser.add_argument("--json", action="store_true", help="one object a line, the summary last")
    args = parser.parse_args(argv)
    if args.plant == "all":
        return all_planted(args.seed, args.payments, args.jobs)
    began = time.monotonic()
    storm = Storm(args.seed, args.payments, first=bool(args.plant))
    storm.run(args.jobs, args.plant)
    summary = storm.summary() | {"seconds": round(time.monotonic() - began, 1)}
    summary["per_second"] = round(summary["payments"] / max(.1, summary["seconds"]), 1)
    if args.json:
        for row in storm.table():
            print(json.dumps(msgspec.to_builtins(row)))
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print(f"{'channel':12}{'fault':22}{'fired':>7}{'undecided':>11}{'late paid':>11}{'breaches':>10}")
        for row in storm.table():
            print(f"{row.channel:12}{row.fault:22}{row.fired:7}{row.undecided:11}{row.late_paid:11}{row.breaches:10}")
        print("\n".join(f"{name:14} {value}" for name, value in summary.items()))
        if args.payments < PROMISED:
            print(f"So few payments do not meet every fault: that is promised from {PROMISED} on.")
    return 0 if summary["agree"] else 1


if __name__ == "__main__":
    sys.exit(main())
