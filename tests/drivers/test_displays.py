"""Several displays on one till: each shows the live attempt and nothing older, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
import zxingcpp
from PIL import Image

from device.box import Box
from device.config import parse
from device.daemon import Daemon
from device.drivers.display.fb import FbDisplay, Geometry
from device.drivers.display.file import FileDisplay
from device.drivers.display.pole import PoleDisplay
from device.drivers.display.sim import DisplaySim
from device.errors import DriverGone, Outside
from device.runner import Runner
from device.store_forward.journal import Journal
from device.txn.inputs import ChannelSaid, DeviceSaid, Pressed, QrReady, Said, Scanned, Started
from device.txn.show import render
from device.types import Stamp
from sim.devices.display import frame_no, frame_png
from sim.devices.pole import MODELS, PolePort
from tests.counter import TEA, TERMS, MemoryJournal

QR = "weixin://wxpay/bizpayurl?pr=AbCdEfG00"
THERE = Geometry(480, 320, "XRGB8888", 1920)


class Clock:
    """The loop's own time; no wall."""

    boot = "boot1"

    def now_ms(self) -> int:
        return round(asyncio.get_running_loop().time() * 1000)

    def stamp(self) -> Stamp:
        return Stamp("boot1", self.now_ms(), "2026-07-14T09:00:00+08:00", "ntp")


class Rows(MemoryJournal):
    """As the runner asks for it."""

    @property
    def waiting(self) -> int:
        return len(self.waiting_rows)


class Hangs(DisplaySim):
    """A display whose `show` never comes back."""

    async def show(self, screen, now_ms):
        await asyncio.Event().wait()


class Slow(DisplaySim):
    """A display that takes its time for each frame, and is asked for the newest all the same."""

    async def show(self, screen, now_ms):
        await asyncio.sleep(0.05)
        await super().show(screen, now_ms)


@contextlib.asynccontextmanager
async def till(**displays):
    """A till with `displays`, its runner alive, that ends in good order."""
    runner = Runner(Box(Rows()), {}, Clock(), displays=displays)
    task = asyncio.create_task(runner.run(Started("boot1", "test", TERMS, "c2VlZA", "kid")))
    await asyncio.sleep(0)
    try:
        yield runner
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await runner.farewell()


async def until(wanted, wait_s: float = 10.0) -> None:
    """Wait until `wanted()`."""
    async with asyncio.timeout(wait_s):
        while not wanted():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def asks(runner: Runner) -> str:
    """A customer is shown a QR; the number of the attempt."""
    for event in (Scanned(TEA.item.gtin, TEA), Pressed("PAY")):
        runner.post(event)
    await until(lambda: runner.box.books.basket.order_no)
    no = runner.box.books.basket.order_no
    runner.post(QrReady(no, QR))
    await until(lambda: runner.now_screen().qr == QR)
    return no


def read(picture: Image.Image) -> list[str]:
    return [found.text for found in zxingcpp.read_barcodes(picture.convert("L"))]


def on_file(path: str) -> list[str]:
    return read(Image.open(io.BytesIO(frame_png(path))))


def on_panel(path: str) -> list[str]:
    with open(path, "rb") as file:
        data = file.read().ljust(THERE.line_length * THERE.height, b"\0")
    return read(Image.frombytes("RGB", (THERE.width, THERE.height), data, "raw", "BGRX", THERE.line_length))


def panel(path: str) -> str:
    with open(path, "wb") as file:
        file.truncate(THERE.line_length * THERE.height)
    return path


@pytest.fixture(autouse=True)
def no_long_farewell(monkeypatch):
    monkeypatch.setattr("device.runner.FAREWELL_S_MAX", 0.1)


ENDS = [(ChannelSaid, Said.PAID), (ChannelSaid, Said.CLOSED), (Pressed, "CANCEL"), (Pressed, "CASH")]


@pytest.mark.parametrize(("kind", "word"), ENDS)
def test_the_qr_goes_with_its_attempt_though_another_display_hangs(tmp_path, kind, word):
    path, slow = str(tmp_path / "frame"), Slow()

    async def story():
        async with till(**{"display": FileDisplay(path, 480, 320), "display:2": Hangs(), "display:3": slow}) as runner:
            no = await asks(runner)
            await until(lambda: on_file(path) == [QR] and slow.screen and slow.screen.qr == QR)
            runner.post(ChannelSaid(no, word, 500) if kind is ChannelSaid else Pressed(word))
            await until(lambda: not runner.now_screen().qr)
            await until(lambda: on_file(path) == [] and not slow.screen.qr)

    asyncio.run(story())


def test_a_display_that_hangs_is_named(monkeypatch):
    monkeypatch.setattr("device.runner.SHOW_S_MAX", 0.05)

    async def story():
        async with till(**{"display": DisplaySim(), "display:2": Hangs()}) as runner:
            await until(lambda: dict(runner.box.desk.health).get("display:2") == "gone")
            assert dict(runner.box.desk.health).get("display", "ok") == "ok"
            assert "第二块顾客屏未连接" in runner.now_screen().footer

    asyncio.run(story())


