"""Alipay's envelope: what is sent, what is signed, and which bytes of a reply are."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from device.drivers import channel_alipay_bytes as alipay

QUERY = "alipay.trade.query"


@pytest.mark.parametrize(("fen", "text"), [(1, "0.01"), (100, "1.00"), (123456, "1234.56")])
def test_money_is_yuan_with_two_decimals(fen: int, text: str) -> None:
    assert alipay.yuan(fen) == text


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
    biz = alipay.place_biz(order_no="T1", amount_fen=5, description="a/b=c&d", expires_at="2026-11-24T10:00:00+08:00")
    assert biz == ('{"out_trade_no":"T1","total_amount":"0.05","subject":"a b c d","product_code":"FACE_TO_FACE_PAYMENT",'
                   '"time_expire":"2026-11-24 10:00:00"}')
    sent = alipay.gateway_request(alipay.parameters(method="m", app_id="9", at="2026-11-24T09:00:00+08:00", biz=biz), "a+b=")
    query = parse_qs(urlsplit(sent.path).query)
    assert "biz_content" not in query and query["sign"] == ["a+b="]
    assert parse_qs(sent.body.decode()) == {"biz_content": [biz]}


@pytest.mark.parametrize("inner", [b'{}', b'{"a":"}{"}', rb'{"a":"\"}","b":"\\","u":"x\/y"}', b'{"a":{"b":[{"c":1}]}}'])
def test_the_inner_bytes_are_cut_whole(inner: bytes) -> None:
    assert alipay.signed_bytes(b'{"alipay_trade_query_response":' + inner + b',"sign":"}"}', QUERY) == inner


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error_response":{"code":"40002"}}',
                                  b'{"alipay_trade_close_response":{}}', b'{"alipay_trade_query_response":{"a":"}'])
def test_another_answer_or_half_of_one_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="the reply"):
        alipay.signed_bytes(body, QUERY)
