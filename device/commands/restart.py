"""The box as something that can be started anew.  Ends the daemon with its own exit status; the unit's ExecStopPost= does the rest,
for the daemon itself may not: it has no right that a thief of it could use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

from device.txn.effects import Effect, Reboot
from device.txn.inputs import DeviceSaid, Input

EXIT_REBOOT = 75


class Restart:
    """`stop(status)` ends the daemon in good order."""

    does: ClassVar[frozenset[type[Effect]]] = frozenset({Reboot})
    at_once = 1

    def __init__(self, stop: Callable[[int], None]) -> None:
        self._stop = stop
        self._closed = asyncio.Event()

    async def inputs(self) -> AsyncIterator[Input]:
        """Says nothing unasked; ends when closed."""
        await self._closed.wait()
        never: tuple[Input, ...] = ()
        for nothing in never:
            yield nothing

    async def do(self, effect: Effect) -> Input:
        assert isinstance(effect, Reboot), effect
        self._stop(EXIT_REBOOT)
        return DeviceSaid("system", "ok")

    async def close(self) -> None:
        self._closed.set()
