"""Numbers that a decision takes from the books' counters, and the arithmetic of the business day."""

from __future__ import annotations

import base64
import datetime
import hashlib

from device.crockford import ALPHABET
from device.txn.books import Books
from device.txn.desk import Desk
from device.txn.effects import PaperPart
from device.txn.facts import DrawerDue, Fact, ReceiptDue
from device.txn.numbers import order_number
from device.types import Stamp

EMPTY_DIGEST = base64.urlsafe_b64encode(hashlib.sha256(b"").digest()).rstrip(b"=").decode()


def digest(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode("ascii")).digest()).rstrip(b"=").decode()


def salt_of(seed: str) -> str:
    """Four characters of Crockford's alphabet out of a journal's random id."""
    value = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big")
    return "".join(ALPHABET[value >> 5 * i & 31] for i in range(4))


def mint(b: Books, ahead: int = 0) -> str:
    """The next order or refund number, or the one `ahead` of it within the same decision."""
    return order_number(b.box_no, b.salt, b.orders_made + 1 + ahead)


def next_job(b: Books, ahead: int = 0) -> int:
    return b.jobs_made + 1 + ahead


def paper_due(b: Books, kind: str, ref: str, paper: tuple[PaperPart, ...], ahead: int = 0) -> ReceiptDue:
    return ReceiptDue(next_job(b, ahead), kind, ref, paper)


def kick(b: Books, d: Desk, cause: str) -> list[Fact]:
    """The drawer opens now or not at all: without a printer nothing waits to open it later.  One without paper opens it."""
    return [DrawerDue(b.kicks_made + 1, cause)] if d.kicks() else []


def opened(kicks: list[Fact]) -> dict[str, str]:
    """What the record of the same decision says of the drawer that `kicks` open."""
    causes = [fact.cause for fact in kicks if isinstance(fact, DrawerDue)]
    return {"drawer": causes[0]} if causes else {}


def report_no(b: Books, letter: str, number: int) -> str:
    """What an X or Z report's barcode says, and the journal's index finds it by."""
    return f"TB{letter}{b.salt}{number:06d}"


def is_report_no(b: Books, symbol: str) -> bool:
    """True for the barcode of a report of this journal."""
    ours = symbol[:3] in ("TBX", "TBZ") and symbol[3:-6] in (b.salt, *b.old_salts)
    return ours and symbol[-6:].isascii() and symbol[-6:].isdigit()


def hold_code(b: Books, hold: int) -> str:
    """What the barcode of the journal's `hold`-th hold slip says; never said twice."""
    return f"TBH{b.salt}{hold:06d}"


def held_slot(b: Books, symbol: str) -> int | None:
    """The slot of the basket that a hold slip stands for: 0 when it is held no more, None for what is no slip of this journal."""
    tail, ours = symbol[7:], symbol[:3] == "TBH" and symbol[3:7] in (b.salt, *b.old_salts)
    if not ours or len(tail) not in (4, 6) or not (tail.isascii() and tail.isdigit()):
        return None
    if len(tail) == 4:                                # an older release's slip names the slot of a basket without a number
        return int(tail) if int(tail) in b.held and not b.held[int(tail)].hold else 0
    return next((slot for slot, basket in b.held.items() if basket.hold == int(tail)), 0)


def business_day(at: Stamp, cutoff_hour: int) -> str:
    """The day a sale belongs to: until the cut-off hour it is still yesterday's."""
    wall = datetime.datetime.fromisoformat(at.wall) - datetime.timedelta(hours=cutoff_hour)
    return wall.date().isoformat()
