"""Nothing but a release that was signed for this board, and is not below what was kept, is ever started from the other slot."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from device.mqtt import update_wire as wire
from device.update import boot_state
from device.update.slots import Refused, Release
from tests.record_chain import Key
from tests.update.slot_room import Machine, cut, image, index, manifest, signed

OLD, NEW = image(1), image(2)
GOOD = manifest(NEW, bases={"0.1.0": OLD})
TOKEN = signed(GOOD)


def refused(machine: Machine, token: bytes) -> str:
    """The word of the refusal; the boot state and the other slot are untouched by it."""
    before, slot = machine.card.tries, bytes(machine.card.disk["b"])
    with pytest.raises(Refused) as why:
        machine.slots.begin(token)
    assert (machine.card.tries, bytes(machine.card.disk["b"])) == (before, slot)
    return why.value.name


def typed(typ: str) -> bytes:
    from device.mqtt.wire import jws_encoded
    from tests.update.slot_room import KEY
    return jws_encoded(typ, msgspec.json.encode(GOOD), KEY.kid, KEY.sign)


CASES: dict[str, tuple[bytes, str]] = {
    "a key that this image does not hold": (signed(GOOD, Key()), "update_key"),
    "another key under a known name": (TOKEN.rpartition(b".")[0] + b"." + signed(GOOD, Key()).rpartition(b".")[2],
                                       "update_signature"),
    "a command's type": (typed("till-cmd+jws"), "update_shape"),
    "a configuration's type": (typed("till-config+jws"), "update_shape"),
    "cut in the middle": (TOKEN[:len(TOKEN) // 2], "update_shape"),
    "empty": (b"", "update_shape"),
    "longer than any": (TOKEN + b"A" * wire.MANIFEST_MAX_BYTES, "update_shape"),
    "a flipped byte of the payload": (TOKEN.replace(b".eyJ2", b".eyJ3", 1), "update_signature"),
    "a lower ratchet": (signed(manifest(NEW, ratchet=0)), "ratchet"),
    "another board": (signed(manifest(NEW, boards=("rpi",))), "board"),
    "a slot too small for it": (signed(manifest(NEW, bytes=wire.SLOT_MAX_BYTES)), "room"),
    "a later release must come first": (signed(manifest(NEW, min_version="0.1.1")), "min_version"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_manifest_that_may_not_be_is_refused_and_touches_nothing(case):
    token, name = CASES[case]
    assert refused(Machine(), token) == name


def test_a_thousand_spoilt_manifests_are_all_refused():
    machine, dice = Machine(), random.Random(7)
    for _ in range(1_000):
        spoilt = bytearray(TOKEN)
        for _ in range(dice.choice((1, 1, 2, 5))):
            match dice.randrange(3):
                case 0:
                    spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
                case 1:
                    del spoilt[dice.randrange(len(spoilt))]
                case 2:
                    spoilt.insert(dice.randrange(len(spoilt)), dice.choice(b"ABCdef012._-"))
        if bytes(spoilt) != TOKEN:
            refused(machine, bytes(spoilt))


STRANGE: list[dict[str, Any]] = [{"surprise": 1}, {"version": "v1"}, {"ratchet": -1}, {"ratchet": 2.5}, {"boards": []},
                                 {"sha256": "x"}, {"bytes": 0}, {"bytes": 2**40}, {"index_bytes": 3}, {"notes": "n" * 2001},
                                 {"min_version": "\n"}]


@pytest.mark.parametrize("fields", STRANGE)
def test_a_signed_manifest_of_a_strange_shape_is_refused(fields):
    from device.mqtt.wire import jws_encoded
    from tests.update.slot_room import KEY
    payload = msgspec.to_builtins(GOOD) | fields
    assert refused(Machine(), jws_encoded(wire.UPDATE_TYP, msgspec.json.encode(payload), KEY.kid, KEY.sign)) == "update_payload"


def test_the_ratchet_holds_after_the_data_partition_was_set_back():
    machine = Machine()
    machine.known(NEW, Release("0.2.0", 2, "virt"))
    early = dict(machine.card.files)
    machine.write(NEW, TOKEN)
    machine.slots.arm()
    machine.start()
    machine.slots.good()
    machine.card.files = early                         # yesterday's copy of the folder, or none at all
    machine.start(tries=1)
    machine.slots.good()
    assert refused(machine, signed(manifest(OLD, "0.1.0", 1))) == "ratchet"
    machine.card.files = {}
    machine.start(tries=1)
    machine.slots.good()
    assert refused(machine, signed(manifest(OLD, "0.1.0", 1))) == "ratchet"


def test_the_ratchet_of_what_was_kept_holds_in_an_older_slot_too():
    """Back in a slot with a lower number by the boot loader's doing: the folder remembers."""
    machine = Machine()
    machine.known(NEW, Release("0.2.0", 2, "virt"))
    machine.write(NEW, TOKEN)
    machine.slots.arm()
    machine.start()
    machine.slots.good()
    for at in boot_state.WITHIN:
        machine.card.disk["state"][at:at + 512] = boot_state.encode(boot_state.next_to_boot(machine.card.tries, "a"))
    machine.start(tries=1)
    machine.slots.good()
    assert machine.slots.running == "a"
    assert refused(machine, signed(manifest(image(3), "0.1.5", 1))) == "ratchet"


