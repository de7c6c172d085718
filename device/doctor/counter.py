"""The doctor's look at the devices on the counter: what a living daemon says of them, or, with a dead one, a look of its own.

Asks a printer real-time questions, which print nothing, and its name; opens no scanner and no display.  Names whoever holds a port.
"""

from __future__ import annotations

import asyncio
import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from device.config import CARD, PrinterConfig, ScannerConfig
from device.doctor.look import Finding, Look, found
from device.doctor.said import Said
from device.drivers.input_ports import Node, hid_nodes, keyboards
from device.drivers.port_holder import Holder, holders_of_file, holders_of_line
from device.drivers.printer import escpos_bytes as escpos
from device.drivers.registry import LINES
from device.errors import DriverGone, Outside

ANSWER_S = 2.0                           # the printer's driver waits as long
SIDES_PX = (240, 1280)                   # of the displays that screens are laid out for
BITS = ("16", "32")

# What a part's own word means: `channel:` and lanes of scanners stand under their first half.
WORDS: dict[tuple[str, str], str] = {
    ("printer", "gone"): "printer_gone", ("printer", "held"): "printer_held", ("printer", "off"): "printer_offline",
    ("printer", "paper_out"): "printer_paper_out", ("printer", "paper_low"): "printer_paper_low",
    ("printer", "cover_open"): "printer_cover_open", ("printer", "cutter"): "printer_cutter", ("printer", "hot"): "printer_hot",
    ("printer", "error"): "printer_error", ("printer", "wrong_model"): "printer_model", ("printer", "slow"): "printer_slow",
    ("scanner", "gone"): "scanner_gone", ("scanner", "layout"): "scanner_layout", ("scanner", "misreads"): "scanner_misreads",
    ("scanner", "error"): "scanner_held", ("keypad", "gone"): "keypad_gone", ("keyboards", "strange"): "keyboard_strange",
    ("display", "gone"): "display_gone", ("display", "error"): "display_geometry",
    ("drawer", "open"): "drawer_open", ("drawer", "stuck"): "drawer_stuck", ("sound", "gone"): "sound_gone",
    ("signer", "broken"): "signer_broken", ("record_key", "stuck"): "record_key_unfit", ("second_copy", "gone"): "copy_gone",
    ("journal", "full"): "journal_full", ("journal", "cash_only"): "cash_only", ("clock", "wrong"): "clock_off",
    ("collector", "away"): "collector_away", ("prices", "refused"): "prices_refused", ("channel", "key"): "channel_signature",
    ("channel", "lying"): "channel_unproven", ("channel", "slow"): "channel_silent", ("channel", "gone"): "channel_line",
    ("channel", "error"): "channel_unusable", ("channel", "offline"): "channel_line", ("channel", "unmasked"): "channel_answer",
}


def said(look: Look, state: Said) -> Iterator[Finding]:
    """What the living daemon says of its parts, in the doctor's codes."""
    for part, word in sorted(state.health.items()):
        if word == "ok" or (part in ("link", "collector") and not look.config.mqtt.host):
            continue
        if part == "link" or (part == "collector" and state.health.get("link") == "down"):
            continue                                     # said by the look at the line
        yield _of_word(look, part, word, state.whys.get(part, ""))


def _of_word(look: Look, part: str, word: str, why: str) -> Finding:
    kind, _, name = part.partition(":")
    code = WORDS.get((kind, word), "collector_halted" if kind == "collector" else "part_unwell")
    if code in ("printer_gone", "printer_held") and (holder := _printer_holder(look)):
        return _held("printer_held", part, _printer_name(look.config.printer), holder)
    where = f"channel.{name}" if kind == "channel" else "link" if kind == "collector" else part
    detail = why if why else f"The daemon says of {part}: {word}." if code == "part_unwell" or kind == "channel" else ""
    return found(code, where, f"{detail[:1].upper()}{detail[1:].rstrip('.')}." if detail else "")


def looked(look: Look) -> Iterator[Finding]:
    """Each device, with nobody there to ask.  While a daemon runs only what it does not know itself."""
    if look.said is not None:
        return
    for scanner in look.config.scanners:
        part = f"scanner:{scanner.lane}" if scanner.lane else "scanner"
        if scanner.kind != "none":
            yield from _input(look, part, "scanner", scanner.kind, scanner.path, scanner.port)
    keypad, printer = look.config.keypad, look.config.printer
    if keypad.kind != "none":
        yield from _input(look, "keypad", "keypad", keypad.kind, keypad.path, getattr(keypad, "port", ""))
    for n, display in enumerate(look.config.displays, 1):
        if display.kind not in ("none", "file"):
            yield from _node(look, "display" if n == 1 else f"display:{n}", "display", display.path, os.W_OK)
    if printer.kind != "none":
        yield from _printer(look, printer)
    for channel in look.config.channels:
        if channel.name == CARD and channel.kind == "serial":
            yield from _node(look, "channel.card", "device", channel.path, os.W_OK)


