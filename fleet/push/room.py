"""What of configurations leaves now: signed documents, retained, and chunks of blobs that boxes want, at a bounded rate.

Knows when a document is published anew and how many bytes a second may leave; refuses to know what a document says.  A chunk goes
only to a box whose own document names its blob.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import msgspec

from device.mqtt import config_wire as wire
from device.mqtt import topics
from device.mqtt.wire import WireError
from fleet.commands.courier import Parcel, Room
from fleet.database import Database
from fleet.keys import SigningKey
from fleet.push.config import Configs
from fleet.push.rollouts import Rollouts

log = logging.getLogger("tillfleet.courier")

TOGETHER_MAX = 50
GREETED_S = 2                            # between two looks for boxes that said hello and do not have it
HELLO_WITHOUT = ("OR (i.session <> coalesce(s.session, '') AND NOT (coalesce(r.epoch, 0) = i.epoch "
                 "AND coalesce(r.version, 0) = i.version))")
RATE_BYTES_S = 512 * 1024
QUEUED_MAX = 20_000                      # chunks in line; a box asks again for what was too many
QUEUED_OF_BOX_MAX = 520                  # the largest blob has 512
BURST_S = 2.0


def config_room(database: Database, tenant: str, key: SigningKey) -> Room:
    """Signs what is issued, publishes it, and publishes again what a box does not have when it says hello.  Moves rollouts on."""
    rollouts = Rollouts(database)
    looked_s = 0

    def due(at: str) -> Iterable[Parcel]:
        nonlocal looked_s
        for sentence in rollouts.advance(at):
            log.info("%s", sentence)
        now_s = int(datetime.fromisoformat(at).timestamp())
        greeted = not looked_s <= now_s < looked_s + GREETED_S     # every box is looked at: 40 ms for 10,000, not at every tick
        looked_s = now_s if greeted else looked_s
        rows = database.execute(
            "SELECT i.box, i.epoch, i.version, i.not_before, i.expires, i.body, i.token, i.session, i.sent_s, "
            "coalesce(s.session, '') FROM issued i LEFT JOIN session s ON s.box = i.box LEFT JOIN reported r ON r.box = i.box "
            f"WHERE i.newest = 1 AND (i.sent_s = 0 {HELLO_WITHOUT if greeted else ''}) "
            f"ORDER BY i.at, i.box LIMIT {TOGETHER_MAX}").fetchall()
        parcels = []
        for box, epoch, version, not_before, expires, body, token, session, sent_s, now_session in rows:
            try:
                token = token or wire.config_encoded(wire.Desired(epoch, version, box, not_before, expires, msgspec.json.decode(
                    body, type=wire.Body)), key.kid, key.sign).decode()
            except WireError as why:                  # looked at before it was issued; still, one box's must not stop all
                log.error("box %s: configuration %d.%d cannot be sent: %s", box, epoch, version, why.sentence)
            claimed = database.execute(
                "UPDATE issued SET token = ?, digest = ?, session = ?, sent_s = ? WHERE box = ? AND epoch = ? AND version = ? "
                "AND session = ? AND sent_s = ?", (token, wire.digest_of(token.encode()), now_session, now_s, box, epoch, version,
                                                    session, sent_s)).rowcount
            if claimed and token:
                parcels.append(Parcel(topics.of_box(tenant, box, "config/desired"), token.encode(), retain=True))
        return parcels
    return due


class _Chunk(NamedTuple):
    box: str
    sha256: str
    n: int


class BlobRoom:
    """Chunks that boxes want, `rate_bytes_s` for all of them together, each box in its turn."""

    def __init__(self, database: Database, tenant: str, *, rate_bytes_s: int = RATE_BYTES_S) -> None:
        self._db, self._tenant, self._rate = database, tenant, rate_bytes_s
        self._configs = Configs(database)
        self._lines: dict[str, deque[_Chunk]] = {}    # by box, the next one's first
        self._at: datetime | None = None
        self._credit = 0.0
        self._blob = ("", b"")                        # the last one read: chunks of one blob leave together

    def __call__(self, at: str) -> Iterable[Parcel]:
        now = datetime.fromisoformat(at)
        gone_s = min(BURST_S, max(0.0, (now - self._at).total_seconds())) if self._at is not None else BURST_S
        self._at, self._credit = now, min(self._rate * BURST_S, self._credit + self._rate * gone_s)
        self._ask()
        parcels = []
        while self._lines and self._credit > 0:
            box = next(iter(self._lines))
            line = self._lines.pop(box)
            one = line.popleft()
            if line:
                self._lines[box] = line               # behind the others
            data = self._data(one.sha256)[one.n * wire.CHUNK_BYTES:(one.n + 1) * wire.CHUNK_BYTES]
            self._credit -= len(data)
            parcels.append(Parcel(topics.blob(self._tenant, one.box, one.sha256, one.n), data))
        return parcels

    def _ask(self) -> None:
        """Put what boxes want in line; each report is answered by one courier, once."""
        queued = sum(map(len, self._lines.values()))
        for (box,) in self._db.execute("SELECT box FROM reported WHERE want = 1 ORDER BY at").fetchall():
            if queued >= QUEUED_MAX:
                break
            if not self._db.execute("UPDATE reported SET want = 0 WHERE box = ? AND want = 1", (box,)).rowcount:
                continue
            told, named = self._configs.report(box), self._named(box)
            assert told is not None
            line = self._lines.pop(box, deque())
            fresh = (_Chunk(box, sha256, n) for sha256, ranges in told.want.items() if sha256 in named for first, last in ranges
                     for n in range(first, min(last + 1, wire.chunks_of(named[sha256]))))
            # The first of each, whatever a box says how often: it may want one thing twice, and more than there is.
            chunks = list(itertools.islice(dict.fromkeys(itertools.chain(line, fresh)), QUEUED_OF_BOX_MAX))
            queued += len(chunks) - len(line)
            if chunks:
                self._lines[box] = deque(chunks)

    def _named(self, box: str) -> dict[str, int]:
        """Blobs and deltas that the box's own document names, with their sizes."""
        issued = self._configs.issued(box)
        blobs = list(issued.body.blobs.values()) if issued is not None else []
        named = {blob.sha256: blob.bytes for blob in blobs}
        return named | {way.sha256: way.bytes for blob in blobs for way in blob.deltas}

    def _data(self, sha256: str) -> bytes:
        if self._blob[0] != sha256:
            self._blob = sha256, self._configs.blob_bytes(sha256)
        return self._blob[1]
