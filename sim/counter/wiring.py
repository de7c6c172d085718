"""What the counter gives its parts to live on: `box.toml`, the rule table, the collector's command line, what outlives a stop.

Everything stands in one folder.  Keys are made on the first start, worth nothing, and stay for the life of the folder,
so that a journal can be checked as long as it exists.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import msgspec

from device import rules
from device.config import MERCHANT_CHANNELS
from device.txn.approval import badge_hash, pin_hash
from fleet.keys import SigningKey
from sim.counter.boxes import Boxes
from sim.counter.calls import PRODUCTS_CSV
from sim.counter.certificates import COLLECTOR, certificate
from sim.counter.channel import Channel
from sim.counter.files import toml, write
from sim.counter.fleet_desk import keys_given
from sim.counter.sealing import sealed
from sim.devices.printer import MODEL, PrinterModel

SHIPPED_RULES = Path(rules.__file__).with_name("rules.json")
TENANT = "demo"
FRAME_PX = (800, 480)
RUN_DIR_BYTES_MAX = 90         # the name of the socket comes behind it
REFUND_QUERY_S = 1             # the local channels are quick with refunds
DIES_AFTER_BYTES = 180         # in the middle of a receipt

BADGE, PIN = "TBC-BADGE-0001", "2468"                 # of the demo's one supervisor
INSTALMENT_CODE = "7Q4K"       # ends the shop's own instalment cards
APPROVE_REFUND_FEN = 20_000


def taken(folder: Path) -> IO[str]:
    """The folder's lock, held until the file is closed.  RuntimeError when another counter runs in `folder`."""
    lock = open(folder / "lock", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise RuntimeError(f"Another counter runs in {folder}: stop it, or choose another folder with --state.") \
            from None
    return lock


def run_dir(folder: Path) -> tuple[Path, Callable[[], None]]:
    """Where the daemon's socket goes, and how to let go of it: its address holds 107 bytes, whatever `folder` is."""
    own = folder / "run"
    if len(os.fsencode(own)) <= RUN_DIR_BYTES_MAX:
        return own, lambda: None
    short = Path(tempfile.mkdtemp(prefix="tillbox-run-"))
    return short, lambda: shutil.rmtree(short, ignore_errors=True)


def unit_memory() -> dict[str, str]:
    """What the box's own unit tells the daemon's memory allocator, by environment."""
    unit = (Path(__file__).parents[2] / "systemd" / "tillbox.service").read_text()
    return dict(re.findall(r"\b(MALLOC_[A-Z_]+)=(\S+)", unit))


def write_box(folder: Path, box: Boxes, *, run_dir: Path, broker_port: int, printer_port: int,
              channels: Mapping[str, Channel], devices: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write `box.toml` for this run; ports change from run to run, the rest does not.  `devices` go over the usual ones."""
    table = {
        "box": box.name, "box_no": box.number, "tenant": TENANT, "shop_zh": "街角便利店", "shop_en": "Corner Shop",
        "state_dir": str(box.home), "run_dir": str(run_dir), "prices_file": str(PRODUCTS_CSV),
        "record_key_file": f"{box.home}/record.key", "ack_key_file": f"{folder}/ack.jwk",
        "route": ["gateway"], "approve_refund_fen": APPROVE_REFUND_FEN,
        "instalment_code": INSTALMENT_CODE,
        "merchant_keys_on_box": any(name in MERCHANT_CHANNELS for name in channels),
        "scanner": {"kind": "evdev", "path": f"{folder}/dev/scanner"},
        "keypad": {"kind": "evdev", "path": f"{folder}/dev/keypad"},
        "display": {"kind": "file", "path": f"{folder}/dev/frame", "width": FRAME_PX[0], "height": FRAME_PX[1]},
        "sound": {"kind": "file", "path": f"{folder}/dev/sound.wav"},
        "printer": {"kind": "tcp", "host": "127.0.0.1", "port": printer_port, "model": MODEL},
        "mqtt": {"host": "127.0.0.1", "port": broker_port},
        **keys_given(folder), "rules_file": f"{folder}/rules.jws", "rules_key_file": f"{folder}/fleet.jwk",
        "channel": {name: channel.section() for name, channel in channels.items()},
        "template": [{"pattern": "21PPPPPVVVVVC", "kind": "weight"}],
        "supervisor": [{"name": "店长 Manager", "badge": badge_hash(BADGE), "pin": pin_hash(PIN, secrets.token_hex(8))}],
    }
    table |= devices
    write(folder / "box.toml", toml(sealed(folder, table) if table["merchant_keys_on_box"] else table).encode())


def write_rules(folder: Path, scale: int) -> None:
    """The rule table that ships, signed by a fleet of its own, every time of it divided by `scale`; at least a second is left.

    Not `place_s`, how long a customer waits for a QR: a busy machine would lose its route to that.
    """
    table = json.loads(SHIPPED_RULES.read_bytes())
    for ways in table["channels"].values():
        for way in ways.values():
            way |= {name: -(-value // scale) for name, value in way.items() if name.endswith("_s") and isinstance(value, int)
                    and name != "place_s"}
            steps = {-(-until // scale): -(-every // scale) for until, every in way["pace_s"]}
            way |= {"pace_s": [list(step) for step in steps.items()], "refund_query_s": REFUND_QUERY_S}
    table["version"] = int(time.time())              # rises from run to run: a box takes no older table than it had
    fleet = SigningKey(folder / "fleet.pem")
    write(folder / "fleet.jwk", json.dumps(fleet.jwk).encode())
    write(folder / "rules.jws", rules.sealed(json.dumps(table).encode(), fleet.kid, fleet.sign))


def collector_argv(folder: Path, clock: Path, broker_port: int, store: str) -> list[str]:
    """How the collector is started, as its own process, on the clock of `clock`."""
    return [sys.executable, "-m", "sim.devices.clock", str(clock), "fleet", "collect", "--broker", f"127.0.0.1:{broker_port}",
            "--store", store, "--tenant", TENANT, "--ack-key", str(folder / "ack.pem"), "--ca", str(folder / "ca"),
            "--tls", str(certificate(folder, COLLECTOR)), "--json"]


# What a stop must not take along besides the channels' orders: the paper that was printed.

class _Piece(msgspec.Struct):
    raw: bytes
    torn: bool


def printed_before(folder: Path, printer: PrinterModel) -> None:
    """Put the paper of earlier runs through the printer once more; call before anyone is connected."""
    file = folder / "paper.json"
    if file.exists():
        for piece in msgspec.json.decode(file.read_bytes(), type=list[_Piece]):
            printer.receive(piece.raw)
            if piece.torn:
                printer.power(False)
                printer.power(True)


def keep_paper(folder: Path, printer: PrinterModel, before: bytes) -> bytes:
    """Write what was printed, unless it is what was written `before`; returns what stands there."""
    held = msgspec.json.encode([_Piece(receipt.raw, receipt.state != "whole") for receipt in printer.receipts()])
    if held != before:
        write(folder / "paper.json", held)
    return held
