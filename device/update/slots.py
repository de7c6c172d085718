"""The two root slots: a release written into the one that does not run, proven whole, started, kept or given up.

The one writer of the other slot and of the boot state.  Knows manifests, pieces and tries; refuses to know the line, the shop and
why a release is wanted: whoever asks may be anybody.  So everything is looked at here again: the signature under a key of this
image, the ratchet, each piece, and the whole as it is read back.  The order of writes is such that a cut between any two leaves a
boot state whose first slot with tries left is whole; `tests/update/test_slot_cuts.py` cuts at each.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from typing import Any, Literal, NamedTuple

import msgspec

from device.mqtt import update_wire as wire
from device.mqtt.config_wire import WANT_RANGES_MAX
from device.mqtt.wire import WireError
from device.update import boot_state
from device.update.boot_state import TRIES, BootState
from device.update.card import Card

log = logging.getLogger("tillbox.slot")

COPY_BYTES = 1024 * 1024                 # at most of one call: whoever asks may want to stop for a customer
CHECK_BYTES = 4 * 1024 * 1024
STATE_FILE, TOKEN_FILE, INDEX_FILE, MAP_FILE = "slot.json", "manifest.jws", "index", "map"


class Refused(Exception):
    """What is asked is not done: a word for programs and a sentence for a person.  Nothing was changed."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(sentence)
        self.name, self.sentence = name, sentence


class Release(NamedTuple):
    """What runs, by the word of its own image."""

    version: str
    ratchet: int
    board: str


class Stand(msgspec.Struct):
    """How far release `release` (its manifest's digest) came in `slot`.

    `armed`: first in the order of starts, since boot `boot`; in `slot` itself that is the trial.  `ratchet` is the highest ever
    kept.  `before` and `before_ratchet` are of what the other slot holds since a release was kept.
    """

    release: str = ""
    word: Literal["", "writing", "whole", "armed", "kept", "undone"] = ""
    slot: str = ""
    cause: str = ""
    boot: str = ""
    ratchet: int = 0
    before: str = ""
    before_ratchet: int = 0


