"""What the journal keeps: answers, never questions.  A wire format: add fields with defaults, never rename or retype one.

One row holds the facts of one decision and the stamp they were decided at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from device.txn.books import Books, Line, Sale, Tender
from device.txn.effects import Intent, PaperPart, RefundIntent
from device.types import Stamp


class Fact(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Base of all facts.  `syncs`: somebody was told, or something leaves, on the strength of it."""


class BooksStood(Fact, frozen=True):
    """The books said again, whole: folding may begin here."""

    books: Books


class JournalOpened(Fact, frozen=True):
    jid: str
    box: str
    box_no: str
    salt: str
    kid: str
    prev: str


class JournalRenewed(Fact, frozen=True):
    """The chain begins anew under `jid`; `body` (JSON text) is that of its first record, which names the old head."""

    jid: str
    salt: str
    prev: str
    cause: str
    body: str


class NumbersSkipped(Fact, frozen=True):
    """After a repair the counters stand above all that can have left the box."""

    orders: int
    boots: int = 0


class WalletsStopped(Fact, frozen=True):
    """Rows may be lost, and the cloud has not spoken: only cash is taken."""

    why: str


class WalletsBack(Fact, frozen=True):
    pass


class Booted(Fact, frozen=True):
    """`up_ms`: how long the machine was up when this boot's clock began; 0 where nobody knows."""

    boot: str
    software: str
    up_ms: int = 0


class LineAdded(Fact, frozen=True):
    line: Line


class LineChanged(Fact, frozen=True):
    index: int
    line: Line


class LineVoided(Fact, frozen=True):
    index: int
    reason: str


class BasketCleared(Fact, frozen=True):
    reason: str


class BasketHeld(Fact, frozen=True):
    slot: int
    hold: int = 0                   # the slip's number, never used again


class BasketRecalled(Fact, frozen=True):
    slot: int


class TenderTaken(Fact, frozen=True):
    tender: Tender


class OrderIntended(Fact, frozen=True):
    intent: Intent
    give_up_ms: int
    dead_after_ms: int
    undo_moves: bool = False
    undo_after_ms: int = 0
    routes: tuple[str, ...] = ()         # channels that could take the same wallet, this one among them
    reroutes: int = 0                    # attempts of this sale that were taken to another route before


class QrIssued(Fact, frozen=True):
    order_no: str
    qr: str


class ChargeStarted(Fact, frozen=True):
    """The payer's code, or the sale at the card terminal, leaves now, once: it is never sent again under this number."""

    order_no: str


class PayerAsked(Fact, frozen=True):
    """The channel asks the payer for a password."""

    order_no: str


class CancelWished(Fact, frozen=True):
    """`slow_ms` later the cashier is told what to do, should the channel still not have answered; 0 in older rows."""

    order_no: str
    cause: str
    slow_ms: int = 0


class OrderClosed(Fact, frozen=True):
    order_no: str
    why: str = ""
    given_back: bool = False


class PaidUnderUndo(Fact, frozen=True):
    """Paid while an undo that itself gives money back is on its way: the undo is repeated until the channel is definite."""

    order_no: str
    channel_no: str


class UndoRefused(Fact, frozen=True):
    """The channel will never undo this order, and nothing moved: only its word on the payment is waited for."""

    order_no: str
    why: str = ""


class OrderOverdue(Fact, frozen=True):
    """Its shelf life is over.  Undecided or closed, from here on the channel's next word or its bill is the last."""

    order_no: str


class OrderReopened(Fact, frozen=True):
    """A closed order is open at the channel after all: it is closed again."""

    order_no: str


class OrderForgotten(Fact, frozen=True):
    order_no: str


class PaidWhileCancelling(Fact, frozen=True):
    order_no: str
    channel_no: str
    ask_ms: int
    wallet: str = ""


class OrderParked(Fact, frozen=True):
    order_no: str
    policy: str
    slip: int
    keeps_basket: bool = False


class PaymentConfirmed(Fact, frozen=True):
    order_no: str
    channel_no: str
    amount_fen: int


class AmountDisputed(Fact, frozen=True):
    """The channel says PAID with `amount_fen`, which is not the order's amount.  A person decides."""

    order_no: str
    channel_no: str
    amount_fen: int


class MoneyHeld(Fact, frozen=True):
    """The channel took `amount_fen` from the payer and cannot say whether it is ours: no refusal, and not paid."""

    order_no: str
    amount_fen: int
    why: str


class LatePaymentFound(Fact, frozen=True):
    order_no: str
    channel_no: str


class SaleClosed(Fact, frozen=True):
    sale: Sale
    day: str
    minted: bool = False
    from_basket: bool = True
    show: bool = True


class SaleRecalled(Fact, frozen=True):
    sale: Sale


