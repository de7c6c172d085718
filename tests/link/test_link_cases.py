"""Where a broker's word is worth nothing: every case in which it confirmed and lost, played with the application's own word.

Real Mosquitto, real link and forwarder, a collector of its own; a relay in between that cuts and delays.  Of 300 records all
arrive, each once and in order.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from device.mqtt import wire
from device.mqtt.wire import Ack, Batch
from device.store_forward.forwarder import Forwarder
from device.store_forward.token import EMPTY_DIGEST
from fleet.records.proof import defects
from fleet.records.store import Store, records
from sim.broker import Broker
from sim.tcp_line import TcpLine
from tests import ROOT
from tests.fleet.test_collector import Desk
from tests.link.test_link_e2e import Box, Cloud, pytestmark  # noqa: F401 - the mark is for this file too
from tests.record_chain import Chain, Key

RECORDS = 300
Story = Callable[["Scene", Box], Awaitable[None]]


class Scene:
    """A broker, a relay before it, two collectors' programs and a box with 300 records."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key = folder, Key()
        self.broker = Broker(folder / "broker")
        self.broker.start()
        self.line = TcpLine(self.broker.port)
        self.cloud = Cloud(folder, self.broker.port, self.key)
        self.chain = Chain(self.key).grow(RECORDS)

    def close(self) -> None:
        self.cloud.end(signal.SIGKILL)
        self.line.close()
        self.broker.stop()

    async def all_arrived(self, box: Box) -> None:
        await box.until(lambda: box.forwarder.upto == len(self.chain.tokens))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


async def nobody_subscribes(scene: Scene, box: Box) -> None:
    await box.until(lambda: box.link.up)
    box.forwarder.hurry(box.now_ms())                    # a knock: PUBACK, and nobody was there
    box.changed.set()
    await box.until(lambda: box.link.unheard > 0)
    assert box.forwarder.upto == 0
    scene.cloud.start()


async def the_collector_dies_with_batches_in_hand(scene: Scene, box: Box) -> None:
    scene.cloud.start()
    await box.until(lambda: box.forwarder.upto > 0)
    scene.cloud.end(signal.SIGKILL)
    await box.until(lambda: box.states[-1] == (True, False))
    scene.cloud.start()


async def the_broker_dies_with_batches_in_hand(scene: Scene, box: Box) -> None:
    scene.cloud.start()
    await box.until(lambda: box.forwarder.upto > 0)
    scene.broker.kill()
    await box.until(lambda: not box.link.up)
    scene.broker.start()


async def the_collector_sleeps_while_the_broker_confirms(scene: Scene, box: Box) -> None:
    scene.cloud.start()
    assert scene.cloud.process is not None
    await box.until(lambda: box.states[-1:] == [(True, True)])
    scene.cloud.process.send_signal(signal.SIGSTOP)      # the broker goes on confirming what it queues for it
    await box.until(lambda: box.forwarder.outstanding > 0 or box.forwarder.upto == RECORDS)
    scene.cloud.process.send_signal(signal.SIGCONT)


async def the_line_is_cut_again_and_again(scene: Scene, box: Box) -> None:
    scene.cloud.start()
    for share in (0, 50, 100, 200):
        await box.until(lambda share=share: box.forwarder.upto >= share and box.link.up)
        scene.line.cut()
        await box.until(lambda: not box.link.up)
        scene.line.mend()


async def the_line_is_slow(scene: Scene, box: Box) -> None:
    scene.line.delay_s = 0.15
    scene.cloud.start()


CASES: tuple[Story, ...] = (nobody_subscribes, the_collector_dies_with_batches_in_hand, the_broker_dies_with_batches_in_hand,
                            the_collector_sleeps_while_the_broker_confirms, the_line_is_cut_again_and_again, the_line_is_slow)


