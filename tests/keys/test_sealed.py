"""Sealed keys: they open whole, under their own name, with their own sealing key, or not at all."""

from __future__ import annotations

import itertools

import pytest

from device.keys.sealed import Held, Name, SealingKey, fresh_key, named, sealed_by, whose
from device.types import Account

KEY, OTHER = SealingKey(fresh_key(b"k" * 32)), SealingKey(fresh_key(b"o" * 32))
NAME = Name("wechat", "main", "1900000001", "private_key", 2)
SECRET = b"-----BEGIN PRIVATE KEY-----\nMIIE"
HELD = Held(SECRET, serial="5157", made_at="2026-09-01T10:00:00+08:00", older_until="2026-09-15")


def test_what_is_sealed_opens_whole_and_shows_nothing_until_then():
    sealed = KEY.seal(NAME, HELD, b"n" * 12)
    assert KEY.open(NAME, sealed) == HELD and sealed_by(sealed) == KEY.id
    for part in (SECRET, SECRET[:8], b"5157", b"2026-09", b"1900000001"):
        assert part not in sealed
    assert KEY.seal(NAME, HELD, b"m" * 12)[-16:] != sealed[-16:]
    assert "BEGIN" not in repr(HELD) and KEY._key.hex() not in repr(KEY)


@pytest.mark.parametrize("other", [
    Name("alipay", "main", "1900000001", "private_key", 2), Name("wechat", "old", "1900000001", "private_key", 2),
    Name("wechat", "main", "1900000002", "private_key", 2), Name("wechat", "main", "1900000001", "client_cert", 2),
    Name("wechat", "main", "1900000001", "private_key", 1)])
def test_a_key_that_was_put_in_anothers_place_does_not_open(other):
    with pytest.raises(ValueError, match="in the place of another"):
        KEY.open(other, KEY.seal(NAME, HELD, b"n" * 12))


def test_no_two_names_are_bound_alike_however_their_parts_are_cut():
    parts = ["a", "b", "a,b", 'a","b', ""]
    names = [Name(*some) for some in itertools.product(parts, repeat=4)]
    assert len({name.bound for name in names}) == len({name.file for name in names}) == len(names)


def test_each_byte_that_was_changed_and_each_length_that_was_cut_is_noticed():
    sealed = KEY.seal(NAME, HELD, b"n" * 12)
    for at in range(len(sealed)):
        with pytest.raises(ValueError):
            KEY.open(NAME, sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1:])
        with pytest.raises(ValueError):
            KEY.open(NAME, sealed[:at])


def test_another_sealing_key_opens_nothing_and_says_why():
    with pytest.raises(ValueError, match="another sealing key"):
        OTHER.open(NAME, KEY.seal(NAME, HELD, b"n" * 12))


@pytest.mark.parametrize("held", [b"", b"short", b"a" * 42, b"a" * 257, b"a" * 20 + b" " + b"b" * 40, bytes(range(64))])
def test_what_is_no_sealing_key_is_refused(held):
    with pytest.raises(ValueError, match="43 to 256 printable"):
        SealingKey(held)


@pytest.mark.parametrize("account", ["main", "../../etc", "a,b", "a/b", "店", "", "."])
def test_a_files_name_leads_back_and_out_of_no_folder(account):
    name = Name("wechat", account, "19/..", "secret", 7)
    assert named(name.file) == name and "/" not in name.file


@pytest.mark.parametrize("file", ["x", "a,b,c,d,e.sealed", "wechat,main,1,secret,01.sealed", "wechat,main,1,secret,1",
                                  "wechat,m%61in,1,secret,1.sealed", ".wechat,main,1,secret,1.sealed.new"])
def test_other_files_are_nobodys(file):
    assert named(file) is None


def test_an_account_is_named_by_what_its_channel_knows_it_by():
    fields = (("appid", "wx1"), ("mchid", "19"), ("terminal_id", "T1"))
    assert [whose(Account(c, "main", fields)) for c in ("wechat", "alipay", "unionpay", "gateway", "card")] == [
        "wechat/main/19", "alipay/main/wx1", "unionpay/main/19", "gateway/main/T1", "card/main/T1"]
