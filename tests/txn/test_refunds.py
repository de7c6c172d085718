"""Refunds, told as stories: whose money, by which number, to which account."""

from __future__ import annotations

import msgspec
import pytest

from device.txn.inputs import (
    Recalled,
    RefundSaid,
    RefundWord,
    Said,
    Scanned,
)
from device.txn.numbers import order_number
from tests.counter import COLA, TEA, TERMS, Counter, counter_paying


def test_a_refund_keeps_its_number_until_the_channel_confirms():
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    counter.say(no, Said.PAID, 500)
    (refund,) = counter.wants("RefundOrder")
    counter.tell(RefundSaid(refund, RefundWord.UNKNOWN))
    assert counter.wants("RefundOrder") == {refund}
    counter.tell(RefundSaid(refund, RefundWord.PROCESSING))
    assert counter.wants("QueryRefund") == {refund} and not counter.wants("RefundOrder")
    counter.tell(RefundSaid(refund, RefundWord.DONE))
    assert not counter.box.books.refunds and not counter.box.books.orders


def test_refund_by_scanning_the_receipt_whole_and_part():
    counter, no = counter_paying(TEA, COLA)
    counter.say(no, Said.PAID, 750)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("250 ENTER")
    (first,) = counter.wants("RefundOrder")
    counter.tell(RefundSaid(first, RefundWord.DONE))
    counter.press("REFUND")
    counter.tell(Scanned(no))
    assert counter.press("501 ENTER").refused                # more than is left
    counter.press("ENTER")
    (second,) = counter.wants("RefundOrder")
    assert second != first and counter.box.books.refunds[second].intent.amount_fen == 500
    counter.tell(RefundSaid(second, RefundWord.DONE))
    counter.press("REFUND")
    assert counter.tell(Scanned(no)).refused
    assert counter.box.books.chain.refunds_fen == 750


def test_refund_of_an_older_sale_comes_from_the_index_with_what_was_given_back():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("200 ENTER")
    (refund,) = counter.wants("RefundOrder")
    counter.tell(RefundSaid(refund, RefundWord.DONE))
    counter.box.books.sales.clear()                          # long ago
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.tell(Recalled(no, tuple(counter.journal.recall(no))))
    counter.press("ENTER")
    (refund,) = counter.wants("RefundOrder")
    assert counter.box.books.refunds[refund].intent.amount_fen == 300


def test_a_receipt_of_another_box_is_refused_in_one_sentence():
    counter = Counter()
    counter.press("REFUND")
    assert counter.tell(Scanned(order_number("000002", "ZZZZ", 7))).refused


def test_a_refund_that_failed_leaves_its_money_in_the_index():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("ENTER")
    (refund,) = counter.wants("RefundOrder")
    counter.tell(RefundSaid(refund, RefundWord.REFUSED))
    counter.journal.sync()
    counter.box.books.sales.clear()
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.tell(Recalled(no, tuple(counter.journal.recall(no))))
    counter.press("ENTER")
    assert len(counter.wants("RefundOrder")) == 1 and counter.wants("RefundOrder") != {refund}


def test_an_abnormal_refund_keeps_its_number_and_bars_a_second_one():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("200 ENTER")
    (refund,) = counter.wants("RefundOrder")
    counter.tell(RefundSaid(refund, RefundWord.PROCESSING), RefundSaid(refund, RefundWord.ABNORMAL))
    assert counter.wants("QueryRefund") == {refund}
    counter.press("REFUND")
    counter.tell(Scanned(no))
    assert counter.press("ENTER").refused and len(counter.box.books.refunds) == 1


def test_a_sale_too_old_for_its_channel_is_refused_in_one_sentence():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.wall = "2027-09-03T10:00:00+08:00"
    counter.press("REFUND")
    counter.tell(Scanned(no))
    verdict = counter.press("ENTER")
    assert verdict.refused and "365" in verdict.words[1] and not counter.box.books.refunds


MOVED = msgspec.structs.replace(TERMS, accounts=(msgspec.structs.replace(TERMS.accounts[0], account="wechat:1900000002"),))


# As release 0.1.0 wrote it before a tender kept its account.
OLD_SALE = (b'[["boot1",0,"2026-09-01T10:00:00+08:00","ntp"],[{"type":"SaleClosed","sale":{'
            b'"order_no":"000001APJA00000001K6","lines":[{"gtin":"6902538004045","name_zh":"x","name_en":"Mizone",'
            b'"qty_milli":1000,"price_fen":500,"amount_fen":500,"unit":"piece"}],"tenders":[{"method":"wechat","amount_fen":500,"order_no":"000001APJA00000001K6","channel_no":"4200000001"}],'
            b'"amount_fen":500,"cashier":"01","at":"2026-09-01T10:00:00+08:00","tendered_fen":0,"change_fen":0,"refunded_fen":0,'
            b'"parts":0,"returned":{}},"day":"2026-09-01","minted":true},{"type":"ReceiptDue","job":1,"kind":"sale",'
            b'"ref":"000001APJA00000001K6","paper":[]}]]')


@pytest.mark.parametrize("long_ago", [False, True])
def test_a_refund_goes_to_the_account_that_was_paid_whatever_was_configured_since(long_ago):
    from device.txn.inputs import Configured
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.tell(Configured(MOVED))
    if long_ago:
        counter.box.books.sales.clear()
    counter.press("REFUND")
    counter.tell(Scanned(no))
    if long_ago:
        counter.tell(Recalled(no, tuple(counter.journal.recall(no))))
    counter.press("ENTER")
    (refund,) = counter.box.books.refunds.values()
    assert refund.intent.account == TERMS.accounts[0] != MOVED.accounts[0]
    (tender,) = counter.box.books.sales[no].tenders
    assert (tender.channel_no, tender.made_at) == ("4200000001", "2026-09-01T10:00:00+08:00")


def test_a_sale_of_an_older_release_is_refunded_by_todays_account():
    counter, no = Counter(MOVED), "000001APJA00000001K6"
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.tell(Recalled(no, (OLD_SALE,)))
    counter.press("ENTER")
    (refund,) = counter.box.books.refunds.values()
    assert refund.intent.account == MOVED.accounts[0]
