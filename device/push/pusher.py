"""A pushed configuration on its way: proven, judged, staged, tried between two customers, and kept or taken back.

Knows the order of these steps and their deadlines; refuses to know the connection, the core and what a key means: all are handed
in.  Tried and undone: a trial begins only when the cloud answered under the old configuration a moment ago, and is kept only
when, on a connection made since, the cloud confirms a record that was signed since.  No replay does that: nobody could know the
record's digest.  One thread's: the loop's.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar, Protocol

from device.clock import Clock
from device.config import Config, restarts
from device.errors import ConfigError, Outside
from device.mqtt import config_wire as wire
from device.mqtt.wire import WireError
from device.push.blobs import Blobs
from device.push.checks import judged
from device.push.store import PushStore, Told
from device.txn.effects import Effect, TakeConfig
from device.txn.inputs import ConfigSaid, Input

log = logging.getLogger("tillbox")

TRIAL_MS = 600_000
FRESH_MS = 60_000             # how long an answer of the cloud proves that the old configuration reaches it
HELLO_MS = 20_000             # between two hellos that are sent for such an answer
SAVE_MS = 15_000              # of a trial's time a cut may give back
WANT_MS = 10_000              # without a chunk, after which the missing ones are asked for again
LOOK_S = 1.0
TRUSTED = ("ntp", "anchored")


class Till(Protocol):
    """What the pusher needs of the box around it."""

    def publish(self, name: str, payload: bytes) -> bool:
        """Hand a message to the broker; False when the line is down."""
        ...

    def hello(self) -> None:
        """Greet the cloud once more on the connection that stands, so that it answers."""
        ...

    def idle(self) -> bool:
        """True between two customers."""
        ...

    def next_seq(self) -> int:
        """Number of the next record to be signed."""
        ...

    def words_kept(self) -> int:
        """Number of the last word that stands in the journal, durably; 0 while that is not known."""
        ...

    def restart(self) -> None:
        """End this process in order; the next one reads the configuration anew."""
        ...

    def take(self, config: Config) -> None:
        """Go on with `config`, which differs in nothing that needs a restart, and make a new connection."""
        ...


class Pusher:
    """`runs` is what box.toml and the documents in `store` made.

    `keys` are the cloud's for configurations, by kid; `made` gives what a document makes of this box, or ConfigError with every
    reason; `checked(name, data)` raises Outside when a blob of that name is of no use; `proof_seq` is this boot's first record.
    """

    does: ClassVar[frozenset[type[Effect]]] = frozenset({TakeConfig})
    at_once = 1

    def __init__(self, store: PushStore, till: Till, clock: Clock, runs: Config, *, keys: wire.Verifiers,
                 made: Callable[[wire.Body], Config], checked: Callable[[str, bytes], object], proof_seq: int,
                 trial_ms: int = TRIAL_MS) -> None:
        self.store, self.clock, self.runs = store, clock, runs
        self.blobs = Blobs(store.blobs)
        self._till, self._keys, self._made, self._checked, self._trial_ms = till, keys, made, checked, trial_ms
        self._say: deque[ConfigSaid] = deque()
        self._since_ms, self._saved_ms = clock.now_ms(), clock.now_ms()
        self._proof_seq = proof_seq               # a record from here on proves what runs now
        self._link_ms: int | None = None          # when the connection was made that stands
        self._heard_ms: int | None = None         # when the cloud last answered on it
        self._hello_ms = -HELLO_MS
        self._waiting = ""                        # the document that the core was asked to take
        self._want: dict[str, tuple[tuple[int, int], ...]] = {}
        self._chunk_ms = self._since_ms
        self._untold = True
        self._whole: set[str] = set()             # staged documents whose blobs are here and fit
        self._said_n = till.words_kept()                # words up to here were said since the start, or need not be
        self.store.said(self._said_n)
        self._said()                              # what a cut kept from the journal is said again

    # What comes ------------------------------------------------------------------------------------------------------

    def came(self, token: bytes) -> None:
        """A message on `config/desired`."""
        if not token:                             # the retained document was taken off the broker
            return
        state = self.store.state
        try:
            desired = wire.config_decoded(token, self._keys)
            if desired.box != self.runs.box:
                raise WireError("CONFIG_BOX", f"the configuration is for box {desired.box}")
            digest = wire.digest_of(token)
            if digest in (state.active, state.staged, state.trial, state.told.digest):
                self._untold = True               # said before: nothing new, but somebody may want to know
                return
            if desired.place <= state.mark:
                raise WireError("CONFIG_OLD", f"epoch {desired.epoch}, version {desired.version} does not rise above "
                                              f"{state.mark[0]}, {state.mark[1]}")
        except WireError as why:
            log.warning("a pushed configuration was refused: %s", why)
            state.refused += 1
            self._untold = True
            self._save()
            return
        state.mark = desired.place
        state.told = Told(*desired.place, digest, "staged", at=self.clock.stamp().wall)
        reasons = self._late(desired) or judged(desired.body, self.runs, self._made)
        if reasons:
            self._refuse(reasons)
            return
        try:
            self.store.put(token)
            state.staged = digest
            self.store.save()
        except OSError as why:
            self._refuse((f"the card does not take it: {why}",))
            return
        log.info("configuration %d.%d is staged", *desired.place)
        self._waiting = ""
        self._said()
        self.step()

    def chunk(self, sha256: str, n: int, data: bytes) -> None:
        """A message on `blob/{sha256}/{n}`."""
        try:
            fresh = self.blobs.chunk(sha256, n, data)
        except OSError as why:
            log.error("a chunk of blob %.12s cannot be kept: %s", sha256, why)
            return
        if fresh:
            self._chunk_ms = self.clock.now_ms()

    def linked(self, up: bool) -> None:
        """The line to the broker came up, with a greeting on its way, or went."""
        if up != (self._link_ms is not None):
            self._link_ms, self._heard_ms = (self.clock.now_ms() if up else None), None
            self._untold = self._untold or up
            self._hello_ms = self.clock.now_ms() if up else self._hello_ms

    def heard(self, upto: int) -> None:
        """The cloud has everything of our journal up to `upto`: a signed word that names our own record's digest."""
        self._heard_ms = self.clock.now_ms()
        state = self.store.state
        began = state.phase and not state.intended        # else this process runs with what was before, and is about to end
        if began and upto >= self._proof_seq and self._link_ms is not None and self._link_ms >= self._since_ms:
            self._proven()
        self.step()

    # What follows ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Look at the clock and do what is due; called once a second, and when anything came."""
        now_ms, state = self.clock.now_ms(), self.store.state
        if state.unsaid and self.store.said(self._till.words_kept()):
            self._save()
        if state.phase and not state.intended:
            self._trial(now_ms)
        elif state.staged and not state.phase:
            self._stage(now_ms)
        if self._untold and self._till.publish("config/reported", wire.reported_encoded(self.report())):
            self._untold = False

    def report(self) -> wire.Reported:
        """What the cloud is told."""
        state, stamp = self.store.state, self.clock.stamp()
        told = state.tried if state.phase else state.told
        word: Any = told.state or "active"
        return wire.Reported(told.epoch, told.version, told.digest, word, told.why, stamp.wall, stamp.clk, told.reasons,
                             self.store.standing(state.active), self._want, state.refused)

    @property
    def standing(self) -> str:
        """The document that runs, for a greeting: `epoch.version`, "" of box.toml alone."""
        runs = self.store.standing(self.store.state.runs)
        return f"{runs.epoch}.{runs.version}" if runs.version else ""

    def shown(self) -> dict[str, object]:
        """For a person: what runs, what waits and for how long a trial has lasted."""
        told, state = self.report(), self.store.state
        return {"active": f"{told.active.epoch}.{told.active.version}", "newest": f"{told.epoch}.{told.version}",
                "state": told.state, "why": told.why,
                "trial_s": (state.used_ms + self.clock.now_ms() - self._saved_ms) // 1000 if state.phase else 0,
                "since": (state.tried if state.phase else state.told).at,
                "missing_chunks": sum(last - first + 1 for ranges in self._want.values() for first, last in ranges),
                "refused": state.refused}

    async def inputs(self) -> AsyncIterator[Input]:
        while True:
            self.step()
            while self._say:
                yield self._say.popleft()
            await asyncio.sleep(LOOK_S)

    async def do(self, effect: Effect) -> Input:
        """Nobody stands at the counter: take what waits, unless something changed meanwhile."""
        assert isinstance(effect, TakeConfig), effect
        now_ms, state = self.clock.now_ms(), self.store.state
        if not self._till.idle():
            return self._word(waits=True)
        if state.phase and state.intended:
            self._till.restart()
        elif state.phase == "trial" and self._over(now_ms):
            self.store.fall_back()
            log.warning("configuration %d did not reach the cloud in its time: back to the one before", state.tried.version)
            self._till.restart()
        elif not state.phase and effect.digest == state.staged:
            if self._fresh(now_ms):
                return self._begin(now_ms)
            self._greet(now_ms)
        self._waiting = ""
        return self._word()

    async def close(self) -> None:
        """Nothing is open."""

    # A document that waits -------------------------------------------------------------------------------------------

    def _stage(self, now_ms: int) -> None:
        state = self.store.state
        desired = self.store.document(state.staged)
        if desired is None:
            self._refuse(("it has rotted on the card: send it again",))
        elif late := self._late(desired):
            self._refuse(late)
        elif self._complete(desired, now_ms) and self._due(desired) and state.staged:
            if not self._fresh(now_ms):
                self._greet(now_ms)
            elif self._waiting != state.staged:
                self._waiting = state.staged
                self._say.append(self._word(waits=True))

    def _complete(self, desired: wire.Desired, now_ms: int) -> bool:
        """True when every blob is here and fits; else the missing ones are asked for."""
        digest = self.store.state.staged
        if digest in self._whole:
            return True
        blobs = tuple(desired.body.blobs.values())
        try:
            want = self.blobs.want(blobs)
            # Whole files on the card, and 50,000 goods to read, take longer than a customer's scan may wait.
            if not want and self._till.idle() and self.blobs.finish(blobs):
                self._fits(desired)
                self._whole = {digest}
        except (OSError, Outside) as why:
            self._refuse(tuple(why.reasons[:wire.REASONS_MAX]) if isinstance(why, ConfigError) else (str(why)[:500],))
            return False
        if set(want) != set(self._want) or (want and now_ms - self._chunk_ms >= WANT_MS):
            self._untold, self._chunk_ms = True, now_ms
        self._want = want
        return digest in self._whole

    def _fits(self, desired: wire.Desired) -> None:
        for name, blob in desired.body.blobs.items():
            self._checked(name, self.blobs.path(blob.sha256).read_bytes())

    def _due(self, desired: wire.Desired) -> bool:
        """Whether its time has come, by a clock that somebody else has proven."""
        if not desired.not_before:
            return True
        stamp = self.clock.stamp()
        come = stamp.clk in TRUSTED and _moment(stamp.wall) >= _moment(desired.not_before)
        clock = "" if stamp.clk in TRUSTED else ", and for a clock that can be trusted"
        self._tell("staged", "" if come else f"it waits for {desired.not_before}{clock}")
        return come

    def _late(self, desired: wire.Desired) -> tuple[str, ...]:
        stamp = self.clock.stamp()
        over = desired.expires and stamp.clk in TRUSTED and _moment(stamp.wall) > _moment(desired.expires)
        return (f"it expired at {desired.expires}",) if over else ()

    def _begin(self, now_ms: int) -> ConfigSaid:
        desired = self.store.document(self.store.state.staged)
        if desired is None:
            return self._word()
        # It was judged when it came: what runs, and what is known of the time, may be another since.
        if reasons := self._late(desired) or judged(desired.body, self.runs, self._made):
            self._refuse(reasons)
            return self._word()
        new = self._made(desired.body)
        live = restarts(self.runs, new) <= {"prices"}
        self.store.begin(intended=not live)
        self._waiting = ""
        self._said()
        log.info("configuration %d.%d is tried%s", *self.store.state.mark, "" if live else ": the box starts again")
        if live:
            self.runs, self._since_ms, self._saved_ms, self._proof_seq = new, now_ms, now_ms, self._till.next_seq()
            self._till.take(new)
        else:
            self._till.restart()
        return self._word()

    # A trial ---------------------------------------------------------------------------------------------------------

    def _trial(self, now_ms: int) -> None:
        state = self.store.state
        if self._over(now_ms):
            if state.phase == "fallback":
                self.store.give_up("neither it nor the configuration before it reached the cloud")
                log.error("configuration %d is put off: the one before it does not reach the cloud either", state.tried.version)
                self._waiting = ""
                self._said()
            elif self._waiting != state.trial:
                self._waiting = state.trial
                self._say.append(self._word(waits=True))
        elif now_ms - self._saved_ms >= SAVE_MS:
            state.used_ms += now_ms - self._saved_ms
            self._saved_ms = now_ms
            self._save()

    def _over(self, now_ms: int) -> bool:
        return self.store.state.used_ms + now_ms - self._saved_ms >= self._trial_ms

    def _proven(self) -> None:
        state = self.store.state
        if state.phase == "trial":
            self.store.keep()
            log.info("configuration %d is kept: the cloud answered under it", state.tried.version)
        else:
            self.store.roll_back("it did not reach the cloud, and the one before it does")
            log.error("configuration %d is taken back", state.tried.version)
        self._trimmed()
        self._waiting = ""
        self._said()

    # Words -----------------------------------------------------------------------------------------------------------

    def _refuse(self, reasons: tuple[str, ...]) -> None:
        state = self.store.state
        state.staged, self._waiting, self._want = "", "", {}
        self.store.tell("refused", reasons[0] if len(reasons) == 1 else f"it has {len(reasons)} faults", reasons)
        state.refused += 1
        log.warning("configuration %d.%d was refused: %s", *state.mark, "; ".join(reasons))
        self._save()
        self._said()

    def _tell(self, word: str, why: str) -> None:
        told = self.store.state.told
        if (told.state, told.why) != (word, why) and told.state in ("staged", ""):
            self.store.tell(word, why)
            self._untold = True

    def _said(self) -> None:
        """Say what is to be recorded and was not said since the start, in the order of its numbers: a lower one would be void."""
        self._untold = True
        for told in self.store.state.unsaid:
            if told.n > self._said_n:
                self._say.append(ConfigSaid(told.epoch, told.version, told.digest, told.state, told.why, n=told.n))
                self._said_n = told.n

    def _word(self, *, waits: bool = False) -> ConfigSaid:
        """What the core is told and need not record: of the document on trial while there is one, else of the newest."""
        state = self.store.state
        told = state.tried if state.phase else state.told
        return ConfigSaid(told.epoch, told.version, told.digest, told.state, told.why, waits)

    def _fresh(self, now_ms: int) -> bool:
        return self._heard_ms is not None and now_ms - self._heard_ms <= FRESH_MS

    def _greet(self, now_ms: int) -> None:
        if self._link_ms is not None and now_ms - self._hello_ms >= HELLO_MS:
            self._hello_ms = now_ms
            self._till.hello()

    def _trimmed(self) -> None:
        documents = [self.store.document(digest) for digest in self.store.state.kept]
        self.blobs.trim({blob.sha256 for desired in documents if desired is not None for blob in desired.body.blobs.values()})

    def _save(self) -> None:
        try:
            self.store.save()
        except OSError as why:
            log.error("the state of pushed configurations cannot be kept: %s", why)


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
