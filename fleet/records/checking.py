"""Every single signature, after the door: how far each journal was checked, and what of it may count.

The door proved the last record of each batch and the links to those before it.  Here each record is parsed in full and its own
signature checked, in order; `guard.checked` is how far, and nothing above it counts in a sum or is leased.  The first record that
does not hold is an alarm and stops its journal there, by name, until a person has looked (`tillfleet check --again`): what came
after it stays committed and acknowledged, for the box has done its part.  A wrong running total is an alarm and stops nothing:
our sums are our own.

Knows the store; refuses to know MQTT.  Reading and checking hold no lock; settling takes a moment's, and of two checkers that did
the same piece one settles and the other's work falls away.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from device.store_forward.token import EMPTY_DIGEST, Parsed, Sum, TokenError, digest, parse
from fleet.database import DatabaseFailed
from fleet.records.store import Store, Verify

log = logging.getLogger("tillfleet.check")

AWAY_PAUSE_S = 2.0
PIECE = 1_000                            # records checked between two looks around: about 100 ms
BEHIND_NICE = 15                         # of a checker that leaves the processor to the door
JOURNALS = 64                            # journals fetched at a time

COUNTED = frozenset({"sale", "refund"})
ALARMS_MAX = 64                          # wrong totals told of one piece

Held = tuple[Parsed, Verify, int]      # and the amount in fen, 0 for what has none
Sums = tuple[int, int, int]              # sales_fen, refunds_fen, count


class Piece(NamedTuple):
    """What was found of one journal from `start` on: `records` hold; `stop` is "" or why the next one does not."""

    box: str
    jid: str
    start: int
    records: list[Parsed]
    sums: Sums
    alarms: list[tuple[int, str, str, str]]          # seq, name, sentence, token
    stop: str


class Stop(NamedTuple):
    """The first record that does not hold."""

    seq: int
    name: str
    sentence: str
    token: str


class _Amount(msgspec.Struct):
    amount_fen: int = 0


_amount = msgspec.json.Decoder(_Amount).decode


def due(store: Store, limit: int = JOURNALS, *, nearest: bool = False) -> list[tuple[str, str]]:
    """(box, jid) of journals with unchecked records; `nearest` those with the fewest first, and none that another one writes to."""
    sql = "SELECT box, jid FROM guard WHERE upto > checked AND stopped = ''"
    if nearest:
        sql += " ORDER BY upto - checked LIMIT ?" + (" FOR UPDATE SKIP LOCKED" if store.database.kind == "postgresql" else "")
    else:
        sql += " ORDER BY n LIMIT ?"
    return store.database.execute(sql, (limit,)).fetchall()


def waiting(store: Store) -> int:
    """Records that are committed and not checked yet, those behind a stop left out."""
    return int(store.database.execute("SELECT CAST(coalesce(sum(upto - checked), 0) AS BIGINT) FROM guard "
                                      "WHERE upto > checked AND stopped = ''").fetchone()[0])


def examined(store: Store, box: str, jid: str, limit: int = PIECE) -> Piece | None:
    """Check the next `limit` records of a journal; None when none is due.  Writes nothing."""
    row = store.database.execute("SELECT upto, checked, sales_fen, refunds_fen, count FROM guard WHERE box = ? AND jid = ? "
                                 "AND stopped = ''", (box, jid)).fetchone()
    if row is None or row[0] <= row[1]:
        return None
    upto, start, *was = row
    last = min(upto, start + limit)
    tokens = store.numbered(box, jid, start + 1, last)
    held, stop = _read(store, box, jid, start, tokens)
    unproven = _unproven(held)
    if unproven is not None:
        seq = start + 1 + unproven
        stop = Stop(seq, "BAD_SIGNATURE", f"the signature of record {seq} does not hold", tokens[unproven][1])
        held = held[:unproven]
    if stop is None and start + len(held) < last:
        seq = start + len(held) + 1
        stop = Stop(seq, "GAP", f"record {seq} was committed and is not there any more", "")
    records = [record for record, _, _ in held]
    sums, wrong = _summed(was[0], was[1], was[2], _sum_at(store, box, jid, start), held)
    alarms = [(seq, "Sum", sentence, tokens[seq - start - 1][1]) for seq, sentence in wrong[:ALARMS_MAX]]
    if stop is not None:
        alarms.append((stop.seq, _camel(stop.name), stop.sentence, stop.token))
    return Piece(box, jid, start, records, sums, alarms, f"{stop.name}: {stop.sentence}" if stop is not None else "")


def _read(store: Store, box: str, jid: str, start: int, tokens: list[tuple[int, str]]) -> tuple[list[Held], Stop | None]:
    """All that needs no signature: each record parsed in full, in its place, linked, under a key of its box."""
    held: list[Held] = []
    verifiers: dict[str, Verify | None] = {}
    names = store.digests(box, jid, start) if start else {EMPTY_DIGEST}
    before = ""
    for seq, token in tokens:
        if seq != start + 1 + len(held):
            break                                    # a gap: the caller sees it by the count
        try:
            record = parse(token)
        except TokenError as why:
            return held, Stop(seq, why.name, why.sentence, token)
        payload, kid = record.payload, record.kid
        if payload.seq != seq or payload.box != box or payload.jid != jid:
            return held, Stop(seq, "PLACE", f"record {seq} names another box, journal or number", token)
        if payload.prev != before and (held or payload.prev not in names):
            return held, Stop(seq, "LINK", f"record {seq} does not name the record before it", token)
        if kid not in verifiers:
            verifiers[kid] = store.verifier(box, kid)
        verify = verifiers[kid]
        if verify is None:
            return held, Stop(seq, "KEY_UNKNOWN", f"record {seq} is signed by {kid}, which is not a key of {box}", token)
        amount_fen = 0
        if payload.kind in COUNTED:
            try:
                amount_fen = _amount(payload.body).amount_fen
            except msgspec.DecodeError as why:
                return held, Stop(seq, "BODY", f"record {seq} says no amount: {why}", token)
        held.append((record, verify, amount_fen))
        before = digest(token)
    return held, None


def _unproven(held: list[Held]) -> int | None:
    """The index of the first record whose signature does not hold.  On one thread: two of them fight over Python's lock, and each
    signature costs a quarter more.  Several cores are for several checkers."""
    for at, (record, verify, _) in enumerate(held):
        if not verify(record.signing_input, record.signature):
            return at
    return None


def _sum_at(store: Store, box: str, jid: str, seq: int) -> Sums:
    """The totals that record `seq` names, checked before."""
    found = store.numbered(box, jid, seq, seq) if seq else []
    told = parse(found[0][1]).payload.sum if found else Sum()
    return told.sales_fen, told.refunds_fen, told.count


def _summed(sales_fen: int, refunds_fen: int, count: int, told: Sums,
            held: list[Held]) -> tuple[Sums, list[tuple[int, str]]]:
    """Our own totals after `held`, and (seq, sentence) for each whose totals are not those of the one before and itself."""
    wrong: list[tuple[int, str]] = []
    told_sales, told_refunds, told_count = told
    for record, _, amount_fen in held:
        payload = record.payload
        if payload.kind in COUNTED:
            count, told_count = count + 1, told_count + 1
            if payload.kind == "sale":
                sales_fen, told_sales = sales_fen + amount_fen, told_sales + amount_fen
            else:
                refunds_fen, told_refunds = refunds_fen + amount_fen, told_refunds + amount_fen
        says = payload.sum
        if says.sales_fen != told_sales or says.refunds_fen != told_refunds or says.count != told_count:
            wrong.append((payload.seq, f"record {payload.seq} says {says.sales_fen} fen of sales, {says.refunds_fen} of refunds, "
                                       f"{says.count} of both; after the one before it would be {told_sales}, {told_refunds}, "
                                       f"{told_count}"))
            told_sales, told_refunds, told_count = says.sales_fen, says.refunds_fen, says.count
    return (sales_fen, refunds_fen, count), wrong


def settle(store: Store, piece: Piece, at: str) -> bool:
    """Inside a transaction: let what was checked count.  False when another checker was there first; then nothing was written."""
    moved = store.database.execute(
        "UPDATE guard SET checked = ?, stopped = ?, sales_fen = ?, refunds_fen = ?, count = ? "
        "WHERE box = ? AND jid = ? AND checked = ? AND stopped = ''",
        (piece.start + len(piece.records), piece.stop[:500].replace("\x00", " "), *piece.sums, piece.box, piece.jid, piece.start))
    if moved.rowcount != 1:
        return False
    for seq, name, sentence, token in piece.alarms:
        store.alarm(at, piece.box, piece.jid, seq, name, sentence, token)
    store.leases.note([record.payload for record in piece.records])
    return True


def catch_up(store: Store, at: str, limit: int) -> None:
    """Inside a transaction: check up to `limit` records, nearest journals first, so that what was just sold is known."""
    for box, jid in due(store, nearest=True):
        while limit > 0 and (piece := examined(store, box, jid, min(limit, PIECE))) is not None:
            limit -= max(1, len(piece.records))
            if not settle(store, piece, at) or piece.stop:
                break
        if limit <= 0:
            break


def stopped(store: Store) -> list[tuple[str, str, int, str]]:
    """(box, jid, checked, why) of each journal that goes no further until a person has looked."""
    return store.database.execute("SELECT box, jid, checked, stopped FROM guard WHERE stopped <> '' ORDER BY n").fetchall()


def check_all(store: Store, at: str) -> int:
    """Check until nothing is due; how many records."""
    checked = 0
    while True:
        journals = due(store)
        if not journals:
            return checked
        for box, jid in journals:
            checked += _settled(store, examined(store, box, jid), at)


def again(store: Store, box: str = "") -> int:
    """Let stopped journals, of `box` or of all, be tried anew; how many."""
    with store.transaction():
        return int(store.database.execute("UPDATE guard SET stopped = '' WHERE stopped <> '' AND (box = ? OR ? = '')",
                                          (box, box)).rowcount)


class Checker:
    """A thread's work: `run` checks until `ended` is set.  Several of them, in one process or many, share the journals by chance.

    `behind`: a piece is read and checked in threads of low priority, and only settled in this one: whoever holds a lock that the
    door waits for has the door's priority.
    """

    def __init__(self, store: Store, wall: Callable[[], str], *, behind: bool = False) -> None:
        self.ended = threading.Event()
        self.checked = 0
        self._store, self._wall = store, wall
        self._behind = ThreadPoolExecutor(1, "behind", _put_behind) if behind else None

    def some(self) -> int:
        """One round over journals that are due; how many records were checked.  Raises DatabaseFailed."""
        journals = due(self._store)
        random.shuffle(journals)
        done = 0
        for box, jid in journals:
            if self.ended.is_set():
                break
            done += _settled(self._store, self._examined(box, jid), self._wall())
        self.checked += done
        return done

    def _examined(self, box: str, jid: str) -> Piece | None:
        if self._behind is None:
            return examined(self._store, box, jid)
        return self._behind.submit(examined, self._store, box, jid).result()

    def _recovered(self) -> None:
        try:
            self._store.again()
        except DatabaseFailed as still:
            log.debug("the database is still away: %s", still)

    def run_on(self) -> None:
        """Until `ended`, through every absence of PostgreSQL.  Raises DatabaseFailed when a file fails."""
        while not self.ended.is_set():
            try:
                self.run()
            except DatabaseFailed as why:
                if self._store.database.kind != "postgresql":
                    raise
                log.error("checking waits for the database: %s", why)
                self.ended.wait(AWAY_PAUSE_S)
                self._recovered()

    def run(self, pause_s: float = 0.2) -> None:
        """Until `ended`.  Raises DatabaseFailed."""
        while not self.ended.is_set():
            if not self.some():
                self.ended.wait(pause_s)


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def _put_behind() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), max(_nice(), BEHIND_NICE))


def _settled(store: Store, piece: Piece | None, at: str) -> int:
    if piece is None:
        return 0
    with store.transaction():
        return max(1, len(piece.records)) if settle(store, piece, at) else 0


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))
