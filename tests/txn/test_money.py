"""Any key, scan, answer, ring or power cut in any order: money is counted at a model channel and in the books.

The simulated world plays customers; here nobody makes sense, which finds the ways round a rule that customers never take.
"""

from __future__ import annotations

import collections
import random

import msgspec
import pytest

from device.box import Box
from device.txn import facts as wire
from device.txn.books import Phase
from device.txn.effects import ChargeCode
from device.txn.inputs import BillSaid, ChannelSaid, QrReady, Rang, RefundSaid, RefundWord, Said, Scanned
from device.types import Account
from tests.counter import APPLES, COLA, TEA, TERMS, Counter

KEYS = (*["PAY"] * 6, *["CASH"] * 4, *["ENTER"] * 4, *["CANCEL"] * 4, *["PARK"] * 3, *["REFUND"] * 3, "HOLD", "VOID", "CLEAR",
        "CHECK", "QTY", "REPRINT", "Z", "X", "DRAWER", *["CODE"] * 5, *"0125" * 2)
WORDS = {"open": Said.OPEN, "paid": Said.PAID, "closed": Said.CLOSED, "reversed": Said.CLOSED}
SHOP = msgspec.structs.replace(TERMS, route=("wechat", "gateway"), accounts=(*TERMS.accounts, Account("gateway", "gateway:1")))


