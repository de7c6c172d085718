"""What a living daemon says of itself, as far as the doctor reads it.  Pure.

Knows the shapes that `Daemon.state` gives; refuses to guess at others: an answer that is wrong anywhere is not believed elsewhere.
"""

from __future__ import annotations

from typing import Any

import msgspec

PARTS_MAX = 200                          # sixteen of each kind of device and every channel are far fewer
WORD_CHARS_MAX, WHY_CHARS_MAX = 80, 400


class Said(msgspec.Struct, frozen=True):
    """`health` and `whys` by part; ages in seconds, `since` of the wall; what is not said has its default."""

    health: dict[str, str] = {}
    whys: dict[str, str] = {}
    pid: int = 0
    since: float = 0
    software: str = ""
    unacked: int = 0
    oldest_unacked_s: int = 0
    room_bytes: int = 0
    parked: list[Any] = []
    link_why: str = ""


def heard(state: object) -> Said:
    """What `state` says, its texts cut to a sentence's length.  ValueError, with half a sentence, for anything of another shape."""
    if not isinstance(state, dict) or not state:
        raise ValueError("it gives no state")
    try:
        said = msgspec.convert(state, Said)
    except msgspec.ValidationError as why:
        raise ValueError(f"{str(why)[:WHY_CHARS_MAX]}") from None
    if len(said.health) > PARTS_MAX:
        raise ValueError(f"it names {len(said.health)} parts")
    return msgspec.structs.replace(
        said, software=said.software[:WORD_CHARS_MAX], link_why=said.link_why[:WHY_CHARS_MAX],
        health={part[:WORD_CHARS_MAX]: word[:WORD_CHARS_MAX] for part, word in said.health.items()},
        whys={part[:WORD_CHARS_MAX]: why[:WHY_CHARS_MAX] for part, why in said.whys.items() if part in said.health})
