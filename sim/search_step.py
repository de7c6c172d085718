"""One state of the search and everything that can happen next: the real `Box.handle` on the books, the model for the channel.

Knows keys, requests under way, late answers, alarms and cuts.  Refuses to know what is right: `search_laws.py` judges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from device.box import Box
from device.txn import wants
from device.txn.books import Books, Phase, Totals
from device.txn.desk import Desk, observe
from device.txn.effects import (
    Alarm,
    ChargeCard,
    ChargeCode,
    CloseOrder,
    Effect,
    FetchBill,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundOrder,
)
from device.txn.facts import CancelWished, OrderIntended
from device.txn.inputs import (
    BillSaid,
    ChannelSaid,
    DeviceSaid,
    Input,
    Pressed,
    QrReady,
    Rang,
    RefundSaid,
    RefundWord,
    Said,
    Scanned,
    Started,
)
from device.txn.machine import decide
from device.txn.numbers import order_number
from device.txn.wants import Key
from device.types import Account, Found, Item, Rules, Stamp, Terms
from sim.search_truth import KINDS, Truth, by_itself, outcomes

TODAY, TOMORROW = "2026-09-01", "2026-09-02"
TEA = Found(Item("6902538004045", "脉动青柠味600ml", "Mizone lime 600ml", 500))
CODES = {"wechat": "134567890123456789", "gateway": "134567890123456789", "alipay": "281234567890123456",
         "unionpay": "6212345678901234567"}
MAIL_MAX, WIRE_MAX = 2, 2
VERBS: dict[type[Effect], str] = {PlaceOrder: "place", ChargeCode: "charge", ChargeCard: "charge", QueryOrder: "query",
                                  CloseOrder: "undo", RefundOrder: "refund", QueryRefund: "refund query"}


class Table(msgspec.Struct, frozen=True):
    """One search: which keys the cashier has, at which kinds of channel, for how many customers and attempts.

    `refused`: the channel may refuse a request, an undo or a refund.  `wrong`: it may name another amount than was paid.
    `night`: it is ten minutes to midnight, and payers pay before or after it.  `held`: the channel may say that it took money
    which it cannot place yet.
    """

    name: str
    kinds: tuple[str, ...]
    keys: tuple[str, ...]
    attempts: int = 2
    customers: int = 2
    refused: bool = False
    wrong: bool = False
    night: bool = False
    held: bool = False


class Node(NamedTuple):
    """One state.  `books` without what makes no difference, encoded; `made` how many numbers it gave out; `disk` the same
    two of what is synced, None when all is; `wire` requests and `mail` answers under way; `wished` orders that a cancel was
    kept of."""

    books: bytes
    made: int
    disk: tuple[bytes, int] | None
    desk: Desk
    truths: dict[str, Truth]
    wire: tuple[Any, ...] = ()
    mail: tuple[Input, ...] = ()
    customers: int = 0
    wished: frozenset[str] = frozenset()


Step = tuple[str, Node]


class Breach(Exception):
    """Something that must never be: `how` what happened last, `what` one sentence."""

    def __init__(self, how: str, what: str) -> None:
        super().__init__(what)
        self.how, self.what = how, what


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Books).decode


class Room:
    """A disk that is never full."""

    @staticmethod
    def room_bytes() -> int:
        return 1 << 30


class Till(Box):
    """The box without a disk: it says which row it kept, and whether the row would be synced."""

    def __init__(self, books: Books, desk: Desk, wanted: dict[Key, set[Effect]]) -> None:
        self.books, self.desk, self._wanted, self._seen = books, desk, dict(wanted), {}
        self.facts: list[Any] = []
        self.synced = False
        self.journal: Any = Room

    def _append(self, facts: list[Any], at: Stamp, sync: bool) -> None:
        self.facts, self.synced = facts, sync

    def _moved(self) -> set[Key]:
        return set()                                  # printer, signer and screen are not here


class Steps:
    """What can happen, for one table.  `on_row(before, facts, after)` is told every decision and may raise `Breach`."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.now = Stamp("b", 0, f"{TODAY}T{'23:50' if table.night else '10:00'}:00+08:00", "ntp")
        self.later = msgspec.structs.replace(self.now, mono_ms=1 << 40)      # hours have passed: every deadline is over
        ways = [KINDS[name] for name in table.kinds]
        channels = tuple(dict.fromkeys(kind.channel for kind in ways))
        self.terms = Terms(
            accounts=tuple(Account(name, f"{name}:1", (("mchid", "1"),)) for name in channels), route=channels,
            rules=tuple((k.channel if k.way == "qr" else f"{k.channel}.{k.way}", Rules(undo_moves_money=k.undo == "moves"))
                        for k in ways))
        self._kinds = {(kind.channel, kind.way): name for name, kind in zip(table.kinds, ways, strict=True)}
        self._start: list[Input] = [Started("b", "search", self.terms, "c2VlZA", "kid"), DeviceSaid("printer", "off")]
        self.handled = 0
        empty = Books()
        self._numbers: list[str] = []
        self.root = self._after(Node(_encode(empty), 0, None, Desk(), {}), {}, "start", self._start)
        books = self.books_of(self.root)
        self._numbers = [order_number(books.box_no, books.salt, n) for n in range(1, 40)]

    # What makes no difference

    def key(self, node: Node) -> bytes:
        """Equal for states that differ only in the numbers they gave out: those are called by their order."""
        d = node.desk
        data = b"".join((node.books, b"/", node.disk[0] if node.disk is not None else b"", _encode(
            (d.mode, d.typed, d.part_fen, d.pick, d.billed, node.truths, node.wire, node.mail, node.customers,
             sorted(node.wished)))))
        rank = 0
        for number in self._numbers[:max(node.made, node.disk[1] if node.disk is not None else 0)]:
            if (said := number.encode()) in data:
                data, rank = data.replace(said, b"%020d" % rank), rank + 1
        return hashlib.blake2b(data, digest_size=16).digest()

    def books_of(self, node: Node) -> Books:
        books = _decode(node.books)
        books.orders_made = node.made
        return books

    def named(self, no: str) -> str:
        return f"order {self._numbers.index(no) + 1}" if no in self._numbers else no

    # Handling

    def _after(self, node: Node, wanted: dict[Key, set[Effect]], how: str, events: list[Input]) -> Node:
        """The state after the box took `events` one after the other.  Breach when it dies of them."""
        till = Till(self.books_of(node), node.desk, wanted)
        kept, disk, wire, truths, wished = (node.books, node.made), node.disk, node.wire, node.truths, node.wished
        for event in events:
            till.facts = []
            try:
                _, start, _ = till.handle(event, self.later if isinstance(event, Rang) else self.now)
            except (AssertionError, LookupError) as why:
                raise Breach(how, f"the box dies of it: {type(why).__name__} {why}") from why
            self.handled += 1
            for effect in start:
                if isinstance(effect, (ChargeCode, ChargeCard)):
                    wire = (*wire, effect)
            for fact in till.facts:
                if isinstance(fact, OrderIntended):
                    truths = self._intended(truths, fact, how)
                if isinstance(fact, CancelWished):
                    wished |= {fact.order_no}
            if till.facts:
                self.on_row(how, till, node, event)
                disk = None if till.synced else disk or kept
                kept = _kept(till.books)
                if len(events) > 1:
                    till._wanted = wanted_by(till.books, till.desk)
        return Node(*kept, disk, _bare(till.desk), truths, wire, node.mail, node.customers, wished)

    def on_row(self, how: str, till: Till, node: Node, event: Input) -> None:
        """A decision was made upon `event` in the world of `node`: `till.facts`, and the books after it.  For laws."""

    def _intended(self, truths: dict[str, Truth], fact: OrderIntended, how: str) -> dict[str, Truth]:
        no, intent = fact.intent.order_no, fact.intent
        if no in truths and truths[no].state:
            raise Breach(how, f"{self.named(no)} is begun again under a number that the channel knows")
        return {**truths, no: Truth(self._kinds[intent.channel, intent.way], _encode(intent), intent.amount_fen)}

    def idle(self, node: Node, books: Books, event: Input, how: str) -> bool:
        """True when `event` changes nothing that makes a difference; a look, for most answers say nothing new."""
        try:
            verdict = decide(books, node.desk, event, self.later if isinstance(event, Rang) else self.now)
        except (AssertionError, LookupError) as why:
            raise Breach(how, f"the box dies of it: {type(why).__name__} {why}") from why
        return not verdict.facts and _bare(observe(node.desk, verdict)) == node.desk

    # Moves

    def moves(self, node: Node) -> Iterator[Step]:
        """Every (what happens, the state afterwards)."""
        books = self.books_of(node)
        wanted = wanted_by(books, node.desk)
        yield from self._cashier(node, books, wanted)
        yield from self._cuts(node)
        for key in sorted(wanted):
            for effect in sorted(wanted[key], key=_order):
                yield from self._effect(node, books, wanted, effect)
        for request in node.wire:
            yield from self._arrives(node, books, wanted, request)
        for answer in node.mail:
            yield from self._told(node, node, books, wanted, f"late: {self.said(answer)}", answer)
        for no, truth in node.truths.items():
            for how, after in by_itself(truth):
                yield f"{how} ({self.named(no)})", node._replace(truths={**node.truths, no: after})
                if self.table.night and after.taken_fen:
                    after = msgspec.structs.replace(after, tomorrow=True)
                    yield f"{how} after midnight ({self.named(no)})", node._replace(truths={**node.truths, no: after})
        for no in books.orders:
            yield from self._told(node, node, books, wanted, f"no proof of anything about {self.named(no)}",
                                  ChannelSaid(no, Said.UNKNOWN))
        for no, refund in books.refunds.items():
            how = f"no proof of anything about the refund of {self.named(refund.intent.order_no)}"
            yield from self._told(node, node, books, wanted, how, RefundSaid(no, RefundWord.UNKNOWN))
        books.orders_made = 0
        if _encode(books) != node.books:
            raise Breach("any of these", "decide wrote into the books")

    def _cashier(self, node: Node, books: Books, wanted: dict[Key, set[Effect]]) -> Iterator[Step]:
        basket = books.basket
        if not basket.lines and not node.desk.mode and node.customers < self.table.customers:
            how = "a customer's goods"
            yield how, self._after(node, wanted, how, [Scanned(TEA.item.gtin, TEA)])._replace(customers=node.customers + 1)
        for key in self.table.keys:
            typed, _, name = key.rpartition(" ")
            events: list[Input] = [*map(Pressed, typed), Pressed(name)]
            if name in ("PAY", "CODE"):
                if len(node.truths) >= self.table.attempts or basket.order_no or not basket.lines:
                    continue
                events += [Scanned(CODES[self.terms.route[0]])] if name == "CODE" else []
            if name == "REFUND":
                if not books.sales or basket.lines or sum(len(t.refunds) for t in node.truths.values()) + len(books.refunds) > 1:
                    continue
                events = [Pressed("REFUND"), Scanned(next(reversed(books.sales))), *map(Pressed, typed), Pressed("ENTER")]
            if len(events) > 1 or not self.idle(node, books, events[0], key):
                yield key, self._after(node, wanted, key, events)

    def _cuts(self, node: Node) -> Iterator[Step]:
        """The process ends.  Answers on their way to it are void; requests that left are not."""
        for how, disk in (("a restart", (node.books, node.made)), ("a power cut: rows not synced are lost", node.disk)):
            if disk is not None:
                yield how, self._after(node._replace(books=disk[0], made=disk[1], disk=None, desk=Desk(), mail=()), {}, how,
                                       self._start)

    def _told(self, node: Node, moved: Node, books: Books, wanted: dict[Key, set[Effect]], how: str,
              event: Input) -> Iterator[Step]:
        """`event` reaches the box of `node`, in whose world all is as in `moved`."""
        if self.idle(node, books, event, how):
            self.heard(how, event, node, books)
            return
        after = self._after(moved, wanted, how, [event])
        self.heard(how, event, node, books, self.books_of(after))
        yield how, after

    def heard(self, how: str, event: Input, node: Node, before: Books, after: Books | None = None) -> None:
        """The box took an answer; `after` None when it changed nothing.  For laws."""

    def _effect(self, node: Node, books: Books, wanted: dict[Key, set[Effect]], effect: Any) -> Iterator[Step]:
        match effect:
            case Alarm():
                yield from self._rings(node, books, wanted, effect)
            case FetchBill():
                for how, bill in bills(node.truths, effect):
                    yield from self._told(node, node, books, wanted, how, bill)
            case ChargeCode() | ChargeCard():
                pass                                  # left when it was started: it stands in `wire`
            case _:
                yield from self._asked(node, books, wanted, effect)

    def _asked(self, node: Node, books: Books, wanted: dict[Key, set[Effect]], effect: Any) -> Iterator[Step]:
        """A request is made now: it arrives, and its answer comes now, later or never; or it arrives later itself."""
        no, verb = effect.intent.order_no, VERBS[type(effect)]
        truth, changes = node.truths[no], False
        for how, after, answer in self.outcomes(effect, truth):
            how = f"{verb} of {self.named(no)} {how}"
            moved = node if after == truth else node._replace(truths={**node.truths, no: after})
            changes |= moved is not node
            if answer is not None:
                yield from self._told(node, moved, books, wanted, how, answer)
                if answer not in node.mail:
                    yield f"{how}; the answer is under way", moved._replace(mail=(*node.mail, answer)[-MAIL_MAX:])
            if moved is not node:
                yield f"{how}; the answer is lost", moved
        if changes and len(node.wire) < WIRE_MAX and effect not in node.wire:
            yield f"{verb} of {self.named(no)} is under way", node._replace(wire=tuple(sorted((*node.wire, effect), key=_order)))

    def outcomes(self, effect: Any, truth: Truth) -> list[tuple[str, Truth, Input | None]]:
        """As `search_truth.outcomes`, as far as the table wants them."""
        try:
            found = outcomes(VERBS[type(effect)], effect, truth)
        except AssertionError as why:
            raise Breach(VERBS[type(effect)], str(why)) from None
        if not isinstance(effect, (RefundOrder, QueryRefund)) and _encode(effect.intent) != truth.asked:
            raise Breach(VERBS[type(effect)], "a repeated request is not the same as the first")
        ours = isinstance(effect, RefundOrder) and not effect.intent.reason.startswith("customer")
        if not self.table.refused or ours:            # money that is not ours, and cannot go back: only a person can help
            found = [found[0], *(o for o in found[1:] if not o[0].startswith("is refused"))]
        if self.table.wrong:
            found += [(f"{how}, of another amount", after, msgspec.structs.replace(said, amount_fen=said.amount_fen + 1))
                      for how, after, said in found if isinstance(said, ChannelSaid) and said.said is Said.PAID]
        if self.table.held:
            found += [(f"{how}, not placed yet", after, msgspec.structs.replace(said, said=Said.UNKNOWN))
                      for how, after, said in found if isinstance(said, ChannelSaid) and said.said is Said.PAID]
        return found

    def _arrives(self, node: Node, books: Books, wanted: dict[Key, set[Effect]], effect: Any) -> Iterator[Step]:
        """A request that was under way reaches the channel.  Nobody waits for its answer any more, save a charge's."""
        no, verb = effect.intent.order_no, VERBS[type(effect)]
        rest = node._replace(wire=_without(node.wire, effect))
        if verb == "charge":
            yield f"charge of {self.named(no)} never arrives", rest
        for how, after, answer in self.outcomes(effect, node.truths[no]):
            how = f"{verb} of {self.named(no)} arrives, {how}"
            moved = rest._replace(truths={**node.truths, no: after})
            if verb == "charge" and answer is not None:
                yield from self._told(node, moved, books, wanted, how, answer)
                yield f"{how}; the answer is under way", moved._replace(mail=(*node.mail, answer)[-MAIL_MAX:])
            yield f"{how}; nobody hears the answer", moved

    def _rings(self, node: Node, books: Books, wanted: dict[Key, set[Effect]], alarm: Alarm) -> Iterator[Step]:
        what, *rest = alarm.key
        if what not in ("order", "slow", "overdue"):
            return
        no, how = rest[0], f"the {what} alarm of {self.named(rest[0])}"
        if what == "overdue" or (what == "order" and books.orders[no].phase is Phase.CLOSED):
            node = over(node, no)
        yield from self._told(node, node, books, wanted, how, Rang(alarm.key))

    def said(self, answer: Input) -> str:
        """An answer in words, for the trace."""
        match answer:
            case ChannelSaid():
                return f"{answer.said.name} of {self.named(answer.order_no)}{' to the undo' if answer.undo else ''}"
            case QrReady():
                return f"the QR of {self.named(answer.order_no)}"
            case RefundSaid():
                return f"refund {answer.word.name}"
        return type(answer).__name__


