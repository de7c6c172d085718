"""The local WeChat server against a client that others wrote: wechatpayv3 from PyPI, in both verification modes."""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json

import pytest

from sim.channels.keys import KeyPair, Platform, key_pair, platform
from sim.channels.wechat import WechatRules
from sim.channels.wechat_orders import BEIJING
from sim.channels.wechat_server import WechatServer

wechatpayv3 = pytest.importorskip("wechatpayv3")
NOW_S = int(datetime.datetime.now(datetime.UTC).timestamp())       # their client signs with the machine's own clock
API_V3_KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def keys() -> tuple[KeyPair, Platform]:
    return key_pair("merchant"), platform()


@pytest.fixture
def counter(keys, monkeypatch):
    merchant, theirs = keys
    rules = WechatRules(lambda: NOW_S * 1000)
    server = WechatServer(rules, merchant_public_pem=merchant.public_pem, merchant_serial=merchant.serial_no,
                          platform=theirs, api_v3_key=API_V3_KEY.encode())
    url = server.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield rules, server, url
    server.stop()


def client(keys, url, **more):
    merchant, _ = keys
    made = wechatpayv3.WeChatPay(
        wechatpay_type=wechatpayv3.WeChatPayType.NATIVE, mchid="1900000001", private_key=merchant.private_pem.decode(),
        cert_serial_no=merchant.serial_no, appid="wx0000000000000001", apiv3_key=API_V3_KEY,
        notify_url="https://shop.example/notify", timeout=(2, 5), **more)
    made._core._gate_way = url
    return made


def by_public_key(keys, url):
    theirs = keys[1]
    return client(keys, url, public_key=theirs.public.public_pem.decode(), public_key_id=theirs.key_id)


def test_their_client_sells_and_refunds(keys, counter):
    rules, _, url = counter
    shop = by_public_key(keys, url)
    status, said = shop.pay(description="奶茶", out_trade_no="B01T0001", amount={"total": 900, "currency": "CNY"})
    assert status == 200
    assert rules.scan(json.loads(said)["code_url"], "pay")["ok"]
    status, said = shop.query(out_trade_no="B01T0001")
    assert (status, json.loads(said)["trade_state"]) == (200, "SUCCESS")
    status, said = shop.query(transaction_id=json.loads(said)["transaction_id"])
    assert (status, json.loads(said)["out_trade_no"]) == (200, "B01T0001")
    status, said = shop.refund(out_refund_no="R0001", out_trade_no="B01T0001", reason="return",
                               amount={"refund": 300, "total": 900, "currency": "CNY"})
    assert (status, json.loads(said)["status"]) == (200, "PROCESSING")
    status, said = shop.query_refund("R0001")
    assert (status, json.loads(said)["amount"]["refund"]) == (200, 300)
    assert rules.orders() == [{"channel": "wechat", "order_no": "B01T0001", "amount_fen": 900, "captured_fen": 900,
                               "refunded_fen": 300, "state": "part_refunded"}]


def test_their_client_charges_and_reverses_a_code_by_v3(keys, counter):
    rules, server, url = counter
    shop = by_public_key(keys, url)
    codepay = wechatpayv3.WeChatPayType.CODEPAY
    scene = {"device_ip": "127.0.0.1", "store_info": {"out_id": "A1"}}
    status, said = shop.pay(description="奶茶", out_trade_no="B01T0009", amount={"total": 900}, payer={"auth_code": server.code()},
                            scene_info=scene, pay_type=codepay)
    assert (status, json.loads(said)["trade_state"], json.loads(said)["trade_type"]) == (200, "SUCCESS", "MICROPAY")
    status, said = shop.codepay_reverse("B01T0009")
    assert (status, json.loads(said)["out_trade_no"]) == (200, "B01T0009")
    assert json.loads(shop.query(out_trade_no="B01T0009")[1])["trade_state"] == "REVOKED"
    slow = server.code()
    server.code_outcome(slow, "slow")
    status, said = shop.pay(description="tea", out_trade_no="B01T0010", amount={"total": 1}, payer={"auth_code": slow},
                            scene_info=scene, pay_type=codepay)
    assert (status, json.loads(said)) == (200, {"trade_state": "USERPAYING"})
    status, said = shop.pay(description="tea", out_trade_no="B01T0011", amount={"total": 1}, payer={"auth_code": slow},
                            pay_type=codepay)
    assert (status, json.loads(said)["detail"]["field"]) == (400, "/scene_info")


SUB = "1900000109"


