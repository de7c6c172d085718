"""What the cashier does: scans and keys of the keypad's grammar.  Digits come before their key; money is in fen."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import msgspec

from device.txn import leasing, record
from device.txn.approval import badge_scanned, needs_approval, pin_entered
from device.txn.books import UNDECIDED, Books, Line, Order, Paper, Phase, Sale, Tender
from device.txn.day import report
from device.txn.desk import Desk, Verdict, refuse
from device.txn.effects import RefundIntent
from device.txn.facts import (
    BasketCleared,
    BasketHeld,
    BasketRecalled,
    CancelWished,
    CashReturned,
    DrawerDue,
    Fact,
    LineAdded,
    LineChanged,
    LineVoided,
    OrderParked,
    ReceiptDue,
    RefundFailed,
    RefundIntended,
    SaleClosed,
    SaleRecalled,
    ScreenCleared,
    TenderTaken,
    decode,
)
from device.txn.inputs import KEYS, Pressed, Recalled, Scanned
from device.txn.minting import business_day, held_slot, hold_code, is_report_no, mint, paper_due, report_no
from device.txn.numbers import order_number_ok
from device.txn.paying import (
    INSTALMENTS,
    code_key,
    code_scanned,
    instalments_scanned,
    parts_back,
    pay_key,
    refund_of,
    wallet_of,
)
from device.txn.question import answer, asked_about
from device.txn.receipt import copy_of, hold_paper, park_paper, refund_paper, sale_paper
from device.txn.words import say, yuan
from device.types import Found, Item, Stamp

LINES_MAX = 200
QTY_MAX = 999
DIGITS_MAX = 9
SLOW_MS = 30_000          # how long a cashier looks at "cancelling" before being told what to do
REPRINTED = ("sale", "x", "z")       # papers that carry a number of their own


def live_order(b: Books) -> Order | None:
    """The order of the customer at the counter, None when no attempt is under way."""
    return b.orders.get(b.basket.order_no)


def kick(b: Books, d: Desk, cause: str) -> list[Fact]:
    """The drawer opens now or not at all: without a printer nothing is left waiting to open it later."""
    return [DrawerDue(b.kicks_made + 1, cause)] if d.well("printer") else []


# Scans.

def on_scanned(b: Books, d: Desk, e: Scanned, at: Stamp) -> Verdict:
    if order_number_ok(no := e.symbol.strip().upper()) and d.mode not in ("code", "refund", "reprint", "badge"):
        return asked_about(b, d, no)
    if live_order(b) is not None:
        return refuse("busy_paying")
    if d.mode == "code":
        return code_scanned(b, d, e.symbol, at)
    if d.mode == "badge":
        return badge_scanned(b, d, e.symbol)
    if d.mode in ("refund", "reprint"):
        return _receipt_scanned(b, d, e.symbol, at)
    if e.symbol.startswith(INSTALMENTS):
        return instalments_scanned(b, d, e.symbol)
    slot = held_slot(b, e.symbol)
    if slot is not None:
        return _recall_held(b, slot) if slot else refuse("held_gone")
    if e.found is None:
        if wallet_of(e.symbol, d.terms.codes):
            return refuse("payment_code_idle")        # a bearer token: not repeated, not kept
        return refuse("unknown_code", code=e.symbol[:32])
    return _add(b, d, e.found)


def _add(b: Books, d: Desk, found: Found) -> Verdict:
    count = d.qty or 1
    item = found.item
    qty_milli = found.qty_milli * count
    amount = found.amount_fen * count if found.amount_fen is not None else money(item.price_fen, qty_milli)
    facts: list[Fact] = []
    same = next((i for i, x in enumerate(b.basket.lines) if x.gtin == item.gtin and x.price_fen == item.price_fen), None)
    old = b.basket.lines[same] if same is not None else None
    merges = old is not None and old.amount_fen == money(old.price_fen, old.qty_milli)   # not one that a price code fixed
    if old is not None and merges and item.unit == "piece" and found.amount_fen is None:
        qty_milli += old.qty_milli
        line = msgspec.structs.replace(old, qty_milli=qty_milli, amount_fen=money(item.price_fen, qty_milli))
        facts, more = [LineChanged(same, line)], line.amount_fen - old.amount_fen
    else:
        if len(b.basket.lines) >= LINES_MAX:
            return refuse("lines_full")
        line = Line(item.gtin, item.name_zh, item.name_en, qty_milli, item.price_fen, amount, item.unit)
        facts, more = [LineAdded(line)], amount
    if b.basket.total_fen + more > d.terms.amount_fen_max or line.amount_fen < 1:
        return refuse("amount_bad", max=yuan(d.terms.amount_fen_max))
    return Verdict(facts, ("", ""), desk={"typed": "", "qty": 0, "mode": ""})


def money(price_fen: int, qty_milli: int) -> int:
    """Price of a quantity, half a fen rounded up."""
    return (price_fen * qty_milli + 500) // 1000


def _receipt_scanned(b: Books, d: Desk, symbol: str, at: Stamp) -> Verdict:
    no = symbol.strip().upper()
    if d.mode == "reprint" and is_report_no(b, no):
        return _find_paper(b, no)
    if not order_number_ok(no):
        return refuse("refund_not_receipt")
    if d.mode == "reprint":
        return _find_paper(b, no)
    if leasing.foreign(b, no):
        return leasing.ask(b, d, no, at)
    sale = _sale_of(b, no)
    if sale is None:
        return Verdict(words=say("refund_looking", no=no), desk={"looking": no})
    return _pick(b, sale)


def _find_paper(b: Books, no: str) -> Verdict:
    """A COPY of receipt or report `no`: at hand, or looked up in the journal's index."""
    paper = next((p for p in b.papers.values() if p.ref == no and p.kind in REPRINTED and not p.copy), None)
    if paper is not None:
        return _reprint(b, paper, paper.copies + 1)
    return Verdict(words=say("refund_looking", no=no), desk={"looking": no, "typed": ""})


