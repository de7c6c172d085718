"""A rollout's next step: rings of boxes, and a gate that stops by itself.  Pure: counts in, a word out.

Knows shares and ages; refuses to know which boxes and how they are told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

Share = Annotated[int, msgspec.Meta(ge=0, le=1000)]


class Gate(msgspec.Struct, frozen=True):
    """`limit` of 1,000 released boxes may fail or stay silent, `enough` must run the new one; the next ring comes `soak_s` after
    the last one at the soonest; a box that was there and says nothing for `silent_s` after its release is silent."""

    limit: Share = 50
    enough: Share = 900
    soak_s: int = 600
    silent_s: int = 3_600


class Tally(msgspec.Struct):
    """Released boxes by what they say of their document."""

    boxes: int = 0
    active: int = 0
    failed: int = 0                      # rolled_back, refused, deferred
    silent: int = 0
    waiting: int = 0                     # staged, on trial, or not yet due to speak
    away: int = 0                        # off before it was released: they say nothing for or against it, and are none of `boxes`

    def count(self, state: str, quiet_s: int, gate: Gate, *, away: bool = False) -> None:
        """Add one box: `state` of its report on this very document, "" when it has not said a word of it for `quiet_s`."""
        if away and not state:
            self.away += 1
            return
        self.boxes += 1
        if state == "active":
            self.active += 1
        elif state in ("rolled_back", "refused", "deferred"):
            self.failed += 1
        elif not state and quiet_s >= gate.silent_s:
            self.silent += 1
        else:
            self.waiting += 1


def verdict(tally: Tally, gate: Gate, ring_age_s: int, *, last: bool) -> tuple[Literal["wait", "next", "done", "stop"], str]:
    """What follows, and one sentence why."""
    bad = tally.failed + tally.silent
    said = f"{tally.active} of {tally.boxes} run it, {tally.failed} failed, {tally.silent} are silent, {tally.away} away"
    if not tally.boxes:
        return "wait", f"all {tally.away} were off before it was released"
    if bad * 1000 > gate.limit * tally.boxes:
        return "stop", f"{said}: more than {gate.limit / 10:g} %"
    if tally.active * 1000 < gate.enough * tally.boxes:
        return "wait", f"{said}; {gate.enough / 10:g} % are waited for"
    if last:
        return "done", said
    if ring_age_s < gate.soak_s:
        return "wait", f"{said}; it is watched for another {gate.soak_s - ring_age_s} s"
    return "next", said


def rings_of(boxes: Sequence[str], percents: Sequence[int], salt: str) -> list[list[str]]:
    """`boxes` in rings up to each of `percents` (rising, the last 100), in an order that `salt` decides; no ring is empty."""
    if not percents or list(percents) != sorted(set(percents)) or percents[0] < 1 or percents[-1] != 100:
        raise ValueError("rings are percents that rise and end with 100, such as 1,10,100")
    drawn = sorted(boxes, key=lambda box: hashlib.sha256(f"{salt} {box}".encode()).digest())
    ends = [min(len(drawn), -(-len(drawn) * percent // 100)) for percent in percents]
    return [ring for start, end in zip([0, *ends], ends, strict=False) if (ring := drawn[start:end])]
