"""Keyboards that nobody set up: taken, told once, silent; and how one of them becomes a scanner of the box."""

from __future__ import annotations

import asyncio
import os
import tomllib
from pathlib import Path

import pytest

from device import scan_tool
from device.config import parse
from device.drivers.input.evdev_bytes import event_bytes
from device.drivers.input.scanner_keys import Read
from device.drivers.input.scanner_reads import Reads
from device.drivers.input.scanner_strangers import Claim, Pairing, Strangers
from device.scanning import Scanning, Tap, refuses, strangers_of
from device.txn.inputs import DeviceSaid, Scanned
from tests.console_room import Room
from tests.drivers.test_scanner_keys import events_of
from tests.fake_sys import PAD, FakeSys

TEA = "4891028705949"


def watch(sys: FakeSys, *claims: Claim) -> Strangers:
    return Strangers(claims, sys=str(sys.root), dev=str(sys.dev))


def words(strangers: Strangers) -> list[str]:
    return [said.word for said in strangers.look() if isinstance(said, DeviceSaid)]


def types(path: Path, text: str, every_ms: int = 8) -> None:
    with open(path, "wb", buffering=0) as node:
        node.write(b"".join(map(event_bytes, events_of(text, every_ms=every_ms))))


def test_a_strange_keyboard_is_named_once_and_a_power_button_never(tmp_path: Path) -> None:
    sys = FakeSys(tmp_path)
    scanner = sys.keyboard(3, "1-1.2")
    sys.keyboard(4, "1-1.3", name="Pad", keys=PAD)
    sys.keyboard(5, name="Power Button", keys=frozenset((116,)))
    strangers = watch(sys, Claim(path=str(scanner)), Claim(port="1-1.3"))
    assert strangers.look() == [] and strangers.shown() == []
    sys.keyboard(6, "1-1.4", name="Rubber\x1b Duck")
    (said,) = strangers.look()
    assert said.part == "keyboards" and said.word == "strange" and "Rubber? Duck (0c2e:0b61, USB port 1-1.4)" in said.why
    assert strangers.look() == [] and strangers.seen == 1
    assert strangers.shown() == [{"name": "Rubber? Duck", "usb": "0c2e:0b61", "port": "1-1.4",
                                  "path": str(sys.dev / "input/event6"), "state": "refused"}]
    sys.unplug(6)
    assert words(strangers) == ["ok"] and strangers.shown() == []


def test_every_node_of_a_claimed_device_is_ours_and_none_of_its_twin_in_another_port(tmp_path: Path) -> None:
    sys = FakeSys(tmp_path)
    for number, port in ((3, "1-1.2"), (7, "1-1.3")):
        sys.keyboard(number, port)
        sys.keyboard(number + 1, port, interface=1)
    link = tmp_path / "scanner"
    link.symlink_to(sys.dev / "input/event3")
    strangers = watch(sys, Claim(path=str(link)))
    assert words(strangers) == ["strange"] and {row["port"] for row in strangers.shown()} == {"1-1.3"}
    strangers.let_go()


def test_a_scanner_whose_link_stands_late_is_given_back(tmp_path: Path) -> None:
    sys = FakeSys(tmp_path)
    link = tmp_path / "by-path"
    strangers = watch(sys, Claim(path=str(link)))
    node = sys.keyboard(3, "1-1.2")
    assert words(strangers) == ["strange"]
    link.symlink_to(node)                                              # udev comes a moment after the kernel
    before = len(os.listdir("/proc/self/fd"))
    assert words(strangers) == ["ok"] and strangers.shown() == [] and len(os.listdir("/proc/self/fd")) == before - 1


def test_a_node_that_comes_back_under_its_name_is_another_device(tmp_path: Path) -> None:
    sys = FakeSys(tmp_path)
    sys.keyboard(3, "1-1.2")
    strangers = watch(sys)
    assert words(strangers) == ["strange"]
    sys.unplug(3)
    sys.keyboard(3, "1-1.4")
    assert words(strangers) == ["strange"] and strangers.seen == 2
    for number in range(20, 60):
        sys.keyboard(number, f"1-1.{number}")
    assert words(strangers) == ["strange"] and len(strangers.shown()) == 16      # a hub full of them: bounded
    strangers.let_go()


