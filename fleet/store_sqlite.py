"""What the collector has committed, in one SQLite file: records, one guard row for each journal, alarms, quarantine.

Knows how a record may follow another and never overwrites one; refuses to know MQTT and what a sale is.  A batch is
taken inside a transaction that its caller opens, so that many batches share one commit and no answer precedes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from device.mqtt.wire import Batch
from device.store_forward.es256 import public_verifier
from device.store_forward.token import EMPTY_DIGEST, Parsed, TokenError, digest, parse, thumbprint
from fleet.database import opened
from fleet.leases import SCHEMA, Leases

AHEAD_MAX = 5_000                        # records kept above a gap
WANT_RANGES_MAX = 8
QUARANTINE_MAX = 200                     # unreadable messages kept for one box
QUARANTINE_BYTES_MAX = 70_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS guard (n INTEGER PRIMARY KEY, box TEXT NOT NULL, jid TEXT NOT NULL, upto INTEGER NOT NULL,
    head TEXT NOT NULL, changed TEXT NOT NULL, UNIQUE (box, jid));
CREATE TABLE IF NOT EXISTS record (box TEXT NOT NULL, jid TEXT NOT NULL, seq INTEGER NOT NULL, token TEXT NOT NULL,
    PRIMARY KEY (box, jid, seq)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS twin (box TEXT NOT NULL, jid TEXT NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL,
    token TEXT NOT NULL, PRIMARY KEY (box, jid, seq, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alarm (n INTEGER PRIMARY KEY, at TEXT NOT NULL, box TEXT NOT NULL, jid TEXT NOT NULL,
    seq INTEGER NOT NULL, name TEXT NOT NULL, sentence TEXT NOT NULL, digest TEXT NOT NULL, token TEXT NOT NULL,
    UNIQUE (box, jid, seq, name, digest));
CREATE TABLE IF NOT EXISTS quarantine (n INTEGER PRIMARY KEY, at TEXT NOT NULL, box TEXT NOT NULL, name TEXT NOT NULL,
    sentence TEXT NOT NULL, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS key (kid TEXT NOT NULL, box TEXT NOT NULL, jwk TEXT NOT NULL, jid TEXT NOT NULL,
    seq INTEGER NOT NULL, PRIMARY KEY (kid, box)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS open_now (box TEXT PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL);
"""
VERSION = 2                              # 2: sales, refunds and leases by number


class Outcome(msgspec.Struct, frozen=True):
    """What stands after a batch: the fields of the acknowledgement.  `kept` counts records that were new."""

    upto: int
    head: str
    want: tuple[tuple[int, int], ...] = ()
    verdict: Literal["ok", "fork"] = "ok"
    why: str = ""
    kept: int = 0


