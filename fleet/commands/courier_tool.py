"""`tillfleet courier`: the program that holds the command and configuration keys.  Wires files, signals and arguments."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from fleet import files, line
from fleet.commands import courier
from fleet.commands import kept as commands
from fleet.commands.tool import store
from fleet.keys import SigningKey
from fleet.push import config
from fleet.push import room as config_room
from fleet.update import kept as releases
from fleet.update import room as update_room


def add(parsers: Any) -> None:
    one = parsers.add_parser("courier", help="sign and send what waits for boxes: commands, configurations, blobs")
    one.add_argument("--broker", required=True, metavar="HOST:PORT")
    one.add_argument("--store", required=True, metavar="FILE|URL")
    one.add_argument("--tenant", required=True)
    one.add_argument("--id", default="courier1", help="name of this courier within its tenant")
    one.add_argument("--command-key", type=Path, metavar="PEM", help="made if missing; its public half is written beside "
                                                                     "it, as .jwks and .jwk")
    one.add_argument("--config-key", type=Path, metavar="PEM", help="likewise; without it no configuration leaves")
    one.add_argument("--blob-rate", type=int, default=512, metavar="KIB", help="KiB of blobs a second, all boxes together (512)")
    one.add_argument("--update-rate", type=int, default=1024, metavar="KIB", help="KiB of releases a second, all boxes (1024)")
    one.add_argument("--tls", type=Path, metavar="DIR", help="its certificate, by `tillfleet ca issue`")
    one.add_argument("--json", action="store_true")
    one.set_defaults(run=_courier)


def _courier(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    host, port = line.place(args.broker)
    if args.command_key is None and args.config_key is None:
        raise ValueError("without a key nothing can be sent: name --command-key, --config-key or both")
    database = store(args.store, commands.SCHEMA, config.SCHEMA, releases.SCHEMA)
    rooms: list[courier.Room] = []
    if args.command_key is not None:
        rooms += [courier.command_room(database, args.tenant, key_of(args.command_key)),
                  update_room.UpdateRoom(database, args.tenant, rate_bytes_s=args.update_rate * 1024)]
    if args.config_key is not None:
        rooms += [config_room.config_room(database, args.tenant, key_of(args.config_key)),
                  config_room.BlobRoom(database, args.tenant, rate_bytes_s=args.blob_rate * 1024)]
    one = courier.Courier(database, host, port, args.tenant, rooms, id=args.id, dress=line.dressed(args.tls))
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: one.stop.set())
    print(json.dumps({"event": "started"}) if args.json else "carrying", flush=True)
    well = courier.ended_well(one)
    database.close()
    return 0 if well else 1


def key_of(path: Path) -> SigningKey:
    """The key at `path`, its public half beside it in the two forms that boxes read."""
    key = SigningKey(path)
    files.written(path.with_suffix(".jwks"), key.jwks())
    files.written(path.with_suffix(".jwk"), json.dumps({**key.jwk, "kid": key.kid}) + "\n")
    return key
