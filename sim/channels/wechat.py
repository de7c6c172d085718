"""WeChat Pay's rules for native orders and refunds, without a wire.

Knows orders, their states, the idempotency of numbers and the payer's wallet; time is handed in and moved by whoever
owns it.  Refuses to know HTTP and signatures: `wechat_server.py` adds them, a simulated world does without.
Source: WeChat Pay merchant documentation, API v3 (Native payment, query, close, refunds, error codes).
"""

from __future__ import annotations

import datetime
import heapq
import json
import random
import re
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
CODE_LIFE_MS = 2 * HOUR_MS             # of a code_url, whatever time_expire says
PAYER_CODE_LIFE_MS = MINUTE_MS         # of the code that a wallet shows
REVERSE_AFTER_MS, REVERSE_WINDOW_MS = 15 * SECOND_MS, 7 * DAY_MS
USERPAYING_MS = 45 * SECOND_MS         # after which WeChat itself gives a charged code up
ORDER_LIFE_MS = 7 * DAY_MS             # of an order without time_expire
REFUND_WINDOW_MS = 365 * DAY_MS
REFUND_PARTS_MAX = 50
BEIJING = datetime.timezone(datetime.timedelta(hours=8))

Body = dict[str, Any]
Answer = tuple[int, Body | None]


class Reason(NamedTuple):
    """One way to say no: HTTP status, code, message, numeric tail of Request-ID.

    Tails are the published ones and 0 where none is known.  Guesses: the status that
    goes with ORDERPAID, the code of a refund that breaks a rule, and the wording of every message.
    """

    status: int
    code: str
    message: str
    tail: int


REASONS = {
    "extra": Reason(400, "PARAM_ERROR", "a field is unknown or null", 270924358),
    "invalid": Reason(400, "PARAM_ERROR", "a parameter is invalid", 268435461),
    "range": Reason(400, "PARAM_ERROR", "a parameter is out of range", 268435464),
    "appid": Reason(400, "APPID_MCHID_NOT_MATCH", "appid and mchid do not match", 268445527),
    "mchid": Reason(400, "MCH_NOT_EXISTS", "no such merchant", 0),
    "other_merchant": Reason(403, "NO_AUTH", "the order belongs to another merchant", 268447843),
    "paid": Reason(400, "ORDERPAID", "the order is paid", 268498689),
    "paid_close": Reason(400, "ORDERPAID", "the order is paid and cannot be closed", 268449538),
    "code_close": Reason(400, "INVALID_REQUEST", "an order of this kind is reversed, not closed", 268449641),
    "closed": Reason(400, "ORDER_CLOSED", "the order is closed", 268447914),
    "expired": Reason(400, "INVALID_REQUEST", "the order is no longer valid", 268447914),
    "repeated": Reason(400, "INVALID_REQUEST", "repeated with other parameters", 268498688),
    "absent": Reason(404, "ORDER_NOT_EXIST", "the order does not exist", 268512771),
    "no_refund": Reason(404, "RESOURCE_NOT_EXISTS", "the refund does not exist", 0),
    "no_refund_order": Reason(404, "RESOURCE_NOT_EXISTS", "the order to refund does not exist", 268512771),
    "unpaid": Reason(400, "INVALID_REQUEST", "the order is not paid", 0),
    "too_much": Reason(400, "INVALID_REQUEST", "refunds would exceed the amount paid", 0),
    "too_many": Reason(400, "INVALID_REQUEST", "50 partial refunds at most", 0),
    "too_late": Reason(400, "INVALID_REQUEST", "paid more than a year ago", 0),
    "too_soon": Reason(429, "FREQUENCY_LIMITED", "one minute between refunds of one order", 268447840),
    "no_money": Reason(403, "NOT_ENOUGH", "the merchant's balance is not enough", 0),
    "no_bill": Reason(400, "NO_STATEMENT_EXIST", "no trade on that day", 0),
    "bill_soon": Reason(400, "STATEMENT_CREATING", "the bill is made at 9 o'clock of the next day", 0),
    "bill_old": Reason(400, "INVALID_REQUEST", "bills go back three months", 0),
    "no_path": Reason(404, "RESOURCE_NOT_EXISTS", "no such resource", 0),
}
TAILS = {                              # messages are all different: a test says so
    reason.message: reason.tail for reason in REASONS.values()
}

