"""The terminal's key on disk and its rotation: the driver's own step, at start and once a day.

Knows a place for keys, sealed or not.  The new key is agreed upon, never sent, and on disk beside the old before its first
use; the gateway keeps the old one valid until then, so no cut and no lost answer leaves the two apart.  No fact of the core
comes of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from device.drivers.channels.codec_bytes import Verdict
from device.drivers.channels.gateway import GatewayCodec
from device.drivers.channels.gateway_agreement import Agreement
from device.drivers.channels.https import HttpsChannel, NoAnswer
from device.drivers.channels.terminal_bytes import Held, held_text
from device.drivers.private_file import KeyFile, unkept
from device.errors import Outside
from device.txn.inputs import Input

ROTATE_S, AGAIN_S = 86_400, 3_600
FIRST_S = 2.0                  # after the start: the first customer may stand there, and a handshake is a sixth of a start


class GatewayChannel(HttpsChannel):
    """As HttpsChannel, for one terminal; `held` is what `key_file` holds, its newest key the codec's.

    A rotation that cannot be kept on disk is said on `inputs()` as `key`, until one can; money goes on under the old key.
    """

    _codec: GatewayCodec

    def __init__(self, codec: GatewayCodec, *, terminal_id: str, key_file: KeyFile, held: Held, **line: Any) -> None:
        super().__init__(codec, **line)
        self._terminal_id, self._key_file, self._held = terminal_id, key_file, held

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
        agreement = Agreement()
        try:
            reply = await self._lines.ask(self._codec.rotate_request(self._terminal_id, agreement))
        except NoAnswer as silence:
            self.health.set(silence.health, silence.why)
            return False
        agreed = self._codec.new_key(agreement, reply)
        if isinstance(agreed, Verdict):
            self.health.set(agreed.health, agreed.detail)
            return False
        held = Held(*agreed, self._held.notes)
        try:
            await asyncio.to_thread(self._key_file.write, held_text(held))
        except (OSError, Outside) as why:
            self.health.stand("key", f"the gateway's new key cannot be written, so the old one goes on ({unkept(why)})")
            return False
        self._held = held
        self._codec.use(*agreed)
        self.health.stand()
        self.health.set("ok", "")
        return True

    async def _rotating(self) -> None:
        await asyncio.sleep(FIRST_S)
        while True:
            done = await self.rotate()
            await asyncio.sleep(ROTATE_S if done else AGAIN_S)

