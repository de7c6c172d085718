"""A receipt printer without hardware: takes ESC/POS bytes over TCP or a pty, and draws what would stand on paper.

It obeys commands as printers do, also those it would be better not to obey: real-time codes inside image data,
commands inside a product name.  It answers for itself only: no proof without paper, no answer when mute or off.  It
knows nothing of the box's own encoder and shares no code with it.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import select
import socket
import struct
import threading
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
FONT_MONO = 1                # its second face has half-width ASCII
CELL_W, CELL_H, LINE_GAP = 12, 24, 6
ROWS_MAX = 20_000            # 2.5 m of paper: a job that never cuts does not eat the machine
LEVELS = {0x30: 1, 0x31: 0, 0x32: 3, 0x33: 2}          # GS ( k level to qrcode's constant


@dataclass(frozen=True)
class Receipt:
    """One piece of paper.  `raw` the bytes that made it, `text` its lines as they were sent, symbols as `[QR] ...` and
    `[CODE128] ...`; `png` its picture at 8 dots a millimetre; `drawer_kicks` since the piece before; `state` `whole`,
    or `torn` when the printer died on it.
    """

    n: int
    raw: bytes
    text: str
    png: bytes
    cut: bool
    drawer_kicks: int
    state: str = "whole"


@dataclass
class _Style:
    align: int = 0
    bold: bool = False
    underline: bool = False
    w: int = 1
    h: int = 1
    zh_w: int = 1
    zh_h: int = 1
    chinese: bool = True     # Chinese firmware powers up in it
    bar_h: int = 162
    bar_w: int = 3
    hri: int = 0


@dataclass
class _Sheet:
    strips: list[Image.Image] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    raw: bytearray = field(default_factory=bytearray)
    kicks: int = 0
    rows: int = 0


class PrinterModel:
    """The printer itself, without a cable.  Thread-safe.

    `columns` 48 or 32.  `answers_status` DLE EOT, `answers_queued` GS r, `answers_id` GS ( H.  `buffer_bytes` is the
    input buffer: a full one stops the cable, see `room`.  `byte_s` seconds it takes for each byte, 0 for no limit.
    Faults are switched by the methods below; `say` is where its answers go.
    """

    def __init__(self, columns: int = 48, *, answers_status: bool = True, answers_queued: bool = True,
                 answers_id: bool = True, buffer_bytes: int = 65_536, byte_s: float = 0.0) -> None:
        self.dots = columns * CELL_W
        self.answers_status, self.answers_queued, self.answers_id = answers_status, answers_queued, answers_id
        self.buffer_bytes, self.byte_s = buffer_bytes, byte_s
        self.powered, self.mute, self.cover_open, self.paper_low, self.paper_out = True, False, False, False, False
        self.drawer_open, self.drawer_kicks = False, 0
        self.strange: list[bytes] = []                 # what it did not understand
        self.say: Callable[[bytes], None] = lambda data: None
        self.changed: list[Callable[[], None]] = []    # called after a switch was turned
        self._lock = threading.RLock()
        self._receipts: list[Receipt] = []
        self._lines_left: int | None = None
        self._bytes_left: int | None = None
        self._queue, self._dle = bytearray(), bytearray()
        self._cells: list[tuple[str, int, int, int, bool, bool]] = []
        self._style, self._sheet = _Style(), _Sheet()
        self._symbol_pending = False
        self._qr_dots, self._qr_level, self._qr_data = 3, 0x30, b""

    # --- switches ---

    def power(self, on: bool) -> None:
        """Off: the buffer is lost and unfinished paper is torn; nobody answers until it is on again."""
        with self._lock:
            if self.powered and not on:
                self._tear()
            self.powered = on
        self._tell()

    def die_after(self, bytes_n: int | None) -> None:
        """The power goes `bytes_n` bytes of job from now, real-time questions not counted; None takes it back."""
        with self._lock:
            self._bytes_left = bytes_n

    def paper(self, *, out: bool | None = None, low: bool | None = None, lines_left: int | None = None) -> None:
        """Take the roll out, put one in (which prints what waits), or let it end after `lines_left` more lines."""
        with self._lock:
            self.paper_out = self.paper_out if out is None else out
            self.paper_low = self.paper_low if low is None else low
            self._lines_left = lines_left
            self._run()
        self._tell()

    def cover(self, is_open: bool) -> None:
        """Open or close the cover; a closed one prints what waits."""
        with self._lock:
            self.cover_open = is_open
            self._run()
        self._tell()

    def silence(self, on: bool) -> None:
        """Mute: it prints and answers nothing, as behind a one-way cable."""
        self.mute = on

    def close_drawer(self) -> None:
        """A hand closes the drawer."""
        with self._lock:
            self.drawer_open = False

    # --- what came out ---

    def receipts(self) -> list[Receipt]:
        """Every piece of paper so far, oldest first; a piece that is still being printed is not among them."""
        with self._lock:
            return list(self._receipts)

    @property
    def room(self) -> int:
        """Bytes the input buffer still takes."""
        with self._lock:
            return max(0, self.buffer_bytes - len(self._queue))

    def receive(self, data: bytes) -> None:
        """Bytes from the cable.  Real-time commands are obeyed at once wherever they stand, the rest waits its turn."""
        with self._lock:
            for byte in data:
                if not self.powered:
                    break
                self._take(byte)
            self._run()
        if not self.powered:
            self._tell()

    # --- input side ---

    def _take(self, byte: int) -> None:
        dle = self._dle
        dle.append(byte)
        if dle[0] != 0x10:
            dle.clear()
            self._queue_byte(byte)
        elif len(dle) == 1:
            return
        elif dle[1] == 0x04 and len(dle) < 3 or dle[1] == 0x05 and len(dle) < 3 or dle[1] == 0x14 and len(dle) < 5:
            return
        elif dle[1] == 0x04 and 1 <= dle[2] <= 4:
            self._answer_status(dle[2])
            dle.clear()
        elif dle[1] == 0x05 and dle[2] in (1, 2):
            if dle[2] == 2:
                self._queue.clear()
            dle.clear()
        elif dle[1] == 0x14 and dle[2] == 1 and dle[3] in (0, 1):
            self._kick()
            dle.clear()
        else:
            held = bytes(dle)
            dle.clear()
            self._queue_byte(held[0])
            for other in held[1:]:
                self._take(other)

    def _queue_byte(self, byte: int) -> None:
        self._queue.append(byte)
        if self._bytes_left is not None:
            self._bytes_left -= 1
            if self._bytes_left <= 0:
                self._bytes_left = None
                self._run()
                self._tear()
                self.powered = False

    def _answer_status(self, n: int) -> None:
        offline = self.paper_out or self.cover_open
        byte = 0x12
        if n == 1:
            byte |= 0x04 * self.drawer_open | 0x08 * offline
        elif n == 2:
            byte |= 0x04 * self.cover_open | 0x20 * self.paper_out
        elif n == 4:
            byte |= 0x0C * (self.paper_low or self.paper_out) | 0x60 * self.paper_out
        self._speak(bytes([byte]), self.answers_status)

    def _speak(self, data: bytes, able: bool = True) -> None:
        if able and not self.mute and self.powered:
            self.say(data)

    # --- interpreter ---

    def _run(self) -> None:
        while self._queue and not (self.paper_out or self.cover_open):
            size = self._command_size()
            if size is None or size > len(self._queue):
                return
            command = bytes(self._queue[:size])
            del self._queue[:size]
            self._obey(command)

    def _command_size(self) -> int | None:
        """Bytes of the command at the head of the queue; None while it is not known yet."""
        queue = self._queue
        lead = queue[0]
        if lead not in (0x1B, 0x1C, 0x1D):
            return 2 if lead >= 0x81 and self._style.chinese else 1
        if len(queue) < 2:
            return None
        name = bytes(queue[:2])
        if name in SIZES:
            return SIZES[name]
        if name == b"\x1dV":
            return None if len(queue) < 3 else 4 if queue[2] in (65, 66, 97, 98) else 3
        if name in (b"\x1d(", b"\x1c("):
            return None if len(queue) < 5 else 5 + queue[3] + 256 * queue[4]
        if name == b"\x1dv":
            return None if len(queue) < 8 else 8 + (queue[4] + 256 * queue[5]) * (queue[6] + 256 * queue[7])
        if name == b"\x1dk":
            if len(queue) < 4:
                return None
            if queue[2] >= 65:
                return 4 + queue[3]
            end = queue.find(0, 3)
            return None if end < 0 else end + 1
        return 1                                       # unknown: the lead byte is dropped and the rest prints as text

    def _obey(self, command: bytes) -> None:
        if command == b"\0":
            return                                     # skipped by every printer where it waits for no argument
        name = command[:2]
        if name == b"\x1dr":
            queued = {1: 0x03 * self.paper_low, 2: 0x01 * self.drawer_open}
            if command[2] & 0x0F in queued:
                self._speak(bytes([queued[command[2] & 0x0F]]), self.answers_queued)
            return
        if command[:3] == b"\x1d(H":
            if command[5:7] == b"00":
                self._speak(b"\x37\x22" + command[7:11] + b"\x00", self.answers_id)
            return
        if name == b"\x1dI":
            self._speak(b"_TILLBOX\x00" if command[2] >= 65 else b"\x02")
            return
        self._sheet.raw += command
        if command[0] not in (0x1B, 0x1C, 0x1D):
            self._char(command)
        elif name == b"\x1bp":
            self._kick()
        elif name == b"\x1dV":
            self._feed_line(only_if_any=True)
            self._finish(cut=True)
        elif command[:3] == b"\x1d(k":
            self._qr(command[5:])
        elif name == b"\x1dk":
            self._barcode(command)
        elif name == b"\x1dv":
            self._raster(command)
        elif name == b"\x1bd":
            self._feed_line(only_if_any=True)
            self._blank(command[2] * (CELL_H + LINE_GAP))
        elif name == b"\x1bJ":
            self._feed_line(only_if_any=True)
            self._blank(command[2])
        elif name == b"\x1b@":
            self._cells.clear()
            self._style = _Style()
        elif name in SIZES:
            self._restyle(name, command[2] if len(command) > 2 else 0)
        else:
            self.strange.append(command)

    def _restyle(self, name: bytes, n: int) -> None:
        style = self._style
        if name == b"\x1ba" and not self._cells:       # only at the beginning of a line, as in the manuals
            style.align = n % 0x30
        elif name == b"\x1bE":
            style.bold = bool(n & 1)
        elif name == b"\x1b-":
            style.underline = bool(n & 3)
        elif name == b"\x1d!":
            style.w, style.h = (n >> 4 & 7) + 1, (n & 7) + 1
            style.zh_w, style.zh_h = style.w, style.h
        elif name == b"\x1b!":
            style.bold = bool(n & 8)
            style.h, style.w = 1 + bool(n & 16), 1 + bool(n & 32)
        elif name == b"\x1c!":
            style.zh_w, style.zh_h = 1 + bool(n & 4), 1 + bool(n & 8)
        elif name in (b"\x1c&", b"\x1c."):
            style.chinese = name == b"\x1c&"
        elif name == b"\x1dh":
            style.bar_h = n
        elif name == b"\x1dw":
            style.bar_w = n
        elif name == b"\x1dH":
            style.hri = n % 0x30

    def _char(self, command: bytes) -> None:
        if command == b"\n":
            self._feed_line()
            return
        if command[0] < 0x20 or command == b"\x7f":
            if command != b"\r":
                self.strange.append(command)
            return
        char = command.decode("gbk", "replace")
        style = self._style
        wide = 2 if len(command) == 2 else 1
        w, h = (style.zh_w, style.zh_h) if wide == 2 else (style.w, style.h)
        if self._used() + wide * CELL_W * w > self.dots:
            self._feed_line()
        self._cells.append((char, wide, w, h, style.bold, style.underline))

    def _used(self) -> int:
        return sum(wide * CELL_W * w for _, wide, w, _, _, _ in self._cells)

    def _feed_line(self, *, only_if_any: bool = False) -> None:
        cells = self._cells
        if not cells:
            if not only_if_any:
                if self._symbol_pending:
                    self._symbol_pending = False       # the feed that ends a symbol's line
                else:
                    self._sheet.lines.append("")
                    self._blank(CELL_H + LINE_GAP)
            return
        self._symbol_pending = False
        high = max(h for _, _, _, h, _, _ in cells) * CELL_H
        strip = Image.new("L", (self.dots, high + LINE_GAP), 255)
        x = self._left(self._used())
        for char, wide, w, h, bold, underline in cells:
            glyph = _glyph(char, wide * CELL_W, bold)
            if (w, h) != (1, 1):
                glyph = glyph.resize((glyph.width * w, glyph.height * h), Image.Resampling.NEAREST)
            strip.paste(glyph, (x, high - glyph.height))
            if underline:
                ImageDraw.Draw(strip).line((x, high + 1, x + glyph.width, high + 1), fill=0)
            x += glyph.width
        self._sheet.lines.append("".join(cell[0] for cell in cells))
        cells.clear()
        self._add(strip)
        if self._lines_left is not None:
            self._lines_left -= 1
            if self._lines_left <= 0:
                self._lines_left, self.paper_out = None, True

    def _left(self, used: int) -> int:
        return max(0, (0, (self.dots - used) // 2, self.dots - used)[self._style.align % 3])

    def _add(self, strip: Image.Image) -> None:
        if self._sheet.rows < ROWS_MAX:
            self._sheet.strips.append(strip)
            self._sheet.rows += strip.height

    def _blank(self, rows: int) -> None:
        if rows:
            self._add(Image.new("L", (self.dots, rows), 255))

    # --- symbols ---

    def _qr(self, body: bytes) -> None:
        if len(body) < 2 or body[0] != 0x31:
            self.strange.append(body)
        elif body[1] == 0x43:
            self._qr_dots = body[2]
        elif body[1] == 0x45:
            self._qr_level = body[2]
        elif body[1] == 0x50:
            self._qr_data = body[3:]
        elif body[1] == 0x51 and self._qr_data:
            self._symbol(_qr_image(self._qr_data, self._qr_dots, LEVELS.get(self._qr_level, 1)),
                         f"[QR] {self._qr_data.decode('utf-8', 'replace')}")

    def _barcode(self, command: bytes) -> None:
        kind = command[2]
        data = command[4:] if kind >= 65 else command[3:-1]
        if kind == 73:
            read = code128_bars(data)
            label = "CODE128"
        elif kind in (2, 67) and data.isdigit() and len(data) in (12, 13):
            read = _ean13_bars(data.decode())
            label = "EAN13"
        else:
            read, label = None, ""
        if read is None:
            self.strange.append(command)
            return
        bars, text = read
        self._symbol(_bars_image(bars, self._style.bar_w, self._style.bar_h), f"[{label}] {text}")
        if self._style.hri & 2 and self._symbol_pending:
            self._hri(text)

    def _hri(self, text: str) -> None:
        strip = Image.new("L", (self.dots, CELL_H + LINE_GAP), 255)
        x = self._left(len(text) * CELL_W)
        for i, char in enumerate(text):
            strip.paste(_glyph(char, CELL_W, False), (x + i * CELL_W, 0))
        self._add(strip)

    def _symbol(self, image: Image.Image, line: str) -> None:
        """A symbol wider than the paper prints nothing, as in the manuals."""
        self._feed_line(only_if_any=True)
        if image.width > self.dots:
            self.strange.append(line.encode())
            return
        strip = Image.new("L", (self.dots, image.height + 2 * LINE_GAP), 255)
        strip.paste(image, (self._left(image.width), LINE_GAP))
        self._add(strip)
        self._sheet.lines.append(line)
        self._symbol_pending = True

    def _raster(self, command: bytes) -> None:
        row_bytes = command[4] + 256 * command[5]
        rows = command[6] + 256 * command[7]
        if not row_bytes or not rows:
            return
        image = Image.frombytes("1", (row_bytes * 8, rows), bytes(b ^ 0xFF for b in command[8:])).convert("L")
        strip = Image.new("L", (self.dots, rows), 255)
        strip.paste(image.crop((0, 0, min(image.width, self.dots), rows)), (self._left(image.width), 0))
        self._feed_line(only_if_any=True)
        self._add(strip)

    # --- paper and drawer ---

    def _kick(self) -> None:
        self.drawer_kicks += 1
        self._sheet.kicks += 1
        self.drawer_open = True

    def _finish(self, *, cut: bool, state: str = "whole") -> None:
        sheet, self._sheet = self._sheet, _Sheet()
        if not sheet.strips and not sheet.lines:
            self._sheet.kicks = sheet.kicks
            return
        self._receipts.append(Receipt(len(self._receipts) + 1, bytes(sheet.raw), "\n".join(sheet.lines),
                                      _png(sheet.strips, self.dots, torn=state == "torn"), cut, sheet.kicks, state))

    def _tear(self) -> None:
        self._feed_line(only_if_any=True)
        self._finish(cut=False, state="torn")
        self._forget()

    def _forget(self) -> None:
        self._queue, self._dle = bytearray(), bytearray()
        self._cells = []
        self._style, self._sheet = _Style(), _Sheet()
        self._symbol_pending = False
        self._qr_dots, self._qr_level, self._qr_data = 3, 0x30, b""

    def _tell(self) -> None:
        for call in list(self.changed):
            call()


# Commands of fixed length that take no data beyond it.
SIZES: dict[bytes, int] = {
    **{b"\x1b" + c.encode(): n for c, n in {
        "@": 2, "a": 3, "E": 3, "G": 3, "-": 3, "!": 3, "d": 3, "J": 3, "2": 2, "3": 3, "M": 3, "p": 5, "t": 3, "R": 3,
        "c": 4, "B": 4, "$": 4, "{": 3, "V": 3, " ": 3, "=": 3, "\\": 4}.items()},
    **{b"\x1c" + c.encode(): n for c, n in {"&": 2, ".": 2, "!": 3, "W": 3, "-": 3, "S": 4, "C": 3}.items()},
    **{b"\x1d" + c.encode(): n for c, n in {
        "!": 3, "h": 3, "w": 3, "f": 3, "H": 3, "r": 3, "I": 3, "a": 3, "B": 3, "L": 4, "W": 4, "P": 4,
        "b": 3}.items()},
}


# --- drawing ----------------------------------------------------------------------------------------------------------

@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    return ImageFont.truetype(FONT, size, index=FONT_MONO, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def _glyph(char: str, wide: int, bold: bool) -> Image.Image:
    image = Image.new("L", (wide, CELL_H), 255)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    draw.text((0, CELL_H - 4), char, font=_font(22), fill=0, anchor="ls", stroke_width=0)
    if bold:
        draw.text((1, CELL_H - 4), char, font=_font(22), fill=0, anchor="ls")
    return image


def _qr_image(data: bytes, dots: int, level: int) -> Image.Image:
    import qrcode

    code = qrcode.QRCode(error_correction=level, border=0, mask_pattern=0)
    code.add_data(data)
    code.make(fit=True)
    size = len(code.modules)
    image = Image.new("1", (size, size), 1)
    image.putdata([0 if dark else 1 for row in code.modules for dark in row])
    return image.convert("L").resize((size * dots, size * dots), Image.Resampling.NEAREST)


def code128_bars(data: bytes) -> tuple[str, str] | None:
    """Modules ("1" dark) and text of GS k 73 data with its code set escapes; None when it is not well formed."""
    from barcode.charsets import code128

    sets = {ord("A"): 103, ord("B"): 104, ord("C"): 105}
    values: list[int] = []
    text, chosen = "", 0
    i = 0
    while i < len(data):
        if data[i] == 0x7B:
            if i + 1 >= len(data):
                return None
            mark = data[i + 1]
            i += 2
            if mark in sets:
                values.append(sets[mark] if not values else {103: 101, 104: 100, 105: 99}[sets[mark]])
                chosen = mark
                continue
            if mark != 0x7B:
                return None
            byte = 0x7B
        else:
            byte = data[i]
            i += 1
        if chosen == ord("C") and byte < 100:
            values.append(byte)
            text += f"{byte:02d}"
        elif chosen == ord("B") and 32 <= byte < 128:
            values.append(byte - 32)
            text += chr(byte)
        elif chosen == ord("A") and byte < 96:
            values.append(byte - 32 if byte >= 32 else byte + 64)
            text += chr(byte)
        else:
            return None
    if len(values) < 2:
        return None
    check = (values[0] + sum(i * value for i, value in enumerate(values))) % 103
    return "".join(code128.CODES[value] for value in (*values, check)) + "1100011101011", text


def _ean13_bars(digits: str) -> tuple[str, str]:
    from barcode.ean import EAN13

    made = EAN13(digits)
    return made.build()[0].replace("G", "1"), made.get_fullcode()


def _bars_image(bars: str, dots: int, high: int) -> Image.Image:
    image = Image.new("1", (len(bars), 1), 1)
    image.putdata([0 if bar == "1" else 1 for bar in bars])
    return image.convert("L").resize((len(bars) * dots, high), Image.Resampling.NEAREST)


def _png(strips: list[Image.Image], dots: int, *, torn: bool) -> bytes:
    margin = 24
    high = sum(strip.height for strip in strips)
    paper = Image.new("L", (dots + 2 * margin, high + 2 * margin), 255)
    y = margin
    for strip in strips:
        paper.paste(strip, (margin, y))
        y += strip.height
    if torn:
        teeth = [(x, paper.height - (4 if x // 8 % 2 else 16)) for x in range(0, paper.width + 8, 8)]
        ImageDraw.Draw(paper).polygon([*teeth, (paper.width, paper.height), (0, paper.height)], fill=128)
    out = io.BytesIO()
    paper.convert("1", dither=Image.Dither.NONE if not torn else Image.Dither.FLOYDSTEINBERG).save(out, "PNG")
    return out.getvalue()


# --- cables -----------------------------------------------------------------------------------------------------------

class TcpPort:
    """The model behind TCP.  One connection at a time, a second one waits; off, the port refuses.

    `port` 0 takes a free one, which it keeps through every switch off and on.
    """

    def __init__(self, model: PrinterModel, port: int = 0, host: str = "127.0.0.1") -> None:
        self.model, self.host = model, host
        self._listener: socket.socket | None = None
        self._link: socket.socket | None = None
        self._stop = False
        self._turned = threading.Condition()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self.port = port
        self._listen()
        model.say = self._say
        model.changed.append(self._wake)
        self._thread = threading.Thread(target=self._serve, name="printer-tcp", daemon=True)
        self._thread.start()

    def drop(self) -> None:
        """Break the connection, as a pulled network cable and an impatient switch do; the model stays on."""
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def settle(self, wait_s: float = 5.0) -> bool:
        """Wait until the port refuses or listens as the power switch says; False after `wait_s` seconds."""
        with self._turned:
            return self._turned.wait_for(lambda: (self._listener is not None) == self.model.powered, wait_s)

    def close(self) -> None:
        """Stop serving and wait for the thread."""
        self._stop = True
        self._wake()
        self._thread.join(5)
        self.model.changed.remove(self._wake)
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(1)
        self.port = listener.getsockname()[1]
        self._listener = listener

    def _serve(self) -> None:
        while not self._stop:
            if not self.model.powered:
                self._hang_up(reset=True)
            elif self._listener is None:
                self._listen()
            with self._turned:
                self._turned.notify_all()
            self._step()
        self._hang_up(reset=False)

    def _step(self) -> None:
        """Wait for one thing to happen and do it."""
        waits: list[Any] = [self._wake_r]
        room = self.model.room
        if self._link is not None and room:
            waits.append(self._link)
        elif self._link is None and self._listener is not None:
            waits.append(self._listener)
        ready, _, _ = select.select(waits, [], [], None)
        if self._wake_r in ready:
            os.read(self._wake_r, 4096)
        elif self._listener in ready and self._listener is not None:
            self._link, _ = self._listener.accept()
            self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        elif self._link in ready and self._link is not None:
            self._receive(self._link, room)

    def _receive(self, link: socket.socket, room: int) -> None:
        try:
            data = link.recv(min(room, 64 if self.model.byte_s else 4096))
        except OSError:
            data = b""
        if not data:
            link.close()
            self._link = None
            return
        if self.model.byte_s:
            threading.Event().wait(self.model.byte_s * len(data))
        self.model.receive(data)

    def _hang_up(self, *, reset: bool) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._link is not None:
            if reset:
                self._link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._link.close()
            self._link = None

    def _say(self, data: bytes) -> None:
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):         # the box went away: its answer is lost, as on a wire
                link.sendall(data)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b".")


class PtyPort:
    """The model behind a pty with `path` linked to it, like a USB serial adapter; off, the bytes fall on the floor."""

    def __init__(self, model: PrinterModel, path: str | Path) -> None:
        self.model, self.path = model, Path(path)
        self._master, self._slave = pty.openpty()      # we keep the slave: a reader that leaves is no hang-up
        tty.setraw(self._slave)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._slave))
        self._wake_r, self._wake_w = os.pipe()
        self._stop = False
        model.say = self._say
        model.changed.append(self._wake)
        self._thread = threading.Thread(target=self._serve, name="printer-pty", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pull the plug: the link goes, a reader sees the end."""
        self._stop = True
        self._wake()
        self._thread.join(5)
        self.model.changed.remove(self._wake)
        self.path.unlink(missing_ok=True)
        for fd in (self._master, self._slave, self._wake_r, self._wake_w):
            os.close(fd)

    def _serve(self) -> None:
        while not self._stop:
            room = self.model.room
            ready, _, _ = select.select([self._wake_r, *([self._master] if room else [])], [], [], None)
            if self._wake_r in ready:
                os.read(self._wake_r, 4096)
            elif self._master in ready:
                data = os.read(self._master, min(room, 64 if self.model.byte_s else 4096))
                if self.model.byte_s:
                    threading.Event().wait(self.model.byte_s * len(data))
                self.model.receive(data)

    def _say(self, data: bytes) -> None:
        os.write(self._master, data)

    def _wake(self) -> None:
        os.write(self._wake_w, b".")
