"""Box to cloud over a real Mosquitto: whatever is killed on the way, every record is committed once.

The box is the real link and the real forwarder over tokens in memory; the collector is its own process, so that it can
be killed.  Waiting is for events, with a limit; nothing depends on how fast anything is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from device.mqtt import topics, wire
from device.mqtt.client import Link
from device.mqtt.cloud import Cloud as Desk
from device.store_forward.es256 import public_verifier
from device.store_forward.forwarder import Forwarder, Refused
from device.store_forward.token import EMPTY_DIGEST, digest
from device.txn.effects import AskSale
from device.txn.inputs import SaleAnswered
from fleet.records.proof import defects
from fleet.records.store import Store, records
from sim.broker import MOSQUITTO, Broker, BrokerFailed
from tests import ROOT
from tests.record_chain import Chain, Key

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")

WAIT_S = 20.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as one:
        yield one


class Cloud:
    """`tillfleet collect` in its own process."""

    def __init__(self, folder: Path, port: int, key: Key) -> None:
        self.folder, self.port = folder, port
        (folder / "keys.jwks").write_text(json.dumps({"keys": [key.jwk]}))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; returns once its acknowledgement key is on disk."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fleet", "collect", "--broker", f"127.0.0.1:{self.port}", "--tenant", "shop",
             "--store", self.folder / "store.db", "--keys", self.folder / "keys.jwks", "--json"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["event"] == "started"

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(how)
        code = self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    @property
    def verifiers(self) -> dict[str, Callable[[bytes, bytes], bool]]:
        keys = json.loads((self.folder / "store.db.ack.jwks").read_text())["keys"]
        return {k["kid"]: public_verifier(k) for k in keys}


@pytest.fixture
def cloud(tmp_path: Path, broker: Broker) -> Iterator[Cloud]:
    one = Cloud(tmp_path, broker.port, Key())
    yield one
    one.end(signal.SIGKILL)


class Box:
    """Link and forwarder, wired as the daemon wires them."""

    def __init__(self, port: int, chain: Chain, cloud: Cloud | None = None) -> None:
        self.chain, self.cloud = chain, cloud
        self.changed = asyncio.Event()                        # for the sender
        self.told = asyncio.Event()                           # for the test
        self.states: list[tuple[bool, bool]] = []
        self.refused: list[str] = []
        self.answered: Callable[[bytes], None] = lambda payload: None
        self.forwarder = Forwarder(chain.jid, 0, EMPTY_DIGEST, tokens=chain.after, seed=7)
        self.link = Link("127.0.0.1", port, "shop", chain.box, on_message=self.message, on_state=self.state,
                         hello=self.hello, pause_min_ms=50, pause_max_ms=200, seed=7)

    def now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1000)

    def hello(self, session: str) -> bytes:
        heads = (wire.JournalHead(self.chain.jid, 1, len(self.chain.tokens) + 1,
                                  digest(self.chain.tokens[-1]) if self.chain.tokens else ""),)
        return wire.encoded(wire.Hello(heads, session, boot="b1"))

    def message(self, name: str, payload: bytes) -> None:
        if name == "ack":
            assert self.cloud is not None
            told = self.forwarder.on_ack(wire.ack_decoded(payload, self.cloud.verifiers), self.now_ms())
            if isinstance(told, Refused):
                self.refused.append(told.name)
            self.changed.set()
            self.told.set()
        elif name == "answer":
            self.answered(payload)

    def state(self, up: bool, collector: bool) -> None:
        self.states.append((up, collector))
        self.forwarder.on_link(up, collector, self.now_ms())
        self.changed.set()
        self.told.set()

    async def send(self) -> None:
        """The daemon's loop around the forwarder."""
        while True:
            for batch in self.forwarder.due(self.now_ms()):
                if not self.link.publish_up(wire.batch_encoded(batch, "zlib")):
                    self.forwarder.unsent(batch, self.now_ms())
            due_ms = self.forwarder.next_due_ms()
            wait_s = None if due_ms is None else max(0.0, (due_ms - self.now_ms()) / 1000) + 0.001
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self.changed.wait()
            self.changed.clear()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Box]:
        tasks = [asyncio.create_task(self.link.run()), asyncio.create_task(self.send())]
        try:
            yield self
            for task in tasks:
                assert not task.done(), task.exception()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self.told.clear()
                with contextlib.suppress(TimeoutError):       # a counter of the link itself moves without telling us
                    await asyncio.wait_for(self.told.wait(), 0.05)


def test_two_hundred_records_arrive_once_though_broker_and_collector_are_killed(broker: Broker, cloud: Cloud,
                                                                              tmp_path: Path) -> None:
    key = Key()
    (tmp_path / "keys.jwks").write_text(json.dumps({"keys": [key.jwk]}))
    chain = Chain(key).grow(60)

    async def scenario() -> Box:
        cloud.start()
        async with Box(broker.port, chain, cloud).running() as box:
            await box.until(lambda: box.forwarder.upto == 60)
            broker.kill()
            await box.until(lambda: box.states[-1] == (False, False))
            chain.grow(60)
            box.changed.set()
            broker.start()
            await box.until(lambda: box.forwarder.upto == 120)
            cloud.end(signal.SIGKILL)
            await box.until(lambda: box.states[-1] == (True, False))
            chain.grow(80)
            box.changed.set()
            cloud.start()
            await box.until(lambda: box.forwarder.upto == 200)
            return box

    box = asyncio.run(scenario())
    assert cloud.end() == 0
    assert set(box.refused) <= {"OldAck"} and box.forwarder.head == digest(chain.tokens[-1])
    store = Store(tmp_path / "store.db", [key.jwk])
    assert records(store)["tokens"] == chain.tokens
    assert defects(store) == [] and store.quarantined() == []
    store.close()


