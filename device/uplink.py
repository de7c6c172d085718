"""The box's end of the line to the cloud: what leaves, what came back, and which room each message belongs to.

Knows the connection, the forwarder and the keys that the cloud is proven by; refuses to know what a record means and what a
message of another topic says: each has its own taker, named in `takers`.  One thread's: the loop's.
"""

from __future__ import annotations

import asyncio
import collections
import datetime
import logging
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from device import __version__
from device.box import Box
from device.config import Config
from device.mqtt import wire
from device.open_orders import EVERY_MS, OpenOrders
from device.real_clock import RealClock
from device.runner import GROUP_MS
from device.store_forward.forwarder import Forwarder, Refused
from device.store_forward.journal import Journal
from device.trusted import Verifiers, verifiers
from device.txn import facts
from device.txn.inputs import CloudStood, Input, LinkSaid

if TYPE_CHECKING:
    from device.mqtt.client import Link

log = logging.getLogger("tillbox")

CONNECTS_BITS = 20           # connect counter: boots in the high part, so that it rises over restarts
LINK_AFTER_S = 1.0
ACKS_KEPT = 200



class Uplink:
    """The line of one box; silent until `run`.

    `takers`: a topic's name to whoever takes its payload; `ack` is taken here.  `keys` are the cloud's, by kid, filled when the
    line is first wanted.
    """

    def __init__(self, config: Config, journal: Journal, box: Box, clock: RealClock, boot: str) -> None:
        self.config, self.journal, self.box, self.clock, self.boot = config, journal, box, clock, boot
        self.takers: dict[str, Callable[[bytes], None]] = {"ack": self._acknowledged}
        self.keys: Verifiers = {}
        self.command_keys: Verifiers = {}             # another set: no acknowledgement's key commands a box
        self.forwarder: Forwarder | None = None
        self.link: Link | None = None
        batch_ms = config.mqtt.batch_s * 1000
        self.open = OpenOrders(lambda: self.box.books.orders, clock.now_s, max(EVERY_MS, batch_ms))
        self._lag_ms = max(0, batch_ms - GROUP_MS)    # a record has waited so long for the card already
        self._post: Callable[[Input], object] = _nobody
        self._timer: asyncio.TimerHandle | None = None
        self._packing = False        # a batch is about to leave; whoever wants to forward does so behind it
        self._session = ""
        self._before = box.books.chain.base + box.books.chain.seq   # records of earlier boots: the cloud may have had them long ago
        self.on_line: Callable[[bool], None] = lambda up: None        # the line came or went
        self.acks: collections.deque[tuple[int, str]] = collections.deque(maxlen=ACKS_KEPT)     # (record, wall), for a timeline
        self.on_ack: Callable[[int], None] = lambda upto: None        # the cloud said how much it has, and names our own digest
        self.on_chunk: Callable[[str, int, bytes], None] = lambda sha256, n, data: None
        self.standing: Callable[[], str] = str                        # which pushed configuration runs
        self._collector = False
        self._line = ("", 0, 0)      # of the journal id that is sent: its name, the records before it, its last one or 0

    def begin(self, post: Callable[[Input], object]) -> None:
        """The journal has its name now: its records may be forwarded.  `post` takes what the line has to say."""
        self._post = post
        self._next_line()

    def _next_line(self) -> None:
        """The journal id whose records are sent: an older one until the cloud has them or wants them no more, then the next."""
        chain, (jid, upto, head) = self.box.books.chain, self.journal.acked()
        lines = [*((old.jid, old.base, old.seq) for old in chain.older if old.sent), (chain.jid, chain.base, 0)]
        passed = self.forwarder is not None and bool(self.forwarder.halted)
        at = next((k for k, line in enumerate(lines) if line[0] == jid), 0 if not jid else len(lines) - 1)
        while at < len(lines) - 1 and (passed or (lines[at][0] == jid and upto >= lines[at][2]) or not lines[at][2]):
            at, passed = at + 1, False
        self._line = lines[at]
        self.journal.follow(self._line[0], self._line[1])
        _, upto, head = self.journal.acked()
        self.forwarder = Forwarder(self._line[0], upto, head, tokens=self.tokens, seed=secrets.randbits(32), lag_ms=self._lag_ms,
                                   top=self._top)
        if self.link is not None and self.link.up:
            self.forwarder.on_link(True, self._collector, self.clock.now_ms())

    def _line_ended(self) -> bool:
        """True when there is another journal to send from: this one was left, and all of it arrived or may not leave."""
        assert self.forwarder is not None
        chain = self.box.books.chain
        if self._line[0] == chain.jid:
            return False
        left = next((old for old in chain.older if old.jid == self._line[0]), None)
        self._line = (self._line[0], self._line[1], left.seq if left is not None else 0)
        return left is None or not left.sent or bool(self.forwarder.halted) or self.forwarder.upto >= left.seq

    async def run(self) -> None:
        """Connect and come back from every loss, until cancelled."""
        await asyncio.sleep(LINK_AFTER_S)             # its libraries are a third of a start, and the first customer may stand there
        self.link = self._made()
        await self.link.run()

    def greet(self) -> None:
        """Say hello once more on the connection that stands: the cloud answers with an acknowledgement."""
        if self.link is not None and self.link.up:
            self.link.publish("hello", self._hello(self.link.session))

    def renew(self) -> None:
        """Make a new connection."""
        if self.link is not None:
            self.link.renew()

    def publish(self, name: str, payload: bytes) -> bool:
        """Hand a message to the broker; False when the line is down or full, and then nothing was kept."""
        return self.link is not None and self.link.publish(name, payload)

    @property
    def session(self) -> str:
        """The nonce of this connection's hello, "" while the line is down."""
        return self.link.session if self.link is not None and self.link.up else ""

    def forward(self) -> None:
        """Send what is due now; come back when the clock alone makes something due."""
        if self.link is None or self.forwarder is None or self._packing:
            return
        if self._line_ended():
            self._next_line()
            self.greet()                              # both heads are told at once
        found = self.forwarder.due(self.clock.now_ms(), 1)
        if found:                                     # packed in another turn: a customer who stands there waits for neither
            self._packing = True
            asyncio.get_running_loop().call_soon(self._pack, found[0], self.forwarder, self.link.session)
        else:
            self._wait(0.05)

    def _pack(self, batch: wire.Batch, forwarder: Forwarder, session: str) -> None:
        assert self.link is not None
        self._packing = False
        if forwarder is self.forwarder and session == self.link.session:     # else it is forgotten, and comes again by itself
            if not self.link.publish_up(wire.batch_encoded(batch, self.link.enc)):
                forwarder.unsent(batch, self.clock.now_ms())
        self._wait(0.0)

    def _wait(self, pause_s: float) -> None:
        """Say what else is due, and come back when the clock alone makes something due, in `pause_s` at the earliest."""
        assert self.link is not None and self.forwarder is not None
        now_ms = self.clock.now_ms()
        if self.link.up and (told := self.open.due(now_ms)) is not None and self.link.publish("open", told):
            self.open.left(now_ms)
        waits = [ms for ms in (self.forwarder.next_due_ms(), self.open.next_due_ms() if self.link.up else None) if ms is not None]
        self._come_back(max(pause_s, (min(waits) - now_ms) / 1000) if waits else None)

    def _come_back(self, in_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if in_s is None else asyncio.get_running_loop().call_later(in_s, self.forward)

    def hurry(self) -> str:
        """Somebody asks to forward now: end every pause of our own at once.  What is done about it, in one sentence."""
        if self.link is None or self.forwarder is None:
            return "There is no line to a cloud: the configuration names no broker."
        if not self.link.up:
            self.link.hurry()
            return f"The line is down ({self.link.why_down}); it is tried now."
        if self.forwarder.halted:
            return f"Nothing is sent after a {self.forwarder.halted}; see docs/recovery.md."
        held_s = self.forwarder.hurry(self.clock.now_ms())
        self.forward()
        if held_s:
            return f"The cloud asked for quiet for another {held_s} s: records leave then."
        return f"{self.unacked} records wait; what may leave has left." if self.unacked else "Nothing waits."

    def _top(self) -> int:
        """The highest record on the card of the journal id that is sent."""
        _, base, last = self._line
        there = self.journal.durable_mark - base
        return min(there, last) if last else there

    def tokens(self, after: int, limit: int) -> list[tuple[int, str]]:
        """Durable (seq, token) above `after` of the journal id that is sent.  JournalUnreadable when a row cannot be read."""
        _, base, last = self._line
        limit = min(limit, last - after) if last else limit
        try:
            found = self.journal.tokens(base + after, limit, wire.BODY_MAX_BYTES, facts.tokens_of)
            return [(mark - base, token) for mark, token in found]
        except msgspec.DecodeError as why:
            raise self.journal.unreadable(f"a row behind record {after} cannot be read ({why})") from None

    @property
    def trouble(self) -> str:
        """Why the cloud does not take our records, "" when it does or nothing is known."""
        if self.forwarder is None:
            return ""
        return self.forwarder.halted or ("unreadable" if self.forwarder.trouble else "")

    @property
    def unacked(self) -> int:
        """Records that the cloud has not confirmed, those not yet signed included."""
        chain, (_, upto, _) = self.box.books.chain, self.journal.acked()
        return chain.base + chain.seq - self._line[1] - upto + len(self.box.books.due)

    def oldest_s(self) -> int:
        """Age of the oldest record that the cloud has not confirmed, by the wall; 0 when none waits."""
        _, upto, _ = self.journal.acked()
        oldest = self.tokens(upto, 1)
        wall = _at_of(oldest[0][1]) if oldest else (self.box.books.due[0].at.wall if self.box.books.due else "")
        if not wall:
            return 0
        return max(0, int(self.clock.now_s() - datetime.datetime.fromisoformat(wall).timestamp()))

    # One connection --------------------------------------------------------------------------------------------------

    def _made(self) -> Link:
        from device.mqtt.client import Link

        self.keys |= verifiers(self.config.ack_key_file, "acknowledgements", "ack")
        if self.config.command_key_file:
            self.command_keys |= verifiers(self.config.command_key_file, "commands", "command")
        c = self.config.mqtt
        return Link(c.host, c.port, self.config.tenant, self.config.box, on_message=self._came, on_state=self._state,
                    hello=self._hello, connect_from=self.box.books.boots << CONNECTS_BITS,
                    wall=lambda: self.clock.stamp().wall, context=broker_tls(self.config), username=c.user or None,
                    password=c.password or None, keepalive_s=c.keepalive_s, pause_max_ms=30_000)

    def _hello(self, session: str) -> bytes:
        chain = self.box.books.chain
        heads = (*(wire.JournalHead(old.jid, 1, old.seq + 1, old.head if old.seq else "") for old in chain.older),
                 wire.JournalHead(chain.jid, self.journal.first_seq, chain.seq + 1, chain.prev if chain.seq else ""))
        return wire.encoded(wire.Hello(heads, session, self.standing(), __version__, self.boot, self.clock.stamp().clk,
                                       free_bytes=_free(self.config.state_dir), oldest_unacked_s=self.oldest_s()))

    def _state(self, up: bool, collector: bool) -> None:
        assert self.forwarder is not None
        self._post(LinkSaid(up, collector))
        if up and self.link is not None and self.link.session != self._session:
            self._session = self.link.session
            self.open.connected()
        self.on_line(up)
        self._collector = collector
        self.forwarder.on_link(up, collector, self.clock.now_ms())
        self.forward()

    def _came(self, name: str, payload: bytes) -> None:
        if name.startswith("blob/"):
            _, sha256, n = name.split("/")
            self.on_chunk(sha256, int(n), payload)
            return
        taker = self.takers.get(name)
        if taker is None:
            log.warning("a message on %s is not understood by this release", name)
        else:
            taker(payload)

    def _acknowledged(self, payload: bytes) -> None:
        assert self.forwarder is not None
        try:
            ack = wire.ack_decoded(payload, self.keys)
        except wire.WireError as why:
            log.warning("an acknowledgement was refused: %s", why.sentence)
            return
        sent_ms = self.forwarder.sent_ms(ack.upto) if self._line[1] + ack.upto > self._before else None
        released = self.forwarder.on_ack(ack, self.clock.now_ms())
        self._stood(ack)
        if isinstance(released, Refused):
            log.debug("ack: %s", released)
            self._come_back(0.0)
            return
        if self.journal.ack(ack.jid, released.upto, released.head):
            self.acks.append((released.upto, self.clock.stamp().wall))
            self.clock.acknowledged(ack.at, sent_ms)  # it released something that we sent: no replay of an older one
        if ack.verdict == "ok":
            self.on_ack(released.upto)
        self._come_back(0.0)

    def _stood(self, ack: wire.Ack) -> None:
        """Tell the core where the cloud stands, where that changes what may be sold or under which name."""
        assert self.forwarder is not None
        chain, halted = self.box.books.chain, self.forwarder.halted
        if halted and ack.jid == chain.jid == self.forwarder.jid:
            log.error("the cloud says %s of journal %s: %s", halted, ack.jid, ack.why)
            self._post(CloudStood(ack.jid, halted, secrets.token_urlsafe(16), ack.why[:200], ack.upto, ack.head))
        elif self.box.books.wallets_stopped and ack.verdict != "unreadable":
            self._post(CloudStood(ack.jid, ack.verdict, secrets.token_urlsafe(16), ack.why[:200], ack.upto, ack.head))


def broker_tls(config: Config) -> Any:
    """What the line to the broker is proven by, None for a plain one."""
    c = config.mqtt
    return tls_of(c.key_file, c.cert_file, c.ca_file) if c.ca_file else None


def tls_of(key_file: Path | str, cert_file: Path | str, ca_file: Path | str) -> Any:
    """A TLS 1.3 context that believes one CA, and shows a certificate where there is one."""
    import ssl
    context = ssl.create_default_context(cafile=str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if cert_file:
        context.load_cert_chain(cert_file, key_file)
    return context


def _nobody(_: Input) -> None:
    raise AssertionError("the line speaks before anybody listens")


def _free(folder: str) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def _at_of(token: str) -> str:
    from device.store_forward.token import parse
    return parse(token).payload.at