def twins(look: Look) -> Iterator[Finding]:
    """Two equal scanners of which the configuration takes whichever comes first."""
    wedges = [c for c in look.config.scanners if c.kind in ("evdev", "hidraw")]
    ways = [c.port or os.path.realpath(c.path) for c in wedges]
    for way in sorted({way for way in ways if ways.count(way) > 1}):
        yield found("scanner_twins", "scanner", f"Two scanners are set up at {way}.")
    sys, dev = str(look.root / "sys"), str(look.root / "dev")
    for c in wedges:
        if c.port:
            continue
        nodes = keyboards(sys, dev) if c.kind == "evdev" else hid_nodes(sys, dev)
        mine = next((n for n in nodes if _same(n, c)), None)
        if mine is None or not mine.port:
            continue
        others = {n.port for n in nodes if (n.usb, n.name) == (mine.usb, mine.name) and n.port not in ("", mine.port)}
        others -= {other.port for other in wedges}
        if others and "by-path" not in c.path:
            yield found("scanner_twins", f"scanner:{c.lane}" if c.lane else "scanner",
                        f"Equal scanners ({mine.usb}) are in USB ports {', '.join(sorted(others | {mine.port}))}, and {c.path} "
                        "may be either after the next start.")


def geometry(look: Look) -> Iterator[Finding]:
    """A frame buffer of a size or a pixel format that no screen is laid out for; a file of another size than is drawn."""
    c = look.config.display
    if c.kind == "fb":
        fb = look.root / "sys/class/graphics" / Path(os.path.realpath(c.path)).name
        size, bits = _text(fb / "virtual_size").partition(",")[::2], _text(fb / "bits_per_pixel")
        if all(side.isdigit() for side in size):
            mode = _text(fb / "modes").partition(":")[2].partition("-")[0].partition("p")[0]     # U:800x480p-0: what is visible
            shown = tuple(int(side) for side in (mode.split("x") if mode.replace("x", "").isdigit() else size))
            if min(shown) < SIDES_PX[0] or max(shown) > SIDES_PX[1] or max(shown) < 320:
                yield found("display_geometry", "display", f"{c.path} is {shown[0]} x {shown[1]} pixels; screens are laid out for "
                            "320 x 240 to 1280 x 800.")
            elif bits and bits not in BITS:
                yield found("display_geometry", "display", f"{c.path} has {bits} bits a pixel; 16 (RGB565) or 32 (XRGB8888) are "
                            "drawn.")
    elif c.kind == "file" and look.said is not None:
        try:
            side = msgspec.json.decode(Path(c.path + ".json").read_bytes(), type=dict[str, Any])
        except (OSError, ValueError, RecursionError):
            return
        drawn = (side.get("width"), side.get("height"))
        if all(drawn) and drawn != (c.width, c.height):
            yield found("display_geometry", "display", f"{c.path} is drawn {drawn[0]} x {drawn[1]}, and box.toml says {c.width} x "
                        f"{c.height}.", "restart the box, or put width and height right")


# One device ------------------------------------------------------------------------------------------------------------

def _input(look: Look, part: str, which: str, kind: str, path: str, port: str) -> Iterator[Finding]:
    if not port:
        yield from _node(look, part, which, path, os.R_OK)
        return
    nodes = hid_nodes if kind == "hidraw" else keyboards
    there = [n for n in nodes(str(look.root / "sys"), str(look.root / "dev")) if n.port == port]
    if not there:
        yield found(f"{which}_gone", part, f"Nothing that types is in USB port {port}.",
                    "plug it in there; `tillbox scan list` names every port")
    else:
        yield from _node(look, part, which, there[0].path, os.R_OK)


def _node(look: Look, part: str, which: str, path: str, way: int) -> Iterator[Finding]:
    if not os.path.exists(path) or os.path.isdir(path):
        yield found(f"{which}_gone", part, f"There is no device at {path}.", "plug it in, or name the right path in box.toml")
    elif not os.access(path, way):
        yield found(f"{which}_closed", part, f"{path} may not be used by this user.")
    elif which == "scanner" and (holder := next(iter(holders_of_file(look.root, path)), None)):
        yield _held("scanner_held", part, path, holder)


def _printer(look: Look, c: PrinterConfig) -> Iterator[Finding]:
    if c.kind == "file":
        folder = os.path.dirname(c.path) or "."
        if os.path.isdir(c.path):
            yield found("printer_gone", "printer", f"{c.path} is a folder.", "name a file in box.toml")
        elif not os.access(folder, os.W_OK):
            yield found("printer_gone", "printer", f"{folder} cannot be written.",
                        "make the folder, or name another path in box.toml")
        return
    path = _printer_path(c)
    if c.kind != "tcp" and not os.path.exists(path):
        yield found("printer_gone", "printer", f"There is no {c.path}.",
                    "look at its cable and its power, or name the right path in box.toml")
    elif holder := _printer_holder(look):
        yield _held("printer_held", "printer", _printer_name(c), holder)
    elif c.kind != "tcp" and not os.access(path, os.W_OK):
        yield found("printer_closed", "printer", f"{path} may not be used by this user.")
    elif c.kind == "tcp" and (lost := _name_lost(c)):
        yield found("printer_gone", "printer", lost, "look at printer.host, and at the box's network and its name server")
    else:
        yield from asyncio.run(_asked(c))


