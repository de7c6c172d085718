"""The eleven rules of money, paper and memory, one short story or two for each, by their numbers.

The long stories stand elsewhere (basket, paying, bills, papers, refunds, leases, kill); here each rule has a name that can fail.
Where a rule names a thing that is not built yet, its docstring says how far the test goes.
"""

from __future__ import annotations

import json

import msgspec
import pytest

from device.config import parse, to_terms
from device.drivers.channels import gateway_bytes, unionpay_bytes, wechat_bytes
from device.errors import ConfigError, JournalUnreadable
from device.store_forward.journal import Journal, Row
from device.txn import facts as wire
from device.txn import machine
from device.txn.books import Phase
from device.txn.effects import FetchBill
from device.txn.inputs import (
    KEYS,
    BillSaid,
    ChannelSaid,
    Configured,
    LinkSaid,
    Pressed,
    PrintRefused,
    PrintUnsure,
    Rang,
    RefundSaid,
    RefundWord,
    Said,
    Scanned,
    ScanSpoiled,
)
from device.txn.numbers import order_number
from device.txn.show import render, state
from device.types import Account
from device.wall import Wall
from tests.counter import COLA, TEA, TERMS, Counter

CODES = msgspec.structs.replace(TERMS, accounts=(Account("wechat", "wechat:1", (("mchid", "1"),)),))
CODE = "134567890123456789"
SHELF_MS = 90_000_000                # longer than any rule table's shelf life


def paying() -> tuple[Counter, str]:
    counter = Counter()
    counter.scan(TEA)
    return counter, counter.pay()


def charged() -> tuple[Counter, str]:
    counter = Counter(CODES)
    counter.scan(TEA)
    counter.press("CODE")
    counter.tell(Scanned(CODE))
    return counter, counter.order_no


# 1  On disk before it leaves the box.

def test_rule_1_no_charge_without_a_synced_intent():
    for begin in (lambda c: c.press("PAY"), lambda c: (c.press("CODE"), c.tell(Scanned(CODE)))):
        counter = Counter(CODES)
        counter.scan(TEA)
        begin(counter)
        assert not counter.journal.waiting_rows          # at the moment the effect was handed out
        counter.cut_power()
        assert counter.order_no and counter.wants("QueryOrder") == {counter.order_no}


def test_rule_1_every_retry_is_byte_identical_whatever_was_configured_meanwhile():
    fields = (("appid", "wx1"), ("mchid", "1"), ("notify_url", "https://shop.example/n"), ("termId", "1"))
    counter = Counter(msgspec.structs.replace(TERMS, accounts=(Account("wechat", "wechat:1", fields),)))
    counter.scan(TEA)
    counter.press("PAY")
    no = counter.order_no

    def requests() -> list:
        intent = counter.box.books.orders[no].intent
        return [wechat_bytes.order_call("place", intent), gateway_bytes.order_call("place", intent),
                unionpay_bytes.place_request(intent)]
    first = requests()
    counter.wall = "2026-09-01T10:04:00+08:00"
    counter.tell(Configured(msgspec.structs.replace(counter.terms, shop_zh="别的店", accounts=(Account("wechat", "wechat:2"),))))
    counter.cut_power()
    assert requests() == first and counter.wants("PlaceOrder") == {no}


# 2  The channel's word is the truth.

def test_rule_2_a_time_out_decides_nothing():
    counter, no = paying()
    counter.mono_ms += 300_000
    counter.tell(Rang(("order", no)))                    # given up: asked to be closed, and that is a wish
    assert counter.say(no, Said.UNKNOWN).facts == []
    assert counter.phase == "CANCELLING" and {no} == counter.wants("CloseOrder") == counter.wants("QueryOrder")


@pytest.mark.parametrize("phase", Phase)
def test_rule_2_paid_is_never_ignored_whatever_the_phase(phase):
    assert (phase, Said.PAID) in machine.MOVES or machine.IGNORED[phase, Said.PAID].startswith("said before")


def test_rule_2_a_closed_order_is_asked_about_until_its_shelf_life_is_over_and_then_the_bill_decides():
    counter, no = paying()
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    assert no in counter.wants("QueryOrder")
    counter.mono_ms += SHELF_MS
    counter.tell(Rang(("order", no)))
    (bill,) = (e for e in counter.running if isinstance(e, FetchBill))
    assert no in counter.wants("QueryOrder")
    counter.tell(BillSaid(bill.account, bill.day, True, (("paid", no, "", 500, "4200"),)))
    assert [r.intent.order_no for r in counter.box.books.refunds.values()] == [no]


# 3  Cancel is a wish.

def test_rule_3_a_cancel_is_on_disk_before_it_is_sent():
    counter, no = paying()
    counter.press("CANCEL")
    assert counter.wants("CloseOrder") == {no} and not counter.journal.waiting_rows


