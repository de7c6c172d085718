"""A box that nobody enrolled yet: its code scanned with its own scanner, left on its card, or typed elsewhere."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from device.appliance import fault
from device.console import place
from device.doctor.tool import examine
from device.errors import DriverGone
from device.identity import waiting
from device.identity.waiting import WANTED, Waiting, unclaimed
from device.mqtt import enrol_wire as wire
from device.txn.screen import Screen
from sim.devices.scanner import ScannerModel
from tests.enrol_room import Office, Shop


async def until(true: Callable[[], bool]) -> None:
    while not true():                                         # noqa: ASYNC110 - a thread and a pipe tell nobody
        await asyncio.sleep(0.01)


class Box:
    """A shop whose scanner is a pipe, and a panel that keeps every screen."""

    def __init__(self, tmp_path: Path, office: Office) -> None:
        self.office, self.pipe = office, tmp_path / "scanner"
        self.scanner = ScannerModel(self.pipe)
        self.shop = Shop(tmp_path / "box", f'[scanner]\npath = "{self.pipe}"\n[display]\nkind = "none"\n')
        self.screens: list[Screen] = []
        self.asked_at: list[str] = []
        self.faults: list[DriverGone] = []

    def asked(self, host: str, port: int, code: wire.Code, request: bytes) -> bytes:
        self.asked_at.append(f"{host}:{port}")
        if self.faults:
            raise self.faults.pop(0)
        reply = self.office.desk.take(request)
        assert reply is not None
        return reply

    async def show(self, screen: Screen) -> None:
        self.screens.append(screen)

    @property
    def waits(self) -> Waiting:
        config = unclaimed(str(self.shop.toml))
        assert config is not None
        return Waiting(str(self.shop.toml), config, self.show, asked=self.asked)

    def run(self, *scans: str) -> None:
        """Until it is enrolled: each scan leaves when the one before it was answered."""
        async def whole() -> None:
            async with asyncio.timeout(20):
                work = asyncio.create_task(self.waits.run())
                await until(lambda: self.scanner.read_by(os.getpid()))
                await asyncio.sleep(0.3)                      # what was scanned before somebody listened is thrown away
                for text in scans:
                    said = self.screens.copy()
                    self.scanner.scan(text)
                    await until(lambda said=said: work.done() or self.screens != said and self.screens[-1].tone != "wait")
                await work
        asyncio.run(whole())

    @property
    def said(self) -> str:
        return self.screens[-1].notice


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr(waiting, "BEAT_S", 0.05)
    monkeypatch.setattr(waiting.Strangers, "look", lambda self: [])          # this machine's own keyboards are not ours to take
    return Box(tmp_path, Office())


def test_a_scan_of_the_code_enrols_the_box(box: Box) -> None:
    code = box.office.desk.code_for("box-1")
    box.run(wire.qr_text(code, "enrol.example.com:8884"))
    assert box.asked_at == ["enrol.example.com:8884"] and "box-1 of shop" in box.said and box.screens[-1].tone == "good"
    assert box.shop.enrolled().box == "box-1"
    assert unclaimed(str(box.shop.toml)) is None


def test_what_is_no_code_is_said_and_the_next_scan_counts(box: Box) -> None:
    code = wire.qr_text(box.office.desk.code_for("box-1"), "h:1")
    box.run("6901234567892", code[:-8] + "/H:1", code)
    tones = [screen.tone for screen in box.screens]
    assert tones == ["bad", "bad", "wait", "good"] and box.asked_at == ["h:1"]
    assert not any(code[12:28] in screen.notice for screen in box.screens), "no screen shows a code's secret"


def test_a_code_without_a_place_goes_where_the_card_said(box: Box) -> None:
    wanted = Path(box.shop.config().state_dir) / WANTED
    code = wire.qr_text(box.office.desk.code_for("box-1"))
    wanted.write_text("here:8884\n")
    box.run(code)
    assert box.asked_at == ["here:8884"] and not wanted.exists()


def test_a_code_without_any_place_asks_for_one(box: Box) -> None:
    code = box.office.desk.code_for("box-1")
    box.run(wire.qr_text(code), wire.qr_text(code, "h:1"))
    assert "names no place" in box.screens[0].notice and box.asked_at == ["h:1"]


def test_a_code_on_the_card_is_tried_until_the_network_is_there(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "AGAIN_S", 0.05)
    wanted = Path(box.shop.config().state_dir) / WANTED
    wanted.write_text(f"h:1\n{wire.typed(box.office.desk.code_for('box-1'))}\n")
    box.faults = [DriverGone("No line.", which="enrol"), DriverGone("No line.", which="enrol")]
    box.run()
    assert box.asked_at == ["h:1"] * 3 and box.shop.enrolled().box == "box-1" and not wanted.exists()


def test_a_code_on_the_card_that_was_used_is_tried_once_and_its_place_kept(box: Box, tmp_path: Path) -> None:
    code = box.office.desk.code_for("box-1")
    other = Box(tmp_path / "other", box.office)
    other.run(wire.qr_text(code, "h:1"))
    wanted = Path(box.shop.config().state_dir) / WANTED
    wanted.write_text(f"h:1\n{wire.typed(code)}\n")
    fresh = box.office.desk.code_for("box-2")
    box.run(wire.qr_text(fresh))                              # which names no place, and needs none
    assert "used before" in "".join(screen.notice for screen in box.screens)
    assert box.asked_at == ["h:1", "h:1"] and box.shop.enrolled().box == "box-2"


def test_a_box_that_could_sell_goes_on_without_a_code_that_is_refused(box: Box, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(waiting, "AGAIN_S", 0.0)
    wanted = Path(box.shop.config().state_dir) / WANTED
    code = box.office.desk.code_for("box-1")
    Box(tmp_path / "other", box.office).run(wire.qr_text(code, "h:1"))
    wanted.write_text(f"h:1\n{wire.typed(code)}\n")
    config = unclaimed(str(box.shop.toml))
    assert config is not None
    work = Waiting(str(box.shop.toml), config, box.show, asked=box.asked, complete=True)
    asyncio.run(asyncio.wait_for(work.run(), 20))
    assert "used before" in box.said and not wanted.exists()


def test_it_ends_when_somebody_else_enrolled_the_box(box: Box) -> None:
    async def whole() -> None:
        work = asyncio.create_task(box.waits.run())
        await asyncio.sleep(0.1)
        from tests.link.test_enrol import enrolled
        enrolled(box.office, box.shop)
        await asyncio.wait_for(work, 10)
    asyncio.run(whole())
    assert box.screens == []


@pytest.mark.parametrize("text", ["X:1/", "X:1/host", "X:1/host:0", "X:1/http://host:1", "X:1/a b:1", "X:1/host:123456"])
def test_a_place_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        wire.place_of(text)


def test_a_place_is_read_whatever_the_letters() -> None:
    assert wire.place_of("BOX-1:ABC/ENROL.EXAMPLE.COM:8884") == ("BOX-1:ABC", "enrol.example.com:8884")
    assert wire.place_of("BOX-1:ABC/[FE80::1]:8884") == ("BOX-1:ABC", "[fe80::1]:8884")
    assert wire.place_of("box-1:7K3Q-0Z00") == ("box-1:7K3Q-0Z00", "")


# As systemd runs it ---------------------------------------------------------------------------------------------------

class Service:
    """`tillbox run` as systemd starts it: with somebody to tell that it is ready, and to be ended."""

    def __init__(self, tmp_path: Path, toml: str, code: str = "pass") -> None:
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(str(tmp_path / "n"))
        self.told.settimeout(20)
        self.panel = tmp_path / "panel"
        self.toml = tmp_path / "box.toml"
        self.toml.write_text(f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}"\n{toml}\n[display]\nkind = "file"\n'
                             f'path = "{self.panel}"\nwidth = 320\nheight = 240\n')
        (tmp_path / "state").mkdir()
        run = f"import sys; {code}; from device.__main__ import main; sys.exit(main(['run', '--config', {str(self.toml)!r}]))"
        self.process = subprocess.Popen([sys.executable, "-c", run], stderr=subprocess.PIPE, text=True,
                                        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "3000000"})

    def until(self, word: str) -> str:
        while word not in (line := self.told.recv(4096).decode()):
            pass
        return line

    def ended(self) -> tuple[int, str]:
        _, said = self.process.communicate(timeout=20)
        self.told.close()
        return self.process.returncode, said


def test_a_data_partition_that_cannot_be_used_is_said_and_no_journal_begun(tmp_path: Path) -> None:
    fault.say("data_corrupt", "The data partition cannot be mended: ext4 says so.", tmp_path)
    code = f"from device.appliance import fault; fault.PATH = {str(tmp_path / 'run/till/fault')!r}"
    box = Service(tmp_path, 'keyboards = "leave"\nbox = "box-1"\nbox_no = "000001"\ntenant = "shop"', code)
    assert "data_corrupt" in box.until("READY=1")
    box.until("WATCHDOG=1")
    box.process.send_signal(signal.SIGTERM)
    status, said = box.ended()
    assert status == 0 and "cannot be mended: ext4 says so. [data_corrupt]" in said
    assert box.panel.stat().st_size > 0, "the panel shows it"
    assert not list((tmp_path / "state").iterdir())


def test_a_box_toml_that_is_refused_stands_on_the_panel_until_it_is_put_right(tmp_path: Path) -> None:
    box = Service(tmp_path, 'box = "box-1"\nbox_no = "000001"\ntenant = "shop"\nbogus = 1')
    box.until("READY=1")
    box.until("WATCHDOG=1")
    assert box.panel.exists()
    box.toml.write_text(box.toml.read_text() + "\n")
    status, said = box.ended()
    assert status == 0 and "bogus" in said and "config_refused" in said


def test_console_and_doctor_name_the_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fault.say("data_key", "The folder does not open.", tmp_path)
    report = examine(str(tmp_path / "box.toml"), online=False, root=tmp_path)
    assert (report.code, report.wrong) == ("data_key", 1) and "does not open" in report.sentence
    monkeypatch.setattr(fault, "PATH", str(tmp_path / "run/till/fault"))
    (tmp_path / "box.toml").write_text(f'state_dir = "{tmp_path}"\n')
    here = place.at(str(tmp_path / "box.toml"))
    assert here.fault is not None and here.fault[0] == "data_key"
    assert not here.unclaimed, "a box whose state cannot be seen is not nobody's: enrol wants a login"
