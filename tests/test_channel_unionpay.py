"""Our UnionPay codec against the local rules, over the real bytes; every clock moved by hand."""

from __future__ import annotations

import datetime

import msgspec
import pytest

from device.drivers.channel_bytes import Reply
from device.drivers.channel_https import told
from device.drivers.channel_unionpay import UnionpayCodec
from device.txn.effects import (
    ChargeCode,
    CloseOrder,
    Intent,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundIntent,
    RefundOrder,
)
from device.txn.inputs import QrReady, RefundWord, Said
from device.types import Account
from sim.channels.keys import key_pair
from sim.channels.server import LOST
from sim.channels.unionpay import UnionpayRules
from sim.channels.unionpay_server import Authority, UnionpayServer

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
MERCHANT = "777290058110048"
SHOP = Account("unionpay", "shop", (("mchid", MERCHANT), ("termId", "BOX00001")))
TEA = Intent("0000012345000000010Z", "unionpay", SHOP, 900, "tea", "2026-11-18T10:26:40.123+08:00", "2026-11-18T10:31:40+08:00")
CODE = msgspec.structs.replace(TEA, way="code", order_no="0000012345000000011Z")
HARMLESS = {"slow", "duplicate", "duplicate_reply", "rotated", "odd_values"}
DEFINITE = {Said.PAID, Said.CLOSED, Said.REFUSED, Said.GIVEN_BACK, RefundWord.DONE, RefundWord.REFUSED, RefundWord.ABNORMAL}


class Shop:
    """One codec and one server on one clock, joined without a line."""

    def __init__(self, merchant, theirs, stranger) -> None:
        self.now_s = START_S
        self.rules = UnionpayRules(lambda: int(self.now_s * 1000), MERCHANT)
        self.server = UnionpayServer(self.rules, merchant_public_pem=merchant.public_pem, authority=theirs, stranger=stranger,
                                     now_s=lambda: self.now_s)
        self.codec = UnionpayCodec(account="shop", private_key_pem=merchant.private_pem, cert_id="68759663125",
                                   trust_pem=theirs.root_pem.encode(), now_s=lambda: self.now_s)

    def said(self, effect):
        """The answer of `effect` with all that follows, None when the line brought none."""
        request = self.codec.request(effect)
        while True:
            answer = self.server.exchange(request.method, request.path, request.headers, request.body)
            if answer.kind in LOST:
                return None
            verdict = self.codec.read(effect, Reply(answer.status, {}, answer.body))
            if verdict.follow is None:
                return told(effect, verdict)
            request = self.codec.sealed(effect, verdict.follow)

    def charge(self, outcome="pay"):
        code = self.server.code()
        self.server.code_outcome(code, outcome)
        return self.said(ChargeCode(CODE, code))

    def paid(self):
        assert self.server.scan(self.said(PlaceOrder(TEA)).qr, "pay")["ok"]
        return self.said(QueryOrder(TEA))

    def back(self):
        number = self.said(QueryOrder(TEA)).channel_no
        return RefundIntent("0000012345000000020Z", TEA.order_no, "unionpay", SHOP, 300, 900, "back",
                            "2026-11-18T10:28:00+08:00", number)


@pytest.fixture(scope="module")
def keys():
    return key_pair("merchant"), Authority(START_S), Authority(START_S)


@pytest.fixture
def shop(keys):
    return Shop(*keys)


def test_an_order_is_absent_then_open(shop):
    assert shop.said(QueryOrder(TEA)).said is Said.ABSENT
    assert isinstance(shop.said(PlaceOrder(TEA)), QrReady)
    assert shop.said(QueryOrder(TEA)).said in (Said.OPEN, Said.UNKNOWN)


def test_a_scanned_qr_is_paid_and_refunded_by_its_query_number(shop):
    paid = shop.paid()
    assert (paid.said, paid.amount_fen) == (Said.PAID, 900) and paid.channel_no
    back = shop.back()
    assert shop.said(RefundOrder(back)).word in (RefundWord.PROCESSING, RefundWord.DONE)
    shop.now_s += 60
    assert shop.said(QueryRefund(back)).word is RefundWord.DONE
    assert [o["refunded_fen"] for o in shop.rules.orders()] == [300]


def test_a_charged_code_is_accepted_first_and_paid_when_asked(shop):
    assert shop.charge().said in (Said.OPEN, Said.UNKNOWN)                # 00 on 01/06 is accepted, never paid
    assert shop.said(QueryOrder(CODE)).said is Said.PAID


def test_an_undo_never_takes_an_unscanned_qr_for_dead(shop):
    shop.said(PlaceOrder(TEA))
    assert shop.said(CloseOrder(TEA)).said is Said.UNKNOWN


def test_a_retry_is_the_same_bytes_whenever_it_is_made(shop):
    code = shop.server.code()
    before = [shop.codec.request(e) for e in (PlaceOrder(TEA), QueryOrder(TEA), ChargeCode(CODE, code))]
    shop.now_s += 600
    assert before == [shop.codec.request(e) for e in (PlaceOrder(TEA), QueryOrder(TEA), ChargeCode(CODE, code))]


@pytest.mark.parametrize("call", ["place", "charge", "query", "refund"])
@pytest.mark.parametrize("kind", sorted(set(UnionpayServer.faults) - HARMLESS))
def test_no_fault_becomes_a_definite_word(shop, kind, call):
    back = None
    if call in ("query", "refund"):
        shop.paid()
        back = shop.back()
    shop.server.fault(kind, call=call)
    answer = {"place": lambda: shop.said(PlaceOrder(TEA)), "charge": shop.charge, "query": lambda: shop.said(QueryOrder(TEA)),
              "refund": lambda: shop.said(RefundOrder(back))}[call]()
    word = getattr(answer, "said", None) or getattr(answer, "word", None)
    assert answer is None or word not in DEFINITE, answer
    assert not isinstance(answer, QrReady) or kind in ("wrong_amount",), answer


@pytest.mark.parametrize("kind", ["rotated", "odd_values"])
def test_a_good_answer_of_an_unusual_shape_is_taken(shop, kind):
    shop.paid()
    shop.server.fault(kind, call="query")
    assert shop.said(QueryOrder(TEA)).said is Said.PAID
