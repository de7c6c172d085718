"""The opening ticket: before the first sale of a business day the box tries everything, and says on paper what it found.

Knows when a day begins and whether its ticket was told.  The doctor runs as a process of its own: what it loads goes with it,
and no sale waits for it.  A note in the state folder says which day was told; losing it costs a slip.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device.txn.inputs import BoxTried, Ill

log = logging.getLogger("tillbox")

NOTE = "opening.day"
SETTLE_S = 8.0                           # devices answer and the line comes up meanwhile
DOCTOR_S_MAX = 60.0
FOUND_MAX = 8                            # on a slip


class Opening:
    """`day` gives the business day now, `sold` the day that something was counted in last; `post` takes the result."""

    def __init__(self, path: str, state_dir: str, *, day: Callable[[], str], sold: Callable[[], str],
                 post: Callable[[BoxTried], object], settle_s: float = SETTLE_S) -> None:
        self._path, self._note, self._day, self._sold, self._post = path, Path(state_dir) / NOTE, day, sold, post
        self._settle_s, self._hand = settle_s, asyncio.Event()

    def stirred(self) -> None:
        """Somebody pressed a key or scanned."""
        self._hand.set()

    async def run(self) -> None:
        """At the start, and at the first hand of each further day; until cancelled."""
        await asyncio.sleep(self._settle_s)
        while True:
            day = self._day()
            if day != self._told() and day != self._sold():
                tried = await self._tried(day)
                with contextlib.suppress(OSError):       # a card that cannot keep a note is among what was found
                    self._note.write_text(day)
                self._post(tried)
            self._hand.clear()
            await self._hand.wait()

    def _told(self) -> str:
        try:
            return self._note.read_text().strip()
        except OSError:
            return ""

    async def _tried(self, day: str) -> BoxTried:
        report = await self._doctor()
        if report is None:
            return BoxTried(day, False, (Ill("doctor", "自检没有完成。", "The doctor did not finish; run `tillbox doctor`."),))
        wrong = [f for f in report["findings"] if f["action"]]
        root = [f for f in wrong if f["code"] == report["code"]][:1]
        rest = {f["code"]: f for f in wrong if f["code"] != report["code"]}
        zh = f"{report['sentence_zh']}{report['action_zh']}"
        told = [Ill(f["code"], zh if f in root else "", f"{f['sentence']} -> {f['action']}") for f in (*root, *rest.values())]
        log.info("opening check of %s: %s", day, report["code"])
        return BoxTried(day, not wrong, tuple(told[:FOUND_MAX]), max(0, len(told) - FOUND_MAX))

    async def _doctor(self) -> dict[str, Any] | None:
        doctor = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "device", "doctor", "--config", self._path, "--json", stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=Path(__file__).parents[1])
        try:
            async with asyncio.timeout(DOCTOR_S_MAX):
                out, _ = await doctor.communicate()
            return json.loads(out)
        except (TimeoutError, ValueError):
            log.warning("the doctor of the opening check did not finish")
            return None
        finally:
            if doctor.returncode is None:
                doctor.kill()
                await doctor.wait()
