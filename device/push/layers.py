"""Box.toml and what was pushed over it: put together at a start, explained key by key, and joined to the running daemon.

Knows files and the daemon; refuses to know when a document is taken: that is `push.py`'s.
"""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from device import rules
from device.config import Config, parse, show
from device.drivers.picture_bytes import picture_fault
from device.errors import ConfigError
from device.gateway import with_terminal
from device.identity.folder import overlaid
from device.price_file import read_prices
from device.push.store import PushStore
from device.trusted import verifiers
from device.txn.effects import Effect, TakeConfig
from device.txn.inputs import Input
from device.txn.wants import idle
from device.uplink import LINK_AFTER_S, Uplink

if TYPE_CHECKING:
    from device.box import Box
    from device.mqtt import config_wire as wire
    from device.push.pusher import Pusher
    from device.real_clock import RealClock
    from device.store_forward.journal import Journal


class Layers:
    """`text` is box.toml.  ConfigError with every reason when it does not make a configuration by itself; Outside when the
    identity cannot be read.  `finished` adds what this box alone knows."""

    def __init__(self, text: str, *, which: str, finished: Callable[[Config], Config] = with_terminal) -> None:
        self._finished = finished
        try:
            self._text = tomllib.loads(text)
        except tomllib.TOMLDecodeError as fault:
            raise ConfigError([f"not TOML: {fault}"], which=which) from fault
        except RecursionError:
            raise ConfigError(["not TOML that anybody wrote: it is nested without end"], which=which) from None
        self.base: dict[str, Any] = overlaid(self._text, which)
        self.alone = finished(parse(self.base, which=which))
        self.store = PushStore(Path(self.alone.state_dir))

    def begin(self) -> Config:
        """As `config`, for a start that counts."""
        self.store.boot()
        return self._chosen(starts=True)

    def config(self) -> Config:
        """What the box runs with."""
        return self._chosen(starts=False)

    def made(self, body: wire.Body) -> Config:
        """What a document makes of this box.  ConfigError with every reason."""
        from device.push.chosen import maker, opener

        return maker(self.base, self.store, opener(Path(self.alone.encryption_key_file)), self._finished)(body)

    def _chosen(self, *, starts: bool) -> Config:
        if not self.store.state.kept:                 # no document: nothing of theirs is loaded for a start
            return self.alone
        from device.push.chosen import chosen

        return chosen(self.store, self.alone, self.made, starts=starts)

    def why(self, key: str) -> str:
        """Which layer gave the value of `key` ("printer.columns"): `default`, `identity`, `box.toml`, `box` or `group:NAME`.
        ConfigError for no key."""
        state = self.store.state
        known = dict(show(self.config()))
        if key not in known:
            raise ConfigError([f"{key} is no key of this box; tillbox config shows them all"], which="why")
        desired = self.store.document(state.runs)
        if desired is not None:
            if _given(desired.body.set, key):
                return _origin(desired.body.origin, key)
            for blob, file in (("prices", "prices_file"), ("rules", "rules_file")):
                if key == file and blob in desired.body.blobs:
                    return _origin(desired.body.origin, f"blobs.{blob}")
            pictures = sorted(name for name in desired.body.blobs if name.startswith("picture/"))
            if key == "pictures" and pictures:
                return _origin(desired.body.origin, f"blobs.{pictures[0]}")
        if _given(self._text, key):
            return "box.toml"
        return "identity" if _given(self.base, key) else "default"


def _given(table: Any, key: str) -> bool:
    """Whether `table` names the key; of a list, such as [[template]], the whole counts."""
    for part in key.split("."):
        if isinstance(table, list):
            return True
        if not isinstance(table, dict) or part not in table:
            return False
        table = table[part]
    return True


def _origin(origin: dict[str, str], key: str) -> str:
    """The layer of the cloud that gave it; the nearest table above it that one is named for."""
    parts = key.split(".")
    for n in range(len(parts), 0, -1):
        if ".".join(parts[:n]) in origin:
            return origin[".".join(parts[:n])]
    return "box"


