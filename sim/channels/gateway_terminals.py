"""The terminals of the local gateway: who they are, which keys they hold, and the codes that make new ones.

Written from docs/channels.md with its own HKDF and X25519, so that a slip in the box's codec does not agree with itself.
Refuses to know orders and HTTP.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

CODE_LIFE_S, CODE_TRIES = 7 * 86_400, 5
NEXT_KEYS_MAX = 4                      # agreed upon and not used yet: each lost answer to a rotation leaves one
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


class Terminal(msgspec.Struct):
    """`nexts` by the box's public key: (ours, the key); the first that is used ends the others and the old one."""

    id: str
    secret: bytes
    nexts: dict[str, tuple[str, bytes]] = msgspec.field(default_factory=dict)


class Code(msgspec.Struct):
    """`device` the public key that took it, "" while nobody did; `spent` once its terminal's key was used."""

    secret: bytes
    until_s: float
    tries: int = CODE_TRIES
    device: str = ""
    answer: dict[str, Any] | None = None
    spent: bool = False


class Terminals:
    """`now_s` Unix time; `wallets` what a fresh terminal is told to take."""

    def __init__(self, now_s: Callable[[], float], first: Terminal, *, seed: int = 0) -> None:
        self.wallets = ["wechat", "alipay", "unionpay", "ecny"]
        self._now_s, self._random = now_s, random.Random(seed)
        self._all, self._codes = {first.id: first}, {}        # type: ignore[var-annotated]

    def issue(self) -> str:
        """A fresh activation code, as a person reads it."""
        stem = "".join(self._random.choice(LETTERS) for _ in range(22))
        value = 0
        for letter in stem:
            value = value * 32 + LETTERS.index(letter)
        code = stem + LETTERS[value % 1021 // 32] + LETTERS[value % 1021 % 32]
        self._codes[code[:6]] = Code(code[6:22].encode(), self._now_s() + CODE_LIFE_S)
        return "-".join(code[n:n + 4] for n in range(0, 24, 4))

    def proven(self, terminal_id: str, text: bytes, given: str) -> Terminal | None:
        """The terminal that signed `text` for a request, by its key or by one agreed upon since."""
        terminal = self._all.get(terminal_id)
        if terminal is None:
            return None
        for _, key in list(terminal.nexts.values()):
            if same(mac(key, terminal.id, "request", text), given):
                terminal.secret, terminal.nexts = key, {}      # used once: the one before is dead, and every other
        if not same(mac(terminal.secret, terminal.id, "request", text), given):
            return None
        for code in self._codes.values():
            code.spent = code.spent or (code.answer or {}).get("terminal_id") == terminal.id
        return terminal

    def rotate(self, terminal: Terminal, theirs: str) -> str:
        """Our public key for the one that the box sent; asked again with the same, the same."""
        if theirs not in terminal.nexts:
            ours, shared = self._agreed(theirs)
            key = common(shared + terminal.secret, terminal.id, f"next {theirs} {ours}")
            terminal.nexts = dict([*terminal.nexts.items(), (theirs, (ours, key))][-NEXT_KEYS_MAX:])
        return terminal.nexts[theirs][0]

    def taken(self, code_id: str, text: bytes, given: str) -> Code | None:
        """The code whose secret signed `text`; a wrong signature costs it one of its tries."""
        code = self._codes.get(code_id)
        if code is None or code.tries < 1:
            return None
        if not same(mac(code.secret, code_id, "activate request", text), given):
            code.tries -= 1
            return None
        return code

    def activate(self, code_id: str, code: Code, device: str) -> dict[str, Any]:
        """What the bearer of `code` is told."""
        if self._now_s() >= code.until_s:
            return {"result": "expired"}
        if code.spent or code.device not in ("", device):
            return {"result": "used"}
        if code.answer is None:
            ours, shared = self._agreed(device)
            terminal_id = f"T{10_001 + len(self._all)}"
            key = common(shared + code.secret, code_id, f"terminal {terminal_id} {device} {ours}")
            self._all[terminal_id], code.device = Terminal(terminal_id, key), device
            code.answer = {"result": "activated", "terminal_id": terminal_id, "key": ours, "wallets": self.wallets}
        return code.answer

    def _agreed(self, theirs: str) -> tuple[str, bytes]:
        private = X25519PrivateKey.from_private_bytes(self._random.randbytes(32))
        shared = private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(theirs)))
        return private.public_key().public_bytes_raw().hex(), shared


def mac(secret: bytes, salt: str, purpose: str, text: bytes) -> str:
    made = HMAC(expanded(secret, salt, purpose), SHA256())
    made.update(text)
    return made.finalize().hex()


def common(known: bytes, salt: str, purpose: str) -> bytes:
    return expanded(known, salt, purpose).hex().encode()


def expanded(secret: bytes, salt: str, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, salt.encode(), b"tillbox gateway 1 " + purpose.encode()).derive(secret)


def same(right: str, given: str) -> bool:
    return bytes_eq(right.encode(), given.encode())


def fingerprint(device: str) -> str:
    """How the gateway's own page shows a device's public key."""
    value = int.from_bytes(hashlib.sha256(bytes.fromhex(device)).digest()[:5])
    text = "".join(LETTERS[value // 32 ** n % 32] for n in range(7, -1, -1))
    return f"{text[:4]}-{text[4:]}"
