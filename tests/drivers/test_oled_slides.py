"""A small OLED by luma, and the pictures that stand while nobody is served."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import struct
import zlib

import msgspec
import pytest
import zxingcpp
from luma.core.interface.serial import noop
from luma.oled.device import sh1106, ssd1306
from PIL import Image

from device.drivers.display import draw as display_draw
from device.drivers.display.draw import frame, layout, may_slide
from device.drivers.display.file import FileDisplay
from device.drivers.display.oled import OledDisplay, picture
from device.drivers.display.pole_bytes import Glass
from device.drivers.display.slides import Slides
from device.drivers.picture_bytes import MOST_BYTES, picture_fault, picture_size
from device.errors import DriverGone
from device.txn.screen import Line, Screen
from sim.devices.display import frame_png

IDLE = Screen("IDLE", "阳光便利店", notice="欢迎光临")
BASKET = Screen("BASKET", "店", lines=(Line("Cola 330ml", "3", 750),), lines_total=1, total_fen=750, big="¥7.50")
PAY = Screen("AWAITING", "请扫码", big="¥7.50", total_fen=750, qr="weixin://wxpay/bizpayurl?pr=AbCdEfG00",
             words=("苹果 27", "APPLE 27"))
RED, GREEN = (200, 20, 20), (20, 160, 60)


def drawn(colour, size=(400, 240), form="PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, form)
    return out.getvalue()


@pytest.fixture
def pictures(tmp_path):
    for name, colour, form in (("a", RED, "PNG"), ("b", GREEN, "JPEG")):
        (tmp_path / name).write_bytes(drawn(colour, form=form))
    return tuple(str(tmp_path / name) for name in "ab")


def near(image: Image.Image, colour) -> bool:
    told = image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    return all(abs(a - b) < 12 for a, b in zip(told, colour, strict=True))


# OLED

class Glassy(ssd1306):
    """Luma's own driver over no wire, whose last picture is kept."""

    def __init__(self) -> None:
        super().__init__(noop(), width=128, height=64)

    def display(self, image) -> None:
        super().display(image)
        self.kept = image.copy()


@pytest.mark.parametrize("screen", [IDLE, BASKET, PAY, msgspec.structs.replace(PAY, phase="PAID", qr="", change_fen=250)])
def test_an_oled_shows_the_words_and_the_sum_of_each_screen(screen):
    glass = Glassy()
    display = OledDisplay("/dev/i2c-1", made=lambda: glass)

    async def story():
        await display.show(IDLE, 0)
        await display.show(screen, 0)
        await display.show(screen, 0)
        await display.close()

    asyncio.run(story())
    assert (display.frames, display.skipped) == ((1, 2) if screen is IDLE else (2, 1))
    assert glass.kept.mode == "1" and glass.kept.size == (128, 64) and glass.kept.getbbox() is not None


def test_the_sum_takes_most_of_a_small_glass():
    sheet = picture(Glass("x", "TOTAL           7.50"), 128, 64)
    left, top, right, bottom = sheet.crop((64, 24, 128, 64)).getbbox()
    assert bottom - top >= 14 and right >= 60


def test_rows_too_long_stay_inside():
    for size in ((128, 64), (128, 32), (256, 64), (96, 64)):
        assert picture(Glass("长" * 60, "9" * 30 + "  " + "8" * 30), *size).size == size


def test_another_controller_takes_the_same_picture():
    device = sh1106(noop(), width=128, height=64)
    asyncio.run(OledDisplay("/dev/i2c-1", chip="sh1106", made=lambda: device).show(BASKET, 0))


@pytest.mark.parametrize(("path", "why"), [("/dev/ttyS0", "its bus"), ("/dev/i2c-250", "i2c-250")])
def test_a_bus_that_is_not_there_is_named(path, why):
    with pytest.raises(DriverGone, match=why) as fault:
        asyncio.run(OledDisplay(path).show(IDLE, 0))
    assert "i2cdetect" in fault.value.hint


# Pictures

