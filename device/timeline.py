"""`tillbox timeline ORDER`: every step of one payment with its times, and what most likely went wrong with it.

Scan, QR, each question and answer, paper, drawer, record, acknowledgement.  A running daemon is asked over its socket: the
questions to the channel stand in its memory alone.  Without one the journal file is read, and not touched.  Shows no QR, token or
paper.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from device.ask import DaemonAway, ask, runs
from device.console.printing import safe
from device.store_forward.token import TokenError, parse
from device.timeline_words import STEPS, Step, cause, question
from device.txn import facts
from device.txn.numbers import order_number_ok
from device.types import Stamp

BEFORE, AFTER, BESIDE = 3_000, 3_000, 300     # rows around those that the index names: an open payment, a paper that waited long
BASKET_ENDS = (facts.SaleClosed, facts.BasketCleared, facts.BasketHeld, facts.BasketRecalled)
BASKET = (facts.LineAdded, facts.LineVoided, facts.TenderTaken)
SIGNS_NEXT = (facts.Booted, facts.SignerBroke)


class Asked(msgspec.Struct, frozen=True):
    """One question to the outside as memory has it: of which number, its verb, when (ms of this boot), how long, what came back."""

    no: str
    verb: str
    part: str
    at_ms: int
    took_ms: int
    said: str


class Story(msgspec.Struct, frozen=True):
    """`steps` oldest first, `order_no` as asked for; `acked` whether the cloud has every record of it, None when nothing is due."""

    order_no: str
    steps: tuple[Step, ...]
    acked: bool | None
    cause: str
    cause_zh: str


class Rows(Protocol):
    """The journal, as far as a story is looked for in it."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...
    def places(self, ref: str) -> list[int]: ...
    def rows(self, first: int) -> Iterator[tuple[int, bytes]]: ...


def told(journal: Rows, no: str, *, acked: tuple[str, int] = ("", 0), asked: Sequence[Asked] = (),
         acks: Sequence[tuple[int, str]] = (), now: Stamp | None = None) -> Story | None:
    """The story of order, receipt or refund number `no`; None when the journal does not know it.

    `acked` the cloud's cursor: its journal id and the last record of it that the cloud confirmed; `asked` what memory has of the
    questions, `acks` (record, wall time) of acknowledgements since the start, `now` the box's clock, to date both.
    """
    if not order_number_ok(no):
        return None
    rows = _near(journal, no)
    names, mine = _named(rows, no)
    if not mine:
        return None
    picked = _picked(rows, names, mine)
    zero = picked[0][1]
    steps = [_step(n, at, fact, zero) for n, at, fact in picked]
    signed = [fact for _, _, fact in picked if isinstance(fact, facts.RecordSigned)]
    if now is not None:
        steps += _questions(asked, names, now, zero)
        steps = sorted(steps, key=lambda step: step.after_s)
    whole = _acknowledged(signed, acked)
    steps += _acks(signed, whole, acks, steps)
    en, zh = cause(steps, acked=whole)
    return Story(no, tuple(steps), whole, en, zh)


# Which facts are of it -------------------------------------------------------------------------------------------------

Row = tuple[int, bytes]
Pick = tuple[int, Stamp, facts.Fact]


def _near(journal: Rows, no: str) -> list[Row]:
    """The rows around those that the index names; the newest ones where it names none, as of a payment that is open."""
    places = journal.places(no) or [journal.last]
    spans = [(max(journal.first, places[0] - BEFORE), places[0] + BESIDE), *((n, n + BESIDE) for n in places[1:-1]),
             (places[-1], places[-1] + AFTER)]
    rows: dict[int, bytes] = {}
    for first, last in spans:
        for n, row in journal.rows(first):
            if n > last:
                break
            rows[n] = row
    return sorted(rows.items())


def _named(rows: Sequence[Row], no: str) -> tuple[set[str], list[int]]:
    """Every number of the same sale, and the rows that name one: its parts, what was given back of it."""
    names, mine = {no}, set[int]()
    for _ in range(3):                                   # a refund names its order, the order its sale, the sale its parts
        before = len(names)
        keys = [name.encode() for name in names]
        for n, row in rows:
            if any(key in row for key in keys) and b"BooksStood" not in row[:200]:
                for fact in facts.decode(row).facts:
                    names |= _names(fact, names)
                mine.add(n)
        if len(names) == before:
            break
    return names, sorted(mine)


def _names(fact: facts.Fact, names: set[str]) -> set[str]:
    match fact:
        case facts.SaleClosed(sale=sale) if any(sale.named(name) for name in names):
            return {sale.order_no, *(t.order_no for t in sale.tenders)} - {""}
        case facts.RefundIntended(intent=intent, sale_no=sale_no) if names & {intent.refund_no, intent.order_no, sale_no}:
            return {intent.refund_no, intent.order_no, sale_no} - {""}
    return set()


