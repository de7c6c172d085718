"""Python's packages for the box: wheels, each pinned by the hashes of requirements.lock.  Knows how to bring and to unpack them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from image import lists
from image.commands import BuildError, run, say
from image.places import ARCH, REPOSITORY, cache

# What Debian 12's glibc (2.36) can load, best first; pip takes the first that a package has.
GLIBCS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
MACHINES = {"arm64": "aarch64", "amd64": "x86_64"}           # Debian's word: PyPI's


def platforms(arch: str) -> list[str]:
    return [*(f"{glibc}_{MACHINES[arch]}" for glibc in GLIBCS), "any"]


# Left out of a wheel: its tests, its command's scripts, what only a compiler reads.
UNWANTED = re.compile(r"(^|/)(tests?|testing)/|\.(pyx|pxd|c|h|pyi|a)$|\.data/scripts/"
                      r"|/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(lock: str, names: list[str]) -> str:
    """The entries of these packages, with all their hashes, out of requirements.lock.  BuildError for one that is not in it."""
    entries = {canonical(entry.split("==")[0]): entry for entry in re.split(r"\n(?=[a-z0-9A-Z])", "\n" + lock)[1:]}
    if missing := [name for name in names if name not in entries]:
        raise BuildError(f"not in requirements.lock: {', '.join(missing)}")
    rows = [line for name in names for line in entries[name].splitlines() if line and not line.lstrip().startswith("#")]
    return "\n".join(rows) + "\n"


def fetched(arch: str = ARCH) -> list[Path]:
    """The wheels, sorted by name, from a cache folder named by the pinned entries."""
    text = pinned((REPOSITORY / "requirements.lock").read_text(), lists.names("wheels.list", "wheels"))
    folder = cache() / f"wheels-{hashlib.sha256((text + repr(platforms(arch))).encode()).hexdigest()[:16]}"
    if not folder.exists():
        say(f"fetching the wheels for {arch}")
        with tempfile.TemporaryDirectory(dir=cache()) as place:
            wanted = Path(place) / "wanted.txt"
            wanted.write_text(text)
            python = REPOSITORY / ".venv/bin/python"
            run(python, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", "--require-hashes",
                "--only-binary=:all:", "--implementation=cp", "--python-version=3.11",
                *(f"--abi={abi}" for abi in ("cp311", "abi3", "none")), *(f"--platform={name}" for name in platforms(arch)),
                "-d", Path(place) / "wheels", "-r", wanted,
                env={key: os.environ[key] for key in os.environ if key.startswith("PIP_")})
            shutil.move(Path(place) / "wheels", folder)
    return sorted(folder.glob("*.whl"))


def unpacked(wheels: list[Path], into: Path) -> None:
    """Their files as a `site-packages` folder, less what a box never reads."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                if name.endswith("/") or UNWANTED.search(name):
                    continue
                # A wheel may put files beside its packages: `NAME.data/purelib/...` is where they belong.
                target = re.sub(r"^[^/]+\.data/(purelib|platlib)/", "", name)
                if ".data/" in target:
                    continue
                path = into / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))
