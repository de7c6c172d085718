"""The receipt printer: one job out, one honest answer back.

Knows when a printer may be given a job and what proves that it printed one.  Knows no cable (a line is handed in) and
no receipt (paper parts are).  Never repeats a job: from its first byte on, what cannot be proved is said to be unsure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, ClassVar, Protocol

import msgspec

from device.drivers import printer_bytes as escpos
from device.errors import DriverBusy, DriverGone, Outside, PrintUnproven
from device.txn.effects import Effect, KickDrawer, PaperPart, Print
from device.txn.inputs import DeviceSaid, DrawerKicked, Input, Printed, PrintUnsure

CHUNK_BYTES = 1024           # a write that is cut off has lost at most this much unseen


class Line(Protocol):
    """A way to the printer: `printer_tcp`, `printer_serial`, `printer_file`.

    `write` raises DriverGone when no byte left and PrintUnproven when some did; `read` gives b"" when nothing came.
    """

    name: str
    reads: bool
    byte_s: float

    @property
    def is_open(self) -> bool: ...
    async def open(self) -> None: ...
    async def write(self, data: bytes) -> None: ...
    async def read(self, wait_s: float) -> bytes: ...
    async def close(self) -> None: ...


class Limits(msgspec.Struct, frozen=True):
    """How long a printer may take, in seconds.

    `slow_s` to answer a question, `proof_s` to prove a job after its last byte, plus `line_s` for each line of it: a
    clone prints 60 mm a second and a line is 4.2 mm.  `poll_s` between two looks at an idle printer.
    """

    slow_s: float = 2.0
    proof_s: float = 8.0
    line_s: float = 0.07
    poll_s: float = 3.0


class Printer:
    """Driver of one ESC/POS printer behind `line`.

    `columns` 48 or 32; `encode(paper, columns)` replaces our own encoder; `drawer_pin` 2 or 5; `level_max` caps the
    proof asked for, for a printer that misbehaves when asked.  `sleep` paces the idle look and may be moved by hand.

    `level` is the best proof this printer was ever seen to give: 0 none, 1 it answers DLE EOT, 2 also GS r, 3 also
    GS ( H.  It never falls, so a printer that once spoke and is silent now counts as gone, not as one-way.

    What a new connection finds may be the middle of a job that an old one lost, in a printer that was never off.  So it is
    brought to the start of a command first, and at start and after a job without proof the paper is cut before the next job:
    a broken receipt and a new one never share a piece.  Costs a blank slip when nothing hung in the printer.
    """

    does: ClassVar[frozenset[type[Effect]]] = frozenset({Print, KickDrawer})
    at_once: ClassVar[int] = 1

    def __init__(self, line: Line, columns: int = escpos.COLUMNS_80MM, *,
                 encode: Callable[[Iterable[PaperPart], int], bytes] = escpos.paper_bytes, drawer_pin: int = 2,
                 level_max: int = 3, limits: Limits | None = None,
                 sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        self.level = 0
        self._line, self._columns, self._encode, self._pin = line, columns, encode, drawer_pin
        self._level_max, self._limits, self._sleep = level_max, limits or Limits(), sleep
        self._probed = False
        self._replies = escpos.StatusReader()
        self._one_job = asyncio.Lock()
        self._word = ""
        self._news: deque[DeviceSaid] = deque()
        self._stirred = asyncio.Event()
        self._closed = False
        self._asked = 0
        self._lost = self._torn = True                 # what the printer was told last is not known; nor what hangs in it

    async def do(self, effect: Effect) -> Input:
        """Printed or PrintUnsure for Print, DrawerKicked for KickDrawer.

        DriverGone and DriverBusy mean that no byte of the effect left; DriverBusy names the cause for a person.
        """
        async with self._one_job:
            try:
                if isinstance(effect, Print):
                    return await self._print(effect)
                assert isinstance(effect, KickDrawer), effect
                return await self._kick(effect)
            except DriverGone as error:                # whoever was told "gone" must be told when it is back
                if self._word in ("ok", "slow", ""):
                    self._say("gone", error.what)
                raise

    @property
    def word(self) -> str:
        """Its health as last told."""
        return self._word

    async def inputs(self) -> AsyncIterator[Input]:
        """DeviceSaid("printer", word, why) at each change, until closed.

        Words: `ok gone paper_out paper_low cover_open off error slow`.  It outlives an
        unplugged printer, because only a look tells when the printer is back.
        """
        due = True
        while not self._closed:
            if due and not self._one_job.locked():
                async with self._one_job:
                    await self._look()
            while self._news:
                yield self._news.popleft()
            due = await self._pause()

    async def close(self) -> None:
        """Let go of the line and end `inputs`."""
        self._closed = True
        self._stirred.set()
        await self._line.close()

    # --- one job ---

    async def _print(self, effect: Print) -> Input:
        data = await asyncio.to_thread(self._encode, effect.paper, self._columns)
        await self._ready()
        if self._torn:
            await self._before_a_job(escpos.CUT)
        self._torn = True
        try:
            await self._send(data)
            proof = await self._proof(data)
        except PrintUnproven as error:
            await self._line.close()                   # the next job starts on a fresh connection and a reset parser
            self._say("gone" if self._word in ("ok", "slow", "") else self._word, error.what)
            return PrintUnsure(effect.job, error.what)
        except DriverGone:
            self._torn = False                         # not a byte of it left
            raise
        self._torn = False
        if self._word == "slow":
            self._say("ok")
        return Printed(effect.job, proof)

    async def _before_a_job(self, data: bytes) -> None:
        """Write what is no part of a job: when it breaks off, no receipt is in doubt, and the printer is merely gone."""
        try:
            await self._line.write(data)
        except PrintUnproven as error:
            raise DriverGone(f"{error.what}", which="printer", hint=error.hint) from error

    async def _send(self, data: bytes) -> None:
        left = False
        for start in range(0, len(data), CHUNK_BYTES):
            try:
                await self._line.write(data[start:start + CHUNK_BYTES])
            except DriverGone as error:
                self._say("gone", error.what)
                if not left:
                    raise
                raise PrintUnproven(f"The printer went away in the middle of a receipt: {error.what}.",
                                    which="printer") from error
            left = True

    async def _proof(self, data: bytes) -> int:
        """How well the job is proved, see `level`.  PrintUnproven when a printer that can prove it does not."""
        if self.level == 0:
            return 0
        paper_s = self._limits.line_s * escpos.lines_about(data)
        patience_s = self._limits.proof_s + paper_s + self._line.byte_s * len(data)
        try:
            if self.level >= 3:
                self._asked += 1
                await self._wait_for("id", escpos.id_query(self._asked), patience_s, escpos.id_digits(self._asked))
                return 3
            if self.level == 2:
                paper = await self._wait_for("queued", escpos.QUEUED_PAPER, patience_s)
                if escpos.queued_paper_out(paper.byte):
                    self._say("paper_out", "The printer has no paper.")
                    raise PrintUnproven("The printer ran out of paper during the receipt.", which="printer")
            complaint = await self._complaint((1, 2, 3))
        except DriverGone as error:
            raise PrintUnproven(f"The printer went away before it confirmed the receipt: {error.what}.",
                                which="printer") from error
        if complaint is not None:
            self._say(*complaint)
            raise PrintUnproven(f"After the receipt: {complaint[1]}", which="printer")
        return self.level

    async def _wait_for(self, kind: str, question: bytes, patience_s: float, data: bytes | None = None) -> escpos.Reply:
        """The reply of `kind` to `question`; after `slow_s` ask what is wrong, after `patience_s` PrintUnproven."""
        reply = await self._ask(question, kind, min(self._limits.slow_s, patience_s), data)
        if reply is not None:
            return reply
        self._say("slow", "The printer is slow to confirm a receipt.")
        complaint, reply = await self._complaint_or(kind, data)
        if reply is None:
            reply = await self._hear(kind, max(0.0, patience_s - self._limits.slow_s), data)
        if reply is None and complaint is None:
            complaint = await self._complaint((1, 2, 4))
        if reply is not None:
            return reply
        if complaint is not None:
            self._say(*complaint)
        why = complaint[1] if complaint else "It does not answer any more."
        raise PrintUnproven(f"The printer did not confirm the receipt. {why}", which="printer")

    async def _kick(self, effect: KickDrawer) -> Input:
        complaint = await self._open()
        if complaint is None:
            await self._line.write(escpos.drawer_bytes(self._pin))
        else:                                          # change is due also while the roll is being changed
            await self._line.write(escpos.drawer_now_bytes(self._pin))
        return DrawerKicked(effect.kick)

    # --- before a job ---

    async def _ready(self) -> None:
        """Open, healthy and its level known; else DriverGone or DriverBusy."""
        complaint = await self._open()
        if complaint is not None:
            self._say(*complaint)
            raise DriverBusy(complaint[1], which="printer", hint=HINTS.get(complaint[0], "look at the printer"))
        if self.level >= 1 and not self._probed:
            await self._probe()

    async def _open(self) -> tuple[str, str] | None:
        """What an open printer complains of, or None.  One fresh connection is tried when the old one has died."""
        try:
            if self._line.is_open:
                try:
                    return await self._greeted()
                except DriverGone:
                    await self._line.close()
            self._lost = True
            await self._line.open()
            return await self._greeted()
        except DriverGone as error:
            self._say("gone", error.what)
            raise

    async def _greeted(self) -> tuple[str, str] | None:
        complaint = await self._greet()
        if complaint is None and self._lost:           # an off-line printer would keep it for later, and the next look's as well
            await self._before_a_job(escpos.RESYNC)
            self._lost = False
        return complaint

    async def _greet(self) -> tuple[str, str] | None:
        """Ask DLE EOT 1, 2, 4 where the line can answer; DriverGone from a printer that answered in an earlier hour."""
        if not self._line.reads or self._level_max == 0:
            return None
        first = await self._ask(escpos.status_query(1), "eot", self._limits.slow_s)
        if first is None:
            if self.level:
                raise DriverGone("The printer does not answer.", which="printer", hint="switch it off and on again")
            return None
        self.level = max(self.level, 1)
        return await self._complaint((2, 4)) or escpos.ill(1, first.byte)      # the cause says more than "off-line"

    async def _probe(self) -> None:
        """Find the level, on a healthy printer only: an off-line one leaves queued questions unanswered."""
        self._probed = True
        if self._level_max >= 2 and await self._ask(escpos.QUEUED_PAPER, "queued", self._limits.slow_s):
            self.level = max(self.level, 2)
        if self._level_max >= 3:
            self._asked += 1
            digits = escpos.id_digits(self._asked)
            if await self._ask(escpos.id_query(self._asked), "id", self._limits.slow_s, digits):
                self.level = 3

    async def _look(self) -> None:
        """One look at an idle printer, told only when it changed."""
        try:
            complaint = await self._open()
            if complaint is None and self.level >= 1 and not self._probed:
                await self._probe()
            low = complaint is None and self.level >= 1 and await self._low()
        except Outside as error:
            await self._line.close()
            self._say("gone", error.what)
            return
        if complaint is not None:
            self._say(*complaint)
        elif low:
            self._say("paper_low", "The printer's roll is near its end.")
        else:
            self._say("ok", "" if self.level else "It confirms nothing: receipts are sent, not proved.")

    # --- questions ---

    async def _complaint(self, questions: tuple[int, ...]) -> tuple[str, str] | None:
        return (await self._complaint_or("", None, questions))[0]

    async def _complaint_or(
            self, kind: str, data: bytes | None, questions: tuple[int, ...] = (2, 4, 1),
    ) -> tuple[tuple[str, str] | None, escpos.Reply | None]:
        """The first complaint among `questions`, and a reply of `kind` that came in between."""
        for n in questions:
            await self._line.write(escpos.status_query(n))
            reply = await self._hear("eot", self._limits.slow_s, None, also=(kind, data))
            if reply is not None and reply.kind == kind:
                return None, reply
            complaint = escpos.ill(n, reply.byte) if reply is not None else None
            if complaint is not None:
                return complaint, None
        return None, None

    async def _low(self) -> bool:
        reply = await self._ask(escpos.status_query(4), "eot", self._limits.slow_s)
        return reply is not None and escpos.paper_low(reply.byte)

    async def _ask(self, question: bytes, kind: str, wait_s: float, data: bytes | None = None) -> escpos.Reply | None:
        """One question, its reply or None after `wait_s`; what an earlier question left behind is not taken for it."""
        while await self._line.read(0):
            pass
        self._replies.drop()
        await self._line.write(question)
        return await self._hear(kind, wait_s, data)

    async def _hear(self, kind: str, wait_s: float, data: bytes | None,
                    also: tuple[str, bytes | None] = ("", None)) -> escpos.Reply | None:
        """The next reply of `kind` (with `data`, if given) or of `also` within `wait_s` seconds; others are dropped."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while heard := await self._line.read(max(0.0, until - loop.time())):
            for reply in self._replies.feed_all(heard):
                if any(reply.kind == k and d in (None, reply.data) for k, d in ((kind, data), also)):
                    return reply
        return None

    # --- telling ---

    def _say(self, word: str, why: str = "") -> None:
        if word != self._word:
            self._word = word
            self._news.append(DeviceSaid("printer", word, why))
            self._stirred.set()

    async def _pause(self) -> bool:
        """Wait for the next look or for news; True when a look is due."""
        nap = asyncio.ensure_future(self._sleep(self._limits.poll_s))
        stir = asyncio.ensure_future(self._stirred.wait())
        try:
            await asyncio.wait({nap, stir}, return_when=asyncio.FIRST_COMPLETED)
            return nap.done()
        finally:
            self._stirred.clear()
            nap.cancel()
            stir.cancel()
            # Not each with its cancel suppressed: one that meets us here is ours, and the box would never stop.
            await asyncio.gather(nap, stir, return_exceptions=True)


HINTS = {
    "paper_out": "put in a new roll", "cover_open": "close the cover", "off": "press the printer's on-line key",
    "error": "switch the printer off and on again",
}
