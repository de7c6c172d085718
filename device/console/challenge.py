"""The console's challenge and the code that answers it: what is read over a telephone, both ways.

Knows letters, digits and one keyed digest; refuses to know where the key lies and how often somebody tried.  The key of a box is
drawn from what its encryption key and the fleet's console key agree on, so that the cloud keeps no secret for any box: who may
answer is who holds the fleet's console key, and each answer opens one box, once.
"""

from __future__ import annotations

import hmac
import re

import msgspec

from device.crockford import ALPHABET, as_read, check_of, digits, grouped, number

LEVELS = ("look", "work", "full")
NONCE_CHARS, BOOT_CHARS, CHECK_CHARS = 10, 4, 2
CODE_CHARS = 8                           # 40 bits: with five tries and growing waits nobody lives to guess it
LIFE_S = 30 * 60
WHO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,31}")
NAMESPACE = "tillbox-console"            # of an SSH signature


class Challenge(msgspec.Struct, frozen=True):
    """What a session asks of box `box`: `nonce` 10 and `boot` 4 Crockford digits, `level` one of LEVELS, `who` the technician."""

    box: str
    who: str
    level: str
    boot: str
    nonce: str

    def spoken(self) -> str:
        """The part that is read aloud: four groups of four.  Its last two characters check box, name and level as well."""
        stem = self.nonce + self.boot
        return grouped(stem + _check(self.box, self.who, self.level, stem))

    def signed_text(self) -> bytes:
        """What an SSH certificate signs instead: one line."""
        return f"tillbox console {self.box} {self.who} {self.level} {self.spoken()}\n".encode()


def fresh(box: str, who: str, level: str, boot: str, bits: int) -> Challenge:
    """A challenge from 50 random bits; `boot` any text that names this boot."""
    assert level in LEVELS and WHO.fullmatch(who), (level, who)
    named = int.from_bytes(hmac.digest(b"tillbox boot", boot.encode(), "sha256")[:4], "big") % 32 ** BOOT_CHARS
    return Challenge(box, who, level, digits(named, BOOT_CHARS), digits(bits % 32 ** NONCE_CHARS, NONCE_CHARS))


def heard(box: str, who: str, level: str, text: str) -> Challenge:
    """The challenge that a technician read to head office.  ValueError, one sentence, when a part of it was misheard."""
    stem = as_read(text)
    if len(stem) != NONCE_CHARS + BOOT_CHARS + CHECK_CHARS or set(stem) - set(ALPHABET):
        raise ValueError(f"a challenge is {NONCE_CHARS + BOOT_CHARS + CHECK_CHARS} digits and letters in groups of four")
    if level not in LEVELS:
        raise ValueError(f"the level is one of {', '.join(LEVELS)}")
    if not WHO.fullmatch(who):
        raise ValueError("the name is up to 32 letters, digits and . _ @ -, as it was typed at the box")
    if stem[-CHECK_CHARS:] != _check(box, who, level, stem[:-CHECK_CHARS]):
        raise ValueError("the challenge does not fit: box, name, level or one of its characters was misheard")
    return Challenge(box, who, level, stem[NONCE_CHARS:NONCE_CHARS + BOOT_CHARS], stem[:NONCE_CHARS])


def key_of(shared: bytes, tenant: str, box: str) -> bytes:
    """32 bytes: HKDF-SHA256 (RFC 5869) of `shared`, what ECDH on P-256 gives (the x-coordinate, 32 bytes)."""
    drawn = hmac.digest(b"tillbox console 1", shared, "sha256")
    return hmac.digest(drawn, f"{tenant}\n{box}".encode() + b"\x01", "sha256")


def code_of(challenge: Challenge, key: bytes) -> str:
    """The eight characters that answer it."""
    told = "\n".join(("tillbox console 1", challenge.box, challenge.who, challenge.level, challenge.boot, challenge.nonce))
    value = int.from_bytes(hmac.digest(key, told.encode(), "sha256")[:5], "big")
    return digits(value, CODE_CHARS)


def looks_like_code(text: str) -> bool:
    """Whether a line has the form of a code: only such a line counts as a try, for noise on a cable must lock nobody out."""
    stem = as_read(text)
    return len(stem) == CODE_CHARS and not set(stem) - set(ALPHABET)


def answers(challenge: Challenge, key: bytes, text: str) -> bool:
    """Whether `text` is the code.  Takes as long for any wrong one."""
    return hmac.compare_digest(as_read(text).encode(), code_of(challenge, key).encode())


def _check(box: str, who: str, level: str, stem: str) -> str:
    told = hmac.digest(b"tillbox console check", f"{box}\n{who}\n{level}".encode(), "sha256")
    return check_of(digits(int.from_bytes(told[:4], "big"), 7) + digits(number(stem), len(stem)))
