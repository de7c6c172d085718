"""The enrolment desk on the line: takes requests that the enrolment listener hands on, and answers each on its own topic.

Knows one MQTT connection; refuses to know codes and certificates.  Several desks share a tenant's requests; each answers before
it confirms, so that a request whose desk died goes to another, or is asked again by its box.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from device.mqtt import enrol_wire, topics
from device.mqtt.wire import WireError
from fleet.database import DatabaseFailed
from fleet.line import Dress, plain

log = logging.getLogger("tillfleet.enrol")


class DeskLine:
    """`take(raw, code id)` gives a reply or None, as `fleet.identity.enrol.Desk.take`.  `ended` is set when the database failed."""

    def __init__(self, take: Callable[[bytes, str], bytes | None], host: str, port: int, tenant: str, *, id: str = "desk",
                 dress: Dress = plain, share: str = "", retry_max_s: int = 30) -> None:
        self.ended, self.ready = threading.Event(), threading.Event()
        self.failure: Exception | None = None
        self._take, self._host, self._port = take, host, port
        self._client = self._made(topics.tenant_checked(tenant), id, share, retry_max_s)
        dress(self._client)

    def start(self) -> None:
        self._client.connect_async(self._host, self._port, keepalive=30)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self.ended.set()

    def _made(self, tenant: str, id: str, share: str, retry_max_s: int) -> Any:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
        from paho.mqtt.subscribeoptions import SubscribeOptions

        client = Client(CallbackAPIVersion.VERSION2, client_id=f"{tenant}/_collector/{id}", protocol=MQTTv5)
        client.reconnect_delay_set(min_delay=1, max_delay=retry_max_s)

        def connected(c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
            if code.is_failure:
                log.warning("the broker refused the connection: %s", code)
                return
            c.subscribe(topics.enrol_shared(tenant, share), options=SubscribeOptions(qos=1))

        def subscribed(_c: Any, _u: Any, _mid: int, codes: list[Any], _p: Any) -> None:
            if codes[0].is_failure:
                log.error("the broker refused the subscription: %s", codes[0])
                return
            log.info("enrolling at %s:%s", self._host, self._port)
            self.ready.set()

        client.on_connect, client.on_subscribe = connected, subscribed
        client.on_message = lambda c, _u, message: self._came(c, message.topic, bytes(message.payload))
        return client

    def _came(self, client: Any, topic: str, payload: bytes) -> None:
        """In the network's thread: enrolment is rare, and one at a time is quick enough."""
        if self.failure is not None:
            return
        try:
            code_id = topics.enrol_parsed(topic)
            if len(payload) > enrol_wire.REQUEST_MAX_BYTES:
                raise WireError("ENROL_SHAPE", f"a request of {len(payload)} bytes")
            reply = self._take(payload, code_id)
        except (topics.TopicError, WireError) as why:
            log.warning("a request was not taken: %s", why)
            return
        except DatabaseFailed as why:
            log.critical("the database failed, nobody is enrolled any more: %s", why)
            self.failure = why
            self.ended.set()
            return
        except Exception:  # noqa: BLE001 - one request must not end the thread that all others come through
            log.exception("a request broke its reader")
            return
        if reply is not None:
            client.publish(topics.enrol(code_id, "answer"), reply, qos=1)
