"""An update between cloud and box: the signed manifest of a release, the index of its slot image, and what a box reports.

Knows shapes, bounds, the signature and how an index names pieces; refuses to know slots, boot loaders, and when a release is
started.  A manifest's size is looked at before its signature, its signature before its JSON: other people's bytes raise
`WireError`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from device.mqtt.config_wire import CHUNK_BYTES, WANT_RANGES_MAX, Digest, Moment, Number, Range, Sha256
from device.mqtt.wire import Short, WireError, jws_decoded, jws_encoded

UPDATE_TYP: Final = "till-update+jws"
MANIFEST_MAX_BYTES = CHUNK_BYTES         # it travels as a blob of one chunk
INDEX_MAX_BYTES = 2 * 1024 * 1024
SLOT_MAX_BYTES = 2 * 1024 * 1024 * 1024
PIECE_MAX_BYTES = CHUNK_BYTES
MARK_BYTES = 16                          # of a piece's SHA-256 that an index keeps: the whole image's is checked at the end
BASES_MAX = 16
REPORTED_MAX_BYTES = 16 * 1024

HEAD = b"till-index 1\n"
_ENTRY = 2 + MARK_BYTES

Verifiers = Mapping[str, Callable[[bytes, bytes], bool]]
Sign = Callable[[bytes], bytes]
Version = Annotated[str, msgspec.Meta(pattern=r"\A[0-9][0-9A-Za-z.+~-]{0,39}\Z")]
AnyVersion = Annotated[str, msgspec.Meta(pattern=r"\A([0-9][0-9A-Za-z.+~-]{0,39})?\Z")]
Board = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9-]{1,32}\Z")]
Ratchet = Annotated[int, msgspec.Meta(ge=0, le=999_999_999)]
IndexBytes = Annotated[int, msgspec.Meta(ge=len(HEAD) + _ENTRY, le=INDEX_MAX_BYTES)]
State = Literal["", "fetching", "ready", "trial", "active", "rolled_back", "refused", "stopped"]


# What is signed --------------------------------------------------------------------------------------------------------------

class Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The index of an earlier release: a box that runs it copies what it has already."""

    version: Version
    index: Sha256
    bytes: IndexBytes


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One release.  `sha256` and `bytes` are the slot image's, `index` the blob that names its pieces.

    `ratchet` never falls on a box: what has a lower one than a box ever kept is refused there.  `min_version` of what runs, ""
    for any; `not_before` RFC 3339, "" for at once, judged only under a clock that somebody else has proven.
    """

    version: Version
    ratchet: Ratchet
    boards: Annotated[tuple[Board, ...], msgspec.Meta(min_length=1, max_length=16)]
    sha256: Sha256
    bytes: Annotated[int, msgspec.Meta(ge=1, le=SLOT_MAX_BYTES)]
    index: Sha256
    index_bytes: IndexBytes
    bases: Annotated[tuple[Base, ...], msgspec.Meta(max_length=BASES_MAX)] = ()
    min_version: AnyVersion = ""
    not_before: Moment = ""
    notes: Annotated[str, msgspec.Meta(max_length=2000)] = ""

    def base(self, version: str) -> Base | None:
        return next((base for base in self.bases if base.version == version), None)


def manifest_encoded(manifest: Manifest, kid: str, sign: Sign) -> bytes:
    """The manifest as it is kept and sent, byte for byte.  WireError UPDATE_PAYLOAD for one that no box would read."""
    payload = msgspec.json.encode(manifest)
    _manifest(payload)
    token = jws_encoded(UPDATE_TYP, payload, kid, sign)
    if len(token) > MANIFEST_MAX_BYTES:
        raise WireError("UPDATE_SHAPE", f"the manifest has {len(token)} bytes, more than {MANIFEST_MAX_BYTES}")
    return token


def manifest_decoded(raw: bytes, verifiers: Verifiers) -> Manifest:
    """The manifest in `raw` if an update key signed it.  Raises WireError: UPDATE_SHAPE, UPDATE_KEY, UPDATE_SIGNATURE,
    UPDATE_PAYLOAD."""
    return _manifest(jws_decoded(raw, UPDATE_TYP, verifiers, "UPDATE", MANIFEST_MAX_BYTES))


def _manifest(payload: bytes) -> Manifest:
    try:
        return msgspec.json.decode(payload, type=Manifest, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError("UPDATE_PAYLOAD", f"the manifest cannot be read: {str(why)[:300]}") from None


def release_of(version: str) -> tuple[int, ...]:
    """What of a version rises: "0.12.3-rc1" is (0, 12, 3)."""
    return tuple(int(digits) for digits in re.findall(r"[0-9]{1,9}", version)[:3])


def command_of(args: str) -> tuple[str, int, str] | None:
    """(digest of the manifest, its bytes, when) of the words of an `update` command; None for its other words."""
    words = args.split()
    return (words[0], int(words[1]), words[2] if len(words) > 2 else "quiet") if len(words) > 1 else None


# Pieces ----------------------------------------------------------------------------------------------------------------------

class Piece(NamedTuple):
    """`mark`: the first MARK_BYTES of its SHA-256."""

    at: int
    size: int
    mark: bytes


def mark_of(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:MARK_BYTES]


def index_encoded(sizes: Sequence[int], marks: Sequence[bytes]) -> bytes:
    """The index of an image that is cut into pieces of those sizes, 1 to PIECE_MAX_BYTES each."""
    return HEAD + b"".join((size - 1).to_bytes(2, "big") + mark for size, mark in zip(sizes, marks, strict=True))


def index_decoded(data: bytes, size: int | None) -> list[Piece]:
    """The pieces, in order; they make up `size` bytes.  Raises WireError UPDATE_INDEX."""
    body = memoryview(data)[len(HEAD):]
    if data[:len(HEAD)] != HEAD or not body or len(body) % _ENTRY or len(data) > INDEX_MAX_BYTES:
        raise WireError("UPDATE_INDEX", "the index of the slot image cannot be read")
    pieces, at = [], 0
    for n in range(0, len(body), _ENTRY):
        length = int.from_bytes(body[n:n + 2], "big") + 1
        pieces.append(Piece(at, length, bytes(body[n + 2:n + _ENTRY])))
        at += length
    if size is not None and at != size or max(piece.size for piece in pieces) > PIECE_MAX_BYTES:
        raise WireError("UPDATE_INDEX", f"the index names {at} bytes, the manifest {size}, or a piece is too long")
    return pieces


# A report --------------------------------------------------------------------------------------------------------------------

class UpdateReported(msgspec.Struct, frozen=True):
    """What a box runs and what became of the newest release that it was told of, retained.

    `release` is the digest of that manifest, `version` its name; `runs`, `ratchet`, `slot` what runs, `other` the version in the
    other slot, "" when nothing there would boot.  `have` of `bytes` are in the other slot; `want` chunks it lacks, by blob:
    (first, last) from 0, of a slot image pieces as its index counts them.  `at` wall time, `clk` its quality.
    """

    state: State
    release: Digest = ""
    version: AnyVersion = ""
    why: Short = ""
    runs: AnyVersion = ""
    ratchet: Ratchet = 0
    slot: Annotated[str, msgspec.Meta(max_length=8)] = ""
    other: AnyVersion = ""
    have: Number = 0
    bytes: Number = 0
    want: Annotated[dict[Sha256, Annotated[tuple[Range, ...], msgspec.Meta(max_length=WANT_RANGES_MAX)]],
                    msgspec.Meta(max_length=4)] = {}
    at: Annotated[str, msgspec.Meta(max_length=40)] = ""
    clk: Annotated[str, msgspec.Meta(max_length=16)] = "unset"


def reported_encoded(reported: UpdateReported) -> bytes:
    return msgspec.json.encode(reported)


def reported_decoded(raw: bytes) -> UpdateReported:
    """Raises WireError UPDATE_REPORTED."""
    if len(raw) > REPORTED_MAX_BYTES:
        raise WireError("UPDATE_REPORTED", f"the report has more than {REPORTED_MAX_BYTES} bytes")
    try:
        told = msgspec.json.decode(raw, type=UpdateReported)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise WireError("UPDATE_REPORTED", f"the report cannot be read: {why}") from None
    if any(last < first for ranges in told.want.values() for first, last in ranges):
        raise WireError("UPDATE_REPORTED", "a wanted range ends before it begins")
    return told
