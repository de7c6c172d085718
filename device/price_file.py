"""A price list as CSV.  Knows the columns and refuses the whole file with every reason; opens nothing."""

from __future__ import annotations

import csv
import hashlib
import io

from device.errors import ConfigError
from device.goods import GTIN_LENS, PriceList, check_digit, gtin_key
from device.types import Item

HEADER = ("gtin", "name_zh", "name_en", "price_fen", "unit", "source")
UNITS = ("piece", "kg")
PRICE_FEN_MAX = 5_000_000
NAME_LEN_MAX = 80
REASONS_MAX = 200             # a wrong file is wrong in every row; nobody reads ten thousand sentences


def read_prices(data: bytes, *, which: str = "prices") -> PriceList:
    """The price list in `data`, UTF-8 CSV with `HEADER`; its version is the first 12 hex digits of the SHA-256.

    ConfigError with every reason, row and hint when any row is bad: half a price list sells at half the prices.
    """
    items, reasons = _rows(data)
    if reasons:
        more = len(reasons) - REASONS_MAX
        raise ConfigError(reasons[:REASONS_MAX] + ([f"and {more} more"] if more > 0 else []), which=which)
    return PriceList(items, version=hashlib.sha256(data).hexdigest()[:12])


def _rows(data: bytes) -> tuple[list[Item], list[str]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        bad = data[: fault.start].count(b"\n") + 1
        return [], [f"row {bad}: not UTF-8; save the file as \"CSV UTF-8\" (Excel's plain CSV is GBK)"]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    items: list[Item] = []
    reasons: list[str] = []
    rows_of: dict[str, int] = {}
    try:
        header = next(reader, [])
        if tuple(header) != HEADER:
            return [], [f"row 1: the header is {','.join(header)[:80]!r} instead of {','.join(HEADER)!r}"]
        for row in reader:
            if not row:
                continue
            item, faults = _item(row)
            key = item and gtin_key(item.gtin)
            if key and key in rows_of:
                faults.append(f"gtin {row[0]} stands in row {rows_of[key]} already; keep one of them")
            elif key:
                rows_of[key] = reader.line_num
            reasons += [f"row {reader.line_num}: {fault}" for fault in faults]
            if item:
                items.append(item)
    except csv.Error as fault:
        reasons.append(f"row {reader.line_num}: not CSV: {fault}")
    if not items and not reasons:
        reasons.append("row 2: there is none; a price list needs at least one row")
    return items, reasons


def _item(row: list[str]) -> tuple[Item | None, list[str]]:
    if len(row) != len(HEADER):
        return None, [f"{len(row)} columns instead of {len(HEADER)}; put names with a comma in double quotes"]
    gtin, name_zh, name_en, price, unit, source = row
    faults = [fault for fault in (_gtin_fault(gtin), _price_fault(price)) if fault]
    faults += [fault for name, text in (("name_zh", name_zh), ("name_en", name_en)) if (fault := _name_fault(name, text))]
    if unit not in UNITS:
        faults.append(f"unit {unit!r} is none of {' '.join(UNITS)}")
    if not source.strip():
        faults.append("source is empty; say where name and price come from")
    if faults:
        return None, faults
    return Item(gtin=gtin, name_zh=name_zh, name_en=name_en, price_fen=int(price), unit=unit), []


def _gtin_fault(gtin: str) -> str:
    if "E+" in gtin.upper():
        return f"gtin {gtin!r} was rounded by a spreadsheet; format the column as text and enter it again"
    if not (gtin.isascii() and gtin.isdigit()) or len(gtin) not in GTIN_LENS:
        return f"gtin {gtin!r} is not 8, 12, 13 or 14 digits"
    if gtin_key(gtin) is None:
        return f"gtin {gtin}: the check digit is wrong; it should be {check_digit(gtin[:-1])}"
    return ""


def _price_fault(price: str) -> str:
    if not (price.isascii() and price.isdigit()):
        return f"price_fen {price!r} is not a whole number of fen; write 150 for 1.50 yuan"
    if len(price) > 9 or not 1 <= int(price) <= PRICE_FEN_MAX:
        return f"price_fen {price[:20]} is not between 1 and {PRICE_FEN_MAX}"
    return ""


def _name_fault(name: str, text: str) -> str:
    if not text.strip():
        return f"{name} is empty"
    if len(text) > NAME_LEN_MAX:
        return f"{name} has {len(text)} characters; at most {NAME_LEN_MAX} fit"
    if not text.isprintable():
        return f"{name} holds control or invisible characters; type it anew"
    return ""
