"""The payment machine: an input comes in, a verdict comes out.  No clock, no file, no driver.

`MOVES` names every move a channel's word can cause; `IGNORED` every pair that moves nothing, with its reason.  PAID is
never ignored while an order is known.  Docs draw both tables.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import msgspec

from device.txn import leasing, papers, record, renewing, signing, sounds
from device.txn.billing import known_lines, lines_of, on_bills
from device.txn.books import UNDECIDED, WAITING_MAX, Books, Order, Phase, Sale
from device.txn.commanding import on_asked
from device.txn.day import in_its_day
from device.txn.desk import PRINTS, Desk, Verdict
from device.txn.earlier import on_recalled
from device.txn.effects import Intent, RefundIntent
from device.txn.facts import (
    AmountDisputed,
    Booted,
    CancelWished,
    ConfigStood,
    DrawerDone,
    Fact,
    JournalOpened,
    LatePaymentFound,
    MoneyHeld,
    OrderClosed,
    OrderForgotten,
    OrderOverdue,
    OrderReopened,
    PaidUnderUndo,
    PaidWhileCancelling,
    PapersShelved,
    PayerAsked,
    PaymentConfirmed,
    QrIssued,
    ReceiptDue,
    ReceiptPrinted,
    ReceiptUnstarted,
    ReceiptUnsure,
    RefundAccepted,
    RefundConfirmed,
    RefundFailed,
    RefundIntended,
    RefundStuck,
    SaleClosed,
    ScreenCleared,
    Tender,
    TenderTaken,
    UndoRefused,
)
from device.txn.folding import evolve
from device.txn.inputs import (
    Asked,
    BillSaid,
    BoxTried,
    ChannelSaid,
    ClockSaid,
    CloudStood,
    ConfigSaid,
    Configured,
    DeviceSaid,
    DrawerKicked,
    Input,
    KeyGone,
    KeyReady,
    LinkSaid,
    Pressed,
    Printed,
    PrintRefused,
    PrintUnsure,
    QrReady,
    Rang,
    Recalled,
    ReceiptSigned,
    RefundSaid,
    RefundWord,
    Said,
    SaleAnswered,
    Scanned,
    ScanSpoiled,
    Signed,
    Started,
)
from device.txn.keys import SLOW_MS, on_pressed, on_scanned
from device.txn.minting import EMPTY_DIGEST, business_day, mint, paper_due, salt_of
from device.txn.opening import on_box_tried
from device.txn.paying import other_route, outcome_of, rerouted
from device.txn.receipt import alert_paper, refund_paper, sale_paper
from device.txn.wants import idle
from device.txn.words import disputed_words, say, yuan
from device.types import Stamp

ANSWERED = ("park", "pick", "badge", "pin")   # questions whose answer is ENTER or CANCEL
BY_HAND = (Pressed, Scanned, ScanSpoiled, Started)
ENDS_PARK = (OrderClosed, PaymentConfirmed, PaidWhileCancelling, LatePaymentFound)
ASK_MS = 30_000           # how long the cashier may think about money that came while cancelling


def decide(books: Books, desk: Desk, event: Input, at: Stamp) -> Verdict:
    """What follows from one input.  KeyError for an input nobody wrote a rule for: that is our bug."""
    verdict = DECIDERS[type(event)](books, desk, event, at)
    if desk.mode in ANSWERED and not isinstance(event, BY_HAND):
        stand(books, desk, verdict)
    verdict.facts = leasing.ended(books, desk, verdict)
    verdict.facts = shelve(books, in_its_day(books, desk, verdict.facts, at))
    verdict.sound = sounds.heard(books, verdict.facts)
    return verdict


def stand(b: Books, d: Desk, verdict: Verdict) -> None:
    """What ENTER or CANCEL answers stays on the screen until a person answers it, or until nothing is left to ask about."""
    if d.mode == "park" and any(isinstance(f, ENDS_PARK) and f.order_no == b.basket.order_no for f in verdict.facts):
        verdict.desk["mode"] = ""
        if verdict.words is None and d.words == say("park_ask"):
            verdict.words = ("", "")
    elif "mode" not in verdict.desk and verdict.tone != "bad":
        verdict.words = None


def shelve(b: Books, facts: list[Fact]) -> list[Fact]:
    """`facts`, and the end of the oldest waiting papers when these make too many: a box without a printer stays small."""
    more = [f.job for f in facts if isinstance(f, ReceiptDue)]
    if not more:
        return facts
    gone = {job for f in facts if isinstance(f, PapersShelved) for job in f.jobs}
    waiting = [p.job for p in b.papers.values() if p.state in ("due", "unsure", "late") and p.job not in gone] + more
    old = tuple(waiting[:max(0, len(waiting) - WAITING_MAX)])
    return [*facts, PapersShelved(old)] if old else facts


# The channel's word.

Move = Callable[[Books, Desk, Order, ChannelSaid, Stamp], Verdict]


def book(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """Paid: the sale is closed, its receipt and its record fall due, all in one row.  A part leaves the rest to be paid."""
    if order.park == "give_back" or (order.basket is None and b.basket.order_no != order.intent.order_no):
        return give_back(b, d, order, said, at)       # the basket on the counter is another customer's
    intent = order.intent
    parked = order.basket is not None
    basket = order.basket if order.basket is not None else b.basket
    tender = tender_of(intent, said)
    if basket.due_fen > intent.amount_fen and not parked:
        rest = basket.due_fen - intent.amount_fen
        return Verdict([PaymentConfirmed(intent.order_no, said.channel_no, intent.amount_fen), TenderTaken(tender)],
                       say("part_paid", paid=yuan(intent.amount_fen), due=yuan(rest)), "wait", desk={"mode": "", "typed": ""})
    tenders = [*basket.tenders, tender]
    sale = Sale(order_no=intent.order_no, lines=list(basket.lines), tenders=tenders, amount_fen=basket.total_fen,
                cashier=d.terms.cashier, at=at.wall)
    facts: list[Fact] = [PaymentConfirmed(intent.order_no, said.channel_no, intent.amount_fen),
                         SaleClosed(sale, business_day(at, d.terms.cutoff_hour), from_basket=not parked, show=not parked),
                         paper_due(b, "sale", sale.order_no, sale_paper(d.terms, sale, at)), record.sale_due(sale)]
    words = say("parked_paid", slip=order.slip) if parked else say("paid")
    return Verdict(facts, words, "good", desk={} if parked else {"mode": "", "typed": ""})


def tender_of(intent: Intent, said: ChannelSaid) -> Tender:
    """What a paid order becomes in its sale."""
    extras = dict(intent.extras)
    return Tender(intent.channel, intent.amount_fen, intent.order_no, said.channel_no, intent.account, intent.made_at,
                  intent.way, said.wallet, int(extras.get("instalments", "0")), extras.get("fee_payer", ""), said.payer)


def ask_payer(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """The channel knows a charged code, or the card terminal its sale, and waits for the payer.

    Of a QR it only says that the request has arrived.
    """
    if order.intent.way == "qr":
        return Verdict()
    live = b.basket.order_no == order.intent.order_no
    words = say("present_card" if order.intent.way == "card" else "payer_asked")
    return Verdict([PayerAsked(order.intent.order_no)], words if live else None, "wait", desk=outcome_of(d, order, True, at))


def turned_down(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """The one try of a payer's code or card was refused for good; the number is burnt.  Of a QR this proves nothing."""
    if order.intent.way == "qr":
        return Verdict()
    verdict = close(b, d, order, said, at)
    if b.basket.order_no == order.intent.order_no:
        verdict.words, verdict.tone = say("code_refused", why=said.detail), "bad"
    return verdict


