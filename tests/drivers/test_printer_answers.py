"""A printer that answers garbage, nothing, or too late: no proof that is not one, no crash, no endless listening."""

from __future__ import annotations

import asyncio
import random

import pytest

from device.drivers.printer import escpos_bytes as escpos
from device.drivers.printer.driver import Limits, Printer
from device.errors import DriverBusy, DriverGone
from device.txn.effects import Cut, KickDrawer, Print, Text
from device.txn.inputs import Printed, PrintUnsure
from sim.devices.printer import PrinterModel
from tests.paper_trail import NEVER_SLOW, BrokenLine

ABLE = {3: {}, 2: {"answers_id": False}, 1: {"answers_id": False, "answers_queued": False}}


def paper(n: int) -> Print:
    return Print(n, (Text(f"receipt {n}"), Text("total"), Cut()))


def on_paper(model: PrinterModel, n: int) -> int:
    return sum(r.state == "whole" and r.text == f"receipt {n}\ntotal" for r in model.receipts())


async def told(printer: Printer, effect):
    try:
        return await printer.do(effect)
    except (DriverBusy, DriverGone) as why:
        return why


def changed(data: bytes, die: random.Random) -> bytes:
    """A reply as a bad cable or another machine would give it."""
    kind = die.randrange(6)
    if kind == 0:
        return b""
    if kind == 1:
        return die.randbytes(die.randrange(1, 40))
    if kind == 2:
        return data + die.randbytes(2)
    if kind == 3:
        return bytes(b ^ 1 << die.randrange(8) for b in data)
    if kind == 4:
        return b"\x37\x22" + data * 40
    return data


@pytest.mark.parametrize("level", [3, 2, 1])
def test_garbage_is_never_a_proof_of_what_did_not_happen(level):
    """The cable is whole, so each job is printed or refused; what changes is only what is said of it."""
    async def stories() -> None:
        for seed in range(60):
            die = random.Random(seed)
            model = PrinterModel(draws=False, **ABLE[level])
            line = BrokenLine(model)
            heard = line._heard
            model.say = lambda data, die=die, heard=heard: heard.extend(changed(data, die))
            printer = Printer(line, limits=NEVER_SLOW)
            for n in range(1, 8):
                lies_flat = die.random() < 0.2
                if lies_flat:
                    line.cut, line.silent = die.randrange(1, 30), True
                said = await told(printer, paper(n))
                line.silent = False
                assert isinstance(said, Printed | PrintUnsure | DriverBusy | DriverGone), (seed, n)
                assert on_paper(model, n) <= 1, (seed, n)
                if isinstance(said, DriverBusy | DriverGone):
                    assert not on_paper(model, n), (seed, n)
                if isinstance(said, Printed) and said.proof == 3:
                    assert on_paper(model, n) == 1, (seed, n, said)
    asyncio.run(stories())


def test_a_printer_that_babbles_is_gone_and_its_sentence_says_why():
    class Babble(BrokenLine):
        async def read(self, wait_s: float) -> bytes:
            return b"\x16\x00\xff" * 1000

    async def story():
        printer = Printer(Babble(PrinterModel(draws=False)), limits=NEVER_SLOW)
        async with asyncio.timeout(5):
            return await told(printer, paper(1)), printer.word
    said, word = asyncio.run(story())
    assert isinstance(said, DriverGone) and "without end" in said.what and word == "gone"


def test_a_printer_that_begins_to_babble_when_asked_is_not_listened_to_for_ever():
    class Babble(BrokenLine):
        asked = False

        async def write(self, data: bytes) -> None:
            self.asked = True
            await super().write(data)

        async def read(self, wait_s: float) -> bytes:
            if not self.asked:
                return b""
            self.asked = wait_s > 0                    # until the next question, so that what was said before it can be read away
            return b"\xff" * 1000

    class Endless(Babble):
        async def read(self, wait_s: float) -> bytes:
            await asyncio.sleep(0)                     # so that a driver that listens for ever is found out by the clock
            return b"\xff" * 1000 if self.asked else b""

    async def story(line):
        printer = Printer(line, limits=NEVER_SLOW)
        async with asyncio.timeout(5):
            return await told(printer, paper(1))
    assert asyncio.run(story(Babble(PrinterModel(draws=False)))) == Printed(1, 0)     # not an answer among it: sent, and no more
    assert isinstance(asyncio.run(story(Endless(PrinterModel(draws=False)))), DriverGone | Printed)


