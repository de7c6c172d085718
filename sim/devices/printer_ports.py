"""The cables of a printer model: a TCP port, and a pty like a USB serial adapter's.

Knows sockets and descriptors; what the bytes mean is the model's.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import socket
import struct
import threading
import tty
from pathlib import Path
from typing import Any

from sim.devices.printer import PrinterModel


class TcpPort:
    """The model behind TCP.  One connection at a time, a second one waits; off, the port refuses.

    `port` 0 takes a free one, which it keeps through every switch off and on.
    """

    def __init__(self, model: PrinterModel, port: int = 0, host: str = "127.0.0.1") -> None:
        self.model, self.host = model, host
        self._listener: socket.socket | None = None
        self._link: socket.socket | None = None
        self._stop = False
        self._turned = threading.Condition()
        self._wake_r, self._wake_w = os.pipe()
        os.set_blocking(self._wake_w, False)
        self.port = port
        self._listen()
        model.say = self._say
        model.changed.append(self._wake)
        self._thread = threading.Thread(target=self._serve, name="printer-tcp", daemon=True)
        self._thread.start()

    def drop(self) -> None:
        """Break the connection, as a pulled network cable and an impatient switch do; the model stays on."""
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def settle(self, wait_s: float = 5.0) -> bool:
        """Wait until the port refuses or listens as the power switch says; False after `wait_s` seconds."""
        with self._turned:
            return self._turned.wait_for(lambda: (self._listener is not None) == self.model.powered, wait_s)

    def close(self) -> None:
        """Stop serving and wait for the thread."""
        self._stop = True
        self._wake()
        self._thread.join(5)
        self.model.changed.remove(self._wake)
        os.close(self._wake_r)
        os.close(self._wake_w)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(1)
        self.port = listener.getsockname()[1]
        self._listener = listener

    def _serve(self) -> None:
        while not self._stop:
            if not self.model.powered:
                self._hang_up(reset=True)
            elif self._listener is None:
                self._listen()
            with self._turned:
                self._turned.notify_all()
            self._step()
        self._hang_up(reset=False)

    def _step(self) -> None:
        """Wait for one thing to happen and do it."""
        waits: list[Any] = [self._wake_r]
        room = self.model.room
        if self._link is not None and room:
            waits.append(self._link)
        elif self._link is None and self._listener is not None:
            waits.append(self._listener)
        ready, _, _ = select.select(waits, [], [], None)
        if self._wake_r in ready:
            os.read(self._wake_r, 4096)
        elif self._listener in ready and self._listener is not None:
            self._link, _ = self._listener.accept()
            self._link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        elif self._link in ready and self._link is not None:
            self._receive(self._link, room)

    def _receive(self, link: socket.socket, room: int) -> None:
        try:
            data = link.recv(min(room, 64 if self.model.byte_s else 4096))
        except OSError:
            data = b""
        if not data:
            link.close()
            self._link = None
            return
        if self.model.byte_s:
            threading.Event().wait(self.model.byte_s * len(data))
        self.model.receive(data)

    def _hang_up(self, *, reset: bool) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._link is not None:
            if reset:
                self._link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._link.close()
            self._link = None

    def _say(self, data: bytes) -> None:
        link = self._link
        if link is not None:
            with contextlib.suppress(OSError):         # the box went away: its answer is lost, as on a wire
                link.sendall(data)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_w, b".")


class PtyPort:
    """The model behind a pty with `path` linked to it, like a USB serial adapter; off, the bytes fall on the floor."""

    def __init__(self, model: PrinterModel, path: str | Path) -> None:
        self.model, self.path = model, Path(path)
        self._master, self._slave = pty.openpty()      # we keep the slave: a reader that leaves is no hang-up
        tty.setraw(self._slave)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._slave))
        self._wake_r, self._wake_w = os.pipe()
        self._stop = False
        model.say = self._say
        model.changed.append(self._wake)
        self._thread = threading.Thread(target=self._serve, name="printer-pty", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Pull the plug: the link goes, a reader sees the end."""
        self._stop = True
        self._wake()
        self._thread.join(5)
        self.model.changed.remove(self._wake)
        self.path.unlink(missing_ok=True)
        for fd in (self._master, self._slave, self._wake_r, self._wake_w):
            os.close(fd)

    def _serve(self) -> None:
        while not self._stop:
            room = self.model.room
            ready, _, _ = select.select([self._wake_r, *([self._master] if room else [])], [], [], None)
            if self._wake_r in ready:
                os.read(self._wake_r, 4096)
            elif self._master in ready:
                data = os.read(self._master, min(room, 64 if self.model.byte_s else 4096))
                if self.model.byte_s:
                    threading.Event().wait(self.model.byte_s * len(data))
                self.model.receive(data)

    def _say(self, data: bytes) -> None:
        os.write(self._master, data)

    def _wake(self) -> None:
        os.write(self._wake_w, b".")
