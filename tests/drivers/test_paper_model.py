"""The printer model draws what was sent: text comes back, symbols decode, and a dead printer leaves torn paper."""

from __future__ import annotations

import io

import pytest
import zxingcpp
from PIL import Image

from device.drivers.printer import escpos_bytes as escpos
from device.txn.effects import Barcode, Cut, Pair, QrCode, Ruler, Text
from sim.devices.printer import PrinterModel, Receipt

PAY = "weixin://wxpay/bizpayurl?pr=Ab12Cd34zz&order=000001K7QF00000042X9&amount=1280"
ORDER = "000001K7QF00000042X9"


def printed(*parts, columns=48, **faults) -> tuple[PrinterModel, list[Receipt]]:
    model = PrinterModel(columns)
    model.receive(escpos.paper_bytes(parts, columns))
    return model, model.receipts()


def symbols(receipt: Receipt) -> dict[str, str]:
    return {str(found.format): found.text for found in zxingcpp.read_barcodes(Image.open(io.BytesIO(receipt.png)))}


@pytest.mark.parametrize("columns", [48, 32])
def test_qr_on_paper_decodes(columns):
    model, (receipt,) = printed(Text("请扫码付款", align="c", size=2), QrCode(PAY), Cut(), columns=columns)
    assert PAY in symbols(receipt).values()
    assert model.strange == []


def test_barcode_on_wide_paper_is_code_128():
    model, (receipt,) = printed(Barcode(ORDER), Cut())
    assert [(kind.replace(" ", "").lower(), text) for kind, text in symbols(receipt).items()] == [("code128", ORDER)]
    assert model.strange == []


def test_barcode_too_wide_for_the_paper_is_still_readable():
    model, (receipt,) = printed(Barcode(ORDER), Cut(), columns=32)
    assert ORDER in symbols(receipt).values()
    assert model.strange == []


def test_braces_survive_code_128():
    _, (receipt,) = printed(Barcode("A{B}{{C"), Cut())
    assert list(symbols(receipt).values()) == ["A{B}{{C"]


def test_text_on_paper_is_what_was_sent():
    _, (receipt,) = printed(Text("便利店", align="c", size=2, bold=True), Ruler(), Pair("农夫山泉 550ml", "¥2.00"),
                            Text("合计 ￥2.00"), Cut())
    assert receipt.text.split("\n") == ["便利店", "-" * 48, "农夫山泉 550ml" + " " * 28 + "￥2.00", "合计 ￥2.00"]
    assert (receipt.n, receipt.cut, receipt.state, receipt.drawer_kicks) == (1, True, "whole", 0)


def test_every_line_of_our_layout_fits_the_paper():
    model, (receipt,) = printed(*(Pair("汉a" * n, "￥1.00") for n in range(40)), Cut(), columns=32)
    assert all(len(line.encode("gbk")) <= 32 for line in receipt.text.split("\n"))
    assert "".join(receipt.text.split()).count("￥1.00") == 40


def test_a_byte_at_a_time_gives_the_same_paper():
    data = escpos.paper_bytes((Text("汉字 abc"), QrCode(PAY), Barcode("123"), Cut()))
    whole, dribble = PrinterModel(), PrinterModel()
    whole.receive(data)
    for byte in data:
        dribble.receive(bytes([byte]))
    assert dribble.receipts() == whole.receipts()


def test_paper_that_dies_is_torn_and_the_rest_is_lost():
    model = PrinterModel()
    data = escpos.paper_bytes((*(Text(f"row {n}") for n in range(20)), Cut()))
    model.die_after(len(data) // 2)
    model.receive(data)
    (receipt,) = model.receipts()
    assert receipt.state == "torn" and not receipt.cut
    assert "row 0" in receipt.text and "row 19" not in receipt.text
    model.power(True)
    model.receive(escpos.paper_bytes((Text("next"), Cut())))
    assert model.receipts()[1].text == "next"


def test_paper_out_at_a_row_prints_the_rest_after_the_refill():
    model = PrinterModel()
    said = bytearray()
    model.say = said.extend
    model.paper(lines_left=2)
    model.receive(escpos.paper_bytes((Text("1"), Text("2"), Text("3"), Cut())) + escpos.id_query(7))
    model.receive(escpos.status_query(4))
    assert model.receipts() == [] and said == b"\x7e"
    model.paper(out=False)
    assert model.receipts()[0].text == "1\n2\n3"
    assert said == b"\x7e\x37\x220007\x00"


def test_drawer_kicks_are_counted_queued_and_real_time():
    model = PrinterModel()
    model.receive(escpos.drawer_bytes() + escpos.drawer_now_bytes())
    assert (model.drawer_kicks, model.drawer_open) == (2, True)
    model.paper(out=True)
    model.receive(escpos.drawer_bytes())
    assert model.drawer_kicks == 2                     # off-line: queued
    model.receive(escpos.drawer_now_bytes())
    assert model.drawer_kicks == 3


def test_raster_with_a_command_inside_kicks_nothing():
    rows = b"\x10\x14\x01\x00\x01\xff" * 64
    model = PrinterModel()
    model.receive(b"\x1dv0\x00\x06\x00\x40\x00" + rows)
    assert model.drawer_kicks > 0                      # the model is as naive as printers are
    safe = PrinterModel()
    safe.receive(b"".join(escpos.raster_strips(rows, 6)) + escpos.CUT)
    assert safe.drawer_kicks == 0 and len(safe.receipts()) == 1 and safe.strange == []
