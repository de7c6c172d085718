"""One shop for days on virtual time: the real box, runner, journal and signing, every channel's codec and server, the collector.

The storm deals payments to many short-lived boxes; this is one box that grows old: its books are said again, its sales leave them
and are looked up, its closed orders end.  One seed decides everything: what customers do, which answers are lost, repeated, late or
lies, where the box is killed.  Afterwards money is counted at the channels, in the journal, in the cloud and on paper.

    python -m sim.world --seed 1 --sales 1000 --json
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sim.virtual.fate import RATES as FAULT_SETS
from sim.virtual.shop import Breach, Shop
from sim.virtual.sums import Sums, at_rest_summary

DAY_SALES = 200
CHANNELS = ("wechat", "alipay", "unionpay", "gateway", "card")


class World:
    """A shop and its cloud.  `run()` plays until `sales` are signed and returns the counted summary.

    `first`: it ends with the first breach.
    """

    def __init__(self, seed: int, sales: int, faults: dict[str, float], folder: Path, *, first: bool = False) -> None:
        self.seed, self.sales = seed, sales
        self.shop = Shop(seed, faults, folder, CHANNELS, variant=seed, first=first)
        self.sums: Sums | None = None

    def run(self) -> dict[str, Any]:
        try:
            self.shop.play(self._story())
        except Breach:
            pass                                      # the shop knows it
        fired = Counter[str]()
        for (_, fault), times in self.shop.fate.fired.items():
            fired[fault] += times
        breaches = self.sums.breaches if self.sums is not None else self.shop.breaches
        figures = at_rest_summary(self.sums) if self.sums is not None else {"boots": self.shop.till.boots}
        return {**figures, "fired": dict(sorted(fired.items())), "breaches": breaches, "agree": not breaches}

    async def _story(self) -> None:
        shop, sold = self.shop, lambda: shop.till.books.chain.count
        for goal in [*range(DAY_SALES, self.sales, DAY_SALES), self.sales]:
            await shop.sell(lambda goal=goal: sold() >= goal, goal)      # type: ignore[misc]
            await shop.till.press("Z")
            if goal < self.sales:
                await shop.night()
        at_rest = await shop.rest()
        await shop.till.reread()
        self.sums = Sums(shop, at_rest)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.world", description="One shop for days on virtual time, from one seed.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sales", type=int, default=1_000)
    parser.add_argument("--faults", choices=sorted(FAULT_SETS), default="ci")
    parser.add_argument("--plant", metavar="NAME", help="break the box on purpose, by tests/planted/NAME.py: must exit 1")
    parser.add_argument("--json", action="store_true", help="one object a line, the summary last")
    args = parser.parse_args(argv)
    if args.plant:
        importlib.import_module(f"tests.planted.{args.plant}").plant(setattr)
    logging.disable(logging.ERROR)                    # a box says much among so many faults, and none of it counts here
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        summary = World(args.seed, args.sales, FAULT_SETS[args.faults], Path(folder), first=bool(args.plant)).run()
    summary = {"seed": args.seed, **summary}
    if args.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print("\n".join(f"{name:14} {value}" for name, value in summary.items()))
        print(f"{args.sales / (time.monotonic() - began):.0f} sales a second")
    return 0 if summary["agree"] else 1


if __name__ == "__main__":
    sys.exit(main())
