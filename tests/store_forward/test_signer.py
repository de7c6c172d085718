"""Signers, one contract over both: a key file, and a token behind PKCS#11 (real SoftHSM2).  What breaks one, and what it says."""

from __future__ import annotations

import asyncio
import base64
import logging
import subprocess
import sys
import threading
import time

import pytest

from device.config import parse_toml
from device.drivers.registry import signer_of
from device.drivers.signer import file as signer_file
from device.drivers.signer.file import FileSigner
from device.drivers.signer.pkcs11 import Pkcs11Signer
from device.errors import ConfigError, DriverGone, KeyMissing
from device.store_forward.es256 import public_verifier
from device.store_forward.token import parse, thumbprint
from device.txn.effects import SignRecord, TrySigner
from device.txn.inputs import DeviceSaid, Signed
from tests import softhsm
from tests.softhsm import PIN, Token
from tests.store_forward.test_token import GOOD

token = softhsm.token


def by_token(token: Token, kid: str = "", **more) -> Pkcs11Signer:
    return Pkcs11Signer(token.module, "till", "tillbox-record", str(token.pin_file), kid, **more)


@pytest.fixture(params=["file", "pkcs11"])
def made(request, tmp_path):
    """Makes the signer of this box, again and again over the same key."""
    if request.param == "file":
        return lambda kid="", **more: FileSigner(tmp_path / "record.key", kid, **more)
    held = request.getfixturevalue("token")
    return lambda kid="", **more: by_token(held, kid, **more)


# The contract

def test_what_it_signs_checks_under_the_key_it_names(made):
    signer = made()
    answer = asyncio.run(signer.do(SignRecord(7, GOOD)))
    assert isinstance(answer, Signed) and answer.seq == 7
    parsed, check = parse(answer.token), public_verifier(signer.jwk)
    assert parsed.kid == signer.kid == thumbprint(signer.jwk) and "d" not in signer.jwk
    assert check(parsed.signing_input, parsed.signature) and not check(parsed.signing_input + b"x", parsed.signature)
    again = parse(signer.sign(GOOD))
    assert again.signing_input == parsed.signing_input and check(again.signing_input, again.signature)
    assert len(signer.signature(b"another token of this box")) == 64


def test_a_new_journal_makes_one_key_and_a_later_start_finds_it(made):
    with pytest.raises(DriverGone):
        made(make=False)
    first = made()
    assert made().kid == made(first.kid).kid == made(make=False).kid == first.kid


def test_another_key_than_the_journals_stops_the_start(made, tmp_path):
    stranger = FileSigner(tmp_path / "stranger").kid
    mine = made().kid
    with pytest.raises(KeyMissing) as refused:
        made(stranger)
    assert stranger in refused.value.what and mine in refused.value.what and "recovery.md" in refused.value.hint


def test_it_says_ok_when_it_is_tried_and_ends_when_it_is_closed(made):
    async def told() -> list:
        signer = made()
        assert await signer.do(TrySigner(1)) == DeviceSaid("signer", "ok")
        await signer.close()
        return [said async for said in signer.inputs()]
    assert asyncio.run(told()) == []


# What a token alone can do wrong

def test_the_private_half_is_made_inside_and_cannot_leave(token):
    import pkcs11
    signer = by_token(token)
    (pair,) = signer._pairs.values()
    assert pair.private[pkcs11.Attribute.SENSITIVE] and not pair.private[pkcs11.Attribute.EXTRACTABLE]
    with pytest.raises(pkcs11.AttributeSensitive):
        assert pair.private[pkcs11.Attribute.VALUE]


def test_one_session_serves_all_signatures_and_is_opened_again_after_an_error(token):
    signer, opened = by_token(token), []
    plain = signer._open
    signer._open = lambda: (opened.append(1), plain())
    for _ in range(20):
        signer.sign(GOOD)
    assert not opened
    signer._session.close()                              # as a chip that was reset behind our back
    token_made = signer.sign(GOOD)
    assert opened == [1] and parse(token_made).kid == signer.kid


