"""What a channel's bill decides, and what it must not: days a payment may be filed under, whose bill it is, how much it says."""

from __future__ import annotations

import msgspec
import pytest

from device.txn.books import Phase
from device.txn.effects import Alarm, FetchBill
from device.txn.inputs import BillSaid, ChannelSaid, QrReady, Rang, Said, Scanned
from device.txn.show import state
from device.types import Account
from tests.counter import TEA, Counter
from tests.txn.test_paying import ACCOUNTS, TERMS, WECHAT_CODE, alerts

SHOP = ACCOUNTS[0]
FIRST, SECOND = "2026-09-01", "2026-09-02"


def counter_at(wall: str) -> Counter:
    counter = Counter(TERMS)
    counter.wall = wall
    return counter


def overdue(counter: Counter, *, code: bool = False, policy: str = "ENTER") -> str:
    """One more sale, its order parked and asked about until nobody could pay it any more; no word of the channel was definite."""
    counter.scan(TEA)
    counter.press("CODE" if code else "PAY")
    if code:
        counter.tell(Scanned(WECHAT_CODE))
    no = counter.order_no
    counter.press(f"PARK {policy}")
    if not code and policy == "ENTER":
        counter.mono_ms += 300_000
        counter.tell(Rang(("order", no)))                    # time-out: the close is asked for, and not answered
    counter.mono_ms += 8_000_000
    counter.tell(Rang(("overdue", no)))
    assert phase(counter, no) is Phase.UNDECIDED
    return no


def phase(counter: Counter, no: str) -> Phase | None:
    order = counter.box.books.orders.get(no)
    return order.phase if order is not None else None


def days(counter: Counter) -> list[tuple[str, str]]:
    return sorted((e.account.account, e.day) for e in counter.running if isinstance(e, FetchBill))


def bill(counter: Counter, day: str, *rows: tuple, account: Account = SHOP):
    return counter.tell(BillSaid(account, day, True, rows))


def paid(no: str, fen: int = 500) -> tuple:
    return ("paid", no, "", fen, "4200")


def back(no: str, fen: int = 500) -> tuple:
    return ("refund", no, "", fen, "5000")


@pytest.mark.parametrize(("wall", "asked"), [
    ("2026-09-01T10:00:00+08:00", [FIRST]),
    ("2026-09-01T23:59:50+08:00", [FIRST, SECOND]),
    ("2026-09-01T20:30:00+08:00", [FIRST]),
    ("2026-09-01T21:00:00+08:00", [FIRST, SECOND]),          # a channel's day may end at 23:00: its code lived until 23:05
    ("2026-09-01T17:30:00+00:00", [SECOND]),                 # a box that counts in UTC sells on Beijing's next day
    ("2026-08-31T23:30:00+06:00", [FIRST]),
])
def test_every_day_that_may_name_the_payment_is_asked_for_and_in_beijing(wall, asked):
    counter = counter_at(wall)
    overdue(counter)
    assert [day for _, day in days(counter)] == asked


def test_a_payment_made_after_midnight_is_found_in_the_second_bill():
    counter = counter_at("2026-09-01T23:59:50+08:00")
    no = overdue(counter)
    bill(counter, FIRST)
    assert phase(counter, no) is Phase.UNDECIDED             # it was paid ten seconds later
    bill(counter, SECOND, paid(no))
    assert no in counter.box.books.sales and days(counter) == []


def test_an_order_that_no_bill_of_its_days_names_is_closed_whatever_their_order():
    counter = counter_at("2026-09-01T23:59:50+08:00")
    no = overdue(counter)
    bill(counter, SECOND)
    assert phase(counter, no) is Phase.UNDECIDED
    bill(counter, FIRST)
    assert phase(counter, no) is Phase.CLOSED and alerts(counter) == ["goods_given_unpaid"]


def test_a_bill_that_was_read_before_a_power_cut_is_read_again():
    counter = counter_at("2026-09-01T23:59:50+08:00")
    no = overdue(counter)
    bill(counter, FIRST)
    counter.journal.sync()
    counter.cut_power()
    bill(counter, SECOND)
    assert phase(counter, no) is Phase.UNDECIDED
    bill(counter, FIRST)
    assert phase(counter, no) is Phase.CLOSED


def test_a_reversal_after_midnight_is_no_reason_for_a_refund():
    counter = counter_at("2026-09-01T23:59:50+08:00")
    no = overdue(counter, code=True, policy="CANCEL")
    bill(counter, FIRST, paid(no))
    assert phase(counter, no) is Phase.UNDECIDED and not counter.box.books.refunds
    bill(counter, SECOND, back(no))
    assert phase(counter, no) is Phase.CLOSED and not counter.box.books.refunds and alerts(counter) == ["undone"]


def test_money_that_came_back_from_a_payment_nobody_names_decides_nothing():
    counter = counter_at("2026-09-01T10:00:00+08:00")
    no = overdue(counter)
    bill(counter, FIRST, back(no))
    assert phase(counter, no) is Phase.UNDECIDED