def paid_under_undo(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """One way back only: an undo that moves money is repeated until the channel is definite; nothing is refunded beside it."""
    if not order.undo_moves:
        return ask_cashier(b, d, order, said, at) if order.phase is Phase.CANCELLING else late(b, d, order, said, at)
    if said.undo or not order.undoing:                # no undo is on its way, or it moved nothing and never will
        return late(b, d, order, said, at)
    if order.channel_no:
        return Verdict()                              # said before
    live = b.basket.order_no == order.intent.order_no
    return Verdict([PaidUnderUndo(order.intent.order_no, said.channel_no)], say("paid_undoing") if live else None, "wait")


def never_undone(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """The undo is refused for good.  A payment that was seen before stands, and goes back by a refund.

    A card that was declined is declined, whatever was wished meanwhile: nothing is left to undo, unless it was paid before.
    """
    if order.intent.way == "card" and not said.undo and not order.channel_no:
        return close(b, d, order, said, at)
    if not said.undo or order.undo_refused:
        return Verdict()
    facts: list[Fact] = [UndoRefused(order.intent.order_no, said.detail)]
    if not (order.undo_moves and order.channel_no):
        return Verdict(facts)
    verdict = late(b, d, order, msgspec.structs.replace(said, said=Said.PAID, channel_no=order.channel_no), at)
    verdict.facts = facts + verdict.facts
    return verdict


def ask_cashier(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """The phone beat the key: goods or money back.  Nobody can be asked about a parked order or one that timed out alone."""
    if order.given:
        return book(b, d, order, said, at)
    if order.park or b.basket.order_no != order.intent.order_no:
        return give_back(b, d, order, said, at)
    return Verdict([PaidWhileCancelling(order.intent.order_no, said.channel_no, ASK_MS, said.wallet)], say("asking"), "wait")


def late(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """Money that nobody waits for any more: booked when the goods were given away on its strength, given back otherwise."""
    return book(b, d, order, said, at) if order.given else give_back(b, d, order, said, at)


def paid_after_close(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """Paid after its close, or an answer older than the close.

    Where an undo that moves money was sent, nobody can tell which: the undo is repeated, and says.
    """
    if order.undoing:
        no = order.intent.order_no
        return Verdict([OrderReopened(no), PaidUnderUndo(no, said.channel_no)])
    return late(b, d, order, said, at)


def give_back(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """Money that no sale waits for goes back, by one way, and everybody is told."""
    return Verdict(_give_back(b, d, order, said.channel_no, at), say("late_paid", no=order.intent.order_no), "wait")


def close(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """Definitely unpaid.  The number stays as a tombstone, queried until its shelf life is over."""
    moved = said.said is Said.GIVEN_BACK or (order.undo_moves and bool(order.channel_no))
    facts: list[Fact] = [OrderClosed(order.intent.order_no, said.detail, moved)]
    told = moved and not order.undone
    if told:
        facts += [record.due("payment_alert", cause="undone", order_no=order.intent.order_no,
                             channel_no=order.channel_no or said.channel_no,
                             amount_fen=order.intent.amount_fen, channel=order.intent.channel),
                  paper_due(b, "alert", order.intent.order_no, alert_paper(
                      d.terms, "付款已退回 / Payment was given back", order.intent.order_no, order.intent.amount_fen, at))]
    if order.park == "book":
        # No sale will name what was paid before: wallets' parts, and cash that lies in the drawer.
        parts = [{"method": t.method, "order_no": t.order_no, "amount_fen": t.amount_fen}
                 for t in order.basket.tenders if t.order_no]
        facts += [record.due("payment_alert", cause="goods_given_unpaid", order_no=order.intent.order_no,
                             amount_fen=order.intent.amount_fen, channel=order.intent.channel,
                             cash_fen=order.basket.cash_fen, parts=parts),
                  paper_due(b, "alert", order.intent.order_no, alert_paper(
                      d.terms, f"转挂未付 / Parked, never paid  {order.slip}", order.intent.order_no,
                      order.intent.amount_fen, at), ahead=int(told))]
        return Verdict(facts, say("parked_lost", slip=order.slip), "bad")
    if b.basket.order_no != order.intent.order_no:
        return Verdict(facts)
    if order.cause == "reroute":
        return rerouted(b, d, order, facts, at)
    words = say("undone") if moved else None if order.cause == "refused" else say("cancelled")
    return Verdict(facts, words)                      # a refusal stays on the screen


def settle(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """A try of ours was refused, and an earlier one may stand there and be paid: only close and query can tell."""
    if order.intent.way != "qr":
        return turned_down(b, d, order, said, at)
    live = b.basket.order_no == order.intent.order_no
    again = live and other_route(d, order)
    return Verdict([CancelWished(order.intent.order_no, "reroute" if again else "refused", SLOW_MS)],
                   say("refused", why=said.detail) if live else None, "bad", desk=outcome_of(d, order, False, at))


def reopen(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """A request of ours reached the channel after its close: the order is open there, so it is closed again."""
    return Verdict([OrderReopened(order.intent.order_no)])


def rest(b: Books, d: Desk, order: Order, said: ChannelSaid, at: Stamp) -> Verdict:
    """As it should be.  Said after its shelf life it is the last word, and the number is forgotten; silence is none."""
    proven = said.said is not Said.REFUSED or order.intent.way != "qr"
    return Verdict([OrderForgotten(order.intent.order_no)] if order.overdue and proven else [])


MOVES: dict[tuple[Phase, Said], Move] = {
    (Phase.PLACING, Said.PAID): book,
    (Phase.PLACING, Said.OPEN): ask_payer,
    (Phase.PLACING, Said.CLOSED): close,
    (Phase.PLACING, Said.REFUSED): settle,
    (Phase.PLACING, Said.GIVEN_BACK): close,
    (Phase.AWAITING, Said.PAID): book,
    (Phase.AWAITING, Said.CLOSED): close,
    (Phase.AWAITING, Said.REFUSED): turned_down,
    (Phase.AWAITING, Said.GIVEN_BACK): close,
    (Phase.CANCELLING, Said.PAID): paid_under_undo,
    (Phase.CANCELLING, Said.CLOSED): close,
    (Phase.CANCELLING, Said.ABSENT): close,
    (Phase.CANCELLING, Said.REFUSED): never_undone,
    (Phase.CANCELLING, Said.GIVEN_BACK): close,
    (Phase.CLOSED, Said.PAID): paid_after_close,
    (Phase.CLOSED, Said.OPEN): reopen,
    (Phase.CLOSED, Said.ABSENT): rest,
    (Phase.CLOSED, Said.CLOSED): rest,
    (Phase.CLOSED, Said.REFUSED): rest,
    (Phase.CLOSED, Said.GIVEN_BACK): rest,
    (Phase.UNDECIDED, Said.PAID): paid_under_undo,
    (Phase.UNDECIDED, Said.CLOSED): close,
    (Phase.UNDECIDED, Said.ABSENT): close,
    (Phase.UNDECIDED, Said.REFUSED): never_undone,
    (Phase.UNDECIDED, Said.GIVEN_BACK): close,
}
IGNORED: dict[tuple[Phase, Said], str] = {
    (Phase.PLACING, Said.ABSENT): "the request has not arrived yet",
    (Phase.AWAITING, Said.OPEN): "the customer has not paid yet",
    (Phase.AWAITING, Said.ABSENT): "an older question was answered before the order stood",
    (Phase.CANCELLING, Said.OPEN): "the close is asked again by its pace",
    (Phase.ASKING, Said.PAID): "said before: the cashier is being asked",
    (Phase.ASKING, Said.OPEN): "an older answer: PAID was said after it",
    (Phase.ASKING, Said.ABSENT): "an older answer",
    (Phase.ASKING, Said.CLOSED): "an older answer: a paid order cannot be closed",
    (Phase.ASKING, Said.REFUSED): "an older answer",
    (Phase.ASKING, Said.GIVEN_BACK): "only an undo that moves no money asks the cashier",
    (Phase.RETURNING, Said.PAID): "said before: the money is on its way back",
    (Phase.RETURNING, Said.OPEN): "an older answer",
    (Phase.RETURNING, Said.ABSENT): "an older answer",
    (Phase.RETURNING, Said.CLOSED): "an older answer",
    (Phase.RETURNING, Said.REFUSED): "an older answer",
    (Phase.RETURNING, Said.GIVEN_BACK): "an older answer: a refund began only when no undo moved money",
    (Phase.UNDECIDED, Said.OPEN): "the undo, or the end of the channel's own patience, decides",
}


def on_channel_said(b: Books, d: Desk, e: ChannelSaid, at: Stamp) -> Verdict:
    order = b.orders.get(e.order_no)
    if order is None:                                 # decided before
        return Verdict()
    if e.said is Said.UNKNOWN:                        # a state of knowledge, not of the order
        return _held(b, d, order, e, at) if e.amount_fen else Verdict()
    if e.said is Said.PAID and e.amount_fen not in (0, order.intent.amount_fen):
        return _dispute(b, d, order, e, at)
    if e.said is Said.PAID and not e.amount_fen and order.disputed_fen:
        return Verdict()                              # a PAID that names no amount settles no dispute about one
    if (order.phase, e.said) in IGNORED:
        return Verdict()
    return MOVES[order.phase, e.said](b, d, order, e, at)


def _held(b: Books, d: Desk, order: Order, e: ChannelSaid, at: Stamp) -> Verdict:
    """Money was taken from the payer, and its booking is late, unknown or failed: told once, and only the channel ends it."""
    if order.held_fen or order.phase in (Phase.RETURNING, Phase.ASKING):
        return Verdict()
    no, live = order.intent.order_no, b.basket.order_no == order.intent.order_no
    return Verdict([MoneyHeld(no, e.amount_fen, e.detail),
                    record.due("payment_alert", cause="money_held", order_no=no, amount_fen=e.amount_fen,
                               channel=order.intent.channel, why=e.detail),
                    paper_due(b, "alert", no, alert_paper(d.terms, "渠道已扣款，结果未明 / Taken by the channel, not booked", no,
                                                          e.amount_fen, at))],
                   say("money_held") if live else None, "bad")


def _dispute(b: Books, d: Desk, order: Order, e: ChannelSaid, at: Stamp) -> Verdict:
    """Less money means hold, more means case: told once, never booked by itself, and undecided until a person sees to it."""
    if order.disputed_fen:
        return Verdict()
    no, due_fen = order.intent.order_no, order.intent.amount_fen
    return Verdict([AmountDisputed(no, e.channel_no, e.amount_fen),
                    record.due("payment_alert", cause="amount_wrong", order_no=no, channel_no=e.channel_no, amount_fen=due_fen,
                               channel_fen=e.amount_fen, channel=order.intent.channel),
                    paper_due(b, "alert", no, alert_paper(d.terms, "金额不符 / Amounts differ", no, due_fen, at, e.amount_fen))],
                   disputed_words(due_fen, e.amount_fen), "bad")


def on_qr_ready(b: Books, d: Desk, e: QrReady, at: Stamp) -> Verdict:
    order = b.orders.get(e.order_no)
    if order is None or order.phase not in (Phase.PLACING, Phase.AWAITING):
        return Verdict()                              # too late: nobody may scan it any more
    desk = outcome_of(d, order, True, at) if order.phase is Phase.PLACING else {}
    return Verdict([QrIssued(e.order_no, e.qr)], ("", ""), desk=desk)


def _give_back(b: Books, d: Desk, order: Order, channel_no: str, at: Stamp) -> list[Fact]:
    intent = order.intent
    cause = {Phase.ASKING: "cancelling"}.get(order.phase, "parked" if order.park else "late")
    refund = RefundIntent(mint(b), intent.order_no, intent.channel, intent.account, intent.amount_fen, intent.amount_fen,
                          f"{cause} payment", at.wall, channel_no, intent.way, intent.made_at)
    return [LatePaymentFound(intent.order_no, channel_no), RefundIntended(refund, cause),
            record.due("payment_alert", cause=cause, order_no=intent.order_no, channel_no=channel_no,
                       amount_fen=intent.amount_fen, channel=intent.channel, refund_no=refund.refund_no),
            paper_due(b, "alert", intent.order_no, alert_paper(d.terms, "付款退回中 / Payment being given back", intent.order_no,
                                                               intent.amount_fen, at))]


def answer_asking(b: Books, d: Desk, order: Order, goods_go: bool, at: Stamp) -> Verdict:
    """The cashier's answer, or nobody's, to money that came while cancelling."""
    said = ChannelSaid(order.intent.order_no, Said.PAID, order.intent.amount_fen, order.channel_no, wallet=order.wallet)
    return book(b, d, order, said, at) if goods_go else give_back(b, d, order, said, at)


# Refunds.

def on_refund_said(b: Books, d: Desk, e: RefundSaid, at: Stamp) -> Verdict:
    refund = b.refunds.get(e.refund_no)
    if refund is None or e.word in (RefundWord.UNKNOWN, RefundWord.ABSENT):
        return Verdict()                              # asked again under the same number
    if e.word is RefundWord.PROCESSING:
        return Verdict([] if refund.accepted else [RefundAccepted(e.refund_no)])
    sale_no, amount = refund.sale_no, refund.intent.amount_fen
    if e.word is RefundWord.DONE:
        facts: list[Fact] = [RefundConfirmed(e.refund_no, e.channel_no, refund.intent.order_no, amount)]
        if refund.cause == "customer":
            facts += [paper_due(b, "refund", sale_no, refund_paper(
                          d.terms, sale_no, e.refund_no, amount, refund.intent.channel, at)),
                      record.refund_due(sale_no, e.refund_no, amount, refund.intent.channel, refund.cause, refund.approved_by,
                                        refund.intent.order_no, refund.lease)]
        else:
            facts.append(record.due("payment_alert", cause=f"{refund.cause}_given_back", order_no=refund.intent.order_no,
                                    refund_no=e.refund_no, amount_fen=amount, channel=refund.intent.channel))
        return Verdict(facts, say("refunded", amount=yuan(amount)), "good")
    if refund.cause != "customer" or e.word is RefundWord.ABNORMAL:
        # Money that is not ours stays owed, and an abnormal refund may still be paid out by hand at the channel, where a
        # second number could pay it twice: the intent stands and is asked again; a person is told, once.
        if refund.stuck:
            return Verdict()
        why = e.detail or str(e.word)
        return Verdict([RefundStuck(e.refund_no, why),
                        record.due("payment_alert", cause="refund_stuck", order_no=refund.intent.order_no,
                                   refund_no=e.refund_no, amount_fen=amount, channel=refund.intent.channel),
                        paper_due(b, "alert", refund.intent.order_no, alert_paper(
                            d.terms, "退款未到账，请人工处理 / Refund stuck: see to it at the channel", refund.intent.order_no,
                            amount, at))],
                       say("refund_failed", why=why), "bad")
    facts = [RefundFailed(e.refund_no, e.detail or str(e.word), sale_no)]
    if refund.lease:
        facts.append(leasing.failed(refund.lease, sale_no, e.refund_no, refund.intent.order_no, amount))
    return Verdict(facts, say("refund_failed", why=e.detail or e.word), "bad")


# Parts of the box.

def on_started(b: Books, d: Desk, e: Started, at: Stamp) -> Verdict:
    facts: list[Fact] = []
    if not b.chain.jid:
        facts.append(JournalOpened(e.seed, e.terms.box, e.terms.box_no, salt_of(e.seed), e.kid, EMPTY_DIGEST))
    facts += (mended := renewing.at_start(b, e))
    facts.append(Booted(e.boot, e.software, e.up_ms))
    facts.append(record.due("boot", boot=e.boot, software=e.software, rules_version=e.terms.rules_version))
    if e.leave_kid and e.leave_kid == b.chain.kid:    # the wish of a rotation that has happened since names a key of the past
        facts += signing.wish_key(b)
    unsure = [p for p in b.papers.values() if p.state == "started"]
    facts += [ReceiptUnsure(p.job, "the box stopped while it printed") for p in unsure]
    facts += (late := papers.at_start(b, e, at))
    facts += [DrawerDone(k.kick) for k in b.kicks.values() if k.started]
    desk = {"terms": e.terms}
    asking = [o for o in b.orders.values() if o.phase is Phase.ASKING]
    assert len(asking) <= 1
    if mended and asking:                             # a number is minted behind those that were skipped
        b = deepcopy(b)
        for fact in mended:
            evolve(b, fact, at)
    for order in asking:
        facts += _give_back(b, d, order, order.channel_no, at)
    words = say("late_paid", no=asking[0].intent.order_no) if asking else say("paper_unsure") if unsure else None
    waits = sum(p.state == "late" for p in b.papers.values()) + sum(len(f.jobs) for f in late)
    if words is None and waits:
        words = say("papers_late", n=waits)
    return Verdict(facts, words, "wait" if words else "plain", desk=desk)


def on_config_said(b: Books, d: Desk, e: ConfigSaid, at: Stamp) -> Verdict:
    """A configuration's word: kept and recorded when its number is a new one, so that a boot may say it again."""
    facts: list[Fact] = []
    if e.n > b.config.n:
        facts = [ConfigStood(e.epoch, e.version, e.digest, e.state, e.why, e.n),
                 record.due("config", epoch=e.epoch, version=e.version, digest=e.digest, state=e.state,
                            **({"why": e.why} if e.why else {}))]
    return Verdict(facts, desk={"config": e.digest if e.waits else "", "taking": False})


def on_configured(b: Books, d: Desk, e: Configured, at: Stamp) -> Verdict:
    return Verdict(desk={"terms": e.terms})


def on_scan_spoiled(b: Books, d: Desk, e: ScanSpoiled, at: Stamp) -> Verdict:
    zh, en = say("bad_scan", why=e.why)
    words = (f"{e.lane}：{zh}", f"{e.lane}: {en}") if e.lane else (zh, en)
    return Verdict(words=words, tone="bad", refused=True)


def on_printed(b: Books, d: Desk, e: Printed, at: Stamp) -> Verdict:
    paper = b.papers.get(e.job)
    return Verdict([ReceiptPrinted(e.job, e.proof)] if paper and paper.state == "started" else [])


def on_print_unsure(b: Books, d: Desk, e: PrintUnsure, at: Stamp) -> Verdict:
    paper = b.papers.get(e.job)
    if paper is None or paper.state != "started":
        return Verdict()
    return Verdict([ReceiptUnsure(e.job, e.why)], say("paper_unsure"), "wait")


def on_print_refused(b: Books, d: Desk, e: PrintRefused, at: Stamp) -> Verdict:
    paper = b.papers.get(e.job)
    facts = [ReceiptUnstarted(e.job, e.why)] if paper is not None and paper.state == "started" else []
    return Verdict(facts, desk=d.of_part("printer", e.word))


def on_receipt_signed(b: Books, d: Desk, e: ReceiptSigned, at: Stamp) -> Verdict:
    return Verdict(desk={"receipt": (e.order_no, e.token)})


def on_drawer_kicked(b: Books, d: Desk, e: DrawerKicked, at: Stamp) -> Verdict:
    return Verdict([DrawerDone(e.kick)] if e.kick in b.kicks else [])


def on_device_said(b: Books, d: Desk, e: DeviceSaid, at: Stamp) -> Verdict:
    if e.part == "signer":
        return signing.on_signer_said(b, d, e, at)
    if e.part == "printer" and not d.well("printer") and e.word in PRINTS:
        verdict = papers.printer_back(b, at.mono_ms)
        verdict.desk = d.of_part(e.part, e.word)
        return verdict
    back = e.word == "ok" and dict(d.health).get(e.part, "ok") != "ok" and e.part.startswith("channel:")
    waiting = tuple(no for no, o in b.orders.items() if o.phase in UNDECIDED and f"channel:{o.intent.channel}" == e.part)
    return Verdict(desk=d.of_part(e.part, e.word), again=waiting if back else ())


def on_clock_said(b: Books, d: Desk, e: ClockSaid, at: Stamp) -> Verdict:
    """An anchor: whoever reads the chain dates by it what this boot recorded before it knew the time, and after."""
    return Verdict([record.due("clock", boot=b.boot, mono_ms=e.mono_ms, at=e.at, error_ms=e.error_ms, rtt_ms=e.rtt_ms,
                               source=e.source)])


def on_link_said(b: Books, d: Desk, e: LinkSaid, at: Stamp) -> Verdict:
    return Verdict(desk={"up": e.up, "collector": e.collector})


def on_rang(b: Books, d: Desk, e: Rang, at: Stamp) -> Verdict:
    what, *rest = e.key
    order = b.orders.get(rest[0]) if rest else None
    if what == "order" and order is not None:
        if at.mono_ms < order.due_ms:
            return Verdict()                          # an alarm of an earlier deadline
        no = order.intent.order_no
        if order.disputed_fen and order.phase is not Phase.ASKING:
            return Verdict()                          # neither cancelled nor forgotten by itself
        if order.phase in (Phase.PLACING, Phase.AWAITING):
            if order.given and order.undo_moves:
                return Verdict()                      # the goods are gone: their money is wanted, not its return
            return Verdict([CancelWished(no, "timeout", SLOW_MS)], say("cancelling") if b.basket.order_no == no else None, "wait")
        if order.phase is Phase.CANCELLING and b.basket.order_no == no:
            return Verdict(words=say("cancel_slow", since=order.since[11:16]), tone="wait")
        if order.phase is Phase.ASKING:
            return answer_asking(b, d, order, False, at)
        if order.phase is Phase.CLOSED and not order.overdue:
            return Verdict([OrderOverdue(no)])
    if what == "journal" and rest[0] == d.renew[1]:
        return renewing.renewed(b, d, at)
    if what == "overdue" and order is not None and order.phase in (Phase.PLACING, Phase.AWAITING, Phase.CANCELLING):
        over = at.mono_ms >= order.since_ms + order.dead_after_ms
        return Verdict([OrderOverdue(order.intent.order_no)] if over else [])
    if what == "lease" and rest and rest[0] == d.lease:
        return Verdict(words=say("lease_over"), tone="bad", desk={"mode": "", "pick": None, "lease": ""})
    if what == "bill" and order is not None:
        return settled_by_bill(b, d, order, at)
    if what == "slow" and order is not None:
        return _slow(b, d, order, at)
    if what == "config" and d.config and idle(b, d):
        return Verdict(desk={"taking": True})
    if what == "shown" and b.shown is not None and at.mono_ms >= b.shown.until_ms:
        return Verdict([ScreenCleared()], ("", ""))
    return Verdict()


def _slow(b: Books, d: Desk, order: Order, at: Stamp) -> Verdict:
    """No QR after the time a customer waits for one: said, and another route tried once this attempt is known dead."""
    if order.phase is not Phase.PLACING or b.basket.order_no != order.intent.order_no:
        return Verdict()
    failed = outcome_of(d, order, False, at)
    if not other_route(d, order):
        return Verdict(words=say("placing_slow"), tone="wait", desk=failed)
    return Verdict([CancelWished(order.intent.order_no, "reroute", SLOW_MS)], say("rerouting"), "wait", desk=failed)


def on_bill_said(b: Books, d: Desk, e: BillSaid, at: Stamp) -> Verdict:
    """The channel's own bill settles an order whose shelf life is over; each of the others rings, and is settled next."""
    if not e.ready:
        return Verdict()
    desk = msgspec.structs.replace(d, billed=known_lines(b, d, e))
    for no in [line.order_no for line in desk.billed if line.day == e.day]:
        verdict = settled_by_bill(b, desk, b.orders[no], at)
        if verdict.facts:
            return verdict
    return Verdict(desk={"billed": desk.billed})


def settled_by_bill(b: Books, d: Desk, order: Order, at: Stamp) -> Verdict:
    """What the bills read so far say of `order` is the channel's word."""
    no = order.intent.order_no
    said = on_bills(order, lines_of(no, d.billed)) if order.bill_decides else None
    verdict = on_channel_said(b, d, said, at) if said is not None else Verdict()
    if verdict.facts:
        verdict.desk["billed"] = tuple(line for line in d.billed if line.order_no != no)
    return verdict


def _pressed(b: Books, d: Desk, e: Pressed, at: Stamp) -> Verdict:
    """ENTER and CANCEL answer the question about money that came while cancelling; every other key is the grammar's."""
    order = b.orders.get(b.basket.order_no)
    if order is not None and order.phase is Phase.ASKING:
        if e.key in ("ENTER", "CANCEL"):
            return answer_asking(b, d, order, e.key == "ENTER", at)
        return Verdict(words=say("asking"), tone="wait", refused=True)
    return on_pressed(b, d, e, at)


DECIDERS: dict[type[Input], Callable[..., Verdict]] = {
    Started: on_started, Configured: on_configured, Scanned: on_scanned, ScanSpoiled: on_scan_spoiled, Pressed: _pressed,
    QrReady: on_qr_ready, ChannelSaid: on_channel_said, RefundSaid: on_refund_said, Printed: on_printed,
    PrintUnsure: on_print_unsure, PrintRefused: on_print_refused, DrawerKicked: on_drawer_kicked,
    ReceiptSigned: on_receipt_signed, Signed: signing.on_signed,
    DeviceSaid: on_device_said, ConfigSaid: on_config_said, CloudStood: renewing.on_cloud_stood,
    ClockSaid: on_clock_said,
    KeyReady: signing.on_key_ready, KeyGone: signing.on_key_gone,
    BillSaid: on_bill_said, SaleAnswered: leasing.on_sale_answered, LinkSaid: on_link_said, Recalled: on_recalled,
    Rang: on_rang, Asked: on_asked, BoxTried: on_box_tried,
}
