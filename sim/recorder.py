"""Writes down every message that a broker of this machine passes on, for whoever looks through them later."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt

from fleet.line import Dress, plain

READY_S_MAX = 10.0


class Recorder:
    """A subscriber to everything.  One JSON object a message goes to `file`: `{"topic", "payload"}`, the payload as hex.

    It comes back by itself when the broker was away; what is passed on meanwhile is not seen.
    """

    def __init__(self, port: int, file: Path, dress: Dress = plain) -> None:
        self._file = open(file, "a", encoding="ascii")
        self._ready = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="recorder", protocol=mqtt.MQTTv5)
        dress(self._client)
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._came
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        if not self._ready.wait(READY_S_MAX):
            raise RuntimeError("the broker let nobody listen")

    def stop(self) -> None:
        """Wait for what is still on its way, then end."""
        time.sleep(0.2)                              # the broker says of no message that it was the last
        self._client.disconnect()
        self._client.loop_stop()
        self._file.close()

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe("#", qos=1)

    def _came(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._file.write(json.dumps({"topic": message.topic, "payload": message.payload.hex()}) + "\n")


def recorded(file: Path) -> list[tuple[str, bytes]]:
    """(topic, payload) of each message in `file`, in the order in which they came."""
    lines = (json.loads(line) for line in file.read_text("ascii").splitlines())
    return [(line["topic"], bytes.fromhex(line["payload"])) for line in lines]
