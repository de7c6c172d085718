"""Keyboards that are no scanner and no keypad of this box: each is taken, types into nothing, and is told once.

A stick that calls itself a keyboard can type faster than any cashier looks.  Taken (EVIOCGRAB) it reaches neither the till nor
the login prompt of the machine.  A new scanner is one, too, until it is set up: pairing listens to all of them for a code that
was just shown.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec

from device.drivers import input_ports
from device.drivers.input.evdev_bytes import EventBytes
from device.drivers.input.scanner_keys import KeyEvents
from device.drivers.input_line import InputLine, KeyDown, open_events
from device.drivers.input_ports import Node
from device.errors import DriverBusy, Outside
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input

log = logging.getLogger("tillbox")

LOOK_MS = 1_000               # between two looks: half of the two seconds in which a new one must be seen
KEPT_MAX = 16                 # strangers held at once; a hub full of them is an attack, and named as many
PART = "keyboards"
REFUSED, BUSY, CLOSED = "refused", "held by another program", "cannot be taken"
PRESSED = "a key is held down"


class Claim(msgspec.Struct, frozen=True):
    """A device that the configuration names: by its USB port, or by a path that leads to it."""

    path: str = ""
    port: str = ""


class Stranger:
    """One keyboard that nobody claims; `line` None while it is not held, and `state` says what became of it."""

    def __init__(self, node: Node, line: InputLine | None, state: str = REFUSED) -> None:
        self.node, self.line, self.state = node, line, state

    def let_go(self) -> None:
        if self.line is not None:
            self.line.close()


class Strangers:
    """Watches event nodes below `dev`, as `sys` lists them.  `claims` are the configured devices; a claimed one that was taken in
    the moment before its link stood is given back at the next look.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, claims: tuple[Claim, ...], *, sys: str = input_ports.SYS, dev: str = input_ports.DEV,
                 sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.seen = 0                                          # strangers since the start
        self._claims, self._sys, self._dev, self._sleep = claims, sys, dev, sleep
        self._held: dict[str, Stranger] = {}                   # by the kernel's own name of the node, which is used once
        self._looked: tuple[tuple[tuple[str, str], ...], tuple[str, ...]] | None = None
        self._told: frozenset[str] = frozenset()
        self._unsaid: list[Input] = []                         # what a look of somebody else's found

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """DeviceSaid `strange` when an unknown keyboard came, `ok` when the last is gone."""
        try:
            while True:
                self.look_now()
                unsaid, self._unsaid = self._unsaid, []
                for said in unsaid:
                    yield said
                await self._sleep(LOOK_MS / 1000)
        finally:
            self.let_go()

    async def do(self, effect: Effect) -> Input:
        """Nobody asks anything of a stranger."""
        raise AssertionError(f"no stranger does {type(effect).__name__}")

    async def close(self) -> None:
        """Let go of every keyboard."""
        self.let_go()

    def let_go(self) -> None:
        for stranger in self._held.values():
            stranger.let_go()
        self._held, self._looked = {}, None

    def shown(self) -> list[dict[str, str]]:
        """Who is there, for people."""
        return [{"name": s.node.name, "usb": s.node.usb, "port": s.node.port, "path": s.node.path,
                 "state": s.state} for s in self._held.values()]

    def lines(self) -> list[tuple[Node, InputLine]]:
        """The keyboards that are held, for whoever listens to them."""
        return [(s.node, s.line) for s in self._held.values() if s.line is not None]

    def look_now(self) -> None:
        """A look out of turn; `inputs` tells what it found."""
        self._unsaid += self.look()

    def look(self) -> list[Input]:
        """Take who is new and no one's, give back who is claimed by now, forget who left; what is to be told of it."""
        listed, claimed = self._listing(), self._claimed_paths()
        if (listed, claimed) == self._looked:
            return []
        self._looked = listed, claimed
        nodes = {f"{node.path} {place}": node for node in input_ports.keyboards(self._sys, self._dev) if node.types
                 for name, place in listed if node.path.endswith(f"/{name}")}
        ours = self._ours(nodes.values(), claimed)
        for key in [key for key, stranger in self._held.items() if key not in nodes or stranger.node.path in ours]:
            self._held.pop(key).let_go()
        for key, node in nodes.items():
            if node.path not in ours and (key in self._held or len(self._held) < KEPT_MAX):
                self._take(key, node)
        if any(stranger.line is None for stranger in self._held.values()):
            self._looked = None                                 # udev may still be at it, or another program: tried again
        return self._news()

    def _take(self, key: str, node: Node) -> None:
        before = self._held.get(key)
        if before is not None and before.line is not None:
            return
        try:
            # Until the next look, and not here: the till stands still while we look.
            line = open_events(node.path, which="keyboard", pressed="refuse" if before is None else "take")
            assert isinstance(line, InputLine)
            self._held[key] = Stranger(node, line)
        except KeyDown:
            self._held[key] = Stranger(node, None, PRESSED)
        except DriverBusy:
            self._held[key] = Stranger(node, None, BUSY)
        except Outside as why:
            if before is None:
                log.warning("%s cannot be kept from typing: %s", node, why)
            self._held[key] = Stranger(node, None, CLOSED)
        self.seen += before is None

    def _news(self) -> list[Input]:
        names = frozenset(self._held)
        new = [self._held[key].node for key in sorted(names - self._told)]
        before, self._told = self._told, names
        if new:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return [DeviceSaid(PART, "strange", f"{new[-1]}{more}: no scanner, no keypad of this box, nothing it types is taken")]
        return [DeviceSaid(PART, "ok")] if before and not names else []

    def _listing(self) -> tuple[tuple[str, str], ...]:
        """(event3, ../../devices/.../input7/event3): the kernel never gives the same place twice."""
        folder = f"{self._sys}/class/input"
        try:
            return tuple(sorted((name, os.readlink(f"{folder}/{name}")) for name in os.listdir(folder) if name.startswith("event")))
        except OSError:
            return ()

    def _claimed_paths(self) -> tuple[str, ...]:
        return tuple(os.path.realpath(claim.path) for claim in self._claims if claim.path and not claim.port)

    def _ours(self, nodes, claimed: tuple[str, ...]) -> set[str]:
        """Paths of the claimed devices, every node of each: a scanner is often two or three."""
        ports = {claim.port for claim in self._claims if claim.port}
        ports |= {node.port for node in nodes if node.port and os.path.realpath(node.path) in claimed}
        return {node.path for node in nodes if node.port in ports or os.path.realpath(node.path) in claimed}


