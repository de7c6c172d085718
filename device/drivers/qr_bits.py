"""QR symbols as rows of dark and light.  Knows the text and nothing else: no size in pixels, no colour, no payment.

Level M corrects 15 % of a symbol, the usual choice for glass that reflects; L 7 %, for a glass so small that its modules
would be.  The mask is fixed: readers accept any, and
trying all eight to choose one costs five times as much.
"""

from __future__ import annotations

import threading

from device.errors import Outside

QUIET_MODULES = 4              # light modules wanted on each side: ISO/IEC 18004
MASK = 2                       # columns in threes; breaks up the byte patterns of URLs well enough
KEPT_MAX = 8                   # the live attempt, the ones parked beside it, a receipt code
TEXT_BYTES_MAX = 512           # a payment QR has some 100; more could not be read off a till's screen anyway

_kept: dict[tuple[str, str], bytes] = {}
_lock = threading.Lock()       # one thread draws while the loop may look


class QrRefused(Outside):
    """A text that no till can show as a QR."""


def known(text: str, level: str = "M") -> bool:
    """True when `matrix(text, level)` costs nothing."""
    return (text, level) in _kept


def matrix(text: str, level: str = "M") -> bytes:
    """The symbol of `text` without its quiet zone: side * side bytes, row by row, 0 dark and 255 light.

    The side is `side(matrix)`.  When not `known` it takes 1 CPU ms on a desktop, 30 more for the first import, and a small
    board is expected to need ten times that: call it in a thread.  QrRefused when the text is empty or longer than
    TEXT_BYTES_MAX bytes of UTF-8.
    """
    with _lock:
        bits = _kept.pop((text, level), None)
        if bits is None:
            bits = _made(text, level)
        _kept[text, level] = bits                                   # most recently used stands last
        while len(_kept) > KEPT_MAX:
            del _kept[next(iter(_kept))]
    return bits


def side(bits: bytes) -> int:
    """Modules along one edge of a matrix."""
    return round(len(bits) ** 0.5)


def warm() -> None:
    """Import and prime the library, so that the first customer does not wait for it."""
    matrix("https://example.org/")


def _made(text: str, level: str) -> bytes:
    if not 0 < len(text.encode()) <= TEXT_BYTES_MAX:
        raise QrRefused(f"a QR of {len(text)} characters cannot be shown", which="display", again=False)
    from qrcode.constants import ERROR_CORRECT_L, ERROR_CORRECT_M
    from qrcode.main import QRCode

    symbol = QRCode(error_correction={"L": ERROR_CORRECT_L, "M": ERROR_CORRECT_M}[level], mask_pattern=MASK, border=0)
    symbol.add_data(text, optimize=0)                        # splitting into modes costs more than it saves on a URL
    symbol.make(fit=True)
    return b"".join(bytes(0 if dark else 255 for dark in row) for row in symbol.modules)
