"""A small OLED as the customer's display, by luma: a few words and the sum.  Knows the bus and how rows fill so few pixels.

No QR stands on it: four pixels a module and the quiet zone take 148 pixels, and such a glass has 64.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from device.drivers.display.draw import _cut, _fitting
from device.drivers.display.pole_bytes import Glass
from device.drivers.display.rows import RowsDisplay

if TYPE_CHECKING:
    from PIL.Image import Image

ADDRESS = 0x3C


class OledDisplay(RowsDisplay):
    """The OLED with controller `chip` at `path`, an I2C bus and maybe an address: "/dev/i2c-1", "/dev/i2c-1:3d".

    `made` gives luma's device in a test.
    """

    hint = "check its four wires, and that I2C is on; i2cdetect shows its address"
    charset = "gbk"

    def __init__(self, path: str, *, chip: str = "ssd1306", width: int = 128, height: int = 64, rotation: int = 0,
                 part: str = "display", made: Callable[[], Any] | None = None) -> None:
        super().__init__(path, part)
        self._chip, self._size, self._turns = chip, (width, height), rotation // 90
        self._made = made

    def opened(self) -> Any:
        if self._made is not None:
            return self._made()
        match = re.fullmatch(r"/dev/i2c-(\d+)(?::([0-9a-fA-F]{2}))?", self.path)
        if match is None:
            raise OSError(errno.EINVAL, "an OLED's path is its bus, such as /dev/i2c-1 or /dev/i2c-1:3d")
        try:
            from luma.core.error import DeviceNotFoundError
            from luma.core.interface.serial import i2c
            from luma.oled import device as chips
        except ImportError as why:
            raise OSError(errno.ENOSYS, "luma.oled is not installed: pip install tillbox[oled]") from why
        try:
            bus = i2c(port=int(match[1]), address=int(match[2], 16) if match[2] else ADDRESS)
            return getattr(chips, self._chip)(bus, width=self._size[0], height=self._size[1], rotate=self._turns)
        except DeviceNotFoundError as why:
            raise OSError(errno.ENODEV, str(why)) from why

    def put(self, device: Any, said: Glass, fresh: bool) -> None:
        device.display(picture(said, device.width, device.height).convert(device.mode))

    def let_go(self, device: Any) -> None:
        """Luma would clear the glass at the interpreter's end; what is true of the till then is said by the farewell."""
        device.persist = True
        device.cleanup()


def picture(glass: Glass, width: int, height: int) -> Image:
    """`glass` in white on black, no grey: the upper row small, the lower one as large as it fits."""
    from PIL import Image, ImageDraw

    sheet = Image.new("1", (width, height))
    draw = ImageDraw.Draw(sheet)
    draw.fontmode = "1"
    cut = height * 36 // 100
    for text, top, bottom in ((glass.top, 0, cut), (glass.bottom, cut, height)):
        left, _, right = text.strip().partition("  ")
        left, right = left.strip(), right.strip()
        size = (bottom - top) * (78 if top else 84) // 100
        low = (bottom - top) * (44 if left[:1].isdigit() else 60) // 100
        # The sum is the large one, whichever side it stands on; beside it a clock, or the word that says what it is.
        number = _fitting(right, low if left[:1].isdigit() else size, width * 7 // 10, 0.4) if right else None
        used = int(number.getlength(right)) + 4 if number is not None else 0
        font = _fitting(left, size if not right or left[:1].isdigit() else low, max(8, width - used), 0.3)
        middle = (top + bottom) // 2
        if number is not None:
            draw.text((width - 1, middle), right, font=number, fill=1, anchor="rm")
            draw.text((0, middle), _cut(left, font, max(8, width - used)), font=font, fill=1, anchor="lm")
        else:
            draw.text((width // 2, middle), _cut(left, font, width), font=font, fill=1, anchor="mm")
    return sheet
