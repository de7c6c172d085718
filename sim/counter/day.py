"""Scripted days: read one, play it, say what happened.

Knows the TOML of a day and how to wait for what a step expects.  Knows no counter: calls go through a function, and
time through a clock that tests move by hand.

A day is a list of `[[step]]`, and perhaps above them `rules_scale = N`: the times of the box's rule table are divided by N
(1 to 60), so that ten minutes without a channel need not take ten minutes; and `cloud = "postgresql"`: the collector keeps its
records there and not in SQLite.

    at_s      seconds from the start of the day before which the step is not taken (left out: at once)
    call      "POST /scan", "GET /state", any call of the counter
    body      a table, for POST
    expect    {path, value}: polled until it holds, for `within_s` seconds (default 10).  `path` is dotted, with list
              indexes ("orders.0.state", "lines[-1].qty").  It is looked up in the answer of a GET (asked again while
              polling), else in /state; "answer.…" always means the answer of the call itself.
              A list of such tables expects them one after the other.
    within_s  may stand beside `expect` in the step or inside it

In a body the text "$code" is the code that the phone showed last, "$qr" the QR that the display shows, "$parked:N" that
of the N-th parked payment (-1 the last) and "$order_no:N" the order number of the N-th receipt that has one.  A
/phone/scan without `qr` means the QR shown.
All of them are waited for, for `within_s`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from sim.counter.calls import known

WITHIN_S = 10.0
POLL_S = 0.1
STEPS_MAX = 10_000
WAIT_S_MAX = 86_400.0
SCALE_MAX = 60
CLOUDS = ("sqlite", "postgresql")

Call = Callable[[str, str, dict[str, Any] | None], tuple[int, Any]]
"""(method, path, body) to (status, value of the answer)."""


class DayError(Exception):
    """The day cannot be played; the text is one sentence that says where and why."""


class Clock(Protocol):
    def now_s(self) -> float: ...
    def wait(self, seconds: float) -> None: ...


@dataclass(frozen=True)
class Expect:
    path: str
    value: Any
    within_s: float


@dataclass(frozen=True)
class Step:
    n: int
    method: str
    path: str
    body: dict[str, Any] | None = None
    at_s: float = 0.0
    expects: tuple[Expect, ...] = field(default=())
    within_s: float = WITHIN_S

    @property
    def call(self) -> str:
        return f"{self.method} {self.path}"


def read_day(file: Path) -> list[Step]:
    """The steps of a day file.  DayError when it cannot be read or a step is not one."""
    try:
        return parse_day(file.read_text("utf-8"), str(file))
    except OSError as wrong:
        raise DayError(f"{file}: cannot be read: {wrong.strerror or wrong}.") from None
    except UnicodeDecodeError:
        raise DayError(f"{file}: is not UTF-8 text.") from None


def read_scale(file: Path) -> int:
    """By how much the day divides the times of the rule table, 1 when it says nothing.  DayError as in `read_day`."""
    scale = tomllib.loads(file.read_text("utf-8")).get("rules_scale", 1)
    if isinstance(scale, bool) or not isinstance(scale, int) or not 1 <= scale <= SCALE_MAX:
        raise DayError(f"{file}: rules_scale must be a whole number, 1 to {SCALE_MAX}.")
    return scale


def read_cloud(file: Path) -> str:
    """Where the day's collector keeps records, `sqlite` when it says nothing.  DayError as in `read_day`."""
    cloud = tomllib.loads(file.read_text("utf-8")).get("cloud", "sqlite")
    if cloud not in CLOUDS:
        raise DayError(f"{file}: cloud is one of {', '.join(CLOUDS)}.")
    return str(cloud)


def parse_day(text: str, name: str = "day") -> list[Step]:
    """The steps of a day's text, in file order.  DayError as in `read_day`."""
    try:
        day = tomllib.loads(text)
    except tomllib.TOMLDecodeError as wrong:
        raise DayError(f"{name}: is not TOML: {wrong}.") from None
    rows = day.get("step")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DayError(f"{name}: has no [[step]].")
    if len(rows) > STEPS_MAX:
        raise DayError(f"{name}: has {len(rows)} steps; a day has at most {STEPS_MAX}.")
    steps = [_step(row, n, f"{name}, step {n}") for n, row in enumerate(rows, 1)]
    for before, after in pairwise(steps):
        if after.at_s and after.at_s < before.at_s:
            raise DayError(f"{name}, step {after.n}: at_s {after.at_s:g} lies before the step above it "
                           f"({before.at_s:g}).")
    return steps


def _step(row: dict[str, Any], n: int, where: str) -> Step:
    strange = sorted(set(row) - {"at_s", "call", "body", "expect", "within_s", "note"})
    if strange:
        raise DayError(f"{where}: unknown key {strange[0]!r}; a step has at_s, call, body, expect, within_s, note.")
    call = row.get("call")
    if not isinstance(call, str) or call.count(" ") != 1:
        raise DayError(f"{where}: call must be a text like \"POST /scan\".")
    method, path = call.split(" ")
    wrong = known(method, path)
    if wrong is not None:
        raise DayError(f"{where}: {wrong}")
    body = row.get("body")
    if body is not None and not isinstance(body, dict):
        raise DayError(f"{where}: body must be a table.")
    if method == "GET" and body is not None:
        raise DayError(f"{where}: a GET has no body.")
    at_s = _seconds(row.get("at_s", 0), f"{where}: at_s")
    within_s = _seconds(row.get("within_s", WITHIN_S), f"{where}: within_s")
    wanted = row.get("expect", [])
    wanted = wanted if isinstance(wanted, list) else [wanted]
    return Step(n, method, path, body if body is not None else ({} if method == "POST" else None), at_s,
                tuple(_expect(w, within_s, where) for w in wanted), within_s)


