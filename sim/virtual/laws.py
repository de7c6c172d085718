"""What must hold in every decision of a box, whatever is true at the channels: money at rest does not show all of it.

Looks at an input, the orders it is about as they stood before, and the facts that followed.  Refuses to know why a rule was broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

from device.txn.books import Books, Phase
from device.txn.effects import ChargeCard, ChargeCode, Effect
from device.txn.facts import (
    CancelWished,
    Fact,
    LatePaymentFound,
    OrderClosed,
    OrderForgotten,
    OrderIntended,
    OrderParked,
    PaymentConfirmed,
    ReceiptDue,
    RecordDue,
    RefundConfirmed,
    RefundFailed,
    RefundIntended,
    SaleClosed,
)
from device.txn.inputs import BillSaid, ChannelSaid, Input, Pressed, Rang, RefundSaid, RefundWord, Said, Started

DECIDING = (OrderClosed, OrderForgotten, PaymentConfirmed, LatePaymentFound, RefundIntended, RefundConfirmed, RefundFailed,
            SaleClosed)
DEAD = (Said.CLOSED, Said.REFUSED, Said.GIVEN_BACK)


class Was(NamedTuple):
    """An order as it stood before the decision."""

    phase: Phase
    undoing: bool
    given: bool
    live: bool


class Laws:
    """`say(sentence, order number)` is told every breach."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._wished: set[str] = set()                # orders whose cancel, or whose money's return, was decided
        self._charges: Counter[str] = Counter()
        self._was: dict[str, Was] = {}

    def before(self, books: Books, event: Input) -> None:
        orders = books.orders
        self._was = {no: Was(o.phase, o.undoing, o.given, no == books.basket.order_no)
                     for no in named(books, event) if (o := orders.get(no)) is not None}

    def after(self, books: Books, event: Input, facts: list[Fact], waiting: int, amounts: dict[str, int]) -> None:
        """`waiting` rows are not on the card yet; `amounts` of every order ever intended."""
        if not facts:
            return
        nothing = isinstance(event, ChannelSaid) and event.said is Said.UNKNOWN or \
            isinstance(event, RefundSaid) and event.word is RefundWord.UNKNOWN
        for fact in facts:
            no = getattr(fact, "order_no", "")
            if nothing and isinstance(fact, DECIDING):
                self._say(f"I4 {no}: an answer that proves nothing decided ({type(fact).__name__})", no)
            match fact:
                case PaymentConfirmed():
                    self._booked(no, event, amounts)
                case LatePaymentFound():
                    self._given_back(no, event)
                case RefundIntended(intent=intent) if fact.cause != "customer":
                    self._given_back(intent.order_no, event)
                case OrderClosed():
                    self._closed(no, event)
                case OrderForgotten() if not isinstance(event, ChannelSaid) and not by_bill(event):
                    self._say(f"I2 {no}: forgotten, and nobody had said a last word", no)
                case OrderIntended() | RefundIntended() if waiting:
                    self._say(f"I3 {fact.intent.order_no}: its intent is not on the card", fact.intent.order_no)
                case SaleClosed():
                    self._whole(fact.sale.order_no, facts)
                case CancelWished() | OrderParked(policy="give_back"):
                    self._wished.add(no)
        for no, order in books.orders.items():
            if order.phase in (Phase.PLACING, Phase.AWAITING) and order.basket is None and no != books.basket.order_no:
                self._say(f"I1 {no}: nobody waits for this attempt, and it goes on", no)

    def starts(self, effect: Effect) -> None:
        """A driver begins with it."""
        if isinstance(effect, (ChargeCode, ChargeCard)):
            no = effect.intent.order_no
            self._charges[no] += 1
            if self._charges[no] > 1:
                self._say(f"I8 {no}: charged a second time", no)

    def _booked(self, no: str, event: Input, amounts: dict[str, int]) -> None:
        was = self._was.get(no)
        if was is None:
            self._say(f"I4 {no}: booked, and nobody spoke of it", no)
        elif no in self._wished and not was.given and not (was.phase is Phase.ASKING and event == Pressed("ENTER")):
            self._say(f"I5 {no}: cancelled, and booked without anybody's word", no)
        if (said_fen := amount_of(no, event)) not in (0, amounts.get(no, 0)):
            self._say(f"I7 {no}: {said_fen} fen were paid, and {amounts.get(no, 0)} booked", no)

    def _given_back(self, no: str, event: Input) -> None:
        was = self._was.get(no)
        if was is not None and was.undoing and not (isinstance(event, ChannelSaid) and event.undo):
            self._say(f"I5 {no}: given back beside an undo that may move the money, too", no)
        if was is not None and was.phase in (Phase.PLACING, Phase.AWAITING) and (was.live or was.given):
            self._say(f"I2 {no}: somebody waits for this payment, and it is given back", no)

    def _closed(self, no: str, event: Input) -> None:
        was = self._was.get(no)
        if by_bill(event):
            return
        if isinstance(event, ChannelSaid) and (event.said in DEAD or (
                event.said is Said.ABSENT and (no in self._wished or (was is not None and was.phase is Phase.UNDECIDED)))):
            return
        self._say(f"I4 {no}: called dead, and nobody said so", no)

    def _whole(self, no: str, facts: Iterable[Fact]) -> None:
        due = [fact.kind for fact in facts if isinstance(fact, (ReceiptDue, RecordDue))]
        if due.count("sale") != 2:
            self._say(f"I11 {no}: a sale without its receipt and its record in one row", no)


def by_bill(event: Input) -> bool:
    """A bill, or the ring for one of the orders that it decides besides the first."""
    return isinstance(event, BillSaid) or (isinstance(event, Rang) and event.key[0] == "bill")


def named(books: Books, event: Input) -> Iterable[str]:
    """Orders that an input can be about."""
    match event:
        case ChannelSaid(order_no=no):
            return (no,)
        case Rang(key=(_, no)):
            return (no,)
        case BillSaid() | Started():
            return list(books.orders)
    return (books.basket.order_no,)


def amount_of(no: str, event: Input) -> int:
    """What the event says was paid of the order, 0 where it does not say."""
    match event:
        case ChannelSaid(said=Said.PAID, amount_fen=fen):
            return fen
        case BillSaid(rows=rows):
            return sum(row[3] for row in rows if row[0] == "paid" and row[1] == no)
    return 0
