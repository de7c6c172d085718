"""Pictures into the bytes of a frame buffer.  Knows pixel formats, rotation and row lengths; opens nothing.

Pillow has no packer for RGB565, and a Python loop takes 200 ms a frame: the two bytes of a pixel are built as two grey
pictures with table look-ups and saturating adds, and merged as "LA".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

Box = tuple[int, int, int, int]                 # left, top, right, bottom; right and bottom are outside

BYTES_OF = {"XRGB8888": 4, "RGB565": 2}
_RED_HIGH = [v & 0xF8 for v in range(256)]                  # rrrrr...
_GREEN_HIGH = [v >> 5 for v in range(256)]                  # .....ggg
_GREEN_LOW = [(v & 0x1C) << 3 for v in range(256)]          # ggg.....
_BLUE_LOW = [v >> 3 for v in range(256)]                    # ...bbbbb


def packed(image: Image, form: str) -> bytes:
    """The RGB `image` as rows without padding, little endian, in `form`: XRGB8888 or RGB565.  KeyError for any other."""
    return {"XRGB8888": _xrgb8888, "RGB565": _rgb565}[form](image)


def turned(image: Image, rotation: int) -> Image:
    """`image` turned clockwise by 0, 90, 180 or 270 degrees.  KeyError for any other angle."""
    from PIL.Image import Transpose

    if rotation == 0:
        return image
    return image.transpose({90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}[rotation])


def turned_box(box: Box, width: int, height: int, rotation: int) -> Box:
    """Where `box` of an upright width x height picture lies once the picture is `turned`."""
    left, top, right, bottom = box
    return {0: box,
            90: (height - bottom, left, height - top, right),
            180: (width - right, height - bottom, width - left, height - top),
            270: (top, width - right, bottom, width - left)}[rotation]


def bands(boxes: list[Box], height: int) -> list[tuple[int, int]]:
    """The rows of `boxes` as (top, bottom) pairs that neither touch nor hold less than two rows, upper ones first."""
    rows: list[tuple[int, int]] = []
    for top, bottom in sorted((min(top, max(0, height - 2)), max(bottom, min(top + 2, height))) for _, top, _, bottom in boxes):
        if rows and top <= rows[-1][1]:
            rows[-1] = (rows[-1][0], max(bottom, rows[-1][1]))
        else:
            rows.append((top, bottom))
    return rows


def spans(data: bytes, box: Box, form: str, line_length: int) -> list[tuple[int, memoryview]]:
    """Where the rows of a packed `box` go in a frame with `line_length` bytes a row: (offset, bytes) pairs.

    Rows that touch each other in the frame come as one pair.
    """
    left, top, right, bottom = box
    wide = (right - left) * BYTES_OF[form]
    assert len(data) == wide * (bottom - top)
    view, start = memoryview(data), left * BYTES_OF[form]
    if wide == line_length:
        return [(top * line_length, view)]
    return [((top + row) * line_length + start, view[row * wide:(row + 1) * wide]) for row in range(bottom - top)]


def _xrgb8888(image: Image) -> bytes:
    return image.tobytes("raw", "BGRX")


def _rgb565(image: Image) -> bytes:
    from PIL import ImageChops
    from PIL.Image import merge

    red, green, blue = image.split()
    high = ImageChops.add(red.point(_RED_HIGH), green.point(_GREEN_HIGH))
    low = ImageChops.add(green.point(_GREEN_LOW), blue.point(_BLUE_LOW))
    return merge("LA", (low, high)).tobytes()
