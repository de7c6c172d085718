"""The reading half of the scanner, fed with the bytes a kernel or a serial line would give."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from device.drivers.input.evdev_bytes import event_bytes, typed
from device.drivers.input.scanner_evdev import EvdevScanner
from device.drivers.input.scanner_hidraw import HidrawScanner
from device.drivers.input.scanner_keys import key_codes
from device.drivers.input.scanner_serial import SerialScanner
from device.txn.inputs import DeviceSaid, Input, Scanned, ScanSpoiled
from device.types import Found, Item
from sim.devices.scanner import ScannerModel

TEA = "4891028705949"
COLA = "6901939621608"
FOUND = Found(Item(TEA, "维他柠檬茶500ml", "Vita lemon tea 500 ml", 700))
OK = DeviceSaid("scanner", "ok")


def look_up(symbol: str) -> Found | None:
    return FOUND if symbol == TEA else None


def key_bytes(text: str, at_ms: int = 0) -> bytes:
    return b"".join(event_bytes(e) for n, (code, _, _) in enumerate(key_codes(text)) for e in typed(code, at_ms + 8 * n))


async def next_of(inputs: AsyncIterator[Input]) -> Input:
    return await asyncio.wait_for(anext(inputs), 10)


async def all_of(inputs: AsyncIterator[Input]) -> list[Input]:
    return [said async for said in inputs]


def said_for(data: bytes, *, cls: type = EvdevScanner, suffix: bool = True) -> list[Input]:
    ours, theirs = socket.socketpair()
    theirs.sendall(data)
    theirs.close()
    scanner = cls(ours.detach(), look_up, suffix=suffix)
    return asyncio.run(asyncio.wait_for(all_of(scanner.inputs()), 10))


def test_events_become_scans_with_what_the_price_list_knows() -> None:
    said = said_for(key_bytes(TEA + "\r") + key_bytes(COLA + "\r", 150))
    assert said[:-1] == [OK, Scanned(TEA, FOUND), Scanned(COLA, None)]
    assert isinstance(said[-1], DeviceSaid) and said[-1].word == "gone"


def test_why_a_symbol_is_no_goods_goes_along_with_it() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(f"{TEA}\r{COLA}\r".encode())
    theirs.close()
    scanner = SerialScanner(ours.detach(), lambda symbol: FOUND if symbol == TEA else "weigh")
    said = asyncio.run(asyncio.wait_for(all_of(scanner.inputs()), 10))
    assert said[1:-1] == [Scanned(TEA, FOUND), Scanned(COLA, None, "", "weigh")]


def test_unplugged_in_the_middle_of_a_code_tells_so_and_sells_no_half() -> None:
    said = said_for(key_bytes(TEA[:7]))
    assert [type(s) for s in said] == [DeviceSaid, ScanSpoiled, DeviceSaid]


def test_serial_bytes_in_lumps() -> None:
    said = said_for(f"\r\n{TEA}\r\n]E0{COLA}\r".encode(), cls=SerialScanner)
    assert said[1:-1] == [Scanned(TEA, FOUND), Scanned(COLA)]
    said = said_for("价é\r".encode("latin-1", "replace") + b"\xe9\r", cls=SerialScanner)
    assert isinstance(said[1], ScanSpoiled)


def test_a_burst_of_a_thousand_scans_comes_through_whole() -> None:
    codes = [f"{n:013d}" for n in range(1000)]

    async def burst() -> list[Input]:
        ours, theirs = socket.socketpair()
        scanner = EvdevScanner(ours.detach(), look_up)
        task = asyncio.create_task(all_of(scanner.inputs()))
        data = b"".join(key_bytes(code + "\r", 200 * n) for n, code in enumerate(codes))
        await asyncio.to_thread(theirs.sendall, data)
        theirs.close()
        return await asyncio.wait_for(task, 20)

    assert [s.symbol for s in asyncio.run(burst()) if isinstance(s, Scanned)] == codes


KINDS = {"evdev": EvdevScanner, "serial": SerialScanner, "hidraw": HidrawScanner}


@pytest.mark.parametrize("mode", KINDS)
def test_a_scanner_unplugged_in_a_code_and_plugged_again(mode: str, tmp_path: Path) -> None:
    async def story() -> None:
        model = ScannerModel(tmp_path / "scanner", mode=mode)
        scanner = KINDS[mode](str(model.path), look_up)
        model.scan(COLA)                                   # nobody listens yet: lost, as with a real one
        inputs = scanner.inputs()
        assert await next_of(inputs) == OK
        model.scan(TEA)
        assert await next_of(inputs) == Scanned(TEA, FOUND)
        model.scan_half(TEA)
        waiting = asyncio.create_task(next_of(inputs))
        model.unplug()
        rest = [await waiting, *await all_of(inputs)]
        assert {type(s) for s in rest} == {ScanSpoiled, DeviceSaid} or mode == "serial"    # a pty may drop what was unread
        assert rest[-1] == DeviceSaid("scanner", "gone", rest[-1].why) and f"{model.path} was unplugged" in rest[-1].why
        with pytest.raises(RuntimeError):
            model.scan(TEA)

        gone = await all_of(scanner.inputs())
        assert len(gone) == 1 and isinstance(gone[0], DeviceSaid) and gone[0].word == "gone"

        model.plug()
        inputs = scanner.inputs()
        assert await next_of(inputs) == OK
        model.scan(COLA)
        assert await next_of(inputs) == Scanned(COLA)
        await inputs.aclose()
        model.unplug()

    asyncio.run(story())


@pytest.mark.parametrize("cls", [EvdevScanner, SerialScanner])
def test_a_scanner_without_suffix_ends_a_symbol_by_silence(cls: type[EvdevScanner] | type[SerialScanner]) -> None:
    async def story() -> Input:
        ours, theirs = socket.socketpair()
        theirs.sendall(key_bytes(TEA) if cls is EvdevScanner else TEA.encode())
        inputs = cls(ours.detach(), look_up, suffix=False, gap_ms=50).inputs()
        assert await next_of(inputs) == OK
        said = await next_of(inputs)
        await inputs.aclose()
        theirs.close()
        return said

    assert asyncio.run(story()) == Scanned(TEA, FOUND)


def test_a_serial_scanner_that_says_nothing_is_not_unplugged(tmp_path: Path) -> None:
    async def story() -> list[Input]:
        model = ScannerModel(tmp_path / "scanner", mode="serial")
        inputs = SerialScanner(str(model.path), look_up).inputs()
        assert await next_of(inputs) == OK
        waiting = asyncio.create_task(next_of(inputs))
        for _ in range(3):
            await asyncio.sleep(0)                     # it reads, and nothing is there
        model.scan(TEA)
        said = await waiting
        await inputs.aclose()
        model.unplug()
        return [said]

    assert asyncio.run(story()) == [Scanned(TEA, FOUND)]


def test_two_tills_cannot_share_one_serial_scanner(tmp_path: Path) -> None:
    async def story() -> list[Input]:
        model = ScannerModel(tmp_path / "scanner", mode="serial")
        first = SerialScanner(str(model.path), look_up).inputs()
        assert await next_of(first) == OK
        second = await all_of(SerialScanner(str(model.path), look_up).inputs())
        await first.aclose()
        model.unplug()
        return second

    second = asyncio.run(story())
    assert len(second) == 1 and isinstance(second[0], DeviceSaid) and second[0].word == "gone"
    assert "another program" in second[0].why


def test_close_ends_inputs_and_leaves_no_descriptor(tmp_path: Path) -> None:
    async def story() -> list[Input]:
        model = ScannerModel(tmp_path / "scanner")
        scanner = EvdevScanner(str(model.path), look_up)
        inputs = scanner.inputs()
        assert await next_of(inputs) == OK
        rest = asyncio.create_task(all_of(inputs))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await scanner.close()
        said = await asyncio.wait_for(rest, 10)
        model.unplug()
        return said

    before = len(os.listdir("/proc/self/fd"))
    assert len(asyncio.run(story())) == 1
    assert len(os.listdir("/proc/self/fd")) == before
