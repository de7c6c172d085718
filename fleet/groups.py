"""Which boxes there are and which groups they are in: what a push or a command to many means.  Expanded here, never on a box."""

from __future__ import annotations

import re
from collections.abc import Iterable

from device.mqtt.topics import box_checked
from fleet.database import LOCK_KEY, Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS member (grp TEXT NOT NULL, box TEXT NOT NULL, PRIMARY KEY (grp, box)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS session (box TEXT PRIMARY KEY, session TEXT NOT NULL, at TEXT NOT NULL, software TEXT NOT NULL,
    here INTEGER NOT NULL, connect INTEGER NOT NULL, left_s INTEGER NOT NULL) WITHOUT ROWID;
"""

_GROUP = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def made(database: Database, *schemas: str) -> None:
    """Make what is missing of `schemas`, whoever else does the same just now."""
    with database.transaction():
        if database.kind == "postgresql":
            database.execute("SELECT pg_advisory_xact_lock(?)", (LOCK_KEY,))
        for schema in schemas:
            database.made(schema)


def group_checked(name: str) -> str:
    if not _GROUP.fullmatch(name):
        raise ValueError(f"group {name[:70]!r} is not 1 to 64 of letters, digits, '_', '.' and '-'")
    return name


class Groups:
    """The tables `member` and `session` of `database`; every write runs inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def put(self, group: str, boxes: Iterable[str]) -> None:
        for box in boxes:
            self._db.execute("INSERT INTO member (grp, box) VALUES (?,?) ON CONFLICT DO NOTHING",
                             (group_checked(group), box_checked(box)))

    def drop(self, group: str, boxes: Iterable[str]) -> None:
        for box in boxes:
            self._db.execute("DELETE FROM member WHERE grp = ? AND box = ?", (group, box))

    def boxes(self, group: str) -> list[str]:
        return [row[0] for row in self._db.execute("SELECT box FROM member WHERE grp = ? ORDER BY box", (group,)).fetchall()]

    def of(self, box: str) -> list[str]:
        """The groups of a box, by name: a later one in this order lies over an earlier one."""
        return [row[0] for row in self._db.execute("SELECT grp FROM member WHERE box = ? ORDER BY grp", (box,)).fetchall()]

    def all(self) -> list[str]:
        """Every box that ever said hello or was put into a group."""
        return [row[0] for row in self._db.execute("SELECT box FROM session UNION SELECT box FROM member ORDER BY box").fetchall()]

    def named(self, *, box: str = "", group: str = "", everyone: bool = False) -> list[str]:
        """The boxes of a choice of which exactly one is made.  ValueError for an empty one."""
        if sum((bool(box), bool(group), everyone)) != 1:
            raise ValueError("name one of a box, --group or --all")
        if box:
            return [box_checked(box)]
        found = self.all() if everyone else self.boxes(group_checked(group))
        if not found:
            raise ValueError("no box has ever said hello here" if everyone else f"group {group} has no box")
        return found

    def heard(self, box: str, session: str, software: str, at: str) -> None:
        """A box said hello."""
        self._db.execute("INSERT INTO session (box, session, at, software, here, connect, left_s) VALUES (?,?,?,?,1,0,0) "
                         "ON CONFLICT (box) DO UPDATE SET session = excluded.session, at = excluded.at, "
                         "software = excluded.software, here = 1", (box, session, at, software))

    def status(self, box: str, here: bool, connect: int, now_s: int) -> None:
        """Birth or death of a box's connection number `connect`; a death of an older one says nothing any more."""
        self._db.execute("UPDATE session SET here = ?, connect = ?, left_s = CASE WHEN ? = 1 THEN left_s ELSE ? END WHERE box = ? "
                         "AND (? = 1 OR connect <= ?)", (int(here), connect, int(here), now_s, box, int(here), connect))

    def session(self, box: str) -> str:
        row = self._db.execute("SELECT session FROM session WHERE box = ?", (box,)).fetchone()
        return row[0] if row else ""