def over(node: Node, no: str) -> Node:
    """The shelf life of order `no` is over: hours have passed, nothing of it is under way, and nobody can pay it any more."""
    return node._replace(
        truths={**node.truths, no: msgspec.structs.replace(node.truths[no], over=True)}, disk=None,
        wire=tuple(e for e in node.wire if e.intent.order_no != no),
        mail=tuple(m for m in node.mail if getattr(m, "order_no", no) != no))


def bills(truths: dict[str, Truth], asked: FetchBill) -> list[tuple[str, Input]]:
    """The bill of the day: whole, or made before money went back.  Only a payment after midnight stands in the second one."""
    rows, back = [], []
    for no, truth in truths.items():
        mine = truth.kind.startswith(asked.account.channel) and truth.tomorrow == (asked.day == TOMORROW)
        if not mine or not truth.taken_fen:
            continue
        rows.append(("paid", no, "", truth.amount_fen, "4200"))
        back += [("refund", no, "", truth.amount_fen, "5000")] if truth.undone else []
        back += [("refund", no, number, fen, "5000") for number, fen, _ in truth.refunds]
    told: list[tuple[str, Input]] = [(f"the bill of {asked.day} comes", BillSaid(asked.account, asked.day, True, (*rows, *back)))]
    if back:
        told.append((f"the bill of {asked.day} comes, made before money went back",
                     BillSaid(asked.account, asked.day, True, tuple(rows))))
    return told


