"""The paper of a receipt printer without hardware: what each command puts on it, and the pieces that come off.

Knows lines, symbols and styles.  Refuses to know the cable, the buffer and the printer's answers: that is `printer.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from sim.devices.printer_commands import SIZES
from sim.devices.printer_ink import CELL_H, CELL_W, LINE_GAP, bars_image, code128_bars, ean13_bars, glyph, png, qr_image

ROWS_MAX = 20_000            # 2.5 m of paper: a job that never cuts does not eat the machine
PAGES = {0: "cp437", 2: "cp850", 16: "cp1252", 19: "cp858"}      # ESC t, as Epson numbers them
NO_IMAGE = Image.new("L", (1, 1), 255)
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


class Paper:
    """The roll, `dots` wide.  `fed` is called after each printed line; `strange` is what could not be understood.

    `draws` False keeps the lines and leaves every picture empty: ten times as fast.
    """

    def __init__(self, dots: int, fed: Callable[[], None], charset: str = "gbk", draws: bool = True) -> None:
        self.dots, self._charset, self._draws = dots, charset, draws
        self.receipts: list[Receipt] = []
        self.strange: list[bytes] = []
        self._fed = fed
        self._cells: list[tuple[str, int, int, int, bool, bool]] = []
        self._style, self._sheet = _Style(), _Sheet()
        self._symbol_pending = False
        self._qr_dots, self._qr_level, self._qr_data = 3, 0x30, b""
        self._page = 0

    @property
    def pairs(self) -> str:
        """The character set that bytes stand in now; of GBK only while the Chinese mode is on."""
        return self._charset if self._style.chinese or self._charset not in ("gbk", "gb18030") else "cp437"

    def kicked(self, command: bytes) -> None:
        """A drawer opened while this piece was made; `command` is empty where no byte of the job did it."""
        self._sheet.raw += command
        self._sheet.kicks += 1

    def tear(self) -> None:
        """The power went: what is on the way comes off torn, and every setting is forgotten."""
        self._feed_line(only_if_any=True)
        self._finish(cut=False, state="torn")
        self._cells = []
        self._style, self._sheet = _Style(), _Sheet()
        self._symbol_pending = False
        self._qr_dots, self._qr_level, self._qr_data = 3, 0x30, b""

    def obey(self, command: bytes) -> None:
        """One whole command that concerns the paper."""
        name = command[:2]
        self._sheet.raw += command
        if command[0] not in (0x1B, 0x1C, 0x1D):
            self._char(command)
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
            self._style, self._page = _Style(), 0
        elif command[:3] == b"\x1c(C" and self._charset == "utf-8":
            return                                     # it speaks nothing else
        elif name == b"\x1bt":
            self._page = command[2]
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
        char = command.decode(PAGES.get(self._page, "cp437") if self.pairs == "cp437" else self.pairs, "replace")
        style = self._style
        wide = 1 if len(command) == 1 or ord(char[0]) < 0x2000 and self.pairs == "utf-8" else 2
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
        self._sheet.lines.append("".join(cell[0] for cell in cells))
        if self._draws:
            self._add(self._burnt(cells))
        cells.clear()
        self._fed()

    def _burnt(self, cells: list[tuple[str, int, int, int, bool, bool]]) -> Image.Image:
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
        return strip

    def _left(self, used: int) -> int:
        return max(0, (0, (self.dots - used) // 2, self.dots - used)[self._style.align % 3])

    def _add(self, strip: Image.Image) -> None:
        if self._draws and self._sheet.rows < ROWS_MAX:
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
            self._symbol(qr_image(self._qr_data, self._qr_dots, LEVELS.get(self._qr_level, 1)) if self._draws else NO_IMAGE,
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

    # --- pieces ---

    def _finish(self, *, cut: bool, state: str = "whole") -> None:
        sheet, self._sheet = self._sheet, _Sheet()
        if not sheet.rows and not sheet.lines:
            self._sheet.kicks = sheet.kicks
            return
        picture = png(sheet.strips, self.dots, torn=state == "torn") if self._draws else b""
        self.receipts.append(Receipt(len(self.receipts) + 1, bytes(sheet.raw), "\n".join(sheet.lines), picture, cut,
                                     sheet.kicks, state))
