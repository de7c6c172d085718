"""WeChat Pay's rules for native orders and refunds, without a wire.

Knows orders, their states, the idempotency of numbers and the payer's wallet; time is handed in and moved by whoever
owns it.  Payers' codes, forms and the bill have rooms of their own (`wechat_*.py`).  Refuses to know HTTP and signatures:
`wechat_server.py` adds them, a simulated world does without.
Source: WeChat Pay merchant documentation, API v3 (Native payment, query, close, refunds, error codes).
"""

from __future__ import annotations

import datetime
import heapq
import json
import random
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sim.channels import wechat_bill
from sim.channels.wechat_codes import USERPAYING_MS, CodeDesk
from sim.channels.wechat_forms import TAILS, Refused, checked_create, checked_refund, parsed, refuse_extra
from sim.channels.wechat_merchants import Merchants
from sim.channels.wechat_orders import (
    BEIJING,
    DAY_MS,
    HOUR_MS,
    MINUTE_MS,
    ORDER_LIFE_MS,
    OUTCOMES,
    SECOND_MS,
    Answer,
    Body,
    Order,
    Refund,
    moment,
)

CODE_LIFE_MS = 2 * HOUR_MS             # of a code_url, whatever time_expire says
REFUND_WINDOW_MS = 365 * DAY_MS
REFUND_PARTS_MAX = 50


