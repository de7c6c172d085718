"""Secrets of the box, sealed: names and bytes.  Knows AES-256-GCM and what a sealed file is bound to; no file and no clock.

A sealed file opens under its own name only: channel, account, holder, kind and version are part of what is authenticated, so
that one account's key cannot be put in another's place.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from urllib.parse import quote, unquote

import msgspec

from device.types import Account

MAGIC = b"TBS1"
ID_BYTES, NONCE_BYTES, TAG_BYTES = 8, 12, 16
SEAL_KEY = re.compile(rb"[!-~]{43,256}")         # 256 bits take 43 characters of base64, 64 of hex
TAIL = ".sealed"

# What names an account at its channel: a key belongs to it, whatever the box calls the account.
HOLDER = {"wechat": "mchid", "alipay": "appid", "unionpay": "mchid", "gateway": "terminal_id",
          "card": "terminal_id"}
# Which secrets a channel may have sealed here, in the words of box.toml.
KINDS = {"wechat": ("private_key", "secret", "client_cert", "api_v3_key"), "alipay": ("private_key", "secret"),
         "unionpay": ("private_key",), "gateway": ("terminal_key",), "card": ("secret",)}
ACCOUNT = "account"                              # not a key: what box.toml said of an account, for when it says it no more


def holder_of(account: Account) -> str:
    """Merchant number, application or terminal: whose keys an account's requests need; "" where it names none."""
    return dict(account.fields).get(HOLDER.get(account.channel, ""), "")


def whose(account: Account) -> str:
    """The account as a person writes it: `wechat/main/1900000001`."""
    return f"{account.channel}/{account.account}/{holder_of(account)}"


class Name(msgspec.Struct, frozen=True, order=True):
    """One sealed secret.  `account` is the box's word for it, `holder` the channel's; versions rise from 1."""

    channel: str
    account: str
    holder: str
    kind: str
    version: int = 1

    @property
    def whose(self) -> str:
        """As the function of that name, of an account."""
        return f"{self.channel}/{self.account}/{self.holder}"

    @property
    def file(self) -> str:
        """Its file's name; `named` reads it back."""
        return ",".join(quote(part, safe="") for part in (*self._parts(), str(self.version))) + TAIL

    @property
    def bound(self) -> bytes:
        """What the seal covers besides the secret; no two names give the same."""
        return b"tillbox sealed 1 " + msgspec.json.encode((*self._parts(), self.version))

    def _parts(self) -> tuple[str, str, str, str]:
        return self.channel, self.account, self.holder, self.kind


def named(file: str) -> Name | None:
    """The name behind a file's name, None for a file that is not ours."""
    parts = [unquote(part) for part in file.removesuffix(TAIL).split(",")]
    if len(parts) != 5 or not parts[4].isdecimal():
        return None
    channel, account, holder, kind, version = parts
    name = Name(channel, account, holder, kind, int(version))
    return name if name.file == file else None


class Held(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is sealed.  `serial` the certificate's, where the channel names keys by one; `made_at` RFC 3339.

    `older_until` (YYYY-MM-DD) is the last day on which the version before this one is still tried.
    """

    value: bytes
    serial: str = ""
    made_at: str = ""
    older_until: str = ""

    def __repr__(self) -> str:
        return f"Held(..., serial={self.serial!r}, made_at={self.made_at!r}, older_until={self.older_until!r})"


class SealingKey:
    """Seals and opens.  `secret` is a sealing key as its file holds it: 43 to 256 printable characters without blanks.

    `id` names it, and tells nothing of it.  ValueError, one sentence, for anything else.
    """

    def __init__(self, secret: bytes) -> None:
        secret = secret.strip()
        if not SEAL_KEY.fullmatch(secret):
            raise ValueError("a sealing key is 43 to 256 printable characters without blanks, as `tillbox keys seal-new` makes one")
        self._key, self._marks = _derived(secret, "key"), _derived(secret, "fingerprint")
        self.id = _derived(secret, "id")[:ID_BYTES]

    def __repr__(self) -> str:
        return f"SealingKey({self.id.hex()})"

    def seal(self, name: Name, held: Held, nonce: bytes) -> bytes:
        """The file's bytes.  `nonce` 12 fresh random bytes."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        assert len(nonce) == NONCE_BYTES, "GCM forgets its secret with a nonce that comes twice"
        head = MAGIC + self.id + nonce
        return head + AESGCM(self._key).encrypt(nonce, msgspec.json.encode(held), head + name.bound)

    def open(self, name: Name, sealed: bytes) -> Held:
        """What `seal` was given.  ValueError, one sentence, when the bytes are not this key's, not this name's, or damaged."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        if sealed_by(sealed) != self.id:
            raise ValueError("it was sealed with another sealing key")
        head, rest = sealed[:_HEAD_BYTES], sealed[_HEAD_BYTES:]
        try:
            return msgspec.json.decode(AESGCM(self._key).decrypt(head[-NONCE_BYTES:], rest, head + name.bound), type=Held)
        except InvalidTag:
            raise ValueError("it is damaged, or was put in the place of another") from None
        except msgspec.DecodeError:
            raise ValueError("a newer release wrote it") from None

    def mark(self, held: bytes) -> str:
        """Sixteen hex digits that tell two secrets apart on this box, and nobody anything else."""
        return hmac.new(self._marks, held, hashlib.sha256).hexdigest()[:16]


_HEAD_BYTES = len(MAGIC) + ID_BYTES + NONCE_BYTES


def sealed_by(sealed: bytes) -> bytes:
    """The id of the sealing key.  ValueError, one sentence, for bytes that are no sealed file."""
    if not sealed.startswith(MAGIC) or len(sealed) < _HEAD_BYTES + TAG_BYTES:
        raise ValueError("it is no sealed file, or only a part of one")
    return sealed[len(MAGIC):len(MAGIC) + ID_BYTES]


def fresh_key(random: bytes) -> bytes:
    """A sealing key as its file holds it, of 32 random bytes."""
    assert len(random) == 32, "256 bits"
    return base64.urlsafe_b64encode(random).rstrip(b"=")


def _derived(secret: bytes, use: str) -> bytes:
    return hmac.new(secret, f"tillbox seal 1 {use}".encode(), hashlib.sha256).digest()
