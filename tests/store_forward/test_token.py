"""The record token byte for byte, and the key file that signs it."""

import asyncio
import hashlib
import json
import os
import random

import msgspec
import pytest
from hypothesis import given, strategies

from device.drivers.signer.file import FileSigner
from device.errors import DriverGone
from device.store_forward import token as token_module
from device.store_forward.es256 import public_verifier
from device.store_forward.token import (
    EMPTY_DIGEST,
    TOKEN_BYTES_MAX,
    Payload,
    Sum,
    TokenError,
    b64,
    digest,
    encode_payload,
    header,
    parse,
    seal,
    signing_input,
    thumbprint,
    tokens_found,
    unb64,
)
from device.txn.effects import SignRecord
from device.txn.inputs import Signed

KID = b64(bytes(32))
RECORD = Payload(1, "box-1", b64(bytes(16)), 7, EMPTY_DIGEST, "2026-03-01T08:00:00.5+08:00", "ntp", "b1", 12, "drawer",
                 Sum(5, 0, 1), msgspec.Raw(b'{"a":1}'))


def sealed(payload: bytes) -> str:
    return seal(signing_input(KID, payload), bytes(64))


def test_the_bytes_are_those_of_the_format():
    assert header(KID) == b'{"alg":"ES256","kid":"' + KID.encode() + b'","typ":"till+jws"}'
    assert EMPTY_DIGEST == "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
    assert digest("abc") == b64(hashlib.sha256(b"abc").digest())
    assert list(json.loads(encode_payload(RECORD))) == "v box jid seq prev at clk boot mono_ms kind sum body".split()
    assert encode_payload(RECORD).endswith(b'"sum":{"sales_fen":5,"refunds_fen":0,"count":1},"body":{"a":1}}')


def test_the_thumbprint_counts_four_members_and_takes_no_other_key():
    jwk = {"y": "eQ", "x": "eA", "kty": "EC", "crv": "P-256", "kid": "whatever", "use": "sig"}
    assert thumbprint(jwk) == b64(hashlib.sha256(b'{"crv":"P-256","kty":"EC","x":"eA","y":"eQ"}').digest())
    with pytest.raises(ValueError):
        thumbprint({"kty": "RSA", "n": "AQ", "e": "AQAB"})


@given(strategies.binary(max_size=50))
def test_base64url_both_ways(data):
    assert unb64(b64(data)) == data


@pytest.mark.parametrize("text", ["QQ==", "Q", "QR", "Q Q", "QQ\n", "Q+/a", "Ü", "QUJ="])
def test_base64url_has_one_spelling(text):
    with pytest.raises(ValueError):
        unb64(text)


def test_a_token_comes_back_as_it_was():
    token = sealed(encode_payload(RECORD))
    kid, payload, signed, signature = parse(token)
    assert (kid, payload, signature) == (KID, RECORD, bytes(64))
    assert token == f"{signed.decode()}.{b64(signature)}"


def test_the_limit_is_sixteen_kib_to_the_byte():
    room = next(n for n in range(11_000, 13_000) if len(signing_input(KID, bytes(n + 1))) + 87 > TOKEN_BYTES_MAX)
    assert len(sealed(bytes(room))) <= TOKEN_BYTES_MAX
    with pytest.raises(TokenError, match="TOO_LONG"):
        sealed(bytes(room + 1))


