"""Trying scanners out, learning a new one, and keeping strange keyboards from typing: what `tillbox scan` asks of the daemon.

Nothing here sells: a scan that is tried out is taken away before the till hears of it, and only while nobody is served.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from device.config import Config
from device.crockford import digits

if TYPE_CHECKING:
    from device.drivers.input.scanner_keys import Read
    from device.drivers.input.scanner_strangers import Pairing, Strangers

TEST_S, PAIR_S = 30.0, 60.0
LISTEN_S = 0.05
SHOWN_LEN_MAX = 14            # a GTIN; what is longer, or unknown, may be a payer's code and is only counted


class Tap:
    """A scan that is tried out: the next read of any scanner goes to a person and not to the till."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.said: dict[str, Any] | None = None
        self._now_s, self._until_s = now_s, 0.0

    def begin(self, for_s: float) -> None:
        self.said, self._until_s = None, self._now_s() + for_s

    @property
    def waits(self) -> bool:
        return self._now_s() < self._until_s

    def takes(self, part: str, read: Read) -> bool:
        """True when the till shall not hear of `read`."""
        if not self.waits:
            return False
        self._until_s = 0.0
        plain = len(read.symbol) <= SHOWN_LEN_MAX and read.symbol.isascii() and read.symbol.isdigit()
        self.said = {"part": part, "kind": read.aim, "length": len(read.symbol), "symbol": read.symbol if plain else "",
                     "why": read.why}
        return True


def refuses(config: Config) -> bool:
    """Whether strange keyboards are taken on this box.

    By itself only as systemd's service: a till that somebody runs by hand runs on that somebody's desk.
    """
    if config.keyboards != "auto":
        return config.keyboards == "refuse"
    inputs = [port or (path.startswith("/dev/") and kind in ("evdev", "hidraw")) for kind, path, port in _named(config)]
    return bool(os.environ.get("NOTIFY_SOCKET")) and any(inputs)


def strangers_of(config: Config) -> Strangers | None:
    """The watch over keyboards, where this box keeps one."""
    if not refuses(config):
        return None
    from device.drivers.input.scanner_strangers import Claim, Strangers
    return Strangers(tuple(Claim(path, port) for _, path, port in _named(config)))


def _named(config: Config) -> list[tuple[str, str, str]]:
    """Kind, path and port of each scanner, and of the keypad."""
    pad = config.keypad
    named = [*((one.kind, one.path, one.port) for one in config.scanners), (pad.kind, pad.path, pad.port)]
    return [one for one in named if one[0] != "none"]


class Scanning:
    """The `scan` verbs of the daemon's socket.  `idle` says whether nobody is served; `drivers` are the daemon's own."""

    def __init__(self, config: Config, drivers: Mapping[str, Any], tap: Tap, idle: Callable[[], bool]) -> None:
        self._config, self._drivers, self._tap, self._idle = config, drivers, tap, idle
        self._pairing: Pairing | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def strangers(self) -> Strangers | None:
        return self._drivers.get("keyboards")

    def shown(self) -> dict[str, Any]:
        """For /state: what each scanner said since the start, and the keyboards that were refused."""
        counts = {part: dict(driver.reads.counts) for part, driver in self._drivers.items() if hasattr(driver, "reads")}
        watch = self.strangers
        refused = {"refused": watch.shown(), "seen": watch.seen} if watch is not None else {"refused": [], "seen": 0}
        return {"scanners": counts, "keyboards": refused}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """`do` is `test`, `pair` or `look`; `{"ok": false, "error": ...}` for what cannot be done now."""
        do = asked.get("do")
        if do == "test":
            if not self._idle():
                return {"ok": False, "error": "A customer is being served: try the scanner between two customers."}
            self._tap.begin(TEST_S)
            return {"ok": True, "seconds": TEST_S}
        if do == "pair":
            return self._pair(str(asked.get("code") or ""))
        if do == "look":
            return {"ok": True, "scan": self._looked()}
        return {"ok": False, "error": "scan does test, pair or look."}

    def _pair(self, code: str) -> dict[str, Any]:
        watch = self.strangers
        if watch is None:
            return {"ok": False, "error": 'This box does not listen to keyboards: say keyboards = "refuse" in box.toml.'}
        if not self._idle():
            return {"ok": False, "error": "A customer is being served: pair the scanner between two customers."}
        from device.drivers.input.scanner_strangers import Pairing
        watch.look_now()
        code = code or f"PAIR-{digits(secrets.randbits(30), 6)}"
        self._pairing = Pairing(watch, code, PAIR_S)
        self._tap.begin(PAIR_S)                       # a scanner that is set up already says so, and sells nothing meanwhile
        self._task = asyncio.get_running_loop().create_task(self._listening(self._pairing), name="pairing")
        return {"ok": True, "code": code, "seconds": PAIR_S, "keyboards": len(watch.lines())}

    async def _listening(self, pairing: Pairing) -> None:
        while pairing is self._pairing and not pairing.over and self._tap.said is None:
            pairing.listen()
            await asyncio.sleep(LISTEN_S)
        if pairing is self._pairing and self._tap.said is None:
            self._tap.begin(0)

    def _looked(self) -> dict[str, Any]:
        pairing, found = self._pairing, None
        if pairing is not None and pairing.found is not None:
            node = pairing.found
            found = {"name": node.name, "usb": node.usb, "port": node.port, "path": node.path}
        over = pairing.over if pairing is not None else not self._tap.waits
        return {"said": self._tap.said, "found": found, "heard": pairing.heard if pairing is not None else [], "over": over}
