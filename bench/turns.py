"""Two pieces of work side by side: whatever disturbs this machine disturbs both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def in_turns(one: Callable[[], None], other: Callable[[], None], *, blocks: int, calls: int) -> tuple[list[float], list[float]]:
    """Median seconds of one call, a block of `calls` each, both taking turns for `blocks`; a first call of each is not counted."""
    spent: tuple[list[float], list[float]] = ([], [])
    for work in (one, other):
        work()
    for block in range(blocks):
        for side in (0, 1) if block % 2 else (1, 0):
            spent[side].append(statistics.median(seconds((one, other)[side]) for _ in range(calls)))
    return spent


def seconds(work: Callable[[], None]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
