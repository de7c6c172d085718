"""Whole sales at the gateway: the real core and the real codec against its local server, joined without a line."""

from __future__ import annotations

import json

import msgspec
import pytest

from device.config import parse, to_terms
from device.drivers.channels.https import told
from device.txn import facts as wire
from device.txn.effects import ChargeCode, CloseOrder, PlaceOrder, QueryOrder, QueryRefund, RefundOrder
from device.txn.inputs import Rang, RefundWord, Said, Scanned
from device.txn.show import render
from device.types import Account, Terms
from sim.channels.gateway import GatewayRules
from tests.channels.test_channel_gateway import BACK, SHOP, SHOWN, Shop
from tests.channels.test_channel_gateway import TEA as INTENT
from tests.counter import TEA, Counter
from tests.house.test_config import BOX

WECHAT = Account("wechat", "wechat:1", (("mchid", "1"),))
TERMS = Terms(accounts=(SHOP,), route=("gateway",), instalment_code="7Q4K")
ASKING = (ChargeCode, PlaceOrder, CloseOrder, RefundOrder, QueryOrder, QueryRefund)


class Till:
    """A counter whose channel is the local gateway; `go` lets each effect that runs be answered once."""

    def __init__(self, terms: Terms = TERMS) -> None:
        self.shop, self.counter, self.charged = Shop(), Counter(terms), 0
        self.counter.wall = "2026-11-18T10:26:40+08:00"

    def go(self, times: int = 1) -> None:
        for _ in range(times):
            fresh, self.charged = self.counter.once[self.charged:], len(self.counter.once)
            for effect in [*fresh, *sorted(self.counter.running, key=lambda e: type(e).__name__)]:
                if isinstance(effect, ASKING) and (verdict := self.shop.verdict(effect)) is not None:
                    self.counter.tell(told(effect, verdict))

    def sold(self) -> dict:
        self.counter.journal.sync()
        rows = [f for row in self.counter.journal.durable for f in wire.decode(row.facts).facts]
        return [json.loads(f.body) for f in rows if isinstance(f, wire.RecordDue) and f.kind == "sale"][-1]

    def basket(self) -> None:
        self.counter.scan(TEA)

    @property
    def qr(self) -> str:
        return self.counter.box.books.orders[self.counter.order_no].qr


@pytest.mark.parametrize("wallet", ["wechat", "alipay", "unionpay", "ecny"])
def test_the_record_and_the_paper_name_the_wallet_that_paid_by_qr(wallet):
    till = Till()
    till.basket()
    till.counter.press("PAY")
    till.go()
    assert till.shop.server.scan(till.qr, "pay", wallet=wallet)["ok"]
    till.go()
    assert (till.sold()["tenders"][0]["wallet"], till.counter.phase) == (wallet, "PAID")
    assert {"ecny": "数字人民币 / e-CNY", "wechat": "微信 / WeChat"}.get(wallet, "") in repr(till.counter.printed[-1].paper)


@pytest.mark.parametrize("wallet", ["alipay", "ecny"])
def test_the_record_names_the_wallet_that_paid_by_code(wallet):
    till = Till()
    till.basket()
    till.counter.press("CODE")
    till.counter.tell(Scanned(till.shop.server.code(wallet)))
    till.go()
    assert (till.sold()["tenders"][0]["wallet"], till.counter.phase) == (wallet, "PAID")


def test_the_wallet_is_not_forgotten_while_the_cashier_is_asked():
    till = Till()
    till.basket()
    till.counter.press("PAY")
    till.go()
    till.shop.server.scan(till.qr, "pay", wallet="ecny")
    till.counter.press("CANCEL")
    till.go()
    assert till.counter.phase == "CANCELLING"
    till.counter.press("ENTER")
    assert till.sold()["tenders"][0]["wallet"] == "ecny"


def test_a_wallet_that_the_gateway_does_not_take_is_refused_in_words_and_at_once():
    till = Till(msgspec.structs.replace(TERMS, gateway_wallets=("wechat", "alipay"), lang="en"))
    till.basket()
    till.counter.press("CODE")
    verdict = till.counter.tell(Scanned(code := till.shop.server.code("ecny")))
    assert verdict.words == ("本店不收数字人民币", "This shop does not take e-CNY") and code not in repr(verdict)
    assert till.counter.press("3 PAY").words[1] == "This shop does not take UnionPay"
    till.go()
    assert not till.counter.box.books.orders and not till.shop.server.seen
    assert not till.counter.tell(Scanned(till.shop.server.code("alipay"))).refused          # CODE still waits, and Alipay works


def test_a_wallet_with_its_own_channel_needs_no_gateway():
    terms = Terms(accounts=(SHOP, WECHAT), route=("wechat", "gateway"), gateway_wallets=("ecny",), instalment_code="7Q4K")
    counter = Counter(terms)
    counter.scan(TEA)
    counter.press("1 PAY")
    order = counter.box.books.orders[counter.order_no]
    assert (order.intent.channel, order.routes) == ("wechat", ("wechat",))


ONE_EACH = msgspec.structs.replace(TERMS, gateway_wallets=("wechat", "alipay"), gateway_qr="wechat", lang="en")


@pytest.mark.parametrize(("keys", "wallet", "shown"), [("PAY", "wechat", "WeChat"), ("2 PAY", "alipay", "Alipay"),
                                                       ("4 PAY", "wechat", "WeChat"), ("300 PAY", "wechat", "WeChat")])
