"""The tables of the collector's store, their version, and PostgreSQL's partitions.

Knows how a store of an older release becomes one of this release, whole or not at all; refuses to know what a row means.

In PostgreSQL the table `record` is parted by hash of box and each part by the day of arrival: a day is dropped or archived as 16
tables, and boxes that sell at the same time write to different ones.  A unique index over parts must contain what they are parted
by, so no index can say that (box, jid, seq) is unique over all days: the guard row says it.  Whoever adds records of a journal
holds the lock of its guard row, and everything up to `top` has been added, so a number above `top` is new and any other is looked
up.  The index that includes the day stays as a second catch against our own mistakes.  `span` tells on which days numbers of a
journal arrived, so that a look-up touches those days' parts and not every day's.
"""

from __future__ import annotations

from fleet.database import Database, PostgresDatabase
from fleet.records.leases import SCHEMA as LEASES

VERSION = 3                              # 2: sales, refunds and leases by number; 3: every signature checked, branches, PostgreSQL
PARTS = 16

GUARD_NEW = (("top", "INTEGER NOT NULL DEFAULT 0"), ("forked", "INTEGER NOT NULL DEFAULT 0"),
             ("checked", "INTEGER NOT NULL DEFAULT 0"), ("stopped", "TEXT NOT NULL DEFAULT ''"),
             ("sales_fen", "INTEGER NOT NULL DEFAULT 0"), ("refunds_fen", "INTEGER NOT NULL DEFAULT 0"),
             ("count", "INTEGER NOT NULL DEFAULT 0"), ("said_last", "INTEGER NOT NULL DEFAULT 0"),
             ("said_head", "TEXT NOT NULL DEFAULT ''"))

# guard: records 1 to upto are committed, head is the digest of the last; top is the highest number kept, above a gap too; checked
# is how far every single signature was checked, the sums are of those records, stopped says why it goes no further; said_* is what
# the box itself said last of its end.
_TABLES = f"""
CREATE TABLE IF NOT EXISTS guard (n INTEGER PRIMARY KEY, box TEXT NOT NULL, jid TEXT NOT NULL, upto INTEGER NOT NULL,
    head TEXT NOT NULL, changed TEXT NOT NULL, {", ".join(f"{name} {kind}" for name, kind in GUARD_NEW)}, UNIQUE (box, jid));
CREATE TABLE IF NOT EXISTS twin (box TEXT NOT NULL, jid TEXT NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL,
    token TEXT NOT NULL, PRIMARY KEY (box, jid, seq, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS branch (box TEXT NOT NULL, jid TEXT NOT NULL, seq INTEGER NOT NULL, digest TEXT NOT NULL,
    token TEXT NOT NULL, at TEXT NOT NULL, PRIMARY KEY (box, jid, seq, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alarm (n INTEGER PRIMARY KEY, at TEXT NOT NULL, box TEXT NOT NULL, jid TEXT NOT NULL,
    seq INTEGER NOT NULL, name TEXT NOT NULL, sentence TEXT NOT NULL, digest TEXT NOT NULL, token TEXT NOT NULL,
    UNIQUE (box, jid, seq, name, digest));
CREATE TABLE IF NOT EXISTS quarantine (n INTEGER PRIMARY KEY, at TEXT NOT NULL, box TEXT NOT NULL, name TEXT NOT NULL,
    sentence TEXT NOT NULL, raw BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS key (kid TEXT NOT NULL, box TEXT NOT NULL, jwk TEXT NOT NULL, jid TEXT NOT NULL,
    seq INTEGER NOT NULL, PRIMARY KEY (kid, box)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS open_now (box TEXT PRIMARY KEY, at TEXT NOT NULL, body TEXT NOT NULL);
""" + LEASES
_INDEXES = """
CREATE INDEX IF NOT EXISTS guard_due ON guard (n) WHERE upto > checked AND stopped = '';
CREATE INDEX IF NOT EXISTS quarantine_box ON quarantine (box, n);
"""

_SQLITE = """
CREATE TABLE IF NOT EXISTS record (box TEXT NOT NULL, jid TEXT NOT NULL, seq INTEGER NOT NULL, token TEXT NOT NULL,
    PRIMARY KEY (box, jid, seq)) WITHOUT ROWID;
"""
_POSTGRES = """
CREATE TABLE about (version INTEGER NOT NULL);
INSERT INTO about VALUES (0);
CREATE TABLE record (box TEXT NOT NULL, jid TEXT NOT NULL, seq INTEGER NOT NULL, day DATE NOT NULL, token TEXT NOT NULL,
    PRIMARY KEY (box, jid, seq, day)) PARTITION BY HASH (box);
CREATE TABLE span (box TEXT NOT NULL, jid TEXT NOT NULL, day DATE NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    PRIMARY KEY (box, jid, day));
"""


def brought(db: Database) -> None:
    """Make the store behind `db` one of this release.  ValueError when a newer release has written it.

    A reader beside a writer of this release writes nothing.
    """
    found = _version(db)
    if found not in range(VERSION + 1):
        raise ValueError(f"the store was written by a newer release (version {found}); this one reads version {VERSION}")
    if found == VERSION:
        return
    with db.transaction():
        db.locked_for_making()
        found = _version(db)                         # another collector may have been first
        if found == VERSION:
            return
        if db.kind == "sqlite":
            _sqlite(db, found)
        else:
            _postgres(db)


def _sqlite(db: Database, found: int) -> None:
    db.made(_SQLITE + _TABLES)
    if found:                                        # columns of version 3; everything is checked anew, sales noted on the way
        for name, kind in GUARD_NEW:
            db.execute(f"ALTER TABLE guard ADD COLUMN {name} {kind}")
        db.execute("UPDATE guard SET top = coalesce((SELECT max(seq) FROM record r WHERE r.box = guard.box "
                   "AND r.jid = guard.jid), 0), "
                   "forked = EXISTS (SELECT 1 FROM alarm a WHERE a.box = guard.box AND a.jid = guard.jid)")
    db.made(_INDEXES)
    db.execute(f"PRAGMA user_version = {VERSION}")


def _postgres(db: Database) -> None:
    db.made(_POSTGRES + _TABLES + _INDEXES)
    for part in range(PARTS):
        db.execute(f"CREATE TABLE record_{part:02d} PARTITION OF record FOR VALUES WITH (MODULUS {PARTS}, REMAINDER {part}) "
                   "PARTITION BY RANGE (day)")
    db.execute(f"UPDATE about SET version = {VERSION}")


def day_made(db: PostgresDatabase, day: str) -> None:
    """The parts of `day` (ISO 8601) are there when this returns.

    Made apart and attached, which locks out nobody who writes; one collector at a time.
    """
    if not db.inside:
        with db.transaction():
            day_made(db, day)
        return
    db.locked_for_making()
    tag = day.replace("-", "")
    if db.execute("SELECT to_regclass(?)", (f"record_{PARTS - 1:02d}_{tag}",)).fetchone()[0] is not None:
        return
    for part in range(PARTS):
        above, name = f"record_{part:02d}", f"record_{part:02d}_{tag}"
        db.execute(f"CREATE TABLE {name} (LIKE {above} INCLUDING DEFAULTS)")
        db.execute(f"ALTER TABLE {above} ATTACH PARTITION {name} FOR VALUES FROM ('{day}') TO (DATE '{day}' + 1)")


def _version(db: Database) -> int:
    if db.kind == "sqlite":
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    if db.execute("SELECT to_regclass('about')").fetchone()[0] is None:
        return 0
    return int(db.execute("SELECT version FROM about").fetchone()[0])
