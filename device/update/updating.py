"""The updater of a daemon, its ends tied to line and counter; only where a socket of the slots is."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from device.commands.restart import EXIT_REBOOT
from device.txn.wants import nobody_here
from device.update.slot_line import SlotLine
from device.update.updater import Updater

if TYPE_CHECKING:
    from device.box import Box
    from device.config import Config
    from device.real_clock import RealClock
    from device.uplink import Uplink

DRY_S_MAX = 120.0


class Around(Protocol):
    """What the updater needs of its daemon.  `began`: journal id and last record before this start."""

    config: Config
    path: str
    clock: RealClock
    uplink: Uplink
    box: Box
    began: tuple[str, int]

    def end(self, status: int) -> None: ...


def updater_of(daemon: Around, place: str) -> Updater:
    """An updater over the slots behind the socket at `place`."""
    jid, seq = daemon.began
    first_seq = seq + 1 if daemon.box.books.chain.jid == jid else 1       # a new journal begins anew
    one = Updater(Path(daemon.config.state_dir), _Till(daemon), daemon.clock, SlotLine(place).ask,
                  proof_seq=first_seq, **_short())
    uplink = daemon.uplink
    on_chunk, on_line, on_ack = uplink.on_chunk, uplink.on_line, uplink.on_ack

    def chunk(sha256: str, n: int, data: bytes) -> None:
        if not one.chunk(sha256, n, data):
            on_chunk(sha256, n, data)

    def line(up: bool) -> None:
        on_line(up)
        one.linked(up)

    def ack(upto: int) -> None:
        on_ack(upto)
        one.heard(upto)

    uplink.on_chunk, uplink.on_line, uplink.on_ack = chunk, line, ack
    return one


def _short() -> dict[str, Any]:
    """What a test may shorten, and nobody lengthen."""
    told = os.environ.get("TILLBOX_UPDATE_S", "")
    if not told.isdecimal():
        return {}
    return {"trial_ms": min(900, int(told)) * 1000, "quiet_ms": min(900, int(told)) * 100, "start_s": min(20, int(told) / 20)}


class _Till:
    def __init__(self, daemon: Around) -> None:
        self._daemon = daemon
        self.publish, self.hello = daemon.uplink.publish, daemon.uplink.greet

    def nobody_here(self) -> bool:
        return nobody_here(self._daemon.box.books, self._daemon.box.desk)

    def sick(self) -> frozenset[str]:
        return frozenset(part for part, _ in self._daemon.box.desk.health)

    def restart(self) -> None:
        self._daemon.end(EXIT_REBOOT)

    async def dry_sale(self) -> str:
        dry = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "device.update.dry_sale", self._daemon.path, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, cwd=Path(__file__).parents[2])
        try:
            async with asyncio.timeout(DRY_S_MAX):
                out, _ = await dry.communicate()
            return "" if dry.returncode == 0 else out.decode("utf-8", "replace").strip()[:200] or "it ended without a word"
        except TimeoutError:
            return "it did not end"
        finally:
            if dry.returncode is None:
                dry.kill()
                await dry.wait()
