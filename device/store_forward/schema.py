"""The journal's tables, and the way from each older version to this one.  Knows no row's meaning.

Migrations run in order inside the transaction of the opener, on any connection that has `execute`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _lay_tables(db: Any, identity: dict[str, str]) -> None:
    db.execute("CREATE TABLE journal(n INTEGER PRIMARY KEY, mark INTEGER NOT NULL, facts BLOB NOT NULL)")
    db.execute("CREATE TABLE cursor(jid TEXT NOT NULL, upto INTEGER NOT NULL, head TEXT NOT NULL)")
    db.execute("INSERT INTO cursor VALUES ('', 0, '')")       # the journal's own id stands in its facts: the first ack names it
    db.execute("CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
    for key, value in (("schema", "1"), ("box", identity["box"]), ("mode", identity["mode"]), ("fold_from", "1")):
        db.execute("INSERT INTO meta VALUES (?, ?)", (key, value))


def _lay_refs(db: Any, identity: dict[str, str]) -> None:
    """Recall by order number.  Rows from before name none: they are found by reading them."""
    db.execute("CREATE TABLE refs(ref TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (ref, n)) WITHOUT ROWID")


MIGRATIONS: tuple[Callable[[Any, dict[str, str]], None], ...] = (_lay_tables, _lay_refs)
SCHEMA_VERSION = len(MIGRATIONS)


def version_of(db: Any) -> int:
    """Schema version of an open database; 0 for one without tables."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
        return 0
    return int(db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()[0])


def migrate(db: Any, identity: dict[str, str]) -> int:
    """Bring `db` to this version inside the caller's transaction; returns its version, untouched when newer than ours."""
    found = version_of(db)
    if found >= SCHEMA_VERSION:
        return found
    for step in MIGRATIONS[found:]:
        step(db, identity)
    db.execute("UPDATE meta SET value = ? WHERE key = 'schema'", (str(SCHEMA_VERSION),))
    return SCHEMA_VERSION
