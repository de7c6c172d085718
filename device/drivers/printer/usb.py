"""Printer line over USB: the character device of the kernel's usblp, usually /dev/usb/lp0.

Knows the node, its one owner, its time limits, and what the port itself says of a printer that answers nothing else.  Knows no
command and no job.  No libusb: the kernel's driver stays where it is, so the node is there after every unplug.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import glob
import os
import select
import stat
import struct
import tty

from device.drivers.port_holder import holder_of
from device.errors import DriverGone, PortHeld, PrintUnproven

STALL_S = 8.0
LPGETSTATUS = 0x060B         # linux/lp.h; usblp asks the printer by a class request
PAPER_OUT, SELECTED, NO_ERROR = 0x20, 0x10, 0x08
READ_S = 0.02                # usblp tells a poll that it can be read when it holds nothing: a pause between two empty reads


class UsbLine:
    """`path` is a node or a pattern such as /dev/usb/lp*, of which the first that is there is taken: a printer that was plugged
    elsewhere comes back under another number.  `reads` is True after open unless the node may only be written.
    """

    byte_s = 0.0

    def __init__(self, path: str, *, stall_s: float = STALL_S) -> None:
        self.name, self.reads = path, True
        self._pattern, self._stall_s, self._fd = path, stall_s, -1
        self._holder = ""                              # looked for once: it means reading through /proc

    @property
    def is_open(self) -> bool:
        """False as well when the node is another one now: the printer was plugged out and in."""
        if self._fd < 0:
            return False
        try:
            here, there = os.fstat(self._fd), os.stat(self.name)
        except OSError:
            return False
        return (here.st_rdev, here.st_ino) == (there.st_rdev, there.st_ino)

    async def open(self) -> None:
        """DriverGone when no such node is there, PortHeld when another program has it."""
        await self.close()
        self.name = next(iter(sorted(glob.glob(self._pattern))), self._pattern)
        try:
            self._fd, self.reads = await asyncio.to_thread(self._opened)
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.EWOULDBLOCK):
                self._holder = self._holder or await asyncio.to_thread(holder_of, self.name) or "Another program"
                raise PortHeld(f"{self._holder} holds {self.name}", which="printer", hint="stop it: the till must be "
                               "its only owner") from error
            raise self._gone(f"cannot open {self.name}", error) from error
        self._holder = ""

    def _opened(self) -> tuple[int, bool]:
        if not stat.S_ISCHR(os.stat(self.name).st_mode):
            raise OSError(errno.ENODEV, "no device")   # a plain file would take every receipt and print none
        extra = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            fd, reads = os.open(self.name, os.O_RDWR | extra), True
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            fd, reads = os.open(self.name, os.O_WRONLY | extra), False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.isatty(fd):
                tty.setraw(fd)                         # or the line discipline would eat and echo commands
        except BaseException:
            os.close(fd)
            raise
        return fd, reads

    def port_says(self) -> tuple[str, str] | None:
        """What the port complains of, as (word, sentence): for a printer that answers no command.  None: nothing, or it is mute."""
        if self._fd < 0:
            return None
        told = bytearray(4)
        try:
            fcntl.ioctl(self._fd, LPGETSTATUS, told)
        except OSError:
            return None
        bits = struct.unpack("@i", told)[0] & 0xFF
        if bits & PAPER_OUT:
            return "paper_out", "The printer has no paper."
        if not bits & NO_ERROR:
            return "error", "The printer reports an error."
        return None if bits & SELECTED else ("off", "The printer is off-line.")

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
        sent, fd = 0, self._fd
        try:
            if fd < 0:
                raise OSError(errno.ENODEV, "not open")
            while sent < len(data):
                poll = select.poll()
                poll.register(fd, select.POLLOUT)
                ready = poll.poll(self._stall_s * 1000)
                if not ready:
                    raise TimeoutError(f"no byte taken for {self._stall_s:g} s")
                if ready[0][1] & (select.POLLHUP | select.POLLERR | select.POLLNVAL) and not ready[0][1] & select.POLLOUT:
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
                try:
                    sent += os.write(fd, data[sent:])
                except BlockingIOError:
                    continue
        except OSError as error:
            return sent, error
        return sent, None

    async def read(self, wait_s: float) -> bytes:
        """What the printer said within `wait_s` seconds, b"" when nothing.  DriverGone when it was unplugged."""
        if not self.reads:
            return b""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        try:
            while True:
                data = await asyncio.to_thread(self._heard, max(0.0, until - loop.time()))
                left = until - loop.time()
                if data or left <= 0:
                    return data
                await asyncio.sleep(min(READ_S, left))
        except OSError as error:
            await self.close()
            raise self._gone(f"{self.name} broke off", error) from error

    def _heard(self, wait_s: float) -> bytes:
        fd = self._fd
        if fd < 0:
            raise OSError(errno.ENODEV, "not open")
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        ready = poll.poll(wait_s * 1000)
        if not ready:
            return b""
        if ready[0][1] & (select.POLLHUP | select.POLLERR | select.POLLNVAL) and not ready[0][1] & select.POLLIN:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        try:
            data = os.read(fd, 4096)
        except BlockingIOError:
            return b""
        if not data and os.isatty(fd):
            raise OSError(errno.ENODEV, "hung up")
        return data

    async def close(self) -> None:
        """Let go of the node."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def _gone(self, what: str, error: OSError) -> DriverGone:
        return DriverGone(f"{what}: {error.strerror or error}", which="printer", hint="check the printer's power and cable")
