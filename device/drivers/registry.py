"""Which class drives which kind of part: one literal dict a part, seen by grep, type checker and reader alike."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from device.config import ChannelConfig, Config, PrinterConfig
from device.drivers.channel_terminal_bytes import Held, held_of
from device.drivers.contract import Driver
from device.drivers.private_file import KeyFile, PlainFile
from device.errors import DriverGone, Outside
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input
from device.types import Found

LookUp = Callable[[str], Found | None]


def drivers_of(config: Config, look_up: LookUp) -> dict[str, Driver]:
    """Every driver that `config` asks for, by part; none of them is open yet."""
    drivers: dict[str, Driver] = {}
    for part, kind, made in (("scanner", config.scanner.kind, lambda: SCANNERS[config.scanner.kind](config, look_up)),
                             ("keypad", config.keypad.kind, lambda: KEYPADS[config.keypad.kind](config)),
                             ("printer", config.printer.kind, lambda: _printer(config.printer, config.state_dir))):
        if kind != "none":
            drivers[part] = made()
    for channel in config.channels:
        part = f"channel:{channel.name}"
        try:
            drivers[part] = CHANNELS[channel.name](channel)
        except (Outside, ValueError) as why:           # ValueError: a key file that holds no key
            drivers[part] = Absent(part, str(why))
    return drivers


class Absent:
    """A part that cannot be used as it is set up: says so, and the rest of the till sells."""

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, part: str, why: str) -> None:
        self._part, self._why, self._closed = part, why, asyncio.Event()

    async def inputs(self) -> AsyncIterator[Input]:
        yield DeviceSaid(self._part, "error", self._why)
        await self._closed.wait()

    async def do(self, effect: Effect) -> Input:
        raise DriverGone(self._why, which=self._part, again=False)

    async def close(self) -> None:
        self._closed.set()


def display_of(config: Config):
    """The display, or None for a box without one."""
    return DISPLAYS[config.display.kind](config) if config.display.kind != "none" else None


def _scanner_evdev(config: Config, look_up: LookUp) -> Driver:
    from device.drivers.scanner_evdev import EvdevScanner
    c = config.scanner
    return EvdevScanner(c.path, look_up, suffix=c.suffix, gap_ms=c.gap_ms)


def _scanner_serial(config: Config, look_up: LookUp) -> Driver:
    from device.drivers.scanner_serial import SerialScanner
    c = config.scanner
    return SerialScanner(c.path, look_up, suffix=c.suffix, gap_ms=c.gap_ms, baud=c.baud)


def _keypad_evdev(config: Config) -> Driver:
    from device.drivers.keypad_evdev import EvdevKeypad
    return EvdevKeypad(config.keypad.path, layout=config.keypad.layout)


def _line_tcp(c: PrinterConfig):
    from device.drivers.printer_tcp import TcpLine
    return TcpLine(c.host, c.port)


def _line_serial(c: PrinterConfig):
    from device.drivers.printer_serial import SerialLine
    return SerialLine(c.path, c.baud)


def _line_file(c: PrinterConfig):
    from device.drivers.printer_file import FileLine
    return FileLine(c.path, create=c.kind == "file")


def _printer(c: PrinterConfig, state_dir: str) -> Driver:
    from device.drivers.printer_driver import Limits, Printer
    more = {}
    if c.backend == "escpos":
        from device.drivers.printer_library import LibraryEncoder
        more["encode"] = LibraryEncoder("default", Path(state_dir) / "escpos")
    return Printer(LINES[c.kind](c), c.columns, drawer_pin=c.drawer_pin, limits=Limits(proof_s=c.timeout_s), **more)


def _display_fb(config: Config):
    from device.drivers.display_fb import FbDisplay
    return FbDisplay(config.display.path, rotation=config.display.rotation)


def _display_file(config: Config):
    from device.drivers.display_file import FileDisplay
    c = config.display
    return FileDisplay(c.path, width=c.width, height=c.height)


def _wechat(c: ChannelConfig) -> Driver:
    from device.drivers.channel_https import HttpsChannel
    from device.drivers.channel_wechat import WechatCodec
    return HttpsChannel(WechatCodec(
        account=c.account, private_key_pem=_key(c.private_key_file), serial_no=c.serial_no,
        platform_keys={c.platform_key_id: _key(c.platform_key_file)}, now_s=time.time,
        nonce=lambda: secrets.token_hex(16), api_v2_key=c.secret), base_url=c.base_url, ca_file=c.ca_file,
        client_cert=c.client_cert_file)


def _gateway(c: ChannelConfig) -> Driver:
    from device.drivers.channel_gateway import GatewayCodec
    from device.drivers.channel_gateway_rotation import GatewayChannel
    from device.drivers.channel_https import HttpsChannel
    line = {"base_url": c.base_url, "ca_file": c.ca_file, "client_cert": c.client_cert_file}
    held = terminal_of(c)
    codec = GatewayCodec(account=c.account, secret=held.newest, older=held.older, now_s=time.time,
                         nonce=lambda: secrets.token_hex(16))
    if c.secret:                         # the configuration is not ours to write: such a key stays
        return HttpsChannel(codec, **line)
    return GatewayChannel(codec, terminal_id=c.terminal_id, key_file=terminal_file(c), held=held, **line)


def terminal_file(c: ChannelConfig) -> KeyFile:
    """Where the keys of the gateway's terminal lie."""
    return PlainFile(c.private_key_file)


