"""One question to the running daemon over its socket, for whatever shares a machine with it.  Knows JSON lines, refuses to know
what the verbs mean.
"""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

import msgspec

ANSWER_BYTES_MAX = 16 * 1024 * 1024


class DaemonAway(Exception):
    """Nobody answers at the socket, or not in time."""


def ask(path: Path, verb: str, *, timeout_s: float = 3.0, **more: object) -> dict[str, Any]:
    """The daemon's answer to one verb, `{"ok": bool, ...}`.  DaemonAway when there is none, or none whole after `timeout_s`."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            until_s = time.monotonic() + timeout_s
            line.settimeout(timeout_s)
            line.connect(_short(path))
            line.sendall(json.dumps({"verb": verb, **more}).encode() + b"\n")
            answer = bytearray()
            while not answer.endswith(b"\n"):
                line.settimeout(max(0.001, until_s - time.monotonic()))      # one that drips keeps nobody longer than a silent one
                part = line.recv(1 << 20)
                if not part or len(answer) > ANSWER_BYTES_MAX:
                    raise DaemonAway(f"the daemon broke off while answering {verb}")
                answer += part
    except OSError as away:
        raise DaemonAway(f"the daemon does not answer: {away}") from away
    try:
        said = msgspec.json.decode(answer)           # stricter than json's own: no NaN, no half of a character
    except (ValueError, RecursionError) as wrong:
        raise DaemonAway(f"the daemon's answer to {verb} is no JSON") from wrong
    if not isinstance(said, dict):
        raise DaemonAway(f"the daemon's answer to {verb} is no object")
    return said


def runs(run_dir: str, *, timeout_s: float = 3.0) -> bool:
    """Whether a daemon holds this box; one that does not answer in time does."""
    path = Path(run_dir) / "daemon.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(timeout_s)                   # a frozen one with a full backlog lets nobody in, and nobody go
        try:
            line.connect(_short(path))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except OSError:                              # not for us, or busy: it is there
            return True
    return True


def _short(path: Path) -> str:
    # A socket's address holds 107 bytes; a path relative to here may fit where the whole one does not.
    whole = str(path)
    if len(whole.encode()) <= 107:
        return whole
    import os
    return os.path.relpath(whole)
