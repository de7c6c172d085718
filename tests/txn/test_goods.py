"""Check digits, in-store labels and price lists."""

from __future__ import annotations

import pytest

from device.errors import ConfigError
from device.goods import (
    Label,
    PriceList,
    Template,
    check_digit,
    ean8_ok,
    ean13_ok,
    gtin_key,
    itf14_ok,
    label_of,
    template_faults,
    upca_ok,
)
from device.price_file import HEADER, REASONS_MAX, read_prices
from device.types import Found, Item
from sim.data.generate import price_book

TEA = Item("4891028705949", "维他柠檬茶500ml", "Vita lemon tea 500 ml", 700)
APPLES = Item("2100002000003", "红富士苹果", "Fuji apples", 998, "kg")
CAKE = Item("2200007000005", "蛋糕", "Cake", 1500)
WEIGHT = Template("FFPPPPPVVVVVC", kind="weight", prefixes=("21",))
PRICE = Template("FFPPPPPVVVVVC", kind="price", prefixes=("22",))
SCALE18 = Template("FFPPPPPMMMMMWWWWWC", kind="both", prefixes=("21", "26"))
LABELS = (WEIGHT, PRICE, SCALE18)
GOODS = PriceList([TEA, APPLES, CAKE])


def label(stem: str) -> str:
    return stem + str(check_digit(stem))


def csv_of(*rows: str) -> bytes:
    return "\n".join([",".join(HEADER), *rows]).encode()


def test_check_digits_of_each_kind() -> None:
    assert ean13_ok("4006381333931") and not ean13_ok("4006381333932")
    assert ean8_ok("96385074") and not ean8_ok("96385075")
    assert upca_ok("036000291452") and not upca_ok("036000291453")
    assert itf14_ok("15400141288763") and not itf14_ok("15400141288764")
    for bad in ("123", "400638133393x", "４006381333931", ""):
        with pytest.raises(ValueError):
            ean13_ok(bad)


def test_every_wrong_digit_and_most_swaps_are_noticed() -> None:
    for n, right in enumerate(TEA.gtin):
        for digit in "0123456789":
            assert ean13_ok(TEA.gtin[:n] + digit + TEA.gtin[n + 1 :]) == (digit == right)


def test_one_form_for_one_gtin() -> None:
    assert gtin_key("036000291452") == gtin_key("0036000291452") == gtin_key("00036000291452") == "0036000291452"
    assert gtin_key("96385074") == gtin_key("00000096385074") == "96385074"
    assert gtin_key("15400141288763") == "15400141288763"
    assert gtin_key("4891028705948") is None and gtin_key("abc") is None
    assert PriceList([Item("036000291452", "纸巾", "Tissues", 500)]).look_up("0036000291452") is not None


def test_a_weight_label_gives_the_weight() -> None:
    assert GOODS.look_up(label("210000200512"), LABELS) == Found(APPLES, qty_milli=512)


def test_a_price_label_gives_the_amount() -> None:
    assert GOODS.look_up(label("220000701250"), LABELS) == Found(CAKE, amount_fen=1250)
    of_kg = PriceList([APPLES]).look_up(label("210000200499"), (Template("FFPPPPPVVVVVC", kind="price"),))
    assert of_kg == Found(APPLES, qty_milli=500, amount_fen=499)


def test_a_scale_code_of_18_digits_gives_both_and_names_the_same_goods() -> None:
    code = label("21" + "00002" + "00511" + "00512")
    assert GOODS.look_up(code, LABELS) == Found(APPLES, qty_milli=512, amount_fen=511)
    weight_first = Template("FFPPPPPWWWWWMMMMMC", kind="both")
    assert label_of(code, weight_first) == Label(APPLES.gtin, weight_g=511, amount_fen=512)


def test_decimals_and_literal_prefixes() -> None:
    tens = Template("21PPPPPVVVVVC", weight_decimals=2)
    assert label_of(label("210000200512"), tens) == Label(APPLES.gtin, weight_g=5120)
    jiao = Template("2PPPPPPVVVVVC", kind="price", price_decimals=1)
    assert label_of(label("210000200512"), jiao) == Label(APPLES.gtin, amount_fen=5120)
    assert label_of(label("220000200512"), tens) is None


