"""The driver against an honest printer: what it may claim, and what it must not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from device.drivers.printer.driver import Limits, Printer
from device.drivers.printer.file import FileLine
from device.drivers.printer.serial import SerialLine
from device.drivers.printer.sim import PrinterSim
from device.drivers.printer.tcp import TcpLine
from device.errors import DriverBusy, DriverGone
from device.txn.effects import Cut, KickDrawer, Pair, Print, Text
from device.txn.inputs import DeviceSaid, DrawerKicked, Printed, PrintUnsure
from sim.devices.printer import PrinterModel
from sim.devices.printer_ports import PtyPort, TcpPort

PAPER = (Text("便利店", align="c", size=2), *(Pair(f"可乐 {n}", "￥3.00") for n in range(10)), Cut())
BEFORE = Print(90, (Text("before"), Cut()))     # proven: every byte that left is in the model, so `die_after` counts from here
QUICK = Limits(slow_s=0.15, proof_s=0.3, line_s=0.0, poll_s=0.01)


@contextmanager
def tcp(**options) -> Iterator[tuple[PrinterModel, TcpPort]]:
    model = PrinterModel(**options)
    port = TcpPort(model)
    try:
        yield model, port
    finally:
        port.close()


def driver(port: TcpPort, **options) -> Printer:
    return Printer(TcpLine("127.0.0.1", port.port, connect_s=1.0, stall_s=1.0), limits=QUICK, **options)


def run(story):
    """Run one story to its end, and close its printer."""
    async def whole():
        async with asyncio.timeout(10):
            return await story
    return asyncio.run(whole())


async def told(printer: Printer, *effects):
    try:
        return [await answer(printer, effect) for effect in effects]
    finally:
        await printer.close()


async def answer(printer: Printer, effect):
    try:
        return await printer.do(effect)
    except (DriverBusy, DriverGone) as error:
        return error


@pytest.mark.parametrize(("options", "proof"), [
    ({}, 3),
    ({"answers_id": False}, 2),
    ({"answers_id": False, "answers_queued": False}, 1),
    ({"answers_id": False, "answers_queued": False, "answers_status": False}, 0),
])
def test_proof_is_what_the_printer_can_give(options, proof):
    with tcp(**options) as (model, port):
        assert run(told(driver(port), Print(7, PAPER), Print(8, PAPER))) == [Printed(7, proof), Printed(8, proof)]
        if proof:
            assert [r.state for r in model.receipts()] == ["whole", "whole"]
            assert "可乐 9" in model.receipts()[1].text


def test_no_paper_is_refused_before_a_byte_of_the_job():
    with tcp() as (model, port):
        model.paper(out=True)
        (refused,) = run(told(driver(port), Print(1, PAPER)))
        assert isinstance(refused, DriverBusy) and "no paper" in str(refused)
        model.paper(out=False)
        assert model.receipts() == [] and model.room == model.buffer_bytes


def test_open_cover_is_refused_by_name():
    with tcp() as (model, port):
        model.cover(True)
        (refused,) = run(told(driver(port), Print(1, PAPER)))
        assert isinstance(refused, DriverBusy) and "cover" in str(refused)


def test_paper_ends_in_the_middle_of_a_receipt():
    with tcp() as (model, port):
        model.paper(lines_left=4)
        (unsure,) = run(told(driver(port), Print(1, PAPER)))
        assert isinstance(unsure, PrintUnsure) and "no paper" in unsure.why


def test_a_refill_while_we_wait_is_still_a_proof():
    async def story():
        with tcp() as (model, port):
            printer = driver(port)
            printer._talk.limits = Limits(slow_s=0.1, proof_s=5.0, line_s=0.0, poll_s=0.01)
            model.paper(lines_left=4)
            job = asyncio.create_task(printer.do(Print(1, PAPER)))
            says = printer.inputs()
            while (await anext(says)).word != "slow":
                pass
            model.paper(out=False)
            said = await job
            await says.aclose()
            await printer.close()
            return said, len(model.receipts())
    assert run(story()) == (Printed(1, 3), 1)


def test_printer_dies_in_the_middle_of_a_receipt():
    with tcp() as (model, port):
        async def story():
            printer = driver(port)
            assert await printer.do(BEFORE) == Printed(90, 3)
            model.die_after(120)
            unsure = await printer.do(Print(1, PAPER))
            assert port.settle()
            gone = await answer(printer, Print(2, PAPER))
            await printer.close()
            return unsure, gone
        answers = run(story())
        assert isinstance(answers[0], PrintUnsure) and answers[0].job == 1
        assert isinstance(answers[1], DriverGone)
        assert [r.state for r in model.receipts()] == ["whole", "torn"]


def test_printer_back_from_the_dead_prints_the_next_job_only():
    async def story():
        with tcp() as (model, port):
            printer = driver(port)
            assert await printer.do(BEFORE) == Printed(90, 3)
            model.die_after(150)
            first = await printer.do(Print(1, PAPER))
            assert port.settle()
            model.power(True)
            assert port.settle()
            second = await printer.do(Print(2, (Text("second"), Cut())))
            await printer.close()
            return first, second, [(r.state, r.text.endswith("second")) for r in model.receipts()]
    first, second, papers = run(story())
    assert isinstance(first, PrintUnsure) and second == Printed(2, 3)
    assert papers[-1] == ("whole", True) and all(state == "torn" for state, _ in papers[1:-1])


def test_mute_after_it_once_answered_is_gone_not_one_way():
    async def story():
        with tcp() as (model, port):
            printer = driver(port)
            first = await printer.do(Print(1, PAPER))
            model.silence(True)
            second = await answer(printer, Print(2, PAPER))
            await printer.close()
            return first, second, len(model.receipts())
    first, second, papers = run(story())
    assert first == Printed(1, 3)
    assert isinstance(second, DriverGone)
    assert papers == 1                                 # not a byte of the second job left


def test_behind_a_one_way_cable_the_drawer_waits_for_an_answer_once_a_connection():
    waited: list[float] = []

    class Counted(TcpLine):
        async def read(self, wait_s: float) -> bytes:
            waited.append(wait_s)
            return await super().read(0)

    async def longest(printer: Printer, effect) -> float:
        waited.clear()
        await printer.do(effect)
        return max(waited)

    async def story():
        with tcp() as (model, port):
            model.silence(True)
            line = Counted("127.0.0.1", port.port)
            printer = Printer(line, limits=Limits(slow_s=2.0))
            first = await longest(printer, KickDrawer(1))
            later = [await longest(printer, KickDrawer(2)), await longest(printer, Print(1, PAPER))]
            await line.close()
            again = await longest(printer, KickDrawer(3))
            await printer.close()
            return first, max(later), again
    first, later, again = run(story())
    assert first > 1.9 and again > 1.9 and later <= 0.25


def test_mute_in_the_middle_of_a_job_is_unsure():
    async def story():
        with tcp() as (model, port):
            printer = driver(port)
            await printer.do(Print(1, PAPER))

            def encode(paper, columns):
                return b"before\n"
            printer._encode = encode
            model.answers_id = False                   # DLE EOT still answers before the job, the proof never comes
            unsure = await printer.do(Print(2, PAPER))
            await printer.close()
            return unsure
    assert isinstance(run(story()), PrintUnsure)


def test_off_is_gone_and_back_is_fine():
    async def story():
        with tcp() as (model, port):
            printer = driver(port)
            model.power(False)
            assert port.settle()
            first = await answer(printer, Print(1, PAPER))
            model.power(True)
            assert port.settle()
            second = await printer.do(Print(1, PAPER))
            await printer.close()
            return first, second, len(model.receipts())
    first, second, papers = run(story())
    assert isinstance(first, DriverGone) and second == Printed(1, 3) and papers == 1


def test_a_dropped_connection_between_jobs_goes_unnoticed():
    async def story():
        with tcp() as (model, port):
            printer = driver(port)
            first = await printer.do(Print(1, PAPER))
            port.drop()
            second = await printer.do(Print(2, PAPER))
            await printer.close()
            return first, second, len(model.receipts())
    assert run(story()) == (Printed(1, 3), Printed(2, 3), 2)


def test_drawer_opens_also_without_paper():
    with tcp() as (model, port):
        model.paper(out=True)
        kicked, refused = run(told(driver(port), KickDrawer(4), Print(1, PAPER)))
        assert kicked == DrawerKicked(4) and isinstance(refused, DriverBusy)
        assert model.drawer_kicks == 1                 # the refusal was answered after the kick: the line keeps order


def test_printing_kicks_no_drawer():
    with tcp() as (model, port):
        evil = Text("\x1bp\x00\x32\x32\x10\x14\x01\x00\x01 \x1dV\x00")
        run(told(driver(port), Print(1, (evil, Cut()))))
        assert model.drawer_kicks == 0 and len(model.receipts()) == 1 and model.strange == []


def test_health_is_said_on_change_only():
    async def story():
        with tcp() as (model, port):
            printer = driver(port)
            says = printer.inputs()
            words = [(await anext(says)).word]
            for turn in (lambda: model.paper(out=True), lambda: model.paper(out=False, low=True),
                         lambda: model.cover(True), lambda: (model.cover(False), model.paper(low=False)),
                         lambda: model.power(False), lambda: model.power(True)):
                turn()
                words.append((await anext(says)).word)
            await printer.close()
            await says.aclose()
            return words
    assert run(story()) == ["ok", "paper_out", "paper_low", "cover_open", "ok", "gone", "ok"]


def test_a_long_receipt_through_a_slow_small_printer():
    with tcp(buffer_bytes=512, byte_s=0.00001) as (model, port):
        long = (*(Pair(f"行 {n}", "￥1.00") for n in range(200)), Cut())
        printer = driver(port)
        printer._talk.limits = Limits(slow_s=1.0, proof_s=5.0)
        assert run(told(printer, Print(1, long))) == [Printed(1, 3)]
        assert model.receipts()[0].text.count("\n") == 199


def test_a_plain_file_is_never_made_by_mistake(tmp_path):
    missing = tmp_path / "lp0"
    (gone,) = run(told(Printer(FileLine(str(missing)), limits=QUICK), Print(1, PAPER)))
    assert isinstance(gone, DriverGone) and not missing.exists()


def test_a_file_takes_the_bytes_and_proves_nothing(tmp_path):
    path = tmp_path / "paper.bin"
    assert run(told(Printer(FileLine(str(path), create=True), limits=QUICK), Print(1, PAPER), Print(2, PAPER))) == [
        Printed(1, 0), Printed(2, 0)]
    model = PrinterModel()
    model.receive(path.read_bytes())
    assert len(model.receipts()) == 2


@pytest.mark.parametrize("kind", ["serial", "file"])
def test_a_tty_answers_like_any_printer(tmp_path, kind):
    model = PrinterModel()
    port = PtyPort(model, tmp_path / "printer")
    try:
        line = SerialLine(str(port.path), 115_200) if kind == "serial" else FileLine(str(port.path))
        printer = Printer(line, limits=QUICK)
        assert run(told(printer, Print(3, PAPER), KickDrawer(1))) == [Printed(3, 3), DrawerKicked(1)]
        assert "可乐 9" in model.receipts()[0].text
    finally:
        port.close()


def test_a_serial_port_has_one_owner(tmp_path):
    port = PtyPort(PrinterModel(), tmp_path / "printer")

    async def story():
        first, second = SerialLine(str(port.path)), SerialLine(str(port.path))
        await first.open()
        try:
            await second.open()
        finally:
            await first.close()
            await second.close()
    try:
        with pytest.raises(DriverGone):
            run(story())
    finally:
        port.close()


def test_a_missing_serial_port_is_gone(tmp_path):
    (gone,) = run(told(Printer(SerialLine(str(tmp_path / "ttyUSB9")), limits=QUICK), Print(1, PAPER)))
    assert isinstance(gone, DriverGone)


def test_a_write_that_stalls_after_some_bytes_is_unsure(tmp_path):
    path = tmp_path / "lp0"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        printer = Printer(FileLine(str(path), stall_s=0.05), limits=QUICK, encode=lambda paper, columns: b"x" * 200_000)
        (unsure,) = run(told(printer, Print(1, PAPER)))
    finally:
        os.close(reader)
    assert isinstance(unsure, PrintUnsure)


def test_the_twin_keeps_papers_and_fails_as_the_printer_does():
    async def story():
        twin = PrinterSim()
        says = twin.inputs()
        words = [await anext(says)]
        answers = [await twin.do(Print(1, PAPER))]
        twin.fault(dies_after=2)
        answers.append(await twin.do(Print(2, PAPER)))
        try:
            await twin.do(Print(3, PAPER))
        except DriverGone as error:
            answers.append(type(error))
        twin.fault(off=False, paper_out=True)
        try:
            await twin.do(Print(3, PAPER))
        except DriverBusy as error:
            answers.append(type(error))
        await twin.close()
        words += [said async for said in says]
        return twin, words, answers
    twin, words, answers = run(story())
    assert answers[0] == Printed(1, 3) and isinstance(answers[1], PrintUnsure)
    assert answers[2:] == [DriverGone, DriverBusy]
    assert twin.papers == [(1, PAPER), (2, PAPER[:2])] and twin.torn == {2}
    assert [said.word for said in words] == ["ok", "ok", "gone", "paper_out"]
    assert words[0] == DeviceSaid("printer", "ok")


def test_whoever_listens_can_be_stopped_in_any_step():
    """A stop that met the end of a pause was taken for the pause's own: the box went on listening, and never stopped."""
    async def story():
        met = 0
        for steps in range(12):
            printer = Printer(FileLine("/dev/null", create=False), limits=QUICK)
            printer._stirred.set()
            pause = asyncio.create_task(printer._pause())
            for _ in range(steps):
                await asyncio.sleep(0)
            if not pause.done():
                pause.cancel()
                await asyncio.wait({pause})
                assert pause.cancelled(), steps
                met += 1
        return met
    assert run(story()) > 2
