"""Every channel of a simulated shop: the box's real codec and driver on one side, that channel's real server on the other.

One class a channel and one entry in `CHANNELS`: its keys, its account, what a box makes at each boot, and what payers do.  Refuses
to know orders and proofs: `sim/channels/` and `device/drivers/` have them.  Keys are made once a process and worth nothing.
"""

from __future__ import annotations

import asyncio
import datetime
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import msgspec

from device.drivers.channels.accounts import ChannelAccounts
from device.drivers.channels.alipay import AlipayCodec
from device.drivers.channels.alipay_proof_bytes import AlipayKeys
from device.drivers.channels.gateway import GatewayCodec
from device.drivers.channels.gateway_rotation import GatewayChannel
from device.drivers.channels.https import HttpsChannel
from device.drivers.channels.shouqianba import ShouqianbaCodec
from device.drivers.channels.shouqianba_checkin import ShouqianbaChannel
from device.drivers.channels.terminal_bytes import Held, held_of, held_text
from device.drivers.channels.unionpay import UnionpayCodec
from device.drivers.channels.wechat import WechatCodec
from device.drivers.contract import Driver
from device.txn.effects import ChargeCard, ChargeCode, Effect, QueryOrder
from device.txn.inputs import ChannelSaid, Input, Said
from device.types import Account
from sim.channels import alipay_keys, unionpay_server
from sim.channels.alipay import AlipayRules
from sim.channels.alipay_server import AlipayServer
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.keys import KeyPair, Platform, key_pair, platform
from sim.channels.server import ChannelServer
from sim.channels.shouqianba import ShouqianbaRules
from sim.channels.shouqianba_server import KEY as SHOUQIANBA_KEY
from sim.channels.shouqianba_server import ShouqianbaServer
from sim.channels.unionpay import UnionpayRules
from sim.channels.unionpay_server import UnionpayServer
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import WechatServer
from sim.virtual.fate import EPOCH, Fate, WorldClock
from sim.virtual.wire import ABOUT, UNDOS, About, Exchange, Wire

SINCE = EPOCH.astimezone(datetime.UTC) - datetime.timedelta(days=30)       # of certificates
BITS = 1_024                   # of keys that are taken in any size: every proof is made and checked, at a third of the cost
NOTICES = "https://shop.example/n"
MCHID = "1900000001"
REFUND_AFTER_MS = 4_000


