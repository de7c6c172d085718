"""The kernel's `struct input_event` as bytes, both ways.  Knows sizes and numbers, no key and no device.

Source: linux/input.h and linux/input-event-codes.h; 64-bit layout, 24 bytes an event.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

EV_SYN, EV_KEY, EV_MSC, EV_LED = 0, 1, 4, 17
SYN_REPORT, SYN_DROPPED = 0, 3
RELEASE, PRESS, REPEAT = 0, 1, 2

_EVENT = struct.Struct("<qqHHi")
EVENT_BYTES = _EVENT.size


class Event(NamedTuple):
    """One input event; `at_ms` is the source's own clock, so a late reader judges gaps as they were."""

    type: int
    code: int
    value: int
    at_ms: int


def event_bytes(event: Event | tuple[int, int, int, int]) -> bytes:
    """The 24 bytes that the kernel would hand out for `event`."""
    kind, code, value, at_ms = event
    return _EVENT.pack(at_ms // 1000, at_ms % 1000 * 1000, kind, code, value)


class EventBytes:
    """Bytes in, whole events out.  Keeps a torn event until the rest of it comes.  Never raises."""

    def __init__(self) -> None:
        self._torn = b""

    def feed(self, data: bytes) -> list[Event]:
        """Every event that `data` completes, oldest first."""
        data = self._torn + data
        whole = len(data) - len(data) % EVENT_BYTES
        self._torn = data[whole:]
        return [
            Event(kind, code, value, sec * 1000 + usec // 1000)
            for sec, usec, kind, code, value in _EVENT.iter_unpack(data[:whole])
        ]


def typed(code: int, at_ms: int) -> list[Event]:
    """A key pressed and released, each with its report, as a real keyboard sends it."""
    return [
        Event(EV_KEY, code, PRESS, at_ms),
        Event(EV_SYN, SYN_REPORT, 0, at_ms),
        Event(EV_KEY, code, RELEASE, at_ms),
        Event(EV_SYN, SYN_REPORT, 0, at_ms),
    ]
