"""The clock as a protocol, so that tests and worlds move it by hand."""

from __future__ import annotations

from typing import Protocol

from device.types import Stamp


class Clock(Protocol):
    """Monotonic milliseconds for every interval; the wall only as a labelled stamp."""

    def now_ms(self) -> int: ...

    def stamp(self) -> Stamp: ...
