"""The cloud's end of `up`: takes batches, checks them, commits them, and only then acknowledges.

`Clerk` is the desk without a line: messages in, replies out, the store in between.  `Collector` puts it behind an MQTT
connection: the network's thread opens what comes, one works, one tells what was committed, so that the database is kept busy.
Any number of collectors may share the boxes of a tenant.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from device.mqtt import ask_wire, topics, wire
from fleet import clock
from fleet.database import DatabaseFailed, DatabaseRefused
from fleet.keys import SigningKey
from fleet.line import Dress, plain
from fleet.records import checking, door
from fleet.records.patience import Patience
from fleet.records.store import Outcome, Store, Unreadable

log = logging.getLogger("tillfleet.collect")

RECEIVE_MAX = 64                         # batches that the broker may have handed over and we have not confirmed
TOGETHER_MAX = 16                        # messages under one commit: half of what a broker hands over; the rest comes meanwhile
UNREADABLE_HOLD_MS = 60_000
ASK_CHECK_MAX = 1_000                    # records checked while a question waits: a tenth of a second
FORGOTTEN_MAX = 4                        # newest journals of a box that it is reminded of
IDLE_S = 5.0
AWAY_PAUSE_MAX_S = 2.0                   # between two tries at a database that is away
CONNECT_BITS = 20                        # connections of one start

Message = tuple[str, bytes]              # topic, payload
Reply = Message | wire.Ack               # an acknowledgement that nobody signed yet
Taker = Callable[[str, bytes, str], list[Message]]   # box, payload, at (RFC 3339) -> replies


class Opened(NamedTuple):
    """A message as far as it can be understood before the database is asked.  Of `up`: batch and reading, or the fault."""

    box: str
    name: str
    payload: bytes
    journals: tuple[tuple[str, str], ...] = ()       # whose guard rows it needs
    batch: wire.Batch | None = None
    reading: door.Reading | None = None
    fault: tuple[str, str] = ("", "")                # ERROR_NAME, sentence


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
        self.answers: dict[str, Callable[[str, ask_wire.Ask, str], ask_wire.Answer]] = {"sale_by_order": self._sale}
        self.spoilt: Callable[[str], None] = lambda box: None        # told of each message that could not be taken
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
        return list(map(self.signed, self.handle_opened([self.opened(*message) for message in messages])))

    def signed(self, reply: Reply) -> Message:
        """What may leave, of what `handle_opened` returned.  Any thread's."""
        return self._ack(reply) if isinstance(reply, wire.Ack) else reply

    def handle_opened(self, messages: list[Opened]) -> list[Reply]:
        """As `handle`, for messages that were opened before, by any thread, and acknowledgements that somebody signs after."""
        at = self._wall()
        self.store.ready_for(at)
        try:
            return self._together(messages, at)
        except DatabaseRefused as why:
            if len(messages) > 1:                    # one of them is what the database will not have: find out which
                return [reply for one in messages for reply in self.handle_opened([one])]
            return self._refused(messages[0], f"the database refuses it: {why}", at)

    def _together(self, messages: list[Opened], at: str) -> list[Reply]:
        batches: dict[tuple[str, str], Outcome] = {}
        replies: list[Reply] = []
        with self.store.transaction():
            self.store.lock(journal for one in messages for journal in one.journals)
            for one in messages:
                if one.name == "up":
                    replies += self._up(one, at, batches)
                else:
                    for taker in self.takers.get(one.name, ()):
                        replies += self._taken(taker, one.name, one.box, one.payload, at)
        return [*replies, *(wire.Ack(box, jid, o.upto, o.head, o.want, 0, o.verdict, o.why[:500], at)
                            for (box, jid), o in batches.items())]

    def opened(self, topic: str, payload: bytes) -> Opened:
        """Whose it is, which journals' rows it needs, and of a batch every link, and its last signature where the key is at hand.
        Touches nothing; any thread's.  Never raises."""
        try:
            tenant, box, name = topics.box_parsed(topic)
        except topics.TopicError as why:
            log.warning("%s", why)
            return Opened("", "", payload)
        if tenant != self.tenant:
            log.warning("%s is of another tenant", topic)
            return Opened("", "", payload)
        jid, fault = "", ("", "")
        try:
            if name == "up":
                batch, insides = wire.batch_opened(payload)
                jid = batch.jid
                reading = door.read(box, batch, insides)
                if self.store.proven(box, reading.last):
                    reading = reading._replace(proven=True)
                return Opened(box, name, payload, ((box, jid),), batch, reading)
            if name == "hello":
                return Opened(box, name, payload, tuple((box, one.jid) for one in wire.hello_decoded(payload).journals))
        except (wire.WireError, Unreadable) as why:
            fault = why.name, why.sentence
        except Exception as why:  # noqa: BLE001 - whatever a box can send must not end the thread that all others come through
            log.exception("box %s: a message on %s broke its reader", box, name)
            fault = "NOT_TAKEN", f"{type(why).__name__}: {why}"
        return Opened(box, name, payload, ((box, jid),) if jid else (), fault=fault)

    def _refused(self, one: Opened, sentence: str, at: str) -> list[Reply]:
        with self.store.transaction():
            if one.name == "up":
                return self._unreadable(one, "NOT_KEPT", sentence, at)
            self.store.quarantine(one.box, "NOT_KEPT", f"{one.name}: {sentence}", one.payload, at)
            return []

    def _taken(self, taker: Taker, name: str, box: str, payload: bytes, at: str) -> list[Message]:
        try:
            with self.store.part():
                return taker(box, payload, at)
        except DatabaseFailed:
            raise
        except wire.WireError as why:
            log.warning("box %s: %s: %s", box, why.name, why.sentence)
            self.spoilt(box)
            self.store.quarantine(box, why.name, why.sentence, payload, at)
        except Exception as why:  # noqa: BLE001 - one box's message, sent again and again, must not end the collecting of all
            log.exception("box %s: a message on %s broke whoever takes it", box, name)
            self.spoilt(box)
            self.store.quarantine(box, "NOT_TAKEN", f"{name}: {type(why).__name__}: {why}", payload, at)
        return []

    def _ack(self, ack: wire.Ack) -> Message:
        return topics.ack(self.tenant, ack.box), wire.ack_encoded(ack, self._kid, self._sign)

    def _up(self, one: Opened, at: str, batches: dict[tuple[str, str], Outcome]) -> list[Reply]:
        if one.batch is None:
            return self._unreadable(one, *one.fault, at)
        box, jid = one.box, one.batch.jid
        try:
            outcome = self.store.take(box, one.batch, at, one.reading)
        except Unreadable as why:
            return self._unreadable(one, why.name, why.sentence, at)
        except DatabaseRefused as why:
            return self._unreadable(one, "NOT_KEPT", f"the database refuses the batch: {why}", at)
        before = batches.get((box, jid))
        if outcome.verdict == "fork":
            log.error("box %s: fork of journal %s: %s", box, jid, outcome.why)
        elif before is not None and before.verdict == "fork":        # one fork is not washed away by a later batch
            outcome = msgspec.structs.replace(outcome, verdict="fork", why=before.why)
        batches[(box, jid)] = outcome
        return []

    def _unreadable(self, one: Opened, name: str, sentence: str, at: str) -> list[Reply]:
        box, jid = one.box, one.journals[0][1] if one.journals else ""
        log.warning("box %s: %s: %s", box, name, sentence)
        self.spoilt(box)
        self.store.quarantine(box, name, sentence, one.payload, at)
        upto, head = self.store.guard(box, jid) if jid else (0, "")
        return [wire.Ack(box, jid, upto, head, (), UNREADABLE_HOLD_MS, "unreadable", f"{name}: {sentence}"[:500], at)]

    def _hello(self, box: str, payload: bytes, at: str) -> list[Message]:
        """Tell the box at once where the cloud stands; a journal shorter than what is committed was rolled back.

        One that the box does not name any more was lost with its memory: told first, for the box goes on by the first word.
        """
        told = wire.hello_decoded(payload).journals
        named, replies = {journal.jid for journal in told}, []
        for jid, upto, head in self.store.guards_of(box, FORGOTTEN_MAX):
            if jid not in named:
                why = f"record {upto} of a journal that the box does not name is committed"
                replies.append(self._ack(wire.Ack(box, jid, upto, head, (), 0, "rollback", why, at)))
        for journal in told:
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
            self.store.said_end(box, journal.jid, last, journal.head, at)
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

    def _sale(self, box: str, ask: ask_wire.Ask, at: str) -> ask_wire.Answer:
        checking.catch_up(self.store, at, ASK_CHECK_MAX)     # a sale of this minute may not be checked yet, and would not count
        return self.store.leases.answer(box, ask, at)


