"""What the outside should be doing now, from books and desk alone.  There is no recovery code: a boot asks this, too.

`wants_of(key)` is small, so that only what an input touched is looked at; `wants` is the whole of it, for boot and tests.
"""

from __future__ import annotations

from device.txn import papers, record
from device.txn.billing import decidable
from device.txn.books import Books, Order, Phase
from device.txn.desk import Desk
from device.txn.effects import (
    Alarm,
    AskSale,
    ChargeCard,
    ChargeCode,
    CloseOrder,
    DropKey,
    Effect,
    FetchBill,
    KickDrawer,
    MakeKey,
    PlaceOrder,
    Print,
    QueryOrder,
    QueryRefund,
    Reboot,
    Recall,
    RefundOrder,
    SignRecord,
    TakeConfig,
    TrySigner,
)

Key = tuple[str, ...]
ALWAYS: tuple[Key, ...] = (("printer",), ("record",), ("recall",), ("shown",), ("bill",), ("cloud",), ("reboot",),
                            ("config",), ("journal",))


def keys(books: Books) -> set[Key]:
    """Every key that can want something."""
    return {*ALWAYS, *(("order", no) for no in books.orders), *(("refund", no) for no in books.refunds)}


def wants(books: Books, desk: Desk) -> set[Effect]:
    return {effect for key in keys(books) for effect in wants_of(key, books, desk)}


def wants_of(key: Key, books: Books, desk: Desk) -> set[Effect]:
    """Effects wanted for one key; empty for a key that is no more."""
    match key:
        case ("order", no):
            return _order(no, books, desk)
        case ("refund", no):
            refund = books.refunds.get(no)
            if refund is None:
                return set()
            return {QueryRefund(refund.intent) if refund.accepted else RefundOrder(refund.intent)}
        case ("bill",):
            open_ = [o for o in books.orders.values() if o.bill_decides]
            fetch: set[Effect] = {FetchBill(order.intent.account, day) for order in open_ for day in order.bill_days}
            return fetch | {Alarm(("bill", no), books.boot, 0) for no in decidable(books, desk)}
        case ("printer",):
            return _printer(books, desk)
        case ("record",):
            return _signer(books)
        case ("recall",):
            return {Recall(desk.looking)} if desk.looking else set()
        case ("cloud",):
            asks: set[Effect] = {AskSale(desk.asking[0], desk.asking[1])} if desk.asking[0] else set()
            return asks | {Alarm(("lease", lease), books.boot, held.due_ms) for lease, held in books.leases.items()}
        case ("config",):
            if not desk.config or not idle(books, desk):
                return set()
            return {TakeConfig(desk.config) if desk.taking else Alarm(("config",), books.boot, 0)}
        case ("shown",):
            if books.shown is None:
                return set()
            receipt = papers.to_sign(books, desk)
            return {Alarm(("shown",), books.boot, books.shown.until_ms)} | ({receipt} if receipt is not None else set())
        case ("journal",):
            now = desk.renew[0] and not books.due and nobody_here(books, desk)
            return {Alarm(("journal", desk.renew[1]), books.boot, 0)} if now else set()
        case ("reboot",):
            return {Reboot(books.reboot)} if books.reboot and not books.reboot_started and nobody_here(books, desk) else set()
    raise AssertionError(key)


def nobody_here(books: Books, desk: Desk) -> bool:
    """As `idle`, and what the last customer paid is no more on the screen: the box may stop for a minute."""
    return books.shown is None and idle(books, desk)


def idle(books: Books, desk: Desk) -> bool:
    """True between two customers: nothing on the counter, nothing typed or asked, no paper half out."""
    return (not books.basket.lines and not books.basket.tenders and not books.basket.order_no
            and not (desk.typed or desk.qty or desk.mode or desk.looking or desk.extras or desk.part_fen or desk.asking[0])
            and not any(paper.state == "started" for paper in books.papers.values())
            and not any(kick.started for kick in books.kicks.values()))


def _signer(books: Books) -> set[Effect]:
    """One record at a time, lowest first; a trial while it is broken; the key that was wished for, and the end of the old one."""
    wanted: set[Effect] = set()
    if books.key_old:
        wanted.add(DropKey(books.key_old, books.chain.kid))
    elif books.key_wished:
        wanted.add(MakeKey(books.chain.kid))
    if books.broken:
        wanted.add(TrySigner(books.breaks))
    elif books.due:
        wanted.add(SignRecord(books.chain.seq + 1, record.payload(books, books.due[0]), books.chain.kid))
    return wanted


def _order(no: str, books: Books, desk: Desk) -> set[Effect]:
    order = books.orders.get(no)
    if order is None:
        return set()
    intent, alarm = order.intent, Alarm(("order", no), books.boot, order.due_ms)
    overdue = Alarm(("overdue", no), books.boot, order.since_ms + order.dead_after_ms)
    undo = CloseOrder(intent, order.since_ms + order.undo_after_ms if order.undo_after_ms else 0)
    match order.phase:
        case Phase.PLACING | Phase.AWAITING if order.given and order.undo_moves:
            return {QueryOrder(intent), alarm, overdue, *_first(order, books, desk)}
        case Phase.PLACING | Phase.AWAITING:
            return {QueryOrder(intent), alarm, *_first(order, books, desk)}
        case Phase.CANCELLING:
            live = books.basket.order_no == no        # a cashier waits for its end
            return {QueryOrder(intent), overdue, *([alarm] if live else []), *([] if order.undo_refused else [undo])}
        case Phase.UNDECIDED:
            return {QueryOrder(intent, watch=True), *([undo] if order.cause and not order.undo_refused else [])}
        case Phase.ASKING:
            return {alarm}
        case Phase.CLOSED:
            return {QueryOrder(intent, watch=True), *([] if order.overdue else [alarm])}
        case Phase.RETURNING:
            return set()                              # its refund is wanted under its own key
    raise AssertionError(order.phase)


def _first(order: Order, books: Books, desk: Desk) -> set[Effect]:
    """What an order that nobody has answered yet wants besides its query."""
    if order.phase is not Phase.PLACING:
        return set()
    no, intent = order.intent.order_no, order.intent
    if intent.way == "card":                          # started once: afterwards only the query can tell
        return set() if order.charged else {ChargeCard(intent)}
    if intent.way == "code":
        waits = desk.code is not None and desk.code.order_no == no and not order.charged
        return {ChargeCode(intent, desk.code.code)} if waits and desk.code is not None else set()
    place_ms = desk.terms.rules_of(intent.channel, intent.way).place_ms
    return {PlaceOrder(intent), Alarm(("slow", no), books.boot, order.since_ms + place_ms)}


def _printer(books: Books, desk: Desk) -> set[Effect]:
    """One paper at a time, oldest first; none on a printer that said it cannot."""
    wanted: set[Effect] = {KickDrawer(k.kick) for k in books.kicks.values() if not k.started} if desk.kicks() else set()
    if not desk.well("printer"):
        return wanted
    due = None
    for paper in books.papers.values():               # one pass: this runs after every scan
        if paper.state == "started":
            return wanted
        if due is None and paper.state == "due":
            due = paper
    if due is not None:
        wanted.add(Print(due.job, due.paper))
    return wanted
