"""Displays of a few words, a pole's or a small OLED's: the newest screen wins, what stands there already is not written again.

Knows no bytes and no device.  Such a glass says nothing of itself, so whole frames are repeated every REPEAT_S: it may have lost
its power between two of them.  Writes run in a thread, and a device that takes nothing holds up no other display and no sale.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from device.drivers.display.pole_text import glass_of
from device.errors import DriverGone
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input
from device.txn.screen import Screen

REPEAT_S = 10.0                # a glass that lost its power for a moment is dark no longer than this


class RowsDisplay:
    """Base: a subclass gives `opened`, `said`, `put` and `let_go`; the first and the third run in a thread and raise OSError.

    `frames` counts those that reached the device, `skipped` those that said what stood there already.  `hint` is what to do when
    it is gone, `wire_s` how long the last frame is under way.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1
    hint = "check its cable and power"
    wire_s = 0.0
    charset = "ascii"

    def __init__(self, path: str, part: str) -> None:
        self.path, self.part = path, part
        self.frames = self.skipped = 0
        self._device: Any = None
        self._stands: Any = None
        self._stands_s = 0.0
        self._next: tuple[Screen, int] | None = None
        self._writing = self._closed = False
        self._said: asyncio.Queue[DeviceSaid] = asyncio.Queue(16)

    def opened(self) -> Any:
        """The device, taken for ourselves."""
        raise NotImplementedError

    def said(self, screen: Screen, left_s: int | None) -> Any:
        """What `put` is to bring there; equal values stand for equal glass."""
        return glass_of(screen, left_s, self.charset)

    def put(self, device: Any, said: Any, fresh: bool) -> None:
        """Bring it there; `fresh` when the device was just opened."""
        raise NotImplementedError

    def let_go(self, device: Any) -> None:
        """Close it, whatever state it is in; waits for nothing."""
        raise NotImplementedError

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
            fault = DriverGone(f"{self.path}: {said}", which=self.part, hint=self.hint)
            self._say("gone", fault.what)
            raise fault from error
        finally:
            self._writing = False

    def again_s(self, screen: Screen) -> float | None:
        """It is written again though nothing changed: it cannot say that it went dark."""
        return REPEAT_S

    def wipe(self) -> None:
        """Nothing: no QR stands there, and the first frame is not far."""

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
        await asyncio.sleep(self.wire_s)                 # the last frame is still on the wire
        self._drop()
        self._say("closed")

    async def _bring(self, screen: Screen, now_ms: int) -> None:
        left_s = None if screen.deadline is None else max(0, -((now_ms - screen.deadline[1]) // 1000))
        said = self.said(screen, left_s)
        if said == self._stands and time.monotonic() - self._stands_s < REPEAT_S:
            self.skipped += 1
            return
        fresh = self._device is None
        if fresh:
            self._device = await asyncio.to_thread(self.opened)
        await asyncio.to_thread(self.put, self._device, said, fresh)
        self._stands, self._stands_s = said, time.monotonic()
        self.frames += 1
        if fresh:
            self._say("ok")
        await asyncio.sleep(self.wire_s)

    def _drop(self) -> None:
        device, self._device, self._stands = self._device, None, None
        if device is not None:
            self.let_go(device)

    def pictures(self, paths: tuple[str, ...]) -> None:
        """It has no room for any."""

    def _say(self, word: str, why: str = "") -> None:
        if self._said.full():
            self._said.get_nowait()
        self._said.put_nowait(DeviceSaid(self.part, word, why))
