"""Whole sales at Shouqianba: the real core under its terms, the real codec and the local server, joined without a line."""

from __future__ import annotations

import asyncio

from device.box import Box
from device.config import parse, to_terms
from device.drivers.channels.https import HttpsChannel
from device.drivers.channels.shouqianba import ShouqianbaCodec
from device.runner import Runner
from device.txn.books import Phase
from device.txn.effects import FetchBill
from device.txn.inputs import Rang, Scanned
from device.txn.show import render, state
from sim.channels.shouqianba_server import KEY
from tests.channels.test_channel_shouqianba import Shop
from tests.channels.test_gateway_sale import Till
from tests.channels.test_shouqianba_checkin import GATEWAY
from tests.counter import MemoryJournal
from tests.house.test_config import BOX

TERMS = to_terms(parse(BOX | {"lang": "en", "channel": {"gateway": GATEWAY}}))


class AtShouqianba(Till):
    def __init__(self) -> None:
        super().__init__(TERMS)
        self.shop = Shop()
        self.basket()

    @property
    def order(self):
        return self.counter.box.books.orders[self.counter.order_no]

    @property
    def title(self):
        return render(self.counter.box.books, self.counter.box.desk).title

    def states(self):
        return [row["state"] for row in self.shop.server.orders()]


def test_pay_shows_the_usual_wallets_qr_and_a_named_one_another():
    till = AtShouqianba()
    till.counter.press("PAY")
    till.go()
    assert till.qr.startswith("weixin://") and till.title == "Scan with WeChat to pay"
    till.counter.press("CANCEL")
    till.go()
    till.counter.press("2 PAY")
    till.go()
    assert till.qr.startswith("https://qr.alipay.com/") and till.title == "Scan with Alipay to pay"
    assert till.shop.server.scan(till.qr, "pay", wallet="alipay")["ok"]
    till.go()
    (tender,) = till.sold()["tenders"]
    assert (tender["wallet"], till.states()) == ("alipay", ["closed", "paid"])


def test_ecny_is_refused_before_anything_is_sent():
    till = AtShouqianba()
    till.counter.press("CODE")
    assert till.counter.tell(Scanned("0112345678901234567")).words[1] == "This shop does not take e-CNY"
    assert not till.shop.server.seen


def test_a_qr_lost_on_the_way_ends_its_order_and_pay_makes_another():
    """The same number is a conflict, so that no try can bring the QR back; nothing is paid twice, and nothing stays open."""
    till = AtShouqianba()
    till.shop.server.fault("lost_answer", call="precreate")
    till.counter.press("PAY")
    till.go()
    assert till.order.phase is Phase.PLACING and till.states() == ["open"]
    till.go()                                  # the core's own next try
    assert till.order.phase is Phase.CANCELLING
    till.go()
    assert till.counter.phase == "BASKET" and till.states() == ["closed"]
    till.counter.press("PAY")
    till.go()
    assert till.shop.server.scan(till.qr, "pay")["ok"]
    till.go()
    assert till.counter.phase == "PAID" and till.states() == ["closed", "paid"]


def test_a_cancel_that_finds_it_paid_gives_the_money_back_by_itself_and_nothing_is_refunded_beside_it():
    till = AtShouqianba()
    till.counter.press("PAY")
    till.go()
    assert till.order.undo_moves
    till.shop.server.scan(till.qr, "pay")
    till.shop.server.fault("lost_answer", call="cancel")
    till.counter.press("CANCEL")
    till.go(3)
    assert till.counter.phase == "BASKET" and not till.counter.box.books.refunds
    assert till.states() == ["reversed"] and till.counter.box.books.wallet_fen == 0


def test_paid_yesterday_a_cancel_never_works_and_a_refund_does():
    till = AtShouqianba()
    till.counter.press("PAY")
    till.go()
    till.counter.press("PARK CANCEL")          # goods kept: whatever comes is to go back
    (no,) = till.counter.box.books.orders
    till.shop.server.scan(till.counter.box.books.orders[no].qr, "pay")
    till.shop.now_s += 86_400
    till.shop.server.first.day = till.shop.server.terminals.today()
    till.go(4)
    assert till.states() == ["refunded"] and not till.counter.box.books.refunds


def test_an_order_that_nobody_is_definite_about_stays_to_be_seen_and_no_bill_is_asked():
    """There is no bill that a terminal could read: the box asks on, and a person may have to end it."""
    till = AtShouqianba()
    till.counter.press("PAY")
    till.go()
    no = till.counter.order_no
    till.shop.server.scan(till.qr, "pay")
    till.shop.server.fault("error", count=None)
    till.counter.press("CANCEL")
    till.counter.mono_ms += 7_600_000
    till.counter.tell(Rang(("overdue", no)))
    assert till.counter.box.books.orders[no].phase is Phase.UNDECIDED
    wanted = [effect for effect in till.counter.running if isinstance(effect, FetchBill)]
    assert wanted

    async def answered():
        channel = HttpsChannel(ShouqianbaCodec(account="main", key=KEY), base_url="http://127.0.0.1:1")
        try:
            return await Runner(Box(MemoryJournal()), {"channel:gateway": channel}, None)._ask(wanted[0])
        finally:
            await channel.close()
    said = asyncio.run(answered())
    assert not said.ready and said.why == "this channel's bill cannot be read here"
    till.counter.tell(said)
    assert [row["phase"] for row in state(till.counter.box.books, till.counter.box.desk, 0)["orders"]] == ["undecided"]
    till.shop.server.clear()
    till.go(2)
    assert till.states() == ["reversed"] and not till.counter.box.books.refunds
    assert all(order.phase is Phase.CLOSED for order in till.counter.box.books.orders.values())

