"""The payment machine, told as stories: what happened, and the one thing that must be true then."""

from __future__ import annotations

import json

import msgspec
import pytest

from device.config import parse
from device.daemon import to_driven
from device.txn import facts as wire
from device.txn import show
from device.txn.books import Books, Phase, evolve
from device.txn.inputs import (
    KEYS,
    DeviceSaid,
    Printed,
    PrintRefused,
    PrintUnsure,
    Rang,
    Recalled,
    RefundSaid,
    RefundWord,
    Said,
    Scanned,
)
from device.txn.machine import IGNORED, MOVES
from device.txn.numbers import ALPHABET, order_number, order_number_ok
from device.txn.show import render
from device.txn.wants import wants
from device.types import Rules
from tests.counter import APPLES, COLA, TEA, TERMS, Counter


def counter_paying(*goods) -> tuple[Counter, str]:
    counter = Counter()
    for found in goods or (TEA,):
        counter.scan(found)
    return counter, counter.pay()


def records(counter: Counter) -> list[dict]:
    """Bodies of the records that fell due, in order, with their kind."""
    counter.journal.sync()
    entries = [wire.decode(row.facts) for row in counter.journal.durable]
    return [{"kind": f.kind, **json.loads(f.body)} for e in entries for f in e.facts if isinstance(f, wire.RecordDue)]


def test_every_phase_and_word_is_a_move_or_ignored_with_a_reason():
    pairs = {(phase, said) for phase in Phase for said in Said if said is not Said.UNKNOWN}
    assert pairs == set(MOVES) | set(IGNORED)
    assert not set(MOVES) & set(IGNORED)
    assert all(said is not Said.PAID or phase in (Phase.ASKING, Phase.RETURNING) for phase, said in IGNORED)


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


def test_intent_is_on_disk_before_the_channel_is_asked():
    counter = Counter()
    counter.scan(TEA)
    counter.press("PAY")
    assert counter.wants("PlaceOrder") == {counter.order_no}
    assert not counter.journal.waiting_rows


def test_paid_closes_the_sale_with_receipt_and_record_in_one_row():
    counter, no = counter_paying(TEA, COLA)
    counter.printer = False
    counter.say(no, Said.PAID, 750)
    row = next(wire.decode(r.facts) for r in counter.journal.durable if b"SaleClosed" in r.facts)
    assert {"PaymentConfirmed", "SaleClosed", "ReceiptDue", "RecordDue", "ReceiptStarted"} <= {type(f).__name__ for f in row.facts}
    assert counter.phase == "PAID" and not counter.box.books.basket.lines


def test_a_retry_of_the_same_order_is_the_same_intent_after_a_configuration_push():
    from device.txn.inputs import Configured
    counter, no = counter_paying()
    before = counter.box.books.orders[no].intent
    counter.tell(Configured(msgspec.structs.replace(TERMS, shop_zh="别的店", accounts=())))
    assert counter.box.books.orders[no].intent == before


def test_unknown_decides_nothing():
    counter, no = counter_paying()
    assert counter.say(no, Said.UNKNOWN).facts == []
    assert counter.phase == "AWAITING" and no in counter.wants("QueryOrder")


def test_cancel_is_a_wish_on_disk_before_the_close_leaves():
    counter, no = counter_paying()
    counter.press("CANCEL")
    assert counter.wants("CloseOrder") == {no} and not counter.journal.waiting_rows
    assert counter.phase == "CANCELLING"


def test_closed_leaves_the_basket_for_another_try_under_a_new_number():
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    assert counter.phase == "BASKET"
    assert counter.pay() != no


def test_no_qr_stands_on_the_screen_of_a_cancelled_order():
    counter, no = counter_paying()
    assert render(counter.box.books, counter.box.desk).qr
    counter.press("CANCEL")
    assert not render(counter.box.books, counter.box.desk).qr


