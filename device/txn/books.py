"""What the box knows from disk.  `evolve` folds one fact into the books: it assigns and adds, and decides nothing.

The books are bounded: closed sales leave after `SALES_MAX`, tombstones of closed orders after their shelf life.  An older
sale is found again through the journal's index.
"""

from __future__ import annotations

import datetime
import enum

import msgspec

from device.txn.effects import Intent, PaperPart, RefundIntent
from device.types import Account, Stamp

SALES_MAX = 60          # closed sales kept at hand for reprint and refund
SHOWN_MS = 60_000        # how long the screen goes on saying "paid" to nobody
PAPERS_MAX = 60         # finished paper jobs kept at hand for reprint
WAITING_MAX = 60        # papers that may wait for a printer or a person; older ones are shelved
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
BILL_EARLY = datetime.timedelta(hours=1)   # some channels end their day at 23:00, and file what comes later under the next


class Phase(enum.StrEnum):
    """Where one order (one payment attempt) stands."""

    PLACING = "placing"
    AWAITING = "awaiting"
    CANCELLING = "cancelling"
    ASKING = "asking"              # paid while cancelling: the cashier decides, goods or money back
    CLOSED = "closed"              # a tombstone: still queried until its shelf life is over
    RETURNING = "returning"        # late money on its way back
    UNDECIDED = "undecided"        # its shelf life is over and nobody was definite: the channel's bill may decide, too


UNDECIDED = (Phase.PLACING, Phase.AWAITING, Phase.CANCELLING, Phase.UNDECIDED)     # only the channel can say what became of it


class Line(msgspec.Struct, frozen=True):
    gtin: str
    name_zh: str
    name_en: str
    qty_milli: int
    price_fen: int
    amount_fen: int
    unit: str = "piece"


class Tender(msgspec.Struct, frozen=True):
    """`method` is a channel's name, `cash` or `rounding`.

    A wallet's tender keeps what its order was paid under, for a refund goes to that account whatever was configured since.
    """

    method: str
    amount_fen: int
    order_no: str = ""
    channel_no: str = ""
    account: Account | None = None   # None for cash, and in rows that an older release wrote
    made_at: str = ""                # of the order, RFC 3339 with offset
    way: str = "qr"
    wallet: str = ""                 # which wallet really paid, where an aggregator said so
    instalments: int = 0             # periods the payer pays in, 0 for none
    fee_payer: str = ""              # who bears their fee: payer or shop
    payer: str = ""                  # what may be shown of the card that paid: "****1234"


class Basket(msgspec.Struct):
    lines: list[Line] = []
    tenders: list[Tender] = []
    order_no: str = ""             # the live attempt, empty when none
    hold: int = 0                  # the number of its hold slip while it is held

    @property
    def total_fen(self) -> int:
        return sum(line.amount_fen for line in self.lines)

    @property
    def cash_fen(self) -> int:
        """What lies in the drawer for it already."""
        return sum(t.amount_fen for t in self.tenders if not t.order_no)

    @property
    def due_fen(self) -> int:
        return self.total_fen - sum(t.amount_fen for t in self.tenders)


class Order(msgspec.Struct):
    intent: Intent
    phase: Phase = Phase.PLACING
    qr: str = ""
    give_up_ms: int = 0            # length of its life; the deadline below starts afresh under another boot, a tombstone's goes on
    due_ms: int = 0
    dead_after_ms: int = 0
    cause: str = ""                # why it was cancelled
    park: str = ""                 # "", "book" (goods given) or "give_back" (goods kept)
    slip: int = 0
    since: str = ""                # wall time of the intent, for people
    since_ms: int = 0
    basket: Basket | None = None   # a parked order carries its customer's goods along
    channel_no: str = ""
    wallet: str = ""               # which one paid, while the cashier is asked about it
    held_fen: int = 0              # what the channel took from the payer without a word whose it is; 0: it did not say so
    disputed_fen: int = 0          # what the channel says was paid, where that is not the amount; 0: no dispute
    charged: bool = False          # the payer's code, or the sale at the terminal, left once
    undo_moves: bool = False       # frozen with the intent: the undo of a paid order gives its money back
    undo_after_ms: int = 0
    undo_refused: bool = False     # the channel will never undo it: only its word on the payment counts
    routes: tuple[str, ...] = ()   # channels that could take the same wallet, this one among them
    reroutes: int = 0              # attempts of this sale that were taken to another route before
    overdue: bool = False          # its shelf life is over: one more word of the channel, or its bill, is the last

    @property
    def bill_days(self) -> tuple[str, ...]:
        """Days (YYYY-MM-DD, Beijing) whose bills may name it: a payment is filed when it was made, not when it was asked for."""
        made = datetime.datetime.fromisoformat(self.intent.made_at).astimezone(BEIJING)
        last = (made + datetime.timedelta(milliseconds=self.dead_after_ms) + BILL_EARLY).date()
        return tuple((made.date() + datetime.timedelta(days=n)).isoformat() for n in range((last - made.date()).days + 1))

    @property
    def bill_decides(self) -> bool:
        """Nobody can pay it any more, and the channel has not said since what became of it."""
        return self.phase is Phase.UNDECIDED or (self.overdue and self.phase is Phase.CLOSED)

    @property
    def undoing(self) -> bool:
        """An undo that moves money was sent, and was not refused for good: only its own answer tells where the money is."""
        return self.undo_moves and bool(self.cause) and not self.undo_refused

    @property
    def given(self) -> bool:
        """The goods left on the strength of this payment: whenever it comes, it is booked."""
        return self.basket is not None and self.park != "give_back"


