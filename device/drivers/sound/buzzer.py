"""Buzzers: a result as beeps, where there is no loudspeaker.  One in the printer, one on a wire, one on the mainboard.

Knows how each is told to sound and to stop.  Refuses to know results: it is given notes.
"""

from __future__ import annotations

import asyncio
import errno
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from device.drivers.sound.wave_bytes import Notes
from device.errors import DriverGone, Outside

EV_SYN, EV_SND, SND_TONE = 0x00, 0x12, 0x02            # linux/input-event-codes.h
EVENT = struct.Struct("@llHHi")


class Beeps(Protocol):
    """Who is on the other end of a buzzer in a printer."""

    async def beep(self, times: int) -> None:
        """Outside when it cannot be told now."""
        ...


class PrinterBuzzer:
    """The buzzer in the receipt printer: it knows how often, and no note.  None: this box has no printer."""

    def __init__(self, printer: Beeps | None) -> None:
        self._printer = printer

    def fault(self) -> Outside | None:
        if self._printer is None:
            return DriverGone("there is no printer to beep", which="sound", hint="set up [printer]", again=False)
        return None

    async def play_notes(self, notes: Notes) -> None:
        """One beep for each group of notes that a rest parts."""
        assert self._printer is not None
        await self._printer.beep(1 + sum(hertz == 0 for hertz, _ in notes))

    async def play(self, samples: bytes, title: str) -> None:
        """A buzzer does not speak."""


class WireBuzzer:
    """A buzzer that sounds while `path` holds 1: a GPIO's value, an LED's brightness."""

    def __init__(self, path: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._path, self._sleep = Path(path), sleep

    def fault(self) -> Outside | None:
        if not os.access(self._path, os.W_OK):
            return DriverGone(f"{self._path} cannot be written", which="sound", again=False,
                              hint="is sound.path the buzzer's, and ours to write?")
        return None

    async def play_notes(self, notes: Notes) -> None:
        """DriverGone when the wire is gone.  It is silent when this returns, however it returns."""
        try:
            for hertz, ms in notes:
                self._set(hertz > 0)
                await self._sleep(ms / 1000)
        finally:
            self._set(False)

    async def play(self, samples: bytes, title: str) -> None:
        """A buzzer does not speak."""

    def _set(self, on: bool) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)       # never made: a wire that is not there is not a file
            try:
                os.write(fd, b"1" if on else b"0")
            finally:
                os.close(fd)
        except OSError as why:
            raise DriverGone(f"{self._path} cannot be written: {why.strerror}", which="sound") from why


class BoardBuzzer:
    """The mainboard's beeper as the kernel shows it, `/dev/input/by-path/platform-pcspkr-event-spkr`: notes as they are."""

    def __init__(self, path: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._path, self._sleep = path, sleep

    def fault(self) -> Outside | None:
        if not os.access(self._path, os.W_OK):
            return DriverGone(f"{self._path} cannot be written", which="sound", again=False,
                              hint="modprobe pcspkr, and let the service write it")
        return None

    async def play_notes(self, notes: Notes) -> None:
        """DriverGone when it is gone; silent when this returns, however it returns."""
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as why:
            raise DriverGone(f"{self._path} cannot be opened: {why.strerror}", which="sound") from why
        try:
            try:
                for hertz, ms in notes:
                    _tone(fd, hertz)
                    await self._sleep(ms / 1000)
            finally:
                _tone(fd, 0)
        except OSError as why:
            raise DriverGone(f"{self._path} is gone: {os.strerror(why.errno or errno.EIO)}", which="sound") from why
        finally:
            os.close(fd)

    async def play(self, samples: bytes, title: str) -> None:
        """A beeper does not speak."""


def _tone(fd: int, hertz: int) -> None:
    os.write(fd, EVENT.pack(0, 0, EV_SND, SND_TONE, hertz) + EVENT.pack(0, 0, EV_SYN, 0, 0))
