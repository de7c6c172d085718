"""One contract over every display: frame buffers of both formats, a file, each pole, an OLED and the twin; over real ones where
TILLBOX_FB or TILLBOX_POLE ("dialect:/dev/ttyUSB0") names one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from luma.core.interface.serial import noop
from luma.oled.device import ssd1306

from device.drivers.display.fb import FbDisplay, Geometry
from device.drivers.display.file import FileDisplay
from device.drivers.display.oled import OledDisplay
from device.drivers.display.pole import PoleDisplay
from device.drivers.display.pole_bytes import DIALECTS
from device.drivers.display.sim import DisplaySim
from device.errors import DriverGone
from device.txn.screen import Line, Screen
from sim.devices.pole import MODELS, PolePort

IDLE = Screen("IDLE", "Corner Shop", notice="Welcome", lang="en")
PAY = Screen("AWAITING", "Scan to pay", big="¥7.50", total_fen=750, qr="weixin://wxpay/bizpayurl?pr=AbCdEfG00", lang="en",
             words=("苹果 27", "APPLE 27"), deadline=("b", 60_000))
PAID = Screen("PAID", "Paid", big="¥7.50", total_fen=750, tone="good", lang="en")
BASKET = Screen("BASKET", "Shop", lines=(Line("Cola", "1", 750),), lines_total=1, total_fen=750, big="¥7.50", lang="en")
SHOWN = (IDLE, BASKET, PAY, PAID, IDLE)


class Glass:
    """A display, how to take it away and put it back, and what to end."""

    def __init__(self, display: Any, out: Callable[[], None], back: Callable[[], None],
                 end: Callable[[], None] = lambda: None) -> None:
        self.display, self.out, self.back, self.end = display, out, back, end


def panel(folder: Path, form: str) -> Glass:
    path, there = str(folder / "fb0"), Geometry(320, 240, form, 320 * (4 if form == "XRGB8888" else 2))

    def back() -> None:
        with open(path, "wb") as file:
            file.truncate(there.line_length * there.height)
    back()
    return Glass(FbDisplay(path, geometry=there), lambda: os.unlink(path), back)


def file(folder: Path) -> Glass:
    inside = folder / "dev"
    inside.mkdir()
    return Glass(FileDisplay(str(inside / "frame"), 320, 240), lambda: inside.rename(folder / "away"),
                 lambda: (folder / "away").rename(inside))


def pole(folder: Path, dialect: str) -> Glass:
    port = PolePort(MODELS[dialect](), str(folder / "pole"))
    return Glass(PoleDisplay(port.path, dialect=dialect, baud=115_200), port.unplug, port.plug, port.unplug)


def oled() -> Glass:
    there = [True]

    class Bus(noop):
        def data(self, data: object) -> None:
            if not there[0]:
                raise OSError(121, "Remote I/O error")

    def made() -> ssd1306:
        if not there[0]:
            raise OSError(121, "Remote I/O error")
        return ssd1306(Bus(), width=128, height=64)
    return Glass(OledDisplay("/dev/i2c-1", made=made), lambda: there.__setitem__(0, False), lambda: there.__setitem__(0, True))


def twin() -> Glass:
    display = DisplaySim()
    return Glass(display, lambda: setattr(display, "gone", True), lambda: setattr(display, "gone", False))


REAL = [kind for kind, name in (("real fb", "TILLBOX_FB"), ("real pole", "TILLBOX_POLE")) if os.environ.get(name)]
KINDS = ["XRGB8888", "RGB565", "file", "oled", "twin", *DIALECTS, *REAL]


@pytest.fixture(params=KINDS)
def glass(request: pytest.FixtureRequest, tmp_path: Path):
    kind = request.param
    if kind == "real fb":
        made = Glass(FbDisplay(os.environ["TILLBOX_FB"]), lambda: None, lambda: None)
    elif kind == "real pole":
        dialect, _, path = os.environ["TILLBOX_POLE"].partition(":")
        made = Glass(PoleDisplay(path, dialect=dialect), lambda: None, lambda: None)
    else:
        made = {"file": lambda: file(tmp_path), "oled": oled, "twin": twin}.get(
            kind, lambda: panel(tmp_path, kind) if kind[-1].isdigit() and kind.isupper() else pole(tmp_path, kind))()
    yield made
    made.end()


def test_it_shows_every_screen_and_is_wiped_and_closed(glass: Glass) -> None:
    async def story() -> None:
        glass.display.wipe()
        for now_ms, screen in enumerate(SHOWN):
            await glass.display.show(screen, now_ms * 1_000)
            again_s = glass.display.again_s(screen)
            assert again_s is None or 0 < again_s <= 600
        glass.display.pictures(())
        await glass.display.close()
        await glass.display.show(PAY, 9_000)                     # after its end: nothing, and no error
        await glass.display.close()

    asyncio.run(story())


def test_a_burst_of_screens_ends_in_the_newest(glass: Glass) -> None:
    async def story() -> None:
        await asyncio.gather(*(glass.display.show(screen, 0) for screen in SHOWN * 20))
        before = getattr(glass.display, "frames", 0)
        await glass.display.show(IDLE, 0)
        assert getattr(glass.display, "frames", 0) == before      # it stands there already
        await glass.display.close()

    asyncio.run(story())


@pytest.mark.skipif(bool(REAL), reason="nobody pulls the plug of a real one here")
def test_one_that_is_pulled_is_named_and_shows_the_truth_once_it_is_back(glass: Glass) -> None:
    async def story() -> None:
        await glass.display.show(PAY, 0)
        glass.out()
        glass.display.wipe()
        for screen in (PAID, BASKET):
            with pytest.raises(DriverGone) as fault:
                await glass.display.show(screen, 0)
            assert fault.value.which == "display" and str(fault.value)
        glass.back()
        await glass.display.show(PAID, 0)
        await glass.display.close()

    asyncio.run(story())
