"""A signer that fails for a while, slow at times, beside the key that really signs; it outlives the box."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from device.drivers.signer.file import FileSigner
from device.errors import DriverGone
from device.txn.effects import Effect
from device.txn.inputs import Input
from sim.virtual.fate import Fate, WorldClock

AWAY_S = (.5, 400)
SLOW_S = .7


class RoughSigner:
    """`fate` has it away for a while (`signer`), or slow over one signature (`signer_slow`)."""

    at_once = 1

    def __init__(self, signer: FileSigner, fate: Fate, clock: WorldClock) -> None:
        self.does = signer.does
        self._signer, self._fate, self._clock, self._back_ms = signer, fate, clock, 0

    def inputs(self) -> AsyncIterator[Input]:
        return self._signer.inputs()

    async def do(self, effect: Effect) -> Input:
        rates = self._fate.rates                      # not asked where no rate is: a seed of the other sets stays the run it was
        if "signer_slow" in rates and self._fate.strikes("signer", "signer_slow"):
            await asyncio.sleep(SLOW_S)
        if "signer" in rates and self._fate.strikes("signer", "signer"):
            self._back_ms = self._clock.ms() + int(self._fate.random.uniform(*AWAY_S) * 1000)
        if self._clock.ms() < self._back_ms and not self._fate.quiet:
            raise DriverGone("the token is away", which="signer")
        return await self._signer.do(effect)

    async def close(self) -> None:
        await self._signer.close()
