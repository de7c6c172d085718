"""How often a channel is asked: soon while somebody waits, seldom when nobody does."""

from __future__ import annotations

from device.pace import wait_ms
from device.txn.effects import Effect, FetchBill, Intent, QueryOrder
from device.types import Account, Terms

SHOP = Account("unionpay", "main", (("mchid", "1"),))
CLOSED = QueryOrder(Intent("N", "unionpay", SHOP, 900, "tea", "2026-11-18T10:00:00+08:00", "2026-11-18T10:06:00+08:00"), watch=True)


def asked_at_s(effect: Effect, seconds: int) -> list[int]:
    """When an effect that begins now is asked, each answer coming at once."""
    at_ms, times = 0, []
    while (at_ms := at_ms + wait_ms(effect, len(times), at_ms, at_ms, Terms())) < seconds * 1000:
        times.append(at_ms // 1000)
    return times


def test_a_closed_order_is_looked_at_at_once_then_seldom_and_never_left_alone():
    times = asked_at_s(CLOSED, 86_400)
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    assert times[0] == 5 and max(gaps) == 900 and sorted(gaps) == gaps
    assert max(b - a for a, b in zip(times, times[1:], strict=False) if a < 900) == 60


def test_a_day_of_closed_orders_leaves_the_channel_to_the_customers():
    assert len(asked_at_s(CLOSED, 86_400)) < 130 and len(asked_at_s(CLOSED, 7_500)) < 40


def test_a_bill_is_asked_for_soon_after_a_start_and_then_now_and_then():
    """A box that is switched on at noon, or loses its power every quarter of an hour, learns of yesterday's money all the same."""
    assert asked_at_s(FetchBill(SHOP, "2026-11-18"), 6_000) == [60, 1_860, 3_660, 5_460]
