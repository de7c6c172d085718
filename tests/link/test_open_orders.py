"""What the cloud hears of orders that nobody has decided: every change, not too often, and again after each connect."""

from __future__ import annotations

from typing import Any

from device.mqtt import wire
from device.open_orders import LIST_MAX, OpenOrders
from device.txn.inputs import Said
from tests.counter import TEA, Counter
from tests.txn.test_paying import TERMS


class Line:
    """The room over a counter's books, and the lists that left."""

    def __init__(self, every_ms: int = 10_000) -> None:
        self.counter = Counter(TERMS)
        self.lists: list[tuple[int, list[str]]] = []
        self.room = OpenOrders(lambda: self.counter.box.books.orders, lambda: 1_788_228_000.0, every_ms)

    def at(self, now_ms: int) -> Any:
        told = self.room.due(now_ms)
        if told is None:
            return None
        self.room.left(now_ms)
        self.lists.append((now_ms, [o.order_no for o in wire.open_decoded(told)]))
        return wire.open_decoded(told)


def test_an_order_is_told_of_from_its_first_moment_to_its_last():
    line = Line()
    assert line.at(0) == ()                          # after each connect, though nothing is open
    assert line.at(20_000) is None
    line.counter.scan(TEA)
    line.counter.press("PAY")
    no = line.counter.order_no
    (told,) = line.at(20_000)
    order = line.counter.box.books.orders[no]
    assert (told.order_no, told.channel, told.account, told.amount_fen, told.made_at, told.way) == (
        no, order.intent.channel, order.intent.account.account, 500, order.intent.made_at, "qr")
    assert line.at(40_000) is None, "only its age changed"
    line.counter.say(no, Said.PAID, 500)
    assert line.at(60_000) == ()


def test_changes_leave_at_most_every_ten_seconds_and_the_last_one_always():
    line = Line()
    line.at(0)
    line.counter.scan(TEA)
    line.counter.press("PAY")
    first = line.counter.order_no
    assert line.at(4_000) is None and line.room.next_due_ms() == 10_000
    assert [o.order_no for o in line.at(10_000)] == [first]
    assert line.room.next_due_ms() is None


def test_a_change_taken_back_in_time_is_not_told():
    line = Line()
    line.at(0)
    no = (line.counter.scan(TEA), line.counter.press("PAY"), line.counter.order_no)[2]
    assert line.at(3_000) is None
    line.counter.say(no, Said.PAID, 500)
    assert line.at(10_000) is None and line.room.next_due_ms() is None


def test_a_fresh_connection_is_told_at_once_and_whole():
    line = Line(60_000)
    line.counter.scan(TEA)
    line.counter.press("PAY")
    line.at(0)
    line.room.connected()
    assert [o.order_no for o in line.at(500)] == [line.counter.order_no]


def test_money_that_is_on_its_way_back_is_still_open_and_a_closed_order_is_not():
    line = Line()
    line.counter.scan(TEA)
    line.counter.press("PAY")
    no = line.counter.order_no
    line.counter.press("CANCEL")
    assert [o.order_no for o in line.at(0)] == [no]
    line.counter.say(no, Said.CLOSED)
    assert line.at(20_000) == ()
    line.counter.say(no, Said.PAID, 500)             # late: it goes back, and until it did it is nobody's
    assert [o.order_no for o in line.at(40_000)] == [no]


def test_the_longest_list_with_the_longest_names_fits_into_one_message():
    longest = wire.OpenOrder("N" * 32, "c" * 32, "a" * 64, 2 ** 33, 2 ** 31, "2026-07-14T09:26:53.123456+08:00", "w" * 8)
    assert len(wire.open_decoded(wire.encoded((longest,) * LIST_MAX))) == LIST_MAX
