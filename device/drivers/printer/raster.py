"""Dots for a receipt printer: lines it has no characters for, QR codes it cannot make, the shop's logo.

Knows a font and dots.  Knows no dialect and no job.  Pillow is imported by the first line drawn, not before.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from device.drivers.printer import escpos_bytes as escpos
from device.drivers.qr_bits import QrRefused, matrix, side

log = logging.getLogger("tillbox")

FONT = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
FONT_MONO = 1                # its second face: ASCII is half as wide as Chinese, so columns are the printer's own
CELL_H, LINE_H = 24, 30
FONT_H = 22                  # at 24 its ASCII is a dot wider than half a Chinese character
QUIET = 4                    # modules
LOGO_ROWS_MAX = 240          # 30 mm


class Raster:
    """`Draw` of `dialect_bytes`, by Pillow."""

    def lines(self, lines: list[str], columns: int, size: int, bold: bool, align: str, charset: str) -> bytes:
        """One image for these lines, each character in its cell, so that columns stand as they do in text.

        A box without the font prints "?" for what its printer lacks.
        """
        from PIL import Image, ImageDraw

        try:
            font = _font(FONT_H * size)
        except OSError as why:
            log.warning("%s cannot be read, so what the printer lacks is left out: %s", FONT, why)
            return escpos.styled([escpos.clean(line, "ascii") for line in lines], align, size, bold, "ascii")
        dots = columns * escpos.DOTS_A_COLUMN
        image = Image.new("1", (dots, LINE_H * size * len(lines)), 0)
        draw = ImageDraw.Draw(image)
        draw.fontmode = "1"
        for n, line in enumerate(lines):
            cell, y = escpos.DOTS_A_COLUMN * size, LINE_H * size * n + (CELL_H - 4) * size
            used = cell * escpos.width(line, charset)
            x = max(0, {"l": 0, "c": (dots - used) // 2}.get(align, dots - used))
            for char in line:
                if char != " ":
                    draw.text((x, y), char, fill=1, font=font, anchor="ls")
                    if bold:
                        draw.text((x + 1, y), char, fill=1, font=font, anchor="ls")
                x += cell * escpos.width(char, charset)
        return b"".join(escpos.raster_strips(image.tobytes(), (dots + 7) // 8))

    def qr(self, text: str, module: int, columns: int) -> bytes:
        """The symbol of `text`, centred, with its quiet zone.  ValueError for a text that no QR of ours holds."""
        try:
            bits = matrix(text)
        except QrRefused as why:
            raise ValueError(why.what) from None
        edge, dots = side(bits), columns * escpos.DOTS_A_COLUMN
        module = max(1, min(module, dots // (edge + 2 * QUIET)))
        left = (dots - edge * module) // 2
        right = (dots + 7) // 8 * 8 - left - edge * module
        blank = bytes((dots + 7) // 8)
        rows = [blank] * (QUIET * module)
        for n in range(0, len(bits), edge):
            row = "0" * left + "".join(("0" if b else "1") * module for b in bits[n:n + edge]) + "0" * right
            rows += [int(row, 2).to_bytes(len(row) // 8, "big")] * module
        rows += [blank] * (QUIET * module)
        return b"".join(escpos.raster_strips(b"".join(rows), len(blank)))


@lru_cache(maxsize=2)
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(FONT, size, index=FONT_MONO, layout_engine=ImageFont.Layout.BASIC)


class Logo:
    """The picture at `path` as image commands, at most as wide as the paper.  A picture that cannot be read is no logo: the receipt
    is printed without it, and the log says so once."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._kept: dict[int, bytes] = {}

    def __call__(self, columns: int) -> bytes:
        if columns not in self._kept:
            try:
                self._kept[columns] = self._drawn(columns * escpos.DOTS_A_COLUMN)
            except (OSError, ValueError, SyntaxError) as why:          # SyntaxError: what Pillow calls a broken PNG
                log.warning("no logo on paper: %s cannot be read: %s", self._path, why)
                self._kept[columns] = b""
        return self._kept[columns]

    def _drawn(self, dots: int) -> bytes:
        from PIL import Image

        with Image.open(self._path) as picture:
            if picture.width * picture.height > 16_000_000:
                raise ValueError("more than 16 million pixels")
            flat = Image.new("RGBA", picture.size, "white")
            flat.alpha_composite(picture.convert("RGBA"))
        shrink = min(1.0, dots / flat.width, LOGO_ROWS_MAX / flat.height)
        gray = flat.convert("L").resize((max(1, int(flat.width * shrink)), max(1, int(flat.height * shrink))))
        paper = Image.new("L", (dots, gray.height + 8), 255)
        paper.paste(gray, ((dots - gray.width) // 2, 0))
        rows = bytes(b ^ 0xFF for b in paper.convert("1").tobytes())
        if dots % 8:                                   # the bits that fill the last byte are white
            rows = bytes(b & (0xFF << 8 - dots % 8) & 0xFF if n % (dots // 8 + 1) == dots // 8 else b for n, b in enumerate(rows))
        return b"".join(escpos.raster_strips(rows, (dots + 7) // 8))
