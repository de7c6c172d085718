"""The power goes at every step of an update: at each write, each sync, each file.  What starts afterwards is whole, and a second
try ends well."""

from __future__ import annotations

import pytest

from device.update import boot_state
from device.update.boot_state import next_to_boot
from device.update.slots import Refused, Release, Slots
from tests.update.slot_room import Machine, PowerCut, cut, image, index, manifest, signed

OLD, NEW = image(1), image(2)
TOKEN = signed(manifest(NEW, bases={"0.1.0": OLD}))
RELEASE = Release("0.2.0", 2, "virt")


def update(machine: Machine) -> None:
    """The way of one release, from wherever it stands to kept."""
    slots = machine.slots
    if slots.release != RELEASE:
        if slots.tries.left(slots.running) < boot_state.TRIES:
            slots.good()
        machine.write(NEW, TOKEN, OLD)
        slots.arm()
        machine.start()
    assert machine.slots.release == RELEASE
    machine.slots.good()


def steps() -> int:
    machine = Machine()
    machine.known(NEW, RELEASE)
    machine.card.steps = 0
    update(machine)
    return machine.card.steps


@pytest.mark.parametrize("mercy", ["none", "all", "torn"])
def test_whatever_starts_after_a_cut_is_whole_and_the_next_try_ends_well(mercy):
    count = steps()
    assert count > 60, count
    for nth in range(1, count + 1):
        machine = Machine()
        machine.known(NEW, RELEASE)
        machine.card.steps, machine.card.nth, machine.card.mercy = 0, nth, mercy
        with pytest.raises(PowerCut):
            update(machine)
        slot = machine.start(tries=1)                  # the very first start: no try is spent on a slot that is not whole
        assert machine.holds(slot) is not None, nth
        update(machine)
        assert machine.slots.running == "b" and machine.card.tries.left("b") == boot_state.TRIES, nth
        assert machine.slots.stand.word == "kept" and machine.slots.stand.ratchet == 2


@pytest.mark.parametrize("mercy", ["none", "all", "torn"])
def test_two_cuts_in_a_row_change_nothing_of_that(mercy):
    count = steps()
    for nth in range(1, count + 1, 5):
        for second in range(1, 60, 7):
            machine = Machine()
            machine.known(NEW, RELEASE)
            machine.card.mercy = mercy
            for at in (nth, second):
                machine.card.steps, machine.card.nth = 0, at
                try:
                    update(machine)
                except PowerCut:
                    machine.start(tries=1)
            machine.card.nth = 0
            update(machine)
            assert machine.slots.running == "b" and machine.slots.stand.word == "kept", (nth, second)


@pytest.mark.parametrize("mercy", ["none", "all", "torn"])
def test_a_way_back_that_is_cut_goes_back_all_the_same(mercy):
    for nth in range(1, 8):
        machine = Machine()
        machine.known(NEW, RELEASE)
        machine.write(NEW, TOKEN)
        machine.slots.arm()
        assert machine.start() == "b" and machine.slots.trial
        machine.card.steps, machine.card.nth, machine.card.mercy = 0, nth, mercy
        try:
            machine.slots.back("the printer is gone")
        except PowerCut:
            pass
        slot = machine.start(tries=1)
        if slot == "b":                                # cut before the first word of it was kept, or between word and boot state
            if machine.slots.trial:
                machine.slots.back("the printer is gone")
            machine.start(tries=1)
        assert machine.slots.running == "a" and machine.slots.stand.word == "undone"
        assert machine.slots.stand.cause == "the printer is gone"
        assert machine.slots.stand.ratchet == 1        # and what was not kept raises no ratchet


