"""GS1 labels: every identifier's lengths, what a till reads of them, and the basket line they make."""

from __future__ import annotations

import random

import pytest

from device.drivers.input import gs1_bytes
from device.drivers.input.gs1_bytes import GS, Gs1, NotGs1, elements, gs1_of
from device.goods import PriceList, Template, check_digit
from device.types import Found, Item

TEA = "4891028705949"
GTIN = "0" + TEA
PRICES = PriceList([Item(TEA, "茶", "Tea", 700), Item("6901234567892", "苹果", "Apples", 1280, unit="kg")])
APPLES = "06901234567892"


def test_the_specification_s_own_example_is_read() -> None:
    # GS1 General Specifications 7.8.6: 01, then 10 ended by FNC1, then 17
    assert elements("0195012345678903" + "10ABC123" + GS + "17250131") == [
        ("01", "95012345678903"), ("10", "ABC123"), ("17", "250131")]


def test_a_label_of_every_kind_of_field() -> None:
    said = gs1_of(f"{GS}01{APPLES}310300123417261231152612003922001299{GS}10LOT-7/A{GS}21S00001")
    assert said == Gs1(APPLES, 1234, 1299, None, (("15", "261200"), ("17", "261231")), "LOT-7/A", "S00001")


@pytest.mark.parametrize("ai,value,grams", [
    ("3100", "000002", 2000), ("3103", "000195", 195), ("3105", "012345", 123), ("3105", "012350", 124)])
def test_a_weight_has_its_decimals_in_its_identifier(ai: str, value: str, grams: int) -> None:
    assert gs1_of(f"01{APPLES}{ai}{value}") == Gs1(APPLES, grams)


@pytest.mark.parametrize("field,fen", [("3922001299", 1299), ("39200013", 1300), ("393215600001299", 1299), ("392310500", 1050)])
def test_an_amount_is_whole_fen(field: str, fen: int) -> None:
    assert gs1_of(f"01{APPLES}{field}") == Gs1(APPLES, amount_fen=fen)


@pytest.mark.parametrize("text,why", [
    (f"{GS}0104891028705940", "check digit"),
    (f"{GS}01{GTIN[:-1]}", "13 characters instead of 14"),
    (f"{GS}01{GTIN}17261301", "17 of the label is no date"),
    (f"{GS}01{GTIN}17260230", "no date"),
    (f"{GS}01{GTIN}3103{GS}", "0 characters instead of 6"),
    (f"{GS}01{GTIN}310300x123", "not made of digits"),
    (f"{GS}01{GTIN}10{'A' * 21}", "21 characters instead of 1 to 20"),
    (f"{GS}01{GTIN}10{GS}21X", "0 characters instead of 1 to 20"),
    (f"{GS}01{GTIN}10A#B", "character that GS1 does not know"),
    (f"{GS}01{GTIN}05123", "where an application identifier"),
    (f"{GS}01{GTIN}3103000100{GS}3102000100", "twice"),
    (f"{GS}01{GTIN}3932840001299", "another currency"),
    (f"{GS}01{GTIN}39231299", "whole number of fen"),
    (f"{GS}01{GTIN}3203000100", "pounds"),
    (f"{GS}01{GTIN}3106000100", "more decimals"),
    (f"{GS}01{GTIN}02{GTIN}", "at once"),
    (f"{GS}02{GTIN}17261231", "carton's content or its count"),
    (f"{GS}01{GTIN}3724", "carton's content or its count"),
    (f"{GS}{GS}", "carries nothing"),
    (f"(01){GTIN}(3103)000195x", "7 characters"),
    (f"(01){GTIN}(", "parentheses"),
    (f"https://id.gs1.org/01/{GTIN}/3103/00019", "5 characters"),
    (f"https://id.gs1.org/01/{TEA[:-1]}0", "check digit"),
])
def test_what_means_to_be_gs1_and_is_not_says_why(text: str, why: str) -> None:
    with pytest.raises(NotGs1, match=why):
        gs1_of(text)


def test_every_identifier_refuses_what_is_one_too_short_and_one_too_long() -> None:
    dice = random.Random(5)
    for ai, (shortest, longest, _) in gs1_bytes._RANGES.items():
        name = ai.replace("n", str(dice.randrange(6)))
        for size in {shortest, longest}:
            assert elements(f"{name}{'1' * size}") == [(name, "1" * size)]
        for size in (shortest - 1, longest + 1):
            with pytest.raises(NotGs1):
                elements(f"{name}{'1' * size}")
    for ai, size in gs1_bytes._FIXED.items():
        with pytest.raises(NotGs1):
            elements(ai + "0" * (size - 1))


