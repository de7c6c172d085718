"""What must hold in every state of the search, in every row, after every answer, and at rest.

In every state: nobody's money is booked without having been taken, booked twice, booked and given back, given back twice, undone
and refunded, or known to nobody; one live attempt a basket.  In every row: a sale comes with its receipt and its record.  After
every PAID: it was heard.  From every state: left alone, with a channel that answers, the box comes to rest, and then channel
and books hold the same money.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from device.txn.books import Books, Order, Phase
from device.txn.effects import Alarm, FetchBill
from device.txn.facts import (
    LatePaymentFound,
    OrderClosed,
    PaymentConfirmed,
    ReceiptDue,
    RecordDue,
    RefundConfirmed,
    SaleClosed,
    TenderTaken,
)
from device.txn.inputs import ChannelSaid, Input, Pressed, Rang, Said
from device.txn.wants import Key
from sim.search_step import VERBS, Breach, Node, Steps, Till, bills, over, wanted_by

ROUNDS_MAX = 40               # of asking, ringing and clearing, until a box left alone must be at rest
HEARD = (Phase.ASKING, Phase.RETURNING)


class Laws(Steps):
    """`judge(node)` raises `Breach` for a state that must not be, or from which there is no way to rest.

    `rounds_max` is the longest way to rest so far: inputs that changed something, the channel's answers and alarms among them.
    """

    def __init__(self, *args: Any) -> None:
        self._rounds: dict[bytes, int] = {}           # to rest, from states from which it was reached
        super().__init__(*args)
        self.rounds_max = 0

    def judge(self, how: str, node: Node) -> None:
        books = self.books_of(node)
        if fault := self._money(node, books) or _attempts(books):
            raise Breach(how, fault)
        self._rests(how, node)

    # In every row

    def on_row(self, how: str, till: Till, node: Node, event: Input) -> None:
        kinds = [type(fact) for fact in till.facts]
        due = [fact.kind for fact in till.facts if isinstance(fact, (ReceiptDue, RecordDue))]
        if SaleClosed in kinds and due.count("sale") != 2:
            raise Breach(how, "a sale without receipt and record in its row")
        if PaymentConfirmed in kinds and not {SaleClosed, TenderTaken} & set(kinds):
            raise Breach(how, "paid, and neither sale nor part of one in its row")
        customers = [fact for fact in till.facts if isinstance(fact, RefundConfirmed)]
        if customers and not {"refund", "payment_alert"} & set(due):
            raise Breach(how, "money given back without a record in its row")
        whole = {key: lasting for key, wanted in wanted_by(till.books, till.desk).items()
                 if (lasting := {e for e in wanted if e.kind == "repeatable"})}
        running = {key: wanted for key, wanted in till._wanted.items() if key[0] in ("order", "refund", "bill")}
        if running != whole:
            raise Breach(how, "what runs is not what is wanted")
        for fact in till.facts:
            if isinstance(fact, (PaymentConfirmed, LatePaymentFound)):
                self._one_end(how, self.books_of(node).orders[fact.order_no], node, event, sold=isinstance(fact, PaymentConfirmed))
            if isinstance(fact, OrderClosed) and fact.order_no not in node.wished and self._alive(fact.order_no, node):
                raise Breach(how, f"{self.named(fact.order_no)} is called dead, and nobody cancelled it, and it is not")

    def _one_end(self, how: str, order: Order, node: Node, event: Input, *, sold: bool) -> None:
        """What may become of a payment: a sale when nobody cancelled it, or by somebody's word; else its money goes back."""
        wished, enter = order.intent.order_no in node.wished, order.phase is Phase.ASKING and event == Pressed("ENTER")
        name = self.named(order.intent.order_no)
        if sold and wished and not order.given and not enter:
            raise Breach(how, f"{name} was cancelled, and is booked without anybody's word")
        if order.phase is Phase.ASKING and isinstance(event, ChannelSaid):
            raise Breach(how, f"{name} is decided while the cashier is being asked")
        waited = order.phase in (Phase.PLACING, Phase.AWAITING) and not wished
        if not sold and (waited or enter or (order.given and not (order.undo_moves and wished))):
            raise Breach(how, f"{name} was waited for, and its money goes back")

    def _alive(self, no: str, node: Node) -> bool:
        truth = node.truths[no]
        return any(e.intent.order_no == no for e in node.wire if VERBS[type(e)] == "charge") or (
            truth.late and truth.state in ("open", "paid") and not truth.undone and not (truth.over and truth.state == "open"))

    # After every answer

    def heard(self, how: str, event: Input, node: Node, before: Books, after: Books | None = None) -> None:
        if not (isinstance(event, ChannelSaid) and event.said is Said.PAID) or event.order_no not in before.orders:
            return
        order = (after or before).orders.get(event.order_no)
        if event.amount_fen != node.truths[event.order_no].amount_fen:
            if order is None:
                raise Breach(how, f"{self.named(event.order_no)} is settled by another amount")
        elif order is not None and order.phase not in HEARD and not order.channel_no:
            raise Breach(how, f"PAID is not heard: {self.named(event.order_no)} stays {order.phase}")

    # In every state

    def _money(self, node: Node, books: Books) -> str:
        booked, returned = _booked(books)
        if fault := next((f"{self.named(no)} is booked and the channel never heard of it" for no in booked
                          if no not in node.truths), ""):
            return fault
        for no, truth in node.truths.items():
            intended = sum(r.intent.amount_fen for number, r in books.refunds.items() if r.intent.order_no == no
                           and number not in {n for n, _, _ in truth.refunds})
            back, name = truth.back_fen + intended, self.named(no)
            if truth.undone and (truth.refunds or intended):
                return f"{name} is undone and refunded"
            if back > truth.taken_fen and intended:
                return f"{name} gets back more than was paid"
            if booked[no] not in (0, truth.taken_fen):
                return f"{name} is booked with {booked[no]} fen, and {truth.taken_fen} fen were taken"
            if booked[no] and back > returned[no]:
                return f"{name} is booked, and its money goes back"
            if not booked[no] and no not in books.orders and truth.taken_fen > back:
                return f"{name} is paid, and the box knows nothing of it"
        return ""

    # At rest

    def _rests(self, how: str, node: Node) -> None:
        """Faults stop, nobody touches the box: it asks, the channel answers, alarms ring; then the cashier clears the basket."""
        node, chain = node._replace(wire=(), mail=()), []
        steps: list[str] = []
        for _ in range(ROUNDS_MAX):
            key = self.key(node)
            if key in self._rounds:
                break
            chain.append(key)
            try:
                step = self._round(node)
            except Breach as found:
                raise Breach(" > ".join([how, *steps, found.how]), found.what) from found
            if step is None:
                if fault := self._unrest(node):
                    raise Breach(" > ".join([how, *steps]), f"at rest, {fault}")
                break
            steps.append(step[0])
            node = step[1]
        else:
            raise Breach(" > ".join([how, *steps[:12]]), "it never comes to rest")
        left = self._rounds.get(key, -1)
        for done, state in enumerate(reversed(chain), left + 1):
            self._rounds[state] = done
        self.rounds_max = max(self.rounds_max, left + len(chain))

    def _round(self, node: Node) -> tuple[str, Node] | None:
        books = self.books_of(node)
        wanted = wanted_by(books, node.desk)
        effects: list[Any] = [effect for key in sorted(wanted) for effect in wanted[key]]
        for effect in effects:
            if isinstance(effect, FetchBill):
                if (step := self._honest(node, books, wanted, "the bill comes", bills(node.truths, effect)[0][1])) is not None:
                    return step
            elif type(effect) in VERBS and VERBS[type(effect)] != "charge":
                no = effect.intent.order_no
                does, after, answer = self.outcomes(effect, node.truths[no])[0]
                moved = node._replace(truths={**node.truths, no: after})
                how = f"{VERBS[type(effect)]} of {self.named(no)} {does}"
                if answer is not None and (step := self._honest(moved, books, wanted, how, answer)) is not None:
                    return step
        for effect in effects:
            if isinstance(effect, Alarm):
                no, later = effect.key[1], node
                if effect.key[0] == "overdue" or books.orders[no].phase is Phase.CLOSED:
                    later = over(node, no)
                if (step := self._honest(later, books, wanted, f"the {effect.key[0]} alarm rings", Rang(effect.key))) is not None:
                    return step
        if node.desk.mode or node.desk.typed or (books.basket.lines and not books.basket.order_no):
            return self._honest(node, books, wanted, "CLEAR", Pressed("CLEAR"))
        return None

    def _honest(self, node: Node, books: Books, wanted: dict[Key, set], how: str, event: Input) -> tuple[str, Node] | None:
        return None if self.idle(node, books, event, how) else (how, self._after(node, wanted, how, [event]))

    def _unrest(self, node: Node) -> str:
        books = self.books_of(node)
        if books.orders or books.refunds or books.basket.lines:
            return f"something is undecided for ever: {[str(o.phase) for o in books.orders.values()]}, {len(books.refunds)} refunds"
        booked, returned = _booked(books)
        for no, truth in node.truths.items():
            if truth.taken_fen - truth.back_fen != booked[no] - returned[no]:
                return f"{self.named(no)}: the channel holds {truth.taken_fen - truth.back_fen}, books {booked[no] - returned[no]}"
        held = sum(t.taken_fen - t.back_fen for t in node.truths.values())
        return "" if held == books.wallet_fen else f"the channel holds {held}, the books say {books.wallet_fen}"


