"""A scanner in keyboard mode: reads an event node and yields what was scanned.  Only reads, feeds and yields; the keys are
`scanner_keys.py`'s business, the goods are `look_up`'s."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from device.drivers.input.evdev_bytes import EventBytes
from device.drivers.input.scanner_keys import KeyEvents
from device.drivers.input.scanner_reads import LookUp, Reads, Tap
from device.drivers.input_line import SCANNER_KEYS, EagerLine, InputLine, open_events
from device.drivers.input_ports import at_port
from device.errors import Outside
from device.txn.effects import Effect
from device.txn.inputs import Input


class EvdevScanner:
    """Scanner at `source`: a path (event node or its by-id or by-path link, FIFO, pty), opened anew by each `inputs`, or an
    open descriptor, which is used once.  With `port`, whatever is plugged into that USB port.

    `look_up` names the goods behind a symbol and must be quick.  `suffix=False` is for scanners that end a symbol by
    silence; `gap_ms` replaces the pause that breaks or ends one; `gs`, `layout` and `caps` as for `KeyEvents`; `lane`,
    `repeat_ms` and `tap` as for `Reads`.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, source: str | int, look_up: LookUp, *, suffix: bool = True, gap_ms: int = 0, gs: str = "",
                 layout: str = "us", caps: str = "ignore", port: str = "", lane: str = "", repeat_ms: int = 0,
                 tap: Tap | None = None) -> None:
        self._source, self._port = source, port
        self._manner: dict[str, Any] = {"suffix": suffix, "gap_ms": gap_ms, "gs": gs, "layout": layout, "caps": caps}
        where = f"USB port {port}" if port else source if isinstance(source, str) else ""
        self.reads = Reads(look_up, lane=lane, where=where, repeat_ms=repeat_ms, tap=tap)
        self._line: InputLine | EagerLine | None = None

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """Scanned and ScanSpoiled, between DeviceSaid ok and gone.  Ends when it is unplugged, or was never there."""
        try:
            line = self._line = await self._open()
        except Outside as fault:
            yield self.reads.absent(fault)
            return
        try:
            yield self.reads.ok()
            keys, torn, at_ms = KeyEvents(**self._manner), EventBytes(), 0
            while (data := await line.read(keys.symbols.quiet_ms)) != b"":
                for event in torn.feed(data) if data else ():
                    at_ms = event.at_ms
                    if read := keys.feed(event):
                        for said in self.reads.inputs_of(read, at_ms):
                            yield said
                if data is None and (read := keys.quiet()):
                    for said in self.reads.inputs_of(read, at_ms):
                        yield said
            for said in self.reads.gone(half=keys.symbols.quiet_ms is not None):
                yield said
        except Outside as fault:
            for said in self.reads.gone(str(fault)):
                yield said
        finally:
            line.close()

    async def do(self, effect: Effect) -> Input:
        """A scanner carries nothing out."""
        raise AssertionError(f"no scanner does {type(effect).__name__}")

    async def close(self) -> None:
        """End `inputs` and let go of the node."""
        if self._line is not None:
            self._line.close()

    async def _open(self) -> InputLine | EagerLine:
        if isinstance(self._source, int):
            return EagerLine(self._source)
        line = await asyncio.to_thread(self._opened, self._source)
        line.drain()                      # a FIFO keeps what was scanned while nobody listened; an event node would not
        return line

    def _opened(self, path: str) -> InputLine | EagerLine:
        path = at_port(self._port, which="scanner") if self._port else path
        return open_events(path, which="scanner", needed=SCANNER_KEYS, eager=True)
