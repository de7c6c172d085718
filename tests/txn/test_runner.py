"""The runner stops what nobody wants any more, whatever happens in the same moment."""

from __future__ import annotations

import asyncio

from device.box import Box
from device.runner import Runner
from device.store_forward.journal import Journal
from device.txn.effects import CloseOrder, PlaceOrder, QueryOrder
from device.txn.inputs import ChannelSaid, Pressed, QrReady, Said, Scanned, Started
from device.types import Stamp
from sim.virtual.loop import VirtualLoop
from tests.counter import TEA, TERMS


class Channel:
    """Answers at once: a QR, and that nobody has paid."""

    does, at_once = frozenset({PlaceOrder, QueryOrder, CloseOrder}), 4

    def __init__(self) -> None:
        self.queries = 0

    async def inputs(self):
        await asyncio.Event().wait()
        yield

    async def do(self, effect):
        if isinstance(effect, PlaceOrder):
            return QrReady(effect.intent.order_no, "weixin://wxpay/bizpayurl?pr=1")
        self.queries += isinstance(effect, QueryOrder)
        return ChannelSaid(effect.intent.order_no, Said.OPEN)


class LoopClock:
    def __init__(self, loop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def stamp(self) -> Stamp:
        return Stamp("boot1", self.now_ms(), "2026-09-01T10:00:00+08:00", "ntp")


def played(tmp_path, story):
    """`story(runner, box, channel)` on a loop whose time is moved, with a runner under way."""
    loop, channel, box = VirtualLoop(), Channel(), Box(
        Journal(tmp_path / "journal.db", identity={"box": TERMS.box, "mode": "real"}))
    runner = Runner(box, {"channel:wechat": channel}, LoopClock(loop))

    async def whole():
        running = asyncio.create_task(runner.run(Started("boot1", "test", TERMS, "c2VlZA", "kid")))
        for event in (Scanned(TEA.item.gtin, TEA), Pressed("PAY")):
            runner.post(event)
        await asyncio.sleep(1)
        await story(runner, box, channel)
        running.cancel()
        await asyncio.wait({running})

    loop.run_until_complete(whole())
    loop.close()


def test_an_order_that_is_paid_in_the_moment_it_is_checked_is_asked_for_no_more(tmp_path):
    async def story(runner, box, channel):
        no = box.books.basket.order_no
        assert box.books.orders[no].qr
        for event in (Pressed("CHECK"), ChannelSaid(no, Said.PAID, 500, "4200000001")):
            runner.post(event)
        await asyncio.sleep(1)
        asked = channel.queries
        await asyncio.sleep(600)
        assert no in box.books.sales and channel.queries == asked

    played(tmp_path, story)


def test_a_thumb_on_check_asks_once_a_second(tmp_path):
    async def story(runner, box, channel):
        before = channel.queries
        for _ in range(50):
            runner.post(Pressed("CHECK"))
            await asyncio.sleep(0.1)
        assert 5 <= channel.queries - before <= 6

    played(tmp_path, story)
