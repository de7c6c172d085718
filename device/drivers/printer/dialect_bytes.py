"""Printers that are not like ours: their character sets, QR codes and cutters, as a table; and paper for each.

Knows what differs from `escpos_bytes`, whose bytes are those of the dialect `chinese`.  What a printer cannot say it is given as
dots; whoever draws them is handed in, for this floor draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec

from device.drivers.printer import escpos_bytes as escpos

CHINESE_OFF = b"\x1c."
CUTS = {"partial": escpos.CUT, "full": b"\x1dVA\x00", "none": b"\x1bd\x06"}     # none: fed, and torn by hand


class Dialect(msgspec.Struct, frozen=True):
    """`head` follows ESC @ in each job; `charset` is what text is sent in, "" for a printer that is only given dots; `qr` is
    native or raster."""

    says: str
    head: bytes
    charset: str
    qr: str = "native"


DIALECTS: dict[str, Dialect] = {
    "chinese": Dialect("GBK, as nearly every printer sold in China", escpos.CHINESE_ON, "gbk"),
    "gb18030": Dialect("the same with the rare characters of GB 18030", escpos.CHINESE_ON, "gb18030"),
    "utf8": Dialect("UTF-8, by FS ( C or by the printer's own switch", b"\x1c(C\x02\x0002", "utf-8"),
    "western": Dialect("code page 858 (Latin letters and the euro); Chinese lines as dots", CHINESE_OFF + b"\x1bt\x13", "cp858"),
    "cp437": Dialect("code page 437, for printers that know no other; the rest as dots", CHINESE_OFF + b"\x1bt\x00", "cp437"),
    "raster": Dialect("everything as dots: slow by a serial line, and right on every printer", b"", "", "raster"),
}


class Draw(Protocol):
    """Who turns lines and symbols into image commands."""

    def lines(self, lines: list[str], columns: int, size: int, bold: bool, align: str, charset: str) -> bytes:
        """One image for these lines, which fit `columns` // `size` by `width` of `charset`."""
        ...

    def qr(self, text: str, module: int, columns: int) -> bytes:
        """The symbol, centred; ValueError for a text that none can hold."""
        ...


class Page:
    """`encode` for the printer driver: Page(dialect, ...)(paper, columns) gives one job's bytes.

    `qr` native or raster, "auto" as the dialect says; `cut` a key of CUTS; `logo(columns)` gives the bytes that stand above each
    paper.  Never raises for what a part's text contains.
    """

    def __init__(self, dialect: Dialect, draw: Draw, *, qr: str = "auto", cut: str = "partial",
                 logo: Callable[[int], bytes] = lambda columns: b"") -> None:
        self._dialect, self._draw, self._logo, self.cut = dialect, draw, logo, CUTS[cut]
        self._qr_by = dialect.qr if qr == "auto" else qr

    def __call__(self, paper: Iterable[Any], columns: int = escpos.COLUMNS_80MM) -> bytes:
        head = escpos.INIT + self._dialect.head + self._logo(columns)
        return head + b"".join(self._part(part, columns) for part in paper)

    def _part(self, part: Any, columns: int) -> bytes:
        match type(part).__name__:
            case "Cut":
                return self.cut
            case "Text":
                size = 2 if part.size == 2 else 1
                lines = [line for piece in part.text.split("\n") for line in self._wrapped(piece, columns // size)]
                return self._styled(lines, columns, part.align, size, part.bold)
            case "Pair":
                size = 2 if part.size == 2 else 1
                left, right = (self._clean(text.replace("\n", " ")) for text in (part.left, part.right))
                return self._styled(escpos.paired(left, right, columns // size, self._layout), columns, "l", size, part.bold)
            case "Ruler" if not self._dialect.charset:
                return self._styled(["-" * columns], columns, "l", 1, False)
            case "Barcode" if not self._dialect.charset:
                return self._symbol(part.text, 6, columns) + self._styled(self._wrapped(part.text, columns), columns, "c", 1, False)
            case "QrCode" if self._qr_by == "raster":
                return self._symbol(part.text, part.module, columns)
        return escpos.part_bytes(part, columns)

    def _symbol(self, text: str, module: int, columns: int) -> bytes:
        try:
            return self._draw.qr(escpos.visible(text), module, columns)
        except ValueError:
            return self._styled(self._wrapped(text, columns), columns, "l", 1, False)

    # What cannot be said is drawn, so nothing has to be left out of the text before.

    @property
    def _layout(self) -> str:
        return "gb18030" if self._dialect.charset in ("", *escpos.GB) else self._dialect.charset

    def _clean(self, text: str) -> str:
        text = escpos.visible(text)
        said = escpos.clean(text, self._dialect.charset or self._layout)
        return text if said.count("?") > text.count("?") else said

    def _wrapped(self, text: str, columns: int) -> list[str]:
        return escpos.wrapped(self._clean(text), columns, self._layout)

    def _styled(self, lines: list[str], columns: int, align: str, size: int, bold: bool) -> bytes:
        """Lines that the printer knows as text, the others as dots, in their order."""
        out, at = b"", 0
        while at < len(lines):
            said = self._says(lines[at])
            end = at
            while end < len(lines) and self._says(lines[end]) is said:
                end += 1
            some = lines[at:end]
            out += (escpos.styled(some, align, size, bold, self._dialect.charset) if said
                    else self._draw.lines(some, columns, size, bold, align, self._layout))
            at = end
        return out

    def _says(self, line: str) -> bool:
        return escpos.fits(line, self._dialect.charset)
