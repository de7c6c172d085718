"""`tillfleet enrol`: make a code for a box, list them, answer a request from a file, or answer all on the line."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from device.mqtt import enrol_wire
from device.mqtt.wire import WireError
from fleet import files, groups, line
from fleet.identity import enrol
from fleet.keys import SigningKey, public_keys
from fleet.records.store import Store

WORDS = ("list", "answer", "serve")


def add(commands: Any) -> None:
    parser = commands.add_parser("enrol", help="enrol BOX makes a code; enrol list; enrol answer FILE; enrol serve: docs/enrol.md")
    parser.add_argument("what", metavar="BOX|list|answer|serve")
    parser.add_argument("file", nargs="?", type=Path, help="with answer: a box's request; - reads standard input")
    parser.add_argument("--store", required=True, metavar="PLACE", help="the collector's: a file, or postgresql://...")
    parser.add_argument("--ca", required=True, type=Path, metavar="DIR", help="folder of the tenant's authority")
    parser.add_argument("--number", default="", help="of a box that had its number before: six digits and letters")
    parser.add_argument("--at", default="", metavar="HOST:PORT", help="of the enrolment listener: into the QR that a box scans")
    parser.add_argument("--box-broker", default="", metavar="HOST:PORT", help="with answer and serve: where boxes find the broker")
    parser.add_argument("--broker", default="", metavar="HOST:PORT", help="with serve: where this desk finds it")
    parser.add_argument("--tls", type=Path, metavar="DIR", help="with serve: the desk's certificate, by `tillfleet ca issue`")
    parser.add_argument("--id", default="desk", help="with serve: its name among the collectors, _collector/ID")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=_enrol)


def _enrol(args: argparse.Namespace) -> int:
    from fleet.identity.ca import Authority

    if (args.what == "answer") != (args.file is not None):
        raise ValueError("a file goes with `answer`, and only there")
    store = Store(args.store)
    groups.made(store.database, enrol.SCHEMA)
    try:
        authority = Authority(args.ca)
        host, port = line.place(args.box_broker, "--box-broker") if args.what in ("answer", "serve") else ("", 8883)
        desk = enrol.Desk(store.database, authority, authority.tenant, enrol.code_key(args.ca), keys=told(args.ca), host=host,
                          port=port, wall=wall)
        return {"list": _list, "answer": _answer, "serve": _serve}.get(args.what, _code)(args, desk)
    finally:
        store.close()


def told(ca: Path) -> enrol_wire.Keys:
    """The public keys that every box of this authority is told, from the files that `tillfleet ca init` made."""
    def of(use: str) -> tuple[dict[str, str], ...]:
        return tuple({name: key[name] for name in ("crv", "kty", "x", "y")} for key in public_keys(ca / f"{use}.jwks"))

    SigningKey(ca / "console.pem")                       # an authority from before consoles had a key gets one now
    if not (ca / "console.jwks").exists():
        files.written(ca / "console.jwks", SigningKey(ca / "console.pem").jwks())
    return enrol_wire.Keys(of("ack"), of("config"), of("command"), of("console"))


def wall() -> str:
    from datetime import UTC, datetime
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")


def _code(args: argparse.Namespace, desk: enrol.Desk) -> int:
    code = desk.code_for(args.what, args.number)
    if args.json:
        print(json.dumps({"box": code.box, "code": enrol_wire.typed(code), "qr": enrol_wire.qr_text(code, args.at),
                          "days": enrol_wire.LIFE_DAYS, "tries": enrol_wire.TRIES}))
        return 0
    print(f"{enrol_wire.typed(code)}\n")
    if sys.stdout.isatty() or not sys.stdout.encoding.lower().startswith("ascii"):
        print(drawn(enrol_wire.qr_text(code, args.at)))
    print(f"For box {code.box}, once, within {enrol_wire.LIFE_DAYS} days and {enrol_wire.TRIES} tries. Whoever reads it can be "
          "that box.", file=sys.stderr)
    return 0


def drawn(text: str) -> str:
    """A QR of `text` in block characters, two rows a line, light on dark terminals as on light ones."""
    from qrcode.constants import ERROR_CORRECT_M
    from qrcode.main import QRCode

    symbol = QRCode(error_correction=ERROR_CORRECT_M, border=4)
    symbol.add_data(text)
    symbol.make(fit=True)
    rows = [[bool(dark) for dark in row] for row in symbol.get_matrix()]
    rows += [[False] * len(rows[0])] * (len(rows) % 2)
    blocks = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}            # a light module is lit
    return "\n".join("\x1b[97;40m" + "".join(blocks[pair] for pair in zip(above, below, strict=True)) + "\x1b[0m"
                     for above, below in zip(rows[::2], rows[1::2], strict=True))


def _list(args: argparse.Namespace, desk: enrol.Desk) -> int:
    for box, box_no, at, times in desk.boxes():
        since = f"enrolled {at}, {times} times" if times > 1 else f"enrolled {at}" if times else "not enrolled yet"
        print(json.dumps({"box": box, "box_no": box_no, "enrolled": at, "times": times}) if args.json else
              f"{box:32} {box_no}  {since}")
    for box, box_no, code_id, expires, tries, state in desk.codes():
        print(json.dumps({"box": box, "box_no": box_no, "code": code_id, "expires": expires, "tries": tries, "state": state})
              if args.json else f"{box:32} code {code_id} {state}, {tries} of {enrol_wire.TRIES} tries, until {expires}")
    return 0


def _answer(args: argparse.Namespace, desk: enrol.Desk) -> int:
    raw = sys.stdin.buffer.read(enrol_wire.REQUEST_MAX_BYTES + 1) if str(args.file) == "-" else args.file.read_bytes()
    try:
        reply = desk.take(raw)
    except WireError as why:
        raise ValueError(f"{args.file}: {why.sentence}") from None
    if reply is None:
        raise ValueError(f"{args.file} is under no code of this desk")
    sys.stdout.write(reply.decode())
    word = json.loads(reply.splitlines()[1])["result"]
    print(f"the answer says: {word}", file=sys.stderr)
    return 0 if word == "enrolled" else 1


def _serve(args: argparse.Namespace, desk: enrol.Desk) -> int:
    from fleet.identity.enrol_desk import DeskLine

    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    host, port = line.place(args.broker)
    served = DeskLine(desk.take, host, port, desk.tenant, id=args.id, dress=line.dressed(args.tls),
                      share=line.share_of(args.tls) if args.tls else "")
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: served.ended.set())
    served.start()
    while not served.ended.is_set() and not served.ready.wait(0.2):
        pass
    print(json.dumps({"event": "started"}) if args.json else "enrolling", flush=True)
    served.ended.wait()
    served.stop()
    return 1 if served.failure else 0
