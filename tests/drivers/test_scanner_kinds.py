"""Scanners of every make: HID-POS reports, other countries' keyboards, Alt codes, hands at the wedge, two in two USB ports."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import termios
import threading
import time
from pathlib import Path

import pytest

from device.config import parse
from device.drivers import input_line, input_ports
from device.drivers.input.evdev_bytes import EV_KEY, EV_SYN, SYN_DROPPED, Event, event_bytes, typed
from device.drivers.input.hidpos_bytes import COMMON, Form, HidReports, forms_of, is_scanner, reports_of
from device.drivers.input.layout_keys import LAYOUTS, keys_of, third_of
from device.drivers.input.scanner_evdev import EvdevScanner
from device.drivers.input.scanner_keys import (
    GS,
    LAYOUT,
    TYPED,
    ByteDecoder,
    KeyEvents,
    Read,
    key_codes,
    misread,
    sought,
)
from device.drivers.input.scanner_reads import BAD_MIN, LATEST, Reads
from device.drivers.registry import drivers_of
from device.errors import ConfigError, DriverBusy, DriverGone
from device.goods import gtin_key
from device.push.checks import _forbidden
from device.txn.inputs import DeviceSaid, Input, Scanned, ScanSpoiled
from tests.drivers.test_scanner_keys import events_of, reads_of
from tests.fake_sys import PAD, POS_DESCRIPTOR, FakeSys

TEA = "4891028705949"
COLA = "6901939621608"


# HID-POS.

def test_a_report_descriptor_says_where_things_lie() -> None:
    assert is_scanner(POS_DESCRIPTOR) and not is_scanner(bytes.fromhex("05010906a101c0"))
    assert forms_of(POS_DESCRIPTOR) == {2: Form(2, 62, 4, 56, length=0, aim=1, more=61)}
    for cut in range(len(POS_DESCRIPTOR)):
        assert isinstance(forms_of(POS_DESCRIPTOR[:cut]), dict)      # cut anywhere: nothing raised
    assert forms_of(b"") == COMMON and forms_of(bytes.fromhex("058c75ff96ffff09fe8102")) == COMMON


@pytest.mark.parametrize("form", [*COMMON.values(), *forms_of(POS_DESCRIPTOR).values(), Form(0, 8, 0, 8)])
def test_a_symbol_comes_out_of_its_reports_however_they_are_torn(form: Form) -> None:
    long = TEA * 8
    data = b"".join(reports_of((long if form.more >= 0 else TEA[:form.data_len]).encode(), "]C0", form))
    wanted = Read(long if form.more >= 0 else TEA[:form.data_len], aim="]C0" if form.aim >= 0 else "")
    assert HidReports({form.report_id: form}).feed(data) == [wanted]
    reports = HidReports({form.report_id: form})
    assert [read for n in range(len(data)) for read in reports.feed(data[n:n + 1])] == [wanted]


def test_reports_that_lie_break_off_or_belong_to_others_make_no_symbol() -> None:
    first, second = reports_of(b"7" * 70)
    reports = HidReports()
    assert reports.feed(first) == [] and reports.quiet_ms and reports.quiet() and not reports.quiet_ms
    lying = bytearray(reports_of(TEA.encode())[0])
    lying[1] = 200
    assert [bool(read.why) for read in reports.feed(bytes(lying))] == [True]
    assert reports.feed(bytes([9, *range(20)])) == [] and reports.feed(reports_of(TEA.encode(), "]E0")[0]) == [Read(TEA, aim="]E0")]
    more = bytearray(first)
    assert all(reports.feed(bytes(more)) == [] for _ in range(2000)) and len(reports._text) <= 800      # never ends: bounded
    assert [bool(read.why) for read in reports.feed(second)] == [True]


def test_rubbish_on_a_hidraw_node_never_raises() -> None:
    dice = random.Random(3)
    reports = HidReports()
    for _ in range(2000):
        for read in reports.feed(dice.randbytes(dice.randrange(130))):
            assert read.why or read.symbol
    for _ in range(300):
        forms_of(dice.randbytes(dice.randrange(80)))


# Keyboards of other countries, Alt codes, substitutes.

def typed_under(layout: str, text: str) -> list[Event]:
    """The keys that a scanner set to `layout` types for `text`."""
    row = [(code, pair) for code, pair in keys_of(layout).items() if code < 55 or code == 86]   # no pad
    plain = {pair[0]: (code, []) for code, pair in reversed(row)}
    shifted = {pair[1]: (code, [42]) for code, pair in reversed(row) if pair[0] != pair[1]}
    ways = {char: (code, [100]) for code, char in third_of(layout).items()} | shifted | plain
    events: list[Event] = []
    for n, char in enumerate(text):
        code, held = ways[char]
        events += [Event(EV_KEY, key, 1, 8 * n) for key in held] + typed(code, 8 * n)
        events += [Event(EV_KEY, key, 0, 8 * n) for key in held]
    return events


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_what_a_scanner_of_that_country_types(layout: str) -> None:
    text = "0123456789AZQWMYaqwmyz-./"
    assert reads_of(typed_under(layout, text + "\n"), KeyEvents(layout=layout)) == [Read(text)]
    assert reads_of(typed_under(layout, "]E0" + TEA + "\n"), KeyEvents(layout=layout)) == [Read(TEA, aim="]E0")]


@pytest.mark.parametrize("typed_as,read_as", [("fr", "us"), ("be", "us"), ("fr", "de"), ("us", "fr"), ("us", "be")])
def test_digits_under_the_wrong_table_are_named_as_such(typed_as: str, read_as: str) -> None:
    assert reads_of(typed_under(typed_as, "123456705949\n"), KeyEvents(layout=read_as)) == [Read(why=LAYOUT)]


def alt(digits: str, at_ms: int) -> list[Event]:
    pad = {"0": 82, "1": 79, "2": 80, "3": 81, "4": 75, "5": 76, "6": 77, "7": 71, "8": 72, "9": 73}
    keys = [e for n, d in enumerate(digits) for e in typed(pad[d], at_ms + 4 * n)]
    return [Event(EV_KEY, 56, 1, at_ms), *keys, Event(EV_KEY, 56, 0, at_ms + 4 * len(digits))]


def test_chinese_by_alt_codes_in_every_way_that_scanners_have() -> None:
    by_bytes = [e for n, byte in enumerate("茶A".encode("gbk")[:2]) for e in alt(f"0{byte}", 30 * n)]
    by_utf8 = [e for n, byte in enumerate("茶".encode()) for e in alt(f"0{byte}", 30 * n)]
    by_number = alt(str(int.from_bytes("茶".encode("gbk"), "big")), 0)
    for events in (by_bytes, by_utf8, by_number):
        assert reads_of([*events, *events_of("A\r", 95)]) == [Read("茶A")]
    assert reads_of([*alt("0233", 0), *events_of("12\r", 60)])[0].why               # é is no Chinese: the wrong layout


def test_chinese_from_a_serial_line_is_gbk_or_utf8_and_noise_is_neither() -> None:
    for encoding in ("gbk", "utf-8", "gb18030"):
        assert ByteDecoder().feed("会员：王小明，12\r".encode(encoding), 0) == [Read("会员：王小明，12")]
    for byte in range(128, 256):
        for at in (0, 6, 13):
            data = TEA[:at].encode() + bytes([byte]) + TEA[at:].encode() + b"\r"
            reads = ByteDecoder().feed(data, 0)
            assert len(reads) == 1 and gtin_key(reads[0].symbol) is None, byte       # whatever it is, no goods come of it
    assert gtin_key("６９０１９３９６２１６０８") is None and not misread(Read("６９０１９３９６２１６０９"))


def test_gs_comes_in_every_form_and_only_where_the_shop_says_so() -> None:
    label = "01069019396216081726123110A"
    for sign in ("|", "~", "{GS}", "^]"):
        events = events_of(f"{label}{sign}21B\r", every_ms=4)
        assert reads_of(events, KeyEvents(gs=sign)) == [Read(f"{label}{GS}21B")]
        assert reads_of(events) == [Read(f"{label}{sign}21B")]


def test_caps_lock_means_what_the_scanner_means_by_it() -> None:
    toggled = [*typed(58, 0), *events_of("abc", 2, 2), *typed(58, 9), *events_of("de\r", 12, 2)]
    assert reads_of(toggled) == [Read("abcde")]
    assert reads_of(toggled, KeyEvents(caps="toggles")) == [Read("ABCde")]
    assert reads_of(events_of("aBc1\r"), KeyEvents(caps="inverted")) == [Read("AbC1")]


# What the scanner says of the kind.

@pytest.mark.parametrize("read,text", [
    (Read("0104891028705949", aim="]C1"), f"{GS}0104891028705949"), (Read(f"{GS}01", aim="]d2"), f"{GS}01"),
    (Read("https://id.gs1.org/01/04891028705949", aim="]Q3"), "https://id.gs1.org/01/04891028705949"),
    (Read(TEA + "12345", aim="]E3"), TEA), (Read(TEA + "12", aim="]E3"), TEA), (Read(TEA, aim="]E0"), TEA),
    (Read("04252614", aim="]E0"), "042100005264"), (Read("01234531", aim="]E0"), "012300000451"),
    (Read("01234541", aim="]E0"), "012340000051"), (Read("01234565", aim="]E0"), "012345000065"),
    (Read("04252614", aim="]E4"), "04252614")])
def test_what_is_looked_up_follows_the_kind_of_symbol(read: Read, text: str) -> None:
    assert sought(read) == text


def test_a_wrong_check_digit_is_a_bad_read_and_three_of_them_a_bad_scanner() -> None:
    assert misread(Read(TEA[:-1] + "0")) and not misread(Read(TEA)) and not misread(Read("12345678"))
    assert misread(Read("12345678", aim="]E4")) and not misread(Read("04252614", aim="]E0"))
    reads = Reads(lambda symbol: None, lane="left")
    assert reads.ok() == DeviceSaid("scanner:left", "ok")
    said = [s for n in range(BAD_MIN) for s in reads.inputs_of(Read(TEA[:-1] + "0"), 1000 * n)]
    assert said[-1] == DeviceSaid("scanner:left", "misreads", said[-1].why) and "the scanner left" in said[-1].why
    assert [type(s) for s in said[:-1]] == [Scanned] * BAD_MIN and reads.counts["misread"] == BAD_MIN
    well = [s for n in range(LATEST) for s in reads.inputs_of(Read(TEA), 10_000 + n) if isinstance(s, DeviceSaid)]
    assert well == [DeviceSaid("scanner:left", "ok")]


def test_two_alike_are_two_unless_the_scanner_stands_and_looks() -> None:
    hand, stand = Reads(lambda symbol: None), Reads(lambda symbol: None, repeat_ms=400)
    at = (0, 200, 300, 701, 1200)
    assert [len(hand.inputs_of(Read(TEA), ms)) for ms in at] == [1, 1, 1, 1, 1]
    assert [len(stand.inputs_of(Read(TEA), ms)) for ms in at] == [1, 0, 0, 1, 1]
    assert len(stand.inputs_of(Read(COLA), 1210)) == 1


# A person at the wedge.

def test_what_a_person_types_is_no_scan_and_what_a_slow_scanner_types_is_one() -> None:
    dice = random.Random(8)
    for mean in (65, 90, 140, 220):
        for _ in range(60):
            at_ms, events = 0, []
            for code, _, _ in key_codes(TEA + "\r"):
                at_ms += max(25, round(dice.gauss(mean, 22)))
                events += typed(code, at_ms)
            reads = reads_of(events)
            assert all(not read.symbol for read in reads), mean
            assert mean == 220 or any(read.why == TYPED for read in reads)
    for pace in (1, 2, 8, 16, 30, 45):
        assert reads_of(events_of(TEA + "\r", every_ms=pace)) == [Read(TEA)]
    assert reads_of(events_of(TEA + "\r", every_ms=16), KeyEvents(gap_ms=20)) == [Read(TEA)]
    for pace in (60, 120):                                                # a scanner that was slowed down on purpose
        assert reads_of(events_of(TEA + "\r", every_ms=pace), KeyEvents(gap_ms=200)) == [Read(TEA)]
    slow_alt = [e._replace(at_ms=4 * e.at_ms) for e in [*alt("029", 0), *alt("029", 15)]]
    assert reads_of([*slow_alt, *events_of(TEA + "\r", 125, 16)]) == [Read(GS * 2 + TEA)]


def test_without_a_suffix_single_keys_are_a_person_s() -> None:
    keys = KeyEvents(suffix=False)
    reads = reads_of([e for n, key in enumerate("1234") for e in events_of(key, 400 * n)], keys)
    assert reads == [Read(why=TYPED)] * 3 and keys.quiet() == Read(why=TYPED)


# The kernel keeps 64 events, and the loop may be late.

class Kernel:
    """A pipe that holds as many events as the kernel does for one reader; what does not fit is lost, and it says so."""

    KEPT = 64

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self.lost = 0

    def report(self, *events: Event) -> None:
        waiting = int.from_bytes(fcntl.ioctl(self._writer, termios.FIONREAD, b"\0" * 4), "little") // 24
        if waiting + len(events) + 1 > self.KEPT:
            self.lost += len(events)
            if waiting < self.KEPT:
                os.write(self._writer, event_bytes((EV_SYN, SYN_DROPPED, 0, events[0].at_ms)))
            return
        os.write(self._writer, b"".join(map(event_bytes, events)))

    def close(self) -> None:
        os.close(self._writer)


def test_a_scan_at_full_usb_speed_outlives_a_loop_that_is_busy_with_a_slow_card() -> None:
    kernel = Kernel()

    def scan(codes: list[str]) -> None:
        for code in codes:
            for key, _, _ in key_codes(code + "\r"):
                for value in (1, 0):                                     # a report each millisecond
                    at_ms = time.monotonic_ns() // 1_000_000
                    kernel.report(Event(4, 4, 458_000 + key, at_ms), Event(EV_KEY, key, value, at_ms), Event(EV_SYN, 0, 0, at_ms))
                    time.sleep(0.001)
        kernel.close()

    async def story() -> list[Input]:
        inputs = EvdevScanner(kernel.reader, lambda symbol: None).inputs()
        said = [await anext(inputs)]
        waiting = asyncio.ensure_future(anext(inputs))
        await asyncio.sleep(0.01)
        beam = threading.Thread(target=scan, args=([TEA, COLA],))
        beam.start()
        time.sleep(0.12)  # noqa: ASYNC251  a commit: the loop stands, the scanner does not
        said += [await asyncio.wait_for(waiting, 5)]
        said += [s async for s in inputs]
        beam.join()
        return said

    said = asyncio.run(story())
    assert [s.symbol for s in said if isinstance(s, Scanned)] == [TEA, COLA] and not kernel.lost


def test_the_thread_ends_with_the_reader_and_with_the_device() -> None:
    async def story() -> None:
        for ending in ("close", "unplug", "aclose"):
            ours, theirs = socket.socketpair()
            scanner = EvdevScanner(ours.detach(), lambda symbol: None)
            inputs = scanner.inputs()
            await anext(inputs)
            waiting = asyncio.ensure_future(anext(inputs))
            await asyncio.sleep(0)
            if ending == "unplug":
                theirs.close()
            else:
                await scanner.close()
            assert isinstance(await asyncio.wait_for(waiting, 5), DeviceSaid)
            await inputs.aclose()
            theirs.close()

    fds, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    asyncio.run(story())
    assert len(os.listdir("/proc/self/fd")) == fds and threading.active_count() == threads


# Two equal scanners.

def test_two_equal_scanners_are_told_apart_by_their_ports(tmp_path: Path) -> None:
    sys = FakeSys(tmp_path)
    left, right = sys.keyboard(3, "1-1.2"), sys.keyboard(4, "1-1.3")
    sys.keyboard(5, "1-1.3", name="HID Keyboard Consumer Control", keys=frozenset((113, 114, 115)), interface=1)
    sys.keyboard(6, "1-1.4", name="Pad", keys=PAD)
    sys.hid(0, "2-1")
    at = {"which": "scanner", "sys": str(tmp_path), "dev": str(sys.dev)}
    assert [input_ports.at_port(port, **at) for port in ("1-1.2", "1-1.3")] == [str(left), str(right)]
    assert input_ports.at_port("2-1", kind="hidraw", **at) == str(sys.dev / "hidraw0")
    sys.serial("ttyACM1", "1-1.5")
    assert input_ports.at_port("1-1.5", kind="serial", **at) == str(sys.dev / "ttyACM1")
    with pytest.raises(DriverGone, match="Pad .* is no scanner"):
        input_ports.at_port("1-1.4", **at)
    with pytest.raises(DriverGone, match="nothing of kind event is in USB port 1-1.9"):
        input_ports.at_port("1-1.9", **at)
    names = [str(node) for node in input_ports.keyboards(str(tmp_path), str(sys.dev))]
    assert names[0] == "HID Keyboard (0c2e:0b61, USB port 1-1.2)" and len(names) == 4
    assert input_ports.keyboards(str(tmp_path / "none"), "/dev") == []


def test_a_node_is_grabbed_once_no_key_is_down_and_a_busy_one_is_somebody_elses(monkeypatch) -> None:
    down, asked = [b"\0\x10" + bytes(94), bytes(96)], []

    def ioctl(fd: int, request: int, arg: object) -> bytes:
        asked.append(request)
        if request == input_line.EVIOCGKEY:
            return down.pop(0)
        if request == input_line.EVIOCGRAB and len(asked) > 4:
            raise OSError(16, "Device or resource busy")
        return b""

    monkeypatch.setattr(input_line.fcntl, "ioctl", ioctl)
    monkeypatch.setattr(input_line.time, "sleep", lambda seconds: None)
    input_line._grab(0, "/dev/input/event3", "scanner", frozenset())
    assert asked == [input_line.EVIOCSCLOCKID, input_line.EVIOCGKEY, input_line.EVIOCGKEY, input_line.EVIOCGRAB]
    down.append(bytes(96))
    with pytest.raises(DriverBusy, match="another program holds /dev/input/event3"):
        input_line._grab(0, "/dev/input/event3", "scanner", frozenset())
    assert input_line.EVIOCGKEY == 0x80604518                            # as linux/input.h makes it of 96 bytes


def test_swapped_nodes_stay_with_their_ports_and_each_scan_has_its_lane(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(input_ports, "SYS", str(tmp_path))
    sys = FakeSys(tmp_path)

    def scanners() -> list[EvdevScanner]:
        return [EvdevScanner("", lambda symbol: None, port=port, lane=lane)
                for port, lane in (("1-1.2", "left"), ("1-1.3", "right"))]

    async def heard(nodes: dict[str, Path]) -> list[Input]:
        said: list[Input] = []
        for scanner in scanners():
            port = scanner._port
            monkeypatch.setattr("device.drivers.input.scanner_evdev.at_port", lambda port, which, nodes=nodes: str(nodes[port]))
            inputs = scanner.inputs()
            said.append(await anext(inputs))
            with open(nodes[port], "wb", buffering=0) as node:
                node.write(b"".join(map(event_bytes, events_of(TEA + "\r"))))
                said.append(await asyncio.wait_for(anext(inputs), 5))
                node.write(b"".join(map(event_bytes, events_of(TEA[:5]))))
            said += [s async for s in inputs]
        return said

    first, second = sys.keyboard(3, "1-1.2"), sys.keyboard(4, "1-1.3")
    for nodes in ({"1-1.2": first, "1-1.3": second}, {"1-1.2": second, "1-1.3": first}):
        said = asyncio.run(heard(nodes))
        assert [s.lane for s in said if isinstance(s, (Scanned, ScanSpoiled))] == ["left", "left", "right", "right"]
        gone = [s for s in said if isinstance(s, DeviceSaid) and s.word == "gone"]
        assert [s.part for s in gone] == ["scanner:left", "scanner:right"]
        assert "right at USB port 1-1.3 was unplugged in the middle of a scan: half a code was dropped" in gone[1].why


def test_several_scanners_in_the_configuration_are_several_drivers() -> None:
    told = {"box": "b", "box_no": "000001", "tenant": "t", "scanner": [
        {"port": "1-1.2"}, {"port": "1-1.3", "lane": "右", "layout": "fr"},
        {"kind": "hidraw", "path": "/dev/hidraw0", "lane": "face"}]}
    assert [part for part in drivers_of(parse(told), lambda symbol: None) if part.startswith("scanner")] == [
        "scanner", "scanner:右", "scanner:face"]
    for scanner, why in (([{}, {"lane": "x"}], "two scanners have the device"), ([{"port": "1-1"}, {"port": "1-2"}], "the lane ''"),
                         ([], "at most 4"), ({"port": "usb1"}, "does not have the form"),
                         ({"kind": "serial", "layout": "fr"}, "types no keys"), ({"lane": "a b"}, "scanner.lane holds")):
        with pytest.raises(ConfigError, match=why):
            parse({**told, "scanner": scanner})
    reasons = _forbidden({"scanner": [{"port": "1-1.2"}, {"path": "/etc/passwd", "lane": "x"}, {"path": "/dev/../etc/x"}]})
    assert len(reasons) == 2 and all("names no device" in reason for reason in reasons) and _forbidden({"scanner": 5}) == []
