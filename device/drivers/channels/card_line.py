"""The card terminal's line: a serial port of our own, or a TCP connection.

Knows opening it and what a broken one means.  Refuses to know what a byte says.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Any

from device.drivers.input_line import InputLine
from device.errors import DriverBusy, DriverGone

CONNECT_S = 3.0
WHICH = "channel.card"


class Line:
    """One open line.  `port` is what must stay open besides the descriptor that is read."""

    def __init__(self, port: Any) -> None:
        self._port, self._fd = port, port.fileno()
        self._in = InputLine(os.dup(self._fd))
        os.set_blocking(self._fd, False)

    async def read(self, quiet_ms: int | None = None) -> bytes | None:
        """As InputLine: at least a byte; b"" when the other end is gone; None after `quiet_ms` of silence."""
        return await self._in.read(quiet_ms)

    def write(self, data: bytes) -> None:
        """Give `data` to the kernel at once.  DriverGone when it took not one byte of it; a part that it took is lost."""
        try:
            os.write(self._fd, data)
        except OSError as fault:              # full, for nobody reads; or broken
            raise DriverGone("the card terminal's line takes nothing", which=WHICH, hint="check its cable") from fault

    def close(self) -> None:
        """Let go of the line and end a read that waits on it."""
        self._in.close()
        self._port.close()


async def serial_line(path: str, baud: int) -> Line:
    """The port at `path`, 8N1, for ourselves alone.  DriverBusy when another program holds it, DriverGone when it is missing."""
    return await asyncio.to_thread(_serial, path, baud)


async def tcp_line(host: str, port: int, connect_s: float = CONNECT_S) -> Line:
    """A connection to the terminal.  DriverGone when it does not listen."""
    return await asyncio.to_thread(_tcp, host, port, connect_s)


def _serial(path: str, baud: int) -> Line:
    import serial

    try:
        # exclusive: two tills at one terminal would take each other's answers for their own
        # inter_byte_timeout: without it pyserial sets VMIN 0, and a line without bytes reads as one that was unplugged
        return Line(serial.Serial(path, baudrate=baud, timeout=0, inter_byte_timeout=0, exclusive=True))
    except serial.SerialException as fault:
        if fault.errno in (errno.EAGAIN, errno.EBUSY) or "lock" in str(fault):
            raise DriverBusy(f"another program holds {path}", which=WHICH, hint="stop it") from fault
        raise DriverGone(f"{path} cannot be opened", which=WHICH, hint="is the card terminal plugged in?") from fault


def _tcp(host: str, port: int, connect_s: float) -> Line:
    try:
        sock = socket.create_connection((host, port), connect_s)
    except OSError as fault:
        raise DriverGone(f"the card terminal at {host} does not listen ({type(fault).__name__})", which=WHICH,
                         hint="check its power and the network") from fault
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Line(sock)