class Unreadable(Exception):
    """A batch that cannot be taken at all; nothing of it was kept.  `name` for programs, `sentence` for a person."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f"{name}: {sentence}")
        self.name, self.sentence = name, sentence


class _KeyUnknown(Exception):
    pass


class Store:
    """The file at `path`, made if needed; `":memory:"` in tests.  `keys` are the public JWKs known beforehand.

    A JWK with a member `box` counts for that box alone.  One connection, used from one thread at a time.
    """

    def __init__(self, path: Path | str, keys: Sequence[Mapping[str, Any]] = ()) -> None:
        self.database = self._db = opened(path)
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found not in range(VERSION + 1):
            raise ValueError(f"{path} was written by a newer release (version {found}); this one reads version {VERSION}")
        self.leases = Leases(self._db)
        if found < VERSION:                          # a reader beside a writer writes nothing
            self._made(found)
        self.keys: list[dict[str, Any]] = [dict(k) for k in keys]
        self._verifiers: dict[tuple[str, str], Callable[[bytes, bytes], bool]] = {}

    def _made(self, found: int) -> None:
        """Bring a store of version `found`, 0 for an empty file, to this one, whole or not at all."""
        with self.transaction():
            self._db.made(_SCHEMA + SCHEMA)
            for (token,) in self._db.execute("SELECT token FROM record ORDER BY box, jid, seq") if found else ():
                self.leases.note(parse(token).payload)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside is committed at its end and on disk when it returns, or none of it ever was."""
        with self._forgetting(), self._db.transaction():
            yield

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the open transaction that can fail alone."""
        with self._forgetting(), self._db.part():
            yield

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._verifiers.clear()                  # a key introduced inside is not known any more
            raise

    # Taking --------------------------------------------------------------------------------------------------------

    def take(self, box: str, batch: Batch, at: str) -> Outcome:
        """Keep what is new in `batch` from `box`; raise Unreadable, and then nothing of it was kept.

        Only inside `transaction()`.  Repeats change nothing.  Another content under a known number is an alarm and the
        verdict `fork`; both branches stay.
        """
        assert self._db.inside, "take outside a transaction"
        parsed = _parsed(box, batch)
        with self.part():
            return self._taken(box, batch, parsed, at)

    def _taken(self, box: str, batch: Batch, parsed: list[Parsed], at: str) -> Outcome:
        jid = batch.jid
        upto, head = self.guard(box, jid)
        if batch.last > upto + AHEAD_MAX:
            return Outcome(upto, head, ((upto + 1, min(batch.first - 1, upto + AHEAD_MAX)),))
        kept, forked = 0, ""
        for token, record in zip(batch.tokens, parsed, strict=True):
            seq = record.payload.seq
            known = self._token(box, jid, seq)
            if known == token:
                continue
            try:
                self._check(box, record)
            except _KeyUnknown:
                if seq > upto + 1:                   # a record in the gap may introduce the key
                    break
                raise Unreadable("KEY_UNKNOWN", f"record {seq} is signed by {record.kid}, which is not a key of "
                                               f"{box}") from None
            if known is not None and parse(known).signing_input == record.signing_input:
                self._db.execute("INSERT INTO twin VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING",
                                 (box, jid, seq, digest(token), token))
                if seq == upto:
                    head = digest(token)             # the box goes on from the signature that it holds
                continue
            if known is not None:
                forked = f"record {seq} has another content than the one committed"
            elif seq == upto + 1 and record.payload.prev not in self.digests(box, jid, upto) | {head}:
                forked = f"record {seq} does not follow the record {upto} that is committed"
            if forked:
                self._alarm(at, box, jid, seq, "Fork", forked, token)
                break
            self._db.execute("INSERT INTO record VALUES (?,?,?,?)", (box, jid, seq, token))
            kept += 1
            self._introduce(box, record)
            self.leases.note(record.payload)
            if seq == upto + 1:
                upto, head = seq, digest(token)
        upto, head, broken = self._absorbed(box, jid, upto, head, at)
        forked = forked or broken
        self._db.execute("INSERT INTO guard (box, jid, upto, head, changed) VALUES (?,?,?,?,?) ON CONFLICT (box, jid) "
                         "DO UPDATE SET upto = excluded.upto, head = excluded.head, changed = excluded.changed",
                         (box, jid, upto, head, at))
        if forked:
            return Outcome(upto, head, (), "fork", forked, kept)
        return Outcome(upto, head, self._gaps(box, jid, upto, batch.first), kept=kept)

    def _absorbed(self, box: str, jid: str, upto: int, head: str, at: str) -> tuple[int, str, str]:
        """Go on over records that were kept above a gap; (upto, head, "" or how they fail to follow)."""
        while (token := self._token(box, jid, upto + 1)) is not None:
            if parse(token).payload.prev not in self.digests(box, jid, upto) | {head}:
                sentence = f"record {upto + 1}, kept above a gap, does not follow the record {upto} that came later"
                self._alarm(at, box, jid, upto + 1, "Fork", sentence, token)
                return upto, head, sentence
            upto, head = upto + 1, digest(token)
        return upto, head, ""

    def _gaps(self, box: str, jid: str, upto: int, first: int) -> tuple[tuple[int, int], ...]:
        gaps: list[tuple[int, int]] = []
        expected = upto + 1
        for (seq,) in self._db.execute("SELECT seq FROM record WHERE box = ? AND jid = ? AND seq > ? ORDER BY seq",
                                       (box, jid, upto)):
            if seq > expected:
                gaps.append((expected, seq - 1))
            expected = seq + 1
            if len(gaps) == WANT_RANGES_MAX:
                return tuple(gaps)
        if first > expected:
            gaps.append((expected, first - 1))
        return tuple(gaps)

    def _check(self, box: str, record: Parsed) -> None:
        verify = self._verifiers.get((box, record.kid))
        if verify is None:
            jwk = self._jwk(box, record.kid)
            if jwk is None:
                raise _KeyUnknown
            verify = self._verifiers[(box, record.kid)] = public_verifier(jwk)
        if not verify(record.signing_input, record.signature):
            raise Unreadable("BAD_SIGNATURE", f"the signature of record {record.payload.seq} does not hold")

    def _jwk(self, box: str, kid: str) -> dict[str, Any] | None:
        for jwk in self.keys:
            if jwk.get("box", box) == box and thumbprint(jwk) == kid:
                return jwk
        row = self._db.execute("SELECT jwk FROM key WHERE kid = ? AND box = ?", (kid, box)).fetchone()
        return msgspec.json.decode(row[0]) if row else None

    def verifiers(self, box: str) -> dict[str, Callable[[bytes, bytes], bool]]:
        """What checks signatures of `box`, by kid."""
        told = [msgspec.json.decode(j) for (j,) in self._db.execute("SELECT jwk FROM key WHERE box = ?", (box,))]
        return {thumbprint(jwk): public_verifier(jwk) for jwk in [*self.keys, *told] if jwk.get("box", box) == box}

    def _introduce(self, box: str, record: Parsed) -> None:
        """A `key` record brings a new record key, under the signature of the old one, for its own box alone."""
        if record.payload.kind != "key":
            return
        body = msgspec.json.decode(record.payload.body)
        jwk = body.get("jwk") if isinstance(body, dict) else None
        if not isinstance(jwk, dict):
            return
        public = {name: jwk[name] for name in ("crv", "kty", "x", "y") if isinstance(jwk.get(name), str)}
        try:
            public_verifier(public)
            kid = thumbprint(public)
        except (ValueError, KeyError, TokenError) as why:
            raise Unreadable("KEY_RECORD", f"record {record.payload.seq} introduces no usable key: {why}") from None
        self._db.execute("INSERT INTO key VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING",
                         (kid, box, msgspec.json.encode(public).decode(), record.payload.jid, record.payload.seq))

    def _token(self, box: str, jid: str, seq: int) -> str | None:
        row = self._db.execute("SELECT token FROM record WHERE box = ? AND jid = ? AND seq = ?",
                               (box, jid, seq)).fetchone()
        return row[0] if row else None

    def digests(self, box: str, jid: str, seq: int) -> set[str]:
        """The digests by which the next record may name record `seq`: one for each valid signature seen on it."""
        twins = {d for (d,) in self._db.execute("SELECT digest FROM twin WHERE box = ? AND jid = ? AND seq = ?",
                                                (box, jid, seq))}
        known = self._token(box, jid, seq)
        return twins | {digest(known) if known else self.guard(box, jid)[1]}

    def _alarm(self, at: str, box: str, jid: str, seq: int, name: str, sentence: str, token: str) -> None:
        self._db.execute("INSERT INTO alarm (at, box, jid, seq, name, sentence, digest, token) "
                         "VALUES (?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
                         (at, box, jid, seq, name, sentence, digest(token), token))

    def quarantine(self, box: str, name: str, sentence: str, raw: bytes, at: str) -> None:
        """Keep an unreadable message for a person to look at; the oldest of a box make room."""
        self._db.execute("INSERT INTO quarantine (at, box, name, sentence, raw) VALUES (?,?,?,?,?)",
                         (at, box, name, sentence, raw[:QUARANTINE_BYTES_MAX]))
        self._db.execute("DELETE FROM quarantine WHERE box = ? AND n NOT IN (SELECT n FROM quarantine WHERE box = ? "
                         "ORDER BY n DESC LIMIT ?)", (box, box, QUARANTINE_MAX))

    def open_orders(self, box: str, body: str, at: str) -> None:
        """Replace what is known of a box's undecided orders (JSON text)."""
        self._db.execute("INSERT INTO open_now (box, at, body) VALUES (?,?,?) ON CONFLICT (box) DO UPDATE SET "
                         "at = excluded.at, body = excluded.body", (box, at, body))

    # Asking --------------------------------------------------------------------------------------------------------

    def guard(self, box: str, jid: str) -> tuple[int, str]:
        """(upto, head) of one journal; (0, digest of nothing) when none of it came yet."""
        row = self._db.execute("SELECT upto, head FROM guard WHERE box = ? AND jid = ?", (box, jid)).fetchone()
        return (row[0], row[1]) if row else (0, EMPTY_DIGEST)

    def guards(self) -> list[tuple[str, str, int, str]]:
        """(box, jid, upto, head) of every journal, in the order in which they first came."""
        return self._db.execute("SELECT box, jid, upto, head FROM guard ORDER BY n").fetchall()

    def alarms(self) -> list[tuple[str, str, int, str, str]]:
        """(box, jid, seq, name, sentence), oldest first."""
        return self._db.execute("SELECT box, jid, seq, name, sentence FROM alarm ORDER BY n").fetchall()

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

    def chain(self, box: str, jid: str) -> list[str]:
        """The tokens 1 to upto; where a record came under several signatures, the one that the next record names."""
        upto, head = self.guard(box, jid)
        rows = self._db.execute("SELECT token FROM record WHERE box = ? AND jid = ? AND seq <= ? ORDER BY seq",
                                (box, jid, upto)).fetchall()
        tokens = [t for (t,) in rows]
        twins: dict[int, dict[str, str]] = {}
        for seq, name, token in self._db.execute("SELECT seq, digest, token FROM twin WHERE box = ? AND jid = ?",
                                                 (box, jid)):
            twins.setdefault(seq, {})[name] = token
        for seq, choice in twins.items():
            if seq <= len(tokens):
                named = parse(tokens[seq]).payload.prev if seq < len(tokens) else head
                tokens[seq - 1] = choice.get(named, tokens[seq - 1])
        return tokens


