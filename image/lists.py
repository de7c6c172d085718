"""The lists of what goes into the image: a name and its reason on every line.  Pure: text in, values out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class ListError(ValueError):
    """A line of a list that says no name or no reason, or says it twice; names the file and the line."""


class Line(NamedTuple):
    section: str                 # the last `[section]` above it, or ""
    name: str
    reason: str


def lines(text: str, called: str = "list") -> list[Line]:
    """Every `name   # reason` of a list, in order.  ListError for a line without a reason, or a name said twice in its section."""
    found: list[Line] = []
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            continue
        name, sharp, reason = (part.strip() for part in line.partition("#"))
        if not sharp or not reason:
            raise ListError(f"{called}:{number}: {name} has no reason")
        if not name or " " in name:
            raise ListError(f"{called}:{number}: one name a line")
        if any((one.section, one.name) == (section, name) for one in found):
            raise ListError(f"{called}:{number}: {name} is there already")
        found.append(Line(section, name, reason))
    return found


def names(file: str, section: str = "") -> list[str]:
    """The names of one section of `image/FILE`."""
    return [line.name for line in lines((HERE / file).read_text(), file) if line.section == section]
