"""WeChat Pay's trade bill: the file's text in, rows out.

Values stand by header name, each after a backtick; free text may hold commas, so cells are parted at comma and backtick.
Source: WeChat Pay merchant documentation, trade bill (type ALL).
"""

from __future__ import annotations

import re

from device.drivers.channels.codec_bytes import BillRow

ROWS_MAX = 200_000
_NEEDED = ("交易时间", "微信订单号", "商户订单号", "交易状态", "订单金额", "商户退款单号", "申请退款金额", "手续费")
FAILED = ("FAIL", "CHANGE")                              # 退款状态: nothing reached the payer, and the money is the shop's again
_SUMS = ("总交易单数", "订单总金额", "申请退款总金额")
_AT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def rows_of(text: str, mchid: str = "", sub_mchid: str = "") -> tuple[BillRow, ...]:
    """The bill's rows; its own sums must agree with them.  ValueError, one sentence, for a file that cannot be trusted.

    `mchid` and `sub_mchid`, where given, are whose rows alone may stand in it.
    """
    lines = text.removeprefix("﻿").replace("\r\n", "\n").rstrip("\n").split("\n")
    if len(lines) < 3 or len(lines) > ROWS_MAX:
        raise ValueError("the bill has no header, rows and sums")
    head = lines[0].split(",")
    if missing := [name for name in _NEEDED if name not in head]:
        raise ValueError(f"the bill has no column {missing[0]}")
    cut = [(n, dict(zip(head, _cells(n, line, len(head)), strict=True))) for n, line in enumerate(lines[1:-2], 2)]
    for names, number in ((("商户号",), mchid), (("特约商户号", "子商户号"), sub_mchid)):
        if number and any(cell.get(name, number) != number for _, cell in cut for name in names):
            raise ValueError("the bill is another merchant's")
    rows = tuple(_row(n, cell) for n, cell in cut)
    _check_sums(rows, dict(zip(lines[-2].split(","), _cells(len(lines), lines[-1], len(lines[-2].split(","))), strict=True)))
    return rows


def _cells(n: int, line: str, count: int) -> list[str]:
    cells = line.removeprefix("`").split(",`")
    if not line.startswith("`") or len(cells) != count:
        raise ValueError(f"line {n} of the bill has {len(cells)} values, not {count}")
    return cells


def _row(n: int, cell: dict[str, str]) -> BillRow:
    if not _AT.fullmatch(cell["交易时间"]):
        raise ValueError(f"line {n} of the bill carries no time")
    at = cell["交易时间"].replace(" ", "T") + "+08:00"
    state = cell["交易状态"]
    fee = _scaled(n, cell["手续费"], 5)                      # yuan with five decimals: thousandths of a fen
    if state == "SUCCESS":
        return BillRow("paid", cell["商户订单号"], _scaled(n, cell["订单金额"], 2), at, cell["微信订单号"], "", fee, state)
    if state in ("REFUND", "REVOKED"):
        return BillRow("refund", cell["商户订单号"], _scaled(n, cell["申请退款金额"], 2), at, cell["微信订单号"],
                       cell["商户退款单号"], fee, state, cell.get("退款状态", "") in FAILED)
    raise ValueError(f"line {n} of the bill names a state we do not know")


def _scaled(n: int, text: str, decimals: int) -> int:
    if not re.fullmatch(rf"-?\d{{1,12}}\.\d{{{decimals}}}", text):
        raise ValueError(f"line {n} of the bill holds no amount where one should be")
    return int(text.replace(".", ""))


def _check_sums(rows: tuple[BillRow, ...], told: dict[str, str]) -> None:
    if missing := [name for name in _SUMS if name not in told]:
        raise ValueError(f"the bill's sums have no column {missing[0]}")
    count = int(told["总交易单数"].removesuffix(".0")) if told["总交易单数"].removesuffix(".0").isdigit() else -1
    ours = (len(rows), sum(r.amount_fen for r in rows if r.kind == "paid"), sum(r.amount_fen for r in rows if r.kind == "refund"))
    if ours != (count, _scaled(0, told["订单总金额"], 2), _scaled(0, told["申请退款总金额"], 2)):
        raise ValueError("the bill's own sums do not agree with its rows")
