"""Which class drives which kind of part: one literal dict a part, seen by grep, type checker and reader alike."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

import msgspec

from device.clock import WallClock
from device.config import (
    CARD,
    ChannelConfig,
    Config,
    DisplayConfig,
    PrinterConfig,
    ScannerConfig,
    SoundConfig,
    account_of,
)
from device.drivers import private_file
from device.drivers.channels.terminal_bytes import Held, held_of, terminal_ok
from device.drivers.contract import Display, Driver, Signer
from device.errors import DriverGone, Outside
from device.keys.sealed import whose
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input
from device.types import Account, Found

if TYPE_CHECKING:
    from device.drivers.channels.accounts import KeySet
    from device.drivers.channels.https import HttpsChannel
    from device.drivers.input.scanner_reads import Tap

log = logging.getLogger("tillbox")

LOOPBACK = re.compile(r"http://(localhost|127\.[0-9.]+|\[::1\])(:|/|$)")
LookUp = Callable[[str], Found | str | None]


class Keys(Protocol):
    """The sealed keys, as far as channels are made of them."""

    def sets(self, c: ChannelConfig, platform_key: bytes, ca_file: str) -> list[KeySet]:
        """Those of the account in `c`, newest first; [] when none is sealed.  Outside when one cannot be opened."""
        ...

    def older(self, account: Account) -> tuple[ChannelConfig, bytes, bytes] | None:
        """Section, platform key and roots of an account that was in use once; None for a stranger.  Outside likewise."""
        ...

    def remember(self, c: ChannelConfig, platform_key: bytes, ca: bytes) -> None:
        """Keep them, for the day when another account is in use.  Outside when the card will not."""
        ...

    def channels(self) -> list[str]:
        """Channels of which any key is sealed here."""
        ...


class SystemWall:
    """The system's own clock, for a look at the channels without a box."""

    def now_s(self) -> float:
        return time.time()

    def dated(self, at_s: float) -> None:
        """Whoever only looks sets no clock."""


def drivers_of(config: Config, look_up: LookUp, keys: Keys | None = None, wall: WallClock | None = None,
               tap: Tap | None = None) -> dict[str, Driver]:
    """Every driver that `config` asks for, by part; none of them is open yet.  `wall` is what channels sign by, `tap` hears
    scans before the till does.

    A channel that `config` names no more has one, too, while a key of it is sealed: its orders and refunds have to end.
    """
    drivers: dict[str, Driver] = {}
    state, wall = Path(config.state_dir), wall or SystemWall()
    for scanner in config.scanners:
        if scanner.kind != "none":
            drivers[f"scanner:{scanner.lane}" if scanner.lane else "scanner"] = SCANNERS[scanner.kind](scanner, look_up, tap)
    for part, kind, made in (("keypad", config.keypad.kind, lambda: KEYPADS[config.keypad.kind](config)),
                             ("printer", config.printer.kind, lambda: _printer(config.printer, config.state_dir)),
                             ("sound", config.sound.kind, lambda: _speaker(config, drivers.get("printer")))):
        if kind != "none":
            drivers[part] = made()
    for channel in config.channels:
        part = f"channel:{channel.name}"
        try:
            drivers[part] = _card(channel, keys) if channel.name == CARD else _accounts(part, channel, keys, state, wall)
        except (Outside, ValueError) as why:           # ValueError: a key file that holds no key
            drivers[part] = Absent(part, str(why))
    for name in keys.channels() if keys is not None else []:
        part = f"channel:{name}"
        if part not in drivers and name in CHANNELS:
            drivers[part] = _accounts(part, None, keys, state, wall)
    return drivers


def signer_of(config: Config, kid: str = "", *, make: bool = True) -> Signer:
    """Whoever signs this box's records, with the key `kid` that its journal names; "" for a new journal, which makes one if `make`.

    KeyMissing when another key is there, DriverGone when it cannot be used.  A box that practises has a key file of its own.
    """
    return SIGNERS["file" if config.training else config.signer.kind](config, kid, make)


