"""A box that configurations are pushed to: the real pusher, store and box.toml on disk, a clock by hand, and a cloud of few words.

A start is a new pusher over the same folder; `PowerCut` stops one in the middle of any step on the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from pathlib import Path
from typing import Any

import msgspec

from device.config import Config
from device.goods import check_digit
from device.mqtt import config_wire as wire
from device.push.layers import Layers, checker
from device.push.pusher import Pusher
from device.store_forward.es256 import public_verifier
from device.txn.effects import TakeConfig
from device.txn.inputs import ConfigSaid
from device.types import Stamp
from tests.record_chain import Key

KEY = Key()
KNOWN = {KEY.kid: public_verifier(KEY.jwk)}
WALL = "2026-07-14T09:26:53.000+08:00"
TOML = '''
box = "box-1"
box_no = "0000B1"
tenant = "shop"
state_dir = "{state}"
[display]
kind = "none"
[printer]
columns = 48
[mqtt]
host = "old.example"
[channel.gateway]
base_url = "https://pay.example"
terminal_id = "T1"
secret = "s"
'''


class PowerCut(BaseException):
    """The power went; nothing catches it."""


class Box:
    """`reach`: brokers by which the cloud is reached.  `starts` counts them; `said` is what the core heard since the start."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder, folder / "state"
        self.state.mkdir(exist_ok=True)
        self.toml = folder / "box.toml"
        self.toml.write_text(TOML.format(state=self.state))
        self.reach = {"old.example"}
        self.busy = False
        self.clk = "anchored"
        self.wall = WALL
        self.reports: list[wire.Reported] = []
        self.said: list[ConfigSaid] = []
        self.kept: list[ConfigSaid] = []                  # the records of them that are on the card
        self.waiting: list[ConfigSaid] = []               # and those that a cut takes
        self.flushes = True
        self.taken: list[Config] = []
        self.greeted = 0
        self.seq, self.starts, self.cut = 7, 0, False
        self._ms = 0
        self.start()

    # What the pusher sees of it.

    def publish(self, name: str, payload: bytes) -> bool:
        assert name == "config/reported"
        if self.linked:
            self.reports.append(wire.reported_decoded(payload))
        return self.linked

    def hello(self) -> None:
        self.greeted += 1
        self._answer()

    def idle(self) -> bool:
        return not self.busy

    def next_seq(self) -> int:
        return self.seq + 1

    def tell(self, word: ConfigSaid) -> None:
        """What the core does with a word: a number is recorded once."""
        self.said.append(word)
        if word.n > max((one.n for one in self.kept + self.waiting), default=0):
            self.waiting.append(word)
        if self.flushes:
            self.kept, self.waiting = self.kept + self.waiting, []

    @property
    def tale(self) -> list[tuple[int, str]]:
        return [(word.version, word.state) for word in self.kept]

    def restart(self) -> None:
        self.again = True

    def words_kept(self) -> int:
        return 0 if self.waiting else self.kept[-1].n if self.kept else 0

    def take(self, config: Config) -> None:
        self.taken.append(config)
        self.config = config
        self._renews = True

    def now_ms(self) -> int:
        return self._ms

    def stamp(self) -> Stamp:
        return Stamp(f"b{self.starts}", self._ms, self.wall, self.clk)

    # What a test does with it.

    def start(self) -> None:
        """A boot: the monotonic clock begins anew, a boot record is signed."""
        self.layers = Layers(self.toml.read_text(), which="box.toml")
        self.config = self.layers.begin()
        self.starts += 1
        self._ms, self.again, self._renews, self.linked, self.said = 5_000, False, False, False, []
        self.waiting = []
        self.pusher = Pusher(self.layers.store, self, self, self.config, keys=KNOWN, made=self.layers.made,
                             checked=checker(self.config), proof_seq=self.seq + 1)
        self.seq += 1
        self._line(True)

    def _line(self, up: bool) -> None:
        self.linked = up and self.config.mqtt.host in self.reach
        self.pusher.linked(self.linked)
        self._answer()

    def _answer(self) -> None:
        """The cloud has everything that is signed."""
        if self.linked:
            self.pusher.heard(self.seq)

    def network(self, *reach: str) -> None:
        self.reach = set(reach)
        self._line(self.config.mqtt.host in self.reach)

    def push(self, desired: wire.Desired | bytes, key: Key = KEY) -> bytes:
        token = desired if isinstance(desired, bytes) else wire.config_encoded(desired, key.kid, key.sign)
        self.pusher.came(token)
        return token

    def wait(self, seconds: float, every_ms: int = 1_000) -> None:
        """Time passes; the core takes what waits whenever nobody stands there, and the box starts again where it asks to."""
        gone_ms = 0
        while True:
            self._core()
            if gone_ms >= seconds * 1000:
                return
            gone_ms += every_ms
            self._ms += every_ms
            self.pusher.step()

    def _core(self) -> None:
        said = self.pusher._say
        while said:
            self.tell(said.popleft())
        if self.said and self.said[-1].waits and self.idle():
            answer = asyncio.run(self.pusher.do(TakeConfig(self.said[-1].digest)))
            assert isinstance(answer, ConfigSaid)
            self.tell(answer)
        if self._renews:
            self._renews, self.seq = False, self.seq + 1          # the record of the trial
            self._line(False)
            self._line(True)
        if self.again:
            self.start()

    @property
    def report(self) -> wire.Reported:
        """What the pusher would tell now."""
        return self.pusher.report()

    @property
    def columns(self) -> int:
        return self.config.printer.columns

    def feed(self, sha256: str, data: bytes, chunks: list[int] | None = None) -> None:
        for n in range(wire.chunks_of(len(data))) if chunks is None else chunks:
            self.pusher.chunk(sha256, n, data[n * wire.CHUNK_BYTES:(n + 1) * wire.CHUNK_BYTES])