class Slots:
    """`running` is the slot that runs, `boot` what this boot is called, `release` what runs.  A new one settles what a cut or a
    failed start left."""

    def __init__(self, card: Card, running: str, boot: str, release: Release, verifiers: wire.Verifiers) -> None:
        assert running in boot_state.SLOTS, running
        self._card, self.running, self._boot, self.release, self._verifiers = card, running, boot, release, verifiers
        self.other = boot_state.other(running)
        self.stand = self._read()
        self._pieces: list[wire.Piece] = []
        self._have = bytearray()
        self._base: dict[bytes, tuple[str, int, int]] = {}
        self._places: dict[bytes, list[int]] = {}
        self._cursor = 0
        self._named: wire.Manifest | None = None
        self._checked: Any = None                 # the digest of what was read back so far
        self._at = self._spoilt = 0
        self._passed = False                      # the whole was read back, and nothing was written since
        self._settle()

    # What is the case ------------------------------------------------------------------------------------------------------

    @property
    def tries(self) -> BootState:
        return boot_state.read(*(self._card.read("state", at, boot_state.SECTOR) for at in boot_state.WITHIN))

    @property
    def trial(self) -> bool:
        """The release that runs was never kept."""
        return self.stand.word == "armed" and self.stand.slot == self.running

    def told(self) -> dict[str, Any]:
        """Everything that may be known of the slots."""
        tries, stand = self.tries, self.stand
        manifest = self._named
        return {"running": self.running, "version": self.release.version, "ratchet": self.release.ratchet,
                "board": self.release.board, "left": tries.left(self.running), "order": "".join(tries.order),
                "other_left": tries.left(self.other), "other_bytes": self._card.size("other"), "trial": self.trial,
                "release": stand.release, "word": stand.word, "cause": stand.cause, "mark": stand.ratchet,
                "before": stand.before if stand.word in ("armed", "kept") and tries.left(self.other) else "",
                "new": manifest.version if manifest is not None else "", "pieces": len(self._pieces), "have": sum(self._have)}

    def want(self) -> list[tuple[int, int]]:
        """Pieces that are missing, by number: ranges, the lowest first, as many as a report holds."""
        ranges: list[tuple[int, int]] = []
        for n, here in enumerate(self._have):
            if here:
                continue
            if ranges and ranges[-1][1] == n - 1:
                ranges[-1] = (ranges[-1][0], n)
            elif len(ranges) < WANT_RANGES_MAX:
                ranges.append((n, n))
            else:
                break
        return ranges

    # A release comes -------------------------------------------------------------------------------------------------------

    def begin(self, token: bytes) -> dict[str, Any]:
        """Take a release, or go on with the one that was begun.  From here on the other slot does not start."""
        try:
            manifest = wire.manifest_decoded(token, self._verifiers)
        except WireError as why:
            raise Refused(why.name.lower(), why.sentence) from None
        digest = hashlib.sha256(token).hexdigest()
        if self.trial:
            raise Refused("trial", f"{self.release.version} is on trial itself: a slot that did not prove itself starts no other")
        if digest == self.stand.release and self.stand.word in ("writing", "whole", "armed") and self._named is not None:
            return self.told()
        self._judge(manifest)
        tries = self.tries
        if tries.left(self.running) < TRIES:
            raise Refused("unproven", "this start has not proven itself yet: the slot it would fall back to stays as it is")
        self._put_tries(boot_state.given_up(tries, self.other))
        for file in (MAP_FILE, INDEX_FILE):
            self._card.drop(file)
        self._card.keep(TOKEN_FILE, token)
        self._put(Stand(digest, "writing", self.other, ratchet=self.stand.ratchet))
        self._named, self._pieces, self._have, self._base = manifest, [], bytearray(), {}
        self._forget_check()
        return self.told()

    def _judge(self, manifest: wire.Manifest) -> None:
        mark = max(self.stand.ratchet, self.release.ratchet)
        if manifest.ratchet < mark:
            raise Refused("ratchet", f"{manifest.version} has ratchet {manifest.ratchet}, and this box has kept {mark}: nothing "
                                     "older runs here again")
        if self.release.board not in manifest.boards:
            raise Refused("board", f"{manifest.version} is for {', '.join(manifest.boards)}; this box is {self.release.board}")
        if wire.release_of(self.release.version) < wire.release_of(manifest.min_version):
            raise Refused("min_version", f"{manifest.version} follows on {manifest.min_version} or later, and "
                                         f"{self.release.version} runs")
        if manifest.bytes > self._card.size("other"):
            raise Refused("room", f"{manifest.version} has {manifest.bytes} bytes, the slot {self._card.size('other')}")

    def index(self, data: bytes) -> dict[str, Any]:
        """The index of the release."""
        manifest = self._writing()
        if hashlib.sha256(data).hexdigest() != manifest.index:
            raise Refused("index", "that is not the index that the manifest names")
        if not self._pieces:
            try:
                self._take_index(data, manifest)
            except WireError as why:
                raise Refused("index", why.sentence) from None
            self._card.keep(INDEX_FILE, data)
        return self.told()

    def base(self, data: bytes) -> dict[str, Any]:
        """The index of what runs, as the manifest names it: what has not changed is copied by `copy`."""
        base = self._writing().base(self.release.version)
        if base is None or hashlib.sha256(data).hexdigest() != base.index:
            raise Refused("index", "the manifest names no such index of what runs here")
        try:
            found = wire.index_decoded(data, None)
        except WireError as why:
            raise Refused("index", why.sentence) from None
        self._base, self._cursor = {piece.mark: ("this", piece.at, piece.size) for piece in found}, 0
        return {"pieces": len(found)}

    def copy(self) -> dict[str, Any]:
        """Fill in what needs no line: pieces of zeros, and those that the running slot holds.  `more` until all were tried.

        What the index of the running slot says is believed only as far as the bytes agree.
        """
        self._writing()
        done = 0
        while self._cursor < len(self._pieces) and done < COPY_BYTES:
            n, self._cursor = self._cursor, self._cursor + 1
            piece = self._pieces[n]
            if self._have[n]:
                continue
            data = self._at_hand(piece)
            if data is not None:
                self._put_piece(n, data)
                done += piece.size
        return {"more": self._cursor < len(self._pieces), "copied": done}

    def _at_hand(self, piece: wire.Piece) -> bytes | None:
        zeros = bytes(piece.size)
        if wire.mark_of(zeros) == piece.mark:
            return zeros
        name, at, size = self._base.get(piece.mark, ("", 0, 0))
        if size != piece.size or not self._card.size("this"):
            return None
        data = self._card.read(name, at, size)
        return data if wire.mark_of(data) == piece.mark else None

    def piece(self, n: int, data: bytes) -> dict[str, Any]:
        """Piece `n`, wherever it stands in the image; on the card after the next `sync`."""
        self._writing()
        if not 0 <= n < len(self._pieces):
            raise Refused("piece", f"there is no piece {n}")
        if len(data) != self._pieces[n].size or wire.mark_of(data) != self._pieces[n].mark:
            raise Refused("spoilt", f"piece {n} is not what the index says")
        fresh = not self._have[n]
        for same in self._places.get(self._pieces[n].mark, [n]):
            if not self._have[same]:
                self._put_piece(same, data)
        return {"fresh": fresh}

    def _put_piece(self, n: int, data: bytes) -> None:
        self._card.write("other", self._pieces[n].at, data)
        self._have[n] = 1
        self._forget_check()

    def sync(self) -> dict[str, Any]:
        """What was written is on the card, and the map says so."""
        self._writing()
        self._card.sync("other")
        self._card.keep(MAP_FILE, bytes.fromhex(self.stand.release) + bytes(self._have))
        return {"pieces": len(self._have), "have": sum(self._have), "want": self.want()}

    def check(self) -> dict[str, Any]:
        """Read the next part of the image back.  `done` at its end: `whole` when its digest holds; else the pieces that do not
        hold are missing again, whatever the map said."""
        manifest = self._writing()
        if not self._pieces or not all(self._have):
            raise Refused("missing", "not every piece is there")
        if self._passed:
            return {"done": True, "whole": True, "spoilt": 0}
        if self._checked is None:
            self._card.sync("other")
            self._checked, self._at, self._spoilt = hashlib.sha256(), 0, 0
        done = 0
        while self._at < len(self._pieces) and done < CHECK_BYTES:
            piece = self._pieces[self._at]
            data = self._card.read("other", piece.at, piece.size)
            self._checked.update(data)
            if wire.mark_of(data) != piece.mark:
                self._have[self._at] = 0
                self._spoilt += 1
            self._at, done = self._at + 1, done + piece.size
        if self._at < len(self._pieces):
            return {"done": False, "whole": False, "spoilt": self._spoilt}
        self._passed, spoilt = self._checked.hexdigest() == manifest.sha256 and not self._spoilt, self._spoilt
        self._checked = None
        if self._passed:
            if self.stand.word == "writing":
                self._word("whole")
            return {"done": True, "whole": True, "spoilt": 0}
        log.error("the other slot is not what was signed: %d pieces do not hold", spoilt)
        if not spoilt:                            # each piece is what the index says, and the whole is not: the index lies
            self._have[:] = bytes(len(self._have))
        self._word("writing")
        self.sync()
        return {"done": True, "whole": False, "spoilt": spoilt}

    # It is started, and what becomes of it ---------------------------------------------------------------------------------

    def arm(self) -> dict[str, Any]:
        """The next start is of the other slot, TRIES times at most, unless it is kept.  Only after `check` read it back."""
        if self.stand.word not in ("whole", "armed") or self.stand.slot != self.other or not self._passed:
            raise Refused("not_whole", "no release was read back and found whole")
        stand = self.stand
        stand.boot, stand.before, stand.before_ratchet = self._boot, self.release.version, self.release.ratchet
        self._word("armed")                       # before the boot state: else a start of it would be nobody's trial
        self._put_tries(boot_state.next_to_boot(self.tries, self.other))
        return self.told()

    def stop(self) -> dict[str, Any]:
        """Nothing of the release that was begun is started."""
        if self.trial:
            raise Refused("trial", "it runs: it is kept or goes back by itself")
        if self.stand.word in ("writing", "whole", "armed"):
            self._put_tries(boot_state.given_up(self.tries, self.other))
            self._put(Stand(ratchet=self.stand.ratchet))
            self._named, self._pieces, self._have, self._passed = None, [], bytearray(), False
        return self.told()

    def good(self) -> dict[str, Any]:
        """What runs has proven itself: all its tries again; a trial ends here, and nothing under its ratchet comes any more."""
        tries = self.tries
        fresh = boot_state.proved(tries, self.running)
        if fresh != tries:
            self._put_tries(fresh)
        stand, mark = self.stand, max(self.stand.ratchet, self.release.ratchet)
        if self.trial:
            self._put(msgspec.structs.replace(stand, word="kept", cause="", ratchet=mark))
        elif mark > stand.ratchet:
            self._put(msgspec.structs.replace(stand, ratchet=mark))
        return self.told()

    def back(self, cause: str) -> dict[str, Any]:
        """What runs on trial is given up: the next start is of the slot before."""
        if not self.trial:
            raise Refused("no_trial", f"{self.release.version} is not on trial")
        self.stand.cause = cause[:300]
        self._word("undone")                      # before the boot state: a cut between them is settled at the next start
        self._put_tries(boot_state.given_up(self.tries, self.running))
        return self.told()

    def swap(self) -> dict[str, Any]:
        """Start what ran before the release that was kept, because somebody says so."""
        tries, stand = self.tries, self.stand
        if stand.word != "kept" or not tries.left(self.other):
            raise Refused("nothing", "the other slot holds nothing that was kept here")
        if stand.before_ratchet < max(stand.ratchet, self.release.ratchet):
            raise Refused("ratchet", f"{stand.before} has ratchet {stand.before_ratchet}, and this box has kept {stand.ratchet}")
        self._put_tries(boot_state.next_to_boot(tries, self.other))
        return self.told()

    # Inside ----------------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Bring word and boot state together after a start or a cut."""
        stand, tries = self.stand, self.tries
        mine = stand.slot == self.running
        if stand.word == "armed" and not mine and stand.boot != self._boot:
            if tries.order[0] == stand.slot:      # its turn came: it would run if it had held
                left = tries.left(stand.slot)
                stand.cause = f"slot {stand.slot} did not hold: it was started {TRIES - left} times, or could not be read"
                self._word("undone")
                self._put_tries(boot_state.given_up(tries, stand.slot))
            else:
                self._word("whole")               # the power went before its turn was written down
        elif stand.word == "whole" and mine:
            self._word("armed")                   # the boot loader was out of tries, and took it
        elif stand.word == "writing" and mine:
            self._put(Stand(ratchet=stand.ratchet))
        elif stand.word in ("writing", "whole", "undone") and tries.left(stand.slot):
            self._put_tries(boot_state.given_up(tries, stand.slot))
        self._named = self._manifest()
        if self.stand.word in ("writing", "whole", "armed") and self._named is not None and not self.trial:
            data = self._card.kept(INDEX_FILE)
            with contextlib.suppress(WireError):
                if data is not None and hashlib.sha256(data).hexdigest() == self._named.index:
                    self._take_index(data, self._named)

    def _take_index(self, data: bytes, manifest: wire.Manifest) -> None:
        self._pieces = wire.index_decoded(data, manifest.bytes)
        self._places = {}
        for n, piece in enumerate(self._pieces):
            self._places.setdefault(piece.mark, []).append(n)
        self._have, self._cursor = bytearray(len(self._pieces)), 0
        known = self._card.kept(MAP_FILE) or b""
        if known[:32] == bytes.fromhex(self.stand.release) and len(known) == 32 + len(self._pieces):
            self._have[:] = bytes(byte == 1 for byte in known[32:])

    def _writing(self) -> wire.Manifest:
        if self._named is None or self.stand.word not in ("writing", "whole", "armed") or self.stand.slot != self.other:
            raise Refused("not_begun", "no release is being written")
        return self._named

    def _manifest(self) -> wire.Manifest | None:
        """Of the release that `stand` names; None when there is none, or it has rotted or is nobody's any more."""
        token = self._card.kept(TOKEN_FILE) if self.stand.release else None
        if token is None or hashlib.sha256(token).hexdigest() != self.stand.release:
            return None
        try:
            return wire.manifest_decoded(token, self._verifiers)
        except WireError:
            return None

    def _forget_check(self) -> None:
        self._checked, self._passed = None, False

    def _word(self, word: Any) -> None:
        self.stand.word = word
        self._put(self.stand)

    def _put(self, stand: Stand) -> None:
        self.stand = stand
        self._card.keep(STATE_FILE, msgspec.json.encode(stand))

    def _read(self) -> Stand:
        try:
            return msgspec.json.decode(self._card.kept(STATE_FILE) or b"{}", type=Stand)
        except msgspec.DecodeError:
            log.error("the state of the slots has rotted: what runs goes on, and nothing older than it comes")
            return Stand()

    def _put_tries(self, tries: BootState) -> None:
        for at in boot_state.WITHIN:              # one after the other, each on the card: a cut tears one of them at most
            self._card.write("state", at, boot_state.encode(tries))
            self._card.sync("state")
