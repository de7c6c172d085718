"""Papers that wait: how long each kind may, and what is asked of a person when the printer is back.

Knows ages.  Refuses to know printers.  A receipt that nobody stands there for any more is not printed by itself: a till that
was switched on in the morning does not print last night.
"""

from __future__ import annotations

import msgspec

from device.txn.books import Books, Paper, Shown
from device.txn.desk import Desk, Verdict
from device.txn.effects import SignReceipt
from device.txn.facts import Fact, PaperAsked, PapersLate, PapersShelved
from device.txn.folding import boot_age_ms
from device.txn.inputs import Started
from device.txn.words import say
from device.types import Stamp

# Seconds after which a paper of this kind is printed only when somebody asks for it; what is not named waits for ever, for the
# shop itself needs it: slips of undecided payments, alerts, Z reports.
EXPIRES_S = {"sale": 600, "refund": 600, "x": 1_800, "hold": 3_600, "test": 600, "opening": 1_800}
COPY_S = 600


def expired(paper: Paper, age_ms: int) -> bool:
    """Whether a paper that waits has waited too long."""
    limit_s = COPY_S if paper.copy else EXPIRES_S.get(paper.kind)
    return paper.state == "due" and limit_s is not None and age_ms > limit_s * 1000


def at_start(b: Books, e: Started, at: Stamp) -> list[Fact]:
    """What the box that starts does not print by itself any more.  Before `Booted`, for ages are then of the boot before."""
    jobs = tuple(p.job for p in b.papers.values() if expired(p, boot_age_ms(b, p.at, at, e.up_ms)))
    return [PapersLate(jobs)] if jobs else []


def printer_back(b: Books, now_ms: int) -> Verdict:
    """The printer is well again: what is too old waits for a person, and so does what nobody is sure of."""
    jobs = tuple(p.job for p in b.papers.values() if expired(p, now_ms - p.since_ms))
    facts: list[Fact] = [PapersLate(jobs)] if jobs else []
    late = len(jobs) + sum(p.state == "late" for p in b.papers.values())
    unsure = [p for p in b.papers.values() if p.state == "unsure"]
    if jobs:
        return Verdict(facts, say("papers_late", n=late), "wait")
    return Verdict(facts, say("paper_unsure"), "wait") if unsure else Verdict(facts)


def paperless(b: Books, d: Desk) -> Shown | None:
    """The sale on the screen whose receipt waits for a printer that cannot print; None while there is an address for no receipt."""
    if not d.terms.receipt_url or b.shown is None or b.shown.what != "paid" or d.well("printer"):
        return None
    no = b.shown.order_no
    return b.shown if any(p.ref == no and p.kind == "sale" and p.state in ("due", "unsure") for p in b.papers.values()) else None


def address(b: Books, d: Desk) -> str:
    """What the QR of such a receipt says; "" while there is none, or while it is not signed yet."""
    shown, url = paperless(b, d), d.terms.receipt_url
    if shown is None or ("{jws}" in url and d.receipt[0] != shown.order_no):
        return ""
    return url.replace("{no}", shown.order_no).replace("{fen}", str(shown.amount_fen)).replace("{jws}", d.receipt[1])


def to_sign(b: Books, d: Desk) -> SignReceipt | None:
    """The receipt that has to be signed before it can be shown.  Its token is no record: it has no number."""
    shown = paperless(b, d) if "{jws}" in d.terms.receipt_url else None
    if shown is None or d.receipt[0] == shown.order_no:
        return None
    sale = b.sale_of(shown.order_no)
    told = {"box": d.terms.box, "receipt": shown.order_no, "amount_fen": shown.amount_fen,
            "at": sale.at if sale is not None else ""}
    return SignReceipt(shown.order_no, msgspec.json.encode(told), b.chain.kid)


def as_itself(b: Books, job: int) -> Verdict | None:
    """Of a paper that somebody asks for, what is late and was never printed: the paper itself, or a COPY of it.  None: nothing."""
    paper = next((p for p in b.papers.values() if p.state == "late" and job in (p.job, p.of)), None)
    if paper is None:
        return None
    words = say("reprint", n=paper.copy) if paper.copy else say("paper_asked")
    return Verdict([PaperAsked(paper.job)], words, desk={"mode": "", "looking": "", "typed": ""})


def put_away(b: Books) -> list[Fact]:
    """At the end of a day the late papers wait no more; REPRINT finds them in the journal."""
    jobs = tuple(p.job for p in b.papers.values() if p.state == "late")
    return [PapersShelved(jobs)] if jobs else []
