"""The real daemon on a real broker under a real collector: a good configuration stays, a poisonous one goes, power cut or not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from device.ask import ask
from device.drivers.signer_file import FileSigner
from device.mqtt import config_wire as wire
from device.mqtt import topics
from fleet.store_sqlite import Store, records
from sim.broker import MOSQUITTO, Broker
from sim.counter.kept import Kept
from tests.pushed_box import KEY, blob_of, doc, price_book

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 25.0


class Shop:
    """One box and its cloud, each in its own process."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

        self.folder, self.run_dir = folder, folder / "run"
        state = folder / "state"
        state.mkdir()
        signer = FileSigner(str(state / "record.key"))
        (folder / "keys.jwks").write_text(json.dumps({"keys": [signer.jwk]}))
        (state / "config.pub").write_text(json.dumps(KEY.jwk))
        self.collector = subprocess.Popen(
            [sys.executable, "-m", "fleet", "collect", "--broker", f"127.0.0.1:{broker.port}", "--tenant", "shop",
             "--store", folder / "store.db", "--keys", folder / "keys.jwks", "--json"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.collector.stdout is not None
        assert json.loads(self.collector.stdout.readline())["event"] == "started"
        (state / "ack.pub").write_text(json.dumps(json.loads((folder / "store.db.ack.jwks").read_text())["keys"][0]))
        (folder / "box.toml").write_text(f'''
box = "box-1"
box_no = "0000B1"
tenant = "shop"
state_dir = "{state}"
run_dir = "{self.run_dir}"
[scanner]
kind = "none"
[keypad]
kind = "none"
[display]
kind = "none"
[printer]
kind = "none"
[mqtt]
host = "127.0.0.1"
port = {broker.port}
''')
        self.daemon = Kept([sys.executable, "-m", "device", "run", "--config", str(folder / "box.toml")], folder / "daemon.log",
                           os.environ | {"TILLBOX_TRIAL_S": "4"})
        self.reports: list[wire.Reported] = []
        self.came = threading.Condition()
        self.client = Client(CallbackAPIVersion.VERSION2, client_id="fleet", protocol=MQTTv5)
        self.client.on_message = self._report
        self.client.connect("127.0.0.1", broker.port)
        self.client.subscribe(topics.of_box("shop", "box-1", "config/reported"), qos=1)
        self.client.loop_start()

    def _report(self, _c: Any, _u: Any, message: Any) -> None:
        with self.came:
            self.reports.append(wire.reported_decoded(message.payload))
            self.came.notify_all()

    def push(self, desired: wire.Desired) -> None:
        self.client.publish(topics.of_box("shop", "box-1", "config/desired"),
                            wire.config_encoded(desired, KEY.kid, KEY.sign), qos=1, retain=True)

    def await_state(self, version: int, *states: str) -> wire.Reported:
        def last() -> wire.Reported | None:
            return next((r for r in reversed(self.reports) if r.version == version and r.state in states), None)
        with self.came:
            assert self.came.wait_for(last, WAIT_S), f"{states} of {version} did not come: {self.reports[-3:]}"
            told = last()
            assert told is not None
            return told

    def await_want(self) -> tuple[str, tuple[tuple[int, int], ...]]:
        def wanted() -> wire.Reported | None:
            return next((r for r in self.reports if r.want), None)
        with self.came:
            assert self.came.wait_for(wanted, WAIT_S)
            told = wanted()
            assert told is not None
            return next(iter(told.want.items()))

    def blob(self, data: bytes, sha256: str, ranges: tuple[tuple[int, int], ...]) -> None:
        for n in (n for first, last in ranges for n in range(first, last + 1)):
            chunk = data[n * wire.CHUNK_BYTES:(n + 1) * wire.CHUNK_BYTES]
            self.client.publish(topics.blob("shop", "box-1", sha256, n), chunk, qos=1)

    def state(self) -> dict:
        return ask(self.run_dir / "daemon.sock", "state")["state"]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        self.daemon.close()
        self.collector.terminate()
        self.collector.wait(10)
        assert self.collector.stdout is not None
        self.collector.stdout.close()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Broker(tmp_path / "broker") as broker:
        one = Shop(tmp_path, broker)
        try:
            yield one
        finally:
            one.close()


def test_a_poisonous_configuration_undoes_itself_and_its_tale_is_in_the_chain(shop: Shop):
    with socket.socket() as nobody:                # a port that nobody listens on
        nobody.bind(("127.0.0.1", 0))
        shop.daemon.start()
        shop.await_state(0, "active")
        book = price_book(300)
        shop.push(doc(1, blobs={"prices": blob_of(book)}))
        want = shop.await_want()
        shop.blob(book, *want)
        assert shop.await_state(1, "active").active.version == 1
        shop.push(doc(2, {"mqtt": {"port": nobody.getsockname()[1]}}))
        _until(lambda: '"phase":"trial"' in (shop.folder / "state/config/state.json").read_text())
        shop.daemon.cut(0.1)                       # power goes in the middle of the trial
        told = shop.await_state(2, "rolled_back")
    assert told.active.version == 1 and shop.daemon.starts >= 4
    assert shop.state()["config"]["state"] == "rolled_back"
    starts = shop.daemon.starts
    shop.push(doc(3, {"printer": {"columns": 32}, "shop_en": "Corner Shop 3"}, blobs={"prices": blob_of(book)}))
    assert shop.await_state(3, "active").active.version == 3
    assert shop.daemon.starts == starts            # words alone: a new connection, no new start
    store = Store(shop.folder / "store.db")
    try:
        _until(lambda: _tale(store)[-1:] == [(3, "active")])
        assert _tale(store) == [(1, "trial"), (1, "active"), (2, "trial"), (2, "rolled_back"), (3, "trial"), (3, "active")]
    finally:
        store.close()


def _tale(store: Store) -> list[tuple[int, str]]:
    from device.store_forward.token import parse
    payloads = [parse(token).payload for token in records(store)["tokens"]]
    return [(body["version"], body["state"]) for p in payloads if p.kind == "config" for body in [json.loads(bytes(p.body))]]


def _until(holds: Any) -> None:
    until_s = time.monotonic() + WAIT_S
    while True:
        try:
            if holds():
                return
        except (OSError, IndexError):
            pass
        assert time.monotonic() < until_s, "it did not come"
        time.sleep(0.02)
