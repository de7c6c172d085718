"""Whatever a scanner sends, no goods are sold that nobody scanned, nothing grows, nothing stops, and the device is named."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from device.drivers.input.evdev_bytes import EV_KEY, Event, EventBytes, event_bytes
from device.drivers.input.hidpos_bytes import HidReports, reports_of
from device.drivers.input.scanner_evdev import EvdevScanner
from device.drivers.input.scanner_hidraw import HidrawScanner
from device.drivers.input.scanner_keys import SYMBOL_LEN_MAX, ByteDecoder, KeyEvents, Read, key_codes, sought
from device.drivers.input.scanner_serial import SerialScanner
from device.goods import PriceList
from device.txn.inputs import DeviceSaid, Scanned, ScanSpoiled
from device.types import Item
from tests.counter import Counter
from tests.drivers.test_scanner_keys import events_of
from tests.drivers.test_scanner_kinds import alt

TEA, COLA = "4891028705949", "6901939621608"
PRICES = PriceList([Item(TEA, "茶", "Tea", 700), Item(COLA, "可乐", "Cola", 250)])


class Evdev:
    """Keys: what a keyboard has, by its keys; the high half by Alt codes."""

    def __init__(self) -> None:
        self.keys, self.at_ms = KeyEvents(), 0

    def feed(self, data: bytes) -> list[Read]:
        reads = []
        for byte in data:
            self.at_ms += 60
            try:
                key_codes(chr(byte))
                events = events_of(chr(byte), self.at_ms)
            except ValueError:
                events = alt(f"0{byte}", self.at_ms) if byte else [Event(EV_KEY, 240, 1, self.at_ms)]
            reads += [read for event in events if (read := self.keys.feed(event))]
            self.at_ms -= 50
        return reads

    def scan(self, data: bytes) -> list[Read]:
        self.at_ms += 5_000
        return self.feed(data + b"\r")


class Serial:
    def __init__(self) -> None:
        self.decoder, self.at_ms = ByteDecoder(), 0

    def scan(self, data: bytes) -> list[Read]:
        self.at_ms += 5_000
        return self.decoder.feed(data + b"\r", self.at_ms)


class Hidraw:
    def __init__(self) -> None:
        self.reports = HidReports()

    def scan(self, data: bytes) -> list[Read]:
        return [read for report in reports_of(data, "]E0") for read in self.reports.feed(report)]


KINDS = {"evdev": Evdev, "serial": Serial, "hidraw": Hidraw}


@pytest.mark.parametrize("kind", KINDS)
def test_no_character_at_any_place_of_a_code_sells_anything_or_spoils_the_next_scan(kind: str) -> None:
    scanner, counter = KINDS[kind](), Counter()
    for byte in range(256):
        char = bytes([byte])
        for at in range(len(TEA) + 1):
            whole = TEA[:at].encode() + char + TEA[at:].encode()
            for read in scanner.scan(whole):
                found = PRICES.look_up(sought(read)) if read.symbol else None
                # An ending in front or behind is no part of the code; a 0 in front makes the same GTIN longer.
                fine = found is None or (char in (b"\r", b"\n", b"\t") and at in (0, len(TEA))) or (char, at) == (b"0", 0)
                assert fine, (char, at, read)
                if found is None:
                    verdict = counter.tell(Scanned(read.symbol, None) if read.symbol else ScanSpoiled(read.why))
                    assert verdict.refused and not verdict.facts and verdict.words[1].isprintable()
            assert [read.symbol for read in scanner.scan(COLA.encode())] == [COLA], (char, at)
    assert not counter.box.books.basket.lines


@pytest.mark.parametrize("kind", KINDS)
def test_codes_glued_together_or_cut_at_any_place_are_no_goods(kind: str) -> None:
    scanner = KINDS[kind]()
    torn = [TEA[:at] for at in range(1, len(TEA))] + [TEA[at:] for at in range(1, len(TEA))]
    for text in (TEA + COLA, TEA * 3, TEA + COLA[:5], *torn, TEA[:5] + COLA, "7" * 4096, TEA * 2000):
        reads = scanner.scan(text.encode())
        assert all(PRICES.look_up(sought(read)) is None for read in reads if read.symbol), text[:40]
        assert all(len(read.symbol) <= SYMBOL_LEN_MAX for read in reads)
    assert [read.symbol for read in scanner.scan(COLA.encode())] == [COLA]


def test_a_line_that_never_ends_a_code_stays_small() -> None:
    dice = random.Random(1)
    keys, text, reports, torn = KeyEvents(), ByteDecoder(), HidReports(), EventBytes()
    for n in range(300):
        noise = bytes(dice.choice(b"0123456789ABC\x80\xff") for _ in range(1000))
        text.feed(noise, n)
        reports.feed(bytes([2]) + noise[:62] + b"\x01")
        for event in torn.feed(noise):
            keys.feed(event)
        for code in range(2, 12):
            keys.feed((EV_KEY, code, 1, n))
            keys.feed((EV_KEY, 56, 1, n))
            keys.feed((EV_KEY, 79, 1, n))
    assert max(len(text.symbols._keys), len(keys.symbols._keys)) <= SYMBOL_LEN_MAX + 4
    assert len(reports._text) <= 4 * SYMBOL_LEN_MAX and len(reports._torn) < 64 and len(keys._alt) < 8 and len(torn._torn) < 24
    assert len(keys._held) <= 8


async def heard(driver, data: list[bytes]) -> list:
    ours, theirs = socket.socketpair()
    scanner = driver(ours.detach(), PRICES.look_up)
    task = asyncio.ensure_future(_all(scanner.inputs()))
    for part in data:
        await asyncio.to_thread(theirs.sendall, part)
    theirs.close()
    return await asyncio.wait_for(task, 20)


async def _all(inputs) -> list:
    return [said async for said in inputs]


@pytest.mark.parametrize("driver,say", [
    (EvdevScanner, lambda n, code: b"".join(map(event_bytes, events_of(code + "\r", n, 0)))),
    (SerialScanner, lambda n, code: f"{code}\r".encode()), (HidrawScanner, lambda n, code: reports_of(code.encode())[0])])
def test_a_thousand_scans_in_one_second_are_a_thousand(driver, say) -> None:
    codes = [TEA, COLA] * 500
    said = asyncio.run(heard(driver, [say(n, code) for n, code in enumerate(codes)]))
    assert [one.symbol for one in said if isinstance(one, Scanned)] == codes


def test_a_cable_pulled_at_any_byte_of_a_code_sells_nothing_and_the_half_is_told() -> None:
    data = b"".join(map(event_bytes, events_of(TEA)))

    async def story() -> None:
        for cut in range(0, len(data), 5):
            said = await heard(EvdevScanner, [data[:cut]])
            assert not any(isinstance(one, Scanned) for one in said)
            begun = cut >= 24                                # a whole event: the first key is down
            assert any(isinstance(one, ScanSpoiled) for one in said) is begun, cut
            assert isinstance(said[-1], DeviceSaid) and ("half a code was dropped" in said[-1].why) is begun

    asyncio.run(story())


def test_what_is_said_of_a_scanner_names_it(tmp_path) -> None:
    missing = str(tmp_path / "by-path-usb-0:1.2")
    for driver in (EvdevScanner, SerialScanner, HidrawScanner):
        (said,) = asyncio.run(_all(driver(missing, PRICES.look_up, lane="left").inputs()))
        assert said.part == "scanner:left" and said.word == "gone" and "the scanner left" in said.why and missing in said.why
    (said,) = asyncio.run(_all(EvdevScanner("", PRICES.look_up, port="9-9").inputs()))
    assert "USB port 9-9" in said.why and "scan list" in said.why
    zh, en = Counter().tell(ScanSpoiled("the scan is empty", "左")).words
    assert zh.startswith("左：") and en.startswith("左: ")