def test_each_picture_has_its_turn_and_the_tills_own_screen_too(tmp_path, pictures):
    path, display, seen = str(tmp_path / "frame"), FileDisplay(str(tmp_path / "frame"), 400, 240, slide_s=8), []
    display.pictures(pictures)

    async def story():
        for now_ms in (0, 8_000, 16_000, 24_000):
            await display.show(IDLE, now_ms)
            seen.append(Image.open(io.BytesIO(frame_png(path))))

    asyncio.run(story())
    assert seen[0].tobytes() == frame(IDLE, 0, 400, 240).tobytes() == seen[3].tobytes()
    assert near(seen[1], RED) and near(seen[2], GREEN)
    assert display.again_s(IDLE) == 8.0 and display.again_s(BASKET) is None


@pytest.mark.parametrize("screen", [
    PAY, BASKET, msgspec.structs.replace(IDLE, cash_only=True), msgspec.structs.replace(IDLE, notice="已挂单，编号 3"),
    msgspec.structs.replace(IDLE, tone="bad"), msgspec.structs.replace(IDLE, big="¥1.00", tone="good"),
    msgspec.structs.replace(IDLE, typed="3"), msgspec.structs.replace(IDLE, training=True),
    msgspec.structs.replace(IDLE, receipt_qr="https://r.example.org/1")])
def test_no_picture_where_anything_is_to_be_said(tmp_path, pictures, screen):
    """A QR least of all: it comes the moment it is true, whatever picture stands there or is being opened."""
    path, display = str(tmp_path / "frame"), FileDisplay(str(tmp_path / "frame"), 400, 240)
    display.pictures(pictures)

    async def story():
        await display.show(IDLE, 8_000)
        await display.show(screen, 8_100)

    asyncio.run(story())
    slide = display_draw.Slide(Image.new("RGB", (400, 240), RED))
    assert not may_slide(screen) and "slide" not in [p.painter for p in layout(screen, 400, 240, 0, slide=slide)]
    shown = Image.open(io.BytesIO(frame_png(path)))
    assert shown.tobytes() == frame(screen, 8_100, 400, 240).tobytes()
    assert [f.text for f in zxingcpp.read_barcodes(shown)] == ([screen.qr] if screen.qr else [])


def test_a_qr_does_not_wait_for_a_picture_that_is_being_opened(tmp_path, pictures, monkeypatch):
    path, display = str(tmp_path / "frame"), FileDisplay(str(tmp_path / "frame"), 400, 240)
    display.pictures(pictures)
    made = Slides.of

    async def story():
        await display.show(IDLE, 0)
        loop, entered = asyncio.get_running_loop(), asyncio.Event()

        def slow(self, *args):
            loop.call_soon_threadsafe(entered.set)
            return made(self, *args)

        monkeypatch.setattr(Slides, "of", slow)
        opening = asyncio.create_task(display.show(IDLE, 8_000))
        await entered.wait()
        await display.show(PAY, 8_001)                          # comes while the picture is made: the newest wins
        await opening

    asyncio.run(story())
    assert [f.text for f in zxingcpp.read_barcodes(Image.open(io.BytesIO(frame_png(path))))] == [PAY.qr]


def test_what_is_not_well_stands_below_a_picture():
    slide = display_draw.Slide(Image.new("RGB", (400, 240), RED))
    sick = msgspec.structs.replace(IDLE, footer=("打印机缺纸",))
    assert [p.painter for p in layout(sick, 400, 240, 0, slide=slide)] == ["foot", "slide"]


def test_a_broken_picture_is_left_out_and_said_once(tmp_path, pictures, caplog):
    (tmp_path / "c").write_bytes(drawn(RED)[:200])
    (tmp_path / "d").write_text("<svg/>")
    slides = Slides((*pictures, str(tmp_path / "c"), str(tmp_path / "d"), str(tmp_path / "gone")), 8)
    for turn in range(24):
        path = slides.due(turn * 8_000)
        if path:
            slides.of(path, 400, 240)
    assert sorted(slides.refused) == [str(tmp_path / name) for name in ("c", "d", "gone")] and len(caplog.records) == 3
    assert {slides.due(turn * 8_000) for turn in range(6)} == {"", *pictures}


