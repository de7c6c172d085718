"""Printer line through a file: a FIFO, another device, or a plain file that keeps the bytes.

Knows open, write and read of a path.  Knows no command and no job.  A device path that is missing is a printer that is
unplugged: it is never created, for the bytes would then "print" into a new file and nobody would notice.
"""

from __future__ import annotations

import asyncio
import errno
import os
import select
import stat
import tty

from device.errors import DriverGone, PrintUnproven

STALL_S = 8.0


class FileLine:
    """`path` is opened as it stands; with `create` a plain file is made, and only then.

    `reads` is True after open when the path is a character device that can answer; `byte_s` is 0.
    """

    byte_s = 0.0

    def __init__(self, path: str, *, create: bool = False, stall_s: float = STALL_S) -> None:
        self.name, self.reads = path, False
        self._create, self._stall_s = create, stall_s
        self._fd = -1

    @property
    def is_open(self) -> bool:
        return self._fd >= 0 and os.path.exists(self.name)     # a USB printer that was replugged has a new node

    async def open(self) -> None:
        """DriverGone when the path is missing, forbidden or nobody reads its other end."""
        await self.close()
        try:
            self._fd, self.reads = await asyncio.to_thread(self._opened)
        except OSError as error:
            raise self._gone(f"cannot open {self.name}", error) from error

    def _opened(self) -> tuple[int, bool]:
        extra = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        if self._create:
            return os.open(self.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | extra, 0o600), False
        if not stat.S_ISCHR(os.stat(self.name).st_mode):
            return os.open(self.name, os.O_WRONLY | os.O_APPEND | extra), False
        try:
            fd, reads = os.open(self.name, os.O_RDWR | extra), True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            fd, reads = os.open(self.name, os.O_WRONLY | extra), False
        if os.isatty(fd):
            tty.setraw(fd)                                     # or the line discipline would eat and echo commands
        return fd, reads

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
            if self._fd < 0:
                raise OSError(errno.ENODEV, "not open")
            while sent < len(data):
                _, ready, _ = select.select([], [self._fd], [], self._stall_s)
                if not ready:
                    raise TimeoutError(f"no byte taken for {self._stall_s:g} s")
                try:
                    sent += os.write(self._fd, data[sent:])
                except BlockingIOError:
                    continue
        except OSError as error:
            return sent, error
        return sent, None

    async def read(self, wait_s: float) -> bytes:
        """What the printer said within `wait_s` seconds, b"" when nothing.  DriverGone when it was unplugged."""
        if not self.reads:
            return b""
        try:
            return await asyncio.to_thread(self._heard, wait_s)
        except OSError as error:
            await self.close()
            raise self._gone(f"{self.name} broke off", error) from error

    def _heard(self, wait_s: float) -> bytes:
        if self._fd < 0:
            raise OSError(errno.ENODEV, "not open")
        ready, _, _ = select.select([self._fd], [], [], max(0.0, wait_s))
        if not ready:
            return b""
        try:
            data = os.read(self._fd, 4096)
        except BlockingIOError:
            return b""
        if not data and os.isatty(self._fd):
            raise OSError(errno.ENODEV, "hung up")
        return data

    async def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _gone(self, what: str, error: OSError) -> DriverGone:
        return DriverGone(f"{what}: {error.strerror or error}", which="printer", hint="check its power and cable")
