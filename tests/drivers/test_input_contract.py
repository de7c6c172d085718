"""One contract over all that only speaks: scanners of each kind and their twin, and the keypad; over real ones
where TILLBOX_EVDEV, TILLBOX_SERIAL or TILLBOX_HIDRAW names one.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from device.drivers.contract import Driver
from device.drivers.input.keypad_evdev import EvdevKeypad
from device.drivers.input.scanner_evdev import EvdevScanner
from device.drivers.input.scanner_hidraw import HidrawScanner
from device.drivers.input.scanner_serial import SerialScanner
from device.drivers.input.scanner_sim import ScannerSim
from device.txn.effects import KickDrawer
from device.txn.inputs import DeviceSaid, Input, Pressed, Scanned, ScanSpoiled
from sim.devices.keypad import KeypadModel
from sim.devices.scanner import ScannerModel

TEA, COLA = "4891028705949", "6901939621608"


class Part:
    """A driver and the model of its device."""

    def __init__(self, driver: Driver, model: Any, says: Callable[[str], None], half: Callable[[], None] | None,
                 hears: type) -> None:
        self.driver, self.model, self.says, self.half, self.hears = driver, model, says, half, hears


def scanner(kind: str, folder: Path) -> Part:
    if kind == "sim":
        twin = ScannerSim(lambda symbol: None)
        return Part(twin, twin, twin.scan, lambda: twin.scan_half(TEA), Scanned)
    model = ScannerModel(folder / "scanner", mode=kind)
    made = {"evdev": EvdevScanner, "serial": SerialScanner, "hidraw": HidrawScanner}[kind](str(model.path), lambda symbol: None)
    return Part(made, model, model.scan, lambda: model.scan_half(TEA), Scanned)


def keypad(folder: Path) -> Part:
    model = KeypadModel(folder / "keypad")
    return Part(EvdevKeypad(str(model.path)), model, lambda code: model.press("PAY"), None, Pressed)


KINDS = ("evdev", "serial", "hidraw", "sim", "keypad")


@pytest.fixture(params=KINDS)
def part(request, tmp_path: Path) -> Part:
    return keypad(tmp_path) if request.param == "keypad" else scanner(request.param, tmp_path)


async def said(inputs: AsyncIterator[Input]) -> Input:
    return await asyncio.wait_for(anext(inputs), 10)


async def rest(inputs: AsyncIterator[Input]) -> list[Input]:
    return [event async for event in inputs]


def test_it_is_ok_speaks_is_gone_and_comes_back(part: Part) -> None:
    async def story() -> None:
        for _ in range(3):
            inputs = part.driver.inputs()
            first = await said(inputs)
            assert isinstance(first, DeviceSaid) and first.word == "ok"
            for code in (TEA, COLA):
                part.says(code)
                heard = await said(inputs)
                assert isinstance(heard, part.hears)
                assert not isinstance(heard, Scanned) or heard.symbol == code
            waiting = asyncio.ensure_future(rest(inputs))
            await asyncio.sleep(0)
            part.model.unplug()
            (last,) = await asyncio.wait_for(waiting, 10)
            assert isinstance(last, DeviceSaid) and last.word == "gone" and last.part == first.part and "unplugged" in last.why
            absent = await rest(part.driver.inputs())
            assert [type(event) for event in absent] == [DeviceSaid] and absent[0].word == "gone"
            part.model.plug()
        await part.driver.close()
        part.model.unplug()

    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    asyncio.run(story())
    assert part.driver.does == frozenset()
    # threads of the pool that opens devices may stay; nothing of the device's own does
    assert len(os.listdir("/proc/self/fd")) <= before[0] and not [t for t in threading.enumerate() if t.name == "input"]


def test_half_a_code_is_told_and_never_sold(part: Part) -> None:
    if part.half is None:
        part.model.unplug()
        return

    async def story() -> list[Input]:
        inputs = part.driver.inputs()
        await said(inputs)
        waiting = asyncio.ensure_future(rest(inputs))
        await asyncio.sleep(0)
        part.half()
        await asyncio.sleep(0.02)
        part.model.unplug()
        return await asyncio.wait_for(waiting, 10)

    heard = asyncio.run(story())
    assert [type(event) for event in heard] == [ScanSpoiled, DeviceSaid] and "half a code was dropped" in heard[-1].why


def test_close_ends_it_at_once_and_twice_is_once(part: Part) -> None:
    async def story() -> list[Input]:
        inputs = part.driver.inputs()
        await said(inputs)
        waiting = asyncio.ensure_future(rest(inputs))
        await asyncio.sleep(0)
        await part.driver.close()
        await part.driver.close()
        return await asyncio.wait_for(waiting, 10)

    assert len(asyncio.run(story())) == 1
    part.model.unplug()


def test_nothing_is_carried_out_by_what_only_speaks(part: Part) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(part.driver.do(KickDrawer(1)))
    part.model.unplug()


@pytest.mark.hardware
@pytest.mark.parametrize("kind", ["evdev", "serial", "hidraw"])
def test_a_real_scanner_reads_one_code(kind: str) -> None:
    """TILLBOX_EVDEV, TILLBOX_SERIAL or TILLBOX_HIDRAW is its path: a real one, uinput's, or a machine's in QEMU.

    Scan once, within 30 s.
    """
    path = os.environ.get(f"TILLBOX_{kind.upper()}")
    if not path:
        pytest.skip(f"TILLBOX_{kind.upper()} names no device")
    driver = {"evdev": EvdevScanner, "serial": SerialScanner, "hidraw": HidrawScanner}[kind](path, lambda symbol: None)

    async def story() -> list[Input]:
        inputs = driver.inputs()
        heard = [await said(inputs), await asyncio.wait_for(anext(inputs), 30)]
        await inputs.aclose()
        return heard

    ok, scan = asyncio.run(story())
    assert isinstance(ok, DeviceSaid) and ok.word == "ok" and isinstance(scan, Scanned)
