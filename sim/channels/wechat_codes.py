"""Payers' codes at WeChat, API v2: given out by wallets, charged once, reversed with their money.

Knows what a charge and a reversal answer.  The orders they make are the rules' own, `wechat.py`'s; the envelope is
`wechat_server.py`'s.
Source: WeChat Pay merchant documentation v2 (micropay, reverse).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from sim.channels.wechat_forms import ORDER_NO
from sim.channels.wechat_orders import DAY_MS, MINUTE_MS, ORDER_LIFE_MS, OUTCOMES, SECOND_MS, Order, moment

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
    """Payment codes of API v2: given out by wallets, charged once, reversed with their money.

    `spent` are the codes that were charged, here or wherever else the same set is known.
    """

    def __init__(self, rules: WechatRules) -> None:
        self._rules = rules
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
        digits = fields.get("auth_code", "")
        code = self._codes.get(digits)
        if code is None:
            return failed("AUTH_CODE_ERROR")
        if digits in self.spent or now >= code.until_ms:
            return failed("AUTH_CODE_INVALID" if digits in self.spent else "AUTHCODEEXPIRE")
        code.order_no = no
        self.spent.add(digits)
        order = Order(no, {"auth_code": fields["auth_code"], "description": fields["body"]}, int(amount), now,
                      now + ORDER_LIFE_MS, "USERPAYING", openid="o-payer-1", trade_type="MICROPAY",
                      sub_mchid=fields.get("sub_mch_id", ""))
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
        if order.sub_mchid != fields.get("sub_mch_id", ""):
            return failed("NOAUTH") | {"recall": "N"}
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
