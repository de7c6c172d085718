"""Which route gets the next attempt, on scripted hours: one route fails now and then, and never two live ones for one sale."""

from __future__ import annotations

import random

import pytest

from device.txn.routing import Outcome, choose, noted

ROUTES = ("wechat", "gateway")
HOUR_MS, EVERY_MS, WAIT_MS = 3_600_000, 20_000, 8_000


def hours(seed: int, fails: dict[str, float], *, routed: bool, count: int = 4) -> tuple[float, int]:
    """(share of sales that got their QR at the first attempt, switches) over `count` hours of a sale every 20 s.

    A route in `fails` gives no QR with that chance during the first ten minutes of each hour.
    """
    dice, outcomes, last, switches, good, sales = random.Random(seed), (), "", 0, 0, 0
    for now_ms in range(0, count * HOUR_MS, EVERY_MS):
        route = choose(ROUTES, outcomes, now_ms) if routed else ROUTES[0]
        bad = now_ms % HOUR_MS < 600_000 and dice.random() < fails.get(route, 0)
        outcomes = noted(outcomes, Outcome(route, not bad, WAIT_MS if bad else dice.randrange(200, 900), now_ms))
        switches += route != last and bool(last)
        last, sales, good = route, sales + 1, good + (not bad)
    return good / sales, switches


@pytest.mark.parametrize("seed", range(5))
def test_a_route_that_fails_a_third_of_ten_minutes_each_hour_is_left(seed):
    plain, _ = hours(seed, {"wechat": 0.3}, routed=False)
    routed, _ = hours(seed, {"wechat": 0.3}, routed=True)
    assert plain < 0.97 <= routed


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_script_is_never_switched(seed):
    assert hours(seed, {}, routed=True)[1] == 0


def test_a_dead_route_is_left_after_three_and_tried_again_after_a_break():
    dead = tuple(Outcome("wechat", False, WAIT_MS, n * EVERY_MS) for n in range(3))
    assert choose(ROUTES, dead[:2], 60_000) == "wechat" and choose(ROUTES, dead, 60_000) == "gateway"
    assert choose(ROUTES, dead, 40_000 + 120_000) == "wechat"


def test_the_shops_own_choice_is_kept_when_both_are_down():
    both = tuple(Outcome(name, False, WAIT_MS, 0) for name in ROUTES for _ in range(3))
    assert choose(ROUTES, both, 1_000) == "wechat"


def test_a_slow_route_is_left_for_one_that_is_much_faster():
    slow = tuple(Outcome("wechat", True, 6_500, n) for n in range(6)) + tuple(Outcome("gateway", True, 500, n) for n in range(6))
    assert choose(ROUTES, slow, 1_000) == "gateway"


def test_what_is_long_ago_says_nothing():
    old = tuple(Outcome("wechat", False, WAIT_MS, 0) for _ in range(9))
    assert choose(ROUTES, old, 600_001) == "wechat" and choose((), old, 0) == ""


def test_the_desk_keeps_so_many_outcomes_and_no_more():
    outcomes: tuple[Outcome, ...] = ()
    for n in range(500):
        outcomes = noted(outcomes, Outcome("wechat", True, 1, n))
    assert len(outcomes) == 200 and outcomes[-1].at_ms == 499