def test_one_that_cannot_be_taken_yet_is_named_once_and_tried_again(tmp_path: Path, monkeypatch, caplog) -> None:
    from device.drivers.input import scanner_strangers
    from device.errors import DriverBusy, DriverGone
    sys = FakeSys(tmp_path)
    node = sys.keyboard(3, "1-1.2")
    strangers, real = watch(sys), scanner_strangers.open_events
    for fault, state in ((DriverGone("no", which="keyboard"), "cannot be taken"),
                         (DriverBusy("no", which="keyboard"), "held by another program")):
        def closed(path: str, fault: Exception = fault, **manner: str):
            raise fault
        monkeypatch.setattr(scanner_strangers, "open_events", closed)
        told = words(strangers) + words(strangers)
        assert told == (["strange"] if state == "cannot be taken" else []) and strangers.shown()[0]["state"] == state
    assert len(caplog.records) == 1 and "1-1.2" in caplog.text
    monkeypatch.setattr(scanner_strangers, "open_events", real)
    assert words(strangers) == [] and strangers.shown()[0]["state"] == "refused" and strangers.seen == 1
    assert node.exists() and strangers.look() == []
    strangers.let_go()


def test_a_key_that_is_held_down_on_a_strange_keyboard_does_not_stop_the_till(tmp_path: Path, monkeypatch) -> None:
    from device.drivers import input_line
    sys, grabbed = FakeSys(tmp_path), []
    sys.keyboard(3, "1-1.2")

    def ioctl(fd: int, request: int, arg: object) -> bytes:
        if request == input_line.EVIOCGRAB:
            grabbed.append(fd)
        return b"\1" + bytes(95) if request == input_line.EVIOCGKEY else b""

    monkeypatch.setattr(input_line.stat, "S_ISCHR", lambda mode: True)
    monkeypatch.setattr(input_line.os, "major", lambda device: input_line.INPUT_MAJOR)
    monkeypatch.setattr(input_line.fcntl, "ioctl", ioctl)
    monkeypatch.setattr(input_line.time, "sleep", lambda seconds: pytest.fail("the till stood still"))
    strangers = watch(sys)
    assert words(strangers) == ["strange"] and strangers.shown()[0]["state"] == "a key is held down" and not grabbed
    assert words(strangers) == [] and strangers.shown()[0]["state"] == "refused" and grabbed     # a weight lies on it: taken
    strangers.let_go()


def test_the_watch_ends_with_every_keyboard_let_go(tmp_path: Path) -> None:
    sys = FakeSys(tmp_path)
    sys.keyboard(3, "1-1.2")
    before = len(os.listdir("/proc/self/fd"))

    async def story() -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)

        inputs = Strangers((), sys=str(sys.root), dev=str(sys.dev), sleep=sleep).inputs()
        assert (await anext(inputs)).word == "strange" and slept == []
        sys.unplug(3)
        assert (await anext(inputs)).word == "ok" and slept and max(slept) <= 1        # within two seconds, by its own pace
        await inputs.aclose()

    asyncio.run(story())
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("told,wanted", [
    ({}, True), ({"keyboards": "leave"}, False), ({"scanner": {"kind": "serial"}, "keypad": {"kind": "none"}}, False),
    ({"scanner": {"kind": "none"}, "keypad": {"path": "/tmp/pad"}}, False), ({"scanner": {"path": "x", "port": "1-1"}}, True),
    ({"keyboards": "refuse", "scanner": {"kind": "none"}, "keypad": {"kind": "none"}}, True)])
def test_keyboards_are_refused_where_a_scanner_or_keypad_is_one(told: dict, wanted: bool, monkeypatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "@systemd")
    config = parse({"box": "b", "box_no": "000001", "tenant": "t", **told})
    assert refuses(config) is wanted and (strangers_of(config) is not None) is wanted
    monkeypatch.delenv("NOTIFY_SOCKET")                                    # by hand, on somebody's desk
    assert refuses(config) is (told.get("keyboards") == "refuse")