def test_a_release_that_never_comes_up_is_tried_three_times_and_its_cause_is_kept():
    machine = Machine()
    machine.known(NEW, RELEASE)
    machine.write(NEW, TOKEN)
    machine.slots.arm()
    del machine.versions[next(crc for crc, one in machine.versions.items() if one[0] == RELEASE)]     # it hangs at every start
    assert machine.start(tries=4) == "a"
    assert machine.slots.stand.word == "undone" and "started 3 times" in machine.slots.stand.cause
    assert machine.card.tries == boot_state.BootState(("a", "b"), boot_state.TRIES - 1, 0)
    machine.slots.good()
    machine.start(tries=1)
    assert machine.slots.running == "a"


def test_a_torn_map_or_a_rotten_word_costs_a_download_and_nothing_else():
    machine = Machine()
    machine.known(NEW, RELEASE)
    machine.slots.begin(TOKEN)
    for file in ("slot.json", "map", "index", "manifest.jws"):
        machine.card.files[file] = b"\xff\x00rotten"
        machine.start(tries=1)
        machine.slots.good()
        update(machine)
        assert machine.slots.running in "ab" and machine.slots.stand.word == "kept"
        machine = Machine()
        machine.known(NEW, RELEASE)
        machine.slots.begin(TOKEN)


def test_an_armed_release_that_was_never_started_is_no_failure():
    """Armed, and the machine's restart was of something else: the boot state never came to say so."""
    machine = Machine()
    machine.known(NEW, RELEASE)
    machine.write(NEW, TOKEN)
    machine.slots.stand.boot = "boot-1"
    machine.slots._word("armed")
    machine.start(tries=1)
    assert machine.slots.running == "a" and machine.slots.stand.word == "whole"
    with pytest.raises(Refused, match="read back"):
        machine.slots.arm()                            # a word on the card starts nothing: it is read back again
    while not machine.slots.check()["done"]:
        pass
    machine.slots.arm()
    assert machine.start() == "b"


def test_a_slot_on_trial_overwrites_nothing():
    machine = Machine()
    machine.known(NEW, RELEASE)
    machine.write(NEW, TOKEN)
    machine.slots.arm()
    machine.start()
    third = image(3)
    with pytest.raises(Refused, match="on trial"):
        machine.slots.begin(signed(manifest(third, "0.3.0", 3)))
    assert machine.holds("a") is not None
    machine.slots.good()
    machine.slots.begin(signed(manifest(third, "0.3.0", 3)))


def test_a_start_that_is_not_proven_keeps_what_it_would_fall_back_to():
    machine = Machine()
    machine.start()
    with pytest.raises(Refused, match="not proven itself"):
        machine.slots.begin(TOKEN)


def test_the_way_back_by_hand_is_to_what_was_kept_before_and_not_below_the_ratchet():
    machine = Machine()
    machine.known(NEW, Release("0.2.0", 1, "virt"))
    same = signed(manifest(NEW, ratchet=1))
    machine.write(NEW, same)
    machine.slots.arm()
    machine.start()
    machine.slots.good()
    machine.slots.swap()
    assert machine.start() == "a"
    other = Machine()
    other.known(NEW, RELEASE)
    update(other)
    with pytest.raises(Refused, match="ratchet"):
        other.slots.swap()


def test_the_cut_is_seen(monkeypatch):
    """Sabotage: with the boot state written before the other slot is closed, some cut starts a slot that is not whole."""
    def never(self: Slots, tries: object) -> None:
        return None

    machine = Machine()
    machine.known(NEW, RELEASE)
    machine.install("b", image(9), Release("0.0.9", 0, "virt"))
    for at in boot_state.WITHIN:
        machine.card.disk["state"][at:at + 512] = boot_state.encode(next_to_boot(machine.card.tries, "b"))
    monkeypatch.setattr(Slots, "_put_tries", never)
    machine.slots.begin(TOKEN)
    machine.slots.index(index(NEW))
    machine.slots.piece(len(cut(NEW)) - 1, cut(NEW)[-1])
    machine.card.sync("other")
    with pytest.raises(AssertionError, match="nothing starts"):
        machine.start(tries=1)
