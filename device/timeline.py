"""`tillbox timeline FILE ORDER`: everything the journal says of one order, oldest first.

Reads only, and while no daemon holds the file: a running one locks it.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys

import msgspec

from device.txn import facts

SECRET = {"qr", "token", "paper"}           # long or not for eyes: named, not shown


def main(argv: list[str]) -> int:
    """0 when the order was found, 1 when the journal never saw it, 2 when there is no journal to read."""
    parser = argparse.ArgumentParser(prog="tillbox timeline", description="What happened to one order.")
    parser.add_argument("file", help="the journal, journal.db in the state folder")
    parser.add_argument("order", help="order, receipt or refund number")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    try:
        db = sqlite3.connect(f"file:{args.file}?mode=ro", uri=True)
        rows = db.execute("SELECT n, facts FROM journal WHERE instr(facts, ?) ORDER BY n", (args.order.encode(),)).fetchall()
    except sqlite3.Error as why:
        hint = "stop the daemon that holds it, or copy it with its -wal" if "locked" in str(why) else "give the journal.db of a box"
        print(f"tillbox timeline: {args.file} cannot be read: {why}; {hint}", file=sys.stderr)
        return 2
    found = 0
    for n, row in rows:
        entry = facts.decode(row)
        for fact in entry.facts:
            if isinstance(fact, facts.BooksStood) or args.order.encode() not in msgspec.json.encode(fact):
                continue
            found += 1
            fields = {k: v for k, v in msgspec.to_builtins(fact).items() if k != "type" and k not in SECRET}
            line = {"n": n, "at": entry.at.wall, "fact": type(fact).__name__, **fields}
            print(json.dumps(line, ensure_ascii=False) if args.json
                  else f"{n:>8}  {entry.at.wall[:23]}  {type(fact).__name__:<20} {_short(fields)}")
    if not found:
        print(f"no fact names {args.order}: it is not of this journal", file=sys.stderr)
    return 0 if found else 1


def _short(fields: dict) -> str:
    text = json.dumps(fields, ensure_ascii=False)
    return text if len(text) <= 160 else text[:159] + "…"
