"""A program that is kept running, as systemd keeps the box's: started again when it dies, cut off and brought back.

Knows one command line and one process at a time; refuses to know what the program does.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from sim import leash

RESTART_S = 0.5                # between a death and the next start, as in the unit
STOP_S_MAX = 8.0


class Kept:
    """One kept program.  Its output goes to the end of `log`.  `starts` counts how often it was started."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.starts = 0
        self._argv, self._log, self._env = list(argv), log, dict(env) if env is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._wanted, self._off_until_s = False, 0.0
        self._ends = False
        self._thread = threading.Thread(target=self._keep, name=f"keeps-{log.stem}", daemon=True)

    def env_put(self, name: str, value: str) -> None:
        """A variable of its environment from the next start on."""
        self._env = (dict(os.environ) if self._env is None else self._env) | {name: value}

    @property
    def pid(self) -> int | None:
        """Of the running process, None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def powered(self) -> bool:
        """False while it is stopped or cut off."""
        return self._wanted and time.monotonic() >= self._off_until_s

    def start(self) -> None:
        """Run it, and again whenever it dies; takes power back at once after a cut."""
        with self._lock:
            self._wanted, self._off_until_s = True, 0.0
            self._spawn()
        if not self._thread.is_alive():
            self._thread.start()

    def cut(self, seconds: float) -> None:
        """SIGKILL now, power again after `seconds`."""
        with self._lock:
            self._off_until_s = time.monotonic() + seconds
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        """SIGTERM, SIGKILL when that does not help; it stays off until `start`."""
        with self._lock:
            self._wanted = False
            process = self._process
            if process is None or process.poll() is not None:
                return
            process.terminate()
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def close(self) -> None:
        """Stop and let go of the thread."""
        self.stop()
        self._ends = True
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        dead_s: float | None = None
        while not self._ends:
            self._woken.wait(0.1)
            if self.pid is not None or not self.powered:
                dead_s = None
                continue
            dead_s = dead_s if dead_s is not None else time.monotonic()
            was_cut = 0.0 < self._off_until_s
            if was_cut or time.monotonic() - dead_s >= RESTART_S:
                with self._lock:
                    if self.powered:
                        self._off_until_s = 0.0
                        self._spawn()
                dead_s = None

    def _spawn(self) -> None:
        if self.pid is not None or self._ends:
            return
        with open(self._log, "ab") as log:
            self._process = leash.started(self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._env)
        self.starts += 1
