"""Programs for arm64 on another processor, for as long as the tree is made.  Whatever was switched on is switched off again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from image.commands import BuildError, run, say
from image.places import ARCH

FORMATS = Path("/proc/sys/fs/binfmt_misc")
HANDLER = "qemu-aarch64"


def works() -> bool:
    """Whether this machine runs arm64 programs now."""
    if os.uname().machine == "aarch64":
        return True
    try:
        run("arch-test", ARCH)
    except BuildError:
        return False
    return True


def _as_root(*argv: str) -> None:
    if os.geteuid() == 0:
        run(*argv)
    elif shutil.which("sudo"):
        run("sudo", "-n", *argv)
    else:
        raise BuildError(f"neither root nor sudo: cannot run: {' '.join(argv)}")


@contextmanager
def ready() -> Iterator[None]:
    """arm64 programs run inside; afterwards the machine is as it was.  BuildError when they do not."""
    undo: list[tuple[str, ...]] = []
    try:
        if not works():
            if not (FORMATS / "register").exists():
                _as_root("mount", "-t", "binfmt_misc", "binfmt_misc", str(FORMATS))
                undo.append(("umount", str(FORMATS)))
            if not (FORMATS / HANDLER).exists():
                _as_root("update-binfmts", "--enable", HANDLER)
                undo.append(("update-binfmts", "--disable", HANDLER))
            if not works():
                raise BuildError("this machine cannot run arm64 programs: is qemu-user-static installed (setup/appliance.sh), "
                                 "and may the kernel's binfmt_misc be used here?")
        yield
    finally:
        for argv in reversed(undo):                          # a handler stays in the kernel after umount: off first
            try:
                _as_root(*argv)
            except BuildError as error:
                say(f"could not undo: {error}")
