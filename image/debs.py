"""Debian's packages for another architecture, by an apt of our own: its own sources, lists and keys' place, nothing of the host's.

Knows how to fetch a package and to say what the archive offers; every file is checked by apt against the signed lists.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from image.commands import BuildError, run
from image.places import ARCH, cache, sha256

MIRROR = os.environ.get("TILLBOX_MIRROR", "http://deb.debian.org")
SUITE = "bookworm"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


def sources(components: str = "main", signed: bool = False) -> list[str]:
    """The archive's lines: the release and its security updates."""
    by = f"[signed-by={KEYS}] " if signed else ""
    return [f"deb {by}{MIRROR}/debian {SUITE} {components}",
            f"deb {by}{MIRROR}/debian-security {SUITE}-security {components}"]


class Deb(NamedTuple):
    name: str
    arch: str
    version: str
    sha256: str


class Apt:
    """One private apt below the cache.  `update()` once before the first question."""

    def __init__(self) -> None:
        self._home = cache() / "apt"
        for folder in ("lists/partial", "archives/partial", "etc"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        (self._home / "status").touch()
        # Raspberry Pi firmware is not free software: here, and nowhere in the host's sources.
        (self._home / "etc/sources.list").write_text("\n".join(sources("main non-free-firmware", signed=True)) + "\n")
        (self._home / "apt.conf").write_text("".join(f'{key} "{value}";\n' for key, value in {
            "Dir::State": self._home, "Dir::State::lists": self._home / "lists", "Dir::State::status": self._home / "status",
            "Dir::Cache": self._home, "Dir::Cache::archives": self._home / "archives", "Dir::Etc": self._home / "etc",
            "Dir::Etc::sourcelist": self._home / "etc/sources.list", "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::parts": "/dev/null", "Dir::Etc::preferencesparts": "/dev/null", "APT::Architecture": ARCH,
            "APT::Architectures": ARCH, "Acquire::Languages": "none", "APT::Sandbox::User": "root",
        }.items()))

    def _run(self, *argv: str, cwd: Path | None = None) -> str:
        return run(*argv, cwd=cwd, env={"APT_CONFIG": str(self._home / "apt.conf")})

    def update(self) -> None:
        """Read the archive's lists anew.  BuildError when it is not reachable and none were read before."""
        try:
            self._run("apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update")
        except BuildError as error:
            if not list((self._home / "lists").glob("*Packages*")):
                raise BuildError(f"Debian's archive is not reachable, and nothing was read from it before: {error}") from error

    def offered(self, names: list[str]) -> dict[tuple[str, str], Deb]:
        """By (name, version): every version of these that the archive offers now, each with the sha256 of its file."""
        found: dict[tuple[str, str], Deb] = {}
        for paragraph in self._run("apt-cache", "show", *names).split("\n\n") if names else []:
            said = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", paragraph, re.M))
            if {"Package", "Version", "SHA256"} <= said.keys():
                deb = Deb(said["Package"], said["Architecture"], said["Version"], said["SHA256"])
                found[deb.name, deb.version] = deb
        return found

    def newest(self, name: str) -> Deb:
        """The version the archive would install."""
        said = self._run("apt-cache", "policy", name)
        if not (found := re.search(r"^  Candidate: (\S+)$", said, re.M)) or found[1] == "(none)":
            raise BuildError(f"Debian's archive has no {name}")
        return self.offered([name])[name, found[1]]

    def _there(self, name: str, version: str) -> list[Path]:
        stem = f"{name}_{version.replace(':', '%3a')}_"
        return sorted(path for path in (self._home / "archives").iterdir() if path.name.startswith(stem) and path.suffix == ".deb")

    def holds(self, deb: Deb) -> bool:
        """Whether its file is in the cache."""
        return bool(self._there(deb.name, deb.version))

    def fetched(self, name: str, version: str) -> Path:
        """The file of this very version, from the cache or the archive."""
        if not (there := self._there(name, version)):
            self._run("apt-get", "-q", "download", f"{name}={version}", cwd=self._home / "archives")
            there = self._there(name, version)
        if not there:
            raise BuildError(f"apt brought no file for {name} {version}")
        return there[0]

    def checked(self, deb: Deb) -> Path:
        """As `fetched`, held against the lock's sha256."""
        path = self.fetched(deb.name, deb.version)
        if (found := sha256(path)) != deb.sha256:
            path.unlink()
            raise BuildError(f"{deb.name} {deb.version} is not the file of the lock: {found}, not {deb.sha256}")
        return path


def files_of(deb: Path, into: Path) -> Path:
    """The package's files, below `into`; nothing of it is run."""
    into.mkdir(parents=True, exist_ok=True)
    run("dpkg-deb", "-x", deb, into)
    return into
