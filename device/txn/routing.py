"""Which of several channels that can take the same wallet gets the next attempt.  Pure: outcomes in, a name out.

The first of the list is the shop's own choice and is kept while it works.  It is left when it clearly fails more often than
another, tried again after a break, and never left for a difference that chance explains.
"""

from __future__ import annotations

import msgspec

KEPT = 200                   # outcomes on the desk, all channels together
WINDOW_MS = 600_000          # older ones say nothing about now
ENOUGH = 5                   # fewer outcomes than this prove nothing
BAD_IN_A_ROW = 3             # but a channel that failed so often in a row is down
WORSE = 0.15                 # how much lower a success rate must be before the route is changed
SLOWER_MS = 4_000            # or how much longer customers must wait at the median
BREAK_MS = 120_000           # a channel that was left gets one attempt again after so long without any


class Outcome(msgspec.Struct, frozen=True):
    """What became of one attempt: `ok` a QR or a definite answer within the time a customer waits, after `ms`."""

    channel: str
    ok: bool
    ms: int
    at_ms: int


def noted(outcomes: tuple[Outcome, ...], outcome: Outcome) -> tuple[Outcome, ...]:
    return (*outcomes[-KEPT + 1:], outcome)


def choose(routes: tuple[str, ...], outcomes: tuple[Outcome, ...], now_ms: int) -> str:
    """The channel for the next attempt: one of `routes`, "" when there is none."""
    if not routes:
        return ""
    recent = {name: [o for o in outcomes if o.channel == name and now_ms - o.at_ms <= WINDOW_MS] for name in routes}
    best = routes[0]
    for name in routes[1:]:
        if _better(recent[name], recent[best]):
            best = name
    if best == routes[0]:
        return best
    last = recent[routes[0]][-1].at_ms
    probing = now_ms - last >= BREAK_MS
    return routes[0] if probing else best


def _better(other: list[Outcome], held: list[Outcome]) -> bool:
    """True when leaving `held` for `other` is more than chance.  A channel nobody tried yet is given the benefit."""
    down = len(held) >= BAD_IN_A_ROW and not any(o.ok for o in held[-BAD_IN_A_ROW:])
    other_down = len(other) >= BAD_IN_A_ROW and not any(o.ok for o in other[-BAD_IN_A_ROW:])
    if down or other_down:
        return down and not other_down
    if len(held) < ENOUGH:
        return False
    ours, theirs = rate(held), rate(other) if other else 1.0
    if ours + WORSE <= theirs:
        return True
    return len(other) >= ENOUGH and ours <= theirs and median_ms(held) >= median_ms(other) + SLOWER_MS


def rate(outcomes: list[Outcome]) -> float:
    return sum(o.ok for o in outcomes) / len(outcomes)


def median_ms(outcomes: list[Outcome]) -> int:
    times = sorted(o.ms for o in outcomes if o.ok)
    return times[len(times) // 2] if times else 0