class Sale(msgspec.Struct):
    order_no: str
    lines: list[Line]
    tenders: list[Tender]
    amount_fen: int
    cashier: str
    at: str
    tendered_fen: int = 0
    change_fen: int = 0
    refunded_fen: int = 0          # asked for or done; a refund that fails gives its part back
    parts: int = 0
    returned: dict[str, int] = {}  # per tender, by its order number or method

    def named(self, no: str) -> bool:
        """True for its own number and for those of the orders that paid it."""
        return no == self.order_no or any(t.order_no == no for t in self.tenders)


class Refund(msgspec.Struct):
    intent: RefundIntent
    cause: str                     # "customer", "late", "cancelling", "parked", "dropped"
    stuck: str = ""                # why the channel could not pay it out
    approved_by: str = ""          # the supervisor who said yes
    lease: str = ""                # another box's sale: the lease it was begun under
    accepted: bool = False
    sale_no: str = ""              # the sale it takes back, empty for money that no sale waited for


class Lease(msgspec.Struct, frozen=True):
    """The right to give back money of another box's sale, until `due_ms` of this boot; a boot ends it."""

    sale_no: str
    due_ms: int


class Paper(msgspec.Struct):
    """One job for the printer: fixed when it fell due, so that a reprint is the same paper."""

    job: int
    kind: str                      # sale refund hold park x z alert
    ref: str
    paper: tuple[PaperPart, ...]
    copy: int = 0                  # 0 the receipt itself, n the n-th COPY
    state: str = "due"             # due started printed unsure; copied: unsure, and a COPY of it came out
    copies: int = 0
    at: str = ""
    of: int = 0                    # the job a COPY repeats


class Kick(msgspec.Struct):
    kick: int
    cause: str
    started: bool = False


class Due(msgspec.Struct):
    """A record that is due and not yet signed."""

    kind: str
    body: bytes
    at: Stamp


class Chain(msgspec.Struct):
    """Where the signed chain stands; `sales_fen refunds_fen count` are the totals after record `seq`."""

    jid: str = ""
    box: str = ""
    kid: str = ""
    seq: int = 0
    prev: str = ""
    sales_fen: int = 0
    refunds_fen: int = 0
    count: int = 0


class Tally(msgspec.Struct):
    """What became of the attempts at one channel in one hour.  `ms` sums the time from intent to PAID."""

    attempts: int = 0
    paid: int = 0
    ms: int = 0
    late: int = 0
    failed: dict[str, int] = {}    # by cause: cashier timeout refused reroute parked replaced, and what else closed an order

    def add(self, other: Tally) -> None:
        self.attempts += other.attempts
        self.paid += other.paid
        self.ms += other.ms
        self.late += other.late
        for cause, count in other.failed.items():
            self.failed[cause] = self.failed.get(cause, 0) + count


class Totals(msgspec.Struct):
    """One period from Z to Z.  `methods` sums tenders less refunds by method."""

    z_no: int = 0
    x_no: int = 0
    day: str = ""                  # the business day of what was first counted in it
    sales: int = 0
    sales_fen: int = 0
    refunds: int = 0
    refunds_fen: int = 0
    voids: int = 0
    voids_fen: int = 0
    kicks: int = 0
    methods: dict[str, int] = {}
    tallies: dict[str, Tally] = {}   # by channel, way and hour of the intent: "wechat qr 14"
    grand_fen: int = 0             # never resets


class Shown(msgspec.Struct, frozen=True):
    """What the customer's screen goes on saying after a sale, until the next customer."""

    what: str                      # paid refunding refunded
    order_no: str
    amount_fen: int
    change_fen: int = 0
    until_ms: int = 0


