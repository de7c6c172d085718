"""The customer's screen: what a phone can read off it, what never stays on it, and how its pixels reach a panel."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import re
import struct

import msgspec
import pytest
import zxingcpp
from PIL import Image, ImageFilter

from device.drivers import qr_bits
from device.drivers.display import draw as display_draw
from device.drivers.display import show as display_show
from device.drivers.display.draw import Canvas, frame, layout, seconds_left
from device.drivers.display.fb import FbDisplay, Geometry, geometry_of
from device.drivers.display.file import FileDisplay
from device.drivers.display.pixels import packed, turned, turned_box
from device.drivers.display.sim import DisplaySim
from device.errors import DriverGone
from device.txn.check_words import check_words
from device.txn.inputs import DeviceSaid
from device.txn.screen import Line, Screen
from sim.devices.display import frame_no, frame_png
from tests import ROOT

URL = "https://qr.alipay.com/bax08431lmnopqrstuvw5500cd?t=1763890000&sign=Zm9vYmFyYmF6cXV4MDEyMzQ1"[:84].ljust(84, "0")
SIZES = [(320, 240), (480, 320), (800, 480), (1280, 800)]
LINES = (Line("农夫山泉饮用天然水 550ml", "2", 400), Line("香蕉", "0.512 kg", 409),
         Line("心相印茶语丝享系列抽取式面巾纸三层120抽6包装超值家庭装", "1", 2590))
IDLE = Screen("IDLE", "阳光便利店", notice="欢迎光临")
BASKET = Screen("BASKET", "阳光便利店", lines=LINES, lines_total=3, total_fen=3399, big="¥33.99")
PAY = Screen("AWAITING", "请用微信扫码付款", lines=LINES, lines_total=3, total_fen=3399, big="¥33.99", qr=URL,
             order_no="0000017K3M00000012AB", wallets=("微信", "WeChat"), deadline=("b", 60_000))
PAID = Screen("PAID", "付款成功", big="¥33.99", total_fen=3399, tone="good", notice="找零 ¥16.01")
ASKING = Screen("CANCELLING", "取消时已付款：ENTER 交货，CANCEL 退款", big="¥33.99", tone="wait", deadline=("b", 30_000))
TROUBLE = Screen("BASKET", "Sunshine", lines=LINES, lines_total=3, big="¥33.99", lang="en", tone="bad", typed="3 x2",
                 notice="Unknown code 6901234567892", footer=("Printer out of paper", "Offline: records wait"))
ALL = [IDLE, BASKET, PAY, PAID, ASKING, TROUBLE, msgspec.structs.replace(PAY, notice="货给顾客了吗？ENTER 已给，CANCEL 未给"),
       msgspec.structs.replace(BASKET, training=True), msgspec.structs.replace(PAY, training=True),
       Screen("PLACING", "正在生成付款码…", big="¥33.99"), Screen("REFUNDING", "退款：请扫描小票", typed="1"),
       Screen("IDLE", "店", notice="未知条码", tone="bad")]


def read(image: Image.Image) -> list[str]:
    return [found.text for found in zxingcpp.read_barcodes(image.convert("L"))]


def changed(screen: Screen, **fields: object) -> Screen:
    return msgspec.structs.replace(screen, **fields)


# QR

@pytest.mark.parametrize("text", [URL, "weixin://wxpay/bizpayurl?pr=AbCdEfG00", "付款码 0000017K", "A" * 200])
def test_a_symbol_says_its_text(text):
    bits = qr_bits.matrix(text)
    side = qr_bits.side(bits)
    assert side * side == len(bits) and set(bits) == {0, 255}
    symbol = Image.frombytes("L", (side, side), bits).resize((side * 4, side * 4), Image.Resampling.NEAREST)
    sheet = Image.new("L", (side * 4 + 32,) * 2, 255)
    sheet.paste(symbol, (16, 16))
    found = zxingcpp.read_barcodes(sheet)
    assert [f.text for f in found] == [text] and found[0].ec_level == "M"


def test_symbols_are_kept_and_the_oldest_goes_first():
    texts = [f"https://example.org/{n}" for n in range(qr_bits.KEPT_MAX + 1)]
    for text in texts[:-1]:
        qr_bits.matrix(text)
    qr_bits.matrix(texts[0])                                   # used again: now the newest
    qr_bits.matrix(texts[-1])
    assert qr_bits.known(texts[0]) and qr_bits.known(texts[-1]) and not qr_bits.known(texts[1])


@pytest.mark.parametrize("text", ["", "A" * (qr_bits.TEXT_BYTES_MAX + 1)])
def test_a_text_no_till_can_show_is_refused(text):
    with pytest.raises(qr_bits.QrRefused):
        qr_bits.matrix(text)


# Frames

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", [PAY, changed(PAY, training=True), changed(PAY, lang="en", notice="Asking the channel now")])
def test_a_phone_reads_the_qr(size, screen):
    assert read(frame(screen, 0, *size)) == [URL]


@pytest.mark.parametrize("size", SIZES)
def test_modules_are_big_and_stand_in_quiet(size):
    qr_panel = next(p for p in layout(PAY, *size, 0) if p.painter == "qr")
    left, top, right, bottom = qr_panel.box
    modules = qr_bits.side(qr_bits.matrix(URL))
    picture = frame(PAY, 0, *size).crop(qr_panel.box).convert("L").point(lambda v: 255 - v)
    ink = picture.getbbox()
    module = (ink[2] - ink[0]) / modules
    assert module == int(module) and module >= display_draw.MODULE_PX_MIN
    assert min(ink[0], ink[1], right - left - ink[2], bottom - top - ink[3]) >= qr_bits.QUIET_MODULES * module


def test_the_qr_survives_a_poor_camera():
    picture = frame(PAY)
    assert read(picture.resize((267, 160), Image.Resampling.BILINEAR)) == [URL]
    assert read(picture.filter(ImageFilter.GaussianBlur(2.5))) == [URL]
    assert read(picture.rotate(12, expand=True, fillcolor="grey")) == [URL]


def test_upright_panels_show_the_qr_too():
    assert read(frame(PAY, 0, 480, 800)) == [URL]


@pytest.mark.parametrize("screen", [s for s in ALL if not s.qr])
def test_no_qr_where_none_is_live(screen):
    assert read(frame(screen)) == []


def ink_height(picture: Image.Image, box: tuple[int, int, int, int], ink: tuple[int, int, int]) -> int:
    """Rows between the first and the last pixel of exactly `ink` in the right half of `box`."""
    left, top, right, bottom = box
    part = picture.crop(((left + right) // 2, top, right, bottom))
    rows = [y for y in range(part.height) if any(part.getpixel((x, y)) == ink for x in range(part.width))]
    return rows[-1] - rows[0] + 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("big", ["¥33.99", "¥188.88", "¥1288.00"])
def test_the_total_is_an_eighth_of_the_screen(size, big):
    screen = changed(BASKET, big=big)
    box = next(p.box for p in layout(screen, *size, 0) if p.painter == "total")
    assert ink_height(frame(screen, 0, *size), box, display_draw.INK) >= 0.12 * size[1]


@pytest.mark.parametrize("size", SIZES[1:])
def test_the_amount_beside_the_qr_is_as_tall(size):
    box = next(p.box for p in layout(PAY, *size, 0) if p.painter == "amount")
    assert ink_height(frame(PAY, 0, *size), box, display_draw.INK) >= 0.12 * size[1]


@pytest.mark.parametrize("size", [*SIZES, (480, 800), (1024, 600)])
def test_panels_tile_every_frame(size):
    for screen in ALL:
        seen = Image.new("L", size, 0)
        for panel in layout(screen, *size, 0):
            assert seen.crop(panel.box).getextrema() == (0, 0), f"{panel.painter} overlaps on {screen.phase}"
            seen.paste(255, panel.box)
        assert seen.getextrema() == (255, 255), f"a gap on {screen.phase}"


LAID_OUT = [*SIZES, (1024, 600), (480, 800), (800, 1280), (240, 320), (320, 480)]
CODES = [URL, "weixin://wxpay/bizpayurl?pr=AbCdEfG00", "https://qr.alipay.com/bax03431ljhokirwl38f00a7"]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("size", LAID_OUT)
def test_a_phone_two_metres_away_reads_the_qr_on_every_size(size, large):
    """The frame at a third of its size, and blurred: four pixels a module at least, four light modules around."""
    for text in CODES:
        screen = changed(PAY, qr=text, words=("苹果 27", "APPLE 27"))
        panel = next(p for p in layout(screen, *size, 0, large=large) if p.painter == "qr")
        modules = qr_bits.side(qr_bits.matrix(text, display_draw.qr_level(*size))) + 2 * qr_bits.QUIET_MODULES
        assert min(panel.box[2] - panel.box[0], panel.box[3] - panel.box[1]) >= modules * display_draw.MODULE_PX_MIN
        picture = frame(screen, 0, *size, large=large)
        third = picture.resize((size[0] // 3, size[1] // 3), Image.Resampling.BOX)
        if min(size) <= display_draw.SMALL_PX and text is URL:       # four pixels a module: from one metre, not from two
            third = picture.resize((size[0] // 2, size[1] // 2), Image.Resampling.BOX)
        assert read(third.filter(ImageFilter.GaussianBlur(0.5 if min(size) < 480 else 1.0))) == [text], text


@pytest.mark.parametrize(("size", "length"), [((320, 240), 190), ((240, 320), 190), ((480, 320), 270), ((320, 480), 270)])
def test_a_long_code_has_the_glass_to_itself_before_its_modules_become_small(size, length):
    text = "https://pay.example/".ljust(length, "a")
    screen = changed(PAY, qr=text, words=("苹果 27", "APPLE 27"))
    panels = layout(screen, *size, 0)
    box = next(p.box for p in panels if p.painter == "qr")
    modules = qr_bits.side(qr_bits.matrix(text, display_draw.qr_level(*size))) + 2 * qr_bits.QUIET_MODULES
    assert min(box[2] - box[0], box[3] - box[1]) >= modules * display_draw.MODULE_PX_MIN
    assert "head" not in {p.painter for p in panels} and {"sum", "clock", "qr"} <= {p.painter for p in panels}
    assert sum((p.box[2] - p.box[0]) * (p.box[3] - p.box[1]) for p in panels) == size[0] * size[1]
    assert read(frame(screen, 0, *size)) == [text]


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("size", LAID_OUT)
def test_the_total_can_be_read_from_two_metres_on_every_size(size, large):
    for screen, painters in ((BASKET, ("total",)), (PAY, ("amount", "sum"))):
        box = next(p.box for p in layout(screen, *size, 0, large=large) if p.painter in painters)
        left, top, right, bottom = box
        part = frame(screen, 0, *size, large=large).crop(box).convert("L").point(lambda v: 255 if v < 60 else 0)
        tall = part.crop((part.width * 2 // 5, 0, part.width, part.height)).getbbox()
        assert tall is not None and tall[3] - tall[1] >= min(0.12 * size[1], 0.175 * size[0])      # upright, the width is short


def test_large_type_is_larger_and_black_on_white():
    plain, large = (ink_height(frame(BASKET, large=on), next(p.box for p in layout(BASKET, 800, 480, 0, large=on)
                                                             if p.painter == "total"), display_draw.INK) for on in (False, True))
    assert large >= 1.6 * plain
    used = {colour for _, colour in frame(PAY, large=True).crop((400, 60, 800, 420)).getcolors(1 << 16)}
    assert display_draw.INK in used and display_draw.MUTED not in used


def test_a_till_that_takes_no_wallet_says_so_before_anybody_asks():
    shown = changed(IDLE, cash_only=True, notice="暂时只收现金")
    assert [p.painter for p in layout(shown, 800, 480, 0)] == ["foot", "cash"]
    assert frame(shown).tobytes() != frame(changed(shown, lang="en")).tobytes()
    assert "cash" not in [p.painter for p in layout(changed(BASKET, cash_only=True), 800, 480, 0)]


@pytest.mark.parametrize("size", LAID_OUT)
def test_the_receipt_stands_as_a_qr_where_no_paper_can_be_had(size):
    text = "https://r.example.org/0000017K3M00000012AB/3399"
    assert read(frame(changed(PAID, receipt_qr=text), 0, *size)) == [text]
    assert read(frame(PAID, 0, *size)) == []


def test_the_two_words_stand_beside_the_qr_and_are_other_ones_for_another_attempt():
    plain, told, other = (frame(changed(PAY, words=words)) for words in ((), ("苹果 27", "APPLE 27"), ("苹果 28", "APPLE 28")))
    assert len({plain.tobytes(), told.tobytes(), other.tobytes()}) == 3
    for notice in ("", "货给顾客了吗？ENTER 已给，CANCEL 未给"):          # a question does not take them away
        one, two = (frame(changed(PAY, words=words, notice=notice)) for words in (("苹果 27", "APPLE 27"), ("苹果 28", "APPLE 28")))
        assert one.tobytes() != two.tobytes()
    assert len({check_words(f"0000017K3M0000{n:04d}AB") for n in range(200)}) > 180


def test_nothing_of_an_old_frame_survives():
    pick, canvas, before = random.Random(7), Canvas(480, 320), set()
    for _ in range(60):
        screen, now_ms = pick.choice(ALL), pick.choice([0, 900, 5_000, 99_000])
        canvas.draw(screen, now_ms)
        assert canvas.image.tobytes() == frame(screen, now_ms, 480, 320).tobytes()
        before.add(screen.phase)
    assert len(before) > 4


def test_a_basket_after_a_qr_is_a_fresh_basket():
    canvas = Canvas(800, 480)
    canvas.draw(PAY, 0)
    assert read(canvas.image) == [URL]
    canvas.draw(BASKET, 0)
    assert read(canvas.image) == [] and canvas.image.tobytes() == frame(BASKET).tobytes()


def test_another_attempt_has_another_qr():
    canvas = Canvas(800, 480)
    canvas.draw(PAY, 0)
    canvas.draw(changed(PAY, qr="weixin://wxpay/bizpayurl?pr=second0", order_no="0000017K3M00000013CD"), 0)
    assert read(canvas.image) == ["weixin://wxpay/bizpayurl?pr=second0"]


def test_one_second_repaints_the_clock_alone():
    canvas = Canvas(800, 480)
    canvas.draw(PAY, 0)
    assert canvas.draw(PAY, 0) == []
    clock = next(p.box for p in layout(PAY, 800, 480, 0) if p.painter == "clock")
    assert canvas.draw(PAY, 1_000) == [clock]


@pytest.mark.parametrize(("now_ms", "left"), [(0, 60), (1, 60), (1_000, 59), (59_999, 1), (60_000, 0), (90_000, 0)])
def test_the_countdown_rounds_up_and_ends_at_zero(now_ms, left):
    assert seconds_left(PAY, now_ms) == left


def test_no_deadline_no_countdown():
    assert seconds_left(BASKET, 0) is None


@pytest.mark.parametrize("screen", [BASKET, PAID, IDLE])
def test_training_is_written_across_the_frame(screen):
    plain, marked = frame(screen), frame(changed(screen, training=True))
    for quarter in [(0, 0, 400, 240), (400, 0, 800, 240), (0, 240, 400, 480), (400, 240, 800, 480)]:
        assert plain.crop(quarter).tobytes() != marked.crop(quarter).tobytes()


def test_each_word_of_a_screen_is_seen():
    for field, value in [("title", "别的店"), ("big", "¥33.98"), ("notice", "请核对"), ("typed", "7"), ("footer", ("缺纸",)),
                         ("lines_total", 9), ("lang", "en"), ("lines", LINES[:2])]:
        assert frame(changed(BASKET, **{field: value})).tobytes() != frame(BASKET).tobytes(), field
    for field, value in [("order_no", "0000017K3M00000099ZZ"), ("wallets", ("支付宝",)), ("deadline", None), ("notice", "查询中"),
                         ("title", "扫码"), ("big", "¥1.00"), ("typed", "7"), ("footer", ("缺纸",))]:
        assert frame(changed(PAY, **{field: value})).tobytes() != frame(PAY).tobytes(), field


def test_hostile_words_stay_inside():
    long = "长" * 300
    for screen in ALL:
        wild = changed(screen, title=long, notice=long, typed="9" * 40, footer=(long, long), big="¥" + "8" * 14,
                       lines=(Line(long, "99999.999 kg", 99_999_999_999), Line("", "", 0)), wallets=(long,), order_no=long)
        for size in [(320, 240), (800, 480)]:
            picture = frame(wild, 0, *size)
            assert picture.size == size and (read(picture) == [URL]) == bool(screen.qr)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("size", [(320, 240), (240, 320), (300, 200), (480, 320), (800, 480), (1280, 400), (480, 1920)])
def test_no_sum_is_ever_cut(monkeypatch, size, large):
    """A part of an amount would be another amount."""
    cut, was = [], display_draw._cut
    monkeypatch.setattr(display_draw, "_cut", lambda text, font, width: (
        cut.append(text) if font.getlength(text) > width and re.search(r"\d\.\d\d", text) else None, was(text, font, width))[1])
    lines = tuple(Line("Sparkling water with lemon, family pack", "12", 99_999_999) for _ in range(8))
    huge = {"big": "¥999999.99", "lang": "en", "lines": lines, "lines_total": 100}
    paid = changed(PAID, big="¥999999.99", lang="en", notice="Change ¥999999.99")
    for screen in (changed(BASKET, **huge), changed(PAY, **huge), changed(ASKING, big="¥999999.99"), paid,
                   changed(paid, receipt_qr="https://r.example.org/0000017K3M00000012AB")):
        frame(screen, 0, *size, large=large)
    assert cut == []


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (480, 800), (800, 480), (1280, 400)])
def test_the_newest_line_is_whole_and_its_words_stay_apart(monkeypatch, size):
    told, was = [], display_draw._Sheet.text

    def seen(sheet, text, x, y, **how):
        told.append((text, y + how["size"] / 2 <= sheet.h + 1))
        return was(sheet, text, x, y, **how)

    monkeypatch.setattr(display_draw._Sheet, "text", seen)
    name = "Sparkling mineral water with natural lemon flavour"
    many = tuple(Line(name, "1", 100) for _ in range(8))
    for large in (False, True):
        frame(changed(BASKET, lines=many, lines_total=100, lang="en"), 0, *size, large=large)
    assert all(inside for _, inside in told)
    assert {piece for text, _ in told for piece in text.split() if text[:5] in name} <= set(name.split())


def test_names_of_the_price_list_have_letters_of_their_own():
    path = os.path.join(ROOT, "sim", "data", "products.csv")
    names = "".join(line.name for line in LINES) + "".join(a + b for a, b in display_draw.CAPTIONS.values()) + "¥×…·，：。？"
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            names += "".join(file.read().split())
    font = display_draw._font(24)
    tofu = bytes(font.getmask("\U0010fffe"))
    assert [c for c in sorted(set(names)) if not c.isspace() and bytes(font.getmask(c)) == tofu] == []


def test_a_missing_font_is_one_clear_sentence(monkeypatch):
    monkeypatch.setattr(display_draw, "FONT_PATH", "/nowhere/font.ttc")
    display_draw._font.cache_clear()
    with pytest.raises(DriverGone, match="WenQuanYi Micro Hei is missing.*fonts-wqy-microhei") as fault:
        frame(IDLE)
    assert not fault.value.again
    display_draw._font.cache_clear()


def test_a_day_of_screens_keeps_few_copies_of_the_font_in_memory():
    def mapped():
        with open("/proc/self/maps", encoding="utf-8") as maps:
            return sum(row.rstrip().endswith(display_draw.FONT_PATH) for row in maps)

    display_draw._font.cache_clear()
    before = mapped()                                # other programs' models draw with it too
    for size in SIZES:
        for screen in ALL:
            frame(screen, 0, *size)
    assert 0 < mapped() - before <= display_draw.FONTS_KEPT


@pytest.mark.parametrize("least, size, width", [(8, 40, 200), (8, 40, 40), (8, 40, 1), (30, 30, 1), (31, 30, 1), (8, 40, 10**6)])
def test_the_largest_size_that_fits_is_the_one_a_patient_search_finds(least, size, width):
    def wide(n):
        return display_draw._font(n).getlength("心相印 120抽6包")

    patient = size
    while patient > least and wide(patient) > width:
        patient -= 1
    assert display_draw._largest(least, size, width, wide) == patient


def test_the_qr_library_is_primed_after_the_first_frame_and_not_within_it(monkeypatch, tmp_path):
    primed = []

    async def shown():
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        monkeypatch.setattr(display_show, "WARM_AFTER_S", 0.01)
        monkeypatch.setattr(qr_bits, "warm", lambda: (primed.append(1), loop.call_soon_threadsafe(done.set)))
        display = FileDisplay(str(tmp_path / "frame"), 320, 240)
        await display.show(IDLE, 0)
        assert display.frames == 1 and not primed
        await asyncio.wait_for(done.wait(), 10)
        await display.show(PAID, 0)
        await display.close()

    asyncio.run(shown())
    assert primed == [1]


# Pixels

def test_rgb565_equals_a_plain_loop():
    pick = random.Random(1)
    picture = Image.frombytes("RGB", (64, 48), pick.randbytes(64 * 48 * 3))
    loop = b"".join(struct.pack("<H", r >> 3 << 11 | g >> 2 << 5 | b >> 3)
                    for r, g, b in (picture.getpixel((x, y)) for y in range(48) for x in range(64)))
    assert packed(picture, "RGB565") == loop


def test_xrgb8888_is_blue_green_red_and_nothing():
    assert packed(Image.new("RGB", (1, 1), (1, 2, 3)), "XRGB8888")[:3] == b"\x03\x02\x01"


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_box_turns_with_its_picture(rotation):
    picture = Image.frombytes("RGB", (5, 3), bytes(range(45)))
    box = (1, 0, 4, 2)
    assert turned(picture.crop(box), rotation).tobytes() == \
        turned(picture, rotation).crop(turned_box(box, 5, 3, rotation)).tobytes()


def unpacked(path: str, there: Geometry) -> Image.Image:
    with open(path, "rb") as file:
        file.seek(there.start)
        data = file.read().ljust(there.line_length * there.height, b"\0")
    if there.form == "XRGB8888":
        return Image.frombytes("RGB", (there.width, there.height), data, "raw", "BGRX", there.line_length)
    picture = Image.new("RGB", (there.width, there.height))
    for y in range(there.height):
        row = struct.unpack_from(f"<{there.width}H", data, y * there.line_length)
        for x, v in enumerate(row):
            picture.putpixel((x, y), ((v >> 11) * 255 // 31, (v >> 5 & 63) * 255 // 63, (v & 31) * 255 // 31))
    return picture


@pytest.mark.parametrize("form", ["XRGB8888", "RGB565"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_frame_buffer_with_padded_rows_holds_the_frame(tmp_path, form, rotation):
    high_up = rotation in (90, 270)
    there = Geometry(320, 480, form, 480 * 4 + 64, 128) if high_up else Geometry(480, 320, form, 480 * 4 + 64, 128)
    path = str(tmp_path / "fb0")
    with open(path, "wb") as file:
        file.write(b"\xa5" * (there.start + there.line_length * there.height))
    display = FbDisplay(path, rotation=rotation, geometry=there)

    async def story():
        await display.show(BASKET, 0)
        await display.show(PAY, 0)
        await display.show(PAY, 1_000)
        await display.close()

    asyncio.run(story())
    upright = turned(unpacked(path, there), (360 - rotation) % 360)
    assert read(upright) == [URL]
    if form == "XRGB8888":
        assert upright.tobytes() == frame(PAY, 1_000, 480, 320).tobytes()
    with open(path, "rb") as file:
        data = file.read()
    wide = there.width * {"XRGB8888": 4, "RGB565": 2}[form]
    assert data[:there.start] == b"\xa5" * there.start
    assert all(set(data[there.start + y * there.line_length + wide:there.start + (y + 1) * there.line_length]) == {0xa5}
               for y in range(there.height)), "the padding is not ours"


def var_bytes(wide=800, high=480, bits=32, channels=((16, 8), (8, 8), (0, 8)), x=0, y=0) -> bytes:
    head = struct.pack("=8I", wide, high, wide + x, high + y, x, y, bits, 0)
    return (head + b"".join(struct.pack("=3I", *c, 0) for c in (*channels, (24, 8)))).ljust(160, b"\0")


def fix_bytes(line_length: int, long_bytes: int) -> bytes:
    start = bytes(long_bytes)
    return (b"simple".ljust(16, b"\0") + start + struct.pack("=4I3HHI", 0, 0, 0, 2, 1, 1, 0, 0, line_length)).ljust(128, b"\0")


@pytest.mark.parametrize("long_bytes", [4, 8])
def test_the_kernels_structures_are_read(long_bytes):
    read_32 = geometry_of(var_bytes(y=480), fix_bytes(3264, long_bytes), long_bytes=long_bytes)
    assert read_32 == Geometry(800, 480, "XRGB8888", 3264, 480 * 3264)
    rgb565 = var_bytes(bits=16, channels=((11, 5), (5, 6), (0, 5)), x=3)
    assert geometry_of(rgb565, fix_bytes(1664, long_bytes), long_bytes=long_bytes) == Geometry(800, 480, "RGB565", 1664, 6)


def test_a_second_panel_is_named_as_such():
    with pytest.raises(DriverGone) as fault:
        geometry_of(var_bytes(bits=24), fix_bytes(2400, 8), long_bytes=8, part="display:2")
    assert fault.value.which == "display:2"


def test_a_format_nobody_draws_is_named():
    with pytest.raises(DriverGone, match="24 bits a pixel") as fault:
        geometry_of(var_bytes(bits=24), fix_bytes(2400, 8), long_bytes=8)
    assert not fault.value.again


@pytest.mark.parametrize(("var", "line_length", "why"), [
    (dict(y=480), 1600, "no frame"), (dict(wide=8, high=8), 3200, "8 x 8 pixels"), (dict(wide=9000), 36_000, "9000 x 480 pixels")])
def test_sizes_that_contradict_each_other_are_named_before_a_byte_is_written(var, line_length, why):
    with pytest.raises(DriverGone, match=why):
        geometry_of(var_bytes(**var), fix_bytes(line_length, 8), long_bytes=8)


# Drivers

def test_a_panel_that_is_not_there_is_named_and_looked_for_again(tmp_path):
    path, there = str(tmp_path / "fb0"), Geometry(320, 240, "RGB565", 640)
    display = FbDisplay(path, geometry=there)

    async def story():
        with pytest.raises(DriverGone, match="ENOENT"):
            await display.show(PAY, 0)
        said = [event async for event in display.inputs()]
        with open(path, "wb") as file:
            file.truncate(640 * 240)
        await display.show(PAY, 0)
        again = await anext(display.inputs())
        await display.close()
        return said, again

    said, again = asyncio.run(story())
    assert [(s.part, s.word) for s in said] == [("display", "gone")] and "ENOENT" in said[0].why
    assert again == DeviceSaid("display", "ok")
    assert read(unpacked(path, there)) == [URL]


def test_a_file_that_is_no_frame_buffer_says_so(tmp_path):
    path = tmp_path / "plain"
    path.write_bytes(b"")
    with pytest.raises(DriverGone, match="ENOTTY"):
        asyncio.run(FbDisplay(str(path)).show(IDLE, 0))


def test_the_file_holds_the_frame_and_its_geometry(tmp_path):
    path = str(tmp_path / "frame")
    display = FileDisplay(path, 480, 320)
    assert Image.open(io.BytesIO(frame_png(path))).getbbox() is None and frame_no(path) == 0

    async def story():
        await display.show(PAY, 0)
        await display.show(PAY, 0)                              # nothing changed: nothing is written
        await display.show(PAY, 1_000)

    asyncio.run(story())
    with open(path + ".json", encoding="utf-8") as file:
        side = json.load(file)
    assert {k: side[k] for k in ("width", "height", "format", "line_length")} == \
        {"width": 480, "height": 320, "format": "XRGB8888", "line_length": 1920}
    assert side["frame_no"] == display.frames == frame_no(path) and display.skipped == 1
    shown = Image.open(io.BytesIO(frame_png(path)))
    assert shown.tobytes() == frame(PAY, 1_000, 480, 320).tobytes()
    assert sorted(os.listdir(tmp_path)) == ["frame", "frame.json"]


def test_a_folder_that_vanished_is_named(tmp_path):
    with pytest.raises(DriverGone, match="ENOENT"):
        asyncio.run(FileDisplay(str(tmp_path / "no" / "frame")).show(IDLE, 0))


def test_a_frame_cut_short_is_no_picture(tmp_path):
    path = str(tmp_path / "frame")
    asyncio.run(FileDisplay(path, 320, 240).show(IDLE, 0))
    os.truncate(path, 1_000)
    with pytest.raises(ValueError, match="1000 bytes"):
        frame_png(path)


def test_the_newest_screen_wins_and_no_old_qr_waits_beside_a_new_amount(tmp_path, monkeypatch):
    path, seen = str(tmp_path / "frame"), []
    display = FileDisplay(path)
    second = changed(PAY, qr="weixin://wxpay/bizpayurl?pr=slow000", big="¥1.00")
    write = FileDisplay.write

    def watched(self, canvas, boxes):
        write(self, canvas, boxes)
        seen.append(read(canvas.image))

    monkeypatch.setattr(FileDisplay, "write", watched)

    async def story():
        await display.show(PAY, 0)
        painting = asyncio.create_task(display.show(second, 0))
        await asyncio.sleep(0)                                   # the symbol is being made in its thread
        await display.show(changed(BASKET, title="中间"), 0)     # never seen: a newer one follows at once
        await display.show(BASKET, 0)
        await painting

    qr_bits._kept.pop((second.qr, "M"), None)
    asyncio.run(story())
    assert [second.qr] not in seen and [] in seen
    with open(path, "rb") as file:
        assert file.read() == packed(frame(BASKET), "XRGB8888")


def test_a_qr_too_long_leaves_a_frame_without_one(tmp_path):
    path = str(tmp_path / "frame")
    asyncio.run(FileDisplay(path).show(changed(PAY, qr="A" * 2_000), 0))
    assert read(Image.open(io.BytesIO(frame_png(path)))) == []


def test_a_qr_too_long_is_told_once_and_not_tried_each_second(tmp_path, caplog, monkeypatch):
    made = []
    monkeypatch.setattr(qr_bits, "matrix", lambda text, level="M", old=qr_bits.matrix: made.append(text) or old(text, level))

    async def story():
        display = FileDisplay(str(tmp_path / "frame"))
        for second in range(5):
            await display.show(changed(PAY, qr="A" * 2_000), second * 1000)
        await display.close()
    asyncio.run(story())
    assert len([row for row in caplog.records if "cannot be shown" in row.message]) == 1 == made.count("A" * 2_000)


def test_a_qr_too_fine_for_the_glass_is_said_once_and_taken_back(tmp_path):
    async def story():
        display = FileDisplay(str(tmp_path / "frame"), 320, 240)
        for second in range(3):
            await display.show(changed(PAY, qr="A" * 400), second * 1000)
        await display.show(PAY, 4000)
        await display.close()
        return [(said.word, said.why) async for said in display.inputs()]
    said = asyncio.run(story())
    assert [word for word, _ in said] == ["ok", "error", "ok"] and "400 characters" in said[1][1] and "3 pixels" in said[1][1]


def test_closing_ends_what_it_says(tmp_path):
    display = FileDisplay(str(tmp_path / "frame"), 320, 240)

    async def story():
        await display.show(IDLE, 0)
        await display.close()
        await display.show(BASKET, 0)
        return [event.word async for event in display.inputs()]

    assert asyncio.run(story()) == ["ok"]
    assert display.frames == 1


def test_the_twin_keeps_the_last_screen():
    twin = DisplaySim()
    asyncio.run(twin.show(PAY, 5))
    assert (twin.screen, twin.now_ms, twin.shown) == (PAY, 5, 1)
    twin.gone = True
    with pytest.raises(DriverGone):
        asyncio.run(twin.show(BASKET, 6))
    assert twin.screen is PAY
