"""What opens the encrypted folder of the data partition: the mark in the card's gap, and the kernel's structs for fscrypt.

A mark is one sector, written twice: `TILLKEY1`, the kind (8 bytes), the id of the key (16), the key itself (32; zeros where
hardware keeps it), the SHA-256 of all that, zeros to the end.  It also says that this card was set up once: without it, and
without a file system, a card is fresh, and only then is a file system made.  Pure.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from typing import NamedTuple

SECTOR_BYTES = 512
KEY_BYTES = 32
MAGIC = b"TILLKEY1"
CARD, OTP, TPM = "card", "otp", "tpm"
KINDS = (CARD, OTP, TPM)
_HEAD = struct.Struct("<8s8s16s32s")

# linux/fscrypt.h
SET_POLICY, ADD_KEY, GET_POLICY = 0x800C6613, 0xC0506617, 0xC0096616
_AES_256_XTS, _AES_256_CTS, _PAD_32, _BY_IDENTIFIER = 1, 4, 3, 2
_ADD = struct.Struct("<II16s16xII32x")                  # specifier (type, reserved, identifier in 32 bytes), raw size, key id
IDENTIFIER_BYTES = 16

# Raspberry Pi's mailbox: the customer's eight rows of one-time memory.
VCIO_PROPERTY = 0xC0086400                              # _IOWR(100, 0, char *) on a 64-bit kernel
_OTP_ROWS = 8
_OTP = struct.Struct(f"<IIIIIII{_OTP_ROWS}II")
_GET_OTP, _DONE = 0x00030021, 0x80000000


class Mark(NamedTuple):
    """`kind` one of KINDS, `id` of the key (16 bytes), `key` empty where hardware keeps it."""

    kind: str
    id: bytes
    key: bytes = b""

    def __repr__(self) -> str:
        return f"Mark({self.kind!r}, {self.id.hex()})"


def mark_encoded(mark: Mark) -> bytes:
    """One sector."""
    assert mark.kind in KINDS and len(mark.id) == 16 and len(mark.key) in (0, KEY_BYTES), mark
    head = _HEAD.pack(MAGIC, mark.kind.encode(), mark.id, mark.key)
    return (head + hashlib.sha256(head).digest()).ljust(SECTOR_BYTES, b"\0")


def mark_decoded(sectors: bytes) -> Mark | None:
    """The first of the copies that holds; None where none does."""
    for at in range(0, len(sectors), SECTOR_BYTES):
        head, digest = sectors[at:at + _HEAD.size], sectors[at + _HEAD.size:at + _HEAD.size + 32]
        if len(head) < _HEAD.size or hashlib.sha256(head).digest() != digest:
            continue
        magic, kind, its_id, key = _HEAD.unpack(head)
        word = kind.rstrip(b"\0").decode("ascii", "replace")
        if magic == MAGIC and word in KINDS:
            return Mark(word, its_id, key if word == CARD else b"")
    return None


# What is made of the one key ------------------------------------------------------------------------------------------

def key_id(key: bytes) -> bytes:
    """Names a key, and tells nothing of it."""
    return _derived(key, "id")[:16]


def folder_key(key: bytes) -> bytes:
    """64 bytes for fscrypt."""
    return _derived(key, "folder", "sha512")


def sealing_key(key: bytes) -> bytes:
    """The key that channel keys are sealed with, as `device.keys.sealed` reads it."""
    return base64.urlsafe_b64encode(_derived(key, "seal")).rstrip(b"=")


def _derived(key: bytes, use: str, digest: str = "sha256") -> bytes:
    return hmac.new(key, f"tillbox card 1 {use}".encode(), digest).digest()


# The kernel's structs -------------------------------------------------------------------------------------------------

def key_to_add(key: bytes) -> bytes:
    """For ADD_KEY: `struct fscrypt_add_key_arg` with the raw key behind it."""
    return _ADD.pack(_BY_IDENTIFIER, 0, b"", len(key), 0) + key


def identifier_added(answer: bytes) -> bytes:
    """The kernel's identifier of the key, from what ADD_KEY wrote back."""
    return _ADD.unpack(answer[:_ADD.size])[2]


def policy(identifier: bytes) -> bytes:
    """For SET_POLICY: `struct fscrypt_policy_v2`, AES-256-XTS for content, AES-256-CTS for names."""
    return struct.pack("<BBBB4x16s", 2, _AES_256_XTS, _AES_256_CTS, _PAD_32, identifier)


POLICY_ROOM = struct.pack("<Q24x", 24)                  # for GET_POLICY: how much may be written back


def identifier_of(answer: bytes) -> bytes:
    """The identifier in what GET_POLICY wrote back; b"" of a policy that is not ours."""
    body = answer[8:32]
    return body[8:24] if body[:1] == b"\x02" else b""


def otp_asked() -> bytes:
    """The mailbox message that asks for the customer's rows."""
    return _OTP.pack(_OTP.size, 0, _GET_OTP, 8 + 4 * _OTP_ROWS, 0, 0, _OTP_ROWS, *[0] * _OTP_ROWS, 0)


def otp_answered(message: bytes) -> bytes:
    """The 32 bytes in the rows; b"" when the firmware did not say, or the rows were never written."""
    words = _OTP.unpack(message[:_OTP.size])
    rows = words[7:7 + _OTP_ROWS]
    return struct.pack(f"<{_OTP_ROWS}I", *rows) if words[1] == _DONE and any(rows) else b""
