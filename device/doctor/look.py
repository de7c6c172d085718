"""What `tillbox doctor` looks at, and what it finds.  Knows no check."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from device.ask import runs
from device.config import Config
from device.doctor.codes import CODES
from device.doctor.said import Said
from device.errors import Outside
from device.keys.store import KeyStore
from device.store_forward.schema import SCHEMA_VERSION, version_of
from device.txn.books import Books


class Finding(msgspec.Struct, frozen=True):
    """`code` for programs, `part` of the box, one `sentence` for a person; no `action` where there is only something to know."""

    code: str
    part: str
    sentence: str
    action: str


def found(code: str, part: str, sentence: str = "", action: str = "") -> Finding:
    """A finding; what is left out stands in the table of codes."""
    row = CODES[code]
    return Finding(code, part, sentence or row.sentence, action or row.action)


class Look:
    """The box as it stands: its configuration, its sealed keys, and what a running daemon says of itself."""

    def __init__(self, path: str, config: Config, store: KeyStore, running: bool, said: Said | None,
                 seal_fault: str = "", root: Path = Path("/"), unfit: str = "") -> None:
        """`root` has /sys, /proc, /etc and /run below it; `unfit` why a running daemon said nothing."""
        self.path, self.config, self.store, self.root = path, config, store, root
        self.running, self.said, self.seal_fault, self.unfit = running, said, seal_fault, unfit
        self.boots: list[tuple[str, str]] = []           # (wall, software) of each start since the books were said again
        self.last_row, self.copied = 0, ""               # the journal's last row, and the lineage that it knows its copy by
        self.journal_path = Path(config.state_dir) / ("training" if config.training else "") / "journal.db"

    @functools.cached_property
    def told(self) -> tuple[Books, str] | Outside | None:
        """Books and last wall time of the journal; why it tells nothing; None while the daemon has it, or where there is none."""
        if self.running or not self.journal_path.exists():
            return None
        try:
            with reading(self.journal_path) as db:
                return self._folded(db)
        except Outside as why:
            return None if runs(self.config.run_dir) else why       # a daemon that started meanwhile writes while we read

    def _folded(self, db: sqlite3.Connection) -> tuple[Books, str]:
        from device.txn import facts
        from device.txn.folding import evolve

        books, at, wall = Books(), 0, ""
        try:
            if not 1 <= version_of(db) <= SCHEMA_VERSION:
                raise ValueError(f"its schema is {version_of(db)}, this software knows 1 to {SCHEMA_VERSION}")
            self.copied = (db.execute("SELECT value FROM meta WHERE key = 'copy'").fetchone() or ("",))[0]
            first = int(db.execute("SELECT value FROM meta WHERE key = 'fold_from'").fetchone()[0])
            for n, row in db.execute("SELECT n, facts FROM journal WHERE n >= ? ORDER BY n", (first,)):
                if at and n != at + 1:
                    raise ValueError(f"row {at + 1} is missing")
                at = n
                entry = facts.decode(bytes(row))
                wall = entry.at.wall
                for fact in entry.facts:
                    evolve(books, fact, entry.at)
                    if isinstance(fact, facts.Booted):
                        self.boots.append((wall, fact.software))
        except (sqlite3.Error, msgspec.DecodeError, LookupError, AssertionError, TypeError, ValueError) as why:
            raise Outside(f"The journal does not fold, at row {at}: {why or type(why).__name__}.", which="journal", again=False,
                          hint="copy it with its -wal before anything else, see docs/recovery.md") from None
        self.last_row = at
        return books, wall

    @property
    def daemon_pid(self) -> int:
        """Of the living daemon, 0 when it does not say."""
        return self.said.pid if self.said is not None else 0

    @property
    def books(self) -> Books | None:
        return self.told[0] if isinstance(self.told, tuple) else None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that takes no lock and leaves no file; one with rows in its WAL is looked at as a copy."""
    wal = path.with_name(path.name + "-wal")
    with tempfile.TemporaryDirectory(prefix="tillbox-") as folder:
        try:
            if wal.exists() and wal.stat().st_size:
                for file in (path, wal):
                    shutil.copy(file, folder)
                db = sqlite3.connect(Path(folder) / path.name)
            else:
                db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        except (OSError, sqlite3.Error) as why:
            raise _unread(path, f"cannot be read: {getattr(why, 'strerror', '') or why}") from None
        with contextlib.closing(db):
            yield db


def _unread(path: Path, why: str) -> Outside:
    return Outside(f"The journal {path} {why}.", which="journal", hint="see docs/recovery.md", again=False)
