"""Printer line over TCP, usually port 9100.

Knows the socket and its time limits.  Knows no command and no job; keeps no byte for later, so what a broken connection
took with it is gone and is never sent twice.
"""

from __future__ import annotations

import asyncio
import socket

from device.errors import DriverGone, PrintUnproven

CONNECT_S = 2.0
STALL_S = 8.0                # a printer that takes no byte for so long is stuck


class TcpLine:
    """One connection, kept open: many printers take one at a time.  `reads` True; `byte_s` 0: back-pressure paces."""

    reads = True
    byte_s = 0.0

    def __init__(self, host: str, port: int = 9100, *, connect_s: float = CONNECT_S, stall_s: float = STALL_S) -> None:
        self.name = f"{host}:{port}"
        self._host, self._port, self._connect_s, self._stall_s = host, port, connect_s, stall_s
        self._sock: socket.socket | None = None

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    async def open(self) -> None:
        """Connect.  DriverGone when refused, unknown or silent for `connect_s` seconds."""
        await self.close()
        try:
            async with asyncio.timeout(self._connect_s):
                self._sock = await self._connected()
        except (OSError, TimeoutError) as error:
            raise self._gone(f"no connection to {self.name}", error) from error

    async def _connected(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        host = self._host.encode() if self._host.isascii() else self._host     # as text it loads the tables of all of Unicode
        found = await loop.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)
        family, kind, proto, _, address = found[0]
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self._stall_s * 1000))
            await loop.sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock

    async def write(self, data: bytes) -> None:
        """Give all of `data` to the kernel.  DriverGone when none of it was taken, PrintUnproven when some was."""
        sent = 0
        try:
            while sent < len(data):
                if self._sock is None:
                    raise BrokenPipeError("not connected")
                try:
                    sent += self._sock.send(data[sent:])
                except BlockingIOError:
                    async with asyncio.timeout(self._stall_s):
                        await self._writable(self._sock)
        except (OSError, TimeoutError) as error:
            await self.close()
            if sent == 0:
                raise self._gone(f"{self.name} takes nothing", error) from error
            raise PrintUnproven(f"{self.name} broke off: {_said(error)}", which="printer") from error

    async def _writable(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(sock, _settle, ready)
        try:
            await ready
        finally:
            loop.remove_writer(sock)

    async def read(self, wait_s: float) -> bytes:
        """What the printer said within `wait_s` seconds, b"" when nothing.  DriverGone when the line has ended."""
        if self._sock is None:
            raise self._gone(f"{self.name} is not connected")
        try:
            if wait_s <= 0:
                data = self._sock.recv(4096)
            else:
                async with asyncio.timeout(wait_s):
                    data = await asyncio.get_running_loop().sock_recv(self._sock, 4096)
        except (BlockingIOError, TimeoutError):
            return b""
        except OSError as error:
            await self.close()
            raise self._gone(f"{self.name} broke off", error) from error
        if not data:
            await self.close()
            raise self._gone(f"{self.name} closed the connection")
        return data

    async def close(self) -> None:
        """Let go of the socket; what the kernel holds is still sent."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _gone(self, what: str, error: BaseException | None = None) -> DriverGone:
        why = f": {_said(error)}" if error is not None else ""
        return DriverGone(what + why, which="printer", hint="check the printer's power and network cable")


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _said(error: BaseException) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return "timed out"
    return getattr(error, "strerror", None) or str(error)
