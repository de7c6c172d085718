"""The customer's panel through the kernel's frame buffer device, or a plain file with the same bytes.

Geometry and pixel format are read from the device at every open and looked at again before every frame, and every LOOK_S
without one: a frame buffer may be replaced by another seconds after boot.  Pixels go in by `pwrite`: a panel that went away
answers with an errno, where a store into mapped memory would kill the process with SIGBUS.

Whole rows are written, two at least, each band of them by one call.  Linux's frame buffers over DRM tell the panel the
rectangle of each write, and of one that ends where its only row ends they make an empty one (seen in 6.1): the memory holds
the new pixels while the glass goes on showing the old QR.
"""

from __future__ import annotations

import contextlib
import os
import struct

import msgspec

from device.drivers.display.draw import Canvas
from device.drivers.display.pixels import BYTES_OF, Box, bands, packed, spans, turned, turned_box
from device.drivers.display.show import Show, gone
from device.errors import DriverGone
from device.txn.screen import Screen

FBIOGET_VSCREENINFO, FBIOGET_FSCREENINFO = 0x4600, 0x4602            # <linux/fb.h>
VAR_BYTES = 160                # struct fb_var_screeninfo is the same on 32 and 64 bits
FIX_BYTES_MAX = 128            # struct fb_fix_screeninfo is 68 or 80
CHANNELS = {(32, (16, 8), (8, 8), (0, 8)): "XRGB8888", (16, (11, 5), (5, 6), (0, 5)): "RGB565"}
SIDE_PX_MIN, SIDE_PX_MAX = 160, 4096          # on less no screen can be laid out
LOOK_S = 2.0


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

    def __init__(self, path: str, *, rotation: int = 0, geometry: Geometry | None = None, large: bool = False, slide_s: int = 8,
                 part: str = "display") -> None:
        super().__init__(part)
        self.large, self.slide_s = large, slide_s
        assert rotation in (0, 90, 180, 270), rotation
        self._path, self._rotation, self._given = path, rotation, geometry
        self._fd, self._geometry = -1, geometry
        self._rows = bytearray()                     # the frame as the panel has it

    def open(self) -> Canvas:
        """Open, ask for the geometry and give a canvas of the upright size.  DriverGone when any of it fails."""
        there = self._take()
        try:
            self._rows = self._dark(there)
        except OSError as error:
            raise gone(error, self._path, "the panel went away", self.part) from error
        wide, high = there.width, there.height
        upright = (high, wide) if self._rotation in (90, 270) else (wide, high)
        return Canvas(*upright, large=self.large)

    def look(self) -> None:
        """DriverGone when the device went away, changed, or when its path leads to another one by now."""
        assert self._geometry is not None and self._fd >= 0
        try:
            if self._asked() != self._geometry or not os.path.samestat(os.fstat(self._fd), os.stat(self._path)):
                raise DriverGone(f"{self._path} is another one now, or changed its size or format", which=self.part,
                                 hint="it is opened anew")
        except OSError as error:
            raise gone(error, self._path, "the panel went away", self.part) from error

    def write(self, canvas: Canvas, boxes: list[Box]) -> None:
        """Turn, pack and write `boxes`, with the rest of the rows they stand on.  DriverGone when the panel went away or is
        another one now."""
        self.look()
        there = self._geometry
        assert there is not None
        places = []
        for box in boxes:
            data = packed(turned(canvas.image.crop(box), self._rotation), there.form)
            places.append(turned_box(box, canvas.width, canvas.height, self._rotation))
            for offset, row in spans(data, places[-1], there.form, there.line_length):
                self._rows[offset:offset + len(row)] = row
        try:
            for top, bottom in bands(places, there.height):
                self._put(there.start, top * there.line_length, self._end(there, bottom))
        except OSError as error:
            raise gone(error, self._path, "the panel went away", self.part) from error

    def again_s(self, screen: Screen) -> float | None:
        """Every LOOK_S, to see whether it is still there; or for the next picture."""
        return min(LOOK_S, super().again_s(screen) or LOOK_S)

    def wipe(self) -> None:
        """All dark; the next `show` opens it anew."""
        self._canvas = None
        self.shut()
        with contextlib.suppress(DriverGone, OSError):
            there = self._take()
            self._rows = self._dark(there)
            self._put(there.start, 0, self._end(there, there.height))
        self.shut()

    def shut(self) -> None:
        """Close the device; the last frame stays on the glass."""
        self._rows = bytearray()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _take(self) -> Geometry:
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._geometry = self._asked()
        except OSError as error:
            raise gone(error, self._path, "check the cable, and force the mode on the kernel's command line", self.part) from error
        return self._geometry

    def _dark(self, there: Geometry) -> bytearray:
        """A dark frame; what lies between its rows and is not ours is what lies there now."""
        wide = there.width * BYTES_OF[there.form]
        if wide == there.line_length:
            return bytearray(wide * there.height)
        size = there.line_length * there.height
        rows = bytearray(os.pread(self._fd, size, there.start).ljust(size, b"\0"))
        for top in range(0, len(rows), there.line_length):
            rows[top:top + wide] = bytes(wide)
        return rows

    @staticmethod
    def _end(there: Geometry, bottom: int) -> int:
        """Where the bytes of the rows above `bottom` end; the last row has nothing behind it."""
        return bottom * there.line_length if bottom < there.height else \
            (bottom - 1) * there.line_length + there.width * BYTES_OF[there.form]

    def _put(self, start: int, begin: int, end: int) -> None:
        with memoryview(self._rows)[begin:end] as band:
            if os.pwrite(self._fd, band, start + begin) != end - begin:
                raise DriverGone(f"{self._path} ends before the frame does", which=self.part,
                                 hint="its geometry is not what it says")

    def _asked(self) -> Geometry:
        if self._given is not None:
            return self._given
        import fcntl

        var, fix = bytearray(VAR_BYTES), bytearray(FIX_BYTES_MAX)
        fcntl.ioctl(self._fd, FBIOGET_VSCREENINFO, var)
        fcntl.ioctl(self._fd, FBIOGET_FSCREENINFO, fix)
        return geometry_of(bytes(var), bytes(fix), part=self.part)