GOOD = encode_payload(RECORD)
REFUSED = [
    ("KEY_TWICE", GOOD.replace(b'{"a":1}', b'{"a":1,"a":1}')), ("KEY_TWICE", GOOD.replace(b'{"v":1', b'{"v":1,"v":1')),
    ("KEY_ORDER", GOOD.replace(b'"v":1,"box":"box-1"', b'"box":"box-1","v":1')),
    ("KEY_ORDER", GOOD.replace(b'{"v":1,', b'{')),
    ("KEY_ORDER", GOOD[:-1] + b',"more":1}'),
    ("KEY_ORDER", GOOD.replace(b'"sales_fen":5,"refunds_fen":0', b'"refunds_fen":0,"sales_fen":5')),
    ("AMOUNT_NOT_INTEGER", GOOD.replace(b'"sales_fen":5', b'"sales_fen":5.0')),
    ("AMOUNT_NOT_INTEGER", GOOD.replace(b'{"a":1}', b'{"x":[{"y_fen":true}]}')),
    ("AMOUNT_NOT_INTEGER", GOOD.replace(b'{"a":1}', b'{"y_fen":9007199254740992}')),
    ("AMOUNT_NOT_INTEGER", GOOD.replace(b'{"a":1}', b'{"y_fen":"5"}')),
    ("BAD_PAYLOAD", b""),
    ("BAD_PAYLOAD", b"[]"),
    ("BAD_PAYLOAD", b"[" * 11_000),
    ("BAD_PAYLOAD", b"\xff"),
    ("BAD_PAYLOAD", GOOD.replace(b'{"a":1}', b'[]')),
    ("BAD_PAYLOAD", GOOD.replace(b'{"a":1}', b'{"a":NaN}')),
    ("BAD_PAYLOAD", GOOD.replace(b'{"a":1}', b'{"a":' + b"9" * 5000 + b"}")),
    ("BAD_PAYLOAD", GOOD.decode().encode("utf-16")),
    ("BAD_PAYLOAD", GOOD.replace(b"T08", b"T25")),
    ("BAD_PAYLOAD", GOOD.replace(b"+08:00", b"")),
    ("BAD_PAYLOAD", GOOD.replace(b'"seq":7', b'"seq":0')),
    ("BAD_PAYLOAD", GOOD.replace(b'"seq":7', b'"seq":7.5')),
    ("BAD_PAYLOAD", GOOD.replace(b'"v":1', b'"v":2')),
    ("BAD_PAYLOAD", GOOD.replace(b"box-1", b"Box 1")), ("BAD_PAYLOAD", GOOD.replace(b'"count":1', b'"count":-1')),
]


@pytest.mark.parametrize("name, payload", REFUSED)
def test_what_no_record_says_is_refused_by_name(name, payload):
    assert payload != GOOD
    with pytest.raises(TokenError) as refused:
        parse(sealed(payload))
    assert refused.value.name == name and refused.value.sentence.endswith(".")


@given(strategies.text(max_size=80) | strategies.binary(max_size=300).map(sealed))
def test_rubbish_has_a_name_and_nothing_else(text):
    with pytest.raises(TokenError):
        parse(text)


@pytest.mark.parametrize("head", [b'{"alg":"none"}', header(KID)[:-1] + b',"b64":false}', header(KID).replace(b",", b", "), b""])
def test_any_other_header_is_refused(head):
    with pytest.raises(TokenError) as refused:
        parse(f"{b64(head)}.{b64(GOOD)}.{b64(bytes(64))}")
    assert refused.value.name == "BAD_HEADER"


def test_tokens_are_found_in_bytes_of_any_encoding():
    token = sealed(GOOD)
    assert tokens_found(b"\x93\xd9" + token.encode() + b"\xc0" + json.dumps([token]).encode()) == [(7, token)] * 2
    assert tokens_found(b"none here") == []


def test_the_key_file_is_made_once_private_and_whole(tmp_path):
    first, second = FileSigner(tmp_path / "key"), FileSigner(tmp_path / "key")
    assert first.kid == second.kid == thumbprint(first.jwk) and "d" not in first.jwk
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600 and os.listdir(tmp_path) == ["key"]


