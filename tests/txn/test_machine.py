"""The payment machine, told as stories: what happened, and the one thing that must be true then."""

from __future__ import annotations

import msgspec
import pytest

from device.crockford import ALPHABET
from device.txn import facts as wire
from device.txn import show
from device.txn.books import Books, Phase
from device.txn.folding import evolve
from device.txn.inputs import (
    DeviceSaid,
    Rang,
    Said,
)
from device.txn.machine import IGNORED, MOVES
from device.txn.numbers import order_number, order_number_ok
from device.txn.show import render
from device.types import Rules
from tests.counter import APPLES, COLA, TEA, TERMS, Counter, counter_paying, records


def test_every_phase_and_word_is_a_move_or_ignored_with_a_reason():
    pairs = {(phase, said) for phase in Phase for said in Said if said is not Said.UNKNOWN}
    assert pairs == set(MOVES) | set(IGNORED)
    assert not set(MOVES) & set(IGNORED)
    assert all(said is not Said.PAID or phase in (Phase.ASKING, Phase.RETURNING) for phase, said in IGNORED)


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


def test_cash_replaces_an_undecided_attempt_and_its_late_money_goes_back():
    counter, no = counter_paying()
    counter.press("1000 CASH")
    assert counter.phase == "PAID" and counter.wants("CloseOrder") == {no}
    (sale,) = counter.box.books.sales.values()
    assert (sale.change_fen, sale.tenders[0].method) == (500, "cash")
    assert no in str(counter.printed[-1].paper)
    counter.say(no, Said.PAID, 500)
    assert len(counter.wants("RefundOrder")) == 1 and len(counter.box.books.sales) == 1


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


def test_cash_taken_for_goods_that_were_never_paid_in_full_stands_in_the_alert():
    counter = Counter()
    counter.scan(TEA, 2)
    counter.press("300 CASH")
    no = counter.pay()
    counter.press("PARK ENTER")
    counter.say(no, Said.CLOSED)
    assert [(r["amount_fen"], r["cash_fen"]) for r in records(counter) if r["kind"] == "payment_alert"] == [(700, 300)]


def test_a_channel_that_cannot_be_used_takes_no_order():
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


def test_the_shelf_life_of_a_closed_order_goes_on_over_boots():
    """A box that is switched off every night would otherwise keep each closed order, and ask for it every minute, for ever."""
    counter, no = counter_paying()
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    shelf_ms = counter.box.books.orders[no].due_ms - counter.mono_ms
    for _ in range(3):
        counter.mono_ms += shelf_ms // 4
        counter.scan(COLA)                            # a boot lasted as long as its newest row says
        counter.press("CLEAR")
        counter.cut_power()
    assert counter.box.books.orders[no].due_ms == shelf_ms - 3 * (shelf_ms // 4)
    counter.mono_ms = shelf_ms // 4
    counter.tell(Rang(("order", no)))
    counter.say(no, Said.CLOSED)
    assert no not in counter.box.books.orders
