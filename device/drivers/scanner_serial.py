"""A scanner in serial mode (USB-CDC, RS-232): reads a line of bytes and yields what was scanned.  Knows no goods.

The preferred mode for a new counter: no keyboard layout, no grab, no stray typing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from device.drivers.input_line import InputLine
from device.drivers.scanner_keys import ByteDecoder, Read
from device.errors import DriverBusy, DriverGone, Outside
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input, Scanned, ScanSpoiled
from device.types import Found

LookUp = Callable[[str], Found | None]


class SerialScanner:
    """Scanner at `source`: a path (/dev/ttyACM0, a pty), opened anew and for itself alone by each `inputs`, or an open
    descriptor, which is used once.  `suffix` and `gap_ms` as for `EvdevScanner`; `baud` matters on RS-232 only.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(
        self, source: str | int, look_up: LookUp, *, suffix: bool = True, gap_ms: int = 0, baud: int = 9600
    ) -> None:
        self._source, self._look_up, self._suffix, self._gap_ms, self._baud = source, look_up, suffix, gap_ms, baud
        self._line: InputLine | None = None

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """Scanned and ScanSpoiled, between DeviceSaid ok and gone.  Ends when it is unplugged, or was never there."""
        try:
            port, line = await self._open()
        except Outside as fault:
            yield DeviceSaid("scanner", "gone" if fault.again else "error", str(fault))
            return
        self._line = line
        try:
            yield DeviceSaid("scanner", "ok")
            text = ByteDecoder(suffix=self._suffix, gap_ms=self._gap_ms)
            while (data := await line.read(text.symbols.quiet_ms)) != b"":
                reads = [text.quiet()] if data is None else text.feed(data, time.monotonic_ns() // 1_000_000)
                for read in reads:
                    if read:
                        yield self._input(read)
            if text.symbols.quiet_ms is not None:
                yield ScanSpoiled("the scanner was unplugged in the middle of a scan: scan it again")
            yield DeviceSaid("scanner", "gone", "the scanner was unplugged")
        except Outside as fault:
            yield DeviceSaid("scanner", "gone", str(fault))
        finally:
            line.close()
            if port is not None:
                port.close()

    async def do(self, effect: Effect) -> Input:
        """A scanner carries nothing out."""
        raise AssertionError(f"no scanner does {type(effect).__name__}")

    async def close(self) -> None:
        """End `inputs` and let go of the port."""
        if self._line is not None:
            self._line.close()

    async def _open(self) -> tuple[Any, InputLine]:
        if isinstance(self._source, int):
            return None, InputLine(self._source)
        return await asyncio.to_thread(_open_port, self._source, self._baud)

    def _input(self, read: Read) -> Input:
        return Scanned(read.symbol, self._look_up(read.symbol)) if read.symbol else ScanSpoiled(read.why)


def _open_port(path: str, baud: int) -> tuple[Any, InputLine]:
    import serial

    try:
        # exclusive: two owners of one port would each get half of every symbol
        # inter_byte_timeout: without it pyserial sets VMIN 0, and a line without bytes reads as one that was unplugged
        port = serial.Serial(path, baudrate=baud, timeout=0, inter_byte_timeout=0, exclusive=True)
    except serial.SerialException as fault:
        if fault.errno in (errno.EAGAIN, errno.EBUSY) or "lock" in str(fault):
            raise DriverBusy(f"another program holds {path}", which="scanner", hint="stop it") from fault
        raise DriverGone(f"{path} cannot be opened: {fault}", which="scanner", hint="is it plugged in?") from fault
    # Opening also empties the input: what was scanned while nobody listened is nobody's.
    # pyserial keeps the lock; reading goes through a second descriptor, for it has no asyncio half
    return port, InputLine(os.dup(port.fileno()))
