"""UnionPay's rules for QR payments (ACP 5.1.0), without a wire.

Knows orders by number and time, payers' wallets and codes, refunds, voids and the settlement file; time is handed in and moved by
whoever owns it.  Refuses to know forms and signatures: `unionpay_server.py` adds them.
Source: UnionPay ACP documents and demo code.  Guesses: that an unpaid QR is "no such order" (34) to a query, which code a spoilt
payer's code gets (61 unknown, 73 too old), what a payer who walks away ends in (71), and that reversal 99/01 is refused (32).
"""

from __future__ import annotations

import base64
import datetime
import io
import random
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

SECOND_MS, MINUTE_MS, DAY_MS = 1_000, 60_000, 86_400_000
QR_LIFE_MS = DAY_MS
CODE_LIFE_MS = MINUTE_MS
PAYER_MS = MINUTE_MS                   # a payer who is asked for a password and says nothing
REFUND_WINDOW_MS = 30 * DAY_MS
FILE_READY_MS = 9 * 60 * MINUTE_MS     # of the day after
CLEARING_H = 23                        # the settlement day ends an hour before midnight
FEE_MILLI = 4
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
OUTCOMES = ("pay", "abandon", "insufficient", "slow")
ZM_WIDTHS = (3, 11, 11, 6, 10, 19, 12, 4, 2, 21, 2, 32, 2, 6, 10, 13, 13, 4, 15, 2, 2, 6, 2, 4, 32, 1, 21, 15, 1, 15, 32, 13, 13, 8,
             32, 13, 13, 12, 2, 1, 32, 98)
FORMS = {"merId": r"\d{15}", "orderId": r"[0-9A-Za-z]{8,40}", "txnTime": r"\d{14}", "txnAmt": r"[1-9]\d{0,11}", "qrNo": r"\d{19}",
         "origQryId": r"\d{21}", "currencyCode": "156", "termId": r"[0-9A-Za-z]{8}", "backUrl": r"https?://\S+",
         "settleDate": r"\d{4}", "fileType": "00"}
BACK = ("orderId", "txnTime", "txnAmt", "origQryId", "backUrl")
NEEDS = {("01", "07"): ("orderId", "txnTime", "txnAmt", "currencyCode", "backUrl"),
         ("01", "06"): ("orderId", "txnTime", "txnAmt", "currencyCode", "backUrl", "qrNo", "termId"),
         ("00", "00"): ("orderId", "txnTime"), ("04", "00"): BACK, ("31", "00"): BACK, ("99", "01"): ("orderId", "txnTime"),
         ("76", "01"): ("txnTime", "settleDate", "fileType")}
MESSAGES = {"00": "成功[0000000]", "04": "交易状态未明[04]", "05": "交易已受理，请稍后查询[05]", "34": "查无此交易[2600000]"}

Fields = dict[str, str]


class Trade(msgspec.Struct):
    """One order or one giving back: everything under one number *and* time is one trade."""

    order_no: str
    txn_time: str
    kind: str                          # qr, code, refund, void
    amount_fen: int
    made_ms: int
    result: str = "34"                 # what a query says: 34 while nobody paid, 05 while a payer is asked, 00 paid
    query_id: str = ""
    qr: str = ""
    wallet: str = ""
    pays_ms: int | None = None
    ends_ms: int | None = None
    paid_ms: int = 0
    origin: Trade | None = None        # what is given back
    backs: list[Trade] = []

    def back_fen(self) -> int:
        return sum(b.amount_fen for b in self.backs)


class Code(msgspec.Struct):
    """A payer's code: what its payer does when it is charged, and whether it was."""

    until_ms: int
    outcome: str = "pay"
    slow_s: float = 30
    used: bool = False


