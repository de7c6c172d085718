"""What was typed at the console, on the card before it is done, until the daemon has made records of it.

One file a process, a JSON line an event, synced line by line, held by a lock while the process lives.  Knows lines and files;
refuses to know what a command did.  A command cut short by a power cut is told as such: it began, and nobody knows how it ended.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from device.drivers import private_file

ENTRIES_MAX = 50                         # told to the daemon at a time: fewer than the ids it remembers
TOLD_BYTES_MAX = 32 << 10                # of them: the daemon takes lines of 64 KiB
FILE_BYTES_MAX = 1 << 20
UNKNOWN = "unknown"                      # how a command ended whose end is not in the file


class Spool:
    """`folder` the console's own; `boot` names this boot; `tell(entries)` True once the daemon has them all in its journal."""

    def __init__(self, folder: Path, boot: str, tell: Callable[[list[dict[str, Any]]], bool]) -> None:
        self._folder, self._boot, self._tell = folder, boot, tell
        self._path = folder / f"spool-{secrets.token_hex(6)}"
        self._fd = -1
        self._who, self._level = "", ""
        self._open = ""                              # the command that runs now

    def close(self) -> None:
        """Let go of the file: the next console tells what it holds."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def visitor(self, who: str, level: str) -> None:
        """Who types from now on."""
        self._who, self._level = who, level

    def entry(self, verb: str, args: str, wall: str) -> dict[str, Any]:
        """A command under an id of its own; not kept yet."""
        return {"id": f"console-{secrets.token_hex(12)}", "verb": verb, "args": args, "by": f"{self._who}:technician",
                "level": self._level, "typed_at": wall, "typed_boot": self._boot}

    def begun(self, entry: dict[str, Any]) -> None:
        """The command may be done now: it is on the card.  OSError when the card takes nothing."""
        self._append(self._own(), entry)
        self._open = str(entry["id"])

    def noted(self, entry: dict[str, Any], **more: Any) -> bool:
        """More of a command that runs, on the card before it ends: whether it is there."""
        if self._open != entry["id"]:
            return False
        try:
            self._append(self._own(), {"id": entry["id"], **more})
        except OSError:
            return False
        return True

    def ended(self, entry: dict[str, Any], outcome: str, **more: Any) -> None:
        """How it ended; then the daemon is told, if it lives.  Never fails: what cannot be told now is told later."""
        if self._open == entry["id"]:
            with contextlib.suppress(OSError):
                self._append(self._own(), {"id": entry["id"], "outcome": outcome, **more})
        self._open = ""
        self.deliver()

    def deliver(self) -> int:
        """Tell the daemon whatever waits, oldest file first; what it has is let go of.  The number of entries that still wait."""
        waiting, silent = 0, False
        for path in self._files():
            with contextlib.suppress(OSError), self._held(path) as fd:
                entries = self._entries(fd)
                ready = [{"outcome": UNKNOWN, **one} for one in entries if one["id"] != self._open]
                while ready and not silent:
                    count = _at_once(ready)
                    some, ready = ready[:count], ready[count:]
                    silent = not self._tell(some)
                    if silent:
                        ready = some + ready
                    else:
                        self._append(fd, {"told": [one["id"] for one in some]})
                waiting += len(ready)
                if not ready and self._open not in {one["id"] for one in entries}:
                    if path == self._path:
                        os.ftruncate(fd, 0)
                    else:
                        path.unlink()
        return waiting

    def waiting(self) -> int:
        """How many entries the daemon has not got, those of this process and of dead ones."""
        count = 0
        for path in self._files():
            with contextlib.suppress(OSError), self._held(path) as fd:
                count += len(self._entries(fd))
        return count

    def _files(self) -> list[Path]:
        def age(path: Path) -> tuple[float, str]:
            try:
                return path.stat().st_mtime, path.name
            except OSError:
                return 0.0, path.name
        return sorted(self._folder.glob("spool-*"), key=age)

    def _own(self) -> int:
        """This process's file, made at the first command and locked for as long as it lives."""
        if self._fd < 0:
            private_file.make_folder(self._folder)
            draft = self._folder / f".{self._path.name}"              # a name that no other console looks at before it is locked
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(draft, self._path)
                private_file.sync_folder(self._folder)
            except OSError:
                os.close(fd)
                raise
            self._fd = fd
        return self._fd

    @contextlib.contextmanager
    def _held(self, path: Path) -> Iterator[int]:
        """The file, ours or one whose process is gone.  OSError for that of another console that lives."""
        if path == self._path and self._fd >= 0:
            yield self._fd
            return
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield fd
        finally:
            os.close(fd)

    @staticmethod
    def _append(fd: int, event: dict[str, Any]) -> None:
        if os.fstat(fd).st_size > FILE_BYTES_MAX:
            raise OSError(errno.ENOSPC, "the console's spool is full")
        line = b"\n" + json.dumps(event, ensure_ascii=False).encode() + b"\n"             # a line that a cut left half ends here
        if os.write(fd, line) != len(line):          # the last of a card's room takes a part of it, and says nothing
            raise OSError(errno.ENOSPC, "no room for a whole line")
        os.fsync(fd)

    @staticmethod
    def _entries(fd: int) -> list[dict[str, Any]]:
        """The commands in a file that were not told, in their order; a line that a cut left half is no line."""
        found: dict[str, dict[str, Any]] = {}
        for event in _lines(os.pread(fd, 2 * FILE_BYTES_MAX, 0)):
            for told in event.get("told", ()):
                found.pop(told, None)
            if "verb" in event:
                found[event["id"]] = event
            elif event.get("id") in found:
                found[event["id"]] |= event
        return list(found.values())


def _lines(raw: bytes) -> Iterator[dict[str, Any]]:
    """The events in a file; a line of any other shape is left out, whatever a rotten card made of it."""
    for line in raw.split(b"\n"):
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict) and (told := event.get("told", [])) == [*map(str, told)] and (
                    isinstance(event.get("id"), str) or not event.keys() & {"id", "verb"}):
                yield event


def _at_once(entries: list[dict[str, Any]]) -> int:
    """How many of the first entries go to the daemon in one line; at least one."""
    size = 0
    for at, one in enumerate(entries[:ENTRIES_MAX]):
        size += len(json.dumps(one)) + 2
        if size > TOLD_BYTES_MAX:
            return max(at, 1)
    return min(len(entries), ENTRIES_MAX)
