"""One contract for every cable: USB, serial, TCP and file twins print, prove, lose and name the same things."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import socket
import subprocess
import sys
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device.config import parse
from device.drivers.port_holder import holder_of
from device.drivers.printer.driver import Printer
from device.drivers.printer.file import FileLine
from device.drivers.printer.serial import SerialLine
from device.drivers.printer.talk import Limits
from device.drivers.printer.tcp import TcpLine
from device.drivers.printer.usb import UsbLine
from device.drivers.registry import drivers_of
from device.errors import DriverBusy, DriverGone, PortHeld
from device.mqtt.config_wire import Blob, Body
from device.push.checks import effective, judged
from device.txn.effects import Cut, KickDrawer, Pair, Print, Text
from device.txn.inputs import DrawerKicked, Printed, PrintUnsure
from sim.devices.printer import PrinterModel
from sim.devices.printer_ports import PtyPort, TcpPort

PAPER = (Text("便利店", "c", 2), *(Pair(f"可乐 {n}", "￥3.00") for n in range(10)), Cut())
QUICK = Limits(slow_s=0.15, proof_s=0.3, line_s=0.0, poll_s=0.01)
KINDS = ("usb", "serial", "rtscts", "dtr", "tcp", "file")


@contextmanager
def cable(kind: str, folder: Path, **options) -> Iterator[tuple[PrinterModel, object]]:
    """A model behind a cable of this kind, and the line to it."""
    model = PrinterModel(**options)
    port = TcpPort(model) if kind == "tcp" else PtyPort(model, folder / "lp0")
    try:
        yield model, line_to(kind, port)
    finally:
        port.close()


def line_to(kind: str, port):
    match kind:
        case "tcp":
            return TcpLine("127.0.0.1", port.port, connect_s=1.0, stall_s=0.5)
        case "usb":
            return UsbLine(str(port.path.parent / "lp*"), stall_s=0.5)
        case "file":
            return FileLine(str(port.path), stall_s=0.5)
    flow = kind if kind in ("rtscts", "dtr") else "none"
    return SerialLine(str(port.path), 115_200, flow=flow, stall_s=0.5, dsr=lambda fd: True)


def told(line, *effects):
    async def story():
        printer = Printer(line, limits=QUICK)
        answers = []
        async with asyncio.timeout(10):
            for effect in effects:
                try:
                    answers.append(await printer.do(effect))
                except (DriverGone, DriverBusy) as why:
                    answers.append(why)
        await printer.close()
        return answers, printer.word
    return asyncio.run(story())


@pytest.mark.parametrize("kind", KINDS)
def test_it_prints_and_proves(kind, tmp_path):
    with cable(kind, tmp_path) as (model, line):
        assert told(line, Print(1, PAPER), KickDrawer(1), Print(2, PAPER))[0] == [Printed(1, 3), DrawerKicked(1), Printed(2, 3)]
        assert [r.state for r in model.receipts()] == ["whole", "whole"] and model.drawer_kicks == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_mute_printer_is_sent_to_and_confirms_nothing(kind, tmp_path):
    with cable(kind, tmp_path) as (model, line):
        model.silence(True)
        assert told(line, Print(1, PAPER))[0] == [Printed(1, 0)]


@pytest.mark.parametrize("kind", KINDS)
def test_no_paper_refuses_before_a_byte(kind, tmp_path):
    with cable(kind, tmp_path) as (model, line):
        model.paper(out=True)
        (refused,), word = told(line, Print(1, PAPER))
        assert isinstance(refused, DriverBusy) and word == "paper_out"
        model.paper(out=False)
        assert model.receipts() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_pulled_cable_is_gone_and_names_itself(kind, tmp_path):
    with cable(kind, tmp_path) as (_, line):
        pass                                           # pulled before anything was sent
    (gone,), word = told(line, Print(1, PAPER))
    assert isinstance(gone, DriverGone) and word == "gone" and (str(tmp_path) in gone.what or "127.0.0.1" in gone.what)


@pytest.mark.parametrize("kind", ["usb", "serial", "file", "tcp"])
def test_nobody_who_takes_bytes_stalls_for_ever_and_is_unsure(kind, tmp_path):
    """The other side takes some bytes and then no more: the kernel's buffer fills."""
    master, slave = pty.openpty()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        tty.setraw(slave)
        (tmp_path / "lp0").symlink_to(os.ttyname(slave))

        class Port:
            path, port = tmp_path / "lp0", listener.getsockname()[1]
        printer = Printer(line_to(kind, Port), limits=QUICK, encode=lambda paper, columns: b"x" * 8_000_000)
        answer = asyncio.run(printer.do(Print(1, PAPER)))
    finally:
        for end in (master, slave):
            os.close(end)
        listener.close()
    assert isinstance(answer, PrintUnsure)