def _booked(books: Books) -> tuple[Counter[str], Counter[str]]:
    """What stands in sales and baskets, and what of it customers got back or will, by order number."""
    booked: Counter[str] = Counter()
    returned: Counter[str] = Counter()
    baskets = [books.basket, *books.held.values(), *(o.basket for o in books.orders.values() if o.basket is not None and o.given)]
    for tenders in [*(s.tenders for s in books.sales.values()), *(b.tenders for b in baskets)]:
        for tender in tenders:
            if tender.order_no:
                booked[tender.order_no] += tender.amount_fen
    for sale in books.sales.values():
        for no, fen in sale.returned.items():
            returned[no] += fen
    return booked, returned


def _attempts(books: Books) -> str:
    """One live attempt, and sales whose sums are right."""
    live = [no for no, o in books.orders.items() if not o.park and o.basket is None
            and o.phase in (Phase.PLACING, Phase.AWAITING, Phase.ASKING)]
    if live not in ([], [books.basket.order_no]):
        return "two attempts for one basket are live"
    if books.basket.due_fen < 0:
        return "more is taken for a basket than it costs"
    for sale in books.sales.values():
        if not sum(t.amount_fen for t in sale.tenders) == sale.amount_fen == sum(x.amount_fen for x in sale.lines):
            return "a sale's tenders are not its sum"
        if not 0 <= sale.refunded_fen <= sale.amount_fen:
            return "a sale gives back more than it took"
    return ""
