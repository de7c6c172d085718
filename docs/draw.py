"""Draws docs/architecture.md from the code's own tables: `python -m docs.draw` writes it, `--check` only compares.

Knows the floors, the arrows found in the source and the payment machine's two tables.  Words that no table holds stand in
`TOP`, `MACHINE` and `BOTTOM` below; the page itself is never edited by hand.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from docs.arrows import arrows_of, floor_of, sources_of
from docs.floors import FLOORS

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"

TOP = """\
# How the box is built

*Drawn by `make docs` from the source; a test holds page and source equal. Edit the tables, not this page.*

The box is a function of its journal. Outside things report **inputs**. `decide` turns an input into **facts** or into one
sentence of refusal. Facts go to disk as one row per decision. `evolve` folds them into the **books**; `wants` says what
the outside should be doing now, and the runner makes it so. There is no recovery code: a boot folds the journal and asks
`wants`, as after every input. Why: [adr/0001](adr/0001-the-journal-is-the-truth.md).

```mermaid
flowchart LR
    outside([outside things]) -->|input| decide
    decide -->|facts, one row| journal[(journal)]
    journal -->|fold| evolve --> books
    books --> wants -->|effects| runner -->|one effect, one answer| outside
    books --> render -->|screen| display([display])
```

## Floors

An arrow points down, or sideways inside its folder; never up. The arrows below are those that the source has today, type-only
imports included. Left out: arrows to `ground`, which everything has, and those of `daemon` and `sim`, which may wire everything.
"""

MACHINE = """
## What a channel's word moves

Phase of an order by the channel's word, from `MOVES` and `IGNORED` in `device/txn/machine.py`. PAID is never ignored where
it could be news. `UNKNOWN` is a state of our knowledge, not of the order: it moves nothing anywhere, and the query is asked
again by its pace. PAID with another amount than the order's stands in no table: it is recorded once as a `payment_alert`,
never booked by itself, and the order stays undecided, on `/state` with both amounts, until the channel settles it or a person
lets go of it.
"""

BOTTOM = """
## Where to look