def test_where_a_qr_is_for_one_wallet_intent_and_screen_name_it(keys, wallet, shown):
    till = Till(ONE_EACH)
    till.basket()
    till.counter.press(keys)
    assert till.counter.box.books.orders[till.counter.order_no].intent.extras == (("wallet", wallet),)
    till.go()
    assert render(till.counter.box.books, till.counter.box.desk).title == f"Scan with {shown} to pay"


def test_another_route_keeps_the_customers_wallet_and_instalments():
    counter = Counter(msgspec.structs.replace(ONE_EACH, accounts=(SHOP, Account("alipay", "a"))))
    counter.scan(TEA)
    counter.tell(Scanned("TBC-FQ-6-SHOP-7Q4K"))
    counter.press("2 PAY")
    assert counter.box.books.orders[counter.order_no].intent.channel == "alipay"
    counter.mono_ms += 8_000
    counter.tell(Rang(("slow", counter.order_no)))
    counter.say(counter.order_no, Said.ABSENT)
    intent = counter.box.books.orders[counter.order_no].intent
    assert (intent.channel, dict(intent.extras)) == ("gateway", {"fee_payer": "shop", "instalments": "6", "wallet": "alipay"})


def test_a_code_names_its_wallet_itself():
    till = Till(ONE_EACH)
    till.basket()
    till.counter.press("CODE")
    till.counter.tell(Scanned(till.shop.server.code("alipay")))
    assert till.counter.box.books.orders[till.counter.order_no].intent.extras == ()


def test_an_empty_basket_is_said_before_anything_about_wallets():
    counter = Counter(msgspec.structs.replace(TERMS, gateway_wallets=("alipay",)))
    assert "empty" in counter.press("3 PAY").words[1]


def test_the_configuration_names_the_wallets():
    gateway = {"base_url": "https://pay.example.com", "wallets": ["wechat", "ecny"]}
    assert to_terms(parse(BOX | {"channel": {"gateway": gateway}})).gateway_wallets == ("wechat", "ecny")


# Refunds that end badly, and numbers that are taken

@pytest.mark.parametrize(("ends", "word"), [("abnormal", RefundWord.ABNORMAL), ("refused", RefundWord.REFUSED)])
def test_a_refund_that_failed_is_said_and_its_money_is_still_there(ends, word):
    shop = Shop()
    shop.paid()
    shop.rules.refund_ends, shop.rules.refund_after_ms = ends, 1_000
    assert shop.said(RefundOrder(BACK)).word is RefundWord.PROCESSING
    shop.now_s += 1
    assert [shop.said(effect).word for effect in (QueryRefund(BACK), RefundOrder(BACK))] == [word, word]
    assert shop.server.orders()[0]["refunded_fen"] == 0
    shop.rules.refund_ends = "done"
    again = msgspec.structs.replace(BACK, refund_no="0000012345000000030Z", amount_fen=900)
    assert shop.said(RefundOrder(again)).word is RefundWord.PROCESSING           # the whole is still there to be given back


def test_an_abnormal_refund_is_told_once_asked_on_and_done_when_the_gateway_says_so():
    till = Till()
    till.basket()
    till.counter.press("PAY")
    till.go()
    no = till.counter.order_no
    till.shop.server.scan(till.qr, "pay", wallet="alipay")
    till.go()
    till.shop.rules.refund_ends = "abnormal"
    till.counter.press("ENTER REFUND")
    till.counter.tell(Scanned(no))
    till.counter.press("ENTER")
    till.go(3)
    assert len(till.counter.box.books.refunds) == 1
    assert repr(till.counter.printed).count("Refund stuck") == 1
    next(iter(till.shop.rules._refunds.values()))[1].ends = "done"               # somebody paid it out by hand
    till.go()
    assert not till.counter.box.books.refunds and "退款凭证" in repr(till.counter.printed[-1].paper)


@pytest.mark.parametrize("first", [PlaceOrder(INTENT), ChargeCode(SHOWN, "")])
def test_a_number_taken_with_other_content_decides_nothing(first):
    """A box restored from an old card may make a number again: the box asks, and the answer is about another amount."""
    shop = Shop()
    if isinstance(first, ChargeCode):
        first = ChargeCode(SHOWN, shop.server.code())
    shop.said(first)
    other = msgspec.structs.replace(first, intent=msgspec.structs.replace(first.intent, amount_fen=901))
    if isinstance(other, ChargeCode):
        other = msgspec.structs.replace(other, code=shop.server.code())
    for effect in (other, CloseOrder(other.intent), QueryOrder(other.intent)):
        verdict = shop.verdict(effect)
        assert (verdict.word, bool(verdict.detail)) == ("unknown", True)
    assert shop.server.orders()[0]["state"] == ("paid" if isinstance(first, ChargeCode) else "open")


def test_a_refund_number_taken_with_other_content_refunds_nothing_more():
    shop = Shop()
    shop.paid()
    assert shop.said(RefundOrder(BACK)).word is RefundWord.DONE
    other = msgspec.structs.replace(BACK, amount_fen=500)
    assert shop.verdict(RefundOrder(other)).word == "unknown"
    assert shop.server.orders()[0]["refunded_fen"] == 300


def test_a_word_about_an_order_that_another_terminal_made_is_the_same():
    """Refunds at the next till: all terminals of a shop share its orders."""
    shop = Shop()
    shop.paid()
    other = Shop()
    other.server.rules = shop.rules
    assert isinstance(shop.rules, GatewayRules) and other.said(QueryOrder(INTENT)).said is Said.PAID