@pytest.mark.parametrize(("key", "phase", "back"), [("ENTER", "PAID", 0), ("CANCEL", "BASKET", 1)])
def test_paid_while_cancelling_asks_the_cashier(key, phase, back):
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.PAID, 500)
    assert "PAID" not in counter.phase
    counter.press(key)
    assert counter.phase == phase and len(counter.wants("RefundOrder")) == back


def test_paid_while_cancelling_goes_back_when_nobody_answers():
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.PAID, 500)
    counter.tell(Rang(("order", no)))
    assert not counter.wants("RefundOrder")                  # an early ring
    counter.mono_ms += 30_000
    counter.tell(Rang(("order", no)))
    assert len(counter.wants("RefundOrder")) == 1


def test_paid_while_cancelling_goes_back_at_a_boot():
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.PAID, 500)
    counter.cut_power()
    assert len(counter.wants("RefundOrder")) == 1 and counter.phase == "BASKET"
    assert no in counter.box.desk.words[1]


def test_paid_after_close_gives_the_money_back():
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    assert no in counter.wants("QueryOrder")
    counter.say(no, Said.PAID, 500)
    assert len(counter.wants("RefundOrder")) == 1
    assert [r["cause"] for r in records(counter) if r["kind"] == "payment_alert"] == ["late"]


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


def test_cash_replaces_an_undecided_attempt_and_its_late_money_goes_back():
    counter, no = counter_paying()
    counter.press("1000 CASH")
    assert counter.phase == "PAID" and counter.wants("CloseOrder") == {no}
    (sale,) = counter.box.books.sales.values()
    assert (sale.change_fen, sale.tenders[0].method) == (500, "cash")
    assert no in str(counter.printed[-1].paper)
    counter.say(no, Said.PAID, 500)
    assert len(counter.wants("RefundOrder")) == 1 and len(counter.box.books.sales) == 1


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


def test_parked_with_goods_given_is_booked_when_paid():
    counter, no = counter_paying()
    counter.press("PARK ENTER")
    assert counter.phase == "IDLE"
    counter.scan(COLA)                                       # the next customer
    counter.say(no, Said.PAID, 500)
    assert counter.phase == "BASKET" and no in counter.box.books.sales
    assert [x.gtin for x in counter.box.books.sales[no].lines] == [TEA.item.gtin]


def test_parked_with_goods_kept_is_given_back_when_paid():
    counter, no = counter_paying()
    counter.press("PARK CANCEL")
    counter.say(no, Said.PAID, 500)
    assert not counter.box.books.sales and len(counter.wants("RefundOrder")) == 1


def test_hold_and_recall_survive_a_power_cut():
    counter = Counter()
    counter.scan(TEA, 2)
    counter.press("HOLD")
    counter.cut_power()
    assert counter.phase == "IDLE"
    slip = next(p for p in counter.printed[-1].paper if type(p).__name__ == "Barcode").text
    counter.tell(Scanned(slip))
    assert counter.box.books.basket.total_fen == 1000 and not counter.box.books.held


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


def test_at_most_one_receipt_without_copy():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REPRINT REPRINT")
    copies = [p.paper[0].text for p in counter.printed]
    assert ["COPY" in text for text in copies] == [False, True, True]
    assert "COPY 2" in copies[2]


def test_paper_that_may_not_be_whole_is_never_printed_again_by_itself():
    counter, no = counter_paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    counter.tell(PrintUnsure(1, "cable"))
    counter.cut_power()
    assert not [e for e in wants(counter.box.books, counter.box.desk) if type(e).__name__ == "Print"]


def test_a_cut_while_printing_asks_a_person():
    counter, no = counter_paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    counter.printer = True
    counter.cut_power()
    assert counter.printed == [] and "COPY" in counter.box.desk.words[1]


