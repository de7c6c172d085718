"""The customer's panel through the kernel's frame buffer device, or a plain file with the same bytes.

Geometry and pixel format are read from the device at every open and looked at again before every frame: a frame buffer
may be replaced by another seconds after boot.  Pixels go in by `pwrite`: a panel that went away answers with an errno,
where a store into mapped memory would kill the process with SIGBUS.
"""

from __future__ import annotations

import os
import struct

import msgspec

from device.drivers.display_draw import Canvas
from device.drivers.display_pixels import BYTES_OF, Box, packed, spans, turned, turned_box
from device.drivers.display_show import Show, gone
from device.errors import DriverGone

FBIOGET_VSCREENINFO, FBIOGET_FSCREENINFO = 0x4600, 0x4602            # <linux/fb.h>
VAR_BYTES = 160                # struct fb_var_screeninfo is the same on 32 and 64 bits
FIX_BYTES_MAX = 128            # struct fb_fix_screeninfo is 68 or 80
CHANNELS = {(32, (16, 8), (8, 8), (0, 8)): "XRGB8888", (16, (11, 5), (5, 6), (0, 5)): "RGB565"}


class Geometry(msgspec.Struct, frozen=True):
    """What a frame buffer is: visible pixels, `form` XRGB8888 or RGB565, bytes a row, byte offset of the first visible pixel."""

    width: int
    height: int
    form: str
    line_length: int
    start: int = 0


class FbDisplay(Show):
    """The frame buffer at `path`, usually /dev/fb0; `rotation` 0, 90, 180 or 270 degrees clockwise is how the panel hangs.

    `geometry` is for a plain file, which cannot be asked; a device is always asked.
    """

    def __init__(self, path: str, *, rotation: int = 0, geometry: Geometry | None = None) -> None:
        super().__init__()
        assert rotation in (0, 90, 180, 270), rotation
        self._path, self._rotation, self._given = path, rotation, geometry
        self._fd, self._geometry = -1, geometry

    def open(self) -> Canvas:
        """Open, ask for the geometry and give a canvas of the upright size.  DriverGone when any of it fails."""
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._geometry = self._asked()
        except OSError as error:
            raise gone(error, self._path, "check the cable, and force the mode on the kernel's command line") from error
        wide, high = self._geometry.width, self._geometry.height
        return Canvas(high, wide) if self._rotation in (90, 270) else Canvas(wide, high)

    def write(self, canvas: Canvas, boxes: list[Box]) -> None:
        """Turn, pack and write `boxes`, and nothing else.  DriverGone when the panel went away or is another one now."""
        assert self._geometry is not None and self._fd >= 0
        there = self._geometry
        try:
            if self._asked() != there:
                raise DriverGone(f"{self._path} changed its size or format", which="display", hint="it is opened anew")
            for box in boxes:
                data = packed(turned(canvas.image.crop(box), self._rotation), there.form)
                place = turned_box(box, canvas.width, canvas.height, self._rotation)
                for offset, row in spans(data, place, there.form, there.line_length):
                    if os.pwrite(self._fd, row, there.start + offset) != len(row):
                        raise DriverGone(f"{self._path} ends before the frame does", which="display",
                                         hint="its geometry is not what it says")
        except OSError as error:
            raise gone(error, self._path, "the panel went away") from error

    def shut(self) -> None:
        """Close the device; the last frame stays on the glass."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _asked(self) -> Geometry:
        if self._given is not None:
            return self._given
        import fcntl

        var, fix = bytearray(VAR_BYTES), bytearray(FIX_BYTES_MAX)
        fcntl.ioctl(self._fd, FBIOGET_VSCREENINFO, var)
        fcntl.ioctl(self._fd, FBIOGET_FSCREENINFO, fix)
        return geometry_of(bytes(var), bytes(fix))


def geometry_of(var: bytes, fix: bytes, *, long_bytes: int = struct.calcsize("l")) -> Geometry:
    """Geometry from the kernel's two structures.  DriverGone, not to be retried, for a pixel format we do not draw.

    `long_bytes` is the width of the kernel's `unsigned long` as this process sees it.
    """
    wide, high, _, _, x, y, bits, _ = struct.unpack_from("=8I", var)
    red, green, blue = (struct.unpack_from("=2I", var, 32 + 12 * n) for n in range(3))
    # id[16], smem_start (long), smem_len, type, type_aux, visual, three u16 steps, padding, line_length
    line_length, = struct.unpack_from("=I", fix, 16 + long_bytes + 16 + 8)
    form = CHANNELS.get((bits, red, green, blue))
    if form is None:
        raise DriverGone(f"{bits} bits a pixel with channels {red} {green} {blue} are not drawn", which="display",
                         hint="use a 16 bit RGB565 or 32 bit XRGB8888 mode", again=False)
    return Geometry(wide, high, form, line_length, y * line_length + x * BYTES_OF[form])
