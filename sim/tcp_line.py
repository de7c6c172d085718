"""A line between a box and its broker that can be cut, mended, slowed and counted: a TCP relay on the loopback, one thread.

Knows bytes and time; refuses to know MQTT and TLS.  What stood on the line when it was cut is lost, in both directions.
"""

from __future__ import annotations

import collections
import contextlib
import selectors
import socket
import threading
import time

CHUNK_BYTES = 64 * 1024


class _End:
    """One direction: from `source` to `sink`, what waits for its time."""

    def __init__(self, source: socket.socket, sink: socket.socket, which: str) -> None:
        self.source, self.sink, self.which = source, sink, which
        self.waits: collections.deque[tuple[float, bytes]] = collections.deque()


class TcpLine:
    """Listens at `port`, relays to `to_port`.  `sent` and `received` count bytes as the box sees them; `delay_s` each way."""

    def __init__(self, to_port: int, *, delay_s: float = 0.0) -> None:
        self.to_port, self.delay_s = to_port, delay_s
        self.sent = self.received = self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._up = True
        self._cut_due = False
        self._ended = False
        self._ends: dict[socket.socket, _End] = {}
        self._pick = selectors.DefaultSelector()
        self._pick.register(self._listener, selectors.EVENT_READ)
        self._wake_read, self._wake = socket.socketpair()
        self._pick.register(self._wake_read, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="tcp-line", daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Drop whatever is on the line and every connection; take no new one until `mend`."""
        self._up, self._cut_due = False, True
        self._wake.send(b"x")

    def mend(self) -> None:
        self._up = True

    def close(self) -> None:
        self._ended = True
        self._wake.send(b"x")
        self._thread.join()

    def __enter__(self) -> TcpLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._pick.select(self._wait_s()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake_read:
                    self._wake_read.recv(100)
                elif (end := self._ends.get(key.fileobj)) is not None:      # type: ignore[call-overload]
                    self._read(end)
            if self._cut_due:
                self._cut_due = False
                for end in list(self._ends.values()):
                    self._drop(end)
            self._pass_on()
        for end in list(self._ends.values()):
            self._drop(end)
        for one in (self._listener, self._wake_read, self._wake):
            one.close()
        self._pick.close()

    def _wait_s(self) -> float | None:
        due = [end.waits[0][0] for end in self._ends.values() if end.waits]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        if not self._up:
            near.close()
            return
        try:
            far = socket.create_connection(("127.0.0.1", self.to_port), timeout=5)
        except OSError:
            near.close()
            return
        self.connections += 1
        for one in (near, far):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for end in (_End(near, far, "sent"), _End(far, near, "received")):
            self._ends[end.source] = end
            self._pick.register(end.source, selectors.EVENT_READ)

    def _read(self, end: _End) -> None:
        try:
            data = end.source.recv(CHUNK_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop(end)
            return
        setattr(self, end.which, getattr(self, end.which) + len(data))
        end.waits.append((time.monotonic() + self.delay_s, data))

    def _pass_on(self) -> None:
        now_s = time.monotonic()
        for end in list(self._ends.values()):
            while end.waits and end.waits[0][0] <= now_s:
                try:
                    end.sink.sendall(end.waits.popleft()[1])
                except OSError:
                    self._drop(end)
                    break

    def _drop(self, end: _End) -> None:
        for one in (end.source, end.sink):
            if self._ends.pop(one, None) is not None:
                self._pick.unregister(one)
            with contextlib.suppress(OSError):
                one.close()
