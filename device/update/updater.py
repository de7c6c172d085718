"""A release on its way onto this box: fetched while the shop sells, written by the slots' process, started when nobody is there,
proven, and kept or given up.

Knows the order of these steps, their deadlines, and when nobody is disturbed; refuses to know slots and signatures (the process
behind `slots` looks at everything), the connection and the core: all are handed in.  What was asked for stands in one small file;
how far it came, the slots know.  One thread's: the loop's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from device.clock import Clock
from device.mqtt import update_wire as wire
from device.mqtt.config_wire import Blob
from device.mqtt.wire import WireError
from device.push.blobs import Blobs
from device.store_forward.token import unb64
from device.update.boot_state import TRIES
from device.update.slot_line import SlotRefused

log = logging.getLogger("tillbox")

START_S = 20.0                # a start is for the first customer
TRIAL_MS = 15 * 60_000
FRESH_MS = 60_000             # how long an answer of the cloud proves that what runs reaches it
QUIET_MS = 15 * 60_000        # nobody at the counter for so long: the shop is closed, or as good as
SETTLED_MS = 60_000           # within a window
ASK_MS = 10_000               # without a piece, after which the missing ones are asked for again
WINDOW = 32                   # pieces asked for at a time: half a megabyte
SYNC_PIECES = 8               # written between two looks at the counter
PACE_S = 0.15                 # after each of those: the card is the shop's
LOOK_S = 1.0
TRUSTED = ("ntp", "anchored")
FILE = "update.json"


class Till(Protocol):
    """What the updater needs of the box around it."""

    def publish(self, name: str, payload: bytes) -> bool: ...

    def hello(self) -> None: ...

    def nobody_here(self) -> bool: ...

    def sick(self) -> frozenset[str]:
        """Parts that are not well."""
        ...

    def restart(self) -> None:
        """Restart the machine; nobody is there."""
        ...

    async def dry_sale(self) -> str:
        """A sale that leaves nothing behind, in a process of its own; what failed, "" when it went well."""
        ...


class Wish(msgspec.Struct):
    """What the cloud asked for, and what became of it.  `sick`: parts that were not well before the restart."""

    release: str = ""
    bytes: int = 0
    when: str = "quiet"
    state: wire.State = ""
    version: str = ""
    why: str = ""
    sick: tuple[str, ...] = ()


class Updater:
    """`slots(verb, body, **more)` asks the slots' process: SlotRefused, OSError.  `proof_seq` is this boot's first record."""

    def __init__(self, state_dir: Path, till: Till, clock: Clock, slots: Callable[..., Awaitable[dict[str, Any]]], *,
                 proof_seq: int, trial_ms: int = TRIAL_MS, quiet_ms: int = QUIET_MS, start_s: float = START_S) -> None:
        self._path, self._till, self._clock, self._slots = state_dir / FILE, till, clock, slots
        self._blobs = Blobs(state_dir / "update")
        self._proof_seq, self._trial_ms, self._quiet_ms, self._start_s = proof_seq, trial_ms, quiet_ms, start_s
        self.wish = self._read()
        self.told: dict[str, Any] = {}            # the slots' last word
        self._manifest: wire.Manifest | None = None
        self._begun = self._indexed = self._based = self._copied = self._asked = False
        self._dry: str | None = None              # how the dry sale went, None before it
        self._proven = False                      # the cloud confirmed a record of this boot
        self._heard_ms: int | None = None
        self._hello_ms = self._piece_ms = self._since_ms = clock.now_ms()
        self._quiet_since_ms = clock.now_ms()
        self._want: dict[str, tuple[tuple[int, int], ...]] = {}
        self._waits: set[int] = set()             # pieces that were asked for
        self._inbox: deque[tuple[int, bytes]] = deque(maxlen=WINDOW)
        self._leaving = False                     # the machine restarts as soon as nobody is there
        self._untold = True
        self._stir = asyncio.Event()

    # What comes --------------------------------------------------------------------------------------------------------------

    def taken(self, args: str) -> None:
        """A command `update`, proven and on record.  Said twice, it changes nothing."""
        told = wire.command_of(args)
        if told is None:
            if self.wish.state in ("fetching", "ready"):
                self._put(Wish(self.wish.release, self.wish.bytes, state="stopped", version=self.wish.version, why="by command"))
                self._asked = False
        elif told[0] != self.wish.release or self.wish.state not in ("fetching", "ready", "trial", "active"):
            self._put(Wish(*told, state="fetching"))
            self._want = {}
            self._blobs.want(())
            self._blobs.trim({told[0]})
            self._manifest, self._begun, self._indexed, self._based, self._copied = None, False, False, False, False
        elif told[2] != self.wish.when:
            self._put(msgspec.structs.replace(self.wish, when=told[2]))
        self._untold = True
        self._stir.set()

    def chunk(self, sha256: str, n: int, data: bytes) -> bool:
        """A message on `blob/{sha256}/{n}`; False when it is none of an update's."""
        if self._manifest is not None and sha256 == self._manifest.sha256:
            if n in self._waits and len(self._inbox) < WINDOW:
                self._waits.discard(n)
                self._inbox.append((n, data))
        elif sha256 in self._want:
            try:
                self._blobs.chunk(sha256, n, data)
            except OSError as why:
                log.error("a part of the release's papers cannot be kept: %s", why)
        else:
            return False
        self._piece_ms = self._clock.now_ms()
        self._stir.set()
        return True

    def linked(self, up: bool) -> None:
        self._heard_ms, self._untold = None, self._untold or up

    def heard(self, upto: int) -> None:
        """The cloud has everything up to record `upto`, by a signed word that names our own record's digest."""
        self._heard_ms = self._clock.now_ms()
        self._proven = self._proven or upto >= self._proof_seq

    # What follows ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled.  A fault of the slots' process is said and tried again; it ends no sale."""
        await asyncio.sleep(self._start_s)
        while True:
            pause_s = LOOK_S
            try:
                pause_s = await self.step()
            except SlotRefused as why:
                log.error("the slots refuse: %s", why.sentence)
                if self.wish.state in ("fetching", "ready"):
                    self._word("refused", f"{why.name}: {why.sentence}")
                pause_s = 30.0
            except WireError as why:
                log.error("%s", why.sentence)
                self._word("refused", why.sentence)
            except OSError as why:
                log.error("the update does not get on: %s", why)
                pause_s = 30.0
            self._say()
            self._stir.clear()
            try:
                async with asyncio.timeout(pause_s):
                    await self._stir.wait()
            except TimeoutError:
                pass

    async def step(self) -> float:
        """Do what is due; seconds until the next look."""
        now_ms = self._clock.now_ms()
        if not self._till.nobody_here():
            self._quiet_since_ms = now_ms
        if self._leaving:
            if self._till.nobody_here():
                self._till.restart()
            return LOOK_S
        if not self.told:
            await self._look()
        if self.told["trial"] or self.told["left"] < TRIES:
            await self._prove(now_ms)
            return LOOK_S
        if self.wish.state == "stopped" and not self._asked:
            self._asked = True
            self.told = await self._slots("stop")
        elif self.wish.state == "fetching":
            return await self._fetch(now_ms)
        elif self.wish.state == "ready" and self._due(now_ms):
            await self._begin()
        return LOOK_S

    async def _look(self) -> None:
        """What the slots say after a start, and what that makes of the wish."""
        self.told = told = await self._slots("told")
        if told["release"] != self.wish.release:
            if self.wish.state in ("ready", "trial"):     # the slots know nothing of it any more: their folder was lost
                self._word("fetching")
            return
        if told["trial"]:
            self._word("trial")
        elif told["word"] == "kept" and self.wish.state != "active":
            self._word("active")
        elif told["word"] == "undone":
            if self.wish.state != "rolled_back":
                self._word("rolled_back", told["cause"])
            if told["running"] and told["left"] == 0 and told["other_left"]:
                self._leaving = True                      # cut between the word and the restart

    async def _prove(self, now_ms: int) -> None:
        """Whether this start is a good one: by a dry sale alone, or on trial by everything that worked before."""
        if self._dry is None:
            self._dry = await self._till.dry_sale()
            if self._dry:
                log.error("the dry sale after this start failed: %s", self._dry)
        missing = self._missing()
        if not missing:
            self.told = await self._slots("good")
            if self.wish.state == "trial":
                self._word("active")
                log.info("release %s is kept", self.wish.version)
        elif not self.told["trial"]:
            self._dry = None if self._clock.now_ms() - self._since_ms < self._trial_ms else self._dry
            await asyncio.sleep(LOOK_S * 10)
        elif now_ms - self._since_ms >= self._trial_ms:
            why = f"it did not prove itself within {self._trial_ms // 1000} s: {'; '.join(missing)}"
            await self._slots("back", why=why[:300])
            self._word("rolled_back", why)
            log.error("release %s goes back: %s", self.wish.version, why)
            self._leaving = True
        elif self._heard_ms is None or now_ms - self._heard_ms > FRESH_MS:
            self._greet(now_ms)

    def _missing(self) -> list[str]:
        missing = [f"the dry sale failed: {self._dry}"] if self._dry else []
        if self.told["trial"]:
            missing += [f"{part} worked before and does not now" for part in sorted(self._till.sick() - set(self.wish.sick))]
            missing += [] if self._proven else ["the cloud confirmed no record of this start"]
        return missing

    # Fetching ----------------------------------------------------------------------------------------------------------------

    async def _fetch(self, now_ms: int) -> float:
        wish, papers = self.wish, [Blob(self.wish.release, wish_bytes(self.wish))]
        if not self._have(papers, now_ms):
            return LOOK_S
        token = self._blobs.path(wish.release).read_bytes()
        if _payload(token).version == self.told["version"]:
            self._word("active")
            return LOOK_S
        if not self._begun:
            self.told = await self._slots("begin", token)     # who looks at the signature
            self._manifest, self._begun = _payload(token), True
            self._put(msgspec.structs.replace(wish, version=self._manifest.version))
        assert self._manifest is not None
        papers.append(Blob(self._manifest.index, self._manifest.index_bytes))
        base = self._manifest.base(self.told["version"])
        if base is not None:
            papers.append(Blob(base.index, base.bytes))
        if not self._have(papers, now_ms):
            return LOOK_S
        if not self._indexed:
            self.told, self._indexed = await self._slots("index", self._blobs.path(self._manifest.index).read_bytes()), True
        if base is not None and not self._based:
            try:
                await self._slots("base", self._blobs.path(base.index).read_bytes())
            except SlotRefused as why:                    # then everything comes over the line
                log.warning("nothing can be copied from what runs: %s", why.sentence)
            self._based = True
        return await self._fill(now_ms)

    def _have(self, papers: list[Blob], now_ms: int) -> bool:
        """Manifest and indexes are here; asks for those that are not."""
        self._blobs.want(papers)
        if self._blobs.finish(papers):
            return True
        self._wanted(dict(self._blobs.want(papers)), now_ms)
        return False

    async def _fill(self, now_ms: int) -> float:
        """The next pieces, from what runs or from the line, unless somebody stands at the counter."""
        if not self._till.nobody_here():
            return LOOK_S
        if not self._copied:
            self._copied = not (await self._slots("copy"))["more"]
            if self._copied:
                self._told_of(await self._slots("sync"))
            return PACE_S
        if self._inbox:
            for _ in range(min(SYNC_PIECES, len(self._inbox))):
                n, data = self._inbox.popleft()
                try:
                    await self._slots("piece", data, n=n)
                except SlotRefused as why:
                    log.warning("%s: it is asked for again", why.sentence)
            self._told_of(await self._slots("sync"))
            if self._inbox:
                return PACE_S
        if self.told["have"] == self.told["pieces"] and self.told["pieces"]:
            if await self._checked():
                self._want = {}
                self._word("ready")
            return PACE_S
        assert self._manifest is not None
        if not self._waits or now_ms - self._piece_ms >= ASK_MS:
            self._told_of(await self._slots("sync"))
            ranges = _first(self.told["want"], WINDOW)
            self._waits = {n for first, last in ranges for n in range(first, last + 1)}
            self._wanted({self._manifest.sha256: ranges}, now_ms)
        return PACE_S if self._inbox else LOOK_S

    def _told_of(self, said: dict[str, Any]) -> None:
        self.told = {**self.told, **said}

    async def _checked(self) -> bool:
        """Read back to the end, with a look at the counter between two parts; False when it is not whole, or somebody came."""
        while self._till.nobody_here():
            said = await self._slots("check")
            if said["done"]:
                if not said["whole"]:
                    self._told_of(await self._slots("sync"))
                return bool(said["whole"])
            await asyncio.sleep(PACE_S)
        return False

    def _wanted(self, want: dict[str, tuple[tuple[int, int], ...]], now_ms: int) -> None:
        if want != self._want or now_ms - self._piece_ms >= ASK_MS:
            self._want, self._untold, self._piece_ms = want, True, now_ms

    # A restart ---------------------------------------------------------------------------------------------------------------

    def _due(self, now_ms: int) -> bool:
        """Nobody is there, none is expected, and the cloud answers under what runs: a failure would be the new one's."""
        quiet_ms, stamp = now_ms - self._quiet_since_ms, self._clock.stamp()
        if not self._till.nobody_here():
            return False
        when = self.wish.when
        if when == "quiet":
            due = quiet_ms >= self._quiet_ms
        elif when == "now":
            due = True
        else:                                             # a window of the shop's own time, HH:MM-HH:MM
            first, last, now = when[:5], when[6:], stamp.wall[11:16]
            inside = first <= now < last if first <= last else now >= first or now < last
            due = inside and stamp.clk in TRUSTED and quiet_ms >= min(SETTLED_MS, self._quiet_ms)
        if not due:
            return False
        if self._heard_ms is None or now_ms - self._heard_ms > FRESH_MS:
            self._greet(now_ms)
            return False
        return True

    async def _begin(self) -> None:
        if self._manifest is None:
            token = self._blobs.path(self.wish.release).read_bytes()
            await self._slots("begin", token)
            self._manifest = _payload(token)
        if not await self._checked():
            if self._till.nobody_here():
                self._word("fetching")
            return
        if self._manifest.not_before and self._clock.stamp().clk in TRUSTED and _seconds(self._manifest.not_before) > _seconds(
                self._clock.stamp().wall):
            return
        self._put(msgspec.structs.replace(self.wish, sick=tuple(sorted(self._till.sick()))))
        self.told = await self._slots("arm")
        log.warning("release %s starts with the machine", self.wish.version)
        self._leaving = True
        if self._till.nobody_here():
            self._till.restart()

    def _greet(self, now_ms: int) -> None:
        if now_ms - self._hello_ms >= 20_000:
            self._hello_ms = now_ms
            self._till.hello()

    # Words -------------------------------------------------------------------------------------------------------------------

    def report(self) -> wire.UpdateReported:
        """What the cloud is told."""
        wish, told, stamp = self.wish, self.told, self._clock.stamp()
        size = self._manifest.bytes if self._manifest is not None else 0
        share = told.get("have", 0) / max(1, told.get("pieces", 0))
        return wire.UpdateReported(
            wish.state, wish.release, wish.version, wish.why[:500], told.get("version", ""), told.get("ratchet", 0),
            told.get("running", ""), told.get("before", ""), round(size * share), size,
            self._want if wish.state == "fetching" else {}, stamp.wall, stamp.clk)

    def shown(self) -> dict[str, object]:
        """For a person."""
        told = self.report()
        return {"runs": told.runs, "slot": told.slot, "other": told.other, "new": told.version, "state": told.state,
                "why": told.why, "when": self.wish.when, "have": told.have, "bytes": told.bytes, "tries": self.told.get("left", 0)}

    def _say(self) -> None:
        if self.told and self._untold and self._till.publish("update/reported", wire.reported_encoded(self.report())):
            self._untold = False

    def _word(self, state: wire.State, why: str = "") -> None:
        self._put(msgspec.structs.replace(self.wish, state=state, why=why))

    def _put(self, wish: Wish) -> None:
        self.wish, self._untold = wish, True
        fresh = self._path.with_suffix(".new")
        with open(fresh, "wb") as file:
            file.write(msgspec.json.encode(wish))
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, self._path)

    def _read(self) -> Wish:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Wish)
        except FileNotFoundError:
            return Wish()
        except (OSError, msgspec.DecodeError) as why:
            log.error("what was asked for of an update is lost: %s", why)
            return Wish()


def wish_bytes(wish: Wish) -> int:
    return max(1, min(wish.bytes, wire.MANIFEST_MAX_BYTES))


def _payload(token: bytes) -> wire.Manifest:
    """Of a manifest that the slots' process took: it alone says whether the signature holds."""
    try:
        return msgspec.json.decode(unb64(token.decode("ascii").split(".")[1]), type=wire.Manifest)
    except (ValueError, IndexError, msgspec.DecodeError) as why:
        raise WireError("UPDATE_PAYLOAD", f"the manifest cannot be read: {why}") from None


def _first(ranges: list[list[int]], count: int) -> tuple[tuple[int, int], ...]:
    """The first `count` numbers of `ranges`."""
    some: list[tuple[int, int]] = []
    for first, last in ranges:
        if count <= 0:
            break
        some.append((first, min(last, first + count - 1)))
        count -= some[-1][1] - first + 1
    return tuple(some)


def _seconds(moment: str) -> float:
    import datetime
    return datetime.datetime.fromisoformat(moment).timestamp()


def digest_of(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()
