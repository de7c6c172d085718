"""The two sectors that say which slot starts: written as U-Boot writes them, read whatever the power cut left of them."""

from __future__ import annotations

import random
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest

from device.update.boot_state import (
    DEFAULTS,
    MOST,
    SECTOR,
    SLOTS,
    BootState,
    Torn,
    chosen,
    decode,
    encode,
    given_up,
    next_to_boot,
    other,
    proved,
    read,
)

EVERY = [BootState(order, a, b) for order in (("a",), ("b",), ("a", "b"), ("b", "a")) for a in range(4) for b in range(4)]
STRANGE = bytes(SECTOR)

# Written by U-Boot 2023.01 (qemu_arm64): setenv of the three, `env export -c -s 200 ADDR BOOT_ORDER BOOT_a_LEFT BOOT_b_LEFT`.
FROM_U_BOOT = bytes.fromhex(
    "6b55e3e9 424f4f545f4f524445523d61 206200424f4f545f615f4c4546543d33 00424f4f545f625f4c4546543d330000").ljust(SECTOR, b"\0")


def sealed(words: bytes) -> bytes:
    body = words.ljust(SECTOR - 4, b"\0")
    return zlib.crc32(body).to_bytes(4, "little") + body


def test_what_u_boot_wrote_is_what_we_write():
    assert encode(DEFAULTS) == FROM_U_BOOT
    assert decode(FROM_U_BOOT) == BootState(("a", "b"), 3, 3)


@pytest.mark.skipif(not shutil.which("mkenvimage"), reason="mkenvimage is in u-boot-tools, which is not installed here")
def test_mkenvimage_writes_the_same_bytes(tmp_path: Path):
    for state in (BootState(("b", "a"), 0, 9), BootState(("b",), 1, 2)):
        words = f"BOOT_ORDER={' '.join(state.order)}\nBOOT_a_LEFT={state.a}\nBOOT_b_LEFT={state.b}\n"
        (tmp_path / "words").write_text(words)
        subprocess.run(["mkenvimage", "-s", "512", "-p", "0", "-o", tmp_path / "sector", tmp_path / "words"], check=True)
        assert encode(state) == (tmp_path / "sector").read_bytes()


def test_every_state_comes_back():
    for state in EVERY:
        assert decode(encode(state)) == state
        assert len(encode(state)) == SECTOR


def test_u_boot_may_sort_its_words_as_it_likes():
    assert decode(sealed(b"BOOT_b_LEFT=1\0BOOT_a_LEFT=2\0BOOT_ORDER=b a\0\0")) == BootState(("b", "a"), 2, 1)
    assert decode(sealed(b"BOOT_a_LEFT=2\0BOOT_b_LEFT=1\0BOOT_ORDER=b a\0bootcmd=x\0\0")) == BootState(("b", "a"), 2, 1)


@pytest.mark.parametrize("words", [
    b"", b"\0\0", b"BOOT_ORDER=a b\0\0",
    b"BOOT_ORDER=a b\0BOOT_a_LEFT=3\0BOOT_b_LEFT=\0\0",
    b"BOOT_ORDER=a b\0BOOT_a_LEFT=10\0BOOT_b_LEFT=3\0\0",
    b"BOOT_ORDER=a b\0BOOT_a_LEFT=-1\0BOOT_b_LEFT=3\0\0",
    "BOOT_ORDER=a b\0BOOT_a_LEFT=²\0BOOT_b_LEFT=3\0\0".encode(),
    b"BOOT_ORDER=\0BOOT_a_LEFT=3\0BOOT_b_LEFT=3\0\0",
    b"BOOT_ORDER=a a\0BOOT_a_LEFT=3\0BOOT_b_LEFT=3\0\0",
    b"BOOT_ORDER=a c\0BOOT_a_LEFT=3\0BOOT_b_LEFT=3\0\0",
    b"BOOT_ORDER=a  b\0BOOT_a_LEFT=3\0BOOT_b_LEFT=3\0\0",
])
def test_a_copy_with_strange_words_says_nothing(words: bytes):
    with pytest.raises(Torn):
        decode(sealed(words))


def test_one_changed_bit_anywhere_makes_a_copy_say_nothing():
    whole = encode(BootState(("b", "a"), 2, 1))
    for bit in range(SECTOR * 8):
        broken = bytearray(whole)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Torn):
            decode(bytes(broken))


def test_the_first_whole_copy_counts():
    old, new = encode(BootState(("a", "b"), 3, 3)), encode(BootState(("b", "a"), 3, 2))
    assert read(new, old) == decode(new), "cut between the copies: the first is the newer"
    assert read(STRANGE, old) == decode(old)
    assert read(new, STRANGE) == decode(new)
    assert read(STRANGE, STRANGE) == DEFAULTS
    assert read(b"", b"short") == DEFAULTS


def test_power_cut_at_any_byte_of_either_copy_leaves_the_old_state_or_the_new_one():
    old, new = BootState(("a", "b"), 2, 0), BootState(("b", "a"), 3, 3)
    before, after = encode(old), encode(new)
    for cut in range(SECTOR + 1):
        assert read(after[:cut] + before[cut:], before) in (old, new)
        assert read(after, after[:cut] + before[cut:]) == new
        assert read(after[:cut] + bytes(SECTOR - cut), before) in (old, new), "a sector that came back as zeros"


def test_a_slot_that_never_proves_itself_gives_way_to_the_other():
    state, started = next_to_boot(DEFAULTS, "b"), []
    for _ in range(5):
        slot, state = chosen(state)
        started.append(slot)
    assert started == ["b", "b", "b", "a", "a"]


def test_a_slot_that_proves_itself_stays():
    state = next_to_boot(DEFAULTS, "b")
    for _ in range(20):
        slot, state = chosen(state)
        assert slot == "b"
        state = proved(state, slot)
    assert state == BootState(("b", "a"), 3, 3)


def test_two_slots_that_never_prove_themselves_are_tried_in_turn_for_ever():
    state, started = DEFAULTS, []
    for _ in range(12):
        slot, state = chosen(state)
        started.append(slot)
    assert "".join(started) == "aaabbb" + "ababab"


def test_a_slot_out_of_the_order_comes_back_only_when_nothing_else_is_left():
    assert chosen(BootState(("b",), 3, 1)) == ("b", BootState(("b",), 3, 0))
    assert chosen(BootState(("b",), 3, 0)) == ("b", BootState(("b", "a"), 1, 0))


def test_a_slot_given_up_waits_behind_the_other():
    state = given_up(next_to_boot(DEFAULTS, "b"), "b")
    assert state == BootState(("a", "b"), 3, 0)
    assert chosen(state)[0] == "a"


def test_no_walk_of_boots_and_updates_ends_without_a_slot_to_start():
    rng = random.Random(6)
    for _ in range(200):
        state = DEFAULTS
        for _ in range(50):
            where, step = rng.choice(SLOTS), rng.choice((chosen, proved, given_up, next_to_boot))
            state = chosen(state)[1] if step is chosen else step(state, where)
            state = decode(encode(state))
            slot, after = chosen(state)
            assert slot in SLOTS
            assert after.left(slot) < max(state.left(slot), 1)


def test_a_state_that_cannot_be_is_not_built():
    for order, a, b in (((), 3, 3), (("a", "a"), 3, 3), (("c",), 3, 3), (("a",), -1, 3), (("a",), 3, MOST + 1)):
        with pytest.raises(ValueError):
            BootState(order, a, b)
    assert (other("a"), other("b")) == ("b", "a")
