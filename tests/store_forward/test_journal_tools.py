"""`tillbox journal` on a file that a killed daemon left behind."""

import json
import shutil
import sqlite3

import msgspec
import pytest

from device.drivers.signer.file import FileSigner
from device.store_forward.journal import Journal, Row
from device.store_forward.schema import _lay_tables
from device.store_forward.token import EMPTY_DIGEST, Payload, Sum, b64, digest, encode_payload
from device.store_forward.tools import main

REAL = {"box": "box-1", "mode": "real"}


@pytest.fixture
def left(tmp_path):
    """A journal as a kill leaves it: its newest rows in the WAL, nobody holding it.  With the tokens it holds."""
    signer, prev, tokens = FileSigner(tmp_path / "key"), EMPTY_DIGEST, []
    journal = Journal(tmp_path / "held.db", reserve_bytes=0, identity=REAL)
    for seq in (1, 2, 3):
        payload = Payload(1, "box-1", b64(bytes(16)), seq, prev, "2026-03-01T08:00:00Z", "ntp", "b1", seq, "drawer", Sum(),
                          msgspec.Raw(b"{}"))
        tokens.append(signer.sign(encode_payload(payload)))
        prev = digest(tokens[-1])
        journal.append(Row(json.dumps(["开箱 scan"], ensure_ascii=False).encode(), seq - 1), sync=False)
        journal.append(Row(json.dumps({"token": tokens[-1]}).encode(), seq), sync=True)
    journal.append(Row(json.dumps({"again": tokens[-1]}).encode(), 3), sync=True)
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"held.db{suffix}", tmp_path / f"left.db{suffix}")
    journal.close()
    return str(tmp_path / "left.db"), tokens


def test_export_gives_each_token_once_in_order(left, capsys):
    assert main([left[0], "export"]) == 0
    assert capsys.readouterr().out.splitlines() == left[1]


def test_list_show_stats_and_schema(left, capsys):
    assert main([left[0]]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 7
    assert main([left[0], "list", "--from", "6", "--json"]) == 0
    assert [json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()] == [6, 7]
    assert main([left[0], "show", "1"]) == 0
    assert "开箱" in capsys.readouterr().out
    assert main([left[0], "stats", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["records"], said["unacked"], said["check"]) == (7, 3, 3, "ok")
    assert main([left[0], "schema"]) == 0
    assert "CREATE TABLE" in capsys.readouterr().out


def test_looking_changes_nothing_and_the_journal_opens_after(left):
    main([left[0], "stats"])
    again = Journal(left[0], reserve_bytes=0, identity=REAL)
    assert again.last == 7
    again.close()


def test_a_held_journal_and_other_files_are_refused_in_one_sentence(left, tmp_path, capsys):
    (tmp_path / "noise").write_bytes(b"noise" * 1000)
    held = Journal(left[0], reserve_bytes=0, identity=REAL)
    for path, word in ((left[0], "daemon"), (tmp_path / "noise", "cannot be read"), (tmp_path / "none", "not there")):
        assert main([str(path), "list"]) == 1
        said = capsys.readouterr()
        assert word in said.err and len(said.err.splitlines()) == 1 and said.out == ""
    held.close()


def test_an_old_version_is_read_without_being_changed(tmp_path, capsys):
    db = sqlite3.connect(tmp_path / "old.db")
    _lay_tables(db, REAL)
    db.execute("INSERT INTO journal VALUES (1, 0, ?)", (b"old",))
    db.commit()
    db.close()
    before = (tmp_path / "old.db").read_bytes()
    assert main([str(tmp_path / "old.db"), "list"]) == 0 and "old" in capsys.readouterr().out
    assert (tmp_path / "old.db").read_bytes() == before


def test_arguments_that_do_not_serve(left, capsys):
    for argv in ([left[0], "show"], [left[0], "dance"], []):
        assert main(argv) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
