"""The box: a function of its journal.  The one writer of books, desk and journal; synchronous, without clock or driver."""

from __future__ import annotations

import msgspec

from device.store_forward.journal import Journal, Row
from device.store_forward.second_copy import Stand
from device.txn import facts as wire
from device.txn import papers
from device.txn.books import DUE_MAX, Books
from device.txn.desk import Desk, Told, Verdict, observe
from device.txn.effects import Alarm, ChargeCard, ChargeCode, Effect, FetchBill, KickDrawer, Print, Reboot
from device.txn.facts import (
    BooksStood,
    DrawerDone,
    DrawerDue,
    DrawerStarted,
    Entry,
    Fact,
    ReceiptDue,
    ReceiptPrinted,
    ReceiptStarted,
    ReceiptUnstarted,
    ReceiptUnsure,
    refs_of,
)
from device.txn.folding import evolve
from device.txn.inputs import Asked, Input, Pressed, Scanned, Started
from device.txn.machine import decide
from device.txn.wants import Key, idle, keys, nobody_here, wants_of
from device.txn.words import say
from device.types import Stamp

RESTATE_ROWS = 1_000          # rows after which the books are said again, so that a boot folds no more than this
RESTATE_BYTES = 4 * 1024 * 1024   # room that a card must have left for it
DECIDING_FACTS = (wire.OrderOverdue, wire.OrderClosed, wire.PaymentConfirmed, wire.LatePaymentFound, wire.CancelWished,
                  wire.OrderReopened, wire.OrderForgotten, wire.UndoRefused, wire.MoneyHeld)
PAPER_FACTS = frozenset((ReceiptDue, ReceiptStarted, ReceiptPrinted, ReceiptUnsure, ReceiptUnstarted, DrawerDue, DrawerStarted,
                         DrawerDone, wire.PapersLate, wire.PaperAsked, wire.PapersShelved))
ANSWERING = {wire.CommandDone, wire.RecordDue}   # what a mere question leaves behind: asked above all when something is wrong
ASKED_FULL_MAX = 100          # commands answered from the reserve of a full card, in one boot
NUMBERED_FACTS = frozenset(f for f in wire.ALL if {"order_no", "refund_no", "intent"} & set(f.__struct_fields__))
NONE: frozenset[Effect] = frozenset()


class Box:
    """Books and desk over one journal.  `Box(journal)` folds what is on disk; the first input must be `Started`.

    JournalUnreadable when what is on disk does not fold.
    """

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.desk = Desk()
        self._wanted: dict[Key, set[Effect]] = {}
        self._asked_full = 0
        self._seen: dict[Key, object] = {}            # what the wants of a key without a number stood upon
        self.books, self._rows, self.last_wall = _folded(journal)

    @staticmethod
    def folded(journal: Journal) -> Books:
        """The books as the journal alone tells them."""
        return _folded(journal)[0]

    def handle(self, event: Input, at: Stamp) -> tuple[Verdict, list[Effect], list[Effect]]:
        """Take one input; return the verdict, the effects to start and those to stop.

        When it returns, every row that an effect to start relies on is on the card.  Numbered and once effects are handed
        out exactly once: that they started stands in the same row.
        """
        verdict = decide(self.books, self.desk, event, at)
        if isinstance(event, (Pressed, Scanned)) and (full := self._full_for(verdict.facts)):
            verdict = Verdict(words=say(full), tone="bad", refused=True, desk={"typed": ""})
        if isinstance(event, Asked) and verdict.facts and (full := self._full()):
            self._asked_full += 1                     # a question's record is of the reserve, which is there for other things
            if self._asked_full > ASKED_FULL_MAX or not set(map(type, verdict.facts)) <= ANSWERING:
                verdict = Verdict(refused=True, told=Told(False, say(full)[1], "full"))
        facts: list[Fact] = verdict.facts
        self.desk = observe(self.desk, verdict)
        touched = keys_touched(facts)
        for fact in facts:
            evolve(self.books, fact, at)              # a fact that cannot be folded is a KeyError: die, fold again
        touched |= self._moved()
        start, stop = self._delta(keys(self.books) if isinstance(event, Started) else touched)
        begun = [_started(e) for e in start if e.kind != "repeatable"]
        for fact in begun:
            evolve(self.books, fact, at)
        if self.desk.code is not None:                # it has left, or never will: a bearer token stays nowhere
            self.desk = observe(self.desk, Verdict(desk={"code": None}))
        facts = [*facts, *begun]
        if facts:
            sync = any(e.binds for e in start) or not wire.SYNCED.isdisjoint(map(type, facts))
            self._append(facts, at, sync)
        if verdict.again:
            start += [e for e in self._standing(verdict.again) if e not in start]
        return verdict, sorted(start, key=_urgency), stop

    def restate(self, at: Stamp) -> None:
        """Say the books again, so that the next boot folds from here."""
        row = wire.encode(Entry(at, (BooksStood(self.books),)))
        self.journal.append(Row(row, self._mark, (), self._stand()), sync=True, restates=True)
        self._rows = 0

    def _append(self, facts: list[Fact], at: Stamp, sync: bool) -> None:
        # Nothing new began without room, so whatever is kept here closes something and may use the reserve.
        self.journal.append(Row(wire.encode(Entry(at, tuple(facts))), self._mark, refs_of(facts), self._stand()), sync=sync,
                            from_reserve=True)
        self._rows += 1
        if self._rows >= RESTATE_ROWS and not self.books.basket.lines and self.journal.room_bytes() >= RESTATE_BYTES:
            self.restate(at)

    @property
    def _mark(self) -> int:
        chain = self.books.chain
        return chain.base + chain.seq

    def _stand(self) -> Stand:
        books = self.books
        return Stand(books.chain.prev, books.orders_made, books.boots)

    def _full_for(self, facts: list[Fact]) -> str:
        """What is said when `facts` begin something now that nothing new may begin; "" otherwise."""
        return self._full() if any(map(wire.begins, facts)) else ""

    def _full(self) -> str:
        """Why nothing new may begin: the card has no room to carry it to its end, or too many records are unsigned."""
        if self.journal.room_bytes() <= 0:
            return "journal_full"
        return "signer_full" if len(self.books.due) >= DUE_MAX else ""

    def _moved(self) -> set[Key]:
        """Keys without a number whose ground moved since they were last looked at.

        By what they stand upon and not by the input: a desk that was emptied in between moves it as well.
        """
        books, desk = self.books, self.desk
        grounds: tuple[tuple[Key, object], ...] = (
            (("printer",), desk.health), (("recall",), desk.looking),
            (("record",), (books.chain.seq, len(books.due), books.broken, books.key_wished, books.key_old)),
            (("shown",), (books.shown, books.boot, papers.to_sign(books, desk))), (("bill",), desk.billed),
            (("cloud",), (desk.asking, tuple(books.leases))),
            (("journal",), desk.renew[0] and (desk.renew, not books.due, nobody_here(books, desk))),
            (("reboot",), books.reboot and (books.reboot, books.reboot_started, nobody_here(books, desk))),
            (("config",), (desk.config, desk.taking, books.boot, desk.config and idle(books, desk))))
        moved = {key for key, ground in grounds if self._seen.get(key, self) != ground}
        if moved:
            self._seen = dict(grounds)
        return moved

    def _delta(self, touched: set[Key]) -> tuple[list[Effect], list[Effect]]:
        start, stop = [], []
        for key in sorted(touched):
            wanted, standing = wants_of(key, self.books, self.desk), self._wanted.pop(key, NONE)
            start += sorted(wanted - standing, key=_rank)     # sets keep the hash of what is in them: a paper's takes its time
            stop += sorted(standing - wanted, key=_rank)
            if lasting := {e for e in wanted if e.kind == "repeatable"}:
                self._wanted[key] = lasting
        return start, stop

    def _standing(self, orders: tuple[str, ...]) -> list[Effect]:
        """Queries that stand for these orders: the cashier wants them asked now."""
        return [e for no in orders for e in self._wanted.get(("order", no), ()) if type(e).__name__ == "QueryOrder"]


