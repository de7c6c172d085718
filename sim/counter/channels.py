"""The payment channels of a counter, one class each: its keys on both sides, its part of `box.toml`, its wallets, its bill.

Knows what must agree for a channel to work.  Refuses to know orders and proofs: `sim/channels/` and the card terminal's model
have them.
"""

from __future__ import annotations

import base64
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from device.drivers.channels.alipay_bill_bytes import rows_of as alipay_rows
from device.drivers.channels.codec_bytes import BillRow
from device.drivers.channels.gateway_bytes import bill_word
from device.drivers.channels.unionpay_bill_bytes import rows_of as unionpay_rows
from device.drivers.channels.unionpay_bill_bytes import unpacked
from device.drivers.channels.wechat_bill_bytes import rows_of as wechat_rows
from sim.channels import alipay_bill, memory
from sim.channels.alipay import AlipayRules
from sim.channels.alipay_server import AlipayServer
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.keys import KeyPair, Platform, key_pair, platform
from sim.channels.tls import tls_room
from sim.channels.unionpay import UnionpayRules
from sim.channels.unionpay_server import NAME as UNIONPAY
from sim.channels.unionpay_server import Authority, Signer, UnionpayServer, authority
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import WechatServer
from sim.counter.channel import Channel, Served
from sim.counter.files import write
from sim.devices.terminal import TerminalModel
from sim.devices.terminal_port import TerminalPort

REFUND_AFTER_MS = 1_000        # a real refund takes up to a minute; nobody watches a page that long
MCHID = "1900000001"
NOTICES = "https://example.com/notify"
TERMINAL_ID = "P4000017"


