"""The base tree: Debian's packages, installed for arm64 by mmdebstrap, as one tar in the cache.

Named by the hash of the package list, the lock and this recipe: the same names, the same tar, and minutes saved.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from image import emulation, lists, lock
from image.commands import run, say
from image.debs import SUITE, sources
from image.places import ARCH, cache

OPTIONS = (
    "--variant=minbase", f"--architectures={ARCH}",
    "--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\"",
    "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
)


def key(locked: lock.Lock | None) -> str:
    """16 hex digits that name the tree of this recipe and this lock."""
    beside = set(lists.names("packages.list", "unpacked"))
    inputs = [*OPTIONS, SUITE, *sorted(lists.names("packages.list", "tree"))]
    if locked is not None:
        inputs += [str(locked.epoch), *(" ".join(deb) for name, deb in sorted(locked.debs.items()) if name not in beside)]
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]


def built(locked: lock.Lock | None, epoch: int) -> Path:
    """The tree's tar, from the cache or made now (5 to 15 minutes: arm64 programs run under qemu-user)."""
    tar = cache() / f"tree-{key(locked)}.tar"
    if tar.exists():
        return tar
    say(f"making the base tree {tar.name}; this takes some minutes, once")
    part = tar.with_suffix(".part")
    part.unlink(missing_ok=True)
    try:
        with emulation.ready():
            run("mmdebstrap", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}", "--format=tar", *OPTIONS,
                f"--include={','.join(lists.names('packages.list', 'tree'))}", SUITE, part, *sources(), epoch=epoch)
        os.replace(part, tar)
    finally:
        part.unlink(missing_ok=True)
    return tar
