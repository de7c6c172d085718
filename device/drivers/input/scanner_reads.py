"""What the till is told of a scanner's reads: goods looked up, a scanner's health, its counts.  Opens nothing, knows no bytes."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from device.drivers.input.scanner_keys import LAYOUT, TYPED, Read, misread, sought
from device.errors import Outside
from device.txn.inputs import DeviceSaid, Input, Scanned, ScanSpoiled
from device.types import Found

log = logging.getLogger("tillbox")

LookUp = Callable[[str], Found | str | None]      # the goods, or why there are none, as `goods.CAUSES` has it
LATEST = 20               # reads that a scanner's health is judged by
BAD_MIN = 3               # bad ones among them that are no accident any more
HALF = " in the middle of a scan: half a code was dropped"
CUT = "the scanner was unplugged in the middle of a scan: scan it again"


class Tap(Protocol):
    """Whoever tries a scanner out: a read that it takes is shown to a person, and sold by nobody."""

    def takes(self, part: str, read: Read) -> bool: ...


class Reads:
    """One scanner's reads on their way into the till.

    `lane` names it where there are several; `where` says where it is plugged in.  The same symbol within `repeat_ms` is one
    read, for a scanner that stands and looks; 0, as a cashier scans two alike on purpose, merges nothing.
    """

    def __init__(self, look_up: LookUp, *, lane: str = "", where: str = "", repeat_ms: int = 0, tap: Tap | None = None) -> None:
        self.part = f"scanner:{lane}" if lane else "scanner"
        self.name = f"the scanner{f' {lane}' if lane else ''}{f' at {where}' if where else ''}"
        self.counts = {"scans": 0, "spoiled": 0, "misread": 0, "typed": 0, "repeats": 0}
        self._look_up, self._lane, self._repeat_ms, self._tap = look_up, lane, repeat_ms, tap
        self._last, self._last_ms = "", 0
        self._bad: deque[bool] = deque(maxlen=LATEST)
        self._word = "ok"

    def ok(self) -> DeviceSaid:
        """It is there.  What it said before it was unplugged is forgotten: another one may be plugged in."""
        self._bad.clear()
        self._word, self._last = "ok", ""
        return DeviceSaid(self.part, "ok")

    def absent(self, fault: Outside) -> DeviceSaid:
        """It could not be opened."""
        return DeviceSaid(self.part, "gone" if fault.again else "error", f"{self.name}: {fault}")

    def gone(self, why: str = "", *, half: bool = False) -> list[Input]:
        """It is not there any more; with `half` a symbol that it had begun is dropped, and the cashier told."""
        said: list[Input] = []
        if half:
            self.counts["spoiled"] += 1
            said.append(ScanSpoiled(CUT, self._lane))
        return [*said, DeviceSaid(self.part, "gone", why or f"{self.name} was unplugged{HALF if half else ''}")]

    def inputs_of(self, read: Read, at_ms: int) -> list[Input]:
        """What the till is told of `read`, which came at `at_ms` of the scanner's own clock."""
        if self._tap is not None and self._tap.takes(self.part, read):
            return []
        if not read.symbol:
            self.counts["typed" if read.why == TYPED else "spoiled"] += 1
            return [ScanSpoiled(read.why, self._lane), *self._judged(read.why != TYPED, "layout" if read.why == LAYOUT else "")]
        again = read.symbol == self._last and at_ms - self._last_ms <= self._repeat_ms
        self._last, self._last_ms = read.symbol, at_ms
        if again and self._repeat_ms:
            self.counts["repeats"] += 1
            return []
        self.counts["scans"] += 1
        found = self._look_up(sought(read))
        goods, cause = (found, "") if isinstance(found, Found) else (None, found or "")
        wrong = goods is None and misread(read)
        self.counts["misread"] += wrong
        return [Scanned(read.symbol, goods, self._lane, cause), *self._judged(wrong)]

    def _judged(self, bad: bool, word: str = "") -> list[Input]:
        """A word on its health when that changed: one bad read is an accident, three of twenty are a scanner."""
        if bad and self._word == "ok":
            log.info("%s: a scan was dropped, or had a wrong check digit", self.name)
        self._bad.append(bad)
        word = word or ("misreads" if sum(self._bad) >= BAD_MIN else "ok")
        if word == self._word or (self._word == "misreads" and any(self._bad)):
            return []
        self._word = word
        why = {"layout": f"{self.name}: {LAYOUT}",
               "misreads": f"{sum(self._bad)} of the last {len(self._bad)} reads of {self.name} were bad: clean its window"}
        return [DeviceSaid(self.part, word, why.get(word, ""))]
