"""Stories nobody planned: a key too many, the same thing scanned twice, an answer that comes while a question stands."""

from __future__ import annotations

import pytest

from device.txn.books import Phase
from device.txn.inputs import ChannelSaid, QrReady, Rang, RefundSaid, RefundWord, Said, Scanned
from device.txn.show import phase, render
from device.types import Terms
from tests.counter import COLA, TEA, Counter, counter_paying, records
from tests.txn.test_leases import Town, left
from tests.txn.test_paying import ACCOUNTS, TERMS, WECHAT_CODE, refunding

PLAN = "TBC-FQ-12-PAYER"


def words(counter: Counter) -> str:
    return counter.box.desk.words[1]


def rerouting() -> tuple[Counter, str]:
    """An attempt that showed no QR in time and is being closed, so that another route may be tried."""
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("PAY")
    counter.mono_ms += 8_000
    counter.tell(Rang(("slow", counter.order_no)))
    assert counter.box.books.orders[counter.order_no].cause == "reroute"
    return counter, counter.order_no


# A key too many

def test_a_cancel_while_another_route_is_on_its_way_starts_no_other_attempt():
    counter, no = rerouting()
    assert "Cancelling" in counter.press("CANCEL").words[1]
    counter.cut_power()
    counter.say(no, Said.CLOSED)
    assert not counter.order_no and counter.phase == "BASKET" and len(counter.box.books.orders) == 1


def test_a_second_cancel_writes_nothing():
    counter, no = counter_paying()
    counter.press("CANCEL")
    assert not counter.press("CANCEL").facts and counter.box.books.orders[no].cause == "cashier"


@pytest.mark.parametrize("ends", ["CLEAR", "CANCEL", "HOLD", "CASH"])
def test_an_instalment_card_is_the_customers_who_showed_it(ends):
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.tell(Scanned(PLAN))
    counter.press(ends)
    counter.scan(COLA)
    counter.press("PAY")
    assert counter.box.books.orders[counter.order_no].intent.extras == ()


def test_an_instalment_card_where_no_channel_takes_it_bars_no_payment():
    counter = Counter()                                       # a shop with WeChat alone
    counter.scan(TEA)
    counter.tell(Scanned(PLAN))
    assert "CLEAR" in counter.press("PAY").words[1] and not counter.order_no
    counter.press("CLEAR")
    assert counter.box.books.basket.lines                     # it takes back the card, and not the goods
    counter.press("PAY")
    assert counter.order_no


def test_a_plan_stands_on_the_screen_until_it_is_used_or_dropped():
    counter = Counter(TERMS)
    counter.tell(Scanned(PLAN))
    counter.scan(TEA)                                         # wipes the words about it
    assert "12" in render(counter.box.books, counter.box.desk).typed
    counter.press("PAY")
    assert not render(counter.box.books, counter.box.desk).typed


def test_digits_of_before_a_scan_are_no_cash():
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("CODE 5")
    counter.tell(Scanned(WECHAT_CODE))
    assert counter.order_no and not counter.box.desk.typed


# The same thing twice

def test_a_badge_scanned_twice_stands_on_no_screen():
    counter = refunding()
    counter.tell(Scanned("BOSS-1"))
    assert "BOSS" not in "".join(counter.tell(Scanned("BOSS-1")).words)
    counter.press("4 7 1 1 ENTER")
    assert len(counter.box.books.refunds) == 1
    idle = Counter(counter.terms).tell(Scanned("BOSS-1"))
    assert idle.refused and "BOSS" not in "".join(idle.words)


def test_a_badge_again_gives_no_further_tries():
    counter = refunding()
    for _ in range(3):
        counter.tell(Scanned("BOSS-1"))
        counter.press("1 1 1 1 ENTER")
    assert not counter.box.desk.mode


def test_a_receipt_scanned_twice_is_still_the_one_to_refund():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REFUND")
    for _ in range(2):
        counter.tell(Scanned(no))
    assert "¥5.00" in words(counter)
    counter.press("200 ENTER")
    assert [r.intent.amount_fen for r in counter.box.books.refunds.values()] == [200] and not counter.box.books.basket.lines


def test_another_boxs_receipt_scanned_twice_is_one_question():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    answer = town.ask(town.away)
    town.away.mono_ms += 100
    assert "asking the cloud" in town.away.tell(Scanned(no)).words[1]
    assert "¥5.00" in town.away.tell(answer).words[1]
    town.away.tell(Scanned(no))
    assert "¥5.00" in words(town.away) and len(town.away.box.books.leases) == 1
    town.away.press("ENTER")
    town.deliver(town.away)
    assert len(town.away.box.books.refunds) == 1 and left(town, no) == 0


# An answer while a question stands

def test_the_question_of_a_park_stands_until_it_is_answered():
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("PAY PARK")
    counter.tell(QrReady(counter.order_no, "weixin://1"))
    assert "Did the goods go?" in words(counter)
    counter.press("CANCEL")
    assert "slip 1" in words(counter)


@pytest.mark.parametrize("word", [Said.CLOSED, Said.PAID])
def test_a_park_that_is_decided_while_it_is_asked_about_asks_no_more(word):
    counter, no = counter_paying()
    counter.press("CANCEL PARK")
    counter.say(no, word, 500 if word is Said.PAID else 0)
    assert not counter.box.desk.mode and "Did the goods go?" not in words(counter)


