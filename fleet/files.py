"""Files that another program may be waiting for: whole or not at all, on the disk before anyone sees them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def written(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """`path` holds `content` afterwards, or what it held before."""
    temporary = _beside(path, content, mode)
    os.replace(temporary, path)
    _kept(path.parent)


def made(path: Path, content: bytes | str, *, mode: int = 0o600) -> None:
    """A new file; FileExistsError, having changed nothing, when `path` is there already."""
    temporary = _beside(path, content, mode)
    try:
        os.link(temporary, path)
    finally:
        os.unlink(temporary)
    _kept(path.parent)


def _beside(path: Path, content: bytes | str, mode: int) -> str:
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(content.encode() if isinstance(content, str) else content)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            os.unlink(file.name)
            raise
    return file.name


def _kept(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
