"""What WeChat holds of an order and of a refund, and the words for time that its rooms share."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
ORDER_LIFE_MS = 7 * DAY_MS             # of an order without time_expire
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
OUTCOMES = ("pay", "abandon", "insufficient", "slow")

Body = dict[str, Any]
Answer = tuple[int, Body | None]


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
    sub_mchid: str = ""                    # the shop, where its provider asked
    reversed_ms: int = 0                   # when a paid one was given back by its reversal

    def accepted_fen(self) -> int:
        """Refunds that have happened or still will."""
        return sum(r.amount_fen for r in self.refunds if r.status in ("PROCESSING", "SUCCESS"))


def moment(at_ms: int) -> str:
    """Beijing time as WeChat writes it."""
    return datetime.datetime.fromtimestamp(at_ms // SECOND_MS, BEIJING).isoformat()
