"""`tillfleet verify` and `tillfleet check`: everything in a store once more, and every signature that was not checked yet."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from device.console.printing import safe
from fleet.clock import wall
from fleet.keys import public_keys


def add(commands: Any) -> None:
    verify = commands.add_parser("verify", help="check everything in a store once more")
    verify.add_argument("--store", required=True, metavar="PLACE", help="a file, or postgresql://...")
    verify.add_argument("--keys", type=Path, metavar="JWKS", help="record keys of boxes that were not enrolled")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(run=_verify)

    check = commands.add_parser("check", help="check each record's own signature, so that it may count; until SIGTERM")
    check.add_argument("--store", required=True, metavar="PLACE", help="a file, or postgresql://...")
    check.add_argument("--keys", type=Path, metavar="JWKS", help="record keys of boxes that were not enrolled")
    check.add_argument("--once", action="store_true", help="end when nothing is due")
    check.add_argument("--again", metavar="BOX", help="first let the stopped journals of this box, or of 'all', be tried anew")
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)


def _verify(args: argparse.Namespace) -> int:
    from fleet.records.checking import waiting
    from fleet.records.proof import walked

    store = _store(args)
    found, total = walked(store)
    for box, jid, seq, name, sentence in found:
        print(json.dumps({"box": box, "jid": jid, "seq": seq, "error": name, "sentence": sentence}) if args.json
              else safe(f"{name} box {box} journal {jid} record {seq}: {sentence}"))
    summary = {"journals": len(store.guards()), "records": sum(u for _, _, u, _ in store.guards()),
               "defects": len(found), **total, "unchecked": waiting(store)}
    print(json.dumps(summary) if args.json else ", ".join(f"{k} {v}" for k, v in summary.items()))
    store.close()
    return 1 if found else 0


def _check(args: argparse.Namespace) -> int:
    from fleet.records.checking import Checker, again, check_all, stopped, waiting

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    store = _store(args)
    if args.again:
        again(store, "" if args.again == "all" else args.again)
    checker = Checker(store, wall)
    if args.once:
        checked = check_all(store, wall())
    else:
        for which in (signal.SIGTERM, signal.SIGINT):
            signal.signal(which, lambda *_: checker.ended.set())
        checker.run_on()
        checked = checker.checked
    stops = stopped(store)
    for box, jid, seq, why in stops:
        print(json.dumps({"box": box, "jid": jid, "checked": seq, "stopped": why}) if args.json
              else safe(f"box {box} journal {jid}: checked to {seq}, then {why}"))
    summary = {"checked": checked, "waiting": waiting(store), "stopped": len(stops)}
    print(json.dumps(summary) if args.json else ", ".join(f"{k} {v}" for k, v in summary.items()))
    store.close()
    return 1 if stops else 0


def _store(args: argparse.Namespace) -> Any:
    from fleet.database import is_file
    from fleet.records.store import Store

    if is_file(args.store) and not Path(args.store).exists():
        raise ValueError(f"{args.store} is not there")
    return Store(args.store, public_keys(args.keys) if args.keys else [])

