"""Packed batches: back to the last byte, half the size, and nothing that a stranger can make of them."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import zlib
from collections.abc import Callable

import msgspec
import pytest

from device.mqtt import packing_wire, wire
from device.mqtt.client import Link
from device.store_forward.token import b64, digest, seal, signing_input
from fleet.records import door
from tests.record_chain import Chain, Key

KEY = Key()
CHAIN = Chain(KEY).grow(60)
DIGEST_D1 = "30331a37729531681a9bf04f3219590fe5b3e5101a7a29f8455534778809570c"


def _deflated(plain: bytes) -> bytes:
    made = zlib.compressobj(9, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, packing_wire.DICTIONARY)
    return made.compress(plain) + made.flush()


@pytest.mark.parametrize(("first", "last"), [(1, 1), (7, 7), (1, 50), (11, 60)])
def test_tokens_come_back_to_the_last_byte_and_small(first: int, last: int) -> None:
    batch = CHAIN.batch(first, last)
    raw = wire.batch_encoded(batch, "zlib-d1")
    assert wire.batch_decoded(raw) == batch
    assert b'"enc":"zlib-d1"' in raw.partition(b"\n")[0]
    assert len(raw) < 0.72 * len(wire.batch_encoded(batch, "zlib"))


def test_the_key_may_change_within_a_batch() -> None:
    chain = Chain(KEY).grow(3)
    chain.key = Key()
    chain.grow(3)
    packed = packing_wire.packed(chain.tokens)
    assert packed is not None and packing_wire.unpacked(packed, 6, wire.BODY_MAX_BYTES).tokens == chain.tokens


def test_the_dictionary_of_version_1_stays_what_it_is() -> None:
    assert hashlib.sha256(packing_wire.DICTIONARY).hexdigest() == DIGEST_D1


def test_what_could_not_be_put_together_again_goes_as_it_stands() -> None:
    good = CHAIN.tokens[0]
    head, body, signature = good.split(".")
    other = seal(signing_input(KEY.kid, b'{"a":1}\n'), b"s" * 64)
    for tokens in (["a.b.c"], [f"{head}.{body}.AAAA"], [f"{head}.{body[:-1]}.{signature}"], [other], ["\u00e9.b.c"],
                   [f"{b64(b'{}')}.{body}.{signature}"], [CHAIN.tokens[0], CHAIN.tokens[2]],
                   [f"{head}.{body}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}"]):
        assert packing_wire.packed(tokens) is None, tokens
    alien = wire.Batch(CHAIN.jid, 1, 2, CHAIN.batch(3, 3).head, (CHAIN.tokens[0], CHAIN.tokens[2]))
    raw = wire.batch_encoded(alien, "zlib-d1")
    assert b'"enc":"zlib"}' in raw and wire.batch_decoded(raw) == alien


def test_payloads_that_look_like_a_left_out_link_come_back_too() -> None:
    chain = Chain(KEY).grow(1)
    chain.add("stock", {"prev": "", "note": '"prev":""', "x": '\\"prev\\":\\"'})
    chain.add("stock", {"prev": ""})
    packed = packing_wire.packed(chain.tokens)
    assert packed is not None and packing_wire.unpacked(packed, 3, wire.BODY_MAX_BYTES).tokens == chain.tokens
    early = [chain.tokens[0], seal(signing_input(KEY.kid, b'{"prev":"","prev":"x"}'), b"s" * 64)]
    assert packing_wire.packed(early) is None


HEAD = b"#" + KEY.kid.encode() + b"\n"
LINKED = b'{"prev":""}\n'


@pytest.mark.parametrize(("plain", "why"), [
    (b'{"prev":"x"}\n', "no record key"), (HEAD + b'{"a":1}', "no end"), (HEAD, "0 payloads"), (b"#short\n{}\n", "names no"),
    (b"#" + b"B" * 43 + b"\n{}\n", "names no"),
    (HEAD + b'{"prev":"x"}\n' + LINKED, "more payloads"), (HEAD + b" " * 70_000 + b"\n", "more than 65536"),
    (HEAD + b"x" * 60_000 + b"\n", "take more than"), (b"\xff" * 44 + b"\n", "no record key"),
])
def test_a_strange_stream_is_refused_in_one_sentence(plain: bytes, why: str) -> None:
    with pytest.raises(packing_wire.PackError, match=why):
        packing_wire.unpacked(b"s" * 64 + _deflated(plain), 1, wire.BODY_MAX_BYTES)


def test_a_bomb_a_cut_and_a_tail_are_refused() -> None:
    bomb = b"s" * 64 + _deflated(b"\0" * 50_000_000)
    assert len(bomb) < 60_000
    whole = packing_wire.packed(CHAIN.tokens[:3])
    assert whole is not None
    for raw, count in ((bomb, 1), (whole[:-1], 3), (whole + b"x", 3), (b"", 1), (whole, 4), (whole, 2)):
        with pytest.raises(packing_wire.PackError):
            packing_wire.unpacked(raw, count, wire.BODY_MAX_BYTES)
    with pytest.raises(packing_wire.PackError, match="names its own link"):
        packing_wire.unpacked(b"s" * 128 + _deflated(HEAD + b'{"prev":"x"}\n{"prev":"y"}\n'), 2, wire.BODY_MAX_BYTES)


def test_spoilt_bytes_never_raise_anything_else() -> None:
    raw, rng = bytearray(wire.batch_encoded(CHAIN.batch(1, 5), "zlib-d1")), random.Random(3)
    spoilt_heads = 0
    for _ in range(2_000):
        one = bytearray(raw)
        for _ in range(rng.randrange(1, 4)):
            one[rng.randrange(len(one))] = rng.randrange(256)
        try:
            batch = wire.batch_decoded(bytes(one))
        except wire.WireError:
            spoilt_heads += 1
        else:
            assert len(batch.tokens) == batch.last - batch.first + 1
    assert spoilt_heads > 200


def test_a_box_packs_only_for_collectors_that_all_say_they_read_it() -> None:
    async def scenario() -> None:
        link = Link("127.0.0.1", 1, "shop", "box-1", on_message=lambda *_: None, on_state=lambda *_: None,
                    hello=lambda session: b"")
        said = []
        for which, told in (("c1", wire.Status("up", 1, "", wire.ENCODINGS)), ("c2", wire.Status("up", 1)),
                            ("c2", wire.Status("down", 1)), ("c1", wire.Status("down", 1))):
            link._collector_came(f"tb1/shop/_collector/{which}/state", wire.encoded(told))
            said.append(link.enc)
        assert said == ["zlib-d1", "zlib", "zlib-d1", "zlib"]

    asyncio.run(scenario())


def test_a_collector_of_before_is_understood_and_understands() -> None:
    told = wire.status_decoded(b'{"state":"up","connect":3,"at":""}')
    assert told.enc == ()

    class Old(msgspec.Struct, frozen=True):
        state: str
        connect: int
        at: str = ""

    assert msgspec.json.decode(wire.encoded(wire.Status("up", 3, "", wire.ENCODINGS)), type=Old) == Old("up", 3)


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 50), (11, 60)])
def test_the_door_reads_a_packed_batch_as_it_reads_its_tokens(first: int, last: int) -> None:
    batch, insides = wire.batch_opened(wire.batch_encoded(CHAIN.batch(first, last), "zlib-d1"))
    assert insides is not None and insides.digests == [digest(token) for token in batch.tokens]
    assert door.read(CHAIN.box, batch, insides) == door.read(CHAIN.box, batch)


@pytest.mark.parametrize(("name", "spoilt"), [
    ("WRONG_PLACE", lambda p: p.replace(b'"seq":2', b'"seq":3')), ("WRONG_PLACE", lambda p: p.replace(b'"jid":"', b'"jid":"x')),
    ("WRONG_HEAD", lambda p: p.replace(b'"v":1', b'"v":2')),
    ("KEY_ORDER", lambda p: p.replace(b'"kind":"', b'"kind":"key","was":"')),
    ("WRONG_HEAD", lambda p: p[:-1]), ("BATCH_ENCODING", lambda p: b"{}")])
def test_a_packed_record_out_of_place_is_refused_for_the_reason_of_its_token(name: str, spoilt: Callable[[bytes], bytes]) -> None:
    lines = list(packing_wire.unpacked(packing_wire.packed(CHAIN.tokens[:3]) or b"", 3, wire.BODY_MAX_BYTES).payloads)
    lines[1] = spoilt(lines[1])
    for n in (1, 2):
        lines[n] = re.sub(rb'"prev":"[^"]*"', b'"prev":""', lines[n])
    header = msgspec.json.encode({"jid": CHAIN.jid, "first": 1, "last": 3, "head": "h" * 43, "enc": "zlib-d1"})
    raw = header + b"\n" + b"s" * 192 + _deflated(b"#" + KEY.kid.encode() + b"\n" + b"\n".join(lines) + b"\n")
    for with_insides in (True, False):
        with pytest.raises((wire.WireError, door.Unreadable)) as refused:
            batch, insides = wire.batch_opened(raw)
            door.read(CHAIN.box, batch, insides if with_insides else None)
        assert refused.value.name == name
