"""A line of bytes to the machine: a serial port, or the rig's own port.  A thread reads it whole, always: a connected line that
nobody reads stops the guest after some three hundred bytes.  Knows bytes and time; refuses to know what they say."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

from tests.appliance.qmp import connected


class Line:
    """Connected to the socket at `path`.  `heard` is all that came, from the first byte on; `hear` is called with each piece."""

    def __init__(self, path: Path, within_s: float = 20.0, hear: Callable[[bytes], None] = lambda data: None) -> None:
        self._hear = hear
        self.heard = bytearray()
        self._came = threading.Condition()
        self._gone = False
        self._line = connected(path, within_s)
        threading.Thread(target=self._read, name=path.stem, daemon=True).start()

    def say(self, data: bytes) -> None:
        self._line.sendall(data)

    def mark(self) -> int:
        """Where the line stands now, for `expect(since=...)`."""
        return len(self.heard)

    def expect(self, pattern: bytes, within_s: float, since: int = 0) -> re.Match[bytes]:
        """The first match of `pattern` after `since`.  AssertionError with the end of what came when there is none."""
        found = re.compile(pattern, re.DOTALL)
        with self._came:
            self._came.wait_for(lambda: found.search(self.heard, since) or self._gone, within_s)
            match = found.search(bytes(self.heard), since)
        assert match is not None, f"no {pattern!r} within {within_s:g} s; the line ends in {bytes(self.heard[since:][-1500:])!r}"
        return match

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        self._line.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := self._line.recv(65_536):
                with self._came:
                    self.heard += data
                    self._came.notify_all()
                self._hear(data)
        with self._came:
            self._gone = True
            self._came.notify_all()
