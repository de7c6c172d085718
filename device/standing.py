"""A till that cannot sell and says so: on its panel, in the log, and to systemd, which it tells that it is alive.

Three reasons: the data partition cannot be used, box.toml is refused, or nobody enrolled the box yet.  No journal is opened, and
nothing is sold; the console and the doctor say more.  As systemd's service only: run by hand, `tillbox run` says it and ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from device import last_words
from device.config import Config
from device.console.place import left_of
from device.doctor.words_zh import ZH
from device.drivers.registry import displays_of
from device.errors import Outside
from device.identity import waiting
from device.txn.screen import Screen

BEAT_S = 1.0
Notify = Callable[..., None]


def faulty(path: str, code: str, sentence: str, notify: Notify) -> int:
    """The data partition's fault, until somebody ends this."""
    config = left_of(path)
    zh = ZH.get(code, ("", ""))[0]
    return _stood(config, out_of_order(config, f"{zh} {sentence} [{code}]"), _for_ever, notify)


def unset(path: str, notify: Notify, *, complete: bool = False) -> int:
    """box.toml makes no till: the box waits for its enrolment, or for a box.toml that holds.

    `complete`: it would make one, but a code came with the card and is tried first; one that the desk refuses is let go.
    """
    before = _stamp(Path(path))
    config = waiting.unclaimed(path)
    if config is not None:
        show = Shown(config)
        work = waiting.Waiting(path, config, show.show, complete=complete)
        return asyncio.run(_stand(show, waiting.first_screen(config), work.run, notify))
    if complete:                                     # it sold before: a code that lies about is for the console now
        Path(left_of(path).state_dir, waiting.WANTED).unlink(missing_ok=True)
        return 0
    config = left_of(path)
    if not last_words.may_say(config):
        return 2                                     # another daemon lives there, and the panel is its own
    last_words.say_unconfigured(path)
    return _stood(config, out_of_order(config, "box.toml 有错，全部未采用 / box.toml is refused [config_refused]"),
                  lambda: _changed(Path(path), before), notify)


def out_of_order(config: Config, sentence: str) -> Screen:
    title = "暂停收银，请叫技术人员" if config.lang == "zh" else "Out of order: call the technician"
    return Screen("IDLE", title, notice=sentence, tone="bad", lang=config.lang)


class Shown:
    """Brings a screen to every display of the box; one that is not there yet is tried at each beat."""

    def __init__(self, config: Config) -> None:
        self._displays = displays_of(config)
        self._screen: Screen | None = None
        self._due: set[str] = set()
        self._told: set[str] = set()

    async def show(self, screen: Screen) -> None:
        self._screen, self._due = screen, set(self._displays)
        print(f"tillbox does not sell: {screen.title}: {screen.notice}", file=sys.stderr, flush=True)
        await self.beat()

    async def beat(self) -> None:
        for part in sorted(self._due):
            assert self._screen is not None
            try:
                await self._displays[part].show(self._screen, 0)
                self._due.discard(part)
            except Outside as why:
                if part not in self._told:
                    print(f"tillbox cannot say so on the {part}: {why}", file=sys.stderr, flush=True)
                self._told.add(part)


def _stood(config: Config, screen: Screen, until: Callable[[], Awaitable[None]], notify: Notify) -> int:
    return asyncio.run(_stand(Shown(config), screen, until, notify))


async def _stand(shown: Shown, screen: Screen, until: Callable[[], Awaitable[None]], notify: Notify) -> int:
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[None] = loop.create_future()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, _end, stop)
    notify("READY=1", f"STATUS=does not sell: {screen.notice or screen.title}")
    await shown.show(screen)
    work = loop.create_task(_ended(until))
    try:
        while not stop.done() and not work.done():
            await asyncio.wait([stop, work], timeout=BEAT_S, return_when=asyncio.FIRST_COMPLETED)
            notify("WATCHDOG=1")
            await shown.beat()
        if work.done():
            work.result()
    finally:
        notify("STOPPING=1")
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    return 0


def _end(stop: asyncio.Future[None]) -> None:
    if not stop.done():
        stop.set_result(None)


async def _ended(until: Callable[[], Awaitable[None]]) -> None:
    await until()


async def _for_ever() -> None:
    await asyncio.Event().wait()


async def _changed(path: Path, before: tuple[int, int]) -> None:
    """Until box.toml is another one: then the next start looks at it."""
    while _stamp(path) == before:                    # noqa: ASYNC110 - nobody tells us of a file
        await asyncio.sleep(BEAT_S)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
        return found.st_mtime_ns, found.st_ino
    except OSError:
        return 0, 0