class Absent:
    """A part that cannot be used as it is set up: says so, and the rest of the till sells."""

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, part: str, why: str) -> None:
        self.why, self._part, self._closed = why, part, asyncio.Event()

    async def inputs(self) -> AsyncIterator[Input]:
        yield DeviceSaid(self._part, "error", self.why)
        await self._closed.wait()

    async def do(self, effect: Effect) -> Input:
        raise DriverGone(self.why, which=self._part, again=False)

    async def close(self) -> None:
        self._closed.set()


def displays_of(config: Config) -> dict[str, Display]:
    """Every display by its part, `display`, `display:2` and so on; {} for a box without one.  None of them is open yet."""
    parts = (("display" if n == 1 else f"display:{n}", c) for n, c in enumerate(config.displays, 1))
    displays = {part: DISPLAYS[c.kind](c, part) for part, c in parts if c.kind != "none"}
    for display in displays.values():
        display.pictures(config.pictures)
    return displays


def _signer_file(config: Config, kid: str, make: bool) -> Signer:
    from device.drivers.signer.file import FileSigner
    return FileSigner(Path(config.state_dir, "training", "training.key") if config.training else config.record_key_file, kid,
                      make=make)


def _signer_pkcs11(config: Config, kid: str, make: bool) -> Signer:
    from device.drivers.signer.pkcs11 import Pkcs11Signer
    c = config.signer
    pin_file = c.pin_file or str(Path(os.environ.get("CREDENTIALS_DIRECTORY", "/run/credentials"), "tillbox-pin"))
    return Pkcs11Signer(c.module, c.token, c.key, pin_file, kid, make=make, refused_file=str(Path(config.state_dir, "pin.refused")))


def _scanner_evdev(c: ScannerConfig, look_up: LookUp, tap: Tap | None) -> Driver:
    from device.drivers.input.scanner_evdev import EvdevScanner
    return EvdevScanner(c.path, look_up, suffix=c.suffix, gap_ms=c.gap_ms, gs=c.gs, layout=c.layout, caps=c.caps, port=c.port,
                        lane=c.lane, repeat_ms=c.repeat_ms, tap=tap)


def _scanner_serial(c: ScannerConfig, look_up: LookUp, tap: Tap | None) -> Driver:
    from device.drivers.input.scanner_serial import SerialScanner
    return SerialScanner(c.path, look_up, suffix=c.suffix, gap_ms=c.gap_ms, gs=c.gs, baud=c.baud, port=c.port,
                         lane=c.lane, repeat_ms=c.repeat_ms, tap=tap)


def _scanner_hidraw(c: ScannerConfig, look_up: LookUp, tap: Tap | None) -> Driver:
    from device.drivers.input.scanner_hidraw import HidrawScanner
    return HidrawScanner(c.path, look_up, gs=c.gs, port=c.port, lane=c.lane, repeat_ms=c.repeat_ms, tap=tap)


def _keypad_evdev(config: Config) -> Driver:
    from device.drivers.input.keypad_evdev import EvdevKeypad
    return EvdevKeypad(config.keypad.path, layout=config.keypad.layout, port=config.keypad.port)


def _line_tcp(c: PrinterConfig):
    from device.drivers.printer.tcp import TcpLine
    return TcpLine(c.host, c.port)


def _line_serial(c: PrinterConfig):
    from device.drivers.printer.serial import SerialLine
    return SerialLine(c.path, c.baud, flow=c.flow)


def _line_file(c: PrinterConfig):
    from device.drivers.printer.file import FileLine
    return FileLine(c.path, create=c.kind == "file")


def _line_usb(c: PrinterConfig):
    from device.drivers.printer.usb import UsbLine
    return UsbLine(c.path)


def _printer(c: PrinterConfig, state_dir: str) -> Driver:
    from device.drivers.printer.driver import Limits, Printer
    more: dict[str, Any] = {}
    if c.backend == "escpos":
        from device.drivers.printer.library import LibraryEncoder
        more["encode"] = LibraryEncoder(c.profile, Path(state_dir) / "escpos")
        more["longest"] = 2_048                        # a row of its column images
    elif (c.dialect, c.qr, c.cut, c.logo) != ("chinese", "auto", "partial", ""):
        more["encode"] = _page(c)
    return Printer(LINES[c.kind](c), c.columns, drawer_pin=c.drawer_pin, drawer_sensor=c.drawer_sensor, model=c.model,
                   limits=Limits(proof_s=c.timeout_s), **more)