def test_paper_waits_for_a_printer_that_took_no_byte():
    from device.txn.inputs import DeviceSaid
    counter, no = counter_paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    counter.tell(PrintRefused(1, "paper_out", "no paper"))
    counter.printer = True
    assert counter.printed == []
    counter.tell(DeviceSaid("printer", "ok"))
    assert len(counter.printed) == 1


def test_a_drawer_never_opens_late():
    from device.txn.inputs import DeviceSaid
    counter = Counter()
    counter.tell(DeviceSaid("printer", "gone"))
    counter.scan(TEA)
    counter.press("CASH")
    assert counter.box.books.kicks == {}


def test_z_closes_the_day_and_the_grand_total_goes_on():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH Z")
    counter.scan(TEA)
    counter.press("CASH Z")
    reports = [r for r in records(counter) if r["kind"] == "z_report"]
    assert [(r["no"], r["sales_fen"], r["grand_fen"]) for r in reports] == [(1, 500, 500), (2, 500, 1000)]


def test_a_sale_after_midnight_belongs_to_yesterday_until_the_cut_off():
    counter = Counter()
    counter.wall = "2026-09-02T03:59:00+08:00"
    counter.scan(TEA)
    counter.press("CASH")
    assert counter.box.books.day.day == "2026-09-01"


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


def test_a_give_up_time_makes_a_cancel():
    counter, no = counter_paying()
    counter.mono_ms += Rules().give_up_ms
    counter.tell(Rang(("order", no)))
    assert counter.phase == "CANCELLING" and counter.wants("CloseOrder") == {no}


def test_an_open_order_under_a_tombstone_is_closed_again():
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.ABSENT)
    counter.say(no, Said.OPEN)
    assert counter.wants("CloseOrder") == {no}


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


def test_folding_the_journal_gives_the_same_books_and_restating_changes_nothing():
    counter, no = counter_paying(TEA, APPLES)
    counter.say(no, Said.PAID, 1155)
    counter.scan(COLA)
    counter.press("HOLD")
    counter.scan(TEA)
    counter.press("PAY PARK ENTER")
    counter.journal.sync()
    plain = _fold(counter.journal)
    assert plain == counter.box.books
    from device.types import Stamp
    counter.box.restate(Stamp("boot1", 5, counter.wall, "ntp"))
    assert _fold(counter.journal) == plain and counter.journal.from_n == len(counter.journal.durable) - 1


def _fold(journal) -> Books:
    books = Books()
    for _, row in journal.fold():
        entry = wire.decode(row)
        for fact in entry.facts:
            evolve(books, fact, entry.at)
    return books


def test_emptying_the_desk_equals_a_restart():
    from device.txn.desk import Desk
    counter, no = counter_paying()
    counter.box.desk = Desk(terms=TERMS)
    counter.say(no, Said.PAID, 500)
    assert counter.phase == "PAID"


def test_order_numbers_find_every_wrong_character():
    no = order_number("000001", "AB2Z", 12345)
    assert order_number_ok(no) and len(no) == 20
    for i in range(20):
        for wrong in ALPHABET:
            if wrong != no[i]:
                assert not order_number_ok(no[:i] + wrong + no[i + 1:])
    for i in range(17):
        if no[i] != no[i + 1]:
            assert not order_number_ok(no[:i] + no[i + 1] + no[i] + no[i + 2:])


@pytest.mark.parametrize("key", ["PAY", "VOID", "HOLD", "Z", "REFUND", "QTY"])
def test_the_question_of_a_park_opens_no_way_round_the_running_payment(key):
    counter, no = counter_paying(TEA, COLA)
    counter.press("PARK")
    assert counter.press(key).refused
    assert list(counter.box.books.orders) == [no] and counter.box.books.basket.total_fen == 750
    counter.press("ENTER")
    assert counter.box.books.orders[no].park == "book"


