"""The words of an enrolment: a code that survives a person, and messages that nobody else can make or move."""

from __future__ import annotations

import secrets
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from device.crockford import ALPHABET, of_bytes, to_bytes
from device.mqtt import csr_wire, topics
from device.mqtt import enrol_wire as wire
from device.mqtt.wire import WireError
from device.store_forward.token import b64
from tests.record_chain import Key

CODE = wire.Code("box-1", "7K3Q0Z", bytes(range(10)), bytes(range(100, 132)))
CSR = "A" * 300
ASKED = wire.Request(1, CODE.id, CODE.box, "n" * 22, CSR, "B" * 300, "C" * 300, "0.1")
KEYS = wire.Keys(({"crv": "P-256", "kty": "EC", "x": "x", "y": "y"},))
WHO = wire.Identity("shop", "box-1", "00000A", "tls", "record", "encryption", "ca", "broker.example", 8883, KEYS)
TOLD = wire.Reply(1, CODE.id, "enrolled", "2026-07-14T09:26:53+08:00", WHO)


def test_a_code_is_read_as_typed_or_scanned() -> None:
    short = wire.typed(CODE)
    assert len(short) == len("box-1:") + 49 and wire.code_of(short) == msgspec.structs.replace(CODE, pin=CODE.pin[:10])
    assert wire.code_of(wire.qr_text(CODE)) == CODE
    sloppy = short.replace("-", " ").replace("0", "o").replace("1", "l").replace("box l", "BOX-1")
    assert wire.code_of(f"  {sloppy}\n") == wire.code_of(short)
    assert "secret=..." in repr(CODE) and CODE.secret.hex() not in repr(CODE)


def test_each_wrong_character_and_each_swap_of_neighbours_is_told_from_the_code() -> None:
    short = wire.typed(CODE)
    for at, right in enumerate(short):
        for wrong in set(ALPHABET) - {right} if right in ALPHABET else ():
            with pytest.raises(ValueError, match="mistyped"):
                wire.code_of(short[:at] + wrong + short[at + 1:])
    stem = short.partition(":")[2].replace("-", "")
    for at in range(len(stem) - 1):
        if stem[at] != stem[at + 1]:
            with pytest.raises(ValueError, match="mistyped"):
                wire.code_of("box-1:" + stem[:at] + stem[at + 1] + stem[at] + stem[at + 2:])
    with pytest.raises(ValueError, match="mistyped"):
        wire.code_of(short.replace("box-1", "box-2"))


@pytest.mark.parametrize("text", ["", "box-1", "box-1:", "7K3Q-0Z00", "bo/x:" + "0" * 40, "box-1:" + "0" * 39, "box-1:" + "U" * 40])
def test_what_is_no_code_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        wire.code_of(text)
    assert not text[6:] or text[6:] not in str(refused.value)


def test_bytes_and_digits_are_one_to_one() -> None:
    for size in range(1, 40):
        raw = secrets.token_bytes(size)
        assert to_bytes(of_bytes(raw)) == raw
    with pytest.raises(ValueError, match="more than it may"):
        to_bytes(of_bytes(bytes(32))[:-1] + "1")


def test_a_request_is_proven_by_its_secret_and_every_byte_counts() -> None:
    raw = wire.request_encoded(ASKED, CODE.secret)
    assert wire.request_decoded(raw) == ASKED and wire.request_holds(raw, CODE.secret)
    assert wire.request_holds(b"\n " + raw.replace(b"\n", b"\r\n") + b"\n", CODE.secret), "an editor left white space"
    assert not wire.request_holds(raw, bytes(9) + b"\1")
    assert not any(wire.request_holds(_with(raw, name, value), CODE.secret) for name, value in _other(ASKED))


def test_a_reply_is_proven_and_answers_one_request_only() -> None:
    asked = wire.request_encoded(ASKED, CODE.secret)
    raw = wire.reply_encoded(TOLD, asked, CODE.secret)
    assert wire.reply_decoded(raw, asked, CODE.secret) == (TOLD, True)
    again = wire.request_encoded(msgspec.structs.replace(ASKED, nonce="m" * 22), CODE.secret)
    for request, secret in ((again, CODE.secret), (asked, b"another  s")):
        with pytest.raises(WireError, match="ENROL_PROOF"):
            wire.reply_decoded(raw, request, secret)
    for name, value in _other(TOLD):
        with pytest.raises(WireError, match="ENROL_PROOF"):
            wire.reply_decoded(_with(raw, name, value), asked, CODE.secret)
    for name, value in _other(WHO):
        changed = msgspec.structs.replace(TOLD, identity=msgspec.structs.replace(WHO, **{name: value}))
        with pytest.raises(WireError, match="ENROL_PROOF"):
            wire.reply_decoded(raw.partition(b"\n")[0] + b"\n" + msgspec.json.encode(changed), asked, CODE.secret)