class WechatRules:
    """WeChat Pay towards one merchant.

    `now_ms` Unix milliseconds.  Calls take parsed bodies and answer (HTTP status, body), body None for a 204.
    `refund_after_ms` is how long an accepted refund stays PROCESSING, `refund_ends` what it then becomes
    (SUCCESS, ABNORMAL or CLOSED), `refund_gap_ms` the least time between two refunds of one order, `balance_fen` what
    the merchant has to give back, None for plenty.  All four may be set while it runs.  With `subs`, sub_mchid to sub_appid, the
    merchant is a service provider who asks for its shops, and for nobody else.
    """

    channel = "wechat"

    def __init__(self, now_ms: Callable[[], int], *, mchid: str = "1900000001", appid: str = "wx0000000000000001",
                 subs: Mapping[str, str] | None = None, seed: int = 0) -> None:
        self.mchid, self.appid = mchid, appid
        self.merchants = Merchants(mchid, appid, subs or {})
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
            if steps[:2] == ["v3", "pay"]:
                if (steps[2:3] == ["partner"]) != bool(self.merchants.subs):
                    raise Refused("relation")
                steps = [step for step in steps if step != "partner"]
            match method, steps:
                case "POST", ["v3", "pay", "transactions", "native"]:
                    return self.create(parsed(body))
                case "GET", ["v3", "pay", "transactions", "out-trade-no", order_no]:
                    return self.query(order_no, **asker(query))
                case "GET", ["v3", "pay", "transactions", "id", transaction_id]:
                    return self.query_id(transaction_id, **asker(query))
                case "POST", ["v3", "pay", "transactions", "out-trade-no", order_no, "close"]:
                    return self.close(order_no, parsed(body))
                case "POST", ["v3", "pay", "transactions", "codepay"]:
                    return self._kept(self.codes.codepay, parsed(body))
                case "POST", ["v3", "pay", "transactions", "out-trade-no", order_no, "reverse"]:
                    return self._kept(self.codes.reverse_v3, order_no, parsed(body))
                case "POST", ["v3", "refund", "domestic", "refunds"]:
                    return self.refund(parsed(body))
                case "GET", ["v3", "refund", "domestic", "refunds", refund_no]:
                    return self.query_refund(refund_no, query.get("sub_mchid", ""))
            raise Refused("no_path")
        except Refused as no:
            return no.status, no.body

    # The merchant's calls

    def create(self, body: Body) -> Answer:
        """POST /v3/pay/transactions/native.  The same content again gives a new code and kills the one before."""
        return self._kept(self._create, body)

    def query(self, order_no: str, mchid: str, sub_mchid: str = "") -> Answer:
        """GET /v3/pay/transactions/out-trade-no/{order_no}?mchid="""
        return self._kept(lambda: self._query(self._order(order_no), mchid, sub_mchid))

    def query_id(self, transaction_id: str, mchid: str, sub_mchid: str = "") -> Answer:
        """GET /v3/pay/transactions/id/{transaction_id}?mchid="""
        return self._kept(lambda: self._query(self._by_id(transaction_id), mchid, sub_mchid))

    def close(self, order_no: str, body: Body) -> Answer:
        """POST .../close.  204, also when closed before; refused when paid."""
        return self._kept(self._close, order_no, body)

    def refund(self, body: Body) -> Answer:
        """POST /v3/refund/domestic/refunds.  The same number and content is one refund, whose state is answered."""
        return self._kept(self._refund, body)

    def query_refund(self, refund_no: str, sub_mchid: str = "") -> Answer:
        """GET /v3/refund/domestic/refunds/{refund_no}"""
        return self._kept(self._query_refund, refund_no, sub_mchid)

    def _kept(self, call: Callable[..., Answer], *args: Any) -> Answer:
        self._settle()
        try:
            return call(*args)
        except Refused as no:
            return no.status, no.body

    def _create(self, body: Body) -> Answer:
        now = self._now_ms()
        sub_mchid, rest = self.merchants.asked(body, apps=True)
        expires = checked_create(rest, now)
        order = self._orders.get(body["out_trade_no"])
        if order is None:
            if expires is not None and expires <= now:
                raise Refused("range", "/time_expire")
            order = Order(body["out_trade_no"], body, body["amount"]["total"], now,
                          now + ORDER_LIFE_MS if expires is None else expires, sub_mchid=sub_mchid)
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

    def _query(self, order: Order, mchid: str, sub_mchid: str) -> Answer:
        if mchid != self.mchid:
            raise Refused("other_merchant")
        self._own(order, self.merchants.shop({"sub_mchid": sub_mchid})[0])
        said: Body = {**self.merchants.told(order.sub_mchid), "out_trade_no": order.order_no,
                      "trade_state": order.state, "trade_state_desc": order.state,
                      "amount": {"total": order.total_fen, "currency": "CNY"}}
        if "attach" in order.content:
            said["attach"] = order.content["attach"]
        if order.state in ("SUCCESS", "REFUND") or order.reversed_ms:
            said |= {"transaction_id": order.transaction_id, "trade_type": order.trade_type, "bank_type": "OTHERS",
                     "success_time": moment(order.paid_ms), "payer": {"openid": order.openid}}
            said["amount"] |= {"payer_total": order.total_fen, "payer_currency": "CNY"}
        return 200, said

    def _close(self, order_no: str, body: Body) -> Answer:
        sub_mchid, rest = self.merchants.asked(body, apps=False)
        refuse_extra(rest, set())
        order = self._order(order_no)
        self._own(order, sub_mchid)
        if order.trade_type == "MICROPAY":
            raise Refused("code_close")
        if order.state in ("SUCCESS", "REFUND"):
            raise Refused("paid_close")
        order.state, order.pays_ms = "CLOSED", None
        return 204, None

    def _own(self, order: Order, sub_mchid: str) -> None:
        if order.sub_mchid != sub_mchid:
            raise Refused("other_sub")

    def _refund(self, body: Body) -> Answer:
        sub_mchid, rest = self.merchants.shop(body)
        checked_refund(rest)
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
        self._own(order, sub_mchid)
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

    def _query_refund(self, refund_no: str, sub_mchid: str) -> Answer:
        sub_mchid, _ = self.merchants.shop({"sub_mchid": sub_mchid})
        if refund_no not in self._refunds:
            raise Refused("no_refund")
        self._own(self._refunds[refund_no][0], sub_mchid)
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

    def trade_bill(self, day: str, sub_mchid: str = "") -> tuple[int, bytes | Body]:
        """The bill of `day` (YYYY-MM-DD, Beijing), as `wechat_bill.trade_bill`: (200, file) or (status, error).

        Of a provider that names no shop it is the bill of all of them.
        """
        self._settle()
        try:
            if sub_mchid:
                self.merchants.shop({"sub_mchid": sub_mchid})
            orders = [order for order in self._orders.values() if sub_mchid in ("", order.sub_mchid)]
            return 200, wechat_bill.trade_bill(orders, day, now_ms=self._now_ms(), appid=self.appid,
                                               mchid=self.mchid)
        except Refused as no:
            return no.status, no.body

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


def asker(query: Mapping[str, str]) -> dict[str, str]:
    """Whose order a query asks for, by its parameters."""
    return {"mchid": query.get("sp_mchid", query.get("mchid", "")), "sub_mchid": query.get("sub_mchid", "")}