def test_a_refused_request_is_settled_by_close_and_query_for_an_earlier_try_may_be_paid():
    counter = Counter()
    counter.scan(TEA)
    counter.press("PAY")
    no = counter.order_no
    counter.say(no, Said.REFUSED)
    assert counter.phase == "CANCELLING" and counter.wants("CloseOrder") == {no}
    assert "refused" in counter.box.desk.words[1]
    counter.say(no, Said.ABSENT)
    assert counter.phase == "BASKET" and "refused" in counter.box.desk.words[1]


def test_money_for_goods_that_were_given_is_booked_even_after_the_close():
    counter, no = counter_paying()
    counter.press("PARK ENTER")
    counter.press("CHECK")
    counter.mono_ms += 300_000
    counter.tell(Rang(("order", no)))
    counter.say(no, Said.ABSENT)
    counter.say(no, Said.OPEN)                                # our request came after its close
    counter.say(no, Said.CLOSED)
    counter.cut_power()
    counter.say(no, Said.PAID, 500)
    assert no in counter.box.books.sales and not counter.box.books.refunds
    assert [r["kind"] for r in records(counter)].count("payment_alert") == 1


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


def test_a_copy_settles_the_paper_that_nobody_was_sure_of():
    counter = Counter(printer=False)
    counter.scan(TEA)
    counter.press("CASH")
    counter.tell(PrintUnsure(1, "it went silent"))
    counter.press("REPRINT")
    counter.tell(Printed(2, 3))
    assert show.state(counter.box.books, counter.box.desk, 0)["papers"] == []
    assert [p.state for p in counter.box.books.papers.values()] == ["copied", "printed"]


def test_cash_that_was_handed_back_stays_handed_back_after_a_cut():
    counter = Counter()
    counter.scan(TEA)
    counter.press("300 CASH")
    counter.tell(DeviceSaid("printer", "gone"))
    assert "3.00" in counter.press("CANCEL").words[1]
    counter.cut_power()
    assert not counter.box.books.basket.lines and not counter.box.books.basket.tenders


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


def test_change_is_said_when_cash_replaces_a_payment():
    counter, _ = counter_paying()
    assert "5.00" in counter.press("1000 CASH").words[1]


def test_z_of_a_day_without_sales_names_the_business_day():
    counter = Counter()
    counter.wall = "2026-09-02T01:00:00+08:00"
    counter.press("Z")
    assert "2026-09-01" in str([p for p in counter.printed[-1].paper if "Business day" in str(p)])
    assert [r["day"] for r in records(counter) if r["kind"] == "z_report"] == ["2026-09-01"]


def test_a_full_card_begins_nothing_and_ends_what_was_begun():
    counter, no = counter_paying()
    counter.journal.room = 0
    counter.say(no, Said.PAID, 500)
    assert counter.phase == "PAID" and [r["kind"] for r in records(counter)][-1] == "sale"
    counter.scan(COLA)
    assert not counter.box.books.basket.lines and "full" in counter.box.desk.words[1]
    counter.cut_power()                                       # boots on a full card, and says the same
    counter.scan(COLA)
    assert not counter.box.books.basket.lines and "full" in counter.box.desk.words[1]


def test_a_card_that_fills_up_under_a_basket_charges_no_wallet_and_lets_it_go_for_cash():
    counter = Counter()
    counter.scan(TEA)
    counter.journal.room = 0
    assert counter.press("PAY").refused and not counter.box.books.orders
    counter.press("CASH")
    assert len(counter.box.books.sales) == 1


def test_a_training_box_has_no_driver_for_any_channel():
    real = parse({"box": "box-7", "box_no": "00000A", "tenant": "corner", "merchant_keys_on_box": True, "channel": {"wechat": {
        "base_url": "http://127.0.0.1:8700/", "appid": "wx0000000000000001", "mchid": "1900000001", "serial_no": "5157",
        "notify_url": "https://example.com/n", "private_key_file": "wechat.key", "platform_key_id": "PUB_KEY_ID_01",
        "platform_key_file": "platform.pub"}}})
    assert to_driven(real).channels
    assert not to_driven(msgspec.structs.replace(real, training=True)).channels


