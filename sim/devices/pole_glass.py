"""A pole's glass as a picture: green dots behind smoked glass, or red digits with the lights below.  For pages and for eyes."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageFont

from sim.devices.pole import COLUMNS, LED_LIGHTS, Led8, Pole

FONT = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
CELL, ROW, EDGE = 13, 26, 14
SMOKE, DIM, GREEN, RED = (10, 16, 16), (18, 34, 32), (94, 255, 208), (255, 66, 48)
DARK_RED = (50, 14, 12)
# Segments of a digit, a to g: each a line between two corners of a grid of two by three.
_LINES = {"a": (0, 0, 1, 0), "b": (1, 0, 1, 1), "c": (1, 1, 1, 2), "d": (0, 2, 1, 2), "e": (0, 1, 0, 2), "f": (0, 0, 0, 1),
          "g": (0, 1, 1, 1)}
_LIT = {"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc", "8": "abcdefg",
        "9": "abcdfg", "-": "g"}


def glass_image(pole: Pole, charset: str = "ascii") -> Image.Image:
    """What `pole` shows now."""
    return _led(pole) if isinstance(pole, Led8) else _text(pole, charset)


def _text(pole: Pole, charset: str) -> Image.Image:
    sheet = Image.new("RGB", (COLUMNS * CELL + 2 * EDGE, 2 * ROW + 2 * EDGE), SMOKE)
    draw, font = ImageDraw.Draw(sheet), ImageFont.truetype(FONT, 21, index=1)
    for y, row in enumerate(pole.rows(charset)):
        for x in range(COLUMNS):
            draw.rectangle((EDGE + x * CELL + 1, EDGE + y * ROW + 1, EDGE + (x + 1) * CELL - 2, EDGE + (y + 1) * ROW - 3), fill=DIM)
        x = 0
        for char in row:
            wide = len(char.encode(charset, "replace"))
            draw.text((EDGE + (x + wide / 2) * CELL, EDGE + y * ROW + ROW / 2 - 1), char, font=font, fill=GREEN, anchor="mm")
            x += wide
    return sheet


def _led(pole: Led8) -> Image.Image:
    wide, tall, gap = 22, 36, 12
    sheet = Image.new("RGB", (8 * (wide + gap) + 2 * EDGE, tall + 56), SMOKE)
    draw = ImageDraw.Draw(sheet)
    cells: list[tuple[str, bool]] = []
    for char in pole.number:
        if char == "." and cells:
            cells[-1] = (cells[-1][0], True)
        else:
            cells.append((char, False))
    cells = [("", False)] * (8 - len(cells)) + cells
    for n, (char, point) in enumerate(cells):
        left = EDGE + n * (wide + gap) + 4
        lit = _LIT.get(char, "")
        for name, (x0, y0, x1, y1) in sorted(_LINES.items(), key=lambda line: line[0] in lit):       # the dark ones below
            place = (left + x0 * wide, 14 + y0 * tall / 2, left + x1 * wide, 14 + y1 * tall / 2)
            draw.line(place, fill=RED if name in lit else DARK_RED, width=4)
        x, y = left + wide + 5, 14 + tall
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=RED if point else DARK_RED)
    font = ImageFont.truetype(FONT, 13, index=0)
    for n, light in enumerate(LED_LIGHTS):
        x = EDGE + 34 + n * 68
        on = light in pole.lit
        draw.ellipse((x - 16, tall + 30, x - 8, tall + 38), fill=RED if on else DARK_RED)
        draw.text((x - 4, tall + 34), light, font=font, fill=(230, 220, 210) if on else (96, 92, 88), anchor="lm")
    return sheet
