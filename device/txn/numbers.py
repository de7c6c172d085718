"""Order numbers: 20 characters of Crockford's alphabet, legal at every channel, never reused.

6 box number, 4 of this journal, 8 counter, 2 check.  Refund numbers are of the same form and series.
"""

from __future__ import annotations

from device.crockford import ALPHABET, check_of, digits

LENGTH = 20


def order_number(box_no: str, salt: str, count: int) -> str:
    """The `count`-th number of this journal."""
    stem = box_no + salt + digits(count, 8)
    assert len(stem) == LENGTH - 2, stem
    return stem + check_of(stem)


def order_number_ok(text: str) -> bool:
    """True when `text` is an order number with the right check characters, whoever made it."""
    if len(text) != LENGTH or any(c not in ALPHABET for c in text):
        return False
    return text[-2:] == check_of(text[:-2])
