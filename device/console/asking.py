"""The daemon asked over its socket, for the commands: its answer, or a plain word that it is dead.  Knows no verb's meaning."""

from __future__ import annotations

import collections
import contextlib
import errno
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device.ask import DaemonAway, ask, runs
from device.console.place import Place
from device.console.session import Call, Failed

JOURNAL_COPY_BYTES_MAX = 512 << 20
COPIES_MAX = 5
PRINTED_LINES_MAX = 2000


def alive(place: Place) -> bool:
    """Whether a daemon holds this box, and so its journal and its devices."""
    return runs(str(place.run_dir))


def told(place: Place, verb: str, *, timeout_s: float = 5.0, **more: object) -> dict[str, Any] | None:
    """The daemon's answer, None when it is dead or says nothing."""
    try:
        said = ask(place.socket, verb, timeout_s=timeout_s, **more)
    except DaemonAway:
        return None
    return said if said.get("ok") else None


def deed(c: Call, verb: str, args: str = "") -> str:
    """Something only the daemon may do, under the id that the spool gave this command: what it said.  Failed when it did not."""
    assert c.visit is not None
    entry = c.entry | {"args": args or c.args, "outcome": "ok"} | c.more
    assert entry["verb"] == verb, verb
    c.spool.deliver()                                # what came before stands before it in the chain
    try:
        said = ask(c.place.socket, "console do", timeout_s=10.0, entry=entry)
    except DaemonAway:
        raise Failed("DAEMON", c.t("守护进程没有回答", "the daemon does not answer")) from None
    if not said.get("ok"):
        raise Failed(str(said.get("name", "REFUSED")).upper(), str(said.get("error", "")))
    return str(said.get("said", ""))


def printed(main: Callable[[list[str]], int], argv: list[str]) -> tuple[int, list[str]]:
    """Exit status and lines of one of the box's own tools, run here: what it would have printed."""
    out, err = _Tail(), _Tail()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(argv)
        except SystemExit as why:
            status = int(why.code or 0) if isinstance(why.code, int | None) else 1
    return status, [*out.lines(), *err.lines()]


class _Tail(io.TextIOBase):
    """A file that keeps the last lines written to it: a tool that complains of every record fills no memory."""

    def __init__(self) -> None:
        self._rows, self._rest = collections.deque[str](maxlen=PRINTED_LINES_MAX), ""

    def write(self, text: str) -> int:
        *rows, self._rest = (self._rest + text).split("\n")
        self._rows += rows
        return len(text)

    def lines(self) -> list[str]:
        return [*self._rows, self._rest] if self._rest else list(self._rows)


def readable(place: Place, folder: Path) -> Path:
    """A journal file that can be read without a lock: itself, or a copy in `folder` beside a running daemon or a dead one's WAL.

    OSError for one that is too large to copy.
    """
    import shutil

    journal, wal = place.journal, place.journal.with_name(place.journal.name + "-wal")
    if not alive(place) and not (wal.exists() and wal.stat().st_size):
        return journal
    for _ in range(COPIES_MAX):
        before = journal.stat()
        if before.st_size > JOURNAL_COPY_BYTES_MAX:
            raise OSError(errno.EFBIG, "too large to copy", str(journal))
        for path in (journal, wal):
            if path.exists():
                shutil.copy(path, folder)
        after = journal.stat()
        if (before.st_mtime_ns, before.st_size) == (after.st_mtime_ns, after.st_size):       # else rows moved in between
            break
    return folder / journal.name
