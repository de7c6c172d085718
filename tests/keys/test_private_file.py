"""Files of keys: made once, replaced whole or not at all, never readable by others, never left about."""

from __future__ import annotations

import os

import pytest

from device.drivers import private_file
from device.drivers.private_file import PlainFile, make, read, replace
from device.errors import DriverGone


def full(*_):
    raise OSError(28, "No space left on device")


def test_a_file_is_made_once_and_read_back(tmp_path):
    make(tmp_path / "k", b"one")
    make(tmp_path / "k", b"two")
    assert read(tmp_path / "k", 99, which="x") == b"one" and read(tmp_path / "none", 99, which="x") is None
    assert os.listdir(tmp_path) == ["k"] and (tmp_path / "k").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_the_file_as_it_was_and_no_draft(tmp_path, monkeypatch):
    file = PlainFile(tmp_path / "k")
    file.write(b"one")
    (tmp_path / "k").chmod(0o644)
    monkeypatch.setattr(private_file.os, "fsync", full)
    for write in (file.write, lambda held: make(tmp_path / "other", held)):
        with pytest.raises(OSError):
            write(b"two")
    assert file.read() == b"one" and os.listdir(tmp_path) == ["k"]


def test_a_draft_that_a_power_cut_left_is_gone_with_the_next_write(tmp_path):
    (tmp_path / ".k.new").write_bytes(b"half a key")
    replace(tmp_path / "k", b"one")
    assert os.listdir(tmp_path) == ["k"] and (tmp_path / "k").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm, word", [
    (lambda p: p.chmod(0o640), "may be read by others (mode 0640)"), (lambda p: (p.unlink(), p.mkdir()), "not a plain file"),
    (lambda p: (p.unlink(), os.mkfifo(p, 0o600)), "not a plain file"),
    (lambda p: (p.rename(p.with_name("elsewhere")), p.symlink_to(p.with_name("elsewhere"))), "cannot be used")])
def test_a_file_that_cannot_be_trusted_is_said_in_one_sentence(tmp_path, harm, word):
    make(tmp_path / "k", b"one")
    harm(tmp_path / "k")
    with pytest.raises(DriverGone) as caught:
        read(tmp_path / "k", 99, which="signer")
    assert word in str(caught.value) and caught.value.which == "signer" and not caught.value.again
