"""The card terminal of a simulated shop: the box's real driver on a cable of virtual time, the terminal's model at its other end.

Knows what a bad cable, a dead terminal and a bank that cannot be reached are.  Refuses to know frames but for whom they are about.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from device.drivers.channels import card_frame_bytes as frame
from device.drivers.channels.card import CardTerminal
from device.txn.inputs import Input
from device.types import Account
from sim.devices.terminal import FAULTS, LINE_ONLY, TerminalModel
from sim.virtual.channels import Channel, Heard

TERMINAL_ID, SECRET = "T1", b"0123456789abcdef0123456789abcdef"
DIRECT = tuple(kind for kind in FAULTS if kind not in LINE_ONLY)
BANK = {"bank_offline": "offline", "bank_mute": "mute"}
BANK_S, DEAD_S, BATCH_S = (5, 90), (2, 40), (20, 120)
WAY_S = (.005, .02, .1)        # of bytes on the cable


class Card(Channel):
    """One terminal, sealed by a secret.  Its holder is at `scan`."""

    name, key = "card", "5"

    def served(self, seed: int) -> TerminalModel:
        model = TerminalModel(self.clock.ms, terminal_id=TERMINAL_ID, secret=SECRET)
        self._timer: asyncio.TimerHandle | None = None
        self.fate.known(self.name, (*FAULTS, *BANK, "batch_closed", "told_twice", "other_amount"))
        return model

    def account(self) -> Account:
        return Account("card", "main", (("terminal_id", TERMINAL_ID),))

    def made(self, post: Callable[[float, Input], None]) -> Heard:
        async def opened() -> Cable:
            return Cable(self)
        return Heard(self, CardTerminal(opened, account="main", terminal_id=TERMINAL_ID, secret=SECRET,
                                         ident=lambda: f"{self.fate.random.getrandbits(32):08x}"), post)

    def scan(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        """The holder acts at the terminal."""
        model: TerminalModel = self.server
        asking = model.asking
        no = asking.order_no if asking is not None else ""
        for kind in LINE_ONLY:
            if no and self.fate.strikes(self.name, kind, no):
                model.fault(kind, call="news")
        for kind, host in BANK.items():
            if no and self.fate.strikes(self.name, kind, no):
                self._bank(host)
        if no and self.fate.strikes(self.name, "batch_closed", no):
            model.closed_batch = True
            self._later(BATCH_S, self._open_batch)
        ok = model.tap(outcome, slow_s=slow_s)
        self.soon()
        return {"ok": ok, "why": "" if ok else "the terminal asks nobody", "order_no": no}

    def calm(self) -> None:
        self.server.clear()
        self.server.closed_batch = False
        self._bank_back()
        self._on()

    # Its faults

    def hears(self, data: bytes) -> None:
        """Bytes of the box arrive."""
        model: TerminalModel = self.server
        for heard in frame.Frames().feed(data):
            said = frame.read(heard.body, [], SECRET) if heard.kind == "frame" else None
            if said is not None:
                no = said.parts.get("NO", "")
                kind = self.fate.choose(self.name, said.call, (k for k in DIRECT if matters(k, said.call)), no)
                if kind:
                    model.fault(kind, call=said.call)
        powered = model.powered
        model.receive(data)
        if powered and not model.powered:
            self._later(DEAD_S, self._on)
        self.soon()

    def _bank(self, host: str) -> None:
        self.server.host, self.server.settles = host, self.fate.random.choice(("approved", "voided"))
        self._later(BANK_S, self._bank_back)

    def _bank_back(self) -> None:
        self.server.host = "online"
        self.server.tick()
        self.soon()

    def _open_batch(self) -> None:
        self.server.closed_batch = False

    def _on(self) -> None:
        self.server.power(True)
        self.soon()

    def _later(self, span_s: tuple[float, float], what: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(self.fate.random.uniform(*span_s), what)

    # Its time

    def soon(self) -> None:
        """Come back when the terminal has something to do by itself."""
        if self._timer is not None:
            self._timer.cancel()
        due_ms = self.server.next_ms()
        if due_ms is not None:
            wait_s = max(0, due_ms - self.clock.ms()) / 1000 + .001
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self.server.tick()
        self.soon()


def matters(kind: str, call: str) -> bool:
    """Whether `kind` changes anything about `call`: a hello names no order and no amount."""
    return call != "HL" or kind not in ("wrong_order", "wrong_amount", "unmasked")


class Cable:
    """The box's end of the cable, for one boot; the newest one is heard."""

    def __init__(self, card: Card) -> None:
        self._card, self._came, self._loop = card, asyncio.Queue[bytes](), asyncio.get_running_loop()
        self._said_s = self._sent_s = 0.0
        card.server.say = self._says

    async def read(self, quiet_ms: int | None = None) -> bytes | None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(quiet_ms and quiet_ms / 1000):
                return await self._came.get()
        return None

    def write(self, data: bytes) -> None:
        self._sent_s = self._after(self._sent_s)
        self._loop.call_at(self._sent_s, self._card.hears, data)

    def _says(self, data: bytes) -> None:
        self._said_s = self._after(self._said_s)
        self._loop.call_at(self._said_s, self._came.put_nowait, data)

    def _after(self, last_s: float) -> float:
        """When bytes arrive: a while later, and behind those that went before."""
        return max(last_s + 1e-4, self._loop.time() + self._card.fate.random.choice(WAY_S))

    def close(self) -> None:
        self._came.put_nowait(b"")
