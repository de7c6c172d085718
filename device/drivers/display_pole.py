"""A customer's pole on a serial port: words and sums, no picture and no QR.  Knows the port and its time limits.

A pole says nothing of itself, so only the port tells whether it is there; whole frames are repeated every so often, for it may
have lost its power between two of them.  Writes run in a thread and end after STALL_S: a port that takes nothing holds up no
other display and no sale.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import termios
import time
from collections.abc import AsyncIterator
from typing import Any

from device.drivers import display_pole_bytes as pole
from device.drivers.display_pole_text import glass_of
from device.errors import DriverGone
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input
from device.txn.screen import Screen

STALL_S = 2.0
REPEAT_S = 10.0                # a pole that lost its power for a moment is dark no longer than this
AFTER_S = 0.05                 # an LED8 takes nothing for so long after a number
BITS_A_BYTE = 10


class PoleDisplay:
    """A pole of `dialect` on the port at `path`; `baud` 0 for what such poles leave the factory with; `charset` ascii or gbk.

    `frames` counts those that reached the port, `skipped` those that said what stood there already.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, path: str, *, dialect: str = "cd5220", baud: int = 0, charset: str = "ascii", part: str = "display") -> None:
        self._path, self._dialect, self._charset, self.part = path, pole.DIALECTS[dialect], charset, part
        self._baud = baud or self._dialect.baud
        self.frames = self.skipped = 0
        self._port: Any = None
        self._stands: bytes | None = None
        self._stands_s = 0.0
        self._next: tuple[Screen, int] | None = None
        self._writing = self._closed = False
        self._said: asyncio.Queue[DeviceSaid] = asyncio.Queue(16)

    async def show(self, screen: Screen, now_ms: int) -> None:
        """Show `screen` as of monotonic `now_ms`.  Returns when the port took it, or at once while another call writes, which
        then writes the newest.  DriverGone when the port is not there or takes nothing; the next call opens it again.
        """
        self._next = (screen, now_ms)
        if self._writing:
            return
        self._writing = True
        try:
            while self._next is not None and not self._closed:
                (screen, now_ms), self._next = self._next, None
                await self._bring(screen, now_ms)
        except OSError as error:
            self._drop()
            said = getattr(error, "strerror", None) or str(error)
            fault = DriverGone(f"{self._path}: {said}", which=self.part, hint="check the pole's cable and power")
            self._say("gone", fault.what)
            raise fault from error
        finally:
            self._writing = False

    def again_s(self, screen: Screen) -> float | None:
        """A pole is written again though nothing changed: it cannot say that it went dark."""
        return REPEAT_S

    def wipe(self) -> None:
        """Nothing: no QR stands on a pole, and the first frame is not far."""

    async def inputs(self) -> AsyncIterator[Input]:
        """DeviceSaid `ok` when the port took its first frame, `gone` when it went away, which ends it."""
        while True:
            said = await self._said.get()
            if said.word == "closed":
                return
            yield said
            if said.word == "gone":
                return

    async def do(self, effect: Effect) -> Input:
        """A display carries nothing out: it is shown screens."""
        raise AssertionError(f"no display does {type(effect).__name__}")

    async def close(self) -> None:
        """Let go of the port and end `inputs`; a later `show` does nothing."""
        self._closed = True
        if self._port is not None and self._stands is not None:
            await asyncio.sleep(len(self._stands) * BITS_A_BYTE / self._baud)      # the last frame is still on the wire
        self._drop()
        self._say("closed")

    async def _bring(self, screen: Screen, now_ms: int) -> None:
        left_s = None if screen.deadline is None else max(0, -((now_ms - screen.deadline[1]) // 1000))
        data = pole.frame_of(glass_of(screen, left_s, self._charset), self._dialect.name, self._charset)
        if data == self._stands and time.monotonic() - self._stands_s < REPEAT_S:
            self.skipped += 1
            return
        opened = self._port is None
        if opened:
            self._port = await asyncio.to_thread(self._opened)
            data = self._dialect.reset + data
        await asyncio.to_thread(self._write, data)
        self._stands, self._stands_s = data.removeprefix(self._dialect.reset) if opened else data, time.monotonic()
        self.frames += 1
        if opened:
            self._say("ok")
        if self._dialect.rows == 1:
            await asyncio.sleep(AFTER_S)

    def _opened(self) -> Any:
        import serial

        # The port's speed is set at every open: some poles stay dark until a program has done so.
        try:
            return serial.Serial(self._path, self._baud, exclusive=True, timeout=0, write_timeout=STALL_S)
        except (ValueError, termios.error) as error:       # a port that died between two of its calls: no OSError
            raise OSError(errno.EIO, str(error)) from error

    def _write(self, data: bytes) -> None:
        port = self._port
        if port is None:
            raise OSError(errno.ENODEV, "not open")
        fd, sent, ends_s = port.fileno(), 0, time.monotonic() + STALL_S + len(data) * BITS_A_BYTE / self._baud
        while sent < len(data):
            _, ready, _ = select.select([], [fd], [], max(0.0, ends_s - time.monotonic()))
            if not ready:
                raise OSError(errno.ETIMEDOUT, "it takes nothing")
            try:
                sent += os.write(fd, data[sent:])
            except BlockingIOError:
                continue
        if self._dialect.answers:
            self._heard(fd)

    def _heard(self, fd: int) -> None:
        """Drop what it answered: ACK, or NAK for a command that some clones lack; silence is no proof of anything."""
        try:
            os.read(fd, 256)
        except BlockingIOError:
            pass

    def _drop(self) -> None:
        port, self._port, self._stands = self._port, None, None
        if port is None:
            return
        try:
            port.reset_output_buffer()             # what a stuck pole does not take is not waited for
        except (OSError, termios.error):
            pass                                   # unplugged: nothing waits
        port.close()

    def _say(self, word: str, why: str = "") -> None:
        if self._said.full():
            self._said.get_nowait()
        self._said.put_nowait(DeviceSaid(self.part, word, why))
