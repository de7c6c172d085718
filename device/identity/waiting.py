"""A box that belongs to nobody yet waits for its enrolment code: scanned with the till's own scanner, typed at the console, or
left by whoever flashed its card.

Any keyboard is listened to, for nobody has said yet which one is the scanner: the code proves itself, and whoever types something
else has done nothing.  Knows what an enrolment takes; refuses to know displays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from device.config import Config
from device.drivers.input.evdev_bytes import EventBytes
from device.drivers.input.scanner_keys import KeyEvents
from device.drivers.input.scanner_strangers import Claim, Strangers
from device.drivers.registry import drivers_of
from device.errors import ConfigError, Outside
from device.identity import enrol
from device.identity import folder as identity
from device.mqtt import enrol_wire
from device.txn.inputs import Scanned, ScanSpoiled
from device.txn.screen import Screen

WANTED = "enrol.wanted"                 # two lines: HOST:PORT, and the code while it is to be tried
WANTED_BYTES_MAX = 1024
BEAT_S, LISTEN_S = 1.0, 0.05
AGAIN_S = 30.0                          # between two tries of a code that was left here: the network may just come up

Asked = Callable[[str, int, enrol_wire.Code, bytes], bytes]


def unclaimed(path: str) -> Config | None:
    """The configuration of a box that was never enrolled and never sold; None for any other, and for a file that is refused."""
    try:
        config = identity.loaded(path, lacking={"box": "box", "box_no": "000000", "tenant": "tenant"})
        nobodys = identity.cloud_of(config.identity_dir) is None and not Path(config.state_dir, "journal.db").exists()
    except (OSError, UnicodeDecodeError, ConfigError, Outside):
        return None
    return config if nobodys else None


def first_screen(config: Config) -> Screen:
    return _screen(config, "这台收银机还没有入网。用它的扫描枪扫入网码，或在控制台输入 enrol。 / Not enrolled yet: scan the "
                           "enrolment code with this till's scanner, or use the console.", "plain")


class Waiting:
    """`show` brings a screen to the panel; `asked` is the line to the listener; `complete`: the box could sell as it is."""

    def __init__(self, path: str, config: Config, show: Callable[[Screen], Awaitable[None]], *, asked: Asked | None = None,
                 complete: bool = False) -> None:
        self._path, self._config, self._show, self._asked, self._complete = path, config, show, asked, complete
        self._wanted = Path(config.state_dir) / WANTED
        self._heard: asyncio.Queue[str] = asyncio.Queue(4)

    async def run(self) -> None:
        """Ends when the box is enrolled, by this or by another hand; a complete one's, too, when its code is of no use."""
        made = {part: driver for part, driver in drivers_of(_scanners_only(self._config), lambda symbol: None).items()
                if part.startswith("scanner")}
        ears = [asyncio.create_task(self._ear(driver)) for driver in made.values()]
        strangers = Strangers(tuple(Claim(one.path, one.port) for one in self._config.scanners if one.kind != "none"))
        ears.append(asyncio.create_task(self._all_ears(strangers)))
        try:
            await self._serve()
        finally:
            for task in ears:
                task.cancel()
            await asyncio.gather(*ears, return_exceptions=True)
            strangers.let_go()
            for driver in made.values():
                await driver.close()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while identity.cloud_of(self._config.identity_dir) is None:
            if loop.time() >= next_s:
                next_s = loop.time() + AGAIN_S
                if text := self._left()[1]:
                    if not await self._tried(text):
                        self._forget()
                    continue
                if self._complete:
                    self._wanted.unlink(missing_ok=True)
                    return
            try:
                text = await asyncio.wait_for(self._heard.get(), BEAT_S)
            except TimeoutError:
                continue
            await self._tried(text)

    async def _tried(self, text: str) -> bool:
        """Whether another try of the same code can help, or it did; what came of it is on the panel."""
        try:
            said, at = enrol_wire.place_of(text)
            code = enrol_wire.code_of(said)
        except ValueError as why:
            await self._say(f"不是入网码 / No enrolment code: {why}.", "bad")
            return False
        at = at or self._left()[0]
        if not at:
            await self._say("入网码没有写明去处 / The code names no place: ask for one with HOST:PORT in it, or type "
                            "`enrol HOST:PORT` at the console.", "bad")
            return False
        await self._say(f"正在入网 {code.box} / Enrolling as {code.box} at {at} ...", "wait")
        try:
            who = await asyncio.to_thread(self._enrolled, code, at)
        except Outside as why:
            await self._say(f"没有入网 / Not enrolled: {why.what} {why.hint}".rstrip(), "bad")
            return why.again
        except (OSError, ValueError) as why:
            await self._say(f"没有入网 / Not enrolled: {why}", "bad")
            return False
        self._wanted.unlink(missing_ok=True)
        await self._say(f"已入网 {who.box} / Enrolled: box {who.box} of {who.tenant}, number {who.box_no}.", "good")
        return True

    def _enrolled(self, code: enrol_wire.Code, at: str) -> enrol_wire.Identity:
        from device.identity import enrol_line
        config = enrol.config_for(self._path, code.box)
        request = enrol.prepared(config, code)
        host, _, port = at.rpartition(":")
        return enrol.accepted(config, code, request, (self._asked or enrol_line.asked)(host.strip("[]"), int(port), code, request))

    async def _say(self, sentence: str, tone: str) -> None:
        await self._show(_screen(self._config, sentence, tone))

    def _left(self) -> tuple[str, str]:
        """Place and code that were left here, "" each where there is none."""
        try:
            lines = self._wanted.read_bytes()[:WANTED_BYTES_MAX].decode("ascii", "replace").split("\n")
        except OSError:
            return "", ""
        place, code = (line.strip() for line in (lines + [""])[:2])
        return place, code

    def _forget(self) -> None:
        """The code is of no use any more; the place is, for the next one."""
        from device.drivers import private_file
        private_file.replace(self._wanted, self._left()[0].encode() + b"\n")

    # Ears ------------------------------------------------------------------------------------------------------------

    async def _ear(self, driver: Any) -> None:
        while True:
            async for said in driver.inputs():
                if isinstance(said, Scanned):
                    self._came(said.symbol)
                elif isinstance(said, ScanSpoiled):
                    await self._say(f"扫码没有读全 / The scan is spoiled: {said.why}", "bad")
            await asyncio.sleep(BEAT_S)

    async def _all_ears(self, strangers: Strangers) -> None:
        ears: dict[int, tuple[KeyEvents, EventBytes]] = {}
        beats = 0
        while True:
            if beats % int(BEAT_S / LISTEN_S) == 0:
                strangers.look_now()
            beats += 1
            for _, line in strangers.lines():
                keys, torn = ears.setdefault(id(line), (KeyEvents(), EventBytes()))
                try:
                    while data := line.now():
                        for event in torn.feed(data):
                            read = keys.feed(event)
                            if read is not None and read.symbol:
                                self._came(read.symbol)
                except Outside:
                    ears.pop(id(line), None)                     # pulled: the next look forgets it
            await asyncio.sleep(LISTEN_S)

    def _came(self, symbol: str) -> None:
        if not self._heard.full():
            self._heard.put_nowait(symbol)


def _screen(config: Config, sentence: str, tone: str) -> Screen:
    title = "请扫入网码" if config.lang == "zh" else "Scan the enrolment code"
    return Screen("IDLE", title, notice=sentence, tone=tone, lang=config.lang)


def _scanners_only(config: Config) -> Config:
    none = {part: msgspec.structs.replace(getattr(config, part), kind="none") for part in ("keypad", "printer", "sound")}
    return msgspec.structs.replace(config, channels=(), **none)
