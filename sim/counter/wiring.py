"""What the counter gives its parts to live on: keys, `box.toml`, the collector's command line, what outlives a stop.

Everything stands in one folder.  Keys are made on the first start, worth nothing, and stay for the life of the folder,
so that a journal can be checked as long as it exists.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from device.store_forward.token import thumbprint
from fleet.collector import AckKey
from sim.channels.keys import KeyPair, Platform, key_pair, platform
from sim.channels.wechat import WechatRules
from sim.channels.wechat_orders import Order
from sim.counter.calls import PRODUCTS_CSV, Refusal
from sim.devices.printer import PrinterModel

API_V2_KEY = "192006250b4c09247ec02edce69f6a2d"       # the documentation's own example
BOX, BOX_NO, TENANT = "box-1", "000001", "demo"
FRAME_PX = (800, 480)
RUN_DIR_BYTES_MAX = 90         # the name of the socket comes behind it
REFUND_AFTER_MS = 1_000        # a real refund takes up to a minute; nobody watches a page that long
DIES_AFTER_BYTES = 180         # in the middle of a receipt

_BOX_TOML = """\
box = "{box}"
box_no = "{box_no}"
tenant = "{tenant}"
shop_zh = "街角便利店"
shop_en = "Corner Shop"
state_dir = "{folder}/box"
run_dir = "{run_dir}"
prices_file = "{prices}"
record_key_file = "{folder}/box/record.key"
ack_key_file = "{folder}/ack.jwk"
merchant_keys_on_box = true

[scanner]
kind = "evdev"
path = "{folder}/dev/scanner"

[keypad]
kind = "evdev"
path = "{folder}/dev/keypad"

[display]
kind = "file"
path = "{folder}/dev/frame"
width = {width}
height = {height}

[printer]
kind = "tcp"
host = "127.0.0.1"
port = {printer_port}

[mqtt]
host = "127.0.0.1"
port = {broker_port}
user = "{tenant}/{box}"

[channel.wechat]
base_url = "{channel_url}"
appid = "{appid}"
mchid = "{mchid}"
notify_url = "https://example.com/notify"
serial_no = "{serial_no}"
private_key_file = "{folder}/keys/merchant.pem"
platform_key_id = "{platform_key_id}"
platform_key_file = "{folder}/keys/platform.pem"
secret = "{api_v2_key}"
refund_query_s = 1

[[template]]
pattern = "21PPPPPVVVVVC"
kind = "weight"
"""


class Kept(msgspec.Struct):
    """The keys of one counter, as they stand in its folder."""

    merchant: KeyPair
    platform: Platform


class Shop:
    """The shop's keys, made in `folder` when they are not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        keys = folder / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        for name in ("box", "run", "dev"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        kept = keys / "kept.json"
        if not kept.exists():
            _write(kept, msgspec.json.encode(Kept(key_pair("Corner Shop"), platform())))
        both = msgspec.json.decode(kept.read_bytes(), type=Kept)
        self.merchant, self.platform = both.merchant, both.platform
        _write(keys / "merchant.pem", self.merchant.private_pem)
        _write(keys / "platform.pem", self.platform.public.public_pem)
        # The acknowledgement key's maker writes what the record key's reader reads: a P-256 key in a PEM of mode 0600.
        record, ack = AckKey(folder / "box" / "record.key"), AckKey(folder / "ack.pem")
        self._record_jwk = {**record.jwk, "kid": thumbprint(record.jwk), "box": BOX}
        _write(folder / "ack.jwk", json.dumps({**ack.jwk, "kid": ack.kid}).encode())
        _write(folder / "boxes.jwks", json.dumps({"keys": [self._record_jwk]}).encode())

    def record_keys(self) -> list[dict[str, Any]]:
        """Public JWKs that the collector knows boxes by."""
        return [self._record_jwk]


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


def write_box(folder: Path, shop: Shop, *, run_dir: Path, broker_port: int, channel_url: str,
              printer_port: int) -> None:
    """Write `box.toml` for this run; ports change from run to run, the rest does not."""
    rules = WechatRules(lambda: 0)
    text = _BOX_TOML.format(
        box=BOX, box_no=BOX_NO, tenant=TENANT, folder=_quoted(folder), run_dir=_quoted(run_dir),
        prices=_quoted(PRODUCTS_CSV), width=FRAME_PX[0],
        height=FRAME_PX[1], printer_port=printer_port, broker_port=broker_port, channel_url=channel_url,
        appid=rules.appid, mchid=rules.mchid,
        serial_no=shop.merchant.serial_no, platform_key_id=shop.platform.key_id, api_v2_key=API_V2_KEY)
    _write(folder / "box.toml", text.encode())


def collector_argv(folder: Path, broker_port: int) -> list[str]:
    """How the collector is started, as its own process."""
    return [sys.executable, "-m", "fleet", "collect", "--broker", f"127.0.0.1:{broker_port}", "--store",
            str(folder / "cloud.db"), "--keys", str(folder / "boxes.jwks"), "--tenant", TENANT, "--ack-key",
            str(folder / "ack.pem"), "--json"]


# What a stop must not take along: the channel's orders and the paper that was printed.

class _Channel(msgspec.Struct):
    orders: list[Order]
    codes: dict[str, str]
    due: list[tuple[int, str]]
    count: int


def channel_rules(folder: Path) -> WechatRules:
    """The channel with the orders that it held when this folder was last stopped."""
    rules = WechatRules(lambda: time.time_ns() // 1_000_000, seed=time.time_ns())
    rules.refund_after_ms = REFUND_AFTER_MS
    file = folder / "channel.json"
    if file.exists():
        kept = msgspec.json.decode(file.read_bytes(), type=_Channel)
        rules._orders = {order.order_no: order for order in kept.orders}
        rules._codes, rules._due, rules._count = kept.codes, kept.due, kept.count
        rules._paid = {order.transaction_id: order for order in kept.orders if order.transaction_id}
        rules._refunds = {refund.refund_no: (order, refund) for order in kept.orders for refund in order.refunds}
    return rules


def keep_channel(folder: Path, rules: WechatRules) -> None:
    kept = _Channel(list(rules._orders.values()), rules._codes, rules._due, rules._count)
    _write(folder / "channel.json", msgspec.json.encode(kept))


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


def keep_paper(folder: Path, printer: PrinterModel) -> None:
    pieces = [_Piece(receipt.raw, receipt.state != "whole") for receipt in printer.receipts()]
    _write(folder / "paper.json", msgspec.json.encode(pieces))


def switch_printer(printer: PrinterModel, kind: str, on: bool) -> None:
    """Turn one of the printer's own switches."""
    match kind:
        case "printer_paper":
            printer.paper(out=on)
        case "printer_off":
            printer.power(not on)
        case "printer_dies":
            printer.die_after(DIES_AFTER_BYTES if on else None)
            if not on:
                printer.power(True)
        case _:
            raise Refusal(f"This counter cannot switch {kind} yet.", 409)


def _quoted(path: Path) -> str:
    # TOML's basic strings take JSON's escapes.
    return json.dumps(str(path), ensure_ascii=False)[1:-1]


def _write(file: Path, data: bytes) -> None:
    new = file.with_name(file.name + ".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(data)
    os.replace(new, file)