def _page(c: PrinterConfig):
    from device.drivers.printer.dialect_bytes import DIALECTS, Page
    from device.drivers.printer.raster import Logo, Raster
    return Page(DIALECTS[c.dialect], Raster(), qr=c.qr, cut=c.cut, **({"logo": Logo(c.logo)} if c.logo else {}))


def _speaker(config: Config, printer: Driver | None) -> Driver:
    from device.drivers.sound.driver import Speaker
    c, voice = config.sound, None
    if c.speak and c.voice_dir:
        from device.drivers.sound.voice import RecordedVoice
        voice = RecordedVoice(c.voice_dir)
    elif c.speak:
        from device.drivers.sound.aplay import espeak as voice
    return Speaker(SOUNDS[c.kind](c, printer), volume=c.volume, lang=config.lang, voice=voice)


def _sink_aplay(c: SoundConfig, printer: Driver | None):
    from device.drivers.sound.aplay import AplaySink
    return AplaySink(c.device)


def _sink_file(c: SoundConfig, printer: Driver | None):
    from device.drivers.sound.file import FileSink
    return FileSink(c.path)


def _sink_printer(c: SoundConfig, printer: Any):
    from device.drivers.sound.buzzer import PrinterBuzzer
    return PrinterBuzzer(printer)


def _sink_wire(c: SoundConfig, printer: Driver | None):
    from device.drivers.sound.buzzer import WireBuzzer
    return WireBuzzer(c.path)


def _sink_board(c: SoundConfig, printer: Driver | None):
    from device.drivers.sound.buzzer import BoardBuzzer
    return BoardBuzzer(c.path)


def _display_fb(c: DisplayConfig, part: str) -> Display:
    from device.drivers.display.fb import FbDisplay
    return FbDisplay(c.path, rotation=c.rotation, large=c.large, slide_s=c.slide_s, part=part)


def _display_file(c: DisplayConfig, part: str) -> Display:
    from device.drivers.display.file import FileDisplay
    return FileDisplay(c.path, width=c.width, height=c.height, large=c.large, slide_s=c.slide_s, part=part)


def _display_pole(c: DisplayConfig, part: str) -> Display:
    from device.drivers.display.pole import PoleDisplay
    return PoleDisplay(c.path, dialect=c.dialect, baud=c.baud, charset=c.charset, part=part)


def _display_oled(c: DisplayConfig, part: str) -> Display:
    from device.drivers.display.oled import OledDisplay
    return OledDisplay(c.path, chip=c.chip, width=c.width, height=c.height, rotation=c.rotation, part=part)


# Channels that speak with an account's keys: sealed, or in the files that box.toml names.

def _accounts(part: str, c: ChannelConfig | None, keys: Keys | None, state: Path, wall: WallClock) -> Driver:
    from device.drivers.channels.accounts import ChannelAccounts

    def opened(account: Account) -> list[HttpsChannel]:
        kept = keys.older(account) if keys is not None else None
        if kept is None:
            return []
        old, platform_key, ca = kept
        return _made(old, keys, platform_key, private_file.in_memory(ca) if ca else "", state, wall)

    if c is None:
        return ChannelAccounts(part, None, opened)
    platform_key = _key(c.platform_key_file) if c.platform_key_file else b""
    channels = _made(c, keys, platform_key, c.ca_file, state, wall)
    if keys is not None:
        try:
            keys.remember(c, platform_key, _key(c.ca_file) if c.ca_file else b"")
        except Outside as why:
            log.warning("%s: should its account change, this one's orders cannot end: %s", part, why)
    return ChannelAccounts(part, (account_of(c), channels), opened)


