"""Where one ESC/POS command ends and the next begins.

Knows lengths and character sets.  Refuses to know what a command does: that is `printer_paper.py`.
"""

from __future__ import annotations


def command_size(queue: bytearray, charset: str) -> int | None:
    """Bytes of the command at the head of `queue`, which is not empty; None while it is not known yet.

    `charset` "gbk", "gb18030", "utf-8", or any of one byte a character.
    """
    lead = queue[0]
    if lead not in (0x1B, 0x1C, 0x1D):
        return _char_size(queue, charset)
    if len(queue) < 2:
        return None
    name = bytes(queue[:2])
    if name in SIZES:
        return SIZES[name]
    if name == b"\x1dV":
        return None if len(queue) < 3 else 4 if queue[2] in (65, 66, 97, 98) else 3
    if name in (b"\x1d(", b"\x1c("):
        return None if len(queue) < 5 else 5 + queue[3] + 256 * queue[4]
    if name == b"\x1dv":
        return None if len(queue) < 8 else 8 + (queue[4] + 256 * queue[5]) * (queue[6] + 256 * queue[7])
    if name == b"\x1dk":
        if len(queue) < 4:
            return None
        if queue[2] >= 65:
            return 4 + queue[3]
        end = queue.find(0, 3)
        return None if end < 0 else end + 1
    return 1                                       # unknown: the lead byte is dropped and the rest prints as text


def _char_size(queue: bytearray, charset: str) -> int | None:
    lead = queue[0]
    if charset == "utf-8" and lead >= 0xC0:
        return 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
    if charset in ("gbk", "gb18030") and lead >= 0x81:
        if charset == "gb18030" and len(queue) < 2:
            return None
        return 4 if charset == "gb18030" and 0x30 <= queue[1] <= 0x39 else 2
    return 1


# Commands of fixed length that take no data beyond it.
SIZES: dict[bytes, int] = {
    **{b"\x1b" + c.encode(): n for c, n in {
        "@": 2, "a": 3, "E": 3, "G": 3, "-": 3, "!": 3, "d": 3, "J": 3, "2": 2, "3": 3, "M": 3, "p": 5, "t": 3, "R": 3,
        "c": 4, "B": 4, "$": 4, "{": 3, "V": 3, " ": 3, "=": 3, "\\": 4}.items()},
    **{b"\x1c" + c.encode(): n for c, n in {"&": 2, ".": 2, "!": 3, "W": 3, "-": 3, "S": 4, "C": 3}.items()},
    **{b"\x1d" + c.encode(): n for c, n in {
        "!": 3, "h": 3, "w": 3, "f": 3, "H": 3, "r": 3, "I": 3, "a": 3, "B": 3, "L": 4, "W": 4, "P": 4,
        "b": 3}.items()},
}
