"""A customer's pole on a serial port: words and sums, no picture and no QR.  Knows the port and its time limits."""

from __future__ import annotations

import errno
import os
import select
import termios
import time
from typing import Any

from device.drivers.display import pole_bytes as pole
from device.drivers.display.pole_text import glass_of
from device.drivers.display.rows import RowsDisplay
from device.txn.screen import Screen

STALL_S = 2.0
AFTER_S = 0.05                 # an LED8 takes nothing for so long after a number
BITS_A_BYTE = 10


class PoleDisplay(RowsDisplay):
    """A pole of `dialect` on the port at `path`; `baud` 0 for what such poles leave the factory with; `charset` ascii or gbk."""

    hint = "check the pole's cable and power"

    def __init__(self, path: str, *, dialect: str = "cd5220", baud: int = 0, charset: str = "ascii", part: str = "display") -> None:
        super().__init__(path, part)
        self._dialect, self.charset = pole.DIALECTS[dialect], charset
        self._baud = baud or self._dialect.baud
        self.wire_s = AFTER_S if self._dialect.rows == 1 else 0.0

    def said(self, screen: Screen, left_s: int | None) -> bytes:
        """The bytes of the whole glass."""
        return pole.frame_of(glass_of(screen, left_s, self.charset), self._dialect.name, self.charset)

    def opened(self) -> Any:
        import serial

        # The port's speed is set at every open: some poles stay dark until a program has done so.
        try:
            return serial.Serial(self.path, self._baud, exclusive=True, timeout=0, write_timeout=STALL_S)
        except (ValueError, termios.error) as error:       # a port that died between two of its calls: no OSError
            raise OSError(errno.EIO, str(error)) from error

    def put(self, device: Any, said: bytes, fresh: bool) -> None:
        data = self._dialect.reset + said if fresh else said
        fd, sent, wire_s = device.fileno(), 0, len(data) * BITS_A_BYTE / self._baud
        ends_s = time.monotonic() + STALL_S + wire_s
        while sent < len(data):
            _, ready, _ = select.select([], [fd], [], max(0.0, ends_s - time.monotonic()))
            if not ready:
                raise OSError(errno.ETIMEDOUT, "it takes nothing")
            try:
                sent += os.write(fd, data[sent:])
            except BlockingIOError:
                continue
        self.wire_s = max(wire_s, AFTER_S if self._dialect.rows == 1 else 0.0)
        if self._dialect.answers:
            self._heard(fd)

    def let_go(self, device: Any) -> None:
        try:
            device.reset_output_buffer()           # what a stuck pole does not take is not waited for
        except (OSError, termios.error):
            pass                                   # unplugged: nothing waits
        device.close()

    def _heard(self, fd: int) -> None:
        """Drop what it answered: ACK, or NAK for a command that some clones lack; silence is no proof of anything."""
        try:
            os.read(fd, 256)
        except BlockingIOError:
            pass
