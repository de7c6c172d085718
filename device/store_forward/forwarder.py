"""Which records leave next, and which have arrived: a cursor over durable tokens, a window, and patience.

Knows sequence numbers, digests and milliseconds handed to it; refuses to know a clock, a socket, a file or money.  The
journal is the only queue: this object holds places in it, never records, so a restart loses nothing but patience.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import msgspec

from device.mqtt.wire import BODY_MAX_BYTES, RECORDS_MAX, Ack, Batch
from device.store_forward.token import digest

WINDOW_MAX = 16                          # batches that the collector has not acknowledged
TIMEOUT_MIN_MS = 5_000                   # or four times the smoothed way there and back
BACKOFF_MAX_MS = 300_000
KNOCK_EVERY_MS = 600_000                 # one batch though no collector is said to be up


class Released(msgspec.Struct, frozen=True):
    """Everything up to `upto` is committed in the cloud; `head` is our own digest of that record."""

    upto: int
    head: str


class Refused(msgspec.Struct, frozen=True):
    """The acknowledgement moved nothing; `name` for programs, `why` one sentence.  `OldAck` is ordinary."""

    name: str
    why: str


class _Flight(msgspec.Struct):
    first: int
    last: int
    sent_ms: int
    again: bool                          # sent before: its answer says nothing about the round trip
    wanted: bool


class Forwarder:
    """The sending side for one journal.

    `tokens(after, limit)` gives up to `limit` durable (seq, token) above `after`, without a gap, lowest first; `upto`
    and `head` are the last place that the collector released (0 and any text for none).  `top()`, where somebody knows it
    without a look, is the highest seq that `tokens` would give.  The caller calls `due` after
    every new record, acknowledgement, change of the link and at `next_due_ms()`, and sends what it returns.
    A batch that is not full leaves `lag_ms` after its first record was seen, so that others may come along.
    """

    def __init__(self, jid: str, upto: int, head: str, *, tokens: Callable[[int, int], list[tuple[int, str]]],
                 seed: int, lag_ms: int = 0, top: Callable[[], int] | None = None) -> None:
        self.jid, self.upto, self.head, self.lag_ms = jid, upto, head, lag_ms
        self.halted = ""                 # why nothing is sent any more: a fork or a rollback, until a new journal
        self.trouble = ""                # why the collector could not read us, until it can again
        self._tokens, self._top = tokens, top
        self._random = random.Random(seed)
        self._link = self._collector = False
        self._sent = upto                # highest record of the ordinary run sent since the last restart of the run
        self._highest = upto             # highest record ever sent
        self._flights: list[_Flight] = []
        self._heads: dict[int, str] = {} # last record to its digest, of batches sent: most acknowledgements name one of them
        self._firsts: deque[tuple[int, int]] = deque()   # (last record, when) of batches that were new when they left
        self._wanted: deque[tuple[int, int]] = deque()
        self._window = 1
        self._failures = 0
        self._srtt_ms = 0
        self._quiet_until_ms = 0         # backing off
        self._hold_until_ms = 0          # the collector asked
        self._knock_ms = 0
        self._fresh: tuple[int, int] | None = None     # the first record that waits for company, and since when

    @property
    def oldest(self) -> int:
        """Number of the oldest record that the cloud has not confirmed; it may not be written yet."""
        return self.upto + 1

    def sent_ms(self, seq: int) -> int | None:
        """When unconfirmed record `seq` left for the first time, or was to; None when not since this object was made."""
        return next((ms for last, ms in self._firsts if last >= seq), None)

    @property
    def outstanding(self) -> int:
        """Batches sent and not acknowledged by the collector."""
        return len(self._flights)

    def on_link(self, up: bool, collector: bool, now_ms: int) -> None:
        """The line to the broker is `up` or not, and some collector listens or not."""
        came = up and (not self._link or (collector and not self._collector))
        if (not up and self._link) or came:
            self._restart()              # what was under way is lost for all we know; slow start
        if came:
            self._failures, self._quiet_until_ms = 0, now_ms
        if up and not collector and (not self._link or self._collector):
            self._knock_ms = now_ms + KNOCK_EVERY_MS
        self._link, self._collector = up, collector

    def due(self, now_ms: int, most: int = WINDOW_MAX) -> list[Batch]:
        """The batches to send now, at most `most`, each counted as sent; lost ones come again by themselves."""
        if not self._link or self.halted:
            return []
        if self._collector:
            self._expire(now_ms)         # a knock that nobody answers needs no pause of its own
        if now_ms < max(self._quiet_until_ms, self._hold_until_ms):
            return []
        if not self._collector:
            if now_ms < self._knock_ms:
                return []
            self._restart()
            one = self._next(now_ms)
            if one is not None:
                self._knock_ms = now_ms + KNOCK_EVERY_MS
            return [one] if one else []
        batches: list[Batch] = []
        while self._room() and len(batches) < most:
            batch = self._next(now_ms)
            if batch is None:
                break
            batches.append(batch)
        return batches

    def hurry(self, now_ms: int) -> int:
        """End every pause of our own; the seconds that the collector still asks us to hold, 0 for none."""
        self._quiet_until_ms, self._failures = now_ms, 0
        self._knock_ms = min(self._knock_ms, now_ms)
        if self._fresh is not None:
            self._fresh = self._fresh[0], now_ms - self.lag_ms
        return max(0, -(-(self._hold_until_ms - now_ms) // 1000))

    def unsent(self, batch: Batch, now_ms: int) -> None:
        """The link could not take `batch`: forget that it was sent, and let a second pass."""
        self._flights = [f for f in self._flights if f.first != batch.first or f.last != batch.last]
        self._sent = max(self.upto, min(self._sent, batch.first - 1))
        self._quiet_until_ms = max(self._quiet_until_ms, now_ms + 1_000)

    def on_ack(self, ack: Ack, now_ms: int) -> Released | Refused:
        """Take the collector's word.  `Released` only when our own token of that number has the digest it names."""
        if ack.jid != self.jid:
            if ack.verdict == "unreadable" and not ack.jid:
                self._unreadable(ack, now_ms)
                return Refused("Unreadable", ack.why or "the collector could not read a batch")
            return Refused("OtherJournal", f"journal {ack.jid} is not the one being sent")
        if ack.upto > 0 and ack.upto >= self.upto:
            own = self._heads.get(ack.upto) or self._digest_of(ack.upto)
            if not own:
                if ack.verdict == "rollback":
                    self.halted = "rollback"
                    return Refused("Rollback", f"the collector holds record {ack.upto}, which this box never wrote or lost")
                return Refused("AckAhead", f"record {ack.upto} is acknowledged and not in the journal")
            if own != ack.head:
                if ack.verdict == "fork":
                    self.halted = "fork"
                return Refused("HeadDiffers", f"the collector holds another record under number {ack.upto}")
        if ack.verdict == "fork":
            self.halted = "fork"
            return Refused("Fork", ack.why or "the collector holds another branch of this journal")
        self._hold_until_ms = now_ms + ack.hold_ms if ack.hold_ms else self._hold_until_ms
        if ack.verdict == "unreadable":
            self._unreadable(ack, now_ms)
        self._heed(ack)
        self._settle(ack, now_ms)
        if ack.upto < self.upto:
            return Refused("OldAck", f"record {ack.upto} was acknowledged before, we are at {self.upto}")
        if ack.upto > self.upto:
            self.upto, self.head = ack.upto, ack.head
            self._sent, self._highest = max(self._sent, self.upto), max(self._highest, self.upto)
            while self._firsts and self._firsts[0][0] <= self.upto:
                self._firsts.popleft()
            self._heads = {last: head for last, head in self._heads.items() if last >= self.upto}    # it may be said again
            self._window = min(WINDOW_MAX, self._window * 2)
            self._failures = 0
            if ack.verdict != "unreadable":
                self.trouble = ""
                self._quiet_until_ms = now_ms
        return Released(self.upto, self.head)

    def next_due_ms(self) -> int | None:
        """When `due` is worth asking again by the clock alone; None: only an acknowledgement, a record or the link can help."""
        if not self._link or self.halted:
            return None
        floor_ms = max(self._quiet_until_ms, self._hold_until_ms)
        if not self._collector:
            return max(floor_ms, self._knock_ms) if self._is_there(self.upto + 1) else None
        waits = [f.sent_ms + self._timeout_ms() for f in self._flights]
        if self._room() and (self._wanted or self._is_there(self._sent + 1)):
            lags = self.lag_ms and not self._wanted and self._fresh is not None and self._fresh[0] == self._sent + 1
            waits.append(self._fresh[1] + self.lag_ms if lags and self._fresh is not None else floor_ms)
        return max(floor_ms, min(waits)) if waits else None

    # Inside ----------------------------------------------------------------------------------------------------

    def _timeout_ms(self) -> int:
        return max(TIMEOUT_MIN_MS, 4 * self._srtt_ms)

    def _room(self) -> bool:
        if len(self._flights) < self._window:
            return True                  # a gap is repaired at once: what is on its way may be waiting above it
        return bool(self._wanted) and len(self._flights) < WINDOW_MAX and not any(f.wanted for f in self._flights)

    def _is_there(self, seq: int) -> bool:
        return seq <= self._top() if self._top is not None else bool(self._digest_of(seq))

    def _digest_of(self, seq: int) -> str:
        """Our own digest of record `seq`, "" when it is not here."""
        found = self._tokens(seq - 1, 1)
        return digest(found[0][1]) if found and found[0][0] == seq else ""

    def _restart(self) -> None:
        self._heads.clear()
        self._flights.clear()
        self._wanted.clear()
        self._sent, self._window = self.upto, 1

    def _expire(self, now_ms: int) -> None:
        """No answer to the oldest batch in time: everything after `upto` goes again, after a pause drawn from a growing span."""
        if not any(now_ms - f.sent_ms >= self._timeout_ms() for f in self._flights):
            return
        self._restart()
        self._back_off(now_ms)

    def _back_off(self, now_ms: int) -> None:
        span_ms = min(BACKOFF_MAX_MS, TIMEOUT_MIN_MS * 2 ** min(self._failures, 10))
        self._failures += 1
        self._quiet_until_ms = now_ms + self._random.randrange(span_ms)

    def _unreadable(self, ack: Ack, now_ms: int) -> None:
        self.trouble = ack.why or "the collector could not read a batch"
        self._restart()
        self._back_off(now_ms)

    def _heed(self, ack: Ack) -> None:
        """The newest acknowledgement shows the collector's whole picture: its gaps replace those known before."""
        self._wanted.clear()
        for first, last in ack.want:
            last = min(last, self._highest)
            for flight in self._flights:             # what was sent because it was wanted is still on its way
                if flight.wanted and flight.first <= first <= flight.last:
                    first = flight.last + 1
            if first <= last:
                self._wanted.append((first, last))
                self._flights = [f for f in self._flights if f.wanted or f.last < first or f.first > last]

    def _settle(self, ack: Ack, now_ms: int) -> None:
        for flight in self._flights:
            if flight.last <= ack.upto and not flight.again:
                way_ms = now_ms - flight.sent_ms
                self._srtt_ms = way_ms if not self._srtt_ms else (7 * self._srtt_ms + way_ms) // 8
        self._flights = [f for f in self._flights if f.last > ack.upto]

    def _next(self, now_ms: int) -> Batch | None:
        while self._wanted:
            first, last = self._wanted.popleft()
            batch = self._batch(first - 1, last - first + 1)
            if batch is None or batch.first != first:
                continue                 # not held any more, or not written: the ordinary run will say what there is
            if batch.last < last:
                self._wanted.appendleft((batch.last + 1, last))
            self._flights.append(_Flight(batch.first, batch.last, now_ms, True, True))
            return batch
        batch = self._batch(self._sent, RECORDS_MAX)
        if batch is None or (self.lag_ms and self._may_grow(batch, now_ms)):
            return None
        assert batch.first == self._sent + 1, (batch.first, self._sent)
        self._flights.append(_Flight(batch.first, batch.last, now_ms, batch.first <= self._highest, False))
        self._heads[batch.last] = batch.head
        if batch.last > self._highest:
            self._firsts.append((batch.last, now_ms))
        self._sent = batch.last
        self._highest = max(self._highest, batch.last)
        return batch

    def _may_grow(self, batch: Batch, now_ms: int) -> bool:
        """True while `batch` is not full and its first record was seen less than the lag ago."""
        if self._fresh is None or self._fresh[0] != batch.first:
            self._fresh = batch.first, now_ms
        full = len(batch.tokens) == RECORDS_MAX or self._is_there(batch.last + 1)
        return not full and now_ms < self._fresh[1] + self.lag_ms

    def _batch(self, after: int, limit: int) -> Batch | None:
        taken: list[tuple[int, str]] = []
        size = 0
        for seq, token in self._tokens(after, min(limit, RECORDS_MAX)):
            size += len(token) + 1
            if size > BODY_MAX_BYTES:
                break
            assert not taken or seq == taken[-1][0] + 1, "the journal's tokens have a gap"
            taken.append((seq, token))
        if not taken:
            return None
        return Batch(self.jid, taken[0][0], taken[-1][0], digest(taken[-1][1]), tuple(t for _, t in taken))
