"""Which clock is believed when: no jump of the system's clock moves a proven time, and a day's jump waits for a proof."""

from __future__ import annotations

import itertools

import pytest

from device.wall import AGREE_MS, JUMP_MS, Wall

NOON = 1_795_492_800_000
HOUR, DAY, YEAR = 3_600_000, 86_400_000, 365 * 86_400_000


class Clocks:
    """A monotonic clock, a system clock that is set by hand, and the wall above them."""

    def __init__(self, system_ms: int = NOON, last_ms: int | None = NOON - HOUR) -> None:
        self.mono_ms, self.off_ms, self.true_ms = 1_000, system_ms - NOON, NOON
        self.wall = Wall(self.mono_ms, self.system_ms, last_ms)

    @property
    def system_ms(self) -> int:
        return self.true_ms + self.off_ms

    def goes_on(self, ms: int) -> None:
        self.mono_ms += ms
        self.true_ms += ms

    def off(self) -> int:
        """How far what is told is from the truth."""
        return self.wall.now_ms(self.mono_ms, self.system_ms) - self.true_ms

    def date(self, wrong_ms: int = 0) -> None:
        self.wall.date((self.true_ms + wrong_ms) // 1000 * 1000, self.mono_ms, self.system_ms)

    def ack(self, wrong_ms: int = 0) -> None:
        self.wall.acknowledged(self.true_ms + wrong_ms, self.mono_ms, self.system_ms)


def test_a_good_system_clock_is_told_as_it_is():
    clocks = Clocks()
    for _ in range(5):
        clocks.goes_on(HOUR)
        clocks.off_ms += 40                           # a correction by a time server
        assert clocks.off() == clocks.off_ms and not clocks.wall.doubts


@pytest.mark.parametrize("jump", [-20 * YEAR, -2 * DAY, DAY + 1000, 30 * HOUR, 10 * YEAR])
def test_a_jump_of_more_than_a_day_waits_for_a_proof(jump):
    clocks = Clocks()
    clocks.off()
    clocks.off_ms = jump
    clocks.goes_on(HOUR)
    assert clocks.off() == 0 and clocks.wall.doubts
    clocks.date()
    assert clocks.off() == 0 and clocks.wall.proven and clocks.wall.doubts
    clocks.off_ms = 0
    assert clocks.off() == 0 and not clocks.wall.doubts


@pytest.mark.parametrize("proof", ["date", "ack"])
@pytest.mark.parametrize("jump", [-3 * HOUR, HOUR, 23 * HOUR])
def test_a_smaller_jump_is_followed_until_a_proof_undoes_it(jump, proof):
    clocks = Clocks()
    clocks.off()
    clocks.off_ms = jump
    assert clocks.off() == jump
    clocks.goes_on(1000)
    getattr(clocks, proof)()
    assert abs(clocks.off()) <= 1000 and clocks.wall.doubts


@pytest.mark.parametrize("jump", [-20 * YEAR, -HOUR, HOUR, 23 * HOUR, 10 * YEAR])
def test_what_is_proven_is_not_moved_by_any_jump(jump):
    clocks = Clocks()
    clocks.date()
    clocks.off_ms = jump
    clocks.goes_on(2 * DAY)
    assert clocks.off() == 0 and clocks.wall.doubts


@pytest.mark.parametrize("proof", ["date", "ack"])
def test_a_box_that_was_off_for_days_keeps_its_last_time_until_somebody_says_that_the_days_are_true(proof):
    clocks = Clocks(last_ms=NOON - 3 * DAY)
    assert clocks.off() == -3 * DAY and clocks.wall.doubts
    getattr(clocks, proof)()
    assert clocks.off() == 0 and not clocks.wall.doubts


@pytest.mark.parametrize("system", [0, NOON - 2 * DAY])
def test_a_box_without_a_battery_begins_where_it_ended_and_is_put_right_by_the_first_proof(system):
    clocks = Clocks(system_ms=system, last_ms=NOON - HOUR)
    assert clocks.off() == -HOUR
    clocks.ack()
    assert clocks.off() == 0 and clocks.wall.doubts      # the system's clock is still wrong


def test_a_fresh_box_has_nothing_but_the_system_clock_and_is_put_right_in_both_directions():
    for wrong in (-20 * YEAR, 10 * YEAR):
        clocks = Clocks(system_ms=NOON + wrong, last_ms=None)
        assert clocks.off() == wrong
        clocks.ack()
        assert clocks.off() == 0


def test_no_time_is_told_below_what_the_cloud_has_signed_and_the_floor_moves_on():
    clocks = Clocks()
    clocks.ack()
    clocks.goes_on(DAY)
    for wrong in (-DAY, -HOUR):
        clocks.date(wrong)
        assert clocks.off() == 0


def test_a_channel_whose_own_clock_is_off_moves_nothing_that_was_proven():
    clocks = Clocks()
    clocks.date()
    for wrong in (-HOUR, HOUR, YEAR):
        clocks.date(wrong)
        assert clocks.off() == 0


def test_an_acknowledgement_that_was_held_up_does_not_set_the_clock_back():
    clocks = Clocks()
    clocks.off()
    clocks.ack(-2 * HOUR)
    assert clocks.off() == 0 and not clocks.wall.proven


def test_time_never_goes_back_by_itself():
    """Whatever happens between them, two readings without a proof between them never differ by less than the time that passed."""
    jumps = (0, HOUR, -HOUR, 30 * HOUR, -30 * HOUR, AGREE_MS - 1, 1 - AGREE_MS, JUMP_MS + 1)
    for steps in itertools.product(jumps, repeat=3):
        clocks = Clocks()
        clocks.ack()
        before = clocks.off()
        for step in steps:
            clocks.off_ms += step
            clocks.goes_on(1000)
            assert clocks.off() >= min(before, 0) - AGREE_MS
            assert abs(clocks.off()) <= AGREE_MS
