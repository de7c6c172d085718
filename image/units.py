"""Which file of `systemd/` goes where, and what it means that a unit is enabled.  Pure: text in, values out.

`systemd/MANIFEST` says it for the image and for the .deb alike.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Placed(NamedTuple):
    file: str                    # below systemd/
    place: str                   # path in the root, no leading slash


class Manifest(NamedTuple):
    everywhere: list[Placed]
    image: list[Placed]
    enabled: list[str]
    masked: list[str]
    links: dict[str, str]        # path in the root: target


def parsed(text: str) -> Manifest:
    """ValueError names a line of another shape."""
    found = Manifest([], [], [], [], {})
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] in ("all", "image") and len(words) == 3:
            place = words[2].lstrip("/")
            (found.everywhere if words[0] == "all" else found.image).append(
                Placed(words[1], place + words[1].rpartition("/")[2] if place.endswith("/") else place))
        elif words[0] == "enable":
            found.enabled.extend(words[1:])
        elif words[0] == "mask":
            found.masked.extend(words[1:])
        elif words[0] == "link" and len(words) == 3:
            found.links[words[1].lstrip("/")] = words[2]
        else:
            raise ValueError(f"systemd/MANIFEST: {line}")
    return found


def template(unit: str) -> str:
    """The file that holds a unit: `a@b.service` stands in `a@.service`."""
    return re.sub(r"@[^.]+(\.[a-z]+)$", r"@\1", unit)


def links(unit: str, text: str) -> dict[str, list[str]]:
    """What `systemctl enable` would link for a unit file: folder or alias, and the units its [Install] asks for besides.

    Keys: `links` (names below /etc/systemd/system), `also` (units to enable too).
    """
    instance = match[1] if (match := re.search(r"@([^.]*)\.", unit)) else ""
    install = text.partition("[Install]")[2]
    said: dict[str, list[str]] = {"links": [], "also": []}
    for key, value in re.findall(r"^(WantedBy|RequiredBy|Alias|Also)=(.*)$", install, re.M):
        for name in value.split():
            name = name.replace("%i", instance).replace("%I", instance)
            if key == "Also":
                said["also"].append(name)
            elif key == "Alias":
                said["links"].append(name)
            else:
                said["links"].append(f"{name}.{'wants' if key == 'WantedBy' else 'requires'}/{unit}")
    return said