def test_cash_taken_for_goods_that_were_never_paid_in_full_stands_in_the_alert():
    counter = Counter()
    counter.scan(TEA, 2)
    counter.press("300 CASH")
    no = counter.pay()
    counter.press("PARK ENTER")
    counter.say(no, Said.CLOSED)
    assert [(r["amount_fen"], r["cash_fen"]) for r in records(counter) if r["kind"] == "payment_alert"] == [(700, 300)]


def test_x_reports_are_numbered_on_over_a_z():
    counter = Counter()
    counter.press("X Z X")
    assert [(r["kind"], r["no"]) for r in records(counter) if "report" in r["kind"]] == [
        ("x_report", 1), ("z_report", 1), ("x_report", 2)]


def test_a_channel_that_cannot_be_used_takes_no_order():
    from device.txn.inputs import DeviceSaid
    counter = Counter()
    counter.tell(DeviceSaid("channel:wechat", "error", "its key file is missing"))
    counter.scan(TEA)
    assert counter.press("PAY").refused and counter.phase == "BASKET"
    counter.press("CASH")
    assert counter.phase == "PAID"


@pytest.mark.parametrize(("paid_fen", "word"), [(499, "keep the goods"), (900, "was paid for")])
def test_another_amount_than_the_orders_is_told_once_and_never_booked_by_itself(paid_fen, word):
    counter, no = counter_paying()
    assert word in counter.say(no, Said.PAID, paid_fen).words[1]
    counter.say(no, Said.PAID, paid_fen)                      # at every poll
    counter.cut_power()
    counter.say(no, Said.PAID, paid_fen)
    counter.say(no, Said.PAID)                                # an answer that names no amount
    alerts = [r for r in records(counter) if r["kind"] == "payment_alert"]
    assert [(r["cause"], r["order_no"], r["amount_fen"], r["channel_fen"]) for r in alerts] == [("amount_wrong", no, 500, paid_fen)]
    assert [p.kind for p in counter.box.books.papers.values()] == ["alert"] and not counter.box.books.sales
    screen = render(counter.box.books, counter.box.desk)
    assert screen.tone == "bad" and not screen.qr and screen.title
    (told,) = show.state(counter.box.books, counter.box.desk, 0)["orders"]
    assert (told["order_no"], told["disputed_fen"]) == (no, paid_fen)


def test_a_disputed_payment_is_neither_cancelled_nor_forgotten_by_time():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 400)
    counter.press("PARK ENTER")
    counter.mono_ms += 10_000_000
    counter.tell(Rang(("order", no)))
    assert counter.box.books.orders[no].phase is Phase.AWAITING and counter.wants("QueryOrder") == {no}
    counter.say(no, Said.PAID, 500)                           # the channel put itself right
    assert no in counter.box.books.sales


def test_another_amount_after_the_close_stays_in_sight_and_gives_nothing_back_by_itself():
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    counter.say(no, Said.PAID, 400)
    counter.mono_ms += 10_000_000
    counter.tell(Rang(("order", no)))
    assert counter.box.books.orders[no].disputed_fen == 400 and not counter.box.books.refunds
    assert "1 payments undecided" in show.footer(counter.box.books, msgspec.structs.replace(
        counter.box.desk, terms=msgspec.structs.replace(TERMS, lang="en")))


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


def reports(counter: Counter) -> list[tuple]:
    return [(r["no"], r["day"], r["sales_fen"], r["refunds_fen"], r.get("auto", False))
            for r in records(counter) if r["kind"] == "z_report"]


