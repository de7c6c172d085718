"""The system's clock of one program, which somebody sets while it runs: forward, back, by seconds or by years.

    python -m sim.devices.clock FILE MODULE ARGUMENTS

runs MODULE as `python -m` would, with `time.time` off by what FILE holds.  It stands for a `date -s` on the box, and for a box
without a battery; the monotonic clock goes on undisturbed, as a real one does.  Refuses to know the program: it sees a clock like
any other.
"""

from __future__ import annotations

import mmap
import os
import runpy
import struct
import sys
import time
from pathlib import Path

FORM = struct.Struct("=d")


class ClockModel:
    """The hand at that clock.  `file` is made, and says no offset."""

    def __init__(self, file: Path) -> None:
        self._fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.set(0.0)

    def set(self, off_s: float) -> None:
        """From now on it is `off_s` seconds ahead of the true time, or behind it."""
        os.pwrite(self._fd, FORM.pack(off_s), 0)

    def close(self) -> None:
        os.close(self._fd)


def main(argv: list[str]) -> None:
    file, module, *rest = argv
    with open(file, "rb") as held:
        offset = mmap.mmap(held.fileno(), FORM.size, access=mmap.ACCESS_READ)
    true_s = time.time
    time.time = lambda: true_s() + FORM.unpack_from(offset)[0]           # before the program binds it
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