def begun() -> Machine:
    machine = Machine()
    machine.known(NEW, Release("0.2.0", 2, "virt"))
    machine.slots.begin(TOKEN)
    machine.slots.index(index(NEW))
    return machine


def finished(machine: Machine) -> None:
    while machine.slots.copy()["more"]:
        pass
    for n, piece in enumerate(cut(NEW)):
        if not machine.slots._have[n]:
            machine.slots.piece(n, piece)
    machine.slots.sync()


def checked(machine: Machine) -> dict[str, Any]:
    while not (said := machine.slots.check())["done"]:
        pass
    return said


def test_a_flipped_byte_on_the_way_is_seen_before_it_is_written():
    machine = begun()
    n, machine.card.wrote = len(cut(NEW)) - 1, 0
    piece = bytearray(cut(NEW)[n])
    piece[100] ^= 4
    for spoilt in (bytes(piece), cut(NEW)[n][:-1], cut(NEW)[n] + b"\0", b""):
        with pytest.raises(Refused, match="not what the index says"):
            machine.slots.piece(n, spoilt)
    assert machine.card.wrote == 0 and not machine.slots._have[n]
    for strange in (-1, len(cut(NEW)), 10**6):
        with pytest.raises(Refused):
            machine.slots.piece(strange, b"x")


def test_an_index_of_another_image_is_refused():
    machine = Machine()
    machine.slots.begin(TOKEN)
    for other in (index(OLD), index(NEW)[:-18], index(NEW) + bytes(18), b""):
        with pytest.raises(Refused, match="not the index"):
            machine.slots.index(other)
    with pytest.raises(Refused, match="no such index"):
        machine.slots.base(index(NEW))


def test_a_map_that_says_all_is_there_is_not_believed():
    machine = begun()
    finished(machine)
    spoilt = machine.slots._pieces[-1].at + 5
    machine.card.disk["b"][spoilt] ^= 1                # the card forgot, or the map lies
    said = checked(machine)
    assert said["whole"] is False and said["spoilt"] == 1 and machine.slots.want() == [(len(cut(NEW)) - 1,) * 2]
    with pytest.raises(Refused, match="read back"):
        machine.slots.arm()
    machine.card.files["map"] = bytes.fromhex(machine.slots.stand.release) + b"\1" * len(cut(NEW))
    machine.card.files["slot.json"] = machine.card.files["slot.json"].replace(b'"writing"', b'"whole"')
    machine.start(tries=1)
    with pytest.raises(Refused, match="read back"):
        machine.slots.arm()
    assert checked(machine)["whole"] is False
    finished(machine)
    assert checked(machine)["whole"]
    machine.slots.arm()


def test_a_signature_over_another_digest_starts_nothing():
    """Key and form are right, and every piece fits the index: the image is not the one that was signed."""
    lie = signed(manifest(NEW, sha256="ab" * 32))
    machine = Machine()
    machine.slots.begin(lie)
    machine.slots.index(index(NEW))
    finished(machine)
    assert checked(machine) == {"done": True, "whole": False, "spoilt": 0}
    with pytest.raises(Refused, match="read back"):
        machine.slots.arm()
    assert machine.slots.want() == [(0, len(cut(NEW)) - 1)]


def test_a_write_after_the_reading_back_wants_another_reading():
    machine = begun()
    finished(machine)
    assert checked(machine)["whole"]
    machine.slots._put_piece(3, cut(NEW)[3])
    with pytest.raises(Refused, match="read back"):
        machine.slots.arm()


def test_what_the_running_slot_is_said_to_hold_is_looked_at():
    """A base whose index says of the running slot what is not so: nothing of it is taken."""
    machine = begun()
    machine.slots.base(index(OLD))
    machine.card.disk["a"][100_000:200_000] = bytes(100_000)
    while machine.slots.copy()["more"]:
        pass
    for n, piece in enumerate(machine.slots._pieces):
        if machine.slots._have[n]:
            assert wire.mark_of(machine.card.read("other", piece.at, piece.size)) == piece.mark


def test_most_of_a_release_is_copied_from_what_runs():
    machine = begun()
    machine.slots.base(index(OLD))
    while machine.slots.copy()["more"]:
        pass
    missing = [piece for n, piece in enumerate(cut(NEW)) if not machine.slots._have[n]]
    assert sum(map(len, missing)) < len(NEW) * 0.35 and len(missing) < len(cut(NEW)) / 2


def test_verbs_out_of_their_order_are_refused():
    machine = Machine()
    for verb in (machine.slots.copy, machine.slots.sync, machine.slots.check, lambda: machine.slots.piece(0, b"x"),
                 lambda: machine.slots.index(index(NEW)), machine.slots.arm, machine.slots.swap, lambda: machine.slots.back("")):
        with pytest.raises(Refused):
            verb()
    machine.slots.begin(TOKEN)
    with pytest.raises(Refused, match="not every piece"):
        machine.slots.check()
    machine.slots.stop()
    with pytest.raises(Refused, match="no release"):
        machine.slots.index(index(NEW))
