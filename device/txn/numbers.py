"""Order numbers: 20 characters of Crockford's alphabet, legal at every channel, never reused.

6 box number, 4 of this journal, 8 counter, 2 check.  Refund numbers are of the same form and series.
"""

from __future__ import annotations

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LENGTH = 20
_CHECK_PRIME = 1021      # the largest prime below 32 * 32: finds every single wrong character and every swap of neighbours


def digits(value: int, width: int) -> str:
    """`value` in Crockford's base 32, `width` characters.  Asserts that it fits."""
    assert 0 <= value < 32 ** width, (value, width)
    out = ""
    for _ in range(width):
        value, rest = divmod(value, 32)
        out = ALPHABET[rest] + out
    return out


def number(text: str) -> int:
    """The value of Crockford digits.  ValueError for any other character."""
    value = 0
    for character in text:
        value = value * 32 + ALPHABET.index(character)
    return value


def order_number(box_no: str, salt: str, count: int) -> str:
    """The `count`-th number of this journal."""
    stem = box_no + salt + digits(count, 8)
    assert len(stem) == LENGTH - 2, stem
    return stem + digits(number(stem) % _CHECK_PRIME, 2)


def order_number_ok(text: str) -> bool:
    """True when `text` is an order number with the right check characters, whoever made it."""
    if len(text) != LENGTH or any(c not in ALPHABET for c in text):
        return False
    return number(text[-2:]) == number(text[:-2]) % _CHECK_PRIME
