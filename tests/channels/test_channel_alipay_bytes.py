"""Alipay's envelope: what is sent, what is signed, and which bytes of a reply are."""

from __future__ import annotations

import base64
import json
import time
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from device.drivers.channels import alipay_bytes as alipay
from device.drivers.channels.alipay_proof_bytes import number_of, pem_of
from device.drivers.channels.alipay_words_bytes import fen_of
from device.drivers.channels.codec_bytes import Reply
from device.txn.effects import Intent
from device.types import Account

SHOP = Account("alipay", "shop", (("appid", "2021000000000001"),))
TEA = Intent("T1", "alipay", SHOP, 5, "a/b=c&d", "2026-11-24T09:00:00.5+08:00", "2026-11-24T02:00:00Z")


def biz_of(request) -> dict:
    return json.loads(alipay.form_fields(request.body)["biz_content"])


@pytest.mark.parametrize(("fen", "text"), [(1, "0.01"), (100, "1.00"), (123456, "1234.56")])
def test_money_is_yuan_with_two_decimals(fen: int, text: str) -> None:
    assert alipay.yuan(fen) == text and fen_of(text) == fen


@pytest.mark.parametrize("text", ["1,00", "-1.00", "1.001", "1e3", "", " 1.00", "١.00", None, 1, 1.0])
def test_what_is_no_amount_is_none(text) -> None:
    assert fen_of(text) is None


def test_one_decimal_and_none_are_amounts() -> None:
    assert (fen_of("8.8"), fen_of("8")) == (880, 800)


def test_nothing_is_no_amount() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        alipay.yuan(0)


def test_times_are_beijings() -> None:
    assert alipay.beijing_time("2026-11-24T17:30:05.5Z") == "2026-11-25 01:30:05"
    with pytest.raises(ValueError, match="no offset"):
        alipay.beijing_time("2026-11-24T17:30:05")


def test_the_signed_text_is_sorted_unencoded_and_without_empty_fields() -> None:
    assert alipay.text_to_sign({"b": "奶 茶&", "sign": "x", "a": "1", "c": ""}) == "a=1&b=奶 茶&".encode()


def test_biz_content_stays_out_of_the_address() -> None:
    fields = alipay.form_fields(alipay.place_request(TEA).body)
    biz = ('{"out_trade_no":"T1","total_amount":"0.05","subject":"a b c d","product_code":"FACE_TO_FACE_PAYMENT",'
           '"time_expire":"2026-11-24 10:00:00"}')
    assert (fields["biz_content"], fields["timestamp"], fields["method"]) == (biz, "2026-11-24 09:00:00", "alipay.trade.precreate")
    sent = alipay.gateway_request(fields, "a+b=")
    query = parse_qs(urlsplit(sent.path).query)
    assert "biz_content" not in query and query["sign"] == ["a+b="]
    assert parse_qs(sent.body.decode()) == {"biz_content": [biz]}


@pytest.mark.parametrize(("payer", "percent"), [("shop", "100"), ("payer", "0")])
def test_instalments_name_months_and_who_bears_the_fee(payer: str, percent: str) -> None:
    plan = msgspec.structs.replace(TEA, extras=(("fee_payer", payer), ("instalments", "12")))
    for request in (alipay.place_request(plan), alipay.charge_request(plan, "281234567890123456")):
        assert biz_of(request)["extend_params"] == {"hb_fq_num": "12", "hb_fq_seller_percent": percent}
    with pytest.raises(ValueError, match="no plan of 24"):
        alipay.place_request(msgspec.structs.replace(TEA, extras=(("instalments", "24"),)))


def test_what_the_shop_settled_goes_along() -> None:
    fields = (("appid", "1"), ("notify_url", "https://a.example/n"), ("store_id", "S1"), ("sys_service_provider_id", "2088"))
    request = alipay.place_request(msgspec.structs.replace(TEA, account=Account("alipay", "shop", fields)))
    assert alipay.form_fields(request.body)["notify_url"] == "https://a.example/n"
    assert (biz_of(request)["store_id"], biz_of(request)["extend_params"]) == ("S1", {"sys_service_provider_id": "2088"})


def opened(body: bytes) -> alipay.Envelope:
    return alipay.opened(Reply(200, {}, body), alipay.QUERY)


@pytest.mark.parametrize("inner", [b'{}', b'{"a":"}{"}', rb'{"a":"\"}","b":"\\","u":"x\/y"}', b'{"a":{"b":[{"c":1}]}}',
                                   b'{"sign":"x","s":"\\",\\"sign\\":\\"y"}'])
@pytest.mark.parametrize("form", [b'{"alipay_trade_query_response":%b,"sign":"}\\/"}',
                                  b'{"sign":"}\\/","alipay_cert_sn":"c","alipay_trade_query_response":%b}',
                                  b' {"alipay_trade_query_response" : \n%b ,"alipay_cert_sn":"c" , "sign" : "}\\/" }\n'])