def _expect(wanted: Any, within_s: float, where: str) -> Expect:
    if not isinstance(wanted, dict) or not {"path", "value"} <= set(wanted) <= {"path", "value", "within_s"}:
        raise DayError(f"{where}: expect must be a table with path and value, and perhaps within_s.")
    if not isinstance(wanted["path"], str) or not wanted["path"]:
        raise DayError(f"{where}: expect.path must be a text like \"phase\" or \"orders.0.state\".")
    return Expect(wanted["path"], wanted["value"],
                  _seconds(wanted["within_s"], f"{where}: expect.within_s") if "within_s" in wanted else within_s)


def _seconds(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= WAIT_S_MAX:
        raise DayError(f"{what} must be seconds, 0 to {WAIT_S_MAX:g}.")
    return float(value)


MISSING = object()


def dig(tree: Any, path: str) -> Any:
    """What stands at `path` in a JSON tree, MISSING when nothing does.  `#` at the end counts a list or table."""
    for name in re.sub(r"\[(-?\d+)\]", r".\1", path).strip(".").split("."):
        if name == "#" and isinstance(tree, (list, dict)):
            tree = len(tree)
        elif isinstance(tree, dict) and name in tree:
            tree = tree[name]
        elif isinstance(tree, list) and re.fullmatch(r"-?\d+", name) and -len(tree) <= int(name) < len(tree):
            tree = tree[int(name)]
        else:
            return MISSING
    return tree


def play(steps: list[Step], ask: Call, clock: Clock) -> Iterator[dict[str, Any]]:
    """Play the steps through `ask`; a result each, `{"step", "call", "ok", "answer"}` and, where it expects, `expect`.

    `ok` is true when the call was taken (2xx) and everything expected came; a step that expects something of its own
    answer ("answer.error") is ok when that came, whatever the status.
    """
    start_s = clock.now_s()
    code = ""
    for step in steps:
        early_s = start_s + step.at_s - clock.now_s()
        if early_s > 0:
            clock.wait(early_s)
        status, answer = _call(step, ask, clock, code)
        if step.path == "/phone/code" and status < 400:
            code = answer["code"]
        held = [_held(step, wish, status, answer, ask, clock) for wish in step.expects]
        about_answer = any(wish.path.split(".")[0] == "answer" for wish in step.expects)
        taken = status < 400 or about_answer
        result = {"step": step.n, "call": step.call, "ok": taken and all(h["held"] for h in held), "status": status,
                  "answer": answer, "at_s": round(clock.now_s() - start_s, 2)}
        yield result | ({"expect": held[0] if len(held) == 1 else held} if held else {})


def _call(step: Step, ask: Call, clock: Clock, code: str) -> tuple[int, Any]:
    body = step.body
    if body is not None:
        body = {k: code if v == "$code" else _filled(v, step, ask, clock) for k, v in body.items()}
        if step.path == "/phone/scan":
            body["qr"] = body.get("qr") or _filled("$qr", step, ask, clock)
            if body["qr"] == "$qr":
                del body["qr"]                        # nothing shown: let the counter say so
    return ask(step.method, step.path, body)


def _filled(value: Any, step: Step, ask: Call, clock: Clock) -> Any:
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    until_s = clock.now_s() + step.within_s
    while True:
        found = _lookup(value, ask)
        if found or clock.now_s() >= until_s:
            return found or value
        clock.wait(POLL_S)


def _lookup(name: str, ask: Call) -> str:
    if name == "$qr":
        shown = ask("GET", "/display.json", None)[1]
        return str(shown.get("qr") or "") if isinstance(shown, dict) else ""
    numbered = re.fullmatch(r"\$(order_no|parked):(-?\d+)", name)
    if not numbered:
        return ""
    if numbered[1] == "order_no":
        listed = ask("GET", "/receipts", None)[1]
        found = [row["order_no"] for row in listed if row.get("order_no")] if isinstance(listed, list) else []
    else:
        state = ask("GET", "/state", None)[1]
        found = [row["qr"] for row in state.get("parked", ()) if row.get("qr")] if isinstance(state, dict) else []
    index = int(numbered[2]) - (int(numbered[2]) > 0)
    return str(found[index]) if -len(found) <= index < len(found) else ""


def _held(step: Step, wish: Expect, status: int, answer: Any, ask: Call, clock: Clock) -> dict[str, Any]:
    """Poll until `wish` holds; the last value seen tells why when it never did."""
    until_s = clock.now_s() + wish.within_s
    while True:
        seen = _seen(step, wish, answer, ask)
        held = seen is not MISSING and seen == wish.value and isinstance(seen, bool) == isinstance(wish.value, bool)
        if held or clock.now_s() >= until_s or (step.method == "POST" and wish.path.startswith("answer.")):
            shown = {} if held else {"seen": None if seen is MISSING else seen}
            return {"path": wish.path, "value": wish.value, "held": held, **shown}
        clock.wait(POLL_S)
        if step.method == "GET":
            status, answer = ask("GET", step.path, None)


def _seen(step: Step, wish: Expect, answer: Any, ask: Call) -> Any:
    head, _, rest = wish.path.partition(".")
    if head == "answer":
        return dig(answer, rest) if rest else answer
    if step.method == "GET":
        found = dig(answer, wish.path)
        if found is not MISSING or step.path == "/state":
            return found
    return dig(ask("GET", "/state", None)[1], wish.path)
