"""The printer of a simulated shop: a roll of paper that outlives the box, and a driver that may tear it or run out of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from device.errors import DriverBusy
from device.txn.effects import Effect, KickDrawer, Print
from device.txn.inputs import DeviceSaid, DrawerKicked, Input, Printed, PrintUnsure
from sim.virtual.fate import Fate

JOB_S = (.05, .9)


class Roll:
    """`paper` is what came out, torn or whole; `out` while there is none."""

    def __init__(self, fate: Fate) -> None:
        self.fate = fate
        self.paper: list[Print] = []
        self.kicks: list[int] = []
        self.out = False
        self.changed: asyncio.Event | None = None

    def run_out(self, out: bool) -> None:
        self.out = out
        if self.changed is not None:
            self.changed.set()


class RollPrinter:
    """The driver of one boot; `alive` while its box is."""

    does: frozenset[type[Effect]] = frozenset({Print, KickDrawer})
    at_once = 1

    def __init__(self, roll: Roll, alive: Callable[[], bool]) -> None:
        self.word = "ok"
        self._roll, self._alive = roll, alive
        roll.changed = self._changed = asyncio.Event()

    async def inputs(self) -> AsyncIterator[Input]:
        while True:
            self.word = "paper_out" if self._roll.out else "ok"
            yield DeviceSaid("printer", self.word)
            await self._changed.wait()
            self._changed.clear()

    async def do(self, effect: Effect) -> Input:
        """A box that dies meanwhile leaves what was printed on the paper: some jobs, not others."""
        await asyncio.sleep(self._roll.fate.random.uniform(*JOB_S))
        if isinstance(effect, KickDrawer):
            self._roll.kicks.append(effect.kick)
            return DrawerKicked(effect.kick)
        assert isinstance(effect, Print), effect
        if self._roll.out:
            raise DriverBusy("no paper", which="printer")
        if self._alive() or effect.job % 2:
            self._roll.paper.append(effect)
        if self._roll.fate.strikes("printer", "paper"):
            return PrintUnsure(effect.job, "mute after the cut")
        return Printed(effect.job, 2)

    async def close(self) -> None:
        """Nothing is held open."""
