"""Who is who on the demo's line: its own authority, and certificates for collector, courier, enrolment desk and whoever notes
messages down.  Boxes get theirs by `enrolment.py`.

Knows names and folders; refuses to know the line.  What is past two thirds of its time is made anew at the next start.
"""

from __future__ import annotations

from pathlib import Path

from fleet.identity.ca import Authority, CaError

COLLECTOR, COURIER, DESK, RECORDER = "_collector/c1", "_courier/courier1", "_collector/desk", "_collector/recorder"


class Certificates:
    """In `folder`, the counter's."""

    def __init__(self, folder: Path, tenant: str) -> None:
        self._folder, self._tenant = folder, tenant
        try:
            self.authority = Authority(folder / "ca")
        except CaError:
            self.authority = Authority.made(folder / "ca", tenant)
        if self.authority.due("127.0.0.1"):
            self.authority.broker(["127.0.0.1"])
        for name in (COLLECTOR, COURIER, DESK):
            self.give(name)

    def full(self, name: str) -> str:
        """The user's name at the broker."""
        return f"{self._tenant}/{name}"

    def give(self, name: str) -> Path:
        """The folder with what `name` proves itself by, made if it has to be."""
        own = certificate(self._folder, name)
        if self.authority.due(self.full(name)):
            self.authority.client(self.full(name), own, use=name.partition("/")[0].lstrip("_"))
        return own


def certificate(folder: Path, name: str) -> Path:
    """Where the certificate of `name` and its key lie, if it was given one."""
    return folder / "tls" / name.rpartition("/")[2]
