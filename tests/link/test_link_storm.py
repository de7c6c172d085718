"""Broker, collectors, links and the database fail at random under two boxes that sell on: nothing lost, nothing doubled, all seen.

A small storm; a hundred kills of each are `python -m tests.link_storm`.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device.mqtt import topics, wire
from device.store_forward.es256 import public_verifier
from fleet.keys import SigningKey
from fleet.records.checking import Checker
from fleet.records.collector import Collector
from fleet.records.proof import defects
from fleet.records.store import Store, records, sums
from sim.broker import MOSQUITTO, Broker
from sim.postgres import Postgres
from tests.link_storm import seen, storm
from tests.record_chain import Chain, Key

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")

WAIT_S = 20.0


@pytest.fixture
def crashing() -> Iterator[Postgres]:
    """A server of this test's own, for it is killed."""
    with Postgres() as server:
        yield server


def _holds(found: dict) -> None:
    assert found["whole"] and seen(found), json.dumps(found)
    assert found["records"] > 50 and found["doubled_on_the_way"] + found["overtaken"] > 0


def test_a_small_storm_into_sqlite(tmp_path: Path) -> None:
    _holds(storm(tmp_path, 5, 3, None, str(tmp_path / "store.db")))


def test_a_small_storm_into_postgresql_which_crashes_too(tmp_path: Path, crashing: Postgres) -> None:
    found = storm(tmp_path, 5, 4, crashing, crashing.database())
    _holds(found)
    assert found["kills"]["database"] == 1


class Watcher:
    """Who follows a collector's state and a box's acknowledgements, and may send for the box."""

    def __init__(self, port: int, key: SigningKey) -> None:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

        self.states: list[str] = []
        self.acks: list[wire.Ack] = []
        self._told = threading.Condition()
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="watcher", protocol=MQTTv5)
        self._client.on_connect = lambda c, *_: c.subscribe([(topics.collectors_of("shop"), 1), (topics.ack("shop", "box-1"), 1)])

        def came(_c, _u, message) -> None:
            with self._told:
                if message.topic.endswith("/state"):
                    self.states.append(wire.status_decoded(bytes(message.payload)).state)
                else:
                    self.acks.append(wire.ack_decoded(bytes(message.payload), {key.kid: public_verifier(key.jwk)}))
                self._told.notify_all()
        self._client.on_message = came
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def send(self, payload: bytes) -> None:
        self._client.publish(topics.up("shop", "box-1"), payload, qos=1)

    def until(self, holds: Callable[[], bool]) -> None:
        with self._told:
            assert self._told.wait_for(holds, WAIT_S), (self.states, self.acks)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def test_while_postgresql_is_away_the_collector_says_down_confirms_nothing_and_comes_back(tmp_path: Path, crashing: Postgres,
                                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleet.records.collector.AWAY_PAUSE_MAX_S", 0.2)
    key, ack_key, where = Key(), SigningKey(tmp_path / "ack.pem"), crashing.database()
    chain = Chain(key).grow(9)
    with Broker(tmp_path / "broker") as broker:
        stores = [Store(where, [key.jwk]) for _ in range(2)]
        collector = Collector(stores[0], "127.0.0.1", broker.port, "shop", ack_key)
        checker = Checker(stores[1], lambda: "2026-09-01T08:00:00+08:00")
        background = threading.Thread(target=checker.run_on)
        watcher = Watcher(broker.port, ack_key)
        try:
            collector.start()
            background.start()
            watcher.until(lambda: watcher.states[-1:] == ["up"])
            watcher.send(wire.batch_encoded(chain.batch(1, 3)))
            watcher.until(lambda: watcher.acks[-1:] != [] and watcher.acks[-1].upto == 3)
            crashing.kill()
            watcher.send(wire.batch_encoded(chain.batch(4, 6)))       # taken in hand, and held
            watcher.until(lambda: watcher.states[-1] == "down")
            assert watcher.acks[-1].upto == 3
            crashing.start()
            watcher.until(lambda: watcher.acks[-1].upto == 6 and watcher.states[-1] == "up")
            watcher.send(b"rubbish")
            watcher.send(wire.batch_encoded(chain.batch(7, 9)))
            watcher.until(lambda: watcher.acks[-1].upto == 9)
            assert {a.verdict for a in watcher.acks} == {"ok", "unreadable"} and not collector.ended.is_set()
            until_s = time.monotonic() + WAIT_S
            reader = Store(where, [key.jwk])
            while sums(reader)["count"] < 9 and time.monotonic() < until_s:      # the background came back as well
                time.sleep(0.05)
            assert sums(reader)["count"] == 9 and records(reader)["tokens"] == chain.tokens and defects(reader) == []
            reader.close()
        finally:
            watcher.close()
            collector.stop()
            checker.ended.set()
            background.join()
            for store in stores:
                store.close()
