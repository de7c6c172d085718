"""A sale at the card terminal as the core sees it: started once, then only asked about; undone by one way; given back there."""

from __future__ import annotations

import json

import msgspec
import pytest

from device.txn import facts as wire
from device.txn.books import Phase
from device.txn.effects import ChargeCard
from device.txn.inputs import ChannelSaid, DeviceSaid, Rang, RefundSaid, RefundWord, Said, Scanned
from device.txn.show import render
from device.types import Account, Terms
from tests.counter import TEA, Counter

TERMINAL = Account("card", "main", (("terminal_id", "T1"),))
TERMS = Terms(accounts=(Account("wechat", "wechat:1", (("mchid", "1"),)), TERMINAL), route=("wechat",))


def at_the_terminal(terms: Terms = TERMS) -> tuple[Counter, str]:
    counter = Counter(terms)
    counter.scan(TEA)
    counter.press("5 PAY")
    return counter, counter.order_no


def charges(counter: Counter) -> int:
    return sum(isinstance(e, ChargeCard) for e in counter.once)


def facts_of(counter: Counter, *kinds: type) -> list:
    counter.journal.sync()
    return [f for row in counter.journal.durable for f in wire.decode(row.facts).facts if isinstance(f, kinds)]


def records(counter: Counter, kind: str) -> list[dict]:
    return [json.loads(f.body) for f in facts_of(counter, wire.RecordDue) if f.kind == kind]


def title(counter: Counter) -> str:
    return render(counter.box.books, counter.box.desk).title


def approved(no: str, amount_fen: int = 500, **more) -> ChannelSaid:
    return ChannelSaid(no, Said.PAID, amount_fen, "0012-000345", payer="****1234", **more)


def test_the_sale_is_on_disk_before_it_leaves_and_leaves_once_over_all_boots():
    counter, no = at_the_terminal()
    assert charges(counter) == 1 and not counter.journal.waiting_rows
    assert [f.order_no for f in facts_of(counter, wire.ChargeStarted)] == [no]
    for _ in range(2):
        counter.cut_power()
        assert charges(counter) == 1 and no in counter.wants("QueryOrder") and "刷卡" in title(counter)
    counter.tell(approved(no))
    assert counter.phase == "PAID" and charges(counter) == 1


def test_the_terminal_asks_for_the_card_and_the_record_names_no_more_of_it_than_four_digits():
    counter, no = at_the_terminal()
    counter.tell(ChannelSaid(no, Said.OPEN))
    assert counter.phase == "AWAITING" and "刷卡" in title(counter)
    counter.tell(approved(no))
    (tender,) = records(counter, "sale")[0]["tenders"]
    assert (tender["method"], tender["channel_no"], tender["payer"], tender["way"]) == ("card", "0012-000345", "****1234", "card")
    assert any("****1234" in getattr(part, "left", "") for part in counter.printed[-1].paper)


@pytest.mark.parametrize("asked", [False, True])
def test_a_declined_card_leaves_the_basket_says_why_and_burns_the_number(asked):
    counter, no = at_the_terminal()
    if asked:
        counter.tell(ChannelSaid(no, Said.OPEN))
    verdict = counter.tell(ChannelSaid(no, Said.REFUSED, detail="not enough money on the card"))
    assert counter.phase == "BASKET" and "not enough money" in verdict.words[1]
    assert counter.box.books.orders[no].phase is Phase.CLOSED and no in counter.wants("QueryOrder")
    counter.press("5 PAY")
    assert counter.order_no != no and charges(counter) == 2


def test_nobody_was_reached_so_nothing_can_have_been_charged():
    counter, no = at_the_terminal()
    verdict = counter.tell(ChannelSaid(no, Said.REFUSED, detail="the card terminal is not connected"))
    assert counter.phase == "BASKET" and "not connected" in verdict.words[1]


def test_no_such_sale_right_after_the_charge_decides_nothing():
    counter, no = at_the_terminal()
    counter.cut_power()
    counter.tell(ChannelSaid(no, Said.ABSENT))
    assert counter.box.books.orders[no].phase is Phase.PLACING
    counter.mono_ms += 180_000
    counter.tell(Rang(("order", no)))
    assert no in counter.wants("CloseOrder")                            # nor does the end of its time: it is asked to be undone
    counter.tell(ChannelSaid(no, Said.CLOSED, undo=True))
    assert counter.box.books.orders[no].phase is Phase.CLOSED and no in counter.wants("QueryOrder")
    counter.tell(approved(no))                                          # after the void, or said before it: only a void can tell
    assert no in counter.wants("CloseOrder") and not counter.box.books.refunds


