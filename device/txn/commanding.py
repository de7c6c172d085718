"""Commands from afar: whether they are done, and the one answer that their id has for ever.

Knows the table of verbs and the rules of money; refuses to know who proved the command, and how a question is answered: that comes
in with it.  No verb marks an order as paid.  What is decided here is on the card before anybody is told.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from device.mqtt.cmd_wire import VERBS, Fault, digest_of, fault_of
from device.txn import earlier, leasing, record, signing
from device.txn.books import Books, Sale
from device.txn.desk import Desk, Told, Verdict
from device.txn.effects import Cut, Pair, PaperPart, Ruler, Text
from device.txn.facts import CommandDone, Fact, OrderForgotten, RebootWished, RefundIntended, SaleRecalled
from device.txn.inputs import Asked
from device.txn.minting import paper_due
from device.txn.receipt import alert_paper
from device.txn.visits import on_typed
from device.types import Stamp

Deed = tuple[list[Fact], str] | Fault


def on_asked(b: Books, d: Desk, e: Asked, at: Stamp) -> Verdict:
    """The answer in `told`; a known id has the one it had, and nothing is done twice."""
    if e.typed:
        return on_typed(b, d, e, at)
    digest = digest_of(e.verb, e.arg)
    known = b.commands.get(e.id)
    if known is not None and known.digest != digest:
        return Verdict(refused=True, told=Told(False, "that id stands for another command", "id"))
    if known is not None:
        return Verdict(refused=not known.ok, told=Told(known.ok, known.said, known.name))
    done: Deed = fault_of(e.verb, e.arg, e.by) or DEEDS[e.verb](b, d, e, at)
    if isinstance(done, Fault):
        known_verb = e.verb if e.verb in VERBS else "unknown"
        return Verdict([CommandDone(e.id, known_verb, e.by, digest, False, done.sentence, done.name),
                        record.due("command", id=e.id, verb=known_verb, by=e.by, outcome="refused", why=done.name)],
                       refused=True, told=Told(False, done.sentence, done.name))
    facts, said = done
    question = VERBS[e.verb].kind == "question"
    outcome = (e.answered or "answered") if question else "done"
    args = {"args": e.arg} if e.arg else {}
    return Verdict([*facts, CommandDone(e.id, e.verb, e.by, digest, True, "" if question else said),
                    record.due("command", id=e.id, verb=e.verb, **args, by=e.by, outcome=outcome)], told=Told(True, said))


def _question(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    return [], ""


def _forward(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    return [], "what waits is sent now"


def _print_test(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    paper: tuple[PaperPart, ...] = (
        Text("打印测试 / Print test", "c", 2), Ruler(), Pair("", at.wall[:19].replace("T", " ")), Pair("", e.by),
        Text("收款 小票 ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 ¥"), Ruler(), Cut())
    health = dict(d.health).get("printer", "")
    due: Fact = paper_due(b, "test", e.id, paper)
    return [due], f"a test slip is due, and the printer says {health}" if health else "a test slip is due"


def _reboot(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    wished: Fact = RebootWished(e.id)
    return [wished], "the box restarts as soon as nobody stands at it"


def _update(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    return [], "no release is started any more" if e.arg == "stop" else "the release is fetched, and starts when nobody is there"


def _rotate(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    wished = signing.wish_key(b)
    if not wished:
        return Fault("key", "another record key is on its way already")
    return wished, "a new key is made and introduced by a key record; then the old one is destroyed"


def _refund(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    """Wallets only, and this box's own sales: a drawer wants a hand, a card its terminal, another box's sale a lease."""
    no, fen = e.arg.split()[0], int(e.arg.split()[1])
    if leasing.foreign(b, no):
        return Fault("sale", f"{no} was not sold by this box's journal: give it back where it was sold")
    at_hand = b.sale_of(no)
    sale = at_hand or earlier.told_by(e.recalled, no)[0]
    if sale is None:
        return Fault("sale", f"this box knows no sale {no}")
    if any(t.way == "card" for t in sale.tenders):
        return Fault("card", "a card's money goes back at the terminal that took it")
    left = _wallets_left(sale)
    if fen > left:
        return Fault("sum", f"{left} fen of that sale may go back to wallets; cash goes back at the counter")
    verdict = earlier.give(b, d, sale, fen, e.by, at)
    if verdict.refused:
        assert verdict.words is not None
        return Fault("refund", verdict.words[1])
    facts = [msgspec.structs.replace(f, quiet=True) if isinstance(f, RefundIntended) else f for f in verdict.facts]
    numbers = ", ".join(f.intent.refund_no for f in facts if isinstance(f, RefundIntended))
    return [*([] if at_hand else [SaleRecalled(sale)]), *facts], f"begun under {numbers}; its refund record says when it is done"


def _let_go(b: Books, d: Desk, e: Asked, at: Stamp) -> Deed:
    """A person's end of what no channel and no bill decided: it is asked about no more, and neither paid nor given back."""
    no = e.arg
    order = b.orders.get(no)
    if order is None:
        return Fault("order", f"this box has no open order {no}")
    if not order.bill_decides:
        return Fault("early", f"{no} is not over yet: its channel can still say what becomes of it")
    basket = order.basket
    parts = [{"method": t.method, "order_no": t.order_no, "amount_fen": t.amount_fen} for t in basket.tenders if t.order_no] \
        if basket is not None else []
    told = {"held_fen": order.held_fen, "channel_fen": order.disputed_fen, "cash_fen": basket.cash_fen if basket is not None else 0}
    facts: list[Fact] = [
        record.due("payment_alert", cause="let_go", order_no=no, amount_fen=order.intent.amount_fen, channel=order.intent.channel,
                   account=order.intent.account.account, goods={"book": "given", "give_back": "kept"}.get(order.park, ""),
                   **{name: fen for name, fen in told.items() if fen}, parts=parts, by=e.by),
        paper_due(b, "alert", no, alert_paper(d.terms, "不再查询，结果未明 / Asked no more, never known", no,
                                              order.intent.amount_fen, at, order.disputed_fen or order.held_fen)),
        OrderForgotten(no)]
    return facts, f"{no} is asked about no more; whether it was paid stays unknown, and its record says so"


def _wallets_left(sale: Sale) -> int:
    return sum(t.amount_fen - sale.returned.get(t.order_no, 0) for t in sale.tenders if t.order_no)


DEEDS: dict[str, Callable[[Books, Desk, Asked, Stamp], Deed]] = {
    "status": _question, "doctor": _question, "logs": _question, "journal verify": _question,
    "forward now": _forward, "print test": _print_test, "reboot": _reboot, "update": _update, "rotate key": _rotate,
    "refund": _refund,
    "let go": _let_go,
}
assert DEEDS.keys() == VERBS.keys()