class LateLine(BrokenLine):
    """Answers to queued questions stay in the printer until `late` is let go of; real-time ones come at once, as they do."""

    def __init__(self, model: PrinterModel) -> None:
        super().__init__(model)
        self.late: list[bytes] | None = None
        at_once = self._heard.extend

        def say(data: bytes) -> None:
            if self.late is not None and not (len(data) == 1 and data[0] & 0x93 == 0x12):
                self.late.append(data)
            else:
                at_once(data)
        model.say = say
        self._at_once = at_once

    def let_go(self, count: int) -> None:
        assert self.late is not None
        for data in self.late[:count]:
            self._at_once(data)
        self.late = self.late[count:] or None


@pytest.mark.parametrize(("level", "name"), [(3, "X"), (2, "X"), (2, "")])
def test_a_late_answer_proves_no_later_receipt(level, name):
    """Job 1's answer comes while job 2 is under way, of which not a line reaches paper."""
    async def story(n_first: int):
        model = PrinterModel(draws=False, name=name, **ABLE[level])
        line = LateLine(model)
        printer = Printer(line, limits=NEVER_SLOW)
        assert await told(printer, paper(1)) == Printed(1, level)
        line.late = []
        first = await told(printer, paper(2))
        assert isinstance(first, PrintUnsure)
        busy = await told(printer, paper(3))           # nothing queued is answered: it is still at it
        assert isinstance(busy, DriverBusy) and printer.word == "slow" or level == 3 and not name
        line.let_go(n_first)
        if line.late is not None:
            line.let_go(99)
        line.cut, line.silent = 5, True                # five bytes of it leave, and nobody notices
        third = await told(printer, paper(3))
        return third, on_paper(model, 3)
    for n_first in (1, 2):
        third, there = asyncio.run(story(n_first))
        assert there == 0 and not isinstance(third, Printed), (n_first, third)


def test_a_run_begins_its_numbers_anywhere():
    """The printer may still answer a number of the run before."""
    firsts = set()
    for _ in range(8):
        printer = Printer(BrokenLine(PrinterModel(draws=False)), limits=NEVER_SLOW)
        asyncio.run(told(printer, paper(1)))
        firsts.add(printer._talk.asked)
    assert len(firsts) > 4


def test_another_model_is_named_and_still_prints():
    async def story():
        model = PrinterModel(draws=False, name="RP326")
        printer = Printer(BrokenLine(model), limits=NEVER_SLOW, model="TM-T88")
        await printer._look()
        return printer._news.popleft(), await told(printer, paper(1)), printer.model
    said, printed, model = asyncio.run(story())
    assert (said.part, said.word) == ("printer", "wrong_model") and "RP326" in said.why and "TM-T88" in said.why
    assert printed == Printed(1, 3) and model == "RP326"
    assert escpos.model_of(b"_TM-T88V\0") == "TM-T88V"


@pytest.mark.parametrize(("switch", "word"), [({"cutter": True}, "cutter"), ({"hot": True}, "hot")])
def test_an_error_is_named_by_its_cause(switch, word):
    async def story():
        model = PrinterModel(draws=False)
        model.fault(**switch)
        printer = Printer(BrokenLine(model), limits=NEVER_SLOW)
        return await told(printer, paper(1)), printer.word, model.receipts()
    said, found, papers = asyncio.run(story())
    assert isinstance(said, DriverBusy) and found == word and papers == []


@pytest.mark.parametrize("opens", ["high", "low"])
def test_a_drawer_with_a_sensor(opens):
    """Polarity is a setting; a drawer that did not open, one that is left open, and one that is shut again are said once."""
    async def story():
        model = PrinterModel(draws=False)
        if opens == "low":
            model.drawer_low()
        limits = Limits(slow_s=0.0, proof_s=0.0, line_s=0.0, kick_s=0.0, drawer_s=0.0)
        printer = Printer(BrokenLine(model), limits=limits, drawer_sensor=opens)
        words = []
        async def look():
            await printer._look()
            words.extend((n.part, n.word) for n in printer._news if n.part == "drawer")
            printer._news.clear()
        await look()
        await told(printer, KickDrawer(1))
        await look()
        model.close_drawer()
        await look()
        model.drawer_stuck = True
        await told(printer, KickDrawer(2))
        await look()
        await look()
        model.drawer_stuck = False
        await told(printer, KickDrawer(3))
        await look()
        return words
    assert asyncio.run(story()) == [("drawer", "left_open"), ("drawer", "ok"), ("drawer", "stuck"), ("drawer", "left_open")]


def test_a_drawer_without_a_wire_says_nothing():
    async def story():
        printer = Printer(BrokenLine(PrinterModel(draws=False)), limits=NEVER_SLOW)
        await told(printer, KickDrawer(1))
        await printer._look()
        return [n for n in printer._news if n.part == "drawer"]
    assert asyncio.run(story()) == []
