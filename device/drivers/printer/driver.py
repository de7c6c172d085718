"""The receipt printer: one job out, one honest answer back.

Knows when a printer may be given a job and what proves that it printed one.  Knows no cable (a line is handed in) and
no receipt (paper parts are).  Never repeats a job: from its first byte on, what cannot be proved is said to be unsure.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any, ClassVar

from device.drivers.printer import escpos_bytes as escpos
from device.drivers.printer.talk import Complaint, Limits, Line, Talk
from device.errors import DriverBusy, DriverGone, Outside, PortHeld, PrintUnproven
from device.txn.effects import Effect, KickDrawer, PaperPart, Print
from device.txn.inputs import DeviceSaid, DrawerKicked, Input, Printed, PrintUnsure

BEEP_LATE_S = 2.0
CHUNK_BYTES = 1024           # a write that is cut off has lost at most this much unseen


class Printer:
    """Driver of one ESC/POS printer behind `line`.

    `columns` 48 or 32; `encode(paper, columns)` replaces our own encoder; `drawer_pin` 2 or 5; `level_max` caps the
    proof asked for, for a printer that misbehaves when asked.  `model` is part of the name that it should answer with, "":
    any.  `drawer_sensor` "high" or "low": the level of the drawer's wire while it is open, "none" without a wire.  `longest`
    more bytes than any command of `encode` has, see RESYNC.  `sleep` paces the idle look and may be moved by hand.

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
                 level_max: int = 3, model: str = "", drawer_sensor: str = "none",
                 limits: Limits | None = None, longest: int = 1024,
                 sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep) -> None:
        self._line, self._columns, self._encode, self._pin, self._model = line, columns, encode, drawer_pin, model
        self._sleep, self._longest = sleep, longest
        self._opens = {"high": True, "low": False}.get(drawer_sensor)
        self._talk = Talk(line, limits or Limits(), level_max)
        self._one_job = asyncio.Lock()
        self._word = ""
        self._news: deque[DeviceSaid] = deque()
        self._stirred = asyncio.Event()
        self._closed = False
        self._beeps = 0
        self._drawer_word = "ok"
        self._open_since: float | None = None
        self._unproved = False                         # the job before was sent and nobody knows
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
                if self._word in WELL:
                    self._say(*_of(error))
                raise

    @property
    def word(self) -> str:
        """Its health as last told."""
        return self._word

    @property
    def level(self) -> int:
        """The best proof it was ever seen to give."""
        return self._talk.level

    @property
    def model(self) -> str:
        """What it says that it is, "" while it has not said."""
        return self._talk.model

    async def inputs(self) -> AsyncIterator[Input]:
        """DeviceSaid("printer", word, why) at each change, until closed.

        Words: `ok gone held wrong_model paper_out paper_low cover_open off cutter hot error slow`.  It outlives an
        unplugged printer, because only a look tells when the printer is back.  Of a drawer with a sensor also
        DeviceSaid("drawer", word, why): `ok stuck left_open`.
        """
        due = True
        while not self._closed:
            if due and not self._one_job.locked():
                async with self._one_job:
                    await self._look()
            while self._news:
                yield self._news.popleft()
            due = await self._pause()

    async def beep(self, times: int) -> None:
        """Sound the printer's buzzer: before the receipt that waits to be sent, or now.  DriverBusy when neither came in time."""
        self._beeps = times
        try:
            async with asyncio.timeout(BEEP_LATE_S):
                await self._one_job.acquire()
        except TimeoutError:
            if not self._beeps:
                return
            self._beeps = 0
            raise DriverBusy("The printer is busy.", which="printer") from None
        try:
            if self._beeps and await self._open() is None:
                await self._beep()
        finally:
            self._beeps = 0
            self._one_job.release()

    async def _beep(self) -> None:
        times, self._beeps = self._beeps, 0
        if times:
            await self._talk.tell(escpos.beep_bytes(times))

    async def close(self) -> None:
        """Let go of the line and end `inputs`."""
        self._closed = True
        self._stirred.set()
        await self._line.close()

    # --- one job ---

    async def _print(self, effect: Print) -> Input:
        data = await asyncio.to_thread(self._encode, effect.paper, self._columns)
        await self._ready()
        torn = self._torn
        if torn:
            await self._talk.tell(escpos.CUT)
        await self._beep()
        self._torn = True
        try:
            await self._send(data)
            proof = await self._proof(data)
        except PrintUnproven as error:
            await self._line.close()                   # the next job starts on a fresh connection and a reset parser
            self._say("gone" if self._word in WELL else self._word, error.what)
            return PrintUnsure(effect.job, error.what)
        except DriverGone:
            self._torn = torn                          # not a byte of it left, and nobody knows of the cut
            raise
        self._torn, self._unproved = False, proof == 0
        if self._word == "slow":
            self._say(*self._well())
        return Printed(effect.job, proof)

    async def _send(self, data: bytes) -> None:
        left = False
        for start in range(0, len(data), CHUNK_BYTES):
            try:
                await self._line.write(data[start:start + CHUNK_BYTES])
            except DriverGone as error:
                self._say(*_of(error))
                if not left:
                    raise
                raise PrintUnproven(f"The printer went away in the middle of a receipt: {error.what}.",
                                    which="printer") from error
            left = True

    async def _proof(self, data: bytes) -> int:
        """How well the job is proved, see `level`.  PrintUnproven when a printer that can prove it does not."""
        if self.level == 0:
            if (said := await self._talk.port_says()) is not None:
                self._say(*said)
                raise PrintUnproven(f"After the receipt: {said[1]}", which="printer")
            return 0
        paper_s = self._talk.limits.line_s * escpos.lines_about(data)
        patience_s = self._talk.limits.proof_s + paper_s + self._line.byte_s * len(data)
        try:
            if self.level >= 3:
                question, kind = self._talk.id_question()
                await self._wait_for(kind, question, patience_s, self._talk.asked)
                return 3
            if self.level == 2:
                paper = await self._wait_for("queued", escpos.QUEUED_PAPER, patience_s)
                if escpos.queued_paper_out(paper.byte):
                    self._say("paper_out", "The printer has no paper.")
                    raise PrintUnproven("The printer ran out of paper during the receipt.", which="printer")
            complaint = await self._talk.complaint((1, 2, 3))
        except DriverGone as error:
            raise PrintUnproven(f"The printer went away before it confirmed the receipt: {error.what}.",
                                which="printer") from error
        if complaint is not None:
            self._say(*complaint)
            raise PrintUnproven(f"After the receipt: {complaint[1]}", which="printer")
        return self.level

    async def _wait_for(self, kind: str, question: bytes, patience_s: float, data: bytes | None = None) -> escpos.Reply:
        """The reply of `kind` to `question`; after `slow_s` ask what is wrong, after `patience_s` PrintUnproven."""
        reply = await self._talk.ask(question, kind, min(self._talk.limits.slow_s, patience_s), data)
        if reply is not None:
            return reply
        self._say("slow", "The printer is slow to confirm a receipt.")
        complaint, reply = await self._talk.complaint_or(kind, data)
        if reply is None:
            reply = await self._talk.hear(kind, max(0.0, patience_s - self._talk.limits.slow_s), data)
        if reply is None and complaint is None:
            complaint = await self._talk.complaint((1, 2, 4))
        if reply is not None:
            return reply
        if complaint is not None:
            self._say(*complaint)
        why = complaint[1] if complaint else "It does not answer any more."
        raise PrintUnproven(f"The printer did not confirm the receipt. {why}", which="printer")

    async def _kick(self, effect: KickDrawer) -> Input:
        complaint = await self._open()
        if complaint is None:
            await self._talk.tell(escpos.drawer_bytes(self._pin))
        else:                                          # change is due also while the roll is being changed
            await self._talk.tell(escpos.drawer_now_bytes(self._pin))
        await self._opened()
        return DrawerKicked(effect.kick)

    # --- before a job ---

    async def _ready(self) -> None:
        """Open, healthy and its level known; else DriverGone or DriverBusy."""
        complaint = await self._open()
        if complaint is not None:
            self._say(*complaint)
            raise DriverBusy(complaint[1], which="printer", hint=HINTS.get(complaint[0], "look at the printer"))
        await self._talk.probe()

    async def _open(self) -> Complaint | None:
        """What an open printer complains of, or None.  One fresh connection is tried when the old one has died."""
        try:
            if self._line.is_open:
                try:
                    return await self._greeted()
                except DriverGone:
                    await self._line.close()
            self._lost, self._talk.mute = True, False
            await self._line.open()
            return await self._greeted()
        except DriverGone as error:
            self._say(*_of(error))
            raise
        except DriverBusy as error:
            self._say("slow", error.what)
            raise

    async def _greeted(self) -> Complaint | None:
        level = self.level
        complaint = await self._talk.greet()
        self._torn |= self._unproved and (self._lost or self.level > level)
        if complaint is None and self._lost:           # an off-line printer would keep it for later, and the next look's as well
            await self._talk.tell(bytes(self._longest) + escpos.INIT)
            await self._talk.settle()
            self._lost = False
        return complaint

    async def _look(self) -> None:
        """One look at an idle printer, told only when it changed."""
        try:
            complaint = await self._open()
            if complaint is None:
                await self._talk.probe()
            low = complaint is None and self.level >= 1 and await self._talk.paper_low()
        except DriverBusy:
            return                                     # said where it was met
        except Outside as error:
            await self._line.close()
            self._say(*_of(error))
            return
        self._see_drawer()
        if complaint is not None:
            self._say(*complaint)
        elif low:
            self._say("paper_low", "The printer's roll is near its end.")
        else:
            self._say(*self._well())

    def _well(self) -> Complaint:
        """What is to be said of a printer that complains of nothing."""
        if self._model and self.model and self._model.lower() not in self.model.lower():
            return "wrong_model", f"The printer says that it is {self.model}; the configuration expects {self._model}."
        return "ok", "" if self.level else "It confirms nothing: receipts are sent, not proved."

    # --- drawer ---

    async def _opened(self) -> None:
        """Look whether a kick did anything, where a sensor is wired."""
        if self._opens is None or self.level < 1:
            return
        await asyncio.sleep(self._talk.limits.kick_s)
        try:
            await self._talk.greet()
        except DriverGone:
            return
        self._see_drawer(kicked=True)

    def _see_drawer(self, *, kicked: bool = False) -> None:
        """Say once when the drawer stands open too long, when a kick did not open it, and when it is shut again."""
        if self._opens is None or self._talk.drawer_high is None:
            return
        is_open, now = self._talk.drawer_high is self._opens, asyncio.get_running_loop().time()
        if not is_open:
            self._open_since = None
        elif self._open_since is None:
            self._open_since = now
        if not is_open and (kicked or self._drawer_word == "stuck"):
            word, why = "stuck", "The drawer was told to open and did not."
        elif is_open and self._open_since is not None and now - self._open_since >= self._talk.limits.drawer_s:
            word, why = "left_open", "The drawer stands open."
        else:
            word, why = "ok", ""
        if word != self._drawer_word:
            self._drawer_word = word
            self._news.append(DeviceSaid("drawer", word, why))
            self._stirred.set()

    # --- telling ---

    def _say(self, word: str, why: str = "") -> None:
        if word != self._word:
            self._word = word
            self._news.append(DeviceSaid("printer", word, why))
            self._stirred.set()

    async def _pause(self) -> bool:
        """Wait for the next look or for news; True when a look is due."""
        nap = asyncio.ensure_future(self._sleep(self._talk.limits.poll_s))
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


WELL = ("ok", "slow", "paper_low", "wrong_model", "")


def _of(error: Outside) -> Complaint:
    return "held" if isinstance(error, PortHeld) else "gone", error.what


HINTS = {
    "paper_out": "put in a new roll", "cover_open": "close the cover", "off": "press the printer's on-line key",
    "cutter": "free the cutter and switch the printer off and on", "hot": "let it cool down",
    "error": "switch the printer off and on again",
}
