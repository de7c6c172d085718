"""UnionPay's own side of QR payments, ACP 5.1.0: orders by number and time, payers' codes, refunds, on a clock handed in.

Knows fields in, fields out.  Refuses to know signatures and lines.  Guessed: a QR nobody scanned is queried as 05.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

CODE_LIVES_MS = 60_000
OUTCOMES = ("pay", "abandon", "insufficient", "slow")


class UnionpayRules:
    """`now_ms` Unix time in milliseconds; `mchid` the one merchant."""

    channel = "unionpay"

    def __init__(self, now_ms: Callable[[], int], mchid: str = "777290058110048") -> None:
        self.now_ms, self.mchid = now_ms, mchid
        self._orders: dict[tuple[str, str], dict[str, Any]] = {}
        self._refunds: dict[tuple[str, str], dict[str, Any]] = {}
        self._codes: dict[str, dict[str, Any]] = {}

    def scan(self, qr: str, outcome: str, *, wallet: str = "unionpay", slow_s: float = 30) -> dict[str, Any]:
        """A payer scans our QR; `outcome` one of OUTCOMES."""
        order = next((o for o in self._orders.values() if o["qr"] == qr and qr), None)
        why = "no such code" if order is None else "paid already" if self._result(order) == "00" else ""
        if order is not None and not why:
            self._try(order, outcome, slow_s)
        return {"ok": not why, "why": why, "order_no": order["no"] if order else ""}

    def code(self, wallet: str = "unionpay") -> str:
        """A fresh payer's code: 19 digits, one minute, one order."""
        code = f"62{len(self._codes) + 1:017d}"
        self._codes[code] = {"until_ms": self.now_ms() + CODE_LIVES_MS, "outcome": "pay", "slow_s": 30.0, "used": False}
        return code

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        """What the payer of `code` will do when it is charged."""
        assert outcome in OUTCOMES, outcome
        self._codes[code] |= {"outcome": outcome, "slow_s": slow_s}

    def orders(self) -> list[dict[str, Any]]:
        return [{"channel": self.channel, "order_no": o["no"], "amount_fen": o["amount"],
                 "captured_fen": o["amount"] if self._result(o) == "00" else 0, "refunded_fen": o["refunded"],
                 "state": self._state(o)} for o in self._orders.values()]

    def answer(self, call: str, asked: dict[str, str]) -> dict[str, str]:
        """The reply's fields, respCode among them, to a request whose proof held."""
        key = asked.get("orderId", ""), asked.get("txnTime", "")
        if call in ("place", "charge"):
            return self._pay(call, key, asked)
        if call == "refund":
            return self._refund(key, asked)
        if call == "query":
            return self._query(key)
        return {"respCode": "98"}                    # no settlement files here yet

    def _pay(self, call: str, key: tuple[str, str], asked: dict[str, str]) -> dict[str, str]:
        if key in self._orders:
            return {"respCode": "12"}
        held = self._codes.get(asked.get("qrNo", ""))
        if call == "charge" and (held is None or held["used"] or self.now_ms() > held["until_ms"]):
            return {"respCode": "77"}
        n = len(self._orders) + 1
        qr = f"https://qr.95516.com/00010000/{n:032d}" if call == "place" else ""
        order = {"no": key[0], "amount": int(asked["txnAmt"]), "qr": qr, "id": f"{n:021d}", "refunded": 0, "result": "05",
                 "paid_ms": None}
        self._orders[key] = order
        if held is not None and call == "charge":
            held["used"] = True
            self._try(order, held["outcome"], held["slow_s"])
        return {"respCode": "00"} | ({"qrCode": qr} if qr else {})

    def _try(self, order: dict[str, Any], outcome: str, slow_s: float) -> None:
        order["result"] = {"insufficient": "64", "abandon": "05"}.get(outcome, "05")
        if outcome in ("pay", "slow"):
            order["paid_ms"] = self.now_ms() + (int(slow_s * 1000) if outcome == "slow" else 0)

    def _result(self, order: dict[str, Any]) -> str:
        return "00" if order["paid_ms"] is not None and order["paid_ms"] <= self.now_ms() else order["result"]

    def _state(self, order: dict[str, Any]) -> str:
        if self._result(order) != "00":
            return "open" if self._result(order) == "05" else "closed"
        return "paid" if not order["refunded"] else "refunded" if order["refunded"] == order["amount"] else "part_refunded"

    def _refund(self, key: tuple[str, str], asked: dict[str, str]) -> dict[str, str]:
        if key in self._refunds:
            return {"respCode": "12"}
        order = next((o for o in self._orders.values() if o["id"] == asked["origQryId"]), None)
        amount = int(asked["txnAmt"])
        if order is None or self._result(order) != "00":
            return {"respCode": "35"}
        if order["refunded"] + amount > order["amount"]:
            return {"respCode": "36"}
        order["refunded"] += amount
        self._refunds[key] = {"amount": amount, "id": f"9{len(self._refunds) + 1:020d}"}
        return {"respCode": "00", "queryId": self._refunds[key]["id"]}

    def _query(self, key: tuple[str, str]) -> dict[str, str]:
        if (back := self._refunds.get(key)) is not None:
            return {"respCode": "00", "origRespCode": "00", "queryId": back["id"], "txnAmt": str(back["amount"])}
        if (order := self._orders.get(key)) is None:
            return {"respCode": "34"}
        return {"respCode": "00", "origRespCode": self._result(order), "queryId": order["id"], "txnAmt": str(order["amount"]),
                "currencyCode": "156"}
