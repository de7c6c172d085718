"""Brings a dead box's journal into the store by the collector's own door: tokens, one a line, as `tillbox journal` exports them.

Knows lines, batches and counts; refuses to know better than the door: what it takes, takes for known or turns away is told, and
running it again changes nothing.  A journal that parts from what is committed is a fork, named as such, its branch kept aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from device.mqtt.wire import BODY_MAX_BYTES, RECORDS_MAX, Batch
from device.store_forward.token import TokenError, digest, parse
from fleet.database import DatabaseRefused
from fleet.records.store import Outcome, Store, Unreadable

TOGETHER = 32                            # batches that share one commit


class Brought(msgspec.Struct):
    """What became of one journal's records; `why` the first sentence about what was turned away or is missing."""

    box: str
    jid: str
    records: int = 0
    new: int = 0
    known: int = 0
    refused: int = 0
    upto: int = 0
    verdict: str = "ok"                  # ok, fork, unreadable, or gap: records before them are missing
    why: str = ""


def brought_in(store: Store, lines: Iterable[str], at: str) -> list[Brought]:
    """Take the tokens in `lines` at `at` (RFC 3339); one report a journal, in the order of the file.

    A line that is no token is told under an empty journal.  DatabaseFailed when the store is away: what was committed stays.
    """
    reports: dict[tuple[str, str], Brought] = {}
    store.ready_for(at)
    together: list[tuple[str, Batch]] = []
    for box, batch in _batches(lines, reports):
        together.append((box, batch))
        if len(together) == TOGETHER:
            _commit(store, together, reports, at)
            together = []
    _commit(store, together, reports, at)
    return list(reports.values())


def _batches(lines: Iterable[str], reports: dict[tuple[str, str], Brought]) -> Iterator[tuple[str, Batch]]:
    """Batches of records that stand one behind the other in one journal."""
    run: list[str] = []
    place, first, size = ("", ""), 0, 0
    for number, line in enumerate(lines, 1):
        token = line.strip()
        if not token:
            continue
        try:
            payload = parse(token).payload
        except TokenError as why:
            _turned_away(reports.setdefault(("", ""), Brought("", "")), 1, "unreadable", f"line {number}: {why.sentence}")
            continue
        here = (payload.box, payload.jid)
        if run and (here != place or payload.seq != first + len(run) or len(run) == RECORDS_MAX
                    or size + len(token) + 1 > BODY_MAX_BYTES):
            yield place[0], _batch(place[1], first, run)
            run, size = [], 0
        if not run:
            place, first = here, payload.seq
        run.append(token)
        size += len(token) + 1
    if run:
        yield place[0], _batch(place[1], first, run)


def _batch(jid: str, first: int, run: list[str]) -> Batch:
    return Batch(jid, first, first + len(run) - 1, digest(run[-1]), tuple(run))


def _commit(store: Store, together: list[tuple[str, Batch]], reports: dict[tuple[str, str], Brought], at: str) -> None:
    told: list[tuple[Brought, Batch, Outcome | Unreadable, int]] = []
    with store.transaction():
        store.lock((box, batch.jid) for box, batch in together)
        for box, batch in together:
            report = reports.setdefault((box, batch.jid), Brought(box, batch.jid))
            told += [(report, part, outcome, _standing(store, box, part) if _forked(outcome) else 0)
                     for part, outcome in _taken(store, box, batch, at)]
    for report, batch, outcome, standing in told:                      # committed: now it is true
        count = len(batch.tokens)
        if isinstance(outcome, Unreadable):
            _turned_away(report, count, "unreadable", f"record {batch.first}: {outcome.name}: {outcome.sentence}")
            continue
        report.records += count
        report.new += outcome.kept
        report.upto = outcome.upto
        if outcome.verdict == "fork":
            report.known += standing - outcome.kept
            report.records -= count - standing
            _turned_away(report, count - standing, "fork", outcome.why)
        elif outcome.want and outcome.upto < batch.first and not outcome.kept and batch.last > outcome.upto:
            report.records -= count
            _turned_away(report, count, "gap", f"records {outcome.upto + 1} to {batch.first - 1} are missing before them")
        else:
            report.known += count - outcome.kept
            if outcome.want and report.verdict == "ok":
                report.verdict, report.why = "gap", f"records {outcome.want[0][0]} to {outcome.want[0][1]} are missing"
            elif not outcome.want and report.verdict == "gap":
                report.verdict, report.why = "ok", ""


def _taken(store: Store, box: str, batch: Batch, at: str) -> list[tuple[Batch, Outcome | Unreadable]]:
    """The door's word on `batch`; on each of its records alone when the whole cannot be taken."""
    try:
        with store.part():
            return [(batch, store.take(box, batch, at))]
    except (Unreadable, DatabaseRefused) as why:
        if len(batch.tokens) == 1:
            return [(batch, why if isinstance(why, Unreadable) else Unreadable("NOT_KEPT", str(why)))]
    return [one for n, token in enumerate(batch.tokens)
            for one in _taken(store, box, _batch(batch.jid, batch.first + n, [token]), at)]


def _forked(outcome: Outcome | Unreadable) -> bool:
    return isinstance(outcome, Outcome) and outcome.verdict == "fork"


def _standing(store: Store, box: str, batch: Batch) -> int:
    """Records of a forked batch that the store holds as they are here."""
    return sum(store.token(box, batch.jid, batch.first + n) == token for n, token in enumerate(batch.tokens))


def _turned_away(report: Brought, count: int, verdict: str, why: str) -> None:
    report.records += count
    report.refused += count
    if report.verdict in ("ok", "gap"):
        report.verdict, report.why = verdict, why
