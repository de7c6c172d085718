"""Blobs on disk: chunks in any order, over any number of connections and boots, and nothing used before its digest holds.

Knows a folder, digests and chunk numbers; refuses to know topics and what a blob is.  Only what a signed document names is
taken, so that a stranger on the line fills no card.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from device.mqtt.config_wire import CHUNK_BYTES, WANT_RANGES_MAX, Blob, Delta, chunks_of
from device.mqtt.delta_wire import delta_applied

log = logging.getLogger("tillbox")

ROOM_MIN_BYTES = 64 * 1024 * 1024     # left on the card for the journal, whatever is pushed


class Blobs:
    """Blobs below `folder`; `wanted` are those that chunks are taken of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.unasked = 0                          # chunks that nobody wanted, or of a wrong size
        self.spoilt = 0                           # blobs whose digest did not hold
        self._wanted: dict[str, int] = {}         # sha256 to bytes
        self._useless: set[str] = set()           # deltas that did not lead to their blob

    def path(self, sha256: str) -> Path:
        return self.folder / sha256

    def has(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def want(self, blobs: Iterable[Blob]) -> dict[str, tuple[tuple[int, int], ...]]:
        """What is missing of `blobs`: ranges of chunks by digest, of a delta where one leads there; {} when all chunks are here.

        OSError when the card has no room for them.
        """
        before, self._wanted = self._wanted, {}
        for blob in blobs:
            if not self.has(blob.sha256):
                way = self._way(blob)
                self._wanted[way.sha256] = way.bytes
        if self._wanted.keys() - before.keys() and self._room() < sum(self._wanted.values()) + ROOM_MIN_BYTES:
            raise OSError(f"the card has no room for {sum(self._wanted.values())} bytes more")
        missing = {sha256: _ranges(self._have(sha256, size)) for sha256, size in self._wanted.items() if not self.has(sha256)}
        return {sha256: ranges for sha256, ranges in missing.items() if ranges}

    def chunk(self, sha256: str, n: int, data: bytes) -> bool:
        """Take chunk `n`; True when it was one that was missing.

        Nothing is forced to the card here, for a sale may be going on: what a cut takes is asked for again.
        """
        size = self._wanted.get(sha256)
        if size is None or self.has(sha256) or n >= chunks_of(size) or len(data) != min(CHUNK_BYTES, size - n * CHUNK_BYTES):
            self.unasked += 1
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._have(sha256, size)[n]:
            return False
        _put(self._part(sha256), n * CHUNK_BYTES, data)
        _put(self._marks(sha256), n, b"\1")
        return True

    def finish(self, blobs: Iterable[Blob]) -> bool:
        """Check and put in place those whose chunks are all here, and make those that a delta leads to; True when none is left.

        Takes as long as the card needs for whole files: to be called while nobody stands at the counter.
        """
        blobs = tuple(blobs)
        for sha256, size in self._wanted.items():
            if not self.has(sha256) and all(self._have(sha256, size)):
                self._finished(sha256)
        for blob in blobs:
            for delta in blob.deltas:
                if not self.has(blob.sha256) and self.has(delta.sha256) and self.has(delta.base):
                    self._build(blob, delta)
        return all(self.has(blob.sha256) for blob in blobs)

    def trim(self, keep: set[str]) -> None:
        """Forget every blob but those of `keep`, and every part but of what is wanted."""
        for path in self.folder.glob("*") if self.folder.exists() else ():
            if path.name not in keep and path.stem not in self._wanted:
                path.unlink(missing_ok=True)

    def _way(self, blob: Blob) -> Blob | Delta:
        fits = [delta for delta in blob.deltas
                if self.has(delta.base) and delta.sha256 not in self._useless and delta.bytes < blob.bytes]
        return min(fits, key=lambda delta: delta.bytes, default=blob)

    def _finished(self, sha256: str) -> None:
        part = self._part(sha256)
        with open(part, "rb") as file:
            holds = hashlib.file_digest(file, "sha256").hexdigest() == sha256
            os.fsync(file.fileno())
        self._marks(sha256).unlink(missing_ok=True)
        if holds:
            os.replace(part, self.path(sha256))
            return
        log.warning("blob %.12s came damaged, it is asked for again", sha256)
        self.spoilt += 1
        part.unlink()

    def _build(self, blob: Blob, delta: Delta) -> None:
        try:
            whole = delta_applied(self.path(delta.base).read_bytes(), self.path(delta.sha256).read_bytes(), blob.bytes)
            if hashlib.sha256(whole).hexdigest() != blob.sha256:
                raise ValueError("it leads to another file")
        except ValueError as why:
            log.warning("delta %.12s is of no use: %s", delta.sha256, why)
            self._useless.add(delta.sha256)
            return
        part = self._part(blob.sha256)
        part.unlink(missing_ok=True)
        _put(part, 0, whole)
        self._finished(blob.sha256)

    def _have(self, sha256: str, size: int) -> bytearray:
        have = bytearray(chunks_of(size))
        try:
            marks = self._marks(sha256).read_bytes() if self._part(sha256).exists() else b""
        except FileNotFoundError:
            marks = b""
        have[:] = marks[:len(have)].ljust(len(have), b"\0")
        return have

    def _part(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.part"

    def _marks(self, sha256: str) -> Path:
        return self.folder / f"{sha256}.have"

    def _room(self) -> int:
        folder = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        stat = os.statvfs(folder)
        return stat.f_bavail * stat.f_frsize


def _put(path: Path, at: int, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(file, data, at)
    finally:
        os.close(file)


def _ranges(have: bytearray) -> tuple[tuple[int, int], ...]:
    ranges: list[tuple[int, int]] = []
    for n, here in enumerate(have):
        if here:
            continue
        if ranges and ranges[-1][1] == n - 1:
            ranges[-1] = (ranges[-1][0], n)
        elif len(ranges) < WANT_RANGES_MAX:
            ranges.append((n, n))
        else:
            break
    return tuple(ranges)