def _picked(rows: Sequence[Row], names: set[str], mine: Sequence[int]) -> list[Pick]:
    """The facts of the story: those that name it, what was due in the same decision, what that came to, and the basket before."""
    picks: list[Pick] = _basket(rows, names, mine[0])
    jobs, kicks = set[int](), set[int]()
    for n, row in rows:
        if n < mine[0]:
            continue
        entry = facts.decode(row) if n in mine or _may_follow(row, jobs, kicks) else None
        if entry is None:
            continue
        ours = n in mine and any(_is_of(fact, names) for fact in entry.facts)
        for fact in entry.facts:
            if isinstance(fact, facts.BooksStood):
                continue
            if _is_of(fact, names) or (ours and isinstance(fact, facts.DrawerDue | facts.ReceiptDue)):
                if isinstance(fact, facts.ReceiptDue):
                    jobs.add(fact.job)
                if isinstance(fact, facts.DrawerDue):
                    kicks.add(fact.kick)
            elif not (getattr(fact, "job", None) in jobs or getattr(fact, "kick", None) in kicks or isinstance(fact, SIGNS_NEXT)):
                continue
            if type(fact) in STEPS:
                picks.append((n, entry.at, fact))
    return _trimmed(picks)


def _may_follow(row: bytes, jobs: set[int], kicks: set[int]) -> bool:
    return bool(jobs) and b"Receipt" in row or bool(kicks) and b"Drawer" in row or b"RecordSigned" in row or b'"Booted"' in row \
        or b"SignerBroke" in row


def _is_of(fact: facts.Fact, names: set[str]) -> bool:
    if isinstance(fact, facts.RecordSigned):
        try:
            said = bytes(parse(fact.token).payload.body)
        except (TokenError, ValueError):
            return False
    else:
        said = msgspec.json.encode(fact)
    return any(name.encode() in said for name in names)


def _basket(rows: Sequence[Row], names: set[str], first: int) -> list[Pick]:
    """What was scanned before the first row that names the sale, back to the end of the one before."""
    picks: list[Pick] = []
    for n, row in reversed([(n, row) for n, row in rows if n < first]):
        if b"Line" not in row and b"Basket" not in row and b"SaleClosed" not in row and b"TenderTaken" not in row:
            continue
        entry = facts.decode(row)
        if any(isinstance(fact, BASKET_ENDS) for fact in entry.facts):
            break
        picks[:0] = [(n, entry.at, fact) for fact in entry.facts if isinstance(fact, BASKET)]
    return picks


def _trimmed(picks: list[Pick]) -> list[Pick]:
    """Starts and broken signers count only in the middle of the story."""
    last = max((k for k, (_, _, fact) in enumerate(picks) if not isinstance(fact, SIGNS_NEXT)), default=-1)
    return picks[:last + 1]


# Times -----------------------------------------------------------------------------------------------------------------

def _step(n: int, at: Stamp, fact: facts.Fact, zero: Stamp) -> Step:
    what, en, zh = STEPS[type(fact)](fact)
    return Step(at.wall, _after_s(at, zero), what, en, zh, n)


def _after_s(at: Stamp, zero: Stamp) -> float:
    import datetime
    if at.boot == zero.boot:
        return round((at.mono_ms - zero.mono_ms) / 1000, 3)
    walls = [datetime.datetime.fromisoformat(stamp.wall) for stamp in (at, zero)]
    return round((walls[0] - walls[1]).total_seconds(), 3)


def _questions(asked: Sequence[Asked], names: set[str], now: Stamp, zero: Stamp) -> list[Step]:
    """Questions and answers; the same answer time and again is one step."""
    import datetime
    steps: list[Step] = []
    mine = [one for one in asked if one.no in names]
    at = 0
    while at < len(mine):
        one, times = mine[at], 1
        while at + times < len(mine) and (mine[at + times].verb, mine[at + times].said) == (one.verb, one.said):
            times += 1
        ms = one.at_ms + one.took_ms
        then = datetime.datetime.fromisoformat(now.wall) - datetime.timedelta(milliseconds=now.mono_ms - ms)
        wall = then.isoformat(timespec="milliseconds")
        en, zh = question(one.verb, one.part.partition(":")[2] or one.part, one.took_ms / 1000, one.said, times)
        steps.append(Step(wall, _after_s(Stamp(now.boot, ms, wall, now.clk), zero), "asked", en, zh))
        at += times
    return steps


def _acknowledged(signed: Sequence[facts.RecordSigned], acked: tuple[str, int]) -> bool | None:
    if not signed or not acked[0]:
        return None
    payloads = [parse(fact.token).payload for fact in signed]
    return all(p.jid != acked[0] or p.seq <= acked[1] for p in payloads)


def _acks(signed: Sequence[facts.RecordSigned], whole: bool | None, acks: Sequence[tuple[int, str]],
          steps: Sequence[Step]) -> list[Step]:
    if whole is None:
        return []
    seq = max(fact.seq for fact in signed)
    wall = next((wall for upto, wall in acks if upto >= seq), "")
    if not whole:
        return [Step("", steps[-1].after_s, "unacked", f"the cloud has not confirmed record {seq}", f"云端还未确认记录 {seq}")]
    return [Step(wall, steps[-1].after_s, "acked", f"the cloud has confirmed record {seq}{'' if wall else ', before this start'}",
                 f"云端已确认记录 {seq}")]