class RefundIntended(Fact, frozen=True):
    intent: RefundIntent
    cause: str
    sale_no: str = ""
    approved_by: str = ""
    lease: str = ""                 # another box's sale: under which lease
    quiet: bool = False             # asked for from afar: nobody stands at the screen for it


class LeaseTaken(Fact, frozen=True):
    """The cloud let this box give back money of another box's sale, until `due_ms` of this boot."""

    lease: str
    sale_no: str
    due_ms: int


class LeaseEnded(Fact, frozen=True):
    lease: str


class RefundAccepted(Fact, frozen=True):
    refund_no: str


class RefundStuck(Fact, frozen=True):
    """The channel took the refund and could not pay it out: a person must act there; it is asked after all the same."""

    refund_no: str
    why: str


class RefundConfirmed(Fact, frozen=True):
    refund_no: str
    channel_no: str
    order_no: str = ""
    amount_fen: int = 0


class RefundFailed(Fact, frozen=True):
    refund_no: str
    why: str
    sale_no: str = ""


class CashReturned(Fact, frozen=True):
    refund_no: str
    sale_no: str
    amount_fen: int
    approved_by: str = ""


class ReceiptDue(Fact, frozen=True):
    job: int
    kind: str
    ref: str
    paper: tuple[PaperPart, ...]
    copy: int = 0
    of: int = 0


class ReceiptStarted(Fact, frozen=True):
    job: int


class ReceiptPrinted(Fact, frozen=True):
    job: int
    proof: int


class ReceiptUnsure(Fact, frozen=True):
    job: int
    why: str


class ReceiptUnstarted(Fact, frozen=True):
    """The printer was gone before the first byte: the job waits again."""

    job: int
    why: str


class PapersShelved(Fact, frozen=True):
    """Too many papers wait: these wait no more.  They stand in the journal, where REPRINT finds receipts and reports."""

    jobs: tuple[int, ...]


class PapersLate(Fact, frozen=True):
    """These waited too long for a printer: they are printed when somebody asks, and not by themselves."""

    jobs: tuple[int, ...]


class PaperAsked(Fact, frozen=True):
    """Somebody asked for a late paper: it is printed now, as itself."""

    job: int


class DrawerDue(Fact, frozen=True):
    kick: int
    cause: str


class DrawerStarted(Fact, frozen=True):
    kick: int


class DrawerDone(Fact, frozen=True):
    kick: int


class RecordDue(Fact, frozen=True):
    kind: str
    body: str                       # JSON text


class RecordSigned(Fact, frozen=True):
    seq: int
    digest: str
    token: str


class CommandDone(Fact, frozen=True):
    """What the box said to command `id`: the same id gets the same answer, and is done once.

    `digest` stands for verb and words; `said` is the answer, empty for a question, which is answered afresh.
    """

    id: str
    verb: str
    by: str
    digest: str
    ok: bool
    said: str = ""
    name: str = ""


class RebootWished(Fact, frozen=True):
    """The cloud wants a restart, between two customers; any boot fulfils it."""

    id: str


class RebootStarted(Fact, frozen=True):
    id: str


class SignerBroke(Fact, frozen=True):
    """The signer failed, or did not answer in its time, over the record that is due: sales go on, and records wait."""

    why: str


class SignerReturned(Fact, frozen=True):
    """It signs again.  First comes a `signer_gap` of this body (JSON text), then every record that waits, marked `late`."""

    body: str


class KeyWished(Fact, frozen=True):
    """Another record key is wanted."""


class KeyMade(Fact, frozen=True):
    """It lies ready; the `key` record that introduces it is due, under the old one."""

    kid: str


class KeyDropped(Fact, frozen=True):
    """The old key is destroyed."""

    kid: str


class XTaken(Fact, frozen=True):
    x_no: int


class DayOpened(Fact, frozen=True):
    day: str


class DayClosed(Fact, frozen=True):
    z_no: int


class ConfigStood(Fact, frozen=True):
    """Where a pushed configuration stands; `state` is a word of ConfigSaid, and `n` its number."""

    epoch: int
    version: int
    digest: str
    state: str
    why: str = ""
    n: int = 0


class PinWrong(Fact, frozen=True):
    """A wrong PIN was typed for the badge of supervisor `name`; `salt` names the PIN that it was compared with."""

    name: str
    salt: str


class PinRight(Fact, frozen=True):
    """The right one came: what was wrong before is forgotten."""

    name: str


class ScreenCleared(Fact, frozen=True):
    pass


