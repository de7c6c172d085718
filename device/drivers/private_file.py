"""Files that only their owner may read: read, made, replaced.  Knows modes and what a power cut leaves; nothing of what they hold.

What cannot be trusted is said in one sentence, and nothing here ever takes away a file that holds something.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from device.errors import DriverGone, Outside


class KeyFile(Protocol):
    """Where a driver keeps keys that change: a file, or a sealed one."""

    def read(self) -> bytes:
        """What was last written.  OSError or Outside when it cannot be read."""
        ...

    def write(self, held: bytes) -> None:
        """`held` is on the card when this returns, or the file is as it was.  OSError or Outside."""
        ...


class PlainFile:
    """A KeyFile that anybody with the card in hand can read."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def read(self) -> bytes:
        return self._path.read_bytes()

    def write(self, held: bytes) -> None:
        replace(self._path, held)


def read(path: str | Path, bytes_max: int, *, which: str) -> bytes | None:
    """The file's bytes, or None when there is none.  DriverGone of the part `which`, one sentence, when others may read it.

    Its mode is asked of the open file: no gap for a swap.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _gone(f"The key file {path} cannot be used: {error.strerror}.", "check the path and its folder", which) from None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise _gone(f"The key file {path} is not a plain file.", "name a file", which)
        if about.st_mode & 0o077:
            raise _gone(f"The key file {path} may be read by others (mode {about.st_mode & 0o777:04o}).", f"chmod 600 {path}",
                        which)
        if about.st_uid not in (os.geteuid(), 0):
            raise _gone(f"The key file {path} belongs to another user.", f"chown it to the user of the service: {path}", which)
        return os.read(fd, bytes_max)
    except OSError as error:
        raise _gone(f"The key file {path} cannot be read: {error.strerror}.", "look at the card", which) from None
    finally:
        os.close(fd)


def make(path: str | Path, held: bytes) -> None:
    """A new file of mode 0600, whole or not at all; one that appeared meanwhile stays.  OSError when the card will not have it."""
    path = Path(path)
    draft = _written(path.with_name(f".{path.name}.{secrets.token_hex(8)}"), held)
    try:
        try:
            os.link(draft, path)         # refuses to replace, which a rename would do
        except FileExistsError:
            pass
    finally:
        os.unlink(draft)
    sync_folder(path.parent)


def replace(path: str | Path, held: bytes) -> None:
    """The file with new content, mode 0600, or the file as it was.  OSError when the card will not have it."""
    path = Path(path)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)        # of a write that a cut ended: one name, so that at most one ever lies about
    _written(draft, held)
    try:
        os.replace(draft, path)
    except OSError:
        os.unlink(draft)
        raise
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """A folder of mode 0700, where there is none."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700)
        _given(folder)
        sync_folder(folder.parent)


def in_memory(held: bytes) -> str:
    """A path to `held`, which no disk sees: for libraries that read files only.  It lasts as long as this process."""
    fd = os.memfd_create("tillbox")
    with open(fd, "wb", closefd=False) as file:
        file.write(held)
    return f"/proc/self/fd/{fd}"


def unkept(why: OSError | Outside) -> str:
    """Which file a KeyFile could not write, and why, for a person."""
    return why.what if isinstance(why, Outside) else f"{why.filename or 'the key file'}: {why.strerror or why}"


def sync_folder(folder: Path) -> None:
    """The folder's own entries on the card: without it a cut takes a name that was just given or taken away."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _written(draft: Path, held: bytes) -> Path:
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            _given(draft)
            file.write(held)
            file.flush()
            os.fsync(fd)
    except OSError:
        os.unlink(draft)
        raise
    return draft


def _given(path: Path) -> None:
    """What root makes belongs to the owner of its folder: the service could not read it otherwise."""
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)


def _gone(what: str, hint: str, which: str) -> DriverGone:
    return DriverGone(what, which=which, hint=hint, again=False)
