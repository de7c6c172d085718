"""One box on virtual time: the real Box, Runner, journal and signer, from boot to boot, until its power is cut again.

Knows what a death takes along: every row not yet synced, whatever was in memory, nothing that has left.  Refuses to know payers,
channels and what should be true afterwards.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from device.box import Box
from device.drivers.contract import Driver
from device.drivers.signer.file import FileSigner
from device.errors import JournalUnreadable
from device.recovery.recovering import doubt, opened
from device.recovery.table import Act
from device.runner import Runner
from device.store_forward.journal import Journal
from device.txn.books import Books
from device.txn.desk import Verdict
from device.txn.inputs import Input, LinkSaid, Pressed, Scanned, Started
from device.txn.show import phase
from device.types import Found, Stamp, Terms
from sim.virtual.fate import Fate, WorldClock
from sim.virtual.signer import RoughSigner

SEED = base64.urlsafe_b64encode(b"%16d" % 7).rstrip(b"=").decode()      # names the journal; its order numbers begin alike
ROOM_BYTES = 1 << 40
DARK_S = (1, 20)               # how long a box is off when somebody stumbles over its cord
KEY_S = (.05, .25)             # between two keys
UP_S_MAX = 600              # and on a very bad day it stumbles again and again
FLASH_PAGE = 16 * 1024


class PowerCut(Exception):
    """The box is off in this very moment."""


class Mortal(Journal):
    def cut(self) -> None:
        """What was not synced is gone, and nobody writes any more."""
        self._waiting.clear()
        self._ack_due = False
        self._db.close()
        if self.copy is not None:
            self.copy.close()


class Watched(Box):
    """A box whose every decision is looked at behind it: its row is where it belongs, and nothing that follows has begun."""

    def __init__(self, journal: Journal, before: Callable[[Input], None], after: Callable[[Input, Verdict], None]) -> None:
        super().__init__(journal)
        self._before, self._after = before, after

    def handle(self, event, at):
        self._before(event)
        handled = super().handle(event, at)
        self._after(event, handled[0])
        return handled


class Till:
    """`parts(till)` gives a boot's drivers beside the signer; `met` is called when a boot's journal has its name, `rows` when rows
    reached the card.  `before` is told every input, `watch` every decision.  `trace` is the run's digest.
    """

    def __init__(self, fate: Fate, clock: WorldClock, folder: Path, terms: Terms, parts: Callable[[Till], Mapping[str, Driver]], *,
                 met: Callable[[Till], None], rows: Callable[[], None], before: Callable[[Input], None] = lambda event: None,
                 watch: Callable[[Input, Verdict], None]) -> None:
        self.fate, self.clock, self.terms = fate, clock, terms
        self.signer = FileSigner(folder / "record.pem")
        self._hand = RoughSigner(self.signer, fate, clock)
        self.boots, self.alive, self.boot = 0, False, ""
        self.box: Watched
        self.journal: Mortal
        self.runner: Runner
        self.failure: BaseException | None = None
        self._victim = ""
        self._folder, self._parts, self._met, self._rows = folder, parts, met, rows
        self._before, self._watch = before, watch
        self._task: asyncio.Task[None] | None = None
        self._dark_s: float | None = None
        self._waits: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._trace = hashlib.sha256()

    @property
    def trace(self) -> str:
        return self._trace.hexdigest()

    # Its life

    async def live(self) -> None:
        """Boot, serve and die, again and again; ends with `failure` set when the box died of its own mistake."""
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self._broken(context))
        while self.failure is None:
            try:
                self._boot()
            except Exception as why:                  # noqa: BLE001  whatever keeps a box from starting is what we look for
                self.failure = why
                break
            await asyncio.sleep(0)
            assert self._task is not None
            if not self._task.done():
                self._meet()
            await asyncio.wait({self._task})
            self.alive = False
            ended = None if self._task.cancelled() else self._task.exception()
            if ended is not None and not isinstance(ended, PowerCut):
                self._failed(ended)
            if "flash" in self.fate.rates and self.fate.strikes("box", "flash"):
                self._spoil()
            self._dark_s, dark_s = None, self._dark_s or self.fate.random.uniform(*DARK_S)
            await asyncio.sleep(dark_s)
        self._wake()

    def _meet(self) -> None:
        try:
            self._met(self)
        except JournalUnreadable as why:              # the line looks behind the rows that a start reads
            self._failed(why)
            self.kill(0)

    def _boot(self) -> None:
        self.boots += 1
        self.boot, self._born_ms = f"b{self.boots}", self.clock.ms()
        where, identity = self._folder / "journal.db", {"box": self.terms.box, "mode": "real"}
        told: dict[str, Any] = {}
        if "flash" in self.fate.rates:
            found = opened(where, self._folder / "second", identity=identity, journal=Mortal, free_bytes=lambda: ROOM_BYTES)
            assert isinstance(found.journal, Mortal) and found.act is Act.SELL, found
            self.journal, told = found.journal, found.started()
            for damaged in self._folder.glob("damaged-*"):       # a person took it away, and the card as well
                shutil.rmtree(damaged)
        else:
            self.journal = Mortal(where, identity=identity, free_bytes=lambda: ROOM_BYTES)
        self.box = Watched(self.journal, self._before, self._after)
        self.runner = Runner(self.box, {"signer": self._hand, **self._parts(self)}, self, on_rows=self._rows)
        self.alive = True
        first = Started(self.boot, "world", self.terms, SEED, self.signer.kid, **told)
        self._task = asyncio.get_running_loop().create_task(self.runner.run(first), name="box")
        self.runner.post(LinkSaid(True, True))

    def _spoil(self) -> None:
        """The power went, and one flash page with it.  Always of one store: a page that nobody reads is found late, and two would
        be one too many."""
        if not self._victim:
            self._victim = self.fate.random.choice(("journal.db*", "second/copy-*.seg"))
        files = sorted(self._folder.glob(self._victim))
        path = self.fate.random.choice(files)
        page = self.fate.random.randrange(max(1, -(-path.stat().st_size // FLASH_PAGE))) * FLASH_PAGE
        with path.open("r+b") as file:
            file.seek(page)
            file.write(self.fate.random.randbytes(min(FLASH_PAGE, path.stat().st_size - page)))

    def kill(self, dark_s: float | None = None) -> None:
        """SIGKILL, or the power cord; it stays off for `dark_s`, or a few seconds."""
        if self.alive and self._task is not None:
            self.alive, self._dark_s = False, dark_s
            self.journal.cut()
            self._task.cancel()

    def _after(self, event: Input, verdict: Verdict) -> None:
        names = "+".join(type(fact).__name__ for fact in verdict.facts)
        no = getattr(event, "order_no", "") or getattr(event, "refund_no", "")
        self._trace.update(f"{self.clock.ms()} {type(event).__name__} {no} {names}\n".encode())
        self._watch(event, verdict)
        self._wake()
        if verdict.facts and self.fate.strikes("box", "kill"):
            self.alive = False
            self.journal.cut()
            raise PowerCut

    def _failed(self, why: BaseException) -> None:
        """It died of itself.  A row that cannot be read is what a spoilt page leaves: the daemon notes it and starts again."""
        if "flash" in self.fate.rates and (isinstance(why, JournalUnreadable) or "malformed" in str(why)):
            self.journal.cut()
            doubt(self._folder / "journal.db")
        else:
            self.failure = self.failure or why

    def _broken(self, context: dict) -> None:
        """A task of the box died of its own mistake: so would the daemon."""
        why = context.get("exception")
        if why is not None and not isinstance(why, PowerCut) and self.alive:
            self._failed(why)
            self.kill(0)

    # Its clock

    def now_ms(self) -> int:
        return self.clock.ms() - self._born_ms

    def stamp(self) -> Stamp:
        return Stamp(self.boot, self.now_ms(), self.clock.wall(), "ntp")

    # Hands and eyes

    @property
    def books(self) -> Books:
        return self.box.books

    @property
    def phase(self) -> str:
        return phase(self.box.books, self.box.desk)

    def post(self, event: Input) -> None:
        """The box hears it, if it is on."""
        if self.alive:
            self.runner.post(event)

    def later(self, delay_s: float, event: Input) -> None:
        """The same, later, unless the box died meanwhile."""
        boot = self.boots
        asyncio.get_running_loop().call_later(delay_s, lambda: self.post(event) if boot == self.boots else None)

    async def up(self) -> None:
        """Until it is on; where a person would wait and do nothing."""
        for _ in range(UP_S_MAX):
            if self.alive:
                return
            await asyncio.sleep(1)
        raise self.failure or AssertionError("the box stays dark")

    async def reread(self) -> None:
        """Read every row once; a page that no start reads is found at last, and healed at the next one."""
        try:
            assert sum(1 for _ in self.journal.rows())
        except JournalUnreadable as why:
            self._failed(why)
            self.kill(0)
            await asyncio.sleep(1)
            await self.up()

    async def press(self, *keys: str) -> None:
        """Keys as a hand presses them; a number digit by digit."""
        for key in keys:
            for one in key if key.isdigit() else [key]:
                self.post(Pressed(one))
                await asyncio.sleep(self.fate.random.uniform(*KEY_S))

    async def scan(self, symbol: str, found: Found | None = None) -> None:
        self.post(Scanned(symbol, found))
        await asyncio.sleep(self.fate.random.uniform(*KEY_S))

    async def until(self, done: Callable[[], bool], limit_s: float) -> bool:
        """True as soon as a decision of the box made `done` true; False after `limit_s`.  Raises what the box died of."""
        if self.failure is None and not done():
            wait: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waits.append((done, wait))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait, limit_s)
            self._waits = [held for held in self._waits if held[1] is not wait]
        if self.failure is not None:
            raise self.failure
        return done()

    def _wake(self) -> None:
        for done, wait in self._waits:
            if not wait.done() and (self.failure is not None or done()):
                wait.set_result(None)
