"""A service provider's account: its keys sign, its shop's numbers stand in every call; another shop's order is none of ours."""

from __future__ import annotations

import json

import msgspec
import pytest

from device.drivers.channels import wechat_bytes as wire
from device.txn.effects import (
    ChargeCode,
    CloseOrder,
    FetchBill,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundIntent,
    RefundOrder,
)
from device.txn.inputs import QrReady, RefundWord, Said
from device.types import Account
from sim.channels.keys import key_pair, platform
from sim.channels.wechat import WechatRules
from tests.channels.test_wechat_codes import SHOP, TEA, Shop

SUBS = {"1900000109": "wx0000000000000109", "1900000110": ""}
OURS = Account("wechat", "shop", (*SHOP.fields, ("sub_appid", "wx0000000000000109"), ("sub_mchid", "1900000109")))
THEIRS = Account("wechat", "shop", (*SHOP.fields, ("sub_mchid", "1900000110")))
CODE = msgspec.structs.replace(TEA, account=OURS)
QR = msgspec.structs.replace(CODE, way="qr", order_no="0000012345000000030Z")
BACK = RefundIntent("0000012345000000040Z", QR.order_no, "wechat", OURS, 300, 900, "退货", TEA.made_at)


@pytest.fixture(scope="module")
def keys():
    return key_pair("provider"), platform()


@pytest.fixture
def shop(keys):
    made = Shop(*keys)
    made.rules = made.server.rules = WechatRules(lambda: int(made.now_s * 1000), subs=SUBS)
    return made


def theirs(intent):
    return msgspec.structs.replace(intent, account=THEIRS)


def test_a_sale_and_its_refund_for_a_shop(shop):
    shop.rules.scan(shop.said(PlaceOrder(QR)).qr, "pay")
    paid = shop.said(QueryOrder(QR))
    assert (paid.said, paid.amount_fen) == (Said.PAID, 900)
    assert shop.said(QueryRefund(BACK)).word is RefundWord.ABSENT
    assert shop.said(RefundOrder(BACK)).word is RefundWord.PROCESSING
    shop.now_s += 60
    assert shop.said(QueryRefund(BACK)).word is RefundWord.DONE
    created, *asked = [(seen.path, json.loads(seen.body or b"{}")) for seen in shop.server.seen]
    assert created[0] == "/v3/pay/partner/transactions/native"
    assert {name: created[1].get(name) for name in ("sp_appid", "sp_mchid", "sub_appid", "sub_mchid", "appid", "mchid")} == {
        "sp_appid": "wx0000000000000001", "sp_mchid": "1900000001", "sub_appid": "wx0000000000000109", "sub_mchid": "1900000109",
        "appid": None, "mchid": None}
    assert asked[0][0] == (f"/v3/pay/partner/transactions/out-trade-no/{QR.order_no}?sp_mchid=1900000001&sub_mchid=1900000109")
    assert asked[1][0] == f"/v3/refund/domestic/refunds/{BACK.refund_no}?sub_mchid=1900000109"
    assert asked[2][1]["sub_mchid"] == "1900000109"


def test_an_unpaid_order_of_a_shop_is_closed(shop):
    assert isinstance(shop.said(PlaceOrder(QR)), QrReady)
    assert [shop.said(effect(QR)).said for effect in (CloseOrder, QueryOrder)] == [Said.CLOSED] * 2
    assert json.loads(shop.server.seen[1].body) == {"sp_mchid": "1900000001", "sub_mchid": "1900000109"}


def test_a_shops_payer_is_charged_and_given_back_by_v2(shop):
    assert shop.said(ChargeCode(CODE, shop.server.code())).said is Said.PAID
    assert shop.said(QueryOrder(CODE)).said is Said.PAID
    assert b"<sub_mch_id><![CDATA[1900000109]]></sub_mch_id>" in shop.server.seen[0].body
    assert shop.said(CloseOrder(theirs(CODE))).said is Said.UNKNOWN
    assert shop.said(CloseOrder(CODE)).said is Said.GIVEN_BACK
    assert shop.rules.orders()[0]["state"] == "reversed"


