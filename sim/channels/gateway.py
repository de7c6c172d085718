"""An aggregator's rules, without a wire: it holds its own orders, and every wallet can pay them.

Knows orders, refunds, payers' codes of four wallets and the day's bill; time is handed in.  Refuses to know HTTP and
signatures: `gateway_server.py` adds them.  Source: our own protocol, docs/channels.md.
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

BEIJING = datetime.timezone(datetime.timedelta(hours=8))
PAYER_CODE_LIFE_MS = 60_000
BILL_READY_HOUR = 9                    # of the next morning
WALLETS = {"wechat": ("13", 18), "alipay": ("28", 18), "unionpay": ("62", 19), "ecny": ("01", 19)}
OUTCOMES = ("pay", "slow", "abandon", "insufficient")
PLACE_FIELDS = {"order_no": str, "amount_fen": int, "way": str, "description": str, "made_at": str, "expires_at": str,
                "extras": dict}
REFUND_FIELDS = {"refund_no": str, "order_no": str, "amount_fen": int, "paid_fen": int, "reason": str, "made_at": str}

Body = dict[str, Any]


class Refund(msgspec.Struct):
    refund_no: str
    content: Body
    amount_fen: int
    made_ms: int
    ends: str


class Order(msgspec.Struct):
    """`state` is `open paid closed given_back`; `content` the request as first taken, None where only an undo came."""

    order_no: str
    content: Body | None
    amount_fen: int
    dies_ms: int
    state: str = "open"
    way: str = "qr"
    qr: str = ""
    wallet: str = ""
    channel_no: str = ""
    pays_ms: int | None = None
    paid_ms: int = 0
    given_back_ms: int = 0
    why: str = ""
    refunds: list[Refund] = msgspec.field(default_factory=list)


class Code(msgspec.Struct):
    wallet: str
    until_ms: int
    outcome: str = "pay"
    slow_s: float = 30
    order_no: str = ""


class GatewayRules:
    """The aggregator towards one terminal.

    `now_ms` Unix milliseconds.  `answer(call, body)` gives (HTTP status, reply body).  `refund_after_ms` is how long a refund stays
    `processing`, `refund_ends` what it then is (`done`, `abnormal`, `refused`).  `spent` are the payers' codes that were
    charged, here or wherever else the same set is known.
    """

    channel = "gateway"

    def __init__(self, now_ms: Callable[[], int], *, terminal_id: str = "T10001", seed: int = 0) -> None:
        self.terminal_id, self.refund_after_ms, self.refund_ends = terminal_id, 0, "done"
        self._now_ms, self._random = now_ms, random.Random(seed)
        self._orders: dict[str, Order] = {}
        self._refunds: dict[str, tuple[Order, Refund]] = {}
        self._codes: dict[str, Code] = {}
        self.spent: set[str] = set()

    # The terminal's calls

    def answer(self, call: str, body: bytes) -> tuple[int, bytes]:
        self._settle()
        calls = {"place": self._place, "charge": self._charge, "query": self._query, "undo": self._undo,
                 "refund": self._refund, "refund_query": self._query_refund}
        try:
            asked = json.loads(body)
            if call in ("bill", "bill_file"):
                return 200, self._bill(str(asked["day"]), whole=call == "bill_file")
            return 200, dumped(calls[call](asked))
        except (KeyError, TypeError, ValueError):
            return 400, dumped({"result": "malformed"})

    def _place(self, asked: Body) -> Body:
        order, odd = self._taken(asked, PLACE_FIELDS)
        if odd is not None:
            return odd
        if not order.qr:
            order.qr = f"https://pay.local/q/{self._random.randrange(16 ** 16):016x}"
        return self._said(order, "qr", qr=order.qr) if order.state == "open" else self._said(order)

    def _charge(self, asked: Body) -> Body:
        known = asked["order_no"] in self._orders
        order, odd = self._taken(asked, PLACE_FIELDS | {"code": str})
        if odd is not None:
            return odd
        if known:
            return self._said(order, "refused" if order.state == "closed" else "")
        code, now = self._codes.get(asked["code"]), self._now_ms()
        used = asked["code"] in self.spent
        if code is None or used or now >= code.until_ms or code.outcome == "insufficient":
            order.state = "closed"
            order.why = ("the wallet holds too little" if code and code.outcome == "insufficient" and not used
                         else "the code is used, too old, or no wallet's")
            return self._said(order, "refused")
        code.order_no, order.wallet = order.order_no, code.wallet
        self.spent.add(asked["code"])
        if code.outcome == "pay":
            self._pay(order, now)
        elif code.outcome == "slow":
            order.pays_ms = now + int(code.slow_s * 1000)
        return self._said(order)

    def _taken(self, asked: Body, fields: dict[str, type]) -> tuple[Order, Body | None]:
        """The order of this number, made now if it is new; or the answer when it cannot be."""
        if set(asked) != set(fields) or any(type(asked[name]) is not kind for name, kind in fields.items()):
            raise ValueError("fields")
        order = self._orders.get(asked["order_no"])
        if order is None:
            dies_ms = int(datetime.datetime.fromisoformat(asked["expires_at"]).timestamp() * 1000)
            order = Order(asked["order_no"], asked, asked["amount_fen"], dies_ms, way="code" if "code" in fields else "qr")
            if asked["amount_fen"] < 1 or self._now_ms() >= dies_ms:
                return order, self._said(order, "refused", detail="the amount is none or the order's time is over")
            self._orders[order.order_no] = order
        if order.content is None:            # its undo came first: never to be taken any more
            return order, {"order_no": order.order_no, "amount_fen": asked["amount_fen"], "result": "refused",
                           "detail": "undone before it came"}
        if order.content != asked:
            return order, self._said(order, "conflict")
        return order, None

    def _query(self, asked: Body) -> Body:
        order = self._orders.get(asked["order_no"])
        return self._said(order) if order else {"order_no": asked["order_no"], "amount_fen": 0, "result": "absent"}

    def _undo(self, asked: Body) -> Body:
        now, order = self._now_ms(), self._orders.get(asked["order_no"])
        if order is None:                    # a mark of the number, so that a request still on its way finds it dead
            order = self._orders[asked["order_no"]] = Order(asked["order_no"], None, 0, now, "closed")
        elif order.amount_fen not in (0, asked["amount_fen"]):
            return self._said(order, "conflict")
        if order.state == "open":
            order.state, order.pays_ms = "closed", None
        elif order.state == "paid" and order.way == "code" and not order.refunds:
            order.state, order.given_back_ms = "given_back", now
        return self._said(order)

    def _refund(self, asked: Body) -> Body:
        if set(asked) != set(REFUND_FIELDS) or any(type(asked[name]) is not kind for name, kind in REFUND_FIELDS.items()):
            raise ValueError("fields")
        held = self._refunds.get(asked["refund_no"])
        if held is not None:
            return refund_said(*held, self._refund_word(held[1]) if held[1].content == asked else "conflict")
        order = self._orders.get(asked["order_no"])
        refund = Refund(asked["refund_no"], asked, asked["amount_fen"], self._now_ms(), self.refund_ends)
        if order is None or order.state != "paid" or not 0 < asked["amount_fen"] <= order.amount_fen - accepted_fen(order):
            return refund_said(order or Order(asked["order_no"], None, 0, 0), refund, "refused",
                               "nothing paid, or more than is left of it")
        order.refunds.append(refund)
        self._refunds[refund.refund_no] = order, refund
        return refund_said(order, refund, self._refund_word(refund))

    def _query_refund(self, asked: Body) -> Body:
        held = self._refunds.get(asked["refund_no"])
        if held is None:
            return {"refund_no": asked["refund_no"], "order_no": asked["order_no"], "amount_fen": asked["amount_fen"],
                    "result": "absent"}
        return refund_said(*held, self._refund_word(held[1]))

    def _refund_word(self, refund: Refund) -> str:
        return refund.ends if self._now_ms() >= refund.made_ms + self.refund_after_ms else "processing"

    def _bill(self, day: str, *, whole: bool) -> bytes:
        start = datetime.datetime.fromisoformat(day).replace(tzinfo=BEIJING)
        ready = start + datetime.timedelta(days=1, hours=BILL_READY_HOUR)
        if self._now_ms() < ready.timestamp() * 1000:
            return dumped({"result": "not_ready", "day": day})
        rows: list[tuple[int, Body]] = []
        for order in self._orders.values():
            if order.paid_ms:
                rows.append((order.paid_ms, bill_row("paid", order, order.amount_fen, order.paid_ms, "")))
            if order.given_back_ms:
                rows.append((order.given_back_ms, bill_row("refund", order, order.amount_fen, order.given_back_ms, "")))
            rows += [(r.made_ms, bill_row("refund", order, r.amount_fen, r.made_ms, r.refund_no)) for r in order.refunds
                     if self._refund_word(r) in ("done", "processing")]
        first_ms = int(start.timestamp() * 1000)
        told = [row for at_ms, row in sorted(rows, key=lambda r: r[0]) if first_ms <= at_ms < first_ms + 86_400_000]
        sums = {kind: sum(row["amount_fen"] for row in told if row["kind"] == kind) for kind in ("paid", "refund")}
        head = {"result": "ready" if told else "none", "day": day, "rows": len(told), "paid_fen": sums["paid"],
                "refunded_fen": sums["refund"]}
        return b"\n".join(dumped(line) for line in ([head, *told] if whole else [head]))

    def _said(self, order: Order, word: str = "", **more: str) -> Body:
        return {"order_no": order.order_no, "amount_fen": order.amount_fen, "result": word or order.state,
                "wallet": order.wallet, "channel_no": order.channel_no, "detail": order.why, **more}

    # The payer's side

    def scan(self, qr: str, outcome: str, *, wallet: str = "wechat", slow_s: float = 30) -> Body:
        """A wallet scans the aggregated QR: {"ok", "why", "order_no"}."""
        self._settle()
        if outcome not in OUTCOMES or wallet not in WALLETS:
            raise ValueError(f"no such outcome or wallet: {outcome}, {wallet}")
        order = next((o for o in self._orders.values() if o.qr and o.qr == qr), None)
        why = ""
        if order is None or order.state != "open":
            why = "no such code" if order is None else f"the order is {order.state}"
        elif outcome == "insufficient":
            why = "the wallet holds too little"
        elif outcome in ("pay", "slow"):
            order.wallet = wallet
            if outcome == "pay":
                self._pay(order, self._now_ms())
            else:
                order.pays_ms = self._now_ms() + int(slow_s * 1000)
        return {"ok": not why, "why": why, "order_no": order.order_no if order else ""}

    def code(self, wallet: str = "wechat") -> str:
        """A fresh code that `wallet` shows for a minute."""
        head, length = WALLETS[wallet]
        code = head + "".join(self._random.choice("0123456789") for _ in range(length - len(head)))
        self.shown(code, wallet)
        return code

    def shown(self, code: str, wallet: str) -> None:
        """`wallet` shows `code`, which it had from elsewhere, for a minute."""
        self._codes[code] = Code(wallet, self._now_ms() + PAYER_CODE_LIFE_MS)

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        """What the payer of `code` will do when it is charged."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._codes[code].outcome, self._codes[code].slow_s = outcome, slow_s

    def orders(self) -> list[Body]:
        """What the aggregator holds; numbers that were only ever undone are no orders."""
        self._settle()
        told = []
        for order in self._orders.values():
            back = sum(r.amount_fen for r in order.refunds if self._refund_word(r) == "done")
            state = "reversed" if order.state == "given_back" else order.state
            if back:
                state = "refunded" if back == order.amount_fen else "part_refunded"
            if order.content is not None:
                told.append({"channel": self.channel, "order_no": order.order_no, "amount_fen": order.amount_fen,
                             "captured_fen": order.amount_fen if order.state == "paid" else 0, "refunded_fen": back,
                             "state": state})
        return told

    def _pay(self, order: Order, at_ms: int) -> None:
        order.state, order.paid_ms, order.pays_ms = "paid", at_ms, None
        order.channel_no = f"G{at_ms}{self._random.randrange(10 ** 8):08d}"

    def _settle(self) -> None:
        now = self._now_ms()
        for order in self._orders.values():
            if order.state == "open" and order.pays_ms is not None and order.pays_ms <= min(now, order.dies_ms - 1):
                self._pay(order, order.pays_ms)
            elif order.state == "open" and now >= order.dies_ms:
                order.state = "closed"


def accepted_fen(order: Order) -> int:
    """Refunds that have happened or still will."""
    return sum(refund.amount_fen for refund in order.refunds if refund.ends == "done")


def refund_said(order: Order, refund: Refund, word: str, detail: str = "") -> Body:
    return {"refund_no": refund.refund_no, "order_no": order.order_no, "amount_fen": refund.amount_fen, "result": word,
            "channel_no": f"R{refund.made_ms}", "detail": detail}


def bill_row(kind: str, order: Order, amount_fen: int, at_ms: int, refund_no: str) -> Body:
    at = datetime.datetime.fromtimestamp(at_ms // 1000, BEIJING).isoformat()
    return {"kind": kind, "order_no": order.order_no, "refund_no": refund_no, "amount_fen": amount_fen, "at": at,
            "channel_no": order.channel_no, "wallet": order.wallet, "fee_milli_fen": 0}


def dumped(fields: Body) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
