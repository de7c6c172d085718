"""A journal that is damaged: one sentence, an exit status of its own, and not one byte of it changed."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.till import IDENTITY, Till
from device.box import Box
from device.daemon import EXIT_JOURNAL
from device.errors import JournalUnreadable, Outside
from device.store_forward.journal import Journal, Row
from sim.devices.display import frame_no
from tests import ROOT

PAGE = 4096


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a till that made some sales and was stopped in order: all of it in journal.db."""
    folder = tmp_path_factory.mktemp("stopped")
    till = Till(folder)
    for _ in range(12):
        till.cash_sale()
    till.close()
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same till after a kill: journal.db as it began, and every sale in journal.db-wal."""
    made, left = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("killed")
    till = Till(made)
    for _ in range(3):
        till.cash_sale()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(made / name, left / name)
    till.close()
    assert (left / "journal.db-wal").stat().st_size > (left / "journal.db").stat().st_size
    return left


def sql(*statements: str) -> Callable[[Path], None]:
    def harm(journal: Path) -> None:
        db = sqlite3.connect(journal)
        for statement in statements:
            db.execute(statement)
        db.commit()
        db.close()
    return harm


def rotten_page(journal: Path) -> None:
    """One page that boot has to read, from the middle of the file, as a dying flash gives it back."""
    db = sqlite3.connect(journal)
    (row,) = db.execute("SELECT facts FROM journal WHERE n = (SELECT max(n) / 2 FROM journal)").fetchone()
    db.close()
    data = bytearray(journal.read_bytes())
    page = data.index(row) // PAGE * PAGE
    assert PAGE < page < len(data) - PAGE
    data[page:page + PAGE] = os.urandom(PAGE)
    journal.write_bytes(data)


def folder_in_its_place(journal: Path) -> None:
    journal.unlink()
    journal.mkdir()


def rotten_head(journal: Path) -> None:
    data = journal.read_bytes()
    journal.write_bytes(b"\0" * 100 + data[100:])


LAST = "(SELECT max(n) FROM journal)"
DAMAGES: list[tuple[str, str, Callable[[Path], None], str]] = [
    ("stopped", "a row that is no JSON", sql(f"UPDATE journal SET facts = x'5b2230' WHERE n = {LAST}"), "cannot be read"),
    ("stopped", "a row that is no UTF-8", sql(f"UPDATE journal SET facts = x'5b22ff225d' WHERE n = {LAST}"), "cannot be read"),
    ("stopped", "a fact that nobody knows", sql(
        "UPDATE journal SET facts = CAST(replace(CAST(facts AS TEXT), '\"SaleClosed\"', '\"SaleOpened\"') AS BLOB)"), "SaleOpened"),
    ("stopped", "a row that says another's end", sql(
        """UPDATE journal SET facts = CAST('[["b",1,"","ntp"],[{"type":"ReceiptPrinted","job":999,"proof":1}]]' AS BLOB)"""
        f" WHERE n = {LAST}"), "does not follow"),
    ("stopped", "a row of text", sql(f"UPDATE journal SET facts = 'text' WHERE n = {LAST}"), "something else than facts"),
    ("stopped", "a row gone from the middle", sql("DELETE FROM journal WHERE n = 7"), "row 7 is missing"),
    ("stopped", "its first row gone", sql("DELETE FROM journal WHERE n = 1"), "row 1 is missing"),
    ("stopped", "a fold beyond its end", sql("UPDATE meta SET value = '9999' WHERE key = 'fold_from'"), "row 9999 is missing"),
    ("stopped", "a page rotted in the middle", rotten_page, "is damaged"),
    ("stopped", "a schema that is no number", sql("UPDATE meta SET value = 'two' WHERE key = 'schema'"), "table of contents"),
    ("stopped", "schema 0", sql("UPDATE meta SET value = '0' WHERE key = 'schema'"), "without a journal's tables"),
    ("stopped", "schema 1 with the tables of 2", sql("UPDATE meta SET value = '1' WHERE key = 'schema'"), "already exists"),
    ("stopped", "no schema at all", sql("DELETE FROM meta WHERE key = 'schema'"), "table of contents"),
    ("stopped", "no box", sql("DELETE FROM meta WHERE key = 'box'"), "table of contents"),
    ("stopped", "no cursor", sql("DELETE FROM cursor"), "table of contents"),
    ("stopped", "no table of rows", sql("DROP TABLE journal"), "no such table"),
    ("stopped", "no table at all", sql("DROP TABLE meta", "DROP TABLE journal", "DROP TABLE cursor"), "without a journal's"),
    ("stopped", "zero length", lambda journal: os.truncate(journal, 0), "0 bytes"),
    ("stopped", "half its length", lambda journal: os.truncate(journal, journal.stat().st_size // 2 // PAGE * PAGE), "is damaged"),
    ("stopped", "a folder", folder_in_its_place, "a folder"),
    ("stopped", "no database", lambda journal: journal.write_bytes(b"noise" * 5000) and None, "not a database"),
    ("killed", "zero length beside a WAL", lambda journal: os.truncate(journal, 0), "0 bytes"),
    ("killed", "gone, its WAL still there", lambda journal: journal.unlink(), "is gone"),
    ("killed", "other bytes beside a WAL", lambda journal: journal.write_bytes(b"noise" * 5000) and None, "is damaged"),
]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file; opening leaves an empty WAL beside a file that had none, and an empty folder for a second copy."""
    files = {file.name: None if file.is_dir() else file.read_bytes() for file in sorted(folder.iterdir())}
    return {name: data for name, data in files.items() if (name, data) not in (("journal.db-wal", b""), ("second", None))}