def records(store: Store) -> dict[str, list[Any]]:
    """What is committed, as the counter page gives it: `{"keys": [JWK, ...], "tokens": [...]}` in chain order."""
    return {"keys": store.known_keys(), "tokens": [t for box, jid, _, _ in store.guards() for t in store.chain(box, jid)]}


def sums(store: Store) -> dict[str, int]:
    """`{"sales_fen", "refunds_fen", "count"}` over all boxes: the last record of each journal carries that journal's."""
    total = {"sales_fen": 0, "refunds_fen": 0, "count": 0}
    for box, jid, upto, _ in store.guards():
        token = store._token(box, jid, upto)
        if token is not None:
            last = msgspec.to_builtins(parse(token).payload.sum)
            total = {name: total[name] + last[name] for name in total}
    return total


def defects(store: Store) -> list[tuple[str, str, int, str, str]]:
    """Check everything that is committed once more: (box, jid, seq, ERROR_NAME, sentence) for each defect."""
    found: list[tuple[str, str, int, str, str]] = []
    for box, jid, upto, head in store.guards():
        tokens = store.chain(box, jid)
        if len(tokens) != upto:
            found.append((box, jid, upto, "GAP", f"{len(tokens)} records stand below {upto}"))
        prev, running = EMPTY_DIGEST, {"sales_fen": 0, "refunds_fen": 0, "count": 0}
        for seq, token in enumerate(tokens, 1):
            try:
                record = parse(token)
                store._check(box, record)
            except (TokenError, Unreadable) as why:
                found.append((box, jid, seq, why.name, why.sentence))
                prev = digest(token)
                continue
            except _KeyUnknown:
                found.append((box, jid, seq, "KEY_UNKNOWN", f"record {seq} is signed by an unknown key"))
                prev = digest(token)
                continue
            if (record.payload.box, record.payload.jid, record.payload.seq) != (box, jid, seq):
                found.append((box, jid, seq, "PLACE", f"record {seq} names another box, journal or number"))
            if record.payload.prev != prev:
                found.append((box, jid, seq, "LINK", f"record {seq} does not name the record before it"))
            prev = digest(token)
            running = _added(running, record)
            told = msgspec.to_builtins(record.payload.sum)
            if told != running:
                found.append((box, jid, seq, "SUM", f"record {seq} says {told}, the records give {running}"))
                running = told
        if tokens and prev != head:
            found.append((box, jid, upto, "HEAD", "the last record is not the one that was acknowledged"))
    found += [(box, jid, seq, name.upper(), sentence) for box, jid, seq, name, sentence in store.alarms()]
    return found


