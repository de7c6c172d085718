"""A receipt printer without hardware: takes ESC/POS bytes and lays out what would stand on paper.

It obeys commands as printers do, also those it would be better not to obey: real-time codes inside image data,
commands inside a product name.  It answers for itself only: no proof without paper, no answer when mute or off.  It
knows nothing of the box's own encoder and shares no code with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from sim.devices.printer_ink import CELL_H, CELL_W, LINE_GAP, bars_image, code128_bars, ean13_bars, glyph, png, qr_image

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
            dots = glyph(char, wide * CELL_W, bold)
            if (w, h) != (1, 1):
                dots = dots.resize((dots.width * w, dots.height * h), Image.Resampling.NEAREST)
            strip.paste(dots, (x, high - dots.height))
            if underline:
                ImageDraw.Draw(strip).line((x, high + 1, x + dots.width, high + 1), fill=0)
            x += dots.width
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
            self._symbol(qr_image(self._qr_data, self._qr_dots, LEVELS.get(self._qr_level, 1)),
                         f"[QR] {self._qr_data.decode('utf-8', 'replace')}")

    def _barcode(self, command: bytes) -> None:
        kind = command[2]
        data = command[4:] if kind >= 65 else command[3:-1]
        if kind == 73:
            read = code128_bars(data)
            label = "CODE128"
        elif kind in (2, 67) and data.isdigit() and len(data) in (12, 13):
            read = ean13_bars(data.decode())
            label = "EAN13"
        else:
            read, label = None, ""
        if read is None:
            self.strange.append(command)
            return
        bars, text = read
        self._symbol(bars_image(bars, self._style.bar_w, self._style.bar_h), f"[{label}] {text}")
        if self._style.hri & 2 and self._symbol_pending:
            self._hri(text)

    def _hri(self, text: str) -> None:
        strip = Image.new("L", (self.dots, CELL_H + LINE_GAP), 255)
        x = self._left(len(text) * CELL_W)
        for i, char in enumerate(text):
            strip.paste(glyph(char, CELL_W, False), (x + i * CELL_W, 0))
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
                                      png(sheet.strips, self.dots, torn=state == "torn"), cut, sheet.kicks, state))

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
