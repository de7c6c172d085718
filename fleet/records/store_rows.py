"""The one table that is large, and so kept by each database in its own best way: the records.

Knows how rows get in and out in bulk; refuses to know what may follow what.  All inside the caller's transaction.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Protocol

from fleet.database import Database, PostgresDatabase
from fleet.records import store_schema

Row = tuple[str, str, int, str]          # box, jid, seq, token
TOGETHER = 50                            # rows of one statement in SQLite: a full batch
GuardRow = tuple[int, str, int, int]     # upto, head, top, forked


class Rows(Protocol):
    def ready_for(self, day: str) -> None:
        """Whatever must exist for records that arrive on `day` (ISO 8601, UTC) or the day after."""

    def insert(self, rows: list[Row], day: str) -> None: ...

    def tokens(self, box: str, jid: str, first: int, last: int) -> dict[int, str]: ...

    def numbers_above(self, box: str, jid: str, seq: int) -> Iterator[int]: ...

    def removed_above(self, box: str, jid: str, seq: int) -> None: ...

    def locked(self, journals: Iterable[tuple[str, str]]) -> dict[tuple[str, str], GuardRow]:
        """The guard rows of those journals that have one, locked until the transaction ends, in the order given."""


def rows_of(db: Database) -> Rows:
    return PostgresRows(db) if isinstance(db, PostgresDatabase) else SqliteRows(db)


class SqliteRows:
    """One table, one writer: the transaction itself is the lock."""

    _ONE = "INSERT INTO record (box, jid, seq, token) VALUES (?,?,?,?)"
    _MANY = _ONE + ",(?,?,?,?)" * (TOGETHER - 1)

    def __init__(self, db: Database) -> None:
        self._db = db

    def ready_for(self, day: str) -> None:
        pass

    def insert(self, rows: list[Row], day: str) -> None:
        # After each statement the library asks for Python's lock anew, and the thread that opens batches is slow to give it.
        whole = len(rows) - len(rows) % TOGETHER
        for at in range(0, whole, TOGETHER):
            self._db.execute(self._MANY, list(chain.from_iterable(rows[at:at + TOGETHER])))
        self._db.executemany(self._ONE, rows[whole:])

    def tokens(self, box: str, jid: str, first: int, last: int) -> dict[int, str]:
        return dict(self._db.execute("SELECT seq, token FROM record WHERE box = ? AND jid = ? AND seq BETWEEN ? AND ? ORDER BY seq",
                                     (box, jid, first, last)).fetchall())

    def numbers_above(self, box: str, jid: str, seq: int) -> Iterator[int]:
        for (n,) in self._db.execute("SELECT seq FROM record WHERE box = ? AND jid = ? AND seq > ? ORDER BY seq", (box, jid, seq)):
            yield n

    def removed_above(self, box: str, jid: str, seq: int) -> None:
        self._db.execute("DELETE FROM record WHERE box = ? AND jid = ? AND seq > ?", (box, jid, seq))

    def locked(self, journals: Iterable[tuple[str, str]]) -> dict[tuple[str, str], GuardRow]:
        found = {}
        for journal in journals:
            row = self._db.execute("SELECT upto, head, top, forked FROM guard WHERE box = ? AND jid = ?", journal).fetchone()
            if row is not None:
                found[journal] = row
        return found


class PostgresRows:
    """Parted by hash of box, then by day of arrival; filled by COPY."""

    def __init__(self, db: PostgresDatabase) -> None:
        self._db = db
        self._days: set[str] = set()

    def ready_for(self, day: str) -> None:
        tomorrow = (datetime.date.fromisoformat(day) + datetime.timedelta(days=1)).isoformat()
        for one in {day, tomorrow} - self._days:
            store_schema.day_made(self._db, one)
            self._days.add(one)

    def insert(self, rows: list[Row], day: str) -> None:
        if day not in self._days:                    # nobody looked ahead: late, not wrong
            store_schema.day_made(self._db, day)     # not noted in _days: this transaction may yet be undone
        # Every value is of letters, digits, '-', '_' and '.': none needs COPY's escapes.
        block = "".join([f"{box}\t{jid}\t{seq}\t{day}\t{token}\n" for box, jid, seq, token in rows])
        ends: dict[tuple[str, str], list[int]] = {}
        for box, jid, seq, _ in rows:
            end = ends.setdefault((box, jid), [seq, seq])
            end[0], end[1] = min(end[0], seq), max(end[1], seq)
        with self._db.errors(), self._db.raw.cursor() as cursor:
            with cursor.copy("COPY record (box, jid, seq, day, token) FROM STDIN") as copy:
                copy.write(block)
        self._db.executemany("INSERT INTO span (box, jid, day, first, last) VALUES (?,?,?,?,?) ON CONFLICT (box, jid, day) "
                             "DO UPDATE SET first = least(span.first, excluded.first), last = greatest(span.last, excluded.last)",
                             [(*journal, day, *ends[journal]) for journal in sorted(ends)])

    def _between(self, box: str, jid: str, first: int, last: int) -> tuple[datetime.date, datetime.date] | None:
        row = self._db.execute("SELECT min(day), max(day) FROM span WHERE box = ? AND jid = ? AND first <= ? AND last >= ?",
                               (box, jid, last, first)).fetchone()
        return None if row[0] is None else (row[0], row[1])

    def tokens(self, box: str, jid: str, first: int, last: int) -> dict[int, str]:
        days = self._between(box, jid, first, last)
        if days is None:
            return {}
        return dict(self._db.execute(
            "SELECT seq, token FROM record WHERE box = ? AND jid = ? AND seq BETWEEN ? AND ? AND day BETWEEN ? AND ? ORDER BY seq",
            (box, jid, first, last, *days)).fetchall())

    def numbers_above(self, box: str, jid: str, seq: int) -> Iterator[int]:
        days = self._between(box, jid, seq + 1, 2**53)
        for (n,) in () if days is None else self._db.execute(
                "SELECT seq FROM record WHERE box = ? AND jid = ? AND seq > ? AND day BETWEEN ? AND ? ORDER BY seq",
                (box, jid, seq, *days)):
            yield n

    def removed_above(self, box: str, jid: str, seq: int) -> None:
        self._db.execute("DELETE FROM record WHERE box = ? AND jid = ? AND seq > ?", (box, jid, seq))

    def locked(self, journals: Iterable[tuple[str, str]]) -> dict[tuple[str, str], GuardRow]:
        wanted = list(journals)
        if not wanted:
            return {}
        boxes, jids = [box for box, _ in wanted], [jid for _, jid in wanted]
        rows = self._db.execute("SELECT box, jid, upto, head, top, forked FROM guard WHERE (box, jid) IN "
                                "(SELECT * FROM unnest(?::text[], ?::text[])) ORDER BY box, jid FOR UPDATE",
                                (boxes, jids)).fetchall()
        return {(row[0], row[1]): (row[2], row[3], row[4], row[5]) for row in rows}
