"""QEMU's own line: commands out, answers and events in.  Knows the protocol; refuses to know what the machine is for."""

from __future__ import annotations

import collections
import contextlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

ANSWER_S = 60.0


class QmpError(RuntimeError):
    """QEMU refused a command, or its line is gone; the sentence names the command."""


class Qmp:
    """One line to one QEMU.  `events` holds every event since the start, oldest first.

    Whatever QEMU says is read at once by a thread of its own: an unread line stalls the machine.
    """

    def __init__(self, path: Path, within_s: float = 20.0) -> None:
        self.events: list[dict[str, Any]] = []
        self._answers: collections.deque[dict[str, Any]] = collections.deque()
        self._came = threading.Condition()
        self._one = threading.Lock()
        self._gone = False
        self._line = connected(path, within_s)
        self._file = self._line.makefile("rwb")
        threading.Thread(target=self._read, name="qmp", daemon=True).start()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: Any) -> Any:
        """The answer of `command`; QmpError when QEMU says no or says nothing."""
        with self._one:
            said = json.dumps({"execute": command, "arguments": {key.replace("_", "-"): value for key, value in arguments.items()}})
            try:
                self._file.write(said.encode() + b"\n")
                self._file.flush()
            except (OSError, ValueError):
                raise QmpError(f"{command}: the machine is gone") from None
            with self._came:
                if not self._came.wait_for(lambda: self._answers or self._gone, ANSWER_S) or not self._answers:
                    raise QmpError(f"{command}: no answer")
                answer = self._answers.popleft()
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error'].get('desc')}")
        return answer["return"]

    def hmp(self, line: str) -> str:
        """A line of the monitor for people: savevm has no other door."""
        said = self("human-monitor-command", command_line=line)
        if said.strip():
            raise QmpError(f"{line}: {said.strip()}")
        return said

    def event(self, name: str, within_s: float, *, since: int = 0, **data: Any) -> dict[str, Any]:
        """The first event `name` after the `since`-th whose data holds `data`.  AssertionError when it does not come."""
        def found() -> dict[str, Any] | None:
            return next((one for one in self.events[since:] if one["event"] == name
                         and data.items() <= one.get("data", {}).items()), None)
        with self._came:
            self._came.wait_for(lambda: found() or self._gone, within_s)
            one = found()
        assert one is not None, f"no {name} within {within_s:g} s; came: {[e['event'] for e in self.events[since:]]}"
        return one

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._line.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError, ValueError):
            self._file.close()
        self._line.close()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in self._file:
                said = json.loads(line)
                with self._came:
                    if "event" in said:
                        self.events.append(said)
                    elif "QMP" not in said:
                        self._answers.append(said)
                    self._came.notify_all()
        with self._came:
            self._gone = True
            self._came.notify_all()


def connected(path: Path, within_s: float) -> socket.socket:
    """A connection to the Unix socket that somebody is about to open at `path`.  OSError when nobody does in that time."""
    until_s = time.monotonic() + within_s
    while True:
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(path))
            return line
        except OSError:
            line.close()
            if time.monotonic() > until_s:
                raise
            time.sleep(0.02)
