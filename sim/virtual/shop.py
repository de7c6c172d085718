"""A whole shop on virtual time: a box, every channel with its real codec and server, printer, customers, cloud.

Knows how they are put together, and what rest is.  Refuses to know what is wrong when money does not agree: `sums.py` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import msgspec

from device import rules
from device.drivers.contract import Driver
from device.pace import BILL_FIRST_MS
from device.txn.books import Phase
from device.txn.desk import Verdict
from device.txn.facts import LatePaymentFound, OrderIntended, OrderOverdue, SaleClosed
from device.txn.inputs import Input
from device.types import Account, Terms
from sim.virtual.card import Card
from sim.virtual.channels import Alipay, Channel, Gateway, Shouqianba, Unionpay, Wechat
from sim.virtual.cloud import Cloud
from sim.virtual.customers import Customers
from sim.virtual.fate import Fate, WorldClock
from sim.virtual.laws import Laws
from sim.virtual.loop import VirtualLoop
from sim.virtual.roll import Roll, RollPrinter
from sim.virtual.till import Till

RULES = rules.parse((Path(rules.__file__).parent / "rules.json").read_bytes())
CHANNELS: dict[str, type[Channel]] = {
    channel.name: channel for channel in (Wechat, Alipay, Unionpay, Gateway, Shouqianba, Card)}
DAY_S, CREEP_S = 86_400, 300
WELL_AGAIN_S = 120             # by then the box knows that a channel is back, and routes to it
MORNING_H = 10                 # of Beijing: by then every channel has filed the day before
SLOWEST_S = 60                 # payers and refunds take no longer
SETTLED_S = 600                # virtual time for everything to end that needs no bill
DAYS_MAX = 5
MORNINGS = 4                   # boots before the shop opens, while only bills can tell of yesterday's payments
BUYS_NOTHING = 20              # customers for each that tries to pay, at most
ROUTE = ("wechat", "alipay", "unionpay", "gateway")


class Breach(AssertionError):
    """A law was broken, and nobody wants to know what follows."""


class Shop:
    """`names` of CHANNELS, one a part of the box.  Everything is used inside `play`.  `first`: end with the first breach."""

    def __init__(self, seed: int, rates: dict[str, float], folder: Path, names: tuple[str, ...], *, variant: int = 0,
                 first: bool = False) -> None:
        self._first = first
        self.loop = VirtualLoop()
        self.clock, self.fate = WorldClock(self.loop.time), Fate(seed, rates)
        self.channels: dict[str, Channel] = {}
        for name in names:
            channel = CHANNELS[name](self.fate, self.clock, seed, variant)
            self.channels[channel.part] = channel
        self.roll = Roll(self.fate)
        self.breaches: list[str] = []                 # of laws, while it went on
        self.broken: set[str] = set()                 # the orders some of them are about
        self.laws = Laws(self._say)
        self.till = Till(self.fate, self.clock, folder, terms(self.channels), self._parts, met=self._met, rows=self._rows,
                         before=self._before, watch=self._watch)
        for channel in self.channels.values():
            channel.starts, channel.kill = self.laws.starts, self.till.kill
        self.cloud = Cloud(self.fate, self.clock, folder, self.till.signer.jwk)
        self.customers = Customers(self.till, self.channels, self.fate)
        self.attempts: dict[str, int] = {}            # every order ever intended, with its amount
        self.overdue: set[str] = set()                # orders that outlived their time undecided
        self.late: set[str] = set()                   # orders whose money came when nobody waited for it any more

    def play(self, story: Coroutine[Any, Any, None]) -> None:
        """Run `story` beside the box.  Raises what the box died of."""
        async def whole() -> None:
            life = asyncio.create_task(self.till.live(), name="life")
            await asyncio.sleep(1)
            await story
            if self.till.failure is not None:
                raise self.till.failure
            life.cancel()
            self.till.kill()
            await asyncio.gather(life, return_exceptions=True)
        try:
            self.loop.run_until_complete(whole())
        finally:
            self.loop.close()

    def _parts(self, till: Till) -> Mapping[str, Driver]:
        boot = till.boots
        drivers: dict[str, Driver] = {"printer": RollPrinter(self.roll, lambda: till.alive and till.boots == boot)}
        return drivers | {f"channel:{name}": channel.made(till.later) for name, channel in self.channels.items()}

    def _met(self, till: Till) -> None:
        self.cloud.meet(till)

    def _rows(self) -> None:
        self.cloud.forward()

    def _say(self, what: str, no: str) -> None:
        if what not in self.breaches:
            self.breaches.append(what)
        self.broken.add(no)
        if self._first:
            raise Breach(what)

    def _before(self, event: Input) -> None:
        self.laws.before(self.till.books, event)

    def _watch(self, event: Input, verdict: Verdict) -> None:
        for fact in verdict.facts:
            match fact:
                case OrderIntended(intent=intent):
                    self.attempts[intent.order_no] = intent.amount_fen
                case OrderOverdue(order_no=no):
                    self.overdue.add(no)
                case LatePaymentFound(order_no=no):
                    self.late.add(no)
                case SaleClosed(sale=sale):
                    self.customers.sold.append(sale.order_no)
        self.laws.after(self.till.books, event, verdict.facts, self.till.journal.waiting, self.attempts)

    # A day's course

    async def customer(self) -> str:
        if self.fate.strikes("printer", "paper_out"):
            self.roll.run_out(True)
            asyncio.get_running_loop().call_later(60, self.roll.run_out, False)
        kind = await self.customers.one()
        self.fate.note("counter", f"customer_{kind}")
        return kind

    async def day(self, attempts: int, pause_s: float = 0) -> None:
        """Customers until so many payments were tried, counted from the first day on; then Z, and the night.

        Nobody comes for the first `pause_s`.
        """
        qrs = [channel for channel in self.channels.values() if channel.qr]
        if pause_s:
            await asyncio.sleep(pause_s)
        noon = attempts - max(2 * len(qrs), (attempts - len(self.attempts)) // 4)
        await self.sell(lambda: len(self.attempts) >= noon, attempts)
        # Nothing goes wrong with one payment at each: some channels have the same word for a bill without a row and for none.
        self.fate.quiet = True
        for channel in qrs:
            channel.calm()
        await self.till.up()
        await self.customers.clear_counter()
        await asyncio.sleep(WELL_AGAIN_S)
        for channel in qrs:
            await self.customers.buys(channel.part)
        self.fate.quiet = False
        for channel in qrs:
            channel.go_deaf()
        await self.sell(lambda: len(self.attempts) >= attempts - len(qrs), attempts)
        for channel in qrs:
            await self.customers.leaves_late(channel.part)
        self.fate.quiet = True
        await self.till.up()
        await self.customers.clear_counter()
        self.fate.quiet = False
        await self.till.press("Z")
        await self.night()

    async def sell(self, enough: Callable[[], bool], about: int) -> None:
        """Customers until it is `enough`; some buy nothing, so there may be many more of them than `about`."""
        for _ in range(about * BUYS_NOTHING):
            if enough():
                break
            await self.customer()

    async def night(self) -> None:
        """The box has no power until the next day, when the bills lie ready and a payer's code of tonight is a day old."""
        now = self.clock.date_time()
        gone_s = (now - now.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
        dark_s = DAY_S + max(MORNING_H * 3_600 - gone_s, CREEP_S)
        await self.till.up()
        self.till.kill(dark_s)
        await asyncio.sleep(dark_s)
        for _ in range(MORNINGS):                     # and stumbles over the cord once more
            await asyncio.sleep(1.5 * BILL_FIRST_MS / 1000)
            if self.fate.quiet or not any(order.bill_decides for order in self.till.books.orders.values()):
                break
            self.till.kill()
        for channel in self.channels.values():
            channel.hear_again()

    async def rest(self) -> bool:
        """Faults stop; True when everything came to its end, in a few days at most.

        On each of them everybody's wallet is used once: some channels have the same word for a bill without a row and for none.
        """
        self.fate.quiet = self.customers.closed = True
        self.roll.run_out(False)
        for channel in self.channels.values():
            channel.calm()
        await asyncio.sleep(SLOWEST_S)                # until nobody pays any more who had begun to
        await self.till.up()
        self.till.kill()                              # a boot asks about every closed order once more
        await asyncio.sleep(SLOWEST_S)
        for day in range(DAYS_MAX):
            await self.till.up()
            await self.customers.clear_counter()
            if await self._settled(SETTLED_S):
                return True
            for channel in (c for c in self.channels.values() if c.qr):
                await self.customers.buys(channel.part)
            if day < DAYS_MAX - 1:
                await self.night()
        return await self._settled(SETTLED_S)

    async def _settled(self, limit_s: float) -> bool:
        end_s = self.loop.time() + limit_s
        while not self.at_rest and self.loop.time() < end_s:
            await asyncio.sleep(5)
            if self.till.failure is not None:
                raise self.till.failure
        return self.at_rest

    @property
    def at_rest(self) -> bool:
        b = self.till.books
        waits = b.due or b.refunds or any(p.state in ("due", "started") for p in b.papers.values()) or \
            any(o.phase is not Phase.CLOSED for o in b.orders.values())
        return not waits and self.cloud.upto == b.chain.seq


def terms(channels: Mapping[str, Channel]) -> Terms:
    """The shop's, under the rule table that ships."""
    accounts: tuple[Account, ...] = tuple(channel.account() for channel in channels.values())
    aggregator = channels.get("gateway")
    one_wallet = aggregator is not None and aggregator.name == "shouqianba"
    table = dict(RULES.rules)
    for name, channel in channels.items():            # as the daemon does: no table knows what a gateway speaks
        if channel.undo_moves:
            table[name] = msgspec.structs.replace(table[name], undo_moves_money=True)
    return Terms(accounts=accounts, rules=tuple(sorted(table.items())), codes=RULES.codes, cash_round_fen=10,
                 route=tuple(name for name in ROUTE if name in channels and channels[name].qr),
                 gateway_wallets=aggregator.codes if aggregator is not None else (), gateway_qr="wechat" if one_wallet else "")