def test_a_digital_link_and_a_written_label_say_the_same() -> None:
    wanted = Gs1(GTIN, None, None, None, (("17", "261231"),), "A/B", "7")
    assert gs1_of(f"https://id.gs1.org/01/{GTIN}/10/A%2FB/21/7?17=261231&utm=x") == wanted
    assert gs1_of(f"HTTPS://SHOP.EXAMPLE/cn/p/gtin/{TEA}/10/A%2FB/21/7?17=261231#top") == wanted
    assert gs1_of(f"(01){GTIN}(10)A/B(21)7(17)261231") == wanted


def test_a_shop_s_own_code_is_not_taken_for_gs1() -> None:
    for text in (TEA, "0100000000000001", "01" + GTIN[:-1], "01" + "12345678901231" + "999", "130000000000000000", "HELLO", "",
                 "(01", "https://qr.alipay.com/fkx00000", "01" + GTIN + "AB", "x" * 5000):
        assert gs1_of(text) is None
    with pytest.raises(NotGs1):
        gs1_of("HELLO", sure=True)


def test_rubbish_never_does_anything_but_say_no() -> None:
    dice = random.Random(11)
    for _ in range(3000):
        text = "".join(dice.choice("0123456789(){}AZ\x1d/:%ä\x00?&=") for _ in range(dice.randrange(60)))
        for sure in (False, True):
            try:
                gs1_of(text, sure=sure)
            except NotGs1:
                pass


# In the price list.

def test_a_label_becomes_the_line_of_its_goods() -> None:
    def look(text: str) -> Found | str:
        found = PRICES.look_up(text)
        return found if found else PRICES.why_unknown(text)

    tea, apples = PRICES.look_up(TEA), Item("6901234567892", "苹果", "Apples", 1280, unit="kg")
    assert look(f"01{GTIN}17261231") == tea and look(f"https://id.gs1.org/01/{TEA}") == tea
    assert look(f"{GS}01{APPLES}3103001234") == Found(apples, 1234)
    assert look(f"{GS}01{APPLES}31030012343922001580") == Found(apples, 1234, 1580)
    assert look(f"{GS}01{APPLES}3922001280") == Found(apples, 1000, 1280)
    assert look("0196901234567895" + "3103000500") == Found(apples, 500)             # indicator 9: of variable measure
    assert look(f"01{GTIN}3012") == Found(Item(TEA, "茶", "Tea", 700), 12_000)
    assert look(f"{GS}02{GTIN}3724") == Found(Item(TEA, "茶", "Tea", 700), 24_000)
    assert look(f"{GS}01{GTIN}303{GS}3922002000") == Found(Item(TEA, "茶", "Tea", 700), 3000, 2000)
    varies = "9" + GTIN[1:13]
    assert "no weight" in str(look(f"{GS}01{varies}{check_digit(varies)}17261231"))      # it would have been sold as one piece
    assert PRICES.found(f"{GS}01{APPLES}17261231") == "weigh" and PRICES.found(f"{GS}01{GTIN}3103001234") == "piece"
    assert PRICES.found(f"{GS}01{GTIN[:-1]}0") == "label" and PRICES.found(TEA[:-1] + "0") == "check" and PRICES.found("x") == ""
    assert "by weight" in str(look(f"{GS}01{APPLES}17261231"))
    assert "by the piece" in str(look(f"{GS}01{GTIN}3103001234"))
    assert "no weight" in str(look(f"{GS}01{APPLES}3103000000"))
    assert "999" in str(look(f"{GS}01{GTIN}301000"))
    assert "names no goods" in str(look(f"{GS}10ABC"))
    assert "price list" in str(look("0195012345678903"))
    assert "check digit" in str(look(f"{GS}01{GTIN[:-1]}0"))


def test_a_shop_s_template_reads_its_labels_before_gs1_does() -> None:
    template = Template("01PPPPPPPPPPVVVVVC", prefixes=())
    assert "check digit" in PRICES.why_unknown(f"01{GTIN}17", (template,))       # of the label, and not of a field 01