@pytest.mark.parametrize(("answer", "sold"), [("ENTER", True), ("CANCEL", False), ("nobody", False), ("a boot", False)])
def test_rule_3_paid_while_cancelling_the_cashier_says_goods_or_money_and_silence_says_money(answer, sold):
    counter, no = paying()
    counter.press("CANCEL")
    counter.say(no, Said.PAID, 500)
    assert "ENTER" in render(counter.box.books, counter.box.desk).title
    if answer == "nobody":
        counter.mono_ms += 30_000
        counter.tell(Rang(("order", no)))
    elif answer == "a boot":
        counter.cut_power()
    else:
        counter.press(answer)
    assert (bool(counter.box.books.sales), bool(counter.box.books.refunds)) == (sold, not sold)


def test_rule_3_one_way_back_only_and_a_refund_starts_when_the_undo_moved_nothing():
    counter, no = charged()
    counter.press("CANCEL")
    counter.say(no, Said.PAID, 500)
    assert no in counter.wants("CloseOrder") and no in counter.wants("QueryOrder") and not counter.box.books.refunds
    counter.cut_power()
    assert no in counter.wants("CloseOrder") and not counter.box.books.refunds
    counter.tell(ChannelSaid(no, Said.REFUSED, undo=True))
    assert no not in counter.wants("CloseOrder") and len(counter.box.books.refunds) == 1


# 4  One live attempt.

def test_rule_4_cash_parks_the_attempt_in_the_same_row_and_its_late_money_is_never_booked():
    counter, no = paying()
    counter.press("CASH")
    row = next(wire.decode(r.facts).facts for r in counter.journal.durable if b"SaleClosed" in r.facts)
    assert [f.policy for f in row if isinstance(f, wire.OrderParked)] == ["give_back"]
    assert no in str(counter.printed[-1].paper)          # the slip says so
    counter.scan(COLA, 2)                                # the next customer's basket costs as much
    counter.say(no, Said.PAID, 500)
    (sale,) = counter.box.books.sales.values()
    assert [t.method for t in sale.tenders] == ["cash"] and len(counter.box.books.refunds) == 1


def test_rule_4_no_second_attempt_while_one_is_undecided():
    counter, no = paying()
    for keys in ("PAY", "CODE", "5 PAY"):
        assert counter.press(keys).refused
    counter.press("CLEAR CANCEL")
    assert counter.press("PAY").refused and list(counter.box.books.orders) == [no]


# 5  Paper tells the truth.

def test_rule_5_receipt_due_comes_with_paid_and_started_stands_on_disk_before_the_first_byte():
    counter, no = paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    assert type(counter.once[-1]).__name__ == "Print"    # handed out, and nothing printed yet
    row = next(wire.decode(r.facts).facts for r in counter.journal.durable if b"PaymentConfirmed" in r.facts)
    assert {"PaymentConfirmed", "ReceiptDue", "ReceiptStarted"} <= {type(f).__name__ for f in row}


def test_rule_5_one_receipt_without_copy_and_an_unconfirmed_one_asks_a_person():
    counter, no = paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    verdict = counter.tell(PrintUnsure(1, "mute"))
    assert "COPY" in verdict.words[1]
    for _ in range(2):
        counter.printer = True
        counter.cut_power()
        assert counter.printed == []                     # never by itself
    counter.press("REPRINT")
    assert "COPY" in counter.printed[0].paper[0].text and len(counter.printed) == 1


# 6  Nothing is lost.

def test_rule_6_what_anybody_was_told_survives_a_cut(tmp_path):
    """As far as built: one journal.  The second copy, and the table of recovery, are still to come."""
    counter, no = paying()
    counter.say(no, Said.PAID, 500)
    counter.journal.cut()
    counter.start_up()
    assert no in counter.box.books.sales and counter.box.books.wallet_fen == 500


def test_rule_6_a_damaged_journal_is_not_sold_upon(tmp_path):
    """As far as built: the box stops and says so, for there is no second copy yet to go on from."""
    from device.box import Box
    journal = Journal(tmp_path / "journal.db", identity={"box": "box-1", "mode": "real"})
    journal.append(Row(b'[["b",0,"2026-09-01T10:00:00+08:00"],[{"type":"OrderForgotten","order_no":"none"}]]', 0), sync=True)
    with pytest.raises(JournalUnreadable):
        Box(journal)
    journal.close()


# 7  Refunds.

def test_rule_7_another_boxs_sale_is_refused_without_the_cloud_in_one_sentence():
    """Leases themselves: tests/txn/test_leases.py, with a real store of the cloud."""
    counter = Counter()
    counter.tell(LinkSaid(True, False))
    counter.press("REFUND")
    verdict = counter.tell(Scanned(order_number("000002", "ZZZZ", 7)))
    assert verdict.refused and not verdict.facts and "cloud" in verdict.words[1]