# Pairing, and trying out.

class Desk:
    """The daemon's `scan` verbs over a watch and one scanner that is set up."""

    def __init__(self, sys: FakeSys) -> None:
        self.tap, self.free = Tap(), True
        self.strangers = watch(sys)
        self.reads = Reads(lambda symbol: None, lane="left", tap=self.tap)
        config = parse({"box": "b", "box_no": "000001", "tenant": "t"})
        self.scanning = Scanning(config, {"keyboards": self.strangers, "scanner:left": self}, self.tap, lambda: self.free)

    def asks(self, do: str, **more: str) -> dict:
        return self.scanning.answer({"verb": "scan", "do": do, **more})

    async def looks(self) -> dict:
        for _ in range(200):
            said = self.asks("look")["scan"]
            if said["found"] or said["said"]:
                return said
            await asyncio.sleep(0.01)
        return said


def test_the_scanner_that_read_the_code_is_learned_and_the_one_beside_it_not(tmp_path: Path) -> None:
    async def story() -> None:
        sys = FakeSys(tmp_path)
        left, right = sys.keyboard(3, "1-1.2"), sys.keyboard(4, "1-1.3")
        desk = Desk(sys)
        desk.strangers.look()
        types(left, "PAIR-OLD\r")                                          # said before anybody asked
        begun = desk.asks("pair")
        assert begun["ok"] and begun["code"].startswith("PAIR-") and begun["keyboards"] == 2
        types(left, "6901939621608\r")
        await asyncio.sleep(0.1)
        types(right, begun["code"] + "\r")
        said = await desk.looks()
        assert said["found"] == {"name": "HID Keyboard", "usb": "0c2e:0b61", "port": "1-1.3", "path": str(right)}
        assert len(said["heard"]) == 1 and "1-1.2" in said["heard"][0] and "6901939621608" not in str(said)
        desk.strangers.let_go()

    asyncio.run(story())


def test_a_keyboard_that_pairing_finds_first_is_told_to_the_till_as_well(tmp_path: Path) -> None:
    async def story() -> None:
        sys = FakeSys(tmp_path)
        desk = Desk(sys)
        sys.keyboard(3, "1-1.2")
        assert desk.asks("pair")["keyboards"] == 1
        said = await anext(desk.strangers.inputs())
        assert isinstance(said, DeviceSaid) and said.word == "strange"
        desk.strangers.let_go()

    async def patient() -> None:
        async with asyncio.timeout(5):
            await story()

    asyncio.run(patient())


def test_a_code_that_a_person_types_pairs_nothing(tmp_path: Path) -> None:
    sys = FakeSys(tmp_path)
    node = sys.keyboard(3, "1-1.2")
    strangers, now = watch(sys), [0.0]
    strangers.look()
    pairing = Pairing(strangers, "PAIR-7Q2M4X", 60, lambda: now[0])
    types(node, "PAIR-7Q2M4X\r", every_ms=120)
    pairing.listen()
    assert pairing.found is None and "typed by hand" in pairing.heard[0] and not pairing.over
    now[0] = 60.0
    assert pairing.over
    types(node, "PAIR-7Q2M4X\r")
    pairing.listen()
    assert pairing.found is None                                           # too late
    strangers.let_go()


def test_a_scan_that_is_tried_out_is_shown_and_not_sold_and_a_payment_code_not_even_shown(tmp_path: Path) -> None:
    desk = Desk(FakeSys(tmp_path))
    assert desk.asks("test")["ok"]
    assert desk.reads.inputs_of(Read(TEA, aim="]E0"), 0) == []
    assert desk.asks("look")["scan"]["said"] == {"part": "scanner:left", "kind": "]E0", "length": 13, "symbol": TEA, "why": ""}
    assert isinstance(desk.reads.inputs_of(Read(TEA), 900)[0], Scanned)     # the next one is sold
    desk.asks("test")
    desk.reads.inputs_of(Read("134512345678901234"), 0)
    assert "1345" not in str(desk.asks("look")) and desk.asks("look")["scan"]["said"]["length"] == 18
    desk.free = False
    assert not desk.asks("test")["ok"] and not desk.asks("pair")["ok"] and not desk.asks("nonsense")["ok"]
    assert isinstance(desk.reads.inputs_of(Read(TEA), 2000)[0], Scanned)
    assert desk.scanning.shown()["scanners"]["scanner:left"]["scans"] == 2


