"""`tillbox keys`: in by a file or a pipe, shown by fingerprint, out only when nobody needs them."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import subprocess

import pytest

from bench.till import Till
from device.errors import Outside
from device.keys.sealed import SealingKey, fresh_key, named
from device.keys.store import KeyStore, sealing_keys
from device.txn.inputs import ChannelSaid, Pressed, RefundSaid, RefundWord, Said, Scanned
from device.types import Account, Terms
from sim.channels.keys import key_pair
from sim.channels.tls import tls_room
from tests.sealed_box import SealedBox, command

API_KEY = b"192006250b4c09247ec02edce69f6a2d"
MAIN = "wechat/main/1900000001"
TERMS = Terms(accounts=(Account("wechat", "main", (("appid", "wx0000000000000001"), ("mchid", "1900000001"))),))


@pytest.fixture(scope="module")
def pair():
    return key_pair("merchant")


@pytest.fixture
def box(tmp_path):
    (tmp_path / "platform.pem").write_bytes(key_pair.__doc__.encode())        # public, and not looked at here
    return SealedBox(tmp_path)


def held(folder) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def test_a_merchants_key_goes_in_by_file_or_pipe_and_is_seen_by_its_fingerprint_only(box, pair, tmp_path):
    pem = tmp_path / "apiclient_key.pem"
    pem.write_bytes(pair.private_pem)
    status, out, err = box.keys("import", "wechat", "private_key", str(pem), "--serial", pair.serial_no)
    assert (status, err) == (0, "") and f"{pem} still holds it" in out
    assert box.keys("import", "wechat", "secret", "-", given=API_KEY + b"\n")[0] == 0
    status, out, _ = box.keys("list", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    public = subprocess.run(["openssl", "pkey", "-in", pem, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
    assert [(one["account"], one["kind"], one["version"], one["in_use"]) for one in lines] == [
        ("wechat/main/1900000001", "private_key", 1, True), (MAIN, "secret", 1, True)]
    assert lines[0]["fingerprint"] == "SHA256:" + hashlib.sha256(public).hexdigest() and lines[0]["serial"] == pair.serial_no
    assert lines[1]["fingerprint"].startswith("here:") and lines[0]["sealed_with"] == box.store._sealing[0].id.hex()
    kept = held(box.state) + out.encode() + box.keys("list")[1].encode()
    assert API_KEY not in kept and b"PRIVATE KEY" not in kept and pair.private_pem.splitlines()[3] not in kept
    for file in (box.state / "keys").iterdir():
        assert file.stat().st_mode & 0o777 == 0o600
    assert (box.state / "keys").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("argv, given, word", [
    (("wechat", "private_key", "-"), b"no key at all", "no readable PEM key"),
    (("wechat", "private_key", "-"), b"", "holds nothing"),
    (("wechat", "secret", "-"), b"two words", "without blanks"), (("wechat", "secret", "-"), b"x" * 40_000, "too much"),
    (("wechat", "api_v3_key", "-"), b"0123456789abcdef0123456789abcde", "32 letters and digits"),
    (("wechat", "client_cert", "-"), b"-----BEGIN CERTIFICATE-----", "not a PEM certificate"),
    (("wechat", "terminal_key", "-"), b"f" * 64, "keeps no terminal_key"),
    (("unionpay", "private_key", "-"), b"x", "no [channel.unionpay]"),
    (("wechat", "private_key", "/nowhere/key.pem"), b"", "No such file")])
def test_what_is_no_key_is_refused_in_a_sentence_that_does_not_repeat_it(box, argv, given, word):
    status, out, err = box.keys("import", *argv, given=given)
    assert status == 1 and word in err and out == "" and len(err.splitlines()) == 1
    assert len(given) < 8 or given[:12].decode() not in err
    assert box.store.names() == []


def test_the_key_that_opens_wechats_certificates_is_sealed_like_any_other(box):
    assert box.keys("import", "wechat", "api_v3_key", "-", given=b"0123456789abcdef0123456789abcdef")[0] == 0
    (only,) = box.store.sets(box.config.channels[0], b"", "")
    assert only.api_v3_key == "0123456789abcdef0123456789abcdef" not in repr(only)


def test_without_a_sealing_key_nothing_is_kept(box, pair):
    box.seal.unlink()
    status, _, err = box.keys("import", "wechat", "private_key", "-", given=pair.private_pem)
    assert status == 1 and "no sealing key is at hand" in err and "seal_key_file" in err and not (box.state / "keys").exists()


def test_a_certificate_for_the_line_goes_in_with_its_key(box):
    room = tls_room()
    assert box.keys("import", "wechat", "client_cert", "-", given=room.client_pem)[0] == 0
    assert box.keys("import", "wechat", "client_cert", "-", given=room.client_pem.partition(b"-----BEGIN PRIV")[0])[0] == 1


@pytest.mark.parametrize("harm, word", [
    (lambda f: f.write_bytes(f.read_bytes()[:-1] + b"?"), "damaged"), (lambda f: f.chmod(0o644), "may be read by others"),
    (lambda f: f.write_bytes(b""), "only a part"),
    (lambda f: f.rename(f.with_name(named(f.name).file.replace("main", "other"))), "in the place of another")])
def test_a_sealed_file_that_was_touched_stays_closed_and_is_listed(box, harm, word):
    box.keys("import", "wechat", "secret", "-", given=API_KEY)
    harm(next(f for f in (box.state / "keys").iterdir() if ",secret," in f.name))
    name = next(n for n in box.store.names() if n.kind == "secret")
    with pytest.raises(Outside, match=word):
        box.store.read(name)
    status, out, _ = box.keys("list")
    assert status == 0 and word in out


def test_a_credential_of_systemd_comes_first_and_a_former_one_still_opens(box, tmp_path):
    box.keys("import", "wechat", "secret", "-", given=API_KEY)
    creds = tmp_path / "creds"
    creds.mkdir()
    (creds / "tillbox-seal").write_bytes(fresh_key(b"c" * 32))
    (creds / "tillbox-seal").chmod(0o400)
    both = sealing_keys(str(box.seal), {"CREDENTIALS_DIRECTORY": str(creds)})
    assert [key.id for key in both] == [SealingKey(fresh_key(b"c" * 32)).id, box.store._sealing[0].id]
    store = KeyStore(box.state / "keys", both)
    assert store.reseal() == 2 and store.reseal() == 0                       # the key, and what is remembered of its account
    assert KeyStore(box.state / "keys", both[:1]).read(store.names()[-1]).value == API_KEY
    assert "not at hand" in box.keys("list")[1]
    box.seal.write_bytes(b"too short")
    assert "43 to 256 printable" in box.keys("list")[2]


def test_a_new_sealing_key_seals_everything_anew_and_a_cut_in_between_heals(box, monkeypatch):
    box.keys("import", "wechat", "secret", "-", given=API_KEY)
    old, files = box.seal.read_bytes(), sorted((box.state / "keys").iterdir())
    before = [file.read_bytes() for file in files]

    def cut(self):
        raise OSError(5, "the plug was pulled")
    with monkeypatch.context() as harmed:
        harmed.setattr(KeyStore, "reseal", cut)
        assert box.keys("seal-new")[0] == 1
    assert box.seal.read_bytes() != old and box.store.read(box.store.names()[-1]).value == API_KEY     # by the former one
    status, out, _ = box.keys("seal-new")
    assert status == 0 and "2 keys were sealed anew" in out and os.listdir(box.seal.parent) == ["seal.key"]
    assert old not in held(box.folder) and box.seal.read_bytes().strip() not in out.encode()
    assert box.store.read(box.store.names()[-1]).value == API_KEY and [file.read_bytes() for file in files] != before


def test_a_sealing_key_for_systemd_goes_to_a_pipe_and_to_no_screen(box, monkeypatch):
    box.toml.write_text(box.toml.read_text().replace(f'seal_key_file = "{box.seal}"\n', ""))
    status, out, _ = box.keys("seal-new")
    assert status == 0 and SealingKey(out.encode())

    class Screen(io.StringIO):
        def isatty(self):
            return True
    monkeypatch.setattr("tests.sealed_box.io.StringIO", Screen)
    status, out, err = box.keys("seal-new")
    assert (status, out) == (1, "") and "not shown" in err


# Out

def sold(box):
    """A till that sold 7.50 by WeChat, its journal where the box's is; the order's number."""
    till = Till(box.state, terms=TERMS)
    till.qr_sale()
    no = next(iter(till.box.books.sales))
    return till, no


def used(box, monkeypatch, today, *, quality="ntp"):
    """What `drop` of the main account says on `today`, another account being in use."""
    class Day(datetime.date):
        @classmethod
        def today(cls):
            return cls.fromisoformat(today)
    monkeypatch.setattr("device.keys.tool.datetime.date", Day)
    monkeypatch.setattr("device.real_clock.clock_quality", lambda: quality)
    return box.keys("drop", MAIN)


@pytest.fixture
def changed(box):
    """A box with a key of its main account, which another is going to replace."""
    assert box.keys("import", "wechat", "secret", "-", given=API_KEY)[0] == 0
    return box


def test_an_account_that_is_in_use_or_has_something_open_keeps_its_keys(changed, monkeypatch):
    till, no = sold(changed)
    till.close()
    status, _, err = used(changed, monkeypatch, "2028-01-01")
    assert status == 1 and "box.toml names it" in err
    changed.configure(account="new", mchid="1900000002")
    status, _, err = used(changed, monkeypatch, "2026-12-01")
    assert status == 1 and "can still be given back: 1, the newest of 2026-09-01" in err
    assert changed.store.names()


def test_an_order_without_an_end_keeps_them_however_old_it_is(changed, monkeypatch):
    till = Till(changed.state, terms=TERMS)
    till._scan()
    till.tell(Pressed("PAY"))
    till.close()
    changed.configure(account="new", mchid="1900000002")
    status, _, err = used(changed, monkeypatch, "2036-01-01")
    assert status == 1 and "not over: 1" in err


def test_after_the_days_in_which_it_could_be_given_back_they_go_and_leave_nothing(changed, monkeypatch):
    till, _ = sold(changed)
    till.close()
    changed.configure(account="new", mchid="1900000002")
    assert used(changed, monkeypatch, "2027-09-01")[0] == 1                        # the last of 365 days
    assert used(changed, monkeypatch, "2027-09-03", quality="unset")[0] == 1       # a clock that may have run ahead
    status, out, err = used(changed, monkeypatch, "2027-09-03")
    assert (status, err) == (0, "") and "revoke" in out and os.listdir(changed.state / "keys") == []


def test_what_was_given_back_whole_needs_no_key(changed, monkeypatch):
    till, no = sold(changed)
    till.tell(Pressed("REFUND"))
    till.tell(Scanned(no, None))
    till.tell(Pressed("ENTER"))
    changed.configure(account="new", mchid="1900000002")
    refund = next(iter(till.box.books.refunds))
    till.close()
    assert "not over: 1" in used(changed, monkeypatch, "2026-09-02")[2]
    again = Till(changed.state, "b2", TERMS)
    again.tell(RefundSaid(refund, RefundWord.DONE, 750, "50000"))
    again.close()
    assert used(changed, monkeypatch, "2026-09-02")[0] == 0


def test_a_running_box_keeps_its_journal_to_itself_and_every_key(changed, monkeypatch):
    till, _ = sold(changed)
    changed.configure(account="new", mchid="1900000002")
    try:
        assert "held by the running daemon" in used(changed, monkeypatch, "2030-01-01")[2] and changed.store.names()
    finally:
        till.close()


def test_of_two_keys_of_one_account_the_older_may_go_at_any_time(box):
    for secret in (API_KEY, b"another" + API_KEY):
        assert box.keys("import", "wechat", "secret", "-", given=secret)[0] == 0
    assert "box.toml names it" in box.keys("drop", MAIN, "secret", "2")[2]
    assert box.keys("drop", MAIN, "secret", "1")[0] == 0
    assert [(n.kind, n.version) for n in box.store.names()] == [("account", 1), ("secret", 2)]
    assert "has no secret 1" in box.keys("drop", MAIN, "secret", "1")[2]
    assert box.keys("import", "wechat", "secret", "-", given=API_KEY)[1].startswith("wechat/main/1900000001 secret 3 ")


@pytest.mark.parametrize("argv", [(), ("sell",), ("import", "wechat"), ("drop", "x", "secret", "one"), ("list", "--secret")])
def test_arguments_that_do_not_serve_are_2(box, argv):
    assert command("keys", *argv)[0] == 2


def test_an_unpaid_order_that_closed_is_still_watched(changed, monkeypatch):
    till = Till(changed.state, terms=TERMS)
    till._scan()
    till.tell(Pressed("PAY"))
    no = till.box.books.basket.order_no
    till.tell(Pressed("CANCEL"))
    till.tell(ChannelSaid(no, Said.CLOSED))
    till.close()
    changed.configure(account="new", mchid="1900000002")
    assert "not over" in used(changed, monkeypatch, "2026-09-02")[2]