BILL_HEAD = ("交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,"
             "交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,"
             "充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注")
BILL_SUM_HEAD = ("总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,"
                 "申请退款总金额")
BILL_FEE_MILLI = 6                     # 0.60 %
BILL_REFUND_STATES = {"SUCCESS": "SUCCESS", "PROCESSING": "PROCESSING", "CLOSED": "FAIL", "ABNORMAL": "CHANGE"}

CREATE_FIELDS = {"appid", "mchid", "description", "out_trade_no", "notify_url", "amount", "time_expire", "attach",
                 "goods_tag", "support_fapiao", "detail", "settle_info", "scene_info"}
REFUND_FIELDS = {"transaction_id", "out_trade_no", "out_refund_no", "reason", "notify_url", "funds_account", "amount",
                 "goods_detail"}
ORDER_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,32}")
REFUND_NO = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}")
OUTCOMES = ("pay", "abandon", "insufficient", "slow")


class Refused(Exception):
    """A rule said no; carries the answer."""

    def __init__(self, name: str, field: str = "") -> None:
        super().__init__(name)
        reason = REASONS[name]
        self.status = reason.status
        self.body: Body = {"code": reason.code, "message": reason.message}
        if field:
            self.body["detail"] = {"field": field, "issue": reason.message, "location": "body"}


class Refund(msgspec.Struct):
    refund_no: str
    refund_id: str
    content: Body
    amount_fen: int
    made_ms: int
    due_ms: int
    status: str = "PROCESSING"
    success_ms: int = 0


class Order(msgspec.Struct):
    order_no: str
    content: Body                          # as first sent: a repeat must equal it
    total_fen: int
    made_ms: int
    expires_ms: int
    state: str = "NOTPAY"
    code_url: str = ""
    code_until_ms: int = 0
    transaction_id: str = ""
    openid: str = ""                       # the wallet that scanned first; another one is refused
    pays_ms: int | None = None             # a slow wallet has entered its password and pays then
    paid_ms: int = 0
    refunds: list[Refund] = msgspec.field(default_factory=list)
    trade_type: str = "NATIVE"
    reversed_ms: int = 0                   # when a paid one was given back by its reversal

    def accepted_fen(self) -> int:
        """Refunds that have happened or still will."""
        return sum(r.amount_fen for r in self.refunds if r.status in ("PROCESSING", "SUCCESS"))


class Code(msgspec.Struct):
    """A payer's code as a wallet shows it: what its payer does when it is charged, and the order it went to."""

    until_ms: int
    outcome: str = "pay"
    slow_s: float = 30
    order_no: str = ""


