"""Who may give back money of a sale: what is left of each paid order, and the leases that boxes hold on it.

Knows sales, refunds and leases as the committed records tell them, in the collector's database; refuses to know MQTT and
signatures.  A lease ends by a record of its box and by nothing else: a box that fell silent may have begun a refund before it
did, so its lease stays reserved until it speaks.  What a refund begun under a lease takes is taken until a record says it failed.
"""

from __future__ import annotations

import datetime
import logging
import secrets
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec

from device.mqtt.ask_wire import LEASE_MS, Answer, Ask, Lease, Left
from device.store_forward.token import Payload, parse
from fleet.database import Database

log = logging.getLogger("tillfleet.collect")

SCHEMA = """
CREATE TABLE IF NOT EXISTS sale (number TEXT PRIMARY KEY, sale_no TEXT NOT NULL, box TEXT NOT NULL, jid TEXT NOT NULL,
    seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS given (refund_no TEXT PRIMARY KEY, paid_no TEXT NOT NULL, sale_no TEXT NOT NULL, box TEXT NOT NULL,
    amount_fen INTEGER NOT NULL, lease TEXT NOT NULL, failed INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS given_paid ON given (paid_no);
CREATE TABLE IF NOT EXISTS lease (lease TEXT NOT NULL, paid_no TEXT NOT NULL, sale_no TEXT NOT NULL, box TEXT NOT NULL,
    ask_id TEXT NOT NULL, fen INTEGER NOT NULL, until TEXT NOT NULL, ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (lease, paid_no)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS lease_paid ON lease (paid_no);
"""


# Numbers become keys of tables: short, and (`_read`) nothing in them that a database will not have in a text.
Number = Annotated[str, msgspec.Meta(max_length=64)]
Fen = Annotated[int, msgspec.Meta(ge=-2**53, le=2**53)]
_Shape = TypeVar("_Shape", bound=msgspec.Struct)


class _Tender(msgspec.Struct, gc=False):
    method: str
    amount_fen: Fen
    order_no: Number = ""


class _Sale(msgspec.Struct, gc=False):
    order_no: Number
    tenders: list[_Tender]


class _Refund(msgspec.Struct, gc=False):
    order_no: Number
    refund_no: Number
    amount_fen: Fen
    method: str
    paid_no: Number = ""
    lease: Number = ""


class _Part(msgspec.Struct, gc=False):
    paid_no: Number
    refund_no: Number
    amount_fen: Fen


class _Lease(msgspec.Struct):
    lease: Number
    order_no: Number
    begun: list[_Part] = []
    failed: list[_Part] = []


