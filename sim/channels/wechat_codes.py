"""Payers' codes at WeChat: given out by wallets, charged once, reversed with their money, by API v2 or v3.

Knows what a charge and a reversal answer.  The orders they make are the rules' own, `wechat.py`'s; the envelope is
`wechat_server.py`'s.
Source: WeChat Pay merchant documentation, v2 (micropay, reverse) and v3 (codepay).  Guesses: which HTTP status and code v3 gives to
each of v2's refusals.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sim.channels.wechat_forms import ORDER_NO, Refused, checked_codepay, refuse_extra
from sim.channels.wechat_orders import (
    DAY_MS,
    MINUTE_MS,
    ORDER_LIFE_MS,
    OUTCOMES,
    SECOND_MS,
    Answer,
    Body,
    Order,
    moment,
)

if TYPE_CHECKING:
    from sim.channels.wechat import WechatRules

PAYER_CODE_LIFE_MS = MINUTE_MS         # of the code that a wallet shows
REVERSE_AFTER_MS, REVERSE_WINDOW_MS = 15 * SECOND_MS, 7 * DAY_MS
USERPAYING_MS = 45 * SECOND_MS         # after which WeChat itself gives a charged code up


class Code(msgspec.Struct):
    """A payer's code as a wallet shows it: what its payer does when it is charged, and the order it went to."""

    until_ms: int
    outcome: str = "pay"
    slow_s: float = 30
    order_no: str = ""


