"""What a technician typed at the box: once a record each, and the few deeds that only the daemon can do.

Knows the shape of the console's entries; refuses to know how somebody proved to be there: the console's own process asks that, and
only its user reaches the socket.  No entry moves money or marks an order as paid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from device.mqtt.cmd_wire import digest_of
from device.txn import record
from device.txn.books import Books
from device.txn.desk import Desk, Told, Verdict
from device.txn.effects import Cut, Pair, PaperPart, Ruler, Text
from device.txn.facts import CommandDone, Fact, RebootWished
from device.txn.inputs import Asked
from device.txn.minting import kick, paper_due
from device.types import Stamp

VISIT_STEPS_MAX = 60
TEXT_CHARS_MAX = 300


class Visit(msgspec.Struct, frozen=True):
    """What `handover` reports: commands and how they ended, tests that passed and that did not, the technician's own words."""

    by: str
    level: str = ""
    since: str = ""
    did: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    words: str = ""


class Typed(msgspec.Struct, frozen=True):
    """One command as the console's spool kept it.  `outcome` `ok`, a code, or `unknown` after a cut; `do`: it is for the daemon."""

    id: str
    verb: str
    args: str = ""
    by: str = ""
    level: str = ""
    typed_at: str = ""
    typed_boot: str = ""
    outcome: str = ""
    do: bool = False
    visit: Visit | None = None


def asked(entry: Typed) -> Asked:
    """The entry as an input."""
    return Asked(entry.id, entry.verb, entry.args[:TEXT_CHARS_MAX], entry.by, typed=msgspec.json.encode(entry).decode())


def on_typed(b: Books, d: Desk, e: Asked, at: Stamp) -> Verdict:
    """A record for each id, once; a deed with it, once."""
    known = b.commands.get(e.id)
    if known is not None:
        return Verdict(refused=not known.ok, told=Told(known.ok, known.said, known.name))
    entry = msgspec.json.decode(e.typed, type=Typed)
    if not entry.do:
        return Verdict(_kept(e, entry, entry.outcome, ""), told=Told(True))
    deed = DEEDS.get(e.verb)
    done = deed(b, d, e, entry, at) if deed is not None else "the daemon does not do that"
    if isinstance(done, str):
        return Verdict(_kept(e, entry, "refused", done, ok=False), refused=True, told=Told(False, done, "refused"))
    facts, said, words = done
    return Verdict([*facts, *_kept(e, entry, "done", said)], words, told=Told(True, said))


def visit_paper(box: str, report: Any, *, signed: bool) -> tuple[PaperPart, ...]:
    """The report on paper; `report` a Visit or the same as a dict."""
    visit = msgspec.convert(report, Visit) if isinstance(report, dict) else report
    rows: list[PaperPart] = [Text("上门报告 / Visit report", "c", 2), Ruler(), Pair(box, visit.by),
                             Pair("自 / since", visit.since[:19])]
    rows += [Text(f"[ok] {one}") for one in visit.passed] + [Text(f"[--] {one}") for one in visit.failed]
    rows += [Ruler()] + [Text(one[:80]) for one in visit.did]
    if visit.words:
        rows += [Ruler(), Text(visit.words)]
    note = "签名记录随后上传 / its record is signed and sent" if signed else "待签名 / not signed yet: the till was down"
    return (*rows, Ruler(), Text(note), Cut())


def _kept(e: Asked, entry: Typed, outcome: str, said: str, *, ok: bool = True) -> list[Fact]:
    who: dict[str, object] = {"id": e.id, "verb": e.verb, "by": e.by, "via": "console", "level": entry.level,
                              "typed_at": entry.typed_at, "typed_boot": entry.typed_boot, "outcome": outcome}
    args: dict[str, object] = {"args": e.arg} if e.arg else {}
    kind, more = "command", {}
    if entry.visit is not None:
        kind, more = "visit", {key: value for key, value in msgspec.to_builtins(entry.visit).items() if key not in who}
    return [CommandDone(e.id, e.verb, e.by, digest_of(e.verb, e.arg), ok, said, "" if ok else "refused"),
            record.due(kind, **who, **args, **more)]


Deed = tuple[list[Fact], str, tuple[str, str] | None]


def _print_test(b: Books, d: Desk, e: Asked, entry: Typed, at: Stamp) -> Deed | str:
    paper: tuple[PaperPart, ...] = (
        Text("打印测试 / Print test", "c", 2), Ruler(), Pair("", at.wall[:19].replace("T", " ")), Pair("", e.by),
        Text("收款 小票 ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 ¥"), Ruler(), Cut())
    return [paper_due(b, "test", e.id, paper)], "a test slip is due", None


def _drawer_test(b: Books, d: Desk, e: Asked, entry: Typed, at: Stamp) -> Deed | str:
    if d.terms.approve_drawer and entry.level != "full":
        return "this box opens its drawer by hand with a supervisor alone: log in at the level full"
    kicked = kick(b, d, "console test")
    if not kicked:
        return f"the printer says {dict(d.health).get('printer', 'nothing')}, and the drawer hangs on it"
    return [*kicked, record.due("drawer", cause="console test", by=e.by)], "the drawer opens now", None


def _display_test(b: Books, d: Desk, e: Asked, entry: Typed, at: Stamp) -> Deed | str:
    return [], "shown", (f"屏幕测试 {e.arg}", f"Display test {e.arg}")


def _handover(b: Books, d: Desk, e: Asked, entry: Typed, at: Stamp) -> Deed | str:
    if entry.visit is None:
        return "a handover wants its report"
    paper = visit_paper(d.terms.box, entry.visit, signed=True)
    return [paper_due(b, "test", e.id, paper)], "the report is signed, sent and printed", None


def _reboot(b: Books, d: Desk, e: Asked, entry: Typed, at: Stamp) -> Deed | str:
    return [RebootWished(e.id)], "the box restarts as soon as nobody stands at it", None


DEEDS: dict[str, Callable[[Books, Desk, Asked, Typed, Stamp], Deed | str]] = {
    "print test": _print_test, "drawer test": _drawer_test, "display test": _display_test, "handover": _handover, "reboot": _reboot,
}
