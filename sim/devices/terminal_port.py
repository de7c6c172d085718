"""The card terminal's cables: a pty at a path, as of a USB serial adapter, or a TCP port.  Knows no message."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import threading
import tty
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sim.devices.terminal import TerminalModel

READ_BYTES = 4096


class TerminalPort:
    """The model behind a line: `path` of a pty to make, or a TCP port on the loopback (`path` None; `port` 0 takes a free one).

    One thread moves bytes and time; `hand` runs anything else on the model between two of its moves.
    """

    def __init__(self, model: TerminalModel, path: str | Path | None = None, *, port: int = 0) -> None:
        self.model, self.path = model, Path(path) if path is not None else None
        self._fds: list[int] = []
        self._master = self._listener = None
        self._link: socket.socket | None = None
        self.port = port
        if self.path is not None:
            master, slave = pty.openpty()              # we keep the slave: a reader that leaves is no hang-up
            tty.setraw(slave)
            self.path.unlink(missing_ok=True)
            self.path.symlink_to(os.ttyname(slave))
            self._master, self._fds = master, [master, slave]
        else:
            self._listener = socket.create_server(("127.0.0.1", port))
            self.port = self._listener.getsockname()[1]
        self._wake_r, self._wake_w = os.pipe()
        self._hands: list[Callable[[], Any]] = []
        self._stop = False
        model.say = self._say
        self._thread = threading.Thread(target=self._serve, name="card-terminal", daemon=True)
        self._thread.start()

    def hand(self, does: Callable[[], Any]) -> Any:
        """Run `does` on the port's thread, so that it never meets the model half way, and give what it gives."""
        done, out = threading.Event(), []

        def run() -> None:
            try:
                out.append(does())
            finally:
                done.set()
        self._hands.append(run)
        os.write(self._wake_w, b".")
        assert done.wait(5), "the card terminal's thread is stuck"
        return out[0]

    def drop(self) -> None:
        """Break a TCP connection, as a pulled network cable does."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Pull the plug: a reader sees the end."""
        self._stop = True
        os.write(self._wake_w, b".")
        self._thread.join(5)
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        for one in (self._link, self._listener):
            if one is not None:
                one.close()
        for fd in (*self._fds, self._wake_r, self._wake_w):
            os.close(fd)

    def _serve(self) -> None:
        while not self._stop:
            due_ms = self.model.next_ms()
            wait_s = None if due_ms is None else max(0.0, (due_ms - self.model._now_ms()) / 1000)
            ready, _, _ = select.select([self._wake_r, *self._ears()], [], [], wait_s)
            if self._wake_r in ready:
                os.read(self._wake_r, READ_BYTES)
                while self._hands:
                    self._hands.pop(0)()
            self.model.tick()
            for ear in ready:
                if ear is not self._wake_r:
                    self._listen(ear)

    def _ears(self) -> list[Any]:
        return [end for end in (self._master, self._link or self._listener) if end is not None]

    def _listen(self, ear: Any) -> None:
        if ear is self._listener:
            self._link, _ = self._listener.accept()
            self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return
        try:
            data = os.read(ear, READ_BYTES) if ear is self._master else self._link.recv(READ_BYTES)
        except OSError:
            data = b""
        if data:
            self.model.receive(data)
        elif self._link is not None:
            self._link.close()
            self._link = None

    def _say(self, data: bytes) -> None:
        with contextlib.suppress(OSError):             # the box went away: what is said is lost, as on a wire
            if self._master is not None:
                os.write(self._master, data)
            elif self._link is not None:
                self._link.sendall(data)
