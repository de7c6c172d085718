"""`tillbox dates FILE`: when each record of a chain really happened, and how wrong that can be.  Checks nothing: verify first."""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterable, Iterator

from device.store_forward.dating import Dated, clocks_of, dated
from device.store_forward.token import Payload, TokenError, parse


def main(argv: list[str]) -> int:
    """0; 1 when some record has no date, 2 for a file that cannot be read."""
    parser = argparse.ArgumentParser(prog="tillbox dates", description="Date the records of a chain, one token a line.")
    parser.add_argument("file", help="file of tokens, - for standard input")
    parser.add_argument("--json", action="store_true", help="one object a line")
    asked = parser.parse_args(argv)
    try:
        lines = sys.stdin.read().split() if asked.file == "-" else open(asked.file, encoding="ascii").read().split()
        records = [parse(line).payload for line in lines]
    except (OSError, UnicodeDecodeError, TokenError) as why:
        print(f"tillbox dates: {why}", file=sys.stderr)
        return 2
    dates = dated(records, clocks_of(records))
    for line in said(records, dates, json_lines=asked.json):
        print(line)
    return 1 if any(date.error_ms is None for date in dates) else 0


def said(records: Iterable[Payload], dates: Iterable[Dated], *, json_lines: bool) -> Iterator[str]:
    """A line for each record: number, kind, date in UTC, error, source."""
    for record, date in zip(records, dates, strict=True):
        at = datetime.datetime.fromtimestamp(date.at_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
        if json_lines:
            yield json.dumps({"jid": date.jid, "seq": date.seq, "kind": record.kind, "at": at, "error_ms": date.error_ms,
                              "source": date.source, "claimed": record.at, "clk": record.clk})
        else:
            error = "no bound" if date.error_ms is None else f"+-{date.error_ms / 1000:.1f} s"
            yield f"{date.seq:>8} {record.kind:<14} {at} {error:<12} {date.source}"