@pytest.mark.parametrize("left, harm, word", [(left, harm, word) for left, _, harm, word in DAMAGES],
                         ids=[name for _, name, _, _ in DAMAGES])
def test_a_damaged_journal_ends_in_one_sentence_and_is_not_touched(left, harm, word, tmp_path, request):
    folder = shutil.copytree(request.getfixturevalue(left), tmp_path / "box")
    harm(folder / "journal.db")
    before = contents(folder)
    with pytest.raises(JournalUnreadable) as said:
        Box(Journal(folder / "journal.db", identity=IDENTITY))
    assert contents(folder) == before
    sentence = str(said.value)
    assert word in sentence and "recovery.md" in sentence and len(sentence.splitlines()) == 1


@pytest.mark.parametrize("left", ["stopped", "killed"])
def test_the_same_files_undamaged_open(left, tmp_path, request):
    folder = shutil.copytree(request.getfixturevalue(left), tmp_path / "box")
    journal = Journal(folder / "journal.db", identity=IDENTITY)
    assert Box(journal).books.chain.count >= 2
    journal.close()


def test_a_new_journal_appears_whole_and_leaves_nothing_beside_it(tmp_path):
    asked = []

    def connect(path: str) -> sqlite3.Connection:
        asked.append((Path(path).name, (tmp_path / "journal.db").exists()))
        return sqlite3.connect(path)

    journal = Journal(tmp_path / "journal.db", identity=IDENTITY, connect=connect)
    assert asked[0][0].startswith(".journal.db.") and asked[0][1] is False and asked[1:] == [("journal.db", True)]
    assert {file.name for file in tmp_path.iterdir()} <= {"journal.db", "journal.db-wal"}
    journal.close()
    with pytest.raises(Outside, match="cannot be made"):
        Journal(tmp_path / "nowhere" / "journal.db", identity=IDENTITY)


def test_the_daemon_says_it_on_standard_error_and_display_and_leaves_the_wal_alone(tmp_path):
    till = Till(tmp_path)
    till.cash_sale()
    till.journal.append(Row(b'["half a ro', till.box.books.chain.seq), sync=True)
    box = tmp_path / "box"
    box.mkdir()
    for name in ("journal.db", "journal.db-wal"):
        shutil.copy(tmp_path / name, box / name)
    till.close()
    shutil.copy(tmp_path / "record.pem", box / "record.key")
    (tmp_path / "box.toml").write_text(
        f'box = "box-1"\nbox_no = "000001"\ntenant = "t"\nstate_dir = "{box}"\nrun_dir = "{tmp_path}/run"\n'
        f'record_key_file = "{box}/record.key"\n'
        f'[display]\nkind = "file"\npath = "{tmp_path}/frame"\nwidth = 320\nheight = 240\n')
    before = contents(box)
    done = subprocess.run([sys.executable, "-m", "device", "run", "--config", str(tmp_path / "box.toml")], cwd=ROOT,
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == EXIT_JOURNAL == 3
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{box}/journal.db" in done.stderr and "cannot be read" in done.stderr
    assert contents(box) == before
    assert frame_no(str(tmp_path / "frame")) == 1