def test_other_shapes_are_whole_and_centred(tmp_path):
    (tmp_path / "tall").write_bytes(drawn(GREEN, (100, 400)))
    slide = Slides((str(tmp_path / "tall"),), 8).of(str(tmp_path / "tall"), 400, 240)
    assert slide is not None and slide.image.size == (400, 240)
    assert slide.image.getpixel((200, 5)) == GREEN and slide.image.getpixel((5, 120)) == display_draw.BRAND


def test_a_picture_too_large_is_refused_by_its_head_alone():
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")
    assert picture_size(bomb) == (60_000, 60_000) and "60000 x 60000" in picture_fault(bomb)
    assert "4 MiB" in picture_fault(drawn(RED) + bytes(MOST_BYTES))
    assert picture_fault(b"GIF89a") == "it is neither PNG nor JPEG"
    assert picture_fault(b"\xff\xd8\xff\xe0\x00\x10").startswith("its head")
    assert picture_fault(drawn(RED)) == "" == picture_fault(drawn(RED, form="JPEG"))
    assert picture_size(drawn(RED, form="JPEG")) == (400, 240)


def test_a_spoilt_picture_never_breaks_the_till():
    pick, whole = random.Random(5), [drawn(RED), drawn(GREEN, form="JPEG")]
    for _ in range(400):
        data = bytearray(pick.choice(whole))
        for _ in range(pick.randrange(1, 8)):
            data[pick.randrange(len(data))] = pick.randrange(256)
        picture_fault(bytes(data[:pick.randrange(len(data) + 1)]))
        with contextlib.suppress(OSError, ValueError, SyntaxError):
            Image.open(io.BytesIO(bytes(data)), formats=("PNG", "JPEG"))


@pytest.mark.parametrize("second", [(9_000, 9_000), (60_000, 60_000)])
def test_a_picture_with_a_second_larger_head_is_refused_before_it_is_opened(tmp_path, second):
    whole = drawn(RED, form="JPEG")
    at = whole.index(b"\xff\xc0")
    head = whole[at:at + 2 + int.from_bytes(whole[at + 2:at + 4])]
    jpeg = whole[:at] + head + head[:5] + struct.pack(">HH", *second) + head[9:] + whole[at + len(head):]

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    heads = b"".join(chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)) for size in ((100, 100), second))
    png = b"\x89PNG\r\n\x1a\n" + heads + chunk(b"IDAT", zlib.compress(bytes(30_100))) + chunk(b"IEND", b"")
    for data in (jpeg, png):
        (tmp_path / "two").write_bytes(data)
        slides = Slides((str(tmp_path / "two"),), 8)
        assert picture_fault(data) == "" and slides.of(str(tmp_path / "two"), 400, 240) is None
        assert "size" in slides.refused[str(tmp_path / "two")]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_picture_lies_as_its_exif_says(tmp_path, turn, form):
    """A photograph of a phone: its pixels lie one way, and a tag says how it is to be looked at."""
    from PIL import ImageOps

    sheet = Image.new("RGB", (400, 240), RED)
    sheet.paste(GREEN, (0, 0, 200, 120))
    exif = Image.Exif()
    exif[0x0112] = turn
    sheet.save(tmp_path / "photo", format=form, exif=exif)
    slide = Slides((str(tmp_path / "photo"),), 8).of(str(tmp_path / "photo"), 400, 240)
    with Image.open(tmp_path / "photo") as told:
        wanted = ImageOps.contain(ImageOps.exif_transpose(told).convert("RGB"), (400, 240))
    assert slide is not None
    left = (400 - wanted.width) // 2
    for x, y in ((20, 20), (wanted.width - 20, 20), (20, wanted.height - 20), (wanted.width - 20, wanted.height - 20)):
        seen, asked = slide.image.getpixel((left + x, y)), wanted.getpixel((x, y))
        assert all(abs(a - b) < 40 for a, b in zip(seen, asked, strict=True)), (x, y)


def test_an_exif_that_cannot_be_read_turns_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Image.Image, "getexif", lambda picture: 1 / 0)
    (tmp_path / "photo").write_bytes(drawn(GREEN))
    assert Slides((str(tmp_path / "photo"),), 8).of(str(tmp_path / "photo"), 400, 240) is not None
