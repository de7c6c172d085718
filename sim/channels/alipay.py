"""Alipay's rules for face-to-face payments (gateway 1.0), without a wire.

Knows trades by number, QRs that nobody scanned yet, payers' wallets and codes, refunds; time is handed in and moved by whoever owns
it.  Refuses to know forms and signatures: `alipay_server.py` adds them; the bill's file is `alipay_bill.py`'s.
Source: Alipay open documentation and its SDKs.  Guesses: a precreate repeated with other content is refused before the scan, too; a
charge that fails leaves a closed trade; a cancel that is repeated names its first action; what a cancel gave back stands under the
order's own number in bill and refund query; a cancel of a partly refunded trade is REASON_TRADE_REFUND_FEE_ERR.
"""

from __future__ import annotations

import datetime
import hashlib
import heapq
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
QR_LIFE_MS = 2 * HOUR_MS
CODE_LIFE_MS = MINUTE_MS
TRADE_LIFE_MS = 3 * HOUR_MS            # of a trade without an end of its own
CANCEL_WINDOW_MS = DAY_MS
REFUND_WINDOW_MS = 365 * DAY_MS
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
OUTCOMES = ("pay", "abandon", "insufficient", "slow")
PRODUCTS = ("FACE_TO_FACE_PAYMENT", "OFFLINE_PAYMENT", "QR_CODE_OFFLINE")
ORDER_NO = re.compile(r"[0-9A-Za-z_]{1,64}")
AMOUNT = re.compile(r"\d{1,9}(\.\d{1,2})?")

Biz = dict[str, Any]


class Refund(msgspec.Struct):
    """Money on its way back; `refund_no` is the order's own for what a cancel gave back."""

    refund_no: str
    amount_fen: int
    made_ms: int


class Trade(msgspec.Struct):
    """One trade.  `content` as first sent: a repeat must equal it."""

    order_no: str
    trade_no: str
    content: Biz
    kind: str                          # qr, code
    amount_fen: int
    made_ms: int
    ends_ms: int
    buyer: str = ""
    status: str = "WAIT_BUYER_PAY"
    pays_ms: int | None = None
    paid_ms: int = 0
    action: str = ""                   # what a cancel did: close, refund
    refunds: list[Refund] = msgspec.field(default_factory=list)

    def back_fen(self) -> int:
        return sum(r.amount_fen for r in self.refunds)


class Ticket(msgspec.Struct):
    """A QR: no trade before somebody scans it."""

    order_no: str
    qr: str
    content: Biz
    amount_fen: int
    until_ms: int
    locked: bool = False


class Code(msgspec.Struct):
    """A payer's code: what its payer does when it is charged, and the order it went to."""

    until_ms: int
    outcome: str = "pay"
    slow_s: float = 30
    order_no: str = ""


class Refused(Exception):
    """A business failure: the tail of its sub_code."""