def test_rule_7_a_refund_retry_keeps_its_number():
    counter, no = paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("ENTER")
    (first,) = counter.wants("RefundOrder")
    counter.tell(RefundSaid(first, RefundWord.UNKNOWN))
    counter.cut_power()
    assert counter.wants("RefundOrder") == {first}


# 8  Clock.

@pytest.mark.parametrize("wall", ["1970-01-01T08:00:00+08:00", "2036-01-01T10:00:00+08:00"])
def test_rule_8_a_jump_of_the_wall_moves_no_deadline(wall):
    """Monotonic time inside."""
    counter, no = paying()
    due_ms = counter.box.books.orders[no].due_ms
    counter.wall = wall
    counter.mono_ms += 1_000
    assert counter.tell(Rang(("order", no))).facts == [] and counter.box.books.orders[no].due_ms == due_ms
    counter.say(no, Said.PAID, 500)
    assert counter.box.books.day.tallies["wechat qr 10"].ms == 1_000      # how long it took is no matter of the wall either


def test_rule_8_the_floor_rises_by_a_signed_word_or_by_time_gone_and_a_days_jump_waits_for_a_proof():
    noon_ms, day_ms = 1_795_492_800_000, 86_400_000
    wall = Wall(0, noon_ms, noon_ms)
    wall.acknowledged(noon_ms, 0, noon_ms)
    back = noon_ms - 2 * day_ms                       # somebody sets the clock back
    assert wall.now_ms(60_000, back) == noon_ms + 60_000 and wall.doubts
    unsure = Wall(0, noon_ms, noon_ms)
    ahead = noon_ms + 2 * day_ms
    assert unsure.now_ms(60_000, ahead + 60_000) == noon_ms + 60_000
    unsure.date(ahead + 120_000, 120_000, ahead + 120_000)      # a channel's Date over TLS says the same as the clock
    assert unsure.now_ms(120_000, ahead + 120_000) == ahead + 120_000


# 9  Config.

def test_rule_9_a_configuration_is_taken_whole_or_refused_whole_with_every_reason():
    """Layers pushed by the fleet, their numbers and trials are still to come: here is the file of one box."""
    box = {"box": "box-7", "box_no": "00000A", "tenant": "corner"}
    assert to_terms(parse(box)).box == "box-7"
    with pytest.raises(ConfigError) as refused:
        parse(box | {"cutoff_hour": 24, "langg": "zh", "printer": {"columns": 500}})
    assert len(refused.value.reasons) == 3


# 10  Bad input gets one clear sentence.

@pytest.mark.parametrize("event", [
    ScanSpoiled("too long"), Scanned("6900000000007"), Scanned("134567890123456789"), Pressed("HOP"), Pressed("PAY"),
    Pressed("VOID"), Pressed("QTY"), Pressed("CASH"), Pressed("HOLD")], ids=str)
def test_rule_10_bad_input_is_one_sentence_in_two_languages_and_changes_nothing(event):
    counter = Counter()
    before = msgspec.json.encode(counter.box.books)
    verdict = counter.tell(event)
    assert verdict.refused and verdict.facts == [] and msgspec.json.encode(counter.box.books) == before
    assert all(words and "\n" not in words for words in verdict.words)
    assert render(counter.box.books, counter.box.desk).notice == verdict.words[0]


@pytest.mark.parametrize("key", KEYS)
def test_rule_10_no_key_is_without_an_answer_while_a_payment_is_undecided(key):
    counter, no = paying()
    before = counter.box.books.orders[no].intent
    verdict = counter.press(key)
    assert verdict.words is not None or verdict.desk.get("typed") == key
    assert counter.box.books.orders.get(no) is None or counter.box.books.orders[no].intent == before


# 11  A person can see whatever waits.

def test_rule_11_whatever_waits_stands_in_the_state_with_its_age():
    counter, no = paying()
    counter.press("PARK ENTER")
    counter.scan(COLA)
    counter.press("HOLD")
    counter.printer = False
    counter.scan(TEA)
    counter.press("CASH")
    counter.tell(PrintRefused(counter.once[-1].job, "off", "no power"))
    counter.mono_ms += 12_000
    seen = state(counter.box.books, counter.box.desk, counter.mono_ms)
    assert [(o["order_no"], o["age_s"], o["slip"], o["policy"]) for o in seen["parked"]] == [(no, 12, 1, "book")]
    assert [(h["slot"], h["total_fen"]) for h in seen["held"]] == [(1, 250)]
    assert [(p["kind"], p["state"]) for p in seen["papers"]] == [("sale", "due")] and seen["papers"][0]["since"]
    assert seen["health"]["printer"] == "off"
    json.dumps(seen)


def test_rule_11_an_undecided_payment_is_counted_on_the_screen():
    counter, _ = paying()
    counter.press("PARK CANCEL")
    assert any("1 笔付款未明" in part for part in render(counter.box.books, counter.box.desk).footer)
