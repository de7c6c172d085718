"""Two slots of a machine without a machine: images, a release, a card that loses power, and a boot loader that tries.

The card keeps what was synced; what was not is lost, kept or torn at a cut, as the test says.
"""

from __future__ import annotations

import functools
import hashlib
import random
import zlib
from typing import Any

from device.mqtt import update_wire as wire
from device.store_forward.es256 import public_verifier
from device.update import boot_state
from device.update.slots import Release, Slots
from fleet.update.cutting import pieces_of
from tests.record_chain import Key

KEY = Key()
KNOWN = {KEY.kid: public_verifier(KEY.jwk)}
SLOT_BYTES = 512 * 1024


class PowerCut(BaseException):
    """The power went; nothing catches it."""


@functools.cache
def image(version: int, size: int = 300_000) -> bytes:
    """A slot image: free space, then bytes that most versions share, some that each has for itself."""
    shared, own = random.Random(1), random.Random(version)
    return bytes(70_000) + shared.randbytes(size // 2) + own.randbytes(size // 8 + version * 7) + shared.randbytes(size // 3)


@functools.cache
def cut(data: bytes) -> list[bytes]:
    return list(pieces_of(data))


def index(data: bytes) -> bytes:
    pieces = cut(data)
    return wire.index_encoded([len(piece) for piece in pieces], [wire.mark_of(piece) for piece in pieces])


def manifest(data: bytes, version: str = "0.2.0", ratchet: int = 2, *, bases: dict[str, bytes] | None = None,
             **more: Any) -> wire.Manifest:
    table = index(data)
    told = [wire.Base(name, hashlib.sha256(index(old)).hexdigest(), len(index(old))) for name, old in (bases or {}).items()]
    return wire.Manifest(**{"version": version, "ratchet": ratchet, "boards": ("virt",), "bytes": len(data),
                            "sha256": hashlib.sha256(data).hexdigest(), "index": hashlib.sha256(table).hexdigest(),
                            "index_bytes": len(table), "bases": tuple(told), **more})


def signed(one: wire.Manifest, key: Key = KEY) -> bytes:
    return wire.manifest_encoded(one, key.kid, key.sign)


class Card:
    """The card of one machine; `slots` by letter.  `nth` step from now on is where the power goes, 0 never.

    `mercy` at a cut: `none` of what was not synced survives, `all`, or `torn`: the first half of the last write, and nothing else.
    """

    def __init__(self) -> None:
        self.disk: dict[str, bytearray] = {"a": bytearray(SLOT_BYTES), "b": bytearray(SLOT_BYTES),
                                           "state": bytearray(boot_state.SPAN * boot_state.SECTOR)}
        self.files: dict[str, bytes] = {}
        self.running = "a"
        self.nth, self.steps, self.mercy = 0, 0, "none"
        self.wrote = 0
        self._waits: list[tuple[str, int, bytes]] = []
        for at in boot_state.WITHIN:
            self.disk["state"][at:at + boot_state.SECTOR] = boot_state.encode(boot_state.DEFAULTS)

    def place(self, name: str) -> bytearray:
        return self.disk[{"this": self.running, "other": boot_state.other(self.running)}.get(name, name)]

    def size(self, name: str) -> int:
        return len(self.place(name))

    def read(self, name: str, at: int, size: int) -> bytes:
        seen = bytearray(self.place(name)[at:at + size])
        for place, begin, data in self._waits:
            low, top = max(at, begin), min(at + size, begin + len(data))
            if place == name and low < top:
                seen[low - at:top - at] = data[low - begin:top - begin]
        return bytes(seen)

    def write(self, name: str, at: int, data: bytes) -> None:
        assert name != "this" and at + len(data) <= self.size(name), (name, at, len(data))
        self._waits.append((name, at, bytes(data)))
        self.wrote += len(data)
        self._step()

    def sync(self, name: str) -> None:
        for place, at, data in [one for one in self._waits if one[0] == name]:
            self.place(place)[at:at + len(data)] = data
        self._waits = [one for one in self._waits if one[0] != name]
        self._step()

    def kept(self, file: str) -> bytes | None:
        return self.files.get(file)

    def keep(self, file: str, data: bytes) -> None:
        self._step()
        self.files[file] = bytes(data)
        self._step()

    def drop(self, file: str) -> None:
        self.files.pop(file, None)
        self._step()

    def _step(self) -> None:
        self.steps += 1
        if self.nth and self.steps == self.nth:
            self._cut()
            raise PowerCut

    def _cut(self) -> None:
        for n, (place, at, data) in enumerate(self._waits):
            if self.mercy == "torn":
                data = data[:len(data) // 2] if n == len(self._waits) - 1 else b""
            if self.mercy != "none":
                self.place(place)[at:at + len(data)] = data
        self._waits, self.nth = [], 0

    @property
    def tries(self) -> boot_state.BootState:
        return boot_state.read(*(bytes(self.disk["state"][at:at + boot_state.SECTOR]) for at in boot_state.WITHIN))

    def boot_loader(self) -> str:
        """One start: the slot that is tried, one try taken off."""
        slot, after = boot_state.chosen(self.tries)
        for at in boot_state.WITHIN:
            self.disk["state"][at:at + boot_state.SECTOR] = boot_state.encode(after)
        return slot


class Machine:
    """`versions` by the image's checksum: what boots, and what it says of itself."""

    def __init__(self) -> None:
        self.card = Card()
        self.versions: dict[int, tuple[Release, int]] = {}
        self.boots = 0
        self.install("a", image(1), Release("0.1.0", 1, "virt"))
        self.start()
        self.slots.good()

    def install(self, slot: str, data: bytes, release: Release) -> None:
        self.known(data, release)
        self.card.disk[slot][:len(data)] = data

    def known(self, data: bytes, release: Release) -> None:
        self.versions[zlib.crc32(data)] = (release, len(data))

    def holds(self, slot: str) -> Release | None:
        """What would start there; None where nothing is whole."""
        for crc, (release, size) in self.versions.items():
            if zlib.crc32(bytes(self.card.disk[slot][:size])) == crc:
                return release
        return None

    def start(self, tries: int = 4) -> str:
        """Start until a slot comes up; its letter.  A slot that is not whole fails, as verity sees to."""
        self.card._waits = []
        for _ in range(tries):
            slot = self.card.boot_loader()
            release = self.holds(slot)
            if release is not None:
                self.boots += 1
                self.card.running = slot
                self.slots = Slots(self.card, slot, f"boot-{self.boots}", release, KNOWN)
                return slot
        raise AssertionError(f"nothing starts: {self.card.tries}")

    def write(self, data: bytes, token: bytes, base: bytes | None = None) -> None:
        """Everything of a release that is not there yet, and read back."""
        slots = self.slots
        slots.begin(token)
        slots.index(index(data))
        if base is not None:
            slots.base(index(base))
        while slots.copy()["more"]:
            pass
        pieces = cut(data)
        for some in range(0, len(pieces), 4):
            for n in range(some, min(some + 4, len(pieces))):
                if not slots._have[n]:
                    slots.piece(n, pieces[n])
            slots.sync()
        while not (said := slots.check())["done"]:
            pass
        assert said["whole"], said
