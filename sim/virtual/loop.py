"""An event loop on virtual time: its clock jumps to whatever is due next, so that hours of waiting cost nothing.

Knows asyncio's own queue and timers.  Refuses sockets and threads: what a driver would give to a thread is done at once, in its
place.  Nothing but the program's own order decides what runs next, so a run is the same every time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class VirtualLoop(asyncio.BaseEventLoop):
    """`time()` begins at 0 and rises only when nothing can run."""

    def __init__(self) -> None:
        super().__init__()
        self._selector: Any = self                    # what the loop would ask for ready sockets: nobody is ever ready
        self._clock_resolution = 1e-6                 # a sum of many waits is off by less
        self._now_s = 0.0

    def time(self) -> float:
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Nothing can run for `timeout` seconds: so they have passed."""
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        self._now_s += timeout
        return []

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:      # type: ignore[override]
        """As the real one, but in this very thread, before it returns."""
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as why:                      # noqa: BLE001  a thread's fault is its caller's to see, whatever it is
            done.set_exception(why)
        return done

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody outside could wake it."""
