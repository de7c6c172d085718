"""The journal: order, grouping, what a crash takes, who is refused, and where a place in the chain is found."""

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from device.errors import JournalFull, Outside
from device.store_forward.journal import Journal, Row
from device.store_forward.schema import SCHEMA_VERSION, _lay_tables

REAL = {"box": "box-1", "mode": "real"}


def journal_at(tmp_path: Path, **given) -> Journal:
    return Journal(tmp_path / "journal.db", **{"identity": REAL, "reserve_bytes": 0, **given})


def crash(journal: Journal) -> None:
    journal._db.close()


def tokens_of(facts: bytes) -> list[tuple[int, str]]:
    """Facts of these tests: comma separated record numbers, or nothing."""
    return [(int(word), f"token-{int(word)}") for word in facts.split(b",") if word.isdigit()]


def test_rows_come_back_in_order(tmp_path):
    journal = journal_at(tmp_path)
    assert [journal.append(Row(b"row %d" % i, 0), sync=True) for i in range(1, 6)] == [1, 2, 3, 4, 5]
    journal.close()
    again = journal_at(tmp_path)
    assert list(again.rows()) == [(i, b"row %d" % i) for i in range(1, 6)]
    assert list(again.rows(4)) == [(4, b"row 4"), (5, b"row 5")]
    assert again.append(Row(b"row 6", 0), sync=False) == 6
    again.close()


def test_a_synced_row_takes_the_waiting_ones_along_in_one_commit(tmp_path):
    journal = journal_at(tmp_path)
    for _ in range(3):
        journal.append(Row(b"scan", 0), sync=False)
    assert (journal.waiting, journal.commits, journal.durable_last) == (3, 0, 0)
    journal.append(Row(b"intent", 0), sync=True)
    assert (journal.waiting, journal.commits, journal.durable_last) == (0, 1, 4)
    journal.sync()
    assert journal.commits == 1
    journal.close()


def test_a_crash_takes_waiting_rows_and_no_other(tmp_path):
    journal = journal_at(tmp_path)
    journal.append(Row(b"kept", 0), sync=True)
    journal.append(Row(b"waits", 0), sync=False)
    assert list(journal.rows()) == [(1, b"kept")]
    crash(journal)
    again = journal_at(tmp_path)
    assert list(again.rows()) == [(1, b"kept")] and again.last == 1
    again.close()


def test_folding_begins_at_the_last_restating_row_that_is_durable(tmp_path):
    journal = journal_at(tmp_path)
    for i in range(1, 4):
        journal.append(Row(b"%d" % i, 0), sync=True)
    journal.append(Row(b"all", 0), sync=True, restates=True)
    journal.append(Row(b"5", 0), sync=True)
    journal.append(Row(b"lost", 0), sync=False, restates=True)
    crash(journal)
    again = journal_at(tmp_path)
    assert list(again.fold()) == [(4, b"all"), (5, b"5")]
    again.close()


def test_recall_finds_rows_by_order_number_waiting_ones_too(tmp_path):
    journal = journal_at(tmp_path)
    journal.append(Row(b"a1", 0, ("A",)), sync=True)
    journal.append(Row(b"b1", 0, ("B", "B")), sync=True)
    journal.append(Row(b"ab", 0, ("A", "B")), sync=False)
    assert journal.recall("A") == [b"a1", b"ab"]
    assert journal.recall("B") == [b"b1", b"ab"]
    assert journal.recall("C") == []
    journal.close()


def test_tokens_by_bisection_equal_a_plain_reading(tmp_path):
    journal = journal_at(tmp_path)
    seq = 0
    for i in range(300):
        signed = [seq + 1 + k for k in range((i * 7) % 11 % 3 if i % 5 else 0)]
        seq += len(signed)
        journal.append(Row(b",".join(b"%d" % s for s in signed), seq), sync=False)
    journal.sync()
    journal.append(Row(b"%d" % (seq + 1), seq + 1), sync=False)       # not durable: never given
    every = [pair for _, facts in journal.rows() for pair in tokens_of(facts)]
    assert [s for s, _ in every] == list(range(1, seq + 1)) and seq > 100
    for after in range(seq + 3):
        assert journal.tokens(after, 7, 10**6, tokens_of) == [p for p in every if p[0] > after][:7]
    journal.close()


def test_tokens_stay_within_their_bytes_but_the_first_always_comes(tmp_path):
    journal = journal_at(tmp_path)
    journal.append(Row(b"1,2,3", 3), sync=True)
    assert len(journal.tokens(0, 50, 16, tokens_of)) == 2
    assert len(journal.tokens(0, 50, 15, tokens_of)) == 1
    assert len(journal.tokens(0, 50, 1, tokens_of)) == 1
    journal.close()


def test_the_cursor_only_rises_and_never_passes_the_card(tmp_path):
    journal = journal_at(tmp_path)
    journal.append(Row(b"1,2,3", 3), sync=True)
    assert journal.acked() == ("", 0, "")
    assert journal.ack("J", 2, "head2") and journal.acked() == ("J", 2, "head2")
    assert not journal.ack("J", 1, "head1")
    assert not journal.ack("K", 3, "head3")
    assert not journal.ack("J", 4, "head4")
    assert journal.commits == 1
    journal.sync()
    assert journal.commits == 2
    crash(journal)
    again = journal_at(tmp_path)
    assert again.acked() == ("J", 2, "head2")
    again.close()