def _added(running: dict[str, int], record: Parsed) -> dict[str, int]:
    field = {"sale": "sales_fen", "refund": "refunds_fen"}.get(record.payload.kind)
    if field is None:
        return running
    amount_fen = msgspec.json.decode(record.payload.body).get("amount_fen", 0)
    return {**running, field: running[field] + amount_fen, "count": running["count"] + 1}


def _parsed(box: str, batch: Batch) -> list[Parsed]:
    """The batch's records, their places and the links among them checked; Unreadable otherwise."""
    out: list[Parsed] = []
    for at, token in enumerate(batch.tokens):
        try:
            record = parse(token)
        except TokenError as why:
            raise Unreadable(why.name, why.sentence) from None
        payload = record.payload
        if payload.box != box or payload.jid != batch.jid or payload.seq != batch.first + at:
            raise Unreadable("WRONG_PLACE", f"record {batch.first + at} of the batch names box {payload.box!r}, "
                                           f"journal {payload.jid!r}, number {payload.seq}")
        if at and payload.prev != digest(batch.tokens[at - 1]):
            raise Unreadable("BROKEN_LINK", f"record {payload.seq} does not name the one before it in its batch")
        if payload.seq == 1 and payload.prev != EMPTY_DIGEST:
            raise Unreadable("BROKEN_LINK", "record 1 names a record before it")
        out.append(record)
    if digest(batch.tokens[-1]) != batch.head:
        raise Unreadable("WRONG_HEAD", "the head of the batch is not the digest of its last record")
    return out