| question | file |
|---|---|
| what can the outside say, and be asked to do | `device/txn/inputs.py`, `device/txn/effects.py` |
| what is kept on disk | `device/txn/facts.py` |
| what follows from what | `device/txn/machine.py`, `device/txn/keys.py` |
| which file may lean on which | `docs/floors.py` |
"""


def main(argv: list[str]) -> int:
    """Write the page; with `--check` write nothing and exit 1 when the committed page is another."""
    text = page()
    if argv == ["--check"]:
        return 0 if PAGE.read_text(encoding="utf-8") == text else 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


def page() -> str:
    """The whole of docs/architecture.md."""
    sources = sources_of(ROOT)
    parts = [TOP, _mermaid(_floor_lines(sources)), "\n", _floor_table()]
    tables = machine_tables()
    if tables:
        parts += [MACHINE, _machine_matrix(*tables), "\n", _mermaid(_machine_lines(tables[0])), "\n", _machine_notes(*tables)]
    return "".join([*parts, BOTTOM])


def machine_tables() -> tuple[Mapping[Any, Callable[..., Any]], Mapping[Any, str]] | None:
    """`MOVES` and `IGNORED` of the payment machine, or None while it has none."""
    machine = importlib.import_module("device.txn.machine")
    moves, ignored = getattr(machine, "MOVES", None), getattr(machine, "IGNORED", None)
    return None if moves is None or ignored is None else (moves, ignored)


def _mermaid(lines: list[str]) -> str:
    return "\n".join(["", "```mermaid", *lines, "```", ""])


def _floor_lines(sources: Mapping[str, str]) -> list[str]:
    """One box a room, highest floor first; one arrow for each pair of rooms of which one leans on the other."""
    lines = ["flowchart TD"]
    for floor in reversed(FLOORS):
        lines.append(f'    {floor.room}["{floor.room}<br/>{floor.says}"]')
    pairs = set()
    for path in sources:
        for arrow in arrows_of(path, sources):
            source, target = floor_of(path), floor_of(arrow.target)
            if source and target and source.room not in ("daemon", "sim", target.room) and target.room != "ground":
                pairs.add((source.room, target.room))
    order = {floor.room: place for place, floor in enumerate(FLOORS)}
    return lines + [f"    {a} --> {b}" for a, b in sorted(pairs, key=lambda pair: (-order[pair[0]], -order[pair[1]]))]


def _floor_table() -> str:
    rows = ["| floor | room | files | may lean on |", "|---|---|---|---|"]
    order = [floor.room for floor in FLOORS]
    for floor in FLOORS:
        files = " ".join(f"`{name}`" for name in floor.files)
        may = " ".join(sorted(floor.may, key=order.index)) or "nothing"
        rows.append(f"| {floor.number} | {floor.room} | {files} | {may} |")
    return "\n".join(rows) + "\n"


def _axes(moves: Mapping[Any, Any], ignored: Mapping[Any, Any]) -> tuple[list[Any], list[Any]]:
    """Phases and words that the tables name, in the order of their own definition."""
    pairs = [*moves, *ignored]
    phases, words = type(pairs[0][0]), type(pairs[0][1])
    return [p for p in phases if any(p is a for a, _ in pairs)], [w for w in words if any(w is b for _, b in pairs)]


def _machine_matrix(moves: Mapping[Any, Callable[..., Any]], ignored: Mapping[Any, str]) -> str:
    phases, words = _axes(moves, ignored)
    rows = ["", f"| | {' | '.join(word.name for word in words)} |", "|---" * (len(words) + 1) + "|"]
    for phase in phases:
        cells = [f"**{moves[phase, word].__name__}**" if (phase, word) in moves else "·" if (phase, word) in ignored else "hole"
                 for word in words]
        rows.append(f"| {phase.name} | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _machine_lines(moves: Mapping[Any, Callable[..., Any]]) -> list[str]:
    lines = ["flowchart LR"]
    lines += [f"    {name}([{name}])" for name in dict.fromkeys(phase.name for phase, _ in moves)]
    joined: dict[tuple[str, str], list[str]] = {}
    for (phase, word), move in moves.items():
        joined.setdefault((phase.name, move.__name__), []).append(word.name)
    return lines + [f"    {phase} -->|{' '.join(words)}| {move}_[{move}]" for (phase, move), words in joined.items()]


def _machine_notes(moves: Mapping[Any, Callable[..., Any]], ignored: Mapping[Any, str]) -> str:
    rows = ["| move | in words | facts it can write |", "|---|---|---|"]
    for move in dict.fromkeys(moves.values()):
        said = " ".join((move.__doc__ or "").split()).replace("|", "/")
        rows.append(f"| {move.__name__} | {said} | {' '.join(facts_named(move))} |")
    rows += ["", "A dot moves nothing, and says why:", ""]
    reasons: dict[tuple[str, str], list[str]] = {}
    for (phase, word), why in ignored.items():
        reasons.setdefault((phase.name, why), []).append(word.name)
    return "\n".join([*rows, *(f"- {phase}, {' '.join(words)}: {why}." for (phase, why), words in reasons.items()), ""])


def facts_named(move: Callable[..., Any]) -> list[str]:
    """Names of the facts that stand in `move` or in a function it calls, sorted: an upper bound of what it writes."""
    fact = importlib.import_module("device.txn.facts").Fact
    names: set[str] = set()
    seen: set[Any] = set()
    waiting = [move]
    while waiting:
        function = waiting.pop()
        if function in seen:
            continue
        seen.add(function)
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
            thing = _thing(node, function.__globals__)
            if inspect.isclass(thing) and issubclass(thing, fact) and thing is not fact:
                names.add(thing.__name__)
            elif inspect.isfunction(thing) and thing.__module__.startswith("device.txn"):
                waiting.append(thing)
    return sorted(names)


def _thing(node: ast.AST, names: Mapping[str, Any]) -> Any:
    """What a called name or `module.name` stands for, or None."""
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return names.get(node.func.id)
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        return getattr(names.get(node.func.value.id), node.func.attr, None)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
