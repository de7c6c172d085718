"""A counter for tests: the real box over a journal in memory or on disk, and a clock moved by hand."""

from __future__ import annotations

import json

from device.box import Box
from device.txn import facts as wire
from device.txn.effects import Effect, Print
from device.txn.inputs import (
    ChannelSaid,
    DrawerKicked,
    Input,
    Pressed,
    Printed,
    QrReady,
    Said,
    Scanned,
    Signed,
    Started,
)
from device.txn.show import phase
from device.types import Account, Found, Item, Stamp, Terms

TERMS = Terms(accounts=(Account("wechat", "wechat:1900000001", (("appid", "wx1"), ("mchid", "1900000001"))),))
TEA = Found(Item("6902538004045", "脉动青柠味600ml", "Mizone lime 600ml", 500))
COLA = Found(Item("6901939621608", "可口可乐330ml(听)", "Coca-Cola 330ml can", 250))
APPLES = Found(Item("2100001000000", "苹果", "Apples", 1280, "kg"), 512)


class MemoryJournal:
    """Rows in a list; what was not synced is lost by `cut`."""

    def __init__(self) -> None:
        self.durable: list = []
        self.waiting_rows: list = []
        self.from_n = 0
        self.commits = 0
        self.room = 1 << 30
        self.failed = False

    def room_bytes(self) -> int:
        return self.room

    def append(self, row, *, sync: bool, restates: bool = False, from_reserve: bool = False) -> None:
        assert from_reserve or self.room > 0
        self.waiting_rows.append((row, restates))
        if sync:
            self.sync()

    def sync(self) -> None:
        for row, restates in self.waiting_rows:
            self.durable.append(row)
            if restates:
                self.from_n = len(self.durable) - 1
        self.commits += bool(self.waiting_rows)
        self.waiting_rows = []

    def cut(self) -> None:
        self.waiting_rows = []

    def fold(self):
        yield from ((n, row.facts) for n, row in enumerate(self.durable) if n >= self.from_n)

    def recall(self, ref: str) -> list[bytes]:
        return [row.facts for row in (*self.durable, *(row for row, _ in self.waiting_rows)) if ref in row.refs]


class Counter:
    """Drives a `Box` by inputs; keeps what runs; answers the signer and the printer by itself unless told not to."""

    seed = "c2VlZA"

    def __init__(self, terms: Terms = TERMS, *, printer: bool = True) -> None:
        self.journal, self.terms, self.printer = MemoryJournal(), terms, printer
        self.mono_ms, self.boots, self.wall = 0, 0, "2026-09-01T10:00:00+08:00"
        self.printed: list[Print] = []
        self.once: list[Effect] = []
        self.start_up()

    def start_up(self) -> None:
        self.box, self.running, self.boots, self.mono_ms = Box(self.journal), set(), self.boots + 1, 0
        self.tell(Started(f"boot{self.boots}", "test", self.terms, self.seed, "kid"))

    def cut_power(self) -> None:
        self.journal.cut()
        self.start_up()

    def tell(self, *events: Input):
        verdict = None
        for event in events:
            verdict, start, stop = self.box.handle(event, Stamp(f"boot{self.boots}", self.mono_ms, self.wall, "ntp"))
            self.running = (self.running - set(stop)) | {e for e in start if e.kind == "repeatable"}
            self.once += [e for e in start if e.kind != "repeatable"]
            for effect in start:
                self._answer(effect)
        return verdict

    def _answer(self, effect: Effect) -> None:
        match type(effect).__name__:
            case "SignRecord":
                self.tell(Signed(effect.seq, f"token-{effect.seq}"))
            case "Print" if self.printer:
                self.printed.append(effect)
                self.tell(Printed(effect.job, 3))
            case "KickDrawer" if self.printer:
                self.tell(DrawerKicked(effect.kick))

    def press(self, text: str):
        """Keys by name, blank-separated; a number is typed digit by digit."""
        verdict = None
        for word in text.split():
            for key in (word if word.isdigit() else [word]):
                verdict = self.tell(Pressed(key))
        return verdict

    def scan(self, found: Found, times: int = 1):
        for _ in range(times):
            self.tell(Scanned(found.item.gtin, found))

    @property
    def phase(self) -> str:
        return phase(self.box.books, self.box.desk)

    @property
    def order_no(self) -> str:
        return self.box.books.basket.order_no

    def wants(self, kind: str) -> set[str]:
        """Order or refund numbers for which an effect of this name runs."""
        return {getattr(e.intent, "refund_no", "") or e.intent.order_no for e in self.running if type(e).__name__ == kind}

    def pay(self) -> str:
        """PAY, and the channel answers with its QR."""
        self.press("PAY")
        no = self.order_no
        self.tell(QrReady(no, f"weixin://wxpay/bizpayurl?pr={no}"))
        return no

    def say(self, no: str, said: Said, amount_fen: int = 0):
        return self.tell(ChannelSaid(no, said, amount_fen, "4200000001" if said is Said.PAID else ""))


def counter_paying(*goods: Found) -> tuple[Counter, str]:
    """A counter whose QR stands, and the order's number."""
    counter = Counter()
    for found in goods or (TEA,):
        counter.scan(found)
    return counter, counter.pay()


def records(counter: Counter) -> list[dict]:
    """Bodies of the records that fell due, in order, with their kind."""
    counter.journal.sync()
    entries = [wire.decode(row.facts) for row in counter.journal.durable]
    return [{"kind": f.kind, **json.loads(f.body)} for e in entries for f in e.facts if isinstance(f, wire.RecordDue)]
