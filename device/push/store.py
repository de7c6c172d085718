"""Pushed configurations on disk: which runs, which waits, which is on trial, and how far versions have risen.

Knows one folder and one small state that is replaced in one step, so that a cut at any moment leaves the state before or the
one after.  The high-water mark stands a second time outside the folder: who empties the folder brings no old version back.
Refuses to know signatures, sense and time; a document is found by its digest, and one that has rotted is none.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from device.mqtt.wire import WireError
from device.store_forward.token import unb64

if TYPE_CHECKING:
    from device.mqtt.config_wire import (  # at run time only where there is a document: a start feels it
        Desired,
        Standing,
    )

log = logging.getLogger("tillbox")

BOOTS_MAX = 2                 # unforeseen boots that a trial, or the way back from one, outlives
UNSAID_MAX = 64               # words that wait for the journal; a card that takes none of them loses the oldest


class Told(msgspec.Struct, frozen=True):
    """What became of the newest document, in the words of a report."""

    epoch: int = 0
    version: int = 0
    digest: str = ""
    state: str = ""
    why: str = ""
    reasons: tuple[str, ...] = ()
    at: str = ""                  # wall time when it came
    n: int = 0                    # of this word among those that are to be recorded; 0: none of them


class State(msgspec.Struct):
    """Documents by digest, "" for none; `active` "" is box.toml alone.

    `phase` is "", "trial" (the box runs with `trial`) or "fallback" (it ran in vain, `active` is tried again).  `intended`: the
    next boot is the one that begins it, and does not count in `boots`; `used_ms` of its time are over.  `told` is of the newest
    document, `tried` of the one on trial, which a newer one may wait behind.  `unsaid` are the words, lowest number first, that the
    journal may not hold yet; `words` is the highest number given.
    """

    active: str = ""
    previous: str = ""
    staged: str = ""
    trial: str = ""
    phase: str = ""
    boots: int = 0
    used_ms: int = 0
    intended: bool = False
    mark: tuple[int, int] = (0, 0)
    told: Told = Told()
    tried: Told = Told()
    unsaid: tuple[Told, ...] = ()
    words: int = 0
    refused: int = 0

    @property
    def runs(self) -> str:
        return self.trial if self.phase == "trial" else self.active

    @property
    def kept(self) -> set[str]:
        return {self.active, self.previous, self.staged, self.trial} - {""}


class PushStore:
    """`state_dir` of the box.  `state` is changed in place and kept by `save`; nothing is made on disk before that."""

    def __init__(self, state_dir: Path) -> None:
        self.folder = state_dir / "config"
        self.blobs = self.folder / "blobs"
        self._mark = state_dir / "config.mark"
        self.state = self._read()
        self._read_before: dict[str, Desired] = {}

    def boot(self) -> None:
        """Count this boot against a trial, and end one that outlived too many.  To be called before the configuration is chosen."""
        state = self.state
        if not state.phase:
            return
        state.boots += not state.intended
        state.intended = False
        if state.boots > BOOTS_MAX:
            if state.phase == "trial":
                state.phase, state.boots, state.used_ms = "fallback", 0, 0
                log.error("configuration %d is taken back: it outlived no more than %d boots", state.tried.version, BOOTS_MAX)
            else:
                self.give_up("neither it nor the configuration before it reached the cloud before the box was switched off")
        self.save()

    # What becomes of a trial.  Each is one step on disk.

    def begin(self, *, intended: bool) -> None:
        """The staged document is tried from here on."""
        state = self.state
        state.trial, state.staged, state.phase = state.staged, "", "trial"
        state.boots, state.used_ms, state.intended = 0, 0, intended
        state.tried = state.told
        self._tell_tried("trial")
        self.save()

    def keep(self) -> None:
        """It has proven itself."""
        state = self.state
        assert not state.intended, "the process that was to try it has not begun"
        state.previous, state.active, state.trial, state.phase = state.active, state.trial, "", ""
        self._tell_tried("active")
        self.save()
        self.trim()

    def fall_back(self) -> None:
        """Its time is over: the one before it is tried, to see whose fault it was."""
        state = self.state
        state.phase, state.boots, state.used_ms, state.intended = "fallback", 0, 0, True
        self.save()

    def roll_back(self, why: str) -> None:
        """The one before it works: it is not tried again."""
        self.state.trial, self.state.phase = "", ""
        self._tell_tried("rolled_back", why)
        self.save()
        self.trim()

    def give_up(self, why: str) -> None:
        """The one before it does not work either, so nothing is proven: it waits for a better hour, or for its successor."""
        state = self.state
        state.staged = state.staged or state.trial
        self._tell_tried("deferred", why)
        state.trial, state.phase = "", ""
        self.save()

    def demote(self, why: str) -> None:
        """What ran cannot run: the one before does, and the document waits until it is whole again."""
        state = self.state
        state.staged = state.staged or state.active
        if state.told.digest == state.active:
            self.tell("staged", why)
        state.active, state.previous = state.previous, ""
        self.save()

    def tell(self, word: str, why: str = "", reasons: tuple[str, ...] = ()) -> None:
        """Another word for the document that was told of."""
        self.state.told = self._numbered(msgspec.structs.replace(self.state.told, state=word, why=why, reasons=reasons))

    def said(self, upto: int) -> bool:
        """The journal holds every word up to number `upto`: they need not be said again.  True when that is news."""
        state = self.state
        before = (state.words, state.unsaid)
        state.words = max(state.words, upto)                # who empties the folder does not make old numbers of new words
        state.unsaid = tuple(told for told in state.unsaid if told.n > upto)
        return before != (state.words, state.unsaid)

    def _tell_tried(self, word: str, why: str = "") -> None:
        state = self.state
        newest = state.told.digest == state.tried.digest
        state.tried = self._numbered(msgspec.structs.replace(state.tried, state=word, why=why, reasons=()))
        state.told = state.tried if newest else state.told

    def _numbered(self, told: Told) -> Told:
        """That word with its number, among those that wait to be recorded; "staged" is no record."""
        state = self.state
        if told.state == "staged":
            return msgspec.structs.replace(told, n=0)
        state.words += 1
        told = msgspec.structs.replace(told, n=state.words)
        state.unsaid = (*state.unsaid, msgspec.structs.replace(told, reasons=()))[-UNSAID_MAX:]
        return told

    # Documents -------------------------------------------------------------------------------------------------------

    def put(self, token: bytes) -> str:
        """Keep a document; returns its digest."""
        from device.mqtt.config_wire import digest_of

        digest = digest_of(token)
        self.folder.mkdir(exist_ok=True)
        self._write(self.folder / f"{digest}.jws", token)
        return digest

    def document(self, digest: str) -> Desired | None:
        """The document of that digest, whose signature was checked when it came; None when it is gone or rotten."""
        if not digest:
            return None
        if digest in self._read_before:
            return self._read_before[digest]
        from device.mqtt.config_wire import digest_of, document_decoded
        try:
            token = (self.folder / f"{digest}.jws").read_bytes()
            if digest_of(token) != digest:
                raise ValueError("its digest is another")
            self._read_before[digest] = document_decoded(unb64(token.decode("ascii").split(".")[1]))
            return self._read_before[digest]
        except (OSError, ValueError, WireError) as why:
            log.error("pushed configuration %.12s cannot be read: %s", digest, why)
            return None

    def standing(self, digest: str) -> Standing:
        from device.mqtt.config_wire import Standing

        desired = self.document(digest)
        return Standing(*desired.place, digest) if desired is not None else Standing()

    def trim(self) -> None:
        """Forget documents that nobody can need any more."""
        self._read_before.clear()
        for path in self.folder.glob("*.jws"):
            if path.stem not in self.state.kept:
                path.unlink(missing_ok=True)

    # The state -------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Keep the state.  OSError when the card will not: then the box goes on with what it has."""
        self.folder.mkdir(exist_ok=True)
        self._write(self.folder / "state.json", msgspec.json.encode(self.state))
        if self._marked() < self.state.mark:                # after it: a mark without its document would refuse the document
            self._write(self._mark, msgspec.json.encode(self.state.mark))

    def _read(self) -> State:
        try:
            state = msgspec.json.decode((self.folder / "state.json").read_bytes(), type=State)
        except FileNotFoundError:
            state = State()
        except (OSError, msgspec.DecodeError) as why:
            log.error("the state of pushed configurations is lost, box.toml alone is used: %s", why)
            state = State()
        state.mark = max(state.mark, self._marked())
        return state

    def _marked(self) -> tuple[int, int]:
        try:
            return msgspec.json.decode(self._mark.read_bytes(), type=tuple[int, int])
        except (OSError, msgspec.DecodeError):
            return (0, 0)

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        fresh = path.with_suffix(".new")
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