def test_a_signature_that_takes_700_ms_is_no_broken_signer_and_nobody_waits_in_the_loop(token):
    signer, plain = by_token(token), Pkcs11Signer._signature
    signer._signature = lambda to_sign: (time.sleep(.7), plain(signer, to_sign))[1]

    async def sold() -> tuple[int, Signed]:
        asked, turns = asyncio.create_task(signer.do(SignRecord(1, GOOD))), 0
        while not asked.done():
            await asyncio.sleep(.01)
            turns += 1
        return turns, asked.result()
    turns, answer = asyncio.run(sold())
    assert isinstance(answer, Signed) and turns > 5


def test_one_that_gives_no_answer_is_broken_after_its_time_and_works_again_when_it_comes_to_itself(token):
    signer, plain, stuck = by_token(token), Pkcs11Signer._signature, threading.Event()
    signer._answer_s = .05
    signer._signature = lambda to_sign: (stuck.wait(30), plain(signer, to_sign))[1]

    async def asked() -> None:
        for effect in (SignRecord(1, GOOD), TrySigner(1)):
            with pytest.raises(DriverGone, match="does not answer") as broken:
                await signer.do(effect)
            assert broken.value.again
        stuck.set()
        signer._answer_s = 30
        assert isinstance(await signer.do(SignRecord(1, GOOD)), Signed)
    asyncio.run(asked())


def test_a_token_that_is_gone_breaks_the_signer_not_the_start_and_is_found_again(token):
    signer = by_token(token)
    kid, away = signer.kid, token.take()
    signer._session.close()
    with pytest.raises(DriverGone, match="is not there"):
        signer.sign(GOOD)
    reborn = by_token(token, kid)                        # a start without it: sales go on
    assert reborn.kid == kid
    with pytest.raises(DriverGone, match="is not there"):
        asyncio.run(reborn.do(SignRecord(1, GOOD)))
    with pytest.raises(DriverGone, match="is not there"):
        by_token(token)                                  # a new journal cannot begin
    token.give_back(away)
    assert parse(reborn.sign(GOOD)).kid == kid


def test_a_replaced_token_signs_nothing(token):
    signer = by_token(token)
    token.take()
    token.put()
    stranger = by_token(token)
    signer._session = None
    with pytest.raises(DriverGone, match="holds") as broken:
        asyncio.run(signer.do(TrySigner(1)))
    assert signer.kid in broken.value.what and stranger.kid in broken.value.what and not broken.value.again
    with pytest.raises(KeyMissing, match=signer.kid):
        by_token(token, signer.kid)


def test_a_wrong_pin_is_tried_once_and_never_said(token, caplog):
    caplog.set_level(logging.DEBUG)
    signer = by_token(token)
    token.write_pin("0000-Falsch")
    signer._drop()
    for _ in range(3):
        with pytest.raises(DriverGone, match="refuse") as refused:
            signer.sign(GOOD)
        assert "Falsch" not in str(refused.value) and PIN not in str(refused.value)
    assert "before" in refused.value.what
    token.write_pin(PIN)
    assert parse(signer.sign(GOOD)).kid == signer.kid
    assert "Falsch" not in caplog.text and PIN not in caplog.text


def test_a_wrong_pin_is_not_tried_again_by_the_next_start(token, tmp_path):
    """systemd starts a box that cannot start every two seconds, and a chip locks itself after a few."""
    refused = str(tmp_path / "refused")
    token.write_pin("0000-Falsch")
    for word in ("refuses", "refused .* before", "refused .* before"):
        with pytest.raises(DriverGone, match=word):
            by_token(token, refused_file=refused)
    assert b"Falsch" not in (tmp_path / "refused").read_bytes() and (tmp_path / "refused").stat().st_mode & 0o777 == 0o600
    token.write_pin("1111-Falsch")
    with pytest.raises(DriverGone, match="refuses"):
        by_token(token, refused_file=refused)
    token.write_pin(PIN)
    assert by_token(token, refused_file=refused).kid


@pytest.mark.parametrize("harm, word", [
    (lambda held: held.pin_file.unlink(), "no PIN file"), (lambda held: held.pin_file.chmod(0o644), "read by others"),
    (lambda held: held.pin_file.write_bytes(b"\xff\xfe"), "no text"),
    (lambda held: setattr(held, "module", "/nowhere.so"), "loaded")])
def test_what_is_set_up_wrongly_is_said_in_one_sentence(token, harm, word):
    harm(token)
    with pytest.raises(DriverGone, match=word):
        by_token(token)


