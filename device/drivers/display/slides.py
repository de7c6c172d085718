"""Pictures for the time in which nobody is served.  Knows files and whose turn it is; whether one may stand, `draw` knows.

Each is looked at before it is opened: no file and no picture is larger than its bound, whoever signed it.  One is held in memory,
as large as the frame.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from device.drivers.display.draw import BRAND, Slide
from device.drivers.picture_bytes import MOST_BYTES, picture_fault, picture_size

if TYPE_CHECKING:
    from PIL.Image import Image

log = logging.getLogger("tillbox")

ORIENTATION = 0x0112


class Slides:
    """The pictures at `paths`, each for `every_s` seconds, after the till's own screen has stood as long."""

    def __init__(self, paths: tuple[str, ...] = (), every_s: int = 8) -> None:
        self.paths, self.every_ms = paths, every_s * 1000
        self.refused: dict[str, str] = {}            # why a picture is not shown, by path
        self._held: tuple[str, int, int] = ("", 0, 0)
        self._slide: Slide | None = None

    def due(self, now_ms: int) -> str:
        """The picture whose turn it is at monotonic `now_ms`; "" for the till's own screen."""
        paths = [path for path in self.paths if path not in self.refused]
        turn = now_ms // self.every_ms % (len(paths) + 1)
        return paths[turn - 1] if turn else ""

    def at_hand(self, path: str, width: int, height: int) -> bool:
        """True when `of` costs nothing."""
        return self._held == (path, width, height)

    def of(self, path: str, width: int, height: int) -> Slide | None:
        """The picture as a slide; None when it cannot be shown.  Takes its time when not `at_hand`: call it in a thread."""
        if not self.at_hand(path, width, height):
            try:
                self._slide = self._made(path, width, height)
            except (OSError, ValueError, SyntaxError) as why:          # Pillow says all three of a broken picture
                log.warning("picture %s is not shown: %s", path, why)
                self.refused[path] = str(why)
                self._slide = None
            self._held = (path, width, height)
        return self._slide

    @staticmethod
    def _made(path: str, width: int, height: int) -> Slide:
        import io

        from PIL import Image, ImageOps

        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
        fault = picture_fault(data)
        if fault:
            raise ValueError(fault)
        try:
            told = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
        except Image.DecompressionBombError as why:                    # neither OSError nor ValueError
            raise ValueError(str(why)) from why
        with told:
            if told.size != picture_size(data):                        # a second head behind the first: the bound would not hold
                raise ValueError("it says more than one size")
            told.draft("RGB", (max(width, height),) * 2)                # a JPEG is read no larger than it is shown, however it lies
            clear = "A" in told.getbands() or "transparency" in told.info
            picture = _upright(told).convert("RGBA" if clear else "RGB")
        near = abs(picture.width * height / (picture.height * width) - 1) < 0.12
        fitted = (ImageOps.fit if near else ImageOps.contain)(picture, (width, height), Image.Resampling.LANCZOS)
        sheet = Image.new("RGB", (width, height), BRAND)
        place = ((width - fitted.width) // 2, (height - fitted.height) // 2)
        sheet.paste(fitted, place, fitted if fitted.mode == "RGBA" else None)
        return Slide(sheet)


def _upright(picture: Image) -> Image:
    """As its EXIF says that it is to be looked at; as it is where that cannot be read."""
    from PIL.Image import Transpose

    turns = {2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
             6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90}
    try:
        turn = turns.get(picture.getexif().get(ORIENTATION, 1))
    except Exception as why:  # noqa: BLE001 - whatever its reader stumbles over, the picture itself may be whole
        log.info("a picture's EXIF cannot be read: %s", why)
        return picture
    return picture if turn is None else picture.transpose(turn)
