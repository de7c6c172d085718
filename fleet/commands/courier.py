"""Takes what the cloud has for boxes out of the database, signs it and hands it to the broker: commands, configurations, chunks.

Knows the keys and the line; refuses to know what a command or a configuration says: each room gives what is due now.
Collectors hold neither key: what stands nearest to the boxes cannot command them.  Several couriers may run: a row is claimed
before it leaves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from device.mqtt import cmd_wire, topics
from fleet import clock
from fleet.commands.kept import Commands
from fleet.database import Database, DatabaseFailed
from fleet.keys import SigningKey

log = logging.getLogger("tillfleet.courier")

TICK_S = 0.5
AGAIN_S_MAX = 30


class Parcel(NamedTuple):
    topic: str
    payload: bytes
    retain: bool = False


Room = Callable[[str], Iterable[Parcel]]         # at (RFC 3339) -> what leaves now; inside a transaction of its own


def command_room(database: Database, tenant: str, key: SigningKey) -> Room:
    commands = Commands(database)

    def due(at: str) -> Iterable[Parcel]:
        return [Parcel(topics.of_box(tenant, cmd.box, "cmd"), cmd_wire.cmd_encoded(cmd, key.kid, key.sign))
                for cmd in commands.due(at)]
    return due


class Courier:
    """`rooms` are asked every `TICK_S` while the line is up.  `run` returns when `stop` is set, or raises DatabaseFailed."""

    def __init__(self, database: Database, host: str, port: int, tenant: str, rooms: Iterable[Room], *, id: str = "courier",
                 wall: Callable[[], str] | None = None, dress: Callable[[Any], None] = lambda client: None) -> None:
        self.stop = threading.Event()
        self._db, self._rooms, self._wall = database, tuple(rooms), wall or clock.wall
        self._host, self._port = host, port
        self._client = self._made(f"{tenant}/_courier/{id}")
        dress(self._client)                          # user name and TLS are whoever's who starts it

    def run(self) -> None:
        self._client.connect_async(self._host, self._port, keepalive=30)
        self._client.loop_start()
        try:
            while not self.stop.wait(TICK_S):
                if self._client.is_connected():
                    self.tick()
        finally:
            self._client.disconnect()
            self._client.loop_stop()

    def tick(self) -> int:
        """Send what is due; how many parcels left."""
        at, count = self._wall(), 0
        for room in self._rooms:
            with self._db.transaction():
                parcels = list(room(at))
            for parcel in parcels:                   # lost on the way: each room gives it again after its own time
                self._client.publish(parcel.topic, parcel.payload, qos=1, retain=parcel.retain)
            count += len(parcels)
        return count

    def _made(self, name: str) -> Any:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

        client = Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTv5)
        client.reconnect_delay_set(min_delay=1, max_delay=AGAIN_S_MAX)

        def connected(_c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
            log.log(logging.WARNING if code.is_failure else logging.INFO, "broker %s:%s: %s", self._host, self._port, code)

        def published(_c: Any, _u: Any, _mid: int, code: Any, _p: Any) -> None:
            if code.is_failure:
                log.error("the broker refuses what this courier says: %s", code)
        client.on_connect, client.on_publish = connected, published
        return client


def ended_well(courier: Courier) -> bool:
    """Run until stopped; False when the database failed, which is logged."""
    try:
        courier.run()
    except DatabaseFailed as why:
        log.critical("the database failed: %s", why)
        return False
    return True