def _made(c: ChannelConfig, keys: Keys | None, platform_key: bytes, ca_file: str, state: Path,
          wall: WallClock) -> list[HttpsChannel]:
    """A channel for each key of the account, newest first; only the first must be good."""
    from device.drivers.channels.accounts import KeySet

    first, *others = (keys.sets(c, platform_key, ca_file) if keys is not None else []) or [
        KeySet(platform_key=platform_key, ca_file=ca_file, serial_no=c.serial_no)]
    channels = [CHANNELS[c.name](c, _with_files(c, first, state), wall)]
    for other in others:
        try:
            channels.append(CHANNELS[c.name](c, _with_files(c, other, state), wall))
        except (Outside, ValueError) as why:
            log.warning("channel:%s: the key before this one cannot be used: %s", c.name, why)
    return channels


def _with_files(c: ChannelConfig, sealed: KeySet, state: Path) -> KeySet:
    """What is not sealed comes from box.toml and the files it names."""
    plain = c.name == "gateway"
    private = sealed.private_key or (_key(c.private_key_file) if c.private_key_file and not plain else b"")
    if not (private or plain):
        raise DriverGone("no key of this account is here", which=f"channel.{c.name}", again=False,
                         hint="tillbox keys import, or name its private_key_file in box.toml")
    return msgspec.structs.replace(
        sealed, private_key=private, secret=sealed.secret or ("" if sealed.terminal else c.secret),
        api_v3_key=sealed.api_v3_key or c.api_v3_key, client_cert=sealed.client_cert or c.client_cert_file,
        certificates=private_file.PlainFile(state / f"certificates-{quote(whose(account_of(c)), safe='')}"),
        terminal=sealed.terminal or (private_file.PlainFile(c.private_key_file) if plain and c.private_key_file else None))


def _wechat(c: ChannelConfig, k: KeySet, wall: WallClock) -> HttpsChannel:
    from device.drivers.channels.https import HttpsChannel
    from device.drivers.channels.wechat import WechatCodec
    from device.drivers.channels.wechat_bytes import merchants
    merchants(dict(account_of(c).fields))                      # ValueError for a provider's and a shop's numbers that do not fit
    held = {c.platform_key_id: k.platform_key} if k.platform_key else {}
    if not (held or k.api_v3_key):
        raise DriverGone("nothing of WeChat's is here to prove its replies by", which="channel.wechat", again=False,
                         hint="name platform_key_id and platform_key_file in box.toml, or give it the api_v3_key")
    return HttpsChannel(WechatCodec(
        account=c.account, private_key_pem=k.private_key, serial_no=k.serial_no, platform_keys=held, now_s=wall.now_s,
        nonce=lambda: secrets.token_hex(16), api_v2_key=k.secret, api_v3_key=k.api_v3_key, certificates_file=k.certificates,
        code_api=c.code_api),
        base_url=c.base_url, ca_file=k.ca_file, client_cert=k.client_cert, dated=wall.dated)


def _gateway(c: ChannelConfig, k: KeySet, wall: WallClock) -> HttpsChannel:
    from device.drivers.channels.gateway import GatewayCodec
    from device.drivers.channels.gateway_rotation import GatewayChannel
    from device.drivers.channels.https import HttpsChannel
    line: dict[str, Any] = {"base_url": c.base_url, "ca_file": k.ca_file, "client_cert": k.client_cert, "dated": wall.dated}
    held = terminal_of(c, k)
    if c.dialect == "shouqianba":
        return _shouqianba(c, k, held, line, wall)
    codec = GatewayCodec(account=c.account, secret=held.newest, older=held.older, now_s=wall.now_s,
                         nonce=lambda: secrets.token_hex(16))
    if k.secret or k.terminal is None:   # the configuration is not ours to write: such a key stays
        return HttpsChannel(codec, **line)
    return GatewayChannel(codec, terminal_id=c.terminal_id, key_file=k.terminal, held=held, **line)


