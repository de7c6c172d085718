"""Which accounts the journal still needs the keys of: something of theirs is open, or could still be given back.

Reads rows and decides nothing.  The whole journal is read, for the books keep the newest sales only: seconds for a million rows,
so it is for a person's command and not for the till.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable

import msgspec

from device.errors import Outside
from device.keys.sealed import HOLDER, whose
from device.txn import facts
from device.txn.books import Books, Tender
from device.txn.folding import evolve

ANY = "*"                            # an account of this channel, and an older release did not write which


class Due(msgspec.Struct, frozen=True):
    """What one account, as `whose` names it, is still needed for."""

    open: int = 0                    # orders and refunds whose end is not known, closed ones still watched among them
    refundable: int = 0
    newest: str = ""                 # day of the newest sale that could be given back


def due(rows: Iterable[tuple[int, bytes]], *, today: str, days_of: Callable[[str], int]) -> dict[str, Due]:
    """By account, those that are needed.  `rows` the journal from its first; `today` YYYY-MM-DD, no later than it really is;
    `days_of(channel)` how long a sale can be given back.  Outside, one sentence, when a row does not fold."""
    books, paid, back, parts = Books(), dict[str, tuple[Tender, str]](), dict[str, int](), dict[str, tuple[str, int]]()
    for n, row in rows:
        try:
            entry = facts.decode(row)
            for fact in entry.facts:
                evolve(books, fact, entry.at)
        except (msgspec.DecodeError, UnicodeDecodeError, LookupError, AssertionError) as why:
            raise Outside(f"The journal cannot be folded: row {n} ({type(why).__name__}).", which="journal",
                          hint="see docs/recovery.md", again=False) from None
        for fact in entry.facts:
            match fact:
                case facts.SaleClosed(sale=sale) | facts.SaleRecalled(sale=sale):
                    paid |= {t.order_no: (t, sale.at[:10]) for t in sale.tenders if t.order_no}
                case facts.RefundIntended(intent=refund):
                    parts[refund.refund_no] = refund.order_no, refund.amount_fen
                    back[refund.order_no] = back.get(refund.order_no, 0) + refund.amount_fen
                case facts.RefundFailed(refund_no=no) if no in parts:
                    order_no, amount_fen = parts[no]
                    back[order_no] -= amount_fen
    found: dict[str, Due] = {}
    for account in [*(o.intent.account for o in books.orders.values()), *(r.intent.account for r in books.refunds.values())]:
        had = found.get(whose(account), Due())
        found[whose(account)] = msgspec.structs.replace(had, open=had.open + 1)
    for order_no, (tender, day) in paid.items():
        if tender.method not in HOLDER or back.get(order_no, 0) >= tender.amount_fen:
            continue
        if _days(day, today) <= days_of(tender.method):
            key = whose(tender.account) if tender.account is not None else f"{tender.method}/{ANY}"
            had = found.get(key, Due())
            found[key] = msgspec.structs.replace(had, refundable=had.refundable + 1, newest=max(had.newest, day))
    return found


def needed(found: dict[str, Due], account: str) -> Due | None:
    """What `account` is needed for, None when for nothing."""
    return found.get(account) or found.get(f"{account.partition('/')[0]}/{ANY}")


def _days(earlier: str, later: str) -> int:
    return (datetime.date.fromisoformat(later) - datetime.date.fromisoformat(earlier)).days
