"""A test's hand inside the machine: questions to the rig's agent, one at a time.  Knows JSON lines over the rig's port."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from tests.appliance.line import Line

BOOT_S_MAX = 300.0             # a slow host's worst: 70 s is usual


class RigError(RuntimeError):
    """The agent answered with an error, or not at all."""


class Rig:
    def __init__(self, line: Line) -> None:
        self._line, self._n = line, 0

    def await_up(self, within_s: float = BOOT_S_MAX) -> float:
        """Wait until the agent answers; seconds of the guest's uptime then."""
        until_s = time.monotonic() + within_s
        while True:
            try:
                return float(self.ask("up", within_s=2.0))
            except RigError:
                if time.monotonic() > until_s:
                    raise

    def sh(self, script: str, *, within_s: float = 60.0, fine: bool = False) -> str:
        """What a shell script printed, as root.  RigError when it fails, unless that is `fine`."""
        said = self.ask("sh", script=script, limit_s=within_s, within_s=within_s + 10)
        if said["code"] and not fine:
            raise RigError(f"{script[:200]!r} ended in {said['code']}: {said['out'][-1500:]}")
        return str(said["out"])

    def put(self, path: str, data: bytes, *, owner: str = "root", mode: int = 0o644) -> None:
        """A file, whole."""
        self.ask("put", path=path, data=base64.b64encode(data).decode(), owner=owner, mode=mode)

    def get(self, path: str) -> bytes:
        return base64.b64decode(self.ask("get", path=path))

    def daemon(self, verb: str, **more: Any) -> dict[str, Any]:
        """One question to the till's own socket.  RigError while it is away."""
        said = self.ask("daemon", question={"verb": verb, **more})
        if not said.get("ok"):
            raise RigError(f"the daemon refused {verb}: {said.get('error')}")
        return said

    def set_clock(self, unix_s: float | None = None) -> None:
        """What time the guest believes it is: after a snapshot it is the snapshot's."""
        self.ask("clock", unix_s=time.time() if unix_s is None else unix_s)

    def ask(self, what: str, *, within_s: float = 30.0, **more: Any) -> Any:
        """The agent's answer.  RigError with its words, or when none comes in `within_s`."""
        self._n += 1
        since = self._line.mark()
        try:
            self._line.say(json.dumps({"n": self._n, "what": what, **more}).encode() + b"\n")
            found = self._line.expect(rb'\{"n": %d, [^\n]*\n' % self._n, within_s, since)
        except (OSError, AssertionError):
            raise RigError(f"{what}: the rig says nothing") from None
        said = json.loads(found[0])
        if "error" in said:
            raise RigError(f"{what}: {said['error']}")
        return said["said"]

    def close(self) -> None:
        self._line.close()
