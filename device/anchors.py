"""Anchors: moments of a boot whose true time somebody else has said, within a bound.  Which of them are worth a `clock` record.

Pure: a monotonic time, what was said and how long the way took come in.  The monotonic clock carries an anchor on, at most
DRIFT_PPM wrong, so that few are enough: one or two a boot, and then at most one an hour.
"""

from __future__ import annotations

from typing import NamedTuple

DRIFT_PPM = 500                # what Linux lets a time service bend the clock by; a crystal alone is a tenth of it
GOOD_MS = 10_000               # an anchor serves until its error, grown by drift, is more
EVERY_MS = 3_600_000           # between two records of a boot whose anchor was good once
DATE_LATE_MS = 35_000          # the longest a channel's reply may have taken, from its Date to us


class Anchor(NamedTuple):
    """At `mono_ms` of a boot it was `at_ms` (Unix), give or take `error_ms`.  `rtt_ms` the way there and back, 0 unknown."""

    mono_ms: int
    at_ms: int
    error_ms: int
    rtt_ms: int
    source: str                # ack, date


def acknowledged(at_ms: int, whole_s: bool, sent_ms: int, now_ms: int) -> Anchor:
    """The cloud said `at_ms` after it got what left at `sent_ms`, and before we heard it at `now_ms`: some time in between."""
    rtt_ms = max(0, now_ms - sent_ms)
    half_ms = -(-(rtt_ms + (1000 if whole_s else 1)) // 2)
    return Anchor(now_ms, at_ms + half_ms, half_ms, rtt_ms, "ack")


def dated(at_ms: int, now_ms: int) -> Anchor:
    """A channel's Date, whole seconds, heard at `now_ms`."""
    half_ms = (1000 + DATE_LATE_MS) // 2
    return Anchor(now_ms, at_ms + half_ms, half_ms, 0, "date")


def drift_ms(ms: int) -> int:
    """How wrong the monotonic clock can be over `ms`, either way."""
    return -(-abs(ms) * DRIFT_PPM // 1_000_000)


class Anchors:
    """Those of one boot."""

    def __init__(self) -> None:
        self._last: Anchor | None = None

    def worth(self, anchor: Anchor) -> bool:
        """True when `anchor` should be recorded, and then it counts as recorded: the first of the boot, a first good one, and
        then what is much better than the last one has become, or contradicts it."""
        last = self._last
        if last is None or last.error_ms > GOOD_MS >= anchor.error_ms:
            self._last = anchor
            return True
        gone_ms = anchor.mono_ms - last.mono_ms
        error_ms, off_ms = last.error_ms + drift_ms(gone_ms), abs(anchor.at_ms - last.at_ms - gone_ms)
        better = error_ms > GOOD_MS and anchor.error_ms * 2 < error_ms
        if gone_ms < EVERY_MS or not (better or off_ms > error_ms + anchor.error_ms):
            return False
        self._last = anchor
        return True
