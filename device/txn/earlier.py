"""Earlier sales and reports: found at hand or in the journal's index, then given back or printed again as a COPY."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

import msgspec

from device.txn import leasing, record
from device.txn.approval import needs_approval
from device.txn.books import Books, Paper, Sale
from device.txn.desk import Desk, Verdict, refuse
from device.txn.effects import RefundIntent
from device.txn.facts import (
    CashReturned,
    Fact,
    ReceiptDue,
    RefundFailed,
    RefundIntended,
    SaleClosed,
    SaleRecalled,
    decode,
)
from device.txn.inputs import Recalled
from device.txn.minting import is_report_no, kick, mint, opened, paper_due
from device.txn.numbers import order_number_ok
from device.txn.papers import as_itself
from device.txn.paying import (
    refund_of,
)
from device.txn.question import answer
from device.txn.receipt import copy_of, refund_paper
from device.txn.words import say, yuan
from device.types import Stamp

REPRINTED = ("sale", "x", "z")       # papers that carry a number of their own


def receipt_scanned(b: Books, d: Desk, symbol: str, at: Stamp) -> Verdict:
    no = symbol.strip().upper()
    if d.mode == "reprint" and is_report_no(b, no):
        return find_paper(b, no)
    if not order_number_ok(no):
        return refuse("refund_not_receipt")
    if d.mode == "reprint":
        return find_paper(b, no)
    if leasing.foreign(b, no):
        return leasing.ask(b, d, no, at)
    sale = b.sale_of(no)
    if sale is None:
        return Verdict(words=say("refund_looking", no=no), desk={"looking": no})
    return pick(b, sale)


def on_recalled(b: Books, d: Desk, e: Recalled, at: Stamp) -> Verdict:
    """The journal's index answered: the sale as its own rows tell it, refunds included."""
    if e.order_no == d.looking and d.mode == "check":
        return answer(b, d, e)
    if e.order_no != d.looking or d.mode not in ("refund", "reprint"):
        return Verdict(desk={"looking": ""} if e.order_no == d.looking else {})
    report = is_report_no(b, e.order_no)
    sale, paper, copies = told_by(e.facts, e.order_no, report)
    if sale is not None and sale.order_no != e.order_no:
        return Verdict(desk={"looking": sale.order_no})   # found by a part payment: the rest stands under the sale's own number
    if d.mode == "reprint" and paper is not None:
        return _reprint(b, paper, copies + 1)
    if sale is None and e.trimmed and d.mode == "refund":
        asked = leasing.ask(b, d, e.order_no, at)         # too old for this box's card: the cloud has it
        return msgspec.structs.replace(asked, desk=asked.desk | {"looking": ""})
    if sale is None or paper is None:
        words = say("reprint_none") if report else say("asked_unknown", no=e.order_no)
        return Verdict(words=words, tone="bad", refused=True, desk={"mode": "", "looking": ""})
    verdict = pick(b, sale)
    if not verdict.refused:
        verdict.facts.append(SaleRecalled(sale))
    return verdict


def told_by(rows: Iterable[bytes], no: str, report: bool = False) -> tuple[Sale | None, ReceiptDue | None, int]:
    """The sale that `rows` of the journal tell of `no`, less what was given back; its paper, and how many copies that has."""
    sale, paper, copies = None, None, 0               # a report's row may hold the sale that caused it
    asked: dict[str, RefundIntent] = {}
    for row in rows:
        for fact in decode(row).facts:
            if isinstance(fact, SaleClosed) and sale is None and not report:
                sale = msgspec.structs.replace(fact.sale, returned=dict(fact.sale.returned))
            elif isinstance(fact, ReceiptDue) and fact.kind in REPRINTED and fact.ref == (sale.order_no if sale else no):
                paper, copies = paper or fact, max(copies, fact.copy)
            elif sale is not None and isinstance(fact, RefundIntended) and fact.sale_no == sale.order_no:
                asked[fact.intent.refund_no] = fact.intent
                _returned(sale, fact.intent.order_no, fact.intent.amount_fen)
            elif sale is not None and isinstance(fact, RefundFailed) and fact.refund_no in asked:
                sale.refunded_fen -= asked[fact.refund_no].amount_fen
                sale.returned[asked[fact.refund_no].order_no] -= asked[fact.refund_no].amount_fen
            elif sale is not None and isinstance(fact, CashReturned) and fact.sale_no == sale.order_no:
                _returned(sale, "cash", fact.amount_fen)
    return sale, paper, copies


def _returned(sale: Sale, tender: str, amount_fen: int) -> None:
    sale.refunded_fen += amount_fen
    sale.parts += 1
    sale.returned[tender] = sale.returned.get(tender, 0) + amount_fen


def pick(b: Books, sale: Sale) -> Verdict:
    """How much of `sale` goes back is asked next."""
    left = sale.amount_fen - _rounded(sale) - sale.refunded_fen
    if left <= 0:
        return Verdict(words=say("refund_none"), tone="bad", refused=True, desk={"mode": "", "looking": ""})
    return Verdict(words=say("refund_pick", left=yuan(left)), tone="wait",
                   desk={"mode": "pick", "pick": sale, "typed": "", "looking": ""})


