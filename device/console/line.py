"""The line to a technician's terminal: a serial port, a pty, or standard input and output.  Knows bytes and how a line ends.

Raw, 115,200 baud unless told otherwise.  Unplugged, hung up, carrier gone, or a terminal that takes nothing: `LineGone`, and the
session is over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import struct
import termios
from typing import Any

READ_BYTES = 4096
WRITE_S_MAX = 5.0                        # a terminal that takes nothing for so long is not there


class LineGone(Exception):
    """Nobody is at the other end any more; the sentence says how that was seen."""


class Line:
    """`port(path, baud)` or `stdio()` makes one.  read(wait_s) gives what came, b"" for nothing; both raise LineGone."""

    def __init__(self, fd_in: int, fd_out: int, *, own: bool) -> None:
        self._in, self._out, self._own = fd_in, fd_out, own
        self._before: list[Any] | None = None

    @classmethod
    def port(cls, path: str, baud: int = 115_200) -> Line:
        """A serial port or a pty's end, for us alone.  OSError when it cannot be had."""
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            line = cls(fd, fd, own=True)
            line._raw(baud)
        except OSError:
            os.close(fd)
            raise
        except termios.error as why:
            os.close(fd)
            raise OSError(errno.ENOTTY, str(why.args[-1]), path) from None
        return line

    @classmethod
    def stdio(cls) -> Line:
        line = cls(0, 1, own=False)
        if os.isatty(0):
            with contextlib.suppress(termios.error):
                line._raw(0)
        return line

    def read(self, wait_s: float) -> bytes:
        ready = select.poll()
        ready.register(self._in, select.POLLIN)
        found = ready.poll(int(wait_s * 1000))
        if not found:
            return b""
        if found[0][1] & (select.POLLERR | select.POLLNVAL):
            raise LineGone("the line failed")
        try:
            data = os.read(self._in, READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as why:
            raise LineGone(f"the line was unplugged ({errno.errorcode.get(why.errno or 0, why.errno)})") from None
        if not data:
            raise LineGone("the line hung up")
        return data

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        ready = select.poll()
        ready.register(self._out, select.POLLOUT)
        while left:
            if not ready.poll(int(WRITE_S_MAX * 1000)):
                raise LineGone("the terminal takes nothing any more")
            try:
                left = left[os.write(self._out, left[:READ_BYTES]):]
            except BlockingIOError:
                continue
            except OSError as why:
                raise LineGone(f"the line was unplugged ({errno.errorcode.get(why.errno or 0, why.errno)})") from None

    def close(self) -> None:
        """The terminal as it was found."""
        if self._before is not None:
            with contextlib.suppress(termios.error, OSError):
                termios.tcsetattr(self._in, termios.TCSANOW, self._before)
        if self._own:
            os.close(self._in)

    def _raw(self, baud: int) -> None:
        fd = self._in
        self._before = termios.tcgetattr(fd)
        iflag, oflag, cflag, lflag, ispeed, ospeed, cc = termios.tcgetattr(fd)
        iflag &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON | termios.INLCR | termios.IGNCR
                   | termios.PARMRK)
        iflag |= termios.IGNBRK                      # a cable that is plugged in sends breaks
        oflag &= ~termios.OPOST
        cflag = (cflag & ~(termios.CSIZE | termios.PARENB | termios.CSTOPB)) | termios.CS8 | termios.CREAD | termios.HUPCL
        # Three wires carry no carrier; where there is one, its end is the session's end.
        cflag = cflag & ~termios.CLOCAL if _carrier(fd) else cflag | termios.CLOCAL
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG)
        if baud:
            ispeed = ospeed = getattr(termios, f"B{baud}", termios.B115200)
        cc[termios.VMIN], cc[termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])


def _carrier(fd: int) -> bool:
    try:
        told = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCMGET, b"\0\0\0\0"))[0]
    except OSError:                                  # a pty has no such wires
        return False
    return bool(told & termios.TIOCM_CAR)
