"""Arrows between source files, read with `ast`, and their breaches of the house plan.  Runs nothing that it reads.

An import counts wherever it stands: at the top, in a function, under `if TYPE_CHECKING`, or as a literal given to
`import_module`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from docs.floors import DRIVERS_SEEING_ALL, DRIVERS_SHARED, EXCEPTIONS, FLOORS, HEAVY, Floor

OURS = ("device", "fleet", "sim")
NOW = frozenset({"now", "utcnow", "today", "fromtimestamp"})


class Arrow(NamedTuple):
    """`source` leans on `target`, both paths below the repository; `target` is a bare module name when it is not ours."""

    source: str
    line: int
    target: str
    lazy: bool


class Breach(NamedTuple):
    source: str
    line: int
    target: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.sentence}"


def sources_of(root: Path) -> dict[str, str]:
    """Path below `root` to text, for every Python file of ours."""
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
            for package in OURS for path in sorted((root / package).rglob("*.py"))}


def floor_of(path: str) -> Floor | None:
    """The first floor one of whose patterns fits.  A `*` stays within its folder."""
    for floor in FLOORS:
        for pattern in floor.files:
            if pattern.count("/") == path.count("/") and fnmatchcase(path, pattern):
                return floor
    return None


def arrows_of(path: str, sources: Mapping[str, str]) -> list[Arrow]:
    """Every import in `path`, resolved against `sources`."""
    found = []
    for node, lazy in _nodes(ast.parse(sources[path])):
        for module, names in _imported(node, path):
            found += [Arrow(path, node.lineno, target, lazy) for target in _targets(module, names, sources)]
    return found


def breaches(sources: Mapping[str, str]) -> list[Breach]:
    """Every breach of the plan, exceptions left out; an exception that nothing needs is one too."""
    found, used = [], set()
    for path in sources:
        for breach in _breaches_of(path, sources):
            if (breach.source, breach.target) in EXCEPTIONS:
                used.add((breach.source, breach.target))
            else:
                found.append(breach)
    stale = [pair for pair in EXCEPTIONS if pair not in used and pair[0] in sources]
    return found + [Breach(source, 0, target, f"the exception for {target} is needed no more") for source, target in stale]


def circles(sources: Mapping[str, str]) -> set[tuple[str, ...]]:
    """Every set of files that lean on each other all around, lazily or for a type alone, too."""
    leans = {path: {arrow.target for arrow in arrows_of(path, sources)} & sources.keys() - {path} for path in sources}

    def reached(path: str) -> set[str]:
        found, todo = set[str](), list(leans[path])
        while todo:
            if (one := todo.pop()) not in found:
                found.add(one)
                todo += leans[one]
        return found

    reach = {path: reached(path) for path in leans}
    return {tuple(sorted(other for other in reach[path] if path in reach[other])) for path in reach if path in reach[path]}


def _breaches_of(path: str, sources: Mapping[str, str]) -> Iterator[Breach]:
    floor = floor_of(path)
    if floor is None:
        yield Breach(path, 0, "", "stands on no floor; give it one in docs/floors.py")
        return
    for arrow in arrows_of(path, sources):
        sentence = _sentence(floor, arrow)
        if sentence:
            yield Breach(path, arrow.line, arrow.target if arrow.target.endswith(".py") else arrow.target.split(".")[0], sentence)
    if floor.never:
        yield from _names(floor, path, sources[path])


def _sentence(floor: Floor, arrow: Arrow) -> str:
    """Why this arrow may not be, or nothing."""
    target = floor_of(arrow.target) if arrow.target.endswith(".py") else None
    if target is None:
        top = arrow.target.split(".")[0]
        if {top, arrow.target} & floor.never:
            return f"{floor.room} may not import {arrow.target}"
        if floor.third is not None and top not in sys.stdlib_module_names and top not in floor.third:
            return f"{floor.room} takes nothing from outside the standard library but {', '.join(sorted(floor.third))}: {top}"
        if arrow.source.startswith("device/") and {top, arrow.target} & HEAVY and not arrow.lazy:
            return f"{arrow.target} is heavy: import it inside the function that needs it"
        return ""
    if target.room == "ground":
        return _pure_half(floor, arrow)
    if target.room == floor.room:
        return "" if _neighbours(arrow) else f"a driver leans on another: {arrow.target}"
    if target.room not in floor.may:
        where = "up" if target.number > floor.number else "across" if target.number == floor.number else "past its floor"
        return f"{floor.room} leans {where} on {arrow.target} ({target.room})"
    return ""


def _pure_half(floor: Floor, arrow: Arrow) -> str:
    """The core decides what time it is from the stamp and what the shop wants from its terms, never from these two."""
    if floor.room in ("core", "vocabulary") and arrow.target in ("device/clock.py", "device/config.py"):
        return f"{floor.room} knows neither clock nor config object: {arrow.target}"
    return ""


def _neighbours(arrow: Arrow) -> bool:
    """Whether an arrow inside one room is allowed: only drivers are kept apart, and console, broker and drivers from each other."""
    if floor_of(arrow.source) != floor_of(arrow.target) or floor_of(arrow.source).room != "outside":  # type: ignore[union-attr]
        return True
    if arrow.target in DRIVERS_SHARED or arrow.source in DRIVERS_SEEING_ALL:
        return True
    folder, _, name = arrow.source.rpartition("/")
    if folder != arrow.target.rpartition("/")[0]:
        return False
    if folder not in ("device/drivers", "device/drivers/channels"):
        return True                                   # a room of one kind of driver
    return _family(name) == _family(arrow.target.rpartition("/")[2])


def _family(name: str) -> str:
    return name.removesuffix(".py").split("_")[0]


def _names(floor: Floor, path: str, text: str) -> Iterator[Breach]:
    """Built-ins and methods that reach outside without an import: `open(...)`, `x.open(...)`, `datetime.now()`."""
    for node, _ in _nodes(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if isinstance(node.func, ast.Name) and name in floor.never and name in ("open", "print"):
            yield Breach(path, node.lineno, name, f"{floor.room} may not call {name}()")
        elif isinstance(node.func, ast.Attribute) and name == "open" and "open" in floor.never:
            yield Breach(path, node.lineno, name, f"{floor.room} may not open anything")
        elif isinstance(node.func, ast.Attribute) and name in NOW and _is_datetime(node.func.value) and not node.args:
            yield Breach(path, node.lineno, name, f"{floor.room} may not read the clock: {ast.unparse(node.func)}()")


def _is_datetime(node: ast.expr) -> bool:
    return ast.unparse(node).split(".")[-1] in ("datetime", "date")


def _nodes(tree: ast.AST, lazy: bool = False) -> Iterator[tuple[ast.stmt | ast.expr, bool]]:
    """Every statement and call, with whether it runs only later: in a function, or never, for a type checker.

    What stands under `if __name__ == "__main__"` is a program of its own and left out.
    """
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "__name__ == '__main__'":
            continue
        later = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            later = True
        if isinstance(child, ast.stmt | ast.expr):
            yield child, later
        yield from _nodes(child, later)


def _imported(node: ast.stmt | ast.expr, path: str) -> Iterator[tuple[str, list[str]]]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name, []
    elif isinstance(node, ast.ImportFrom):
        folder = path.split("/")[:-1]
        base = folder[: len(folder) - node.level + 1] if node.level else []
        yield ".".join([*base, *filter(None, [node.module])]), [alias.name for alias in node.names]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        if node.args and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str):
            yield node.args[0].value, []


def _targets(module: str, names: list[str], sources: Mapping[str, str]) -> list[str]:
    """Files behind an import of ours (`from device.txn import record` is record.py), else the module's own name."""
    if module.split(".")[0] not in OURS:
        return [module]
    base = module.replace(".", "/")
    if f"{base}.py" in sources:
        return [f"{base}.py"]
    inner = [f"{base}/{name}.py" for name in names if f"{base}/{name}.py" in sources]
    return inner or [f"{base}/__init__.py" if f"{base}/__init__.py" in sources else f"{base}.py"]