def test_a_forgotten_z_is_made_by_itself_before_the_first_sale_of_the_next_day():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH")
    counter.wall = "2026-09-02T03:59:00+08:00"                # still yesterday's
    counter.scan(COLA)
    counter.press("CASH")
    assert reports(counter) == []
    counter.wall = "2026-09-02T04:00:00+08:00"
    counter.scan(TEA, 2)
    counter.press("CASH")
    assert reports(counter) == [(1, "2026-09-01", 750, 0, True)]
    day = counter.box.books.day
    assert (day.day, day.z_no, day.sales_fen, day.grand_fen) == ("2026-09-02", 1, 1000, 1750)
    assert [p.kind for p in counter.box.books.papers.values()] == ["sale", "sale", "sale", "z"]      # the customer's paper first
    assert "Made by itself" in str(counter.printed[-1].paper)
    row = next(wire.decode(r.facts).facts for r in counter.journal.durable if b"DayClosed" in r.facts)
    kinds = [f.kind if isinstance(f, wire.RecordDue) else type(f).__name__ for f in row]
    assert kinds.index("z_report") < kinds.index("DayClosed") < kinds.index("SaleClosed")
    counter.press("Z")
    assert reports(counter)[1:] == [(2, "2026-09-02", 1000, 0, False)]


@pytest.mark.parametrize("method", ["cash", "wallet"])
def test_a_refund_alone_opens_and_repairs_a_day_too(method):
    counter = Counter()
    counter.scan(TEA)
    if method == "cash":
        counter.press("CASH")
    else:
        counter.say(counter.pay(), Said.PAID, 500)
    (no,) = counter.box.books.sales
    counter.wall = "2026-09-03T12:00:00+08:00"
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("ENTER")
    for refund in counter.wants("RefundOrder"):
        assert reports(counter) == []                         # asked for; not given back yet
        counter.tell(RefundSaid(refund, RefundWord.DONE))
    assert reports(counter) == [(1, "2026-09-01", 500, 0, True)]
    counter.wall = "2026-09-04T12:00:00+08:00"
    counter.scan(TEA)
    counter.press("CASH")
    assert reports(counter)[1:] == [(2, "2026-09-03", 0, 500, True)]
    counter.journal.sync()
    assert _fold(counter.journal) == counter.box.books


def test_a_clock_that_goes_back_closes_no_day():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH")
    counter.wall = "2026-08-30T12:00:00+08:00"
    counter.scan(TEA)
    counter.press("CASH")
    assert reports(counter) == [] and counter.box.books.day.sales == 2


def recalled(counter: Counter, no: str):
    """The journal answers what the box looks for, until it looks for nothing more."""
    verdict = None
    while no:
        verdict = counter.tell(Recalled(no, tuple(counter.journal.recall(no))))
        no = counter.box.desk.looking
    return verdict


def test_a_report_of_long_ago_is_printed_again_by_its_barcode_or_its_number():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH Z X Z")
    code = next(p.text for p in counter.printed[1].paper if type(p).__name__ == "Barcode")
    counter.box.books.papers.clear()                          # long ago
    counter.press("0 REPRINT")
    counter.tell(Scanned(code))
    recalled(counter, code)
    assert counter.printed[-1].paper[1:] == counter.printed[1].paper and "COPY 1" in counter.printed[-1].paper[0].text
    counter.box.books.papers.clear()
    counter.press("0 REPRINT 1 Z")
    recalled(counter, code)
    assert "COPY 2" in counter.printed[-1].paper[0].text and counter.box.books.day.z_no == 2      # and no day was closed by it
    counter.press("0 REPRINT X")
    recalled(counter, counter.box.desk.looking)
    assert "X report" in str(counter.printed[-1].paper)
    counter.press("0 REPRINT 9 Z")
    assert recalled(counter, counter.box.desk.looking).refused


def test_copies_are_counted_over_the_life_of_a_receipt():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REPRINT")
    for n in (2, 3):
        counter.box.books.papers.clear()                      # long ago
        counter.press("0 REPRINT")
        counter.tell(Scanned(no))
        recalled(counter, no)
        assert f"COPY {n}" in counter.printed[-1].paper[0].text
    counter.box.books.sales.clear()
    counter.press("REFUND")                                   # copies are no sales
    counter.tell(Scanned(no))
    recalled(counter, no)
    assert "5.00" in counter.box.desk.words[1]


