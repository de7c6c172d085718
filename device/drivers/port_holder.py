"""Who else has a device open: for the sentence that names the other program.

Knows /proc.  Refuses to know what the device is, and never touches the other program.
"""

from __future__ import annotations

import os
from pathlib import Path


def holder_of(path: str, proc: str = "/proc") -> str:
    """`cupsd (process 812)` for another process that has the device at `path` open, "" when none can be seen.

    Another user's descriptors are hidden from a service without rights, so "" proves nothing.
    """
    try:
        wanted = os.stat(path)
    except OSError:
        return ""
    for folder in Path(proc).iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if any(_same(fd, wanted) for fd in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
        except OSError:
            continue                                   # gone meanwhile, or not ours to see
    return ""


def _same(fd: Path, wanted: os.stat_result) -> bool:
    try:
        found = fd.stat()
    except OSError:
        return False
    return (found.st_dev, found.st_ino, found.st_rdev) == (wanted.st_dev, wanted.st_ino, wanted.st_rdev)
