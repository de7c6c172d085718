"""What reaches the printer: golden bytes, a second opinion from python-escpos, and no command hidden in a name."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device.drivers.printer import escpos_bytes as escpos
from device.drivers.printer.library import LibraryEncoder
from device.errors import ConfigError
from device.txn.effects import Barcode, Cut, Pair, QrCode, Ruler, Text
from sim.devices.printer import PrinterModel

HEAD = b"\x1b@\x1c&"


def body(*parts, columns=48) -> bytes:
    data = escpos.paper_bytes(parts, columns)
    assert data.startswith(HEAD)
    return data[len(HEAD):]


# --- goldens ---

def test_golden_receipt():
    assert body(Text("合计", align="c", size=2, bold=True), Pair("可乐", "¥3.50"), Ruler(), Cut(), columns=32) == (
        b"\x1ba\x01\x1bE\x01\x1d!\x11\x1c!\x0c\xba\xcf\xbc\xc6\n\x1d!\x00\x1c!\x00\x1bE\x00\x1ba\x00"
        + b"\xbf\xc9\xc0\xd6" + b" " * 22 + b"\xa3\xa43.50\n"
        + b"-" * 32 + b"\n"
        + b"\x1dVB\x00")


def test_golden_qr():
    assert body(QrCode("weixin://x")) == (
        b"\x1ba\x01\x1bJ\x12\x1d(k\x04\x001A2\x00\x1d(k\x03\x001C\x06\x1d(k\x03\x001E1"
        b"\x1d(k\x0d\x001P0weixin://x\x1d(k\x03\x001Q0\n\x1ba\x00")


def test_golden_barcode_and_drawer():
    assert b"\x1dkI\x07{B12{{A" in body(Barcode("12{A"))
    assert escpos.drawer_bytes() == b"\x1bp\x00\x32\x32"
    assert escpos.drawer_bytes(5, 200, 50) == b"\x1bp\x01\x64\x19"
    assert escpos.drawer_now_bytes() == b"\x10\x14\x01\x00\x01"
    assert escpos.id_query(12) == b"\x1d(H\x06\x00000012"


def test_second_opinion_of_the_library(tmp_path):
    page = LibraryEncoder("default", tmp_path / "p")._page
    bold = page()
    bold.set(bold=True, align="center")
    assert {b"\x1bE\x01", b"\x1ba\x01"} <= set(re.findall(rb"\x1b[Ea].", bold.output))
    assert body(Text("x", align="c", bold=True)).startswith(b"\x1ba\x01\x1bE\x01")
    qr = page()
    qr.qr("weixin://x", native=True, size=6, ec=1)
    pieces = re.findall(rb"\x1d\(k..1[ACEPQ][^\x1d\x1b\n]*", qr.output, re.S)
    assert pieces and all(piece in body(QrCode("weixin://x")) for piece in pieces)
    cut = page()
    cut.cut(feed=False)
    assert cut.output == escpos.CUT
    kick = page()
    kick.cashdraw(2)
    assert kick.output == escpos.drawer_bytes()
    bars = page()
    bars.barcode("{B12A", "CODE128", function_type="B", align_ct=False)
    assert b"\x1dkI\x05{B12A" in bars.output and b"\x1dkI\x05{B12A" in body(Barcode("12A"))


# --- nothing hidden in a name ---

NAMES = st.text(st.one_of(st.characters(), st.sampled_from("\x00\x1b\x1d\x10\x04\x05\x14\x1cVp@\x7f\x85\u202e中￥A ")))
PARTS = st.one_of(
    st.builds(Text, text=NAMES, align=st.sampled_from("lcr"), size=st.sampled_from((1, 2)), bold=st.booleans()),
    st.builds(Pair, left=NAMES, right=NAMES), st.builds(QrCode, text=NAMES), st.builds(Barcode, text=NAMES))
TEMPLATES = re.compile(
    rb"\x1ba[\x00-\x02]|\x1bE[\x00\x01]|\x1d!\x00\x1c!\x00|\x1d!\x11\x1c!\x0c|\x1dh\x50\x1dw\x02\x1df\x00\x1dH\x02"
    rb"|\x1bJ\x12|\x1dkI.|\x1d\(k\x04\x001A2\x00|\x1d\(k\x03\x001C[\x01-\x10]|\x1d\(k\x03\x001[EQ].|\x1d\(k..1P0", re.S)


@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=4), st.sampled_from((48, 32)))
def test_no_name_is_a_command(parts, columns):
    data = body(*parts, columns=columns)
    bare = TEMPLATES.sub(b"", data)
    assert not [b for b in bare if (b < 0x20 and b != 0x0A) or b == 0x7F]
    assert not any(command in data for command in escpos.REAL_TIME)


@settings(max_examples=80, deadline=None)
@given(st.lists(PARTS, max_size=3))
def test_no_name_cuts_or_kicks_at_the_printer(parts):
    model = PrinterModel()
    model.receive(escpos.paper_bytes((*parts, Text("end"), Cut())))
    assert model.drawer_kicks == 0 and len(model.receipts()) == 1 and model.strange == []


# --- layout ---

@settings(deadline=None)
@given(st.text(), st.integers(4, 48))
def test_wrapped_lines_fit_and_lose_only_spaces(text, columns):
    plain = escpos.clean(text)
    lines = escpos.wrapped(plain, columns)
    assert all(escpos.width(line) <= columns for line in lines)
    assert "".join(lines).replace(" ", "") == plain.replace(" ", "")


@settings(deadline=None)
@given(st.text(), st.text(max_size=60), st.sampled_from((16, 24, 32, 48)))
def test_paired_lines_fit_and_end_with_the_right_side(left, right, columns):
    left, right = escpos.clean(left), escpos.clean(right)
    lines = escpos.paired(left, right, columns)
    assert all(escpos.width(line) <= columns for line in lines)
    if right and escpos.width(right) < columns:
        assert lines[-1].endswith(right) and escpos.width(lines[-1]) == columns


@pytest.mark.parametrize(("text", "shown"), [
    ("¥9", "￥9"), ("A–B", "A-B"), ("“引”‘号’", "“引”‘号’"), ("等…", "等…"), ("茶🍵", "茶?"),
    ("naïve Ştr", "naive Str"),
    ("a\u200bb\u202ec", "abc"), ("\x1bp\x002", "p2"), ("a\tb", "a b"), ("㎏", "㎏"), ("€5", "EUR5"), ("Ⅷ㊣", "Ⅷ㊣"),
    ("\ufb01n", "fin"), ("가", "?"), ("\U00020000", "?"),
])
def test_what_gbk_cannot_carry(text, shown):
    assert escpos.clean(text) == shown


def test_a_wide_character_never_straddles_the_edge():
    assert escpos.wrapped("a" + "汉" * 16, 32) == ["a" + "汉" * 15, "汉"]
    assert escpos.wrapped("Mineral water sparkling", 16) == ["Mineral water", "sparkling"]
    assert escpos.wrapped("", 32) == [""]


def test_qr_shrinks_to_the_paper_and_a_hopeless_one_is_text():
    wide = body(QrCode("x" * 900, module=16), columns=32)
    assert wide[wide.index(b"1C") + 2] * (17 + 4 * 25 + 8) <= 384
    assert b"\x1d(k" not in body(QrCode("x" * 1500))


# --- raster ---

@settings(deadline=None)
@given(st.lists(st.sampled_from(b"\x10\x04\x05\x14\x01\x00\xff"), min_size=1, max_size=300), st.integers(1, 8))
def test_raster_hides_no_command_and_loses_few_dots(data, row_bytes):
    rows = bytes(data) + b"\x00" * (-len(data) % row_bytes)
    strips = escpos.raster_strips(rows, row_bytes, 16)
    assert not any(command in strip for strip in strips for command in escpos.REAL_TIME)
    drawn = b"".join(strip[8:] for strip in strips)
    assert len(drawn) == len(rows) and all(a == b or (a, b) == (0x10, 0) for a, b in zip(rows, drawn, strict=True))


# --- status ---

@pytest.mark.parametrize(("data", "kinds"), [
    (b"\x16", ["eot"]), (b"\x12\x1a", ["eot", "eot"]), (b"\x0c", ["queued"]), (b"\x10\x00\x00\x00", ["asb"]),
    (b"\x38\x00\x00\x00\x12", ["asb", "eot"]), (b"\x37\x220007\x00", ["id"]), (b"\x5fTM\x00\x03", ["block", "queued"]),
    (b"\x11\x13", ["xon", "xoff"]), (b"\x10\x00\x12", ["noise", "eot"]), (b"\x37\x22\x12", ["noise", "eot"]),
    (b"\x80", ["noise"]), (b"\x3d0\x00", ["block"]),
])
def test_replies_are_told_apart(data, kinds):
    reader = escpos.StatusReader()
    assert [reply.kind for reply in reader.feed_all(data)] == kinds


@given(st.binary(max_size=300))
def test_any_bytes_are_read_whole_or_not_at_all(data):
    reader = escpos.StatusReader()
    replies = reader.feed_all(data) + reader.feed_all(b"\x12\x12")
    assert replies[-1] == escpos.Reply("eot", b"\x12")


def test_complaints_have_words():
    assert escpos.ill(1, 0x16) is None and escpos.ill(2, 0x12) is None
    assert escpos.ill(2, 0x16)[0] == "cover_open" and escpos.ill(4, 0x72)[0] == "paper_out"
    assert escpos.ill(1, 0x1A)[0] == "off" and escpos.paper_low(0x1E) and not escpos.paper_low(0x12)
    assert escpos.queued_paper_out(0x0C) and not escpos.queued_paper_out(0x03)


# --- the library behind its adapter ---

def test_library_import_leaves_no_trace(tmp_path):
    script = (
        "import logging, os, sys, tempfile\n"
        "from device.drivers.printer.library import LibraryEncoder\n"
        "assert 'escpos' not in sys.modules\n"
        "from device.txn.effects import Cut\n"
        f"data = LibraryEncoder('simple', {str(tmp_path / 'pickle')!r})((Cut(),), 48)\n"
        "assert data.endswith(b'\\x1bd\\x06'), data\n"
        "print(logging.root.handlers, sorted(os.listdir(tempfile.gettempdir())))\n")
    temp = tmp_path / "temp"
    temp.mkdir()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True,
                          env={**os.environ, "TMPDIR": str(temp), "PYTHONPATH": os.getcwd()})
    assert done.stdout.strip() == "[] []"
    assert (tmp_path / "pickle").stat().st_mode & 0o777 == 0o700
    assert [p.suffix for p in (tmp_path / "pickle").iterdir()] == [".pickle"]


def test_library_refuses_a_shared_folder_and_an_unknown_profile(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError):
        LibraryEncoder("default", shared)((Cut(),), 48)
    with pytest.raises(ConfigError, match="no-such"):
        LibraryEncoder("no-such", tmp_path / "own")((Cut(),), 48)
    assert not [h for h in logging.root.handlers if type(h) is logging.StreamHandler]


def test_library_draws_a_qr_where_the_profile_has_none(tmp_path):
    import io

    import zxingcpp
    from PIL import Image

    encode = LibraryEncoder("POS-5890", tmp_path / "p")
    assert not encode._supports("qrCode")
    model = PrinterModel(32)
    model.receive(encode((Text("扫码"), QrCode("weixin://wxpay/x")), 32) + escpos.CUT)
    (receipt,) = model.receipts()
    assert [s.text for s in zxingcpp.read_barcodes(Image.open(io.BytesIO(receipt.png)))] == ["weixin://wxpay/x"]
    assert model.strange == []
