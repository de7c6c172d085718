"""Which result is heard: from the facts of one decision, never from a guess.

A sound stands in no book and in no want, so neither a boot nor a repeated answer rings again.
"""

from __future__ import annotations

from device.txn.books import Books
from device.txn.effects import PlaySound
from device.txn.facts import (
    AmountDisputed,
    CancelWished,
    Fact,
    OrderClosed,
    PaidWhileCancelling,
    PaymentConfirmed,
    SaleClosed,
)


def heard(b: Books, facts: list[Fact]) -> PlaySound | None:
    """What `facts` sound like; `b` the books before them.  None for silence.

    `paid` and `parked` only with the payment's own fact; `ask` where a person has to decide; `refused` when the customer's
    attempt at the counter came to nothing without anybody having wished it.
    """
    for fact in facts:
        match fact:
            case PaymentConfirmed(amount_fen=amount_fen):
                parked = any(isinstance(f, SaleClosed) and not f.show for f in facts)
                return PlaySound("parked" if parked else "paid", amount_fen)
            case PaidWhileCancelling() | AmountDisputed():
                return PlaySound("ask")
            case CancelWished(cause="refused"):
                return PlaySound("refused") if fact.order_no == b.basket.order_no else None
            case OrderClosed():
                order = b.orders[fact.order_no]
                return PlaySound("refused") if fact.order_no == b.basket.order_no and not order.cause else None
    return None