def test_the_inner_bytes_are_cut_whole(inner: bytes, form: bytes) -> None:
    envelope = opened(form % inner)
    assert (envelope.inner, envelope.sign, envelope.cert_sn) == (inner, "}/", "c" if b"cert" in form else "")


@pytest.mark.parametrize("body", [
    b"", b"<html>", b"[]", b'{"alipay_trade_close_response":{}}', b'{"alipay_trade_query_response":{"a":"}',
    b'{"alipay_trade_query_response":{}', b'{"alipay_trade_query_response":{}}x', b'{"alipay_trade_query_response":"{}"}',
    b'{"alipay_trade_query_response":{},"alipay_trade_query_response":{}}', b'{"alipay_trade_query_response":{},"sign":"\\q"}',
    b'{"alipay_trade_query_response":{},"error_response":{}}', b'{"alipay_trade_query_response":{},"sign":{}}',
    b'{"alipay_trade_query_response":{},"sign":1}', b'\x00\xff{[',
    b'{"alipay_trade_query_response":{},"sign":' + b'{"a":' * 40_000 + b"1" + b"}" * 40_001])
def test_another_answer_or_half_of_one_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        opened(body)


def test_a_string_without_an_end_costs_no_time() -> None:
    began_s = time.process_time()
    with pytest.raises(ValueError, match="ends inside"):
        opened(b'{"alipay_trade_query_response":{' + b'\\"' * 100_000)
    assert time.process_time() - began_s < 2                   # reading on behind each quote in turn took minutes


def test_a_refusal_before_the_call_is_known_by_its_name() -> None:
    assert opened(b'{"error_response":{"code":"40002"}}') == alipay.Envelope(b'{"code":"40002"}', error=True)


# Published bytes: what Alipay's own SDK for Node.js is tested with

SANDBOX_KEY = """
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA6kdjvWNCT+K3qQQgAyv+8k0+lkrL6+dA+cb9OAX5sZgIxP2ycK51VYxwZgZgHCIWCkB/l/Zqqhye/E6x/nNM
SqRkW3FGpP4/hKWByG3Ah8DXRcUaAvd8aCWHcBpgZqjBp3ADPTcHViI10cGe0mn13wGaIZQl6G74CtnY6YQJ/1NkoE+C9Z0VD4xor4oJOZW1/rbc85InBmjU87BWtxmk
IQWWVw+Vwd0EL8oDU9GWNZ1Se9sZf4UHxs+goHh3/JhQly3iKqlt/hgFsip78kvdeDwoL8gS6RCUi+Bp6j9Ee5Thd+CC61Ilk7iKiUQMMVn6+kdTGcV2XwUBezH2Go4d
lwIDAQAB
"""
SANDBOX_REPLY = (
    rb'{"alipay_offline_material_image_upload_response":{"code":"10000","msg":"Success","image_id":"akGwYYaFTai3r1uB0ww-1QAAACMAAQQD",'
    rb'"image_url":"https:\/\/oalipay-dl-django.alicdn.com\/rest\/1.0\/image?fileIds=akGwYYaFTai3r1uB0ww-1QAAACMAAQQD&zoom=original"},'
    b'"sign":"PAb3IueJzGe/pU/fRAPjwIs543Kc/A6D0rz03AMejwr8h8rDc6FhDJDnz3fGLDdQP7ctjtQwwJW3pmdZZcGmp4lb/5YYgtoK6McjnRr4ER/raJLYn1Ibpzko'
    b'whGow2esA/XeDblIAYUbZjU6ts0IqNncrZrCknDWHpaZXwGuaU7CUBk74xBeMeja7rEEkFlm9MRtiQNYnum/cGVtcDv/aQ8KkPyAD58oJiAzoXv0R6jFhlZtAWv+M0Sa'
    b'OlhTpZh1K6wlP+1Umiqdvqbc1oWdfpv75a+lGTkGHMy8K7/bnAGm20IRsisSv1B5rpJyeGfrVf6tb4MZ7vG4w0rS0c2hfA=="}')


def test_a_reply_that_alipay_once_signed_holds_with_its_escapes_untouched() -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    from device.drivers.channels.rsa_bytes import public_key

    envelope = alipay.opened(Reply(200, {}, SANDBOX_REPLY), "alipay.offline.material.image.upload")
    key = public_key(pem_of(SANDBOX_KEY.encode()))                    # bare base64, as the portal shows it
    key.verify(base64.b64decode(envelope.sign), envelope.inner, PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(envelope.sign), envelope.inner.replace(b"\\/", b"/"), PKCS1v15(), SHA256())


@pytest.mark.parametrize(("which", "serial", "number"), [
    ("Class 2 R1", 0x20200514E63C2FE04D538716FE21358B, "7513daaaa48aa3ba2e4018d84402479c"),
    ("Class 1 R1", 0x2020051862039D4090897BA4D51C2126, "866efef280dec9137a87d047ac446315")])
def test_published_certificate_numbers(which: str, serial: int, number: str) -> None:
    issuer = f"CN=Ant Financial Certification Authority {which},OU=Certification Authority,O=Ant Financial,C=CN"
    assert number_of(issuer, serial) == number
