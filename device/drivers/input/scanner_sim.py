"""A scanner in memory: says what a world or a test has it scan.  Judges reads as the real ones do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from device.drivers.input.scanner_keys import Read, symbol_fault, without_aim
from device.drivers.input.scanner_reads import LookUp, Reads
from device.txn.effects import Effect
from device.txn.inputs import Input


class ScannerSim:
    """`scan` reads a symbol, `scan_half` begins one; `unplug` and `plug` are the cable.

    What is scanned while nobody listens is lost.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, look_up: LookUp, *, lane: str = "", repeat_ms: int = 0) -> None:
        self.reads = Reads(look_up, lane=lane, repeat_ms=repeat_ms)
        self.at_ms = 0
        self._plugged, self._half = True, False
        self._said: asyncio.Queue[Read | None] | None = None

    def scan(self, code: str) -> None:
        """Read `code`, which may begin with an AIM identifier."""
        bare = without_aim(code)
        why = symbol_fault(bare)
        self._put(Read(why=why) if why else Read(bare, aim=code[:len(code) - len(bare)]))

    def scan_half(self, code: str) -> None:
        """Begin to read, and break off."""
        self._half = bool(code)

    def unplug(self) -> None:
        self._plugged = False
        self._put(None)

    def plug(self) -> None:
        self._plugged = True

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """As the real ones."""
        if not self._plugged:
            for said in self.reads.gone("the scanner is unplugged"):
                yield said
            return
        self._said, self._half = asyncio.Queue(), False
        yield self.reads.ok()
        while (read := await self._said.get()) is not None:
            for said in self.reads.inputs_of(read, self.at_ms):
                yield said
        for said in self.reads.gone(half=self._half):
            yield said
        self._said = None

    async def do(self, effect: Effect) -> Input:
        """A scanner carries nothing out."""
        raise AssertionError(f"no scanner does {type(effect).__name__}")

    async def close(self) -> None:
        """End `inputs`."""
        self._put(None)

    def _put(self, read: Read | None) -> None:
        if self._said is not None:
            self._said.put_nowait(read)