def test_a_cancel_while_the_holder_is_asked_moves_nothing():
    counter, no = at_the_terminal()
    counter.tell(ChannelSaid(no, Said.OPEN))
    counter.press("CANCEL")
    assert no in counter.wants("CloseOrder")
    counter.tell(ChannelSaid(no, Said.CLOSED, undo=True))
    assert counter.phase == "BASKET" and not counter.box.books.refunds and not records(counter, "payment_alert")


def test_approved_while_cancelling_is_voided_and_not_refunded_beside_it():
    counter, no = at_the_terminal()
    counter.press("CANCEL")
    counter.tell(approved(no))
    assert no in counter.wants("CloseOrder") and not counter.box.books.refunds
    counter.tell(ChannelSaid(no, Said.GIVEN_BACK, undo=True))
    assert not counter.box.books.refunds and [r["cause"] for r in records(counter, "payment_alert")] == ["undone"]


def test_a_void_that_comes_too_late_gives_the_money_back_by_a_refund():
    counter, no = at_the_terminal()
    counter.press("CANCEL")
    counter.tell(approved(no, undo=True))
    (refund,) = counter.box.books.refunds.values()
    assert (refund.intent.channel_no, refund.intent.way, refund.intent.amount_fen) == ("0012-000345", "card", 500)


@pytest.mark.parametrize("seen", [False, True])
def test_a_decline_under_the_cancel_ends_it_unless_it_was_paid_before(seen):
    counter, no = at_the_terminal()
    counter.press("CANCEL")
    if seen:
        counter.tell(approved(no))
    counter.tell(ChannelSaid(no, Said.REFUSED, detail="declined"))
    assert (counter.box.books.orders[no].phase is Phase.CLOSED) is not seen
    assert not records(counter, "payment_alert")


def test_another_amount_than_was_asked_is_held():
    counter, no = at_the_terminal()
    counter.tell(approved(no, 499))
    assert not counter.box.books.sales and counter.box.books.orders[no].disputed_fen == 499


def test_cash_replaces_a_terminal_that_says_nothing():
    counter, no = at_the_terminal()
    counter.press("CASH")
    assert counter.phase == "PAID" and no in counter.wants("CloseOrder")
    counter.tell(approved(no))
    counter.tell(ChannelSaid(no, Said.GIVEN_BACK, undo=True))
    assert not counter.box.books.refunds and [t.method for s in counter.box.books.sales.values() for t in s.tenders] == ["cash"]


def test_pay_alone_never_goes_to_the_terminal_and_a_slow_one_is_never_left_for_another_channel():
    terms = msgspec.structs.replace(TERMS, route=("wechat", "card"))
    counter = Counter(terms)
    counter.tell(DeviceSaid("channel:wechat", "error"))
    counter.scan(TEA)
    assert counter.press("PAY").refused
    counter, no = at_the_terminal(terms)
    counter.mono_ms += 60_000
    counter.tell(Rang(("slow", no)))
    assert counter.box.books.orders[no].phase is Phase.PLACING


def sold() -> tuple[Counter, str]:
    counter, no = at_the_terminal()
    counter.tell(approved(no))
    return counter, no


def test_a_refund_goes_back_to_the_card_by_the_terminals_reference():
    counter, no = sold()
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("300 ENTER")
    (refund,) = counter.box.books.refunds.values()
    assert (refund.intent.channel_no, refund.intent.way, refund.intent.paid_fen) == ("0012-000345", "card", 500)
    counter.tell(RefundSaid(refund.intent.refund_no, RefundWord.DONE, 300))
    assert records(counter, "refund")[0]["method"] == "card"
    counter.press("REFUND")
    counter.tell(Scanned(no))
    assert counter.press("ENTER").refused and not counter.box.books.refunds      # the rule table: one refund of one sale


def test_a_sale_of_another_terminal_is_refunded_there():
    counter, no = sold()
    counter.terms = msgspec.structs.replace(TERMS, accounts=(Account("card", "main", (("terminal_id", "T2"),)),))
    counter.cut_power()
    counter.press("REFUND")
    counter.tell(Scanned(no))
    verdict = counter.press("ENTER")
    assert verdict.refused and "another card terminal" in verdict.words[1] and not counter.box.books.refunds


def test_the_reports_count_the_card():
    counter, no = sold()
    counter.scan(TEA)
    counter.press("5 PAY")
    counter.tell(ChannelSaid(counter.order_no, Said.REFUSED))
    counter.press("CANCEL")
    counter.press("Z")
    (report,) = records(counter, "z_report")
    assert report["methods"] == [{"method": "card", "amount_fen": 500}]
    (row,) = report["channels"]
    assert (row["channel"], row["way"], row["attempts"], row["paid"], row["failed"]) == ("card", "card", 2, 1, {"refused": 1})
