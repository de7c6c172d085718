""""I have paid": the cashier scans the number on the customer's phone or on our slip, and the box answers in words.

Yours and paid, yours and open, given back, not paid, another box's, unknown: from books and journal, never from the phone.
"""

from __future__ import annotations

from device.txn.books import UNDECIDED, Books, Order, Phase, Sale
from device.txn.desk import Desk, Verdict
from device.txn.facts import OrderClosed, OrderIntended, PaymentConfirmed, RefundConfirmed, SaleClosed, decode
from device.txn.inputs import Recalled
from device.txn.words import say, yuan


def asked_about(b: Books, d: Desk, no: str) -> Verdict:
    """The answer about order `no`; what lies further back is looked up in the journal first."""
    order = b.orders.get(no)
    if order is not None:
        return _open(order)
    if not no.startswith(b.box_no):
        return _said("asked_other", "bad", no=no)
    sale = b.sale_of(no)
    if sale is not None:
        return _sold(sale)
    if any(t.order_no == no for t in b.basket.tenders):
        return _said("asked_part", "good", no=no)
    return Verdict(words=say("refund_looking", no=no), desk={"mode": "check", "looking": no, "typed": ""})


def answer(b: Books, d: Desk, e: Recalled) -> Verdict:
    """What the journal's rows about the order say."""
    facts = [fact for row in e.facts for fact in decode(row).facts]
    sale = next((f.sale for f in facts if isinstance(f, SaleClosed)), None)
    if sale is not None:
        back = sum(f.amount_fen for f in facts if isinstance(f, RefundConfirmed))
        return _sold(sale, back)
    if any(isinstance(f, RefundConfirmed) and f.order_no == e.order_no for f in facts):
        return _said("asked_back", "good", no=e.order_no)
    if any(isinstance(f, PaymentConfirmed) and f.order_no == e.order_no for f in facts):
        return _said("asked_part", "good", no=e.order_no)
    known = any(isinstance(f, (OrderIntended, OrderClosed)) for f in facts)
    return _said("asked_closed" if known else "asked_unknown", "bad", no=e.order_no)


def _open(order: Order) -> Verdict:
    no, amount = order.intent.order_no, yuan(order.intent.amount_fen)
    if order.phase in UNDECIDED:
        return _said("asked_open", "wait", again=(no,), no=no, amount=amount)
    if order.phase is Phase.CLOSED:                   # asked once more: a phone that shows money is worth a question
        return _said("asked_closed", "bad", again=(no,), no=no)
    return _said("asked_returning" if order.phase is Phase.RETURNING else "asking", "wait", no=no)


def _sold(sale: Sale, back_fen: int = 0) -> Verdict:
    back_fen = max(back_fen, sale.refunded_fen)
    if back_fen:
        return _said("asked_refunded", "wait", no=sale.order_no, amount=yuan(sale.amount_fen), back=yuan(back_fen))
    return _said("asked_paid", "good", no=sale.order_no, amount=yuan(sale.amount_fen), at=sale.at[5:16].replace("T", " "))


def _said(key: str, tone: str, again: tuple[str, ...] = (), **values: object) -> Verdict:
    return Verdict(words=say(key, **values), tone=tone, again=again, desk={"mode": "", "looking": "", "typed": ""})