def test_a_full_journal_keeps_nothing_of_the_row_and_opens_its_reserve_to_closing_rows(tmp_path):
    journal = journal_at(tmp_path, quota_bytes=200_000)
    with pytest.raises(JournalFull):
        for _ in range(1000):
            journal.append(Row(bytes(1000), 0), sync=True)
    kept = journal.last
    assert 50 < kept < 200 and journal.waiting == 0 and len(list(journal.rows())) == kept
    assert journal.append(Row(b"closes", 0), sync=True, from_reserve=True) == kept + 1
    journal.close()


def test_the_reserve_on_the_card_is_not_touched(tmp_path):
    free = [10_000]
    journal = journal_at(tmp_path, reserve_bytes=9_000, free_bytes=lambda: free[0])
    journal.append(Row(b"fits", 0), sync=False)
    free[0] = 9_050
    with pytest.raises(JournalFull):
        journal.append(Row(b"too much", 0), sync=True)
    assert journal.waiting == 1 and journal.last == 1
    journal.close()


@pytest.mark.parametrize("identity, word", [
    ({"box": "box-1", "mode": "training"}, "training"), ({"box": "box-2", "mode": "real"}, "box-2"),
])
def test_another_identity_is_refused(tmp_path, identity, word):
    journal_at(tmp_path).close()
    with pytest.raises(Outside, match=word):
        journal_at(tmp_path, identity=identity)
    journal_at(tmp_path).close()


def test_a_second_process_is_refused_in_one_sentence(tmp_path):
    journal = journal_at(tmp_path)
    code = ("import sys; from device.store_forward.journal import Journal\n"
            "try: Journal(sys.argv[1], identity={'box': 'box-1', 'mode': 'real'})\n"
            "except Exception as e: print(type(e).__name__, e)")
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path / "journal.db")], capture_output=True, text=True, timeout=30)
    assert said.stdout.startswith("JournalHeld journal:") and "held by another process" in said.stdout, said
    journal.append(Row(b"still ours", 0), sync=True)
    journal.close()


def test_a_killed_process_loses_no_row_it_called_synced(tmp_path):
    code = ("import sys; from device.store_forward.journal import Journal, Row\n"
            "j = Journal(sys.argv[1], reserve_bytes=0, identity={'box': 'box-1', 'mode': 'real'})\n"
            "while True:\n"
            "    j.append(Row(b'waits', 0), sync=False); n = j.append(Row(b'bound', 0), sync=True); print(n, flush=True)\n")
    said = 0
    for want in (3, 17, 40):
        child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "journal.db")], stdout=subprocess.PIPE, text=True)
        for _ in range(want):
            said = int(child.stdout.readline())
        os.kill(child.pid, signal.SIGKILL)
        said = int(([str(said)] + child.stdout.read().split("\n")[:-1])[-1])
        child.stdout.close()
        child.wait()
        journal = journal_at(tmp_path)
        assert journal.last >= said and [n for n, _ in journal.rows()] == list(range(1, journal.last + 1))
        crash(journal)


def test_a_failed_commit_ends_the_journal(tmp_path):
    journal = journal_at(tmp_path)
    journal.append(Row(b"one", 0), sync=True)
    journal._db.execute("PRAGMA query_only = 1")
    with pytest.raises(sqlite3.Error):
        journal.append(Row(b"two", 0), sync=True)
    with pytest.raises(AssertionError):
        journal.append(Row(b"three", 0), sync=False)
    journal.close()
    again = journal_at(tmp_path)
    assert list(again.rows()) == [(1, b"one")]
    again.close()


def test_the_settings_that_power_cuts_decided(tmp_path):
    journal = journal_at(tmp_path)
    settings = [journal._db.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous", "auto_vacuum", "locking_mode")]
    assert settings == ["wal", 2, 2, "exclusive"]
    journal.close()


def test_an_older_journal_is_brought_up_with_its_rows(tmp_path):
    db = sqlite3.connect(tmp_path / "journal.db")
    _lay_tables(db, REAL)
    db.execute("INSERT INTO journal VALUES (1, 0, ?)", (b"old",))
    db.commit()
    db.close()
    journal = journal_at(tmp_path)
    journal.append(Row(b"new", 0, ("A",)), sync=True)
    assert list(journal.rows()) == [(1, b"old"), (2, b"new")] and journal.recall("A") == [b"new"]
    assert journal._db.execute("SELECT value FROM meta WHERE key='schema'").fetchone()[0] == str(SCHEMA_VERSION)
    journal.close()


def test_a_newer_journal_is_refused_and_left_as_it_is(tmp_path):
    journal = journal_at(tmp_path)
    journal._db.execute("UPDATE meta SET value = '99' WHERE key = 'schema'")
    journal.close()
    for _ in range(2):
        with pytest.raises(Outside, match="newer"):
            journal_at(tmp_path)


def test_the_tail_of_a_long_journal_is_reached_without_a_scan(tmp_path):
    journal = journal_at(tmp_path)
    journal._db.execute("BEGIN")
    journal._db.executemany("INSERT INTO journal VALUES (?, ?, ?)",
                            ((i, i // 10, b"%d" % (i // 10) if i % 10 == 0 else b"-") for i in range(1, 100_001)))
    journal._db.execute("COMMIT")
    crash(journal)
    asked = []
    def connect(path):
        db = sqlite3.connect(path)
        db.set_trace_callback(asked.append)
        return db
    again = journal_at(tmp_path, connect=connect)
    assert again.last == 100_000 and len(asked) < 20
    asked.clear()
    assert [s for s, _ in again.tokens(9_990, 50, 10**6, tokens_of)] == list(range(9_991, 10_001))
    assert len(asked) < 25
    again.close()