class CodeDesk:
    """Payment codes of API v2: given out by wallets, charged once, reversed with their money."""

    def __init__(self, rules: WechatRules) -> None:
        self._rules = rules
        self._codes: dict[str, Code] = {}

    def fresh(self) -> str:
        """A code that a wallet shows for a minute: 18 digits."""
        code = f"13{self._rules._random.randrange(10 ** 16):016d}"
        self._codes[code] = Code(self._rules._now_ms() + PAYER_CODE_LIFE_MS)
        return code

    def outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        """What the payer of `code` will do: `pay` at once, `slow` after a password, `abandon`, `insufficient`."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._codes[code].outcome, self._codes[code].slow_s = outcome, slow_s

    def micropay(self, fields: dict[str, str]) -> dict[str, str]:
        """The reply to /pay/micropay beside its envelope: result_code, and err_code or the payment."""
        rules = self._rules
        rules._settle()
        now, no, amount = rules._now_ms(), fields.get("out_trade_no", ""), fields.get("total_fee", "")
        if not ORDER_NO.fullmatch(no) or not amount.isdigit() or int(amount) < 1 or not fields.get("body"):
            return failed("PARAM_ERROR")
        order = rules._orders.get(no)
        if order is not None:
            if order.state in ("SUCCESS", "REFUND"):
                return failed("ORDERPAID")
            if order.state in ("REVOKED", "CLOSED"):
                return failed("ORDERREVERSED" if order.state == "REVOKED" else "ORDERCLOSED")
            return failed("USERPAYING" if order.content["auth_code"] == fields.get("auth_code") else "OUT_TRADE_NO_USED")
        code = self._codes.get(fields.get("auth_code", ""))
        if code is None:
            return failed("AUTH_CODE_ERROR")
        if code.order_no or now >= code.until_ms:
            return failed("AUTH_CODE_INVALID" if code.order_no else "AUTHCODEEXPIRE")
        code.order_no = no
        order = Order(no, {"auth_code": fields["auth_code"], "description": fields["body"]}, int(amount), now,
                      now + ORDER_LIFE_MS, "USERPAYING", openid="o-payer-1", trade_type="MICROPAY")
        rules._orders[no] = order
        rules._wake(order, now + USERPAYING_MS)
        if code.outcome == "pay":
            rules._pay(order, now)
            return {"result_code": "SUCCESS", "openid": order.openid, "is_subscribe": "N", "trade_type": "MICROPAY",
                    "bank_type": "OTHERS", "total_fee": amount, "fee_type": "CNY", "cash_fee": amount,
                    "transaction_id": order.transaction_id, "out_trade_no": no, "time_end": moment(now)[:19]}
        if code.outcome == "insufficient":
            order.state = "PAYERROR"
            return failed("NOTENOUGH")
        if code.outcome == "slow":
            order.pays_ms = now + int(code.slow_s * SECOND_MS)
            rules._wake(order, order.pays_ms)
        return failed("USERPAYING")

    def reverse(self, fields: dict[str, str]) -> dict[str, str]:
        """The reply to /secapi/pay/reverse: dead when unpaid, given back when paid, again the same."""
        rules = self._rules
        rules._settle()
        order = rules._orders.get(fields.get("out_trade_no", ""))
        if order is None:
            return failed("ORDERNOTEXIST") | {"recall": "N"}
        if order.trade_type != "MICROPAY" or order.state == "REFUND":
            return failed("TRADE_STATE_ERROR") | {"recall": "N"}
        if rules._now_ms() > order.made_ms + REVERSE_WINDOW_MS:
            return failed("REVERSE_EXPIRE") | {"recall": "N"}
        if rules._now_ms() < order.made_ms + REVERSE_AFTER_MS and order.state == "USERPAYING":
            return failed("USERPAYING") | {"recall": "Y"}
        if order.state != "REVOKED":
            order.reversed_ms = rules._now_ms() if order.state == "SUCCESS" else 0
        order.state, order.pays_ms = "REVOKED", None
        return {"result_code": "SUCCESS", "recall": "N"}


def failed(code: str) -> dict[str, str]:
    return {"result_code": "FAIL", "err_code": code, "err_code_des": code.lower()}


class WechatRules:
    """WeChat Pay towards one merchant.

    `now_ms` Unix milliseconds.  Calls take parsed bodies and answer (HTTP status, body), body None for a 204.
    `refund_after_ms` is how long an accepted refund stays PROCESSING, `refund_ends` what it then becomes
    (SUCCESS, ABNORMAL or CLOSED), `refund_gap_ms` the least time between two refunds of one order, `balance_fen` what
    the merchant has to give back, None for plenty.  All four may be set while it runs.
    """

    channel = "wechat"

    def __init__(self, now_ms: Callable[[], int], *, mchid: str = "1900000001", appid: str = "wx0000000000000001",
                 seed: int = 0) -> None:
        self.mchid, self.appid = mchid, appid
        self.refund_after_ms, self.refund_ends, self.refund_gap_ms = MINUTE_MS, "SUCCESS", MINUTE_MS
        self.balance_fen: int | None = None
        self._now_ms, self._random = now_ms, random.Random(seed)
        self._orders: dict[str, Order] = {}
        self._codes: dict[str, str] = {}               # every code_url ever given out, to its order
        self._refunds: dict[str, tuple[Order, Refund]] = {}
        self._paid: dict[str, Order] = {}              # by transaction_id
        self._due: list[tuple[int, str]] = []          # a heap of (ms, order_no) at which something happens by itself
        self._count = 0
        self.codes = CodeDesk(self)

    # The wire's view

    def answer(self, method: str, path: str, body: bytes, mchid: str) -> tuple[int, int, bytes]:
        """One call as on the wire: (status, numeric tail or 0, reply body).  `mchid` is the proven caller's."""
        status, said = self._routed(method, path, body, mchid)
        if said is None:
            return status, 0, b""
        tail = 0 if status < 300 else TAILS.get(said.get("message", ""), 0)
        return status, tail, json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()

    def _routed(self, method: str, path: str, body: bytes, mchid: str) -> Answer:
        parts = urlsplit(path)
        query, steps = dict(parse_qsl(parts.query)), parts.path.strip("/").split("/")
        try:
            if mchid != self.mchid:
                raise Refused("mchid")
            match method, steps:
                case "POST", ["v3", "pay", "transactions", "native"]:
                    return self.create(parsed(body))
                case "GET", ["v3", "pay", "transactions", "out-trade-no", order_no]:
                    return self.query(order_no, query.get("mchid", ""))
                case "GET", ["v3", "pay", "transactions", "id", transaction_id]:
                    return self.query_id(transaction_id, query.get("mchid", ""))
                case "POST", ["v3", "pay", "transactions", "out-trade-no", order_no, "close"]:
                    return self.close(order_no, parsed(body))
                case "POST", ["v3", "refund", "domestic", "refunds"]:
                    return self.refund(parsed(body))
                case "GET", ["v3", "refund", "domestic", "refunds", refund_no]:
                    return self.query_refund(refund_no)
            raise Refused("no_path")
        except Refused as no:
            return no.status, no.body

    # The merchant's calls

    def create(self, body: Body) -> Answer:
        """POST /v3/pay/transactions/native.  The same content again gives a new code and kills the one before."""
        return self._kept(self._create, body)

    def query(self, order_no: str, mchid: str) -> Answer:
        """GET /v3/pay/transactions/out-trade-no/{order_no}?mchid="""
        return self._kept(lambda: self._query(self._order(order_no), mchid))

    def query_id(self, transaction_id: str, mchid: str) -> Answer:
        """GET /v3/pay/transactions/id/{transaction_id}?mchid="""
        return self._kept(lambda: self._query(self._by_id(transaction_id), mchid))

    def close(self, order_no: str, body: Body) -> Answer:
        """POST .../close.  204, also when closed before; refused when paid."""
        return self._kept(self._close, order_no, body)

    def refund(self, body: Body) -> Answer:
        """POST /v3/refund/domestic/refunds.  The same number and content is one refund, whose state is answered."""
        return self._kept(self._refund, body)

    def query_refund(self, refund_no: str) -> Answer:
        """GET /v3/refund/domestic/refunds/{refund_no}"""
        return self._kept(self._query_refund, refund_no)

    def _kept(self, call: Callable[..., Answer], *args: Any) -> Answer:
        self._settle()
        try:
            return call(*args)
        except Refused as no:
            return no.status, no.body

    def _create(self, body: Body) -> Answer:
        now = self._now_ms()
        expires = checked_create(body, now)
        if body["mchid"] != self.mchid:
            raise Refused("mchid", "/mchid")
        if body["appid"] != self.appid:
            raise Refused("appid", "/appid")
        order = self._orders.get(body["out_trade_no"])
        if order is None:
            if expires is not None and expires <= now:
                raise Refused("range", "/time_expire")
            order = Order(body["out_trade_no"], body, body["amount"]["total"], now,
                          now + ORDER_LIFE_MS if expires is None else expires)
            self._orders[order.order_no] = order
            self._wake(order, now + ORDER_LIFE_MS)
        elif order.state in ("SUCCESS", "REFUND"):
            raise Refused("paid")
        elif order.state == "CLOSED":
            raise Refused("closed")
        elif order.content != body:
            raise Refused("repeated")
        elif order.expires_ms <= now:
            raise Refused("expired")
        order.code_url = f"weixin://wxpay/bizpayurl?pr={self._random.getrandbits(54):011x}zz"
        order.code_until_ms = now + CODE_LIFE_MS
        self._codes[order.code_url] = order.order_no
        return 200, {"code_url": order.code_url}

    def _query(self, order: Order, mchid: str) -> Answer:
        if mchid != self.mchid:
            raise Refused("other_merchant")
        said: Body = {"appid": self.appid, "mchid": self.mchid, "out_trade_no": order.order_no,
                      "trade_state": order.state, "trade_state_desc": order.state,
                      "amount": {"total": order.total_fen, "currency": "CNY"}}
        if "attach" in order.content:
            said["attach"] = order.content["attach"]
        if order.state in ("SUCCESS", "REFUND"):
            said |= {"transaction_id": order.transaction_id, "trade_type": order.trade_type, "bank_type": "OTHERS",
                     "success_time": moment(order.paid_ms), "payer": {"openid": order.openid}}
            said["amount"] |= {"payer_total": order.total_fen, "payer_currency": "CNY"}
        return 200, said

    def _close(self, order_no: str, body: Body) -> Answer:
        refuse_extra(body, {"mchid"})
        if body.get("mchid") != self.mchid:
            raise Refused("invalid", "/mchid")
        order = self._order(order_no)
        if order.trade_type == "MICROPAY":
            raise Refused("code_close")
        if order.state in ("SUCCESS", "REFUND"):
            raise Refused("paid_close")
        order.state, order.pays_ms = "CLOSED", None
        return 204, None

    def _refund(self, body: Body) -> Answer:
        checked_refund(body)
        now, amount = self._now_ms(), body["amount"]
        known = self._refunds.get(body["out_refund_no"])
        if known is not None:
            if known[1].content != body:
                raise Refused("repeated")
            return 200, self._refund_body(*known)
        order = (self._orders.get(body["out_trade_no"]) if "out_trade_no" in body
                 else self._paid.get(body["transaction_id"]))
        if order is None:
            raise Refused("no_refund_order")
        if order.state not in ("SUCCESS", "REFUND"):
            raise Refused("unpaid")
        if amount["total"] != order.total_fen:
            raise Refused("invalid", "/amount/total")
        if order.accepted_fen() + amount["refund"] > order.total_fen:
            raise Refused("too_much")
        if len(order.refunds) >= REFUND_PARTS_MAX:
            raise Refused("too_many")
        if now - order.paid_ms > REFUND_WINDOW_MS:
            raise Refused("too_late")
        if order.refunds and now - order.refunds[-1].made_ms < self.refund_gap_ms:
            raise Refused("too_soon")
        if self.balance_fen is not None:
            if self.balance_fen < amount["refund"]:
                raise Refused("no_money")
            self.balance_fen -= amount["refund"]
        refund = Refund(body["out_refund_no"], self._number("503"), body, amount["refund"], now,
                        now + self.refund_after_ms)
        order.refunds.append(refund)
        order.state = "REFUND"
        self._refunds[refund.refund_no] = (order, refund)
        self._wake(order, refund.due_ms)
        self._settle()
        return 200, self._refund_body(order, refund)

    def _query_refund(self, refund_no: str) -> Answer:
        if refund_no not in self._refunds:
            raise Refused("no_refund")
        return 200, self._refund_body(*self._refunds[refund_no])

    def _refund_body(self, order: Order, refund: Refund) -> Body:
        said: Body = {"refund_id": refund.refund_id, "out_refund_no": refund.refund_no,
                      "transaction_id": order.transaction_id, "out_trade_no": order.order_no, "channel": "ORIGINAL",
                      "user_received_account": "the payer's change", "create_time": moment(refund.made_ms),
                      "status": refund.status, "funds_account": "AVAILABLE",
                      "amount": {"total": order.total_fen, "refund": refund.amount_fen, "payer_total": order.total_fen,
                                 "payer_refund": refund.amount_fen, "settlement_refund": refund.amount_fen,
                                 "settlement_total": order.total_fen, "discount_refund": 0, "currency": "CNY"}}
        if refund.status == "SUCCESS":
            said["success_time"] = moment(refund.success_ms)
        return said

    # The payer's wallet

    def scan(self, code_url: str, outcome: str, *, openid: str = "o-payer-1", slow_s: float = 30) -> Body:
        """A wallet scans: `{"ok": bool, "why": str, "order_no": str}`; `ok` says that the outcome went as chosen.

        `slow` pays `slow_s` later by the clock handed in, unless the order is closed or over by then.  ValueError for
        an outcome not in OUTCOMES.
        """
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._settle()
        now, order_no = self._now_ms(), self._codes.get(code_url, "")
        why = self._scan_refusal(code_url, openid, now)
        if why:
            return {"ok": False, "why": why, "order_no": order_no}
        order = self._orders[order_no]
        order.openid = openid
        if outcome == "pay":
            self._pay(order, now)
        elif outcome == "slow":
            order.pays_ms = now + int(slow_s * SECOND_MS)
            self._wake(order, order.pays_ms)
        elif outcome == "insufficient":
            return {"ok": False, "why": "the wallet has not enough money", "order_no": order_no}
        return {"ok": True, "why": "", "order_no": order_no}

    def _scan_refusal(self, code_url: str, openid: str, now: int) -> str:
        order = self._orders.get(self._codes.get(code_url, ""))
        if order is None:
            return "the code is not known"
        if order.code_url != code_url:
            return "the code was replaced by a newer one"
        if order.state == "CLOSED":
            return "the order is closed"
        if order.state != "NOTPAY":
            return "the order is paid already"
        if now >= order.code_until_ms or now >= order.expires_ms:
            return "the code is too old"
        if order.openid not in ("", openid):
            return "another wallet has scanned this order"
        return ""

    def _pay(self, order: Order, at_ms: int) -> None:
        order.state, order.paid_ms, order.pays_ms = "SUCCESS", at_ms, None
        order.transaction_id = self._number("4200")
        self._paid[order.transaction_id] = order
        if self.balance_fen is not None:
            self.balance_fen += order.total_fen

    def pay_after_close(self, order_no: str) -> None:
        """The payment of a customer who was inside the cash desk when the close was confirmed: success stands all the same."""
        order = self._order(order_no)
        if order.state == "CLOSED":
            self._pay(order, self._now_ms())

    # Books

    def orders(self) -> list[Body]:
        """What the channel holds, oldest first.

        Rows `{"channel", "order_no", "amount_fen", "captured_fen", "refunded_fen", "state"}`, state one of
        `open paid closed part_refunded refunded`; refunds count from the moment they are accepted.
        """
        self._settle()
        return [self._row(order) for order in self._orders.values()]

    def trade_bill(self, day: str) -> tuple[int, bytes | Body]:
        """The bill of `day` (YYYY-MM-DD, Beijing), type ALL, UTF-8: (200, file) or (status, error).

        Rows are paid orders by the day of payment and refunds by the day they were accepted; values start with a
        backtick, amounts are yuan.  A fee is reported per row and given back with a refund.
        """
        self._settle()
        try:
            return 200, self._trade_bill(day)
        except Refused as no:
            return no.status, no.body

    def _trade_bill(self, day: str) -> bytes:
        try:
            start = datetime.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=BEIJING)
        except ValueError:
            raise Refused("invalid", "/bill_date") from None
        start_ms = int(start.timestamp()) * SECOND_MS
        if self._now_ms() < start_ms + DAY_MS + 9 * HOUR_MS:
            raise Refused("bill_soon")
        if self._now_ms() > start_ms + 92 * DAY_MS:
            raise Refused("bill_old")
        today = range(start_ms, start_ms + DAY_MS)
        rows: list[tuple[int, list[str]]] = []
        paid_fen = back_fen = 0
        for order in self._orders.values():
            if order.paid_ms in today:
                rows.append((order.paid_ms, self._bill_row(order, None)))
                paid_fen += order.total_fen
            if order.reversed_ms in today:
                rows.append((order.reversed_ms, self._bill_row(order, Refund("", "", {}, order.total_fen, order.reversed_ms, 0,
                                                                             "SUCCESS"), "REVOKED")))
                back_fen += order.total_fen
            for refund in order.refunds:
                if refund.made_ms in today:
                    rows.append((refund.made_ms, self._bill_row(order, refund)))
                    back_fen += refund.amount_fen
        if not rows:
            raise Refused("no_bill")
        sums = [str(len(rows)), yuan(paid_fen), yuan(back_fen), "0.00", fee(paid_fen - back_fen), yuan(paid_fen),
                yuan(back_fen)]
        told = [ticked(row) for _, row in sorted(rows, key=lambda r: r[0])]
        return "\r\n".join([BILL_HEAD, *told, BILL_SUM_HEAD, ticked(sums), ""]).encode()

    def _bill_row(self, order: Order, refund: Refund | None, state: str = "REFUND") -> list[str]:
        at_ms = order.paid_ms if refund is None else refund.made_ms
        at = datetime.datetime.fromtimestamp(at_ms / SECOND_MS, BEIJING).strftime("%Y-%m-%d %H:%M:%S")
        paid, back = (order.total_fen, 0) if refund is None else (0, refund.amount_fen)
        returned = ["0", "0", "0.00", "0.00", "", ""] if refund is None else [
            refund.refund_id, refund.refund_no, yuan(back), "0.00", "ORIGINAL", BILL_REFUND_STATES[refund.status]]
        return [at, self.appid, self.mchid, "0", "", order.transaction_id, order.order_no, order.openid, order.trade_type,
                "SUCCESS" if refund is None else state, "OTHERS", "CNY", yuan(paid), "0.00", *returned,
                order.content["description"], order.content.get("attach", ""), fee(paid - back), "0.60%", yuan(paid),
                yuan(back), ""]

    def _row(self, order: Order) -> Body:
        paid, back = order.state in ("SUCCESS", "REFUND"), order.accepted_fen()
        state = {"NOTPAY": "open", "USERPAYING": "open", "PAYERROR": "closed", "CLOSED": "closed",
                 "REVOKED": "reversed"}.get(order.state, "paid")
        if back:
            state = "refunded" if back == order.total_fen else "part_refunded"
        return {"channel": self.channel, "order_no": order.order_no, "amount_fen": order.total_fen,
                "captured_fen": order.total_fen if paid else 0, "refunded_fen": back, "state": state}

    def _settle(self) -> None:
        """Let everything happen that was due by now, in its order, and touch no other order."""
        now = self._now_ms()
        while self._due and self._due[0][0] <= now:
            at_ms, order_no = heapq.heappop(self._due)
            self._settle_order(self._orders[order_no], at_ms)

    def _settle_order(self, order: Order, at_ms: int) -> None:
        if order.pays_ms is not None and order.pays_ms <= at_ms:
            order.pays_ms = None
            if order.state in ("NOTPAY", "USERPAYING") and at_ms < order.expires_ms:
                self._pay(order, at_ms)
        if order.state == "USERPAYING" and at_ms >= order.made_ms + USERPAYING_MS:
            order.state = "PAYERROR"
        if order.state == "NOTPAY" and at_ms >= order.made_ms + ORDER_LIFE_MS:
            order.state = "CLOSED"
        for refund in order.refunds:
            if refund.status == "PROCESSING" and refund.due_ms <= at_ms:
                refund.status, refund.success_ms = self.refund_ends, refund.due_ms

    def _wake(self, order: Order, at_ms: int) -> None:
        heapq.heappush(self._due, (at_ms, order.order_no))

    def _order(self, order_no: str) -> Order:
        if order_no not in self._orders:
            raise Refused("absent")
        return self._orders[order_no]

    def _by_id(self, transaction_id: str) -> Order:
        if transaction_id not in self._paid:
            raise Refused("absent")
        return self._paid[transaction_id]

    def _number(self, head: str) -> str:
        self._count += 1
        day = datetime.datetime.fromtimestamp(self._now_ms() / SECOND_MS, BEIJING).strftime("%Y%m%d")
        return f"{head}000000{day}{self._count:010d}"


