"""ESC/POS: paper parts to bytes, and a printer's status bytes to words.

Knows the command set of Epson and of the Chinese clones (GBK firmware), and how wide a character stands on paper.
Knows no cable and no job, and refuses to let text become a command: what a part carries is stripped of every control
character before it is encoded, so only this file's own templates can cut paper or open a drawer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

COLUMNS_80MM = 48            # font A, 12 dots a column, 576 dots
COLUMNS_58MM = 32            # 384 dots
DOTS_A_COLUMN = 12

INIT = b"\x1b@"
CHINESE_ON = b"\x1c&"
CUT = b"\x1dVB\x00"          # feeds to the cutter by itself, which 1D 56 00 does not
CHINESE_SETS = ("gbk", "gb18030", "utf-8")
ALIGN = {"l": b"\x1ba\x00", "c": b"\x1ba\x01", "r": b"\x1ba\x02"}
BOLD = {False: b"\x1bE\x00", True: b"\x1bE\x01"}
SIZE = {1: b"\x1d!\x00\x1c!\x00", 2: b"\x1d!\x11\x1c!\x0c"}     # GS ! for ASCII, FS ! where GS ! leaves Chinese small
QUEUED_PAPER = b"\x1dr\x01"
QUEUED_DRAWER = b"\x1dr\x02"
CLEAR_BUFFER = b"\x10\x05\x02"
MODEL_QUERY = b"\x1dIC"       # GS I 67: the name of the model, as text
DRAWER_HIGH = 0x04           # in the answer to DLE EOT 1: pin 3 of the drawer's connector is high
# For a printer that may sit in the middle of a command whose end was lost: it takes whatever comes for the missing bytes.  So
# NULs, more than the longest command of ours can lack (a QR of 997 bytes: 1005), then ESC @.  A printer that lacks nothing skips
# NULs.  Not CAN, which means something in page mode only, and not DLE ENQ, which obeys only after an error.
RESYNC = b"\0" * 1024 + INIT
RASTER_BYTES_MAX = 1_008     # of one image command: within what RESYNC fills, and within a quarter of a cheap printer's buffer
REAL_TIME = (b"\x10\x04", b"\x10\x05", b"\x10\x14")              # many printers obey these even inside image data
QR_BYTES_MAX = 997           # version 25 at level M: 125 modules with its margin still fit 58 mm at three dots
QR_LEVEL_M_BYTES = (14, 26, 42, 62, 84, 106, 122, 152, 180, 213, 251, 287, 331, 362, 412, 450, 504, 560, 624, 666, 711,
                    779, 857, 911, 997)                          # ISO/IEC 18004 table 7, versions 1 to 25
QUIET_ABOVE = b"\x1bJ\x12"   # with the gap between lines four modules of six dots; below, the feed of its own line is more
BARCODE_DOTS = 2             # the narrowest bar that GS w takes everywhere

# What GBK lacks or clones print wrong; the full-width yen is the one that every GBK firmware has.
SUBSTITUTES = {
    "\u00a5": "\uffe5", "\u00a0": " ", "\u2002": " ", "\u2003": " ", "\u2009": " ", "\u202f": " ",
    "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2013": "-", "\u2015": "\u2014", "\u2212": "-", "\u00ad": "",
    "\u201a": "'", "\u201b": "'", "\u201e": '"', "\u201f": '"', "\u2032": "'", "\u2033": '"', "\u02bc": "'",
    "\u2039": "<", "\u203a": ">", "\u00ab": "\u300a", "\u00bb": "\u300b", "\u22ef": "\u2026", "\u2022": "\u00b7",
    "\u20ac": "EUR", "\u00a3": "\uffe1", "\u00a9": "(C)", "\u00ae": "(R)", "\u2122": "TM",
}


# --- paper to bytes ---------------------------------------------------------------------------------------------------

def paper_bytes(paper: Iterable[Any], columns: int = COLUMNS_80MM) -> bytes:
    """One whole job: the printer is reset, set to Chinese, and given each part.

    `paper` holds the core's paper parts (`Text Pair Ruler QrCode Barcode Cut`), told apart by the name of their class,
    so that this floor need not import the core.  `columns` 48 (80 mm) or 32 (58 mm).  Never raises for what a part's
    text contains; TypeError for a part of another class.
    """
    assert 24 <= columns <= 64, columns
    return INIT + CHINESE_ON + b"".join(part_bytes(part, columns) for part in paper)


def part_bytes(part: Any, columns: int = COLUMNS_80MM) -> bytes:
    """One part, leaving the printer as it found it: left, plain, size 1."""
    encode = PARTS.get(type(part).__name__)
    if encode is None:
        raise TypeError(f"no paper part: {type(part).__name__}")
    return encode(part, columns)


def _text(part: Any, columns: int) -> bytes:
    size = 2 if part.size == 2 else 1
    lines = [line for piece in part.text.split("\n") for line in wrapped(clean(piece), columns // size)]
    return _styled(lines, ALIGN.get(part.align, ALIGN["l"]), size, part.bold)


def _pair(part: Any, columns: int) -> bytes:
    size = 2 if part.size == 2 else 1
    lines = paired(clean(part.left.replace("\n", " ")), clean(part.right.replace("\n", " ")), columns // size)
    return _styled(lines, ALIGN["l"], size, part.bold)


def styled(lines: list[str], align: str, size: int, bold: bool, charset: str) -> bytes:
    """Lines that fit `charset`, as text."""
    return _styled(lines, ALIGN.get(align, ALIGN["l"]), size, bold, charset)


def _styled(lines: list[str], align: bytes, size: int, bold: bool, charset: str = "gbk") -> bytes:
    body = b"".join(line.encode(charset) + b"\n" for line in lines)
    if size != 1:
        on, off = SIZE[size], SIZE[1]
        body = on + body + off if charset in CHINESE_SETS else on[:3] + body + off[:3]
    if bold:
        body = BOLD[True] + body + BOLD[False]
    return body if align == ALIGN["l"] else align + body + ALIGN["l"]


def _ruler(part: Any, columns: int) -> bytes:
    return b"-" * columns + b"\n"


def _qr(part: Any, columns: int) -> bytes:
    data = "".join(map(_visible, part.text)).encode("utf-8", "replace")
    if not data or len(data) > QR_BYTES_MAX:
        return _styled(wrapped(clean(part.text), columns), ALIGN["l"], 1, False)     # unreadable as a symbol
    store = len(data) + 3
    if store == 0x0410 or store == 0x0510:                       # pL pH would read as DLE EOT or ENQ
        data, store = data + b" ", store + 1
    return b"".join((
        ALIGN["c"],
        QUIET_ABOVE,
        b"\x1d(k\x04\x001A2\x00",
        b"\x1d(k\x03\x001C" + bytes([_module_dots(part.module, len(data), columns)]),
        b"\x1d(k\x03\x001E1",                                                        # level M
        b"\x1d(k" + store.to_bytes(2, "little") + b"1P0" + data,
        b"\x1d(k\x03\x001Q0",
        b"\n",
        ALIGN["l"],
    ))


def _module_dots(wish: int, data_len: int, columns: int) -> int:
    version = next(v for v, room in enumerate(QR_LEVEL_M_BYTES, 1) if data_len <= room)
    return max(1, min(wish, 16, columns * DOTS_A_COLUMN // (17 + 4 * version + 8)))


def _barcode(part: Any, columns: int) -> bytes:
    """Code 128, set B only: set C would send digit pairs as bytes, and 16 04 is DLE EOT."""
    text = "".join(c for c in part.text if " " <= c <= "~")
    if not text:
        return b""
    modules = 11 * (len(text) + 2) + 13
    if modules * BARCODE_DOTS > columns * DOTS_A_COLUMN - 2 * 10 * BARCODE_DOTS:     # the printer would print nothing
        return _qr(_QrOf(text), columns) + _styled(wrapped(text, columns), ALIGN["c"], 1, False)
    data = b"{B" + text.replace("{", "{{").encode("ascii")
    return b"".join((
        ALIGN["c"], b"\x1dh\x50", b"\x1dw", bytes([BARCODE_DOTS]), b"\x1df\x00\x1dH\x02",
        b"\x1dkI", bytes([len(data)]), data, b"\n", ALIGN["l"],
    ))


class _QrOf:
    """A part of ours for a barcode that is too wide."""

    def __init__(self, text: str) -> None:
        self.text, self.module = text, 6


def _cut(part: Any, columns: int) -> bytes:
    return CUT


PARTS: dict[str, Callable[[Any, int], bytes]] = {
    "Text": _text, "Pair": _pair, "Ruler": _ruler, "QrCode": _qr, "Barcode": _barcode, "Cut": _cut,
}


def drawer_bytes(pin: int = 2, on_ms: int = 100, off_ms: int = 100) -> bytes:
    """ESC p: a pulse on connector pin 2 or 5.  Queued: a printer that is off-line does not obey it."""
    assert pin in (2, 5), pin
    return b"\x1bp" + bytes([0 if pin == 2 else 1, _two_ms(on_ms), _two_ms(off_ms)])


def drawer_now_bytes(pin: int = 2, on_ms: int = 100) -> bytes:
    """DLE DC4 1: the same pulse at once, also while the printer is off-line for paper."""
    assert pin in (2, 5), pin
    return b"\x10\x14\x01" + bytes([0 if pin == 2 else 1, max(1, min(8, on_ms // 100))])


def beep_bytes(times: int, tenths: int = 2) -> bytes:
    """ESC B: the buzzer of the Chinese makers' printers, 1 to 9 times; others take it for nothing."""
    assert 1 <= times <= 9, times
    return b"\x1bB" + bytes([times, tenths])