def test_a_shops_payer_is_charged_and_given_back_by_v3(keys):
    shop = Shop(*keys, api_v2_key="", code_api="v3")
    shop.rules = shop.server.rules = WechatRules(lambda: int(shop.now_s * 1000), subs=SUBS)
    ours, other = (msgspec.structs.replace(TEA, account=Account("wechat", "shop", (*account.fields, ("code_api", "v3"))))
                   for account in (OURS, THEIRS))
    assert shop.said(ChargeCode(ours, shop.server.code())).said is Said.PAID
    charged = json.loads(shop.server.seen[0].body)
    assert (shop.server.seen[0].path, charged["sub_mchid"], charged["scene_info"]["store_info"]) == (
        "/v3/pay/partner/transactions/codepay", "1900000109", {"out_id": "1900000109"})
    assert shop.said(CloseOrder(other)).said is Said.UNKNOWN
    assert shop.said(CloseOrder(ours)).said is Said.GIVEN_BACK
    assert shop.rules.orders()[0]["state"] == "reversed"


def test_another_shops_order_under_the_same_provider_is_none_of_ours(shop):
    shop.rules.scan(shop.said(PlaceOrder(QR)).qr, "pay")
    for effect in (QueryOrder(theirs(QR)), CloseOrder(theirs(QR)), PlaceOrder(theirs(QR))):
        assert shop.said(effect).said is Said.UNKNOWN
    assert shop.said(RefundOrder(msgspec.structs.replace(BACK, account=THEIRS))).word is RefundWord.UNKNOWN
    assert shop.rules.orders()[0]["refunded_fen"] == 0


def test_a_reply_about_another_shop_is_a_lie(shop):
    """Proven by WeChat's own key, and of another merchant than asked for: it decides nothing."""
    shop.rules.scan(shop.said(PlaceOrder(QR)).qr, "pay")
    shop.rules.merchants.told = lambda sub, apps=True: {"sp_mchid": "1900000001", "sub_mchid": "1900000110"}
    answer = shop.said(QueryOrder(QR))
    assert (answer.said, answer.detail) == (Said.UNKNOWN, "WeChat answered about another order")


def test_a_direct_merchant_and_a_provider_are_not_mistaken_for_each_other(shop, keys):
    direct = msgspec.structs.replace(QR, account=SHOP)
    assert shop.said(PlaceOrder(direct)).said is Said.REFUSED
    other = Shop(*keys)
    assert other.said(PlaceOrder(QR)).said is Said.REFUSED and other.said(QueryOrder(QR)).said is Said.UNKNOWN


@pytest.mark.parametrize("more", [{"sub_mchid": "", "sub_appid": "wx1"}, {"sub_mchid": "1900000001"}])
def test_numbers_that_cannot_belong_together_send_nothing(shop, more):
    account = Account("wechat", "shop", tuple(sorted((dict(SHOP.fields) | more).items())))
    for intent in (msgspec.structs.replace(QR, account=account), msgspec.structs.replace(CODE, account=account)):
        effect = PlaceOrder(intent) if intent.way == "qr" else ChargeCode(intent, "134567890123456789")
        with pytest.raises(ValueError, match="sub_"):
            shop.codec.request(effect)
    assert not shop.server.seen


def test_the_bill_is_the_shops_own(shop):
    for intent in (QR, msgspec.structs.replace(theirs(QR), order_no="0000012345000000050Z")):
        shop.rules.scan(shop.said(PlaceOrder(intent)).qr, "pay")
    shop.now_s += 26 * 3600
    assert [row[1] for row in shop.said(FetchBill(OURS, "2026-11-18")).rows] == [QR.order_no]
    assert [row[1] for row in shop.said(FetchBill(THEIRS, "2026-11-18")).rows] == ["0000012345000000050Z"]
    wrong = shop.rules.trade_bill("2026-11-18", "1900000110")
    shop.rules.trade_bill = lambda day, sub: wrong
    said = shop.said(FetchBill(OURS, "2026-11-18"))
    assert not said.ready and "another merchant's" in said.why


def test_a_direct_merchants_bytes_are_what_they_were():
    fields = {"appid": "a", "mchid": "1"}
    assert wire.close_request(order_no="A", fields=fields).body == b'{"mchid":"1"}'
    assert wire.refund_query_request(refund_no="R", fields=fields).path == "/v3/refund/domestic/refunds/R"
    assert wire.bill_request(day="2026-11-18", fields=fields).path == (
        "/v3/bill/tradebill?bill_date=2026-11-18&bill_type=ALL&tar_type=GZIP")
