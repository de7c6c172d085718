"""The first boot: what the person who flashed the card laid into `tillbox/` of the boot partition is taken over, once.

| file | becomes |
|---|---|
| `box.toml` | /etc/tillbox/box.toml; without one the box gets a configuration that waits for its enrolment |
| `enrol` | two lines, HOST:PORT of the enrolment listener and the one-use code: kept until the box is enrolled |
| `wifi.conf` | wpa_supplicant's `network={...}` blocks, for wlan0 |
| `state/` | files for the state folder: `prices.csv`, `ca.pem`, `gateway.key` |

Each file is on the data partition before it is overwritten with zeros and removed here, so a cut leaves it in one place at least.
A card's own controller may keep an old copy of what was overwritten: whoever has such a card in hand may find it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

FOLDER = "tillbox"
FILE_BYTES_MAX, FILES_MAX = 4 << 20, 64
WIFI_HEAD = b"ctrl_interface=/run/wpa_supplicant\nupdate_config=0\n"
WAITS = """\
# Written at the first boot: nothing is set up yet.  The box waits for its enrolment code.  Every key: docs/config.md.
"""


class Taken:
    """Takes what lies in `boot`/tillbox; `root` is above /etc and /var, `owner` the till's user."""

    def __init__(self, boot: Path, root: Path = Path("/"), owner: str = "tillbox") -> None:
        self._folder, self._root, self._owner = boot / FOLDER, root, owner
        self.told: list[str] = []

    def run(self) -> None:
        """OSError when a card fails; what was not taken over yet then waits for the next boot."""
        for source, target, raw in list(self._found()):
            self._kept(target, raw)
            wipe(source)
            self.told.append(f"took {source.relative_to(self._folder)} from the boot partition")
        config = self._root / "etc/tillbox/box.toml"
        if not config.exists():
            self._kept(config, WAITS.encode())
            self.told.append("no box.toml: the box waits for its enrolment code")

    def _found(self) -> Iterator[tuple[Path, Path, bytes]]:
        etc, state = self._root / "etc", self._root / "var/lib/tillbox"
        ours = {"box.toml": etc / "tillbox/box.toml", "enrol": state / "enrol.wanted",
                "wifi.conf": etc / "wpa_supplicant/wpa_supplicant-wlan0.conf"}
        names = {name.lower(): name for name in _names(self._folder)}          # FAT may tell names in capitals
        for name, target in ours.items():
            if name in names:
                source = self._folder / names[name]
                raw = _read(source)
                if raw is not None:
                    yield source, target, WIFI_HEAD + raw if name == "wifi.conf" else raw
        more = self._folder / names.get("state", "state")
        for name in _names(more)[:FILES_MAX]:
            raw = None if name.startswith(".") or name in ("journal.db", "record.key") else _read(more / name)
            if raw is not None:
                yield more / name, state / name, raw

    def _kept(self, target: Path, raw: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(fd)
        if os.geteuid() == 0 and "wpa_supplicant" not in target.parts:
            try:
                shutil.chown(draft, self._owner, self._owner)
            except LookupError:
                pass                                                          # a test's machine has no such user
        os.replace(draft, target)
        _synced(target.parent)


def wipe(path: Path) -> None:
    """Zeros over the file's own bytes, on the card, then away with it."""
    with path.open("r+b") as file:
        left = os.fstat(file.fileno()).st_size
        while left > 0:
            left -= file.write(bytes(min(left, 65_536)))
        file.flush()
        os.fsync(file.fileno())
    path.unlink()
    _synced(path.parent)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> bytes | None:
    """A plain file of a size that makes sense; None for anything else."""
    if not path.is_file() or path.is_symlink() or path.stat().st_size > FILE_BYTES_MAX:
        return None
    return path.read_bytes()


def _synced(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
