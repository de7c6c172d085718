"""Frames of the card terminal's line: STX, length, body, ETX, LRC, answered by ACK or NAK.  Byte by byte: docs/channels.md.

Pure.  Knows where a frame begins and ends, whose secret seals it, and that no card number passes: what could be one is
masked here, before anything else of the box sees it.  Refuses to know what a message means.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection
from functools import reduce

import msgspec

STX, ETX, ACK, NAK = b"\x02", b"\x03", b"\x06", b"\x15"
FS = "\x1c"                    # between the parts of a body
BODY_BYTES_MAX = 512
SEAL_CHARS = 16
CARD_DIGITS_MIN = 12           # ISO/IEC 7812: the shortest numbers in service have twelve
CALLS = re.compile(r"[A-Z]{2}|[a-z]{2}")
ID = re.compile(r"[0-9a-f]{8}")
PART = re.compile(r"([A-Z]{2})([\x20-\x7e]*)")
DIGITS = re.compile(r"[0-9](?:[^0-9A-Za-z]*[0-9])*")
MARKS = re.compile(rb"[\x02\x06\x15]")


class Message(msgspec.Struct, frozen=True):
    """A body taken apart: `call` two letters, `id` of the request it belongs to, `parts` by their two-letter tags.

    `unmasked`: it carried what could be a card number; that stands here as asterisks.
    """

    call: str
    id: str
    parts: dict[str, str]
    unmasked: bool = False


class Heard(msgspec.Struct, frozen=True):
    """One thing on the line: `kind` is `ack`, `nak`, `frame` with its `body`, or `noise` that was meant as a frame."""

    kind: str
    body: bytes = b""


class Frames:
    """Bytes in, what stands on the line out.  Never raises; bytes that are nothing are passed over.

    `open` while a frame has begun and not ended: after a silence `quiet()` gives it up and reads on inside it, for a frame
    that lost its end would swallow the next one.
    """

    def __init__(self) -> None:
        self._data = b""

    @property
    def open(self) -> bool:
        return bool(self._data)

    def feed(self, data: bytes) -> list[Heard]:
        self._data += data
        return self._read(final=False)

    def quiet(self) -> list[Heard]:
        return self._read(final=True)

    def _read(self, *, final: bool) -> list[Heard]:
        heard: list[Heard] = []
        while (mark := MARKS.search(self._data)) is not None:
            self._data = self._data[mark.start():]
            if mark[0] != STX:
                heard.append(Heard("ack" if mark[0] == ACK else "nak"))
                self._data = self._data[1:]
                continue
            size = _size(self._data)
            if size is not None and (size < 0 or len(self._data) < size) and not final:
                return heard
            whole = size is not None and 0 < size <= len(self._data) and _whole(self._data[:size])
            if whole:
                assert size is not None
                heard.append(Heard("frame", self._data[3:size - 2]))
            elif not heard or heard[-1].kind != "noise":
                heard.append(Heard("noise"))          # however many bytes of it could have been a beginning
            self._data = self._data[size if whole else 1:]
        self._data = b""
        return heard


def _size(data: bytes) -> int | None:
    """Bytes of the frame that begins here, -1 while its length has not come, None when it is no length."""
    if len(data) < 3:
        return -1
    digits = data[1:3].hex()
    return int(digits) + 5 if digits.isdigit() and 0 < int(digits) <= BODY_BYTES_MAX else None


def _whole(frame: bytes) -> bool:
    return frame[-2:-1] == ETX and frame[-1] == lrc(frame[1:-1])


def framed(body: bytes) -> bytes:
    """`body` as it goes over the line.  ValueError for one of no or too many bytes."""
    if not 0 < len(body) <= BODY_BYTES_MAX:
        raise ValueError(f"a body has 1 to {BODY_BYTES_MAX} bytes")
    covered = bytes.fromhex(f"{len(body):04d}") + body + ETX
    return STX + covered + bytes([lrc(covered)])


def lrc(covered: bytes) -> int:
    """All bytes from the length to ETX, exclusive-ored."""
    return reduce(lambda one, other: one ^ other, covered, 0)


def written(call: str, ident: str, parts: dict[str, str], secret: bytes = b"") -> bytes:
    """The body of a message, sealed where there is a secret.  ValueError for a part that no body can carry."""
    for tag, value in parts.items():
        if not PART.fullmatch(tag + value) or tag == "MC":
            raise ValueError(f"{tag} cannot be written")
    text = FS.join([call, ident, *(tag + value for tag, value in parts.items())])
    return (text + (f"{FS}MC{seal(text, secret)}" if secret else "")).encode("ascii")


def seal(text: str, secret: bytes) -> str:
    """What follows MC: the first 16 hex digits of HMAC-SHA256 over everything before it, the last FS not included."""
    return hmac.digest(secret, text.encode("ascii"), "sha256").hex()[:SEAL_CHARS]


def read(body: bytes, ours: Collection[str] = (), secret: bytes = b"") -> Message | None:
    """The message in `body`, card numbers masked; None for a body that is none, or whose seal is not by `secret`.

    `ours` are numbers that the box has asked about: those alone may come back as they are, digits and all.
    """
    try:
        text = body.decode("ascii")
    except UnicodeDecodeError:
        return None
    if secret:
        text, _, mac = text.rpartition(f"{FS}MC")
        if not hmac.compare_digest(mac.encode(), seal(text, secret).encode()):
            return None
    call, ident, *rest = (*text.split(FS), "", "")[:max(2, text.count(FS) + 1)]
    if not CALLS.fullmatch(call) or not ID.fullmatch(ident):
        return None
    parts: dict[str, str] = {}
    unmasked = False
    for raw in rest:
        part = PART.fullmatch(raw)
        if part is None or part[1] in parts:
            return None
        shown = part[2] if part[2] in ours else masked(part[2])
        unmasked |= shown != part[2]
        parts[part[1]] = shown
    return Message(call, ident, parts, unmasked)


def masked(text: str) -> str:
    """`text` with every run of twelve or more digits, signs between them or not, put as asterisks."""
    return DIGITS.sub(lambda run: "*" * len(run[0]) if sum(c.isdigit() for c in run[0]) >= CARD_DIGITS_MIN else run[0], text)
