"""What the door asks of a batch before anything is kept: each record in its place, each link, the head, and no more.

Pure: bytes in, values out.  The signature of the last record covers all before it through `prev`, so one signature is checked for
a batch (by the store, which knows the keys) and every single one later, in the background (`checking.py`), together with all that
a record must say of itself.  So here the middle records are read lightly: five members of each.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

import msgspec

from device.mqtt.wire import Batch, Insides
from device.store_forward.token import EMPTY_DIGEST, Parsed, TokenError, b64, digest, parse

LOOKED_INTO = frozenset({"key", "refund", "lease"})     # kinds that already matter at the door

# The order of P-256 (FIPS 186-4, D.1.2.3): with (r, s) a signature, (r, N - s) is one too, and anybody can make it.
_N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Unreadable(Exception):
    """A batch that cannot be taken at all; nothing of it was kept.  `name` for programs, `sentence` for a person."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f"{name}: {sentence}")
        self.name, self.sentence = name, sentence


class Reading(NamedTuple):
    """A batch taken apart: for each record its `prev` and its own digest; the last one whole; those of `LOOKED_INTO` by index."""

    prevs: list[str]
    digests: list[str]
    last: Parsed
    special: dict[int, Parsed]
    proven: bool = False                             # the last one's signature holds, under a key of its box


class _Light(msgspec.Struct, gc=False):
    box: str
    jid: str
    seq: int
    prev: str
    kind: str


_light = msgspec.json.Decoder(_Light).decode
_URL_TO_PLAIN = bytes.maketrans(b"-_", b"+/")
_HEAD_CHARS = 384                        # of a payload's base64url: all members before `sum`, of a usual length


def read(box: str, batch: Batch, insides: Insides | None = None) -> Reading:
    """`insides` are those of the very same batch, where somebody has them.

    Raises Unreadable: a token's own error names, BAD_PAYLOAD, WRONG_PLACE, BROKEN_LINK, WRONG_HEAD.
    """
    prevs: list[str] = []
    digests: list[str] = []
    special: dict[int, Parsed] = {}
    seq, before = batch.first, ""
    start = f'{{"v":1,"box":"{box}","jid":"{batch.jid}","seq":'
    try:
        last = parse(batch.tokens[-1])
        for at, token in enumerate(batch.tokens):
            head = insides.payloads[at] if insides is not None else _head_of(token)
            prev, kind = _named(head, f'{start}{seq},"prev":"'.encode()) or _looked_up(box, batch.jid, seq, token)
            if at and prev != before:
                raise Unreadable("BROKEN_LINK", f"record {seq} does not name the one before it in its batch")
            before = insides.digests[at] if insides is not None else digest(token)
            prevs.append(prev)
            digests.append(before)
            if kind in LOOKED_INTO:
                special[at] = parse(token)
            seq += 1
    except TokenError as why:
        raise Unreadable(why.name, why.sentence) from None
    except ValueError as why:                        # msgspec's and base64's errors are ValueErrors
        raise Unreadable("BAD_PAYLOAD", f"record {seq} cannot be read: {why}") from None
    if batch.first == 1 and prevs[0] != EMPTY_DIGEST:
        raise Unreadable("BROKEN_LINK", "record 1 names a record before it")
    if before != batch.head:
        raise Unreadable("WRONG_HEAD", "the head of the batch is not the digest of its last record")
    return Reading(prevs, digests, last, special)


def _head_of(token: str) -> bytes:
    """The beginning of a token's payload."""
    begin = token.index(".") + 1
    part = token[begin:begin + _HEAD_CHARS]
    if "." in part:                                  # a short payload
        part = part[:part.index(".")] + "=="
    return binascii.a2b_base64(part.encode().translate(_URL_TO_PLAIN))


def _named(head: bytes, start: bytes) -> tuple[str, str] | None:
    """(prev, kind) of a payload that begins with `start`, as a box writes it; None for any other."""
    n = len(start)
    if not head.startswith(start) or head[n + 43:n + 51] != b'","at":"':
        return None
    kind = head.find(b',"kind":"', n + 51, n + 320)          # a quote inside a value stands behind a backslash
    end = head.find(b'"', kind + 9) if kind > 0 else -1
    return (head[n:n + 43].decode(), head[kind + 9:end].decode()) if end > 0 else None


def _looked_up(box: str, jid: str, seq: int, token: str) -> tuple[str, str]:
    payload = _payload(token)
    if payload.box != box or payload.jid != jid or payload.seq != seq:
        raise Unreadable("WRONG_PLACE", f"record {seq} of the batch names box {payload.box!r}, journal {payload.jid!r}, "
                                       f"number {payload.seq}")
    return payload.prev, payload.kind


def _payload(token: str) -> _Light:
    return _light(base64.urlsafe_b64decode(token[token.index(".") + 1:token.rindex(".")] + "=="))


def prev_of(token: str) -> str:
    """The `prev` of a token that `read` let pass."""
    return _payload(token).prev


def signing_input(token: str) -> str:
    """What its signature covers: two tokens with the same are the same record."""
    return token[:token.rindex(".")]


def mirrored(token: str) -> str:
    """The same record under the other signature that anybody can make of its own without the key."""
    signing, _, signature = token.rpartition(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    s = (_N - int.from_bytes(raw[32:], "big")) % _N
    return f"{signing}.{b64(raw[:32] + s.to_bytes(32, 'big'))}"
