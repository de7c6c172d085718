"""The gateway's proofs and how its keys come about, as bytes: texts to sign, activation, rotation.

Pure.  The protocol stands byte by byte in docs/channels.md.  Refuses to know orders, and how two public keys of X25519 make
a common secret.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from device.crockford import ALPHABET, as_read, check_of, digits
from device.drivers.channels.codec_bytes import Reply, Request
from device.drivers.channels.terminal_bytes import terminal_ok

WALLETS = ("wechat", "alipay", "unionpay", "ecny")
ID_CHARS, CODE_CHARS = 6, 24                 # of a code: its id, 16 secret characters (80 bits), two to check
_HEX = frozenset("0123456789abcdef")


class Code(msgspec.Struct, frozen=True):
    """An activation code: `id` names it, `secret` never travels."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Code({self.id!r}, secret=...)"


class Activated(msgspec.Struct, frozen=True):
    """What the gateway says of a fresh terminal: its id, its own public key, the wallets it takes."""

    terminal_id: str
    theirs: bytes
    wallets: tuple[str, ...]


class _Rotated(msgspec.Struct):
    key: str


class _Activated(msgspec.Struct):
    result: str
    terminal_id: str = ""
    key: str = ""
    wallets: list[str] = []


_REFUSALS = {"used": "this code was used before, by another box or by this one, which has sold since: ask for a fresh one",
             "expired": "this code is too old: ask for a fresh one"}


# Proofs

def derived(secret: bytes, salt: str, purpose: str) -> bytes:
    """32 bytes of `secret` for one purpose.  Source: RFC 5869, HKDF with SHA-256, one block."""
    first = hmac.digest(salt.encode(), secret, "sha256")
    return hmac.digest(first, f"tillbox gateway 1 {purpose}".encode() + b"\x01", "sha256")


def request_text(request: Request, at_s: int, nonce: str) -> bytes:
    """What a request's signature covers."""
    return f"{request.method}\n{request.path}\n{at_s}\n{nonce}\n".encode() + request.body


def reply_text(status: int, nonce: str, body: bytes) -> bytes:
    """What a reply's signature covers; `nonce` is the request's."""
    return f"{status}\n{nonce}\n".encode() + body


def signature(key: bytes, text: bytes) -> str:
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def sealed(request: Request, who: dict[str, str], key: bytes, at_s: int, nonce: str) -> Request:
    """`request` with the headers that prove `who`, one header of their name, by `key`."""
    return Request(request.method, request.path, request.body, {
        "Content-Type": "application/json", **who, "Tillbox-Time": str(at_s), "Tillbox-Nonce": nonce,
        "Tillbox-Signature": signature(key, request_text(request, at_s, nonce))})


def proof_fault(reply: Reply, nonce: str, secret: bytes, salt: str, purpose: str) -> str:
    """What is wrong with the proof of `reply`, "" for nothing; without a `secret` it answers no question of ours."""
    given = reply.headers.get("tillbox-signature", "")
    if not given:
        return "the reply carries no signature"
    if not secret:
        return "the reply answers no question under way"
    right = signature(derived(secret, salt, purpose), reply_text(reply.status, nonce, reply.body))
    return "" if hmac.compare_digest(right.encode(), given.encode()) else "the reply's signature is wrong"


# Keys

def common_key(shared: bytes, known: bytes, salt: str, purpose: str, ours: bytes, theirs: bytes) -> bytes:
    """A terminal's key, which never travels: 64 hex digits as ASCII.

    `shared` what X25519 makes of the box's public key `ours` and the gateway's `theirs`; `known` the secret that both sides
    had before, so that the new key is never weaker than the one it replaces.
    """
    return derived(shared + known, salt, f"{purpose} {ours.hex()} {theirs.hex()}").hex().encode()


def rotate_call(ours: bytes) -> Request:
    """Ask for the next key; `ours` a fresh public key, 32 bytes."""
    return Request("POST", "/v1/rotate", msgspec.json.encode({"key": ours.hex()}))


def rotated(body: bytes) -> bytes:
    """The gateway's public key in a proven reply to `rotate`, 32 bytes; b"" when there is none."""
    try:
        return _public(msgspec.json.decode(body, type=_Rotated).key)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return b""


# Activation

def code_of(text: str) -> Code:
    """The code that a person typed or scanned.  ValueError with a sentence that does not repeat it."""
    code = as_read(text)
    if len(code) != CODE_CHARS or set(code) - set(ALPHABET):
        raise ValueError(f"an activation code has {CODE_CHARS} digits and letters, in groups of four")
    if check_of(code[:-2]) != code[-2:]:
        raise ValueError("the code is mistyped: read it again, character by character")
    return Code(code[:ID_CHARS], code[ID_CHARS:-2].encode())


def fingerprint(public: bytes) -> str:
    """Eight characters by which two people compare a device's public key: 40 bits of its SHA-256."""
    text = digits(int.from_bytes(hashlib.sha256(public).digest()[:5]), 8)
    return f"{text[:4]}-{text[4:]}"


def activate_call(ours: bytes, box: str) -> Request:
    """Ask for a terminal; `ours` the public key of this device, `box` its name for the gateway's people."""
    return Request("POST", "/v1/activate", msgspec.json.encode({"device": ours.hex(), "box": box}))


def activated(body: bytes) -> Activated:
    """What a proven reply to `activate` says.  ValueError with a sentence when the gateway refuses, or says something else."""
    try:
        said = msgspec.json.decode(body, type=_Activated)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise ValueError("the gateway's reply is not in its own form") from None
    if said.result in _REFUSALS:
        raise ValueError(_REFUSALS[said.result])
    theirs = _public(said.key)
    if said.result != "activated" or not terminal_ok(said.terminal_id) or not theirs:
        raise ValueError("the gateway says a word we do not know here")
    return Activated(said.terminal_id, theirs, tuple(name for name in WALLETS if name in said.wallets))


def _public(text: str) -> bytes:
    return bytes.fromhex(text) if len(text) == 64 and not set(text) - _HEX else b""
