"""A loudspeaker that is a file: each sound replaces the one before, as a WAV whose title says what it is.

For tests and demos.  Knows no sound card.
"""

from __future__ import annotations

import os
from pathlib import Path

from device.drivers.sound.wave_bytes import wav
from device.errors import DriverGone


class FileSink:
    """The WAV at `path`, whole at any moment."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def fault(self) -> None:
        """A folder may still come."""

    async def play(self, samples: bytes, title: str) -> None:
        """DriverGone when it cannot be written."""
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_bytes(wav(samples, title))
            os.replace(fresh, self._path)
        except OSError as why:
            raise DriverGone(f"{self._path} cannot be written: {why.strerror}", which="sound") from why
