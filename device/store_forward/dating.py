"""When records really happened: the best time of each and how wrong it can be, from the `clock` records of its chain.

Pure: payloads in, dates out.  A record's own `at` is a claim of a clock that may have stood at 1970; `boot` and `mono_ms` are not.
An anchor dates every moment of its boot, before and after it, for the monotonic clock ran through.  A boot without one lies between
what came before it and what came after it in the chain: its records are dated by that gap.  What is left has no date.
"""

from __future__ import annotations

import bisect
import datetime
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from device.anchors import drift_ms
from device.store_forward.token import Payload

# What a clock without an anchor may be wrong by when it claims to be right.
CLAIMS_MS = {"ntp": 2_000, "rtc": 120_000, "anchored": 300_000}
NEAREST = 4                    # anchors on either side of a moment that are asked


class Dated(NamedTuple):
    """Record `seq` of journal `jid`: Unix milliseconds give or take `error_ms`, None when nothing bounds it.

    `source`: `anchor` somebody else's word in its boot; `claim` the box's own clock, which said that it was right; `between`
    what came before and after; `none` its `at` as it stands, and worth nothing.
    """

    jid: str
    seq: int
    at_ms: int
    error_ms: int | None
    source: str


class _Body(msgspec.Struct):
    boot: str
    mono_ms: int
    at: str
    error_ms: int


class _Boot:
    """Moments of one boot: what is known of them, and where it begins and ends, as far as records show."""

    def __init__(self) -> None:
        self.last_ms = 0
        self.anchors: list[tuple[int, int, int]] = []      # (mono_ms, at_ms, error_ms), sorted
        self.source = "none"
        self.from_ms: int | None = None                    # nothing of it came before: true time of mono_ms 0
        self.until_ms: int | None = None                   # nothing of it came later: true time of `last_ms`

    def span(self, mono_ms: int) -> tuple[int, int] | None:
        """The true time of a moment, from and to, by the anchors around it; None without one.

        Anchors that contradict each other cannot all be right: the nearest is believed.
        """
        if not self.anchors:
            return None
        at = bisect.bisect_left(self.anchors, (mono_ms,))
        near = self.anchors[max(0, at - NEAREST):at + NEAREST]
        spans = []
        for mono, at_ms, error_ms in near:
            here_ms, wrong_ms = at_ms + mono_ms - mono, error_ms + drift_ms(mono_ms - mono)
            spans.append((here_ms - wrong_ms, here_ms + wrong_ms))
        low, high = max(low for low, _ in spans), min(high for _, high in spans)
        if low <= high:
            return low, high
        return min(zip(spans, near, strict=True), key=lambda pair: abs(pair[1][0] - mono_ms))[0]


def dated(records: Sequence[Payload], clocks: Iterable[Payload]) -> list[Dated]:
    """A date for each of `records`, in their order; all of one box, in chain order, journals one after the other.

    `clocks` are its `clock` records, `clocks_of(records)` or more of them; one that cannot be read anchors nothing.
    """
    boots: dict[str, _Boot] = {}
    for record in records:
        boot = boots.setdefault(record.boot, _Boot())
        boot.last_ms = max(boot.last_ms, record.mono_ms)
    _anchor(boots, clocks)
    _claim(boots, records)
    _between(list(boots.values()))
    return [_dated(record, boots[record.boot]) for record in records]


def clocks_of(records: Iterable[Payload]) -> list[Payload]:
    return [record for record in records if record.kind == "clock"]


def unix_ms(at: str) -> int:
    """RFC 3339 as Unix milliseconds.  ValueError for anything else."""
    return round(datetime.datetime.fromisoformat(at).timestamp() * 1000)


def _anchor(boots: dict[str, _Boot], clocks: Iterable[Payload]) -> None:
    for record in clocks:
        try:
            said = msgspec.json.decode(bytes(record.body), type=_Body)
            at_ms = unix_ms(said.at)
        except (msgspec.DecodeError, ValueError, OverflowError):
            continue
        if said.boot in boots and said.error_ms >= 0:
            boots[said.boot].anchors.append((said.mono_ms, at_ms, said.error_ms))
            boots[said.boot].source = "anchor"
    for boot in boots.values():
        boot.anchors.sort()


def _claim(boots: dict[str, _Boot], records: Iterable[Payload]) -> None:
    """A boot without an anchor is as well dated as its clock claims, where it claims anything."""
    for record in records:
        boot = boots[record.boot]
        if boot.source != "anchor" and record.clk in CLAIMS_MS:
            boot.anchors.append((record.mono_ms, unix_ms(record.at), CLAIMS_MS[record.clk]))
            boot.source = "claim"
    for boot in boots.values():
        if boot.source == "claim":
            boot.anchors.sort()


def _between(boots: list[_Boot]) -> None:
    """A boot begins after the one before it has ended, and ends before the one after it begins."""
    ended_ms: int | None = None
    for boot in boots:
        span = boot.span(boot.last_ms)
        boot.from_ms = ended_ms
        if span is not None:
            ended_ms = span[0]
        elif ended_ms is not None:
            ended_ms += boot.last_ms - drift_ms(boot.last_ms)
    begins_ms: int | None = None
    for boot in reversed(boots):
        span = boot.span(0)
        boot.until_ms = begins_ms
        if span is not None:
            begins_ms = span[1]
        elif begins_ms is not None:
            begins_ms -= boot.last_ms - drift_ms(boot.last_ms)


def _dated(record: Payload, boot: _Boot) -> Dated:
    span, source = boot.span(record.mono_ms), boot.source
    if span is None and boot.from_ms is not None and boot.until_ms is not None:
        after_ms = boot.last_ms - record.mono_ms
        span, source = (boot.from_ms + record.mono_ms - drift_ms(record.mono_ms),
                        boot.until_ms - after_ms + drift_ms(after_ms)), "between"
    if span is None or span[0] > span[1]:
        return Dated(record.jid, record.seq, unix_ms(record.at), None, "none")
    return Dated(record.jid, record.seq, (span[0] + span[1]) // 2, -(-(span[1] - span[0]) // 2), source)
