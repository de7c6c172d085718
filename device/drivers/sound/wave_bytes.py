"""Sounds as samples: the notes of each result, the amount in words, a WAV around them.

Pure.  22,050 samples a second, 16 bits, one channel, for that is what espeak-ng speaks in and any sound card takes.  Refuses
to know a loudspeaker.
"""

from __future__ import annotations

import math
import struct
from array import array

RATE = 22_050
PEAK = 0.8                             # of full scale, at volume 100
EDGE_S = 0.008                         # in and out of each note: a hard edge is a click
INFO_CHARS_MAX = 64
# (hertz, milliseconds); 0 Hz is a rest.  Told apart with the eyes shut, and on a loudspeaker that has no bass.
Notes = tuple[tuple[int, int], ...]
NOTES: dict[str, Notes] = {
    "paid": ((880, 110), (1109, 110), (1319, 300)),
    "parked": ((1319, 90), (0, 60), (1319, 90), (0, 60), (880, 110), (1109, 110), (1319, 260)),
    "refused": ((392, 220), (0, 80), (330, 380)),
    "ask": ((988, 120), (740, 120), (988, 120), (740, 120), (988, 120), (740, 200)),
}
DIGITS_ZH = "零一二三四五六七八九"


def tones(name: str, volume: int = 100) -> bytes:
    """The samples of a key of NOTES, little-endian.  `volume` 1 to 100."""
    samples = array("h")
    for hertz, ms in NOTES[name]:
        count = RATE * ms // 1000
        edge = RATE * EDGE_S
        for n in range(count):
            swell = min(1.0, n / edge, (count - n) / edge)
            samples.append(int(32_767 * PEAK * volume / 100 * swell * math.sin(2 * math.pi * hertz * n / RATE)))
    return struct.pack(f"<{len(samples)}h", *samples)


def wav(samples: bytes, title: str = "") -> bytes:
    """A WAV file of `samples`; `title` stands in its INFO list as INAM, ASCII."""
    text = title[:INFO_CHARS_MAX].encode("ascii", "replace") + b"\0"
    text += b"\0" * (len(text) % 2)
    info = b"LIST" + struct.pack("<I", 12 + len(text)) + b"INFOINAM" + struct.pack("<I", len(text)) + text if title else b""
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + form + info + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def read_wav(data: bytes) -> tuple[bytes, str]:
    """Samples and title of a WAV of ours or of espeak-ng, which writes to a pipe and so does not know its length.

    ValueError for anything that is not one channel of 16 bits at RATE.
    """
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("this is no WAV")
    at, known, title = 12, False, ""
    while at + 8 <= len(data):
        name, (size,) = data[at:at + 4], struct.unpack_from("<I", data, at + 4)
        chunk = data[at + 8:at + 8 + size]
        if name == b"fmt ":
            known = chunk[:16] == struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
        elif name == b"LIST" and chunk[:8] == b"INFOINAM":
            title = chunk[12:].rstrip(b"\0").decode("ascii", "replace")
        elif name == b"data":
            if not known:
                break
            return chunk[:len(chunk) // 2 * 2], title
        at += 8 + size + size % 2
    raise ValueError("this WAV has not the form that is played here")


def amount_spoken(name: str, amount_fen: int, lang: str) -> str:
    """What a voice says of a payment: 收款十二元三角四分, `Paid. 12 yuan 34.`; "" where no amount belongs."""
    if name not in ("paid", "parked") or amount_fen <= 0:
        return ""
    yuan, rest = divmod(amount_fen, 100)
    if lang != "zh":
        return f"{'Paid' if name == 'paid' else 'Parked slip paid'}. {yuan} yuan{f' {rest:02d}' if rest else ''}."
    jiao, fen = divmod(rest, 10)
    small = (f"{DIGITS_ZH[jiao]}角" if jiao else "零" if fen and yuan else "") + (f"{DIGITS_ZH[fen]}分" if fen else "")
    return ("收款" if name == "paid" else "挂单收款") + (f"{number_zh(yuan)}元" if yuan else "") + small


def number_zh(value: int) -> str:
    """1 to 99,999,999 in Chinese numerals as they are spoken: 一万零五十, 十二, 一百一十."""
    assert 0 < value < 100_000_000, value
    high, low = divmod(value, 10_000)
    said = (_four_zh(high) + "万" if high else "") + ("零" if high and 0 < low < 1_000 else "") + _four_zh(low)
    return said[1:] if said.startswith("一十") else said


def _four_zh(value: int) -> str:
    out, gap = "", False
    for unit, name in ((1_000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = value // unit % 10
        if digit:
            out += ("零" if gap and out else "") + DIGITS_ZH[digit] + name
            gap = False
        else:
            gap = True
    return out
