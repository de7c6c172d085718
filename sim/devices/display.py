"""The customer's panel, looked at from outside: reads the file that the display driver wrote and makes a PNG of it."""

from __future__ import annotations

import io
import json
import os

NO_FRAME = (800, 480)


def frame_no(path: str) -> int:
    """Number of the frame in `path`, 0 when there is none yet: tells a page whether to ask again."""
    side = _sidecar(path)
    return int(side["frame_no"]) if side else 0


def frame_png(path: str) -> bytes:
    """The frame in `path` as PNG bytes, pixel for pixel; a black panel when no driver wrote one yet.

    ValueError when file and sidecar do not fit each other, or the pixel format is unknown.
    """
    from PIL import Image

    side = _sidecar(path)
    if side is None:
        return _png(Image.new("RGB", NO_FRAME))
    with open(path, "rb") as file:
        data = file.read()
    if side["format"] != "XRGB8888" or len(data) != side["line_length"] * side["height"]:
        raise ValueError(f"{path}: {len(data)} bytes are no frame of {side}")
    return _png(Image.frombytes("RGB", (side["width"], side["height"]), data, "raw", "BGRX", side["line_length"]))


def _sidecar(path: str) -> dict | None:
    if not os.path.exists(path + ".json"):
        return None
    with open(path + ".json", encoding="utf-8") as file:
        return json.load(file)


def _png(image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)          # a third larger than the default and a third faster: loopback is wide
    return out.getvalue()
