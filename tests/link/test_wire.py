"""Messages between box and cloud: what is written is read again, and other people's bytes are refused by name."""

import json
import zlib

import pytest

from device.mqtt import topics, wire
from device.mqtt.wire import Ack, WireError
from device.store_forward.es256 import public_verifier
from tests.record_chain import Chain, Key

KEY = Key()
CHAIN = Chain(KEY).grow(60)


@pytest.mark.parametrize("enc", ["plain", "zlib"])
def test_a_batch_comes_back_whole(enc: str) -> None:
    batch = CHAIN.batch(3, 52)
    raw = wire.batch_encoded(batch, enc)
    assert wire.batch_decoded(raw) == batch
    assert json.loads(raw.partition(b"\n")[0]) == {"jid": CHAIN.jid, "first": 3, "last": 52, "head": batch.head, "enc": enc}


def test_deflating_saves_room() -> None:
    batch = CHAIN.batch(1, 50)
    assert len(wire.batch_encoded(batch, "zlib")) < len(wire.batch_encoded(batch, "plain"))


def _raw(first: int = 1, last: int = 1, enc: str = "plain", body: bytes | None = None, head: str | None = None) -> bytes:
    batch = CHAIN.batch(1, 1)
    line = {"jid": CHAIN.jid, "first": first, "last": last, "head": head or batch.head, "enc": enc}
    return json.dumps(line).encode() + b"\n" + (batch.tokens[0].encode() + b"\n" if body is None else body)


@pytest.mark.parametrize(("raw", "name"), [
    (b"", "BATCH_HEADER"),
    (b"no newline", "BATCH_HEADER"),
    (b"{}\n", "BATCH_HEADER"),
    (b"\xff\xfe\n", "BATCH_HEADER"),
    (b"x" * 600 + b"\n", "BATCH_HEADER"),
    (_raw(first=0, last=0), "BATCH_HEADER"),
    (_raw(head="short"), "BATCH_HEADER"),
    (_raw(last=2), "BATCH_COUNT"),
    (_raw(first=2, last=1), "BATCH_COUNT"),
    (_raw(last=51, body=b"a.b.c\n" * 51), "BATCH_COUNT"),
    (_raw(body=b"a.b.c"), "BATCH_COUNT"),
    (_raw(body=b""), "BATCH_COUNT"),
    (_raw(body=b"a.b.c\r\n"), "BATCH_TOKEN"),
    (_raw(body=b"a..c\n"), "BATCH_TOKEN"),
    (_raw(body=b"\n"), "BATCH_TOKEN"),
    (_raw(body=b"a.b." + b"c" * 16384 + b"\n"), "BATCH_TOKEN"),
    (_raw(enc="gzip"), "BATCH_ENCODING"),
    (_raw(enc="zlib"), "BATCH_ENCODING"),
    (_raw(enc="zlib", body=zlib.compress(b"a.b.c\n")[:-1]), "BATCH_ENCODING"),
    (_raw(enc="zlib", body=zlib.compress(b"a.b.c\n") + b"x"), "BATCH_ENCODING"),
    (_raw(enc="zlib", body=zlib.compress(b"a" * 20_000_000)), "BATCH_TOO_LONG"),
    (_raw(body=b"a" * 66_000), "BATCH_TOO_LONG"),
    (b"x" * 100_000, "BATCH_TOO_LONG"),
])
def test_bad_batches_are_refused_by_name(raw: bytes, name: str) -> None:
    with pytest.raises(WireError) as caught:
        wire.batch_decoded(raw)
    assert caught.value.name == name
    assert len(caught.value.sentence) > 10


def test_an_ack_comes_back_and_says_its_type() -> None:
    ack = Ack("box-1", CHAIN.jid, 50, CHAIN.batch(1, 50).head, ((61, 70),), 600_000, "ok", "", "2026-07-14T09:26:53+08:00")
    raw = wire.ack_encoded(ack, KEY.kid, KEY.sign)
    assert wire.ack_decoded(raw, {KEY.kid: public_verifier(KEY.jwk)}) == ack
    assert wire.unb64(raw.split(b".")[0].decode()) == (
        b'{"alg":"ES256","kid":"' + KEY.kid.encode() + b'","typ":"till-ack+jws"}')


def _ack_raw(**change: object) -> bytes:
    fields = {"box": "box-1", "jid": CHAIN.jid, "upto": 1, "head": CHAIN.batch(1, 1).head, "want": [], "hold_ms": 0,
              "verdict": "ok", "why": "", "at": ""} | change
    head = wire.b64(json.dumps({"alg": "ES256", "kid": KEY.kid, "typ": "till-ack+jws"}).encode())
    signing = f"{head}.{wire.b64(json.dumps(fields).encode())}"
    return f"{signing}.{wire.b64(KEY.sign(signing.encode()))}".encode()


@pytest.mark.parametrize("change", [
    {"hold_ms": 600_001}, {"hold_ms": -1}, {"verdict": "perhaps"}, {"upto": -1}, {"upto": 1.5}, {"want": [[5, 4]]},
    {"want": [[0, 4]]}, {"jid": ""}, {"head": "abc"}, {"box": "Box 1"}, {"want": [[1, 1]] * 65}, {"why": "w" * 501},
])
def test_an_ack_out_of_bounds_is_refused_though_signed(change: dict) -> None:
    with pytest.raises(WireError) as caught:
        wire.ack_decoded(_ack_raw(**change), {KEY.kid: public_verifier(KEY.jwk)})
    assert caught.value.name == "ACK_PAYLOAD"


