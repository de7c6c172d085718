"""A scanner without hardware: writes the very bytes of a real one into a FIFO (keyboard mode, HID-POS) or a pty (serial mode)."""

from __future__ import annotations

import fcntl
import os
import termios
import threading
import time
import tty
from pathlib import Path

from device.drivers.input.evdev_bytes import EV_KEY, EV_SYN, PRESS, RELEASE, SYN_REPORT, event_bytes
from device.drivers.input.hidpos_bytes import reports_of
from device.drivers.input.layout_keys import LEFTCTRL, LEFTSHIFT
from device.drivers.input.scanner_keys import key_codes

KEY_MS = 2                # a pause between two keys that any scanner in service exceeds and no reader mistakes
F_SETPIPE_SZ = 1031       # linux/fcntl.h


class ScannerModel:
    """A scanner that is plugged in at `path`.  `mode` is `evdev`, `serial` or `hidraw`; `suffix` what it sends after a symbol.

    Each plug makes a new FIFO, or a new pty with `path` linked to it; unplug takes both away, as udev does.
    """

    def __init__(self, path: str | Path, *, mode: str = "evdev", suffix: str = "\r") -> None:
        assert mode in ("evdev", "serial", "hidraw"), mode
        self.path, self._mode, self._suffix = Path(path), mode, suffix
        self._fd = -1
        self._at_ms = 0
        self._one = threading.Lock()      # one beam: two scans never interleave
        self.plug()

    @property
    def plugged(self) -> bool:
        """Whether a reader can open it."""
        return self._fd >= 0

    def plug(self) -> None:
        """Appear at `path`; does nothing when it is there."""
        if self.plugged:
            return
        self.path.unlink(missing_ok=True)
        self._fd = _open_pty(self.path) if self._mode == "serial" else open_fifo(self.path)

    def unplug(self) -> None:
        """Disappear; a reader sees the end."""
        with self._one:
            if self.plugged:
                self.path.unlink(missing_ok=True)
                os.close(self._fd)
                self._fd = -1

    def read_by(self, pid: int) -> bool:
        """Whether that process has it open: this plug of it, not one before."""
        if not self.plugged:
            return False
        return _has_open(os.stat(self.path), pid) if self._mode == "serial" else opened_by(self._fd, pid)

    def scan(self, code: str) -> None:
        """Read `code`.  RuntimeError when unplugged or when nobody reads, ValueError for what it cannot type."""
        self.send(self._said(code, self._suffix))

    def scan_half(self, code: str) -> None:
        """Read the first half of `code` and break off, as a cable pulled in the middle does."""
        if self._mode == "hidraw":
            self.send(self._said(code, "")[:-1])
        else:
            self.send(self._said(code[: len(code) // 2], ""))

    def send(self, data: bytes) -> None:
        """Write raw bytes, whole or not at all."""
        with self._one:
            if not self.plugged:
                raise RuntimeError("the scanner is unplugged")
            try:
                os.write(self._fd, data)
            except BlockingIOError as full:
                raise RuntimeError("nobody reads the scanner") from full

    def _said(self, code: str, suffix: str) -> bytes:
        if self._mode == "hidraw":
            return b"".join(reports_of(code.encode(), "]E0" if code.isdigit() and len(code) == 13 else "]C0"))
        return (code + suffix).encode() if self._mode == "serial" else self._typed(code + suffix)

    def _typed(self, text: str) -> bytes:
        self._at_ms = max(self._at_ms + KEY_MS, time.monotonic_ns() // 1_000_000)
        return b"".join(self._key(*key) for key in key_codes(text))

    def _key(self, code: int, shift: bool, ctrl: bool) -> bytes:
        held = [LEFTSHIFT] * shift + [LEFTCTRL] * ctrl
        moves = [(key, PRESS) for key in (*held, code)] + [(key, RELEASE) for key in (code, *reversed(held))]
        self._at_ms += KEY_MS
        return b"".join(
            event_bytes((EV_KEY, key, value, self._at_ms)) + event_bytes((EV_SYN, SYN_REPORT, 0, self._at_ms))
            for key, value in moves
        )


def open_fifo(path: Path) -> int:
    """Make a FIFO at `path` and open its writing end, non-blocking and with room for some hundred events."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path, 0o600)
    # open for both: a FIFO opened for writing alone refuses while nobody reads
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.fcntl(fd, F_SETPIPE_SZ, 1 << 16)
    return fd


def opened_by(fd: int, pid: int) -> bool:
    """Whether the process `pid`, of our own user, has the file behind `fd` open too."""
    return _has_open(os.fstat(fd), pid)


def _has_open(mine: os.stat_result, pid: int) -> bool:
    try:
        return any(os.path.samestat(os.stat(other.path), mine) for other in os.scandir(f"/proc/{pid}/fd"))
    except OSError:
        return False                      # it is gone, or closed one of them meanwhile: asked again in a moment


def _open_pty(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    master, slave = os.openpty()
    tty.setraw(slave, termios.TCSANOW)
    os.set_blocking(master, False)
    path.symlink_to(os.ttyname(slave))
    os.close(slave)
    return master