class Books(msgspec.Struct):
    box_no: str = ""
    salt: str = ""                 # four characters of this journal's order numbers
    boot: str = ""
    boots: int = 0
    mono_ms: int = 0               # of the newest fact, by the clock of its boot: so long this boot has lasted, not less
    software: str = ""
    orders_made: int = 0           # counter of order and refund numbers
    jobs_made: int = 0
    kicks_made: int = 0
    slips_made: int = 0
    holds_made: int = 0
    chain: Chain = msgspec.field(default_factory=Chain)
    basket: Basket = msgspec.field(default_factory=Basket)
    orders: dict[str, Order] = {}
    held: dict[int, Basket] = {}
    refunds: dict[str, Refund] = {}
    leases: dict[str, Lease] = {}
    papers: dict[int, Paper] = {}
    shelved: int = 0               # papers since the last Z that waited in vain
    kicks: dict[int, Kick] = {}
    due: list[Due] = []
    sales: dict[str, Sale] = {}
    shown: Shown | None = None
    day: Totals = msgspec.field(default_factory=Totals)
    wallet_fen: int = 0            # taken less given back by wallets, over the journal's life

    def sale_of(self, no: str) -> Sale | None:
        """The sale at hand that `no` names, its own or one of its orders'."""
        return self.sales.get(no) or next((sale for sale in self.sales.values() if sale.named(no)), None)


def evolve(books: Books, fact: msgspec.Struct, at: Stamp) -> None:
    """Fold one fact, said at `at`, into the books.  A fact nobody knows is our bug: KeyError, and the box folds again."""
    name = type(fact).__name__
    FOLDS[name](books, fact, at)
    if name != "BooksStood":                         # which says again what was said before
        books.mono_ms = at.mono_ms


def _stood(b: Books, f, at: Stamp) -> None:
    for name in Books.__struct_fields__:             # only a fold reads this fact, and it read it from disk a moment ago
        setattr(b, name, getattr(f.books, name))


def _journal_opened(b: Books, f, at: Stamp) -> None:
    b.box_no, b.salt = f.box_no, f.salt
    b.chain = Chain(jid=f.jid, box=f.box, kid=f.kid, prev=f.prev)


def _booted(b: Books, f, at: Stamp) -> None:
    b.boot, b.software = f.boot, f.software
    b.boots += 1
    now = datetime.datetime.fromisoformat(at.wall)
    for order in b.orders.values():
        # A tombstone's shelf life goes on where it stood: begun afresh, a box that is switched off every night would keep each
        # closed order for ever.  The time without power is not counted, for no clock of ours saw it.
        left_ms = order.due_ms - b.mono_ms if order.phase is Phase.CLOSED else order.give_up_ms
        order.due_ms = at.mono_ms + max(0, left_ms)
        order.since_ms = at.mono_ms - _between_ms(order.since, now)
    if b.shown is not None:
        b.shown = msgspec.structs.replace(b.shown, until_ms=at.mono_ms + SHOWN_MS)


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
    _failed(b, order, order.cause or ("closed" if order.intent.way == "qr" else "refused"))
    order.phase, order.qr, order.channel_no = Phase.CLOSED, "", ""
    order.give_up_ms, order.due_ms = order.dead_after_ms, at.mono_ms + order.dead_after_ms
    if order.park == "give_back":
        order.basket = None                           # goods that were given away are still booked if money comes after all
    order.park, order.disputed_fen, order.held_fen = "", 0, 0      # the channel settled it: nothing was taken
    if b.basket.order_no == f.order_no:
        b.basket.order_no = ""


def _order_reopened(b: Books, f, at: Stamp) -> None:
    order = b.orders[f.order_no]
    order.phase, order.cause = Phase.CANCELLING, order.cause or "reopened"


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
    b.papers[f.job] = Paper(f.job, f.kind, f.ref, f.paper, f.copy, at=at.wall, of=f.of)
    if f.copy and f.of in b.papers:
        b.papers[f.of].copies = f.copy
    done = [j for j, p in b.papers.items() if p.state in ("printed", "copied")]
    for job in done[:max(0, len(done) - PAPERS_MAX)]:
        del b.papers[job]


def _receipt_started(b: Books, f, at: Stamp) -> None:
    b.papers[f.job].state = "started"


def _receipt_printed(b: Books, f, at: Stamp) -> None:
    paper = b.papers[f.job]
    paper.state = "printed"
    for other in b.papers.values() if paper.of else ():
        if other.state == "unsure" and paper.of in (other.job, other.of):
            other.state = "copied"


def _receipt_unsure(b: Books, f, at: Stamp) -> None:
    b.papers[f.job].state = "unsure"


def _receipt_unstarted(b: Books, f, at: Stamp) -> None:
    b.papers[f.job].state = "due"


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
    chain.seq, chain.prev = f.seq, f.digest
    if due.kind in ("sale", "refund"):
        amount = msgspec.json.decode(due.body)["amount_fen"]
        chain.sales_fen += amount if due.kind == "sale" else 0
        chain.refunds_fen += amount if due.kind == "refund" else 0
        chain.count += 1


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
    "RefundStuck": _refund_stuck, "PapersShelved": _papers_shelved, "LeaseTaken": _lease_taken,
    "LeaseEnded": _lease_ended,
}
