"""How long the box keeps what the cloud has: old rows go first, in steps that no customer feels, and their room is given back.

Knows days, room and the order of sacrifice: rows older than `keep_days` that the cloud has confirmed; near the quota, confirmed
rows whatever their age, the oldest first; never one that is not confirmed, and never one that a start would fold.  Diagnostics
come before all of them and are none of the journal's: they stand in systemd's own, which has its own limit.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import Callable

import msgspec

from device.store_forward.journal import Journal
from device.txn import facts

log = logging.getLogger("tillbox")

LOOK_S = 600.0                       # between two looks for something to let go of
STEP_S = 0.25                        # between two steps, each a commit
NEAR_BYTES = 64 * 1024 * 1024        # room below which confirmed rows go before their time


class Retention:
    """`now_s()` is the wall in seconds; `idle()` says that no customer stands there."""

    def __init__(self, journal: Journal, keep_days: int, now_s: Callable[[], float], idle: Callable[[], bool],
                 near_bytes: int = NEAR_BYTES) -> None:
        self._journal, self._keep_s, self._now_s, self._idle = journal, keep_days * 86_400, now_s, idle
        self._near_bytes = near_bytes

    async def run(self) -> None:
        """Until cancelled: look now and then, and step while there is something and nobody is served."""
        while True:
            await asyncio.sleep(LOOK_S)
            gone = 0
            while self._idle() and (went := self.step()):
                gone += went
                await asyncio.sleep(STEP_S)
            if gone:
                log.info("%d rows that the cloud has were let go of; the oldest record kept is %d", gone, self._journal.first_seq)

    def step(self) -> int:
        """Let go of a few rows, if any are due; how many went."""
        spare = self._journal.spare()
        if self._journal.first >= spare:
            return 0
        if self._journal.room_bytes() >= self._near_bytes:
            spare = self._old(self._journal.first, spare)
        return self._journal.trim(spare, facts.refs_of_row)

    def _old(self, low: int, high: int) -> int:
        """The first row below `high` that is younger than the limit; dates rise with the rows, but for what a clock did."""
        limit_s = self._now_s() - self._keep_s
        while low < high:
            middle = (low + high) // 2
            if self._at_s(middle) >= limit_s:
                high = middle
            else:
                low = middle + 1
        return low

    def _at_s(self, n: int) -> float:
        row = self._journal.row(n)
        if row is None:
            raise self._journal.unreadable(f"row {n} is missing")
        try:
            wall = facts.decode(row).at.wall
        except msgspec.DecodeError as why:
            raise self._journal.unreadable(f"row {n} cannot be read ({why})") from None
        return datetime.datetime.fromisoformat(wall).timestamp() if wall else 0.0
