"""The box's real clock: the monotonic one for every interval, and the wall as `wall.py` makes it out of what is claimed and proven.

One thread's: the loop's.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Callable

from device import anchors
from device.txn.inputs import ClockSaid
from device.types import Stamp
from device.wall import Wall

log = logging.getLogger("tillbox")


def clock_quality() -> str:
    """`ntp` when systemd's time service says it is synchronised, else `unset`: a claim is never better than its proof."""
    return "ntp" if os.path.exists("/run/systemd/timesync/synchronized") else "unset"


class RealClock:
    """Monotonic milliseconds since this process began, and the wall with what is known of its quality.

    `last_wall` is the newest that the journal remembers, RFC 3339, "" of a fresh one; `quality` says `ntp` or `unset` of the
    system's clock.  As device.clock.Clock and WallClock.
    """

    def __init__(self, boot: str, last_wall: str = "", *, quality: Callable[[], str] = lambda: "unset",
                 system_s: Callable[[], float] = time.time, mono_s: Callable[[], float] = time.monotonic) -> None:
        self._boot, self._quality, self._system_s, self._mono_s, self._born = boot, quality, system_s, mono_s, mono_s()
        last = datetime.datetime.fromisoformat(last_wall).timestamp() if last_wall else None
        self._wall = Wall(0, self._system_ms(), None if last is None else int(last * 1000))
        self._doubted = False
        self._anchors = anchors.Anchors()
        self.on_anchor: Callable[[ClockSaid], object] = lambda said: None         # what is worth a record is told here

    def now_ms(self) -> int:
        return int((self._mono_s() - self._born) * 1000)

    def up_ms(self) -> int:
        """How long the machine had been up when this clock began; its sleep counts."""
        return max(1, int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000) - self.now_ms())

    def now_s(self) -> float:
        return self._told_ms(self.now_ms()) / 1000

    def stamp(self) -> Stamp:
        now_ms = self.now_ms()
        told = datetime.datetime.fromtimestamp(self._told_ms(now_ms) / 1000).astimezone()
        return Stamp(self._boot, now_ms, told.isoformat(timespec="milliseconds"), self._word())

    def dated(self, at_s: float) -> None:
        """A channel's reply over TLS carries this Date."""
        at_ms, now_ms = int(at_s * 1000), self.now_ms()
        self._anchor(anchors.dated(at_ms, now_ms))
        self._wall.date(at_ms, now_ms, self._system_ms())

    def acknowledged(self, at: str, sent_ms: int | None = None) -> None:
        """The cloud signed this time, RFC 3339, when it had something new of ours.  A text that is no time is none.

        `sent_ms` is when that left for the first time, None when another boot may have sent it.
        """
        try:
            at_ms = int(datetime.datetime.fromisoformat(at).timestamp() * 1000)
        except ValueError:
            return
        now_ms = self.now_ms()
        if sent_ms is not None:
            self._anchor(anchors.acknowledged(at_ms, "." not in at, sent_ms, now_ms))
        self._wall.acknowledged(at_ms, now_ms, self._system_ms())

    def _anchor(self, anchor: anchors.Anchor) -> None:
        if self._anchors.worth(anchor):
            at = datetime.datetime.fromtimestamp(anchor.at_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
            self.on_anchor(ClockSaid(anchor.mono_ms, at, anchor.error_ms, anchor.rtt_ms, anchor.source))

    @property
    def doubts(self) -> bool:
        """The system's clock says something else than is told: a person must look."""
        return self._wall.doubts

    def _told_ms(self, now_ms: int) -> int:
        system_ms = self._system_ms()
        told = self._wall.now_ms(now_ms, system_ms)
        if self._wall.doubts != self._doubted:
            self._doubted = self._wall.doubts
            off_s = (system_ms - told) // 1000
            log.warning("the system's clock is %d s %s what is known: %s", abs(off_s), "ahead of" if off_s > 0 else "behind",
                        "not followed" if self._doubted else "followed again")
        return told

    def _word(self) -> str:
        if self._wall.proven:
            return "anchored"
        return "restored" if self._wall.doubts else self._quality()

    def _system_ms(self) -> int:
        return int(self._system_s() * 1000)
