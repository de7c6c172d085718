"""The terminal's key on disk and its rotation: the driver's own step, at start and once a day.

Knows a place for keys, sealed or not.  The new key is on disk beside the old before its first use; the gateway keeps the old
one valid until then, so no cut and no lost answer leaves the two apart.  No fact of the core comes of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from device.drivers.channel_gateway import GatewayCodec
from device.drivers.channel_https import HttpsChannel, NoAnswer
from device.drivers.private_file import KeyFile
from device.errors import Outside
from device.txn.inputs import Input

ROTATE_S, AGAIN_S = 86_400, 3_600
KEY = re.compile(rb"[!-~]{32,256}")


def keys_of(held: bytes) -> tuple[bytes, bytes]:
    """The keys in what a file or the configuration holds, a line each.  ValueError, one sentence, for anything else.

    Raw bytes would hold a blank or a line's end now and then, and be cut there: a key is printable.
    """
    lines = [line for line in held.split(b"\n") if line]
    if len(lines) > 2 or not all(KEY.fullmatch(line) for line in lines):
        raise ValueError("a terminal's key is 32 or more printable characters without blanks, one line each: write it as hex")
    newest, older, *_ = [*lines, b"", b""]
    return newest, older


class GatewayChannel(HttpsChannel):
    """As HttpsChannel, for one terminal whose keys stand in `key_file`, newest first, a line each."""

    def __init__(self, codec: GatewayCodec, *, terminal_id: str, key_file: KeyFile, **line: Any) -> None:
        super().__init__(codec, **line)
        self._codec, self._terminal_id, self._key_file = codec, terminal_id, key_file

    async def inputs(self) -> AsyncIterator[Input]:
        """As HttpsChannel; the rotation lives as long as this is read."""
        rotation = asyncio.create_task(self._rotating(), name="gateway key rotation")
        try:
            async for said in super().inputs():
                yield said
        finally:
            rotation.cancel()

    async def rotate(self) -> bool:
        """One rotation; False when no proven answer came or the disk refused: the old key goes on."""
        used = self._codec.secret
        try:
            key = self._codec.new_key(await self._lines.ask(self._codec.rotate_request(self._terminal_id)))
            if not key:
                return False
            await asyncio.to_thread(self._key_file.write, key + b"\n" + used + b"\n")
        except (NoAnswer, OSError, Outside):
            return False
        self._codec.use(key, used)
        return True

    async def _rotating(self) -> None:
        while True:
            done = await self.rotate()
            await asyncio.sleep(ROTATE_S if done else AGAIN_S)
