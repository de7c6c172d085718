"""The technician at a counter: the real console process on a pty, and head office at the other end of the telephone.

Knows a pty, a terminal and `tillfleet console-code`; refuses to know what a command does.  The console starts with the first line
that is typed, and again when it ends, as its unit would.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sim.counter.calls import Refusal
from sim.counter.kept import Kept
from sim.devices.serial_screen import SerialScreen

SHOWN_LINES = 60
READY_S_MAX, QUIET_S, ANSWER_S_MAX = 15.0, 0.25, 3.0
_ASKED = re.compile(r"(?:姓名|name) (\S+) +(?:级别|level) (\S+)\n.*?(?:挑战|challenge) ([0-9A-Z-]{19})")


class Technician:
    """`folder` the counter's, `store` the collector's.  `close()` pulls the cable."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder, self._store = folder, store
        self._lock = threading.Lock()
        self._terminal = SerialScreen()
        self._heard_s = 0.0
        self._master = self._slave = -1
        self._kept: Kept | None = None

    def type(self, line: str) -> dict[str, Any]:
        """One line and a return; returns when the console says no more for the moment."""
        self._plugged()
        assert self._master >= 0
        os.write(self._master, line.encode()[:1000] + b"\r")
        self._settled(ANSWER_S_MAX)
        return {}

    def head_office(self, box: str) -> dict[str, Any]:
        """Read the challenge on the screen to head office, and type its answer.  Refusal in head office's words."""
        found = _ASKED.findall("\n".join(self.screen()))
        if not found:
            raise Refusal("No challenge is on the console's screen: type a name and a level first.", 409)
        who, level, spoken = found[-1]
        asked = ["console-code", box, spoken, "--level", level, "--who", who, "--by", "demo", "--store", self._store,
                 "--ca", str(self._folder / "ca")]
        done = subprocess.run([sys.executable, "-m", "fleet", *asked], capture_output=True, text=True, timeout=30)
        if done.returncode:
            raise Refusal(f"Head office refuses: {done.stderr.strip()[-300:]}", 409)
        self.type(done.stdout.strip())
        return {"code": done.stdout.strip()}

    def screen(self) -> list[str]:
        """The last lines on the terminal."""
        with self._lock:
            return self._terminal.lines()[-SHOWN_LINES:]

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        for fd in (self._master, self._slave):
            if fd >= 0:
                os.close(fd)
        self._master = self._slave = -1

    def _plugged(self) -> None:
        """The cable in, and a console at its other end that shows its prompt."""
        if self._kept is None:
            self._master, self._slave = pty.openpty()
            threading.Thread(target=self._read, args=(self._master,), name="technician", daemon=True).start()
            self._kept = Kept([sys.executable, "-m", "device", "console", "--line", os.ttyname(self._slave), "--config",
                               str(self._folder / "box.toml")], self._folder / "console.log")
            self._kept.start()
        end = time.monotonic() + READY_S_MAX
        while self._kept.pid is None or not self._heard_s:
            if time.monotonic() > end:
                raise Refusal("The console does not start: see console.log.", 409)
            time.sleep(0.02)
        self._settled(1.0)

    def _settled(self, s_max: float) -> None:
        end = time.monotonic() + s_max
        time.sleep(QUIET_S)
        while time.monotonic() < end and time.monotonic() - self._heard_s < QUIET_S:
            time.sleep(0.02)

    def _read(self, master: int) -> None:
        with contextlib.suppress(OSError, ValueError):
            while self._master == master:
                if not select.select([master], [], [], 0.5)[0]:
                    continue
                data = os.read(master, 65_536)
                with self._lock:
                    self._terminal.feed(data)
                self._heard_s = time.monotonic()