def test_a_request_turned_round_is_no_reply_and_the_other_way_about() -> None:
    """The two directions have keys of their own: nothing that one side signs can be shown to itself."""
    asked = wire.request_encoded(ASKED, CODE.secret)
    with pytest.raises(WireError, match="ENROL_PROOF"):
        wire.reply_decoded(asked, asked, CODE.secret)
    assert not wire.request_holds(wire.reply_encoded(TOLD, asked, CODE.secret), CODE.secret)
    assert wire._mac(CODE.secret, b"request", b"same") != wire._mac(CODE.secret, b"reply", b"same")


def test_without_proof_nothing_is_told_but_a_refusal() -> None:
    asked = wire.request_encoded(ASKED, CODE.secret)
    word = wire.Reply(1, CODE.id, "wrong", TOLD.at)
    assert wire.reply_decoded(wire.unproven(word), asked, CODE.secret) == (word, False)
    forged = b"-\n" + msgspec.json.encode(TOLD)
    with pytest.raises(WireError, match="ENROL_SHAPE"):
        wire.reply_decoded(forged, asked, CODE.secret)
    with pytest.raises(WireError, match="ENROL_SHAPE"):
        wire.reply_decoded(wire.reply_encoded(msgspec.structs.replace(TOLD, identity=None), asked, CODE.secret), asked, CODE.secret)


@pytest.mark.parametrize("raw", [b"", b"\n", b"x" * 50 + b"\n{}", b"-\n[", b"-\n" + b"[" * 100_000, b"-\n\xff", b"x" * 40_000,
                                 b"-\n{}", b"-\n" + msgspec.json.encode({**msgspec.to_builtins(ASKED), "more": 1})])
def test_bytes_that_are_no_message_are_refused_by_name(raw: bytes) -> None:
    asked = wire.request_encoded(ASKED, CODE.secret)
    with pytest.raises(WireError, match="ENROL_SHAPE"):
        wire.request_decoded(raw)
    with pytest.raises(WireError, match="ENROL_SHAPE"):
        wire.reply_decoded(raw, asked, CODE.secret)


def _with(raw: bytes, name: str, value: Any) -> bytes:
    mac, body = raw.strip().split(b"\n")
    return mac + b"\n" + msgspec.json.encode({**msgspec.json.decode(body), name: msgspec.to_builtins(value)})


def _other(document: Any) -> list[tuple[str, Any]]:
    """Each field with another legal value."""
    other = {"v": 1.0, "id": "7K3Q0Y", "box": "box-2", "box_no": "00000B", "tenant": "shop2", "port": 8884, "result": "used",
             "nonce": "m" * 22, "keys": wire.Keys(({"kty": "EC"},)), "identity": None}
    return [(name, other.get(name, f"{getattr(document, name)}x")) for name in document.__struct_fields__]


def test_a_certificate_request_made_by_hand_is_one_that_a_library_believes() -> None:
    for _ in range(20):                                      # r and s are short now and then
        key = Key()
        der = csr_wire.request("shop/box-1", key.jwk, key.sign)
        read = x509.load_pem_x509_csr(csr_wire.pem(der))
        assert read.is_signature_valid and read.subject.rfc4514_string() == "CN=shop/box-1"
        point = read.public_key()
        assert isinstance(point, ec.EllipticCurvePublicKey)
        assert b64(point.public_numbers().x.to_bytes(32, "big")) == key.jwk["x"]
        assert not x509.load_der_x509_csr(csr_wire.request("a", key.jwk, Key().sign)).is_signature_valid


def test_the_topics_of_an_enrolment() -> None:
    assert topics.enrol("7K3Q0Z", "ask") == "tb1/_enrol/7K3Q0Z/ask"
    assert topics.enrol_parsed(topics.enrol("7K3Q0Z", "ask")) == "7K3Q0Z"
    assert topics.enrol_shared("shop") == "$share/enrol-shop/tb1/_enrol/+/ask"
    for bad in ("+", "", "7K3Q0", "7K3Q0U", "7k3q0z", "a/b"):
        with pytest.raises(topics.TopicError):
            topics.enrol(bad, "ask")
        with pytest.raises(topics.TopicError):
            topics.enrol_parsed(f"tb1/_enrol/{bad}/ask")
    with pytest.raises(topics.TopicError):
        topics.enrol_parsed("tb1/_enrol/7K3Q0Z/answer")
