"""What the collector has committed: records, one guard row for each journal, branches, alarms, quarantine.  SQLite or PostgreSQL.

Knows how a record may follow another and never overwrites one; refuses to know MQTT and what a sale is.  A batch is taken inside a
transaction that its caller opens, so that many batches share one commit and no answer precedes it; the guard row of its journal is
locked in that transaction, so any number of collectors may serve one box in turn.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from device.mqtt.wire import Batch
from device.store_forward.es256 import public_verifier
from device.store_forward.token import EMPTY_DIGEST, Parsed, TokenError, digest, parse, thumbprint
from fleet.database import opened
from fleet.records import store_schema
from fleet.records.door import Reading, Unreadable, mirrored, prev_of, read, signing_input
from fleet.records.leases import Leases
from fleet.records.store_rows import rows_of

__all__ = ["AHEAD_MAX", "BRANCH_MAX", "QUARANTINE_MAX", "Outcome", "Store", "Unreadable", "records", "sums"]

AHEAD_MAX = 5_000                        # records kept above a gap
BRANCH_MAX = 5_000                       # records of other branches kept for one journal
WANT_RANGES_MAX = 8
QUARANTINE_MAX = 200                     # unreadable messages kept for one box
ALARMS_MAX = 1_000                       # alarms kept of one box: what it merely says of its end can be an alarm, too
VERIFIERS_MAX = 20_000                   # keys held ready
QUARANTINE_BYTES_MAX = 70_000
ABSORB = 500                             # kept records looked at together when a gap closes

Verify = Callable[[bytes, bytes], bool]


class Outcome(msgspec.Struct, frozen=True):
    """What stands after a batch: the fields of the acknowledgement.  `kept` counts records that were new."""

    upto: int
    head: str
    want: tuple[tuple[int, int], ...] = ()
    verdict: Literal["ok", "fork"] = "ok"
    why: str = ""
    kept: int = 0


class Guard(msgspec.Struct):
    """The locked row of one journal, as it will stand at the commit."""

    upto: int = 0
    head: str = EMPTY_DIGEST
    top: int = 0
    forked: int = 0
    changed: bool = False


class _KeyUnknown(Exception):
    pass


class Store:
    """The database at `where` (a path, `":memory:"`, `postgresql://...`), made if needed.

    `keys` are the public JWKs known beforehand; one with a member `box` counts for that box alone.  One connection, used from one
    thread at a time.
    """

    def __init__(self, where: Path | str, keys: Sequence[Mapping[str, Any]] = ()) -> None:
        self.database = self._db = opened(where)
        store_schema.brought(self._db)
        self._rows = rows_of(self._db)
        self.leases = Leases(self._db, self.token)
        self.keys: list[dict[str, Any]] = [dict(k) for k in keys]
        self._verifiers: dict[tuple[str, str], Verify] = {}
        self._given: dict[str, list[dict[str, Any]]] = {}
        self._guards: dict[tuple[str, str], Guard] = {}      # locked in the open transaction
        self._waiting: list[tuple[str, str, int, str]] = []  # records of it that are not inserted yet
        self._at = ""

    def close(self) -> None:
        self._db.close()

    def again(self) -> None:
        """A fresh connection after the database was away."""
        self._forget()
        self._db.again()
        store_schema.brought(self._db)

    def ready_for(self, at: str) -> None:
        """Whatever must stand ready for records that arrive about `at` (RFC 3339): the day's parts, and the next day's."""
        self._rows.ready_for(_utc_day(at))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is committed at its end and on disk when it returns, or none of it ever was."""
        try:
            with self._db.transaction():
                yield
                self._flush()
                self._write_guards()
        except BaseException:
            self._forget()
            raise
        self._guards.clear()

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the open transaction that can fail alone."""
        self._flush()
        before = copy.deepcopy(self._guards)
        try:
            with self._db.part():
                yield
                self._flush()
        except BaseException:
            self._waiting.clear()
            self._guards = before                            # rows locked meanwhile are free again
            self._verifiers.clear()                          # a key introduced inside is not known any more
            raise

    def _forget(self) -> None:
        self._guards.clear()
        self._waiting.clear()
        self._verifiers.clear()

    # Taking --------------------------------------------------------------------------------------------------------

    def lock(self, journals: Iterable[tuple[str, str]]) -> None:
        """Lock the guard rows of those (box, jid) that are known: in one order, so that collectors do not wait for each other."""
        missing = sorted(set(journals) - self._guards.keys())
        for (box, jid), row in self._rows.locked(missing).items():
            self._guards[(box, jid)] = Guard(*row)

    def take(self, box: str, batch: Batch, at: str, reading: Reading | None = None) -> Outcome:
        """Keep what is new in `batch` from `box`; raise Unreadable, and then nothing of it was kept.

        Only inside `transaction()`.  `reading` is what `door.read` said of it, if that was asked before.  Repeats change nothing.
        Another content under a known number is an alarm and the verdict `fork`; both branches stay.
        """
        assert self._db.inside, "take outside a transaction"
        reading = reading or read(box, batch)
        self._at = at
        guard = self._guard(box, batch.jid)
        if batch.last > guard.upto + AHEAD_MAX:
            return Outcome(guard.upto, guard.head, ((guard.upto + 1, min(batch.first - 1, guard.upto + AHEAD_MAX)),))
        fresh = self._introduced(box, reading)
        if not reading.proven and (batch.last > guard.top or self.token(box, batch.jid, batch.last) != batch.tokens[-1]):
            try:                                     # a last record that stands here already was proven when it came
                self._prove(box, reading.last, fresh)
            except _KeyUnknown:
                if batch.first > guard.upto + 1:     # a record in the gap may introduce the key
                    return Outcome(guard.upto, guard.head, self._gaps(box, batch.jid, guard, batch.first))
                raise Unreadable("KEY_UNKNOWN", f"record {batch.last} is signed by {reading.last.kid}, which is not a key of "
                                               f"{box}") from None
        guard = self._guard_made(box, batch.jid)
        if not reading.special and batch.first == guard.upto + 1 == guard.top + 1 and reading.prevs[0] == guard.head:
            self._keep(box, batch, reading, 0, len(batch.tokens), guard)
            guard.upto, guard.head = batch.last, reading.digests[-1]
            return Outcome(guard.upto, guard.head, kept=len(batch.tokens))
        with self.part():
            return self._among(box, batch, reading, fresh, self._guards[(box, batch.jid)], at)

    def _keep(self, box: str, batch: Batch, reading: Reading, start: int, end: int, guard: Guard) -> None:
        """Records `start` to `end` of the batch stand from now on; numbers above `top` are new, as the locked guard says."""
        jid, first = batch.jid, batch.first
        self._waiting += [(box, jid, first + at, batch.tokens[at]) for at in range(start, end)]
        guard.top, guard.changed = max(guard.top, first + end - 1), True
        for at, record in reading.special.items():
            if not start <= at < end:
                continue
            if record.payload.kind == "key":
                public = _public(record)
                if public is not None:
                    self._db.execute("INSERT INTO key (kid, box, jwk, jid, seq) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING",
                                     (thumbprint(public), box, msgspec.json.encode(public).decode(), jid, first + at))
            else:
                self.leases.reserve(record.payload)  # what is given back is gone at once; what else it says counts when checked

    def _among(self, box: str, batch: Batch, reading: Reading, fresh: dict[str, Verify], guard: Guard, at: str) -> Outcome:
        """The long way: for a batch that repeats, leaves or fills a gap, was signed anew, or belongs to another branch."""
        jid, kept, forked = batch.jid, 0, ""
        known = self.tokens(box, jid, batch.first, batch.last) if batch.first <= guard.top else {}
        if guard.forked and batch.first > guard.upto and self._on_branch(box, jid, batch.first - 1, reading.prevs[0]):
            sentence = f"record {batch.first} goes on from another branch than the one committed"
            return self._forked(box, batch, 0, sentence, guard, at)
        for n, token in enumerate(batch.tokens):
            seq, stands = batch.first + n, known.get(batch.first + n)
            if stands == token:
                continue
            if stands is not None and signing_input(stands) == signing_input(token):
                self._twin(box, jid, seq, token, reading, n, fresh)
                if seq == guard.upto:
                    guard.head, guard.changed = reading.digests[n], True     # the box goes on from the signature that it holds
                continue
            if stands is not None:
                forked = f"record {seq} has another content than the one committed"
            elif seq == guard.upto + 1 and not self._follows(box, jid, guard, reading.prevs[n]):
                forked = f"record {seq} does not follow the record {guard.upto} that is committed"
            if forked:
                return self._forked(box, batch, n, forked, guard, at, kept)
            self._keep(box, batch, reading, n, n + 1, guard)
            kept += 1
            if seq == guard.upto + 1:
                guard.upto, guard.head = seq, reading.digests[n]
        forked = self._absorbed(box, jid, guard, at)
        if forked:
            return Outcome(guard.upto, guard.head, (), "fork", forked, kept)
        return Outcome(guard.upto, guard.head, self._gaps(box, jid, guard, batch.first), kept=kept)

    def _twin(self, box: str, jid: str, seq: int, token: str, reading: Reading, n: int, fresh: dict[str, Verify]) -> None:
        if n < len(reading.digests) - 1:             # the last one was proven at the door
            try:
                self._prove(box, parse(token), fresh)
            except (TokenError, _KeyUnknown) as why:
                raise Unreadable("BAD_SIGNATURE", f"record {seq} came again under a signature that cannot be checked: "
                                                 f"{why}") from None
        self._twin_kept(box, jid, seq, reading.digests[n], token)

    def _twin_kept(self, box: str, jid: str, seq: int, name: str, token: str) -> None:
        self._db.execute("INSERT INTO twin (box, jid, seq, digest, token) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING",
                         (box, jid, seq, name, token))

    def _follows(self, box: str, jid: str, guard: Guard, prev: str) -> bool:
        """Whether `prev` names the last committed record, by any valid signature of it; a new one is kept."""
        if prev == guard.head or prev in self._twins(box, jid, guard.upto):
            return True
        stands = self.token(box, jid, guard.upto)
        if stands is None:
            return False
        if prev == digest(stands):
            return True
        other = mirrored(stands)
        if prev != digest(other):
            return False
        self._twin_kept(box, jid, guard.upto, prev, other)
        return True

    def _absorbed(self, box: str, jid: str, guard: Guard, at: str) -> str:
        """Go on over records that were kept above a gap; "" or how they fail to follow."""
        while guard.upto < guard.top:
            above = self.tokens(box, jid, guard.upto + 1, guard.upto + ABSORB)
            before = guard.upto
            while (token := above.get(guard.upto + 1)) is not None:
                if not self._follows(box, jid, guard, prev_of(token)):
                    return self._moved(box, jid, guard, token, at)
                guard.upto, guard.head, guard.changed = guard.upto + 1, digest(token), True
            if guard.upto < before + ABSORB:
                break
        return ""

    def _moved(self, box: str, jid: str, guard: Guard, token: str, at: str) -> str:
        """What was kept above the gap belongs to another branch: make room for what follows, and lose nothing."""
        seq = guard.upto + 1
        sentence = f"record {seq}, kept above a gap, does not follow the record {guard.upto} that came later"
        self._alarm(at, box, jid, seq, "Fork", sentence, token)
        self._branched(box, jid, self.tokens(box, jid, seq, guard.top).items(), at)
        self._rows.removed_above(box, jid, guard.upto)
        guard.top, guard.forked, guard.changed = guard.upto, 1, True
        return sentence

    def _forked(self, box: str, batch: Batch, start: int, sentence: str, guard: Guard, at: str, kept: int = 0) -> Outcome:
        tokens = [(batch.first + n, batch.tokens[n]) for n in range(start, len(batch.tokens))]
        seq, token = tokens[0]
        seen = guard.forked and (self._on_branch(box, batch.jid, seq, digest(token)) or
                                 self._on_branch(box, batch.jid, seq - 1, prev_of(token)))
        if not seen:
            self._alarm(at, box, batch.jid, seq, "Fork", sentence, token)
        self._branched(box, batch.jid, tokens, at)
        guard.forked, guard.changed = 1, True
        return Outcome(guard.upto, guard.head, (), "fork", sentence, kept)

    def _branched(self, box: str, jid: str, tokens: Iterable[tuple[int, str]], at: str) -> None:
        room = BRANCH_MAX - self._db.execute("SELECT count(*) FROM branch WHERE box = ? AND jid = ?", (box, jid)).fetchone()[0]
        self._db.executemany("INSERT INTO branch (box, jid, seq, digest, token, at) VALUES (?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                             [(box, jid, seq, digest(token), token, at) for seq, token in tokens][:max(0, room)])

    def _on_branch(self, box: str, jid: str, seq: int, name: str) -> bool:
        return self._db.execute("SELECT 1 FROM branch WHERE box = ? AND jid = ? AND seq = ? AND digest = ?",
                                (box, jid, seq, name)).fetchone() is not None

    def _gaps(self, box: str, jid: str, guard: Guard, first: int) -> tuple[tuple[int, int], ...]:
        gaps: list[tuple[int, int]] = []
        expected = guard.upto + 1
        if guard.top > guard.upto:
            self._flush()
            for seq in self._rows.numbers_above(box, jid, guard.upto):
                if seq > expected:
                    gaps.append((expected, seq - 1))
                expected = seq + 1
                if len(gaps) == WANT_RANGES_MAX:
                    return tuple(gaps)
        if first > expected:
            gaps.append((expected, first - 1))
        return tuple(gaps)

    # Inside the transaction ----------------------------------------------------------------------------------------

    def _guard(self, box: str, jid: str) -> Guard:
        if (box, jid) not in self._guards:
            self.lock([(box, jid)])
        return self._guards.get((box, jid)) or Guard()

    def _guard_made(self, box: str, jid: str) -> Guard:
        """The locked row; made now when this is the first proven batch of its journal."""
        if (box, jid) not in self._guards:
            self._db.execute("INSERT INTO guard (box, jid, upto, head, changed) VALUES (?,?,0,?,'') ON CONFLICT DO NOTHING",
                             (box, jid, EMPTY_DIGEST))
            self.lock([(box, jid)])
        return self._guards[(box, jid)]

    def _flush(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self._rows.insert(waiting, _utc_day(self._at))

    def _write_guards(self) -> None:
        self._db.executemany(
            "UPDATE guard SET upto = ?, head = ?, top = ?, forked = ?, changed = ? WHERE box = ? AND jid = ?",
            [(g.upto, g.head, g.top, g.forked, self._at, *key) for key, g in sorted(self._guards.items()) if g.changed])

    def _alarm(self, at: str, box: str, jid: str, seq: int, name: str, sentence: str, token: str) -> None:
        before = self._db.execute("SELECT count(*) FROM alarm WHERE box = ?", (box,)).fetchone()[0]
        if before >= ALARMS_MAX:
            return
        if before == ALARMS_MAX - 1:
            name, sentence = "TooMany", f"{before} alarms of this box are kept: what follows is not told one by one"
        self._db.execute("INSERT INTO alarm (at, box, jid, seq, name, sentence, digest, token) "
                         "VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                         (at, box, jid, seq, name, _clean(sentence), digest(token), token))

    def alarm(self, at: str, box: str, jid: str, seq: int, name: str, sentence: str, token: str = "") -> None:
        """Keep an alarm once; `name` in CamelCase, `sentence` for a person."""
        self._alarm(at, box, jid, seq, name, sentence, token)

    def quarantine(self, box: str, name: str, sentence: str, raw: bytes, at: str) -> None:
        """Keep an unreadable message for a person to look at; the oldest of a box make room."""
        self._db.execute("INSERT INTO quarantine (at, box, name, sentence, raw) VALUES (?,?,?,?,?)",
                         (at, box, name, _clean(sentence), raw[:QUARANTINE_BYTES_MAX]))
        self._db.execute("DELETE FROM quarantine WHERE box = ? AND n <= (SELECT n FROM quarantine WHERE box = ? "
                         "ORDER BY n DESC LIMIT 1 OFFSET ?)", (box, box, QUARANTINE_MAX))

    def open_orders(self, box: str, body: str, at: str) -> None:
        """Replace what is known of a box's undecided orders (JSON text)."""
        self._db.execute("INSERT INTO open_now (box, at, body) VALUES (?,?,?) ON CONFLICT (box) DO UPDATE SET "
                         "at = excluded.at, body = excluded.body", (box, at, body))

    def said_end(self, box: str, jid: str, last: int, head: str, at: str) -> None:
        """Hold what the box says is the end of its journal; an alarm when it said a later one before and lost it since.

        Only for journals of which something is committed, or every box could fill the table with names.
        """
        row = self._db.execute("SELECT said_last, said_head FROM guard WHERE box = ? AND jid = ?", (box, jid)).fetchone()
        if row is None:
            return
        upto, _ = self.guard(box, jid)
        before, before_head = row
        if last < before and upto < before:
            self._alarm(at, box, jid, before, "CutTail", f"the box had {before} records, its last {before_head}, and now ends at "
                        f"{last}; {upto} of them are committed", "")
        elif (0 < before <= upto and before_head and before_head not in self.digests(box, jid, before)
              and not self._on_branch(box, jid, before, before_head)):       # what it had said did come: a fork, named as one
            self._alarm(at, box, jid, before, "EndChanged", f"record {before} came with another content than the box had said", "")
        self._db.execute("UPDATE guard SET said_last = ?, said_head = ? WHERE box = ? AND jid = ?", (last, head, box, jid))

    # Keys ----------------------------------------------------------------------------------------------------------

    def _introduced(self, box: str, reading: Reading) -> dict[str, Verify]:
        """The keys that `key` records of this batch bring, each proven by itself under a key known before it."""
        fresh: dict[str, Verify] = {}
        for record in reading.special.values():
            if record.payload.kind != "key":
                continue
            public = _public(record)
            if public is None:
                continue
            try:
                self._prove(box, record, fresh)
            except _KeyUnknown:                      # then it is no key either: the last record says what to do
                continue
            fresh[thumbprint(public)] = public_verifier(public)
        return fresh

    def _prove(self, box: str, record: Parsed, fresh: Mapping[str, Verify]) -> None:
        verify = fresh.get(record.kid) or self.verifier(box, record.kid)
        if verify is None:
            raise _KeyUnknown
        if not verify(record.signing_input, record.signature):
            raise Unreadable("BAD_SIGNATURE", f"the signature of record {record.payload.seq} does not hold")

    def proven(self, box: str, record: Parsed) -> bool:
        """Whether `record` holds under a key of `box` that is at hand; False says nothing.  Any thread's."""
        verify = self._verifiers.get((box, record.kid))
        return verify is not None and verify(record.signing_input, record.signature)

    def verifier(self, box: str, kid: str) -> Verify | None:
        """What checks signatures of `box` under key `kid`; None for a key that is not one of its."""
        verify = self._verifiers.get((box, kid))
        if verify is None:
            jwk = self._jwk(box, kid)
            if jwk is not None:
                if len(self._verifiers) >= VERIFIERS_MAX:
                    self._verifiers.clear()
                verify = self._verifiers[(box, kid)] = public_verifier(jwk)
        return verify

    def _jwk(self, box: str, kid: str) -> dict[str, Any] | None:
        if sum(map(len, self._given.values())) != len(self.keys):
            self._given = {}
            for jwk in self.keys:
                self._given.setdefault(thumbprint(jwk), []).append(jwk)
        for jwk in self._given.get(kid, ()):
            if jwk.get("box", box) == box:
                return jwk
        row = self._db.execute("SELECT jwk FROM key WHERE kid = ? AND box = ?", (kid, box)).fetchone()
        return msgspec.json.decode(row[0]) if row else None

    def verifiers(self, box: str) -> dict[str, Verify]:
        """What checks signatures of `box`, by kid."""
        told = [msgspec.json.decode(j) for (j,) in self._db.execute("SELECT jwk FROM key WHERE box = ?", (box,))]
        return {thumbprint(jwk): public_verifier(jwk) for jwk in [*self.keys, *told] if jwk.get("box", box) == box}

    # Asking --------------------------------------------------------------------------------------------------------

    def token(self, box: str, jid: str, seq: int) -> str | None:
        """The record's token as it first came; None when it is not here."""
        return self.tokens(box, jid, seq, seq).get(seq)

    def tokens(self, box: str, jid: str, first: int, last: int) -> dict[int, str]:
        """The tokens of records `first` to `last` that are here, by number."""
        self._flush()
        return self._rows.tokens(box, jid, first, last)

    def guard(self, box: str, jid: str) -> tuple[int, str]:
        """(upto, head) of one journal; (0, digest of nothing) when none of it came yet."""
        held = self._guards.get((box, jid))
        if held is not None:
            return held.upto, held.head
        row = self._db.execute("SELECT upto, head FROM guard WHERE box = ? AND jid = ?", (box, jid)).fetchone()
        return (row[0], row[1]) if row else (0, EMPTY_DIGEST)

    def guards(self) -> list[tuple[str, str, int, str]]:
        """(box, jid, upto, head) of every journal, in the order in which they first came."""
        return self._db.execute("SELECT box, jid, upto, head FROM guard ORDER BY n").fetchall()

    def guards_of(self, box: str, most: int) -> list[tuple[str, int, str]]:
        """(jid, upto, head) of the newest journals of `box` that hold a record."""
        return [(jid, upto, head) for jid, upto, head in self._db.execute(
            "SELECT jid, upto, head FROM guard WHERE box = ? AND upto > 0 ORDER BY n DESC LIMIT ?", (box, most)).fetchall()]

    def alarms(self) -> list[tuple[str, str, int, str, str]]:
        """(box, jid, seq, name, sentence), oldest first."""
        return self._db.execute("SELECT box, jid, seq, name, sentence FROM alarm ORDER BY n").fetchall()

    def branches(self, box: str, jid: str) -> list[tuple[int, str]]:
        """(seq, token) of records that contradict the committed ones, or stand behind such a record."""
        return self._db.execute("SELECT seq, token FROM branch WHERE box = ? AND jid = ? ORDER BY seq, digest",
                                (box, jid)).fetchall()

    def quarantined(self) -> list[tuple[str, str, str]]:
        """(box, name, sentence), oldest first."""
        return self._db.execute("SELECT box, name, sentence FROM quarantine ORDER BY n").fetchall()

    def known_keys(self) -> list[dict[str, Any]]:
        """Every record key's public JWK, those introduced by `key` records after those given beforehand."""
        told = [msgspec.json.decode(j) for (j,) in self._db.execute("SELECT jwk FROM key ORDER BY jid, seq")]
        seen: dict[str, dict[str, Any]] = {}
        for jwk in [*self.keys, *told]:
            seen.setdefault(thumbprint(jwk), jwk)
        return [{**{n: v for n, v in jwk.items() if n != "d"}, "kid": kid} for kid, jwk in seen.items()]

    def _twins(self, box: str, jid: str, seq: int) -> set[str]:
        return {d for (d,) in self._db.execute("SELECT digest FROM twin WHERE box = ? AND jid = ? AND seq = ?", (box, jid, seq))}

    def digests(self, box: str, jid: str, seq: int) -> set[str]:
        """The digests by which the next record may name record `seq`: one for each valid signature of it that is known."""
        known = self.token(box, jid, seq)
        return self._twins(box, jid, seq) | ({digest(known), digest(mirrored(known))} if known else {self.guard(box, jid)[1]})

    def chain(self, box: str, jid: str) -> list[str]:
        """The tokens of a journal, 1 to upto, as `numbered` chooses them."""
        return [token for _, token in self.numbered(box, jid, 1, self.guard(box, jid)[0])]

    def numbered(self, box: str, jid: str, first: int, last: int) -> list[tuple[int, str]]:
        """(seq, token) of `first` to `last`, not beyond upto.

        Where a record came under several signatures, the one that the next record names.
        """
        upto, head = self.guard(box, jid)
        last = min(last, upto)
        found = self.tokens(box, jid, first, last + 1)
        twins: dict[int, dict[str, str]] = {}
        for seq, name, token in self._db.execute("SELECT seq, digest, token FROM twin WHERE box = ? AND jid = ? AND seq BETWEEN "
                                                 "? AND ?", (box, jid, first, last)):
            twins.setdefault(seq, {})[name] = token
        for seq in sorted(twins, reverse=True):
            if seq in found:
                named = head if seq == upto else prev_of(found[seq + 1]) if seq + 1 in found else ""
                found[seq] = twins[seq].get(named, found[seq])
        return [(seq, found[seq]) for seq in range(first, last + 1) if seq in found]


