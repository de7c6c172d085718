"""The updater beside a counter: nothing is written while somebody stands there, and nothing starts outside its hour.  The slots are
the real ones, without a socket between."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import pytest

from device.mqtt import update_wire as wire
from device.mqtt.config_wire import CHUNK_BYTES
from device.types import Stamp
from device.update.slot_line import SlotRefused
from device.update.slot_server import Ask, answered
from device.update.slots import Refused, Release
from device.update.updater import Updater, _first
from tests.update.slot_room import Machine, cut, image, index, manifest, signed

OLD, NEW = image(1), image(2)
TOKEN = signed(manifest(NEW, bases={"0.1.0": OLD}))
DIGEST = hashlib.sha256(TOKEN).hexdigest()
WISH = f"{DIGEST} {len(TOKEN)} quiet"


class Shop:
    """A counter, a clock by hand and a cloud that gives what is asked for."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine()
        self.machine.known(NEW, Release("0.2.0", 2, "virt"))
        self.ms, self.wall, self.clk = 1_000_000, "2026-07-14T12:00:00.000+08:00", "ntp"
        self.busy, self.line, self.restarts, self.ill = False, True, 0, frozenset[str]()
        self.verbs: list[str] = []
        self.reports: list[wire.UpdateReported] = []
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.updater = Updater(self.folder, self, self, self.slots, proof_seq=5)
        self.updater.linked(True)

    def now_ms(self) -> int:
        return self.ms

    def stamp(self) -> Stamp:
        return Stamp("boot", self.ms, self.wall, self.clk)

    def publish(self, name: str, payload: bytes) -> bool:
        if self.line:
            self.reports.append(wire.reported_decoded(payload))
        return self.line

    def hello(self) -> None:
        if self.line:
            self.updater.heard(9)

    def nobody_here(self) -> bool:
        return not self.busy

    def sick(self) -> frozenset[str]:
        return self.ill

    def restart(self) -> None:
        self.restarts += 1

    async def dry_sale(self) -> str:
        return ""

    async def slots(self, verb: str, body: bytes = b"", **more: Any) -> dict[str, Any]:
        self.verbs.append(verb)
        try:
            return answered(self.machine.slots, Ask(verb, **more), body)
        except Refused as why:
            raise SlotRefused(why.name, why.sentence) from None

    def steps(self, count: int, each_ms: int = 1_000) -> None:
        for _ in range(count):
            asyncio.run(self._step())
            self.ms += each_ms

    async def _step(self) -> None:
        await self.updater.step()
        self.updater._say()
        for sha256, ranges in self.reports[-1].want.items() if self.reports else ():
            for n in (n for first, last in ranges for n in range(first, last + 1)):
                self.updater.chunk(sha256, n, self.data(sha256, n))

    def data(self, sha256: str, n: int) -> bytes:
        blob = {hashlib.sha256(one).hexdigest(): one for one in (TOKEN, index(NEW), index(OLD))}
        if sha256 == hashlib.sha256(NEW).hexdigest():
            return cut(NEW)[n]
        return blob.get(sha256, b"")[n * CHUNK_BYTES:(n + 1) * CHUNK_BYTES]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    one = Shop(tmp_path)
    one.updater.taken(WISH)
    return one


def test_nothing_is_written_while_somebody_stands_at_the_counter(shop):
    shop.steps(4)
    shop.busy, shop.verbs, wrote = True, [], shop.machine.card.wrote
    shop.steps(30)
    assert shop.verbs == [] and shop.machine.card.wrote == wrote
    shop.busy = False
    shop.steps(30)
    assert shop.updater.wish.state == "ready" and shop.machine.card.wrote > wrote
    assert shop.restarts == 0


def test_it_starts_after_a_quarter_of_an_hour_without_a_customer_and_not_before(shop):
    shop.steps(40)
    assert shop.updater.wish.state == "ready"
    for _ in range(6):                                 # a customer every ten minutes
        shop.busy = True
        shop.steps(1)
        shop.busy = False
        shop.steps(10, 60_000)
    assert shop.restarts == 0
    shop.steps(8, 60_000)
    assert shop.restarts >= 1 and shop.machine.card.tries.order == ("b", "a")


