"""The clocks of one program, which somebody sets while it runs: the system's forward, back, by seconds or by years; both onward.

    python -m sim.devices.clock FILE MODULE ARGUMENTS

runs MODULE as `python -m` would, with `time.time` off by what FILE holds.  It stands for a `date -s` on the box, and for a box
without a battery; the monotonic clock goes on undisturbed, as a real one does.  `onward` is another thing: time passes, on both
clocks, without anybody waiting for it.  Refuses to know the program: it sees clocks like any other.
"""

from __future__ import annotations

import mmap
import os
import runpy
import struct
import sys
import time
from pathlib import Path

FORM = struct.Struct("=dd")          # seconds that the system's clock is off, and those that have passed at once


class ClockModel:
    """The hand at that clock.  `file` is made, and says no offset."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._off_s = self.passed_s = 0.0
        self._write()

    def set(self, off_s: float) -> None:
        """From now on it is `off_s` seconds ahead of the true time, or behind it."""
        self._off_s = off_s
        self._write()

    def onward(self, seconds: float) -> None:
        """So much time passes now, for every interval as well; it never comes back."""
        assert seconds >= 0, seconds
        self.passed_s += seconds
        self._write()

    def _write(self) -> None:
        os.pwrite(self._fd, FORM.pack(self._off_s, self.passed_s), 0)

    def close(self) -> None:
        os.close(self._fd)


def main(argv: list[str]) -> None:
    file, module, *rest = argv
    with open(file, "rb") as held:
        offset = mmap.mmap(held.fileno(), FORM.size, access=mmap.ACCESS_READ)
    true_s, true_mono_s = time.time, time.monotonic
    time.time = lambda: true_s() + sum(FORM.unpack_from(offset))         # before the program binds them
    time.monotonic = lambda: true_mono_s() + FORM.unpack_from(offset)[1]
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
