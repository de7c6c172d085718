"""A USB numeric keypad: reads an event node and yields the keys of the till.  Only reads, feeds and yields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from device.drivers.input.evdev_bytes import EventBytes
from device.drivers.input.keypad_keys import KeypadEvents, layout_codes
from device.drivers.input_line import PAD_KEYS, EagerLine, InputLine, open_events
from device.drivers.input_ports import at_port
from device.errors import Outside
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input, Pressed


class EvdevKeypad:
    """Keypad at `source`: a path (event node, FIFO, pty), opened anew by each `inputs`, or an open descriptor, which is
    used once; with `port` whatever is plugged into that USB port.  `layout` maps evdev names to names of `KEYS`, laid over the
    default; ConfigError when it names none.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1

    def __init__(self, source: str | int, *, layout: dict[str, str] | None = None, port: str = "") -> None:
        self._source, self._codes, self._port = source, layout_codes(layout), port
        self._where = f" at USB port {port}" if port else f" at {source}" if isinstance(source, str) else ""
        self._line: InputLine | EagerLine | None = None

    async def inputs(self) -> AsyncGenerator[Input, None]:
        """Pressed, between DeviceSaid ok and gone.  Ends when it is unplugged, or was never there."""
        try:
            line = self._line = await self._open()
        except Outside as fault:
            yield DeviceSaid("keypad", "gone" if fault.again else "error", str(fault))
            return
        try:
            yield DeviceSaid("keypad", "ok")
            keys, torn = KeypadEvents(self._codes), EventBytes()
            while data := await line.read():
                for event in torn.feed(data):
                    if key := keys.feed(event):
                        yield Pressed(key)
            yield DeviceSaid("keypad", "gone", f"the keypad{self._where} was unplugged")
        except Outside as fault:
            yield DeviceSaid("keypad", "gone", str(fault))
        finally:
            line.close()

    async def do(self, effect: Effect) -> Input:
        """A keypad carries nothing out."""
        raise AssertionError(f"no keypad does {type(effect).__name__}")

    async def close(self) -> None:
        """End `inputs` and let go of the node."""
        if self._line is not None:
            self._line.close()

    async def _open(self) -> InputLine | EagerLine:
        if isinstance(self._source, int):
            return InputLine(self._source)
        line = await asyncio.to_thread(self._opened, self._source)
        line.drain()
        return line

    def _opened(self, path: str) -> InputLine | EagerLine:
        path = at_port(self._port, which="keypad", needed=PAD_KEYS) if self._port else path
        return open_events(path, which="keypad", needed=PAD_KEYS)
