"""The card terminal's driver on a line without a cable, for tests: the model hears at once, and the clock is moved by hand."""

from __future__ import annotations

import asyncio
import contextlib

from device.drivers.channels.card import CardTerminal
from device.txn.effects import ChargeCard, Intent
from device.txn.inputs import ChannelSaid, DeviceSaid
from device.types import Account
from sim.devices.terminal import TerminalModel

SHOP = Account("card", "main", (("terminal_id", "T1"),))
TEA = Intent("0000012345000000010Z", "card", SHOP, 900, "奶茶 x1", "2026-11-18T10:26:40+08:00", "2026-11-18T10:31:40+08:00",
             way="card")


class Wire:
    """A line without a cable: the box's bytes are the model's at once, and the other way round."""

    def __init__(self, model: TerminalModel) -> None:
        self._model, self._in = model, asyncio.Queue[bytes]()
        self.written: list[bytes] = []
        model.say = self._in.put_nowait

    async def read(self, quiet_ms=None):
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self._in.get(), quiet_ms and 0.02)
        return None

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self._model.receive(data)

    def close(self) -> None:
        self._in.put_nowait(b"")


async def settled() -> None:
    """Whatever can go on without a clock has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Till:
    """One terminal, one driver on a line to it, what it said unasked; the clock is moved by hand."""

    def __init__(self, *, secret: bytes = b"", terminal_id: str = "T1") -> None:
        self.now_ms = 0
        self.model = TerminalModel(lambda: self.now_ms, terminal_id=terminal_id, secret=secret)
        self.wire: Wire | None = None
        self.heard: list = []
        self.driver = CardTerminal(self._opened, account="main", terminal_id="T1", secret=secret, ack_s=0.02, reply_s=0.04)

    async def _opened(self) -> Wire:
        self.wire = Wire(self.model)
        return self.wire

    async def __aenter__(self):
        self._listening = asyncio.create_task(self._listen())
        await settled()                                # the first hello
        self.model.heard.clear()
        return self

    async def __aexit__(self, *_) -> None:
        await self.driver.close()
        await self._listening

    async def _listen(self) -> None:
        async for event in self.driver.inputs():
            self.heard.append(event)

    async def said(self, effect):
        said = await self.driver.do(effect)
        await settled()
        return said

    async def paid(self) -> None:
        await self.said(ChargeCard(TEA))
        assert self.model.tap("pay")
        await settled()

    def words(self) -> list:
        return [(e.said, e.amount_fen, e.payer) for e in self.heard if isinstance(e, ChannelSaid)]

    @property
    def health(self) -> str:
        return [e.word for e in self.heard if isinstance(e, DeviceSaid)][-1]

    def sales(self) -> int:
        return sum(m.call == "SA" for m in self.model.heard)
