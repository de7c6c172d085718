"""Shouqianba's rules, without a wire: its own orders behind one terminal, each of them for one wallet.

Knows orders, refunds, payers' codes and what its words are; time is handed in.  Refuses to know HTTP, keys and signatures.
Source: Shouqianba's open documents (2020), which its own demos follow; where they are silent, the comment says "guessed".
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

BEIJING = datetime.timezone(datetime.timedelta(hours=8))
ORDER_LIFE_MS = 240_000                # another page of theirs says 90 s
PAYER_CODE_LIFE_MS = 60_000
REFUND_DAYS = 92                       # "three months"
PAYWAYS = {"2": "alipay", "3": "wechat", "17": "unionpay"}
NAMES = {"2": "支付宝", "3": "微信", "17": "银联云闪付"}
CODES = {"wechat": ("13", 18), "alipay": ("28", 18), "unionpay": ("62", 19)}
QRS = {"2": "https://qr.alipay.com/bax", "3": "weixin://wxpay/bizpayurl?pr=", "17": "https://qr.95516.com/0001/"}
OUTCOMES = ("pay", "slow", "abandon", "insufficient")
BUYING = {"terminal_sn": 32, "client_sn": 32, "total_amount": 10, "subject": 64, "operator": 32}
OPTIONAL = {"description": 256, "device_id": 32, "reflect": 64, "notify_url": 128, "sub_payway": 2}
FORMS: dict[str, tuple[dict[str, int], dict[str, int]]] = {            # required and optional fields, with their longest
    "pay": (BUYING | {"dynamic_id": 32}, OPTIONAL | {"payway": 2}),
    "precreate": (BUYING | {"payway": 2}, OPTIONAL | {"payer_uid": 64}),
    **dict.fromkeys(("query", "cancel", "revoke"), ({"terminal_sn": 32}, {"sn": 16, "client_sn": 64})),
    "refund": ({"terminal_sn": 32, "refund_request_no": 20, "refund_amount": 10, "operator": 64},
               {"sn": 16, "client_sn": 32, "client_tsn": 53}),
}

Body = dict[str, Any]


class Invalid(ValueError):
    """The transport's INVALID_PARAMS, with its sentence."""


class Refund(msgspec.Struct):
    number: str
    amount_fen: int
    made_ms: int
    ends: str


class Order(msgspec.Struct):
    """`state` is order_status, without what refunds make of it."""

    client_sn: str
    sn: str
    amount_fen: int
    subject: str
    made_ms: int
    state: str = "CREATED"
    payway: str = ""
    sub_payway: str = "1"
    qr: str = ""
    pays_ms: int | None = None
    paid_ms: int = 0
    undone: bool = False               # its money went back by a cancel
    refunds: list[Refund] = msgspec.field(default_factory=list)


class Code(msgspec.Struct):
    wallet: str
    until_ms: int
    outcome: str = "pay"
    slow_s: float = 30
    used: bool = False