def parsed(body: bytes) -> Body:
    try:
        fields = json.loads(body)
    except ValueError:
        raise Refused("invalid") from None
    if not isinstance(fields, dict):
        raise Refused("invalid")
    return fields


def checked_create(body: Body, now_ms: int) -> int | None:
    """When the order ends in Unix ms, None without time_expire.  Raises Refused for the first field that is wrong."""
    refuse_extra(body, CREATE_FIELDS)
    for name, most in (("appid", 32), ("mchid", 32), ("description", 127), ("out_trade_no", 32), ("notify_url", 255)):
        text(body, name, most)
    if not ORDER_NO.fullmatch(body["out_trade_no"]):
        raise Refused("invalid", "/out_trade_no")
    if not body["notify_url"].startswith("https://") or "?" in body["notify_url"]:
        raise Refused("invalid", "/notify_url")
    if "attach" in body:
        text(body, "attach", 128)
    amount = body.get("amount")
    if not isinstance(amount, dict):
        raise Refused("invalid", "/amount")
    refuse_extra(amount, {"total", "currency"}, "/amount")
    fen(amount, "total")
    currency(amount)
    if "time_expire" not in body:
        return None
    text(body, "time_expire", 64)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", body["time_expire"]):
        raise Refused("invalid", "/time_expire")
    try:
        return int(datetime.datetime.fromisoformat(body["time_expire"]).timestamp() * SECOND_MS)
    except ValueError:
        raise Refused("invalid", "/time_expire") from None


