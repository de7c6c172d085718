"""The faults of a counter: which are on, and which end by themselves.

Knows switches as functions and how long they stay; refuses to know what a switch does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from sim.counter.calls import Refusal

Switch = Callable[[bool, float | None], None]
"""(on, the seconds it stays on or None)."""


class Faults:
    """`switches` by fault; `channels` by channel, for the faults that a channel has alone: (kind, on)."""

    def __init__(self, switches: Mapping[str, Switch], channels: Mapping[str, Callable[[str, bool], None]]) -> None:
        self._switches, self._channels = switches, channels
        self._on: set[tuple[str, str]] = set()       # (kind, channel or "")
        self._timers: dict[tuple[str, str], threading.Timer] = {}
        self._lock = threading.RLock()

    def switch(self, kind: str, on: bool, channel: str | None, seconds: float | None) -> None:
        """Switch a fault, at every channel where a fault of channels names none; with `seconds` it ends by itself."""
        if kind in self._switches:
            return self._one((kind, ""), on, seconds)
        if channel is not None and channel not in self._channels:
            raise Refusal(f"This counter has no channel {channel}: it has {' '.join(self._channels)}.", 409)
        for name in self._channels if channel is None else (channel,):
            self._one((kind, name), on, seconds)

    def shown(self) -> dict[str, Any]:
        """What is on: a fault of channels names them, any other is true."""
        with self._lock:
            return {kind: sorted(name for k, name in self._on if k == kind) if channel else True for kind, channel in self._on}

    def stop(self) -> None:
        """No fault ends by itself any more."""
        with self._lock:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _one(self, which: tuple[str, str], on: bool, seconds: float | None) -> None:
        with self._lock:
            timer = self._timers.pop(which, None)
            if timer is not None:
                timer.cancel()
            (self._on.add if on else self._on.discard)(which)
            self._do(which, on, seconds)
            if on and seconds is not None:
                timer = threading.Timer(seconds, self._over, (which,))
                timer.daemon = True
                self._timers[which] = timer
                timer.start()

    def _over(self, which: tuple[str, str]) -> None:
        with self._lock:
            if self._timers.pop(which, None) is not None:
                self._on.discard(which)
                self._do(which, False, None)

    def _do(self, which: tuple[str, str], on: bool, seconds: float | None) -> None:
        kind, channel = which
        if channel:
            self._channels[channel](kind, on)
        else:
            self._switches[kind](on, seconds)