def test_the_box_starts_without_a_broker_and_finds_it_later(broker: Broker) -> None:
    broker.stop()

    async def scenario() -> None:
        async with Box(broker.port, Chain(Key())).running() as box:
            assert not box.link.publish_up(b"x")
            await box.until(lambda: box.link.connects >= 2)
            assert "127.0.0.1" in box.link.why_down and not box.link.up
            broker.start()
            await box.until(lambda: box.link.up)
            assert box.states == [(True, False)] and box.link.session
            first = box.link.session
            broker.stop()
            await box.until(lambda: not box.link.up)
            broker.start()
            await box.until(lambda: box.link.up)
            assert box.link.session not in ("", first), "a session nonce came twice"

    asyncio.run(scenario())


def test_a_person_who_hurries_the_line_does_not_wait_for_its_pause(broker: Broker) -> None:
    broker.stop()

    async def scenario() -> None:
        box = Box(broker.port, Chain(Key()))
        box.link._pause_min_ms = box.link._pause_max_ms = 10**9
        async with box.running():
            await box.until(lambda: box.link.why_down != "not connected yet")
            broker.start()
            while not box.link.up:                            # the first may come before the pause has begun
                box.link.hurry()
                await box.until(lambda: box.link.connects >= 2)
                await box.until(lambda: box.link.up)

    asyncio.run(scenario())


def test_a_question_is_answered_with_a_lease_over_the_line(broker: Broker, cloud: Cloud, tmp_path: Path) -> None:
    key, sale = Key(), "000001AAAA0000000100"
    (tmp_path / "keys.jwks").write_text(json.dumps({"keys": [key.jwk]}))
    tender = {"method": "wechat", "amount_fen": 500, "order_no": sale, "channel_no": "42"}
    chain = Chain(key)
    chain.add("sale", {"order_no": sale, "amount_fen": 500, "cashier": "01", "lines": [], "tenders": [tender]})

    async def scenario() -> SaleAnswered:
        cloud.start()
        async with Box(broker.port, chain, cloud).running() as box:
            await box.until(lambda: box.forwarder.upto == 1)
            desk = Desk("box-1", lambda: key.kid, key.sign, cloud.verifiers, box.link.publish, patience_s=WAIT_S)
            box.answered = desk.came
            answer = await desk.do(AskSale("b1-1", sale))
            assert isinstance(answer, SaleAnswered)
            return answer

    answer = asyncio.run(scenario())
    assert (answer.why, answer.left_fen, json.loads(answer.body)["order_no"]) == ("", ((sale, 500),), sale) and answer.lease


def test_a_killed_box_leaves_a_death_with_the_counter_of_its_birth(broker: Broker) -> None:
    from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

    async def scenario() -> list[wire.Status]:
        told: list[wire.Status] = []
        watcher = Client(CallbackAPIVersion.VERSION2, client_id="watcher", protocol=MQTTv5)
        watcher.on_connect = lambda c, *_: c.subscribe(topics.status("shop", "box-1"), 1)
        watcher.on_message = lambda _c, _u, m: told.append(wire.status_decoded(m.payload))
        watcher.connect("127.0.0.1", broker.port)
        watcher.loop_start()
        try:
            async with Box(broker.port, Chain(Key())).running() as box:
                await box.until(lambda: len(told) == 1)
                sock = box.link._client.socket()
                sock.shutdown(2)                              # the line is cut: no goodbye
                await box.until(lambda: len(told) == 3)
            await box.until(lambda: len(told) == 4)
        finally:
            watcher.disconnect()
            watcher.loop_stop()
        return told

    told = asyncio.run(scenario())
    # A busy broker may see the new line before the old one ends: a stale death comes late, which is what the counter is for.
    assert sorted((s.connect, s.state) for s in told) == [(1, "down"), (1, "up"), (2, "down"), (2, "up")]
    assert [s.connect for s in told if s.state == "up"] == [1, 2]


def test_a_frozen_broker_blocks_nothing(broker: Broker) -> None:
    broker.pause()

    async def scenario() -> None:
        async with Box(broker.port, Chain(Key())).running() as box:
            await box.until(lambda: box.link.connects >= 1)
            assert not box.link.up
            broker.resume()
            await box.until(lambda: box.link.up)

    asyncio.run(scenario())


def test_the_broker_says_in_one_sentence_what_is_wrong(broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerFailed, match="taken"):
        Broker(tmp_path / "second", broker.port).start()
    monkeypatch.setattr("sim.broker.MOSQUITTO", "/nowhere/mosquitto")
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(BrokerFailed, match="Mosquitto is missing"):
        Broker(tmp_path / "third").start()
