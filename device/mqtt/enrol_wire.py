"""Enrolment: the one-use code, the box's request and the desk's reply, each proven by the code's secret.

A message is a line with an HMAC-SHA256 and, below it, the JSON that it covers, byte for byte.  The two directions have their own
keys, and a reply covers the digest of the request it answers: neither can be taken for the other or for that of another box.
Pure.  Refuses to know certificates, who may enrol, and how often somebody tried.  Other people's bytes raise `WireError`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Annotated, Any, Literal

import msgspec

from device.crockford import ALPHABET, as_read, check_of, grouped, of_bytes, to_bytes
from device.mqtt.wire import BoxId, Short, WireError
from device.store_forward.token import b64

SECRET_BYTES = 10                        # 80 bits
PIN_BYTES_MIN = 10                       # what a typed code holds of the CA's SHA-256; a QR holds all 32
LIFE_DAYS, TRIES = 7, 5
REQUEST_MAX_BYTES = 6 * 1024
REPLY_MAX_BYTES = 32 * 1024
ID_CHARS, SECRET_CHARS, CHECK_CHARS = 6, 16, 2
_TYPED_CHARS, _QR_CHARS = 40, 76         # id, secret, pin of 10 or 32 bytes, check
_LOOKS = str.maketrans("OILU-", "011VZ")                    # a box's name as the check sees it
_BOX = re.compile(r"[a-z0-9-]{1,32}")
_PLACE = re.compile(r"([a-z0-9.-]{1,100}|\[[0-9a-f:.]{2,45}\]):[1-9][0-9]{0,4}")

CodeId = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-HJKMNP-TV-Z]{6}\Z")]
Nonce = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{22}\Z")]
Csr = Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9_-]{64,1366}\Z")]          # DER in base64url
Pem = Annotated[str, msgspec.Meta(max_length=8192)]
Tenant = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,31}\Z")]
BoxNo = Annotated[str, msgspec.Meta(pattern=r"\A[0-9A-HJKMNP-TV-Z]{6}\Z")]


class Code(msgspec.Struct, frozen=True):
    """`box` the name that the box will have, `id` by which the desk finds the code, `secret` 10 bytes that never travel, `pin` the
    first 10 or all 32 bytes of the SHA-256 of the CA's certificate (DER).
    """

    box: str
    id: str
    secret: bytes
    pin: bytes

    def __repr__(self) -> str:
        return f"Code({self.box!r}, {self.id!r}, secret=...)"


# The code ----------------------------------------------------------------------------------------------------------

def typed(code: Code) -> str:
    """The code for a person: the box's name, a colon, ten groups of four."""
    return f"{code.box}:{grouped(_stem_checked(code, code.pin[:PIN_BYTES_MIN]))}"


def qr_text(code: Code, at: str = "") -> str:
    """The code for a camera, in the few characters that a QR packs best; `code_of` reads it too.  `at` HOST:PORT of the listener,
    for a box that scans it with its own scanner and was told of none."""
    return f"{code.box.upper()}:{_stem_checked(code, code.pin)}" + (f"/{at.upper()}" if at else "")


def place_of(text: str) -> tuple[str, str]:
    """What a scanner read as the code and the listener's HOST:PORT, "" where it names none.  ValueError for a place that is none.

    Nobody vouches for the place, and nobody needs to: a box tells nothing to a listener that is not of the CA that the code names.
    """
    code, slash, at = text.strip().partition("/")
    at = at.strip().lower()
    if slash and not _PLACE.fullmatch(at):
        raise ValueError("behind the / of an enrolment code stands HOST:PORT of the enrolment listener")
    return code, at


def code_of(text: str) -> Code:
    """The code that a person typed or a scanner read.  ValueError with a sentence that does not repeat it."""
    name, colon, rest = text.strip().partition(":")
    box, stem = name.strip().lower(), as_read(rest)
    if not colon or not _BOX.fullmatch(box):
        raise ValueError("an enrolment code begins with the name of the box and a colon")
    if len(stem) not in (_TYPED_CHARS, _QR_CHARS) or set(stem) - set(ALPHABET):
        raise ValueError(f"behind the colon an enrolment code has {_TYPED_CHARS} digits and letters in groups of four, this one "
                         f"{len(stem)}")
    mistyped = ValueError("the code is mistyped: read it again, character by character, the name of the box too")
    if stem[-CHECK_CHARS:] != _check(box, stem[:-CHECK_CHARS]):
        raise mistyped
    try:
        secret, pin = to_bytes(stem[ID_CHARS:ID_CHARS + SECRET_CHARS]), to_bytes(stem[ID_CHARS + SECRET_CHARS:-CHECK_CHARS])
    except ValueError:
        raise mistyped from None
    return Code(box, stem[:ID_CHARS], secret, pin)


def _stem_checked(code: Code, pin: bytes) -> str:
    assert len(code.id) == ID_CHARS and len(code.secret) == SECRET_BYTES and len(pin) in (PIN_BYTES_MIN, 32), code
    stem = code.id + of_bytes(code.secret) + of_bytes(pin)
    return stem + _check(code.box, stem)


