"""An initrd's archive (cpio, "newc"): the same bytes for the same contents, with no time, owner or inode of the builder.

Format: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """A file, a link (`data` is where it points) or a folder; `mode` as in stat, kind included."""

    mode: int
    data: bytes = b""


def folder() -> Entry:
    return Entry(stat.S_IFDIR | 0o755)


def file(data: bytes, mode: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | mode, data)


def link(target: str) -> Entry:
    return Entry(stat.S_IFLNK | 0o777, target.encode())


def archive(entries: Mapping[str, Entry]) -> bytes:
    """The archive of `entries`, path (no leading slash) to entry, in order of path; folders that are only implied are made."""
    whole = dict(entries)
    for path in entries:
        while "/" in path:
            path = path.rpartition("/")[0]
            whole.setdefault(path, folder())
    out = bytearray()
    for inode, (path, entry) in enumerate(sorted(whole.items()), 1):
        out += _member(path, entry, inode)
    out += _member("TRAILER!!!", Entry(0), 0)
    return bytes(out) + b"\0" * (-len(out) % 512)


def squeezed(data: bytes) -> bytes:
    """`data` in gzip, without name or time."""
    return gzip.compress(data, 9, mtime=0)


def _member(path: str, entry: Entry, inode: int) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return head + b"\0" * (-len(head) % 4) + entry.data + b"\0" * (-len(entry.data) % 4)
