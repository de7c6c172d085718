"""In-memory twin of the printer, for simulated worlds and unit tests.

Keeps the jobs it printed as parts, not as bytes.  Knows no time and no cable; its faults are switched from outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

from device.errors import DriverBusy, DriverGone
from device.txn.effects import Effect, KickDrawer, PaperPart, Print
from device.txn.inputs import DeviceSaid, DrawerKicked, Input, Printed, PrintUnsure


class PrinterSim:
    """`papers` holds (job, parts) of every job of which paper came out, also torn ones; `torn` names those jobs.

    Faults: `paper_out` (DriverBusy), `off` (DriverGone), `dies_after` n: the next job stops after n parts and is
    answered PrintUnsure, and the printer is off from then on.
    """

    does: ClassVar[frozenset[type[Effect]]] = frozenset({Print, KickDrawer})
    at_once: ClassVar[int] = 1

    def __init__(self, proof: int = 3) -> None:
        self.papers: list[tuple[int, tuple[PaperPart, ...]]] = []
        self.torn: set[int] = set()
        self.kicks: list[int] = []
        self.paper_out = False
        self.off = False
        self.dies_after: int | None = None
        self._proof = proof
        self._changed: asyncio.Queue[DeviceSaid | None] = asyncio.Queue()

    def fault(self, *, paper_out: bool | None = None, off: bool | None = None, dies_after: int | None = None) -> None:
        """Switch faults; what is not named stays.  The new health is said through `inputs`."""
        self.paper_out = self.paper_out if paper_out is None else paper_out
        self.off = self.off if off is None else off
        self.dies_after = self.dies_after if dies_after is None else dies_after
        self._changed.put_nowait(self.health())

    def health(self) -> DeviceSaid:
        """What a look at it says now."""
        if self.off:
            return DeviceSaid("printer", "gone", "The printer does not answer.")
        if self.paper_out:
            return DeviceSaid("printer", "paper_out", "The printer has no paper.")
        return DeviceSaid("printer", "ok")

    async def do(self, effect: Effect) -> Input:
        """As the real driver: Printed, PrintUnsure or DrawerKicked; DriverGone or DriverBusy when nothing left."""
        if self.off:
            raise DriverGone("The printer does not answer.", which="printer")
        if isinstance(effect, KickDrawer):
            self.kicks.append(effect.kick)
            return DrawerKicked(effect.kick)
        assert isinstance(effect, Print), effect
        if self.paper_out:
            raise DriverBusy("The printer has no paper.", which="printer", hint="put in a new roll")
        if self.dies_after is not None:
            parts, self.dies_after = effect.paper[:self.dies_after], None
            self.papers.append((effect.job, parts))
            self.torn.add(effect.job)
            self.fault(off=True)
            return PrintUnsure(effect.job, "The printer went away in the middle of a receipt.")
        self.papers.append((effect.job, effect.paper))
        return Printed(effect.job, self._proof)

    async def inputs(self) -> AsyncIterator[Input]:
        """Its health once, then at every switch of a fault, until closed."""
        yield self.health()
        while (said := await self._changed.get()) is not None:
            yield said

    async def close(self) -> None:
        self._changed.put_nowait(None)
