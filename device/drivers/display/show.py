"""How a screen reaches a panel, whatever the panel: the newest wins, what is unchanged is not drawn, a QR is made aside.

Knows no pixel format and no device: `file` and `fb` say where pixels go.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from device.drivers import qr_bits
from device.drivers.display import draw as display_draw
from device.drivers.display.draw import Canvas
from device.drivers.display.pixels import Box
from device.errors import DriverGone
from device.txn.effects import Effect
from device.txn.inputs import DeviceSaid, Input
from device.txn.screen import Screen

if TYPE_CHECKING:
    from device.drivers.display.slides import Slides

log = logging.getLogger("tillbox")

WARM_AFTER_S = 1.0             # after the first frame
SAID_MAX = 16                  # words about itself that wait for a listener; older ones are worth nothing


class Show:
    """Base of the displays: a subclass gives `open`, `write` and `shut`.

    `frames` counts the frames that reached the panel, `skipped` those that equalled the one before.
    """

    does: frozenset[type[Effect]] = frozenset()
    at_once = 1
    slide_s = 8

    def __init__(self, part: str = "display") -> None:
        self.part = part
        self.slides: Slides | None = None
        self.frames = self.skipped = 0
        self._canvas: Canvas | None = None
        self._next: tuple[Screen, int] | None = None
        self._painting = self._closed = False
        self._fine = ""                              # the text whose QR is too fine for this glass, told once
        self._unfit = ""                             # the text that no QR was made of, told once
        self._said: asyncio.Queue[DeviceSaid] = asyncio.Queue(SAID_MAX)

    def open(self) -> Canvas:
        """A canvas of the panel's upright size, everything to be painted.  DriverGone when the panel is not there."""
        raise NotImplementedError

    def look(self) -> None:
        """DriverGone when the panel went away, or is another one now; called when there is nothing to write."""

    def write(self, canvas: Canvas, boxes: list[Box]) -> None:
        """Bring the pixels of `boxes` to the panel.  DriverGone when it went away."""
        raise NotImplementedError

    def shut(self) -> None:
        """Let go of the panel; nothing when nothing is held."""
        raise NotImplementedError

    def wipe(self) -> None:
        """Take off the panel what another life left there; nothing when it cannot be done."""
        raise NotImplementedError

    def again_s(self, screen: Screen) -> float | None:
        """When the next picture has its turn; else not before the screen is another."""
        if self.slides is None or not display_draw.may_slide(screen):
            return None
        return self.slides.every_ms / 1000

    def pictures(self, paths: tuple[str, ...]) -> None:
        """Show those at `paths` while nobody is served, from the next frame on."""
        from device.drivers.display.slides import Slides

        self.slides = Slides(paths, self.slide_s) if paths else None

    async def show(self, screen: Screen, now_ms: int) -> None:
        """Show `screen` as of monotonic `now_ms`; call it once a second while it has a deadline.

        Returns when the panel has it, or at once when another call is painting, which then paints the newest.  Raises
        DriverGone when the panel is not there; the next call looks for it again and paints everything.
        """
        self._next = (screen, now_ms)
        if self._painting:
            return
        self._painting = True
        try:
            while self._next is not None and not self._closed:
                (screen, now_ms), self._next = self._next, None
                await self._paint(screen, now_ms)
        except DriverGone as fault:
            self._drop(fault)
            raise
        finally:
            self._painting = False

    async def inputs(self) -> AsyncIterator[Input]:
        """DeviceSaid `ok` when the panel took its first frame, `gone` when it went away, which ends it."""
        while True:
            said = await self._said.get()
            if said.word == "closed":
                return
            yield said
            if said.word == "gone":
                return

    async def do(self, effect: Effect) -> Input:
        """A display carries nothing out: it is shown screens."""
        raise AssertionError(f"no display does {type(effect).__name__}")

    async def close(self) -> None:
        """Let go of the panel and end `inputs`; a later `show` does nothing."""
        self._closed = True
        self._canvas = None
        self.shut()
        self._say("closed")

    async def _paint(self, screen: Screen, now_ms: int) -> None:
        text = screen.qr or screen.receipt_qr
        level = display_draw.qr_level(self._canvas.width, self._canvas.height) if self._canvas is not None else ""
        if text and text == self._unfit:
            self._bring(_without_qr(screen), now_ms)
            return
        if text and not qr_bits.known(text, level):
            # Making a symbol takes its time on a small board.  Until then the new sentence and amount
            # stand without a QR: an old QR beside a new amount is the one thing this panel must never show.
            self._bring(_without_qr(screen), now_ms)
            if self._canvas is None:
                return                                # closed meanwhile
            try:
                await asyncio.to_thread(qr_bits.matrix, text, display_draw.qr_level(self._canvas.width, self._canvas.height))
            except qr_bits.QrRefused as fault:
                log.error("%s: %s", self.part, fault)  # the sale goes on by cash; the frame without a QR stands
                self._unfit = text
                return
            if self._next is not None:
                return
        if self.slides is not None and display_draw.may_slide(screen) and not await self._slid(self.slides, screen, now_ms):
            return
        self._bring(screen, now_ms)

    async def _slid(self, slides: Slides, screen: Screen, now_ms: int) -> bool:
        """Lay out the picture whose turn it is; False when a newer screen came meanwhile."""
        if self._canvas is None:
            self._bring(screen, now_ms)               # the till's own screen stands until the picture is made
        if self._canvas is None:
            return False
        path, slide = slides.due(now_ms), None
        if path:
            size = self._canvas.width, self._canvas.height
            slide = slides.of(path, *size) if slides.at_hand(path, *size) else await asyncio.to_thread(slides.of, path, *size)
        if self._canvas is None or self._next is not None:
            return False
        self._canvas.slide = slide
        return True

    def _bring(self, screen: Screen, now_ms: int) -> None:
        if self._closed:
            return
        if screen.qr and self._canvas is not None:
            self._looked_close(screen.qr, self._canvas)
        opened = self._canvas is None
        if self._canvas is None:
            self._canvas = self.open()
        boxes = self._canvas.draw(screen, now_ms)
        if not boxes:
            self.look()
            self.skipped += 1
            return
        self.write(self._canvas, boxes)
        self.frames += 1
        if opened:
            self._say("ok")
            asyncio.get_running_loop().call_later(WARM_AFTER_S, self._warm)

    def _looked_close(self, text: str, canvas: Canvas) -> None:
        """Say so where a QR's modules are smaller than a phone reads from the customer's side; it stands there all the same."""
        px = display_draw.qr_module_px(text, canvas.width, canvas.height)
        if px < display_draw.MODULE_PX_MIN and text != self._fine:
            self._fine = text
            self._say("error", f"a QR of {len(text)} characters is drawn with {px} pixels a module on {canvas.width} x "
                               f"{canvas.height}: few phones read it")
        elif px >= display_draw.MODULE_PX_MIN and self._fine:
            self._fine = ""
            self._say("ok")

    def _warm(self) -> None:
        """The first QR must not wait for the library's import, which costs thirty symbols; the first scan need not either."""
        if not self._closed:
            asyncio.get_running_loop().run_in_executor(None, qr_bits.warm)

    def _drop(self, fault: DriverGone) -> None:
        was_there, self._canvas = self._canvas is not None, None
        self.shut()
        if was_there or self.frames == 0:
            self._say("gone", str(fault))

    def _say(self, word: str, why: str = "") -> None:
        if self._said.full():
            self._said.get_nowait()
        self._said.put_nowait(DeviceSaid(self.part, word, why))


def gone(error: OSError, what: str, hint: str, part: str = "display") -> DriverGone:
    """DriverGone that names the errno of `error`."""
    number = error.errno or errno.EIO
    return DriverGone(f"{what}: {errno.errorcode.get(number, number)}, {os.strerror(number)}", which=part, hint=hint)


def _without_qr(screen: Screen) -> Screen:
    import msgspec

    return msgspec.structs.replace(screen, qr="", receipt_qr="")
