"""What stands inside the messages between box and cloud: bytes in, values out, every bound checked here.

Knows batches, acknowledgements, hello, status and open orders; refuses to know connections, keys (signing and checking
are handed in) and what a record means.  Other people's bytes raise `WireError`; our own mistakes are asserts.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec

from device.store_forward.token import b64, unb64

RECORDS_MAX = 50
BODY_MAX_BYTES = 64 * 1024               # tokens and newlines, after inflating
HEADER_MAX_BYTES = 512
PACKET_MAX_BYTES = BODY_MAX_BYTES + HEADER_MAX_BYTES + 1024
TOKEN_MAX_BYTES = 16 * 1024
HOLD_MAX_MS = 600_000
WANT_MAX = 64
ACK_TYP: Final = "till-ack+jws"
ACK_MAX_BYTES = 8 * 1024
HELLO_MAX_BYTES = 64 * 1024

_TOKEN = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Jid = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{1,43}\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{43}\Z")]
BoxId = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9-]{1,32}\Z")]
Short = Annotated[str, msgspec.Meta(max_length=500)]
Moment = Annotated[str, msgspec.Meta(max_length=40, pattern=
                   r"\A([12][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2}))?\Z")]


class WireError(Exception):
    """Bytes that are not what their topic promises.  `name` is for programs, `sentence` for a person."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f"{name}: {sentence}")
        self.name, self.sentence = name, sentence


# Batches -----------------------------------------------------------------------------------------------------------

class Batch(msgspec.Struct, frozen=True):
    """Records `first` to `last` of journal `jid`, oldest first; `head` is the digest of the last token."""

    jid: str
    first: int
    last: int
    head: str
    tokens: tuple[str, ...]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    jid: Jid
    first: Seq
    last: Seq
    head: Digest
    enc: str


Encoding = Literal["plain", "zlib", "zlib-d1"]
ENCODINGS: tuple[Encoding, ...] = ("plain", "zlib", "zlib-d1")     # what this release reads; a collector says so in its state


def batch_encoded(batch: Batch, enc: Encoding = "plain") -> bytes:
    """The payload of `up`: a header line, then one token a line, the lines deflated as a whole under `zlib`.

    `zlib-d1` packs them (packing_wire.py), where they can be; else they go as `zlib`.
    """
    assert 1 <= len(batch.tokens) <= RECORDS_MAX and batch.last - batch.first + 1 == len(batch.tokens), batch.first
    body = "".join(t + "\n" for t in batch.tokens).encode("ascii")
    assert len(body) <= BODY_MAX_BYTES, len(body)
    packed = None
    if enc == "zlib-d1":
        from device.mqtt import packing_wire  # no start has a batch to pack

        packed = packing_wire.packed(batch.tokens)
    if enc == "zlib-d1" and packed is None:
        enc = "zlib"
    if packed is None:
        packed = zlib.compress(body, 6) if enc == "zlib" else body
    return msgspec.json.encode(_Header(batch.jid, batch.first, batch.last, batch.head, enc)) + b"\n" + packed


class Insides(NamedTuple):
    """What whoever unpacked a batch knows of its records besides: the payload of each, and the digest of its token."""

    payloads: list[bytes]
    digests: list[str]


def batch_decoded(raw: bytes) -> Batch:
    """The batch in the payload of `up`.  Checks shape, bounds and count; links and signatures are the collector's.

    Raises WireError: BATCH_TOO_LONG, BATCH_HEADER, BATCH_ENCODING, BATCH_COUNT, BATCH_TOKEN.
    """
    return batch_opened(raw)[0]