ALL = tuple(Fact.__subclasses__())
AnyFact = (
    BooksStood | JournalOpened | Booted | LineAdded | LineChanged | LineVoided | BasketCleared | BasketHeld | BasketRecalled
    | TenderTaken | OrderIntended | QrIssued | CancelWished | OrderClosed | OrderReopened | OrderForgotten
    | PaidWhileCancelling | OrderParked | PaymentConfirmed | LatePaymentFound | SaleClosed | SaleRecalled | RefundIntended
    | RefundAccepted | RefundConfirmed | RefundFailed | CashReturned | ReceiptDue | ReceiptStarted | ReceiptPrinted
    | ReceiptUnsure | ReceiptUnstarted
    | PapersLate | PaperAsked | DrawerDue | DrawerStarted | DrawerDone | RecordDue | RecordSigned | XTaken
    | DayClosed | ScreenCleared | AmountDisputed | DayOpened | ChargeStarted | PayerAsked | PaidUnderUndo | UndoRefused
    | OrderOverdue | RefundStuck | PapersShelved | LeaseTaken | LeaseEnded | MoneyHeld | CommandDone | RebootWished
    | RebootStarted | SignerBroke | SignerReturned | ConfigStood | KeyWished | KeyMade | KeyDropped
    | JournalRenewed | NumbersSkipped | WalletsStopped | WalletsBack | PinWrong | PinRight
)

# Rows that a person or a payment channel acts upon: they are on the card before anyone is answered.
SYNCED = frozenset({OrderIntended, CancelWished, SaleClosed, RefundIntended, CashReturned, TenderTaken,
                    BasketHeld, BasketCleared, OrderParked, DayClosed, LatePaymentFound, PaidWhileCancelling,
                    PaidUnderUndo, AmountDisputed, MoneyHeld, LeaseTaken, LeaseEnded, Booted, CommandDone, RebootStarted,
                    ConfigStood, KeyWished, JournalRenewed, NumbersSkipped, WalletsStopped, WalletsBack, PinWrong})

# What a person begins and only later rows bring to an end: refused, before anybody is charged, on a card without room.
BEGINS = (LineAdded, LineChanged, OrderIntended, TenderTaken, BasketHeld, BasketRecalled, RefundIntended, CashReturned, XTaken)


def begins(fact: Fact) -> bool:
    """True unless `fact` ends something; money that came in books, or goes back, on a full card as well."""
    match fact:
        case TenderTaken(tender=tender):
            return not tender.order_no
        case RefundIntended(cause=cause):
            return cause == "customer"
    return isinstance(fact, BEGINS)


# The numbers that the journal's index finds a fact's row by.
REFS: dict[type[Fact], Callable[[Any], tuple[str, ...]]] = {
    OrderClosed: lambda f: (f.order_no,),
    PaymentConfirmed: lambda f: (f.order_no,),
    RefundConfirmed: lambda f: (f.order_no,),
    SaleClosed: lambda f: (f.sale.order_no, *(t.order_no for t in f.sale.tenders)),
    RefundIntended: lambda f: (f.sale_no or f.intent.order_no,),
    CashReturned: lambda f: (f.sale_no,),
    RefundFailed: lambda f: (f.sale_no,),
    ReceiptDue: lambda f: (f.ref,) if f.copy or f.kind in ("x", "z") else (),
}


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One row's content."""

    at: Stamp
    facts: tuple[AnyFact, ...]


class _Parts(msgspec.Struct, frozen=True, array_like=True):
    """The same, its facts left as written: most of them are nobody's business on the way to the cloud."""

    at: msgspec.Raw
    facts: tuple[msgspec.Raw, ...]


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Entry)
_parts_decoder = msgspec.json.Decoder(_Parts)
_fact_decoder: msgspec.json.Decoder[AnyFact] = msgspec.json.Decoder(AnyFact)


def encode(entry: Entry) -> bytes:
    return _encoder.encode(entry)


def decode(row: bytes) -> Entry:
    """The entry of a row.  msgspec.ValidationError for a fact this release does not know: no trade, and the file stays."""
    return _decoder.decode(row)


def tokens_of(row: bytes) -> list[tuple[int, str]]:
    """(seq, token) of the records signed in this row."""
    if b"RecordSigned" not in row:
        return []
    named = [fact for fact in _parts_decoder.decode(row).facts if b'"RecordSigned"' in bytes(fact)]
    return [(f.seq, f.token) for f in map(_fact_decoder.decode, named) if isinstance(f, RecordSigned)]


def refs_of(facts: list[Fact]) -> tuple[str, ...]:
    """Numbers of orders and reports under which the journal's index should find this row; a COPY stands under its original's."""
    return tuple(dict.fromkeys(ref for fact in facts if type(fact) in REFS for ref in REFS[type(fact)](fact) if ref))


def refs_of_row(row: bytes) -> tuple[str, ...]:
    """The same, of an encoded row; none for one that cannot be read."""
    try:
        return refs_of(list(decode(row).facts))
    except msgspec.DecodeError:
        return ()