def doc(version: int, told: dict[str, Any] | None = None, *, epoch: int = 0, box: str = "box-1", **more: Any) -> wire.Desired:
    body = {name: more.pop(name) for name in ("blobs", "origin", "payee_change") if name in more}
    told = {"printer": {"columns": 32}} if told is None else told
    return wire.Desired(epoch, version, box, body=wire.Body(told, **body), **more)


def price_book(goods: int, cheaper: frozenset[int] = frozenset()) -> bytes:
    """A price list of so many goods; those in `cheaper` cost a fen less."""
    lines = ["gtin,name_zh,name_en,price_fen,unit,source\n"]
    for n in range(goods):
        stem = f"69{n:010d}"
        lines.append(f"{stem}{check_digit(stem)},茶{n},Tea {n},{500 + n % 97 - (n in cheaper)},piece,test\n")
    return "".join(lines).encode()


def blob_of(data: bytes, *deltas: wire.Delta) -> wire.Blob:
    return wire.Blob(hashlib.sha256(data).hexdigest(), len(data), deltas)


class Cuts:
    """Stops the box at its `nth` step on the disk: half of a file written, a file not yet in place, or just in place."""

    def __init__(self, monkeypatch: Any, nth: int) -> None:
        self.left, self.steps = nth, 0
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self._synced)
        monkeypatch.setattr(os, "replace", self._replaced)

    def _synced(self, file: int) -> None:
        self._step(lambda: None if os.path.isdir(f"/proc/self/fd/{file}") else os.ftruncate(file, 3))
        self._fsync(file)

    def _replaced(self, old: Any, new: Any) -> None:
        self._step(lambda: None)
        self._replace(old, new)
        self._step(lambda: None)

    def _step(self, spoil: Any) -> None:
        self.steps += 1
        self.left -= 1
        if self.left == 0:
            spoil()
            raise PowerCut


def shuffled(seed: int, count: int) -> list[int]:
    numbers = list(range(count))
    random.Random(seed).shuffle(numbers)
    return numbers


def plain(value: Any) -> Any:
    return msgspec.to_builtins(value)
