"""`tillfleet settle BOX`: what became of the payments that a box left open, by the channels' own word."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from device.console.printing import safe


def add(commands: Any) -> None:
    settle = commands.add_parser("settle", help="ask the channels about the orders a box left open; moves no money")
    settle.add_argument("box", metavar="BOX")
    settle.add_argument("--store", required=True, metavar="PLACE", help="a file, or postgresql://...")
    settle.add_argument("--config", required=True, type=Path, metavar="TOML", help="accounts and keys to ask with (docs/link.md)")
    settle.add_argument("--json", action="store_true")
    settle.set_defaults(run=_settle)


def _settle(args: argparse.Namespace) -> int:
    """0 when every order is decided; 1 when one is not; 2 when the box never told, or a file cannot be used."""
    from fleet.records.store import Store
    from fleet.settle import DECIDED, accounts_in, settled

    accounts = accounts_in(args.config.read_text(encoding="utf-8"))
    store = Store(args.store)
    try:
        told = settled(store.database, args.box, accounts, now_s=time.time,
                       at=datetime.now(UTC).astimezone().isoformat(timespec="seconds"))
    except LookupError as why:
        raise ValueError(str(why.args[0])) from None
    finally:
        store.close()
    for one in told:
        print(json.dumps(msgspec.to_builtins(one), ensure_ascii=False) if args.json else
              safe(f"{one.order_no} {one.channel} {one.account} {one.amount_fen / 100:.2f}: {one.word}"
                   f"{' as ' + one.channel_no if one.channel_no else ''}{' - ' + one.why if one.why else ''}"))
    words: list[str] = [one.word for one in told]
    summary = {"box": args.box, "orders": len(told), **{word: words.count(word) for word in (*DECIDED, "unknown")},
               "paid_fen": sum(one.amount_fen for one in told if one.word == "paid")}
    print(json.dumps(summary) if args.json else ", ".join(f"{name} {count}" for name, count in summary.items()))
    return 0 if all(word in DECIDED for word in words) else 1
