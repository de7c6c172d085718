"""Receipts as they stand on paper: what is drawn now is what was looked at, and the symbols on it can be read."""

from __future__ import annotations

import io

import pytest
import zxingcpp
from PIL import Image

from device.drivers.printer import escpos_bytes as escpos
from device.drivers.printer.dialect_bytes import CUTS, DIALECTS, Page
from device.drivers.printer.raster import Logo, Raster
from device.txn.effects import Barcode, Cut, Pair, QrCode, Text
from sim.devices.printer import PrinterModel
from tests.golden.__main__ import HERE
from tests.golden.receipt_papers import CHARSETS, ENGLISH, NO, PAPERS, RARE, WIDTHS, pictures, printed


def read(png: bytes) -> set[str]:
    return {found.text for found in zxingcpp.read_barcodes(Image.open(io.BytesIO(png)))}


def test_every_golden_receipt_is_what_is_drawn_now():
    """`python -m tests.golden` draws them anew; look at the difference before you keep it."""
    now = pictures()
    assert {file.name for file in (HERE / "receipts").glob("*.png")} == set(now)
    for name, png in now.items():
        kept = Image.open(HERE / "receipts" / name)
        assert kept.tobytes() == Image.open(io.BytesIO(png)).tobytes(), name
        if name.startswith("sale"):
            assert NO in read(png), name


@pytest.mark.parametrize("columns", WIDTHS.values())
@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_dialect_sends_what_its_printer_does_not_know(dialect, columns):
    for paper in (*PAPERS.values(), ENGLISH, RARE):
        receipt, strange = printed(paper, dialect, columns)
        assert strange == [] and receipt.cut and "?" not in receipt.text and "\ufffd" not in receipt.text


def test_our_own_dialect_is_the_plain_encoder():
    for paper in PAPERS.values():
        assert Page(DIALECTS["chinese"], Raster())(paper, 48) == escpos.paper_bytes(paper, 48)


@pytest.mark.parametrize("dialect", ["western", "cp437", "chinese", "raster"])
def test_dots_stand_in_the_columns_of_text(dialect):
    """An amount at the right edge is all there: the last column of dots of a raster line lies inside the paper."""
    paper = (Pair("茶 € ｶﾅ 合计", "8888.88"), Cut())
    receipt, _ = printed(paper, dialect, 32)
    image = Image.open(io.BytesIO(receipt.png)).convert("L")
    dark = [x for x in range(image.width) if image.getpixel((x, 40)) == 0]
    whole, _ = printed((Pair("x", "8888.88"), Cut()), "chinese", 32)
    text = Image.open(io.BytesIO(whole.png)).convert("L")
    right = [x for x in range(text.width) if text.getpixel((x, 40)) == 0]
    assert abs(max(dark) - max(right)) <= 2


@pytest.mark.parametrize("dialect", DIALECTS)
def test_no_text_becomes_a_command_in_any_dialect(dialect):
    evil = "\x1bp\x00\x32\x32\x10\x14\x01\x00\x01 \x1dV\x00\x10\x04\x01 é\u202e\u200f ‮茶"
    paper = (Text(evil), Pair(evil, evil), QrCode(evil), Barcode(evil), Cut())
    model = PrinterModel(charset=CHARSETS.get(dialect, "gbk"))
    said = bytearray()
    model.say = said.extend
    model.receive(Page(DIALECTS[dialect], Raster())(paper, 48))
    assert model.drawer_kicks == 0 and len(model.receipts()) == 1 and model.strange == [] and said == b""


def test_dots_never_hold_a_real_time_command():
    """Every third byte pattern in a picture; a printer that obeys DLE EOT inside image data answers nothing to it."""
    rows = b"".join(bytes((0x10, n, 0x10, 4 + n % 2, 0x10, 0x14, 1, n % 2)) for n in range(256))
    for strip in escpos.raster_strips(rows, 8):
        assert not any(command in strip for command in escpos.REAL_TIME)
        assert len(strip) <= escpos.RASTER_BYTES_MAX + 8


def test_a_strip_of_dots_is_shorter_than_what_a_resync_fills():
    paper = (Text("茶" * 400), QrCode("x" * 400), Cut())
    for columns in (24, 32, 42, 48, 64):
        for piece in Page(DIALECTS["raster"], Raster())(paper, columns).split(b"\x1dv0")[1:]:
            assert len(piece) - 5 <= escpos.RESYNC.count(0)


@pytest.mark.parametrize("cut", CUTS)
def test_a_paper_ends_as_the_printer_can(cut):
    data = Page(DIALECTS["chinese"], Raster(), cut=cut)((Text("a"), Cut()), 48)
    assert data.endswith(CUTS[cut])


def test_a_qr_by_dots_says_the_same():
    receipt, _ = printed((QrCode("https://例.example/付款?x=1"), Cut()), "chinese", 32, qr="raster")
    assert read(receipt.png) == {"https://例.example/付款?x=1"}


def test_a_logo_stands_on_top_and_a_broken_one_costs_no_receipt(tmp_path, caplog):
    logo = tmp_path / "logo.png"
    Image.new("RGBA", (1200, 300), (0, 0, 0, 255)).save(logo)
    receipt, strange = printed((Text("sale"), Cut()), "chinese", 48, logo=Logo(str(logo)))
    image = Image.open(io.BytesIO(receipt.png)).convert("L")
    assert strange == [] and image.getpixel((24 + 288, 24 + 70)) == 0 and image.height > 170
    logo.write_bytes(b"\x89PNG\r\n\x1a\n" + b"rot" * 20)
    for broken in (str(logo), str(tmp_path / "none.png")):
        receipt, _ = printed((Text("sale"), Cut()), "chinese", 48, logo=Logo(broken))
        assert receipt.text == "sale" and "no logo" in caplog.text