def _shouqianba(c: ChannelConfig, k: KeySet, held: Held, line: dict[str, Any], wall: WallClock) -> HttpsChannel:
    from device.drivers.channels.shouqianba import ShouqianbaCodec
    from device.drivers.channels.shouqianba_checkin import ShouqianbaChannel
    if k.secret or k.terminal is None:
        raise ValueError("Shouqianba's key changes every day: leave secret out and activate the box")
    # Its replies carry no signature: a line that proves whom it leads to is all there is.
    if not c.base_url.startswith("https://") and not LOOPBACK.match(c.base_url):
        raise ValueError("Shouqianba is spoken to by https only")
    return ShouqianbaChannel(ShouqianbaCodec(account=c.account, key=held.newest), terminal_id=c.terminal_id,
                             key_file=k.terminal, held=held, now_s=wall.now_s, **line)


def terminal_of(c: ChannelConfig, k: KeySet) -> Held:
    """The terminal's keys.  DriverGone, with what to do, where there are none; ValueError for what is no key or no terminal id."""
    try:
        held = held_of(k.secret.encode()) if k.secret or k.terminal is None else held_of(k.terminal.read())
    except FileNotFoundError:
        held = Held()
    except OSError as why:
        raise DriverGone(f"{c.private_key_file} cannot be read: {why.strerror}", which="channel.gateway", again=False) from None
    if not held.newest:
        raise DriverGone("this box has no key of the gateway's yet", which="channel.gateway",
                         hint="tillbox gateway activate CODE", again=False)
    told = held.notes.get("terminal", c.terminal_id)
    if told != c.terminal_id:
        raise DriverGone(f"box.toml names terminal {c.terminal_id}, and the key here is that of {told}",
                         which="channel.gateway", hint="take terminal_id out of box.toml", again=False)
    if not terminal_ok(c.terminal_id):
        raise ValueError("the gateway's terminal_id is missing, or is none that a request could name")
    return held


def _unionpay(c: ChannelConfig, k: KeySet, wall: WallClock) -> HttpsChannel:
    from device.drivers.channels.https import HttpsChannel
    from device.drivers.channels.unionpay import UnionpayCodec
    return HttpsChannel(UnionpayCodec(
        account=c.account, private_key_pem=k.private_key, cert_id=k.serial_no, trust_pem=k.platform_key,
        signer=c.platform_key_id, now_s=wall.now_s), base_url=c.base_url, ca_file=k.ca_file, dated=wall.dated)


def _alipay(c: ChannelConfig, k: KeySet, wall: WallClock) -> HttpsChannel:
    from device.drivers.channels.alipay import AlipayCodec
    from device.drivers.channels.alipay_proof_bytes import AlipayKeys
    from device.drivers.channels.https import HttpsChannel
    return HttpsChannel(AlipayCodec(account=c.account, keys=AlipayKeys(k.private_key, k.platform_key), now_s=wall.now_s,
                                    app_auth_token=k.secret), base_url=c.base_url, ca_file=k.ca_file, dated=wall.dated)


def _card(c: ChannelConfig, keys: Keys | None) -> Driver:
    from device.drivers.channels.card import CardTerminal
    from device.drivers.channels.card_line import serial_line, tcp_line
    sealed = keys.sets(c, b"", "") if keys is not None else []
    secret = sealed[0].secret if sealed else c.secret
    return CardTerminal((lambda: tcp_line(c.host, c.port)) if c.kind == "tcp" else (lambda: serial_line(c.path, c.baud)),
                        account=c.account, terminal_id=c.terminal_id, secret=secret.encode())


def _key(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as why:
        raise DriverGone(f"{path} cannot be read: {why.strerror}", which="channel", hint="check the key files in box.toml",
                         again=False) from None


SIGNERS = {"file": _signer_file, "pkcs11": _signer_pkcs11}
SCANNERS = {"evdev": _scanner_evdev, "serial": _scanner_serial, "hidraw": _scanner_hidraw}
KEYPADS = {"evdev": _keypad_evdev}
LINES = {"tcp": _line_tcp, "serial": _line_serial, "file": _line_file, "usb": _line_usb}
SOUNDS = {"aplay": _sink_aplay, "file": _sink_file, "printer": _sink_printer, "wire": _sink_wire, "board": _sink_board}
DISPLAYS = {"fb": _display_fb, "file": _display_file, "pole": _display_pole, "oled": _display_oled}
CHANNELS = {"wechat": _wechat, "alipay": _alipay, "unionpay": _unionpay, "gateway": _gateway}