def _sale_of(b: Books, no: str) -> Sale | None:
    return b.sales.get(no) or next((s for s in b.sales.values() if any(t.order_no == no for t in s.tenders)), None)


def _pick(b: Books, sale: Sale) -> Verdict:
    left = sale.amount_fen - _rounded(sale) - sale.refunded_fen
    if left <= 0:
        return Verdict(words=say("refund_none"), tone="bad", refused=True, desk={"mode": "", "looking": ""})
    return Verdict(words=say("refund_pick", left=yuan(left)), tone="wait",
                   desk={"mode": "pick", "pick": sale, "typed": "", "looking": ""})


def _rounded(sale: Sale) -> int:
    return sum(t.amount_fen for t in sale.tenders if t.method == "rounding")


def on_recalled(b: Books, d: Desk, e: Recalled, at: Stamp) -> Verdict:
    """The journal's index answered: the sale as its own rows tell it, refunds included."""
    if e.order_no == d.looking and d.mode == "check":
        return answer(b, d, e)
    if e.order_no != d.looking or d.mode not in ("refund", "reprint"):
        return Verdict(desk={"looking": ""} if e.order_no == d.looking else {})
    sale, paper, copies, report = None, None, 0, is_report_no(b, e.order_no)   # a report's row may hold the sale that caused it
    asked: dict[str, RefundIntent] = {}
    for row in e.facts:
        for fact in decode(row).facts:
            if isinstance(fact, SaleClosed) and sale is None and not report:
                sale = msgspec.structs.replace(fact.sale, returned=dict(fact.sale.returned))
            elif isinstance(fact, ReceiptDue) and fact.kind in REPRINTED and fact.ref == (sale.order_no if sale else e.order_no):
                paper, copies = paper or fact, max(copies, fact.copy)
            elif sale is not None and isinstance(fact, RefundIntended) and fact.sale_no == sale.order_no:
                asked[fact.intent.refund_no] = fact.intent
                _returned(sale, fact.intent.order_no, fact.intent.amount_fen)
            elif sale is not None and isinstance(fact, RefundFailed) and fact.refund_no in asked:
                sale.refunded_fen -= asked[fact.refund_no].amount_fen
                sale.returned[asked[fact.refund_no].order_no] -= asked[fact.refund_no].amount_fen
            elif sale is not None and isinstance(fact, CashReturned) and fact.sale_no == sale.order_no:
                _returned(sale, "cash", fact.amount_fen)
    if sale is not None and sale.order_no != e.order_no:
        return Verdict(desk={"looking": sale.order_no})   # found by a part payment: the rest stands under the sale's own number
    if d.mode == "reprint" and paper is not None:
        return _reprint(b, paper, copies + 1)
    if sale is None or paper is None:
        words = say("reprint_none") if report else say("asked_unknown", no=e.order_no)
        return Verdict(words=words, tone="bad", refused=True, desk={"mode": "", "looking": ""})
    verdict = _pick(b, sale)
    if not verdict.refused:
        verdict.facts.append(SaleRecalled(sale))
    return verdict


