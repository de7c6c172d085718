"""The one interface of all outside things.  A payment channel is a driver too: slow, rude and sometimes gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from device.txn.effects import Effect
from device.txn.inputs import Input
from device.txn.screen import Screen


class Driver(Protocol):
    """One outside thing.

    `does` names the effects it carries out, empty for a scanner; `at_once` how many of them side by side.  `do` of a
    numbered or once effect is never cancelled, only timed out as unsure.
    """

    does: frozenset[type[Effect]]
    at_once: int

    def inputs(self) -> AsyncIterator[Input]:
        """What it says unasked.  Ends when it is unplugged; the runner opens it again."""
        ...

    async def do(self, effect: Effect) -> Input:
        """Carry out one effect and give its one answer.  Raises DriverGone (nothing left the box) or DriverBusy."""
        ...

    async def close(self) -> None:
        """Let go of files and sockets."""
        ...


class Display(Protocol):
    """Shows the newest screen to the customer; skips frames that nobody saw.

    A QR that was shown goes with the attempt it belongs to: what `show` returns from stands on the glass, or the glass is gone.
    """

    async def show(self, screen: Screen, now_ms: int) -> None:
        """Show `screen` as of monotonic `now_ms`.  Raises DriverGone; the next call looks for the device again."""
        ...

    def again_s(self, screen: Screen) -> float | None:
        """Seconds until `show` wants to be called again though nothing changed; None: not before the screen is another."""
        ...

    def pictures(self, paths: tuple[str, ...]) -> None:
        """Show the pictures at `paths` while nobody is served, where there is room for pictures."""
        ...

    def wipe(self) -> None:
        """Take off the glass whatever another life of the daemon left there; quick, silent, and never an error."""
        ...

    async def close(self) -> None:
        """Let go of the device; a later `show` does nothing."""
        ...


class Signer(Driver, Protocol):
    """The record key, wherever it lies.  Whoever makes one names the journal's `kid`: KeyMissing when that key is not there."""

    @property
    def kid(self) -> str:
        """Thumbprint of the public key, as it stands in every header."""
        ...

    @property
    def jwk(self) -> dict[str, str]:
        """The public half, with its `kid`.  Outside when the key cannot be reached."""
        ...

    def sign(self, payload: bytes) -> str:
        """The token of `payload`.  Outside when the key cannot be reached."""
        ...

    def signature(self, to_sign: bytes) -> bytes:
        """64 raw bytes over the signing input of any token of this box.  Outside likewise."""
        ...