class Channel:
    """One channel of one shop.  `variant` picks between what a channel offers twice; `post` gives the box an input later.

    `name` as in the report; `key` the digit before PAY; `qr` the wallets that can pay its QR, `codes` those whose codes it charges.
    """

    name: ClassVar[str]
    key: ClassVar[str]
    driver: ClassVar[str] = ""         # its name on the box, where that is another
    qr: ClassVar[tuple[str, ...]] = ()
    codes: ClassVar[tuple[str, ...]] = ()
    filed: ClassVar[str] = "bill_file" # the call that brings a bill's rows
    undo_moves: ClassVar[bool] = False # undoing a paid QR gives its money back, whatever the rule table says of its name

    def __init__(self, fate: Fate, clock: WorldClock, seed: int, variant: int) -> None:
        self.fate, self.clock, self.variant = fate, clock, variant
        self.starts: Callable[[Effect], None] = lambda effect: None     # told what the box's driver begins with
        self.kill: Callable[[], None] = lambda: None
        self.server: Any = self.served(seed)
        self.exchange = None
        if isinstance(self.server, ChannelServer):
            self.exchange = Exchange(self.name, self.server, fate, client=MCHID, filed=self.filed)

    # What each channel fills in

    def served(self, seed: int) -> Any:
        """Its server with empty books."""
        raise NotImplementedError

    def account(self) -> Account:
        raise NotImplementedError

    def opened(self, line: dict[str, Any]) -> HttpsChannel:
        """The box's driver of one boot; `line` goes to HttpsChannel."""
        raise NotImplementedError

    # What all of them have

    @property
    def part(self) -> str:
        return self.driver or self.name

    def made(self, post: Callable[[float, Input], None]) -> Heard:
        """A fresh driver, as after a boot."""
        far = self.exchange
        assert far is not None
        channel = self.opened({"base_url": "http://channel.local", "lines": lambda url: Wire(far)})
        return Heard(self, ChannelAccounts(f"channel:{self.part}", (self.account(), [channel]), lambda account: []), post)

    def calm(self) -> None:
        """What was broken for a while is whole again."""
        if self.exchange is not None:
            self.exchange.away_until_s, self.exchange.deaf = 0, ()

    def go_deaf(self) -> None:
        """Towards evening: orders stay open, and tomorrow only their bill tells."""
        if self.exchange is not None and self.fate.strikes(self.name, "deaf"):
            self.exchange.deaf = UNDOS if self.fate.random.random() < .25 else (*UNDOS, "query")

    def hear_again(self) -> None:
        if self.exchange is not None:
            self.exchange.deaf = ()

    def orders(self) -> list[dict[str, Any]]:
        return [row | {"channel": self.name} for row in self.server.orders()]

    def scan(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        """A payer scans: {"ok", "why", "order_no"}."""
        return self.server.scan(qr, outcome, slow_s=slow_s)

    def code(self, wallet: str, outcome: str, slow_s: float) -> str:
        """A payer's code, and what its payer will do."""
        code = self.server.code(wallet)
        self.server.code_outcome(code, outcome, slow_s)
        return code

    def paid_after_close(self, order_no: str) -> None:
        """Somebody was paying while the close came, and this channel may let it stand."""


class Heard:
    """A channel's driver, with what reaches the box besides: an answer told a second time, and late."""

    def __init__(self, channel: Channel, inner: Driver, post: Callable[[float, Input], None]) -> None:
        self.does, self.at_once = inner.does, inner.at_once
        self._channel, self._inner, self._post = channel, inner, post

    async def inputs(self) -> AsyncIterator[Input]:
        async for said in self._inner.inputs():
            yield self._slipped(said)

    def _slipped(self, said: Input) -> Input:
        """Well proven, and their own slip: one fen more."""
        if isinstance(said, ChannelSaid) and said.said is Said.PAID and self._channel.fate.strikes(
                self._channel.name, "other_amount", said.order_no):
            return msgspec.structs.replace(said, amount_fen=said.amount_fen + 1)
        return said

    async def do(self, effect: Effect) -> Input:
        no = getattr(getattr(effect, "intent", None), "order_no", "")
        ABOUT.set(About(no, isinstance(effect, QueryOrder) and effect.watch))
        fate, name = self._channel.fate, self._channel.name
        self._channel.starts(effect)
        if not ABOUT.get().watch and fate.strikes("box", "kill_charging" if isinstance(
                effect, (ChargeCode, ChargeCard)) else "kill_asking", no):
            asyncio.get_running_loop().call_later(fate.random.uniform(0, .6), self._channel.kill)
        said = self._slipped(await self._inner.do(effect))
        if fate.strikes(name, "told_twice", no):
            self._post(fate.random.uniform(0, 40), said)
        return said

    async def close(self) -> None:
        await self._inner.close()


class Nonces:
    def __init__(self) -> None:
        self._made = 0

    def __call__(self) -> str:
        self._made += 1
        return f"n{self._made:031d}"


# The channels


@functools.cache
def wechat_keys() -> tuple[KeyPair, Platform]:
    return key_pair("Corner Shop", bits=BITS), platform(bits=BITS)


class Wechat(Channel):
    """Odd variants charge payers' codes by API v3, even ones by v2."""

    name, key = "wechat", "1"
    qr = codes = ("wechat",)

    def served(self, seed: int) -> WechatServer:
        self._merchant, self._platform = wechat_keys()
        self._nonce = Nonces()
        rules = WechatRules(self.clock.unix_ms, mchid=MCHID, seed=seed)
        rules.refund_after_ms = REFUND_AFTER_MS
        self.fate.known(self.name, ("paid_after_close",))
        return WechatServer(rules, merchant_public_pem=self._merchant.public_pem, merchant_serial=self._merchant.serial_no,
                            platform=self._platform, now_s=self.clock.unix_s)

    def account(self) -> Account:
        rules, v3 = self.server.rules, (("code_api", "v3"),) if self.variant % 2 else ()
        return Account("wechat", "main", (("appid", rules.appid), *v3, ("mchid", rules.mchid), ("notify_url", NOTICES)))

    def opened(self, line: dict[str, Any]) -> HttpsChannel:
        return HttpsChannel(WechatCodec(
            account="main", private_key_pem=self._merchant.private_pem, serial_no=self._merchant.serial_no,
            platform_keys={self._platform.key_id: self._platform.public.public_pem}, now_s=self.clock.unix_s, nonce=self._nonce,
            api_v2_key=self.server.api_v2_key, code_api="v3" if self.variant % 2 else "v2"), **line)

    def paid_after_close(self, order_no: str) -> None:
        if self.fate.strikes(self.name, "paid_after_close", order_no):
            self.server.rules.pay_after_close(order_no)


@functools.cache
def alipay_keys_made() -> tuple[KeyPair, KeyPair, alipay_keys.Authority]:
    app = key_pair("Corner Shop", bits=BITS)
    return app, key_pair("Local Alipay", bits=BITS), alipay_keys.authority(app.public_pem, SINCE)


class Alipay(Channel):
    """Odd variants hold certificates, even ones a public key."""

    name, key = "alipay", "2"
    qr = codes = ("alipay",)

    def served(self, seed: int) -> AlipayServer:
        self._app, self._platform, self._authority = alipay_keys_made()
        rules = AlipayRules(self.clock.unix_ms, seed=seed)
        rules.refund_seen_ms = REFUND_AFTER_MS
        return AlipayServer(rules, app_public_pem=self._app.public_pem, platform=self._platform, now_s=self.clock.unix_s,
                            authority=self._authority if self.variant % 2 else None)

    def account(self) -> Account:
        return Account("alipay", "main", (("appid", self.server.rules.app_id),))

    def opened(self, line: dict[str, Any]) -> HttpsChannel:
        held = self._authority.installed if self.variant % 2 else self._platform.public_pem
        keys = AlipayKeys(self._app.private_pem, held)
        return HttpsChannel(AlipayCodec(account="main", keys=keys, now_s=self.clock.unix_s), **line)


@functools.cache
def unionpay_keys() -> tuple[KeyPair, unionpay_server.Authority]:
    return key_pair("Corner Shop", bits=BITS), unionpay_server.authority(SINCE)


class Unionpay(Channel):
    name, key, filed = "unionpay", "3", "bill"
    qr = codes = ("unionpay",)

    def served(self, seed: int) -> UnionpayServer:
        self._merchant, self._authority = unionpay_keys()
        self._cert_id = str(int(self._merchant.serial_no, 16))
        rules = UnionpayRules(self.clock.unix_ms, seed=seed)
        rules.refund_after_ms = REFUND_AFTER_MS
        return UnionpayServer(rules, merchant_public_pem=self._merchant.public_pem, cert_id=self._cert_id,
                              authority=self._authority, now_s=self.clock.unix_s)

    def account(self) -> Account:
        return Account("unionpay", "main", (("file_url", "https://files.local/"), ("mchid", self.server.rules.merchant),
                                            ("notify_url", NOTICES), ("termId", "BOX00001")))

    def opened(self, line: dict[str, Any]) -> HttpsChannel:
        return HttpsChannel(UnionpayCodec(account="main", private_key_pem=self._merchant.private_pem, cert_id=self._cert_id,
                                          trust_pem=self._authority.trust_pem, now_s=self.clock.unix_s), **line)


class MemoryFile:
    """A terminal's keys on a card that survives every boot."""

    def __init__(self, held: Held) -> None:
        self._held = held_text(held)

    def read(self) -> bytes:
        return self._held

    def write(self, held: bytes) -> None:
        self._held = held


class Gateway(Channel):
    """Our own protocol; its key changes every day."""

    name, key = "gateway", "4"
    qr = codes = ("wechat", "alipay", "unionpay", "ecny")

    def served(self, seed: int) -> GatewayServer:
        secret = b"0123456789abcdef0123456789abcdef"
        self._nonce, self._file = Nonces(), MemoryFile(Held(secret))
        rules = GatewayRules(self.clock.unix_ms, seed=seed)
        rules.refund_after_ms = REFUND_AFTER_MS
        return GatewayServer(rules, secret=secret, now_s=self.clock.unix_s)

    def account(self) -> Account:
        return Account("gateway", "main", (("terminal_id", self.server.rules.terminal_id),))

    def opened(self, line: dict[str, Any]) -> HttpsChannel:
        held = held_of(self._file.read())
        codec = GatewayCodec(account="main", secret=held.newest, older=held.older, now_s=self.clock.unix_s, nonce=self._nonce)
        return GatewayChannel(codec, terminal_id=self.server.rules.terminal_id, key_file=self._file, held=held, **line)

    def scan(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        return self.server.scan(qr, outcome, wallet=wallet, slow_s=slow_s)


class Shouqianba(Channel):
    """The gateway in Shouqianba's dialect: one wallet a QR, unsigned replies, a key of the day."""

    name, key, driver = "shouqianba", "4", "gateway"
    qr = codes = ("wechat", "alipay", "unionpay")
    undo_moves = True

    def served(self, seed: int) -> ShouqianbaServer:
        rules = ShouqianbaRules(self.clock.unix_ms, seed=seed)
        rules.refund_after_ms = REFUND_AFTER_MS
        server = ShouqianbaServer(rules, now_s=self.clock.unix_s)
        self._file = MemoryFile(Held(SHOUQIANBA_KEY, notes={"terminal": rules.terminal_id, "device": server.first.device_id,
                                                            "day": server.first.day}))
        return server

    def account(self) -> Account:
        return Account("gateway", "main", (("dialect", "shouqianba"), ("operator", "01"),
                                           ("terminal_id", self.server.rules.terminal_id)))

    def hear_again(self) -> None:
        """Also, their people put a terminal right that has lost its keys: two answers to a check-in that got lost are enough."""
        super().hear_again()
        held, theirs = held_of(self._file.read()), self.server.first
        if not {theirs.key, theirs.before} & {held.newest, held.older} - {b""}:
            theirs.key, theirs.before = held.newest, b""

    def calm(self) -> None:
        super().calm()
        self.hear_again()

    def opened(self, line: dict[str, Any]) -> HttpsChannel:
        held = held_of(self._file.read())
        return ShouqianbaChannel(ShouqianbaCodec(account="main", key=held.newest), terminal_id=self.server.rules.terminal_id,
                                 key_file=self._file, held=held, now_s=self.clock.unix_s, **line)

    def scan(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        return self.server.scan(qr, outcome, wallet=wallet, slow_s=slow_s)