@pytest.mark.parametrize("kind", ["usb", "serial"])
def test_a_port_that_another_program_holds_is_named_with_it(kind, tmp_path):
    """The other program is a process of its own, as the print service of a desktop is."""
    holder = ("import fcntl, os, sys; fd = os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); fcntl.flock(fd, fcntl.LOCK_EX);"
              "print('held', flush=True); sys.stdin.read()")
    with cable(kind, tmp_path) as (model, line):
        other = subprocess.Popen([sys.executable, "-c", holder, str(tmp_path / "lp0")], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE)
        try:
            assert other.stdout is not None and other.stdout.readline() == b"held\n"
            (held,), word = told(line, Print(1, PAPER))
            assert isinstance(held, PortHeld) and word == "held" and model.receipts() == []
            assert f"process {other.pid}" in held.what
        finally:
            other.communicate(b"")
        assert told(line, Print(1, PAPER))[0] == [Printed(1, 3)]


def test_nobody_holds_what_is_not_there(tmp_path):
    assert holder_of(str(tmp_path / "none")) == ""
    (tmp_path / "free").write_bytes(b"")
    assert holder_of(str(tmp_path / "free")) == ""


def test_a_usb_printer_that_comes_back_under_another_number_is_found(tmp_path):
    first, second = PrinterModel(), PrinterModel()
    port = PtyPort(first, tmp_path / "lp0")
    printer = Printer(UsbLine(str(tmp_path / "lp*")), limits=QUICK)

    async def story():
        one = await printer.do(Print(1, PAPER))
        port.close()
        again = PtyPort(second, tmp_path / "lp1")
        two = await printer.do(Print(2, PAPER))
        await printer.close()
        again.close()
        return one, two
    assert asyncio.run(story()) == (Printed(1, 3), Printed(2, 3))
    assert (len(first.receipts()), len(second.receipts())) == (1, 1)


def test_a_printer_that_is_plugged_in_is_seen_within_two_seconds(tmp_path):
    """By the pace that a box has: nothing is hurried here but the plugging."""
    async def story():
        printer = Printer(UsbLine(str(tmp_path / "lp*")))
        says = printer.inputs()
        assert (await anext(says)).word == "gone"
        port = PtyPort(PrinterModel(), tmp_path / "lp0")
        began = asyncio.get_running_loop().time()
        assert (await anext(says)).word == "ok"
        took_s = asyncio.get_running_loop().time() - began
        await printer.close()
        await says.aclose()
        port.close()
        return took_s
    assert asyncio.run(story()) < 2.0


def test_a_plain_file_is_no_usb_printer(tmp_path):
    (tmp_path / "lp0").write_bytes(b"")
    (gone,), _ = told(UsbLine(str(tmp_path / "lp0")), Print(1, PAPER))
    assert isinstance(gone, DriverGone) and (tmp_path / "lp0").read_bytes() == b""


@pytest.mark.parametrize(("bits", "word"), [(0x18, "ok"), (0x38, "paper_out"), (0x10, "error"), (0x08, "off")])
def test_a_usb_port_speaks_for_a_printer_that_answers_nothing(bits, word, tmp_path, monkeypatch):
    """LPGETSTATUS, the one thing that a receive-only printer's port tells."""
    def ioctl(fd, request, told, *more):
        assert request == 0x060B
        told[:] = bits.to_bytes(4, sys.byteorder)
        return 0
    with cable("usb", tmp_path) as (model, line):
        model.silence(True)
        asyncio.run(line.open())
        monkeypatch.setattr(fcntl, "ioctl", ioctl)
        assert (line.port_says() or ("ok",))[0] == word
        monkeypatch.undo()
        line.port_says = lambda: (word, "told by the port") if word != "ok" else None
        (answer,), said = told(line, Print(1, PAPER))
        assert isinstance(answer, Printed) if word == "ok" else isinstance(answer, DriverBusy) and said == word