def checked_refund(body: Body) -> None:
    refuse_extra(body, REFUND_FIELDS)
    if ("transaction_id" in body) == ("out_trade_no" in body):
        raise Refused("invalid", "/out_trade_no")
    text(body, "transaction_id" if "transaction_id" in body else "out_trade_no", 32)
    text(body, "out_refund_no", 64)
    if not REFUND_NO.fullmatch(body["out_refund_no"]):
        raise Refused("invalid", "/out_refund_no")
    if "reason" in body:
        text(body, "reason", 80)
    amount = body.get("amount")
    if not isinstance(amount, dict):
        raise Refused("invalid", "/amount")
    refuse_extra(amount, {"refund", "total", "currency", "from"}, "/amount")
    fen(amount, "refund")
    fen(amount, "total")
    if amount.get("currency") != "CNY":
        raise Refused("invalid", "/amount/currency")


def refuse_extra(body: Body, known: set[str], at: str = "") -> None:
    for name, value in body.items():
        if name not in known or value is None:
            raise Refused("extra", f"{at}/{name}")


def text(body: Body, name: str, most: int) -> None:
    value = body.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise Refused("invalid", f"/{name}")


def fen(amount: Body, name: str) -> None:
    value = amount.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused("invalid", f"/amount/{name}")
    if value < 1:
        raise Refused("range", f"/amount/{name}")


def currency(amount: Body) -> None:
    if amount.get("currency", "CNY") != "CNY":
        raise Refused("invalid", "/amount/currency")


def yuan(amount_fen: int) -> str:
    return f"{amount_fen // 100}.{amount_fen % 100:02d}"


def fee(amount_fen: int) -> str:
    """The fee on `amount_fen` in yuan with five decimals, exactly."""
    share = amount_fen * BILL_FEE_MILLI
    return f"{'-' if share < 0 else ''}{abs(share) // 100_000}.{abs(share) % 100_000:05d}"


def ticked(values: list[str]) -> str:
    return ",".join("`" + value for value in values)


def moment(at_ms: int) -> str:
    """Beijing time as WeChat writes it."""
    return datetime.datetime.fromtimestamp(at_ms // SECOND_MS, BEIJING).isoformat()
