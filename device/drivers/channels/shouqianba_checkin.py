"""Shouqianba's key of the day: fetched before the first call of a Beijing day, on disk before its first use.

Knows the key's file and when a key is due.  The old key dies the moment a new one is made.  An answer that was lost may be
asked for once more with the old key, and never a third time: so the second try waits until the line has answered
anything at all.  No fact of the core comes of it.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from typing import Any

from device.drivers.channels import shouqianba_bytes as wire
from device.drivers.channels.codec_bytes import Reply, Request, Verdict
from device.drivers.channels.https import HttpsChannel, NoAnswer
from device.drivers.channels.shouqianba import ShouqianbaCodec
from device.drivers.channels.terminal_bytes import Held, held_text
from device.drivers.private_file import KeyFile, unkept
from device.errors import Outside
from device.txn.effects import ChargeCode, Effect
from device.txn.inputs import Input

BEIJING = datetime.timezone(datetime.timedelta(hours=8))
AGAIN_S = 60                   # until a check-in that failed is tried again
LOOK_S = 3_600                 # the wall clock may be set meanwhile
CHARGE_WAITS_S = 20            # a payer's code lives a minute: later it is refused, not charged behind the cashier's back
IDLE_S_MAX = 10                # a check-in waits so long for calls under way, whose key it would kill


class ShouqianbaChannel(HttpsChannel):
    """As HttpsChannel, for one terminal; `held` is what `key_file` holds, its newest key the codec's.

    `now_s` Unix time.  A key that cannot be kept is said on `inputs()` as `key`, until one can.
    """

    _codec: ShouqianbaCodec

    def __init__(self, codec: ShouqianbaCodec, *, terminal_id: str, key_file: KeyFile, held: Held, now_s: Callable[[], float],
                 **line: Any) -> None:
        super().__init__(codec, **line)
        self._terminal, self._key_file, self._held, self._now_s = terminal_id, key_file, held, now_s
        self._idle, self._under_way = asyncio.Event(), 0
        self._again_s = self._doubt_s = 0.0                # of the loop's clock: no check-in before, and none for a doubt
        self._lost = bool(held.notes.get("asked"))         # an answer is missing: Shouqianba may hold a key that we do not
        self._check: asyncio.Task[None] | None = None

    async def inputs(self) -> AsyncIterator[Input]:
        """As HttpsChannel; the day's check-in is made while this is read, so that no customer waits for it."""
        keeping = asyncio.create_task(self._keeping(), name="gateway check-in")
        try:
            async for said in super().inputs():
                yield said
        finally:
            keeping.cancel()

    async def ask(self, effect: Effect) -> Verdict:
        """As HttpsChannel.ask, after the day's check-in where that is still due; without one the old key is tried."""
        began_s = asyncio.get_running_loop().time()
        await self._ready()
        if isinstance(effect, ChargeCode) and asyncio.get_running_loop().time() - began_s > CHARGE_WAITS_S:
            return Verdict("refused", detail="not charged: the gateway gave no key of today in time")
        self._under_way += 1
        try:
            return await super().ask(effect)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def close(self) -> None:
        """As HttpsChannel; a check-in under way ends with its line."""
        await super().close()
        if self._check is not None:
            await asyncio.wait({self._check})

    async def _keeping(self) -> None:
        while True:
            await self._ready()
            now = datetime.datetime.fromtimestamp(self._now_s(), BEIJING)
            midnight = datetime.datetime.combine(now.date() + datetime.timedelta(days=1), datetime.time(0, 0, 2), BEIJING)
            left_s = AGAIN_S if self._stale() else (midnight - now).total_seconds()
            await asyncio.sleep(min(left_s, LOOK_S))

    async def _ready(self) -> None:
        """The day's check-in, when it is due.  Whoever waits here may be cancelled; a check-in may not: its answer is a key."""
        if self._check is None or self._check.done():
            if not self._due():
                return
            self._check = asyncio.create_task(self._check_in_when_due(), name="gateway check-in under way")
        await asyncio.shield(self._check)

    def _today(self) -> str:
        return day_of(self._now_s())

    def _stale(self) -> bool:
        return self._held.notes.get("day") != self._today()

    def _due(self) -> bool:
        now_s = asyncio.get_running_loop().time()
        if self._stale():
            return now_s >= self._again_s
        return self._codec.doubted and now_s >= max(self._again_s, self._doubt_s)

    async def _check_in_when_due(self) -> None:
        if self._due() and await self._quiet():
            now_s = asyncio.get_running_loop().time()
            self._doubt_s = now_s + AGAIN_S
            if not await self._check_in():
                self._again_s = now_s + AGAIN_S

    async def _quiet(self) -> bool:
        """No call is under way: its signature would not outlive a check-in."""
        if self._under_way:
            self._idle.clear()
            try:
                await asyncio.wait_for(self._idle.wait(), IDLE_S_MAX)
            except TimeoutError:
                return False
        return True

    async def _check_in(self) -> bool:
        try:                                               # a card that takes nothing shows it here, before a key is spent
            asking = Held(self._held.newest, self._held.older, self._held.notes | {"asked": "yes"})
            await asyncio.to_thread(self._key_file.write, held_text(asking))
        except (OSError, Outside) as why:
            self.health.stand("key", f"the key file cannot be written, so no key of today is fetched ({unkept(why)})")
            return False
        if self._lost and await self._asked(self._probe()) is None:
            return False
        for used in dict.fromkeys(key for key in (self._held.newest, self._held.older) if key):
            body = {"terminal_sn": self._terminal, "device_id": self._held.notes.get("device") or self._terminal}
            reply = await self._asked(wire.sealed("/terminal/checkin", body, self._terminal, used))
            if reply is None:
                self._lost = True
                return False
            fresh = wire.key_in(reply, self._terminal)
            if not isinstance(fresh, str):
                await self._keep(fresh[1], used)
                return True
            if "ILLEGAL_SIGN" not in fresh:
                self.health.set("lying", f"the daily check-in: {fresh}")
                return False
        self.health.set("key", "Shouqianba knows none of this box's keys any more: activate it with a fresh code")
        return False

    async def _keep(self, fresh: bytes, used: bytes) -> None:
        self._held = Held(fresh, used, self._held.notes | {"day": self._today(), "asked": ""})
        try:
            await asyncio.to_thread(self._key_file.write, held_text(self._held))
            self.health.stand()
        except (OSError, Outside) as why:                  # the old key is dead already: this one sells until the box is off
            self.health.stand("key", f"today's key cannot be written: do not switch this box off ({unkept(why)})")
        self._codec.use(fresh)
        self._lost = False
        self.health.set("ok", "")

    def _probe(self) -> Request:
        """A question that moves nothing: its answer, whichever, shows that the line is alive."""
        return wire.sealed("/upay/v2/query", {"terminal_sn": self._terminal, "client_sn": "0"}, self._terminal, self._codec.key)

    async def _asked(self, request: Request) -> Reply | None:
        try:
            return await self._lines.ask(request)
        except NoAnswer as silence:
            self.health.set(silence.health, silence.why)
            return None


def day_of(at_s: float) -> str:
    """The Beijing day of Unix time `at_s`, for which a key is good."""
    return datetime.datetime.fromtimestamp(at_s, BEIJING).date().isoformat()