class ShouqianbaRules:
    """The aggregator towards the terminals of one merchant.

    `now_ms` Unix milliseconds.  `answer(call, body)` gives biz_response, or raises Invalid.  `refund_after_ms` is how long a
    refund is REFUND_IN_PROGRESS, `refund_ends` what it then is (`done`, `refused`, `abnormal`).
    """

    channel = "gateway"

    def __init__(self, now_ms: Callable[[], int], *, terminal_id: str = "100012340000001", seed: int = 0) -> None:
        self.terminal_id, self.refund_after_ms, self.refund_ends = terminal_id, 0, "done"
        self._now_ms, self._random = now_ms, random.Random(seed)
        self._orders: dict[str, Order] = {}
        self._codes: dict[str, Code] = {}

    # The terminal's calls

    def answer(self, call: str, body: bytes) -> Body:
        self._settle()
        asked = checked(call, body)
        if call in ("pay", "precreate"):
            return self._pay(asked) if call == "pay" else self._precreate(asked)
        order = self._found(asked)
        if order is None:
            return fail("UPAY_ORDER_NOT_EXISTS", "订单不存在")
        if call == "query":
            return self._said(order, "SUCCESS")
        return self._refund(order, asked) if call == "refund" else self._cancel(order)

    def _pay(self, asked: Body) -> Body:
        order, odd = self._made(asked, "1")
        if odd is not None:
            return odd
        code, now = self._codes.get(asked["dynamic_id"]), self._now_ms()
        if code is None or code.used or now >= code.until_ms or code.outcome == "insufficient":
            error = ("INVALID_BARCODE", "条码错误") if code is None or code.used else \
                ("INSUFFICIENT_FUND", "账户金额不足") if now < code.until_ms else ("EXPIRED_BARCODE", "过期的支付条码")
            order.state = "PAY_CANCELED"
            return self._said(order, "PAY_FAIL", *error)
        code.used, order.payway = True, next(number for number, wallet in PAYWAYS.items() if wallet == code.wallet)
        if code.outcome == "pay":
            self._paid(order, now)
            return self._said(order, "PAY_SUCCESS")
        if code.outcome == "slow":
            order.pays_ms = now + int(code.slow_s * 1000)
        return self._said(order, "PAY_IN_PROGRESS")

    def _precreate(self, asked: Body) -> Body:
        if asked["payway"] not in PAYWAYS:
            return fail("UNEXPECTED_PROVIDER_ERROR", "不认识的支付通道", "PRECREATE_FAIL")
        order, odd = self._made(asked, "2")
        if odd is not None:
            return odd
        order.payway = asked["payway"]
        order.qr = QRS[order.payway] + f"{self._random.randrange(16 ** 12):012x}"
        return self._said(order, "PRECREATE_SUCCESS")

    def _made(self, asked: Body, sub_payway: str) -> tuple[Order, Body | None]:
        """A fresh order; the same number again is a conflict, whatever its content."""
        if asked["client_sn"] in self._orders:
            return self._orders[asked["client_sn"]], fail("CLIENT_SN_CONFLICT", "client_sn在系统中已存在")
        order = Order(asked["client_sn"], f"789{self._random.randrange(10 ** 13):013d}", int(asked["total_amount"]),
                      asked["subject"], self._now_ms(), sub_payway=sub_payway)
        self._orders[order.client_sn] = order
        return order, None

    def _found(self, asked: Body) -> Order | None:
        if "sn" in asked:
            return next((order for order in self._orders.values() if order.sn == asked["sn"]), None)
        return self._orders.get(asked["client_sn"])

    def _cancel(self, order: Order) -> Body:
        """Cancel and revoke differ in purpose alone: once, on the day of the payment, and never after a refund."""
        if order.state == "CANCELED":
            return fail("UPAY_CANCEL_ORDER_NOOP", "无效操作，订单已经是撤单状态了")
        if order.state == "CREATED":
            order.state, order.pays_ms = "CANCELED", None
            return self._said(order, "CANCEL_ABORT_SUCCESS")
        if order.state != "PAID" or order.refunds or day_of(order.paid_ms) != day_of(self._now_ms()):
            return fail("UPAY_CANCEL_INVALID_ORDER_STATE", "当前订单状态不可撤销")
        order.state, order.undone = "CANCELED", True
        return self._said(order, "CANCEL_SUCCESS")

    def _refund(self, order: Order, asked: Body) -> Body:
        amount, now = int(asked["refund_amount"]), self._now_ms()
        held = next((refund for refund in order.refunds if refund.number == asked["refund_request_no"]), None)
        if held is None:
            if order.state != "PAID" or now - order.paid_ms > REFUND_DAYS * 86_400_000 or net_fen(order) == 0:
                return fail("UPAY_REFUND_INVALID_ORDER_STATE", "当前订单状态不可退款")
            if not 0 < amount <= net_fen(order):
                return fail("REFUNDABLE_AMOUNT_NOT_ENOUGH", "订单可退金额不足")
            held = Refund(asked["refund_request_no"], amount, now, self.refund_ends)
            order.refunds.append(held)
        elif held.amount_fen != amount:              # guessed: the same number with another amount is no refund of its own
            return fail("REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额无效")
        elif held.ends == "done" and now > held.made_ms + self.refund_after_ms:
            return fail("UPAY_REFUND_ORDER_NOOP", "无效操作，本次退款已经完成了")
        if now < held.made_ms + self.refund_after_ms:
            return self._said(order, "REFUND_IN_PROGRESS")
        if held.ends == "done":
            return self._said(order, "REFUND_SUCCESS")
        if held.ends == "refused":
            return self._said(order, "REFUND_FAIL", "SELLER_BALANCE_NOT_ENOUGH", "卖家余额不足")
        return self._said(order, "REFUND_ERROR")

    def _said(self, order: Order, result: str, error: str = "", message: str = "") -> Body:
        data: Body = {"terminal_sn": self.terminal_id, "sn": order.sn, "client_sn": order.client_sn, "order_status": status(order),
                "status": step(result), "payway": order.payway, "payway_name": NAMES.get(order.payway, ""),
                "sub_payway": order.sub_payway, "total_amount": str(order.amount_fen), "net_amount": str(net_fen(order)),
                "subject": order.subject}
        if order.paid_ms:
            data |= {"trade_no": f"2013{order.sn}", "finish_time": str(order.paid_ms), "payer_login": "134****3920",
                     "payment_list": [{"type": "WALLET", "amount_total": str(order.amount_fen)}]}
        if result == "PRECREATE_SUCCESS":
            data["qr_code"] = order.qr
        said: Body = {"result_code": result, "data": data}
        return said | ({"error_code": error, "error_message": message} if error else {})

    # The payer's side

    def scan(self, qr: str, outcome: str, *, wallet: str = "wechat", slow_s: float = 30) -> Body:
        """A wallet scans a QR: {"ok", "why", "order_no"}.  Each QR is for one wallet."""
        self._settle()
        if outcome not in OUTCOMES or wallet not in (*CODES, "ecny"):
            raise ValueError(f"no such outcome or wallet: {outcome}, {wallet}")
        order = next((o for o in self._orders.values() if o.qr and o.qr == qr), None)
        why = ""
        if order is None or PAYWAYS[order.payway] != wallet:
            why = "no such code"
        elif order.state != "CREATED":
            why = f"the order is {order.state}"
        elif outcome == "insufficient":
            why = "the wallet holds too little"
        elif outcome == "pay":
            self._paid(order, self._now_ms())
        elif outcome == "slow":
            order.pays_ms = self._now_ms() + int(slow_s * 1000)
        return {"ok": not why, "why": why, "order_no": order.client_sn if order else ""}

    def code(self, wallet: str = "wechat") -> str:
        """A fresh code that `wallet` shows for a minute.  KeyError for one that Shouqianba does not take."""
        head, length = CODES[wallet]
        code = head + "".join(self._random.choice("0123456789") for _ in range(length - len(head)))
        self._codes[code] = Code(wallet, self._now_ms() + PAYER_CODE_LIFE_MS)
        return code

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        """What the payer of `code` will do when it is charged."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._codes[code].outcome, self._codes[code].slow_s = outcome, slow_s

    def orders(self) -> list[Body]:
        """What the aggregator holds."""
        self._settle()
        told = []
        for order in self._orders.values():
            back = sum(refund.amount_fen for refund in order.refunds if refund.ends == "done")
            state = {"CREATED": "open", "PAID": "paid"}.get(order.state, "reversed" if order.undone else "closed")
            if back:
                state = "refunded" if back == order.amount_fen else "part_refunded"
            told.append({"channel": self.channel, "order_no": order.client_sn, "amount_fen": order.amount_fen,
                         "captured_fen": order.amount_fen if order.state == "PAID" else 0, "refunded_fen": back, "state": state})
        return told

    def _paid(self, order: Order, at_ms: int) -> None:
        order.state, order.paid_ms, order.pays_ms = "PAID", at_ms, None

    def _settle(self) -> None:
        now = self._now_ms()
        for order in self._orders.values():
            dies_ms = order.made_ms + ORDER_LIFE_MS
            if order.state == "CREATED" and order.pays_ms is not None and order.pays_ms <= min(now, dies_ms - 1):
                self._paid(order, order.pays_ms)
            elif order.state == "CREATED" and now >= dies_ms:
                order.state = "PAY_CANCELED"         # "if not paid by then, Shouqianba cancels it by itself"


def checked(call: str, body: bytes) -> Body:
    """The fields of a request.  Invalid for a missing, unknown, empty or too long one, and for an amount that is none."""
    needed, more = FORMS[call]
    try:
        asked = json.loads(body)
    except ValueError:
        raise Invalid("请求不是JSON") from None
    if not isinstance(asked, dict):
        raise Invalid("请求不是JSON")
    for name in needed:
        if not asked.get(name):
            raise Invalid(f"{name}不可以为空")
    for name, value in asked.items():
        longest = (needed | more).get(name, 0)
        if not longest or not isinstance(value, str) or len(value) > longest:
            raise Invalid(f"{name}参数错误")
        if name in ("total_amount", "refund_amount") and not (value.isascii() and value.isdigit() and int(value) > 0):
            raise Invalid(f"{name}金额为整数，长度不超过10位，以分为单位")
    if call not in ("pay", "precreate") and not ({"sn", "client_sn"} & set(asked)):
        raise Invalid("sn与client_sn不能同时为空")
    return asked


def fail(error: str, message: str, result: str = "FAIL") -> Body:
    return {"result_code": result, "error_code": error, "error_message": message}


def net_fen(order: Order) -> int:
    """What is left of a paid order; an unpaid one's whole amount, as in their examples."""
    return 0 if order.state == "CANCELED" else order.amount_fen - sum(r.amount_fen for r in order.refunds if r.ends == "done")


def status(order: Order) -> str:
    if order.state != "PAID" or not order.refunds:
        return order.state
    if any(refund.ends == "abnormal" for refund in order.refunds):
        return "REFUND_ERROR"
    left = net_fen(order)
    return "REFUNDED" if not left else "PARTIAL_REFUNDED" if left < order.amount_fen else "PAID"


def step(result: str) -> str:
    """`status`, the state of the step as against that of the order."""
    if result.endswith("IN_PROGRESS") or result == "PRECREATE_SUCCESS":
        return "IN_PROG"
    return {"PAY_FAIL": "FAIL_CANCELED", "REFUND_FAIL": "FAIL_CANCELED", "REFUND_ERROR": "REFUND_ERROR"}.get(result, "SUCCESS")


def day_of(at_ms: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(at_ms / 1000, BEIJING).date()