def test_the_first_receipt_of_a_day_is_found_beside_the_report_in_its_row():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH")
    counter.wall = "2026-09-02T10:00:00+08:00"
    counter.scan(COLA)
    counter.press("CASH")
    no = list(counter.box.books.sales)[-1]
    receipt, report = (p.paper for p in counter.printed[-2:])
    counter.box.books.papers.clear()
    for code, paper in ((no, receipt), (next(p.text for p in report if type(p).__name__ == "Barcode"), report)):
        counter.press("0 REPRINT")
        counter.tell(Scanned(code))
        recalled(counter, code)
        assert counter.printed[-1].paper[1:] == paper


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


def test_a_box_without_a_printer_keeps_the_newest_papers_waiting_and_loses_none():
    from device.txn.books import WAITING_MAX
    counter = Counter()
    counter.tell(DeviceSaid("printer", "gone"))
    for _ in range(WAITING_MAX + 5):
        counter.scan(COLA)
        counter.press("CASH")
    papers = counter.box.books.papers
    assert [p.job for p in papers.values()] == list(range(6, WAITING_MAX + 6))
    assert show.state(counter.box.books, counter.box.desk, 0)["papers_shelved"] == 5
    assert any("更早 5 张" in part for part in show.footer(counter.box.books, counter.box.desk))
    counter.journal.sync()
    assert _fold(counter.journal) == counter.box.books
    facts = [f for row in counter.journal.durable for f in wire.decode(row.facts).facts]
    first = next(f.sale.order_no for f in facts if isinstance(f, wire.SaleClosed))
    counter.tell(DeviceSaid("printer", "ok"))
    assert len(counter.printed) == WAITING_MAX                # the newest came out, in their order
    counter.press("0 REPRINT")
    counter.tell(Scanned(first))
    recalled(counter, first)
    assert "COPY 1" in counter.printed[-1].paper[0].text and first in str(counter.printed[-1].paper)
    counter.press("Z")
    assert counter.box.books.shelved == 0


def test_a_cancel_without_an_answer_says_what_to_do_after_its_time_and_after_a_boot():
    counter, no = counter_paying()
    counter.mono_ms = 100_000
    counter.press("CANCEL")
    counter.mono_ms += 29_999
    counter.tell(Rang(("order", no)))
    assert "PARK" not in counter.box.desk.words[1]
    counter.cut_power()
    (alarm,) = (e for e in counter.running if type(e).__name__ == "Alarm" and e.key[0] == "order")
    assert alarm.at_ms == counter.mono_ms + 30_000
    counter.mono_ms = alarm.at_ms
    counter.tell(Rang(alarm.key))
    assert "PARK" in counter.box.desk.words[1] and "10:00" in counter.box.desk.words[1]
    assert counter.phase == "CANCELLING" and counter.wants("CloseOrder") == {no}


@pytest.mark.parametrize(("keys", "phase", "sales", "booked"), [
    ("PARK ENTER", "IDLE", 0, True), ("PARK CANCEL", "IDLE", 0, False), ("CASH", "PAID", 1, False)])
def test_a_cashier_gets_out_of_an_endless_cancel(keys, phase, sales, booked):
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.press(keys)
    assert (counter.phase, len(counter.box.books.sales)) == (phase, sales)
    assert counter.wants("CloseOrder") == {no}
    assert not [e for e in counter.running if type(e).__name__ == "Alarm" and e.key[0] == "order"]
    counter.scan(COLA)
    counter.say(no, Said.PAID, 500)
    assert (no in counter.box.books.sales, len(counter.wants("RefundOrder"))) == (booked, int(not booked))
