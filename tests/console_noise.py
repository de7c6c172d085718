"""A line that rattles: random lines at the real console process on a pty (`python -m tests.console_noise --lines 1000000`).

Exits 0 only if the process lives, its memory did not grow, and it asks for a name after it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.console_room import Room, Terminal

GROWN_KB_MAX = 4_000


def burst(t: Terminal, lines: int, dice: random.Random) -> None:
    """So many random lines; without Ctrl-D, which ends a console, and rightly so."""
    for _ in range(lines // 100):
        t.keys(b"".join(dice.randbytes(dice.randrange(12)) + b"\r" for _ in range(100)).replace(b"\x04", b""))
        t.raw = t.raw[-65_536:]


def rss_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.console_noise")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        t = Terminal(Room(Path(folder) / "box"))
        try:
            t.until("name:")
            for line in ("li", "work", "ABCDEFGH"):          # a wrong code: whatever a try loads is loaded
                t.type(line)
            t.until("not the code")
            dice, began = random.Random(args.seed), time.monotonic()
            burst(t, 1_000, dice)
            before = rss_kb(t.process.pid)
            burst(t, args.lines, dice)
            took, after, lives = time.monotonic() - began, rss_kb(t.process.pid), t.process.poll() is None
            t.drain(0.3)
            t.keys(b"\x18\x03\r")
            t.until("name:")
            waits = json.loads((Path(folder) / "box" / "console" / "tries").read_text())["tries"]
        finally:
            t.close()
    said = {"lines": args.lines, "seconds": round(took, 1), "rss_kb_before": before, "rss_kb_after": after, "lives": lives,
            "tries_taken": waits}
    print(json.dumps(said))
    return 0 if lives and after < before + GROWN_KB_MAX else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
