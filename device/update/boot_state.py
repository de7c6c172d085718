"""Which root slot is started next, and how often it may still fail: two sectors on the card, and the rules that read them.

Knows U-Boot's environment format (crc32, then `key=value` strings) and RAUC's three names for it; no disk, no device name.
The boot script reads and writes the same sectors before any kernel runs (image/boot/boot_script.py): what `chosen` says here
is what it does there, and tests/appliance/test_boot_script.py holds one against the other.

A card loses power between any two bytes.  So there are two copies, never written in one breath: first, synced, second,
synced.  The first whose checksum holds counts; when neither does, both slots have all their tries and `a` goes first.
"""

from __future__ import annotations

import zlib

import msgspec

SECTOR = 512
FIRST, SECOND = 64, 72                           # sectors of the disk, in the gap before the first partition
WITHIN = (0, (SECOND - FIRST) * SECTOR)          # the two copies in bytes from the start of /dev/mapper/till-state
SPAN = 16                                        # sectors of /dev/mapper/till-state, from FIRST on
SLOTS = ("a", "b")
TRIES = 3                                        # of a slot that has proved itself
MOST = 9                                         # one digit: more than any rule here hands out

ORDER, LEFT = "BOOT_ORDER", {"a": "BOOT_a_LEFT", "b": "BOOT_b_LEFT"}


class Torn(ValueError):
    """A copy that says nothing: checksum wrong, or words that are not the three of a boot state."""


class BootState(msgspec.Struct, frozen=True):
    """`order`: slots, the one to start first at the front; `a`, `b`: tries left, 0 to 9."""

    order: tuple[str, ...] = SLOTS
    a: int = TRIES
    b: int = TRIES

    def __post_init__(self) -> None:
        if not self.order or len(set(self.order)) != len(self.order) or not set(self.order) <= set(SLOTS):
            raise ValueError(f"an order of slots is one or both of a and b, each once: {self.order!r}")
        if not (0 <= self.a <= MOST and 0 <= self.b <= MOST):
            raise ValueError(f"tries are 0 to {MOST}: {self.a}, {self.b}")

    def left(self, slot: str) -> int:
        """Tries left of `slot`."""
        return {"a": self.a, "b": self.b}[slot]

    def having(self, slot: str, left: int) -> BootState:
        """The same with other tries for `slot`."""
        return BootState(self.order, left if slot == "a" else self.a, left if slot == "b" else self.b)


DEFAULTS = BootState()


def other(slot: str) -> str:
    """The slot that `slot` is not."""
    return {"a": "b", "b": "a"}[slot]


def encode(state: BootState) -> bytes:
    """One copy, 512 bytes: as `env export -c -s 200` in U-Boot and `mkenvimage -s 512 -p 0` write it."""
    words = f"{ORDER}={' '.join(state.order)}\0{LEFT['a']}={state.a}\0{LEFT['b']}={state.b}\0\0".encode()
    body = words.ljust(SECTOR - 4, b"\0")
    return zlib.crc32(body).to_bytes(4, "little") + body


def decode(sector: bytes) -> BootState:
    """The state in one copy.  Raises Torn: for a wrong length or checksum, one of the three words missing or strange.

    As in the boot script, the order of the words is free, and what else somebody's tool put beside them is passed over.
    """
    if len(sector) != SECTOR or zlib.crc32(sector[4:]) != int.from_bytes(sector[:4], "little"):
        raise Torn("checksum")
    words: dict[str, str] = {}
    for entry in sector[4:].split(b"\0\0", 1)[0].decode("ascii", "replace").split("\0"):
        key, _, value = entry.partition("=")
        words[key] = value
    if not {ORDER, *LEFT.values()} <= set(words):
        raise Torn(f"words missing: {sorted(words)}")
    left = [words[LEFT[slot]] for slot in SLOTS]
    if any(len(one) != 1 or one not in "0123456789" for one in left):
        raise Torn(f"tries are one digit: {left}")
    try:
        return BootState(tuple(words[ORDER].split(" ")), *map(int, left))
    except ValueError as error:
        raise Torn(str(error)) from error


def read(first: bytes, second: bytes) -> BootState:
    """The state that holds: the first copy that is whole, else the second, else DEFAULTS.  Raises nothing."""
    for copy in (first, second):
        try:
            return decode(copy)
        except Torn:
            continue
    return DEFAULTS


def chosen(state: BootState) -> tuple[str, BootState]:
    """What the boot script does: the slot it starts, and the state it writes back before starting it.

    The first slot in order with tries left, one taken off.  None has any: a broken box must still try, so each slot gets one
    more and both are in the order again.
    """
    if not any(state.left(slot) for slot in state.order):
        state = BootState(state.order + tuple(slot for slot in SLOTS if slot not in state.order), 1, 1)
    slot = next(slot for slot in state.order if state.left(slot))
    return slot, state.having(slot, state.left(slot) - 1)


def proved(state: BootState, slot: str) -> BootState:
    """`slot` has shown that it works: all its tries again.  Which slot is first stays as it is."""
    return state.having(slot, TRIES)


def next_to_boot(state: BootState, slot: str, tries: int = TRIES) -> BootState:
    """`slot` first at the next start, with `tries`; the other one behind it with what it has."""
    return BootState((slot, other(slot)), state.a, state.b).having(slot, tries)


def given_up(state: BootState, slot: str) -> BootState:
    """`slot` is not started again unless nothing else is left: no tries, and last in order."""
    return BootState((other(slot), slot), state.a, state.b).having(slot, 0)
