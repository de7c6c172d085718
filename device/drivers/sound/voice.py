"""A voice of recorded words: an amount put together from one WAV a word, for a box without espeak-ng.

Knows the words an amount is made of and the names of their files.  Refuses to know results.
"""

from __future__ import annotations

import re
from pathlib import Path

from device.drivers.sound.wave_bytes import read_wav
from device.errors import DriverGone

# What is said, and the file that says it: the same names in either language, so a folder is one voice.
WORDS = {"挂单收款": "parked", "收款": "paid", "Parked slip paid": "parked", "Paid": "paid", "元": "yuan",
         "yuan": "yuan", "角": "jiao", "分": "fen", "十": "10", "百": "100", "千": "1000", "万": "10000",
         **{zh: str(n) for n, zh in enumerate("零一二三四五六七八九")}, **{str(n): str(n) for n in range(10)}}
FILES = tuple(dict.fromkeys(WORDS.values()))
_WORD = re.compile("|".join(sorted(map(re.escape, WORDS), key=len, reverse=True)))


def words_of(text: str) -> list[str]:
    """Names of the files that say `text`, an `amount_spoken`, one after the other; English digits are said one by one."""
    return [WORDS[word] for word in _WORD.findall(text)]


class RecordedVoice:
    """`folder` holds `paid.wav 0.wav 10.wav yuan.wav ...`: each of FILES, one channel of 16 bits at 22,050 a second."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        self._kept: dict[str, bytes] = {}

    async def __call__(self, text: str, lang: str) -> bytes:
        """The samples of `text`.  DriverGone when a word's file is missing or has another form."""
        return b"".join(self._word(name) for name in words_of(text))

    def _word(self, name: str) -> bytes:
        if name not in self._kept:
            path = self._folder / f"{name}.wav"
            try:
                self._kept[name] = read_wav(path.read_bytes())[0]
            except (OSError, ValueError) as why:
                said = getattr(why, "strerror", None) or why
                raise DriverGone(f"{path} cannot be spoken: {said}", which="sound", again=False) from None
        return self._kept[name]
