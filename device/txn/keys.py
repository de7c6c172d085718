"""What the cashier does: scans and keys of the keypad's grammar.  Digits come before their key; money is in fen."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from device.txn import record
from device.txn.approval import badge_scanned, pin_entered, supervisor_of
from device.txn.books import UNDECIDED, Books, Line, Order, Phase, Sale, Tender
from device.txn.day import report
from device.txn.desk import Desk, Verdict, refuse
from device.txn.earlier import ask_approval, ask_refund, ask_reprint, find_paper, pick, receipt_scanned, refund
from device.txn.facts import (
    BasketCleared,
    BasketHeld,
    BasketRecalled,
    CancelWished,
    Fact,
    LineAdded,
    LineChanged,
    LineVoided,
    OrderParked,
    SaleClosed,
    ScreenCleared,
    TenderTaken,
)
from device.txn.inputs import KEYS, Pressed, Scanned
from device.txn.keycards import card_scanned, is_card
from device.txn.minting import business_day, held_slot, hold_code, kick, mint, opened, paper_due, report_no
from device.txn.numbers import order_number_ok
from device.txn.paying import (
    INSTALMENTS,
    code_key,
    code_scanned,
    instalments_scanned,
    parts_back,
    pay_key,
    wallet_of,
)
from device.txn.question import asked_about
from device.txn.receipt import hold_paper, park_paper, sale_paper
from device.txn.words import say, yuan
from device.types import Found, Item, Stamp

LINES_MAX = 100          # what a record has room for without any name
QTY_MAX = 999
DIGITS_MAX = 9
SLOW_MS = 30_000          # how long a cashier looks at "cancelling" before being told what to do


def live_order(b: Books) -> Order | None:
    """The order of the customer at the counter, None when no attempt is under way."""
    return b.orders.get(b.basket.order_no)


# Scans.

def on_scanned(b: Books, d: Desk, e: Scanned, at: Stamp) -> Verdict:
    if is_card(e.symbol):
        return card_scanned(b, d, e.symbol, at, on_pressed)
    no = e.symbol.strip().upper()
    if d.mode == "pick" and d.pick is not None and d.pick.named(no):
        return pick(b, d.pick)                        # the same receipt once more
    if order_number_ok(no) and d.mode not in ("code", "refund", "reprint", "badge", "pin"):
        return asked_about(b, d, no)
    if live_order(b) is not None:
        return refuse("busy_paying")
    if d.mode == "code":
        return code_scanned(b, d, e.symbol, at)
    if d.mode in ("badge", "pin"):
        return badge_scanned(b, d, e.symbol)
    if d.mode in ("refund", "reprint"):
        return receipt_scanned(b, d, e.symbol, at)
    if e.symbol.startswith(INSTALMENTS):
        return instalments_scanned(b, d, e.symbol)
    slot = held_slot(b, e.symbol)
    if slot is not None:
        return _recall_held(b, slot) if slot else refuse("held_gone")
    if e.found is None:
        if wallet_of(e.symbol, d.terms.codes):
            return refuse("payment_code_idle")        # a bearer token: not repeated, not kept
        if supervisor_of(d.terms, e.symbol) is not None:
            return refuse("badge_idle")               # whoever reads a badge's code can print it
        # GS parts fields, and is no letter.
        return refuse(f"unknown_{e.cause or 'code'}", code=e.symbol[:32].replace("\x1d", " "))
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
        line = Line(item.gtin, item.name_zh, item.name_en, qty_milli, item.price_fen, amount, item.unit, found.list_version)
        facts, more = [LineAdded(line)], amount
    if b.basket.total_fen + more > d.terms.amount_fen_max or line.amount_fen < 1:
        return refuse("amount_bad", max=yuan(d.terms.amount_fen_max))
    return Verdict(facts, ("", ""), desk={"typed": "", "qty": 0, "mode": ""})


def money(price_fen: int, qty_milli: int) -> int:
    """Price of a quantity, half a fen rounded up."""
    return (price_fen * qty_milli + 500) // 1000


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
        return find_paper(b, report_no(b, e.key, number)) if number else refuse("reprint_none")
    if d.mode == "pick" and e.key == "ENTER":
        return ask_approval(b, d, at)
    if d.mode == "badge" and e.key == "ENTER":
        return refuse("badge_scan")
    if d.mode == "pin" and e.key == "ENTER":
        return pin_entered(b, d, at, refund if d.pick is not None else _open_drawer)       # whichever question was asked
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
    if n is not None and d.mode:                      # a wrong digit: the question stands
        return Verdict(desk={"typed": "", "mode": d.mode})
    if n is not None or d.qty or d.mode or d.extras or live_order(b) is not None or b.shown is not None or not b.basket.lines:
        return Verdict([ScreenCleared()] if b.shown else [], ("", ""), desk={"typed": "", "qty": 0, "mode": "", "pick": None,
                                                                                   "looking": "", "extras": ()})
    return _drop_basket(b, d, "clear", at)


def _drop_basket(b: Books, d: Desk, reason: str, at: Stamp) -> Verdict:
    cash = b.basket.cash_fen
    kicks = kick(b, d, "cash back") if cash else []
    facts: list[Fact] = [record.due("void", reason=reason, lines=len(b.basket.lines), amount_fen=b.basket.total_fen,
                                    cash_back_fen=cash, **opened(kicks)), *parts_back(b, b.basket, "dropped", at),
                         BasketCleared(reason), *kicks]
    return Verdict(facts, say("cash_back", cash=yuan(cash)) if cash else say("cleared"), desk={"qty": 0, "extras": ()})


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
    return Verdict([body, LineVoided(index, "line")], say("line_voided", zh=line.name_zh, en=line.name_en or line.name_zh))


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
        facts += (kicks := kick(b, d, "part cash"))
        facts += [record.due("drawer", cause="part cash", cashier=d.terms.cashier)] if kicks else []
        return Verdict(facts, say("part_cash", paid=yuan(tendered), due=yuan(basket.due_fen - tendered)), "wait")
    tenders = [*basket.tenders, Tender("cash", due)] if due else list(basket.tenders)
    if basket.due_fen > due:
        tenders.append(Tender("rounding", basket.due_fen - due))
    sale = Sale(order_no=mint(b), lines=list(basket.lines), tenders=tenders, amount_fen=basket.total_fen,
                cashier=d.terms.cashier, at=at.wall, tendered_fen=tendered, change_fen=tendered - due)
    note = f"{order.intent.order_no} 已改收现金，迟到款将退回 / replaced by cash; late money goes back" if order is not None else ""
    kicks = kick(b, d, "cash sale")
    facts += [SaleClosed(sale, business_day(at, d.terms.cutoff_hour), minted=True), *kicks,
              paper_due(b, "sale", sale.order_no, sale_paper(d.terms, sale, at, note)), record.sale_due(sale, **opened(kicks))]
    words = say("cash_replaces", change=yuan(sale.change_fen)) if order is not None else say("change", change=yuan(sale.change_fen))
    return Verdict(facts, words, "good", desk={"qty": 0, "mode": "", "extras": ()})


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
    return Verdict([BasketHeld(slot, hold), slip], say("held", slot=slot), desk={"qty": 0, "extras": ()})


def _recall_held(b: Books, slot: int) -> Verdict:
    if b.basket.lines:
        return refuse("basket_busy")
    if slot not in b.held:
        return refuse("held_unknown", slot=slot)
    return Verdict([BasketRecalled(slot)], say("recalled", slot=slot), desk={"typed": ""})


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
    if policy == "book" and order.undoing:            # our own undo takes back what the goods would be given for
        return refuse("park_undoing")
    slip, no = b.slips_made + 1, order.intent.order_no
    facts: list[Fact] = [OrderParked(no, policy, slip),
                         paper_due(b, "park", no, park_paper(d.terms, order, policy, slip, at))]
    cash = b.basket.cash_fen
    if policy == "give_back":
        facts += [CancelWished(no, "parked", SLOW_MS), *parts_back(b, b.basket, "parked", at)]
        facts += (kicks := kick(b, d, "cash back") if cash else [])
        facts += [record.due("drawer", cause="cash back", cashier=d.terms.cashier)] if kicks else []
    words = say("cash_back", cash=yuan(cash)) if cash and policy == "give_back" else say("parked", slip=slip)
    return Verdict(facts, words, "wait", desk={"mode": "", "typed": "", "qty": 0})


def _cancel(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    order = live_order(b)
    if order is not None:
        if order.phase in (Phase.CANCELLING, Phase.UNDECIDED):
            wish = [CancelWished(order.intent.order_no, "cashier", SLOW_MS)] if order.cause == "reroute" else []
            return Verdict(wish, say("cancelling"), "wait", again=(order.intent.order_no,))
        return Verdict([CancelWished(order.intent.order_no, "cashier", SLOW_MS)], say("cancelling"), "wait")
    if d.mode:
        return Verdict(words=("", ""), desk={"mode": "", "pick": None, "looking": ""})
    return _drop_basket(b, d, "cancel", at) if b.basket.lines else refuse("cancel_what")


def _drawer(b: Books, d: Desk, n: int | None, at: Stamp) -> Verdict:
    if not d.kicks():
        return refuse("drawer_dead")
    if d.terms.approve_drawer:
        return Verdict(words=say("badge_scan"), tone="wait", desk={"mode": "badge", "pick": None, "back_fen": 0})
    return _open_drawer(b, d, 0, "", at)


def _open_drawer(b: Books, d: Desk, amount_fen: int, approved_by: str, at: Stamp) -> Verdict:
    """Without a sale: the record says who approved it, where somebody had to."""
    kicks = kick(b, d, "key")
    if not kicks:
        return refuse("drawer_dead")
    more = {"approved_by": approved_by} if approved_by else {}
    return Verdict([*kicks, record.due("drawer", cause="key", cashier=d.terms.cashier, **more)], say("drawer"))


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
    "HOLD": _hold, "PARK": _ask_park, "CANCEL": _cancel, "REFUND": ask_refund, "REPRINT": ask_reprint, "DRAWER": _drawer,
    "X": _x, "Z": _z,
}
