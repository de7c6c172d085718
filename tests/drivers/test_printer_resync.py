"""A job that breaks off anywhere, in a printer that keeps its power: the next one prints whole, on a piece of its own."""

from __future__ import annotations

import asyncio

import pytest

from bench.till import GOODS, TERMS
from device.drivers.printer import escpos_bytes as escpos
from device.drivers.printer.dialect_bytes import DIALECTS, Page
from device.drivers.printer.driver import Printer
from device.drivers.printer.raster import Raster
from device.errors import DriverGone
from device.txn.books import Line, Sale, Tender
from device.txn.effects import Barcode, Cut, KickDrawer, Print, QrCode, Text
from device.txn.inputs import DrawerKicked, Printed, PrintUnsure
from device.txn.receipt import sale_paper
from device.types import Stamp
from sim.devices.printer import PrinterModel
from tests.paper_trail import NEVER_SLOW, BrokenLine

NO = "000001K7QF00000042X9"
LINES = [Line(f.item.gtin, f.item.name_zh, f.item.name_en, 1000, f.item.price_fen, f.item.price_fen) for f in GOODS]
SALE = Sale(NO, LINES, [Tender("wechat", 750, NO)], 750, "1", "2026-11-24T10:00:00+08:00")
RECEIPT = sale_paper(TERMS, SALE, Stamp("b1", 1, "2026-11-24T10:00:00+08:00", "ntp"))
BYTES = escpos.paper_bytes(RECEIPT)
NEXT = (Text("第二张 second", size=2), QrCode("next"), Barcode("12345"), Text("end"), Cut())


def whole(paper) -> str:
    model = PrinterModel()
    model.receive(escpos.paper_bytes(paper))
    return model.receipts()[0].text


@pytest.fixture(scope="module")
def second() -> str:
    return whole(NEXT)


def test_without_the_prefix_some_cuts_eat_the_next_receipt(second):
    """The danger is real on this model; else the test below would prove nothing."""
    eaten = 0
    symbol = BYTES.index(b"\x1d(k")
    for cut in range(symbol, symbol + 80):
        model = PrinterModel()
        model.receive(BYTES[:cut] + escpos.paper_bytes(NEXT))
        papers = model.receipts()
        eaten += not papers or not papers[-1].text.endswith(second)
    assert eaten > 10


def test_after_every_cut_the_next_receipt_is_whole_and_alone(second):
    first = whole(RECEIPT)
    for cut in range(1, len(BYTES)):
        model = PrinterModel()
        model.receive(BYTES[:cut] + escpos.RESYNC + escpos.CUT + escpos.paper_bytes(NEXT))
        *before, last = model.receipts()
        assert (last.text, last.cut) == (second, True), cut
        assert len(before) <= 1 and all(first.startswith(torn.text[:20]) for torn in before), cut


def test_a_picture_that_breaks_off_eats_nothing_either(second):
    data = Page(DIALECTS["raster"], Raster())(RECEIPT, 48)
    assert len(data) > 20_000
    for cut in range(1, len(data), 257):
        model = PrinterModel(draws=False)
        model.receive(data[:cut] + escpos.RESYNC + escpos.CUT + escpos.paper_bytes(NEXT))
        *before, last = model.receipts()
        assert (last.text, last.cut, len(before) <= 1) == (second, True, True), cut


@pytest.mark.parametrize("reads", [True, False])
def test_the_driver_does_so_after_a_broken_job_and_at_start(reads, second):
    async def story(cut: int) -> None:
        model = PrinterModel()
        line = BrokenLine(model, reads=reads)
        printer = Printer(line, limits=NEVER_SLOW)
        assert await printer.do(KickDrawer(1)) == DrawerKicked(1)
        line.cut = cut
        unsure = await printer.do(Print(1, RECEIPT))
        assert isinstance(unsure, PrintUnsure), cut
        if cut % 2:                                    # the daemon died too: a new driver knows nothing
            printer = Printer(BrokenLine(model, reads=reads), limits=NEVER_SLOW)
        assert isinstance(await printer.do(Print(2, NEXT)), Printed), cut
        assert isinstance(await printer.do(Print(3, NEXT)), Printed), cut
        assert [paper.text for paper in model.receipts()[-2:]] == [second, second], cut

    async def stories() -> None:
        for cut in range(1, len(BYTES) - 20, 9):
            await story(cut)
    asyncio.run(stories())


def test_a_prefix_that_breaks_off_leaves_no_receipt_in_doubt(second):
    async def story() -> None:
        model = PrinterModel()
        line = BrokenLine(model, reads=False)
        printer = Printer(line, limits=NEVER_SLOW)
        await line.open()
        for left in (1, 500, len(escpos.RESYNC) - 1):
            line.is_open, line.left = True, left
            line.open = _refuse                                        # type: ignore[method-assign]
            with pytest.raises(DriverGone):
                await printer.do(Print(1, RECEIPT))
        assert model.receipts() == []
        line.open = BrokenLine.open.__get__(line)                      # type: ignore[method-assign]
        assert isinstance(await printer.do(Print(1, NEXT)), Printed)
        assert [paper.text for paper in model.receipts()] == [second]
    asyncio.run(story())


def test_a_cut_that_was_lost_with_its_connection_is_made_again(second):
    """The kernel takes the cut, and the line dies before the job: nobody knows whether the broken receipt was cut off."""
    class Dying(BrokenLine):
        dies = False

        async def write(self, data: bytes) -> None:
            if self.dies and data != escpos.CUT and not data.startswith(b"\0"):
                self.is_open = False
                raise DriverGone("broken", which="printer")
            if not self.dies or data != escpos.CUT:
                await super().write(data)

    async def story() -> None:
        model = PrinterModel()
        line = Dying(model, reads=False)
        printer = Printer(line, limits=NEVER_SLOW)
        line.cut = 200
        assert isinstance(await printer.do(Print(1, RECEIPT)), PrintUnsure)
        line.dies = True
        with pytest.raises(DriverGone):
            await printer.do(Print(2, NEXT))
        line.dies = False
        assert isinstance(await printer.do(Print(2, NEXT)), Printed)
        assert model.receipts()[-1].text == second
    asyncio.run(story())


async def _refuse() -> None:
    raise DriverGone("no way there", which="printer")


def test_the_longest_command_of_ours_is_shorter_than_the_filling():
    longest = max(len(piece) for size in (1, 300, escpos.QR_BYTES_MAX) for piece in
                  escpos.part_bytes(QrCode("x" * size)).split(b"\x1d(k"))
    assert longest + 3 < escpos.RESYNC.count(0) and 3 + 255 < escpos.RESYNC.count(0)