class UnionpayRules:
    """UnionPay towards one merchant.  `now_ms` Unix milliseconds; `refund_after_ms` how long a refund stays accepted (05).

    `spent` are the payers' codes that were charged, here or wherever else the same set is known.
    """

    channel = "unionpay"

    def __init__(self, now_ms: Callable[[], int], *, merchant: str = "777290058110048", seed: int = 0) -> None:
        self.merchant, self.refund_after_ms = merchant, MINUTE_MS
        self._now_ms, self._random, self._count = now_ms, random.Random(seed), 0
        self._trades: dict[tuple[str, str], Trade] = {}
        self._by_query_id: dict[str, Trade] = {}
        self._qrs: dict[str, Trade] = {}
        self._codes: dict[str, Code] = {}
        self.spent: set[str] = set()

    def answer(self, asked: Fields) -> Fields:
        """The reply's own fields, `respCode` among them, to a request whose proof holds."""
        self._settle()
        call = (asked.get("txnType", ""), asked.get("txnSubType", ""))
        if call not in NEEDS or any(not asked.get(name) for name in ("merId", "bizType", "accessType", *NEEDS[call])):
            return said("13")
        if any(name in asked and not re.fullmatch(form, asked[name]) for name, form in FORMS.items()):
            return said("10")
        if asked["merId"] != self.merchant:
            return said("31")
        match call:
            case ("00", "00"):
                return self._query(asked)
            case ("76", "01"):
                return self._file(asked)
            case ("99", "01"):
                return said("32")
        if (asked["orderId"], asked["txnTime"]) in self._trades:
            return said("12")
        return self._place(asked) if call == ("01", "07") else self._charge(asked) if call == ("01", "06") else self._back(asked)

    def _made(self, asked: Fields, kind: str) -> Trade:
        trade = Trade(asked["orderId"], asked["txnTime"], kind, int(asked["txnAmt"]), self._now_ms())
        self._trades[trade.order_no, trade.txn_time] = trade
        return trade

    def _place(self, asked: Fields) -> Fields:
        trade = self._made(asked, "qr")
        trade.qr = f"https://qr.95516.com/00010000/62{self._random.randrange(10 ** 26):026d}"
        self._qrs[trade.qr] = trade
        return said("00", qrCode=trade.qr)

    def _charge(self, asked: Fields) -> Fields:
        code = self._codes.get(asked["qrNo"])
        if code is None or asked["qrNo"] in self.spent or self._now_ms() >= code.until_ms:
            return said("61" if code is None else "73")
        code.used, trade = True, self._made(asked, "code")
        self.spent.add(asked["qrNo"])
        self._act(trade, code.outcome, code.slow_s)
        return said("00")

    def _query(self, asked: Fields) -> Fields:
        trade = self._trades.get((asked["orderId"], asked["txnTime"]))
        if trade is None or trade.result == "34":
            return said("34")
        more = {"queryId": trade.query_id, "traceNo": f"{self._count:06d}"} if trade.query_id else {}
        return said("00", origRespCode=trade.result, origRespMsg=MESSAGES.get(trade.result, "失败"), currencyCode="156",
                    txnAmt=str(trade.amount_fen), accNo="6226********0001", payCardType="01", **more)

    def _back(self, asked: Fields) -> Fields:
        """A refund, whole or in part; or a void: whole, and on the same settlement day."""
        origin, amount_fen, void = self._by_query_id.get(asked["origQryId"]), int(asked["txnAmt"]), asked["txnType"] == "31"
        if origin is None or origin.origin is not None:
            return said("35")
        if any(b.kind == "void" for b in origin.backs):
            return said("45")
        if origin.back_fen() + amount_fen > origin.amount_fen or self._now_ms() > origin.paid_ms + REFUND_WINDOW_MS:
            return said("36")
        if void and (amount_fen != origin.amount_fen or clearing_day(origin.paid_ms) != clearing_day(self._now_ms())):
            return said("36")
        trade = self._made(asked, "void" if void else "refund")
        trade.origin, trade.result, trade.query_id = origin, "05", self._number()
        trade.pays_ms = self._now_ms() + (0 if void else self.refund_after_ms)
        origin.backs = [*origin.backs, trade]
        self._settle()
        return said("00", queryId=trade.query_id)

    # The payer

    def scan(self, qr: str, outcome: str, *, wallet: str = "u-payer-1", slow_s: float = 30) -> dict[str, Any]:
        """A wallet scans: `{"ok", "why", "order_no"}`.  ValueError for an outcome not in OUTCOMES."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._settle()
        trade = self._qrs.get(qr)
        why = ("the code is not known" if trade is None else "the order is paid already" if trade.result == "00"
               else "the code is too old" if self._now_ms() >= trade.made_ms + QR_LIFE_MS
               else "another wallet has scanned this order" if trade.wallet not in ("", wallet) and trade.result == "05" else "")
        if trade is None or why:
            return {"ok": False, "why": why, "order_no": trade.order_no if trade else ""}
        trade.wallet = wallet
        if outcome != "abandon":
            self._act(trade, outcome, slow_s)
        bad = outcome == "insufficient"
        return {"ok": not bad, "why": "the wallet has not enough money" if bad else "", "order_no": trade.order_no}

    def code(self, wallet: str = "u-payer-1") -> str:
        """A fresh payer's code: 19 digits, for a minute and one order."""
        code = f"62{self._random.randrange(10 ** 17):017d}"
        self.shown(code)
        return code

    def shown(self, code: str) -> None:
        """A wallet shows `code`, which it had from elsewhere, for a minute."""
        self._codes[code] = Code(self._now_ms() + CODE_LIFE_MS)

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        """What the payer of `code` will do when it is charged."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._codes[code].outcome, self._codes[code].slow_s = outcome, slow_s

    def _act(self, trade: Trade, outcome: str, slow_s: float) -> None:
        now = self._now_ms()
        if outcome == "pay":
            self._pay(trade, now)
        elif outcome == "insufficient":
            trade.result = "64"
        else:
            trade.result = "05"
            trade.pays_ms = now + int(slow_s * SECOND_MS) if outcome == "slow" else None
            trade.ends_ms = None if outcome == "slow" else now + PAYER_MS

    def _pay(self, trade: Trade, at_ms: int) -> None:
        trade.result, trade.paid_ms, trade.pays_ms, trade.query_id = "00", at_ms, None, trade.query_id or self._number()
        self._by_query_id[trade.query_id] = trade

    def _settle(self) -> None:
        """What was due by now has happened: slow payers, payers who walked away, accepted refunds."""
        now = self._now_ms()
        for trade in self._trades.values():
            if trade.pays_ms is not None and trade.pays_ms <= now:
                self._pay(trade, trade.pays_ms)
            if trade.ends_ms is not None and trade.ends_ms <= now:
                trade.result, trade.ends_ms = "71", None

    def _number(self) -> str:
        self._count += 1
        return f"{datetime.datetime.fromtimestamp(self._now_ms() / SECOND_MS, BEIJING):%Y%m%d%H%M%S}{self._count:07d}"

    # Books

    def orders(self) -> list[dict[str, Any]]:
        """What the channel holds, oldest first; refunds count from the moment they are accepted."""
        self._settle()
        return [{"channel": self.channel, "order_no": t.order_no, "amount_fen": t.amount_fen, "captured_fen":
                 t.amount_fen if t.result == "00" else 0, "refunded_fen": t.back_fen(), "state": state_of(t)}
                for t in self._trades.values() if t.origin is None]

    def _file(self, asked: Fields) -> Fields:
        now, month_day = datetime.datetime.fromtimestamp(self._now_ms() / SECOND_MS, BEIJING), asked["settleDate"]
        year = now.year if month_day <= f"{now:%m%d}" else now.year - 1
        try:
            day = datetime.datetime.strptime(f"{year}{month_day}", "%Y%m%d").replace(tzinfo=BEIJING)
        except ValueError:
            return said("10")
        packed = self.bill(f"{day:%Y-%m-%d}")
        if packed is None:
            return said("98")
        content = base64.b64encode(zlib.compress(packed)).decode()
        return said("00", fileName=f"{self.merchant}_{day:%Y%m%d}.zip", fileContent=content)

    def bill(self, day: str) -> bytes | None:
        """The ZIP of settlement day `day` (YYYY-MM-DD), from 9 o'clock of the next; None when there is none."""
        self._settle()
        start = datetime.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=BEIJING)
        trades = [t for t in self._trades.values() if t.result == "00" and clearing_day(t.paid_ms) == day]
        if self._now_ms() < int(start.timestamp()) * SECOND_MS + DAY_MS + FILE_READY_MS or not trades:
            return None
        packed, head = io.BytesIO(), f"INN{day[2:4]}{day[5:7]}{day[8:10]}88ZM"
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{head}_{self.merchant}", b"".join(self._line(t) for t in sorted(trades, key=lambda t: t.paid_ms)))
            archive.writestr(f"{head}E_{self.merchant}", b"")
        return packed.getvalue()

    def _line(self, trade: Trade) -> bytes:
        back, fee_fen = trade.origin, 0 if trade.origin else trade.amount_fen * FEE_MILLI // 1000
        at = datetime.datetime.fromtimestamp(trade.paid_ms / SECOND_MS, BEIJING)
        cells = {1: "S30" if back else "S22", 2: "00010000", 3: "00049992", 4: f"{int(trade.query_id[-6:]):06d}",
                 5: f"{at:%m%d%H%M%S}", 6: "6226********0001", 7: f"{trade.amount_fen:012d}", 8: "5411", 9: "08",
                 10: trade.query_id,
                 11: "00", 12: trade.order_no, 13: "01", 16: f"{'C' if back else 'D'}{fee_fen:012d}",
                 17: f"{'D' if back else 'C'}{trade.amount_fen - fee_fen:012d}",
                 20: {"refund": "04", "void": "31"}.get(trade.kind, "01"), 21: "01", 22: "000000",
                 27: back.query_id if back else "", 28: self.merchant, 31: "便利店", 34: "BOX00001",
                 41: back.order_no if back else ""}
        return b" ".join(cells.get(n, "").encode("gbk").ljust(w) for n, w in enumerate(ZM_WIDTHS, 1)) + b" \r\n"


def said(code: str, **more: str) -> Fields:
    return {"respCode": code, "respMsg": MESSAGES.get(code, f"失败[{code}]"), **more}


def clearing_day(at_ms: int) -> str:
    """The settlement day of a moment, YYYY-MM-DD: from 23:00 on it is the next."""
    at = datetime.datetime.fromtimestamp(at_ms / SECOND_MS, BEIJING) + datetime.timedelta(hours=24 - CLEARING_H)
    return f"{at:%Y-%m-%d}"


def state_of(trade: Trade) -> str:
    back = trade.back_fen()
    if any(b.kind == "void" for b in trade.backs):
        return "reversed"
    if back:
        return "refunded" if back == trade.amount_fen else "part_refunded"
    return "paid" if trade.result == "00" else "closed" if trade.kind == "code" and trade.result in ("64", "71") else "open"
