"""Questions to one receipt printer, and which answer belongs to which.

Knows the order of a printer's answers, and that a late one may meet the next question: what could be taken for another's
proof is waited for and thrown away before a job begins.  Knows no job and no receipt, and never repeats a question.
"""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

import msgspec

from device.drivers.printer import escpos_bytes as escpos
from device.errors import DriverBusy, DriverGone, PrintUnproven

MUTE_PART = 8                # of the time for an answer: how long one is waited for that never came, while a drawer waits behind it
BABBLE_BYTES_MAX = 65_536    # a printer that says more than this between two questions is no printer
STALE_MAX = 8


class Line(Protocol):
    """A way to the printer: `tcp`, `serial`, `usb`, `file`.

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
    clone prints 60 mm a second and a line is 4.2 mm.  `poll_s` between two looks at an idle printer; `kick_s` until a
    kicked drawer must be open, `drawer_s` until an open one is called left open.
    """

    slow_s: float = 2.0
    proof_s: float = 8.0
    line_s: float = 0.07
    poll_s: float = 1.5          # what is plugged in is seen within two seconds
    drawer_s: float = 60.0
    kick_s: float = 0.3


Complaint = tuple[str, str]


class Talk:
    """The conversation over `line`.  `level` is the best proof this printer was ever seen to give, see `Printer`.

    `model` is what it says that it is, "" while it has not said; `drawer_high` the level of the drawer's wire at the last
    answer to DLE EOT 1, None while nothing was answered.  `mute` while a printer has answered nothing since it was connected.
    """

    def __init__(self, line: Line, limits: Limits, level_max: int) -> None:
        self.line, self.limits, self.level_max = line, limits, level_max
        self.level, self.model = 0, ""
        self.drawer_high: bool | None = None
        self.mute = False
        self._names: bool | None = None                # whether it answers GS I; None: not asked yet
        self._probed = False
        self._replies = escpos.StatusReader()
        # Not from 1: after a restart the printer may still answer the numbers of the run before.
        self._asked = int.from_bytes(os.urandom(2), "big")

    async def greet(self) -> Complaint | None:
        """Ask DLE EOT 1, 2, 4 where the line can answer; DriverGone from a printer that answered in an earlier hour."""
        if not self.line.reads or self.level_max == 0:
            return None
        first = await self.ask(escpos.status_query(1), "eot", self.limits.slow_s / (MUTE_PART if self.mute else 1))
        self.mute = first is None and not self.level
        if first is None:
            port = await self.port_says()
            if self.level and port is None:
                raise DriverGone("The printer does not answer.", which="printer", hint="switch it off and on again")
            return port
        self.level = max(self.level, 1)
        self.drawer_high = bool(first.byte & escpos.DRAWER_HIGH)
        return await self.complaint((2, 4)) or escpos.ill(1, first.byte)      # the cause says more than "off-line"

    async def port_says(self) -> Complaint | None:
        """What a USB port complains of: it knows paper and errors of a printer that tells us nothing.  None from other lines."""
        says = getattr(self.line, "port_says", None)
        return await asyncio.to_thread(says) if says is not None else None         # the kernel asks, and waits up to five seconds

    async def settle(self) -> None:
        """Wait for what an earlier job has asked.  DriverBusy while the printer is still at it.

        The name of its model is asked first: that answer is of another kind than a proof, and comes behind every older one.
        """
        if self.level < 1 or self.level_max < 2:
            return
        if self._names is not False:
            reply = await self.ask(escpos.MODEL_QUERY, "block", self.limits.slow_s)
            if reply is not None:
                self._names, self.model = True, escpos.model_of(reply.data)
                return
            if self._names:
                raise DriverBusy(BUSY, which="printer", hint="wait until it has printed")
            self._names = False
        if self.level == 2 and not await self._last_queued():
            raise DriverBusy(BUSY, which="printer", hint="wait until it has printed")

    async def probe(self) -> None:
        """Find the level, once, on a healthy printer: an off-line one leaves queued questions unanswered."""
        if self._probed or self.level < 1:
            return
        self._probed = True
        if self.level_max >= 2 and await self._last_queued():
            self.level = max(self.level, 2)
        if self.level_max >= 3 and await self.ask(*self.id_question(), self.limits.slow_s, escpos.id_digits(self._asked)):
            self.level = 3

    def id_question(self) -> tuple[bytes, str]:
        """GS ( H with a number of its own, and the kind of its reply; the number is `asked`."""
        self._asked += 1
        return escpos.id_query(self._asked), "id"

    @property
    def asked(self) -> bytes:
        """The digits of the newest id question."""
        return escpos.id_digits(self._asked)

    async def _last_queued(self) -> bool:
        """Ask GS r 1, and let older answers to it pass as well: they look the same.  False when none came.

        Behind the name of the model no older one can come.
        """
        found = await self.ask(escpos.QUEUED_PAPER, "queued", self.limits.slow_s + self.line.byte_s * len(escpos.RESYNC))
        for _ in range(STALE_MAX if found and not self._names else 0):
            if not await self.hear("queued", self.limits.slow_s / 4 + self.line.byte_s * len(escpos.RESYNC), None):
                break
        return found is not None

    # --- complaints ---

    async def complaint(self, questions: tuple[int, ...]) -> Complaint | None:
        """The first thing that DLE EOT n complains of among `questions`, as (word, sentence)."""
        return (await self.complaint_or("", None, questions))[0]

    async def complaint_or(
            self, kind: str, data: bytes | None, questions: tuple[int, ...] = (2, 4, 1),
    ) -> tuple[Complaint | None, escpos.Reply | None]:
        """The same, and a reply of `kind` that came in between."""
        for n in questions:
            reply = await self._status(n, kind, data)
            if reply is not None and reply.kind == kind:
                return None, reply
            complaint = escpos.ill(n, reply.byte) if reply is not None else None
            if complaint is not None and complaint[0] == "error" and n == 2:
                why = await self._status(3, kind, data)            # "an error": of the cutter, of the head?
                if why is not None and why.kind == "eot":
                    complaint = escpos.ill(3, why.byte) or complaint
            if complaint is not None:
                return complaint, None
        return None, None

    async def _status(self, n: int, kind: str, data: bytes | None) -> escpos.Reply | None:
        await self.tell(escpos.status_query(n))
        return await self.hear("eot", self.limits.slow_s, None, also=(kind, data))

    async def paper_low(self) -> bool:
        """Whether the roll is near its end."""
        reply = await self.ask(escpos.status_query(4), "eot", self.limits.slow_s)
        return reply is not None and escpos.paper_low(reply.byte)

    # --- one question ---

    async def ask(self, question: bytes, kind: str, wait_s: float, data: bytes | None = None) -> escpos.Reply | None:
        """One question, its reply or None after `wait_s`; what an earlier question left behind is not taken for it."""
        babble = 0
        while heard := await self.line.read(0):
            babble += len(heard)
            if babble > BABBLE_BYTES_MAX:
                raise DriverGone("The printer talks without end.", which="printer", hint="check its cable and its speed")
        self._replies.drop()
        await self.tell(question)
        return await self.hear(kind, wait_s, data)

    async def hear(self, kind: str, wait_s: float, data: bytes | None,
                   also: tuple[str, bytes | None] = ("", None)) -> escpos.Reply | None:
        """The next reply of `kind` (with `data`, if given) or of `also` within `wait_s` seconds; others are dropped."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait_s
        while heard := await self.line.read(max(0.0, until - loop.time())):
            for reply in self._replies.feed_all(heard):
                if any(reply.kind == k and d in (None, reply.data) for k, d in ((kind, data), also)):
                    return reply
            if loop.time() >= until:                   # it babbles, and would be listened to for ever
                break
        return None

    async def tell(self, data: bytes) -> None:
        """Write what is no part of a job: when it breaks off, no receipt is in doubt, and the printer is merely gone."""
        try:
            await self.line.write(data)
        except PrintUnproven as error:
            raise DriverGone(f"{error.what}", which="printer", hint=error.hint) from error


BUSY = "The printer is still busy with an earlier receipt."