def test_an_ack_needs_our_clouds_signature() -> None:
    raw, good, other = _ack_raw(), {KEY.kid: public_verifier(KEY.jwk)}, Key()
    assert wire.ack_decoded(raw, good).upto == 1
    for bad, verifiers, name in [
        (raw, {}, "ACK_KEY"),
        (raw, {KEY.kid: public_verifier(other.jwk)}, "ACK_SIGNATURE"),
        (raw[:-4] + b"AAAA", good, "ACK_SIGNATURE"),
        (raw + b"\n", good, "ACK_SHAPE"),
        (b"a.b.c", good, "ACK_SHAPE"),
        (CHAIN.tokens[0].encode(), good, "ACK_SHAPE"),            # a record's signature is no acknowledgement
        (b"x" * 9000, good, "ACK_SHAPE"),
    ]:
        with pytest.raises(WireError) as caught:
            wire.ack_decoded(bad, verifiers)
        assert caught.value.name == name


def test_hello_status_and_open_come_back() -> None:
    hello = wire.Hello((wire.JournalHead(CHAIN.jid, 1, 61, "h" * 43),), "nonce", boot="b1", free_bytes=7)
    assert wire.hello_decoded(wire.encoded(hello)) == hello
    born = wire.Status("up", 7, "2026-07-14T09:26:53+08:00")
    assert wire.status_decoded(wire.encoded(born)) == born
    orders = (wire.OpenOrder("N1", "wechat", "m1", 100, 3),
              *(wire.OpenOrder("N2", "wechat", "m1", 100, 3, at) for at in (
                  "1970-01-01T08:00:07+08:00", "2026-07-14T09:26:53.123+08:00", "2026-07-14T01:26:53.123456Z")))
    assert wire.open_decoded(wire.encoded(orders)) == orders
    assert wire.open_decoded(b'[{"order_no":"N1","channel":"wechat","account":"m1","amount_fen":100,"age_s":3}]') == orders[:1]
    for odd in ("2026-07-14T09:26:53", "0001-01-01T00:00:00+14:00", "2026-07-14T09:26:53+08:00\n", "now", "9" * 41):
        with pytest.raises(WireError):
            wire.open_decoded(wire.encoded((wire.OpenOrder("N1", "wechat", "m1", 100, 3, odd),)))
    for decode, raw in [(wire.hello_decoded, b"{}"), (wire.status_decoded, b"\xff"), (wire.open_decoded, b"[1]")]:
        with pytest.raises(WireError):
            decode(raw)


@pytest.mark.parametrize("more", [b"[" * 30_000, b'{"a":' * 10_000, b"[" * 20_000 + b"]" * 20_000])
def test_brackets_without_end_are_refused_by_name_and_not_by_a_fall(more: bytes) -> None:
    """Whoever holds the broker says what he likes on a collector's topic: a till that fell over it would fall at each connect."""
    for decode in (wire.status_decoded, wire.hello_decoded, wire.open_decoded):
        for raw in (b'{"state":"up","connect":1,"x":' + more, b'[{"x":' + more):
            with pytest.raises(WireError):
                decode(raw)
    parts = (b'{"x":' + more[:3_000], b"{}", bytes(64))
    signed = ".".join(map(wire.b64, parts)).encode()
    with pytest.raises(WireError):
        wire.ack_decoded(signed, {})


def test_a_stale_death_changes_nothing() -> None:
    born = wire.Status("up", 7)
    assert not wire.status_holds(born, wire.Status("down", 6))
    assert wire.status_holds(born, wire.Status("down", 7))
    assert wire.status_holds(wire.Status("down", 7), wire.Status("up", 8))


def test_topics_are_built_and_taken_apart() -> None:
    assert topics.up("shop", "box-1") == "tb1/shop/box-1/up"
    assert topics.box_parsed("tb1/shop/box-1/config/desired") == ("shop", "box-1", "config/desired")
    assert topics.collector_parsed(topics.collector_state("shop", "c1")) == ("shop", "c1")
    assert topics.shared("shop", "up") == "$share/collect/tb1/shop/+/up"
    assert topics.blob("shop", "box-1", "0" * 64, 3) == f"tb1/shop/box-1/blob/{'0' * 64}/3"
    for topic in topics.TOPICS:
        if topic.under == "box" and "{" not in topic.name:
            assert topics.box_parsed(topics.of_box("shop", "box-1", topic.name))[2] == topic.name


@pytest.mark.parametrize("name", ["", "+", "#", "a/b", "Box", "_collector", "x" * 33, "box\n", "盒"])
def test_names_that_would_break_out_of_their_place_are_refused(name: str) -> None:
    with pytest.raises(topics.TopicError):
        topics.up("shop", name)
    with pytest.raises(topics.TopicError):
        topics.up(name, "box-1")
    with pytest.raises(topics.TopicError):
        topics.box_parsed(f"tb1/shop/{name}/up")