def test_a_roll_that_ends_in_a_receipt_is_seen_by_the_port_of_a_printer_that_answers_nothing(tmp_path):
    with cable("usb", tmp_path) as (model, line):
        model.silence(True)
        asked = iter((None, ("paper_out", "The printer has no paper.")))
        line.port_says = lambda: next(asked)
        (unsure,), said = told(line, Print(1, PAPER))
        assert isinstance(unsure, PrintUnsure) and "no paper" in unsure.why and said == "paper_out"


def test_dtr_that_is_down_stops_us_between_two_buffers(tmp_path):
    """The printer lowers its wire after every 100 bytes until it has printed them: not a byte goes out while it is down."""
    model = PrinterModel()
    port = PtyPort(model, tmp_path / "lp0")
    looks = []

    def dsr(fd: int) -> bool:
        looks.append(len(looks))
        return len(looks) % 3 == 0
    try:
        line = SerialLine(str(port.path), 115_200, flow="dtr", dsr=dsr)
        assert told(line, Print(1, PAPER))[0] == [Printed(1, 3)]
        assert len(looks) > 30
        never = SerialLine(str(port.path), 115_200, flow="dtr", dsr=lambda fd: False, stall_s=0.1)
        (gone,), _ = told(never, Print(2, PAPER))
        assert isinstance(gone, DriverGone)
    finally:
        port.close()


def test_a_tcp_printer_that_others_are_printing_on_is_waited_for_and_named():
    """Half open: it takes the connection into its queue and answers nothing, as printers of one connection do."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1)
    stop = threading.Event()
    try:
        line = TcpLine("127.0.0.1", listener.getsockname()[1], connect_s=0.3, stall_s=0.3)
        printer = Printer(line, limits=QUICK)
        printer._talk.level = 3                        # it has spoken before

        async def story():
            try:
                return await printer.do(Print(1, PAPER))
            except DriverGone as why:
                return why
        gone = asyncio.run(story())
        assert isinstance(gone, DriverGone) and "does not answer" in gone.what
    finally:
        stop.set()
        listener.close()


def test_a_serial_printer_that_was_pulled_is_let_go_of(tmp_path):
    ours, theirs = pty.openpty()

    async def story():
        line = SerialLine(os.ttyname(theirs), 115_200)
        await line.open()
        os.close(theirs)
        os.close(ours)
        await line.close()

    asyncio.run(story())


BOX = {"box": "b", "box_no": "000001", "tenant": "t", "scanner": {"kind": "none"}, "keypad": {"kind": "none"},
       "display": {"kind": "none"}}


@pytest.mark.parametrize(("kind", "more", "line"), [
    ("usb", {"path": "/dev/usb/lp*"}, UsbLine), ("serial", {"path": "/dev/ttyUSB0", "flow": "dtr", "baud": 19_200}, SerialLine),
    ("tcp", {"host": "127.0.0.1"}, TcpLine), ("file", {"path": "paper.bin"}, FileLine)])
def test_a_configuration_makes_its_printer(kind, more, line, tmp_path):
    config = parse({**BOX, "state_dir": str(tmp_path), "printer": {
        "kind": kind, "dialect": "western", "cut": "full", "model": "X", "drawer_sensor": "low", **more}})
    printer = drivers_of(config, lambda symbol: None)["printer"]
    assert isinstance(printer, Printer) and type(printer._line) is line
    assert printer._encode((Cut(),), 48).endswith(b"\x1dVA\x00")
    assert (printer._model, printer._opens) == ("X", False)
    assert kind != "serial" or (printer._line._settings["baudrate"], printer._line._dsr is not None) == (19_200, True)


def test_a_pushed_logo_is_found_under_its_blob_and_one_that_is_missing_is_refused(tmp_path):
    blob = Blob("a" * 64, 5)
    here = Body({"printer": {"logo": "picture/logo"}}, {"picture/logo": blob})
    made = effective({**BOX, "mqtt": {"host": "h"}}, here, str, lambda sha256: f"/state/{sha256}")
    assert made.printer.logo == f"/state/{'a' * 64}"
    missing = Body({"printer": {"logo": "picture/other"}}, {"picture/logo": blob})
    told = judged(missing, made, lambda body: effective({**BOX, "mqtt": {"host": "h"}}, body, str, str))
    assert any("picture/other" in reason for reason in told)
