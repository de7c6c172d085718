"""The cloud's end of `up`: takes batches, checks them, commits them, and only then acknowledges.

`Clerk` is the desk without a line: messages in, replies out, the store in between.  `Collector` puts it behind an MQTT
connection: one network thread, one thread that works.  Any number of collectors may share the boxes of a tenant.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from device.mqtt import ask_wire, topics, wire
from fleet.database import DatabaseFailed, DatabaseRefused
from fleet.keys import SigningKey
from fleet.store_sqlite import Outcome, Store, Unreadable

log = logging.getLogger("tillfleet.collect")

RECEIVE_MAX = 64                         # batches that the broker may have handed over and we have not confirmed
TOGETHER_MAX = 32                        # messages that share one commit
UNREADABLE_HOLD_MS = 60_000
CONNECT_BITS = 20                        # connections of one start

Message = tuple[str, bytes]              # topic, payload
Taker = Callable[[str, bytes, str], list[Message]]   # box, payload, at (RFC 3339) -> replies


class Clerk:
    """Answers what boxes of `tenant` say.  `kid` and `sign` make acknowledgements; `wall()` gives RFC 3339.

    `takers`: a topic's name to all who take its messages, each (box, payload, at) -> replies; `register` adds one.  A taker runs
    inside the commit, so it may write to `store.database` and must not reply to what it did not write.  `answers`: who answers a
    signed question, by its verb.
    """

    def __init__(self, store: Store, tenant: str, kid: str, sign: Callable[[bytes], bytes],
                 wall: Callable[[], str]) -> None:
        self.store, self.tenant = store, topics.tenant_checked(tenant)
        self.takers: dict[str, list[Taker]] = {}
        self.answers: dict[str, Callable[[str, ask_wire.Ask, str], ask_wire.Answer]] = {"sale_by_order": store.leases.answer}
        self._kid, self._sign, self._wall = kid, sign, wall
        for name, taker in {"hello": self._hello, "open": self._open, "ask": self._ask}.items():
            self.register(name, taker)

    def register(self, name: str, taker: Taker) -> None:
        """Let `taker` take each message of boxes on topic `name`, after those who take it already."""
        assert topics.BY_NAME[name].sender == "box" and name != "up", name
        self.takers.setdefault(name, []).append(taker)

    @property
    def names(self) -> tuple[str, ...]:
        """The topics that somebody takes."""
        return ("up", *self.takers)

    def handle(self, messages: list[Message]) -> list[Message]:
        """Take messages in the order of arrival under one commit; return the replies, which may leave only now.

        Raises DatabaseFailed when nothing was committed; then nothing may be confirmed to the broker either.  A message that
        somebody cannot take is put aside and logged, and the others go on.
        """
        at = self._wall()
        batches: dict[tuple[str, str], Outcome] = {}
        replies: list[Message] = []
        with self.store.transaction():
            for topic, payload in messages:
                try:
                    tenant, box, name = topics.box_parsed(topic)
                except topics.TopicError as why:
                    log.warning("%s", why)
                    continue
                if tenant != self.tenant:
                    log.warning("%s is of another tenant", topic)
                elif name == "up":
                    replies += self._up(box, payload, at, batches)
                else:
                    for taker in self.takers.get(name, ()):
                        replies += self._taken(taker, name, box, payload, at)
        acks = [self._ack(wire.Ack(box, jid, o.upto, o.head, o.want, 0, o.verdict, o.why[:500], at))
                for (box, jid), o in batches.items()]
        return replies + acks

    def _taken(self, taker: Taker, name: str, box: str, payload: bytes, at: str) -> list[Message]:
        try:
            with self.store.part():
                return taker(box, payload, at)
        except DatabaseFailed:
            raise
        except wire.WireError as why:
            log.warning("box %s: %s: %s", box, why.name, why.sentence)
            self.store.quarantine(box, why.name, why.sentence, payload, at)
        except Exception as why:  # noqa: BLE001 - one box's message, sent again and again, must not end the collecting of all
            log.exception("box %s: a message on %s broke whoever takes it", box, name)
            self.store.quarantine(box, "NOT_TAKEN", f"{name}: {type(why).__name__}: {why}", payload, at)
        return []

    def _ack(self, ack: wire.Ack) -> Message:
        return topics.ack(self.tenant, ack.box), wire.ack_encoded(ack, self._kid, self._sign)

    def _up(self, box: str, payload: bytes, at: str, batches: dict[tuple[str, str], Outcome]) -> list[Message]:
        jid = ""
        try:
            batch = wire.batch_decoded(payload)
            jid = batch.jid
            outcome = self.store.take(box, batch, at)
        except (wire.WireError, Unreadable) as why:
            return self._unreadable(box, jid, why.name, why.sentence, payload, at)
        except DatabaseRefused as why:
            return self._unreadable(box, jid, "NOT_KEPT", f"the database refuses the batch: {why}", payload, at)
        before = batches.get((box, jid))
        if outcome.verdict == "fork":
            log.error("box %s: fork of journal %s: %s", box, jid, outcome.why)
        elif before is not None and before.verdict == "fork":        # one fork is not washed away by a later batch
            outcome = msgspec.structs.replace(outcome, verdict="fork", why=before.why)
        batches[(box, jid)] = outcome
        return []

    def _unreadable(self, box: str, jid: str, name: str, sentence: str, payload: bytes, at: str) -> list[Message]:
        log.warning("box %s: %s: %s", box, name, sentence)
        self.store.quarantine(box, name, sentence, payload, at)
        upto, head = self.store.guard(box, jid) if jid else (0, "")
        return [self._ack(wire.Ack(box, jid, upto, head, (), UNREADABLE_HOLD_MS, "unreadable", f"{name}: {sentence}"[:500], at))]

    def _hello(self, box: str, payload: bytes, at: str) -> list[Message]:
        """Tell the box at once where the cloud stands; a journal shorter than what is committed was rolled back."""
        replies = []
        for journal in wire.hello_decoded(payload).journals:
            upto, head = self.store.guard(box, journal.jid)
            last = journal.next - 1
            same = last != upto or not journal.head or journal.head in self.store.digests(box, journal.jid, upto)
            ack = wire.Ack(box, journal.jid, upto, head, at=at)
            if last < upto:
                ack = msgspec.structs.replace(ack, verdict="rollback",
                                              why=f"record {upto} is committed, the box ends at {last}")
            elif not same:
                ack = msgspec.structs.replace(ack, verdict="fork",
                                              why=f"record {upto} is committed with another content than the box has")
            replies.append(self._ack(ack))
        return replies

    def _open(self, box: str, payload: bytes, at: str) -> list[Message]:
        wire.open_decoded(payload)
        self.store.open_orders(box, payload.decode(), at)
        return []

    def _ask(self, box: str, payload: bytes, at: str) -> list[Message]:
        """One answer; none to a question that this box did not sign."""
        ask = ask_wire.ask_decoded(payload, self.store.verifiers(box))
        if ask.box != box:
            raise wire.WireError("ASK_PAYLOAD", f"the question names box {ask.box!r}")
        answerer = self.answers.get(ask.verb)
        answer = answerer(box, ask, at) if answerer else ask_wire.Answer(box, ask.id, why=f"nobody here answers {ask.verb}")
        return [(topics.of_box(self.tenant, box, "answer"), ask_wire.answer_encoded(answer, self._kid, self._sign))]


class Collector:
    """A clerk on the line.  `id` names its retained state; boxes send while some collector's state is `up`.

    Whoever else answers boxes registers with `clerk` before `start()`, which returns at once, broker there or not; `ended` is
    set when it gave up, and then `failure` says why.
    """

    def __init__(self, store: Store, host: str, port: int, tenant: str, key: SigningKey, *, id: str = "c1",
                 wall: Callable[[], str] | None = None, retry_max_s: int = 30) -> None:
        self.ended = threading.Event()
        self.failure: Exception | None = None
        self._wall = wall or _wall
        self.clerk = Clerk(store, tenant, key.kid, key.sign, self._wall)
        self._host, self._port, self._tenant, self._id = host, port, tenant, id
        self._retry_max_s = retry_max_s
        self._came: queue.Queue[Any] = queue.Queue()         # bounded by RECEIVE_MAX: nothing more is handed over
        self._connect = int(datetime.now(UTC).timestamp()) << CONNECT_BITS
        self._client = self._made()
        self._worker = threading.Thread(target=self._work, name="collector", daemon=True)

    def start(self) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = RECEIVE_MAX
        properties.MaximumPacketSize = wire.PACKET_MAX_BYTES + 1024
        self._worker.start()
        self._client.connect_async(self._host, self._port, keepalive=30, clean_start=True, properties=properties)
        self._client.loop_start()

    def stop(self) -> None:
        """Say goodbye, finish what was taken, end both threads.  Harmless when it already ended."""
        if self._client.is_connected():
            told = self._client.publish(self._topic, self._state("down"), qos=1, retain=True)
            try:
                told.wait_for_publish(2)
            except (RuntimeError, ValueError) as why:
                log.info("the goodbye did not leave: %s", why)
        self._client.disconnect()
        self._client.loop_stop()
        self._came.put(None)
        if self._worker.ident is not None:
            self._worker.join()
        self.ended.set()

    @property
    def _topic(self) -> str:
        return topics.collector_state(self._tenant, self._id)

    def _state(self, state: Literal["up", "down"]) -> bytes:
        return wire.encoded(wire.Status(state, self._connect, self._wall(), wire.ENCODINGS))

    def _made(self) -> Any:
        from paho.mqtt.client import CallbackAPIVersion, Client, MQTTv5
        from paho.mqtt.subscribeoptions import SubscribeOptions

        # Confirmed by hand, after the commit: until then the broker's own limit holds further messages back.
        client = Client(CallbackAPIVersion.VERSION2, client_id=f"{self._tenant}/_collector/{self._id}",
                        protocol=MQTTv5, manual_ack=True)
        client.reconnect_delay_set(min_delay=1, max_delay=self._retry_max_s)
        client.enable_logger(log.getChild("mqtt"))

        def before(c: Any, _u: Any) -> None:
            self._connect += 1
            c.will_set(self._topic, self._state("down"), qos=1, retain=True)

        def connected(c: Any, _u: Any, _flags: Any, code: Any, _p: Any) -> None:
            if code.is_failure:
                log.warning("the broker refused the connection: %s", code)
                return
            c.subscribe([(topics.shared(self._tenant, name), SubscribeOptions(qos=1))
                         for name in self.clerk.names])

        def subscribed(c: Any, _u: Any, _mid: int, codes: list[Any], _p: Any) -> None:
            refused = [str(one) for one in codes if one.is_failure]
            if refused:
                log.error("the broker refused a subscription: %s", refused[0])
                return
            c.publish(self._topic, self._state("up"), qos=1, retain=True)
            log.info("collecting at %s:%s", self._host, self._port)

        def came(_c: Any, _u: Any, message: Any) -> None:
            self._came.put((self._connect, message.mid, message.qos, message.topic, bytes(message.payload)))

        client.on_pre_connect, client.on_connect, client.on_subscribe = before, connected, subscribed
        client.on_message = came
        return client

    def _work(self) -> None:
        """Serve until told to end; whatever else ends it, ends the collector: boxes send again what was not committed."""
        self.failure = RuntimeError("the worker died of an error of its own")
        try:
            self._serve()
            self.failure = None
        except (DatabaseFailed, OSError) as why:
            log.critical("the store failed, nothing more is taken: %s", why)
            self.failure = why
        finally:
            self._client.disconnect()
            self.ended.set()

    def _serve(self) -> None:
        while (first := self._came.get()) is not None:
            together = [first]
            while len(together) < TOGETHER_MAX:
                try:
                    more = self._came.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._came.put(None)
                    break
                together.append(more)
            replies = self.clerk.handle([(topic, payload) for *_, topic, payload in together])
            for topic, payload in replies:
                self._client.publish(topic, payload, qos=1)
            for connect, mid, qos, *_ in together:
                if connect == self._connect:                 # numbers start afresh with each connection
                    self._client.ack(mid, qos)


def _wall() -> str:
    return datetime.now(UTC).astimezone().isoformat(timespec="seconds")
