"""A technician's terminal, as plain as they come: what stands on it after so many bytes.

Knows carriage return, line feed, backspace and characters of one or two cells, which is all that the console sends; anything else
is shown for what it is.
"""

from __future__ import annotations

import codecs
import unicodedata

COLUMNS, LINES_MAX = 80, 400


class SerialScreen:
    """`feed` takes bytes; `lines()` is what stands there, oldest first, the last one with the cursor."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._lines: list[list[str]] = [[]]          # a cell each; the second half of a wide character is ""
        self._at = 0

    def feed(self, data: bytes) -> None:
        for c in self._decode(data):
            if c == "\n":
                self._lines = [*self._lines[1 - LINES_MAX:], []]
            elif c == "\r":
                self._at = 0
            elif c == "\b":
                self._at = max(self._at - 1, 0)
            else:
                self._put(c if c >= " " else "\ufffd")

    def lines(self) -> list[str]:
        return ["".join(cells).rstrip() for cells in self._lines]

    def _put(self, c: str) -> None:
        cells = [c, ""] if unicodedata.east_asian_width(c) in "WF" else [c]
        if self._at + len(cells) > COLUMNS:
            self.feed(b"\r\n")
        line = self._lines[-1]
        line += [" "] * (self._at - len(line))
        line[self._at:self._at + len(cells)] = cells
        self._at += len(cells)
