"""The customer's screen as a file: the pixels that a panel would get, for who has none and for who wants to look.

`path` holds one whole frame of XRGB8888 rows without padding, replaced at once; `path` + ".json" says its geometry and
number.  Knows files and pixels; what stands on them is `draw`'s business.
"""

from __future__ import annotations

import contextlib
import os

import msgspec

from device.drivers.display.draw import Canvas
from device.drivers.display.pixels import Box, packed, spans
from device.drivers.display.show import Show, gone

FORMAT = "XRGB8888"


class FileDisplay(Show):
    """Frames of `width` x `height` in `path`.  Use a folder in memory: an SD card is not meant for this."""

    def __init__(self, path: str, width: int = 800, height: int = 480, *, large: bool = False, slide_s: int = 8,
                 part: str = "display") -> None:
        super().__init__(part)
        self.large, self.slide_s = large, slide_s
        self._path, self._width, self._height = path, width, height
        self._bytes = bytearray(width * height * 4)
        self.frame_no = 0

    def open(self) -> Canvas:
        """A fresh canvas; the file is made by the first frame."""
        return Canvas(self._width, self._height, large=self.large)

    def write(self, canvas: Canvas, boxes: list[Box]) -> None:
        """Replace the file, then its sidecar.  DriverGone when either cannot be written."""
        line_length = self._width * 4
        for box in boxes:
            for offset, row in spans(packed(canvas.image.crop(box), FORMAT), box, FORMAT, line_length):
                self._bytes[offset:offset + len(row)] = row
        self.frame_no += 1
        side = {"width": self._width, "height": self._height, "format": FORMAT, "line_length": line_length,
                "frame_no": self.frame_no}
        try:
            _replace(self._path, self._bytes)
            _replace(self._path + ".json", msgspec.json.encode(side))
        except OSError as error:
            raise gone(error, self._path, "the folder must be there and writable", self.part) from error

    def wipe(self) -> None:
        """Away with a frame of another life; the next `show` draws it anew."""
        self._canvas = None
        for path in (self._path + ".json", self._path):
            with contextlib.suppress(OSError):
                os.unlink(path)

    def shut(self) -> None:
        """Nothing is held; the last frame stays for who looks."""


def _replace(path: str, data: bytes | bytearray) -> None:
    # A reader sees the old frame or the new one, never half.  No fsync: after a cut nobody wants this frame back.
    with open(path + ".part", "wb") as file:
        file.write(data)
    os.replace(path + ".part", path)