class Gateway(Served):
    """The aggregator: one QR for every wallet, every wallet's codes, no merchant's key on the box."""

    name, qr = "gateway", "https://pay.local/"
    wallets = codes = ("wechat", "alipay", "unionpay", "ecny")

    def prepare(self) -> None:
        self._file = self._keys / "gateway.key"       # the box changes it
        if not self._file.exists():
            write(self._file, secrets.token_hex(32).encode() + b"\n")

    def made(self, now_s: Callable[[], float]) -> GatewayServer:
        rules = GatewayRules(ms(now_s), seed=time.time_ns())
        rules.refund_after_ms = REFUND_AFTER_MS
        return GatewayServer(rules, secret=self._file.read_bytes().splitlines()[0], now_s=now_s, tls=self.room.server_context())

    def account(self) -> dict[str, Any]:
        return {"terminal_id": self.server.rules.terminal_id, "private_key_file": str(self._file)}

    def scanned(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        return self.server.scan(qr, outcome, wallet=wallet, slow_s=slow_s)

    def show(self, code: str, wallet: str) -> None:
        self.server.rules.shown(code, wallet)

    def bill(self, server: GatewayServer, day: str) -> Iterable[BillRow]:
        return bill_word("bill_file", day, server.rules.answer("bill_file", msgspec.json.encode({"day": day}))[1]).rows


class WechatKeys(msgspec.Struct):
    merchant: KeyPair
    platform: Platform
    api_v2_key: str


class Wechat(Served):
    name, qr = "wechat", "weixin://"
    wallets = codes = ("wechat",)

    def prepare(self) -> None:
        self._held = self.kept_keys(WechatKeys, lambda: WechatKeys(key_pair("Corner Shop"), platform(), secrets.token_hex(16)))

    def made(self, now_s: Callable[[], float]) -> WechatServer:
        rules = WechatRules(ms(now_s), mchid=MCHID, seed=time.time_ns())
        rules.refund_after_ms = REFUND_AFTER_MS
        return WechatServer(rules, merchant_public_pem=self._held.merchant.public_pem, api_v2_key=self._held.api_v2_key,
                            merchant_serial=self._held.merchant.serial_no, platform=self._held.platform, now_s=now_s,
                            tls=self.room.server_context(client="asked"))

    def account(self) -> dict[str, Any]:
        held = self._held
        return {"appid": self.server.rules.appid, "mchid": self.server.rules.mchid, "notify_url": NOTICES,
                "serial_no": held.merchant.serial_no, "private_key_file": self.key_file("wechat.pem", held.merchant.private_pem),
                "platform_key_id": held.platform.key_id,
                "platform_key_file": self.key_file("wechat-platform.pem", held.platform.public.public_pem),
                "secret": held.api_v2_key, "client_cert_file": self.key_file("client.pem", self.room.client_pem)}

    def share(self, spent: set[str]) -> None:
        spent |= self.server.rules.codes.spent
        self.server.rules.codes.spent = spent

    def show(self, code: str, wallet: str) -> None:
        self.server.rules.codes.shown(code)

    def bill(self, server: WechatServer, day: str) -> Iterable[BillRow]:
        status, said = server.rules.trade_bill(day)
        return wechat_rows(said.decode()) if isinstance(said, bytes) and status == 200 else ()


class AlipayKeys(msgspec.Struct):
    app: KeyPair
    platform: KeyPair


class Alipay(Served):
    name, qr = "alipay", "https://qr.alipay.com/"
    wallets = codes = ("alipay",)

    def prepare(self) -> None:
        self._held = self.kept_keys(AlipayKeys, lambda: AlipayKeys(key_pair("Corner Shop"), key_pair("Local Alipay")))

    def made(self, now_s: Callable[[], float]) -> AlipayServer:
        rules = AlipayRules(ms(now_s), seed=time.time_ns())
        rules.refund_seen_ms = REFUND_AFTER_MS
        return AlipayServer(rules, app_public_pem=self._held.app.public_pem, platform=self._held.platform, now_s=now_s,
                            tls=self.room.server_context())

    def account(self) -> dict[str, Any]:
        held = self._held
        return {"appid": self.server.rules.app_id, "private_key_file": self.key_file("alipay.pem", held.app.private_pem),
                "platform_key_file": self.key_file("alipay-platform.pem", held.platform.public_pem)}

    def bill(self, server: AlipayServer, day: str) -> Iterable[BillRow]:
        rules = server.rules
        return alipay_rows(alipay_bill.packed(alipay_bill.rows_of(rules.trades(), day), day, rules.pid), day=day)


class UnionpayKeys(msgspec.Struct):
    merchant: KeyPair
    trust_pem: bytes
    theirs_pem: bytes                  # the key of UnionPay's certificate
    theirs_cert: str


class Unionpay(Served):
    name, qr = "unionpay", "https://qr.95516.com/"
    wallets = codes = ("unionpay",)

    def prepare(self) -> None:
        held = self._held = self.kept_keys(UnionpayKeys, unionpay_keys)
        self._cert_id = str(int(held.merchant.serial_no, 16))
        self._authority = Authority(held.trust_pem, Signer(load_pem_private_key(held.theirs_pem, None), held.theirs_cert), {})

    def made(self, now_s: Callable[[], float]) -> UnionpayServer:
        rules = UnionpayRules(ms(now_s), seed=time.time_ns())
        rules.refund_after_ms = REFUND_AFTER_MS
        return UnionpayServer(rules, merchant_public_pem=self._held.merchant.public_pem, cert_id=self._cert_id,
                              authority=self._authority, now_s=now_s, tls=self.room.server_context())

    def account(self) -> dict[str, Any]:
        held = self._held
        return {"mchid": self.server.rules.merchant, "serial_no": self._cert_id, "platform_key_id": UNIONPAY,
                "private_key_file": self.key_file("unionpay.pem", held.merchant.private_pem),
                "platform_key_file": self.key_file("unionpay-trust.pem", held.trust_pem),
                "fields": {"termId": "BOX00001", "file_url": self.server.url + "/"}}

    def bill(self, server: UnionpayServer, day: str) -> Iterable[BillRow]:
        packed = server.rules.bill(day)
        if packed is None:
            return ()
        content = base64.b64encode(zlib.compress(packed)).decode()
        return unionpay_rows(unpacked(content, day=day, merchant=server.rules.merchant), day=day)


def unionpay_keys() -> UnionpayKeys:
    made = authority()
    pem = made.unionpay.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return UnionpayKeys(key_pair("Corner Shop"), made.trust_pem, pem, made.unionpay.pem)


class Card(Channel):
    """The terminal on the counter, on a serial cable of its own: no QR, no code, no bill; a holder presents a card."""

    name = "card"

    def __init__(self, folder: Path, now_s: Callable[[], float]) -> None:
        super().__init__(folder, now_s)
        secret = self.kept_keys(str, lambda: secrets.token_hex(16))
        self.model = TerminalModel(ms(now_s), terminal_id=TERMINAL_ID, secret=secret.encode())
        if self._written:
            memory.to_terminal(self.model, self._written)
        self._port: TerminalPort | None = None
        self._one = threading.RLock()                  # the cable is not pulled in the middle of a question
        self._cable = folder / "dev" / "card"

    def start(self) -> None:
        with self._one:
            self._port = TerminalPort(self.model, self._cable)

    def end(self) -> None:
        with self._one:
            port, self._port = self._port, None
            if port is not None:
                port.close()
                self.model.say = lambda data: None     # what it says is heard by nobody

    def held(self) -> bytes:
        return self._hand(lambda: memory.of_terminal(self.model))

    def section(self) -> dict[str, Any]:
        return {"terminal_id": TERMINAL_ID, "path": str(self._cable), "secret": self.model.secret.decode()}

    def orders(self) -> list[dict[str, Any]]:
        return self._hand(self.model.orders)

    def fault(self, kind: str, on: bool) -> None:
        down = self.down_changes(kind, on)
        if down is not None:
            self.end() if down else self.start()
        self._hand(self.model.clear)
        for fault, suffers in (("channel_slow", "late"), ("channel_lying", "unsealed")):
            if fault in self._faults:
                self._hand(lambda kind=suffers: self.model.fault(kind, count=None))      # type: ignore[misc]

    def tap(self, outcome: str, slow_s: float) -> str:
        """The holder presents a card: the order's number, "" when the terminal asks nobody."""
        asking = self._hand(lambda: self.model.asking)
        return asking.order_no if asking is not None and self._hand(lambda: self.model.tap(outcome, slow_s=slow_s)) else ""

    def _hand(self, does: Callable[[], Any]) -> Any:
        with self._one:
            return self._port.hand(does) if self._port is not None else does()


CHANNELS: dict[str, type[Channel]] = {channel.name: channel for channel in (Gateway, Wechat, Alipay, Unionpay, Card)}
PROFILES = {"all": tuple(CHANNELS), "gateway": ("gateway", "card")}


def opened(folder: Path, profile: str, now_s: Callable[[], float] = time.time) -> dict[str, Channel]:
    """The channels of `profile`, by name, in one room of HTTPS that is made anew with each run; `now_s` Unix time."""
    room, spent = tls_room(client=MCHID), set[str]()
    for name in ("keys", "channels"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    write(folder / "keys" / "ca.pem", room.ca_pem)
    made = {name: CHANNELS[name] for name in PROFILES[profile]}
    return {name: kind(folder, now_s, room, spent) if issubclass(kind, Served) else kind(folder, now_s)
            for name, kind in made.items()}


def ms(now_s: Callable[[], float]) -> Callable[[], int]:
    return lambda: int(now_s() * 1000)
