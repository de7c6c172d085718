"""What the outside should be doing now, from books and desk alone.  There is no recovery code: a boot asks this, too.

`wants_of(key)` is small, so that only what an input touched is looked at; `wants` is the whole of it, for boot and tests.
"""

from __future__ import annotations

from device.txn import record
from device.txn.books import Books, Phase
from device.txn.desk import Desk
from device.txn.effects import (
    Alarm,
    CloseOrder,
    Effect,
    KickDrawer,
    PlaceOrder,
    Print,
    QueryOrder,
    QueryRefund,
    Recall,
    RefundOrder,
    SignRecord,
)

Key = tuple[str, ...]
ALWAYS: tuple[Key, ...] = (("printer",), ("record",), ("recall",), ("shown",))


def keys(books: Books) -> set[Key]:
    """Every key that can want something."""
    return {*ALWAYS, *(("order", no) for no in books.orders), *(("refund", no) for no in books.refunds)}


def wants(books: Books, desk: Desk) -> set[Effect]:
    return {effect for key in keys(books) for effect in wants_of(key, books, desk)}


def wants_of(key: Key, books: Books, desk: Desk) -> set[Effect]:
    """Effects wanted for one key; empty for a key that is no more."""
    match key:
        case ("order", no):
            return _order(no, books)
        case ("refund", no):
            refund = books.refunds.get(no)
            if refund is None:
                return set()
            return {QueryRefund(refund.intent) if refund.accepted else RefundOrder(refund.intent)}
        case ("printer",):
            return _printer(books, desk)
        case ("record",):
            return {SignRecord(books.chain.seq + 1, record.payload(books, books.due[0]))} if books.due else set()
        case ("recall",):
            return {Recall(desk.looking)} if desk.looking else set()
        case ("shown",):
            return {Alarm(("shown",), books.boot, books.shown.until_ms)} if books.shown is not None else set()
    raise AssertionError(key)


def _order(no: str, books: Books) -> set[Effect]:
    order = books.orders.get(no)
    if order is None:
        return set()
    intent, alarm = order.intent, Alarm(("order", no), books.boot, order.due_ms)
    if order.disputed_fen and order.phase in (Phase.PLACING, Phase.AWAITING, Phase.CLOSED):
        return {QueryOrder(intent, watch=True)}       # a person decides; only the channel's own word can settle it before
    match order.phase:
        case Phase.PLACING:
            return {PlaceOrder(intent), QueryOrder(intent), alarm}
        case Phase.AWAITING:
            return {QueryOrder(intent), alarm}
        case Phase.CANCELLING:
            live = books.basket.order_no == no        # a cashier waits for its end
            return {CloseOrder(intent), QueryOrder(intent), *([alarm] if live else [])}
        case Phase.ASKING:
            return {alarm}
        case Phase.CLOSED:
            return {QueryOrder(intent, watch=True), alarm}
        case Phase.RETURNING:
            return set()                              # its refund is wanted under its own key
    raise AssertionError(order.phase)


def _printer(books: Books, desk: Desk) -> set[Effect]:
    """One paper at a time, oldest first; none on a printer that said it cannot."""
    if not desk.well("printer"):
        return set()
    wanted: set[Effect] = {KickDrawer(k.kick) for k in books.kicks.values() if not k.started}
    due = None
    for paper in books.papers.values():               # one pass: this runs after every scan
        if paper.state == "started":
            return wanted
        if due is None and paper.state == "due":
            due = paper
    if due is not None:
        wanted.add(Print(due.job, due.paper))
    return wanted
