"""Sound by two small programs of Debian: aplay (alsa-utils) plays, espeak-ng speaks.  Knows how to run them and how to stop.

No library: theirs would stay in the daemon's memory for a second of sound a sale, and a stuck sound card is a process to kill.
"""

from __future__ import annotations

import asyncio
import shutil

from device.drivers.sound.wave_bytes import RATE, read_wav
from device.errors import DriverGone

OVER_S = 3.0                           # what playing may take beyond the samples' own time
SPEAK_S = 4.0
VOICES = {"zh": "cmn", "en": "en"}


class AplaySink:
    """Plays on ALSA's `device` ("default", "plughw:1,0")."""

    def __init__(self, device: str = "default", program: str = "aplay") -> None:
        self._device, self._program = device, program

    def fault(self) -> DriverGone | None:
        if shutil.which(self._program) is None:
            return DriverGone("aplay is not installed", which="sound", hint="apt install alsa-utils", again=False)
        return None

    async def play(self, samples: bytes, title: str) -> None:
        """DriverGone when the sound card will not, or is stuck."""
        await _run([self._program, "-q", "-D", self._device, "-t", "raw", "-f", "S16_LE", "-r", str(RATE), "-c", "1"], samples,
                   len(samples) / 2 / RATE + OVER_S)


async def espeak(text: str, lang: str, program: str = "espeak-ng") -> bytes:
    """`text` spoken, as samples.  DriverGone when espeak-ng is not there, fails or takes too long."""
    if shutil.which(program) is None:
        raise DriverGone("espeak-ng is not installed", which="sound", hint="apt install it, or sound.speak = false", again=False)
    try:
        return read_wav(await _run([program, "-v", VOICES[lang], "--stdout", "--", text], b"", SPEAK_S))[0]
    except ValueError as odd:
        raise DriverGone(f"what espeak-ng says cannot be played: {odd}", which="sound", again=False) from None


async def _run(argv: list[str], given: bytes, limit_s: float) -> bytes:
    """What the program says to `given`.  It is dead when this returns, however it returns."""
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                                                       stderr=asyncio.subprocess.DEVNULL)
    except OSError as why:
        raise DriverGone(f"{argv[0]} cannot be run: {why.strerror}", which="sound") from None
    try:
        async with asyncio.timeout(limit_s):
            said, _ = await process.communicate(given)
    except TimeoutError:
        raise DriverGone(f"{argv[0]} does not come to an end", which="sound", hint="is the sound card well?") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise DriverGone(f"{argv[0]} failed", which="sound", hint="is there a loudspeaker, and is sound.device its name?")
    return said
