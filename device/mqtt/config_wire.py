"""Configuration between cloud and box: the signed document that is pushed, and what a box reports of it.  Bytes in, values out.

Knows shapes, bounds and the signature; refuses to know keys of the configuration (`device/config_keys.py`), what is sensible, and
when a document is applied.  A document's size is looked at before its signature, its signature before its depth, its depth
before it is parsed: other people's bytes raise `WireError`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from device.mqtt.wire import BoxId, Short, WireError, jws_decoded, jws_encoded

CONFIG_TYP: Final = "till-config+jws"
CONFIG_MAX_BYTES = 64 * 1024             # the whole token; what is longer travels as a blob
REPORTED_MAX_BYTES = 32 * 1024
DEPTH_MAX = 8
CHUNK_BYTES = 32 * 1024
BLOB_MAX_BYTES = 16 * 1024 * 1024
REASONS_MAX = 40
WANT_RANGES_MAX = 64

Verifiers = Mapping[str, Callable[[bytes, bytes], bool]]
Sign = Callable[[bytes], bytes]

Number = Annotated[int, msgspec.Meta(ge=0, le=999_999_999_999_999)]
Version = Annotated[int, msgspec.Meta(ge=1, le=999_999_999_999_999)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Moment = Annotated[str, msgspec.Meta(
    pattern=r"\A([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2}))?\Z")]
Origin = Annotated[str, msgspec.Meta(pattern=r"\A(group:[A-Za-z0-9_.-]{1,64}|box)\Z")]
BlobName = Annotated[str, msgspec.Meta(pattern=r"\A(prices|rules|picture/[a-z0-9-]{1,32})\Z")]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
State = Literal["active", "staged", "trial", "rolled_back", "deferred", "refused"]


# What is pushed ------------------------------------------------------------------------------------------------------

class Delta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shorter way to a blob for a box that still holds the blob `base`: itself a blob, in the form of `delta_wire`."""

    base: Sha256
    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(ge=1, le=BLOB_MAX_BYTES)]


