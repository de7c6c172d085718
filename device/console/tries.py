"""How often somebody gave a wrong code, on the card before the next is looked at; and how long that makes everybody wait.

Five tries, then a minute, two, four ... up to a day.  The clock on the wall is not believed: waits count the time since this boot,
and begin again in full at the next.  The count stands in two files, so that neither is lost or spoilt in silence; where the card
takes nothing, one try a minute is left to a console (and one to each that starts: 40 bits bear that).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from device.drivers import private_file
from device.errors import Outside

FREE = 5
WAIT_S, WAIT_S_MAX = 60, 24 * 3600


class Tries:
    """`folder` the console's own; `boot` names this boot; `since_boot_s()` counts suspended time, too."""

    def __init__(self, folder: Path, boot: str, since_boot_s: Callable[[], float]) -> None:
        self._folder, self._boot, self._now_s = folder, boot, since_boot_s
        self._blind_until_s = 0.0                    # of a card that cannot be written

    def wait_s(self) -> int:
        """Seconds until a try is taken; 0 for now."""
        with self._locked() as lock:
            now_s = self._now_s()
            tries, at_s = self._held(now_s, lock)
        left = max(_wait(tries) - (now_s - at_s), self._blind_until_s - now_s)
        return max(0, int(left + 0.999))

    def count(self) -> bool:
        """Take one try: True once it is on the card (or, on a dead card, paid for by a minute); False while there is a wait.

        Asked for and taken under one lock, so that two lines are no more than one.
        """
        with self._locked() as lock:
            now_s = self._now_s()
            tries, at_s = self._held(now_s, lock)
            if _wait(tries) > now_s - at_s or now_s < self._blind_until_s:
                return False
            try:
                self._keep(tries + 1, now_s, lock)
            except OSError:
                self._blind_until_s = now_s + WAIT_S
            return True

    def clear(self) -> None:
        """The right code was given."""
        with self._locked() as lock, contextlib.suppress(OSError):
            self._keep(0, 0.0, lock)

    def _held(self, now_s: float, lock: int) -> tuple[int, float]:
        """Tries, and when the last one was.  What is gone, cannot be read, or is of another boot, waits from now on."""
        beside = _beside(lock)
        try:
            raw = private_file.read(self._folder / "tries", 4096, which="console")
        except Outside:
            raw = b"?"
        if raw is None and beside == 0:
            return 0, 0.0
        try:
            held = json.loads(raw or b"?")
            tries, boot, at_s = int(held["tries"]), str(held["boot"]), float(held["at_s"])
            if boot == self._boot and at_s <= now_s and tries >= beside:
                return tries, at_s
            tries = max(tries, beside)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            tries = max(FREE, beside)
        if _wait(tries):
            with contextlib.suppress(OSError):
                self._keep(tries, now_s, lock)
        return tries, now_s

    def _keep(self, tries: int, at_s: float, lock: int) -> None:
        private_file.make_folder(self._folder)
        if lock >= 0:
            os.pwrite(lock, b"%-20d\n" % tries, 0)
            os.fsync(lock)
        private_file.replace(self._folder / "tries", json.dumps({"tries": tries, "boot": self._boot, "at_s": at_s}).encode())

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The lock's file, which holds the count as well; -1 where a card takes none: this process's own count is left."""
        try:
            private_file.make_folder(self._folder)
            fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            yield -1
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


def _beside(lock: int) -> int:
    """The count in the lock's file, 0 for none."""
    try:
        return max(int(os.pread(lock, 32, 0)), 0) if lock >= 0 else 0
    except (ValueError, OSError):
        return 0


def _wait(tries: int) -> int:
    return 0 if tries < FREE else min(WAIT_S << min(tries - FREE, 20), WAIT_S_MAX)
