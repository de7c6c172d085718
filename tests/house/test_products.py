"""The price list that the demo sells from."""

from __future__ import annotations

import csv

from device.goods import Template, check_digit, ean13_ok
from device.price_file import HEADER, read_prices
from device.types import Found
from tests import ROOT

FILE = ROOT / "sim" / "data" / "products.csv"


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(FILE.read_text("utf-8").splitlines()))


def test_it_reads_whole_and_has_the_columns_others_rely_on() -> None:
    prices = read_prices(FILE.read_bytes())
    assert tuple(rows()[0]) == HEADER
    assert len(prices) == len(rows()) == 89


def test_packed_goods_carry_valid_numbers_outside_the_shops_own_range() -> None:
    packed = [row for row in rows() if row["source"] == "printed on the pack"]
    assert len(packed) == 77
    assert all(ean13_ok(row["gtin"]) and row["gtin"][0] != "2" and row["unit"] == "piece" for row in packed)


def test_goods_by_weight_stand_in_the_shops_own_range_and_sell_by_label() -> None:
    prices = read_prices(FILE.read_bytes())
    loose = [row for row in rows() if row["source"] == "in-store"]
    assert len(loose) == 12 and {row["unit"] for row in loose} == {"kg"}
    for row in loose:
        stem = row["gtin"][:7] + "01234"
        found = prices.look_up(f"{stem}{check_digit(stem)}", (Template("FFPPPPPVVVVVC", prefixes=("21",)),))
        assert isinstance(found, Found) and found.qty_milli == 1234 and found.item.gtin == row["gtin"]


def test_no_row_says_anything_else_of_its_source() -> None:
    assert {row["source"] for row in rows()} == {"printed on the pack", "in-store"}