def test_a_signature_checks_and_is_the_same_each_time(tmp_path):
    signer = FileSigner(tmp_path / "key")
    first, second = (asyncio.run(signer.do(SignRecord(7, GOOD))) for _ in range(2))
    assert isinstance(first, Signed) and first == second and first.seq == 7
    parsed, check = parse(first.token), public_verifier(signer.jwk)
    assert parsed.kid == signer.kid and check(parsed.signing_input, parsed.signature)
    assert not check(parsed.signing_input + b"x", parsed.signature)
    assert not check(parsed.signing_input, parsed.signature[:-1]) and not check(parsed.signing_input, bytes(64))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    FileSigner(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(DriverGone, match="read by others"):
        FileSigner(tmp_path / "key")


def test_a_file_that_is_no_key_is_refused_and_stays(tmp_path):
    (tmp_path / "key").write_bytes(b"not a key")
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(DriverGone, match="no readable PEM"):
        FileSigner(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == b"not a key"
    with pytest.raises(DriverGone, match="cannot be used"):
        FileSigner(tmp_path / "nowhere" / "key")


def test_silence_ends_when_the_signer_is_closed(tmp_path):
    async def told() -> list:
        signer = FileSigner(tmp_path / "key")
        await signer.close()
        return [said async for said in signer.inputs()]
    assert asyncio.run(told()) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_quick_reading_of_a_payload_never_differs_from_the_careful_one(seed: int) -> None:
    """Whatever the quick one takes, the careful one takes too, as the same; and it takes what a box writes."""
    dice = random.Random(seed)
    good = ('{"v":1,"box":"box-1","jid":"' + "j" * 21 + 'A","seq":7,"prev":"' + EMPTY_DIGEST + '","at":"2026-07-14T09:26:53+08:00",'
            '"clk":"ntp","boot":"b1","mono_ms":0,"kind":"sale","sum":{"sales_fen":5,"refunds_fen":0,"count":1},'
            '"body":{"order_no":"N1","amount_fen":5,"lines":[{"price_fen":5,"name":"茶\\"_fen"}]}}').encode()
    assert token_module._plain(good) is not None
    pieces = [b'"amount_fen":5', b'"amount_fen":5.0', b'"amount_fen":1e2', b',"amount_fen":6', b'"x_f\\u0065n":"a",', b'"a":1.50,',
              b" ",
              b'"a":{"b":1,"b":2},', b'"k_fen":9007199254740992,', b'"a":NaN,', b"\xff", b'"v":1,', b'"a":"\\ud800",', b"[[", b"}"]
    taken = 0
    for _ in range(2_000):
        raw = bytearray(good)
        at, how = dice.randrange(len(raw)), dice.randrange(4)
        if how == 0:
            raw[at] = dice.randrange(256)
        elif how == 1:
            del raw[at:at + dice.randrange(1, 9)]
        elif how == 2:
            raw[at:at] = dice.choice(pieces)
        else:
            raw = bytearray(good.replace(b'"order_no":', dice.choice(pieces) + b'"order_no":').replace(b'"amount_fen":5',
                                                                                                    dice.choice(pieces)))
        quick = token_module._plain(bytes(raw))
        if quick is not None:
            careful = token_module._payload(bytes(raw))
            assert bytes(quick.body) == bytes(careful.body) and quick.sum == careful.sum and quick.seq == careful.seq
            taken += 1
    assert taken > 20


SALE = (b'{"order_no":"1","amount_fen":700,"cashier":"01","lines":[{"gtin":"6902538004045","name":"tea","qty_milli":1000,'
        b'"price_fen":700,"amount_fen":700}],"tenders":[{"method":"wechat","amount_fen":700,"order_no":"1","channel_no":"2"}]}')
ODD_SALES = (
    (b'"cashier":"01"', b'"cashier":"01","cashier":"02"'), (b'"name":"tea"', b'"name":"tea","name":"tea"'),
    (b'"method":"wechat"', b'"method":"wechat","method":"cash"'), (b'"amount_fen":700,"c', b'"amount_fen":7e2,"c'),
    (b'"price_fen":700', b'"price_fen":9007199254740992'), (b'"price_fen":700', b'"price_fen":-0'), (b'"tea"', b'"\\u0074ea"'),
    (b'"qty_milli":1000', b'"qty_milli":1000 '), (b'"01"', b'1'), (b'"channel_no":"2"', b'"channel_no":null'),
    (b'"cashier":"01"', b'"cashier":"01","who":{"a_fen":1,"a_fen":2}'), (b'}]}', b'}],"late":true}'), (b'"tea"', b'"\xff"'))


@pytest.mark.parametrize(("was", "becomes"), [(b"", b""), *ODD_SALES])
def test_a_sale_read_by_its_shape_says_what_the_general_reader_says(was: bytes, becomes: bytes) -> None:
    assert not was or SALE.count(was) >= 1
    data = encode_payload(msgspec.structs.replace(RECORD, kind="sale"))
    data = data[:data.index(b'"body":') + 7] + SALE.replace(was, becomes, 1) + b"}"
    def said(reader: object) -> object:
        try:
            return reader(data)  # type: ignore[operator]
        except TokenError as why:
            return why.name
    general = said(token_module._payload)
    quick = token_module._plain(data)
    assert quick is None or quick == general
    assert was or quick is not None                          # the usual sale does go the quick way
