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

from device.drivers.channel_bytes import BillRow

MEMBERS_MAX = 20
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
_KINDS = {"交易": "paid", "退款": "refund"}
_NEEDED = ("支付宝交易号", "商户订单号", "业务类型", "完成时间", "订单金额（元）", "商家实收（元）",
           "退款批次号/请求号", "服务费（元）")
_AT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
_SUM = re.compile(r"#(交易|退款)合计：(\d{1,9})笔，商家实收(?:退款)?共(-?\d{1,12}\.\d\d)元")


def rows_of(packed: bytes) -> tuple[BillRow, ...]:
    """The bill's rows; each file's own sums must agree with them.  ValueError, one sentence, for one not to be trusted."""
    try:
        texts = _texts(packed)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, struct.error, UnicodeError):
        raise ValueError("the bill is no readable ZIP of GBK text") from None
    if not texts:
        raise ValueError("the bill's ZIP holds no detail file")
    return tuple(row for text in texts for row in _rows(text))


def _texts(packed: bytes) -> list[str]:
    texts, left = [], UNPACKED_BYTES_MAX
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        members = archive.infolist()
        if len(members) > MEMBERS_MAX:
            raise ValueError(f"the bill's ZIP holds {len(members)} files, more than {MEMBERS_MAX}")
        for member in members:
            name = member.filename if member.flag_bits & 0x800 else member.filename.encode("cp437").decode("gb18030")
            if "业务明细" not in name or "汇总" in name:
                continue
            content = _inflated(packed, member, left + 1)
            left -= len(content)
            if left < 0:
                raise ValueError("the bill's ZIP unpacks to more than we take")
            if zlib.crc32(content) != member.CRC:
                raise zipfile.BadZipFile
            texts.append(content.decode("gb18030"))
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
        cells = [cell.strip() for cell in next(csv.reader([line]))]
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
