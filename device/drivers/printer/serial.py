"""Printer line over RS-232 or a USB serial adapter, through pyserial.

Knows the port, its one owner, its time limits and how the printer says wait.  Knows no command and no job.  Writes go to the
file descriptor itself, because pyserial's own time-out does not say how much had left.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Any

from device.drivers.port_holder import holder_of
from device.errors import DriverGone, PortHeld, PrintUnproven

STALL_S = 8.0
DTR_BYTES = 64
DTR_LOOK_S = 0.005
BITS_A_BYTE = 10             # 8N1


class SerialLine:
    """`path` at `baud`, 8N1.  `flow` how a full printer stops us: `none rtscts xonxoff dtr`.  `reads` True; `byte_s` the seconds
    one byte takes.

    The kernel obeys RTS/CTS and XON/XOFF.  DTR, which most receipt printers use, it does not know: the wire that arrives as
    DSR is looked at before each DTR_BYTES, fewer than any printer's buffer still takes after it has said wait.
    """

    reads = True

    def __init__(self, path: str, baud: int = 9600, *, flow: str = "none", stall_s: float = STALL_S,
                 dsr: Callable[[int], bool] | None = None) -> None:
        self.name = path
        self.byte_s = BITS_A_BYTE / baud
        self._settings = {"baudrate": baud, "rtscts": flow == "rtscts", "xonxoff": flow == "xonxoff"}
        self._dsr = (dsr or _dsr) if flow == "dtr" else None
        self._stall_s = stall_s
        self._port: Any = None
        self._holder = ""                              # looked for once: it means reading through /proc

    @property
    def is_open(self) -> bool:
        return self._port is not None

    async def open(self) -> None:
        """Take the port for ourselves.  DriverGone when it is missing, PortHeld when another program owns it."""
        await self.close()
        try:
            self._port = await asyncio.to_thread(self._opened)
        except (OSError, ValueError) as error:                 # serial.SerialException is an OSError
            if getattr(error, "errno", None) in (errno.EBUSY, errno.EWOULDBLOCK) or "exclusively lock" in str(error):
                self._holder = self._holder or await asyncio.to_thread(holder_of, self.name) or "Another program"
                raise PortHeld(f"{self._holder} holds {self.name}", which="printer", hint="stop it: the till must be "
                               "its only owner") from error
            raise self._gone(f"cannot open {self.name}", error) from error
        self._holder = ""

    def _opened(self) -> Any:
        import serial

        return serial.Serial(self.name, exclusive=True, timeout=0, write_timeout=self._stall_s, **self._settings)

    async def write(self, data: bytes) -> None:
        """Give all of `data` to the kernel.  DriverGone when none of it was taken, PrintUnproven when some was."""
        sent, error = await asyncio.to_thread(self._written, data)
        if error is None:
            return
        await self.close()
        if sent == 0:
            raise self._gone(f"{self.name} takes nothing", error) from error
        raise PrintUnproven(f"{self.name} broke off: {error}", which="printer") from error

    def _written(self, data: bytes) -> tuple[int, OSError | None]:
        sent = 0
        try:
            fd = self._fd()
            while sent < len(data):
                _, ready, _ = select.select([], [fd], [], self._stall_s)
                if not ready:
                    raise TimeoutError(f"no byte taken for {self._stall_s:g} s")
                try:
                    sent += os.write(fd, data[sent:] if self._dsr is None else self._clear_to_send(fd, data[sent:sent + DTR_BYTES]))
                except BlockingIOError:
                    continue
        except OSError as error:
            return sent, error
        return sent, None

    def _clear_to_send(self, fd: int, data: bytes) -> bytes:
        """`data`, once the printer says that it takes more, and the bytes before have left our own buffer."""
        assert self._dsr is not None
        until = time.monotonic() + self._stall_s
        while not (self._dsr(fd) and _unsent(fd) < DTR_BYTES):
            if time.monotonic() > until:
                raise TimeoutError(f"the printer said wait for {self._stall_s:g} s")
            time.sleep(DTR_LOOK_S)
        return data

    async def read(self, wait_s: float) -> bytes:
        """What the printer said within `wait_s` seconds, b"" when nothing.  DriverGone when the adapter was pulled."""
        try:
            return await asyncio.to_thread(self._heard, wait_s)
        except OSError as error:
            await self.close()
            raise self._gone(f"{self.name} broke off", error) from error

    def _heard(self, wait_s: float) -> bytes:
        fd = self._fd()
        ready, _, _ = select.select([fd], [], [], max(0.0, wait_s))
        if not ready:
            return b""
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return b""
        if not data:
            raise OSError(errno.ENODEV, "hung up")             # readable and empty: the adapter is gone
        return data

    def _fd(self) -> int:
        if self._port is None:
            raise OSError(errno.ENODEV, "not open")
        return self._port.fileno()

    async def close(self) -> None:
        """Let go of the port without waiting for bytes that a stuck printer does not take."""
        if self._port is not None:
            port, self._port = self._port, None
            try:
                port.reset_output_buffer()
            except (OSError, termios.error):                   # the library lets the second through, which is no OSError
                pass                                           # already unplugged: nothing waits
            port.close()

    def _gone(self, what: str, error: Exception) -> DriverGone:
        said = getattr(error, "strerror", None) or str(error)
        return DriverGone(f"{what}: {said}", which="printer", hint="check the printer's power and cable")


def _dsr(fd: int) -> bool:
    """Whether the printer's DTR, our DSR, is up.  A port without that wire says always yes."""
    try:
        return bool(struct.unpack("@i", fcntl.ioctl(fd, termios.TIOCMGET, bytes(4)))[0] & termios.TIOCM_DSR)
    except OSError:
        return True


def _unsent(fd: int) -> int:
    """Bytes that the kernel still holds."""
    try:
        return struct.unpack("@i", fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4)))[0]
    except OSError:
        return 0
