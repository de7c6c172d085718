"""How long a technician waits for a prompt while the daemon is dead: from the first key, and from the start of the process.

The second is what a port shows that was plugged in a moment ago.  Its floor is an interpreter that starts and says one line on the
same kind of pty.
"""

from __future__ import annotations

import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STARTS, KEYS = 9, 50
GOAL_MS = 1000.0
TOML = 'box = "box-1"\nbox_no = "00BX01"\ntenant = "shop"\nlang = "en"\nstate_dir = "{0}"\nrun_dir = "{0}"\n'


def rows() -> list[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`; values in milliseconds, the slowest of all."""
    with tempfile.TemporaryDirectory() as folder:
        toml = Path(folder) / "box.toml"
        toml.write_text(TOML.format(folder))
        console = [sys.executable, "-m", "device", "console", "--config", str(toml), "--line"]
        bare = [sys.executable, "-c", "import sys; f = open(sys.argv[1], 'w'); print('name:', file=f, flush=True); input()"]
        pairs = [(_start(console)[0], _start(bare)[0]) for _ in range(STARTS)]
        keys = [ms for _ in range(3) for ms in _start(console, KEYS)[1]]
    slowest, floor = max(ours for ours, _ in pairs), statistics.median(theirs for _, theirs in pairs)
    return [{"name": "console.prompt_ms_after_first_key_max", "value": round(max(keys), 2), "unit": "ms", "floor": None,
             "ratio": None, "goal": GOAL_MS, "holds": max(keys) <= GOAL_MS},
            {"name": "console.prompt_ms_after_start_max", "value": round(slowest, 1), "unit": "ms", "floor": round(floor, 1),
             "ratio": round(slowest / floor, 2), "goal": GOAL_MS, "holds": slowest <= GOAL_MS}]


def _start(command: list[str], keys: int = 0) -> tuple[float, list[float]]:
    """Milliseconds until a process started now asks for a name, a key waiting for it; then until it answers each of `keys`."""
    master, slave = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen([*command, os.ttyname(slave)], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        os.write(master, b"\r")
        _until(master, b"name:")
        started = (time.perf_counter() - began) * 1000
        answers = []
        for _ in range(keys):
            began = time.perf_counter()
            os.write(master, b"\r")
            _until(master, b"name:")
            answers.append((time.perf_counter() - began) * 1000)
        process.terminate()
    os.close(slave)
    os.close(master)
    return started, answers


def _until(master: int, word: bytes) -> None:
    seen, end = b"", time.monotonic() + 20
    while word not in seen:
        if not select.select([master], [], [], max(end - time.monotonic(), 0))[0]:
            raise RuntimeError(f"no {word!r} within 20 s, but {seen[-200:]!r}")
        seen += os.read(master, 65_536)
