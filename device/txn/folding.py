"""`evolve`: one fact into the books.  It assigns and adds, and decides nothing."""

from __future__ import annotations

import datetime

import msgspec

from device.txn.books import (
    COMMANDS_MAX,
    OLDER_MAX,
    PAPERS_MAX,
    SALES_MAX,
    SHOWN_MS,
    Basket,
    Books,
    Chain,
    Command,
    ConfigAt,
    Due,
    Kick,
    Lease,
    OldHead,
    Order,
    Paper,
    Phase,
    PinTries,
    Refund,
    Shown,
    Tally,
    Totals,
)
from device.types import Stamp

AGE_UNKNOWN_MS = 86_400_000


def evolve(books: Books, fact: msgspec.Struct, at: Stamp) -> None:
    """Fold one fact, said at `at`, into the books.  A fact nobody knows is our bug: KeyError, and the box folds again."""
    name = type(fact).__name__
    FOLDS[name](books, fact, at)
    if name != "BooksStood":                         # which says again what was said before
        books.mono_ms = at.mono_ms


def _stood(b: Books, f, at: Stamp) -> None:
    for name in Books.__struct_fields__:             # only a fold reads this fact, and it read it from disk a moment ago
        setattr(b, name, getattr(f.books, name))


def _config_stood(b: Books, f, at: Stamp) -> None:
    b.config = ConfigAt(f.epoch, f.version, f.digest, f.state, f.n)


def _pin_wrong(b: Books, f, at: Stamp) -> None:
    before = b.pins.get(f.name)
    b.pins[f.name] = PinTries(f.salt, 1 + (before.wrong if before is not None and before.salt == f.salt else 0))


def _pin_right(b: Books, f, at: Stamp) -> None:
    b.pins.pop(f.name, None)


def _journal_opened(b: Books, f, at: Stamp) -> None:
    b.box_no, b.salt = f.box_no, f.salt
    b.chain = Chain(jid=f.jid, box=f.box, kid=f.kid, prev=f.prev)


def _journal_renewed(b: Books, f, at: Stamp) -> None:
    old = b.chain
    before = (old.before[0] + old.sales_fen, old.before[1] + old.refunds_fen, old.before[2] + old.count)
    end = OldHead(old.jid, old.seq, old.prev, old.base, f.cause not in ("fork", "rollback", "gap"))
    b.chain = Chain(jid=f.jid, box=old.box, kid=old.kid, prev=f.prev, base=old.base + old.seq,
                    older=(*old.older, end)[-OLDER_MAX:], before=before)
    b.old_salts, b.salt = (*b.old_salts, b.salt)[-OLDER_MAX:], f.salt
    b.due.insert(0, Due("journal", f.body.encode(), at))


def _numbers_skipped(b: Books, f, at: Stamp) -> None:
    b.orders_made, b.boots = max(b.orders_made, f.orders), max(b.boots, f.boots)


def _wallets_stopped(b: Books, f, at: Stamp) -> None:
    b.wallets_stopped = f.why


def _wallets_back(b: Books, f, at: Stamp) -> None:
    b.wallets_stopped = ""


def _booted(b: Books, f, at: Stamp) -> None:
    b.boot, b.software = f.boot, f.software
    b.reboot, b.reboot_started = "", False           # whoever wanted a boot has one now
    b.boots += 1
    now = datetime.datetime.fromisoformat(at.wall)
    for order in b.orders.values():
        # A tombstone's shelf life goes on where it stood: begun afresh, a box that is switched off every night would keep each
        # closed order for ever.  The time without power is not counted, for no clock of ours saw it.
        left_ms = order.due_ms - b.mono_ms if order.phase is Phase.CLOSED else order.give_up_ms
        order.due_ms = at.mono_ms + max(0, left_ms)
        order.since_ms = at.mono_ms - _between_ms(order.since, now)
    for paper in b.papers.values():
        paper.since_ms = at.mono_ms - boot_age_ms(b, paper.at, at, f.up_ms)
    b.up_ms = f.up_ms
    if b.shown is not None:
        b.shown = msgspec.structs.replace(b.shown, until_ms=at.mono_ms + SHOWN_MS)