class Chaos:
    """A counter, a channel that answers half of what it is asked, and `rng` for everything else."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.counter = Counter(msgspec.structs.replace(SHOP, cash_round_fen=self.rng.choice([1, 10])))
        self.late: list = []                                  # reversals that are still on their way to the channel
        self.charged = 0                                      # how many of the counter's charges the channel has seen
        self.orders: dict[str, list] = {}                     # number: [state, amount]
        self.given_back: dict[str, int] = {}                  # refund number: amount
        self.returned: collections.Counter[str] = collections.Counter()

    def act(self) -> None:
        counter, rng, dice = self.counter, self.rng, self.rng.random()
        counter.mono_ms += rng.choice([10, 500, 4_000])
        if self.late and rng.random() < 0.2:
            self.reverse(self.late.pop())
        if dice < 0.20:
            counter.scan(rng.choice([TEA, COLA, APPLES]))
        elif dice < 0.24 and counter.box.books.sales:
            counter.press("REFUND")
            counter.tell(Scanned(rng.choice(list(counter.box.books.sales))))
        elif dice < 0.60:
            counter.press(rng.choice(KEYS))
            if counter.box.desk.mode == "code" and rng.random() < 0.8:
                counter.tell(Scanned(f"13{rng.randrange(10 ** 16):016d}"))
                self.charge()
        elif dice < 0.68:
            unpaid = [no for no, order in self.orders.items() if order[0] == "open"]
            if unpaid:
                self.orders[rng.choice(unpaid)][0] = "paid"
        elif dice < 0.92:
            self.answer()
        elif dice < 0.95:
            counter.cut_power()
        else:
            self.ring()

    def charge(self) -> None:
        """Codes that left since the last look: each is charged once, or never arrives; its answer may be lost."""
        for effect in self.counter.once[self.charged:]:
            self.charged += 1
            if not isinstance(effect, ChargeCode) or self.rng.random() < 0.2:
                continue
            intent = effect.intent
            assert intent.order_no not in self.orders, "one number, two charges"
            word = self.rng.choice(["paid", "open", "refused"])
            self.orders[intent.order_no] = ["closed" if word == "refused" else word, intent.amount_fen]
            if self.rng.random() < 0.6:
                said = Said.REFUSED if word == "refused" else WORDS[word]
                self.counter.say(intent.order_no, said, intent.amount_fen if word == "paid" else 0)

    def reverse(self, intent) -> None:
        """The undo of a charged code: whatever it took is back.  Some come late, some orders can never be undone."""
        if self.rng.random() < 0.4:
            self.late.append(intent)
            return
        order, no = self.orders.get(intent.order_no), intent.order_no
        if order is None:
            said = Said.ABSENT
        elif order[0] == "paid" and (self.returned[no] or sum(map(ord, no)) % 3 == 0):
            said = Said.REFUSED
        else:
            order[0], said = "reversed" if order[0] in ("paid", "open", "reversed") else order[0], Said.CLOSED
        if self.rng.random() < 0.7:
            self.counter.tell(ChannelSaid(intent.order_no, said, undo=True))

    def bill(self, effect) -> None:
        rows = tuple(("paid", no, "", amount, "4200") for no, (state, amount) in self.orders.items() if state == "paid")
        self.counter.tell(BillSaid(effect.account, effect.day, self.rng.random() < 0.5, rows))

    def ring(self) -> None:
        alarms = sorted((e for e in self.counter.running if type(e).__name__ == "Alarm"), key=repr)
        if alarms:
            alarm = self.rng.choice(alarms)
            self.counter.mono_ms = max(self.counter.mono_ms, alarm.at_ms if self.rng.random() < 0.5 else 0)
            self.counter.tell(Rang(alarm.key))

    def answer(self) -> None:
        for effect in sorted(self.counter.running, key=repr):
            if type(effect).__name__ == "FetchBill" and self.rng.random() < 0.5:
                self.bill(effect)
            if hasattr(effect, "intent") and self.rng.random() < 0.5:
                {"PlaceOrder": self.place, "QueryOrder": self.query, "CloseOrder": self.close, "RefundOrder": self.refund,
                 "QueryRefund": self.refund}[type(effect).__name__](effect.intent)

    def place(self, intent) -> None:
        order = self.orders.setdefault(intent.order_no, ["open", intent.amount_fen])
        assert order[1] == intent.amount_fen
        dice = self.rng.random()
        if dice < 0.6:
            self.counter.tell(QrReady(intent.order_no, f"weixin://{intent.order_no}"))
        elif dice < 0.75:
            self.counter.say(intent.order_no, Said.REFUSED)

    def query(self, intent) -> None:
        state, amount = self.orders.get(intent.order_no, ("", 0))
        said = WORDS.get(state, Said.ABSENT)
        self.counter.say(intent.order_no, said, amount if said is Said.PAID else 0)

    def close(self, intent) -> None:
        if intent.way == "code":
            return self.reverse(intent)
        order = self.orders.get(intent.order_no)
        if order is None:
            self.counter.say(intent.order_no, Said.ABSENT)
        elif order[0] == "open" and self.rng.random() < 0.7:
            order[0] = "closed"
            self.counter.say(intent.order_no, Said.CLOSED)

    def refund(self, intent) -> None:
        assert self.orders[intent.order_no][0] == "paid"
        if intent.refund_no not in self.given_back:
            if self.counter.box.books.refunds[intent.refund_no].cause == "customer" and self.rng.random() < 0.15:
                self.counter.tell(RefundSaid(intent.refund_no, RefundWord.REFUSED))
                return
            self.given_back[intent.refund_no] = intent.amount_fen
            self.returned[intent.order_no] += intent.amount_fen
            assert self.returned[intent.order_no] <= self.orders[intent.order_no][1], "more given back than was paid"
        word = self.rng.choice([RefundWord.DONE, RefundWord.PROCESSING])
        self.counter.tell(RefundSaid(intent.refund_no, word))

    def check(self) -> None:
        books = self.counter.box.books
        live = [o.intent.order_no for o in books.orders.values() if not o.park and o.basket is None
                and o.phase in (Phase.PLACING, Phase.AWAITING, Phase.ASKING)]
        assert live in ([], [books.basket.order_no]), "two attempts for one basket"
        assert books.basket.due_fen >= 0 and not any(b.order_no for b in books.held.values())
        for sale in books.sales.values():
            assert sum(t.amount_fen for t in sale.tenders) == sale.amount_fen == sum(x.amount_fen for x in sale.lines)
            assert 0 <= sale.refunded_fen <= sale.amount_fen

    def settle(self) -> None:
        """Nobody touches anything any more; time runs and the channel answers."""
        for _ in range(60):
            for intent in [self.late.pop() for _ in self.late[:]]:
                self.reverse(intent)
            self.counter.mono_ms += 300_000
            for order in list(self.counter.box.books.orders.values()):
                if order.phase is not Phase.CLOSED:
                    self.counter.tell(Rang(("order", order.intent.order_no)))
                    self.counter.tell(Rang(("overdue", order.intent.order_no)))
            self.answer()

    def booked(self) -> collections.Counter[str]:
        """Wallet money in closed sales, by order number."""
        self.counter.journal.sync()
        facts = [f for row in self.counter.journal.durable for f in wire.decode(row.facts).facts]
        booked: collections.Counter[str] = collections.Counter()
        booked.update({t.order_no: t.amount_fen for t in self.counter.box.books.basket.tenders if t.order_no})
        for sale in (f.sale for f in facts if isinstance(f, wire.SaleClosed)):
            booked.update({t.order_no: t.amount_fen for t in sale.tenders if t.order_no})
        return booked


@pytest.mark.parametrize("seeds", [range(n, n + 10) for n in range(0, 40, 10)], ids=str)
def test_whatever_is_pressed_nothing_is_paid_twice_kept_or_booked_for_nothing(seeds):
    for seed in seeds:
        chaos = Chaos(seed)
        for _ in range(300):
            chaos.act()
            chaos.check()
        chaos.counter.journal.sync()
        assert Box.folded(chaos.counter.journal) == chaos.counter.box.books
        chaos.settle()
        chaos.check()
        booked = chaos.booked()
        paid = {no: amount for no, (state, amount) in chaos.orders.items() if state == "paid"}
        assert set(booked) <= set(paid), seed
        for no, amount in paid.items():
            assert booked[no] in (0, amount), (seed, no)
            assert booked[no] or chaos.returned[no] == amount, (seed, no, "kept and never booked")
        assert sum(paid.values()) - chaos.returned.total() == chaos.counter.box.books.wallet_fen, seed
