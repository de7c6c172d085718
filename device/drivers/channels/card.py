"""The card terminal as a driver: one effect, one question on the line, one word back; and what it says unasked.

Knows who waits for which answer, and that a sale is asked for once: whatever comes back, or nothing, no frame is ever sent
twice from here.  Refuses to know a card: the codec has masked what could be one before anything is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Protocol

from device.drivers.channels import card_bytes as wire
from device.drivers.channels import card_frame_bytes as frame
from device.drivers.channels.codec_bytes import Verdict
from device.drivers.channels.https import told
from device.errors import DriverGone, Outside
from device.txn.effects import ChargeCard, CloseOrder, Effect, QueryOrder, QueryRefund, RefundOrder
from device.txn.inputs import DeviceSaid, Input

PART = "channel:card"
CALLS: dict[type[Effect], str] = {ChargeCard: "SA", QueryOrder: "QY", CloseOrder: "VO", RefundOrder: "RF", QueryRefund: "RQ"}
ACK_S, REPLY_S = 2.0, 5.0
HELLO_S, HELLO_AGAIN_S = 60.0, 5.0     # between two looks whether it is there: while it is, and while it is not
QUIET_MS = 500                         # inside a frame: longer than any line that works is silent
NAKS_MAX = 3                           # a device that babbles is not answered for ever
KNOWN_MAX = 512
SILENT = "the card terminal does not answer"


class Line(Protocol):
    """What `channel_card_line` opens."""

    async def read(self, quiet_ms: int | None = None) -> bytes | None: ...
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class CardTerminal:
    """The terminal `terminal_id` behind the line that `opened` opens, for orders of `account`.

    `secret` seals both directions; without one, whoever holds the line is believed.  `ident` gives each question a number
    of eight hex digits.  An effect made for another account or
    another terminal is not asked here at all: UNKNOWN.  Nothing outside raises.
    """

    does: frozenset[type[Effect]] = frozenset(CALLS)
    at_once = 1

    def __init__(self, opened: Callable[[], Awaitable[Line]], *, account: str, terminal_id: str, secret: bytes = b"",
                 ack_s: float = ACK_S, reply_s: float = REPLY_S, hello_s: float = HELLO_S,
                 ident: Callable[[], str] = lambda: secrets.token_hex(4)) -> None:
        if not wire.TERMINAL.fullmatch(terminal_id):
            raise ValueError("terminal_id is no terminal's")
        self._opened, self._account, self._terminal_id, self._secret = opened, account, terminal_id, secret
        self._ack_s, self._reply_s, self._hello_s, self._ident = ack_s, reply_s, hello_s, ident
        self._line: Line | None = None
        self._one = asyncio.Lock()                     # questions on one line go one after the other, first come first served
        self._watch = asyncio.Lock()                   # of those about closed orders one stands in that line, and no crowd
        self._waiting: _Question | None = None
        self._known: dict[str, Any] = {}               # intents asked about, by number; None: a refund's numbers
        self._news: asyncio.Queue[Input | None] = asyncio.Queue()
        self._health = ""
        self._naks = 0

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """DeviceSaid of `channel:card` (`ok slow busy offline lying unmasked error gone`), and words on orders unasked."""
        try:
            line = await self._opened()
        except Outside as fault:
            self._health = "gone" if fault.again else "error"
            yield DeviceSaid(PART, self._health, str(fault))
            return
        self._line, self._health, self._news = line, "", asyncio.Queue()
        work = [asyncio.create_task(self._read(line)), asyncio.create_task(self._greet())]
        try:
            while (news := await self._news.get()) is not None:
                yield news
        finally:
            self._line = None
            line.close()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def do(self, effect: Effect) -> Input:
        """One effect, one word.  AssertionError for an effect not in `does`."""
        assert type(effect) in self.does, f"no effect of the card terminal: {type(effect).__name__}"
        asked: Any = effect
        fields = dict(asked.intent.account.fields)
        if asked.intent.account.account != self._account or fields.get("terminal_id") != self._terminal_id:
            verdict = Verdict("unknown", detail="this was asked of another card terminal than the one set up now")
        elif isinstance(effect, ChargeCard):
            verdict = await self._charged(effect)
        elif isinstance(effect, RefundOrder):
            verdict = await self._refunded(effect)
        else:
            async with self._watch if isinstance(effect, QueryOrder) and effect.watch else contextlib.nullcontext():
                verdict = await self._asked(effect, CALLS[type(effect)])
        return told(effect, verdict)

    async def close(self) -> None:
        """Let go of the line and end `inputs`."""
        self._news.put_nowait(None)

    # Questions -------------------------------------------------------------------------------------------------------

    async def _charged(self, effect: ChargeCard) -> Verdict:
        """The sale, once, at a terminal that has just said it is ready.

        Until the sale's own frame has left, whatever fails is a refusal: nothing can have been charged.  A NAK says that the
        frame came spoilt; the terminal is asked, and behind the frame on the same line its "no such sale" is the truth.
        """
        async with self._one:
            hello = await self._exchange("HL", {"TI": self._terminal_id})
            why = self._greeted(hello)
            if why:
                return Verdict("refused", detail=why)
            try:
                question = await self._exchange("SA", wire.order_call(effect.intent), effect.intent)
            except ValueError as fault:
                return Verdict("refused", detail=f"no request can be built: {fault}")
            if not question.left:
                return Verdict("refused", detail=SILENT)
            if question.naked and question.reply is None:
                again = await self._exchange("QY", wire.order_call(effect.intent), effect.intent)
                verdict = self._word("QY", effect, again)
                return Verdict("refused", detail="the line to the card terminal is bad: the sale did not reach it") \
                    if verdict.word == "absent" else verdict
            return self._word("SA", effect, question)

    async def _refunded(self, effect: RefundOrder) -> Verdict:
        """A refund is asked about before it is asked for, each time: the terminal may have taken it and been unheard."""
        before = await self._asked(effect, "RQ")
        return await self._asked(effect, "RF") if before.word == "absent" else before

    async def _asked(self, effect: Any, call: str) -> Verdict:
        refund = call in ("RF", "RQ")
        try:
            parts = wire.refund_call(call, effect.intent) if refund else wire.order_call(effect.intent)
        except ValueError as fault:
            return Verdict("unknown", detail=f"no request can be built: {fault}")
        async with self._one:
            return self._word(call, effect, await self._exchange(call, parts, effect.intent))

    def _word(self, call: str, effect: Any, question: _Question) -> Verdict:
        if question.reply is None:
            self._set("slow" if question.left else "gone", SILENT)
            return Verdict("unknown", detail=SILENT)
        read = wire.refund_word if call in ("RF", "RQ") else wire.order_word
        verdict = read(call, effect.intent, question.reply)
        self._set_by(question.reply, verdict)
        return verdict

    async def _exchange(self, call: str, parts: dict[str, str], intent: Any = None) -> _Question:
        """Put one question and wait for its answer.  The frame goes out once; no ACK soon, and nobody waits for the reply."""
        question = _Question(call, self._ident())
        if intent is not None:
            self._know(intent)
        line = self._line
        if line is None:
            return question
        self._waiting, self._naks = question, 0
        try:
            line.write(frame.framed(frame.written(call, question.id, parts, self._secret)))
            question.left = True
            # Not wait_for: until 3.12 it swallows a cancel that meets the answer.
            async with asyncio.timeout(self._ack_s):
                await question.acked.wait()
            async with asyncio.timeout(self._reply_s):
                await question.done.wait()
        except (DriverGone, TimeoutError):
            pass                                       # `left` and `reply` say all that is known
        finally:
            self._waiting = None
        return question

    def _know(self, intent: Any) -> None:
        """Numbers that may come back, and whose order it is that news may come of."""
        refund_no = getattr(intent, "refund_no", "")
        if refund_no:
            self._known[refund_no] = None
            self._known.setdefault(intent.order_no, None)
        else:
            self._known.pop(intent.order_no, None)     # put anew at the end: the oldest are forgotten first
            self._known[intent.order_no] = intent
        while len(self._known) > KNOWN_MAX:
            self._known.pop(next(iter(self._known)))

    async def _greet(self) -> None:
        """Look whether it is there, at once and then at intervals: a dead line should be known before a customer stands at it."""
        while True:
            async with self._one:
                self._greeted(await self._exchange("HL", {"TI": self._terminal_id}))
            await asyncio.sleep(self._hello_s if self._health == "ok" else min(HELLO_AGAIN_S, self._hello_s))

    def _greeted(self, hello: _Question) -> str:
        """The health that a hello tells; and why no sale can begin now, "" when one can."""
        said = hello.reply
        if said is None:
            self._set("slow" if hello.left else "gone", SILENT)
            return SILENT
        state, other = said.parts.get("ST", ""), said.parts.get("TI", "")
        if other != self._terminal_id:
            named = other if wire.TERMINAL.fullmatch(other) else "another"
            why = f"the card terminal says that it is {named}, not {self._terminal_id}"
            self._set("error", why)
            return why
        why = {"ready": "", "busy": wire.SAYS["busy"], "offline": "the card terminal does not reach its bank"}.get(
            state, "the card terminal's word is none")
        self._set("ok" if state in ("ready", "busy") else "offline" if state == "offline" else "lying", why)
        return why

    # The line --------------------------------------------------------------------------------------------------------

    async def _read(self, line: Line) -> None:
        """Everything that stands on the line, until it is gone."""
        frames = frame.Frames()
        try:
            while (data := await line.read(QUIET_MS if frames.open else None)) != b"":
                for heard in frames.quiet() if data is None else frames.feed(data):
                    self._hear(heard, line)
            why = "the card terminal was unplugged or went off"
        except Outside as fault:
            why = str(fault)
        self._line = None
        if self._waiting is not None:
            self._waiting.end()
        self._set("gone", why)
        self._news.put_nowait(None)

    def _hear(self, heard: frame.Heard, line: Line) -> None:
        waiting = self._waiting
        match heard.kind:
            case "ack":
                if waiting is not None:
                    waiting.acked.set()
            case "nak":
                if waiting is not None:
                    waiting.naked = True
                    waiting.end()
            case "noise":
                self._naks += 1
                if self._naks <= NAKS_MAX:
                    self._answer(line, frame.NAK)
            case "frame":
                self._naks = 0
                self._answer(line, frame.ACK)
                self._message(frame.read(heard.body, self._known, self._secret))

    def _answer(self, line: Line, byte: bytes) -> None:
        with contextlib.suppress(DriverGone):
            line.write(byte)

    def _message(self, said: frame.Message | None) -> None:
        waiting = self._waiting
        if said is None:
            self._set("lying", "the card terminal sends what is no message of ours")
        elif said.call == "EV":
            self._told_unasked(said)
        elif waiting is not None and said.id == waiting.id and said.call == waiting.call.lower():
            waiting.reply = said
            waiting.end()
        # else an answer that came too late: its question is asked again, and what it says may be old

    def _told_unasked(self, said: frame.Message) -> None:
        """The end of a sale, told as soon as it is there.  Of an order nobody asked about it is nobody's."""
        intent = self._known.get(said.parts.get("NO", ""))
        if intent is None:
            return
        verdict = wire.order_word("QY", intent, said)
        self._set_by(said, verdict)
        if verdict.word not in ("unknown", "absent"):
            self._news.put_nowait(told(QueryOrder(intent), verdict))

    def _set_by(self, said: frame.Message, verdict: Verdict) -> None:
        if said.unmasked:
            self._set("unmasked", "the card terminal sends whole card numbers: have them masked there")
        else:
            self._set(verdict.health, verdict.detail if verdict.health != "ok" else "")

    def _set(self, word: str, why: str = "") -> None:
        if word != self._health:
            self._health = word
            self._news.put_nowait(DeviceSaid(PART, word, why if word != "ok" else ""))


class _Question:
    """One call under way: `left` once its frame went out, `naked` when the terminal refused the frame, `reply` its answer."""

    def __init__(self, call: str, ident: str) -> None:
        self.call, self.id = call, ident
        self.left = self.naked = False
        self.reply: frame.Message | None = None
        self.acked, self.done = asyncio.Event(), asyncio.Event()

    def end(self) -> None:
        self.acked.set()
        self.done.set()
