"""Makes what runs equal to what is wanted.  Owns paces, retries and time-outs; alone catches the outside's failures.

One loop, one inbox: inputs are handled one after the other, each with its stamp, and nothing starts before its row is
on the card.  Repeatable effects run as tasks that are cancelled when nobody wants them; numbered and once effects are
never cancelled.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from device.box import Box
from device.clock import Clock
from device.drivers.contract import Display, Driver
from device.errors import DriverBusy, DriverGone
from device.pace import wait_ms
from device.txn import show
from device.txn.desk import Verdict
from device.txn.effects import Alarm, ChargeCard, ChargeCode, Effect, FetchBill, KickDrawer, Print, Reboot, Recall
from device.txn.facts import Fact, OrderIntended, RecordSigned, SignerBroke
from device.txn.inputs import (
    Asked,
    BillSaid,
    ChannelSaid,
    DeviceSaid,
    DrawerKicked,
    Input,
    Pressed,
    PrintRefused,
    PrintUnsure,
    QrReady,
    Rang,
    Recalled,
    Said,
    Scanned,
)
from device.txn.screen import Screen

log = logging.getLogger("tillbox")

GROUP_MS = 2_000              # rows that bind nothing wait at most this long for the card
INBOX_MAX = 1_000             # a burst of scans beyond this makes the reader wait
NUDGE_MS = 1_000              # between two questions that somebody asked for out of turn
REOPEN_MS = 1_000             # between two looks for an unplugged device
NUMBERED_S_MAX = 60.0         # a job that says nothing for so long is unsure
ASKED_KEPT = 256              # questions to channels that a timeline can still tell
PASSING_S_MAX = 20.0          # longer than any sound with its amount
SHOW_S_MAX = 5.0              # a frame that no glass took by then is another's
FAREWELL_S_MAX = 1.0          # a stop does not wait longer for a display


class Runner:
    """`drivers` by part: `printer`, `signer`, `channel:wechat`, and any number that only speak (`scanner`, `keypad`); `displays`
    likewise: each is shown the newest screen by itself, so that one that hangs holds up no other.

    `on_rows` is called after rows reached the card, for the forwarder.
    """

    def __init__(self, box: Box, drivers: Mapping[str, Driver], clock: Clock, *,
                 displays: Mapping[str, Display] | None = None, on_rows: Callable[[], None] = lambda: None) -> None:
        self.box, self.drivers, self.clock, self.displays, self.on_rows = box, drivers, clock, displays or {}, on_rows
        self.handled = 0
        self.asked: collections.deque[tuple[str, str, str, int, int, str]] = collections.deque(maxlen=ASKED_KEPT)   # see `_note`
        self.on_hand: Callable[[], None] | None = None         # somebody pressed a key or scanned
        self.whys: dict[str, str] = {}                # what each part last said of its health, in a sentence
        self._inbox: asyncio.Queue[Input] = asyncio.Queue(INBOX_MAX)
        self._tasks: dict[Effect, asyncio.Task] = {}
        self._nudges: dict[Effect, asyncio.Event] = {}
        self._standing: set[asyncio.Task] = set()
        self._screen: Screen | None = None
        self._redraw = {part: asyncio.Event() for part in self.displays}
        self._flush: asyncio.TimerHandle | None = None
        self._asked: dict[Asked, asyncio.Future[Verdict]] = {}

    def post(self, event: Input) -> None:
        """Put an input in line; for callers on the loop that cannot wait.  Behind a full line it waits by itself."""
        if self._inbox.full():
            self._stand(self._inbox.put(event), "post")
        else:
            self._inbox.put_nowait(event)

    async def ask(self, command: Asked) -> Verdict:
        """Put a command in line; its verdict, once what it decided is on the card."""
        waits = self._asked.get(command)
        if waits is None:
            waits = self._asked[command] = asyncio.get_running_loop().create_future()
            await self._inbox.put(command)
        return await asyncio.shield(waits)

    async def run(self, first: Input) -> None:
        """Handle `first`, then whatever comes, until cancelled."""
        self._handle(first)
        for part, driver in self.drivers.items():
            self._stand(self._listen(part, driver), f"listen {part}")
        for part, display in self.displays.items():
            self._stand(self._draw(part, display), f"draw {part}")
        try:
            while True:
                event = await self._inbox.get()
                verdict = self._handle(event)
                if isinstance(event, Asked) and (waits := self._asked.pop(event, None)) is not None and not waits.done():
                    waits.set_result(verdict)
        finally:
            if self._flush is not None:
                self._flush.cancel()
            for task in [*self._standing, *self._tasks.values()]:
                task.cancel()
            await asyncio.gather(*self._standing, *self._tasks.values(), return_exceptions=True)
            if not self.box.journal.failed:               # else what it died of is what must be told
                self.box.journal.sync()

    def now_screen(self) -> Screen:
        return show.render(self.box.books, self.box.desk)

    # Handling ------------------------------------------------------------------------------------------------------

    def _handle(self, event: Input) -> Verdict:
        verdict, start, stop = self.box.handle(event, self.clock.stamp())
        self.handled += 1
        if self.on_hand is not None and isinstance(event, Scanned | Pressed):
            self.on_hand()
        for fact in verdict.facts:
            _log(fact)
        for effect in stop:
            task = self._tasks.pop(effect, None)
            self._nudges.pop(effect, None)
            if task is not None:
                task.cancel()
        for effect in start:
            self._start(effect)
        if verdict.sound is not None and "sound" in self.drivers:
            self._stand(self._pass(verdict.sound), "sound")
        if self.box.journal.waiting:
            self._flush_soon()
        else:
            self._flush_never()
            self.on_rows()
        self._show()
        return verdict

    def _show(self) -> None:
        screen = self.now_screen()
        if screen != self._screen:
            self._screen = screen
            for redraw in self._redraw.values():
                redraw.set()

    def _flush_soon(self) -> None:
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_later(GROUP_MS / 1000, self._flush_now)

    def _flush_never(self) -> None:
        # What the timer was set for is on the card: rows that come now have their own time, and share one commit.
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None

    def _flush_now(self) -> None:
        self._flush = None
        self.box.journal.sync()
        self.on_rows()

    def _stand(self, work, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._standing.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task) -> None:
        """A task of ours that died of our own mistake takes the process with it: boot folds what is there."""
        self._standing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            asyncio.get_running_loop().call_exception_handler({"message": task.get_name(), "exception": task.exception()})

    # Effects -------------------------------------------------------------------------------------------------------

    def _start(self, effect: Effect) -> None:
        if effect.kind != "repeatable":
            self._stand(self._once(effect), type(effect).__name__)
            return
        if effect in self._tasks:
            self._nudges[effect].set()                # wanted already: asked now instead of by its pace
            return
        self._nudges[effect] = asyncio.Event()
        task = asyncio.create_task(self._alarm(effect) if isinstance(effect, Alarm) else self._repeat(effect),
                                   name=type(effect).__name__)
        self._tasks[effect] = task
        task.add_done_callback(self._ended)

    async def _once(self, effect: Effect) -> None:
        part, asked_ms = _part(effect), self.clock.now_ms()
        driver = self.drivers.get(part)
        try:
            if driver is None or type(effect) not in driver.does:
                raise DriverGone("this box cannot do that", which=part)
            async with asyncio.timeout(NUMBERED_S_MAX):
                answer = await asyncio.shield(driver.do(effect))
        except (DriverGone, DriverBusy) as why:
            answer = _never_left(effect, "gone" if isinstance(why, DriverGone) else _word(driver), why.what)
        except TimeoutError:
            answer = _mute(effect)
        self._note(effect, asked_ms, answer)
        await self._inbox.put(answer)

    async def _pass(self, effect: Effect) -> None:
        """Now or never: what cannot be done in its time is dropped, and nobody waits for it."""
        try:
            async with asyncio.timeout(PASSING_S_MAX):
                answer = await self.drivers[effect.part].do(effect)
        except (TimeoutError, DriverBusy):
            return
        except DriverGone as why:
            answer = DeviceSaid(effect.part, "gone" if why.again else "error", why.what)
        await self._inbox.put(answer)

    async def _repeat(self, effect: Effect) -> None:
        began_ms, tries, nudge = self.clock.now_ms(), 0, self._nudges[effect]
        asked_ms, nudged = began_ms - NUDGE_MS, False
        while True:
            pause = wait_ms(effect, tries, self.clock.now_ms() - began_ms, self.clock.now_ms(), self.box.desk.terms)
            if pause:
                # Not wait_for: until 3.12 it swallows a cancel that meets the nudge, and the effect would be asked for ever.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause / 1000):
                        await nudge.wait()
                    nudged = True
                nudge.clear()
            if nudged:                                # a thumb on CHECK asks no channel more than once a second
                await asyncio.sleep(max(0, asked_ms + NUDGE_MS - self.clock.now_ms()) / 1000)
            tries, asked_ms, nudged = tries + 1, self.clock.now_ms(), False
            answer = await self._ask(effect)
            self._note(effect, asked_ms, answer)
            await self._inbox.put(answer)

    def _note(self, effect: Any, asked_ms: int, answer: Any) -> None:
        """Remember a question about a payment and its answer: number, verb, part, when, how long, what came back."""
        intent = getattr(effect, "intent", None)
        if intent is None:
            return
        said = "a QR" if isinstance(answer, QrReady) else str(getattr(answer, "said", getattr(answer, "word", "")))
        why = getattr(answer, "detail", "") or getattr(answer, "why", "")
        self.asked.append((getattr(intent, "refund_no", "") or intent.order_no, type(effect).__name__, _part(effect), asked_ms,
                           self.clock.now_ms() - asked_ms, f"{said}: {why}" if why else said))

    async def _ask(self, effect: Effect) -> Input:
        if isinstance(effect, Recall):
            journal = self.box.journal
            return Recalled(effect.order_no, tuple(journal.recall(effect.order_no)), journal.first > 1)
        part = _part(effect)
        driver = self.drivers.get(part)
        try:
            if driver is None:
                raise DriverGone("not set up on this box", which=part, again=False)
            if isinstance(effect, FetchBill) and FetchBill not in driver.does:
                return BillSaid(effect.account, effect.day, why="this channel's bill cannot be read here")
            return await driver.do(effect)
        except (DriverGone, DriverBusy) as why:
            return DeviceSaid(part, "gone" if why.again else "error", why.what)

    async def _alarm(self, effect: Alarm) -> None:
        if effect.boot == self.box.books.boot:        # it rings once, and a ring that came early would be lost: 1 ms more
            await asyncio.sleep(max(0, effect.at_ms + 1 - self.clock.now_ms()) / 1000)
        await self._inbox.put(Rang(effect.key))

    async def _listen(self, part: str, driver: Driver) -> None:
        """What a device says, and again after it was unplugged and put back."""
        told = None
        while True:
            async for event in driver.inputs():
                if isinstance(event, DeviceSaid) and event != told:
                    told, self.whys[event.part] = event, event.why           # the screen has the word alone
                    log.log(logging.INFO if event.word == "ok" else logging.WARNING, "%s %s %s", event.part, event.word, event.why)
                await self._inbox.put(event)
            await asyncio.sleep(REOPEN_MS / 1000)

    async def _draw(self, part: str, display: Display) -> None:
        """The newest screen, once a second while a countdown runs, and as often as the display itself asks."""
        well, redraw = True, self._redraw[part]
        while True:
            screen, again_s = self._screen, None
            redraw.clear()
            if screen is not None:
                try:
                    async with asyncio.timeout(SHOW_S_MAX):
                        await display.show(screen, self.clock.now_ms())
                    again_s = display.again_s(screen)
                    if not well:
                        well = True
                        await self._inbox.put(DeviceSaid(part, "ok"))
                except (DriverGone, TimeoutError) as why:
                    if well:
                        well = False
                        self.whys[part] = why.what if isinstance(why, DriverGone) else "it takes no frame"
                        await self._inbox.put(DeviceSaid(part, "gone", self.whys[part]))
            if not well or (screen is not None and screen.deadline is not None):
                again_s = min(1.0, again_s or 1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(again_s):
                    await redraw.wait()

    async def farewell(self) -> None:
        """At the end of a life: no QR stays behind on any glass, and the customer is told to wait a moment."""
        last = show.farewell(self.box.desk.terms)

        async def leave(display: Display) -> None:
            with contextlib.suppress(DriverGone, TimeoutError):
                async with asyncio.timeout(FAREWELL_S_MAX):
                    await display.show(last, self.clock.now_ms())
            await display.close()

        await asyncio.gather(*map(leave, self.displays.values()))


def _part(effect: Any) -> str:
    """The driver that carries `effect` out."""
    if effect.part:
        return effect.part
    account = effect.account if isinstance(effect, FetchBill) else effect.intent.account
    return f"channel:{account.channel}"


def _never_left(effect: Effect, word: str, why: str) -> Input:
    """Not one byte of a numbered or once effect left the box."""
    match effect:
        case Print():
            return PrintRefused(effect.job, word, why)
        case ChargeCode() | ChargeCard():
            return ChannelSaid(effect.intent.order_no, Said.REFUSED, detail=why)
        case Reboot():
            return DeviceSaid("system", "error", why)
    assert isinstance(effect, KickDrawer)
    return DrawerKicked(effect.kick)


def _mute(effect: Effect) -> Input:
    """Nobody answered in time: what left is unsure."""
    match effect:
        case Print():
            return PrintUnsure(effect.job, "the printer said nothing for a minute")
        case ChargeCode() | ChargeCard():
            return ChannelSaid(effect.intent.order_no, Said.UNKNOWN, detail="no answer in time")
        case Reboot():
            return DeviceSaid("system", "error", "the box was told to restart and did not")
    assert isinstance(effect, KickDrawer)
    return DrawerKicked(effect.kick)


def _word(driver) -> str:
    """The health a printer that refused a job last named."""
    return getattr(driver, "word", "") or "off"


def _log(fact: Fact) -> None:
    """One line a fact, with its order number; never a QR, a key, a token or a payload."""
    if isinstance(fact, RecordSigned):
        log.info("RecordSigned seq=%d", fact.seq)
        return
    if isinstance(fact, SignerBroke):
        log.error("SignerBroke: %s; sales go on, and records wait for it", fact.why)
        return
    no = getattr(fact, "order_no", "") or (fact.intent.order_no if isinstance(fact, OrderIntended) else "")
    log.info("%s%s", type(fact).__name__, f" order_no={no}" if no else "")