def batch_opened(raw: bytes) -> tuple[Batch, Insides | None]:
    """As `batch_decoded`, with the insides where the encoding shows them."""
    if len(raw) > PACKET_MAX_BYTES:
        raise WireError("BATCH_TOO_LONG", f"the message has {len(raw)} bytes, more than {PACKET_MAX_BYTES}")
    line, newline, body = raw.partition(b"\n")
    if not newline or len(line) > HEADER_MAX_BYTES:
        raise WireError("BATCH_HEADER", f"no header line within the first {HEADER_MAX_BYTES} bytes")
    try:
        header = msgspec.json.decode(line, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError("BATCH_HEADER", f"the header line cannot be read: {why}") from None
    count = header.last - header.first + 1
    if header.enc == "zlib-d1" and 1 <= count <= RECORDS_MAX:
        return _unpacked(header, body, count)
    if header.enc == "zlib":
        body = _inflated(body)
    elif header.enc not in ENCODINGS:
        raise WireError("BATCH_ENCODING", f"enc {header.enc[:20]!r} is none of {', '.join(ENCODINGS)}")
    if len(body) > BODY_MAX_BYTES:
        raise WireError("BATCH_TOO_LONG", f"the records have more than {BODY_MAX_BYTES} bytes")
    if not body.endswith(b"\n"):
        raise WireError("BATCH_COUNT", "the last line has no end: the message was cut")
    lines = body[:-1].split(b"\n")
    if not 1 <= count <= RECORDS_MAX or count != len(lines):
        raise WireError("BATCH_COUNT", f"the header says {header.first} to {header.last}, "
                                      f"there are {len(lines)} lines, at most {RECORDS_MAX} are allowed")
    for at, one in enumerate(lines):
        if len(one) > TOKEN_MAX_BYTES or not _TOKEN.fullmatch(one):
            raise WireError("BATCH_TOKEN", f"line {at + 1} of the batch is no compact token of at most "
                                          f"{TOKEN_MAX_BYTES} bytes")
    return Batch(header.jid, header.first, header.last, header.head, tuple(one.decode("ascii") for one in lines)), None


def _unpacked(header: _Header, body: bytes, count: int) -> tuple[Batch, Insides]:
    from device.mqtt import packing_wire

    try:
        tokens, payloads, digests = packing_wire.unpacked(body, count, BODY_MAX_BYTES)
    except packing_wire.PackError as why:
        raise WireError("BATCH_ENCODING", f"the packed records cannot be read: {why}") from None
    if max(map(len, tokens)) > TOKEN_MAX_BYTES:
        raise WireError("BATCH_TOKEN", f"a packed record has more than {TOKEN_MAX_BYTES} bytes")
    return Batch(header.jid, header.first, header.last, header.head, tuple(tokens)), Insides(payloads, digests)


def _inflated(body: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(body, BODY_MAX_BYTES + 1)
    except zlib.error as why:
        raise WireError("BATCH_ENCODING", f"the records cannot be inflated: {why}") from None
    if len(plain) > BODY_MAX_BYTES:
        raise WireError("BATCH_TOO_LONG", f"the records inflate to more than {BODY_MAX_BYTES} bytes")
    if not inflater.eof or inflater.unused_data:
        raise WireError("BATCH_ENCODING", "the deflated records are cut, or something follows them")
    return plain


# Acknowledgements --------------------------------------------------------------------------------------------------

class Ack(msgspec.Struct, frozen=True):
    """What the cloud has committed of one journal: all records up to `upto`, whose last token has the digest `head`.

    `want` are gaps above `upto`, each (first, last); `hold_ms` asks the box to send nothing for so long; `at` is the
    cloud's time, RFC 3339.  `jid` is empty only under the verdict `unreadable`, when no journal could be made out.
    """

    box: BoxId
    jid: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{0,43}\Z")]
    upto: Count
    head: Annotated[str, msgspec.Meta(pattern=r"\A([A-Za-z0-9_-]{43})?\Z")]
    want: Annotated[tuple[tuple[Seq, Seq], ...], msgspec.Meta(max_length=WANT_MAX)] = ()
    hold_ms: Annotated[int, msgspec.Meta(ge=0, le=HOLD_MAX_MS)] = 0
    verdict: Literal["ok", "fork", "rollback", "unreadable"] = "ok"
    why: Short = ""
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""


class _JwsHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["ES256"]
    kid: str
    typ: str


def jws_encoded(typ: str, payload: bytes, kid: str, sign: Callable[[bytes], bytes]) -> bytes:
    """`payload` as a JWS compact token of type `typ`; `sign` takes the signing input and gives 64 raw bytes."""
    signing = f"{b64(msgspec.json.encode(_JwsHeader('ES256', kid, typ)))}.{b64(payload)}".encode()
    return signing + b"." + b64(sign(signing)).encode()


def jws_decoded(raw: bytes, typ: str, verifiers: Mapping[str, Callable[[bytes, bytes], bool]], name: str,
                bytes_max: int) -> bytes:
    """The payload of `raw` if one of our cloud's keys signed it.  `verifiers`: kid to (signing input, raw signature) -> ok.

    Raises WireError: NAME_SHAPE, NAME_KEY, NAME_SIGNATURE, with `name` for NAME.
    """
    if len(raw) > bytes_max:
        raise WireError(f"{name}_SHAPE", f"the signed document has more than {bytes_max} bytes")
    if not _TOKEN.fullmatch(raw):
        raise WireError(f"{name}_SHAPE", "the signed document is no compact token")
    head, payload, signature = raw.decode("ascii").split(".")
    try:
        header = msgspec.json.decode(unb64(head), type=_JwsHeader)
        signature_raw, body = unb64(signature), unb64(payload)
    except (msgspec.DecodeError, ValueError, RecursionError) as why:
        raise WireError(f"{name}_SHAPE", f"the signed document cannot be read: {why}") from None
    if header.typ != typ:
        raise WireError(f"{name}_SHAPE", f"the signed document is of type {header.typ[:40]!r}, not {typ}")
    verify = verifiers.get(header.kid)
    if verify is None:
        raise WireError(f"{name}_KEY", f"the document is signed by {header.kid[:50]!r}, which this box does not know")
    if not verify(f"{head}.{payload}".encode(), signature_raw):
        raise WireError(f"{name}_SIGNATURE", "the signature of the document does not hold")
    return body


def ack_encoded(ack: Ack, kid: str, sign: Callable[[bytes], bytes]) -> bytes:
    """The ack as a JWS compact token; `sign` takes the signing input and gives 64 raw bytes."""
    assert ack.hold_ms <= HOLD_MAX_MS and len(ack.want) <= WANT_MAX and len(ack.why) <= 500, ack
    return jws_encoded(ACK_TYP, msgspec.json.encode(ack), kid, sign)


def ack_decoded(raw: bytes, verifiers: Mapping[str, Callable[[bytes, bytes], bool]]) -> Ack:
    """The ack in `raw` if one of our cloud's keys signed it.

    Raises WireError: ACK_SHAPE, ACK_KEY, ACK_SIGNATURE, ACK_PAYLOAD.
    """
    body = jws_decoded(raw, ACK_TYP, verifiers, "ACK", ACK_MAX_BYTES)
    try:
        ack = msgspec.json.decode(body, type=Ack)
    except (msgspec.DecodeError, RecursionError) as why:
        raise WireError("ACK_PAYLOAD", f"the acknowledgement says something unknown: {why}") from None
    if any(b < a for a, b in ack.want):
        raise WireError("ACK_PAYLOAD", "a wanted range ends before it begins")
    if not ack.jid and ack.verdict != "unreadable":
        raise WireError("ACK_PAYLOAD", "the acknowledgement names no journal")
    return ack


# Birth, death, hello, open orders ----------------------------------------------------------------------------------

class Status(msgspec.Struct, frozen=True):
    """Birth (`up`) or death (`down`) of connection number `connect`, of a box or of a collector.

    `enc` names the encodings of batches that a collector reads; one of before there were several says nothing.
    """

    state: Literal["up", "down"]
    connect: Count
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    enc: Annotated[tuple[Annotated[str, msgspec.Meta(max_length=20)], ...], msgspec.Meta(max_length=20)] = ()


def status_holds(known: Status | None, told: Status) -> bool:
    """Whether `told` may replace `known`: a death that belongs to an older connection says nothing any more."""
    return known is None or told.state == "up" or told.connect >= known.connect


class JournalHead(msgspec.Struct, frozen=True):
    """One journal of a box: its first and next record numbers and the digest of its last token."""

    jid: Jid
    first: Seq
    next: Seq
    head: Annotated[str, msgspec.Meta(max_length=43)]


class Hello(msgspec.Struct, frozen=True):
    """What a box says after each connect; `session` is a fresh nonce that commands must name."""

    journals: Annotated[tuple[JournalHead, ...], msgspec.Meta(max_length=64)]
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    config: Short = ""
    software: Short = ""
    boot: Annotated[str, msgspec.Meta(max_length=64)] = ""
    clk: Annotated[str, msgspec.Meta(max_length=16)] = "unset"
    free_bytes: Count = 0
    oldest_unacked_s: Count = 0


class OpenOrder(msgspec.Struct, frozen=True):
    """An order that its channel has not decided yet.

    `made_at` is the box's time; `way` how the payer was asked: `qr` on our display, `code` theirs scanned, `card`.  Both "" from
    older software.
    """

    order_no: Annotated[str, msgspec.Meta(max_length=32)]
    channel: Annotated[str, msgspec.Meta(max_length=32)]
    account: Annotated[str, msgspec.Meta(max_length=64)]
    amount_fen: Count
    age_s: Count
    made_at: Moment = ""
    way: Annotated[str, msgspec.Meta(max_length=8)] = ""


OpenOrders = Annotated[tuple[OpenOrder, ...], msgspec.Meta(max_length=1000)]


def encoded(value: Status | Hello | tuple[OpenOrder, ...]) -> bytes:
    """The JSON bytes of a status, a hello or the open orders."""
    return msgspec.json.encode(value)


def status_decoded(raw: bytes) -> Status:
    """Raises WireError STATUS."""
    return _decoded(raw, Status, "STATUS")


def hello_decoded(raw: bytes) -> Hello:
    """Raises WireError HELLO."""
    return _decoded(raw, Hello, "HELLO")


def open_decoded(raw: bytes) -> tuple[OpenOrder, ...]:
    """Raises WireError OPEN."""
    return _decoded(raw, OpenOrders, "OPEN")


def _decoded(raw: bytes, kind: Any, name: str) -> Any:
    if len(raw) > HELLO_MAX_BYTES:
        raise WireError(name, f"the message has more than {HELLO_MAX_BYTES} bytes")
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError(name, f"the message cannot be read: {why}") from None
