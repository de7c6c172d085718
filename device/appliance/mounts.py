"""mount(2) and umount(2), without a program for each: a boot has six of them before its first sale."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

NOSUID, NODEV, NOEXEC, NOATIME, BIND, PRIVATE = 2, 4, 8, 1024, 4096, 1 << 18
CLOSED = NOSUID | NODEV | NOEXEC | NOATIME


def mount(source: str, target: Path, kind: str, options: str = "") -> None:
    """A file system of `kind` at `target`, from which nothing is run.  OSError."""
    _call("mount", source.encode(), os.fsencode(target), kind.encode(), CLOSED, options.encode())


def bind(inside: Path, at: Path) -> None:
    """`inside` is seen at `at`, and what is mounted below there is seen nowhere else.  OSError."""
    _call("mount", os.fsencode(inside), os.fsencode(at), None, BIND, None)
    _call("mount", None, os.fsencode(at), None, PRIVATE, None)


def umount(at: Path) -> None:
    """OSError."""
    _call("umount2", os.fsencode(at), 0)


def _call(name: str, *words: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    made = [ctypes.c_ulong(word) if isinstance(word, int) and name == "mount" else word for word in words]
    if getattr(libc, name)(*made) != 0:
        held = ctypes.get_errno()
        raise OSError(held, os.strerror(held), str(words[1 if name == "mount" else 0]))
