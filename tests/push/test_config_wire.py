"""The pushed document, its report, a secret in it and a delta: whole, cut, doubled, too deep, too long."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time

import msgspec
import pytest

from device.mqtt import config_wire as wire
from device.mqtt.delta_wire import delta_applied, delta_made
from device.mqtt.jwe_wire import jwe_decrypted, jwe_encrypted
from device.mqtt.wire import WireError, jws_encoded
from device.store_forward.es256 import public_verifier
from tests.record_chain import Key

KEY = Key()
KNOWN = {KEY.kid: public_verifier(KEY.jwk)}
DOC = wire.Desired(0, 3, "box-1", "", "2030-01-01T00:00:00Z", wire.Body(
    {"printer": {"columns": 32}, "route": ["gateway"]}, {"prices": wire.Blob("a" * 64, 70_000)},
    {"printer.columns": "group:north"}))


def signed(payload: bytes) -> bytes:
    return jws_encoded(wire.CONFIG_TYP, payload, KEY.kid, KEY.sign)


def test_a_document_comes_back_as_it_was_signed():
    token = wire.config_encoded(DOC, KEY.kid, KEY.sign)
    assert wire.config_decoded(token, KNOWN) == DOC
    assert wire.digest_of(token) == hashlib.sha256(token).hexdigest()
    assert wire.chunks_of(70_000) == 3 and wire.chunks_of(wire.CHUNK_BYTES) == 1


PLAIN = b'{"epoch":0,"version":1,"box":"box-1","body":{"set":%b}}'


@pytest.mark.parametrize(("piece", "says"), [
    (b'{"lang":"zh","lang":"en"}', "twice"),
    (b'{"\\u006cang":"zh","lang":"en"}', "twice"),
    (b'{"cutoff_hour":NaN}', "not whole"),
    (b'{"cutoff_hour":Infinity}', "not whole"),
    (b'{"cutoff_hour":1e400}', "not whole"),
    (b'{"cutoff_hour":4.0}', "not whole"),
    (b'{"cutoff_hour":1234567890123456}', "15 digits"),
    (b'{"shop_en":"\\ud800"}', "surrogates"),
    (b'{"shop_en":"\xed\xa0\x80"}', "decode"),
    (b'{"a":' * 9 + b"1" + b"}" * 9, "deep"),
    (b"[" * 20_000 + b"]" * 20_000, "deep"),
    (b'[]', "Expected `object`"),
])
def test_json_with_a_trap_is_refused(piece: bytes, says: str):
    with pytest.raises(WireError, match=says) as caught:
        wire.config_decoded(signed(PLAIN % piece), KNOWN)
    assert caught.value.name == "CONFIG_PAYLOAD"
    assert wire.config_decoded(signed(PLAIN % b'{"lang":"{[[[[[[[[[["}'), KNOWN).body.set == {"lang": "{[[[[[[[[[["}


@pytest.mark.parametrize("change", [
    {"version": 0}, {"version": -1}, {"version": True}, {"version": "3"}, {"epoch": -1}, {"box": "Box"}, {"box": "box-1\n"},
    {"expires": "soon"}, {"not_before": "2026-01-01"}, {"more": 1}, {"body": {"sets": {}}}, {"body": {"blobs": {"../x": {}}}},
    {"body": {"blobs": {"prices": {"sha256": "a" * 64, "bytes": 1 << 30}}}}, {"body": {"origin": {"lang": "me"}}},
    {"body": {"blobs": {"prices": {"sha256": "A" * 64, "bytes": 3}}}},
])
def test_a_document_says_what_it_may_and_nothing_else(change: dict):
    with pytest.raises(WireError) as caught:
        wire.config_decoded(signed(json.dumps(msgspec.to_builtins(DOC) | change).encode()), KNOWN)
    assert caught.value.name == "CONFIG_PAYLOAD"


def test_size_is_looked_at_before_the_signature_and_the_signature_before_the_contents():
    def never(_signing: bytes, _signature: bytes) -> bool:
        raise AssertionError("asked")
    long = signed(PLAIN % (b'{"shop_en":"' + b"x" * wire.CONFIG_MAX_BYTES + b'"}'))
    with pytest.raises(WireError, match="more than"):
        wire.config_decoded(long, {KEY.kid: never})
    token = signed(PLAIN % (b"[" * 9_000))
    with pytest.raises(WireError) as caught:
        wire.config_decoded(token[:-4] + b"AAAA", KNOWN)
    assert caught.value.name == "CONFIG_SIGNATURE"


def test_a_document_for_another_purpose_is_no_configuration():
    with pytest.raises(WireError, match="till-cmd"):
        wire.config_decoded(jws_encoded("till-cmd+jws", msgspec.json.encode(DOC), KEY.kid, KEY.sign), KNOWN)
    with pytest.raises(WireError) as caught:
        wire.config_decoded(wire.config_encoded(DOC, Key().kid, Key().sign), KNOWN)
    assert caught.value.name == "CONFIG_KEY"


def test_a_report_comes_back_and_a_wrong_one_does_not():
    said = wire.Reported(0, 3, "b" * 64, "refused", "it has faults", "2026-01-01T00:00:00Z", "anchored", ("one", "two"),
                         wire.Standing(0, 2, "c" * 64), {"a" * 64: ((0, 1), (5, 5))}, 7)
    assert wire.reported_decoded(wire.reported_encoded(said)) == said
    for wrong in (b"", b"{", b'{"epoch":0}', b'{"epoch":0,"version":1,"digest":"","state":"fine"}', b"[" * 40_000,
                  wire.reported_encoded(msgspec.structs.replace(said, want={"a" * 64: ((2, 1),)}))):
        with pytest.raises(WireError):
            wire.reported_decoded(wrong)


# -- a secret ---------------------------------------------------------------------------------------------------------

def test_a_secret_is_read_by_its_box_alone_and_by_a_library_that_is_not_ours():
    from cryptography.hazmat.primitives.asymmetric import ec
    from joserfc import jwe
    from joserfc.jwk import ECKey

    mine, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    token = jwe_encrypted(b"s3cret", mine.public_key(), ec.generate_private_key(ec.SECP256R1()), os.urandom(12))
    assert jwe_decrypted(token, mine) == b"s3cret"
    theirs = ECKey.import_key(_pem(mine))
    assert jwe.decrypt_compact(token, theirs).plaintext == b"s3cret"
    back = jwe.encrypt_compact({"alg": "ECDH-ES", "enc": "A256GCM"}, b"from joserfc", theirs)
    assert jwe_decrypted(back, mine) == b"from joserfc"
    with pytest.raises(ValueError, match="another box"):
        jwe_decrypted(token, other)
    for n in range(0, len(token), 7):
        spoilt = token[:n] + ("A" if token[n] != "A" else "Q") + token[n + 1:]
        with pytest.raises(ValueError):
            jwe_decrypted(spoilt, mine)
    for alien in ("", "a.b.c", token.replace("..", ".AAAA."), "x" * 20_000):
        with pytest.raises(ValueError):
            jwe_decrypted(alien, mine)


def _pem(key) -> bytes:
    from cryptography.hazmat.primitives import serialization as s
    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())


# -- a delta ----------------------------------------------------------------------------------------------------------

def test_a_delta_makes_the_new_file_of_the_old():
    rng = random.Random(5)
    for _ in range(300):
        old = [b"%d\n" % rng.randrange(30) for _ in range(rng.randrange(12))]
        new = [line for line in old if rng.random() < 0.8]
        for _ in range(rng.randrange(4)):
            new.insert(rng.randrange(len(new) + 1), rng.choice([b"x%d\n" % rng.randrange(9), b"\r\n", b"\n", b"+5\n", b"a\x0cb\n"]))
        if rng.random() < 0.3:
            new.append(b"no newline")
        one, other = b"".join(old), b"".join(new)
        assert delta_applied(one, delta_made(one, other), 10_000) == other


def test_a_days_changes_of_a_price_book_travel_as_little_more_than_themselves():
    old = [b"69%011d,\xe8\x8c\xb6 no %d,Tea no %d,%d,piece,own\n" % (n, n, n, 100 + n) for n in range(50_000)]
    new = list(old)
    for n in range(0, 50_000, 1_000):
        new[n] = new[n].replace(b",piece", b"9,piece")
    one, other = b"".join(old), b"".join(new)
    began = time.perf_counter()
    delta = delta_made(one, other)
    assert delta_applied(one, delta, len(other)) == other
    assert len(delta) < 50 * 80 < len(other) / 500
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(("delta", "says"), [
    (b"", "no delta"), (b"till-delta 1\n=2\n*", "read"), (b"till-delta 1\n=3\n", "longer"), (b"till-delta 1\n=1\n", "shorter"),
    (b"till-delta 1\n=2\n+9\nabc", "cut"), (b"till-delta 1\n-2\n+99\n" + b"x" * 99, "more than"),
    (b"till-delta 1\n=9999999999\n", "read"),
    (b"till-delta 1\n=0\n", "read"),
])
def test_a_delta_that_does_not_fit_is_refused(delta: bytes, says: str):
    with pytest.raises(ValueError, match=says):
        delta_applied(b"one\ntwo\n", delta, 50)
