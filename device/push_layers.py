"""Box.toml and what was pushed over it: put together at a start, explained key by key, and joined to the running daemon.

Knows files and the daemon; refuses to know when a document is taken: that is `push.py`'s.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from device import rules
from device.config import Config, parse, show
from device.errors import ConfigError
from device.gateway import with_terminal
from device.identity import overlaid
from device.price_file import read_prices
from device.push import TRIAL_MS, Pusher, chosen, maker, opener
from device.push_store import PushStore
from device.txn.wants import idle
from device.uplink import verifiers

if TYPE_CHECKING:
    from device.daemon import Daemon

log = logging.getLogger("tillbox")


class Layers:
    """`text` is box.toml.  ConfigError with every reason when it does not make a configuration by itself."""

    def __init__(self, text: str, *, which: str) -> None:
        try:
            self._text = tomllib.loads(text)
        except tomllib.TOMLDecodeError as fault:
            raise ConfigError([f"not TOML: {fault}"], which=which) from fault
        self.base: dict[str, Any] = overlaid(self._text, which)
        self.alone = with_terminal(parse(self.base, which=which))
        self.store = PushStore(Path(self.alone.state_dir))
        self.made = maker(self.base, self.store, opener(Path(self.alone.encryption_key_file)), with_terminal)

    def begin(self) -> Config:
        """As `config`, for a start that counts."""
        self.store.boot()
        return chosen(self.store, self.alone, self.made, starts=True)

    def config(self) -> Config:
        """What the box runs with."""
        return chosen(self.store, self.alone, self.made, starts=False)

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


def pushing(daemon: Daemon, layers: Layers) -> Pusher:
    """The pusher of a daemon, its ends tied to the line."""
    state, at = layers.store.state, daemon.box.books.config
    state.mark = max(state.mark, (at.epoch, at.version))        # the journal remembers, too, how far versions had risen
    uplink = daemon.uplink
    keys = verifiers(daemon.config.config_key_file, "configurations", "config")
    pusher = Pusher(layers.store, _Till(daemon), daemon.clock, daemon.config, keys=keys, made=layers.made,
                    checked=_checker(daemon.config), trial_ms=_trial_ms())
    uplink.takers["config/desired"] = pusher.came
    uplink.on_line, uplink.on_ack, uplink.on_chunk = pusher.linked, pusher.heard, pusher.chunk
    uplink.standing = lambda: pusher.standing
    return pusher


def _trial_ms() -> int:
    """Ten minutes; a test may have less, nobody more."""
    told = os.environ.get("TILLBOX_TRIAL_S", "")
    return min(TRIAL_MS, int(told) * 1000) if told.isdecimal() else TRIAL_MS


class _Till:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.publish, self.hello = daemon.uplink.publish, daemon.uplink.greet
        self.restart, self.take = daemon.restart, daemon.take

    def idle(self) -> bool:
        return idle(self._daemon.box.books, self._daemon.box.desk)

    def next_seq(self) -> int:
        return self._daemon.box.books.chain.seq + 1


def _checker(config: Config) -> Callable[[str, bytes], object]:
    def checked(name: str, data: bytes) -> object:
        if name == "prices":
            return read_prices(data, which="blobs.prices")
        if name == "rules":
            return rules.opened(data.strip(), verifiers(config.rules_key_file, "a rule table", "rules"), which="blobs.rules")
        if not data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
            raise ConfigError(["it is neither PNG nor JPEG"], which=f"blobs.{name}")
        return None
    return checked