def records(store: Store) -> dict[str, list[Any]]:
    """What is committed, as the counter page gives it: `{"keys": [JWK, ...], "tokens": [...]}` in chain order."""
    return {"keys": store.known_keys(), "tokens": [t for box, jid, _, _ in store.guards() for t in store.chain(box, jid)]}


def sums(store: Store) -> dict[str, int]:
    """`{"sales_fen", "refunds_fen", "count"}` over all boxes, of those records alone whose signature was checked."""
    row = store.database.execute("SELECT CAST(coalesce(sum(sales_fen), 0) AS BIGINT), "
                                 "CAST(coalesce(sum(refunds_fen), 0) AS BIGINT), "
                                 "CAST(coalesce(sum(count), 0) AS BIGINT) FROM guard").fetchone()
    return dict(zip(("sales_fen", "refunds_fen", "count"), row, strict=True))


def _public(record: Parsed) -> dict[str, str] | None:
    """The record key that a `key` record brings, under the signature of the old one; None when it brings none."""
    body = msgspec.json.decode(record.payload.body)
    jwk = body.get("jwk") if isinstance(body, dict) else None
    if not isinstance(jwk, dict):
        return None
    public = {name: jwk[name] for name in ("crv", "kty", "x", "y") if isinstance(jwk.get(name), str)}
    try:
        public_verifier(public)
        thumbprint(public)
    except (ValueError, KeyError, TokenError) as why:
        raise Unreadable("KEY_RECORD", f"record {record.payload.seq} introduces no usable key: {why}") from None
    return public


def _utc_day(at: str) -> str:
    return datetime.datetime.fromisoformat(at).astimezone(datetime.UTC).date().isoformat()


def _clean(text: str) -> str:
    """What any database takes as text."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