def test_another_accounts_bill_decides_nothing():
    """The merchant number was changed at noon, under the same name of the account."""
    counter = counter_at("2026-09-01T10:00:00+08:00")
    no = overdue(counter)
    other = msgspec.structs.replace(SHOP, fields=(("mchid", "2"),))
    bill(counter, FIRST, account=other)
    assert phase(counter, no) is Phase.UNDECIDED
    bill(counter, FIRST, paid(no))
    assert no in counter.box.books.sales


@pytest.mark.parametrize("rows", [(501,), (500, 500), (499,)])
def test_another_amount_is_disputed_and_neither_booked_nor_refunded(rows):
    counter = counter_at("2026-09-01T10:00:00+08:00")
    no = overdue(counter)
    bill(counter, FIRST, *(paid(no, fen) for fen in rows))
    assert alerts(counter) == ["amount_wrong"] and phase(counter, no) is Phase.UNDECIDED
    assert not counter.box.books.sales and not counter.box.books.refunds


def test_a_disputed_order_does_not_keep_the_bill_from_the_next():
    counter = counter_at("2026-09-01T10:00:00+08:00")
    first, second = overdue(counter), overdue(counter)
    for _ in range(2):
        bill(counter, FIRST, paid(first, 501), paid(second))
    assert phase(counter, first) is Phase.UNDECIDED and second in counter.box.books.sales


def test_one_reading_settles_every_order_that_it_names():
    """A shop may have dozens: UnionPay's QRs that nobody paid can only be settled so."""
    counter = counter_at("2026-09-01T10:00:00+08:00")
    numbers = [overdue(counter) for _ in range(3)]
    bill(counter, FIRST, *map(paid, numbers))
    for left in (2, 1):
        rings = sorted(e.key for e in counter.running if isinstance(e, Alarm) and e.key[0] == "bill")
        assert len(counter.box.books.orders) == len(rings) == left
        counter.tell(Rang(rings[0]))
    assert days(counter) == [] and sorted(counter.box.books.sales) == sorted(numbers)
    assert counter.box.desk.billed == ()


def test_a_ring_after_the_matter_is_settled_decides_nothing():
    counter = counter_at("2026-09-01T10:00:00+08:00")
    first, second = overdue(counter), overdue(counter)
    bill(counter, FIRST, paid(first), paid(second))
    counter.say(second, Said.PAID, 500)
    assert counter.tell(Rang(("bill", second))).facts == [] and len(counter.box.books.sales) == 2


@pytest.mark.parametrize("moment", ["at the counter", "cancelling", "closed", "nobody decided"])
def test_money_that_the_channel_took_and_cannot_place_is_told_once_and_closed_by_no_silence(moment):
    """UnionPay's 74: no refusal and not paid.  A bill that does not name it proves nothing, for its row may come days later."""
    counter = counter_at("2026-09-01T10:00:00+08:00")
    if moment == "nobody decided":
        no = overdue(counter)
    else:
        counter.scan(TEA)
        no = counter.pay()
        if moment != "at the counter":
            counter.press("CANCEL")
        if moment == "closed":
            counter.say(no, Said.ABSENT)
    for _ in range(2):
        counter.tell(ChannelSaid(no, Said.UNKNOWN, 500, detail="its booking is not clear (74)"))
    assert alerts(counter) == ["money_held"] and phase(counter, no) is not None
    (shown,) = [o for o in state(counter.box.books, counter.box.desk, counter.mono_ms)["orders"] if o["order_no"] == no]
    assert shown["held_fen"] == 500
    if moment == "nobody decided":
        bill(counter, FIRST)
        assert phase(counter, no) is Phase.UNDECIDED
        bill(counter, FIRST, paid(no))
        assert no in counter.box.books.sales


def test_money_that_was_held_and_is_booked_at_last_is_sold():
    counter = counter_at("2026-09-01T10:00:00+08:00")
    counter.scan(TEA)
    no = counter.pay()
    counter.tell(ChannelSaid(no, Said.UNKNOWN, 500, detail="its booking is not clear (42)"))
    counter.say(no, Said.PAID, 500)
    assert no in counter.box.books.sales and alerts(counter) == ["money_held"]


def test_an_unknown_without_an_amount_says_nothing_to_anybody():
    counter = counter_at("2026-09-01T10:00:00+08:00")
    counter.scan(TEA)
    no = counter.pay()
    counter.say(no, Said.UNKNOWN)
    assert alerts(counter) == []


def test_an_alarm_from_before_the_clock_went_on_ends_no_order():
    counter = counter_at("2026-09-01T10:00:00+08:00")
    counter.scan(TEA)
    no = counter.pay()
    counter.press("CANCEL")
    counter.tell(Rang(("overdue", no)))
    assert phase(counter, no) is Phase.CANCELLING
    counter.tell(QrReady(no, "weixin://late"))
    counter.say(no, Said.PAID, 500)
    assert phase(counter, no) is Phase.ASKING
