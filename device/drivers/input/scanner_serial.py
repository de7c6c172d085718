"""A scanner in serial mode (USB-CDC, RS-232): reads a line of bytes and yields what was scanned.  Knows no goods.

The preferred mode for a new counter: no keyboard layout, no grab, no stray typing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

from device.drivers.input.scanner_keys import ByteDecoder
from device.drivers.input.scanner_reads import LookUp, Reads, Tap
from device.drivers.input_line import InputLine
from device.drivers.input_ports import at_port
from device.errors import DriverBusy, DriverGone, Outside
from device.txn.effects import Effect
from device.txn.inputs import Input


class SerialScanner:
    """Scanner at `source`: a path (/dev/ttyACM0, a pty), opened anew and for itself alone by each `inputs`, or an open
    descriptor, which is used once.  `suffix`, `gap_ms`, `gs`, `port`, `lane`, `repeat_ms` and `tap` as for
    `EvdevScanner`; `baud` matters on RS-232 only.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, source: str | int, look_up: LookUp, *, suffix: bool = True, gap_ms: int = 0, gs: str = "",
                 baud: int = 9600, port: str = "", lane: str = "", repeat_ms: int = 0, tap: Tap | None = None) -> None:
        self._source, self._baud, self._port = source, baud, port
        self._manner: dict[str, Any] = {"suffix": suffix, "gap_ms": gap_ms, "gs": gs}
        where = f"USB port {port}" if port else source if isinstance(source, str) else ""
        self.reads = Reads(look_up, lane=lane, where=where, repeat_ms=repeat_ms, tap=tap)
        self._line: InputLine | None = None

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """Scanned and ScanSpoiled, between DeviceSaid ok and gone.  Ends when it is unplugged, or was never there."""
        try:
            port, line = await self._open()
        except Outside as fault:
            yield self.reads.absent(fault)
            return
        self._line = line
        try:
            yield self.reads.ok()
            text = ByteDecoder(**self._manner)
            while (data := await line.read(text.symbols.quiet_ms)) != b"":
                at_ms = time.monotonic_ns() // 1_000_000
                reads = text.feed(data, at_ms) if data else [read] if (read := text.quiet()) else []
                for read in reads:
                    for said in self.reads.inputs_of(read, at_ms):
                        yield said
            for said in self.reads.gone(half=text.symbols.quiet_ms is not None):
                yield said
        except Outside as fault:
            for said in self.reads.gone(str(fault)):
                yield said
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
        return await asyncio.to_thread(self._opened, self._source)

    def _opened(self, path: str) -> tuple[Any, InputLine]:
        return _open_port(at_port(self._port, which="scanner", kind="serial") if self._port else path, self._baud)


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