def test_two_keys_under_one_label_are_nobodys_choice_but_the_journals(token):
    signer = by_token(token)
    second = signer._made()
    with pytest.raises(DriverGone, match="holds 2 keys"):
        by_token(token)
    assert by_token(token, second).kid == second and by_token(token, signer.kid).kid == signer.kid


# As a configuration names it

def test_the_configuration_names_it(token, tmp_path):
    head = f'box = "box-1"\nbox_no = "000001"\ntenant = "t"\nstate_dir = "{tmp_path}"\n'
    config = parse_toml(head + token.toml, which="test")
    assert signer_of(config).kid == by_token(token).kid
    assert isinstance(signer_of(parse_toml(head + f'record_key_file = "{tmp_path}/k"', which="test")), FileSigner)
    with pytest.raises(ConfigError) as refused:
        parse_toml(head + '[signer]\nkind = "pkcs11"\n', which="test")
    assert len(refused.value.reasons) == 2 and all("signer." in why for why in refused.value.reasons)


# What a key file alone can do wrong

def test_a_start_names_the_key_without_the_library_that_signs(tmp_path):
    kid = FileSigner(tmp_path / "record.key").kid
    code = ("import sys; from device.drivers.signer.file import FileSigner; s = FileSigner(sys.argv[1], sys.argv[2]); "
            "assert not any(m.startswith('cryptography') for m in sys.modules); print(s.kid, len(s.signature(b'x')))")
    argv = [sys.executable, "-c", code, str(tmp_path / "record.key"), kid]
    said = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert said.stdout.split() == [kid, "64"]


def test_a_private_half_that_is_not_of_the_public_one_signs_nothing_and_is_said(tmp_path, monkeypatch):
    path = tmp_path / "record.key"
    kid = FileSigner(path).kid
    FileSigner(tmp_path / "other")
    der, other = (base64.b64decode(b"".join(file.read_bytes().splitlines()[1:-1])) for file in (path, tmp_path / "other"))
    mixed = base64.encodebytes(other[:68] + der[68:]).replace(b"\n", b"")
    path.write_bytes(b"-----BEGIN PRIVATE KEY-----\n" + mixed + b"\n-----END PRIVATE KEY-----\n")
    monkeypatch.setattr(signer_file, "WARM_AFTER_S", .01)

    async def told() -> object:
        signer = FileSigner(path, kid)
        assert signer.kid == kid                                     # the journal's, by its public half
        for effect in (SignRecord(7, GOOD), TrySigner(1)):
            with pytest.raises(DriverGone, match="spoilt|readable"):
                await signer.do(effect)
        return await anext(signer.inputs())

    said = asyncio.run(told())
    assert isinstance(said, DeviceSaid) and said.word == "error" and str(path) in said.why


def test_the_halves_are_compared_by_us_whatever_the_library_lets_pass(tmp_path, monkeypatch):
    from cryptography.hazmat.primitives import serialization
    path = tmp_path / "record.key"
    kid = FileSigner(path).kid
    FileSigner(tmp_path / "other")
    other = serialization.load_pem_private_key((tmp_path / "other").read_bytes(), None)
    monkeypatch.setattr(serialization, "load_pem_private_key", lambda pem, password: other)
    with pytest.raises(DriverGone, match="two halves are not of one key"):
        FileSigner(path, kid).signature(b"x")


@pytest.mark.parametrize("written", ["sec1", "bare", "spoilt"])
def test_a_key_written_another_way_is_read_whole_at_once(tmp_path, written):
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    kid, path = FileSigner(tmp_path / "ours").kid, tmp_path / "record.key"
    ours = (tmp_path / "ours").read_bytes()
    key = serialization.load_pem_private_key(ours, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    lines = ours.splitlines(keepends=True)
    path.write_bytes({
        "sec1": key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
                                  serialization.NoEncryption()),
        "bare": b"of till 4\n" + ours,
        "spoilt": lines[0] + lines[1][:30] + b"!" + lines[1][31:] + b"".join(lines[2:])}[written])
    path.chmod(0o600)
    if written == "spoilt":
        with pytest.raises(DriverGone, match="readable"):
            FileSigner(path, kid)
    else:
        assert FileSigner(path, kid).kid == kid and len(FileSigner(path, kid).signature(b"x")) == 64
