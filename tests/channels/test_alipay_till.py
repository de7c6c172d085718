"""The till at Alipay: the real core, our client and the local server on one clock, without a line.

What the codec's words lead to, from the key that is pressed to the money at Alipay.
"""

from __future__ import annotations

import msgspec
import pytest

from device.txn.books import Phase
from device.txn.effects import ChargeCode, CloseOrder, PlaceOrder, QueryOrder, QueryRefund, RefundOrder
from device.txn.inputs import Rang, Scanned
from device.types import Rules, Terms
from sim.channels.alipay_keys import authority
from sim.channels.keys import key_pair
from tests.channels.test_channel_alipay import SHOP, Shop
from tests.counter import TEA, Counter

ASKED = (PlaceOrder, QueryOrder, CloseOrder, RefundOrder, QueryRefund)
RULES = (("alipay", Rules(dead_after_ms=7_500_000)), ("alipay.code", Rules(give_up_ms=45_000, undo_moves_money=True)))


class Till(Counter):
    """A counter whose channel effects are carried to the server and back, when `turn` says so."""

    def __init__(self, shop: Shop) -> None:
        super().__init__(Terms(accounts=(SHOP,), route=("alipay",), rules=RULES, instalment_code="7Q4K"))
        self.shop, self.wall = shop, "2026-11-18T10:26:40+08:00"
        self.scan(TEA)

    def turn(self, *kinds) -> None:
        """Carry what is wanted of `kinds`, all when none is named; whatever follows waits for the next turn."""
        wanted = [*self.running, *(e for e in self.once if isinstance(e, ChargeCode))]
        self.once = [e for e in self.once if not isinstance(e, ChargeCode)]
        for effect in sorted(wanted, key=lambda e: type(e).__name__, reverse=True):
            if isinstance(effect, kinds or (*ASKED, ChargeCode)) and (answer := self.shop.said(effect)) is not None:
                self.tell(answer)

    def later(self, seconds: int) -> None:
        self.shop.now_s += seconds
        self.mono_ms += seconds * 1000

    @property
    def order(self):
        (order,) = self.box.books.orders.values()
        return order

    def asked(self) -> set[str]:
        return {type(effect).__name__ for effect in self.running if isinstance(effect, ASKED)}


@pytest.fixture(scope="module")
def keys():
    app = key_pair("app")
    return app, key_pair("alipay"), authority(app.public_pem)


@pytest.fixture
def till(keys):
    return Till(Shop(keys))


def test_a_qr_is_paid(till):
    till.press("PAY")
    till.turn()
    till.shop.server.scan(next(iter(till.shop.rules._qrs)), "pay")
    till.turn()
    assert till.box.books.orders == {} and len(till.box.books.sales) == 1


def test_a_cancelled_qr_is_closed_at_alipay_before_it_is_put_aside_and_watched_after(till):
    till.press("PAY")
    till.turn()
    qr = next(iter(till.shop.rules._qrs))
    till.press("CANCEL")
    till.turn(QueryOrder)                                             # "no such trade" alone ends nothing
    assert till.order.phase is Phase.CANCELLING
    till.turn(CloseOrder)
    assert till.order.phase is Phase.CLOSED and till.shop.calls()[-1] == "close"
    till.turn()
    assert till.order.phase is Phase.CLOSED and till.asked() == {"QueryOrder"}
    till.shop.server.scan(qr, "abandon")                              # an old photograph of the display
    till.turn()
    assert till.order.phase is Phase.CANCELLING
    till.turn(CloseOrder)
    assert till.order.phase is Phase.CLOSED and till.shop.server.orders()[0]["state"] == "closed"


def test_money_that_comes_after_the_cancel_goes_back_once(till):
    till.press("PAY")
    till.turn()
    till.press("CANCEL")
    till.turn(CloseOrder)
    till.shop.server.scan(next(iter(till.shop.rules._qrs)), "pay")
    till.turn(QueryOrder)
    till.shop.server.fault("lost_answer", call="refund")
    till.turn()
    till.turn()                                                       # moved nothing this time, and its query does not show it yet
    assert len(till.box.books.refunds) == 1
    till.later(11)
    till.turn()
    assert till.box.books.refunds == {} and till.box.books.sales == {}
    (row,) = till.shop.server.orders()
    assert (row["captured_fen"], row["refunded_fen"], row["state"]) == (500, 500, "refunded")