class AlipayRules:
    """Alipay towards one merchant.

    `now_ms` Unix milliseconds.  To be set while it runs: `close_locks_code`, whether a close before the scan kills the QR
    (reported once, not documented); `refund_seen_ms`, after how long a refund stands in its query; `balance_fen`, what the
    merchant has to give back, None for plenty; `e_cny`, whether payers pay with digital yuan.  `spent` are the payers' codes that
    were charged, here or wherever else the same set is known.
    """

    channel = "alipay"

    def __init__(self, now_ms: Callable[[], int], *, app_id: str = "2021000000000001", pid: str = "2088000000000015",
                 seed: int = 0) -> None:
        self.app_id, self.pid = app_id, pid
        self.close_locks_code, self.refund_seen_ms, self.e_cny = False, 10 * SECOND_MS, False
        self.balance_fen: int | None = None
        self._now_ms, self._random, self._count = now_ms, random.Random(seed), 0
        self._trades: dict[str, Trade] = {}
        self._by_no: dict[str, Trade] = {}             # by trade_no
        self._tickets: dict[str, Ticket] = {}          # by order number
        self._qrs: dict[str, Ticket] = {}
        self._codes: dict[str, Code] = {}
        self.spent: set[str] = set()
        self._due: list[tuple[int, str]] = []          # a heap of (ms, order number) at which something happens by itself

    def answer(self, method: str, biz: Biz) -> Biz:
        """The inner answer to one of the trade calls, `code` first."""
        self._settle()
        calls: dict[str, Callable[[Biz], Biz]] = {
            "alipay.trade.precreate": self._precreate, "alipay.trade.pay": self._pay_code, "alipay.trade.query": self._query,
            "alipay.trade.cancel": self._cancel, "alipay.trade.close": self._close, "alipay.trade.refund": self._refund,
            "alipay.trade.fastpay.refund.query": self._refund_query}
        try:
            return calls[method](biz)
        except Refused as why:
            zeros = ("buyer_pay_amount", "invoice_amount", "point_amount", "receipt_amount")
            more = dict.fromkeys(zeros, "0.00") if method in ("alipay.trade.query", "alipay.trade.pay") else {}
            return failed(str(why)) | more

    # Calls

    def _precreate(self, biz: Biz) -> Biz:
        amount_fen, now = checked(biz), self._now_ms()
        no, until = biz["out_trade_no"], min(now + QR_LIFE_MS, time_of(biz.get("time_expire")) or now + QR_LIFE_MS)
        if until <= now:
            raise Refused("INVALID_PARAMETER")
        if biz.get("qr_code_timeout_express"):
            until = min(until, now + span_ms(biz["qr_code_timeout_express"]))
        self._repeated(no, biz)
        ticket = self._tickets.get(no)
        if ticket is not None and ticket.content != biz:
            raise Refused("CONTEXT_INCONSISTENT")
        if ticket is None:
            qr = "https://qr.alipay.com/bax" + "".join(self._random.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=21))
            ticket = self._tickets[no] = self._qrs[qr] = Ticket(no, qr, biz, amount_fen, until)
        return ok(out_trade_no=no, qr_code=ticket.qr)

    def _pay_code(self, biz: Biz) -> Biz:
        amount_fen, now, no = checked(biz), self._now_ms(), biz["out_trade_no"]
        if biz.get("scene") != "bar_code" or not re.fullmatch(r"\d{16,24}", str(biz.get("auth_code", ""))):
            raise Refused("INVALID_PARAMETER")
        auth_code = biz["auth_code"]
        biz = biz | {"auth_code": hashlib.sha256(auth_code.encode()).hexdigest()}      # kept for repeats; the code itself nowhere
        if self._repeated(no, biz):
            return {"code": "10003", "msg": "order success pay inprocess", "out_trade_no": no}
        code = self._codes.get(auth_code)
        if code is None or auth_code in self.spent or now >= code.until_ms:
            raise Refused("PAYMENT_AUTH_CODE_INVALID")
        code.order_no = no
        self.spent.add(auth_code)
        trade = self._made(no, biz, "code", amount_fen)
        if code.outcome == "insufficient":
            trade.status = "TRADE_CLOSED"
            raise Refused("BUYER_BALANCE_NOT_ENOUGH")
        if code.outcome == "pay":
            self._pay(trade, now)
            return ok(**self._told(trade), gmt_payment=moment(now))
        if code.outcome == "slow":
            self._wake(trade, now + int(code.slow_s * SECOND_MS))
        return {"code": "10003", "msg": "order success pay inprocess", **self._told(trade)}

    def _query(self, biz: Biz) -> Biz:
        trade = self._found(biz)
        paid = {"send_pay_date": moment(trade.paid_ms)} if trade.paid_ms else {}
        return ok(**self._told(trade), trade_status=trade.status, **paid)

    def _cancel(self, biz: Biz) -> Biz:
        trade = self._trades.get(biz.get("out_trade_no", "")) or self._by_no.get(biz.get("trade_no", ""))
        if trade is None:
            return ok(out_trade_no=biz.get("out_trade_no", ""), retry_flag="N")
        now = self._now_ms()
        if trade.status == "WAIT_BUYER_PAY":
            trade.status, trade.action = "TRADE_CLOSED", "close"
        elif trade.status == "TRADE_FINISHED":
            raise Refused("TRADE_HAS_FINISHED")
        elif trade.status == "TRADE_SUCCESS":
            if now > trade.made_ms + CANCEL_WINDOW_MS:
                raise Refused("TRADE_CANCEL_TIME_OUT")
            if trade.refunds:
                raise Refused("REASON_TRADE_REFUND_FEE_ERR")
            self._give_back(trade, trade.order_no, trade.amount_fen)
            trade.action = "refund"
        more = {"action": trade.action} if trade.action else {}
        return ok(trade_no=trade.trade_no, out_trade_no=trade.order_no, retry_flag="N", **more)

    def _close(self, biz: Biz) -> Biz:
        ticket = self._tickets.get(biz.get("out_trade_no", ""))
        if ticket is not None and ticket.order_no not in self._trades:
            ticket.locked |= self.close_locks_code
        trade = self._found(biz)
        if trade.status != "WAIT_BUYER_PAY":
            raise Refused("REASON_TRADE_STATUS_INVALID" if trade.status == "TRADE_CLOSED" else "TRADE_STATUS_ERROR")
        trade.status = "TRADE_CLOSED"
        return ok(trade_no=trade.trade_no, out_trade_no=trade.order_no)

    def _refund(self, biz: Biz) -> Biz:
        trade, amount = self._found(biz), str(biz.get("refund_amount", ""))
        no = biz.get("out_request_no", "")
        if not AMOUNT.fullmatch(amount) or not fen(amount) or (not no and fen(amount) != trade.amount_fen):
            raise Refused("INVALID_PARAMETER")
        no, before = no or trade.order_no, next((r for r in trade.refunds if r.refund_no == (no or trade.order_no)), None)
        if before is not None and before.amount_fen != fen(amount):
            raise Refused("DISCORDANT_REPEAT_REQUEST")
        if before is None:
            if trade.status != "TRADE_SUCCESS":
                raise Refused("TRADE_HAS_FINISHED" if trade.status == "TRADE_FINISHED" else "TRADE_STATUS_ERROR")
            if trade.back_fen() + fen(amount) > trade.amount_fen:
                raise Refused("REFUND_AMT_NOT_EQUAL_TOTAL")
            self._give_back(trade, no, fen(amount))
        return ok(trade_no=trade.trade_no, out_trade_no=trade.order_no, buyer_logon_id="138****0000", buyer_user_id=trade.buyer,
                  fund_change="N" if before else "Y", refund_fee=yuan(trade.back_fen()), gmt_refund_pay=moment(self._now_ms()))

    def _refund_query(self, biz: Biz) -> Biz:
        trade = self._found(biz)
        found = next((r for r in trade.refunds if r.refund_no == biz.get("out_request_no")), None)
        if found is None or self._now_ms() < found.made_ms + self.refund_seen_ms:
            return ok()
        return ok(trade_no=trade.trade_no, out_trade_no=trade.order_no, out_request_no=found.refund_no,
                  total_amount=yuan(trade.amount_fen), refund_amount=yuan(found.amount_fen), refund_status="REFUND_SUCCESS",
                  gmt_refund_pay=moment(found.made_ms))

    # The payer

    def scan(self, qr: str, outcome: str, *, wallet: str = "2088102000000001", slow_s: float = 30) -> dict[str, Any]:
        """A wallet scans: `{"ok", "why", "order_no"}`; the trade appears now.  ValueError for an outcome not in OUTCOMES."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._settle()
        ticket, now = self._qrs.get(qr), self._now_ms()
        trade = self._trades.get(ticket.order_no) if ticket is not None else None
        why = ("the code is not known" if ticket is None else "the code is too old" if trade is None and now >= ticket.until_ms
               else "the trade is closed" if ticket.locked or (trade is not None and trade.status == "TRADE_CLOSED")
               else "the order is paid already" if trade is not None and trade.status != "WAIT_BUYER_PAY"
               else "another wallet has scanned this order" if trade is not None and trade.buyer != wallet else "")
        if ticket is None or why:
            return {"ok": False, "why": why, "order_no": ticket.order_no if ticket is not None else ""}
        trade = trade or self._made(ticket.order_no, ticket.content, "qr", ticket.amount_fen, wallet)
        if outcome == "pay":
            self._pay(trade, now)
        elif outcome == "slow":
            self._wake(trade, now + int(slow_s * SECOND_MS))
        bad = outcome == "insufficient"
        return {"ok": not bad, "why": "the wallet has not enough money" if bad else "", "order_no": trade.order_no}

    def code(self, wallet: str = "2088102000000001") -> str:
        """A fresh payer's code: 18 digits, for a minute and one order."""
        code = f"28{self._random.randrange(10 ** 16):016d}"
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

    def pay_now(self, order_no: str) -> None:
        """The payer is faster: an open trade is paid this moment."""
        trade = self._trades.get(order_no)
        if trade is not None and trade.status == "WAIT_BUYER_PAY":
            self._pay(trade, self._now_ms())

    # What happens to a trade

    def _made(self, no: str, biz: Biz, kind: str, amount_fen: int, buyer: str = "2088102000000001") -> Trade:
        now, self._count = self._now_ms(), self._count + 1
        ends = now + (span_ms(biz["timeout_express"]) if biz.get("timeout_express") else TRADE_LIFE_MS)
        ends = min(ends, time_of(biz.get("time_expire")) or ends)
        trade = Trade(no, f"{moment(now)[:10].replace('-', '')}22001400{self._count:012d}", biz, kind, amount_fen, now, ends, buyer)
        self._trades[no] = self._by_no[trade.trade_no] = trade
        heapq.heappush(self._due, (ends, no))
        return trade

    def _wake(self, trade: Trade, at_ms: int) -> None:
        trade.pays_ms = at_ms
        heapq.heappush(self._due, (at_ms, trade.order_no))

    def _pay(self, trade: Trade, at_ms: int) -> None:
        trade.status, trade.paid_ms, trade.pays_ms = "TRADE_SUCCESS", at_ms, None
        heapq.heappush(self._due, (at_ms + REFUND_WINDOW_MS, trade.order_no))

    def _give_back(self, trade: Trade, refund_no: str, amount_fen: int) -> None:
        if self.balance_fen is not None:
            if amount_fen > self.balance_fen:
                raise Refused("SELLER_BALANCE_NOT_ENOUGH")
            self.balance_fen -= amount_fen
        trade.refunds.append(Refund(refund_no, amount_fen, self._now_ms()))
        if trade.back_fen() == trade.amount_fen:
            trade.status = "TRADE_CLOSED"

    def _settle(self) -> None:
        """What was due by now has happened, in its order."""
        now = self._now_ms()
        while self._due and self._due[0][0] <= now:
            at_ms, no = heapq.heappop(self._due)
            trade = self._trades[no]
            if trade.status == "WAIT_BUYER_PAY" and trade.pays_ms is not None and trade.pays_ms <= at_ms < trade.ends_ms:
                self._pay(trade, at_ms)
            elif trade.status == "WAIT_BUYER_PAY" and trade.ends_ms <= at_ms:
                trade.status = "TRADE_CLOSED"
            elif trade.status == "TRADE_SUCCESS" and trade.paid_ms + REFUND_WINDOW_MS <= at_ms:
                trade.status = "TRADE_FINISHED"

    def _found(self, biz: Biz) -> Trade:
        trade = self._by_no.get(biz["trade_no"]) if biz.get("trade_no") else self._trades.get(biz.get("out_trade_no", ""))
        if trade is None:
            raise Refused("TRADE_NOT_EXIST")
        return trade

    def _repeated(self, no: str, biz: Biz) -> bool:
        """Whether this very order is open already.  Refused for a number with other content, or one that is over."""
        trade = self._trades.get(no)
        if trade is None:
            return False
        if trade.content != biz:
            raise Refused("CONTEXT_INCONSISTENT")
        if trade.status != "WAIT_BUYER_PAY":
            raise Refused("TRADE_HAS_SUCCESS" if trade.paid_ms else "TRADE_HAS_CLOSE")
        return True

    def _told(self, trade: Trade) -> dict[str, str]:
        whole = yuan(trade.amount_fen) if trade.paid_ms else "0.00"
        told = {"trade_no": trade.trade_no, "out_trade_no": trade.order_no, "buyer_logon_id": "138****0000",
                "buyer_user_id": trade.buyer, "total_amount": yuan(trade.amount_fen), "receipt_amount": whole,
                "buyer_pay_amount": whole, "point_amount": "0.00", "invoice_amount": whole}
        return told | ({"receipt_currency_type": "DC"} if self.e_cny else {})

    # Books

    def trades(self) -> list[Trade]:
        """Every trade, oldest first, for the bill."""
        self._settle()
        return list(self._trades.values())

    def orders(self) -> list[dict[str, Any]]:
        """What the channel holds, oldest first.  A QR that nobody scanned is no order here."""
        return [{"channel": self.channel, "order_no": t.order_no, "amount_fen": t.amount_fen,
                 "captured_fen": t.amount_fen if t.paid_ms else 0, "refunded_fen": t.back_fen(), "state": state_of(t)}
                for t in self.trades()]


