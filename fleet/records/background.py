"""The background's own process: it checks what the door let in, beside the collector and behind it.

A process, for the door's thread and a checking one would pass Python's one lock to and fro.  It lives as long as the pipe to the
collector is open, so that it outlasts no collector, however that one ends; killed at any moment it loses a piece of work and no
record.  Knows the checker; refuses to know MQTT.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from fleet.database import DatabaseFailed
from fleet.records.checking import Checker
from fleet.records.store import Store

log = logging.getLogger("tillfleet.check")


class Background:
    """A process that checks the store at `where`, from `go()` on.  Made before any thread and any connection of this process."""

    def __init__(self, where: str, keys: Sequence[Mapping[str, Any]], wall: Callable[[], str]) -> None:
        its_end, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            _checked_on(its_end, where, keys, wall)
        os.close(its_end)

    def go(self) -> None:
        """The store is made and may be opened."""
        try:
            os.write(self._pipe, b"!")
        except BrokenPipeError:
            log.debug("the background ended before it began")

    @property
    def ended(self) -> bool:
        """True from the first time on at which it is found ended."""
        if self._pid:
            try:
                pid, _ = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                pid = self._pid
            if pid:
                self._pid = 0
        return not self._pid

    def stop(self) -> None:
        """End it; what it is in the middle of is done again by the next one."""
        os.close(self._pipe)
        if self._pid:
            os.waitpid(self._pid, 0)
            self._pid = 0


def _checked_on(pipe: int, where: str, keys: Sequence[Mapping[str, Any]], wall: Callable[[], str]) -> NoReturn:
    """The whole life of the process; never comes back."""
    status = 1
    try:
        for which in (signal.SIGINT, signal.SIGTERM):            # meant for the collector, which closes the pipe
            signal.signal(which, signal.SIG_IGN)
        nothing = os.open(os.devnull, os.O_RDWR)
        for file in (0, 1):                                      # whoever reads the collector's words must not wait for ours
            os.dup2(nothing, file)
        if os.read(pipe, 1):
            threading.Thread(target=_until_closed, args=(pipe,), daemon=True).start()
            Checker(Store(where, keys), wall, behind=True).run_on()
        status = 0
    except DatabaseFailed as why:
        log.critical("nothing is checked any more: %s", why)
    except BaseException:
        log.exception("nothing is checked any more")
    finally:
        os._exit(status)


def _until_closed(pipe: int) -> NoReturn:
    os.read(pipe, 1)
    os._exit(0)