def ask_refund(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if b.basket.lines:
        return refuse("basket_busy")
    return Verdict(words=say("refund_scan"), tone="wait", desk={"mode": "refund", "pick": None})


def ask_approval(b: Books, d: Desk, at: Stamp) -> Verdict:
    """Above the shop's limit a supervisor's badge and PIN come first."""
    sale = b.sale_of(d.pick.order_no) if d.pick is not None else None
    if sale is None:
        return refuse("refund_scan")
    if (fault := leasing.fault(b, d, sale, at)) is not None:
        return fault
    left = sale.amount_fen - _rounded(sale) - sale.refunded_fen
    amount = int(d.typed) if d.typed else left
    if not 0 < amount <= left:
        return refuse("refund_over", left=yuan(left))
    if not needs_approval(d.terms, amount + _back(b, sale)):
        return refund(b, d, amount, "", at)
    return Verdict(words=say("badge_scan"), tone="wait", desk={"mode": "badge", "back_fen": amount, "typed": ""})


def refund(b: Books, d: Desk, amount: int, approved_by: str, at: Stamp) -> Verdict:
    sale = b.sale_of(d.pick.order_no) if d.pick is not None else None
    if sale is None or amount > sale.amount_fen - _rounded(sale) - sale.refunded_fen:
        return refuse("refund_scan")
    if (fault := leasing.fault(b, d, sale, at)) is not None:
        return fault
    return give(b, d, sale, amount, approved_by, at)


def give(b: Books, d: Desk, sale: Sale, amount: int, approved_by: str, at: Stamp) -> Verdict:
    """`amount` of `sale` goes back, which its caller knows to be left of it."""
    if any(r.intent.order_no in sale.returned for r in b.refunds.values()):
        return refuse("refund_wait")
    facts: list[Fact] = []
    asked = amount
    for tender in sale.tenders:                       # wallets first, in the order they paid; then cash
        if not tender.order_no:
            continue
        part = min(amount, tender.amount_fen - sale.returned.get(tender.order_no, 0))
        today, rules = d.terms.account_of(tender.method), d.terms.rules_of(tender.method, tender.way)
        if part <= 0:
            continue
        if today is None:
            return refuse("no_channel")               # nobody to carry it out
        if tender.way == "card" and (tender.account != today or leasing.foreign(b, sale.order_no)):
            return refuse("refund_terminal")          # only the terminal that took it knows it
        if sale.parts >= rules.refund_parts_max:
            return refuse("refund_parts")
        if _age_days(sale, at) > rules.refund_days_max:
            return refuse("refund_old", days=rules.refund_days_max)
        intent = refund_of(tender, mint(b, len(facts)), part, "customer refund", at, today)
        facts.append(RefundIntended(intent, "customer", sale.order_no, approved_by,
                                    d.lease if leasing.foreign(b, sale.order_no) else ""))
        amount -= part
    words = say("refunding", amount=yuan(asked - amount))
    if amount:                                        # what no wallet took was cash
        no = mint(b, len(facts))
        kicks = kick(b, d, "cash refund")
        facts += [CashReturned(no, sale.order_no, amount, approved_by), *kicks,
                  paper_due(b, "refund", sale.order_no, refund_paper(d.terms, sale.order_no, no, amount, "cash", at)),
                  record.refund_due(sale.order_no, no, amount, "cash", "customer", approved_by, **opened(kicks))]
        words = say("cash_back", cash=yuan(amount))
    return Verdict(facts, words, "wait", desk={"mode": "", "pick": None, "typed": "", "back_fen": 0, "supervisor": ""})


def _back(b: Books, sale: Sale) -> int:
    """What went back of it before.  What another box's lease does not cover counts there as gone, and is not."""
    if not leasing.foreign(b, sale.order_no):
        return sale.refunded_fen
    return sum(sale.returned.get(t.order_no, 0) for t in sale.tenders if t.order_no and t.method != "card")


def _rounded(sale: Sale) -> int:
    return sum(t.amount_fen for t in sale.tenders if t.method == "rounding")


def _age_days(sale: Sale, at: Stamp) -> int:
    return (datetime.datetime.fromisoformat(at.wall) - datetime.datetime.fromisoformat(sale.at)).days


def ask_reprint(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    papers = [p for p in b.papers.values() if not p.copy]
    if n is None and not papers:
        return Verdict(words=say("reprint_scan"), tone="wait", desk={"mode": "reprint"})
    nth = 1 if n is None else n
    if d.mode == "reprint" or n == 0:
        return Verdict(words=say("reprint_scan"), tone="wait", desk={"mode": "reprint"})
    if not 1 <= nth <= len(papers):
        return refuse("reprint_none")
    paper = papers[-nth]
    return _reprint(b, paper, paper.copies + 1)


def find_paper(b: Books, no: str) -> Verdict:
    """A COPY of receipt or report `no`: at hand, or looked up in the journal's index."""
    paper = next((p for p in b.papers.values() if p.ref == no and p.kind in REPRINTED and not p.copy), None)
    if paper is not None:
        return _reprint(b, paper, paper.copies + 1)
    return Verdict(words=say("refund_looking", no=no), desk={"looking": no, "typed": ""})


def _reprint(b: Books, paper: Paper | ReceiptDue, n: int) -> Verdict:
    late = as_itself(b, paper.job)
    if late is not None:
        return late
    job = ReceiptDue(b.jobs_made + 1, paper.kind, paper.ref, copy_of(paper.paper, n), n, paper.job)
    return Verdict([job], say("reprint", n=n), desk={"mode": "", "looking": "", "typed": ""})