class CodeDesk:
    """Payment codes: given out by wallets, charged once, reversed with their money.

    `payers_answer_202`: v3 says of a payer who is asked 202 USERPAYING, in place of 200 with that state: both are documented.
    `spent` are the codes that were charged, here or wherever else the same set is known.
    """

    def __init__(self, rules: WechatRules) -> None:
        self._rules = rules
        self.payers_answer_202 = False
        self.spent: set[str] = set()
        self._codes: dict[str, Code] = {}

    def fresh(self) -> str:
        """A code that a wallet shows for a minute: 18 digits."""
        code = f"13{self._rules._random.randrange(10 ** 16):016d}"
        self.shown(code)
        return code

    def shown(self, code: str) -> None:
        """A wallet shows `code`, which it had from elsewhere, for a minute."""
        self._codes[code] = Code(self._rules._now_ms() + PAYER_CODE_LIFE_MS)

    def outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        """What the payer of `code` will do: `pay` at once, `slow` after a password, `abandon`, `insufficient`."""
        if outcome not in OUTCOMES:
            raise ValueError(f"no such outcome: {outcome}")
        self._codes[code].outcome, self._codes[code].slow_s = outcome, slow_s

    def micropay(self, fields: dict[str, str]) -> dict[str, str]:
        """The reply to /pay/micropay beside its envelope: result_code, and err_code or the payment."""
        no, amount = fields.get("out_trade_no", ""), fields.get("total_fee", "")
        if not ORDER_NO.fullmatch(no) or not amount.isdigit() or int(amount) < 1 or not fields.get("body"):
            return failed("PARAM_ERROR")
        why = self._charged(no, int(amount), fields.get("auth_code", ""), fields["body"], fields.get("sub_mch_id", ""))
        if why:
            return failed(why)
        order = self._rules._orders[no]
        return {"result_code": "SUCCESS", "openid": order.openid, "is_subscribe": "N", "trade_type": "MICROPAY",
                "bank_type": "OTHERS", "total_fee": amount, "fee_type": "CNY", "cash_fee": amount,
                "transaction_id": order.transaction_id, "out_trade_no": no, "time_end": moment(order.paid_ms)[:19]}

    def reverse(self, fields: dict[str, str]) -> dict[str, str]:
        """The reply to /secapi/pay/reverse: dead when unpaid, given back when paid, again the same."""
        why = self._undone(fields.get("out_trade_no", ""), fields.get("sub_mch_id", ""))
        return failed(why) | {"recall": "Y" if why == "USERPAYING" else "N"} if why else {"result_code": "SUCCESS", "recall": "N"}

    def codepay(self, body: Body) -> Answer:
        """POST /v3/pay/transactions/codepay: as a query answers, or with `trade_state` alone while the payer is asked."""
        sub_mchid, rest = self._rules.merchants.asked(body, apps=True)
        checked_codepay(rest)
        why = self._charged(rest["out_trade_no"], rest["amount"]["total"], rest["payer"]["auth_code"], rest["description"],
                            sub_mchid)
        if why == "USERPAYING":
            return (202, {"code": why, "message": "the payer is asked"}) if self.payers_answer_202 else (200, {"trade_state": why})
        if why:
            raise Refused(f"code_{why}")
        return self._rules._query(self._rules._orders[rest["out_trade_no"]], self._rules.mchid, sub_mchid)

    def reverse_v3(self, order_no: str, body: Body) -> Answer:
        """POST .../out-trade-no/{order_no}/reverse: as `reverse`."""
        sub_mchid, rest = self._rules.merchants.asked(body, apps=True)
        refuse_extra(rest, set())
        why = self._undone(order_no, sub_mchid)
        if why == "USERPAYING":
            return 202, {"code": why, "message": "the payer is asked"}
        if why:
            raise Refused("absent" if why == "ORDERNOTEXIST" else f"code_{why}")
        return 200, {**self._rules.merchants.told(sub_mchid), "out_trade_no": order_no}

    def _charged(self, no: str, total_fen: int, digits: str, description: str, sub_mchid: str) -> str:
        """Charge a code: "" when it is paid, else v2's word for what became of it."""
        rules = self._rules
        rules._settle()
        now, order = rules._now_ms(), rules._orders.get(no)
        if order is not None:
            if order.state in ("SUCCESS", "REFUND"):
                return "ORDERPAID"
            if order.state in ("REVOKED", "CLOSED"):
                return "ORDERREVERSED" if order.state == "REVOKED" else "ORDERCLOSED"
            return "USERPAYING" if order.content.get("auth_code") == digits else "OUT_TRADE_NO_USED"
        code = self._codes.get(digits)
        if code is None:
            return "AUTH_CODE_ERROR"
        if digits in self.spent or now >= code.until_ms:
            return "AUTH_CODE_INVALID" if digits in self.spent else "AUTHCODEEXPIRE"
        code.order_no = no
        self.spent.add(digits)
        order = Order(no, {"auth_code": digits, "description": description}, total_fen, now, now + ORDER_LIFE_MS, "USERPAYING",
                      openid="o-payer-1", trade_type="MICROPAY", sub_mchid=sub_mchid)
        rules._orders[no] = order
        rules._wake(order, now + USERPAYING_MS)
        if code.outcome == "pay":
            rules._pay(order, now)
            return ""
        if code.outcome == "insufficient":
            order.state = "PAYERROR"
            return "NOTENOUGH"
        if code.outcome == "slow":
            order.pays_ms = now + int(code.slow_s * SECOND_MS)
            rules._wake(order, order.pays_ms)
        return "USERPAYING"

    def _undone(self, no: str, sub_mchid: str) -> str:
        """Reverse an order: "" when it is dead, else v2's word for why not."""
        rules = self._rules
        rules._settle()
        order = rules._orders.get(no)
        if order is None:
            return "ORDERNOTEXIST"
        if order.sub_mchid != sub_mchid:
            return "NOAUTH"
        if order.trade_type != "MICROPAY" or order.state == "REFUND":
            return "TRADE_STATE_ERROR"
        if rules._now_ms() > order.made_ms + REVERSE_WINDOW_MS:
            return "REVERSE_EXPIRE"
        if rules._now_ms() < order.made_ms + REVERSE_AFTER_MS and order.state == "USERPAYING":
            return "USERPAYING"
        if order.state != "REVOKED":
            order.reversed_ms = rules._now_ms() if order.state == "SUCCESS" else 0
        order.state, order.pays_ms = "REVOKED", None
        return ""


def failed(code: str) -> dict[str, str]:
    return {"result_code": "FAIL", "err_code": code, "err_code_des": code.lower()}
