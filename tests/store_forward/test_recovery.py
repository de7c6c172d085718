"""Rule 6 of money: every cell of the recovery table on real files, damage made by hand, and nothing lost in silence."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.till import GOODS, IDENTITY, QR, Till
from device.crockford import number
from device.errors import JournalUnreadable
from device.recovery.recovering import doubt, opened
from device.recovery.table import COLUMNS, TABLE, Act, Cloud, Store
from device.store_forward.es256 import public_verifier
from device.store_forward.second_copy import SecondCopy
from device.store_forward.token import thumbprint
from device.store_forward.tools import exported
from device.store_forward.tools import opened as reading
from device.store_forward.verify import verify
from device.txn import facts as wire
from device.txn.inputs import ChannelSaid, CloudStood, Pressed, QrReady, Rang, Said, Scanned
from tests import ROOT

OTHER_SEED = "b3RoZXItam91cm5hbC0wMQ"
CLOUD_SEED = "YW5vdGhlci1qb3VybmFsMQ"
FLASH_PAGE = 16 * 1024


class Left(NamedTuple):
    """What a till left behind: its folder when it was killed, when it was stopped, and earlier, with what it knew at the end."""

    killed: Path
    stopped: Path
    early: Path
    parked: str
    sales: int
    made: int
    last: int
    jid: str
    numbers: frozenset[str]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    folder, early, killed, stopped = (tmp_path_factory.mktemp(name) for name in ("till", "early", "killed", "stopped"))
    till = Till(folder)
    for _ in range(3):
        till.cash_sale()
        till.qr_sale()
    parked = parked_order(till)
    shutil.copytree(folder, early, dirs_exist_ok=True)
    for _ in range(3):
        till.qr_sale()
        till.cash_sale()
    till.journal.sync()
    shutil.copytree(folder, killed, dirs_exist_ok=True)
    books = till.box.books
    numbers = set()
    for _, row in till.journal.rows():
        numbers |= set(re.findall(rb"000001[0-9A-Z]{14}", row))
    till.close()
    shutil.copytree(folder, stopped, dirs_exist_ok=True)
    return Left(killed, stopped, early, parked, books.chain.count, books.orders_made, till.journal.durable_last, books.chain.jid,
                frozenset(no.decode() for no in numbers))


def parked_order(till: Till) -> str:
    """A customer left with the goods before the channel had decided."""
    till.tell(Scanned(GOODS[0].item.gtin, GOODS[0]))
    till.tell(Pressed("PAY"))
    no = till.box.books.basket.order_no
    till.tell(QrReady(no, QR))
    till.tell(Pressed("PARK"))
    till.tell(Pressed("ENTER"))
    assert till.box.books.orders[no].park == "book"
    return no


# Damage ------------------------------------------------------------------------------------------------------------

Harm = Callable[[Path, Left], None]


def whole(folder: Path, left: Left) -> None:
    pass


def older_journal(folder: Path, left: Left) -> None:
    """Its newest rows never reached the card, though it said so."""
    for name in ("journal.db", "journal.db-wal"):
        (folder / name).unlink(missing_ok=True)
        shutil.copy(left.early / name, folder / name)


def journal_behind_its_own_cursor(folder: Path, left: Left) -> None:
    """The cloud confirmed records that its rows do not reach."""
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute("UPDATE cursor SET jid = ?, upto = 99, head = 'x'", (left.jid,))
        db.commit()


def rotten_journal(folder: Path, left: Left) -> None:
    """One page from the middle of its rows."""
    shutil.copy(left.stopped / "journal.db", folder / "journal.db")
    (folder / "journal.db-wal").unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as db:
        (row,) = db.execute("SELECT facts FROM journal WHERE n = (SELECT max(n) / 2 FROM journal)").fetchone()
    at = (folder / "journal.db").read_bytes().index(row) // 4096 * 4096
    overwrite(folder / "journal.db", at, 4096)


def no_journal(folder: Path, left: Left) -> None:
    for name in ("journal.db", "journal.db-wal"):
        (folder / name).unlink(missing_ok=True)


def older_copy(folder: Path, left: Left) -> None:
    shutil.rmtree(folder / "second")
    shutil.copytree(left.early / "second", folder / "second")


def torn_copy(folder: Path, left: Left) -> None:
    """Its last frame is there in part."""
    overwrite(segment(folder), end_of(folder) - 40, 40)


def rotten_copy(folder: Path, left: Left) -> None:
    overwrite(segment(folder), end_of(folder) * 4 // 5, 512)


def no_copy(folder: Path, left: Left) -> None:
    shutil.rmtree(folder / "second")


def overwrite(path: Path, at: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(random.Random(at).randbytes(size))


def segment(folder: Path) -> Path:
    return sorted((folder / "second").glob("copy-*.seg"))[-1]


def end_of(folder: Path) -> int:
    copy = SecondCopy(folder / "second", "real box-1")
    copy.go_on(copy.read())
    end = copy._end
    copy.close()
    return end


W, S, R, G = Store.WHOLE, Store.SHORTER, Store.ROTTEN, Store.GONE
HARMS: dict[tuple[Store, Store], tuple[Harm, Harm]] = {
    (W, W): (whole, whole), (W, S): (whole, older_copy), (W, R): (whole, rotten_copy), (W, G): (whole, no_copy),
    (S, W): (older_journal, whole), (S, S): (older_journal, torn_copy), (S, R): (older_journal, rotten_copy),
    (S, G): (journal_behind_its_own_cursor, no_copy),
    (R, W): (rotten_journal, whole), (R, S): (rotten_journal, torn_copy), (R, R): (rotten_journal, rotten_copy),
    (R, G): (rotten_journal, no_copy),
    (G, W): (no_journal, whole), (G, S): (no_journal, torn_copy), (G, R): (no_journal, rotten_copy), (G, G): (no_journal, no_copy),
}
CARRIED = [cell for cell in HARMS if cell not in ((R, R), (R, G), (G, G))]   # where at least the older rows are still there


def harmed(left: Left, tmp_path: Path, cell: tuple[Store, Store]) -> Path:
    return damaged(left, tmp_path, HARMS[cell])


def damaged(left: Left, tmp_path: Path, harms: tuple[Harm, Harm]) -> Path:
    folder = shutil.copytree(left.killed, tmp_path / "box")
    harms[1](folder, left)
    harms[0](folder, left)
    return folder


def test_the_table_has_no_hole():
    assert set(TABLE) == {(journal, copy) for journal in Store for copy in Store} == set(HARMS)
    assert len(TABLE) * len(COLUMNS) == 48 and set(COLUMNS) == set(Cloud)


@pytest.mark.parametrize("cloud", COLUMNS)
@pytest.mark.parametrize("cell", TABLE, ids=lambda cell: f"{cell[0]}-{cell[1]}")
def test_a_cell_does_what_the_table_says(cell: tuple[Store, Store], cloud: Cloud, left: Left, tmp_path: Path) -> None:
    folder = harmed(left, tmp_path, cell)
    at_boot, said = TABLE[cell][COLUMNS.index(Cloud.UNREACHABLE)], TABLE[cell][COLUMNS.index(cloud)]
    if at_boot is Act.STOP:
        before = files_of(folder)
        with pytest.raises(JournalUnreadable) as why:
            opened(folder / "journal.db", folder / "second", identity=IDENTITY)
        assert "recovery.md" in str(why.value) and files_of(folder) == before and said is Act.STOP
        return
    till = Till(folder, "b9", seed=OTHER_SEED)
    assert till.found.found == cell and till.found.act is at_boot
    renewed_at_boot = at_boot is Act.CASH
    assert (till.box.books.chain.jid == left.jid) is not renewed_at_boot
    assert refuses_wallets(till) is renewed_at_boot
    till.cash_sale()
    if cloud is not Cloud.UNREACHABLE:
        jid = till.box.books.chain.jid if not renewed_at_boot else left.jid
        verdict = "ok" if cloud is Cloud.EQUAL else "rollback"
        till.tell(CloudStood(jid, verdict, CLOUD_SEED))
        till.tell(Pressed("CLEAR"))
        if till.box.desk.renew[0]:
            assert ("journal",) in till.box._wanted
            till.tell(Rang(("journal", CLOUD_SEED)))
    books = till.box.books
    assert (books.chain.jid != left.jid) is (said is not Act.SELL)
    assert bool(books.wallets_stopped) is (said is Act.CASH)
    if said is not Act.CASH:
        no = paid_by_qr(till)
        assert no not in left.numbers and (cell == (G, G) or number(no[10:18]) > left.made)
    if cell in CARRIED:
        assert left.parked in books.orders and books.orders[left.parked].park == "book"
    till.close()
    assert defects_of(folder, cell) == []


@pytest.mark.parametrize("cell", [cell for cell in TABLE if TABLE[cell][2] is Act.SELL], ids=lambda cell: f"{cell[0]}-{cell[1]}")
def test_where_it_sells_on_every_acknowledged_row_is_there(cell, left: Left, tmp_path: Path) -> None:
    folder = harmed(left, tmp_path, cell)
    found = opened(folder / "journal.db", folder / "second", identity=IDENTITY)
    assert found.box.books.chain.count == left.sales and found.box.books.orders_made == left.made
    assert found.journal.last == left.last
    found.journal.close()


@pytest.mark.parametrize("cell", [cell for cell in TABLE if TABLE[cell][2] is not Act.STOP],
                         ids=lambda cell: f"{cell[0]}-{cell[1]}")
def test_numbers_skip_a_thousand_after_any_repair_once(cell, left: Left, tmp_path: Path) -> None:
    folder = harmed(left, tmp_path, cell)
    till = Till(folder, "b9", seed=OTHER_SEED)
    made = till.box.books.orders_made
    quiet = cell in ((W, W), (W, S))
    assert made == left.made if quiet else made >= 1_000 + (0 if cell == (G, G) else left.made - 12)
    if cell not in ((G, G), (S, G), (S, S), (R, S), (G, S)):
        assert quiet or made == left.made + 1_000        # the copy's frames name the mark, also those of rows that are lost
    till.close()
    again = Till(folder, "b10", seed=CLOUD_SEED)
    assert again.found.found == (W, W) and again.box.books.orders_made == made
    assert refuses_wallets(again) is (TABLE[cell][2] is Act.CASH)      # a restart is no answer of the cloud
    again.close()


def refuses_wallets(till: Till) -> bool:
    till.tell(Scanned(GOODS[0].item.gtin, GOODS[0]))
    till.tell(Pressed("PAY"))
    refused = not till.box.books.basket.order_no
    if refused:
        assert "cash only" in till.box.desk.words[1]
        till.tell(Pressed("CLEAR"))
    else:
        no = till.box.books.basket.order_no
        till.tell(Pressed("CANCEL"))
        till.tell(ChannelSaid(no, Said.CLOSED))
        till.tell(Pressed("CLEAR"))
    return refused


def paid_by_qr(till: Till) -> str:
    till.tell(Scanned(GOODS[0].item.gtin, GOODS[0]))
    till.tell(Pressed("PAY"))
    no = till.box.books.basket.order_no
    till.tell(QrReady(no, QR))
    till.tell(ChannelSaid(no, Said.PAID, GOODS[0].item.price_fen, "42"))
    assert no in till.box.books.sales
    return no


def defects_of(folder: Path, cell: tuple[Store, Store]) -> list[str]:
    """Of the records that the journal holds, as a third party checks them."""
    from device.drivers.signer.file import FileSigner
    jwk = FileSigner(folder / "record.pem").jwk
    db = reading(folder / "journal.db")
    tokens = list(exported(db))
    db.conn.close()
    assert tokens
    return [str(defect) for defect in verify(tokens, {thumbprint(jwk): public_verifier(jwk)})]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.read_bytes()}


# One flash page ----------------------------------------------------------------------------------------------------

def pages(folder: Path) -> list[tuple[str, int]]:
    names = ["journal.db", "journal.db-wal", str(segment(folder).relative_to(folder))]
    return [(name, at) for name in names if (folder / name).exists() for at in range(0, (folder / name).stat().st_size, FLASH_PAGE)]


@pytest.mark.parametrize("state", ["killed", "stopped"])
def test_no_single_flash_page_takes_an_acknowledged_row_in_silence(state: str, left: Left, tmp_path: Path) -> None:
    source = getattr(left, state)
    for name, at in pages(source):
        for fill in (bytes(FLASH_PAGE), random.Random(at).randbytes(FLASH_PAGE)):
            folder = shutil.copytree(source, tmp_path / "box")
            with (folder / name).open("r+b") as file:
                file.seek(at)
                file.write(fill[:(folder / name).stat().st_size - at])
            found = opened(folder / "journal.db", folder / "second", identity=IDENTITY)
            assert (found.journal.last, found.box.books.orders_made) == (left.last, left.made), (state, name, at, found.found)
            assert found.act is Act.SELL, (state, name, at, found.found)
            found.journal.close()
            shutil.rmtree(folder)


def test_a_flipped_digit_in_a_row_that_still_reads_is_found(left: Left, tmp_path: Path) -> None:
    folder = shutil.copytree(left.stopped, tmp_path / "box")
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute("UPDATE journal SET facts = CAST(replace(CAST(facts AS TEXT), ?, ?) AS BLOB)",
                   ('"amount_fen":750', '"amount_fen":950'))
        assert db.total_changes
        db.commit()
    found = opened(folder / "journal.db", folder / "second", identity=IDENTITY)
    assert found.found == (R, W) and found.box.books.day.sales_fen == 750 * left.sales
    assert (folder / "damaged-1" / "journal.db").exists()
    found.journal.close()


# A kill at any moment of it ------------------------------------------------------------------------------------------

CALLS = ("rename", "pwrite", "fdatasync", "fsync", "mkdir", "unlink", "link", "open")


def cut_at(folder: Path, count: int) -> bool:
    """Recovery in a process of its own that is gone at its `count`-th call to the disk; True when it came that far."""
    child = os.fork()
    if not child:
        try:
            done = 0
            for name in CALLS:
                real = getattr(os, name)

                def call(*given: object, _real: Callable = real, **more: object) -> object:
                    nonlocal done
                    done += 1
                    if done == count:
                        os._exit(9)
                    return _real(*given, **more)

                setattr(os, name, call)
            found = opened(folder / "journal.db", folder / "second", identity=IDENTITY)
            found.journal._db.execute("SELECT 1")
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


CUT = {f"{cell[0]}-{cell[1]}": HARMS[cell] for cell in TABLE if TABLE[cell][2] is not Act.STOP and cell != (W, W)}
CUT["rotten, and longer than its copy"] = (rotten_journal, older_copy)       # once moved aside, it proves that no more


@pytest.mark.parametrize("harms", CUT.values(), ids=CUT)
def test_a_recovery_that_is_cut_anywhere_ends_the_same(harms: tuple[Harm, Harm], left: Left, tmp_path: Path) -> None:
    def ended(folder: Path) -> tuple[object, ...]:
        found = opened(folder / "journal.db", folder / "second", identity=IDENTITY)
        rows = list(found.journal.rows())
        told = (found.act, found.repair.lost, rows, found.journal.acked())
        found.journal.close()
        return told

    folder = damaged(left, tmp_path, harms)
    plain = shutil.copytree(folder, tmp_path / "plain")
    expected = ended(plain)
    count, came = 0, True
    while came and count < 200:
        count += 1
        box = shutil.copytree(folder, tmp_path / "cut")
        came = cut_at(box, count)
        assert ended(box) == expected, count
        assert len(list(box.rglob("damaged-*/journal.db"))) == len(list(plain.rglob("damaged-*/journal.db")))
        shutil.rmtree(box)
    assert 3 < count < 200


def test_rows_that_only_a_newer_release_reads_stop_the_box_and_stay(left: Left, tmp_path: Path) -> None:
    folder = shutil.copytree(left.stopped, tmp_path / "box")
    till = Till(folder, "b2")
    row = wire.encode(wire.Entry(till._stamp(), (wire.ScreenCleared(),))).replace(b"ScreenCleared", b"ScreenCloudy")
    till.journal.append(till_row(till, row), sync=True)
    till.close()
    before = files_of(folder)
    with pytest.raises(JournalUnreadable, match="ScreenCloudy"):
        opened(folder / "journal.db", folder / "second", identity=IDENTITY)
    assert files_of(folder) == before


def till_row(till: Till, facts: bytes):
    from device.store_forward.journal import Row
    return Row(facts, till.box.books.chain.base + till.box.books.chain.seq)


def test_a_new_box_begins_without_a_word(tmp_path: Path) -> None:
    found = opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY)
    assert (found.found, found.act, found.trouble) == ((W, W), Act.SELL, "") and not found.repair.why
    found.journal.close()


def test_without_room_for_a_second_copy_it_sells_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "second").write_text("a file where a folder should be")
    found = opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY)
    assert found.act is Act.SELL and "second copy" in found.trouble and found.journal.copy is None
    found.journal.close()


def test_the_page_for_people_says_what_the_table_says() -> None:
    told = {}
    for line in (ROOT / "docs" / "recovery.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if len(cells) == 7 and cells[0] in set(Store):
            told[Store(cells[0]), Store(cells[1])] = tuple(Act(cell) for cell in cells[2:5])
            assert len(cells[5]) > 20 and len(cells[6]) > 10, line
    assert told == TABLE



# Rows that a start does not read -------------------------------------------------------------------------------------

def grown(folder: Path) -> Till:
    """A till whose books were said again, twice, with every record still unsent."""
    till = Till(folder)
    for _ in range(2):
        till.cash_sale()
        till.qr_sale()
        till.box.restate(till._stamp())
    till.cash_sale()
    till.journal.sync()
    return till


def spoil_row(folder: Path, n: int) -> None:
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as db:
        db.execute("UPDATE journal SET facts = x'5b22ff225d' WHERE n = ?", (n,))
        db.commit()


def test_a_row_that_only_the_uplink_reads_is_healed_at_the_start_after_it(tmp_path: Path) -> None:
    till = grown(tmp_path)
    every = till.journal.tokens(0, 50, 1 << 20, wire.tokens_of)
    assert len(every) == 6 and till.journal.fold_from > 20
    till.close()
    spoil_row(tmp_path, 7)
    again = opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY)
    assert again.found == (W, W)
    again.journal.close()
    doubt(tmp_path / "journal.db")                   # what the daemon leaves when it reads that row
    healed = opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY)
    assert healed.found == (R, W) and healed.act is Act.SELL and not (tmp_path / "journal.doubt").exists()
    assert healed.journal.tokens(0, 50, 1 << 20, wire.tokens_of) == every
    healed.journal.close()


def test_records_that_neither_store_has_end_the_old_journal(tmp_path: Path) -> None:
    till = grown(tmp_path)
    jid = till.box.books.chain.jid
    till.close()
    sorted((tmp_path / "second").glob("copy-*.seg"))[0].unlink()
    no_journal(tmp_path, None)  # type: ignore[arg-type]
    box = Till(tmp_path, "b2", seed=OTHER_SEED)
    chain = box.box.books.chain
    assert box.found.found == (G, S) and box.found.act is Act.CASH and box.found.repair.gap
    assert chain.jid != jid and chain.older[-1].jid == jid and not chain.older[-1].sent
    box.close()


def test_the_tenth_damaged_journal_stops_the_box(tmp_path: Path) -> None:
    Till(tmp_path).close()
    for _ in range(9):
        doubt(tmp_path / "journal.db")
        opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY).journal.close()
    doubt(tmp_path / "journal.db")
    with pytest.raises(JournalUnreadable, match="9 damaged journals"):
        opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY)
    assert (tmp_path / "journal.db").exists()


@pytest.mark.parametrize("cut", [False, True])
def test_a_copy_that_lacks_much_is_brought_up_a_few_rows_at_a_time(cut: bool, left: Left, tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(left.stopped, tmp_path, dirs_exist_ok=True)
    older_copy(tmp_path, left)
    monkeypatch.setattr("device.recovery.recovering.GROUP_ROWS", 7)
    kept, keep = [], SecondCopy.keep

    def watched(copy: SecondCopy, rows: list, *more: object) -> None:
        kept.append(len(rows))
        if cut and len(kept) == 3:
            raise KeyboardInterrupt
        keep(copy, rows, *more)
    monkeypatch.setattr(SecondCopy, "keep", watched)
    if cut:
        with pytest.raises(KeyboardInterrupt):
            opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY)
        shutil.copytree(tmp_path, tmp_path / "after")              # the files as a power cut leaves them: no lock is held on these
        tmp_path /= "after"
    journal = opened(tmp_path / "journal.db", tmp_path / "second", identity=IDENTITY).journal
    assert max(kept) <= 7 and len(kept) > 3
    rows, index = dict(journal.rows()), {}
    for ref, n in journal._db.execute("SELECT ref, n FROM refs"):
        index.setdefault(n, set()).add(ref)
    last = journal.last
    journal.close()
    copy = SecondCopy(tmp_path / "second", "real box-1")
    held = copy.read()
    copy.close()
    found = [*held.older, *held.rows]
    assert [r.n for r in found] == list(range(found[0].n, last + 1)) and found[0].n < last - 14
    assert all(r.facts == rows[r.n] and set(r.refs) == index.get(r.n, set()) for r in found)
    assert held.acked == ("", 0, "") and not held.broken
