"""Opens the journal beside its second copy, finds the cell of the recovery table, and heals what can be healed.

Knows files and how they came to differ; what may be sold is `recovery.py`'s word.  Nothing that could not be read is ever deleted:
it is moved into a folder of its own.  Each step leaves either the old state or the new one, so a recovery that is cut is begun
again and ends the same.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from device.box import Box
from device.errors import CopyFailed, JournalUnreadable
from device.recovery.table import Act, Store, act
from device.store_forward.journal import Journal, put_rows
from device.store_forward.second_copy import GROUP_ROWS, Copied, Held, SecondCopy, Stand, generation
from device.txn.facts import refs_of_row, tokens_of

log = logging.getLogger("tillbox")

DOUBT = "journal.doubt"                      # a row could not be read while the journal was used
DAMAGED_MAX = 9
FILES = ("", "-wal", "-shm", "-journal")     # of SQLite, beside the journal's own name


class Repair(msgspec.Struct, frozen=True):
    """What was done, kept in the journal until the facts of the next boot tell it; `why` is empty where nothing was.

    `lost`: rows may be missing; `gap`: among them records that the cloud has not, so what is left behind them cannot be sent.
    `head` is that of a chain of which nothing else is left; the counters are the highest seen.
    """

    why: str = ""
    lost: bool = False
    orders: int = 0
    boots: int = 0
    head: str = ""
    gap: bool = False


class Opened(NamedTuple):
    """A journal to sell with, and how it was found.  `trouble`: why there is no second copy, "" where there is one."""

    journal: Journal
    box: Box
    found: tuple[Store, Store]
    act: Act
    repair: Repair
    trouble: str

    def started(self) -> dict[str, Any]:
        """What `Started` tells the core of it."""
        lost = self.repair.lost
        return {"mended": bool(self.repair.why), "orders_seen": self.repair.orders, "boots_seen": self.repair.boots,
                "renew": ("gap" if self.repair.gap else "lost") if lost else "",
                "wallets_stop": self.repair.why if lost else "", "after": self.repair.head}


def opened(path: str | Path, second: str | Path, *, identity: dict[str, str], journal: type[Journal] = Journal,
           **more: Any) -> Opened:
    """The journal at `path` with its copy in folder `second`; `more` goes to `journal`, which makes and opens it.

    JournalUnreadable, nothing changed, in a cell that says stop, and for rows that this release does not understand.  Outside as
    `Journal` says it, and for a second copy that another process holds.
    """
    return _Recovery(Path(path), Path(second), identity, journal, more).run()


def doubt(path: str | Path) -> None:
    """Note that the journal at `path`, which folds, has rows that cannot be read: the next start takes it for rotten."""
    Path(path).with_name(DOUBT).touch()
    _synced(Path(path).parent)


class _Recovery:
    def __init__(self, path: Path, second: Path, identity: dict[str, str], made: type[Journal], more: dict[str, Any]) -> None:
        self.path, self.identity, self.made, self.more = path, identity, made, more
        self.lost = path.with_name("journal.lost")       # what was decided of a journal that is being moved aside
        self.began = path.with_name("journal.began")     # a journal stood here: without one now, it is gone and not yet to come
        self.journal: Journal | None = None
        self.box: Box | None = None
        self.error: JournalUnreadable | None = None
        self.doubt = path.with_name(DOUBT)
        self.gap = False
        self.copy, self.trouble = None, ""
        try:
            self.copy = SecondCopy(second, f"{identity['mode']} {identity['box']}")
        except CopyFailed as why:
            self.trouble = str(why)

    def run(self) -> Opened:
        try:
            return self._run()
        except BaseException:
            if self.copy is not None:
                self.copy.close()
            raise

    def _run(self) -> Opened:
        journal = self._journal()
        held = self._held()
        journal = self._compared(journal, held)
        copy = self._copy_state(journal, held)
        if journal is Store.GONE and not self.began.exists() and not held.there:
            return self._fresh()
        what = act(journal, copy)
        if what is Act.STOP:
            assert self.error is not None
            raise self.error
        if (journal, copy) != (Store.WHOLE, Store.WHOLE):
            quiet = journal is Store.WHOLE and copy is Store.SHORTER
            log.log(logging.INFO if quiet else logging.WARNING, "recovery: journal %s, second copy %s: %s", journal, copy, what)
        mended = journal is not Store.WHOLE or copy in (Store.ROTTEN, Store.GONE)
        head = held.stand.head if journal is Store.GONE and not held.rows else ""
        repair = Repair(f"journal {journal}, second copy {copy}", what is Act.CASH, held.stand.orders, held.stand.boots, head,
                        what is Act.CASH and self.gap)
        before = self._repair_before()
        if before is None and self.lost.exists() and journal is not Store.WHOLE:
            before = msgspec.json.decode(self.lost.read_bytes(), type=Repair)
        if before is not None and before.lost:
            repair = before
        meets = bool(held.rows) and self.box is not None and held.rows[0].n <= self._last + 1
        if journal is Store.WHOLE or (journal is Store.SHORTER and (meets or not held.rows)):
            if mended:
                self._heal(held, repair)
        else:
            self._rebuild(held, repair)
        assert self.journal is not None and self.box is not None
        told = self._repair_before() or Repair()
        self._tend(held, anew=told.lost or copy in (Store.ROTTEN, Store.GONE))
        self._mark_began()
        return Opened(self.journal, self.box, (journal, copy), Act.CASH if told.lost else what, told, self.trouble)

    def _repair_before(self) -> Repair | None:
        """What is noted in the journal and not told yet: a boot was cut between its recovery and its first row."""
        if self.journal is None or self.box is None or not self.journal.repair:
            return None
        return msgspec.json.decode(self.journal.repair, type=Repair)

    # Looking -------------------------------------------------------------------------------------------------------

    def _journal(self) -> Store:
        wal = self.path.with_name(self.path.name + "-wal")
        if not os.path.lexists(self.path) and not (wal.exists() and wal.stat().st_size):
            return Store.GONE
        try:
            self.journal = self.made(self.path, identity=self.identity, **self.more)
            self.box = Box(self.journal)
            if self.doubt.exists():
                raise self.journal.unreadable("a row that a start does not read could not be read while it was used")
        except JournalUnreadable as why:
            self.error, self.box = why, None
            return Store.ROTTEN
        return Store.WHOLE

    @property
    def _last(self) -> int:
        assert self.journal is not None
        return self.journal.last

    def _held(self) -> Held:
        if self.copy is None:
            return Held()
        try:
            held = self.copy.read()
        except CopyFailed as why:
            self._without(why)
            return Held()
        if self.box is None or not held.lineage:
            return held
        assert self.journal is not None
        own = self.journal.lineage                       # one that is older, or missing, went with the journal's newest rows
        older = generation(held.lineage) < generation(own) or (generation(held.lineage) == generation(own) and held.lineage != own)
        return Held() if older else held

    def _compared(self, journal: Store, held: Held) -> Store:
        """Whether a journal that folds is what was written, row by row, and reaches as far as anything that names a row."""
        if journal is not Store.WHOLE:
            return journal
        assert self.journal is not None and self.box is not None
        proven = {row.n: row for row in held.rows}
        try:
            for n, mark, facts in self.journal.written(held.rows[0].n) if held.rows else ():
                other = proven.get(n)
                if other is not None and (other.facts != facts or other.mark != mark):
                    raise self.journal.unreadable(f"row {n} is not what was written, as the second copy proves")
        except JournalUnreadable as why:
            self.error, self.box = why, None
            return Store.ROTTEN
        jid, upto, _ = self.journal.acked()
        its = self.box.books.chain
        return Store.SHORTER if held.top > self._last or (jid == its.jid and upto > its.seq) else Store.WHOLE

    def _copy_state(self, journal: Store, held: Held) -> Store:
        if not held.there:
            return Store.GONE
        if journal in (Store.ROTTEN, Store.GONE) and held.rows:
            self.gap = self._gap(held)
        if held.broken:
            return Store.ROTTEN
        if held.ragged:
            return Store.SHORTER
        match journal:
            case Store.WHOLE:
                return Store.WHOLE if held.last == self._last else Store.SHORTER
            case Store.SHORTER:
                return Store.WHOLE if held.rows[0].n <= self._last + 1 else Store.SHORTER
        return Store.WHOLE if not self.gap and held.last >= self._readable_last() else Store.SHORTER

    def _gap(self, held: Held) -> bool:
        """True when the copy does not reach back to the first record that the cloud has not: a journal made of it lacks some."""
        first = next(iter(held.older), held.rows[0])
        if first.n == 1:
            return False
        its, (jid, upto, _) = Box.folded(_Rows(held.rows, self.error)).chain, held.acked     # type: ignore[arg-type]
        base = its.base if jid in ("", its.jid) else next((old.base for old in its.older if old.jid == jid), its.base)
        return base + upto < first.mark - len(tokens_of(first.facts))

    def _readable_last(self) -> int:
        """The last row that a damaged journal still names, 0 where it names none."""
        return self.journal.last if self.journal is not None else 0

    # Healing -------------------------------------------------------------------------------------------------------

    def _fresh(self) -> Opened:
        """A new box: neither store was ever there."""
        self.journal = self.made(self.path, identity=self.identity, **self.more)
        self.box = Box(self.journal)
        self._tend(Held(), anew=True)
        self._mark_began()
        return Opened(self.journal, self.box, (Store.WHOLE, Store.WHOLE), Act.SELL, Repair(), self.trouble)

    def _heal(self, held: Held, repair: Repair) -> None:
        """Rows that only the copy has, put behind the journal's own, and a note of it."""
        assert self.journal is not None
        more = [row for row in held.rows if row.n > self._last]
        more = more if more and more[0].n == self._last + 1 else []
        if more:
            self._folds(held)
        self.journal.adopt(more, msgspec.json.encode(repair).decode())
        if more:
            self.box = Box(self.journal)

    def _rebuild(self, held: Held, repair: Repair) -> None:
        """A journal made of the copy's rows; what stood in its place is moved aside first."""
        self._folds(held)
        if self.journal is not None or self.error is not None:
            self._note(repair)
            self._move_aside()

        def fill(db: Any) -> None:
            put_rows(db, chain(held.older, held.rows))
            db.execute("INSERT INTO meta VALUES ('repair', ?)", (msgspec.json.encode(repair).decode(),))
            if held.acked[0] and held.rows:
                db.execute("UPDATE cursor SET jid = ?, upto = ?, head = ?", held.acked)
            if held.lineage and held.rows:
                db.execute("INSERT INTO meta VALUES ('copy', ?)", (held.lineage,))

        self.journal = self.made(self.path, identity=self.identity, fill=fill, **self.more)
        self.box = Box(self.journal)
        self.lost.unlink(missing_ok=True)

    def _note(self, repair: Repair) -> None:
        """What the damaged files proved, where a cut does not take it: they prove it no more once they were moved."""
        draft = self.lost.with_name(".journal.lost")
        draft.write_bytes(msgspec.json.encode(repair))
        file = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        os.rename(draft, self.lost)
        _synced(self.lost.parent)

    def _folds(self, held: Held) -> None:
        """JournalUnreadable when the copy's own rows do not fold: a newer release wrote them, and then nothing may be changed."""
        Box.folded(_Rows(held.rows, self.error))         # type: ignore[arg-type]

    def _move_aside(self) -> None:
        """Into `damaged-N`, the database before its WAL: a WAL alone is known as a journal's remains, a database alone is not."""
        there = [self.path.with_name(self.path.name + end) for end in FILES]
        there = [path for path in there if os.path.lexists(path)]
        folders = (self.path.with_name(f"damaged-{n}") for n in range(1, DAMAGED_MAX + 1))
        folder = next((f for f in folders if not any(os.path.lexists(f / path.name) for path in there)), None)
        if folder is None:                               # healed again and again, and again not for long
            raise JournalUnreadable(f"{DAMAGED_MAX} damaged journals lie beside {self.path}, and it is damaged again.",
                                    which="journal", again=False, hint="replace the card; see docs/recovery.md")
        folder.mkdir(exist_ok=True)
        for path in there:
            os.rename(path, folder / path.name)
        self.doubt.unlink(missing_ok=True)
        _synced(folder)
        _synced(self.path.parent)
        log.warning("recovery: the damaged journal lies in %s", folder)
        if self.journal is not None:                     # SQLite closes the old files now, by names that are no longer theirs
            self.journal.drop()
        self.error, self.journal, self.box = None, None, None
        gc.collect()                                     # the connection of one that did not open hangs on its error

    def _tend(self, held: Held, *, anew: bool) -> None:
        """Give the journal a copy that holds what it holds."""
        if self.copy is None:
            return
        journal = self.journal
        assert journal is not None and self.box is not None
        books = self.box.books
        stand = Stand(books.chain.prev, max(books.orders_made, held.stand.orders), max(books.boots, held.stand.boots))
        try:
            if not anew and held.rows and held.rows[0].n <= journal.last + 1:
                self.copy.go_on(held)
                if journal.lineage != held.lineage:
                    journal.name_copy(held.lineage)
                missing = journal.copied(held.last + 1, refs_of_row)     # of a stale copy all that wait: never held together
                while page := [row._replace(stand=stand) for row in islice(missing, GROUP_ROWS)]:
                    last = page[-1].n == journal.last
                    self.copy.keep(page, journal.acked() if last and journal.acked()[0] else None)
            else:
                rows = (row._replace(stand=stand) for row in journal.copied(journal.fold_from, refs_of_row))
                journal.name_copy(self.copy.begin(rows, journal.acked(), journal.lineage))
                self.copy.forget()
        except CopyFailed as why:
            self._without(why)
            return
        journal.copy = self.copy

    def _without(self, why: CopyFailed) -> None:
        log.error("%s", why)
        self.trouble = str(why)
        if self.copy is not None:
            self.copy.close()
        self.copy = None

    def _mark_began(self) -> None:
        if not self.began.exists():
            self.began.touch()
            _synced(self.began.parent)


class _Rows:
    """Rows as `Box` folds them."""

    def __init__(self, rows: tuple[Copied, ...], error: JournalUnreadable | None) -> None:
        self._rows, self._error = rows, error

    def fold(self) -> Iterator[tuple[int, bytes]]:
        yield from ((row.n, row.facts) for row in self._rows)

    def unreadable(self, why: str) -> JournalUnreadable:
        return JournalUnreadable(f"{self._error.what if self._error else 'The journal is not there.'} Its second copy does not "
                                 f"help: {why}.", which="journal", again=False,
                                 hint="nothing was changed; copy both before anything else, see docs/recovery.md")


def _synced(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
