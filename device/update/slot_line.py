"""The daemon's end of the slots' socket: one question, one answer, one after the other.

Knows frames; refuses to know what is asked.  The line is made when something is asked and goes when nothing is, so that the other
end may go, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from typing import Any

ASK_S = 90.0                             # the card may be slow; a start of the other end is in it
ANSWER_MAX = 64 * 1024
EXIT_REBOOT = 75                         # the unit's ExecStopPost= restarts the machine


class SlotRefused(Exception):
    """`name` a word for programs; the sentence is for a person."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(sentence)
        self.name, self.sentence = name, sentence


class SlotLine:
    """`place` of the socket.  One caller of ours at a time."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._turn = asyncio.Lock()

    async def ask(self, verb: str, body: bytes = b"", **more: Any) -> dict[str, Any]:
        """The answer.  SlotRefused for what is refused, OSError when nobody is there."""
        async with self._turn:
            try:
                async with asyncio.timeout(ASK_S):
                    return await self._asked(verb, body, more)
            except TimeoutError:
                await self._closed()
                raise OSError(f"the slots do not answer to {verb}") from None
            except (OSError, EOFError, ValueError) as why:
                await self._closed()
                raise OSError(f"the line to the slots broke: {why}") from None

    async def _asked(self, verb: str, body: bytes, more: dict[str, Any]) -> dict[str, Any]:
        if self._ends is None:
            self._ends = await asyncio.open_unix_connection(_near(self._place), limit=ANSWER_MAX)
        reader, writer = self._ends
        writer.write(json.dumps({"verb": verb, "bytes": len(body), **more}).encode() + b"\n" + body)
        await writer.drain()
        return _told(await reader.readuntil(b"\n"))

    async def close(self) -> None:
        async with self._turn:
            await self._closed()

    async def _closed(self) -> None:
        if self._ends is not None:
            writer, self._ends = self._ends[1], None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def asked(place: str, verb: str, **more: Any) -> dict[str, Any]:
    """One question by a process that does nothing else."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(ASK_S)
        line.connect(_near(place))
        line.sendall(json.dumps({"verb": verb, **more}).encode() + b"\n")
        with line.makefile("rb") as answer:
            return _told(answer.readline(ANSWER_MAX))


def shown(place: str) -> int:
    """`tillbox slot show`."""
    try:
        print(json.dumps(asked(place, "told"), indent=1))
    except (OSError, SlotRefused) as why:
        print(f"tillbox slot: {why}")
        return 1
    return 0


def trial_over(place: str) -> int:
    """`tillbox slot trial-over`: half an hour after a start, a release on trial that nobody kept goes back.  75: restart now."""
    try:
        if not asked(place, "told")["trial"]:
            return 0
        asked(place, "back", why="it did not prove itself within half an hour of its start: the daemon does not run")
    except (OSError, SlotRefused) as why:
        print(f"tillbox slot: {why}")
        return 1
    return EXIT_REBOOT


def _told(line: bytes) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(line)
    if not said.pop("ok", False):
        raise SlotRefused(str(said.get("name", "")), str(said.get("error", "the slots do not say why")))
    return said


def _near(place: str) -> str:
    short = os.path.relpath(place)                   # an address holds 107 bytes
    return short if len(place) > 100 and len(short) < len(place) else place
