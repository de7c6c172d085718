"""The cloud's side of an update: rings that stop by themselves, pins, and chunks for nobody but who reports that release."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from device.mqtt import update_wire as wire
from device.mqtt.config_wire import CHUNK_BYTES
from fleet import groups
from fleet.commands import kept as commands
from fleet.database import opened
from fleet.push.rollout import Gate
from fleet.update import kept
from fleet.update.room import UpdateRoom
from tests.update.slot_room import cut, image, index, manifest, signed

OLD, NEW = image(1), image(2)
TOKEN = signed(manifest(NEW, bases={"0.1.0": OLD}))
RELEASE = kept.digest_of(TOKEN)
BOXES = [f"box-{n}" for n in range(10)]


def at(seconds: int) -> str:
    return f"2026-09-01T{10 + seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}+00:00"


class Cloud:
    def __init__(self, folder: Path) -> None:
        self.database = opened(str(folder / "cloud.db"))
        groups.made(self.database, groups.SCHEMA, commands.SCHEMA, kept.SCHEMA)
        self.releases = kept.Releases(self.database)
        for box in BOXES:
            groups.Groups(self.database).heard(box, "session", "0.1.0", at(0))
            groups.Groups(self.database).status(box, True, 1, 0)
        self.releases.put(TOKEN, [index(NEW), index(OLD)], cut(NEW), "li:admin", at(0))

    def asked(self, args: str = RELEASE) -> set[str]:
        return {one.box for one in commands.Commands(self.database).listed(limit=1000) if one.args.startswith(args)}

    def says(self, box: str, state: wire.State, seconds: int, **more: object) -> None:
        told = wire.UpdateReported(state, RELEASE, "0.2.0", runs="0.2.0" if state == "active" else "0.1.0", **more)  # type: ignore[arg-type]
        kept.UpdateDesk(self.database).reported(box, wire.reported_encoded(told), at(seconds))


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def test_the_next_ring_is_asked_when_the_one_before_runs_it(cloud):
    id_, left = cloud.releases.push(RELEASE, BOXES, "li:admin", at(0), percents=(10, 100), gate=Gate(soak_s=60))
    first = cloud.asked()
    assert left == [] and len(first) == 1
    cloud.releases.advance(at(30))
    assert cloud.asked() == first
    cloud.says(first.copy().pop(), "active", 40)
    cloud.releases.advance(at(50))
    assert cloud.asked() == first                      # it is watched
    cloud.releases.advance(at(90))
    assert cloud.asked() == set(BOXES)
    for box in BOXES:
        cloud.says(box, "active", 100)
    cloud.releases.advance(at(200))
    assert cloud.releases.rollouts(id_)[0].state == "done"


def test_a_release_that_boxes_take_back_stops_and_is_recalled(cloud):
    id_, _ = cloud.releases.push(RELEASE, BOXES, "li:admin", at(0), percents=(50, 100))
    ring = sorted(cloud.asked())
    cloud.says(ring[0], "rolled_back", 20, why="the printer worked before and does not now")
    cloud.says(ring[1], "trial", 20)
    cloud.releases.advance(at(30))
    assert cloud.releases.rollouts(id_)[0].state == "stopped"
    assert len(cloud.asked()) == 5 and cloud.asked("stop") == set(ring[2:])      # not who went back, not who runs it already


def test_pinned_boxes_and_those_that_take_nothing_lower_are_left_out(cloud):
    cloud.releases.pin("box-1", "0.1.0", "li:admin", at(0))
    cloud.says("box-2", "active", 1)
    cloud.says("box-3", "", 1, ratchet=3)
    _, left = cloud.releases.push(RELEASE, BOXES, "li:admin", at(2))
    assert left == ["box-1 is pinned to 0.1.0", "box-2 runs it", "box-3 runs ratchet 3, and takes nothing lower"]
    assert cloud.asked() == set(BOXES) - {"box-1", "box-2", "box-3"}
    _, left = cloud.releases.push(RELEASE, ["box-4"], "li:admin", at(3))
    assert "let it end" in left[0]
    cloud.releases.pin("box-1", "", "li:admin", at(4))
    assert cloud.releases.push(RELEASE, ["box-1"], "li:admin", at(5))[0]


def test_another_image_or_index_than_the_signed_one_is_not_kept(cloud):
    both, strange = [index(NEW), index(OLD)], [index(NEW), index(image(3))]
    for papers, pieces in ((both, cut(OLD)), (both[:1], cut(NEW)), (strange, cut(NEW)), (both, cut(NEW)[:-1])):
        with pytest.raises(ValueError, match="signed|index"):
            cloud.releases.put(TOKEN, papers, pieces, "li:admin", at(0))


def test_a_box_gets_the_chunks_that_it_wants_of_its_own_release_once(cloud):
    room = UpdateRoom(cloud.database, "shop")
    slot, paper = hashlib.sha256(NEW).hexdigest(), hashlib.sha256(index(OLD)).hexdigest()
    cloud.says("box-1", "fetching", 1, want={slot: ((2, 4),), RELEASE: ((0, 0),), paper: ((0, 0),), "f" * 64: ((0, 3),)})
    sent = {parcel.topic.split("/", 3)[3]: parcel.payload for parcel in room(at(2))}
    assert sent == {f"blob/{RELEASE}/0": TOKEN, f"blob/{paper}/0": index(OLD)[:CHUNK_BYTES],
                    **{f"blob/{slot}/{n}": cut(NEW)[n] for n in (2, 3, 4)}}
    assert list(room(at(3))) == []
    told = wire.UpdateReported("fetching", "e" * 64, want={slot: ((0, 1),)})
    kept.UpdateDesk(cloud.database).reported("box-2", wire.reported_encoded(told), at(4))
    assert list(room(at(5))) == []                     # of a release that nobody keeps


def test_the_rate_is_for_all_boxes_together(cloud):
    room = UpdateRoom(cloud.database, "shop", rate_bytes_s=20_000)
    slot, count = hashlib.sha256(NEW).hexdigest(), len(cut(NEW))
    for box in BOXES:
        cloud.says(box, "fetching", 1, want={slot: ((0, count - 1),)})
    first = list(room(at(2)))
    assert sum(len(parcel.payload) for parcel in first) < 40_000 + 32 * 1024
    assert len({parcel.topic for parcel in first}) == len(first)
