"""Customer's poles by their bytes: six families of command sets, each a pure codec.  Knows glass and bytes; opens nothing.

A `Glass` is what should stand on the pole; a codec says which bytes put it there.  Every frame writes every cell, so that a
pole that lost its power shows the truth again at the next frame, and nothing flickers: there is no clear between two frames.
Sources: the makers' manuals of the CD5220, Epson DM-D (ESC/POS), AEDEX, ADM787/788 and DSP800 sets; for the Chinese
eight-digit boxes (LED8) makers' sheets and what users measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

COLUMNS, DIGITS_MAX = 20, 8
CHARSETS = ("ascii", "gbk")
LIGHTS = ("", "price", "total", "paid", "change")    # an LED8's 单价 合计 收款 找零; "" none lit
ACK, NAK = 0x06, 0x15
# What has no code in a pole's set and is worth more than a question mark.
_PLAIN = str.maketrans({"¥": "Y", "￥": "Y", "×": "x", "…": ".", "—": "-", "–": "-", "“": '"', "”": '"', "‘": "'", "’": "'",
                        "（": "(", "）": ")", "：": ":", "，": ",", "。": ".", "！": "!", "？": "?", "；": ";", "\u3000": " "})


class Glass(NamedTuple):
    """What a pole shows: two rows of text, or of an LED8 a number ("33.99") and the light beside it."""

    top: str = ""
    bottom: str = ""
    number: str = ""
    light: str = ""


class Dialect(NamedTuple):
    """One command set.  `reset` makes a pole that was just plugged in ready; `frame` gives the bytes of a whole glass.

    `baud` is what such poles leave the factory with; `rows` 2 of text, 1 of digits; `answers` whether it says ACK or NAK.
    """

    name: str
    says: str
    baud: int
    rows: int
    reset: bytes
    frame: Callable[[bytes, bytes], bytes]
    answers: bool = False


def frame_of(glass: Glass, dialect: str, charset: str = "ascii") -> bytes:
    """The bytes that put `glass` on a pole of `dialect`.  KeyError for a dialect or charset that nobody wrote."""
    d = DIALECTS[dialect]
    if d.rows == 1:
        return d.frame(digits(glass.number), glass.light.encode())
    return d.frame(row(glass.top, charset), row(glass.bottom, charset))


def row(text: str, charset: str = "ascii", columns: int = COLUMNS) -> bytes:
    """`text` as exactly `columns` cells: cut, padded, without a byte that any pole takes for a command.

    A Chinese character is two cells of a `gbk` pole and a question mark on others.
    """
    assert charset in CHARSETS, charset
    out, wide = bytearray(), 0
    for char in text if charset == "gbk" else text.translate(_PLAIN):
        cell = _cell(char, charset)
        if wide + len(cell) > columns:
            break
        if cell == b"#" and out.endswith(b"!"):        # AEDEX begins its commands so
            cell = b" "
        out += cell
        wide += len(cell)
    return bytes(out.ljust(columns))


def width(text: str, charset: str = "ascii") -> int:
    """Cells that `text` takes."""
    return sum(len(_cell(char, charset)) for char in (text if charset == "gbk" else text.translate(_PLAIN)))


def sayable(text: str, charset: str = "ascii") -> bool:
    """True when a pole of `charset` shows `text` without a question mark that is not in it."""
    plain = text if charset == "gbk" else text.translate(_PLAIN)
    return all(_cell(char, charset) != b"?" or char == "?" for char in plain)


def digits(number: str) -> bytes:
    """At most eight digits and a point of `number`; dashes when it has more, for a part of an amount is another amount."""
    kept = "".join(char for char in number if char in "0123456789.-")
    if sum(char != "." for char in kept) > DIGITS_MAX:
        kept = "-" * DIGITS_MAX
    return kept.encode()


def _cell(char: str, charset: str) -> bytes:
    if " " <= char <= "~":
        return char.encode()
    if charset == "gbk":
        try:
            told = char.translate({0xA5: "￥"}).encode("gbk")
        except UnicodeEncodeError:
            return b"?"
        return told if len(told) == 2 else b"?"
    return b"?"


def _cd5220(top: bytes, bottom: bytes) -> bytes:
    return b"\x1bQA" + top + b"\r" + b"\x1bQB" + bottom + b"\r"


def _epson(top: bytes, bottom: bytes) -> bytes:
    # US $ column row, both from 1.  The cursor comes home last: past the last cell some models scroll at the next byte.
    return b"\x1f$\x01\x01" + top + b"\x1f$\x01\x02" + bottom + b"\x0b"


def _aedex(top: bytes, bottom: bytes) -> bytes:
    return b"!#1" + top + b"\r" + b"!#2" + bottom + b"\r"


def _adm(top: bytes, bottom: bytes) -> bytes:
    return b"\x0e" + top + b"\x0f" + bottom


def _dsp800(top: bytes, bottom: bytes) -> bytes:
    # EOT SOH P position ETB: 31h is the first cell, 45h the twenty-first.
    return b"\x04\x01P\x31\x17" + top + b"\x04\x01P\x45\x17" + bottom


def _led8(number: bytes, light: bytes) -> bytes:
    return b"\x1bs" + b"%d" % LIGHTS.index(light.decode()) + _led_number(number)


def _led8n(number: bytes, light: bytes) -> bytes:
    lit = LIGHTS.index(light.decode())
    return b"\x02L" + bytes(0x31 if n == lit else 0x30 for n in range(1, 5)) + _led_number(number)


def _led_number(number: bytes) -> bytes:
    return b"\x1bQA" + number + b"\r" if number else b"\x0c"


DIALECTS: dict[str, Dialect] = {d.name: d for d in (
    Dialect("cd5220", "CD5220 and the many poles that speak it (ESC Q)", 9600, 2, b"\x1b@\x0c\x1b\x11", _cd5220),
    Dialect("epson", "Epson DM-D, ESC/POS", 9600, 2, b"\x1b@\x0c\x1f\x01\x1fC\x00", _epson),
    Dialect("aedex", "AEDEX, Emax, PTC", 9600, 2, b"", _aedex),
    Dialect("adm788", "ADM787 and ADM788", 9600, 2, b"\x0c", _adm),
    Dialect("dsp800", "DSP800, UTC in DSP mode", 9600, 2, b"\x04\x01C1X\x17", _dsp800, answers=True),
    Dialect("led8", "eight digits and four lights, lights by ESC s", 2400, 1, b"\x1b@\x0c", _led8),
    Dialect("led8n", "eight digits and four lights, lights by STX L", 2400, 1, b"\x1b@\x0c", _led8n),
)}