def test_a_wrong_check_digit_sells_nothing_and_says_so() -> None:
    right = label("210000200512")
    wrong = right[:-1] + str((int(right[-1]) + 1) % 10)
    assert GOODS.look_up(wrong, LABELS) is None and "check digit" in GOODS.why_unknown(wrong, LABELS)
    unread = Template("FFPPPPPVVVVVC", prefixes=("21",), check=False)
    assert GOODS.look_up(wrong, (unread,)) == Found(APPLES, qty_milli=512)
    assert "should be 9" in GOODS.why_unknown("4891028705940")


def test_labels_that_would_sell_nonsense_are_refused() -> None:
    assert "no weight" in GOODS.why_unknown(label("210000200000"), LABELS)
    assert "by weight" in GOODS.why_unknown(APPLES.gtin)
    assert "by the piece" in GOODS.why_unknown(label("220000700512"), (Template("FFPPPPPVVVVVC"),))
    assert "in-store item" in GOODS.why_unknown(label("219999900512"), LABELS)
    assert GOODS.why_unknown("6901939621608") == "no price list knows this code"


def test_no_payment_code_and_no_rubbish_is_goods() -> None:
    for symbol in ("134567890123456789", "281234567890123456", "6225881234567890123", "", "x" * 64, "²¹00002005123"):
        assert GOODS.look_up(symbol, LABELS) is None and GOODS.why_unknown(symbol, LABELS)


def test_why_unknown_is_silent_about_known_goods() -> None:
    assert GOODS.look_up(TEA.gtin) == Found(TEA) and GOODS.why_unknown(TEA.gtin) == ""


@pytest.mark.parametrize("bad", [
    Template("FFPPPPPVVVVVX"), Template("FFVVVVVC"), Template("PPFFPPPVVVVVC"), Template("CFFPPPPPVVVVV"),
    Template("FFPPPPPMMMMMWWWWWC", kind="weight"), Template("FFPPPPPVVVVVC", kind="both"), Template("FFPPPPPVVVVVC", kind="x"),
    Template("FFPPPPPVVVVVC", prefixes=("2",)), Template("FFPPPPPVVVVVC", weight_decimals=4), Template("PV"),
    Template("FFPPPPPPPPPPPPPVVVVVC"), Template("FFPPPPPVVVVVC", price_decimals=-1),
])
def test_a_template_that_cannot_work_is_explained(bad: Template) -> None:
    assert template_faults(bad)


def test_good_templates_have_no_faults() -> None:
    assert [template_faults(t) for t in (*LABELS, Template("21PPPPPVVVVVC"))] == [[], [], [], []]


def test_a_price_file_is_read_whole() -> None:
    prices = read_prices(b"\xef\xbb\xbf" + csv_of('4891028705949,维他柠檬茶,"Tea, lemon",700,piece,printed on the pack', ""))
    assert prices.look_up("4891028705949") == Found(
        Item("4891028705949", "维他柠檬茶", "Tea, lemon", 700), list_version=prices.version)
    assert len(prices.version) == 12 and len(prices) == 1


def test_a_price_file_is_refused_whole_with_every_reason() -> None:
    data = csv_of(
        "4891028705949,茶,Tea,700,piece,pack",
        "4891028705940,茶,Tea,7.00,box,",
        "6.90E+12,\x07,Tea,0,piece,pack",
        "04891028705949,茶,Tea,700,piece,pack",
        "茶,Tea",
    )
    with pytest.raises(ConfigError) as refused:
        read_prices(data)
    said = refused.value.reasons
    assert [reason.split(":")[0] for reason in said] == ["row 3"] * 4 + ["row 4"] * 3 + ["row 5", "row 6"]
    for word in ("should be 9", "write 150 for 1.50", "piece kg", "source is empty", "spreadsheet", "control", "row 2 already"):
        assert any(word in reason for reason in said), word


@pytest.mark.parametrize(("data", "word"), [
    (b"", "header"), (csv_of(), "none"), (b"gtin,name\n1,2\n", "header"), (csv_of('"unfinished'), "not CSV"),
    (csv_of("4891028705949,x,y,700,piece,pack") + "\n茶".encode("gbk"), "row 3: not UTF-8"),
])
def test_files_that_are_no_price_list(data: bytes, word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        read_prices(data)


def test_a_wrong_file_is_not_answered_with_thousands_of_sentences() -> None:
    with pytest.raises(ConfigError) as refused:
        read_prices(csv_of(*["x,y"] * 5000))
    assert len(refused.value.reasons) == REASONS_MAX + 1 and "4800 more" in refused.value.reasons[-1]


def test_a_generated_book_reads_whole_and_says_what_it_is() -> None:
    data = price_book(500)
    assert len(read_prices(data)) == 500
    assert data.count(b"generated for benches") == 500