def boot_age_ms(b: Books, since: str, at: Stamp, up_ms: int) -> int:
    """How old something of an earlier boot is, by the wall; when nobody knows, it counts as a day old.

    Nobody knows when the wall went backwards; nor when nothing has set it since the machine was switched on, for it then goes on
    about where it stood when the light went out.  `up_ms` is how long the machine had been up at the start of now: one that was up
    longer already when the last fact was said has been off since.
    """
    now = datetime.datetime.fromisoformat(at.wall)
    was_off = bool(b.up_ms and up_ms) and up_ms < b.up_ms + b.mono_ms
    if not since or now < datetime.datetime.fromisoformat(since) or (was_off and at.clk in ("unset", "restored")):
        return AGE_UNKNOWN_MS
    return _between_ms(since, now)


def _between_ms(earlier: str, later: datetime.datetime) -> int:
    """Milliseconds by the wall, the only clock that a boot leaves; 0 when it went backwards."""
    gone = later - datetime.datetime.fromisoformat(earlier)
    return max(0, int(gone.total_seconds() * 1000))


def _line_added(b: Books, f, at: Stamp) -> None:
    b.shown = None
    b.basket.lines.append(f.line)


def _line_changed(b: Books, f, at: Stamp) -> None:
    b.basket.lines[f.index] = f.line


def _line_voided(b: Books, f, at: Stamp) -> None:
    line = b.basket.lines.pop(f.index)
    b.day.voids += 1
    b.day.voids_fen += line.amount_fen


def _basket_cleared(b: Books, f, at: Stamp) -> None:
    b.day.voids += len(b.basket.lines)
    b.day.voids_fen += b.basket.total_fen
    b.basket = Basket()


def _basket_held(b: Books, f, at: Stamp) -> None:
    b.held[f.slot] = b.basket
    b.basket.hold, b.holds_made = f.hold, max(b.holds_made, f.hold)
    b.basket = Basket()


def _basket_recalled(b: Books, f, at: Stamp) -> None:
    b.shown = None
    b.basket = b.held.pop(f.slot)
    b.basket.hold = 0


def _tender_taken(b: Books, f, at: Stamp) -> None:
    b.basket.tenders.append(f.tender)
    if f.tender.order_no and b.basket.order_no == f.tender.order_no:
        b.basket.order_no = ""                            # a part is paid: the next attempt may begin


def _order_intended(b: Books, f, at: Stamp) -> None:
    no = f.intent.order_no
    b.orders_made += 1
    order = Order(intent=f.intent, give_up_ms=f.give_up_ms, due_ms=at.mono_ms + f.give_up_ms,
                  dead_after_ms=f.dead_after_ms, since=at.wall, since_ms=at.mono_ms, undo_moves=f.undo_moves,
                  undo_after_ms=f.undo_after_ms, routes=f.routes, reroutes=f.reroutes)
    b.orders[no] = order
    b.basket.order_no = no
    b.shown = None
    _tally(b, order).attempts += 1


def _tally(b: Books, order: Order) -> Tally:
    key = f"{order.intent.channel} {order.intent.way} {order.since[11:13]}"
    return b.day.tallies.setdefault(key, Tally())


def _failed(b: Books, order: Order, cause: str) -> None:
    tally = _tally(b, order)
    tally.failed[cause] = tally.failed.get(cause, 0) + 1


def _charge_started(b: Books, f, at: Stamp) -> None:
    b.orders[f.order_no].charged = True


def _payer_asked(b: Books, f, at: Stamp) -> None:
    b.orders[f.order_no].phase = Phase.AWAITING