def test_a_panel_replaced_while_the_qr_stood_shows_what_is_true_on_the_new_one(tmp_path, monkeypatch):
    """The first frame buffer goes and another comes under its name, as at a boot; between two frames and in the middle of one."""
    monkeypatch.setattr("device.drivers.display.fb.LOOK_S", 0.05)
    path = panel(str(tmp_path / "fb0"))

    async def story():
        async with till(display=FbDisplay(path, geometry=THERE)) as runner:
            no = await asks(runner)
            await until(lambda: on_panel(path) == [QR])
            os.rename(path, path + ".old")
            panel(path)                                          # the new one is dark until somebody notices
            await until(lambda: on_panel(path) == [QR])
            os.unlink(path)
            runner.post(ChannelSaid(no, Said.CLOSED))
            await until(lambda: dict(runner.box.desk.health).get("display") == "gone")
            os.rename(path + ".old", path)                       # and this one still shows the QR of before
            assert on_panel(path) == [QR]
            await until(lambda: on_panel(path) == [])
            await until(lambda: "display" not in dict(runner.box.desk.health))

    asyncio.run(story())


def test_a_panel_replaced_while_nobody_is_served_is_noticed_and_painted(tmp_path, monkeypatch):
    monkeypatch.setattr("device.drivers.display.fb.LOOK_S", 0.05)
    path = panel(str(tmp_path / "fb0"))

    async def story():
        async with till(display=FbDisplay(path, geometry=THERE)):
            await until(lambda: any(Path(path).read_bytes()))
            os.rename(path, path + ".old")
            panel(path)
            assert not any(Path(path).read_bytes())              # dark, and nothing changes on the screen that would paint it
            await until(lambda: any(Path(path).read_bytes()))

    asyncio.run(story())


def test_a_panel_and_a_pole_say_the_same(tmp_path):
    path, port = str(tmp_path / "frame"), PolePort(MODELS["cd5220"](), str(tmp_path / "pole"))

    async def story():
        pole = PoleDisplay(port.path, part="display:2")
        async with till(**{"display": FileDisplay(path, 480, 320), "display:2": pole}) as runner:
            no = await asks(runner)
            words = render(runner.box.books, runner.box.desk).words
            await until(lambda: on_file(path) == [QR] and port.pole.rows()[0].endswith(words[1]))
            runner.post(ChannelSaid(no, Said.PAID, 500))
            await until(lambda: on_file(path) == [] and port.pole.rows()[0].startswith("PAID"))

    asyncio.run(story())
    port.unplug()


def test_no_qr_outlives_the_daemon(tmp_path):
    """An orderly end leaves a word; a life that was cut off leaves its QR, which the next one wipes before anything else."""
    path, fb = str(tmp_path / "frame"), panel(str(tmp_path / "fb0"))

    async def story(display, seen):
        async with till(display=display) as runner:
            await asks(runner)
            await until(lambda: seen() == [QR])
        assert seen() == []

    asyncio.run(story(FileDisplay(path, 480, 320), lambda: on_file(path)))
    asyncio.run(story(FbDisplay(fb, geometry=THERE), lambda: on_panel(fb)))

    async def cut_off(display):
        async with till(display=display) as runner:
            await asks(runner)
            await asyncio.sleep(0.2)
            display.show = DisplaySim().show                     # the power goes: nothing more reaches the glass
    asyncio.run(cut_off(FileDisplay(path, 480, 320)))
    asyncio.run(cut_off(FbDisplay(fb, geometry=THERE)))
    assert on_file(path) == [QR] == on_panel(fb)
    FileDisplay(path, 480, 320).wipe()
    FbDisplay(fb, geometry=THERE).wipe()
    assert on_file(path) == [] == on_panel(fb)


def test_a_daemon_wipes_the_glass_once_the_journal_is_its_own(tmp_path):
    """Not before: the glass may be that of a daemon that lives."""
    frame = tmp_path / "frame"
    none = {"kind": "none"}
    config = parse({"box": "box-7", "box_no": "00000A", "tenant": "corner", "state_dir": str(tmp_path),
                    "run_dir": str(tmp_path / "run"), "scanner": none, "keypad": none, "printer": none,
                    "display": {"kind": "file", "path": str(frame)}})

    async def left(path):
        async with till(display=FileDisplay(path)) as runner:
            await asks(runner)
            await until(lambda: on_file(path) == [QR])
            runner.displays["display"].show = DisplaySim().show

    asyncio.run(left(str(frame)))
    assert on_file(str(frame)) == [QR]
    first = Daemon(config)
    try:
        assert on_file(str(frame)) == []
        asyncio.run(left(str(frame)))
        with pytest.raises(Outside):
            Daemon(config)
        assert on_file(str(frame)) == [QR]                       # the first one's, and it lives
    finally:
        first.journal.close()