def terminal_of(c: ChannelConfig) -> Held:
    """The terminal's keys.  DriverGone, with what to do, where there are none; ValueError for what is no key or no terminal id."""
    from device.drivers.channel_gateway_key_bytes import terminal_ok
    try:
        held = held_of(c.secret.encode()) if c.secret else held_of(terminal_file(c).read())
    except FileNotFoundError:
        held = Held()
    except OSError as why:
        raise DriverGone(f"{c.private_key_file} cannot be read: {why.strerror}", which="channel.gateway", again=False) from None
    if not held.newest:
        raise DriverGone("this box has no key of the gateway's yet", which="channel.gateway",
                         hint="tillbox gateway activate CODE", again=False)
    told = held.notes.get("terminal", c.terminal_id)
    if told != c.terminal_id:
        raise DriverGone(f"box.toml names terminal {c.terminal_id}, and {c.private_key_file} holds the key of {told}",
                         which="channel.gateway", hint="take terminal_id out of box.toml", again=False)
    if not terminal_ok(c.terminal_id):
        raise ValueError("the gateway's terminal_id is missing, or is none that a request could name")
    return held


def _unionpay(c: ChannelConfig) -> Driver:
    from device.drivers.channel_https import HttpsChannel
    from device.drivers.channel_unionpay import UnionpayCodec
    return HttpsChannel(UnionpayCodec(
        account=c.account, private_key_pem=_key(c.private_key_file), cert_id=c.serial_no, trust_pem=_key(c.platform_key_file),
        signer=c.platform_key_id, now_s=time.time), base_url=c.base_url, ca_file=c.ca_file)


def _card(c: ChannelConfig) -> Driver:
    from device.drivers.channel_card import CardTerminal
    from device.drivers.channel_card_line import serial_line, tcp_line
    return CardTerminal((lambda: tcp_line(c.host, c.port)) if c.kind == "tcp" else (lambda: serial_line(c.path, c.baud)),
                        account=c.account, terminal_id=c.terminal_id, secret=c.secret.encode())


def _key(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as why:
        raise DriverGone(f"{path} cannot be read: {why.strerror}", which="channel", hint="check the key files in box.toml",
                         again=False) from None


def _not_yet(c: ChannelConfig) -> Driver:
    raise DriverGone(f"this release cannot speak to {c.name}", which=f"channel.{c.name}", hint="take it out of box.toml",
                     again=False)


SCANNERS = {"evdev": _scanner_evdev, "serial": _scanner_serial}
KEYPADS = {"evdev": _keypad_evdev}
LINES = {"tcp": _line_tcp, "serial": _line_serial, "file": _line_file, "usb": _line_file}
DISPLAYS = {"fb": _display_fb, "file": _display_file}
CHANNELS = {"wechat": _wechat, "alipay": _not_yet, "unionpay": _unionpay, "gateway": _gateway, "card": _card}
