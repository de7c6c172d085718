"""How much of one box is heard at once: whoever floods is heard no further for a while, so that the others are.

Knows counts by box within a window of time, moved by hand; refuses to know what is said.  The broker limits no rate, and what it
cannot hand over it drops, whosoever it is: so a flood is taken off its hands as quickly as can be, unread.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

log = logging.getLogger("tillfleet.collect")

WINDOW_S = 10.0
BATCHES_MAX = 20_000                     # of one box in a window: a backlog of days leaves at 600 a second, in batches of 50
OTHERS_MAX = 200                         # all its other messages; a box says some ten after it connected
SPOILT_MAX = 50                          # of either kind that could not be taken: a box waits a minute after one


class Patience:
    """`now_s()` monotonic seconds.  Safe between threads as far as it matters: a count may be one short."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s, self._until_s = now_s, 0.0
        self._said: Counter[tuple[str, str]] = Counter()
        self._told: set[str] = set()

    def hears(self, box: str, name: str) -> bool:
        """Whether one more message of `box` on topic `name` is read; it counts."""
        now_s = self._now_s()
        if now_s >= self._until_s:
            self._said, self._told, self._until_s = Counter(), set(), now_s + WINDOW_S
        kind, most = ("up", BATCHES_MAX) if name == "up" else ("others", OTHERS_MAX)
        self._said[box, kind] += 1
        if self._said[box, kind] <= most and self._said[box, "spoilt"] < SPOILT_MAX:
            return True
        if box not in self._told:
            self._told.add(box)
            log.error("box %s floods: nothing more of it is heard for up to %d s; if it goes on, revoke it", box[:32], WINDOW_S)
        return False

    def spoilt(self, box: str) -> None:
        """A message of `box` could not be taken."""
        self._said[box, "spoilt"] += 1
