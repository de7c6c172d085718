"""What a receipt printer's head burns: characters, QR codes, bars, and the strip of paper as a PNG.

Knows dots.  Refuses to know commands and jobs: that is `printer.py`.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

FONT = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
FONT_MONO = 1                # its second face has half-width ASCII
CELL_W, CELL_H, LINE_GAP = 12, 24, 6


@lru_cache(maxsize=4)
def _font(size: int) -> Any:
    return ImageFont.truetype(FONT, size, index=FONT_MONO, layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=4096)
def glyph(char: str, wide: int, bold: bool) -> Image.Image:
    image = Image.new("L", (wide, CELL_H), 255)
    draw = ImageDraw.Draw(image)
    draw.fontmode = "1"
    draw.text((0, CELL_H - 4), char, font=_font(22), fill=0, anchor="ls", stroke_width=0)
    if bold:
        draw.text((1, CELL_H - 4), char, font=_font(22), fill=0, anchor="ls")
    return image


def qr_image(data: bytes, dots: int, level: int) -> Image.Image:
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


def ean13_bars(digits: str) -> tuple[str, str]:
    from barcode.ean import EAN13

    made = EAN13(digits)
    return made.build()[0].replace("G", "1"), made.get_fullcode()


def bars_image(bars: str, dots: int, high: int) -> Image.Image:
    image = Image.new("1", (len(bars), 1), 1)
    image.putdata([0 if bar == "1" else 1 for bar in bars])
    return image.convert("L").resize((len(bars) * dots, high), Image.Resampling.NEAREST)


def png(strips: list[Image.Image], dots: int, *, torn: bool) -> bytes:
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
