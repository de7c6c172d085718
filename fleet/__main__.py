"""`tillfleet`: the cloud's commands.  Wires files, signals and arguments; decides nothing."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when all holds, 1 when not, 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(prog="tillfleet", description="The cloud end of Tillbox.")
    commands = parser.add_subparsers(dest="command", required=True)

    collect = commands.add_parser("collect", help="take records from boxes, commit and acknowledge them")
    collect.add_argument("--broker", required=True, metavar="HOST:PORT")
    collect.add_argument("--store", required=True, type=Path, metavar="FILE")
    collect.add_argument("--keys", required=True, type=Path, metavar="JWKS", help="record keys of the boxes")
    collect.add_argument("--tenant", required=True)
    collect.add_argument("--id", default="c1", help="name of this collector within its tenant (c1)")
    collect.add_argument("--ack-key", type=Path, metavar="PEM", help="made if missing (STORE.ack.pem); its public half "
                                                                     "is written beside it as .jwks")
    collect.add_argument("--json", action="store_true")

    verify = commands.add_parser("verify", help="check everything in a store once more")
    verify.add_argument("--store", required=True, type=Path, metavar="FILE")
    verify.add_argument("--keys", required=True, type=Path, metavar="JWKS")
    verify.add_argument("--json", action="store_true")

    table = commands.add_parser("rules", help="sign a rule table of the channels for boxes")
    table.add_argument("file", type=Path, metavar="JSON")
    table.add_argument("--key", required=True, type=Path, metavar="PEM", help="made if missing; its public half is written "
                                                                              "beside it as .jwk, for rules_key_file")
    table.add_argument("--out", required=True, type=Path, metavar="FILE")

    args = parser.parse_args(argv)
    try:
        return {"collect": _collect, "verify": _verify, "rules": _rules}[args.command](args)
    except (OSError, ValueError) as why:
        print(f"tillfleet {args.command}: {why}", file=sys.stderr)
        return 2


def _keys(path: Path) -> list[dict[str, object]]:
    try:
        keys = json.loads(path.read_text())["keys"]
    except (json.JSONDecodeError, KeyError, TypeError) as why:
        raise ValueError(f"{path} is no JWKS file: {why}") from None
    if not isinstance(keys, list) or not all(isinstance(k, dict) and "x" in k and "y" in k for k in keys):
        raise ValueError(f"{path} holds something else than public P-256 keys")
    return keys


def _collect(args: argparse.Namespace) -> int:
    from fleet.collector import AckKey, Collector
    from fleet.store_sqlite import Store

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tillfleet.collect.mqtt").setLevel(logging.WARNING)
    host, _, port = args.broker.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--broker {args.broker!r} is not HOST:PORT")
    path: Path = args.ack_key or args.store.with_name(args.store.name + ".ack.pem")
    key = AckKey(path)
    _written(path.with_suffix(".jwks"), json.dumps({"keys": [{**key.jwk, "kid": key.kid}]}) + "\n")
    store = Store(args.store, _keys(args.keys))
    collector = Collector(store, host.strip("[]"), int(port), args.tenant, key, id=args.id)
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: collector.ended.set())
    collector.start()
    print(json.dumps({"event": "started", "ack_kid": key.kid}) if args.json else "collecting", flush=True)
    collector.ended.wait()
    collector.stop()
    store.close()
    return 1 if collector.failure else 0


def _rules(args: argparse.Namespace) -> int:
    from device.errors import ConfigError
    from device.rules import sealed
    from fleet.collector import AckKey

    key = AckKey(args.key)
    try:
        token = sealed(args.file.read_bytes(), key.kid, key.sign)
    except ConfigError as why:
        raise ValueError(f"{args.file}: {why}") from None
    _written(args.key.with_suffix(".jwk"), json.dumps({**key.jwk, "kid": key.kid}) + "\n")
    _written(args.out, token.decode() + "\n")
    return 0


def _written(path: Path, text: str) -> None:
    """Whole or not at all: another program may be waiting for this file."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)


def _verify(args: argparse.Namespace) -> int:
    from fleet.store_sqlite import Store, defects, sums

    if not args.store.exists():
        raise ValueError(f"{args.store} is not there")
    store = Store(args.store, _keys(args.keys))
    found = defects(store)
    for box, jid, seq, name, sentence in found:
        print(json.dumps({"box": box, "jid": jid, "seq": seq, "error": name, "sentence": sentence}) if args.json
              else f"{name} box {box} journal {jid} record {seq}: {sentence}")
    summary = {"journals": len(store.guards()), "records": sum(u for _, _, u, _ in store.guards()),
               "defects": len(found), **sums(store)}
    print(json.dumps(summary) if args.json else ", ".join(f"{k} {v}" for k, v in summary.items()))
    store.close()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
