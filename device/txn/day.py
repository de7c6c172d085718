"""The business day: its reports, and the repair of a Z that was forgotten.

A day opens with the first thing counted in it and ends with its Z.  When something is to be counted on a later business
day while the old one still stands open, the old day's Z is made first, by itself and in the same row.
"""

from __future__ import annotations

from device.txn import record
from device.txn.books import Books, Totals
from device.txn.desk import Desk
from device.txn.facts import (
    BasketCleared,
    CashReturned,
    DayClosed,
    DayOpened,
    DrawerDue,
    Fact,
    LineVoided,
    ReceiptDue,
    RefundConfirmed,
    SaleClosed,
    XTaken,
)
from device.txn.minting import business_day, paper_due, report_no
from device.txn.papers import put_away
from device.txn.receipt import report_paper
from device.types import Stamp

# And of the refunds only a customer's.
COUNTED = frozenset({SaleClosed, CashReturned, LineVoided, BasketCleared, DrawerDue, RefundConfirmed})


def in_its_day(b: Books, d: Desk, facts: list[Fact], at: Stamp) -> list[Fact]:
    """`facts`, counted in the business day they belong to: a forgotten Z goes before them, a new day is opened.

    Only a later day closes an open one: a clock that goes back closes nothing.  The report's paper comes after the papers of
    `facts`, for a customer waits for those.
    """
    if COUNTED.isdisjoint(map(type, facts)) or not any(_counts(b, fact) for fact in facts):
        return facts
    today = business_day(at, d.terms.cutoff_hour)
    if not b.day.day:
        return [DayOpened(today), *facts]
    if today <= b.day.day:
        return facts
    body, paper, *closed = report(b, d, "Z", at, auto=True, ahead=sum(isinstance(f, ReceiptDue) for f in facts))
    return [body, *closed, DayOpened(today), *facts, paper]


def _counts(b: Books, fact: Fact) -> bool:
    if isinstance(fact, RefundConfirmed):
        return b.refunds[fact.refund_no].cause == "customer"
    return type(fact) in COUNTED


def channels(day: Totals) -> list[dict[str, object]]:
    """What became of the attempts, by channel, way and hour of the intent; `ms` from intent to PAID, the mean."""
    rows: list[dict[str, object]] = []
    for key, tally in sorted(day.tallies.items()):
        channel, way, hour = key.split()
        rows.append({"channel": channel, "way": way, "hour": int(hour), "attempts": tally.attempts, "paid": tally.paid,
                     "ms": tally.ms // tally.paid if tally.paid else 0, "late": tally.late, "failed": tally.failed})
    return rows


def report(b: Books, d: Desk, letter: str, at: Stamp, *, auto: bool = False, ahead: int = 0) -> list[Fact]:
    """Record, paper and count of the next X or Z, in this order.  `auto`: nobody pressed the key; `ahead` as of `paper_due`."""
    day, parked = b.day, sum(1 for o in b.orders.values() if o.park)
    number = (day.x_no if letter == "X" else day.z_no) + 1
    date = day.day or business_day(at, d.terms.cutoff_hour)
    body = record.due(f"{letter.lower()}_report", no=number, day=date,
                      sales=day.sales, sales_fen=day.sales_fen, refunds=day.refunds, refunds_fen=day.refunds_fen,
                      voids=day.voids, voids_fen=day.voids_fen, drawer_openings=day.kicks,
                      methods=[{"method": m, "amount_fen": fen} for m, fen in sorted(day.methods.items())],
                      grand_fen=day.grand_fen, channels=channels(day), **({"auto": True} if auto else {}))
    no = report_no(b, letter, number)
    away = put_away(b) if letter == "Z" else []
    paper = report_paper(d.terms, letter, number, no, date, day, len(b.held), parked, at, auto)
    return [body, paper_due(b, letter.lower(), no, paper, ahead), *away, XTaken(number) if letter == "X" else DayClosed(number)]