def _returned(sale: Sale, tender: str, amount_fen: int) -> None:
    sale.refunded_fen += amount_fen
    sale.parts += 1
    sale.returned[tender] = sale.returned.get(tender, 0) + amount_fen


# Keys.

def on_pressed(b: Books, d: Desk, e: Pressed, at: Stamp) -> Verdict:
    if e.key not in KEYS:
        return refuse("key_unknown", key=e.key[:16])
    if e.key.isdigit():
        typed = d.typed + e.key
        if len(typed) > DIGITS_MAX:
            return refuse("digits_full")
        return Verdict(desk={"typed": typed})
    if d.mode == "park" and e.key in ("ENTER", "CANCEL"):
        return _park(b, d, "book" if e.key == "ENTER" else "give_back", at)
    if live_order(b) is not None and e.key not in WHILE_PAYING:
        return refuse("park_ask" if d.mode == "park" else "busy_paying")
    if d.mode == "reprint" and e.key in ("X", "Z"):   # a report by its number, the last one without
        number = int(d.typed) if d.typed else b.day.x_no if e.key == "X" else b.day.z_no
        return _find_paper(b, report_no(b, e.key, number)) if number else refuse("reprint_none")
    if d.mode == "pick" and e.key == "ENTER":
        return _ask_approval(b, d, at)
    if d.mode == "badge" and e.key == "ENTER":
        return refuse("badge_scan")
    if d.mode == "pin" and e.key == "ENTER":
        return pin_entered(b, d, at, _refund)
    verdict = KEY_RULES[e.key](b, d, int(d.typed) if d.typed else None, at)
    verdict.desk.setdefault("typed", "")
    if d.mode and "mode" not in verdict.desk and not verdict.refused:
        verdict.desk |= {"mode": "", "pick": None, "looking": ""}
    return verdict


