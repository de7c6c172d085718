"""Alipay's business bill: the ZIP's bytes in, rows out.

GBK text in GBK-named members; values stand by header name, text cells end with a tab.  Sizes are bounded before and while
unpacking.  Source: Alipay open documentation, business bill (type trade).
"""

from __future__ import annotations

import csv
import io
import re
import struct
import zipfile
import zlib

from device.drivers.channels.codec_bytes import BillRow

MEMBERS_MAX = 20
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
_KINDS = {"交易": "paid", "退款": "refund"}
_NEEDED = ("支付宝交易号", "商户订单号", "业务类型", "完成时间", "订单金额（元）", "商家实收（元）",
           "退款批次号/请求号", "服务费（元）")
_AT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_SINCE = re.compile(r"#起始日期：\[(\d{4})年(\d\d)月(\d\d)日 00:00:00\]")
_SUM = re.compile(r"#(交易|退款)合计：(\d{1,9})笔，商家实收(?:退款)?共(-?\d{1,12}\.\d\d)元")


def rows_of(packed: bytes, *, day: str) -> tuple[BillRow, ...]:
    """The bill's rows; each file's own sums must agree with them, and all lie on `day` (YYYY-MM-DD).

    ValueError, one sentence, for one not to be trusted.
    """
    try:
        texts = _texts(packed)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, struct.error, UnicodeError):
        raise ValueError("the bill is no readable ZIP of GBK text") from None
    if not texts[0]:
        raise ValueError("the bill's ZIP holds no detail file")
    details, summaries = texts
    for text in details:
        since = _SINCE.search(text)
        if since is None or "-".join(since.groups()) != day:         # an empty bill says its day nowhere else
            raise ValueError("the bill is of another day")
    rows = tuple(row for text in details for row in _rows(text))
    for text in summaries:
        _agree(text, rows)
    if any(row.at[:10] != day for row in rows):
        raise ValueError("the bill holds a row of another day")
    return rows


def _texts(packed: bytes) -> tuple[list[str], list[str]]:
    """The details' texts and the summaries'."""
    texts: tuple[list[str], list[str]] = ([], [])
    left = UNPACKED_BYTES_MAX
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = archive.infolist()
        if len(members) > MEMBERS_MAX:
            raise ValueError(f"the bill's ZIP holds {len(members)} files, more than {MEMBERS_MAX}")
        for member in members:
            name = member.filename if member.flag_bits & 0x800 else member.filename.encode("cp437").decode("gb18030")
            if "业务明细" not in name:
                continue
            content = _inflated(packed, member, left + 1)
            left -= len(content)
            if left < 0:
                raise ValueError("the bill's ZIP unpacks to more than we take")
            if zlib.crc32(content) != member.CRC:
                raise zipfile.BadZipFile
            texts["汇总" in name].append(content.decode("gb18030"))
    return texts


def _inflated(packed: bytes, member: zipfile.ZipInfo, bytes_max: int) -> bytes:
    """At most `bytes_max` bytes of a member; the library's own reading believes the size the file claims."""
    name_len, extra_len = struct.unpack_from("<HH", packed, member.header_offset + 26)
    start = member.header_offset + 30 + name_len + extra_len
    content = packed[start:start + member.compress_size]
    if member.compress_type == zipfile.ZIP_DEFLATED:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, bytes_max)
    if member.compress_type != zipfile.ZIP_STORED:
        raise NotImplementedError
    return content


def _rows(text: str) -> list[BillRow]:
    head: list[str] = []
    rows: list[BillRow] = []
    received = {"交易": [0, 0], "退款": [0, 0]}
    told: dict[str, list[int]] = {}
    for n, line in enumerate(text.split("\n"), 1):
        if line.startswith("#"):
            if (found := _SUM.match(line)):
                told[found[1]] = [int(found[2]), _fen(n, found[3])]
            continue
        if not line.strip():
            continue
        cells = _cells(line)
        if not head:
            head = cells
            if missing := [name for name in _NEEDED if name not in head]:
                raise ValueError(f"the bill has no column {missing[0]}")
            continue
        if len(cells) != len(head):
            raise ValueError(f"line {n} of the bill has {len(cells)} values, not {len(head)}")
        cell = dict(zip(head, cells, strict=True))
        rows.append(_row(n, cell))
        tally = received[cell["业务类型"]]
        tally[0] += 1
        tally[1] += _fen(n, cell["商家实收（元）"])
    if told != received:
        raise ValueError("the bill's own sums do not agree with its rows")
    return rows


def _agree(summary: str, rows: tuple[BillRow, ...]) -> None:
    """A summary that has a last line of sums must agree: the details' own sums leave out what was ordered."""
    lines = [_cells(line) for line in summary.split("\n") if line.strip() and not line.startswith("#")]
    whole = next((cells for cells in lines if cells[0] == "合计"), None)
    if whole is None:
        return
    told = dict(zip(lines[0], whole, strict=False))
    paid, back = ([row for row in rows if row.kind == kind] for kind in ("paid", "refund"))
    ordered_fen = sum(row.amount_fen for row in paid) - sum(row.amount_fen for row in back)
    if ((told.get("交易订单总笔数"), told.get("退款订单总笔数")) != (str(len(paid)), str(len(back)))
            or _fen(0, told.get("订单金额（元）", "")) != ordered_fen):
        raise ValueError("the bill's summary does not agree with its rows")


def _cells(line: str) -> list[str]:
    """The cells of one line.  ValueError for what is no CSV: a shop's own words stand in it, a lone carriage return too."""
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error:
        raise ValueError("the bill holds a line that is no CSV") from None


def _row(n: int, cell: dict[str, str]) -> BillRow:
    if not _AT.fullmatch(cell["完成时间"]):
        raise ValueError(f"line {n} of the bill carries no time")
    kind = _KINDS.get(cell["业务类型"])
    if kind is None:
        raise ValueError(f"line {n} of the bill names a kind we do not know")
    amount_fen = _fen(n, cell["订单金额（元）"]) * (-1 if kind == "refund" else 1)
    if amount_fen < 0:
        raise ValueError(f"line {n} of the bill has an amount of the wrong sign")
    return BillRow(kind, cell["商户订单号"], amount_fen, cell["完成时间"].replace(" ", "T") + "+08:00", cell["支付宝交易号"],
                   cell["退款批次号/请求号"] if kind == "refund" else "", _fen(n, cell["服务费（元）"]) * 1000, cell["业务类型"])


def _fen(n: int, text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,12}\.[0-9]{2}", text):
        raise ValueError(f"line {n} of the bill holds no amount where one should be")
    return int(text.replace(".", ""))