def _name_lost(c: PrinterConfig) -> str:
    """Why its name leads nowhere.  Tried before any loop is, which would wait for a resolver that hangs, even at its own end."""
    from device.doctor import online
    late = ("again", f"The name {c.host} was not looked up in time.")
    fault = online.at_once({c.host: lambda: online.name_fault(c.host, c.port)}, online.NAME_S_MAX).get(c.host, late)
    return fault[1] if fault else ""


async def _asked(c: PrinterConfig) -> list[Finding]:
    """One look at the printer: what it complains of, its name, its drawer.  Not a byte that could end on paper."""
    line = LINES[c.kind](c)
    try:
        await line.open()
        if not line.reads:
            return []
        first = await _reply(line, escpos.status_query(1), "eot")
        if first is None:
            mute = found("printer_silent", "printer", f"{_printer_name(c)} takes the connection and does not answer.")
            return [mute] if c.kind == "tcp" else []     # many a USB cable and old serial printer never answers
        for n in (3, 2, 4, 1):                           # what broke says more than that it is off-line
            reply = first if n == 1 else await _reply(line, escpos.status_query(n), "eot")
            if reply is not None and (complaint := escpos.ill(n, reply.byte)) is not None:
                if complaint[0] == "error" and n == 2:   # of the cutter, of the head?
                    cause = await _reply(line, escpos.status_query(3), "eot")
                    complaint = (escpos.ill(3, cause.byte) if cause is not None else None) or complaint
                return [found(WORDS.get(("printer", complaint[0]), "printer_error"), "printer", complaint[1])]
            if n == 4 and reply is not None and escpos.paper_low(reply.byte):
                return [found("printer_paper_low", "printer"), *_drawer(c, first.byte)]
        return [*await _named(c, line), *_drawer(c, first.byte)]
    except Outside as why:
        code = "printer_held" if "PortHeld" in type(why).__name__ else "printer_gone"
        said = f"{why.what[:1].upper()}{why.what[1:].rstrip('.')}."
        return [found(code, "printer", said, "" if code == "printer_held" else why.hint)]
    finally:
        await line.close()


async def _named(c: PrinterConfig, line: Any) -> list[Finding]:
    wanted = getattr(c, "model", "")
    if not wanted:
        return []
    reply = await _reply(line, escpos.MODEL_QUERY, "block")
    name = escpos.model_of(reply.data) if reply is not None else ""
    if name and wanted.lower() not in name.lower():
        return [found("printer_model", "printer", f"The printer says that it is {name}; the configuration expects {wanted}.")]
    return []


def _drawer(c: PrinterConfig, status: int) -> list[Finding]:
    sensor = getattr(c, "drawer_sensor", "none")
    high = bool(status & escpos.DRAWER_HIGH)
    return [found("drawer_open", "drawer")] if sensor != "none" and high == (sensor == "high") else []


async def _reply(line: Any, question: bytes, kind: str) -> escpos.Reply | None:
    """The reply of `kind`."""
    reader = escpos.StatusReader()
    await line.write(question)
    loop = asyncio.get_running_loop()
    until = loop.time() + ANSWER_S
    try:
        while (left := until - loop.time()) > 0:
            for reply in reader.feed_all(await line.read(left)):
                if reply.kind == kind:
                    return reply
    except DriverGone:
        return None
    return None


# Whose it is -----------------------------------------------------------------------------------------------------------

def _printer_holder(look: Look) -> Holder | None:
    c = look.config.printer
    mine = look.daemon_pid
    held = holders_of_line(look.root, c.host, c.port) if c.kind == "tcp" else holders_of_file(look.root, _printer_path(c))
    return next((one for one in held if one.pid != mine), None)


def _printer_path(c: PrinterConfig) -> str:
    """The node: of USB printers a pattern may be given, and the driver takes the first that is there."""
    return next(iter(sorted(glob.glob(c.path))), c.path) if c.kind == "usb" else c.path


def _printer_name(c: PrinterConfig) -> str:
    return f"{c.host}:{c.port}" if c.kind == "tcp" else c.path


def _held(code: str, part: str, what: str, holder: Holder) -> Finding:
    return found(code, part, f"{what} is held by {holder}.",
                 f"end {holder.program}: kill {holder.pid}, and keep it from starting again")


def _same(node: Node, c: ScannerConfig) -> bool:
    real = os.path.realpath(c.path)
    return node.path == real or os.path.realpath(node.path) == real or Path(node.path).name == Path(real).name


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
