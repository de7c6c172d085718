"""The root in the making: entries by path, without unpacking anything, so that no owner, time or mode of the builder's creeps in.

Knows tar on both ends: Debian's tree goes in, one sorted tar with fixed times comes out.
"""

from __future__ import annotations

import fnmatch
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LATE = ("opt/tillbox/lib", "usr/lib/tillbox/")               # ours: another with every release
KEPT_PAX = ("SCHILY.xattr.security.capability",)


class Root:
    """A file system as a table.  Paths have no leading slash; links' targets are as written."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._entries: dict[str, tuple[tarfile.TarInfo, bytes | tarfile.TarFile]] = {}

    def take(self, tree: Path) -> None:
        """Every entry of a tar file.  Files stay where they are until written; hard links become files of their own."""
        tar = tarfile.open(tree)                             # noqa: SIM115 - read from until the root is written
        for member in tar:
            path = member.name.removeprefix("./").strip("/")
            if member.islnk():
                linked = tar.getmember(member.linkname)
                linked, member = member, linked
                clone = tarfile.TarInfo(linked.name)
                clone.mode, clone.uid, clone.gid, clone.size = member.mode, member.uid, member.gid, member.size
                clone.offset_data = member.offset_data
                member = clone
            if path and path != ".":
                self._entries[path] = member, tar

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def paths(self) -> list[str]:
        return sorted(self._entries)

    def link(self, path: str) -> str | None:
        """The target, when `path` is a symbolic link."""
        entry = self._entries.get(path)
        return entry[0].linkname if entry and entry[0].issym() else None

    def read(self, path: str) -> bytes:
        """A file's bytes.  KeyError when it is not there, or no file."""
        info, source = self._entries[path]
        if not info.isfile():
            raise KeyError(path)
        if isinstance(source, bytes):
            return source
        source.fileobj.seek(info.offset_data)                # type: ignore[union-attr]
        return source.fileobj.read(info.size)                # type: ignore[union-attr]

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        info = self._new(path, tarfile.REGTYPE, mode)
        info.size = len(content)
        self._entries[path] = info, content

    def symlink(self, path: str, target: str) -> None:
        info = self._new(path, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        self._entries[path] = info, b""

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._entries[path] = self._new(path, tarfile.DIRTYPE, mode), b""

    def _new(self, path: str, kind: bytes, mode: int) -> tarfile.TarInfo:
        """An entry of root's; folders above it are made."""
        above = path.rpartition("/")[0]
        if above and above not in self._entries:
            self.folder(above)
        info = tarfile.TarInfo(path)
        info.type, info.mode = kind, mode
        return info

    def drop(self, *patterns: str) -> list[str]:
        """Take out what the patterns match (`*` passes slashes), and what lies below.  The paths that went."""
        gone = [path for path in self._entries if any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)]
        for path in gone:
            del self._entries[path]
        return gone

    def sizes(self, depth: int = 3) -> Iterator[tuple[str, int]]:
        """Bytes of files below each folder, that many names deep."""
        total: dict[str, int] = {}
        for path, (info, _) in self._entries.items():
            if info.isfile():
                head = "/".join(path.split("/")[:depth])
                total[head] = total.get(head, 0) + info.size
        yield from total.items()

    def write(self, out: BinaryIO) -> None:
        """One tar, every time the build's, sorted by path; what changes most stands last, so that an update changes the least."""
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for path in sorted(self._entries, key=lambda path: (path.startswith(LATE), path)):
                info, _ = self._entries[path]
                fresh = tarfile.TarInfo(path)
                fresh.type = tarfile.REGTYPE if info.isfile() else info.type
                fresh.mode, fresh.uid, fresh.gid, fresh.size = info.mode, info.uid, info.gid, info.size if info.isfile() else 0
                fresh.linkname, fresh.devmajor, fresh.devminor = info.linkname, info.devmajor, info.devminor
                fresh.mtime = self._epoch
                fresh.pax_headers = {key: value for key, value in info.pax_headers.items() if key in KEPT_PAX}
                tar.addfile(fresh, io.BytesIO(self.read(path)) if info.isfile() else None)