def _qr_issued(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.qr, order.phase = f.qr, Phase.AWAITING


def _cancel_wished(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.phase, order.cause = Phase.CANCELLING, f.cause
    if f.slow_ms:
        order.give_up_ms, order.due_ms = f.slow_ms, at.mono_ms + f.slow_ms


def _paid_under_undo(b: Books, f, at: Stamp) -> None:
    b.orders[f.order_no].channel_no = f.channel_no


def _undo_refused(b: Books, f, at: Stamp) -> None:
    b.orders[f.order_no].undo_refused = True


def _order_overdue(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.overdue = True
    if order.phase is not Phase.CLOSED:
        order.phase = Phase.UNDECIDED


def _order_closed(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    if not order.reopened:
        _failed(b, order, order.cause or ("closed" if order.intent.way == "qr" else "refused"))
    order.undone |= f.given_back
    order.phase, order.qr, order.channel_no = Phase.CLOSED, "", ""
    order.give_up_ms, order.due_ms = order.dead_after_ms, at.mono_ms + order.dead_after_ms
    if order.park == "give_back":
        order.basket = None                           # goods that were given away are still booked if money comes after all
    order.park, order.disputed_fen, order.held_fen = "", 0, 0      # the channel settled it: nothing was taken
    if b.basket.order_no == f.order_no:
        b.basket.order_no = ""


def _order_reopened(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.phase, order.cause, order.reopened = Phase.CANCELLING, order.cause or "reopened", True


def _order_forgotten(b: Books, f, at: Stamp) -> None:
    del b.orders[f.order_no]


def _paid_while_cancelling(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.phase, order.channel_no, order.wallet = Phase.ASKING, f.channel_no, f.wallet
    order.give_up_ms, order.due_ms = f.ask_ms, at.mono_ms + f.ask_ms


def _order_parked(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.park, order.slip = f.policy, f.slip
    b.slips_made = max(b.slips_made, f.slip)
    if f.policy == "give_back" and f.keeps_basket:
        b.basket.order_no = ""                    # cash replaces it: the goods stay in the basket
    else:
        order.basket, b.basket = b.basket, Basket()
        order.basket.order_no = ""


def _payment_confirmed(b: Books, f, at: Stamp) -> None:
    order = b.orders.pop(f.order_no, None)
    if order is not None:
        tally = _tally(b, order)
        tally.paid += 1
        tally.ms += max(0, at.mono_ms - order.since_ms)
    b.wallet_fen += f.amount_fen


def _amount_disputed(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.disputed_fen, order.channel_no = f.amount_fen, f.channel_no


def _money_held(b: Books, f, at: Stamp) -> None:
    b.orders[f.order_no].held_fen = f.amount_fen


def _late_payment_found(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.phase, order.channel_no, order.qr, order.basket = Phase.RETURNING, f.channel_no, "", None
    b.wallet_fen += order.intent.amount_fen
    _tally(b, order).late += 1
    if b.basket.order_no == f.order_no:
        b.basket.order_no = ""


def _sale_closed(b: Books, f, at: Stamp) -> None:
    sale = msgspec.structs.replace(f.sale, returned=dict(f.sale.returned))
    b.sales[sale.order_no] = sale
    if f.minted:
        b.orders_made += 1
    while len(b.sales) > SALES_MAX:
        b.sales.pop(next(iter(b.sales)))
    if f.from_basket:
        b.basket = Basket()
    if f.show:
        b.shown = Shown("paid", sale.order_no, sale.amount_fen, sale.change_fen, at.mono_ms + SHOWN_MS)
    day = b.day
    day.day = day.day or f.day
    day.sales += 1
    day.sales_fen += sale.amount_fen
    day.grand_fen += sale.amount_fen
    for tender in sale.tenders:
        day.methods[tender.method] = day.methods.get(tender.method, 0) + tender.amount_fen


def _sale_recalled(b: Books, f, at: Stamp) -> None:
    b.sales[f.sale.order_no] = msgspec.structs.replace(f.sale, returned=dict(f.sale.returned))
    while len(b.sales) > SALES_MAX:
        b.sales.pop(next(iter(b.sales)))


def _refund_intended(b: Books, f, at: Stamp) -> None:
    b.orders_made += 1
    b.refunds[f.intent.refund_no] = Refund(f.intent, f.cause, sale_no=f.sale_no, approved_by=f.approved_by, lease=f.lease)
    sale = b.sales.get(f.sale_no)
    if sale is not None:
        sale.refunded_fen += f.intent.amount_fen
        sale.parts += 1
        sale.returned[f.intent.order_no] = sale.returned.get(f.intent.order_no, 0) + f.intent.amount_fen
        if not f.quiet:
            _show_refund(b, sale.order_no, f.intent.amount_fen, at)


def _show_refund(b: Books, sale_no: str, more_fen: int, at: Stamp) -> None:
    """All that goes back of a sale at once is one sum, and done when its last part is."""
    before = b.shown.amount_fen if b.shown is not None and (b.shown.what, b.shown.order_no) == ("refunding", sale_no) else 0
    what = "refunding" if any(refund.sale_no == sale_no for refund in b.refunds.values()) else "refunded"
    b.shown = Shown(what, sale_no, before + more_fen, 0, at.mono_ms + SHOWN_MS)


def _lease_taken(b: Books, f, at: Stamp) -> None:
    b.leases[f.lease] = Lease(f.sale_no, f.due_ms)


def _lease_ended(b: Books, f, at: Stamp) -> None:
    b.leases.pop(f.lease, None)


def _refund_accepted(b: Books, f, at: Stamp) -> None:
    b.refunds[f.refund_no].accepted = True


def _refund_stuck(b: Books, f, at: Stamp) -> None:
    b.refunds[f.refund_no].stuck = f.why


def _refund_confirmed(b: Books, f, at: Stamp) -> None:
    refund = b.refunds.pop(f.refund_no)
    amount = refund.intent.amount_fen
    b.wallet_fen -= amount
    b.orders.pop(refund.intent.order_no, None)
    if refund.cause == "customer":
        _count_refund(b, refund.intent.channel, amount)
        if b.shown is not None and (b.shown.what, b.shown.order_no) == ("refunding", refund.sale_no):
            _show_refund(b, refund.sale_no, 0, at)


def _refund_failed(b: Books, f, at: Stamp) -> None:
    refund = b.refunds.pop(f.refund_no)
    sale = b.sales.get(f.sale_no)
    if sale is not None:
        sale.refunded_fen -= refund.intent.amount_fen
        sale.returned[refund.intent.order_no] -= refund.intent.amount_fen
        b.shown = None


def _cash_returned(b: Books, f, at: Stamp) -> None:
    b.orders_made += 1
    sale = b.sales[f.sale_no]
    sale.refunded_fen += f.amount_fen
    sale.parts += 1
    sale.returned["cash"] = sale.returned.get("cash", 0) + f.amount_fen
    _show_refund(b, f.sale_no, f.amount_fen, at)
    _count_refund(b, "cash", f.amount_fen)


def _count_refund(b: Books, method: str, amount_fen: int) -> None:
    b.day.refunds += 1
    b.day.refunds_fen += amount_fen
    b.day.grand_fen -= amount_fen
    b.day.methods[method] = b.day.methods.get(method, 0) - amount_fen


def _receipt_due(b: Books, f, at: Stamp) -> None:
    b.jobs_made = max(b.jobs_made, f.job)
    b.papers[f.job] = Paper(f.job, f.kind, f.ref, f.paper, f.copy, at=at.wall, of=f.of, since_ms=at.mono_ms)
    if f.copy and f.of in b.papers:
        b.papers[f.of].copies = f.copy
    done = [j for j, p in b.papers.items() if p.state in ("printed", "copied")]
    for job in done[:max(0, len(done) - PAPERS_MAX)]:
        del b.papers[job]


def _receipt_started(b: Books, f, at: Stamp) -> None:
    b.papers[f.job].state = "started"


def _receipt_printed(b: Books, f, at: Stamp) -> None:
    paper = b.papers[f.job]
    paper.state, paper.proof = "printed", f.proof
    for other in b.papers.values() if paper.of else ():
        if other.state == "unsure" and paper.of in (other.job, other.of):
            other.state = "copied"


def _receipt_unsure(b: Books, f, at: Stamp) -> None:
    b.papers[f.job].state = "unsure"


def _receipt_unstarted(b: Books, f, at: Stamp) -> None:
    b.papers[f.job].state = "due"


def _papers_late(b: Books, f, at: Stamp) -> None:
    for job in f.jobs:
        b.papers[job].state = "late"


def _paper_asked(b: Books, f, at: Stamp) -> None:
    b.papers[f.job].state, b.papers[f.job].since_ms = "due", at.mono_ms


def _papers_shelved(b: Books, f, at: Stamp) -> None:
    for job in f.jobs:
        del b.papers[job]
    b.shelved += len(f.jobs)


def _drawer_due(b: Books, f, at: Stamp) -> None:
    b.kicks_made = max(b.kicks_made, f.kick)
    b.kicks[f.kick] = Kick(f.kick, f.cause)
    b.day.kicks += 1


def _drawer_started(b: Books, f, at: Stamp) -> None:
    b.kicks[f.kick].started = True


def _drawer_done(b: Books, f, at: Stamp) -> None:
    b.kicks.pop(f.kick, None)


def _record_due(b: Books, f, at: Stamp) -> None:
    b.due.append(Due(f.kind, f.body.encode(), at))


def _record_signed(b: Books, f, at: Stamp) -> None:
    due, chain = b.due.pop(0), b.chain
    chain.seq, chain.prev, b.breaks = f.seq, f.digest, 0
    if due.kind in ("sale", "refund"):
        amount = msgspec.json.decode(due.body)["amount_fen"]
        chain.sales_fen += amount if due.kind == "sale" else 0
        chain.refunds_fen += amount if due.kind == "refund" else 0
        chain.count += 1
    elif due.kind == "key":
        chain.kid, b.key_old, b.key_next = b.key_next, chain.kid, ""


def _key_wished(b: Books, f, at: Stamp) -> None:
    b.key_wished = True


def _key_made(b: Books, f, at: Stamp) -> None:
    b.key_wished, b.key_next = False, f.kid


def _key_dropped(b: Books, f, at: Stamp) -> None:
    b.key_old = ""


def _command_done(b: Books, f, at: Stamp) -> None:
    b.commands[f.id] = Command(f.digest, f.ok, f.said, f.name)
    while len(b.commands) > COMMANDS_MAX:
        b.commands.pop(next(iter(b.commands)))


def _reboot_wished(b: Books, f, at: Stamp) -> None:
    b.reboot = f.id


def _reboot_started(b: Books, f, at: Stamp) -> None:
    b.reboot_started = True


def _signer_broke(b: Books, f, at: Stamp) -> None:
    b.broken = f.why
    b.breaks += 1


def _signer_returned(b: Books, f, at: Stamp) -> None:
    b.broken = ""
    first = int(b.due[0].kind == "journal")               # a new journal's first record names the old one's head
    if b.due[first:] and b.due[first].kind == "signer_gap":   # of a return that signed nothing: this one tells of it, too
        del b.due[first]
    for due in b.due:
        due.late = True
    b.due.insert(first, Due("signer_gap", f.body.encode(), at))


def _x_taken(b: Books, f, at: Stamp) -> None:
    b.day.x_no = f.x_no


def _day_opened(b: Books, f, at: Stamp) -> None:
    b.day.day = f.day


def _day_closed(b: Books, f, at: Stamp) -> None:
    b.shelved = 0
    b.day = Totals(z_no=f.z_no, x_no=b.day.x_no, grand_fen=b.day.grand_fen)


def _screen_cleared(b: Books, f, at: Stamp) -> None:
    b.shown = None


FOLDS = {
    "ConfigStood": _config_stood, "PinWrong": _pin_wrong, "PinRight": _pin_right,
    "BooksStood": _stood, "JournalOpened": _journal_opened, "Booted": _booted, "LineAdded": _line_added,
    "LineChanged": _line_changed, "LineVoided": _line_voided, "BasketCleared": _basket_cleared, "BasketHeld": _basket_held,
    "BasketRecalled": _basket_recalled, "TenderTaken": _tender_taken, "OrderIntended": _order_intended,
    "QrIssued": _qr_issued, "CancelWished": _cancel_wished, "OrderClosed": _order_closed, "OrderReopened": _order_reopened,
    "OrderForgotten": _order_forgotten, "PaidWhileCancelling": _paid_while_cancelling, "OrderParked": _order_parked,
    "PaymentConfirmed": _payment_confirmed, "LatePaymentFound": _late_payment_found, "SaleClosed": _sale_closed,
    "SaleRecalled": _sale_recalled, "RefundIntended": _refund_intended, "RefundAccepted": _refund_accepted,
    "RefundConfirmed": _refund_confirmed, "RefundFailed": _refund_failed, "CashReturned": _cash_returned,
    "ReceiptDue": _receipt_due, "ReceiptStarted": _receipt_started, "ReceiptPrinted": _receipt_printed,
    "ReceiptUnsure": _receipt_unsure, "ReceiptUnstarted": _receipt_unstarted, "DrawerDue": _drawer_due,
    "DrawerStarted": _drawer_started, "DrawerDone": _drawer_done, "RecordDue": _record_due, "RecordSigned": _record_signed,
    "XTaken": _x_taken, "DayClosed": _day_closed, "ScreenCleared": _screen_cleared, "AmountDisputed": _amount_disputed,
    "MoneyHeld": _money_held,
    "DayOpened": _day_opened, "ChargeStarted": _charge_started, "PayerAsked": _payer_asked,
    "PaidUnderUndo": _paid_under_undo, "UndoRefused": _undo_refused, "OrderOverdue": _order_overdue,
    "RefundStuck": _refund_stuck, "PapersShelved": _papers_shelved,
    "PapersLate": _papers_late, "PaperAsked": _paper_asked, "LeaseTaken": _lease_taken,
    "LeaseEnded": _lease_ended, "CommandDone": _command_done, "RebootWished": _reboot_wished,
    "RebootStarted": _reboot_started,
    "JournalRenewed": _journal_renewed, "NumbersSkipped": _numbers_skipped, "WalletsStopped": _wallets_stopped,
    "WalletsBack": _wallets_back,
    "SignerBroke": _signer_broke, "SignerReturned": _signer_returned,
    "KeyWished": _key_wished, "KeyMade": _key_made, "KeyDropped": _key_dropped,
}
