"""The line to the broker: one MQTT 5 connection at a time, driven by the event loop, come back from every loss.

Knows connections, topics and bytes; refuses to know records, acknowledgements and what is worth sending.  Each
connection is a new client object, so nothing that the library queued outlives it: the journal is the only queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import random
import secrets
import socket
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from device.mqtt import topics, wire

if TYPE_CHECKING:
    from paho.mqtt.client import Client

CONNECT_MAX_S = 10.0
RECEIVE_MAX = 32
PACKET_IN_MAX_BYTES = 128 * 1024
QUEUED_MAX = 64                          # messages handed to the library and not confirmed by the broker
COLLECTORS_MAX = 256                     # states held; a tenant has a handful
NOBODY_LISTENS = 0x10                    # the broker's reason code for "no matching subscribers"
STEADY_S = 30.0                          # a connection that lasted so long starts the pauses afresh


class Link:
    """The connection of one box.

    Calls back on the loop: `on_message(name, payload)` for `ack`, `config/desired`, `cmd`, `answer`, and
    `on_state(up, collector)` whenever the line or the presence of a collector changes.  `hello(session)` gives the
    payload sent after each connect; `session` is a fresh nonce.  `connect_from` must rise from start to start (boot
    count times 2**20, say), so that an old death is told from a new one.  `wall()` gives RFC 3339 or an empty text.
    `context` is a TLS context or None.  Pauses between tries: full jitter under a doubling span.
    """

    def __init__(self, host: str, port: int, tenant: str, box: str, *,
                 on_message: Callable[[str, bytes], None], on_state: Callable[[bool, bool], None],
                 hello: Callable[[str], bytes], connect_from: int = 0, wall: Callable[[], str] = str,
                 context: ssl.SSLContext | None = None, username: str | None = None, password: str | None = None,
                 keepalive_s: int = 60, pause_min_ms: int = 1_000, pause_max_ms: int = 300_000,
                 first_pause_max_ms: int = 0, seed: int | None = None) -> None:
        self.host, self.port = host, port
        self.tenant, self.box = topics.tenant_checked(tenant), topics.box_checked(box)
        self.up = False
        self.collector = False
        self.session = ""
        self.why_down = "not connected yet"
        self.connects = connect_from
        self.unheard = 0                 # messages that the broker took though nobody listened
        self._on_message, self._on_state, self._hello, self._wall = on_message, on_state, hello, wall
        self._context, self._username, self._password = context, username, password
        self._keepalive_s = keepalive_s
        self._pause_min_ms, self._pause_max_ms = pause_min_ms, pause_max_ms
        self._first_pause_max_ms = first_pause_max_ms
        self._random = random.Random(seed)
        self._client: Client | None = None
        self._packet_max_bytes = wire.PACKET_MAX_BYTES
        self._unconfirmed, self._unconfirmed_max = 0, QUEUED_MAX
        self._collectors: dict[str, wire.Status] = {}
        self._told = (False, False)
        self._hurried = asyncio.Event()

    async def run(self) -> None:
        """Connect, serve, come back, until cancelled; a cancelled link says goodbye if it can.  Raises nothing else."""
        loop = asyncio.get_running_loop()
        if self._first_pause_max_ms:
            await asyncio.sleep(self._random.uniform(0, self._first_pause_max_ms) / 1000)
        await asyncio.to_thread(importlib.import_module, "paho.mqtt.client")     # too long for a loop that scans
        failures = 0
        while True:
            began_s = loop.time()
            await self._connection(loop)
            failures = 0 if loop.time() - began_s > STEADY_S else failures + 1
            span_ms = min(self._pause_max_ms, self._pause_min_ms * 2 ** min(failures, 16))
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._random.uniform(0, span_ms) / 1000):
                    await self._hurried.wait()

    @property
    def enc(self) -> wire.Encoding:
        """How batches may be encoded: as tight as every collector that is up says it reads, for any of them may get one."""
        up = [told for told in self._collectors.values() if told.state == "up"]
        return "zlib-d1" if up and all("zlib-d1" in told.enc for told in up) else "zlib"

    def hurry(self) -> None:
        """End a pause between two tries at once."""
        self._hurried.set()

    def use(self, context: ssl.SSLContext) -> None:
        """From the next connection on be another by TLS; that connection is made now."""
        self._context = context
        self.renew()
        self.hurry()

    def renew(self) -> None:
        """End the connection that stands, and make another."""
        if self._client is not None:
            self._client.disconnect()

    def publish_up(self, payload: bytes) -> bool:
        """Hand one batch to the broker; False when the line is down or full, and then nothing was kept."""
        return self.publish("up", payload)

    def publish(self, name: str, payload: bytes) -> bool:
        """Hand a message on topic `name` of this box to the broker; True promises nothing about arrival."""
        topic = topics.BY_NAME[name]
        assert topic.sender == "box", name
        if not self.up or self._client is None or self._unconfirmed >= self._unconfirmed_max:
            return False
        if len(payload) + 256 > self._packet_max_bytes:
            self.why_down = f"a message of {len(payload)} bytes is more than the broker takes"
            return False
        return self._published(self._client, name, payload)

    # One connection --------------------------------------------------------------------------------------------

    async def _connection(self, loop: asyncio.AbstractEventLoop) -> None:
        ready: asyncio.Future[None] = loop.create_future()
        gone = asyncio.Event()
        self.connects += 1
        client = self._made(ready, gone)
        connecting = asyncio.ensure_future(asyncio.to_thread(self._connect, client))
        misc: asyncio.Task[None] | None = None
        try:
            await asyncio.shield(connecting)
            self._attach(loop, client)
            misc = asyncio.create_task(_housekeeping(client, gone), name="mqtt-housekeeping")
            async with asyncio.timeout(CONNECT_MAX_S):
                await ready
            await gone.wait()
        except (OSError, ValueError, TimeoutError) as why:     # ssl and socket errors are OSErrors, bad names ValueErrors
            self.why_down = f"{self.host}:{self.port}: {str(why) or 'no answer in time'}"
        except asyncio.CancelledError:
            if not connecting.done():                          # the thread cannot be stopped: close what it brings
                connecting.add_done_callback(lambda _: client.disconnect())
            elif self.up:
                self._published(client, "status", wire.encoded(wire.Status("down", self.connects, self._wall())))
                client.disconnect()
                client.loop_write()
            raise
        finally:
            if misc is not None:
                misc.cancel()
            if not ready.done():
                ready.cancel()
            elif not ready.cancelled():
                ready.exception()                              # seen: nobody may be waiting any more
            self._client, self.up, self.session, self._unconfirmed = None, False, "", 0
            self._collectors.clear()
            if connecting.done():
                _closed(loop, client)
            self._tell()

    def _made(self, ready: asyncio.Future[None], gone: asyncio.Event) -> Client:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5

        client = Client(CallbackAPIVersion.VERSION2, client_id=f"{self.tenant}/{self.box}", protocol=MQTTv5)
        client.connect_timeout = CONNECT_MAX_S / 2
        client.max_inflight_messages_set(QUEUED_MAX)           # the broker's own limit is kept in publish: paho does not
        if self._context is not None:
            client.tls_set_context(self._context)
        if self._username is not None:
            client.username_pw_set(self._username, self._password)
        death = wire.encoded(wire.Status("down", self.connects, ""))
        client.will_set(topics.status(self.tenant, self.box), death, qos=1, retain=True)

        def connected(_c: Client, _u: Any, _flags: Any, code: Any, properties: Any) -> None:
            if code.is_failure:
                _failed(ready, ConnectionError(f"the broker refused the connection: {code}"))
                gone.set()
                return
            limit = getattr(properties, "MaximumPacketSize", None)
            self._packet_max_bytes = min(limit or 2**28, 2**28)
            self._unconfirmed_max = min(getattr(properties, "ReceiveMaximum", None) or QUEUED_MAX, QUEUED_MAX)
            mine = [topics.of_box(self.tenant, self.box, t.name) for t in topics.TOPICS
                    if t.reader == "box" and t.under == "box" and "{" not in t.name]
            mine += [topics.blobs_of(self.tenant, self.box), topics.collectors_of(self.tenant)]
            client.subscribe([(t, _options()) for t in mine])

        def subscribed(_c: Client, _u: Any, _mid: int, codes: list[Any], _p: Any) -> None:
            refused = [str(c) for c in codes if c.is_failure]
            if refused:
                _failed(ready, ConnectionError(f"the broker refused a subscription: {refused[0]}"))
                client.disconnect()
                return
            self._client, self.up, self.why_down = client, True, ""
            self.session = secrets.token_urlsafe(16)
            self._published(client, "status", wire.encoded(wire.Status("up", self.connects, self._wall())))
            self._published(client, "hello", self._hello(self.session))
            if not ready.done():
                ready.set_result(None)
            self._tell()

        def disconnected(_c: Client, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
            self.why_down = f"{self.host}:{self.port}: the connection ended: {code}"
            _failed(ready, ConnectionError(f"the connection ended: {code}"))
            gone.set()

        def confirmed(_c: Client, _u: Any, _mid: int, code: Any, _p: Any) -> None:
            self._unconfirmed = max(0, self._unconfirmed - 1)
            self.unheard += code.value == NOBODY_LISTENS

        def came(_c: Client, _u: Any, message: Any) -> None:
            self._came(message.topic, bytes(message.payload))

        client.on_connect, client.on_subscribe, client.on_disconnect = connected, subscribed, disconnected
        client.on_publish, client.on_message = confirmed, came
        return client

    def _connect(self, client: Client) -> None:
        """In a worker thread: look the name up, connect, shake hands, write CONNECT."""
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = RECEIVE_MAX
        properties.MaximumPacketSize = PACKET_IN_MAX_BYTES
        client.connect(self.host, self.port, keepalive=self._keepalive_s, clean_start=True, properties=properties)

    def _attach(self, loop: asyncio.AbstractEventLoop, client: Client) -> None:
        opened = client.socket()
        if opened is None:
            raise ConnectionError("the connection ended at once")
        sock: Any = opened
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)     # else a batch waits 40 ms for the confirmation before it

        def read() -> None:
            client.loop_read()
            while client.socket() is sock and hasattr(sock, "pending") and sock.pending():
                client.loop_read()                             # TLS holds more than the selector can see

        def write_wanted(_c: Client, _u: Any, which: Any) -> None:
            loop.add_writer(which.fileno(), client.loop_write)

        def write_done(_c: Client, _u: Any, which: Any) -> None:
            loop.remove_writer(which.fileno())

        def closing(_c: Client, _u: Any, which: Any) -> None:
            loop.remove_reader(which.fileno())
            loop.remove_writer(which.fileno())

        client.on_socket_register_write, client.on_socket_unregister_write = write_wanted, write_done
        client.on_socket_close = closing
        loop.add_reader(sock.fileno(), read)
        if client.want_write():
            loop.add_writer(sock.fileno(), client.loop_write)

    def _published(self, client: Client, name: str, payload: bytes) -> bool:
        topic = topics.BY_NAME[name]
        info = client.publish(topics.of_box(self.tenant, self.box, name), payload, qos=topic.qos, retain=topic.retain)
        if info.rc == 0:
            self._unconfirmed += 1
        return info.rc == 0

    def _came(self, topic: str, payload: bytes) -> None:
        try:
            _, box, name = topics.box_parsed(topic)
        except topics.TopicError:
            self._collector_came(topic, payload)
            return
        if box == self.box:
            self._on_message(name, payload)

    def _collector_came(self, topic: str, payload: bytes) -> None:
        try:
            _, which = topics.collector_parsed(topic)
            told = wire.status_decoded(payload)
        except (topics.TopicError, wire.WireError):
            return                                             # nothing that a box could do about it
        if wire.status_holds(self._collectors.get(which), told):
            self._collectors[which] = told
            if len(self._collectors) > COLLECTORS_MAX:         # a broker may make up names without end
                del self._collectors[next(iter(self._collectors))]
        self._tell()

    def _tell(self) -> None:
        self.collector = any(s.state == "up" for s in self._collectors.values())
        if self._told != (self.up, self.collector):
            self._told = (self.up, self.collector)
            self._on_state(self.up, self.collector)


def _options() -> Any:
    from paho.mqtt.subscribeoptions import SubscribeOptions

    return SubscribeOptions(qos=1)


def _failed(ready: asyncio.Future[None], why: Exception) -> None:
    if not ready.done():
        ready.set_exception(why)


def _closed(loop: asyncio.AbstractEventLoop, client: Client) -> None:
    """Leave nothing of `client` behind in the loop; a reader on a closed descriptor would haunt the next connection."""
    sock = client.socket()
    if sock is not None and sock.fileno() >= 0:
        loop.remove_reader(sock.fileno())
        loop.remove_writer(sock.fileno())
        sock.close()


async def _housekeeping(client: Client, gone: asyncio.Event) -> None:
    """Keep-alive, twice a second at most once: the library's clockwork, which nothing else turns."""
    while not gone.is_set():
        client.loop_misc()
        await asyncio.sleep(1.0)