class Daemon(Protocol):
    """The running daemon, as far as a pushed configuration reaches into it."""

    box: Box
    clock: RealClock
    config: Config
    journal: Journal
    uplink: Uplink

    def restart(self) -> None:
        """End in order, to be started again."""
        ...

    def take(self, config: Config) -> None:
        """Go on under `config`, which needs no restart."""
        ...


class Pushing:
    """The pusher of a daemon, its ends tied to the line; made when the line is, for no start needs it."""

    does: ClassVar[frozenset[type[Effect]]] = frozenset({TakeConfig})
    at_once = 1

    def __init__(self, daemon: Daemon, layers: Layers) -> None:
        self._daemon, self._layers = daemon, layers
        self._made: Pusher | None = None
        self._chain = (daemon.box.books.chain.jid, daemon.box.books.chain.seq)
        uplink = daemon.uplink
        uplink.takers["config/desired"], uplink.on_chunk = self._came, self._chunk
        uplink.on_line, uplink.on_ack, uplink.standing = self._linked, self._heard, self._standing

    @property
    def pusher(self) -> Pusher:
        if self._made is None:
            from device.push.pusher import Pusher

            daemon, layers = self._daemon, self._layers
            state, at = layers.store.state, daemon.box.books.config
            jid, seq = self._chain
            first_seq = seq + 1 if daemon.box.books.chain.jid == jid else 1       # a new journal begins anew
            state.mark = max(state.mark, (at.epoch, at.version))        # the journal remembers, too, how far versions had risen
            self._made = Pusher(layers.store, _Till(daemon), daemon.clock, daemon.config, made=layers.made,
                                keys=verifiers(daemon.config.config_key_file, "configurations", "config"),
                                checked=checker(daemon.config), proof_seq=first_seq, **_trial_ms())
        return self._made

    def _came(self, token: bytes) -> None:
        self.pusher.came(token)

    def _chunk(self, sha256: str, n: int, data: bytes) -> None:
        self.pusher.chunk(sha256, n, data)

    def _linked(self, up: bool) -> None:
        self.pusher.linked(up)

    def _heard(self, upto: int) -> None:
        self.pusher.heard(upto)

    def _standing(self) -> str:
        return self.pusher.standing

    @property
    def refused(self) -> int:
        """Documents that were not taken, over the life of this box."""
        return self._layers.store.state.refused

    def shown(self) -> dict[str, object]:
        return self.pusher.shown()

    async def inputs(self) -> AsyncIterator[Input]:
        await asyncio.sleep(LINK_AFTER_S)
        async for event in self.pusher.inputs():
            yield event

    async def do(self, effect: Effect) -> Input:
        return await self.pusher.do(effect)

    async def close(self) -> None:
        """Nothing is open."""


def _trial_ms() -> dict[str, int]:
    """Ten minutes; a test may have less, nobody more."""
    told = os.environ.get("TILLBOX_TRIAL_S", "")
    return {"trial_ms": min(600, int(told)) * 1000} if told.isdecimal() else {}


class _Till:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.publish, self.hello = daemon.uplink.publish, daemon.uplink.greet
        self.restart, self.take = daemon.restart, daemon.take

    def idle(self) -> bool:
        return idle(self._daemon.box.books, self._daemon.box.desk)

    def next_seq(self) -> int:
        return self._daemon.box.books.chain.seq + 1

    def words_kept(self) -> int:
        return 0 if self._daemon.journal.waiting else self._daemon.box.books.config.n


def checker(config: Config) -> Callable[[str, bytes], object]:
    def checked(name: str, data: bytes) -> object:
        if name == "prices":
            return read_prices(data, which="blobs.prices")
        if name == "rules":
            return rules.opened(data.strip(), verifiers(config.rules_key_file, "a rule table", "rules"), which="blobs.rules")
        if fault := picture_fault(data):
            raise ConfigError([fault], which=f"blobs.{name}")
        return None
    return checked