@pytest.mark.parametrize("story", CASES, ids=lambda story: story.__name__)
def test_all_of_them_arrive_once_and_in_order(scene: Scene, story: Story) -> None:
    async def scenario() -> None:
        box = Box(scene.line.port, scene.chain, scene.cloud)
        async with box.running():
            await story(scene, box)
            await scene.all_arrived(box)

    asyncio.run(scenario())
    assert scene.cloud.end() == 0
    store = Store(scene.folder / "store.db", [scene.key.jwk])
    assert records(store)["tokens"] == scene.chain.tokens and defects(store) == []
    store.close()


def test_one_of_two_collectors_falls_silent_and_nothing_waits_for_it(scene: Scene) -> None:
    other = Cloud(scene.folder, scene.broker.port, scene.key)

    def second() -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "collect", "--broker", f"127.0.0.1:{scene.broker.port}", "--tenant", "shop",
             "--id", "c2", "--store", scene.folder / "store.db", "--keys", scene.folder / "keys.jwks", "--json"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None and json.loads(process.stdout.readline())["event"] == "started"
        return process

    async def scenario() -> None:
        scene.cloud.start()
        other.process = second()
        box = Box(scene.line.port, scene.chain, scene.cloud)
        async with box.running():
            await box.until(lambda: box.forwarder.upto > 0)
            other.end(signal.SIGKILL)
            await scene.all_arrived(box)

    try:
        asyncio.run(scenario())
    finally:
        other.end(signal.SIGKILL)
    store = Store(scene.folder / "store.db", [scene.key.jwk])
    assert records(store)["tokens"] == scene.chain.tokens and defects(store) == []
    store.close()


@pytest.mark.parametrize("seed", range(6))
def test_doubled_reordered_and_lost_batches_end_as_one_chain_at_the_real_desk(seed: int) -> None:
    key, rng, now = Key(), random.Random(seed), 0
    chain, desk = Chain(key).grow(700), Desk(":memory:", [key.jwk])
    forwarder = Forwarder(chain.jid, 0, EMPTY_DIGEST, tokens=chain.after, seed=seed)
    forwarder.on_link(True, True, now)
    under_way: list[Batch] = []
    answers: list[Ack] = []
    for _ in range(20_000):
        if forwarder.upto == 700:
            break
        for batch in forwarder.due(now):
            under_way += [wire.batch_decoded(wire.batch_encoded(batch, "zlib-d1"))] * rng.choice((0, 1, 1, 1, 2))
        rng.shuffle(under_way)
        if under_way and rng.random() < 0.7:
            ack = desk.up(under_way.pop())
            answers += [ack] * rng.choice((0, 1, 1, 2))
        rng.shuffle(answers)
        if answers and rng.random() < 0.8:
            forwarder.on_ack(answers.pop(), now)
        if rng.random() < 0.005:
            forwarder.on_link(False, False, now)
            forwarder.on_link(True, True, now)
        now += rng.randrange(1, 400)
    assert forwarder.upto == 700 and not forwarder.halted
    assert records(desk.store)["tokens"] == chain.tokens and not defects(desk.store) and desk.store.alarms() == []


def test_with_all_collectors_down_a_queue_of_days_knocks_every_ten_minutes_and_leaves_when_one_comes() -> None:
    key = Key()
    chain = Chain(key).grow(400)
    forwarder = Forwarder(chain.jid, 0, EMPTY_DIGEST, tokens=chain.after, seed=3)
    forwarder.on_link(True, False, 0)
    knocks, now = [], 0
    while now < 3 * 3_600_000:
        due = forwarder.next_due_ms()
        assert due is not None
        now = max(now + 1, due)
        knocks += [now for _ in forwarder.due(now)]
    assert len(knocks) == 18 and {b - a for a, b in zip(knocks, knocks[1:], strict=False)} == {600_000}
    desk = Desk(":memory:", [key.jwk])
    forwarder.on_link(True, True, now)
    while forwarder.upto < 400:
        for batch in forwarder.due(now):
            forwarder.on_ack(desk.up(batch), now)
        now += 10
    assert records(desk.store)["tokens"] == chain.tokens
