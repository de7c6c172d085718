"""The bytes that an update touches: the other slot, this one, the boot state, and a folder of small files.

Knows descriptors and what the kernel keeps back; refuses to know what stands in the bytes.  A write is on the card after `sync`, a
file of the folder when `keep` returns: whole, or the one before.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol


class Card(Protocol):
    """`name` is "other", "this" or "state".  OSError when the card fails."""

    def size(self, name: str) -> int:
        """Bytes there; 0 when there is no such device."""
        ...

    def read(self, name: str, at: int, size: int) -> bytes: ...

    def write(self, name: str, at: int, data: bytes) -> None: ...

    def sync(self, name: str) -> None:
        """What was written is on the card, and what is read next comes from there."""
        ...

    def kept(self, file: str) -> bytes | None: ...

    def keep(self, file: str, data: bytes) -> None: ...

    def drop(self, file: str) -> None: ...


class Devices:
    """The real one: `places` by name, small files below `folder`."""

    def __init__(self, places: dict[str, Path], folder: Path) -> None:
        self._places, self._folder = places, folder
        self._open: dict[str, int] = {}

    def size(self, name: str) -> int:
        try:
            return os.lseek(self._file(name), 0, os.SEEK_END)
        except FileNotFoundError:
            return 0

    def read(self, name: str, at: int, size: int) -> bytes:
        parts = []
        while size and (part := os.pread(self._file(name), size, at)):
            parts.append(part)
            at, size = at + len(part), size - len(part)
        return b"".join(parts)

    def write(self, name: str, at: int, data: bytes) -> None:
        while data:
            count = os.pwrite(self._file(name), data, at)
            at, data = at + count, data[count:]

    def sync(self, name: str) -> None:
        file = self._file(name)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)

    def kept(self, file: str) -> bytes | None:
        try:
            return (self._folder / file).read_bytes()
        except FileNotFoundError:
            return None

    def keep(self, file: str, data: bytes) -> None:
        fresh = self._folder / f"{file}.new"
        with open(fresh, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, self._folder / file)
        self._settled()

    def drop(self, file: str) -> None:
        (self._folder / file).unlink(missing_ok=True)
        self._settled()

    def close(self) -> None:
        for file in self._open.values():
            os.close(file)
        self._open.clear()

    def _file(self, name: str) -> int:
        if name not in self._open:
            how = os.O_RDONLY if name == "this" else os.O_RDWR
            self._open[name] = os.open(self._places[name], how | os.O_CLOEXEC)
        return self._open[name]

    def _settled(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
