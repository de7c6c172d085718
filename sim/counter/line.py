"""The line between the box and the broker, so that a fault can cut it.  Knows bytes, and no protocol."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class Line:
    """Passes connections on to 127.0.0.1:`far_port`, which may change.  `port` is where the box connects, the same after a cut.

    `pause_s` gives how long each piece takes on its way, both ways.
    """

    def __init__(self, far_port: int, pause_s: Callable[[], float] = float) -> None:
        self.far_port, self._pause_s = far_port, pause_s
        self._near: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.port = 0
        self.join()

    def join(self) -> None:
        """Let connections pass; does nothing on a whole line."""
        if self._near is not None:
            return
        near = socket.socket()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        near.bind(("127.0.0.1", self.port))
        near.listen(8)
        self.port, self._near = near.getsockname()[1], near
        threading.Thread(target=self._accept, args=(near,), name="line", daemon=True).start()

    def cut(self) -> None:
        """Refuse new connections and end those that stand."""
        near, self._near = self._near, None
        if near is not None:
            _end(near)
        with self._lock:
            ends, self._open = self._open, set()
        for one in ends:
            _end(one)

    def _accept(self, near: socket.socket) -> None:
        while True:
            try:
                box, _ = near.accept()
            except OSError:
                return                               # the line was cut
            try:
                far = socket.create_connection(("127.0.0.1", self.far_port), timeout=2)
            except OSError:
                _end(box)
                continue
            far.settimeout(None)
            with self._lock:
                cut = self._near is not near
                if not cut:
                    self._open |= {box, far}
            if cut:
                _end(box)
                _end(far)
                return
            for source, sink in ((box, far), (far, box)):
                threading.Thread(target=self._pass, args=(source, sink), name="line", daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                time.sleep(self._pause_s())
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        _end(source)
        _end(sink)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
