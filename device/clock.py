"""The clock as a protocol, so that tests and worlds move it by hand."""

from __future__ import annotations

from typing import Protocol

from device.types import Stamp


class WallClock(Protocol):
    """The wall as channels need it: what time to sign with, and a place to say what time they have."""

    def now_s(self) -> float:
        """Unix time."""
        ...

    def dated(self, at_s: float) -> None:
        """A reply that came over TLS says that it is `at_s`, Unix time in whole seconds."""
        ...


class Clock(Protocol):
    """Monotonic milliseconds for every interval; the wall only as a labelled stamp."""

    def now_ms(self) -> int: ...

    def stamp(self) -> Stamp: ...
