"""Every order of events, to a stated depth: the real box against a small model of what its channel holds.

Breadth first, so the first breach has its shortest story.  `Box.handle` is called for every step: decide, evolve, wants and what
counts as started are the real ones, and so are the facts.  What can happen at every point: any key of the cashier that can
matter; a request reaches the channel, or its answer is lost, or comes later, again, out of order, or the request itself comes
late; payers pay, pay after the close, or do not; the channel ends an order by itself; any alarm; an answer that proves
nothing; the bill; a restart, and a power cut that loses what was not synced.

Left out, on purpose: bytes and proofs (codecs and sim.world have them); printer, drawer, records and cloud (their rows are
looked at, no more); how long things take (an alarm may ring at any moment, and what an order's shelf life rules out is ruled out
once its alarm rang); weighed goods, holds, reports; refunds that fail after they were accepted.  Two requests and two answers can
be under way.  States count once that differ only in the numbers given out, in time, words, papers, records and counts.

    python -m sim.search --depth 9 --json
"""

from __future__ import annotations

import argparse
import gc
import importlib
import itertools
import json
import sys
import time
from typing import Any

from sim.search_laws import Laws
from sim.search_step import Breach, Node, Table

QR = ("PAY", "CANCEL", "PARK", "ENTER", "CASH", "CLEAR")
PAYERS_CODE = ("CODE", "CANCEL", "PARK", "ENTER", "CASH", "CLEAR")
TABLES = {table.name: table for table in (
    Table("qr", ("wechat.qr",), QR),
    Table("qr_no_close", ("unionpay.qr",), QR, held=True),
    Table("qr_unborn", ("alipay.qr",), QR),
    Table("qr_refused", ("gateway.qr",), QR, refused=True),
    Table("qr_wrong", ("wechat.qr",), QR, attempts=1, customers=1, wrong=True),
    Table("code", ("wechat.code",), PAYERS_CODE, refused=True),
    Table("code_marks", ("gateway.code",), PAYERS_CODE),
    Table("code_asks", ("unionpay.code",), PAYERS_CODE, held=True),
    Table("code_night", ("alipay.code",), ("CODE", "CANCEL", "PARK", "ENTER"), customers=1, attempts=1, night=True, refused=True),
    Table("qr_night", ("unionpay.qr",), ("PAY", "CANCEL", "PARK", "ENTER"), customers=1, attempts=1, night=True),
    Table("card", ("card.card",), ("5 PAY", *PAYERS_CODE[1:]), refused=True),
    Table("routes", ("wechat.qr", "gateway.qr"), ("PAY", "CANCEL", "PARK", "ENTER", "CASH"), customers=1, refused=True),
    Table("parts", ("wechat.qr",), ("200 PAY", "PAY", "200 CASH", "CASH", "PARK", "CANCEL", "CLEAR"), customers=1),
    Table("refund", ("wechat.qr",), ("PAY", "REFUND", "200 REFUND", "CANCEL", "CASH"), attempts=1, refused=True),
)}


class Search:
    """One table.  `run(depth)` gives its figures, and `breach` and `trace` when something was found."""

    def __init__(self, table: Table) -> None:
        self.table, self.laws = table, Laws(table)
        self._trail: list[tuple[int, str]] = [(-1, "start")]

    def run(self, depth: int, states_max: int = 0) -> dict[str, Any]:
        """Go `depth` steps deep, or until `states_max` states are known (0: no such bound)."""
        began, reached = time.monotonic(), 0
        told: dict[str, Any] = {}
        gc.disable()                                  # nothing here points to itself, and looking for it takes a fifth of the time
        frontier: list[tuple[int, Node]] = [(0, self.laws.root)]
        seen = {self.laws.key(self.laws.root)}
        while frontier and reached < depth and not told and not (states_max and len(seen) >= states_max):
            ahead: list[tuple[int, Node]] = []
            for place, node in frontier:
                try:
                    self._grow(place, node, seen, ahead)
                except Breach as found:
                    told = {"breach": found.what, "trace": [*self._story(place), found.how]}
                    break
            else:
                reached += 1
            frontier = ahead
        gc.enable()
        return {"table": self.table.name, "kinds": list(self.table.kinds), "depth": reached, "states": len(seen),
                "steps": self.laws.handled, "rounds_to_rest_max": self.laws.rounds_max, "exhausted": not frontier,
                "seconds": round(time.monotonic() - began, 1), **told}

    def _grow(self, place: int, node: Node, seen: set[bytes], ahead: list[tuple[int, Node]]) -> None:
        for how, after in self.laws.moves(node):
            key = self.laws.key(after)
            if key in seen:
                continue
            seen.add(key)
            self.laws.judge(how, after)
            self._trail.append((place, how))
            ahead.append((len(self._trail) - 1, after))

    def _story(self, place: int) -> list[str]:
        told: list[str] = []
        while place > 0:
            place, how = self._trail[place]
            told.append(how)
        return told[::-1]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.search", description="Every order of events, to a stated depth.")
    parser.add_argument("--depth", type=int, default=9, help="events, counted from an empty counter")
    parser.add_argument("--states", type=int, default=0, help="stop a table after the level that passes so many states")
    parser.add_argument("--table", action="append", choices=sorted(TABLES), help="only this one; may be given again")
    parser.add_argument("--plant", metavar="NAME", help="break the box on purpose, by tests/planted/NAME.py: must exit 1")
    parser.add_argument("--json", action="store_true", help="one object a line, the summary last")
    args = parser.parse_args(argv)
    if args.plant:
        importlib.import_module(f"tests.planted.{args.plant}").plant(setattr)
    results: list[dict[str, Any]] = []
    depths = range(4, args.depth + 1) if args.plant else [args.depth]      # whatever is planted should be found soon
    for depth, name in itertools.product(depths, args.table or TABLES):
        results.append(Search(TABLES[name]).run(depth, args.states))
        _tell(results[-1], args.json)
        if args.plant and "breach" in results[-1]:
            break
    summary = {"states": sum(r["states"] for r in results), "steps": sum(r["steps"] for r in results), "plant": args.plant or "",
               "seconds": round(sum(r["seconds"] for r in results), 1), "breaches": sum("breach" in r for r in results)}
    _tell(summary, args.json)
    return 1 if summary["breaches"] else 0


def _tell(said: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(said, ensure_ascii=False), flush=True)
        return
    print("  ".join(f"{name} {value}" for name, value in said.items() if name not in ("trace", "breach")), flush=True)
    if "breach" in said:
        print(f"BREACH: {said['breach']}", *(f"{n:3} {how}" for n, how in enumerate(said["trace"], 1)), sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
