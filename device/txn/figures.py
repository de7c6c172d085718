"""The box in numbers: what became of attempts by channel and hour, how the routes do now, and what waits.

For whoever watches many boxes.  Counts since the last Z; each Z report's record keeps those of its day.
"""

from __future__ import annotations

from device.txn.books import UNDECIDED, Books
from device.txn.day import channels
from device.txn.desk import Desk
from device.txn.routing import WINDOW_MS, median_ms, rate


def figures(books: Books, desk: Desk, now_ms: int) -> dict[str, object]:
    """The `/metrics` object, except what only the line and the store know.  No order number, payer or amount stands in it."""
    papers = [p.state for p in books.papers.values()]
    return {
        "day": books.day.day, "z_no": books.day.z_no, "boots": books.boots, "sales": books.day.sales, "refunds": books.day.refunds,
        "channels": channels(books.day), "routes": _routes(desk, now_ms),
        "undecided": sum(o.phase in UNDECIDED for o in books.orders.values()),
        "parked": sum(bool(o.park) for o in books.orders.values()),
        "disputed": sum(bool(o.disputed_fen) for o in books.orders.values()),
        "refunds_open": len(books.refunds), "refunds_stuck": sum(bool(r.stuck) for r in books.refunds.values()),
        "papers_due": papers.count("due"), "papers_unsure": papers.count("unsure"), "papers_shelved": books.shelved,
        "records_due": len(books.due), "health": dict(desk.health),
    }


def _routes(desk: Desk, now_ms: int) -> list[dict[str, object]]:
    """What the choice of the next route stands on: the last ten minutes of each, the shop's own order first."""
    rows: list[dict[str, object]] = []
    for name in dict.fromkeys((*desk.terms.route, *(o.channel for o in desk.outcomes))):
        recent = [o for o in desk.outcomes if o.channel == name and now_ms - o.at_ms <= WINDOW_MS]
        rows.append({"channel": name, "attempts": len(recent), "rate": round(rate(recent), 3) if recent else None,
                     "median_ms": median_ms(recent)})
    return rows
