"""The journal: one decision, one row, on the card before anything leaves.  Knows bytes, marks and order numbers; no money.

One SQLite file in WAL mode with `synchronous=FULL`, held by one process.  Rows that bind nothing wait in memory, not in
an open transaction, until the next synced one.  `mark` is the highest record number signed in that row or before, so a
place in the chain is found by bisection.  Opening reads the ends of the table and never scans it.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from device.errors import JournalFull, JournalHeld, JournalUnreadable, Outside
from device.store_forward.schema import SCHEMA_VERSION, migrate, version_of
from device.store_forward.second_copy import Copied, SecondCopy, Stand

RESERVE_BYTES = 8 * 1024 * 1024          # kept free on the card: room to close what is open
QUOTA_BYTES = 2 * 1024 * 1024 * 1024     # of the journal itself; its WAL adds some 4 MiB
ROW_EXTRA_BYTES = 64                     # SQLite's own share of a row, rounded up
TRIM_ROWS, TRIM_PAGES = 200, 256         # let go of and given back in one step: it must not be felt
NEAR_MAX = 16                            # places in the chain remembered: more than batches are under way
PAGE_ROWS = 200                          # rows read at once: no read stays open while somebody appends
MODES = ("real", "training")


class Row(NamedTuple):
    """One decision: its encoded facts, how many records were signed so far, the order numbers it can be recalled by.

    `stand` is for the second copy: what must never go back, as it is after this row.
    """

    facts: bytes
    mark: int
    refs: tuple[str, ...] = ()
    stand: Stand = Stand()

    @property
    def size_bytes(self) -> int:
        """What the row takes on the card, not less."""
        named = sum(len(ref) + ROW_EXTRA_BYTES for ref in self.refs) if self.refs else 0
        return len(self.facts) + ROW_EXTRA_BYTES + named


class Journal:
    """The one writer of the journal file.

    `identity` is {"box": ..., "mode": "real" or "training"}: written into a new file, compared with an old one.
    `connect(path)` opens the database (sqlite3 on the box).  `free_bytes()` says what the card has left.  Outside, in one
    sentence, for a file that another process holds, that is another box's, of the other mode, or newer than this software.

    JournalUnreadable for one that is damaged, there or in `fold` and the other readers.  Its connection is left open on
    purpose, for a close would move rows out of the WAL: whoever wants the files as they were ends by `os._exit`.

    `fill` puts rows into a new file before it appears under its name; an old one never sees it.  With a `copy`, a row is kept
    when both have it: the journal first, so that a power cut meets at most one of them in the middle of a write.
    """

    def __init__(self, path: str | Path, *, connect: Callable[[str], Any] = sqlite3.connect, reserve_bytes: int = RESERVE_BYTES,
                 quota_bytes: int = QUOTA_BYTES, identity: dict[str, str],
                 free_bytes: Callable[[], int] | None = None, fill: Callable[[Any], None] | None = None) -> None:
        assert identity.get("mode") in MODES and identity.get("box"), identity
        self.path, self._reserve_bytes, self._quota_bytes = Path(path), reserve_bytes, quota_bytes
        self._free_bytes = free_bytes or self._free_on_card
        self._waiting: list[tuple[int, Row]] = []
        self._waiting_bytes = 0
        self._fold_from_due: int | None = None
        self._ack_due = False
        self._dead = False
        self._near: dict[int, int] = {}          # record number to the row at which a search above it begins
        self._card = str(self.path.parent)
        self.commits = 0
        self.copy: SecondCopy | None = None
        self.repair = ""                                 # what recovery did and no row tells yet; the next commit does
        self._fill, self._base = fill, 0
        self._db = self._open(connect, identity)

    def append(self, row: Row, *, sync: bool, restates: bool = False, from_reserve: bool = False) -> int:
        """Keep one decision and return its number; with `sync`, only when the card has it and every row before it.

        `restates`: folding may begin at this row, kept in the same transaction.  `from_reserve`: the row closes something
        and may use the reserve.  JournalFull, having kept nothing, when it would be touched otherwise.  After any error of
        the database the tail is unknown: every later append is an assert, the daemon exits, and boot folds what is there.
        """
        assert not self._dead, "the journal failed before: its tail is unknown until it is opened again"
        assert row.mark >= self._mark, (row.mark, self._mark)
        if not from_reserve:
            self._keep_reserve(row)
        self._n += 1
        self._mark = row.mark
        self._waiting.append((self._n, row))
        self._waiting_bytes += row.size_bytes
        if restates:
            self._fold_from_due = self._n
        if sync:
            self.sync()
        return self._n

    def sync(self) -> None:
        """Write every waiting row, and an acknowledgement not yet kept, in one transaction.  Nothing waiting: nothing done."""
        assert not self._dead, "the journal failed before: its tail is unknown until it is opened again"
        if not self._waiting and not self._ack_due:
            return
        refs = [(ref, n) for n, row in self._waiting for ref in dict.fromkeys(row.refs)]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO journal(n, mark, facts) VALUES (?, ?, ?)",
                                 [(n, row.mark, row.facts) for n, row in self._waiting])
            if refs:
                self._db.executemany("INSERT INTO refs(ref, n) VALUES (?, ?)", refs)
            if self._fold_from_due is not None:
                self._db.execute("UPDATE meta SET value = ? WHERE key = 'fold_from'", (str(self._fold_from_due),))
            if self._ack_due:
                self._db.execute("UPDATE cursor SET jid = ?, upto = ?, head = ?", self._acked)
            if self.repair:
                self._db.execute("DELETE FROM meta WHERE key = 'repair'")
            self._pages = _pages_in_use(self._db)        # asked for in here it costs a fifth
            self._db.execute("COMMIT")
        except BaseException:
            # Never retried: after a failed fsync the kernel may have dropped the very pages a second try would trust.
            self._dead = True
            raise
        self.commits += 1
        self._into_copy()
        self._durable_n, self._durable_mark = self._n, self._mark
        self._fold_from = self._fold_from_due or self._fold_from
        self._fold_from_due, self._ack_due, self.repair = None, False, ""
        self._waiting.clear()
        self._waiting_bytes = 0

    def _into_copy(self) -> None:
        if self.copy is None:
            return
        rows = [Copied(n, row.mark, row.refs, row.facts, n == self._fold_from_due, row.stand) for n, row in self._waiting]
        try:
            self.copy.keep(rows, self._acked if self._ack_due else None, self._base + self._acked[1])
        except BaseException:
            self._dead = True                            # nobody was told yet: boot folds the journal, and heals the copy
            raise

    @property
    def failed(self) -> bool:
        """True when nothing can be kept any more: the card refused a commit, or the journal was closed."""
        return self._dead

    @property
    def waiting(self) -> int:
        """Rows that a power cut now would take."""
        return len(self._waiting)

    @property
    def last(self) -> int:
        """Number of the newest row, waiting ones included; 0 in an empty journal."""
        return self._n

    @property
    def durable_last(self) -> int:
        """Number of the newest row on the card."""
        return self._durable_n

    def room_bytes(self) -> int:
        """Bytes that may still be kept before JournalFull; negative when the reserve is touched already."""
        quota_left = self._quota_bytes - self._pages * self._page_bytes
        return min(quota_left, self._free_bytes() - self._reserve_bytes) - self._waiting_bytes

    @property
    def first(self) -> int:
        """Number of the oldest row kept; 1 as long as none was let go of."""
        return self._first

    @property
    def first_seq(self) -> int:
        """Number of the oldest record kept, or of the next one where none is."""
        return 1 if self._base else self._trimmed_mark + 1

    def row(self, n: int) -> bytes | None:
        """Facts of one durable row; None when it is not kept."""
        found = self._db.execute("SELECT facts FROM journal WHERE n = ?", (n,)).fetchone()
        return bytes(found[0]) if found else None

    def spare(self) -> int:
        """Rows below this number may be let go of: boot folds none of them, and the cloud has confirmed what was signed in them.

        The row of the last confirmed record stays, so that a repeated acknowledgement can be compared.  Where an older journal id
        stands in the same file all of it stays: nothing here says which of those records arrived.
        """
        upto = self._acked[1]
        return min(self._fold_from, self._place(upto - 1)) if upto and not self._base else self._first

    def trim(self, below: int, refs_of: Callable[[bytes], tuple[str, ...]], *, rows_max: int = TRIM_ROWS,
             pages_max: int = TRIM_PAGES) -> int:
        """Let go of the oldest rows below row `below`, at most `rows_max`, and give their room back; how many rows went.

        Never of one at or above `spare()`, whatever `below` says.  `refs_of` gives the names that a row stands under in the index.
        The acknowledgement that allows it is kept in the same transaction: after a cut the forwarder begins above what is gone.
        The second copy keeps and lets go by its own rule.
        """
        assert not self._dead, "the journal failed before: its tail is unknown until it is opened again"
        below = min(below, self.spare())
        gone = self._db.execute("SELECT n, mark, facts FROM journal WHERE n < ? ORDER BY n LIMIT ?", (below, rows_max)).fetchall()
        if not gone:
            return 0
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM refs WHERE ref = ? AND n = ?",
                                 [(ref, n) for n, _, facts in gone for ref in refs_of(bytes(facts))])
            self._db.execute("DELETE FROM journal WHERE n <= ?", (gone[-1][0],))
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('trimmed_mark', ?)", (str(gone[-1][1]),))
            if self._ack_due:
                self._db.execute("UPDATE cursor SET jid = ?, upto = ?, head = ?", self._acked)
            self._db.execute("COMMIT")
            _give_back(self._db, pages_max)
            self._pages = _pages_in_use(self._db)
        except BaseException:
            self._dead = True
            raise
        self._first, self._trimmed_mark = gone[-1][0] + 1, gone[-1][1]
        self.commits += 1
        return len(gone)

    def fold(self) -> Iterator[tuple[int, bytes]]:
        """(n, facts) of every durable row from the last restating one on: all that boot must read.

        JournalUnreadable when one of them is missing: the books would be made of what happens to be left.
        """
        if not self._durable_n:
            return
        due = self._fold_from
        for n, facts in self.rows(due):
            if n != due:
                break
            yield n, facts
            due += 1
        if due != self._durable_n + 1:
            raise self.unreadable(f"row {due} is missing")

    def rows(self, first: int = 1) -> Iterator[tuple[int, bytes]]:
        """(n, facts) of every durable row from `first` on, read a page at a time."""
        for n, _, facts in self._walk(first):
            yield n, facts

    def places(self, ref: str) -> list[int]:
        """Numbers of the durable rows that the index finds under `ref`, rising."""
        return [int(n) for (n,) in self._asked("its index cannot be read", "SELECT n FROM refs WHERE ref = ? ORDER BY n", ref)]

    def recall(self, ref: str) -> list[bytes]:
        """Facts of the rows that name `ref`, oldest first, waiting ones included; empty when there are none."""
        kept = self._asked("its index cannot be read",
                           "SELECT facts FROM refs JOIN journal USING (n) WHERE ref = ? ORDER BY n", ref)
        return [bytes(facts) for (facts,) in kept] + [row.facts for _, row in self._waiting if ref in row.refs]

    def tokens(self, after_seq: int, limit: int, bytes_max: int,
               tokens_of: Callable[[bytes], list[tuple[int, str]]]) -> list[tuple[int, str]]:
        """Durable (seq, token) with seq above `after_seq`, rising; at most `limit`, and `bytes_max` with a newline each.

        The first is given whatever its size.  `tokens_of` reads the tokens out of a row's facts; `seq` counts through the file, as
        marks do, over a change of the journal's id.
        """
        found: list[tuple[int, str]] = []
        if after_seq >= self._durable_mark or limit < 1:
            return found
        size, first = 0, self._near.get(after_seq) or self._place(after_seq)
        while rows := self._signing(first, limit + 1):
            for n, mark, facts in rows:
                its = tokens_of(facts)
                for seq, (_, token) in enumerate(its, mark - len(its) + 1):
                    if seq <= after_seq:
                        continue
                    size += len(token) + 1
                    if found and size > bytes_max:
                        return self._found(found, n)
                    found.append((seq, token))
                    if len(found) == limit:
                        return self._found(found, n)
                if mark >= self._durable_mark:
                    return self._found(found, n)
            first = rows[-1][0] + 1
        return found

    @property
    def durable_mark(self) -> int:
        """Highest record number signed in a row on the card."""
        return self._durable_mark

    def acked(self) -> tuple[str, int, str]:
        """(jid, upto, head) that the collector has committed; ("", 0, "") before the first."""
        return self._acked

    def ack(self, jid: str, upto: int, head: str) -> bool:
        """Move the cursor; True when it moved.  Kept with the next sync: a cut costs a resend and nothing else.

        It never moves back, to another journal's id, or past what the card has.
        """
        held_jid, held_upto, _ = self._acked
        if (held_jid and jid != held_jid) or upto <= held_upto or self._base + upto > self._durable_mark:
            return False
        self._acked = (jid, upto, head)
        self._ack_due = True
        return True

    def follow(self, jid: str, base: int, upto: int = 0, head: str = "") -> None:
        """From here on the cursor is one of journal `jid`, whose record 1 comes after `base` others in this file."""
        self._base = base
        if self._acked[0] != jid:
            self._acked = (jid, upto, head)
            self._ack_due = True

    # Recovery ------------------------------------------------------------------------------------------------------

    @property
    def lineage(self) -> str:
        """Which second copy belongs to this journal; "" for none yet."""
        found = self._db.execute("SELECT value FROM meta WHERE key = 'copy'").fetchone()
        return str(found[0]) if found else ""

    @property
    def mark(self) -> int:
        """Records signed so far, waiting rows included."""
        return self._mark

    @property
    def fold_from(self) -> int:
        """The durable row that folding begins at."""
        return self._fold_from

    def written(self, first: int) -> Iterator[tuple[int, int, bytes]]:
        """(n, mark, facts) of the durable rows from `first` on."""
        return self._walk(first)

    def drop(self) -> None:
        """Let go of files that were moved elsewhere; nothing that waits is written."""
        self._dead = True
        self._db.close()

    def name_copy(self, lineage: str) -> None:
        self._db.execute("INSERT INTO meta VALUES ('copy', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (lineage,))

    def copied(self, first: int, refs_of: Callable[[bytes], tuple[str, ...]]) -> Iterator[Copied]:
        """The durable rows from `first` on, as a copy takes them; their stand is not known here.

        `refs_of` gives the names that a row stands under: the index is in their order and not in the rows'.
        """
        for n, mark, facts in self._walk(first):
            yield Copied(n, mark, refs_of(facts), facts, n == self._fold_from and n > 1)

    def adopt(self, rows: Iterable[Copied], repair: str) -> None:
        """Put rows of the second copy behind the last one, and a note of it, in one transaction."""
        assert not self._waiting and not self._dead
        self._db.execute("BEGIN IMMEDIATE")
        put_rows(self._db, rows)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('repair', ?)", (repair,))
        self._db.execute("COMMIT")
        self._read_ends(self._db)

    def close(self) -> None:
        """Sync what waits, unless the journal failed, and let go of the file."""
        try:
            if not self._dead:
                self.sync()
        finally:
            self._dead = True
            self._db.close()
            if self.copy is not None:
                self.copy.close()

    def unreadable(self, why: str) -> JournalUnreadable:
        """The error of a damaged journal, for whoever understands its rows and finds that one does not hold."""
        return JournalUnreadable(f"The journal {self.path} is damaged: {why}.", which="journal", again=False,
                                 hint="nothing was changed; copy it with its -wal before anything else, see docs/recovery.md")

    def _open(self, connect: Callable[[str], Any], identity: dict[str, str]) -> Any:
        if not self._is_there():
            self._make(connect, identity)
        db = None
        try:
            db = _connected(connect, self.path)
            db.execute("BEGIN IMMEDIATE")
            if version_of(db) < 1:
                raise self.unreadable("it is a database without a journal's tables")
            version = migrate(db, identity)
            db.execute("COMMIT")
            if version > SCHEMA_VERSION:
                raise self._refused(f"has schema {version}, newer than this software's {SCHEMA_VERSION}",
                                    "install the newer software")
            self._compare(dict(db.execute("SELECT key, value FROM meta").fetchall()), identity)
            self._read_ends(db)
        except JournalUnreadable:
            raise
        except Outside:
            db.close()
            raise
        except (KeyError, TypeError, ValueError) as error:     # a row of meta or cursor that is gone or says something else
            raise self.unreadable(f"its own table of contents does not hold ({type(error).__name__}: {error})") from None
        except Exception as error:
            if not _of_database(error):
                raise
            if "locked" in str(error):
                raise JournalHeld(f"The journal {self.path} is held by another process.", which="journal", again=False,
                                  hint="stop it first: one box has one daemon") from None
            raise self.unreadable(f"it cannot be opened: {error}") from None
        return db

    def _is_there(self) -> bool:
        """False when a new journal may begin.  A new one appears whole, so an empty file is one that lost its content."""
        if self.path.is_dir():
            raise self.unreadable("a folder stands in its place")
        wal = self.path.with_name(self.path.name + "-wal")
        size = self.path.stat().st_size if self.path.exists() else None
        if size is None and wal.exists() and wal.stat().st_size:
            raise self.unreadable(f"it is gone, and {wal.name}, which may hold its newest rows, is still there")
        if size == 0:
            raise self.unreadable("it is empty, 0 bytes")
        return size is not None

    def _make(self, connect: Callable[[str], Any], identity: dict[str, str]) -> None:
        """A new journal under its name, whole or not at all; one that appeared meanwhile stays."""
        draft = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}")
        try:
            db = _connected(connect, draft, fresh=True)
            try:
                db.execute("BEGIN IMMEDIATE")
                migrate(db, identity)
                if self._fill is not None:
                    self._fill(db)
                db.execute("COMMIT")
            finally:
                db.close()                               # which brings the WAL into the file, and the file onto the card
            try:
                os.link(draft, self.path)               # refuses to replace, which a rename would do
            except FileExistsError:
                pass
        except Exception as error:
            if not isinstance(error, OSError) and not _of_database(error):
                raise
            raise self._refused(f"cannot be made: {error}", "look at the folder, its owner and the room on the card") from None
        finally:
            for suffix in ("", "-wal", "-journal"):
                draft.with_name(draft.name + suffix).unlink(missing_ok=True)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _compare(self, meta: dict[str, str], identity: dict[str, str]) -> None:
        if meta["mode"] != identity["mode"]:
            raise self._refused(f"holds {meta['mode']} sales and may not be opened for {identity['mode']} ones",
                                "give training its own file")
        if meta["box"] != identity["box"]:
            raise self._refused(f"belongs to box {meta['box']}, not to {identity['box']}", "check the box id")

    def _read_ends(self, db: Any) -> None:
        self._page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
        self._pages = _pages_in_use(db)              # changes by our commits alone: nobody else writes this file
        first = db.execute("SELECT n FROM journal ORDER BY n LIMIT 1").fetchone()
        last = db.execute("SELECT n, mark FROM journal ORDER BY n DESC LIMIT 1").fetchone()
        self._first = first[0] if first else 1
        self._n, self._mark = last or (0, 0)
        self._durable_n, self._durable_mark = self._n, self._mark
        meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        self._fold_from, self._trimmed_mark = int(meta["fold_from"]), int(meta.get("trimmed_mark", 0))
        self.repair = str(meta.get("repair", ""))
        jid, upto, head = db.execute("SELECT jid, upto, head FROM cursor").fetchone()
        self._acked: tuple[str, int, str] = (jid, int(upto), head)

    def _keep_reserve(self, row: Row) -> None:
        if self.room_bytes() < row.size_bytes:
            raise JournalFull(f"The journal {self.path.name} has no room left beside its reserve.", which="journal",
                              hint="connect the box so that it can send, or make room on the card", again=False)

    def _walk(self, first: int) -> Iterator[tuple[int, int, bytes]]:
        while page := self._page(first):
            for n, mark, facts in page:
                if not isinstance(facts, bytes) or not isinstance(mark, int):
                    raise self.unreadable(f"row {n} holds something else than facts")
                yield n, mark, facts
            first = page[-1][0] + 1

    def _page(self, first: int) -> list[tuple[int, int, bytes]]:
        return self._asked(f"from row {first} on it cannot be read",
                           "SELECT n, mark, facts FROM journal WHERE n >= ? ORDER BY n LIMIT ?", first, PAGE_ROWS)

    def _asked(self, fault: str, sql: str, *given: object) -> list[tuple[Any, ...]]:
        """What a question finds.  JournalUnreadable, saying `fault`, when a page behind it is damaged."""
        try:
            return self._db.execute(sql, given).fetchall()
        except Exception as error:
            if not _of_database(error):
                raise
            raise self.unreadable(f"{fault}: {error}") from None

    def _signing(self, first: int, limit: int) -> list[tuple[int, int, bytes]]:
        """(n, mark, facts) of durable rows from `first` on in which something was signed: those where the mark rises."""
        rows: list[tuple[int, int, bytes]] = self._asked(
            f"from row {first} on it cannot be read",
            "SELECT n, mark, facts FROM journal AS j WHERE n >= ? AND mark > coalesce((SELECT mark FROM journal "
            "WHERE n = j.n - 1), 0) ORDER BY n LIMIT ?", first, limit)
        for n, mark, facts in rows:
            if not isinstance(facts, bytes) or not isinstance(mark, int):
                raise self.unreadable(f"row {n} holds something else than facts")
        return rows

    def _found(self, found: list[tuple[int, str]], n: int) -> list[tuple[int, str]]:
        """Remember where the search ended: the next one begins there."""
        if found:
            if len(self._near) >= NEAR_MAX:
                del self._near[next(iter(self._near))]
            self._near[found[-1][0]] = n
        return found

    def _place(self, after_seq: int) -> int:
        """Number of the first durable row whose mark is above `after_seq`; the last row is known to be."""
        low, high = self._first, self._durable_n
        while low < high:
            middle = (low + high) // 2
            if self._asked(f"row {middle} cannot be read", "SELECT mark FROM journal WHERE n = ?", middle)[0][0] > after_seq:
                high = middle
            else:
                low = middle + 1
        return low

    def _free_on_card(self) -> int:
        card = os.statvfs(self._card)
        return card.f_bavail * card.f_frsize

    def _refused(self, why: str, hint: str) -> Outside:
        return Outside(f"The journal {self.path} {why}.", which="journal", hint=hint, again=False)


def put_rows(db: Any, rows: Iterable[Copied]) -> None:
    """Rows of a second copy into an open transaction; folding begins at the last of them that restates."""
    for row in rows:
        db.execute("INSERT INTO journal(n, mark, facts) VALUES (?, ?, ?)", (row.n, row.mark, row.facts))
        db.executemany("INSERT INTO refs(ref, n) VALUES (?, ?)", [(ref, row.n) for ref in dict.fromkeys(row.refs)])
        if row.restates:
            db.execute("UPDATE meta SET value = ? WHERE key = 'fold_from'", (str(row.n),))


def _connected(connect: Callable[[str], Any], path: Path, *, fresh: bool = False) -> Any:
    db = connect(str(path))
    if hasattr(db, "isolation_level"):
        db.isolation_level = None                # transactions are begun by hand, the same for every opener
    db.execute("PRAGMA busy_timeout = 0")
    db.execute("PRAGMA locking_mode = EXCLUSIVE")    # no shared memory, and nobody else writes
    if fresh:
        # Heeded only before the first table and before WAL; said to an old file it writes a page and changes nothing.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    db.execute("PRAGMA synchronous = FULL")
    return db


def _give_back(db: Any, pages: int) -> None:
    """Shorten the file by up to `pages` free pages.  Each is a row without a column, at which `execute` stops."""
    run = getattr(db, "executescript", None) or (lambda sql: list(db.execute(sql)))
    run(f"PRAGMA incremental_vacuum({int(pages)})")


def _pages_in_use(db: Any) -> int:
    return db.execute("PRAGMA page_count").fetchone()[0] - db.execute("PRAGMA freelist_count").fetchone()[0]


def _of_database(error: Exception) -> bool:
    """True for what SQLite itself complains of, whichever library opened it."""
    return isinstance(error, sqlite3.Error) or type(error).__module__.split(".")[0] == "apsw"
