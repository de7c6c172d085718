"""What of updates leaves now: rollouts that move on, and the chunks that boxes ask for, at a bounded rate, each box in its turn."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from device.mqtt import topics
from fleet.commands.courier import Parcel
from fleet.database import Database
from fleet.update.kept import Releases

log = logging.getLogger("tillfleet.courier")

RATE_BYTES_S = 1024 * 1024
QUEUED_MAX = 4_000                       # chunks in line; a box asks again for what was too many
BURST_S = 2.0


class _Chunk(NamedTuple):
    box: str
    release: str
    sha256: str
    n: int


class UpdateRoom:
    """`rate_bytes_s` for all boxes together.  A box is given nothing but chunks of the release that it reports."""

    def __init__(self, database: Database, tenant: str, *, rate_bytes_s: int = RATE_BYTES_S) -> None:
        self._releases, self._tenant, self._rate = Releases(database), tenant, rate_bytes_s
        self._line: deque[_Chunk] = deque()
        self._at: datetime | None = None
        self._credit = 0.0

    def __call__(self, at: str) -> Iterable[Parcel]:
        for sentence in self._releases.advance(at):
            log.info("%s", sentence)
        now = datetime.fromisoformat(at)
        gone_s = min(BURST_S, max(0.0, (now - self._at).total_seconds())) if self._at is not None else BURST_S
        self._at, self._credit = now, min(self._rate * BURST_S, self._credit + self._rate * gone_s)
        self._ask()
        parcels = []
        while self._line and self._credit > 0:
            one = self._line.popleft()
            token = self._releases.token(one.release)
            data = self._releases.chunk(self._releases.manifest(one.release), token, one.sha256, one.n)
            if data:
                self._credit -= len(data)
                parcels.append(Parcel(topics.blob(self._tenant, one.box, one.sha256, one.n), data))
        return parcels

    def _ask(self) -> None:
        known = {digest for digest, *_ in self._releases.listed()}
        wants: list[list[_Chunk]] = []
        waiting = set(self._line)
        for box, told in self._releases.asking():
            if told.release not in known or len(self._line) + sum(map(len, wants)) >= QUEUED_MAX:
                continue
            wants.append([chunk for sha256, ranges in told.want.items() for first, last in ranges
                          for n in range(first, min(last, first + QUEUED_MAX) + 1)
                          if (chunk := _Chunk(box, told.release, sha256, n)) not in waiting][:QUEUED_MAX])
        for turn in range(max(map(len, wants), default=0)):
            self._line.extend(chunks[turn] for chunks in wants if turn < len(chunks))
