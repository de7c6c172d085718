"""What the displays say when there is no till behind them, and which displays those are.

A QR of a life that ended may stand on any glass that box spoke on last, whatever box.toml says by now: it may be refused, or name
another.  So a note in the state folder names them.  Losing it costs no more than it is for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import msgspec

from device.config import Config, DisplayConfig
from device.drivers import private_file
from device.drivers.registry import displays_of
from device.errors import Outside
from device.txn.screen import Screen

log = logging.getLogger("tillbox")

NOTE = "displays.last"
NOTE_BYTES_MAX = 64 * 1024


class Note(msgspec.Struct, frozen=True):
    """The displays that a daemon spoke on last, and where it may still live."""

    displays: tuple[DisplayConfig, ...]
    run_dir: str


def take_over(config: Config) -> None:
    """Take a QR off those displays of the last life that `config` names no more, and keep the names of today's.

    Call it when the journal is ours: before, they may be another daemon's.
    """
    note, now = _noted(config.state_dir), Note(config.displays, config.run_dir)
    if note == now:
        return
    for display in displays_of(msgspec.structs.replace(config, displays=_others(config, note), pictures=())).values():
        display.wipe()
    try:
        private_file.replace(Path(config.state_dir) / NOTE, msgspec.json.encode(now))
    except OSError as why:
        log.warning("the displays in use are not noted: %s", why)


def say(config: Config, sentence: str) -> None:
    """Why nothing is sold, on standard error and on every display of this life and the last: the cashier reads no log."""
    print(sentence, file=sys.stderr, flush=True)
    zh = config.lang == "zh"
    screen = Screen("IDLE", "暂停收银，请叫技术人员" if zh else "Out of order: call the technician", notice=sentence, tone="bad",
                    lang=config.lang)
    displays = (*config.displays, *_others(config, _noted(config.state_dir)))
    for display in displays_of(msgspec.structs.replace(config, displays=displays, pictures=())).values():
        try:
            asyncio.run(display.show(screen, 0))
        except Outside as why:
            print(f"tillbox cannot say so on the display either: {why}", file=sys.stderr, flush=True)


def may_say(config: Config) -> bool:
    """Whether no daemon lives there whose displays they are."""
    from device.ask import runs

    note = _noted(config.state_dir)
    return not (runs(config.run_dir) or (note is not None and runs(note.run_dir)))


def say_unconfigured(path: str) -> None:
    """That nothing is sold, for a box whose configuration file at `path` does not serve: where it spoke last, unless it lives."""
    from device.console.place import left_of

    left = left_of(path)
    for state_dir in (left.state_dir, *os.environ.get("STATE_DIRECTORY", "").split(":")):
        config = msgspec.structs.replace(left, state_dir=state_dir, displays=())
        if state_dir and _noted(state_dir) is not None:
            if may_say(config):
                say(config, f"tillbox cannot start: {path} does not serve")
            return


def _others(config: Config, note: Note | None) -> tuple[DisplayConfig, ...]:
    """Displays of the note that `config` does not name."""
    ours = {one.path for one in config.displays if one.kind != "none"}
    return tuple(one for one in note.displays if one.kind != "none" and one.path not in ours) if note is not None else ()


def _noted(state_dir: str) -> Note | None:
    try:
        with open(Path(state_dir) / NOTE, "rb") as file:
            return msgspec.json.decode(file.read(NOTE_BYTES_MAX), type=Note)
    except (OSError, ValueError):
        return None
