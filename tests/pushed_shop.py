"""One box and its cloud for tests of a push: the real daemon, broker and collector, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from device.ask import ask
from device.drivers.signer.file import FileSigner
from device.mqtt import config_wire as wire
from device.mqtt import topics
from device.store_forward.token import parse
from fleet.records.store import Store, records
from sim.broker import Broker
from sim.counter.kept import Kept
from tests.pushed_box import KEY

ROOT = Path(__file__).resolve().parent.parent
WAIT_S = 40.0


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
        self.env = os.environ | {"TILLBOX_TRIAL_S": "60"}
        self.daemon = Kept([sys.executable, "-m", "device", "run", "--config", str(folder / "box.toml")], folder / "daemon.log",
                           self.env)
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

    def patience(self, seconds: int) -> None:
        """How long a trial lasts that begins from the next start on."""
        self.daemon.env_put("TILLBOX_TRIAL_S", str(seconds))

    def phase(self, version: int) -> str:
        """Where that version stands on the card: `trial`, `fallback`, or the last word told of it; "" when nothing was."""
        state = json.loads((self.folder / "state/config/state.json").read_text())
        if state["told"]["version"] != version:
            return ""
        return state["phase"] or state["told"]["state"]

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


def tale(store: Store) -> list[tuple[int, str]]:
    payloads = [parse(token).payload for token in records(store)["tokens"]]
    return [(body["version"], body["state"]) for p in payloads if p.kind == "config" for body in [json.loads(bytes(p.body))]]


def until(holds: Any, wait_s: float = WAIT_S) -> None:
    until_s = time.monotonic() + wait_s
    while True:
        try:
            if holds():
                return
        except (OSError, IndexError):
            pass
        assert time.monotonic() < until_s, "it did not come"
        time.sleep(0.02)
