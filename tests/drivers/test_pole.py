"""Customer's poles: what each command set puts on the glass, by models written from the manuals, and over a real port."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest

from device.drivers.display import pole as display_pole
from device.drivers.display import rows as display_rows
from device.drivers.display.pole import PoleDisplay
from device.drivers.display.pole_bytes import COLUMNS, DIALECTS, LIGHTS, Glass, digits, frame_of, row, sayable
from device.drivers.display.pole_text import WORDS, glass_of
from device.errors import DriverGone
from device.txn.screen import Line, Screen
from device.txn.show import farewell
from device.types import Terms
from sim.devices.pole import LED_LIGHTS, MODELS, PolePort

LINES = (Line("农夫山泉饮用天然水 550ml", "2", 400), Line("Cola 330ml", "3", 750))
IDLE = Screen("IDLE", "Corner Shop", notice="Welcome")
BASKET = Screen("BASKET", "Corner Shop", lines=LINES, lines_total=2, total_fen=1150, big="¥11.50")
PAY = Screen("AWAITING", "Scan to pay", lines=LINES, lines_total=2, total_fen=1150, big="¥11.50", qr="weixin://wxpay/x",
             order_no="0000017K3M00000012AB", deadline=("b", 300_000), words=("苹果 27", "APPLE 27"))
CHECKING = Screen("CANCELLING", "Cancelling", big="¥11.50", total_fen=1150, tone="wait")
PAID = Screen("PAID", "Paid", big="¥11.50", total_fen=1150, tone="good")
CHANGE = msgspec.structs.replace(PAID, change_fen=850)
CASH = msgspec.structs.replace(IDLE, cash_only=True)
TEXT = [name for name, dialect in DIALECTS.items() if dialect.rows == 2]
LED = [name for name, dialect in DIALECTS.items() if dialect.rows == 1]
# The bytes as the manuals print them, for the glass "AB" over "12".
MANUAL = {
    "cd5220": "1b 51 41" + "41 42" + "20" * 18 + "0d 1b 51 42" + "31 32" + "20" * 18 + "0d",
    "epson": "1f 24 01 01" + "41 42" + "20" * 18 + "1f 24 01 02" + "31 32" + "20" * 18 + "0b",
    "aedex": "21 23 31" + "41 42" + "20" * 18 + "0d 21 23 32" + "31 32" + "20" * 18 + "0d",
    "adm788": "0e" + "41 42" + "20" * 18 + "0f" + "31 32" + "20" * 18,
    "dsp800": "04 01 50 31 17" + "41 42" + "20" * 18 + "04 01 50 45 17" + "31 32" + "20" * 18,
}


def rows_on(dialect: str, screen: Screen, charset: str = "ascii", left_s: int | None = None) -> list[str]:
    pole = MODELS[dialect]()
    pole.feed(DIALECTS[dialect].reset + frame_of(glass_of(screen, left_s, charset), dialect, charset))
    assert pole.odd == 0
    return pole.rows(charset)


@pytest.mark.parametrize("dialect", TEXT)
def test_the_bytes_are_those_of_the_manual(dialect):
    assert frame_of(Glass("AB", "12"), dialect) == bytes.fromhex(MANUAL[dialect])


def test_the_lights_and_digits_of_a_led_are_those_of_the_manual():
    glass = Glass(number="33.99", light="total")
    assert frame_of(glass, "led8") == bytes.fromhex("1b 73 32 1b 51 41 33 33 2e 39 39 0d")
    assert frame_of(glass, "led8n") == bytes.fromhex("02 4c 30 31 30 30 1b 51 41 33 33 2e 39 39 0d")


@pytest.mark.parametrize("dialect", TEXT)
@pytest.mark.parametrize(("screen", "left_s", "shown"), [
    (IDLE, None, ["    Corner Shop     ", "      WELCOME       "]),
    (farewell(Terms(lang="en")), None, ["     ONE MOMENT     ", " " * 20]),
    (Screen("IDLE", "Out of order: call the technician", tone="bad"), None, ["    OUT OF ORDER    ", " " * 20]),
    (CASH, None, ["CASH ONLY FOR NOW   ", "NO WALLETS NOW      "]),
    (BASKET, None, ["Cola 330ml x3   7.50", "TOTAL          11.50"]),
    (PAY, 299, ["SCAN QR     APPLE 27", "11.50           4:59"]),
    (CHECKING, None, ["CHECKING PAYMENT    ", "DO NOT PAY AGAIN    "]),
    (PAID, None, ["PAID           11.50", "THANK YOU           "]),
    (CHANGE, None, ["PAID           11.50", "CHANGE          8.50"]),
])
def test_every_command_set_shows_the_same_glass(dialect, screen, left_s, shown):
    assert rows_on(dialect, screen, left_s=left_s) == shown


def test_a_chinese_pole_says_it_in_chinese():
    shown = rows_on("cd5220", msgspec.structs.replace(BASKET, lines=LINES[:1]), "gbk")
    assert shown == ["农夫山泉饮用 x2 4.00", "合计           11.50"]
    assert rows_on("epson", PAY, "gbk", 61) == ["请扫码付款   苹果 27", "11.50           1:01"]
    assert rows_on("epson", msgspec.structs.replace(PAY, lang="en"), "gbk", 61)[0] == "SCAN QR     APPLE 27"


def test_a_name_that_no_letter_of_the_pole_can_say_is_numbered():
    assert rows_on("aedex", msgspec.structs.replace(BASKET, lines=LINES[:1]))[0] == "ITEM 2 x2       4.00"


@pytest.mark.parametrize("dialect", LED)
@pytest.mark.parametrize(("screen", "number", "lit"), [
    (IDLE, "0.00", ()), (BASKET, "11.50", ("合计",)), (PAY, "11.50", ("合计",)), (PAID, "11.50", ("收款",)),
    (CHANGE, "8.50", ("找零",)), (CHECKING, "11.50", ()),
])
def test_the_light_says_what_the_number_is(dialect, screen, number, lit):
    pole = MODELS[dialect]()
    pole.feed(DIALECTS[dialect].reset + frame_of(glass_of(screen, None), dialect))
    assert (pole.rows(), pole.lit, pole.odd) == ([number], lit, 0)


def test_only_the_channels_word_lights_paid():
    for screen in (IDLE, CASH, BASKET, PAY, CHECKING, Screen("PLACING", "x", big="¥1.00"), Screen("REFUNDING", "x", big="¥1.00")):
        assert glass_of(screen, 9).light not in ("paid", "change") and "PAID" not in glass_of(screen, 9).top


def test_a_number_too_long_is_dashes_and_never_another_number():
    assert digits("123456.78") == b"123456.78" and digits("1234567.89") == b"--------" and digits("¥-3.50") == b"-3.50"
    assert set(LIGHTS[1:]) == {"price", "total", "paid", "change"} and len(LED_LIGHTS) == 4


@pytest.mark.parametrize("charset", ["ascii", "gbk"])
def test_a_row_is_twenty_cells_and_no_command_whatever_the_goods_are_called(charset):
    pick = random.Random(3)
    for _ in range(2_000):
        text = "".join(chr(pick.choice([pick.randrange(0x20), pick.randrange(0x7F, 0xA0), pick.randrange(0x20, 0x7F),
                                        pick.randrange(0x4E00, 0x9FA5), 0x1F600, 0x21, 0x23])) for _ in range(pick.randrange(30)))
        cells = row(text, charset)
        assert len(cells) == COLUMNS and min(cells) >= 0x20 and 0x7F not in cells and b"!#" not in cells
        if charset == "gbk":
            cells.decode("gbk")


def test_a_pole_without_chinese_letters_says_the_goods_name_that_it_has():
    tea = msgspec.structs.replace(BASKET, lines=(Line("脉动青柠味600ml", "1", 500, "Mizone lime 600ml"),))
    assert rows_on("cd5220", tea)[0] == "Mizone lime 600 5.00"
    alone = msgspec.structs.replace(BASKET, lines=(Line("脉动青柠味600ml", "1", 500),))
    assert rows_on("cd5220", alone)[0].startswith("ITEM ")


@pytest.mark.parametrize("dialect", TEXT)
def test_hostile_goods_stay_on_their_row(dialect):
    """A name with a clear, a cursor move or a whole command in it writes letters."""
    for name in ("\x0c\x1b@\x1f$\x01\x01HACK", "!#9all of it", "\x04\x01P\x31\x17HACK", "\x0eUP", "\x1bQAHACK\r"):
        shown = rows_on(dialect, msgspec.structs.replace(BASKET, lines=(Line(name, "1", 100),)))
        assert shown[0].endswith("1.00") and shown[1] == "TOTAL          11.50"


@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_a_cut_at_any_byte_is_healed_by_the_next_frame(dialect):
    whole = frame_of(glass_of(PAY, 9), dialect)
    after = frame_of(glass_of(PAID, None), dialect)
    for cut in range(len(whole)):
        pole = MODELS[dialect]()
        pole.feed(whole[:cut])
        for _ in range(2):                   # a command that was cut eats the first one of the next frame; the repeat is whole
            pole.feed(after)
        assert pole.rows()[-1].strip() == ("THANK YOU" if DIALECTS[dialect].rows == 2 else "11.50"), cut


def test_every_word_fits_beside_a_sum():
    for zh, en in WORDS.values():
        assert len(zh.encode("gbk")) <= COLUMNS and len(en) <= COLUMNS and sayable(en)


# The driver, over a pty

@pytest.mark.parametrize("dialect", ["cd5220", "dsp800", "led8"])
def test_the_driver_brings_it_over_a_port(tmp_path, dialect):
    port = PolePort(MODELS[dialect](), str(tmp_path / "pole"))
    display = PoleDisplay(str(tmp_path / "pole"), dialect=dialect)

    async def story():
        await display.show(BASKET, 0)
        await display.show(BASKET, 0)                            # stands there: nothing is sent
        await display.show(PAID, 0)
        assert await asyncio.to_thread(port.shows, lambda pole: pole.rows() == wanted.rows()) and port.pole.odd == 0
        await display.close()
        return [event.word async for event in display.inputs()]

    wanted = MODELS[dialect]()
    wanted.feed(frame_of(glass_of(PAID, None), dialect))
    assert asyncio.run(story()) == ["ok"]
    assert (display.frames, display.skipped) == (2, 1)
    port.unplug()


def test_a_pole_that_was_unplugged_is_named_and_shows_the_truth_when_it_is_back(tmp_path):
    path = str(tmp_path / "pole")
    port, display = PolePort(MODELS["epson"](), path), PoleDisplay(path, dialect="epson", part="display:2")

    async def story():
        await display.show(PAY, 0)
        port.unplug()
        for _ in range(2):
            with pytest.raises(DriverGone) as fault:
                await display.show(PAID, 0)
            assert fault.value.which == "display:2" and "cable" in fault.value.hint
        port.plug()
        await display.show(PAID, 0)

    asyncio.run(story())
    assert port.shows(lambda pole: pole.rows()[0] == "PAID           11.50")
    port.unplug()


def test_a_pole_that_takes_nothing_ends_in_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(display_pole, "STALL_S", 0.1)
    path = str(tmp_path / "pole")
    port, display = PolePort(MODELS["cd5220"](), path), PoleDisplay(path, baud=115_200)
    port.stuck = True

    async def story():
        await display.show(BASKET, 0)
        with pytest.raises(DriverGone, match="takes nothing"):
            for n in range(2_000):
                await display.show(msgspec.structs.replace(BASKET, big=f"¥{n}.00"), 0)

    asyncio.run(asyncio.wait_for(story(), 20))
    port.unplug()


def test_a_pole_that_lost_its_power_is_written_again(tmp_path, monkeypatch):
    monkeypatch.setattr(display_rows, "REPEAT_S", 0.0)
    path = str(tmp_path / "pole")
    port, display = PolePort(MODELS["aedex"](), path), PoleDisplay(path, dialect="aedex")

    async def story():
        await display.show(PAY, 0)
        assert await asyncio.to_thread(port.shows, lambda pole: "SCAN" in pole.rows()[0])
        port.pole.blank()
        await display.show(PAY, 0)                               # the same screen, again

    asyncio.run(story())
    assert port.shows(lambda pole: "SCAN" in pole.rows()[0])
    port.unplug()


@pytest.mark.parametrize("charset", ["ascii", "gbk"])
@pytest.mark.parametrize(("screen", "right"), [(BASKET, "7.50"), (PAY, "27"), (PAID, "11.50"), (CHANGE, "11.50"), (CHECKING, ""),
                                               (IDLE, ""), (msgspec.structs.replace(BASKET, lines=LINES[:1]), "4.00")])
def test_a_training_till_says_so_whatever_else_stands_there(screen, right, charset):
    top = glass_of(msgspec.structs.replace(screen, training=True), 60, charset).top
    assert top.startswith(WORDS["training"][charset == "ascii"]) and top.endswith(right)
