"""What Debian's package database in the tree says: names, versions, licences.  Pure: text in, values out."""

from __future__ import annotations

import re
from typing import NamedTuple


class Installed(NamedTuple):
    name: str
    version: str
    arch: str
    source: str
    homepage: str


def installed(status: str) -> list[Installed]:
    """Every installed package of a `status` file, sorted by name."""
    found = []
    for paragraph in status.split("\n\n"):
        said: dict[str, str] = dict(re.findall(r"^([A-Za-z-]+): *(.*)$", paragraph, re.M))
        if said.get("Status", "").endswith(" installed"):
            found.append(Installed(said["Package"], said["Version"], said["Architecture"],
                                   said.get("Source", said["Package"]).split(" ")[0], said.get("Homepage", "")))
    return sorted(found)


def licences(copyright_file: str) -> list[str]:
    """The licences a machine-readable copyright file names, as Debian calls them; none of a file in free words."""
    if not copyright_file.lstrip().startswith(("Format:", "Format-Specification:")):
        return []
    found = set()
    for line in re.findall(r"^License: *(\S.*)$", copyright_file, re.M):
        for word in re.split(r"\s+(?:and|or|and/or)\s+|[,|]\s*(?:and |or )?", line.strip()):
            if re.fullmatch(r"[A-Za-z0-9.+~-]+", word.strip()):
                found.add(word.strip())
    return sorted(found)