def test_a_window_is_of_the_shops_own_time_under_a_clock_that_is_proven(shop):
    shop.updater.taken(f"{DIGEST} {len(TOKEN)} 23:30-05:00")
    shop.steps(120)
    assert shop.updater.wish.state == "ready" and shop.restarts == 0
    shop.wall, shop.clk = "2026-07-15T02:00:00.000+08:00", "unset"
    shop.steps(90)
    assert shop.restarts == 0
    shop.clk = "anchored"
    shop.steps(3)
    assert shop.restarts >= 1


def test_without_a_cloud_that_answers_nothing_is_started(shop):
    shop.steps(40)
    shop.line = False
    shop.updater.linked(False)
    shop.steps(60, 60_000)
    assert shop.updater.wish.state == "ready" and shop.restarts == 0


def test_a_customer_between_arming_and_the_restart_is_served_first(shop):
    shop.updater.taken(f"{DIGEST} {len(TOKEN)} now")
    shop.steps(10)
    asked = shop.slots

    async def slots(verb: str, body: bytes = b"", **more: Any) -> dict[str, Any]:
        shop.busy = shop.busy or verb == "arm"
        return await asked(verb, body, **more)

    shop.updater._slots = slots
    shop.steps(40)
    assert shop.busy and shop.restarts == 0 and shop.machine.card.tries.order == ("b", "a")
    shop.busy = False
    shop.steps(1)
    assert shop.restarts == 1


def test_a_trial_wants_every_part_that_was_well_before(shop):
    shop.ill = frozenset({"scanner"})
    shop.updater.taken(f"{DIGEST} {len(TOKEN)} now")
    shop.steps(40)
    assert shop.restarts and shop.updater.wish.sick == ("scanner",)
    assert shop.machine.start() == "b"
    shop.ill = frozenset({"scanner", "printer"})
    shop.start()
    shop.updater.heard(9)
    shop.steps(3)
    assert shop.updater.wish.state == "trial" and shop.machine.slots.trial
    shop.ill = frozenset({"scanner"})                  # the printer had to warm up
    shop.steps(1)
    assert shop.updater.wish.state == "active" and not shop.machine.slots.trial


def test_a_part_that_stays_away_takes_the_release_back(shop):
    shop.updater.taken(f"{DIGEST} {len(TOKEN)} now")
    shop.steps(40)
    shop.machine.start()
    shop.ill, shop.restarts = frozenset({"printer"}), 0
    shop.start()
    shop.updater.heard(9)
    shop.busy = True
    shop.steps(17, 60_000)
    assert shop.updater.wish.state == "rolled_back" and "printer worked before" in shop.updater.wish.why and shop.restarts == 0
    shop.busy = False
    shop.steps(1)
    assert shop.restarts == 1 and shop.machine.start() == "a"


def test_stop_leaves_the_other_slot_closed(shop):
    shop.steps(40)
    shop.updater.taken("stop")
    shop.steps(60, 60_000)
    assert shop.updater.wish.state == "stopped" and shop.restarts == 0 and shop.machine.card.tries.left("b") == 0


def test_a_manifest_that_is_none_is_refused_and_ends_nothing(shop):
    rubbish = b"not a token at all"
    digest = hashlib.sha256(rubbish).hexdigest()
    shop.updater.taken(f"{digest} {len(rubbish)} now")
    shop.steps(1)
    assert shop.updater.chunk(digest, 0, rubbish)

    async def run() -> None:
        shop.updater._start_s = 0
        task = asyncio.create_task(shop.updater.run())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not task.done()
        task.cancel()

    asyncio.run(run())
    assert shop.updater.wish.state == "refused" and "cannot be read" in shop.updater.wish.why
    assert shop.machine.card.tries.left("b") == 3      # and the slot to fall back to was not touched


def test_the_first_numbers_of_ranges():
    assert _first([[0, 3], [7, 100]], 6) == ((0, 3), (7, 8)) and _first([], 5) == ()