class Blob(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What chunks on `blob/{sha256}/{n}` add up to.  All chunks but the last have CHUNK_BYTES."""

    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(ge=1, le=BLOB_MAX_BYTES)]
    deltas: Annotated[tuple[Delta, ...], msgspec.Meta(max_length=8)] = ()


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`set` is laid over box.toml: the same sections and keys, only what differs; tables merge, lists replace.

    A secret in it is `{"jwe": TOKEN}` (`jwe_wire`), never plain.  `origin` says of a dotted key ("printer.columns") which layer
    of the cloud gave it.  `payee_change` must be true when the money would go elsewhere than before.
    """

    set: dict[str, Any] = {}
    blobs: Annotated[dict[BlobName, Blob], msgspec.Meta(max_length=64)] = {}
    origin: Annotated[dict[Annotated[str, msgspec.Meta(max_length=100)], Origin], msgspec.Meta(max_length=1000)] = {}
    payee_change: bool = False


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One version for one box.  (epoch, version) must rise; `not_before` and `expires` RFC 3339, "" for none."""

    epoch: Number
    version: Version
    box: BoxId
    not_before: Moment = ""
    expires: Moment = ""
    body: Body = Body()

    @property
    def place(self) -> tuple[int, int]:
        """What must rise from document to document."""
        return self.epoch, self.version


def config_encoded(desired: Desired, kid: str, sign: Sign) -> bytes:
    """The document as it is kept and sent, byte for byte.  WireError CONFIG_PAYLOAD for one that no box would read."""
    payload = msgspec.json.encode(desired)
    token = jws_encoded(CONFIG_TYP, payload, kid, sign)
    if len(token) > CONFIG_MAX_BYTES:
        raise WireError("CONFIG_SHAPE", f"the document has {len(token)} bytes, more than {CONFIG_MAX_BYTES}")
    document_decoded(payload)
    return token


def config_decoded(raw: bytes, verifiers: Verifiers) -> Desired:
    """The document in `raw` if one of our cloud's configuration keys signed it.

    Raises WireError: CONFIG_SHAPE, CONFIG_KEY, CONFIG_SIGNATURE, CONFIG_PAYLOAD.
    """
    return document_decoded(jws_decoded(raw, CONFIG_TYP, verifiers, "CONFIG", CONFIG_MAX_BYTES))


def document_decoded(payload: bytes) -> Desired:
    """The document in the payload of a token whose signature holds.  Raises WireError CONFIG_PAYLOAD."""
    try:
        desired = msgspec.convert(_plain(payload), type=Desired)
    except (msgspec.ValidationError, ValueError, RecursionError) as why:
        raise WireError("CONFIG_PAYLOAD", f"the configuration cannot be read: {str(why)[:300]}") from None
    return desired


def digest_of(token: bytes) -> str:
    """How reports and records name a document: hex SHA-256 of the token, "" of none."""
    return hashlib.sha256(token).hexdigest() if token else ""


def chunks_of(size: int) -> int:
    return -(-size // CHUNK_BYTES)


# A report ------------------------------------------------------------------------------------------------------------

class Standing(msgspec.Struct, frozen=True):
    """A document by name; version 0 is box.toml alone."""

    epoch: Number = 0
    version: Number = 0
    digest: Digest = ""


Range = tuple[Number, Number]


class Reported(msgspec.Struct, frozen=True):
    """What became of the newest document, retained.

    `reasons` each fault of a refused one; `active` what the box runs with; `want` chunks it lacks, by blob: (first, last) from 0;
    `refused` how many documents it has refused since it was set up; `at` wall time, `clk` its quality.
    """

    epoch: Number
    version: Number
    digest: Digest
    state: State
    why: Short = ""
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    clk: Annotated[str, msgspec.Meta(max_length=16)] = "unset"
    reasons: Annotated[tuple[Short, ...], msgspec.Meta(max_length=REASONS_MAX)] = ()
    active: Standing = Standing()
    want: Annotated[dict[Sha256, Annotated[tuple[Range, ...], msgspec.Meta(max_length=WANT_RANGES_MAX)]],
                    msgspec.Meta(max_length=64)] = {}
    refused: Number = 0


def reported_encoded(reported: Reported) -> bytes:
    return msgspec.json.encode(reported)


def reported_decoded(raw: bytes) -> Reported:
    """Raises WireError REPORTED."""
    if len(raw) > REPORTED_MAX_BYTES:
        raise WireError("REPORTED", f"the report has more than {REPORTED_MAX_BYTES} bytes")
    try:
        reported = msgspec.json.decode(raw, type=Reported)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError("REPORTED", f"the report cannot be read: {why}") from None
    if any(last < first for ranges in reported.want.values() for first, last in ranges):
        raise WireError("REPORTED", "a wanted range ends before it begins")
    return reported


# JSON without its traps ----------------------------------------------------------------------------------------------

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(rb"[-+.0-9A-Za-z]+")
_INT = re.compile(rb"-?[0-9]{1,15}")


def _plain(payload: bytes) -> Any:
    # Every decoder at hand takes the last of two equal keys, and json takes NaN, 1e400 and lone surrogates.
    bare = _STRING.sub(b'""', payload)
    depth = 0
    for byte in re.findall(rb"[][{}]", bare):
        depth += 1 if byte in b"[{" else -1
        if depth > DEPTH_MAX:
            raise ValueError(f"it is nested more than {DEPTH_MAX} deep")
    for word in _NUMBER.findall(bare):
        if word not in (b"true", b"false", b"null") and not _INT.fullmatch(word):
            raise ValueError("a number in it is not whole, or has more than 15 digits")
    data = json.loads(payload.decode("utf-8"), object_pairs_hook=_once)
    json.dumps(data, ensure_ascii=False).encode("utf-8")       # a lone surrogate has no bytes
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key stands in it twice")
    return table
