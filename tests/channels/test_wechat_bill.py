"""WeChat's bill: asked for, fetched, held against its hash and its own sums, and read by the box."""

from __future__ import annotations

import msgspec
import pytest

from device.drivers.channels.wechat_bill_bytes import rows_of
from device.txn.effects import ChargeCode, CloseOrder, FetchBill, PlaceOrder, RefundIntent, RefundOrder
from sim.channels.keys import key_pair, platform
from tests.channels.test_wechat_codes import SHOP, TEA, Shop

BILL = FetchBill(SHOP, "2026-11-18")
QR = msgspec.structs.replace(TEA, way="qr", order_no="0000012345000000030Z", description="茶, 一杯`")


@pytest.fixture(scope="module")
def keys():
    return key_pair("merchant"), platform()


@pytest.fixture
def shop(keys):
    """A shop after a day: a code paid, a QR paid and partly refunded, a code paid and reversed; it is noon of the next."""
    shop = Shop(*keys)
    shop.charge()
    assert shop.rules.scan(shop.said(PlaceOrder(QR)).qr, "pay")["ok"]
    shop.said(RefundOrder(RefundIntent("0000012345000000040Z", QR.order_no, "wechat", SHOP, 300, 900, "退货", TEA.made_at)))
    undone = msgspec.structs.replace(TEA, order_no="0000012345000000050Z")
    shop.said(ChargeCode(undone, shop.server.code()))
    shop.said(CloseOrder(undone))
    shop.now_s += 26 * 3600
    return shop


def asked(shop, spoil=lambda reply: reply):
    """What the box is told of the bill; `spoil` touches the file on its way."""
    return shop.said(BILL, lambda n, reply: spoil(reply) if n else reply)


def test_the_bill_tells_what_was_paid_refunded_and_reversed(shop):
    bill = asked(shop)
    assert bill.ready and sorted((kind, no, refund, fen) for kind, no, refund, fen, _ in bill.rows) == [
        ("paid", "0000012345000000010Z", "", 900), ("paid", "0000012345000000030Z", "", 900),
        ("paid", "0000012345000000050Z", "", 900), ("refund", "0000012345000000030Z", "0000012345000000040Z", 300),
        ("refund", "0000012345000000050Z", "", 900)]


def test_a_bill_that_is_not_made_yet_is_waited_for(shop):
    shop.now_s -= 20 * 3600
    bill = asked(shop)
    assert not bill.ready and "not made yet" in bill.why


def test_a_day_without_trade_has_an_empty_bill_once_wechat_proves_it(keys):
    shop = Shop(*keys)
    shop.now_s += 26 * 3600
    assert (asked(shop).ready, asked(shop).rows) == (True, ())
    shop.server.fault("unsigned", call="bill")
    assert not asked(shop).ready


@pytest.mark.parametrize("spoil", [
    lambda r: msgspec.structs.replace(r, body=r.body[:-20]),
    lambda r: msgspec.structs.replace(r, body=b"<html>"),
    lambda r: msgspec.structs.replace(r, status=404),
])
def test_a_file_that_is_not_the_one_named_settles_nothing(shop, spoil):
    assert not asked(shop, spoil).ready


@pytest.mark.parametrize("kind", ["lying", "garbage", "page", "system_error", "busy", "down", "redirect", "signtest", "clock_off"])
def test_no_fault_makes_a_bill(shop, kind):
    shop.server.fault(kind, call="bill")
    assert not asked(shop).ready


def text(shop) -> str:
    return shop.rules.trade_bill("2026-11-18")[1].decode()


@pytest.mark.parametrize(("ends", "told"), [("SUCCESS", 5), ("PROCESSING", 5), ("ABNORMAL", 4), ("CLOSED", 4)])
def test_a_refund_that_failed_gave_nothing_back(shop, ends, told):
    """It stands in the bill and in its sums; whoever decides about the order must not take its money for returned."""
    (refund,) = (r for order in shop.rules._orders.values() for r in order.refunds)
    refund.status = ends
    bill = asked(shop)
    assert bill.ready and len(bill.rows) == told
    assert ("refund", QR.order_no) not in [row[:2] for row in bill.rows] or ends in ("SUCCESS", "PROCESSING")


@pytest.mark.parametrize(("change", "says"), [
    (lambda t: t.replace("`0.60%,`9.00", "`0.60%,`8.00", 1), "sums"),
    (lambda t: "\r\n".join(t.split("\r\n")[:1] + t.split("\r\n")[2:]), "sums"),
    (lambda t: t.replace("商户订单号", "别的"), "no column"),
    (lambda t: t.replace("`SUCCESS,`OTHERS", "`PENDING,`OTHERS", 1), "state"),
    (lambda t: t.replace("`CNY,`", "`CNY,", 1), "values"),
    (lambda t: "", "no header"),
])
def test_a_row_missing_altered_or_shifted_is_found(shop, change, says):
    assert len(rows_of(text(shop))) == 5
    with pytest.raises(ValueError, match=says):
        rows_of(change(text(shop)))


def test_other_line_ends_a_mark_and_commas_in_names_are_taken(shop):
    assert "茶, 一杯" in text(shop)
    assert rows_of("﻿" + text(shop).replace("\r\n", "\n")) == rows_of(text(shop))
