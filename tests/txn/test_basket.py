"""The basket, cash and held baskets, told as stories."""

from __future__ import annotations

import msgspec
import pytest

from device.config import parse
from device.daemon import to_driven
from device.goods import CAUSES
from device.txn import facts as wire
from device.txn.folding import evolve
from device.txn.inputs import (
    KEYS,
    DeviceSaid,
    Said,
    Scanned,
)
from device.txn.show import render
from device.txn.wants import wants
from device.txn.words import say
from tests.counter import APPLES, COLA, TEA, TERMS, Counter, counter_paying, records


def test_the_same_code_again_adds_one_more():
    counter = Counter()
    counter.scan(COLA, 3)
    assert [(x.qty_milli, x.amount_fen) for x in counter.box.books.basket.lines] == [(3000, 750)]


def test_weighed_goods_stand_on_lines_of_their_own():
    counter = Counter()
    counter.scan(APPLES, 2)
    assert [x.amount_fen for x in counter.box.books.basket.lines] == [655, 655]


def test_quantity_key_counts_for_one_scan_only():
    counter = Counter()
    counter.press("12 QTY")
    counter.scan(COLA)
    counter.scan(TEA)
    assert [x.qty_milli for x in counter.box.books.basket.lines] == [12000, 1000]


@pytest.mark.parametrize("cause", CAUSES)
def test_why_a_code_is_no_goods_is_told_in_words(cause):
    counter = Counter()
    verdict = counter.tell(Scanned("6901234567890", None, "", cause))
    assert verdict.refused and not verdict.facts and verdict.words == say(f"unknown_{cause or 'code'}", code="6901234567890")


def test_unknown_code_is_shown_and_changes_nothing():
    counter = Counter()
    before = len(counter.journal.durable) + len(counter.journal.waiting_rows)
    verdict = counter.tell(Scanned("6900000000007"))
    assert verdict.refused and "6900000000007" in verdict.words[1]
    assert len(counter.journal.durable) + len(counter.journal.waiting_rows) == before


def test_a_payment_code_scanned_while_idle_is_not_repeated():
    verdict = Counter().tell(Scanned("134567890123456789"))
    assert verdict.refused and "13456" not in "".join(verdict.words)


def test_void_takes_the_last_line_or_the_named_one():
    counter = Counter()
    for found in (TEA, COLA, APPLES):
        counter.scan(found)
    counter.press("1 VOID VOID")
    assert [x.gtin for x in counter.box.books.basket.lines] == [COLA.item.gtin]
    assert [r["reason"] for r in records(counter) if r["kind"] == "void"] == ["line", "line"]


def test_cash_rounding_is_a_line_of_its_own():
    counter = Counter(msgspec.structs.replace(TERMS, cash_round_fen=10))
    counter.scan(APPLES)
    counter.press("CASH")
    (sale,) = counter.box.books.sales.values()
    assert [(t.method, t.amount_fen) for t in sale.tenders] == [("cash", 650), ("rounding", 5)]
    assert sale.amount_fen == 655


def test_split_of_cash_and_wallet():
    counter = Counter()
    counter.scan(TEA, 2)
    counter.press("300 CASH")
    no = counter.pay()
    assert counter.box.books.orders[no].intent.amount_fen == 700
    counter.say(no, Said.PAID, 700)
    (sale,) = counter.box.books.sales.values()
    assert [(t.method, t.amount_fen) for t in sale.tenders] == [("cash", 300), ("wechat", 700)]


def test_hold_and_recall_survive_a_power_cut():
    counter = Counter()
    counter.scan(TEA, 2)
    counter.press("HOLD")
    counter.cut_power()
    assert counter.phase == "IDLE"
    slip = next(p for p in counter.printed[-1].paper if type(p).__name__ == "Barcode").text
    counter.tell(Scanned(slip))
    assert counter.box.books.basket.total_fen == 1000 and not counter.box.books.held


def test_a_whole_sale_takes_a_scanner_and_one_key_for_cash():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH")
    assert counter.phase == "PAID"


