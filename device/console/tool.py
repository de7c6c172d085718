"""`tillbox console --line PORT | --stdio`: the technician's console, a process of its own.  Wires files, clock and line."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any, NoReturn

from device.ask import DaemonAway, ask
from device.console import place as places
from device.console.line import Line, LineGone
from device.console.session import Session
from device.console.spool import Spool
from device.console.tries import Tries
from device.inside import keep_inside


def main(argv: list[str]) -> int:
    """0 when the line ended, 1 when it cannot be had, 2 for arguments that do not serve."""
    keep_inside()
    parser = _Parser(prog="tillbox console", description="The technician's console: docs/technician.md")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--line", metavar="PORT", help="a serial port, such as /dev/ttyAMA0, or one end of a pty")
    where.add_argument("--stdio", action="store_true", help="on standard input and output")
    parser.add_argument("--config", default="/etc/tillbox/box.toml", metavar="FILE")
    try:
        asked = parser.parse_args(argv)
    except ValueError as why:
        print(f"tillbox console: {why}", file=sys.stderr)
        return 2
    place = places.at(asked.config)
    try:
        line = Line.stdio() if asked.stdio else Line.port(asked.line, place.console.baud)
    except OSError as why:
        print(f"tillbox console: {why.filename or asked.line}: {why.strerror}", file=sys.stderr)
        return 1
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _ended)
    try:
        session(place, line).run()
    except LineGone as why:
        print(f"tillbox console: {why}", file=sys.stderr)
    finally:
        line.close()
    return 0


def session(place: places.Place, line: Any) -> Session:
    """A session at `place` over `line`, with this boot's tries and spool."""
    boot = places.boot_of(place.run_dir)
    return Session(place, line, Tries(place.folder, boot, lambda: time.clock_gettime(time.CLOCK_BOOTTIME)),
                   Spool(place.folder, boot, lambda entries: _told(place, entries)), boot=boot)


def _told(place: places.Place, entries: list[dict[str, Any]]) -> bool:
    try:
        return bool(ask(place.socket, "console", entries=entries).get("ok"))
    except DaemonAway:
        return False


def _ended(*_: object) -> NoReturn:
    raise LineGone("ended by a signal")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)
