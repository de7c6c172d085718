"""Who holds a port: the processes that have a device open, or a line to a printer, as /proc tells it.

Refuses to know what the device is, and touches neither it nor them.  Another user's descriptors are hidden from a service without
rights: nobody found proves nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

MEMORY_MAJOR = 1                         # linux/major.h
ESTABLISHED = "01"                       # linux/tcp_states.h


class Holder(NamedTuple):
    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid})"


def holder_of(path: str) -> str:
    """`cupsd (process 812)` for another process that has the device at `path` open, "" when none can be seen."""
    return next((str(holder) for holder in holders_of_file(Path("/"), path)), "")


def holders_of_file(root: Path, path: str) -> Iterator[Holder]:
    """Other processes that have `path` open; of a node its device counts, whatever name it was opened by."""
    real = os.path.realpath(path)
    try:
        wanted = _device(os.stat(real))
    except OSError:
        wanted = None
    if wanted is not None and len(wanted) == 1 and os.major(wanted[0]) == MEMORY_MAJOR:
        return                                           # /dev/null and its like are everybody's
    yield from _with(root, lambda fd: _target(fd) == real or (wanted is not None and _open_as(fd) == wanted))


def holders_of_line(root: Path, host: str, port: int) -> Iterator[Holder]:
    """Other processes of this machine with a standing TCP connection to `host`:`port`."""
    try:
        address = socket.inet_aton(socket.gethostbyname(host))
    except OSError:
        return
    far = f"{int.from_bytes(address, 'little'):08X}:{port:04X}"
    inodes = {words[9] for words in _lines(root / "proc/net/tcp") if len(words) > 9 and words[2] == far and words[3] == ESTABLISHED}
    inodes.discard("0")
    if inodes:
        yield from _with(root, lambda fd: (there := _target(fd))[:8] == "socket:[" and there[8:-1] in inodes)


def _with(root: Path, wanted: Callable[[Path], bool]) -> Iterator[Holder]:
    for process in sorted((root / "proc").glob("[0-9]*"), key=lambda p: int(p.name)):
        if int(process.name) == os.getpid():
            continue
        try:
            if any(wanted(fd) for fd in (process / "fd").iterdir()):
                yield Holder(int(process.name), _program(process))
        except OSError:                                  # it ended, or is not ours to look into
            continue


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except OSError:
        return ""


def _open_as(fd: Path) -> tuple[int, ...] | None:
    try:
        return _device(fd.stat())
    except OSError:
        return None


def _device(of: os.stat_result) -> tuple[int, ...]:
    """What makes two names one thing: of a node its device number, of a file its place on the disk."""
    return (of.st_rdev,) if of.st_rdev else (of.st_dev, of.st_ino)


def _program(process: Path) -> str:
    """What was started, and the script when that is only an interpreter."""
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        words = []
    names = [Path(word.decode(errors="replace")).name for word in words if word]
    if names and names[0].startswith(("python", "perl", "sh", "bash")):
        script = next((name for name in names[1:] if not name.startswith("-")), "")
        return f"{names[0]} {script}".strip()[:60]
    return names[0][:60] if names else "another program"


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text().splitlines()[1:]]
    except OSError:
        return []