# The command -----------------------------------------------------------------------------------------------------------

class FileRows:
    """A journal file without a daemon."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.first, self.last = (int(n or 0) for n in db.execute("SELECT min(n), max(n) FROM journal").fetchone())

    def places(self, ref: str) -> list[int]:
        """Every row that names it: a file may be searched through."""
        return [n for (n,) in self._db.execute("SELECT n FROM journal WHERE instr(facts, ?) ORDER BY n", (ref.encode(),))]

    def rows(self, first: int) -> Iterator[Row]:
        for n, row in self._db.execute("SELECT n, facts FROM journal WHERE n >= ? ORDER BY n", (first,)):
            yield n, bytes(row)

    def acked(self) -> tuple[str, int]:
        jid, upto = self._db.execute("SELECT jid, upto FROM cursor").fetchone() or ("", 0)
        return str(jid), int(upto)


def main(argv: list[str]) -> int:
    """0 when the order was found, 1 when the journal never saw it, 2 when there is no journal to read."""
    parser = argparse.ArgumentParser(prog="tillbox timeline", description="What happened to one payment, step by step.")
    parser.add_argument("words", nargs="+", metavar="[FILE] ORDER", help="order, receipt or refund number; before it a journal.db")
    parser.add_argument("--config", default="/etc/tillbox/box.toml", metavar="FILE", help="of the box, where no journal is named")
    parser.add_argument("--lang", choices=("en", "zh"), default="en")
    parser.add_argument("--json", action="store_true", help="one object")
    args = parser.parse_args(argv)
    if len(args.words) > 2:
        parser.error("a journal file and a number, or a number alone")
    if not (args.words[-1].isascii() and args.words[-1].isalnum()):
        parser.error("a number has letters and digits only")
    try:
        story = story_of(args.words[-1].upper(), args.config, args.words[0] if len(args.words) == 2 else "")
    except LookupError as why:
        print(f"tillbox timeline: {why.args[0]}", file=sys.stderr)
        return 2
    if story is None:
        print(f"no fact names {args.words[-1]}: it is not of this journal", file=sys.stderr)
        return 1
    print(json.dumps(msgspec.to_builtins(story), ensure_ascii=False) if args.json else "\n".join(shown(story, args.lang)))
    return 0


def story_of(no: str, config: str, file: str = "") -> Story | None:
    """The story out of `file`, or of the box configured in `config`, daemon alive or dead.  LookupError: what cannot be read."""
    if not file:
        state_dir, run_dir, training = _places(config)
        if runs(run_dir):
            return _asked_of(run_dir, no)
        file = str(Path(state_dir, "training" if training else "", "journal.db"))
    from device.doctor.look import reading
    from device.errors import Outside
    try:
        if not Path(file).is_file():
            raise LookupError(f"{file} cannot be read: it is not there; give the journal.db of a box")
        with reading(Path(file)) as db:
            journal = FileRows(db)
            return told(journal, no, acked=journal.acked())
    except (sqlite3.Error, msgspec.DecodeError, TypeError, Outside) as why:
        hint = "ask the daemon that holds it: --config" if "locked" in str(why) else "give the journal.db of a box"
        raise LookupError(f"{file} cannot be read: {why}; {hint}") from None


def shown(story: Story, lang: str = "en") -> Iterable[str]:
    """The story for a person, a line a step."""
    for step in story.steps:
        yield safe(f"{step.at[11:23] or '':<12} {step.after_s:>+10.3f} s  {step.zh if lang == 'zh' else step.en}")
    yield f"{'多半是' if lang == 'zh' else 'Most likely'}: {safe(story.cause_zh if lang == 'zh' else story.cause)}"


def _asked_of(run_dir: str, no: str) -> Story | None:
    try:
        said: dict[str, Any] = ask(Path(run_dir) / "daemon.sock", "timeline", order=no)
    except DaemonAway as why:
        raise LookupError(str(why)) from None
    if not said.get("ok"):
        raise LookupError(str(said.get("error", "the daemon did not answer")))
    try:
        return msgspec.convert(said["timeline"], Story) if said.get("timeline") is not None else None
    except msgspec.ValidationError as why:
        raise LookupError(f"the daemon's answer is no story: {why}") from None


def _places(config: str) -> tuple[str, str, bool]:
    from device.errors import ConfigError, Outside
    from device.push.layers import Layers
    try:
        c = Layers(Path(config).read_text(encoding="utf-8"), which=config, finished=lambda alone: alone).config()
    except (OSError, UnicodeDecodeError, ConfigError, Outside) as why:
        raise LookupError(f"{config} cannot be read: {getattr(why, 'strerror', '') or why}") from None
    return c.state_dir, c.run_dir, c.training