@pytest.mark.parametrize("beside_another", [False, True])
def test_a_start_that_fails_leaves_no_qr_unless_another_daemon_may_live(tmp_path, beside_another):
    frame, toml, none = tmp_path / "frame", tmp_path / "box.toml", "{kind = 'none'}"
    toml.write_text(f"box = 'box-8'\nbox_no = '00000A'\ntenant = 'corner'\nstate_dir = '{tmp_path}'\nrun_dir = '{tmp_path}/run'\n"
                    f"scanner = {none}\nkeypad = {none}\nprinter = {none}\n[display]\nkind = 'file'\npath = '{frame}'\n")
    ours = Journal(tmp_path / "journal.db", identity={"box": "box-8" if beside_another else "box-7", "mode": "real"})
    if not beside_another:
        ours.close()

    async def left():
        async with till(display=FileDisplay(str(frame))) as runner:
            await asks(runner)
            await until(lambda: on_file(str(frame)) == [QR])
            runner.displays["display"].show = DisplaySim().show

    asyncio.run(left())
    run = [sys.executable, "-m", "device", "run", "--config", str(toml)]
    died = subprocess.run(run, capture_output=True, text=True, timeout=30)
    assert died.returncode == 1 and "tillbox cannot start" in died.stderr, died.stderr
    assert on_file(str(frame)) == ([QR] if beside_another else [])
    if beside_another:
        ours.close()


def test_wiping_what_is_not_there_is_no_error(tmp_path):
    FileDisplay(str(tmp_path / "no" / "frame")).wipe()
    FbDisplay(str(tmp_path / "fb9")).wipe()
    PoleDisplay(str(tmp_path / "ttyS9")).wipe()


def test_every_write_to_a_panel_is_whole_rows_and_two_at_least(tmp_path, monkeypatch):
    """Linux 6.1 never shows a write of one row that ends where the row ends: docs/displays.md."""
    path, sizes, pwrite = panel(str(tmp_path / "fb0")), [], os.pwrite

    def seen(fd, data, offset):
        sizes.append((offset % THERE.line_length, len(data)))
        return pwrite(fd, data, offset)

    async def story():
        async with till(display=FbDisplay(path, geometry=THERE)) as runner:
            no = await asks(runner)
            await until(lambda: on_panel(path) == [QR])
            runner.post(ChannelSaid(no, Said.PAID, 500))
            await until(lambda: on_panel(path) == [])

    monkeypatch.setattr(os, "pwrite", seen)
    asyncio.run(story())
    assert len(sizes) > 3 and all(start == 0 and size % THERE.line_length == 0 and size >= 2 * THERE.line_length
                                  for start, size in sizes)


def test_a_display_that_comes_back_is_told_once(tmp_path):
    twin = DisplaySim()
    twin.gone = True

    async def story():
        async with till(display=twin) as runner:
            await until(lambda: dict(runner.box.desk.health).get("display") == "gone")
            twin.gone = False
            await until(lambda: "display" not in dict(runner.box.desk.health))
            assert twin.screen is not None

    asyncio.run(story())
    with pytest.raises(DriverGone):
        twin.gone = True
        asyncio.run(twin.show(twin.screen, 0))
    assert DeviceSaid("display", "gone").why == ""


def test_a_whole_box_shows_on_a_panel_and_a_pole_by_its_config_alone(tmp_path):
    """`tillbox run --config FILE`: the welcome on both, and a word on both when it ends."""
    port, frame, toml = PolePort(MODELS["cd5220"](), str(tmp_path / "pole")), tmp_path / "frame", tmp_path / "box.toml"
    toml.write_text(f'''
box = "box-7"
box_no = "00000A"
tenant = "corner"
lang = "en"
shop_en = "Corner Shop"
state_dir = "{tmp_path}"
run_dir = "{tmp_path}/run"
scanner = {{kind = "none"}}
keypad = {{kind = "none"}}
printer = {{kind = "none"}}

[[display]]
kind = "file"
path = "{frame}"
width = 320
height = 240

[[display]]
kind = "pole"
path = "{port.path}"
dialect = "cd5220"
''')
    box = subprocess.Popen([sys.executable, "-m", "device", "run", "--config", str(toml)], stderr=subprocess.PIPE)
    try:
        assert port.shows(lambda pole: pole.rows() == ["    Corner Shop     ", "      WELCOME       "], 20.0)
        asyncio.run(until(lambda: frame_no(str(frame)) > 0))
        welcome = frame_png(str(frame))
    finally:
        box.terminate()
        said = box.communicate(timeout=20)[1].decode()
    assert box.returncode == 0, said
    assert frame_png(str(frame)) != welcome
    assert port.pole.odd == 0 and port.pole.rows() == ["     ONE MOMENT     ", " " * 20]
    port.unplug()