def test_a_qr_that_nobody_scanned_is_forgotten_when_it_is_dead(till):
    till.press("PAY")
    till.turn()
    till.press("CANCEL")
    till.turn(CloseOrder)
    till.later(7_501)
    till.tell(Rang(("order", till.order.intent.order_no)))
    assert till.order.overdue
    till.turn(QueryOrder)                                             # from two hours on "no such trade" is a word
    assert till.box.books.orders == {}


def charged(till, outcome):
    code = till.shop.server.code()
    till.shop.server.code_outcome(code, outcome)
    till.press("CODE")
    till.tell(Scanned(code))
    return till


def test_a_code_is_charged(till):
    charged(till, "pay").turn()
    assert till.box.books.orders == {} and len(till.box.books.sales) == 1


@pytest.mark.parametrize(("outcome", "state", "back_fen"), [("abandon", "closed", 0), ("slow", "reversed", 500)])
@pytest.mark.parametrize("kind", ["retry_flag", "no_action"])
def test_a_payer_who_takes_too_long_is_cancelled_and_nothing_is_refunded_beside_it(till, outcome, state, back_fen, kind):
    charged(till, outcome).turn(ChargeCode)
    till.later(46)
    till.tell(Rang(("order", till.order.intent.order_no)))
    assert till.order.phase is Phase.CANCELLING
    till.turn(QueryOrder)                                             # paid at the last moment, or not
    till.shop.server.fault(kind, call="cancel")
    till.turn(CloseOrder)
    assert till.order.phase is Phase.CANCELLING and till.box.books.refunds == {}
    till.turn(CloseOrder)
    assert till.order.phase is Phase.CLOSED and till.box.books.refunds == {}
    (row,) = till.shop.server.orders()
    assert (row["state"], row["refunded_fen"]) == (state, back_fen)


def test_a_charge_that_never_arrived_ends_a_minute_later(till):
    till.shop.server.fault("lost_request", call="pay")
    charged(till, "pay").turn(ChargeCode)
    till.press("CANCEL")
    till.turn()
    assert till.order.phase is Phase.CANCELLING
    till.later(61)
    till.turn()
    assert till.order.phase is Phase.CLOSED and till.shop.server.orders() == []


@pytest.mark.parametrize("way", ["qr", "code"])
def test_an_instalment_card_reaches_alipay(till, way):
    till.tell(Scanned("TBC-FQ-12-SHOP-7Q4K"))
    if way == "code":
        charged(till, "pay").turn()
    else:
        till.press("PAY")
        till.turn()
        till.shop.server.scan(next(iter(till.shop.rules._qrs)), "pay")
        till.turn()
    (sale,) = till.box.books.sales.values()
    assert (sale.tenders[0].instalments, sale.tenders[0].fee_payer) == (12, "shop")
    (trade,) = till.shop.rules.trades()
    assert trade.content["extend_params"] == {"hb_fq_num": "12", "hb_fq_seller_percent": "100"}


@pytest.mark.parametrize("kind", ["lying", "unsigned", "wrong_order", "wrong_amount", "page", "error_unsigned", "unavailable"])
def test_no_liar_sells_or_ends_anything(till, kind):
    till.press("PAY")
    till.turn()
    till.shop.server.scan(next(iter(till.shop.rules._qrs)), "abandon")
    till.shop.server.fault(kind, count=None)
    till.turn()
    till.press("CANCEL")
    till.turn()
    if kind == "wrong_amount":                                        # a close names none: it is true
        assert till.order.phase is Phase.CLOSED
    else:
        assert till.order.phase is Phase.CANCELLING
    assert till.box.books.sales == {} and msgspec.to_builtins(till.shop.server.orders())[0]["captured_fen"] == 0
