"""The line from a box to its cloud on virtual time, and the real collector behind it: batches and answers are lost, and late."""

from __future__ import annotations

import asyncio
from pathlib import Path

from device.mqtt import topics, wire
from device.store_forward.es256 import public_verifier
from device.store_forward.forwarder import Forwarder, Refused
from device.txn import facts
from fleet.keys import SigningKey
from fleet.records.collector import Clerk
from fleet.records.store import Store
from sim.virtual.fate import Fate, WorldClock
from sim.virtual.till import Till

TENANT = "shop"
WAY_S = (.02, 3)


class Cloud:
    """`store` is what the collector has committed."""

    def __init__(self, fate: Fate, clock: WorldClock, folder: Path, jwk: dict[str, str]) -> None:
        key = SigningKey(folder / "ack.pem")
        self.store = Store(folder / "cloud.db", [jwk])
        self._clerk = Clerk(self.store, TENANT, key.kid, key.sign, clock.wall)
        self._fate, self._verifiers = fate, {key.kid: public_verifier(key.jwk)}
        self._till: Till | None = None
        self.forwarder: Forwarder | None = None
        self._timer: asyncio.TimerHandle | None = None

    def meet(self, till: Till) -> None:
        """A box has booted, and its journal has a name."""
        _, upto, head = till.journal.acked()
        self._till = till
        self.forwarder = Forwarder(till.books.chain.jid, upto, head, tokens=self._tokens, seed=till.boots)
        self.forwarder.on_link(True, True, till.now_ms())
        self.forward()

    def forward(self) -> None:
        """Send what is due now; come back when the clock alone makes something due."""
        till, forwarder = self._till, self.forwarder
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if till is None or forwarder is None or not till.alive:
            return
        loop = asyncio.get_running_loop()
        for batch in forwarder.due(till.now_ms()):
            if not self._fate.strikes("cloud", "link"):
                loop.call_later(self._fate.random.uniform(*WAY_S), self._arrive, wire.batch_encoded(batch, "zlib"), till.boots)
        if (due_ms := forwarder.next_due_ms()) is not None:
            self._timer = loop.call_later(max(.05, (due_ms - till.now_ms()) / 1000), self.forward)

    def _tokens(self, after: int, limit: int) -> list[tuple[int, str]]:
        assert self._till is not None
        return self._till.journal.tokens(after, limit, wire.BODY_MAX_BYTES, facts.tokens_of)

    @property
    def upto(self) -> int:
        return self.forwarder.upto if self.forwarder is not None else 0

    def _arrive(self, payload: bytes, boot: int) -> None:
        assert self._till is not None
        loop = asyncio.get_running_loop()
        for _, reply in self._clerk.handle([(topics.of_box(TENANT, self._till.terms.box, "up"), payload)]):
            if not self._fate.strikes("cloud", "link"):
                loop.call_later(self._fate.random.uniform(*WAY_S), self._acked, reply, boot)

    def _acked(self, reply: bytes, boot: int) -> None:
        till, forwarder = self._till, self.forwarder
        assert till is not None and forwarder is not None
        if not till.alive or boot != till.boots:
            return
        ack = wire.ack_decoded(reply, self._verifiers)
        released = forwarder.on_ack(ack, till.now_ms())
        if not isinstance(released, Refused):
            till.journal.ack(ack.jid, released.upto, released.head)
        else:
            assert released.name == "OldAck", released
        self.forward()
