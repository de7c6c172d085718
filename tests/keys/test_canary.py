"""The canary finds what it looks for: in every spelling, packed, in pieces, and not where nothing is."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from urllib.parse import quote

import pytest

from sim.channels.keys import key_pair
from tests.canary import files, found

CODE = b"134512345678901234"
ODD = b'p"ss/w?rd+&\\x y'


@pytest.fixture(scope="module")
def pem():
    return key_pair("x").private_pem


@pytest.mark.parametrize("hide", [
    lambda s: s, lambda s: s.hex().encode(), lambda s: s.hex().upper().encode(),
    lambda s: quote(s.decode("latin-1"), safe="").encode(),
    lambda s: json.dumps({"a": s.decode("latin-1")}).encode(), base64.b64encode, base64.urlsafe_b64encode,
    lambda s: base64.b64encode(b"a" + s + b"trailer"), lambda s: base64.b64encode(b"ab" + s + b"tr"),
    lambda s: base64.urlsafe_b64encode(b"abc" + s), lambda s: zlib.compress(b"record " + s),
    lambda s: b'{"enc":"zlib"}\n' + zlib.compress(s), lambda s: s[::-1]])
def test_each_spelling_is_found(hide, pem):
    for secret in (CODE, ODD, b"\xff\xfe\xfb" * 5, pem):
        assert "it" in found({"it": secret}, [("here", b"before " + hide(secret) + b" after")]), secret
        assert not found({"it": secret}, [("here", b"before " + hide(b"nothing of the kind at all, and long enough") + b" after")])


def test_half_a_key_and_a_key_without_its_frame_are_found(pem):
    body = b"".join(line for line in pem.splitlines() if b"-----" not in line)
    for part in (body, base64.b64decode(body), pem[:len(pem) // 2], pem[len(pem) // 2:]):
        assert found({"key": pem}, [("log", b"x" + part)])


def test_rows_and_files_are_looked_through_and_what_is_left_out_is_not(tmp_path):
    db = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    db.execute("PRAGMA page_size = 512")
    db.execute("CREATE TABLE t(x BLOB)")
    db.execute("INSERT INTO t VALUES (?)", (b"a" * 470 + CODE + b"b" * 2_000,))
    db.close()
    for folder in ("log", "keys"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_bytes(CODE)
    hits = found({"code": CODE}, files(tmp_path, but=[tmp_path / "keys"]))["code"]
    assert hits[0].endswith("a.db, t 0: plain") or hits[0].endswith("a.db: plain")
    assert any("a.db, t 0" in hit for hit in hits) and any("log/file" in hit for hit in hits)
    assert not any("keys" in hit for hit in hits)


def test_what_is_too_short_to_tell_is_refused():
    with pytest.raises(AssertionError, match="too short"):
        found({"pin": b"2468"}, [("here", b"")])