def test_what_is_plugged_in_is_listed_by_kind_and_port(tmp_path: Path, capsys) -> None:
    sys = FakeSys(tmp_path)
    sys.keyboard(3, "1-1.2", name="BARCODE SCANNER")
    sys.keyboard(5, name="Power Button", keys=frozenset((116,)))
    sys.hid(0, "1-1.4")
    sys.serial("ttyACM0", "1-1.5")
    assert scan_tool.list_all(False, str(tmp_path), "/dev") == 0
    rows = [row.split() for row in capsys.readouterr().out.splitlines()]
    assert [row[:4] for row in rows] == [["keyboard", "1-1.2", "0c2e:0b61", "/dev/input/event3"],
                                         ["hid-pos", "1-1.4", "0c2e:0b6a", "/dev/hidraw0"],
                                         ["serial", "1-1.5", "1a86:55d3", "/dev/ttyACM0"]]


def test_the_command_says_what_to_write_into_the_configuration(tmp_path: Path, monkeypatch, capsys) -> None:
    toml = tmp_path / "box.toml"
    toml.write_text(f'box = "b"\nbox_no = "000001"\ntenant = "t"\nrun_dir = "{tmp_path}"\n')
    answers = {"pair": {"ok": True, "code": "PAIR-7Q2M4X", "seconds": 1, "keyboards": 1}, "test": {"ok": False, "error": "Busy."},
               "look": {"ok": True, "scan": {"said": None, "heard": [], "over": False, "found": {
                   "name": "BARCODE SCANNER", "usb": "0c2e:0b61", "port": "1-1.3", "path": "/dev/input/event4"}}}}
    monkeypatch.setattr(scan_tool, "ask", lambda path, verb, do, **more: answers[do])
    assert scan_tool.main(["pair", "--config", str(toml)]) == 0
    said = capsys.readouterr().out
    config = parse({"box": "b", "box_no": "000001", "tenant": "t", **tomllib.loads(said)})
    assert config.scanner.port == "1-1.3" and "BARCODE SCANNER" in said
    assert scan_tool.main(["test", "--config", str(toml)]) == 1 and capsys.readouterr().err == "tillbox scan: Busy.\n"
    answers["look"]["scan"] |= {"found": None, "over": True}
    assert scan_tool.main(["pair", "--config", str(toml)]) == 1


def test_the_console_s_scan_test_sells_nothing_and_names_the_scanner(tmp_path: Path, monkeypatch) -> None:
    from device.console import trying
    room = Room(tmp_path, more="")
    room.toml.write_text(room.toml.read_text().replace('[scanner]\nkind = "none"', '[scanner]\nlane = "left"'))
    desk = Desk(FakeSys(tmp_path / "sys"))

    def asked(path: Path, verb: str, do: str) -> dict:
        answer = desk.asks(do)
        if do == "test" and answer["ok"]:
            assert desk.reads.inputs_of(scans.pop(0), 0) == []
        return answer

    monkeypatch.setattr(trying, "alive", lambda place: True)
    monkeypatch.setattr(trying, "ask", asked)
    scans = [Read(TEA, aim="]E0"), Read("134512345678901234"), Read(why="the scan is empty")]
    said = room.visit("scan test", "scan test", "scan test")
    assert f"scanner:left: 13 characters came: {TEA}  ]E0" in said and "18 characters came\n" in said and "1345" not in said
    assert "failed: SPOILED scanner:left: the scan is empty" in said.replace("  ", " ")
    desk.free = False
    assert "failed: SCANNER" in room.visit("scan test")
