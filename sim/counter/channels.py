"""The payment channels of a counter, one class each: its keys, its local server, its part of `box.toml`, its wallets.

Knows what must stand on both sides for a channel to work, and what must outlive a stop.  Refuses to know orders and proofs:
`sim/channels/` has them.  Keys are made on the first start, worth nothing, and stay for the life of the folder.
"""

from __future__ import annotations

import base64
import datetime
import secrets
import time
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from device.drivers.channel_bytes import BillRow
from device.drivers.channel_gateway_bytes import bill_word
from device.drivers.channel_unionpay_bill_bytes import rows_of as unionpay_rows
from device.drivers.channel_unionpay_bill_bytes import unpacked
from device.drivers.channel_wechat_bill_bytes import rows_of as wechat_rows
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.keys import KeyPair, Platform, key_pair, platform
from sim.channels.memory import kept, put_back
from sim.channels.tls import TlsRoom, tls_room
from sim.channels.unionpay import UnionpayRules
from sim.channels.unionpay_server import NAME as UNIONPAY
from sim.channels.unionpay_server import Authority, Signer, UnionpayServer, authority
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import WechatServer
from sim.counter.files import write

REFUND_AFTER_MS = 1_000        # a real refund takes up to a minute; nobody watches a page that long
SLOW_S = 6.0                   # how late a slow channel answers
BILLS_LATER_S = 3 * 86_400     # by then every channel has filed today, also one whose day ends at 23:00
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
MCHID = "1900000001"
NOTICES = "https://example.com/notify"
WALLETS = {"wechat": "WeChat", "alipay": "Alipay", "unionpay": "UnionPay", "ecny": "e-CNY"}
T = TypeVar("T")


class Channel:
    """One channel of the counter in `folder`.  `room` is the authority of this run's HTTPS; `spent` the payers' codes that any
    channel charged, one set for all of them.

    `name` as in `[channel.NAME]`; `qr` how its QRs begin; `wallets` who can scan them; `codes` whose payment codes it charges.
    """

    name: ClassVar[str]
    qr: ClassVar[str]
    wallets: ClassVar[tuple[str, ...]]
    codes: ClassVar[tuple[str, ...]]

    def __init__(self, folder: Path, room: TlsRoom, spent: set[str]) -> None:
        self.room, self._keys, self._memory = room, folder / "keys", folder / "channels" / f"{self.name}.json"
        self._written = self._memory.read_bytes() if self._memory.exists() else b""
        self._faults: set[str] = set()
        self.prepare()
        self.server = self.made(time.time)
        if self._written:
            put_back(self.server, self._written)
        self.share(spent)

    # What each channel fills in

    def prepare(self) -> None:
        """Read its keys, or make them."""
        raise NotImplementedError

    def made(self, now_s: Callable[[], float]) -> Any:
        """Its server with empty books, on that clock."""
        raise NotImplementedError

    def account(self) -> dict[str, Any]:
        """Its section of `box.toml`, but for the address and its roots; key files are written."""
        raise NotImplementedError

    def bill(self, server: Any, day: str) -> Iterable[BillRow]:
        """The rows of the bill of `day`, YYYY-MM-DD, which `server` files, as the box's own reader takes them."""
        raise NotImplementedError

    def share(self, spent: set[str]) -> None:
        """Know of codes charged elsewhere, and let others know of its own."""
        spent |= self.server.rules.spent
        self.server.rules.spent = spent

    def scanned(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        """A wallet that can read it scans `qr`: `{"ok", "why", "order_no"}`."""
        return self.server.scan(qr, outcome, slow_s=slow_s)

    def show(self, code: str, wallet: str) -> None:
        """Make a payer's code known."""
        self.server.rules.shown(code)

    # Its life

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        """Serve no more, and keep what it holds."""
        self.server.stop()
        self.keep()

    def keep(self) -> None:
        """Write what a stop must not take along, when it has changed."""
        held = kept(self.server)
        if held != self._written:
            write(self._memory, held)
            self._written = held

    def section(self) -> dict[str, Any]:
        """Its section of `box.toml`."""
        return {"base_url": self.server.url, "ca_file": str(self._keys / "ca.pem")} | self.account()

    def orders(self) -> list[dict[str, Any]]:
        return self.server.orders()

    # Its payers

    def scan(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        """As `scanned`; a wallet that can pay no such QR says so."""
        if wallet not in self.wallets:
            takers = " or ".join(WALLETS[each] for each in self.wallets)
            return {"ok": False, "why": f"{WALLETS[wallet]} cannot pay this QR, it is for {takers}", "order_no": ""}
        return self.scanned(qr, wallet, outcome, slow_s)

    def shown(self, code: str, wallet: str, outcome: str, slow_s: float) -> None:
        """`wallet` shows `code`; `outcome` is what its payer does when this channel charges it."""
        if wallet in self.codes:
            with self.server._lock:
                self.show(code, wallet)
                self.server.code_outcome(code, outcome, slow_s)

    # Its faults and its bills

    def fault(self, kind: str, on: bool) -> None:
        """Switch `channel_slow`, `channel_lying` or `channel_down`."""
        was_down = "channel_down" in self._faults
        (self._faults.add if on else self._faults.discard)(kind)
        down = "channel_down" in self._faults
        if down and not was_down:
            self.server.stop()
        if was_down and not down:
            self.server.start()
        self.server.clear()
        if "channel_slow" in self._faults:
            self.server.fault("slow", count=None, seconds=SLOW_S)
        if "channel_lying" in self._faults:
            self.server.fault("lying", count=None)

    def bills(self, since: datetime.date) -> list[BillRow]:
        """Every row of the bills from `since` on, as they will lie ready: of a copy of its books, on a clock that is ahead."""
        later = self.made(lambda: time.time() + BILLS_LATER_S)
        put_back(later, kept(self.server))
        last = datetime.datetime.now(BEIJING).date() + datetime.timedelta(days=1)
        days = (since + datetime.timedelta(days=n) for n in range((last - since).days + 1))
        return [row for day in days for row in self.bill(later, day.isoformat())]

    # Its keys

    def kept_keys(self, shape: type[T], make: Callable[[], T]) -> T:
        file = self._keys / f"{self.name}.json"
        if not file.exists():
            write(file, msgspec.json.encode(make()))
        return msgspec.json.decode(file.read_bytes(), type=shape)

    def key_file(self, name: str, held: bytes) -> str:
        write(self._keys / name, held)
        return str(self._keys / name)


class Gateway(Channel):
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


class Wechat(Channel):
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


class UnionpayKeys(msgspec.Struct):
    merchant: KeyPair
    trust_pem: bytes
    theirs_pem: bytes                  # the key of UnionPay's certificate
    theirs_cert: str


class Unionpay(Channel):
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


CHANNELS: dict[str, type[Channel]] = {channel.name: channel for channel in (Gateway, Wechat, Unionpay)}
PROFILES = {"all": tuple(CHANNELS), "gateway": ("gateway",)}


def opened(folder: Path, profile: str) -> dict[str, Channel]:
    """The channels of `profile`, by name, in one room of HTTPS that is made anew with each run."""
    room, spent = tls_room(client=MCHID), set[str]()
    for name in ("keys", "channels"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    write(folder / "keys" / "ca.pem", room.ca_pem)
    return {name: CHANNELS[name](folder, room, spent) for name in PROFILES[profile]}


def ms(now_s: Callable[[], float]) -> Callable[[], int]:
    return lambda: int(now_s() * 1000)
