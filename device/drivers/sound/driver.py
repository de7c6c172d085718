"""The loudspeaker as a driver: a result's notes at once, its amount in words behind them; what comes too late is not played.

Knows what gives way to what.  Refuses to know how samples become sound, and every payment: it is given a name and an amount.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from device.drivers.sound.wave_bytes import NOTES, amount_spoken, tones
from device.errors import DriverBusy, Outside
from device.txn.effects import Effect, PlaySound
from device.txn.inputs import DeviceSaid, Input

LATE_S = 3.0                   # a result that could not begin to sound by then says nothing about now


class Sink(Protocol):
    """Where samples go.  One with `play_notes(notes)` is a buzzer: it is given the notes themselves, and never a voice."""

    def fault(self) -> Outside | None:
        """Why nothing can ever be heard from it, None when nothing is known against it."""
        ...

    async def play(self, samples: bytes, title: str) -> None:
        """Return when they have been heard.  Outside when they cannot be; a cancelled call falls silent."""
        ...


class Speaker:
    """`sink` plays; `voice(text, lang)` gives samples of speech, None: nobody speaks.  `volume` 1 to 100, `lang` zh or en.

    The newest result is heard: it cuts an older amount short, and waits for older notes.
    """

    does: frozenset[type[Effect]] = frozenset({PlaySound})
    at_once = 2

    def __init__(self, sink: Sink, *, volume: int = 100, lang: str = "zh",
                 voice: Callable[[str, str], Awaitable[bytes]] | None = None, late_s: float = LATE_S) -> None:
        self._sink, self._volume, self._lang, self._voice, self._late_s = sink, volume, lang, voice, late_s
        self._notes = asyncio.Lock()
        self._speech: asyncio.Task | None = None
        self._closed = asyncio.Event()

    async def inputs(self) -> AsyncIterator[Input]:
        """A fault that is there from the start, then nothing."""
        fault = self._sink.fault()
        yield DeviceSaid("sound", "ok" if fault is None else "error", "" if fault is None else str(fault))
        await self._closed.wait()

    async def do(self, effect: Effect) -> Input:
        """Play one result; DeviceSaid `ok`, or `voice` when its amount could not be spoken.  DriverBusy when it came too late."""
        assert isinstance(effect, PlaySound), effect
        self._hush()
        if (fault := self._sink.fault()) is not None:
            raise fault
        try:
            async with asyncio.timeout(self._late_s):
                await self._notes.acquire()
        except TimeoutError:
            raise DriverBusy("another result is sounding", which="sound") from None
        notes = getattr(self._sink, "play_notes", None)
        text = amount_spoken(effect.name, effect.amount_fen, self._lang) if self._voice is not None and notes is None else ""
        heard = asyncio.Event()
        speech = self._speech = asyncio.create_task(self._speak(text, heard))
        try:
            try:
                if notes is not None:
                    await notes(NOTES[effect.name])
                else:
                    await self._sink.play(tones(effect.name, self._volume), f"{effect.name} {effect.amount_fen}")
            finally:
                self._notes.release()
            heard.set()
            await asyncio.wait({speech})
        finally:
            speech.cancel()                            # nothing to a speech that has ended
        mute = None if speech.cancelled() else speech.exception()
        return DeviceSaid("sound", "ok") if mute is None else DeviceSaid("sound", "voice", str(mute))

    async def close(self) -> None:
        """Fall silent."""
        self._hush()
        self._closed.set()

    async def _speak(self, text: str, heard: asyncio.Event) -> None:
        """Made while the notes sound, and heard behind them."""
        if text and self._voice is not None:
            samples = await self._voice(text, self._lang)
            await heard.wait()
            await self._sink.play(samples, text)

    def _hush(self) -> None:
        if self._speech is not None:
            self._speech.cancel()
