"""What two rows of twenty, or eight digits and a light, say of a screen.  Knows the screen's fields; no command and no port.

A pole has no room for sentences: each phase has its own two short rows, and the sum always stands on one of them.
"""

from __future__ import annotations

from device.drivers.display.pole_bytes import COLUMNS, Glass, sayable, width
from device.txn.screen import Screen

# Each row of words in Chinese (on a pole that can) and English; sixteen cells at most, where a sum stands beside them.
WORDS: dict[str, tuple[str, str]] = {
    "welcome": ("欢迎光临", "WELCOME"),
    "cash_only": ("暂时只收现金", "CASH ONLY FOR NOW"),
    "cash_only_too": ("CASH ONLY FOR NOW", "NO WALLETS NOW"),
    "item": ("商品", "ITEM"),
    "total": ("合计", "TOTAL"),
    "moment": ("请稍候", "ONE MOMENT"),
    "scan": ("请扫码付款", "SCAN QR"),
    "confirm": ("请确认付款", "CONFIRM TO PAY"),
    "due": ("应付", "TO PAY"),
    "checking": ("正在查询付款", "CHECKING PAYMENT"),
    "not_again": ("请勿重复付款", "DO NOT PAY AGAIN"),
    "paid": ("付款成功", "PAID"),
    "change": ("找零", "CHANGE"),
    "thanks": ("谢谢惠顾", "THANK YOU"),
    "refund": ("退款", "REFUND"),
    "wait": ("处理中", "IN PROGRESS"),
    "refunded": ("已退款", "REFUNDED"),
    "out_of_order": ("暂停收银", "OUT OF ORDER"),
    "training": ("训练模式", "TRAINING"),
}
OUT_OF_ORDER = ("暂停收银", "Out of order")           # how the daemon's last words begin


def glass_of(screen: Screen, left_s: int | None, charset: str = "ascii") -> Glass:
    """The glass of `screen`; `left_s` whole seconds to its deadline, None without one."""
    zh = charset == "gbk" and screen.lang == "zh"
    sum_ = _sum(screen)

    def say(key: str) -> str:
        return WORDS[key][0 if zh else 1]

    top, bottom, light = "", "", ""
    match screen.phase:
        case "BASKET":
            top, bottom, light = _newest(screen, charset, say("item")), _beside(say("total"), sum_, charset), "total"
        case "PLACING":
            top, bottom, light = say("moment"), _beside(say("due"), sum_, charset), "total"
        case "AWAITING":
            clock = "" if left_s is None else f"{left_s // 60}:{left_s % 60:02d}"
            word = screen.words[0 if zh else 1] if screen.words else ""
            top = _beside(say("scan"), word, charset) if screen.qr else say("confirm")
            bottom, light = _beside(sum_, clock, charset), "total"
        case "CANCELLING":
            top, bottom = say("checking"), say("not_again")
        case "PAID":
            change = _yuan(screen.change_fen) if screen.change_fen else ""
            top = _beside(say("paid"), sum_, charset)
            bottom = _beside(say("change"), change, charset) if change else say("thanks")
            light = "change" if change else "paid"
            sum_ = change or sum_
        case "REFUNDING":
            top, bottom = _beside(say("refund"), sum_ if screen.big else "", charset), say("wait") if screen.big else ""
        case _ if screen.big and screen.tone == "good":
            top = _beside(say("refunded"), sum_, charset)
        case _ if screen.big:
            top = _middle(screen.big if sayable(screen.big, charset) else "", charset)
        case _ if screen.tone == "wait":
            top, sum_ = _middle(say("moment"), charset), ""
        case _ if screen.title.startswith(OUT_OF_ORDER):
            top, sum_ = _middle(say("out_of_order"), charset), ""
        case _:
            sum_ = "0.00"
            top, bottom = (say("cash_only"), say("cash_only_too")) if screen.cash_only else (
                _middle(screen.title if sayable(screen.title, charset) else "", charset), _middle(say("welcome"), charset))
    if screen.training:
        top = _beside(say("training"), "" if screen.phase == "IDLE" else _right_of(top), charset)
    return Glass(top, bottom, sum_, light)


def _newest(screen: Screen, charset: str, item: str) -> str:
    """The price line: the newest goods and their amount."""
    if not screen.lines:
        return ""
    line = screen.lines[-1]
    name = next((name for name in (line.name, line.other) if name and sayable(name, charset)),
                f"{item} {max(screen.lines_total, len(screen.lines))}")
    many = f" x{line.qty}" if line.qty.isdigit() and line.qty != "1" else ""
    amount, name = _yuan(line.amount_fen), name.strip()
    while name and width(name + many, charset) > COLUMNS - len(amount) - 1:
        name = name[:-1]
    return _beside(name + many, amount, charset)


def _beside(left: str, right: str, charset: str) -> str:
    """`left` at the left edge and `right` at the right one; what is too long loses its left end's tail, never a digit."""
    while left and width(left, charset) + len(right.encode("gbk", "replace")) + bool(right) > COLUMNS:
        left = left[:-1]
    return left + " " * (COLUMNS - width(left, charset) - width(right, charset)) + right


def _right_of(row: str) -> str:
    """What stands at the right edge of `row`, a sum or a word to compare; "" where it is one sentence."""
    _, gap, right = row.rpartition("  ")
    last = row.rpartition(" ")[2]
    return right if gap and row.strip() != right else last if last.lstrip("-").replace(".", "").isdigit() else ""


def _middle(text: str, charset: str) -> str:
    return " " * (max(0, COLUMNS - width(text, charset)) // 2) + text


def _sum(screen: Screen) -> str:
    plain = screen.big.replace("¥", "")
    return plain if plain.lstrip("-").replace(".", "").isdigit() else _yuan(screen.total_fen)


def _yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{abs(fen) // 100}.{abs(fen) % 100:02d}"