def _two_ms(ms: int) -> int:
    return max(1, min(255, ms // 2))


def raster_strips(rows: bytes, row_bytes: int, strip_rows: int = 0) -> list[bytes]:
    """GS v 0 strips of a 1-bit image, 1 = black, `row_bytes` bytes a row, most significant bit left.

    A pair of bytes that a printer could obey as a real-time command loses one dot.  Short strips, because cheap
    printers overrun a buffer of about 4 kB and print the rest of the image as text; of RASTER_BYTES_MAX unless told.
    """
    strip_rows = strip_rows or max(1, RASTER_BYTES_MAX // row_bytes)
    assert row_bytes > 0 and len(rows) % row_bytes == 0, (row_bytes, len(rows))
    assert 0 < strip_rows < 0x400, strip_rows
    strips = []
    for start in range(0, len(rows), row_bytes * strip_rows):
        data = rows[start:start + row_bytes * strip_rows]
        for command in REAL_TIME:
            data = data.replace(command, b"\x00" + command[1:])
        head = b"\x1dv0\x00" + row_bytes.to_bytes(2, "little") + (len(data) // row_bytes).to_bytes(2, "little")
        strips.append(head + data)
    return strips


# --- text -------------------------------------------------------------------------------------------------------------

def clean(text: str, charset: str = "gbk") -> str:
    """`text` as GBK can carry it: controls, bidi marks and joiners gone, look-alikes put in, "?" for what is left.

    Tabs and newlines become a space.  The result encodes to GBK without error and has no byte below 0x20, no 0x7F.
    """
    return "".join(_shown(char, charset) for char in unicodedata.normalize("NFC", text))


def visible(text: str) -> str:
    """`text` without what must not reach a printer, and with everything that it may lack."""
    return "".join(map(_visible, unicodedata.normalize("NFC", text)))


def _shown(char: str, charset: str) -> str:
    char = SUBSTITUTES.get(char, _visible(char)) if charset in GB else _visible(char)
    if not char or fits(char, charset):
        return char
    plain = "".join(c for c in unicodedata.normalize("NFKD", char) if unicodedata.category(c) != "Mn")
    if plain != char and plain.isprintable() and fits(plain, charset):
        return plain                                                  # a letter without the accent that GBK lacks
    return "" if unicodedata.category(char) == "Mn" else "?"


def _visible(char: str) -> str:
    """`char`, or nothing for C0, C1, DEL, bidi and other format characters, or a space for white space."""
    if char in "\t\n\r\v\f\x85\u2028\u2029":
        return " "
    return "" if unicodedata.category(char) in ("Cc", "Cf") else char


def fits(text: str, charset: str) -> bool:
    """Whether a printer of this character set has every character of `text`; "" has none."""
    try:
        data = text.encode(charset) if charset else b"\0"
    except UnicodeEncodeError:
        return False
    return all(0x20 <= b != 0x7F for b in data) and (charset != "gb18030" or max(text, default="") <= "\uffff")


GB = ("gbk", "gb18030")


def width(text: str, charset: str = "gbk") -> int:
    """Columns that clean `text` takes: 1 for ASCII, 2 for everything else; of a Western character set, 1 for all that it has."""
    if charset == "gbk":
        return len(text.encode("gbk"))
    narrow = charset not in GB
    return sum(1 if c < "\x7f" or narrow and unicodedata.east_asian_width(c) not in "WF" else 2 for c in text)


def wrapped(text: str, columns: int, charset: str = "gbk") -> list[str]:
    """Clean `text` in lines of at most `columns`; breaks at a space where one stands in the right half, else anywhere.

    A two-column character never straddles the edge.  At least one line, so that an empty text feeds one.
    """
    lines, line, used = [], "", 0
    for char in text:
        wide = width(char, charset)
        if used + wide > columns:
            head, space, tail = line.rpartition(" ")
            if char == " ":
                lines.append(line)
                line, used = "", 0
                continue                                              # the break takes the space's place
            if space and width(head, charset) > columns // 2 and tail.isascii() and char.isascii():
                lines.append(head)
                line, used = tail, width(tail, charset)
            else:
                lines.append(line)
                line, used = "", 0
        line, used = line + char, used + wide
    return [*lines, line]


def paired(left: str, right: str, columns: int, charset: str = "gbk") -> list[str]:
    """Clean `left` and `right` on one line; a long left side is wrapped first, a right side without room goes below."""
    lines = wrapped(left, columns, charset)
    room = columns - width(lines[-1], charset) - width(right, charset)
    if right and room >= 1:
        lines[-1] += " " * room + right
    elif right:
        lines += [" " * (columns - width(part, charset)) + part for part in wrapped(right, columns, charset)]
    return lines


# --- status -----------------------------------------------------------------------------------------------------------

def status_query(n: int) -> bytes:
    """DLE EOT n: 1 printer, 2 off-line cause, 3 error, 4 paper.  Answered at once, also off-line or busy."""
    assert n in (1, 2, 3, 4), n
    return b"\x10\x04" + bytes([n])


def id_query(number: int) -> bytes:
    """GS ( H function 48: the printer answers with this number once everything before it stands on paper."""
    return b"\x1d(H\x06\x0000" + id_digits(number)


def id_digits(number: int) -> bytes:
    """Four printable bytes of `number`: digits, so a printer that does not know the command prints nothing worse."""
    return b"%04d" % (number % 10_000)


class Reply(msgspec.Struct, frozen=True):
    """One thing that a printer said.

    `kind`: `eot` (answer to DLE EOT), `queued` (to GS r), `asb` (four bytes unasked), `id` (to GS ( H, four bytes),
    `block` (other text up to its NUL), `xon`, `xoff`, `noise` (bytes that fit nothing).
    """

    kind: str
    data: bytes

    @property
    def byte(self) -> int:
        return self.data[0]


BLOCK_LEADS = b"\x37\x3d\x5f"
BLOCK_LEN_MAX = 80


class StatusReader:
    """A printer's bytes in, replies out; tells the four families apart by their fixed bits.  Never raises.

    Source: ESC/POS command reference, "Differentiation of transmission data".
    """

    def __init__(self) -> None:
        self._part = bytearray()

    def feed(self, byte: int) -> list[Reply]:
        """Replies that this byte completes: none, one, or noise and one when it breaks off an unfinished one."""
        part = self._part
        if not part:
            return self._start(byte)
        if part[0] in BLOCK_LEADS:
            fits = byte == 0 or (0x20 <= byte <= 0x7E and len(part) < BLOCK_LEN_MAX)
        else:
            fits = byte & 0x90 == 0
        if not fits:
            broken = [Reply("noise", bytes(part))]
            part.clear()
            return broken + self._start(byte)
        part.append(byte)
        return self._finished()

    def feed_all(self, data: bytes) -> list[Reply]:
        """The same for many bytes."""
        return [reply for byte in data for reply in self.feed(byte)]

    def drop(self) -> None:
        """Forget a half reply, before a new question."""
        self._part.clear()

    def _start(self, byte: int) -> list[Reply]:
        one = bytes([byte])
        if byte == 0x11:
            return [Reply("xon", one)]
        if byte == 0x13:
            return [Reply("xoff", one)]
        if byte & 0x93 == 0x12:
            return [Reply("eot", one)]
        if byte in BLOCK_LEADS or byte & 0x93 == 0x10:
            self._part += one
            return []
        return [Reply("queued" if byte & 0x90 == 0 else "noise", one)]

    def _finished(self) -> list[Reply]:
        part = bytes(self._part)
        if part[0] in BLOCK_LEADS:
            if part[-1] != 0:
                return []
            kind = "id" if part[:2] == b"\x37\x22" and len(part) == 7 else "block"
            data = part[2:6] if kind == "id" else part
        elif len(part) == 4:
            kind, data = "asb", part
        else:
            return []
        self._part.clear()
        return [Reply(kind, data)]


def ill(n: int, byte: int) -> tuple[str, str] | None:
    """What answer `byte` to DLE EOT `n` complains of, as (word, sentence), or None.

    Words: `off cover_open paper_out cutter hot error`; near end is no complaint, see `paper_low`.
    """
    return next(((word, why) for mask, word, why in COMPLAINTS[n] if byte & mask), None)


COMPLAINTS: dict[int, tuple[tuple[int, str, str], ...]] = {
    1: ((0x08, "off", "The printer is off-line."),),
    2: ((0x04, "cover_open", "The printer's cover is open."), (0x20, "paper_out", "The printer has no paper."),
        (0x40, "error", "The printer reports an error.")),
    3: ((0x08, "cutter", "The printer's cutter is jammed."),
        (0x20, "error", "The printer reports a fault it cannot clear."),
        (0x40, "hot", "The printer's head is too hot."), (0x04, "error", "The printer waits after an error.")),
    4: ((0x60, "paper_out", "The printer has no paper."),),
}


def model_of(block: bytes) -> str:
    """The name in a reply to GS I 67, "" when it holds none."""
    return block.strip(b"_\0").decode("ascii", "replace").strip()


def paper_low(byte: int) -> bool:
    """True when answer `byte` to DLE EOT 4 says that the roll is near its end."""
    return bool(byte & 0x0C)


def queued_paper_out(byte: int) -> bool:
    """True when answer `byte` to GS r 1 says that the paper has ended."""
    return bool(byte & 0x0C == 0x0C)


def lines_about(data: bytes) -> int:
    """Roughly how many lines `data` puts on paper; a QR counts as sixteen.  For how long a printer may take."""
    return data.count(b"\n") + 16 * data.count(b"1Q0")