def test_another_route_found_while_a_park_is_asked_about_is_not_parked_by_its_answer():
    counter, no = rerouting()
    counter.press("PARK")
    counter.say(no, Said.CLOSED)
    assert not counter.box.desk.mode and counter.order_no != no
    counter.press("CANCEL")
    assert counter.box.books.orders[counter.order_no].phase is Phase.CANCELLING and counter.box.books.basket.lines


def test_how_much_to_refund_is_asked_until_it_is_answered():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.mono_ms += 60_000
    counter.tell(Rang(("shown",)))                            # the screen has said "paid" long enough
    assert "Up to ¥5.00" in words(counter)


def test_what_a_supervisor_is_asked_stands_on_a_screen_of_its_own():
    counter = refunding()
    counter.press("4 7")
    screen = render(counter.box.books, counter.box.desk)
    assert screen.typed == "**" and "supervisor" in words(counter)
    assert phase(counter.box.books, counter.box.desk) == "REFUNDING" and screen.tone != "good"


# Money

def test_one_customers_refund_is_not_shown_to_another_as_theirs():
    counter = Counter(TERMS)
    sales = []
    for goods in (TEA, COLA):
        counter.scan(goods)
        sales.append(counter.pay())
        counter.say(sales[-1], Said.PAID, goods.item.price_fen)
    for no in sales:
        counter.press("REFUND")
        counter.tell(Scanned(no))
        counter.press("ENTER")
    first, second = counter.box.books.refunds
    counter.tell(RefundSaid(first, RefundWord.DONE, 500))
    assert counter.box.books.shown.what == "refunding"
    counter.tell(RefundSaid(second, RefundWord.DONE, 250))
    assert (counter.box.books.shown.what, counter.box.books.shown.amount_fen) == ("refunded", 250)


def test_a_refund_of_two_parts_is_shown_done_when_both_are():
    counter = Counter(TERMS)
    counter.scan(TEA, 2)
    for keys, fen in (("400 PAY", 400), ("PAY", 600)):
        counter.press(keys)
        no = counter.order_no
        counter.say(no, Said.PAID, fen)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("ENTER")
    first, second = counter.box.books.refunds
    assert counter.box.books.shown.amount_fen == 1000
    counter.tell(RefundSaid(first, RefundWord.DONE))
    assert counter.box.books.shown.what == "refunding"
    counter.tell(RefundSaid(second, RefundWord.DONE))
    assert (counter.box.books.shown.what, counter.box.books.shown.amount_fen) == ("refunded", 1000)


def test_a_wallets_part_of_goods_never_paid_in_full_lies_in_no_drawer():
    counter = Counter(TERMS)
    counter.scan(TEA, 2)
    counter.press("300 CASH 200 PAY")
    counter.say(counter.order_no, Said.PAID, 200)
    no = counter.pay()
    counter.press("PARK ENTER")
    counter.say(no, Said.CLOSED)
    (alert,) = [r for r in records(counter) if r["kind"] == "payment_alert"]
    assert (alert["amount_fen"], alert["cash_fen"], [p["amount_fen"] for p in alert["parts"]]) == (500, 300, [200])


def test_slices_of_one_sale_want_the_supervisor_together():
    counter = refunding("200 ENTER")
    (no,) = counter.box.books.refunds
    counter.tell(RefundSaid(no, RefundWord.DONE))
    counter.press("REFUND")
    counter.tell(Scanned(next(iter(counter.box.books.sales))))
    assert "supervisor" in counter.press("200 ENTER").words[1] and not counter.box.books.refunds


def test_money_that_the_channel_holds_is_asked_for_no_second_time_also_after_a_boot():
    counter, no = counter_paying()
    counter.tell(ChannelSaid(no, Said.UNKNOWN, 500))
    for wipe in (lambda: counter.press("CLEAR"), counter.cut_power):
        wipe()
        screen = render(counter.box.books, counter.box.desk)
        assert not screen.qr and screen.deadline is None and "勿重复收款" in screen.title and screen.tone == "bad"
    counter.say(no, Said.PAID, 500)
    assert counter.phase == "PAID"


# A full card

def test_a_full_card_keeps_nobodys_money():
    counter = Counter(Terms(accounts=ACCOUNTS))
    counter.scan(TEA)
    counter.press("200 PAY")
    counter.say(counter.order_no, Said.PAID, 200)
    counter.journal.room = 0
    assert not counter.press("CANCEL").refused
    assert [r.intent.amount_fen for r in counter.box.books.refunds.values()] == [200] and not counter.box.books.basket.lines


@pytest.mark.parametrize(("key", "due", "back"), [("ENTER", 300, 0), ("CANCEL", 500, 1)])
def test_a_full_card_bars_no_answer_about_money_that_came(key, due, back):
    counter = Counter()
    counter.scan(TEA)
    counter.press("200 PAY CANCEL")
    counter.say(counter.order_no, Said.PAID, 200)
    counter.journal.room = 0
    counter.press(key)
    assert counter.box.books.basket.due_fen == due and len(counter.box.books.refunds) == back
