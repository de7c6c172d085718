"""UnionPay's settlement file: base64 text in, rows out.

`fileContent` is base64 of zlib of a ZIP; in it `INN<YYMMDD>..ZM_<merId>` lists payments and refunds, one a line, in columns of
fixed width with a byte between them, GBK, no header and no sums.  The settlement day ends at about 23:00, so its rows begin the
evening before.  Source: UnionPay's file description as its demo code reads it; column numbers are its own.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import zipfile
import zlib

from device.drivers.channels.codec_bytes import BillRow

WIDTHS = (3, 11, 11, 6, 10, 19, 12, 4, 2, 21, 2, 32, 2, 6, 10, 13, 13, 4, 15, 2, 2, 6, 2, 4, 32, 1, 21, 15, 1, 15, 32, 13, 13, 8,
          32, 13, 13, 12, 2, 1)      # columns 1 to 40; what follows differs between releases of the file
SALE_WIDTH = 32                      # of column 41, the order that a refund pays back, where a release has it
KINDS = {"01": "paid", "04": "refund", "31": "refund", "99": "refund"}      # sale, refund, void, reversal
FILE_BYTES_MAX = 64 * 1024 * 1024
ROWS_MAX = 100_000


def unpacked(content: str, *, day: str, merchant: str) -> bytes:
    """The list of payments in a reply's `fileContent`, of settlement day `day` (YYYY-MM-DD).  ValueError, one sentence."""
    try:
        inflate = zlib.decompressobj()
        packed = inflate.decompress(base64.b64decode(content, validate=True), FILE_BYTES_MAX)
        if not inflate.eof:
            raise ValueError("the file is cut off, or larger than any day")
        archive = zipfile.ZipFile(io.BytesIO(packed))
        names = [n for n in archive.namelist() if re.fullmatch(r"INN\d{6}\w{2}ZM_\d+", n.rpartition("/")[2])]
        if len(names) != 1:
            raise ValueError("the file holds no list of payments, or several")
        name = names[0].rpartition("/")[2]
        if name[3:9] != day[2:4] + day[5:7] + day[8:10] or name.partition("_")[2] != merchant:
            raise ValueError("the list is of another day or another merchant")
        if archive.getinfo(names[0]).file_size > FILE_BYTES_MAX:
            raise ValueError("the list is larger than any day")
        return archive.read(names[0])
    except (binascii.Error, zlib.error, zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as why:
        raise ValueError(f"the file cannot be unpacked ({type(why).__name__})") from None


def rows_of(table: bytes, *, day: str) -> tuple[BillRow, ...]:
    """The rows of a list of settlement day `day`.  ValueError, one sentence, for a list that cannot be trusted.

    A refund stands under the order it pays back: by the sale's row, or by its own column where the sale is another day's; else
    under none.
    """
    lines = [(n, line) for n, line in enumerate(table.splitlines(), 1) if line.strip()]
    if len(lines) > ROWS_MAX:
        raise ValueError("the list is longer than any day")
    cut = [(n, _cells(n, line)) for n, line in lines]
    sold = {cells[10]: cells[12] for _, cells in cut if KINDS.get(cells[20]) == "paid"}
    rows = tuple(_row(n, cells, sold, day) for n, cells in cut)
    keys = [(row.kind, row.refund_no or row.order_no, row.at) for row in rows]
    if len(set(keys)) < len(keys):
        raise ValueError("the list names one payment twice")
    return rows


def _cells(n: int, line: bytes) -> dict[int, str]:
    """Columns by their number, 1 to 40: bytes are cut, then decoded."""
    cells, at = {}, 0
    if len(line) < sum(WIDTHS) + len(WIDTHS) - 1:
        raise ValueError(f"line {n} of the list is too short")
    for number, width in enumerate(WIDTHS, 1):
        try:
            cells[number] = line[at:at + width].decode("gbk").strip()
        except UnicodeDecodeError:
            raise ValueError(f"column {number} in line {n} of the list is no text") from None
        at += width + 1
    sale = line[at:at + SALE_WIDTH].strip()
    cells[41] = sale.decode("ascii") if sale.isalnum() and sale.isascii() else ""
    return cells


def _row(n: int, cells: dict[int, str], sold: dict[str, str], day: str) -> BillRow:
    kind = KINDS.get(cells[20])
    if kind is None:
        raise ValueError(f"line {n} of the list is of a kind we do not know")
    if not (cells[7].isdigit() and re.fullmatch(r"\d{10}", cells[5]) and re.fullmatch(r"[CD]\d{12}|", cells[16])
            and cells[12].isalnum()):
        raise ValueError(f"line {n} of the list lacks number, time, amount or fee")
    fee = int(cells[16][1:] or 0) * 1000 * (-1 if cells[16].startswith("C") else 1)
    at, amount_fen = _moment(n, cells[5], day), int(cells[7])
    if kind == "paid":
        return BillRow("paid", cells[12], amount_fen, at, cells[10], "", fee, cells[1])
    return BillRow("refund", sold.get(cells[27], cells[41]), amount_fen, at, cells[10], cells[12], fee, cells[1])


def _moment(n: int, text: str, day: str) -> str:
    """MMDDhhmmss has no year: it is the settlement day's, or that of the month beside it at the turn of a year."""
    year = int(day[:4]) - (text[:2] == "12" and day[5:7] == "01") + (text[:2] == "01" and day[5:7] == "12")
    at = f"{year:04d}-{text[:2]}-{text[2:4]}T{text[4:6]}:{text[6:8]}:{text[8:10]}+08:00"
    if not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d\+08:00", at):
        raise ValueError(f"line {n} of the list carries no time")
    return at
