"""A scanner in HID-POS mode: reads reports of a hidraw node and yields what was scanned.  Only reads, feeds and yields; the
reports are `hidpos_bytes.py`'s business.  No keyboard layout, nothing to grab, and the kind of each symbol is known.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator

from device.drivers.input.hidpos_bytes import HidReports, forms_of
from device.drivers.input.scanner_reads import LookUp, Reads, Tap
from device.drivers.input_line import InputLine
from device.drivers.input_ports import at_port, report_descriptor
from device.errors import DriverGone, Outside
from device.txn.effects import Effect
from device.txn.inputs import Input


class HidrawScanner:
    """Scanner at `source`: a path (/dev/hidraw0, a FIFO), opened anew by each `inputs`, or an open descriptor, used once.

    `port`, `lane`, `gs`, `repeat_ms` and `tap` as for `EvdevScanner`.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, source: str | int, look_up: LookUp, *, gs: str = "", port: str = "", lane: str = "", repeat_ms: int = 0,
                 tap: Tap | None = None) -> None:
        self._source, self._port, self._gs = source, port, gs
        where = f"USB port {port}" if port else source if isinstance(source, str) else ""
        self.reads = Reads(look_up, lane=lane, where=where, repeat_ms=repeat_ms, tap=tap)
        self._line: InputLine | None = None

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """Scanned and ScanSpoiled, between DeviceSaid ok and gone.  Ends when it is unplugged, or was never there."""
        try:
            line, descriptor = await self._open()
        except Outside as fault:
            yield self.reads.absent(fault)
            return
        self._line = line
        try:
            yield self.reads.ok()
            reports = HidReports(forms_of(descriptor), gs=self._gs)
            while (data := await line.read(reports.quiet_ms)) != b"":
                reads = reports.feed(data) if data else [read] if (read := reports.quiet()) else []
                for read in reads:
                    for said in self.reads.inputs_of(read, time.monotonic_ns() // 1_000_000):
                        yield said
            for said in self.reads.gone(half=reports.quiet_ms is not None):
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

    async def _open(self) -> tuple[InputLine, bytes]:
        if isinstance(self._source, int):
            return InputLine(self._source), b""
        return await asyncio.to_thread(self._opened, self._source)

    def _opened(self, path: str) -> tuple[InputLine, bytes]:
        path = at_port(self._port, which="scanner", kind="hidraw") if self._port else path
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as fault:
            raise DriverGone(f"{path} cannot be opened: {fault.strerror}", which="scanner", hint="is it plugged in?") from fault
        line = InputLine(fd)
        line.drain()
        return line, report_descriptor(path)
