"""The lock: which version of which Debian package the image was last made of, and of what date.  Pure but for reading its file.

`debian.lock` is one line a package: name, architecture, version, sha256 of the package file.  Its date is the build's only clock
reading: it is the time of every file, and the earliest that a box without a battery believes.
"""

from __future__ import annotations

import calendar
import re
import time
from typing import NamedTuple

from image.debs import Deb
from image.places import HERE

FILE = HERE / "debian.lock"
HEAD = "# Debian's packages in the image: name, architecture, version, sha256.  Written by `make image ARGS=--lock`."


class Lock(NamedTuple):
    epoch: int                                   # seconds since 1970
    debs: dict[str, Deb]


def parsed(text: str) -> Lock:
    """ValueError for a line of another shape, or no date."""
    debs: dict[str, Deb] = {}
    epoch = None
    for line in text.splitlines():
        if found := re.fullmatch(r"# date: (\S+)", line):
            epoch = calendar.timegm(time.strptime(found[1], "%Y-%m-%dT%H:%M:%SZ"))
        elif line and not line.startswith("#"):
            deb = Deb(*line.split())
            if not re.fullmatch(r"[0-9a-f]{64}", deb.sha256):
                raise ValueError(f"debian.lock: no sha256 in: {line}")
            debs[deb.name] = deb
    if epoch is None:
        raise ValueError("debian.lock: no date")
    return Lock(epoch, debs)


def written(lock: Lock) -> str:
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(lock.epoch))
    return "\n".join([HEAD, f"# date: {date}", *(" ".join(deb) for _, deb in sorted(lock.debs.items()))]) + "\n"


def read() -> Lock:
    return parsed(FILE.read_text())


def moved(lock: dict[str, Deb], found: dict[str, str]) -> list[str]:
    """One sentence for each package of the tree (name to version) that is not the lock's."""
    said = []
    for name in sorted(lock.keys() | found.keys()):
        if name not in found:
            said.append(f"{name} {lock[name].version} is in the lock and not in the tree")
        elif name not in lock:
            said.append(f"{name} {found[name]} is in the tree and not in the lock")
        elif lock[name].version != found[name]:
            said.append(f"{name} moved from {lock[name].version} to {found[name]}")
    return said
