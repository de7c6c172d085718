"""`tillfleet dates`: when each record of a box really happened, and how wrong that can be, by its `clock` records."""

from __future__ import annotations

import argparse
import datetime
import json
from typing import Any

from device.store_forward.dating import Dated, clocks_of, dated
from device.store_forward.token import parse


def add(commands: Any) -> None:
    dates = commands.add_parser("dates", help="when each record of a box really happened, and how wrong that can be")
    dates.add_argument("box")
    dates.add_argument("--store", required=True, metavar="PLACE", help="a file, or postgresql://...")
    dates.add_argument("--json", action="store_true", help="one object a line, the summary last")
    dates.set_defaults(run=_dates)


def _dates(args: argparse.Namespace) -> int:
    """0; 1 when some record has no date."""
    from fleet.records.store import Store

    store = Store(args.store)
    counts: dict[str, int] = {}
    for box, jid, _, _ in store.guards():
        if box != args.box:
            continue
        records = [parse(token).payload for token in store.chain(box, jid)]
        for record, date in zip(records, dated(records, clocks_of(records)), strict=True):
            counts[date.source] = counts.get(date.source, 0) + 1
            print(_line(record.kind, record.at, date, args.json))
    summary = {"box": args.box, "records": sum(counts.values()), **counts}
    print(json.dumps(summary) if args.json else ", ".join(f"{key} {value}" for key, value in summary.items()))
    store.close()
    return 1 if counts.get("none") or not counts else 0


def _line(kind: str, claimed: str, date: Dated, as_json: bool) -> str:
    at = datetime.datetime.fromtimestamp(date.at_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
    if as_json:
        return json.dumps({"jid": date.jid, "seq": date.seq, "kind": kind, "at": at, "error_ms": date.error_ms,
                           "source": date.source, "claimed": claimed})
    error = "no bound" if date.error_ms is None else f"+-{date.error_ms / 1000:.1f} s"
    return f"{date.jid} {date.seq:>8} {kind:<14} {at} {error:<12} {date.source}"
