"""Which input device sits in which USB port, as sysfs tells it: two equal scanners have nothing else that tells them apart.
Reads names and capabilities, opens no device.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from device.drivers.input_line import SCANNER_KEYS
from device.errors import DriverGone

SYS, DEV = "/sys", "/dev"
PORT = re.compile(r"[0-9]+-[0-9]+(?:\.[0-9]+)*")                 # 1-1.3: bus 1, port 1, then port 3 of the hub in it
_INTERFACE = re.compile(rf"({PORT.pattern}):[0-9]+\.[0-9]+")
_WORD_BITS = 64                                                  # a long in the kernel's bit maps, on the boards we ship on
_TYPES = frozenset((*range(2, 14), *range(16, 28), *range(30, 42), *range(44, 54), 28, 57, 96, *range(71, 84)))
KEYS_MIN = 10                 # of those that type: fewer is a power button or a volume wheel


class Node(msgspec.Struct, frozen=True):
    """One input device.  `path` to open it by; `name` as it calls itself; `usb` vendor and product, "0c2e:0b61"; `port` "" when
    it is on no USB; `keys` the evdev codes that it can send, none for a hidraw node.
    """

    path: str
    name: str
    usb: str
    port: str
    serial: str = ""
    keys: frozenset[int] = frozenset()

    @property
    def types(self) -> bool:
        """Whether it could type something that means anything."""
        return len(self.keys & _TYPES) >= KEYS_MIN

    def __str__(self) -> str:
        return f"{self.name or 'a nameless device'} ({', '.join(filter(None, (self.usb, self.port and f'USB port {self.port}')))})"


def keyboards(sys: str = SYS, dev: str = DEV) -> list[Node]:
    """Every event node there is, in the order of their numbers; [] where the kernel has none."""
    return _nodes(Path(sys) / "class/input", "event", lambda folder: _event(folder, Path(dev) / "input"))


def hid_nodes(sys: str = SYS, dev: str = DEV) -> list[Node]:
    """Every hidraw node, likewise."""
    return _nodes(Path(sys) / "class/hidraw", "hidraw", lambda folder: _hidraw(folder, Path(dev)))


def serial_nodes(sys: str = SYS, dev: str = DEV) -> list[Node]:
    """Every serial port on the USB, likewise: adapters and devices that are one themselves."""
    found = []
    for stem in ("ttyACM", "ttyUSB"):
        found += _nodes(Path(sys) / "class/tty", stem, lambda folder: _serial(folder, Path(dev)))
    return found


def at_port(port: str, *, which: str, kind: str = "event", needed: frozenset[int] = SCANNER_KEYS, sys: str = SYS,
            dev: str = DEV) -> str:
    """The path of the event, hidraw or serial node of the device in USB port `port`.  DriverGone when nothing fit is in it.

    Of a device with several nodes the one that has the `needed` keys.
    """
    nodes = {"event": keyboards, "hidraw": hid_nodes, "serial": serial_nodes}[kind](sys, dev)
    there = [node for node in nodes if node.port == port]
    fit = [node for node in there if needed <= node.keys] if kind == "event" else there
    if not fit:
        other = f"{there[0]} is no {which}" if there else f"nothing of kind {kind} is in USB port {port}"
        raise DriverGone(other, which=which, hint="is it plugged in there? `tillbox scan list` names every port")
    return fit[0].path


def report_descriptor(path: str, sys: str = SYS) -> bytes:
    """The HID report descriptor behind a hidraw node; b"" where there is none, a twin's say."""
    try:
        return Path(sys, "class/hidraw", Path(os.path.realpath(path)).name, "device/report_descriptor").read_bytes()
    except OSError:
        return b""


def _nodes(folder: Path, stem: str, read) -> list[Node]:
    try:
        names = [name for name in os.listdir(folder) if name.startswith(stem) and name[len(stem):].isdigit()]
    except OSError:
        return []
    found = []
    for name in sorted(names, key=lambda name: int(name[len(stem):])):
        try:
            found.append(read(folder / name))
        except (OSError, ValueError):         # it went while we looked
            continue
    return found


def _event(folder: Path, dev: Path) -> Node:
    device = folder / "device"
    usb = f"{_text(device / 'id/vendor')}:{_text(device / 'id/product')}"
    return Node(str(dev / folder.name), _text(device / "name"), usb, _port_of(folder), _text(device / "uniq"),
                _bits(_text(device / "capabilities/key")))


def _hidraw(folder: Path, dev: Path) -> Node:
    said = dict(line.partition("=")[::2] for line in (folder / "device/uevent").read_text(errors="replace").splitlines())
    _, vendor, product = (said.get("HID_ID", "0:0:0").split(":") + ["0", "0"])[:3]
    return Node(str(dev / folder.name), said.get("HID_NAME", ""), f"{int(vendor, 16):04x}:{int(product, 16):04x}", _port_of(folder),
                said.get("HID_UNIQ", ""))


def _serial(folder: Path, dev: Path) -> Node:
    usb = next((up for up in Path(os.path.realpath(folder)).parents if (up / "idVendor").exists()), folder)
    return Node(str(dev / folder.name), _text(usb / "product"), f"{_text(usb / 'idVendor')}:{_text(usb / 'idProduct')}",
                _port_of(folder), _text(usb / "serial"))


def _port_of(folder: Path) -> str:
    found = [match[1] for part in os.path.realpath(folder).split("/") if (match := _INTERFACE.fullmatch(part))]
    return found[-1] if found else ""


def _text(path: Path) -> str:
    try:
        text = path.read_text(errors="replace").strip()
    except OSError:
        return ""
    return "".join(char if char.isprintable() else "?" for char in text)[:80]      # a device says what it likes


def _bits(words: str) -> frozenset[int]:
    """The numbers in one of the kernel's bit maps: hexadecimal words, the highest first."""
    number = 0
    for word in words.split():
        number = number << _WORD_BITS | int(word, 16)
    return frozenset(n for n in range(number.bit_length()) if number >> n & 1)
