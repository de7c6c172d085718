"""A numeric keypad without hardware: writes the very events a real one would into a FIFO."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from device.drivers.input.evdev_bytes import event_bytes
from device.drivers.input.keypad_keys import EVENTS_OF
from sim.devices.scanner import open_fifo, opened_by


class KeypadModel:
    """A keypad with the default layout, plugged in at `path`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._fd = -1
        self._one = threading.Lock()
        self.plug()

    @property
    def plugged(self) -> bool:
        """Whether a reader can open it."""
        return self._fd >= 0

    def plug(self) -> None:
        """Appear at `path`; does nothing when it is there."""
        if not self.plugged:
            self.path.unlink(missing_ok=True)
            self._fd = open_fifo(self.path)

    def unplug(self) -> None:
        """Disappear; a reader sees the end."""
        with self._one:
            if self.plugged:
                self.path.unlink(missing_ok=True)
                os.close(self._fd)
                self._fd = -1

    def read_by(self, pid: int) -> bool:
        """Whether that process has it open."""
        return self.plugged and opened_by(self._fd, pid)

    def press(self, key: str) -> None:
        """Press and release one key of `KEYS`.  KeyError for another, RuntimeError when unplugged or nobody reads."""
        at_ms = time.monotonic_ns() // 1_000_000
        data = b"".join(event_bytes((*event, at_ms)) for event in EVENTS_OF[key])
        with self._one:
            if not self.plugged:
                raise RuntimeError("the keypad is unplugged")
            try:
                os.write(self._fd, data)
            except BlockingIOError as full:
                raise RuntimeError("nobody reads the keypad") from full