def _enter(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    """A keyed amount without goods: a till of one number pad."""
    if n is None:
        return Verdict([ScreenCleared()] if b.shown else [], ("", ""))
    item = Item("", "金额", "Amount", n)
    return _add(b, d, Found(item)) if 0 < n <= d.terms.amount_fen_max else refuse("amount_bad", max=yuan(d.terms.amount_fen_max))


def _clear(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if n is not None or d.qty or d.mode or live_order(b) is not None or b.shown is not None or not b.basket.lines:
        return Verdict([ScreenCleared()] if b.shown else [], ("", ""), desk={"typed": "", "qty": 0, "mode": "", "pick": None,
                                                                                   "looking": ""})
    return _drop_basket(b, d, "clear", at)


def _drop_basket(b: Books, d: Desk, reason: str, at: Stamp) -> Verdict:
    cash = b.basket.cash_fen
    facts: list[Fact] = [record.due("void", reason=reason, lines=len(b.basket.lines), amount_fen=b.basket.total_fen,
                                    cash_back_fen=cash), *parts_back(b, b.basket, "dropped", at), BasketCleared(reason)]
    facts += kick(b, d, "cash back") if cash else []
    return Verdict(facts, say("cash_back", cash=yuan(cash)) if cash else say("cleared"), desk={"qty": 0})


def _qty(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if n is None or not 1 <= n <= QTY_MAX:
        return refuse("qty_bad")
    return Verdict(words=say("qty_set", n=n), desk={"qty": n})


def _void(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if not b.basket.lines:
        return refuse("empty")
    index = len(b.basket.lines) - 1 if n is None else n - 1
    if not 0 <= index < len(b.basket.lines):
        return refuse("line_unknown", n=n)
    line = b.basket.lines[index]
    if b.basket.total_fen - line.amount_fen < sum(t.amount_fen for t in b.basket.tenders):
        return refuse("tenders_open")
    body = record.due("void", reason="line", gtin=line.gtin, qty_milli=line.qty_milli, amount_fen=line.amount_fen)
    return Verdict([body, LineVoided(index, "line")], say("line_voided", name=line.name_zh))


def _cash(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    basket, order = b.basket, live_order(b)
    if not basket.lines:
        return refuse("empty")
    step = d.terms.cash_round_fen
    due = basket.due_fen // step * step
    tendered = due if n is None else n
    if n == 0 or basket.due_fen < 0 or (basket.due_fen == 0 and not basket.tenders):
        return refuse("nothing_due")                  # a basket that its part payments cover by now is closed all the same
    facts: list[Fact] = []
    if order is not None:                             # cash replaces an undecided attempt; its late money goes back
        slip = b.slips_made + 1
        facts += [OrderParked(order.intent.order_no, "give_back", slip, keeps_basket=True),
                  CancelWished(order.intent.order_no, "replaced", SLOW_MS)]
    if tendered < due:
        facts.append(TenderTaken(Tender("cash", tendered)))
        facts += kick(b, d, "part cash")
        return Verdict(facts, say("part_cash", paid=yuan(tendered), due=yuan(basket.due_fen - tendered)), "wait")
    tenders = [*basket.tenders, Tender("cash", due)] if due else list(basket.tenders)
    if basket.due_fen > due:
        tenders.append(Tender("rounding", basket.due_fen - due))
    sale = Sale(order_no=mint(b), lines=list(basket.lines), tenders=tenders, amount_fen=basket.total_fen,
                cashier=d.terms.cashier, at=at.wall, tendered_fen=tendered, change_fen=tendered - due)
    note = f"{order.intent.order_no} 已改收现金，迟到款将退回 / replaced by cash; late money goes back" if order is not None else ""
    facts += [SaleClosed(sale, business_day(at, d.terms.cutoff_hour), minted=True), *kick(b, d, "cash sale"),
              paper_due(b, "sale", sale.order_no, sale_paper(d.terms, sale, at, note)), record.sale_due(sale)]
    words = say("cash_replaces", change=yuan(sale.change_fen)) if order is not None else say("change", change=yuan(sale.change_fen))
    return Verdict(facts, words, "good", desk={"qty": 0, "mode": ""})


def _check(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    """Ask the channel now; with nothing open, the number on the customer's phone or on our slip is scanned next."""
    asked = tuple(o.intent.order_no for o in b.orders.values() if o.phase in UNDECIDED)
    if asked:
        return Verdict(words=say("checking"), tone="wait", again=asked)
    return Verdict(words=say("check_scan"), tone="wait", desk={"mode": "check"})


def _hold(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if n is not None:
        return _recall_held(b, n)
    if not b.basket.lines:
        return refuse("empty")
    if b.basket.tenders:
        return refuse("tenders_open")
    slot = next(i for i in range(1, len(b.held) + 2) if i not in b.held)
    hold = b.holds_made + 1
    slip = paper_due(b, "hold", "", hold_paper(d.terms, b.basket, slot, hold_code(b, hold), at))
    return Verdict([BasketHeld(slot, hold), slip], say("held", slot=slot), desk={"qty": 0})


def _recall_held(b: Books, slot: int) -> Verdict:
    if b.basket.lines:
        return refuse("basket_busy")
    if slot not in b.held:
        return refuse("held_unknown", slot=slot)
    return Verdict([BasketRecalled(slot)], say("recalled", slot=slot))


def _ask_park(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if live_order(b) is None:
        return refuse("nothing_open")
    return Verdict(words=say("park_ask"), tone="wait", desk={"mode": "park"})


def _park(b: Books, d: Desk, policy: str, at: Stamp) -> Verdict:
    order = live_order(b)
    if order is None:                                 # paid or closed while the cashier thought
        return Verdict(desk={"mode": ""})
    if policy == "book" and order.intent.amount_fen < b.basket.due_fen:
        return refuse("park_part", due=yuan(b.basket.due_fen - order.intent.amount_fen))
    slip, no = b.slips_made + 1, order.intent.order_no
    facts: list[Fact] = [OrderParked(no, policy, slip),
                         paper_due(b, "park", no, park_paper(d.terms, order, policy, slip, at))]
    cash = b.basket.cash_fen
    if policy == "give_back":
        facts += [CancelWished(no, "parked", SLOW_MS), *parts_back(b, b.basket, "parked", at)]
        facts += kick(b, d, "cash back") if cash else []
    words = say("cash_back", cash=yuan(cash)) if cash and policy == "give_back" else say("parked", slip=slip)
    return Verdict(facts, words, "wait", desk={"mode": "", "typed": "", "qty": 0})


def _cancel(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    order = live_order(b)
    if order is not None:
        if order.phase is Phase.CANCELLING:
            return Verdict(words=say("cancelling"), tone="wait", again=(order.intent.order_no,))
        return Verdict([CancelWished(order.intent.order_no, "cashier", SLOW_MS)], say("cancelling"), "wait")
    if d.mode:
        return Verdict(words=("", ""), desk={"mode": "", "pick": None, "looking": ""})
    return _drop_basket(b, d, "cancel", at) if b.basket.lines else refuse("cancel_what")


def _ask_refund(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if b.basket.lines:
        return refuse("basket_busy")
    return Verdict(words=say("refund_scan"), tone="wait", desk={"mode": "refund", "pick": None})


def _ask_approval(b: Books, d: Desk, at: Stamp) -> Verdict:
    """Above the shop's limit a supervisor's badge and PIN come first."""
    sale = _sale_of(b, d.pick.order_no) if d.pick is not None else None
    if sale is None:
        return refuse("refund_scan")
    if (fault := leasing.fault(b, d, sale, at)) is not None:
        return fault
    left = sale.amount_fen - _rounded(sale) - sale.refunded_fen
    amount = int(d.typed) if d.typed else left
    if not 0 < amount <= left:
        return refuse("refund_over", left=yuan(left))
    if not needs_approval(d.terms, amount):
        return _refund(b, d, amount, "", at)
    return Verdict(words=say("badge_scan"), tone="wait", desk={"mode": "badge", "back_fen": amount, "typed": ""})


def _refund(b: Books, d: Desk, amount: int, approved_by: str, at: Stamp) -> Verdict:
    sale = _sale_of(b, d.pick.order_no) if d.pick is not None else None
    if sale is None or amount > sale.amount_fen - _rounded(sale) - sale.refunded_fen:
        return refuse("refund_scan")
    if (fault := leasing.fault(b, d, sale, at)) is not None:
        return fault
    if any(r.intent.order_no in sale.returned for r in b.refunds.values()):
        return refuse("refund_wait")
    facts: list[Fact] = []
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
    words = say("refunding", amount=yuan(sum(f.intent.amount_fen for f in facts)))
    if amount:                                        # what no wallet took was cash
        no = mint(b, len(facts))
        facts += [CashReturned(no, sale.order_no, amount, approved_by), *kick(b, d, "cash refund"),
                  paper_due(b, "refund", sale.order_no, refund_paper(d.terms, sale.order_no, no, amount, "cash", at)),
                  record.refund_due(sale.order_no, no, amount, "cash", "customer", approved_by)]
        words = say("cash_back", cash=yuan(amount))
    return Verdict(facts, words, "wait", desk={"mode": "", "pick": None, "typed": "", "back_fen": 0, "supervisor": ""})


def _age_days(sale: Sale, at: Stamp) -> int:
    return (datetime.datetime.fromisoformat(at.wall) - datetime.datetime.fromisoformat(sale.at)).days


def _ask_reprint(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
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


def _reprint(b: Books, paper: Paper | ReceiptDue, n: int) -> Verdict:
    job = ReceiptDue(b.jobs_made + 1, paper.kind, paper.ref, copy_of(paper.paper, n), n, paper.job)
    return Verdict([job], say("reprint", n=n), desk={"mode": "", "looking": ""})


def _drawer(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    return Verdict([*kick(b, d, "key"), record.due("drawer", cause="key", cashier=d.terms.cashier)], say("drawer"))


def _x(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    return _report(b, d, "X", b.day.x_no + 1, at)


def _z(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if b.basket.lines:
        return refuse("z_open")
    return _report(b, d, "Z", b.day.z_no + 1, at)


def _report(b: Books, d: Desk, letter: str, number: int, at: Stamp) -> Verdict:
    return Verdict(report(b, d, letter, at), say(f"{letter.lower()}_report", n=number))


WHILE_PAYING = {"CASH", "CHECK", "PARK", "CANCEL", "CLEAR"}
KEY_RULES: dict[str, Callable[[Books, Desk, int | None, Stamp], Verdict]] = {
    "ENTER": _enter, "CLEAR": _clear, "QTY": _qty, "VOID": _void, "PAY": pay_key, "CODE": code_key, "CASH": _cash, "CHECK": _check,
    "HOLD": _hold, "PARK": _ask_park, "CANCEL": _cancel, "REFUND": _ask_refund, "REPRINT": _ask_reprint, "DRAWER": _drawer,
    "X": _x, "Z": _z,
}