class Pairing:
    """Listens to every stranger for `code`, scanned and not typed, for at most `for_s`.  `found` names the one that said it."""

    def __init__(self, strangers: Strangers, code: str, for_s: float, now_s: Callable[[], float] = time.monotonic) -> None:
        self.code = code
        self.found: Node | None = None
        self.heard: list[str] = []                             # what else was said, by whom, in words: never the symbol itself
        self._strangers, self._now_s, self._until_s = strangers, now_s, now_s() + for_s
        self._ears: dict[int, tuple[Node, InputLine, KeyEvents, EventBytes]] = {}
        for _, line in strangers.lines():
            line.drain()

    @property
    def over(self) -> bool:
        return self.found is not None or self._now_s() >= self._until_s

    def listen(self) -> None:
        """Take what came since; called every few hundredths of a second while it is not over."""
        for node, line in self._strangers.lines():
            ear = self._ears.setdefault(id(line), (node, line, KeyEvents(), EventBytes()))
            while not self.over and (data := line.now()):
                self._judge(ear, data)

    def _judge(self, ear: tuple[Node, InputLine, KeyEvents, EventBytes], data: bytes) -> None:
        node, _, keys, torn = ear
        for event in torn.feed(data):
            read = keys.feed(event)
            if read is None:
                continue
            if read.symbol == self.code:
                self.found = node
            elif len(self.heard) < KEPT_MAX:
                self.heard.append(f"{node}: {read.why or 'another code than the one shown'}")