class Collector:
    """A clerk on the line.  `id` names its retained state; boxes send while some collector's state is `up`.

    Whoever else answers boxes registers with `clerk` before `start()`, which returns at once, broker there or not; `ended` is
    set when it gave up, and then `failure` says why.  While PostgreSQL is away the collector says `down`, takes nothing more,
    keeps what it was handed, confirms none of it, and comes back by itself.  A failing SQLite file ends it: nobody knows what the
    kernel kept.
    """

    def __init__(self, store: Store, host: str, port: int, tenant: str, key: SigningKey, *, id: str = "c1",
                 wall: Callable[[], str] | None = None, retry_max_s: int = 30, dress: Dress = plain,
                 share: str = topics.SHARE) -> None:
        self.ended = threading.Event()
        self.failure: Exception | None = None
        self._wall = wall or clock.wall
        self.clerk = Clerk(store, tenant, key.kid, key.sign, self._wall)
        self._host, self._port, self._tenant, self._id = host, port, tenant, id
        self._retry_max_s = retry_max_s
        self._patience = Patience(time.monotonic)
        self.clerk.spoilt = self._patience.spoilt
        self._came: queue.Queue[Any] = queue.Queue()         # bounded by RECEIVE_MAX: nothing more is handed over
        self._connect = int(datetime.now(UTC).timestamp()) << CONNECT_BITS
        self._client = self._made()
        dress(self._client)
        self._share = share
        self._stopping = threading.Event()
        self._away = False                                   # the database is; nothing is subscribed to meanwhile
        self._done: queue.Queue[Any] = queue.Queue()         # committed and not told yet; bounded as `_came` is
        self._untold: Exception | None = None                # what ended the telling
        self._worker = threading.Thread(target=self._work, name="collector", daemon=True)
        self._teller = threading.Thread(target=self._tell, name="teller", daemon=True)

    def start(self) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        properties.ReceiveMaximum = RECEIVE_MAX
        properties.MaximumPacketSize = wire.PACKET_MAX_BYTES + 1024
        try:
            self.clerk.store.ready_for(self._wall())         # not while the first batch waits
        except DatabaseFailed as why:
            log.warning("the database is not ready yet: %s", why)
        self._teller.start()
        self._worker.start()
        self._client.connect_async(self._host, self._port, keepalive=30, clean_start=True, properties=properties)
        self._client.loop_start()

    def stop(self) -> None:
        """Say goodbye, finish what was taken, end the thread.  Harmless when it already ended."""
        self._stopping.set()
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
            if self._away:
                c.publish(self._topic, self._state("down"), qos=1, retain=True)
            else:
                self._subscribe()

        def subscribed(c: Any, _u: Any, _mid: int, codes: list[Any], _p: Any) -> None:
            refused = [str(one) for one in codes if one.is_failure]
            if refused:
                log.error("the broker refused a subscription: %s", refused[0])
                return
            c.publish(self._topic, self._state("up"), qos=1, retain=True)
            log.info("collecting at %s:%s", self._host, self._port)

        def came(_c: Any, _u: Any, message: Any) -> None:
            if message.qos == 0:                             # no box of ours says so, and nothing holds such a flood back
                return
            if not self._patience.hears(*_whose(message.topic)):
                self._client.ack(message.mid, message.qos)
                return
            # Opened here, in the network's thread: the worker waits for the database most of its time, and this goes on meanwhile.
            self._came.put((self._connect, message.mid, message.qos, self.clerk.opened(message.topic, bytes(message.payload))))

        client.on_socket_open = _at_once
        client.on_pre_connect, client.on_connect, client.on_subscribe = before, connected, subscribed
        client.on_message = came
        return client

    def _work(self) -> None:
        """Serve until told to end; whatever else ends it, ends the collector: boxes send again what was not committed."""
        self.failure = RuntimeError("the worker died of an error of its own")
        try:
            self._serve()
            self.failure = self._untold
        except (DatabaseFailed, OSError) as why:
            log.critical("the store failed, nothing more is taken: %s", why)
            self.failure = why
        finally:
            self._done.put(None)
            self._teller.join()
            self._client.disconnect()
            self.ended.set()

    def _tell(self) -> None:
        """Answer what was committed, and confirm it to the broker, while the next messages are committed."""
        try:
            while (done := self._done.get()) is not None:
                together, replies = done
                for reply in replies:
                    self._client.publish(*self.clerk.signed(reply), qos=1)
                for connect, mid, qos, *_ in together:
                    if connect == self._connect:             # numbers start afresh with each connection
                        self._client.ack(mid, qos)
        except Exception as why:  # noqa: BLE001 - boxes that are told nothing must find another collector
            log.exception("nothing more can be told")
            self._untold = why
            self._came.put(None)

    def _serve(self) -> None:
        while True:
            try:
                first = self._came.get(timeout=IDLE_S)
            except queue.Empty:
                self._committed([])                          # nobody speaks: is the database still there?
                continue
            if first is None:
                return
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
            self._done.put((together, self._committed([opened for *_, opened in together])))

    def _committed(self, messages: list[Opened]) -> list[Reply]:
        """The replies, when all is committed; waits while PostgreSQL is away.  Raises DatabaseFailed when waiting is of no use."""
        store, pause_s = self.clerk.store, 0.0
        while True:
            try:
                replies = self.clerk.handle_opened(messages)
            except DatabaseFailed as why:
                if store.database.kind != "postgresql":
                    raise
                if pause_s:
                    self._gone(why)
                while True:                                  # at once the first time: a deadlock is gone then
                    if self._stopping.wait(pause_s):
                        raise
                    pause_s = min(AWAY_PAUSE_MAX_S, pause_s * 2 or 0.1)
                    try:
                        store.again()
                        break
                    except DatabaseFailed as still:
                        self._gone(still)
            else:
                self._back()
                return replies

    def _gone(self, why: Exception) -> None:
        if self._away:
            return
        self._away = True
        log.error("the database is away, nothing more is taken: %s", why)
        self._client.publish(self._topic, self._state("down"), qos=1, retain=True)
        self._client.unsubscribe([topics.shared(self._tenant, name, self._share) for name in self.clerk.names])

    def _back(self) -> None:
        if self._away:
            self._away = False
            log.warning("the database is there again")
            self._subscribe()

    def _subscribe(self) -> None:
        from paho.mqtt.subscribeoptions import SubscribeOptions

        self._client.subscribe([(topics.shared(self._tenant, name, self._share), SubscribeOptions(qos=1))
                                for name in self.clerk.names])


def _whose(topic: str) -> tuple[str, str]:
    """Box and name of a topic that a box may say, as far as counting needs them; the broker lets nothing else through."""
    parts = topic.split("/", 3)
    return (parts[2], parts[3]) if len(parts) == 4 else ("", "")


def _at_once(_c: Any, _u: Any, sock: Any) -> None:
    """An acknowledgement does not wait 40 ms for the confirmation of the one before it."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
