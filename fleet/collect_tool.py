"""`tillfleet collect`: a collector as a program of its own.  Wires files, signals and arguments; decides nothing."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from fleet import commands, config, files, groups
from fleet.keys import SigningKey, public_keys

SWITCH_S = 0.0005                        # the door must not wait long for the background's thread


def add(commands: Any) -> None:
    collect = commands.add_parser("collect", help="take records from boxes, commit and acknowledge them")
    collect.add_argument("--broker", required=True, metavar="HOST:PORT")
    collect.add_argument("--store", required=True, metavar="PLACE", help="a file, or postgresql://...")
    collect.add_argument("--keys", required=True, type=Path, metavar="JWKS", help="record keys of the boxes")
    collect.add_argument("--tenant", required=True)
    collect.add_argument("--id", default="c1", help="name of this collector within its tenant (c1)")
    collect.add_argument("--ack-key", type=Path, metavar="PEM", help="made if missing (a file's STORE.ack.pem); its public half "
                                                                     "is written beside it as .jwks")
    collect.add_argument("--no-check", action="store_true", help="leave the checking of single signatures to `tillfleet check`")
    collect.add_argument("--json", action="store_true")
    collect.set_defaults(run=_collect)


def _collect(args: argparse.Namespace) -> int:
    from fleet.collector import Collector
    from fleet.database import is_file
    from fleet.store import Store

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tillfleet.collect.mqtt").setLevel(logging.WARNING)
    host, _, port = args.broker.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--broker {args.broker!r} is not HOST:PORT")
    if not is_file(args.store) and not args.ack_key:
        raise ValueError("with PostgreSQL the --ack-key must be named: all collectors of a tenant share one")
    path: Path = args.ack_key or Path(args.store + ".ack.pem")
    sys.setswitchinterval(SWITCH_S)
    key = SigningKey(path)
    files.written(path.with_suffix(".jwks"), key.jwks())
    keys = public_keys(args.keys)
    store = Store(args.store, keys)
    background = None if args.no_check else Store(args.store, keys)
    collector = Collector(store, host.strip("[]"), int(port), args.tenant, key, id=args.id, checker=background)
    groups.made(store.database, groups.SCHEMA, commands.SCHEMA, config.SCHEMA)
    desk = commands.CommandDesk(store.database)
    collector.clerk.register("hello", desk.hello)
    collector.clerk.register("cmd/res", desk.result)
    collector.clerk.register("config/reported", config.ConfigDesk(store.database).reported)
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: collector.ended.set())
    collector.start()
    print(json.dumps({"event": "started", "ack_kid": key.kid}) if args.json else "collecting", flush=True)
    collector.ended.wait()
    collector.stop()
    for one in filter(None, (store, background)):
        one.close()
    return 1 if collector.failure else 0