def geometry_of(var: bytes, fix: bytes, *, long_bytes: int = struct.calcsize("l"), part: str = "display") -> Geometry:
    """Geometry from the kernel's two structures.  DriverGone, not to be retried, for a pixel format we do not draw and for
    sizes that contradict each other.

    `long_bytes` is the width of the kernel's `unsigned long` as this process sees it.
    """
    wide, high, virtual_wide, virtual_high, x, y, bits, _ = struct.unpack_from("=8I", var)
    red, green, blue = (struct.unpack_from("=2I", var, 32 + 12 * n) for n in range(3))
    # id[16], smem_start (long), smem_len, type, type_aux, visual, three u16 steps, padding, line_length
    line_length, = struct.unpack_from("=I", fix, 16 + long_bytes + 16 + 8)
    form = CHANNELS.get((bits, red, green, blue))
    if form is None:
        raise DriverGone(f"{bits} bits a pixel with channels {red} {green} {blue} are not drawn", which=part,
                         hint="use a 16 bit RGB565 or 32 bit XRGB8888 mode", again=False)
    if not all(SIDE_PX_MIN <= side <= SIDE_PX_MAX for side in (wide, high)):
        raise DriverGone(f"a panel of {wide} x {high} pixels is not drawn", which=part,
                         hint=f"sides of {SIDE_PX_MIN} to {SIDE_PX_MAX} are", again=False)
    if x + wide > virtual_wide or y + high > virtual_high or line_length < virtual_wide * BYTES_OF[form]:
        raise DriverGone(f"{wide} x {high} at {x}, {y} of {virtual_wide} x {virtual_high}, {line_length} bytes a row, is no frame",
                         which=part, hint="set the mode anew on the kernel's command line", again=False)
    return Geometry(wide, high, form, line_length, y * line_length + x * BYTES_OF[form])
