"""A display in memory: keeps the screens it was shown and draws nothing.  For worlds and unit tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from device.errors import DriverGone
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input
from device.txn.screen import Screen


class DisplaySim:
    """`screen` is the last one shown, None before the first; `gone` set true makes the next `show` fail."""

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self) -> None:
        self.screen: Screen | None = None
        self.now_ms = 0
        self.shown = 0
        self.gone = False
        self._closed = asyncio.Event()

    async def show(self, screen: Screen, now_ms: int) -> None:
        """Keep `screen`.  DriverGone while `gone`."""
        if self.gone:
            raise DriverGone("the display is unplugged", which="display")
        self.screen, self.now_ms, self.shown = screen, now_ms, self.shown + 1

    def again_s(self, screen: Screen) -> float | None:
        """Never: it keeps what it is shown."""
        return None

    def pictures(self, paths: tuple[str, ...]) -> None:
        """It draws none."""

    def wipe(self) -> None:
        """Forget the last screen."""
        self.screen = None

    async def inputs(self) -> AsyncIterator[Input]:
        """`ok`, then nothing until it is closed."""
        yield DeviceSaid("display", "ok")
        await self._closed.wait()

    async def do(self, effect: Effect) -> Input:
        """A display carries nothing out."""
        raise AssertionError(f"no display does {type(effect).__name__}")

    async def close(self) -> None:
        """End `inputs`."""
        self._closed.set()