def wanted_by(books: Books, desk: Desk) -> dict[Key, set[Effect]]:
    """The whole of what orders, refunds and bills want, by key."""
    keys: list[Key] = [("order", no) for no in books.orders] + [("refund", no) for no in books.refunds] + [("bill",)]
    return {key: found for key in keys if (found := wants.wants_of(key, books, desk))}


def _order(effect: Any) -> tuple[str, ...]:
    return type(effect).__name__, *(effect.key if isinstance(effect, Alarm) else
                                    (getattr(getattr(effect, "intent", None), "refund_no", ""),
                                     getattr(getattr(effect, "intent", None), "order_no", "")))


def _without(wire: tuple[Any, ...], effect: Any) -> tuple[Any, ...]:
    place = wire.index(effect)
    return wire[:place] + wire[place + 1:]


def _bare(desk: Desk) -> Desk:
    """The desk without words, outcomes and used codes; what bills said in no order."""
    billed = tuple(sorted(desk.billed, key=lambda line: (line.order_no, line.day)))
    return msgspec.structs.replace(desk, words=("", ""), tone="plain", outcomes=(), spent=(), extras=(), billed=billed)


def _kept(b: Books) -> tuple[bytes, int]:
    """The books without paper, records, counts and time, encoded; and how many numbers they gave out."""
    made, b.orders_made = b.orders_made, 0
    b.papers, b.due, b.kicks, b.shown, b.day, b.boots, b.mono_ms = {}, [], {}, None, Totals(), 1, 0
    b.jobs_made = b.kicks_made = b.slips_made = b.shelved = 0
    for order in b.orders.values():
        order.due_ms = order.since_ms = order.slip = 0
    kept = _encode(b)
    b.orders_made = made
    return kept, made