def test_training_is_written_on_paper_and_screen():
    counter = Counter(msgspec.structs.replace(TERMS, training=True))
    counter.scan(TEA)
    counter.press("CASH")
    assert render(counter.box.books, counter.box.desk).training
    assert sum("TRAINING" in getattr(p, "text", "") for p in counter.printed[0].paper) == 2


@pytest.mark.parametrize("key", KEYS)
def test_any_key_at_any_time_is_answered(key):
    does = {"scan": lambda c: c.scan(TEA), "pay": lambda c: c.pay(), "cancel": lambda c: c.press("CANCEL"),
            "cash": lambda c: c.press("CASH")}
    for prepare in ([], ["scan"], ["scan", "pay"], ["scan", "pay", "cancel"], ["scan", "cash"]):
        counter = Counter()
        for step in prepare:
            does[step](counter)
        counter.press(key)
        assert wants(counter.box.books, counter.box.desk) >= counter.running


def test_part_payments_that_cover_the_basket_after_a_void_close_it():
    counter = Counter()
    counter.scan(TEA)
    counter.scan(COLA)
    counter.press("500 CASH")
    counter.press("VOID")
    counter.press("CASH")
    (sale,) = counter.box.books.sales.values()
    assert (sale.amount_fen, sale.change_fen, [t.amount_fen for t in sale.tenders]) == (500, 0, [500])


def test_training_never_asks_a_channel():
    counter = Counter(msgspec.structs.replace(TERMS, training=True))
    counter.scan(TEA)
    assert counter.press("PAY").refused and not counter.box.books.orders
    counter.press("CASH")
    assert counter.phase == "PAID"


def test_cash_that_was_handed_back_stays_handed_back_after_a_cut():
    counter = Counter()
    counter.scan(TEA)
    counter.press("300 CASH")
    counter.tell(DeviceSaid("printer", "gone"))
    assert "3.00" in counter.press("CANCEL").words[1]
    counter.cut_power()
    assert not counter.box.books.basket.lines and not counter.box.books.basket.tenders


def test_change_is_said_when_cash_replaces_a_payment():
    counter, _ = counter_paying()
    assert "5.00" in counter.press("1000 CASH").words[1]


def test_a_training_box_has_no_driver_for_any_channel():
    real = parse({"box": "box-7", "box_no": "00000A", "tenant": "corner", "merchant_keys_on_box": True, "channel": {"wechat": {
        "base_url": "http://127.0.0.1:8700/", "appid": "wx0000000000000001", "mchid": "1900000001", "serial_no": "5157",
        "notify_url": "https://example.com/n", "private_key_file": "wechat.key", "platform_key_id": "PUB_KEY_ID_01",
        "platform_key_file": "platform.pub"}}})
    assert to_driven(real).channels
    assert not to_driven(msgspec.structs.replace(real, training=True)).channels


def hold_slip(counter: Counter) -> str:
    counter.press("HOLD")
    return next(p.text for p in counter.printed[-1].paper if type(p).__name__ == "Barcode")


def test_an_old_hold_slip_brings_back_nobody_elses_basket():
    counter = Counter()
    counter.scan(TEA)
    old = hold_slip(counter)
    counter.tell(Scanned(old))
    counter.press("CASH")
    counter.scan(COLA)
    new = hold_slip(counter)                                  # the same slot, another slip
    assert list(counter.box.books.held) == [1] and new != old
    verdict = counter.tell(Scanned(old))
    assert verdict.refused and "before" in verdict.words[1] and not counter.box.books.basket.lines
    counter.cut_power()
    counter.tell(Scanned(new))
    assert counter.box.books.basket.total_fen == 250


def test_the_slip_of_an_older_release_brings_back_its_own_basket_only():
    from device.types import Stamp
    counter = Counter()
    counter.scan(TEA)
    evolve(counter.box.books, wire.decode(b'[["b",0,"2026-09-01T10:00:00+08:00"],[{"type":"BasketHeld","slot":1}]]').facts[0],
           Stamp("b", 0, counter.wall))
    slip = f"TBH{counter.box.books.salt}0001"
    counter.tell(Scanned(slip))
    assert counter.box.books.basket.total_fen == 500
    counter.press("HOLD")                                     # now under a slip of its own
    assert counter.tell(Scanned(slip)).refused and list(counter.box.books.held) == [1]
