"""Numbers in Crockford's base 32, two characters that check them, and what a person's eye takes for each other.

Pure.  Refuses to know what the numbers name: orders, terminals, codes.
Source: https://www.crockford.com/base32.html; the check is our own.
"""

from __future__ import annotations

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CHECK_PRIME = 1021       # the largest prime below 32 * 32: finds every single wrong character and every swap of neighbours
CHECK_CHARS = 2
_ALIKE = str.maketrans("OIL", "011", "- \t\r\n")          # read for each other, by Crockford's own rule; and what groups them
_DIGITS = str.maketrans(ALPHABET, "0123456789ABCDEFGHIJKLMNOPQRSTUV")


def digits(value: int, width: int) -> str:
    """`value` in Crockford's base 32, `width` characters.  Asserts that it fits."""
    assert 0 <= value < 32 ** width, (value, width)
    out = ""
    for _ in range(width):
        value, rest = divmod(value, 32)
        out = ALPHABET[rest] + out
    return out


def number(text: str) -> int:
    """The value of Crockford digits, at least one.  ValueError for any other character."""
    if set(text) - set(ALPHABET):
        raise ValueError("only digits and letters without I, L, O and U")
    return int(text.translate(_DIGITS), 32)


def check_of(stem: str) -> str:
    """The two characters that end `stem`, at least one Crockford digit."""
    return digits(number(stem) % CHECK_PRIME, CHECK_CHARS)


def as_read(text: str) -> str:
    """What a person typed or a scanner read: upper case, look-alikes for what they mean, without blanks and hyphens."""
    return text.upper().translate(_ALIKE)


def of_bytes(raw: bytes) -> str:
    """`raw` in as few characters as hold it, the last one filled up with zero bits."""
    chars = -(-len(raw) * 8 // 5)
    return digits(int.from_bytes(raw, "big") << (chars * 5 - len(raw) * 8), chars)


def to_bytes(text: str) -> bytes:
    """The whole bytes in `text`, filling bits dropped.  ValueError for other characters, or filling bits that are not zero."""
    size, value = len(text) * 5 // 8, number(text)
    spare = len(text) * 5 - size * 8
    if value & ((1 << spare) - 1):
        raise ValueError("the last character says more than it may")
    return (value >> spare).to_bytes(size, "big")


def grouped(text: str, size: int = 4) -> str:
    """`text` in groups that an eye can follow: 7K3Q-0ZF2-..."""
    return "-".join(text[at:at + size] for at in range(0, len(text), size))