class Leases:
    """The tables of `db`; every method runs inside the caller's transaction.  `token(box, jid, seq)` gives a committed record."""

    def __init__(self, db: Database, token: Callable[[str, str, int], str | None]) -> None:
        self._db, self._token = db, token

    def note(self, records: list[Payload]) -> None:
        """Take in what checked records say of sales, refunds and leases; one that cannot be read is logged.  Twice is as once."""
        numbers: list[tuple[str, str, str, str, int]] = []
        for record in records:
            if record.kind == "sale" and (sale := _read(record, _Sale)) is not None:
                sale_no = sale.order_no
                numbers.append((sale_no, sale_no, record.box, record.jid, record.seq))
                for tender in sale.tenders:
                    if tender.order_no and tender.order_no != sale_no:
                        numbers.append((tender.order_no, sale_no, record.box, record.jid, record.seq))
        if numbers:
            self._db.insert("sale", {"number": "TEXT", "sale_no": "TEXT", "box": "TEXT", "jid": "TEXT", "seq": "INTEGER"}, numbers)
        for record in records:
            if record.kind == "refund" and (refund := _read(record, _Refund)) is not None:
                self._refunded(record, refund)
            elif record.kind == "lease" and (lease := _read(record, _Lease)) is not None:
                self._told(record, lease)

    def reserve(self, record: Payload) -> None:
        """Take in at once what makes less of a paid order, before the record's own signature is checked: never too much is leased.

        Whatever would make more of it, an ended lease or a refund that failed, waits for `note`.
        """
        if record.kind == "refund" and (refund := _read(record, _Refund)) is not None:
            self._refunded(record, refund)
        elif record.kind == "lease" and (lease := _read(record, _Lease)) is not None:
            for part in lease.begun:
                self._give(record.box, lease.order_no, lease.lease, part)

    def _refunded(self, record: Payload, refund: _Refund) -> None:
        paid_no = refund.paid_no or self._paid_by(refund)
        if paid_no:                                   # cash is no channel's, and no lease covers it
            self._give(record.box, refund.order_no, refund.lease, _Part(paid_no, refund.refund_no, refund.amount_fen))

    def _told(self, record: Payload, told: _Lease) -> None:
        if told.begun or not told.failed:
            self._db.execute("UPDATE lease SET ended = 1 WHERE lease = ? AND box = ?", (told.lease, record.box))
        for part in [*told.begun, *told.failed]:
            self._give(record.box, told.order_no, told.lease, part)
        for part in told.failed:
            self._db.execute("UPDATE given SET failed = 1 WHERE refund_no = ? AND box = ?", (part.refund_no, record.box))

    def _give(self, box: str, sale_no: str, lease: str, part: _Part) -> None:
        held = lease and self._db.execute("SELECT 1 FROM lease WHERE lease = ? AND box = ?", (lease, box)).fetchone()
        home = self._db.execute("SELECT box FROM sale WHERE number = ?", (part.paid_no,)).fetchone()
        if not held and home is not None and home[0] != box:
            log.error("box %s gave back %s of a sale of box %s without a lease", box, part.refund_no, home[0])
        self._db.execute("INSERT INTO given (refund_no, paid_no, sale_no, box, amount_fen, lease) VALUES (?,?,?,?,?,?) "
                         "ON CONFLICT DO NOTHING",
                         (part.refund_no, part.paid_no, sale_no, box, part.amount_fen, lease if held else ""))

    def _paid_by(self, refund: _Refund) -> str:
        """The order that an older box's refund went to: the first by that channel with room for it."""
        sale = self._sale(refund.order_no)
        tenders = [t for t in sale[1].tenders if t.order_no and t.method == refund.method] if sale else []
        room = [t.order_no for t in tenders if self._left(t) >= refund.amount_fen]
        return next(iter(room or [t.order_no for t in tenders]), "")

    def _sale(self, number: str) -> tuple[Payload, _Sale] | None:
        """The checked record of the sale that `number` belongs to, its own or one of its orders'."""
        row = self._db.execute("SELECT s.box, s.jid, s.seq FROM sale s JOIN guard g ON g.box = s.box AND g.jid = s.jid "
                               "WHERE s.number = ? AND s.seq <= g.checked", (number,)).fetchone()
        token = self._token(*row) if row else None
        if token is None:
            return None
        payload = parse(token).payload
        return payload, msgspec.json.decode(payload.body, type=_Sale)

    def _left(self, tender: _Tender) -> int:
        """What may still be leased of one paid order: never less was given back than is taken for given here."""
        reserved = self._db.execute("SELECT CAST(coalesce(sum(fen), 0) AS BIGINT) FROM lease WHERE paid_no = ? AND ended = 0",
                                    (tender.order_no,)).fetchone()[0]
        gone = self._db.execute(
            "SELECT CAST(coalesce(sum(amount_fen), 0) AS BIGINT) FROM given WHERE paid_no = ? AND failed = 0 AND lease NOT IN "
            "(SELECT lease FROM lease WHERE ended = 0)", (tender.order_no,)).fetchone()[0]
        return max(0, tender.amount_fen - reserved - gone)

    def answer(self, box: str, ask: Ask, at: str) -> Answer:
        """The answer to `sale_by_order` at `at` (RFC 3339): the sale and a fresh lease, or why there is none."""
        found = self._sale(ask.order_no)
        if found is None:
            return Answer(box, ask.id, ask.order_no, "the cloud does not know that sale, or not yet")
        record, sale = found
        if not any(map(_leasable, sale.tenders)):
            return Answer(box, ask.id, ask.order_no, "cash and cards go back at their own box")
        lease = self._again(box, ask, at) or self._granted(box, ask, sale, at)
        if lease is None:
            return Answer(box, ask.id, ask.order_no, "nothing is left of it, or another box is giving it back just now")
        parts = self._db.execute("SELECT count(*) FROM given WHERE sale_no = ? AND failed = 0", (sale.order_no,)).fetchone()[0]
        return Answer(box, ask.id, ask.order_no, "", record.at, msgspec.Raw(record.body), lease, parts)

    def _again(self, box: str, ask: Ask, at: str) -> Lease | None:
        """The lease that this very question was answered with before, as long as it holds."""
        rows = self._db.execute("SELECT lease, paid_no, fen, until FROM lease WHERE box = ? AND ask_id = ? AND ended = 0",
                                (box, ask.id)).fetchall()
        if not rows:
            return None
        ms = int((_moment(rows[0][3]) - _moment(at)).total_seconds() * 1000)
        return Lease(rows[0][0], min(ms, LEASE_MS), tuple(Left(no, fen) for _, no, fen, _ in rows)) if ms > 0 else None

    def _granted(self, box: str, ask: Ask, sale: _Sale, at: str) -> Lease | None:
        left = tuple(Left(t.order_no, fen) for t in sale.tenders if _leasable(t) and (fen := self._left(t)))
        if not left:
            return None
        lease, until = secrets.token_urlsafe(12), (_moment(at) + datetime.timedelta(milliseconds=LEASE_MS)).isoformat()
        self._db.executemany("INSERT INTO lease (lease, paid_no, sale_no, box, ask_id, fen, until) VALUES (?,?,?,?,?,?,?)",
                             [(lease, part.order_no, sale.order_no, box, ask.id, part.fen, until) for part in left])
        return Lease(lease, LEASE_MS, left)

    def open_leases(self) -> list[tuple[str, str, str, int, str]]:
        """(lease, box, sale_no, fen, until) of every lease that its box has not ended, the oldest first."""
        return self._db.execute("SELECT lease, box, sale_no, CAST(sum(fen) AS BIGINT), until FROM lease WHERE ended = 0 "
                                "GROUP BY lease, box, sale_no, until ORDER BY until, lease").fetchall()


_decoders: dict[type[msgspec.Struct], msgspec.json.Decoder[Any]] = {kind: msgspec.json.Decoder(kind)
                                                                   for kind in (_Sale, _Refund, _Lease)}


def _read(record: Payload, shape: type[_Shape]) -> _Shape | None:
    body = bytes(record.body)
    try:
        found: _Shape = _decoders[shape].decode(body)
        if b"\\u00" in body and not _printable(msgspec.to_builtins(found)):
            raise msgspec.ValidationError("a number with a control character")
    except msgspec.DecodeError as why:
        log.error("box %s: record %d says nothing usable of a %s: %s", record.box, record.seq, record.kind, why)
        return None
    return found


def _printable(tree: Any) -> bool:
    """Control characters can only come as escapes: JSON has them no other way."""
    if isinstance(tree, str):
        return tree.isprintable()
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return all(map(_printable, values))


def _leasable(tender: _Tender) -> bool:
    """A drawer refuses nothing, and a card terminal knows only what it took."""
    return bool(tender.order_no) and tender.method != "card"


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