def _folded(journal: Journal) -> tuple[Books, int, str]:
    """The books, the rows they came of, and the wall of the last one, "" of none."""
    books, rows, wall = Books(), 0, ""
    for n, row in journal.fold():
        try:
            entry = wire.decode(row)
        except (msgspec.DecodeError, UnicodeDecodeError) as why:       # rotten, or of a newer release: no trade either way
            raise journal.unreadable(f"row {n} cannot be read ({why})") from None
        try:
            for fact in entry.facts:
                evolve(books, fact, entry.at)
        except (LookupError, AssertionError) as why:
            raise journal.unreadable(f"row {n} does not follow from the rows before it ({type(why).__name__})") from why
        rows, wall = rows + 1, entry.at.wall
    return books, rows, wall


def keys_touched(facts: list[Fact]) -> set[Key]:
    """Keys whose wants these facts can change."""
    touched: set[Key] = set()
    for fact in facts:
        kind = type(fact)
        if kind in PAPER_FACTS:
            touched.add(("printer",))
        if kind in DECIDING_FACTS:
            touched.add(("bill",))
        if kind not in NUMBERED_FACTS:
            continue
        intent = getattr(fact, "intent", None)
        for name in ("order_no", "refund_no"):
            no = getattr(fact, name, None) or getattr(intent, name, None)
            if no:
                touched.add(("order" if name == "order_no" else "refund", no))
    return touched


def _started(effect: Effect) -> Fact:
    match effect:
        case ChargeCode() | ChargeCard():
            return wire.ChargeStarted(effect.intent.order_no)
        case Print():
            return ReceiptStarted(effect.job)
        case KickDrawer():
            return DrawerStarted(effect.kick)
        case Reboot():
            return wire.RebootStarted(effect.id)
    raise AssertionError(effect)


def _rank(effect: Effect) -> tuple[str, ...]:
    """An order among the effects of one key: what follows from an input must not hang on how a set lies in memory."""
    match effect:
        case Alarm(key=key):
            return type(effect).__name__, *key
        case FetchBill(account=account, day=day):
            return type(effect).__name__, account.channel, account.account, day
        case KickDrawer(kick=kick):
            return type(effect).__name__, f"{kick:09d}"
    return (type(effect).__name__,)


def _urgency(effect: Effect) -> int:
    """The drawer before the paper: the customer's change should not wait for the printer."""
    return 1 if isinstance(effect, Print) else 0