def test_their_client_sells_and_refunds_as_a_service_provider(keys, counter):
    rules, server, url = counter
    server.rules = rules = WechatRules(lambda: NOW_S * 1000, subs={SUB: "wx0000000000000109"})
    shop = client(keys, url, partner_mode=True, public_key=keys[1].public.public_pem.decode(), public_key_id=keys[1].key_id)
    status, said = shop.pay(description="奶茶", out_trade_no="B01T0007", amount={"total": 900}, sub_mchid=SUB,
                            sub_appid="wx0000000000000109")
    assert status == 200
    assert rules.scan(json.loads(said)["code_url"], "pay")["ok"]
    status, said = shop.query(out_trade_no="B01T0007", sub_mchid=SUB)
    assert (status, json.loads(said)["trade_state"], json.loads(said)["sub_mchid"]) == (200, "SUCCESS", SUB)
    assert "mchid" not in json.loads(said)
    status, said = shop.refund(out_refund_no="R0007", out_trade_no="B01T0007", sub_mchid=SUB,
                               amount={"refund": 300, "total": 900, "currency": "CNY"})
    assert (status, json.loads(said)["status"]) == (200, "PROCESSING")
    assert shop.query_refund("R0007", sub_mchid=SUB)[0] == 200
    shop.pay(description="tea", out_trade_no="B01T0008", amount={"total": 1}, sub_mchid=SUB)
    assert shop.close("B01T0008", sub_mchid=SUB)[0] == 204
    for stranger, code in (("1900000199", "NO_AUTH"), ("1900000001", "INVALID_REQUEST")):
        assert json.loads(shop.query(out_trade_no="B01T0007", sub_mchid=stranger)[1])["code"] == code


def test_their_client_accepts_the_signed_empty_204(keys, counter):
    rules, _, url = counter
    shop = by_public_key(keys, url)
    shop.pay(description="tea", out_trade_no="B01T0002", amount={"total": 1})
    status, said = shop.close("B01T0002")
    assert status == 204
    assert not said
    assert rules.orders()[0]["state"] == "closed"
    status, said = shop.close("B01T0404")
    assert (status, json.loads(said)["code"]) == (404, "ORDER_NOT_EXIST")


def test_their_client_rejects_our_liar(keys, counter):
    _, server, url = counter
    server.fault("lying")
    with pytest.raises(Exception, match="signature"):
        by_public_key(keys, url).pay(description="tea", out_trade_no="B01T0003", amount={"total": 1})


def test_their_client_opens_our_platform_certificate(keys, counter):
    _, server, url = counter
    server.certificates = True
    shop = by_public_key(keys, url)
    shop._core._public_key = shop._core._public_key_id = None       # from now on a merchant without the public key
    shop._core._update_certificates()
    assert [f"{c.serial_number:040X}" for c in shop._core._certificates] == [keys[1].certificate.serial_no]
    status, _ = shop.pay(description="tea", out_trade_no="B01T0005", amount={"total": 1})
    assert status == 200
    server.listed.append(key_pair("next"))                           # a rotation: their client asks for the list by itself
    assert shop.query(out_trade_no="B01T0005")[0] == 200
    assert [f"{c.serial_number:040X}" for c in shop._core._certificates] == [pair.serial_no for pair in server.listed]


def test_a_public_key_merchant_has_no_certificates(keys, counter):
    _, _, url = counter
    shop = by_public_key(keys, url)
    status, said = shop._core.request("/v3/certificates")
    assert (status, json.loads(said)["code"]) == (404, "RESOURCE_NOT_EXISTS")


def test_their_client_fetches_the_bill(keys):
    merchant, theirs = keys
    now_ms = [(NOW_S - 2 * 86_400) * 1000]
    rules = WechatRules(lambda: now_ms[0])
    server = WechatServer(rules, merchant_public_pem=merchant.public_pem, merchant_serial=merchant.serial_no,
                          platform=theirs)
    shop = by_public_key(keys, server.start())
    try:
        day = datetime.datetime.fromtimestamp(now_ms[0] / 1000, BEIJING).strftime("%Y-%m-%d")
        _, said = shop.pay(description="奶茶", out_trade_no="B01T0006", amount={"total": 901})
        rules.scan(json.loads(said)["code_url"], "pay")
        shop.refund(out_refund_no="R0006", out_trade_no="B01T0006",
                    amount={"refund": 100, "total": 901, "currency": "CNY"})
        assert json.loads(shop.trade_bill(day)[1])["code"] == "STATEMENT_CREATING"
        now_ms[0] += 2 * 86_400_000
        status, said = shop.trade_bill(day)
        assert status == 200
        # Files come unsigned, which their client refuses: so it signs the question and leaves the answer unchecked.
        path = json.loads(said)["download_url"].removeprefix(server.url)
        status, packed = shop._core.request(path, skip_verify=True)
        table = gzip.decompress(packed)
        assert hashlib.sha1(table).hexdigest() == json.loads(said)["hash_value"]
        head, sale, refund, sums_head, sums, _ = table.decode().split("\r\n")
        assert len(head.split(",")) == len(sale.split(",`")) == len(refund.split(",`")) == 27
        row = dict(zip(head.split(","), sale[1:].split(",`"), strict=True))
        assert (row["商户订单号"], row["订单金额"], row["手续费"]) == ("B01T0006", "9.01", "0.05406")
        row = dict(zip(head.split(","), refund[1:].split(",`"), strict=True))
        assert (row["商户退款单号"], row["申请退款金额"], row["手续费"]) == ("R0006", "1.00", "-0.00600")
        assert len(sums_head.split(",")) == 7
        assert sums == "`2,`9.01,`1.00,`0.00,`0.04806,`9.01,`1.00"
        assert json.loads(shop.trade_bill("2020-01-01")[1])["code"] == "INVALID_REQUEST"
    finally:
        server.stop()
