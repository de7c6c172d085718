"""What the console may send to a terminal: printable text in lines of at most 79 cells, and nothing that a terminal obeys.

Pure.  Whatever comes from goods, configuration, devices, channels or a line of noise is data: control, bidirectional and invisible
characters leave as `\\x1b` or `\\u202e`, written out.  Chinese takes two cells a character.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

COLUMNS = 80
CELLS_MAX = COLUMNS - 1                  # a terminal that wraps at once would make an empty line of each full one
LINE_CHARS_MAX = 4000                    # of one line before it is wrapped
_PLAIN = frozenset(map(chr, range(0x20, 0x7F)))


def safe(text: str) -> str:
    """`text` with everything but printable characters that stand by themselves written out."""
    if _PLAIN.issuperset(text):
        return text
    return "".join(c if c in _PLAIN or _stands(c) else _written(c) for c in text)


def cells(text: str) -> int:
    """Columns that `text`, safe, takes on a terminal."""
    return len(text) if text.isascii() else sum(map(width, text))


def width(c: str) -> int:
    """1 or 2, of one safe character."""
    return 2 if ord(c) > 0x10FF and unicodedata.east_asian_width(c) in "WF" else 1


def wrapped(text: str, columns: int = CELLS_MAX, indent: str = "") -> list[str]:
    """`text`, made safe, in lines of at most `columns` cells; at blanks where there are some, `indent` before each further line."""
    left = safe(text[:LINE_CHARS_MAX])
    lines: list[str] = []
    while True:
        head = indent if lines else ""
        room = columns - cells(head)
        if cells(left) <= room:
            return [*lines, head + left]
        end = _fits(left, room)
        blank = left.rfind(" ", 0, end + 1)
        if blank > room // 3:
            lines.append(head + left[:blank].rstrip())
            left = left[blank + 1:].lstrip()
        else:
            lines.append(head + left[:end])
            left = left[end:]


def padded(text: str, columns: int) -> str:
    """`text`, made safe, in exactly `columns` cells: filled up with blanks, or cut with a dot for what is missing."""
    told = safe(text)
    if cells(told) > columns:
        told = told[:_fits(told, columns - 1)] + "."
    return told + " " * (columns - cells(told))


def table(rows: Iterable[tuple[str, ...]], widths: tuple[int, ...]) -> list[str]:
    """Rows in columns of so many cells, one blank between; the last column is wrapped below itself."""
    lines: list[str] = []
    for row in rows:
        head = "".join(padded(cell, size) + " " for cell, size in zip(row[:-1], widths, strict=True))
        first, *more = wrapped(row[-1], CELLS_MAX - cells(head))
        lines.append((head + first).rstrip())
        lines += [" " * cells(head) + rest for rest in more]
    return lines


def _fits(text: str, room: int) -> int:
    """How many characters of `text` fit into `room` cells; at least one."""
    used = 0
    for at, c in enumerate(text):
        used += width(c)
        if used > room:
            return max(at, 1)
    return len(text)


def _stands(c: str) -> bool:
    # Marks that join the character before them, and unassigned ones, have no width that all terminals agree on.
    return c.isprintable() and unicodedata.category(c)[0] not in "MC" and c != "\u3164" and c != "\uffa0"


def _written(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x1_0000 else f"\\U{code:08x}"
