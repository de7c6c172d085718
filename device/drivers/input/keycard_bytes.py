"""Printed command cards: a key of the keypad, or a supervisor's badge, as text that one store signed.  Both ways; opens nothing.

    TBK.STORE.KEYS.NUMBER.SIGN        TBK.S01.1-PAY.7Q2M4X.0123456789ABCDEF

Every character stands in a QR's alphanumeric set.  KEYS are digits and at most one key of the keypad, or SUPERVISOR; NUMBER
is six Crockford digits that tell cards apart, so that one can be revoked.  SIGN are 80 bits of HMAC-SHA256, under the store's card
key, over all that stands before it.  Who holds the key can print cards, so a box of one store knows no other store's.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import cache

import msgspec

from device.crockford import ALPHABET, digits, of_bytes

HEAD = "TBK."
SUPERVISOR = "SUPERVISOR"
SIGN_BYTES = 10
NUMBER_CHARS = 6
KEY_LEN_MIN = 32
TEXT_LEN_MAX = 80
_STORE = "[0-9A-Z]{1,12}"
_KEYS = r"(?:([0-9]{1,9})-)?([A-Z]+)|([0-9]{1,9})"


class Card(msgspec.Struct, frozen=True):
    """What a card says: of which `store`, which digits are typed before which `key` is pressed, and the card's own `number`.

    `key` "" is a card of digits alone.
    """

    store: str
    typed: str
    key: str
    number: str

    @property
    def supervisor(self) -> bool:
        return self.key == SUPERVISOR


class CardRefused(Exception):
    """`cause`: `off` (this box takes no cards), `bad` (shape or signature), `store` (another store's), `revoked`."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def card_text(key: str, store: str, keys: str, number: int, known: tuple[str, ...]) -> str:
    """The text of a card.  ValueError for keys that no card may carry, a store's name of another form, or a key too short.

    `keys` is `PAY`, `1-PAY`, `50` or `SUPERVISOR`; `known` are the keypad's keys; `number` at most 30 bits.
    """
    if len(key) < KEY_LEN_MIN:
        raise ValueError(f"the card key has {len(key)} characters; it has {KEY_LEN_MIN} or more")
    if not re.fullmatch(_STORE, store):
        raise ValueError(f"{store!r} is no store's name for cards: capitals and digits, at most 12")
    if keys != SUPERVISOR and _typed(keys, known) is None:
        raise ValueError(f"{keys!r} is no key of the keypad, nor digits and one: PAY, 1-PAY, 50")
    body = f"{HEAD}{store}.{keys}.{digits(number, NUMBER_CHARS)}."
    return body + _sign(key, body)


def card_of(text: str, *, key: str, store: str, revoked: tuple[str, ...], known: tuple[str, ...]) -> Card:
    """The card whose text was scanned, proven.  CardRefused otherwise."""
    if not key:
        raise CardRefused("off")
    match = _form().fullmatch(text) if len(text) <= TEXT_LEN_MAX else None
    if match is None:
        raise CardRefused("bad")
    if match[1] != store:
        raise CardRefused("store")
    if not hmac.compare_digest(match[4], _sign(key, text[:-len(match[4])])):
        raise CardRefused("bad")
    if match[3] in revoked:
        raise CardRefused("revoked")
    told = ("", SUPERVISOR) if match[2] == SUPERVISOR else _typed(match[2], known)
    if told is None:
        raise CardRefused("bad")            # signed, and of a later release that has more keys
    return Card(match[1], told[0], told[1], match[3])


@cache
def _form() -> re.Pattern[str]:
    # made when the first one is scanned: a start has no time for it
    return re.compile(rf"TBK\.({_STORE})\.([0-9A-Z]+(?:-[0-9A-Z]+)?)\.([{ALPHABET}]{{{NUMBER_CHARS}}})\.([{ALPHABET}]{{16}})")


def _typed(keys: str, known: tuple[str, ...]) -> tuple[str, str] | None:
    match = re.fullmatch(_KEYS, keys)
    if match is None or (match[2] or "PAY") not in known:
        return None
    return match[1] or match[3] or "", match[2] or ""


def _sign(key: str, body: str) -> str:
    return of_bytes(hmac.digest(key.encode(), body.encode(), hashlib.sha256)[:SIGN_BYTES])
