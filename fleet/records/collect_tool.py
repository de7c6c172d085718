"""`tillfleet collect`: a collector as a program of its own, or a dead box's journal brought in.  Wires, and decides nothing."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from fleet import clock, files, groups, line
from fleet.commands import kept as commands
from fleet.identity import enrol
from fleet.keys import SigningKey, public_keys
from fleet.push import config
from fleet.update import kept as releases

log = logging.getLogger("tillfleet.collect")

SWITCH_S = 0.0005                        # the thread that commits must not wait long for the one that opens what came
LOOK_S = 30.0                            # between two looks after the background


def add(commands: Any) -> None:
    collect = commands.add_parser("collect", help="take records from boxes, commit and acknowledge them; or a dead box's from FILE")
    collect.add_argument("file", nargs="?", metavar="FILE", help="a journal's export, one record a line, - for standard input; "
                                                                 "needs neither broker nor tenant")
    collect.add_argument("--broker", metavar="HOST:PORT")
    collect.add_argument("--store", required=True, metavar="PLACE", help="a file, or postgresql://...")
    collect.add_argument("--keys", type=Path, metavar="JWKS", help="record keys of boxes that were not enrolled")
    collect.add_argument("--tenant")
    collect.add_argument("--id", default="c1", help="name of this collector within its tenant (c1)")
    collect.add_argument("--ack-key", type=Path, metavar="PEM", help="made if missing (a file's STORE.ack.pem); its public half "
                                                                     "is written beside it as .jwks")
    collect.add_argument("--tls", type=Path, metavar="DIR", help="its certificate, by `tillfleet ca issue`; left out: no TLS, "
                                                                 "loopback only")
    collect.add_argument("--ca", type=Path, metavar="DIR", help="folder of the authority: certificates are renewed, and the "
                                                                "acknowledgement key is ack.pem in it")
    collect.add_argument("--no-check", action="store_true", help="leave the checking of single signatures to `tillfleet check`")
    collect.add_argument("--json", action="store_true")
    collect.set_defaults(run=_collect)


def _collect(args: argparse.Namespace) -> int:
    if args.file is not None:
        return _brought(args)
    missing = [name for name in ("--broker", "--tenant") if not getattr(args, name[2:])]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given, or a FILE")
    return _served(args)


def _brought(args: argparse.Namespace) -> int:
    """0 when every record of the file stands in the store afterwards."""
    from fleet.records.bring_in import brought_in
    from fleet.records.store import Store

    store = Store(args.store, public_keys(args.keys) if args.keys else [])
    at = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    try:
        if args.file == "-":
            reports = brought_in(store, sys.stdin, at)
        else:
            with open(args.file, encoding="ascii", errors="replace") as lines:
                reports = brought_in(store, lines, at)
    finally:
        store.close()
    for r in reports:
        print(json.dumps(msgspec.to_builtins(r)) if args.json else
              f"box {r.box or '?'} journal {r.jid or '?'}: {r.records} records, {r.new} new, {r.known} known, {r.refused} refused, "
              f"committed up to {r.upto}: {r.verdict}{' - ' + r.why if r.why else ''}")
    total = {name: sum(getattr(r, name) for r in reports) for name in ("records", "new", "known", "refused")}
    whole = bool(reports) and all(r.verdict == "ok" for r in reports)
    print(json.dumps({**total, "journals": len(reports), "whole": whole}) if args.json else
          ", ".join(f"{name} {count}" for name, count in total.items()))
    return 0 if whole else 1


def _served(args: argparse.Namespace) -> int:
    from fleet.database import is_file
    from fleet.records.background import Background
    from fleet.records.collector import Collector
    from fleet.records.store import Store

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tillfleet.collect.mqtt").setLevel(logging.WARNING)
    host, port = line.place(args.broker)
    if args.ca is not None and args.ack_key is None:
        args.ack_key = args.ca / "ack.pem"
    if not is_file(args.store) and not args.ack_key:
        raise ValueError("with PostgreSQL the --ack-key must be named: all collectors of a tenant share one")
    path: Path = args.ack_key or Path(args.store + ".ack.pem")
    sys.setswitchinterval(SWITCH_S)
    key = SigningKey(path)
    files.written(path.with_suffix(".jwks"), key.jwks())
    keys = public_keys(args.keys) if args.keys else []
    background = None if args.no_check else Background(args.store, keys, clock.wall)
    store = Store(args.store, keys)
    collector = Collector(store, host, port, args.tenant, key, id=args.id, dress=line.dressed(args.tls),
                          share=line.share_of(args.tls))
    groups.made(store.database, groups.SCHEMA, commands.SCHEMA, config.SCHEMA, enrol.SCHEMA, releases.SCHEMA)
    if args.ca is not None:
        from fleet.identity.ca import Authority
        collector.clerk.answers["renew"] = enrol.renewals(store.database, Authority(args.ca)).answer
    desk = commands.CommandDesk(store.database)
    collector.clerk.register("hello", desk.hello)
    collector.clerk.register("status", desk.status)
    collector.clerk.register("cmd/res", desk.result)
    collector.clerk.register("config/reported", config.ConfigDesk(store.database).reported)
    collector.clerk.register("update/reported", releases.UpdateDesk(store.database).reported)
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: collector.ended.set())
    collector.start()
    if background is not None:
        background.go()
    print(json.dumps({"event": "started", "ack_kid": key.kid}) if args.json else "collecting", flush=True)
    while not collector.ended.wait(LOOK_S):
        if background is not None and background.ended:
            log.critical("nothing is checked any more, the background has ended: start the collector anew")
    collector.stop()
    if background is not None:
        background.stop()
    store.close()
    return 1 if collector.failure else 0
