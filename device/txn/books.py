"""What the box knows from disk: baskets, orders, sales, papers, the signed chain.  Shapes only; `folding.py` fills them.

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
OLDER_MAX = 16           # older journal ids that are remembered
COMMANDS_MAX = 200       # commands whose answers are kept; an older id came in a session that is long over
PAPERS_MAX = 60         # finished paper jobs kept at hand for reprint
DUE_MAX = 5_000         # unsigned records, some days of a busy shop: beyond it nothing new begins
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
    list_version: str = ""         # of the price list that its price was taken from


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
    reopened: bool = False         # it was closed before, and counted as failed then
    undone: bool = False           # that its money was given back was told before
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

    @property
    def price_lists(self) -> list[str]:
        """Versions of the price lists that its prices were taken from; one, but where the list changed in mid-sale."""
        return sorted({line.list_version for line in self.lines} - {""})

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
    state: str = "due"             # due started printed unsure; copied: unsure, and a COPY of it came out; late: see papers.py
    copies: int = 0
    at: str = ""
    of: int = 0                    # the job a COPY repeats
    since_ms: int = 0              # by this boot's clock
    proof: int = -1                # of a printed one, as Printed says; -1 until then


class Kick(msgspec.Struct):
    kick: int
    cause: str
    started: bool = False


class Due(msgspec.Struct):
    """A record that is due and not yet signed."""

    kind: str
    body: bytes
    at: Stamp
    late: bool = False             # it waited while the signer was broken


class OldHead(msgspec.Struct, frozen=True):
    """The end of a chain under an older journal id; `base` records stand before it in this file."""

    jid: str
    seq: int
    head: str
    base: int
    sent: bool = True              # its last records may go to the cloud: nothing says that it holds others


class Chain(msgspec.Struct):
    """Where the signed chain stands; `sales_fen refunds_fen count` are the totals after record `seq`.

    `older` are the ends of chains under older ids, oldest first, `base` the records of all of them; `before` their totals.
    """

    jid: str = ""
    box: str = ""
    kid: str = ""
    seq: int = 0
    prev: str = ""
    sales_fen: int = 0
    refunds_fen: int = 0
    count: int = 0
    base: int = 0
    older: tuple[OldHead, ...] = ()
    before: tuple[int, int, int] = (0, 0, 0)


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


class ConfigAt(msgspec.Struct, frozen=True):
    """What was last told of a pushed configuration, and the number of that word; version 0: none ever was."""

    epoch: int = 0
    version: int = 0
    digest: str = ""
    state: str = ""
    n: int = 0


class PinTries(msgspec.Struct, frozen=True):
    """Wrong PINs of one supervisor since the last right one; `salt` names the PIN that they were tried against."""

    salt: str
    wrong: int


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


class Command(msgspec.Struct, frozen=True):
    """What was said to a command of the cloud; `said` is empty for a question, which is answered afresh."""

    digest: str
    ok: bool
    said: str = ""
    name: str = ""


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
    old_salts: tuple[str, ...] = ()    # of older ids: what was printed under them is still ours
    wallets_stopped: str = ""      # why only cash is taken, until the cloud has spoken
    boot: str = ""
    boots: int = 0
    mono_ms: int = 0               # of the newest fact, by the clock of its boot: so long this boot has lasted, not less
    up_ms: int = 0                 # and how long the machine was up when that clock began; 0 where nobody knows
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
    broken: str = ""               # why the signer does not sign; empty: it does
    breaks: int = 0                # how often it broke since it last signed a record
    key_wished: bool = False       # another record key is wanted
    key_next: str = ""             # it is made, and its `key` record waits for the old one's signature
    key_old: str = ""              # it signs; the one before is still to be destroyed
    sales: dict[str, Sale] = {}
    shown: Shown | None = None
    day: Totals = msgspec.field(default_factory=Totals)
    commands: dict[str, Command] = {}   # by id, oldest first
    reboot: str = ""               # the command that wants a restart, until a boot
    reboot_started: bool = False
    config: ConfigAt = ConfigAt()
    pins: dict[str, PinTries] = {}      # by supervisor's name
    wallet_fen: int = 0            # taken less given back by wallets, over the journal's life

    def sale_of(self, no: str) -> Sale | None:
        """The sale at hand that `no` names, its own or one of its orders'."""
        return self.sales.get(no) or next((sale for sale in self.sales.values() if sale.named(no)), None)
