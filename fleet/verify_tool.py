"""`tillfleet verify`: everything in a store once more."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fleet.keys import public_keys


def add(commands: Any) -> None:
    verify = commands.add_parser("verify", help="check everything in a store once more")
    verify.add_argument("--store", required=True, type=Path, metavar="FILE")
    verify.add_argument("--keys", required=True, type=Path, metavar="JWKS")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(run=_verify)


def _verify(args: argparse.Namespace) -> int:
    from fleet.store_sqlite import Store, defects, sums

    if not args.store.exists():
        raise ValueError(f"{args.store} is not there")
    store = Store(args.store, public_keys(args.keys))
    found = defects(store)
    for box, jid, seq, name, sentence in found:
        print(json.dumps({"box": box, "jid": jid, "seq": seq, "error": name, "sentence": sentence}) if args.json
              else f"{name} box {box} journal {jid} record {seq}: {sentence}")
    summary = {"journals": len(store.guards()), "records": sum(u for _, _, u, _ in store.guards()),
               "defects": len(found), **sums(store)}
    print(json.dumps(summary) if args.json else ", ".join(f"{k} {v}" for k, v in summary.items()))
    store.close()
    return 1 if found else 0
