"""A scanner in keyboard mode: reads an event node and yields what was scanned.  Only reads, feeds and yields; the keys are
`scanner_keys.py`'s business, the goods are `look_up`'s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from device.drivers.evdev_bytes import EventBytes
from device.drivers.input_line import SCANNER_KEYS, InputLine, open_events
from device.drivers.scanner_keys import KeyEvents, Read
from device.errors import Outside
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input, Scanned, ScanSpoiled
from device.types import Found

LookUp = Callable[[str], Found | None]


class EvdevScanner:
    """Scanner at `source`: a path (event node or its by-id link, FIFO, pty), opened anew by each `inputs`, or an open
    descriptor, which is used once.

    `look_up` names the goods behind a symbol and must be quick.  `suffix=False` is for scanners that end a symbol by
    silence; `gap_ms` replaces the pause that breaks or ends one.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, source: str | int, look_up: LookUp, *, suffix: bool = True, gap_ms: int = 0) -> None:
        self._source, self._look_up, self._suffix, self._gap_ms = source, look_up, suffix, gap_ms
        self._line: InputLine | None = None

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """Scanned and ScanSpoiled, between DeviceSaid ok and gone.  Ends when it is unplugged, or was never there."""
        try:
            line = self._line = await self._open()
        except Outside as fault:
            yield DeviceSaid("scanner", "gone" if fault.again else "error", str(fault))
            return
        try:
            yield DeviceSaid("scanner", "ok")
            keys, torn = KeyEvents(suffix=self._suffix, gap_ms=self._gap_ms), EventBytes()
            while (data := await line.read(keys.symbols.quiet_ms)) != b"":
                reads = [keys.quiet()] if data is None else [keys.feed(event) for event in torn.feed(data)]
                for read in reads:
                    if read:
                        yield self._input(read)
            if keys.symbols.quiet_ms is not None:
                yield ScanSpoiled("the scanner was unplugged in the middle of a scan: scan it again")
            yield DeviceSaid("scanner", "gone", "the scanner was unplugged")
        except Outside as fault:
            yield DeviceSaid("scanner", "gone", str(fault))
        finally:
            line.close()

    async def do(self, effect: Effect) -> Input:
        """A scanner carries nothing out."""
        raise AssertionError(f"no scanner does {type(effect).__name__}")

    async def close(self) -> None:
        """End `inputs` and let go of the node."""
        if self._line is not None:
            self._line.close()

    async def _open(self) -> InputLine:
        if isinstance(self._source, int):
            return InputLine(self._source)
        line = await asyncio.to_thread(open_events, self._source, which="scanner", needed=SCANNER_KEYS)
        line.drain()                      # a FIFO keeps what was scanned while nobody listened; an event node would not
        return line

    def _input(self, read: Read) -> Input:
        return Scanned(read.symbol, self._look_up(read.symbol)) if read.symbol else ScanSpoiled(read.why)