def _check(box: str, stem: str) -> str:
    return check_of(box.upper().translate(_LOOKS) + stem)


# Request and reply -------------------------------------------------------------------------------------------------

class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A box asks under the code `id` for certificates of its three keys, each request signed by its key."""

    v: Literal[1]
    id: CodeId
    box: BoxId
    nonce: Nonce
    tls_csr: Csr
    record_csr: Csr
    encryption_csr: Csr
    software: Short = ""


class Keys(msgspec.Struct, frozen=True):
    """The cloud's public keys, JWKs by what they sign."""

    ack: Annotated[tuple[dict[str, str], ...], msgspec.Meta(min_length=1, max_length=8)]
    config: Annotated[tuple[dict[str, str], ...], msgspec.Meta(max_length=8)] = ()
    command: Annotated[tuple[dict[str, str], ...], msgspec.Meta(max_length=8)] = ()
    console: Annotated[tuple[dict[str, str], ...], msgspec.Meta(max_length=8)] = ()


class Identity(msgspec.Struct, frozen=True):
    """Who a box is: its names, the certificates (PEM; `tls` with its chain), where its broker is, the cloud's keys."""

    tenant: Tenant
    box: BoxId
    box_no: BoxNo
    tls: Pem
    record: Pem
    encryption: Pem
    ca: Pem
    host: Annotated[str, msgspec.Meta(max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)]
    keys: Keys


Result = Literal["enrolled", "used", "expired", "over", "wrong", "refused"]


class Reply(msgspec.Struct, frozen=True):
    """What became of a request; `identity` with `enrolled`, `why` with `refused`; `at` the desk's time, RFC 3339."""

    v: Literal[1]
    id: CodeId
    result: Result
    at: Annotated[str, msgspec.Meta(max_length=40)]
    identity: Identity | None = None
    why: Short = ""


def request_encoded(request: Request, secret: bytes) -> bytes:
    body = msgspec.json.encode(request)
    return _mac(secret, b"request", body) + b"\n" + body + b"\n"


def request_decoded(raw: bytes) -> Request:
    """What somebody says who may not know the secret: see `request_holds`.  WireError ENROL_SHAPE."""
    return _shaped(_split(raw, REQUEST_MAX_BYTES)[1], Request)


def request_holds(raw: bytes, secret: bytes) -> bool:
    """Whether whoever made `raw` knows `secret`.  Takes as long for any wrong proof."""
    mac, body = _split(raw, REQUEST_MAX_BYTES)
    return hmac.compare_digest(mac, _mac(secret, b"request", body))


def reply_encoded(reply: Reply, request: bytes, secret: bytes) -> bytes:
    """The proven answer to the bytes of a request."""
    body = msgspec.json.encode(reply)
    return _mac(secret, b"reply", _digest(request) + body) + b"\n" + body + b"\n"


def unproven(reply: Reply) -> bytes:
    """An answer to somebody who shares no secret with us: it can only say that."""
    assert reply.identity is None, "an identity leaves only under proof"
    return b"-\n" + msgspec.json.encode(reply) + b"\n"


def reply_decoded(raw: bytes, request: bytes, secret: bytes) -> tuple[Reply, bool]:
    """The reply to our `request`, and whether it is proven; an unproven one says nothing but a refusal.

    WireError: ENROL_SHAPE, ENROL_PROOF (of another code, another request, or forged).
    """
    mac, body = _split(raw, REPLY_MAX_BYTES)
    proven = mac != b"-"
    if proven and not hmac.compare_digest(mac, _mac(secret, b"reply", _digest(request) + body)):
        raise WireError("ENROL_PROOF", "the reply is not proven by this code, or answers another request")
    reply = _shaped(body, Reply)
    if (reply.result == "enrolled") != (reply.identity is not None) or (not proven and reply.identity is not None):
        raise WireError("ENROL_SHAPE", "the reply's word and what comes with it do not fit")
    return reply, proven


def _mac(secret: bytes, way: bytes, body: bytes) -> bytes:
    assert len(secret) == SECRET_BYTES, "not the secret of a code"
    key = hmac.digest(secret, b"tillbox enrol 1 " + way, "sha256")
    return b64(hmac.digest(key, body, "sha256")).encode()


def _digest(request: bytes) -> bytes:
    return hashlib.sha256(b"\n".join(_split(request, REQUEST_MAX_BYTES))).digest()


def _split(raw: bytes, bytes_max: int) -> tuple[bytes, bytes]:
    """The proof and what it covers; white space around them, as an editor leaves it, does not count."""
    if len(raw) > bytes_max:
        raise WireError("ENROL_SHAPE", f"the message has {len(raw)} bytes, more than {bytes_max}")
    mac, newline, body = raw.strip().partition(b"\n")
    mac = mac.strip()
    if not newline or len(mac) > 43:
        raise WireError("ENROL_SHAPE", "the message is no line of proof with a document below it")
    return mac, body.strip()


def _shaped(body: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError("ENROL_SHAPE", f"the document says something unknown: {why}") from None
