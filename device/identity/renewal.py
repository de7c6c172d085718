"""A fresh certificate for the line, at two thirds of the life of the one before, under a fresh key.

The key and its request are on the card before they are asked for over the line that stands, so that a lost answer costs nothing.
What comes back is first tried on a connection of its own; only when that stands does it replace the old one, which until then is on
the card and may be gone back to at any moment.  Knows the folder, the question and when it is due; refuses to know MQTT.

When it is due is judged under a clock that somebody vouches for, and under no other: a box that thinks it is 2036 would ask its
cloud in vain, one that thinks it is 2020 never.  The first acknowledgement of a boot proves the clock, and without a line there is
nothing to renew over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from device.drivers import private_file
from device.errors import Outside
from device.identity import folder as identity
from device.mqtt import ask_wire, csr_wire
from device.store_forward.token import b64
from device.types import Stamp

log = logging.getLogger("tillbox")

START_AFTER_S = 20.0                     # of a start: its libraries are not the first customer's to wait for
TICK_S, LOOK_S = 2.0, 60.0               # while a connection is tried; otherwise
TRIAL_S, TRIALS_MAX = 60.0, 3             # the broker itself may be away just then
AGAIN_S = 3600.0                         # after a refusal, no answer, or a certificate that the broker did not take
SPREAD_S = 12 * 3600                     # boxes enrolled on one day do not all ask in one minute
TRUSTED = frozenset({"ntp", "rtc", "anchored"})


class Line(Protocol):
    """What of `device.mqtt.client.Link` a renewal uses."""

    up: bool
    session: str

    def use(self, context: Any) -> None: ...


class Renewal:
    """Of the identity in `folder`.  `ask` puts one question; `line()` the line, None before there is one; `tls(key, cert, ca)` a
    context for a connection.  `stamp()` tells the time and its quality, `mono_s()` what no clock changes.
    """

    def __init__(self, folder: str | Path, box: str, *, ask: Callable[[ask_wire.Ask], Awaitable[ask_wire.Answer]],
                 line: Callable[[], Line | None], stamp: Callable[[], Stamp], now_s: Callable[[], float],
                 mono_s: Callable[[], float], tls: Callable[[Path, Path, Path], Any]) -> None:
        self._folder, self._waiting, self._box = Path(folder), Path(f"{folder}.renewal"), box
        self._ask, self._line, self._stamp, self._now_s, self._mono_s, self._tls = ask, line, stamp, now_s, mono_s, tls
        self._due_s: float | None = None             # when to ask, by the wall
        self._rests_until_s = 0.0                    # by the monotonic clock
        self._failed = 0                             # trials of the certificate that waits
        self._trial: tuple[float, str] | None = None         # since when, and the session of the connection before
        self.state = "idle"                          # idle, waits (for a trusted clock), trial, back

    async def run(self) -> None:
        """Look now and then, until cancelled."""
        await asyncio.sleep(START_AFTER_S)
        while True:
            try:
                await self.step()
            except (Outside, OSError, ValueError) as why:
                log.error("the certificate of the line is not renewed: %s", why)
                self._rests_until_s = self._mono_s() + AGAIN_S
            await asyncio.sleep(TICK_S if self._trial is not None else LOOK_S)

    async def step(self) -> None:
        """Do what is due now.  Outside, OSError, ValueError when the card or what came back is not as it must be."""
        line = self._line()
        if self._trial is not None:
            if line is not None:
                await self._tried(line, *self._trial)
            return
        if line is None or not line.up or self._mono_s() < self._rests_until_s:
            return
        held = await asyncio.to_thread(self._held)
        if "tls.pem" in held:                        # of this boot or of one before it: not proven yet
            await self._try(line)
            return
        if self._due_s is None:
            self._due_s = await asyncio.to_thread(self._due)
        trusted = self._stamp().clk in TRUSTED
        if self._now_s() < self._due_s or not trusted:
            self.state = "idle" if trusted else "waits"
            return
        await self._get(held or await asyncio.to_thread(self._begun))

    async def _get(self, held: dict[str, bytes]) -> None:
        csr = held["request"].decode()
        answer = await self._ask(ask_wire.Ask(self._box, secrets.token_hex(16), "renew", csr=csr))
        if not answer.chain:
            self._rest(f"the cloud gives none: {answer.why}")
            return
        fault = await asyncio.to_thread(self._fault, held["tls.key"], answer.chain.encode())
        if fault:
            self._drop()
            self._rest(f"what the cloud gave cannot be used: {fault}")
            return
        await asyncio.to_thread(private_file.make, self._waiting / "tls.pem", answer.chain.encode())
        line = self._line()
        if line is not None and line.up:
            await self._try(line)

    async def _try(self, line: Line) -> None:
        context = await asyncio.to_thread(self._tls, self._waiting / "tls.key", self._waiting / "tls.pem", self._folder / "ca.pem")
        log.info("a fresh certificate of the line is tried")
        self._trial, self.state = (self._mono_s(), line.session), "trial"
        line.use(context)

    async def _tried(self, line: Line, since_s: float, before: str) -> None:
        if line.up and line.session != before:
            if self.state == "trial":
                held = self._held()
                await asyncio.to_thread(identity.changed, self._folder, {name: held[name] for name in ("tls.key", "tls.pem")})
                log.info("the certificate of the line is renewed")
                self._due_s = None
            else:                                    # the old one stands, so it was the fresh one that failed, not the broker
                self._failed += 1
                self._rest(f"no connection with the fresh one, {self._failed} of {TRIALS_MAX} tries; the old one stands")
            if self.state == "trial" or self._failed >= TRIALS_MAX:
                self._drop()
                self._failed = 0
            self._trial, self.state = None, "idle"
        elif self.state == "trial" and self._mono_s() - since_s > TRIAL_S:
            log.warning("no connection with the fresh certificate within %d s: the old one is tried", TRIAL_S)
            self._trial, self.state = (self._mono_s(), line.session or before), "back"
            line.use(await asyncio.to_thread(self._tls, *(self._folder / name for name in ("tls.key", "tls.pem", "ca.pem"))))

    def _rest(self, why: str) -> None:
        log.warning("the certificate of the line is not renewed: %s", why)
        self._rests_until_s = self._mono_s() + AGAIN_S

    # The card ----------------------------------------------------------------------------------------------------------

    def _due(self) -> float:
        span = identity.span_of((self._folder / "tls.pem").read_bytes())
        spread_s = int.from_bytes(self._box.encode()[-4:], "big") * 2654435761 % 2**32 / 2**32 * SPREAD_S
        return span.renew_at.timestamp() + spread_s

    def _held(self) -> dict[str, bytes]:
        """What waits: key and request, and the certificate once it came; nothing when nothing does."""
        held = {name: private_file.read(self._waiting / name, 32 * 1024, which="identity")
                for name in ("tls.key", "request", "tls.pem")}
        found = {name: raw for name, raw in held.items() if raw is not None}
        return found if {"tls.key", "request"} <= set(found) else {}

    def _begun(self) -> dict[str, bytes]:
        """A fresh key and its request, on the card."""
        from device.identity.enrol import Key

        key = Key.fresh()
        held = {"tls.key": key.pem, "request": b64(csr_wire.request(self._box, key.jwk, key.signature)).encode()}
        draft = self._waiting.with_name(self._waiting.name + ".new")
        _gone(draft)
        self._drop()
        identity.write_folder(draft, held)
        os.rename(draft, self._waiting)
        private_file.sync_folder(self._waiting.parent)
        return held

    def _fault(self, tls_key: bytes, chain: bytes) -> str:
        from device.identity.enrol import Key, chain_fault

        cloud = identity.cloud_of(self._folder)
        assert cloud is not None, "a box without an identity renews nothing"
        ca = (self._folder / "ca.pem").read_bytes()
        return chain_fault(chain, ca, Key(tls_key).jwk, f"{cloud.tenant}/{cloud.box}")

    def _drop(self) -> None:
        _gone(self._waiting)


def _gone(folder: Path) -> None:
    import shutil  # brings every archive library along: not for a start

    shutil.rmtree(folder, ignore_errors=True)
