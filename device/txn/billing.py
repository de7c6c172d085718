"""What the channel's own bills prove of an order whose shelf life is over.  Pure: lines in, a word or none out."""

from __future__ import annotations

from device.txn.books import Books, Order, Phase
from device.txn.desk import Billed, Desk
from device.txn.inputs import BillSaid, ChannelSaid, Said


def known_lines(b: Books, d: Desk, bill: BillSaid) -> tuple[Billed, ...]:
    """What `bill` says of each order that it may name, and what earlier ones said of orders that are still open."""
    named = [o for o in b.orders.values() if o.bill_decides and o.intent.account == bill.account and bill.day in o.bill_days]
    fresh = tuple(_billed(o.intent.order_no, bill) for o in named)
    read = {(line.order_no, line.day) for line in fresh}
    open_ = {no for no, order in b.orders.items() if order.bill_decides}
    return fresh + tuple(line for line in d.billed if line.order_no in open_ and (line.order_no, line.day) not in read)


def _billed(no: str, bill: BillSaid) -> Billed:
    paid = [row for row in bill.rows if row[0] == "paid" and row[1] == no]
    back_fen = sum(row[3] for row in bill.rows if row[0] == "refund" and row[1] == no)
    return Billed(no, bill.day, sum(row[3] for row in paid), back_fen, paid[0][4] if paid else "")


def decidable(b: Books, d: Desk) -> list[str]:
    """Orders that the bills read so far decide."""
    return [no for no, order in b.orders.items() if order.bill_decides and on_bills(order, lines_of(no, d.billed)) is not None] \
        if d.billed else []


def lines_of(no: str, lines: tuple[Billed, ...]) -> list[Billed]:
    return [line for line in lines if line.order_no == no]


def on_bills(order: Order, lines: list[Billed]) -> ChannelSaid | None:
    """What the bills read so far prove of `order`; None while they do not.

    One asked for before midnight may have been made after it: only all of an order's days say that nothing was taken.  An undo that
    moves money is repeated until the channel says what it did, and may have done it on any later day: no bill says that it did
    nothing.  `undo`: the matter is settled, whichever way.
    """
    no, paid_fen, back_fen = order.intent.order_no, sum(x.paid_fen for x in lines), sum(x.back_fen for x in lines)
    channel_no = next((x.channel_no for x in lines if x.channel_no), "")
    whole = {x.day for x in lines} >= set(order.bill_days)
    if paid_fen and back_fen >= paid_fen:
        return ChannelSaid(no, Said.GIVEN_BACK, paid_fen, channel_no, undo=True)
    if paid_fen and not (order.undoing and order.phase is Phase.UNDECIDED):
        return ChannelSaid(no, Said.PAID, paid_fen, channel_no, undo=True)
    if whole and not (paid_fen or back_fen or order.held_fen):   # what goes back or is held was taken, whatever these days say
        return ChannelSaid(no, Said.CLOSED, detail="the channel's bill does not name it", undo=True)
    return None