def state_of(trade: Trade) -> str:
    back = trade.back_fen()
    if trade.action == "refund":
        return "reversed"
    if back:
        return "refunded" if back == trade.amount_fen else "part_refunded"
    return "open" if trade.status == "WAIT_BUYER_PAY" else "closed" if trade.status == "TRADE_CLOSED" else "paid"


def checked(biz: Biz) -> int:
    """The amount of an order whose fields Alipay would take."""
    amount, subject, extended = str(biz.get("total_amount", "")), biz.get("subject"), biz.get("extend_params", {})
    plan = str(extended.get("hb_fq_num", "")), str(extended.get("hb_fq_seller_percent", ""))
    if (not ORDER_NO.fullmatch(str(biz.get("out_trade_no", ""))) or not AMOUNT.fullmatch(amount) or not 1 <= fen(amount) <= 10 ** 10
            or not isinstance(subject, str) or not 1 <= len(subject) <= 256 or biz.get("product_code", PRODUCTS[0]) not in PRODUCTS
            or (plan != ("", "") and (plan[0] not in ("3", "6", "12") or plan[1] not in ("0", "100")))):
        raise Refused("INVALID_PARAMETER")
    return fen(amount)


def span_ms(text: str) -> int:
    """`5m`, `2h`, `1d` as milliseconds; `1c`, the day's end, is taken as a day."""
    found = re.fullmatch(r"(\d{1,5})([mhdc])", str(text))
    if found is None or not 1 <= int(found[1]) * {"m": 1, "h": 60, "d": 1440, "c": 1440}[found[2]] <= 15 * 1440:
        raise Refused("INVALID_PARAMETER")
    return int(found[1]) * {"m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "c": DAY_MS}[found[2]]


def time_of(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(datetime.datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING).timestamp()) * SECOND_MS
    except ValueError:
        raise Refused("INVALID_PARAMETER") from None


def moment(at_ms: int) -> str:
    return datetime.datetime.fromtimestamp(at_ms / SECOND_MS, BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def yuan(amount_fen: int) -> str:
    return f"{'-' if amount_fen < 0 else ''}{abs(amount_fen) // 100}.{abs(amount_fen) % 100:02d}"


def fen(amount: str) -> int:
    whole, _, part = amount.partition(".")
    return int(whole) * 100 + int(part.ljust(2, "0"))


def ok(**more: str) -> Biz:
    return {"code": "10000", "msg": "Success", **more}


def failed(tail: str) -> Biz:
    return {"code": "40004", "msg": "Business Failed", "sub_code": f"ACQ.{tail}", "sub_msg": f"业务失败[{tail.lower()}]"}
