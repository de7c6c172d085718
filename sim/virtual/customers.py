"""Who stands at a simulated counter: customers who pay in every way, walk away, come back, and a cashier who is in a hurry.

Knows keys, codes and wallets, as people see them.  Refuses to know facts and rules: whatever the box makes of it is its own doing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from device.txn.books import Phase
from device.txn.effects import Intent
from device.types import Found, Item
from sim.virtual.channels import Channel
from sim.virtual.fate import Fate
from sim.virtual.till import Till

GOODS = (Item("6902538004045", "脉动青柠味600ml", "Mizone lime 600ml", 500),
         Item("6901939621608", "可口可乐330ml(听)", "Coca-Cola 330ml can", 250),
         Item("4891028705949", "维他柠檬茶500ml", "Vita lemon tea 500ml", 700))
APPLES = Item("2100001000000", "苹果", "Apples", 1280, "kg")
KEYS = ("ENTER", "CLEAR", "QTY", "VOID", "PAY", "CODE", "CASH", "CHECK", "HOLD", "PARK", "CANCEL", "REFUND", "REPRINT", "X", "5",
        "1")
OVER = ("PAID", "IDLE", "BASKET")
FREED_MAX = 80                 # tries to get the counter free for the next customer


class Customers:
    """`channels` by the name the box knows them under."""

    def __init__(self, till: Till, channels: Mapping[str, Channel], fate: Fate) -> None:
        self.till, self.channels, self.fate = till, channels, fate
        self.random = fate.random
        self.kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "qr": self._qr, "code": self._code, "cash": self._cash, "cancel": self._cancel, "race": self._race,
            "abandon": self._abandon, "replace": self._replace, "park": self._park, "hold": self._hold, "refund": self._refund,
            "split": self._split, "fumble": self._fumble}
        self.odds = {"qr": 6, "code": 6, "cash": 2, "refund": 4, "split": 2, "fumble": 2}
        if "card" in channels:
            self.kinds["card"], self.odds["card"] = self._card, 3
        self.sold: list[str] = []
        self.closed = False                           # nobody comes back any more to pay what was left open

    async def one(self) -> str:
        """One customer, from the first scan until the counter is free again; gives what they did."""
        kind = self.random.choices(list(self.kinds), [self.odds.get(kind, 1) for kind in self.kinds])[0]
        await self._scan_goods()
        if self.random.random() < .2:
            await asyncio.sleep(self.random.uniform(1, 25))        # who looks for a phone
        if self.till.books.basket.lines:              # else the cord was pulled in the middle of it
            await self.kinds[kind]()
        await asyncio.sleep(self.random.uniform(1, 8))
        await self.clear_counter()
        return kind

    async def buys(self, channel: str) -> None:
        """An ordinary customer of one channel, who pays its QR at once."""
        await self._scan_goods()
        await self.till.press(self.channels[channel].key, "PAY")
        if await self._qr_shown() and (shown := self._live_qr()) is not None:
            await asyncio.sleep(.5)
            self._pay(*shown, "pay")
        await self._seen_through()
        await self.clear_counter()

    async def leaves_late(self, channel: str) -> None:
        """The last customer of an evening, whose payment nobody will be told of today; some have paid."""
        await self._scan_goods()
        await self.till.press(self.channels[channel].key, "PAY")
        if await self._qr_shown():
            self._payer(1, self.random.choice(("pay", "pay", "abandon")))
            await asyncio.sleep(3)
        await self.till.press("PARK", self.random.choice(("ENTER", "CANCEL")))
        await self.clear_counter()

    # What they do

    async def _qr(self) -> None:
        await self._begin_qr()
        if await self._qr_shown():
            self._payer(self.random.choice((.2, 1, 3, 6, 20)), self._outcome())
            if self.random.random() < .2:
                await self.till.press("CHECK")
        await self._seen_through()

    async def _code(self) -> None:
        part = (str(self.random.randint(10, 400)),) if self.random.random() < .1 else ()
        await self.till.press(*part, "CODE")
        wallet = self.random.choice(sorted({wallet for channel in self.channels.values() for wallet in channel.codes}))
        taker = next((c for c in self.channels.values() if c.part == wallet), self.channels.get("gateway"))
        if taker is None or wallet not in taker.codes:
            return
        outcome = self._outcome()
        await self.till.scan(taker.code(wallet, outcome, self.random.choice((5, 20, 50))))
        if self.random.random() < (.2 if outcome == "pay" else .5):
            await asyncio.sleep(self.random.uniform(.5, 20))
            await self.till.press("CANCEL")
        await self._seen_through()

    async def _card(self) -> None:
        await self.till.press(self.channels["card"].key, "PAY")
        for outcome in (self._outcome(), "pay"):
            await asyncio.sleep(self.random.choice((.5, 3, 10)))
            if self.channels["card"].scan("", "card", outcome, self.random.choice((5, 20)))["ok"]:
                break
        if self.random.random() < .1:
            await self.till.press("CANCEL")
        await self._seen_through()

    async def _cash(self) -> None:
        await self.till.press(str(self.till.books.basket.total_fen + 1_000), "CASH")
        await asyncio.sleep(2)

    async def _cancel(self) -> None:
        await self._begin_qr()
        await self._qr_shown()
        await asyncio.sleep(self.random.uniform(1, 20))
        await self.till.press("CANCEL")
        if self.random.random() < .3:
            self._payer(self.random.uniform(0, 30), "pay")
        await self._seen_through()

    async def _race(self) -> None:
        """The phone and the key, at the same moment."""
        await self._begin_qr()
        await self._qr_shown()
        self._payer(self.random.uniform(0, .6), "pay")
        await self.till.press("CANCEL")
        await self._seen_through()

    async def _abandon(self) -> None:
        """They leave; some pay all the same, minutes or hours later."""
        await self._begin_qr()
        if await self._qr_shown() and self.random.random() < .5:
            self._payer(self.random.choice((60, 250, 320, 900, 5_000)), "pay")
        await asyncio.sleep(5)

    async def _replace(self) -> None:
        await self._begin_qr()
        await self._qr_shown()
        self._payer(self.random.uniform(0, 6), self._outcome())
        await self.till.press("CASH")
        await self._seen_through()

    async def _park(self) -> None:
        await self._begin_qr()
        await self._qr_shown()
        self._payer(self.random.uniform(0, 90), self._outcome())
        await self.till.press("PARK", self.random.choice(("ENTER", "CANCEL")))

    async def _hold(self) -> None:
        await self.till.press("HOLD")
        await asyncio.sleep(self.random.uniform(1, 10))
        if self.till.books.held and not self.till.books.basket.lines:
            await self.till.press(str(min(self.till.books.held)), "HOLD", "CASH")

    async def _split(self) -> None:
        """Cash and a wallet, or two wallets; some give the basket up half way."""
        half = str(max(10, self.till.books.basket.due_fen // 2))
        await self.till.press(half, self.random.choice(("CASH", "PAY")))
        if await self._qr_shown():
            self._payer(1, "pay")
        await self.till.until(lambda: not self.till.books.basket.order_no, 30)
        if self.random.random() < .2 or not self.till.books.basket.lines:
            return
        await self._begin_qr()
        if await self._qr_shown():
            self._payer(2, self._outcome())
        await self._seen_through()

    async def _refund(self) -> None:
        """A receipt comes back: of a minute ago or of another day, whole or in part, more than once."""
        await self._qr()
        await self.clear_counter()
        if not self.sold:
            return
        for _ in range(self.random.choice((1, 1, 2))):
            no = self.random.choice(self.sold[-3:] if self.random.random() < .7 else self.sold)
            await self.till.press("REFUND")
            await self.till.scan(no)
            await self.till.until(lambda: self.till.box.desk.mode in ("pick", ""), 5)
            await self.till.press(*((str(self.random.randint(1, 300)),) if self.random.random() < .6 else ()), "ENTER")
            await asyncio.sleep(self.random.choice((1, 12)))
            await self.till.press("CLEAR")

    async def _fumble(self) -> None:
        """Keys in any order, twice, and at the wrong time."""
        await self._begin_qr()
        self._payer(self.random.uniform(0, 5), "pay")
        for _ in range(self.random.randint(2, 8)):
            await self.till.press(self.random.choice(KEYS))
        await self._qr_shown()
        self._payer(.5, "pay")
        await self._seen_through()

    # Its parts

    async def _scan_goods(self) -> None:
        if self.random.random() < .3:                 # what most people buy: so that amounts are often the same
            return await self.till.scan(GOODS[0].gtin, Found(GOODS[0]))
        for _ in range(self.random.randint(1, 3)):
            item = self.random.choice(GOODS)
            await self.till.scan(item.gtin, Found(item))
        if self.random.random() < .2:
            await self.till.scan(APPLES.gtin, Found(APPLES, self.random.randint(50, 3_000)))
        return None

    async def _begin_qr(self) -> None:
        """PAY by the shop's route, or one wallet's own key."""
        keys = sorted({channel.key for channel in self.channels.values() if channel.qr})
        named = self.random.random() < .75
        await self.till.press(*((self.random.choice(keys),) if named else ()), "PAY")

    async def _qr_shown(self) -> bool:
        """Whether a QR stands on the screen, after as long as a customer waits for one."""
        await self.till.until(lambda: self.till.phase != "PLACING", 25)
        return self._live_qr() is not None

    def _live_qr(self) -> tuple[Intent, str] | None:
        books = self.till.books
        order = books.orders.get(books.basket.order_no)
        return (order.intent, order.qr) if order is not None and order.qr else None

    def _outcome(self) -> str:
        return self.random.choices(("pay", "slow", "abandon", "insufficient"), (70, 18, 6, 6))[0]

    def _payer(self, after_s: float, outcome: str) -> None:
        """A phone scans what stands on the screen, if a QR does, and acts `after_s` later, wherever it is then."""
        if (shown := self._live_qr()) is not None:
            asyncio.get_running_loop().call_later(after_s, lambda: None if self.closed else self._pay(*shown, outcome))

    def _pay(self, intent: Intent, qr: str, outcome: str) -> None:
        channel = self.channels[intent.channel]
        wallet = dict(intent.extras).get("wallet") or self.random.choice(channel.qr)
        said = channel.scan(qr, wallet, outcome, self.random.choice((5, 20, 50)))
        if said["ok"] and outcome == "pay" and self.fate.strikes("box", "kill_paid", intent.order_no):
            self.till.kill()
        if "closed" in said["why"]:
            channel.paid_after_close(intent.order_no)

    async def _seen_through(self) -> None:
        """The cashier waits for the end, and answers when asked about money that came while cancelling."""
        if not await self.till.until(lambda: self.till.phase in OVER or self._asked(), 45):
            return
        if self._asked():
            if self.random.random() < .3:
                await self.till.until(lambda: not self._asked(), 35)
            await self.till.press(self.random.choice(("ENTER", "CANCEL")))

    def _asked(self) -> bool:
        order = self.till.books.orders.get(self.till.books.basket.order_no)
        return order is not None and order.phase is Phase.ASKING

    async def clear_counter(self) -> None:
        """Whatever stands on the counter goes, so that the next customer starts afresh."""
        for _ in range(FREED_MAX):
            await self.till.up()
            books = self.till.books
            if not books.basket.lines and self.till.phase in ("IDLE", "PAID", "REFUNDING") and not self.till.box.desk.mode:
                await self.till.press("CLEAR")
                return
            await self.till.press("CLEAR")
            if books.basket.order_no:
                await self.till.press("CANCEL")
                await self.till.until(lambda: self.till.phase != "CANCELLING", 6)
                if self.till.phase == "CANCELLING":
                    await self.till.press("PARK", "CANCEL")
            elif books.basket.lines:
                await self.till.press("CANCEL")
            await asyncio.sleep(.1)
        raise AssertionError(f"the counter never came free: {self.till.phase}")
