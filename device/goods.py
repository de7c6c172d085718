"""Goods behind a symbol: check digits, in-store weight and price codes, the price list.  Knows no file, no scanner, no sale.

How in-store goods are keyed: a code such as 21 00001 01234 c (prefix, item, value, check digit) stands in the price list
with its value written as zeros and the check digit that then fits, here 2100001000004.  An 18-digit scale code of the
same prefix and item has the same key, so one row serves every label of one item.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from device.types import Found, Item

if TYPE_CHECKING:
    from device.drivers.input.gs1_bytes import Gs1

GTIN_LENS = (8, 12, 13, 14)
TEMPLATE_KINDS = ("weight", "price", "both")
COUNT_MAX = 999              # pieces on one label, as many as a cashier may type


def check_digit(digits: str) -> int:
    """The check digit that follows `digits`: weights 3 and 1 from the right, modulo 10.

    ValueError for anything but ASCII digits.  Source: GS1 General Specifications, section 7.9.
    """
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"{digits!r} is not made of digits")
    return -sum(int(digit) * (3, 1)[n % 2] for n, digit in enumerate(reversed(digits))) % 10


def ean13_ok(digits: str) -> bool:
    """True when `digits`, 13 ASCII digits, end in their check digit.  ValueError for any other length or character."""
    return _ok(digits, 13)


def ean8_ok(digits: str) -> bool:
    """As `ean13_ok`, for 8 digits."""
    return _ok(digits, 8)


def upca_ok(digits: str) -> bool:
    """As `ean13_ok`, for 12 digits."""
    return _ok(digits, 12)


def itf14_ok(digits: str) -> bool:
    """As `ean13_ok`, for the 14 digits on a carton."""
    return _ok(digits, 14)


def _ok(digits: str, length: int) -> bool:
    if len(digits) != length:
        raise ValueError(f"{digits!r} has {len(digits)} characters instead of {length}")
    return check_digit(digits[:-1]) == int(digits[-1])


def gtin_key(symbol: str) -> str | None:
    """The one form under which a GTIN is filed, or None when `symbol` is no GTIN or its check digit is wrong.

    UPC-A becomes the EAN-13 with a leading 0, and so does a GTIN-14 that begins with 0; EAN-8 stays 8 digits.
    """
    if len(symbol) not in GTIN_LENS or not (symbol.isascii() and symbol.isdigit()):
        return None
    if not _ok(symbol, len(symbol)):
        return None
    if len(symbol) == 12:
        return "0" + symbol
    if len(symbol) == 14 and symbol[0] == "0":
        return symbol[6:] if symbol.startswith("000000") else symbol[1:]
    return symbol


class Template(msgspec.Struct, frozen=True):
    """How a shop's own labels are read.

    `pattern`: one letter a digit. F prefix, P item, V value (what `kind` says), W weight, M amount, C check digit, and
    digits stand for themselves, e.g. "21PPPPPVVVVVC" or "FFPPPPPMMMMMWWWWWC".  `kind` is `weight` (V or W), `price` (V
    or M) or `both` (W and M).  `prefixes` narrows F; empty allows any beginning with 2.  Weights are kg with
    `weight_decimals` decimals, amounts yuan with `price_decimals`.  `check` off leaves the C digit unread.
    """

    pattern: str
    kind: str = "weight"
    prefixes: tuple[str, ...] = ()
    weight_decimals: int = 3
    price_decimals: int = 2
    check: bool = True


class Label(msgspec.Struct, frozen=True):
    """What a template reads from a symbol: the item's key and the figures printed in it."""

    key: str
    weight_g: int | None = None
    amount_fen: int | None = None


def template_faults(template: Template) -> list[str]:
    """Everything that is wrong with `template`, a sentence each; empty when it can be used."""
    faults = []
    pattern, kind = template.pattern, template.kind
    odd = sorted(set(pattern) - set("FPVWMC0123456789"))
    if odd:
        faults.append(f"pattern {pattern!r} holds {' '.join(odd)}; letters are F P V W M C, digits stand for themselves")
    if not 8 <= len(pattern) <= 32:
        faults.append(f"pattern {pattern!r} has {len(pattern)} places; labels have 8 to 32")
    for letter in "FPVWM":
        if letter * pattern.count(letter) not in pattern:
            faults.append(f"pattern {pattern!r} has its {letter} in more than one place")
    if "P" not in pattern:
        faults.append(f"pattern {pattern!r} has no P: it names no item")
    if pattern.count("C") > 1 or "C" in pattern[:-1]:
        faults.append(f"pattern {pattern!r}: the check digit C stands once, and last")
    if kind not in TEMPLATE_KINDS:
        faults.append(f"kind {kind!r} is none of {' '.join(TEMPLATE_KINDS)}")
    elif _fields(pattern) not in {"weight": ({"V"}, {"W"}), "price": ({"V"}, {"M"}), "both": ({"W", "M"},)}[kind]:
        wanted = {"weight": "V or W", "price": "V or M", "both": "W and M"}[kind]
        faults.append(f"pattern {pattern!r} of kind {kind} needs {wanted} and no other value")
    if len(pattern.translate(_NO_VALUES)) > 12:
        faults.append(f"pattern {pattern!r} names items by more than 12 digits")
    for prefix in template.prefixes:
        if not (prefix.isascii() and prefix.isdigit()) or len(prefix) != pattern.count("F"):
            faults.append(f"prefix {prefix!r} is not {pattern.count('F')} digits, as pattern {pattern!r} has it")
    if not 0 <= template.weight_decimals <= 3:
        faults.append(f"weight_decimals {template.weight_decimals} is not 0 to 3")
    if not 0 <= template.price_decimals <= 2:
        faults.append(f"price_decimals {template.price_decimals} is not 0 to 2")
    return faults


_NO_VALUES = str.maketrans("", "", "VWMC")


def _fields(pattern: str) -> set[str]:
    return set(pattern) & {"V", "W", "M"}


def label_fits(symbol: str, template: Template) -> bool:
    """True when `symbol` has the template's length, prefix and literal digits; the check digit is not looked at."""
    pattern = template.pattern
    if len(symbol) != len(pattern) or not (symbol.isascii() and symbol.isdigit()):
        return False
    if any(place.isdigit() and place != digit for place, digit in zip(pattern, symbol, strict=True)):
        return False
    prefix = _part(symbol, pattern, "F")
    return prefix in template.prefixes if template.prefixes else not prefix or prefix[0] == "2"


def label_of(symbol: str, template: Template) -> Label | None:
    """What `template` reads from `symbol`; None when it does not fit or its check digit is wrong."""
    pattern = template.pattern
    if not label_fits(symbol, template):
        return None
    if template.check and pattern.endswith("C") and check_digit(symbol[:-1]) != int(symbol[-1]):
        return None
    stem = "".join(digit for place, digit in zip(pattern, symbol, strict=True) if place not in "VWMC").ljust(12, "0")
    weight = _part(symbol, pattern, "W") or (_part(symbol, pattern, "V") if template.kind == "weight" else "")
    amount = _part(symbol, pattern, "M") or (_part(symbol, pattern, "V") if template.kind == "price" else "")
    return Label(
        key=f"{stem}{check_digit(stem)}",
        weight_g=int(weight) * 10 ** (3 - template.weight_decimals) if weight else None,
        amount_fen=int(amount) * 10 ** (2 - template.price_decimals) if amount else None,
    )


def _part(symbol: str, pattern: str, letter: str) -> str:
    at = pattern.find(letter)
    return symbol[at : at + pattern.count(letter)] if at >= 0 else ""


class Unknown(msgspec.Struct, frozen=True):
    """Why a symbol is no goods: one of CAUSES for the cashier, and a sentence."""

    cause: str
    why: str


CAUSES = ("", "check", "weigh", "piece", "nothing", "label")
UNLISTED = Unknown("", "no price list knows this code")
NOTHING = Unknown("nothing", "the label carries no weight or amount: weigh it again")


class PriceList:
    """Goods by symbol.  `items` carry unique keys, as `price_file` has checked; GTINs are filed in one form.

    `version` names this list in facts and on screens.
    """

    def __init__(self, items: Iterable[Item] = (), *, version: str = "") -> None:
        self.version = version
        self._items = {gtin_key(item.gtin) or item.gtin: item for item in items}

    def __len__(self) -> int:
        return len(self._items)

    def look_up(self, symbol: str, templates: tuple[Template, ...] = ()) -> Found | None:
        """The goods behind `symbol`, or None; `why_unknown` then says why.  Never raises.

        The first template that fits `symbol` reads it; only what no template fits is looked up as it stands.
        """
        found = self.found(symbol, templates)
        return found if isinstance(found, Found) else None

    def why_unknown(self, symbol: str, templates: tuple[Template, ...] = ()) -> str:
        """One sentence saying why `look_up` gives None for `symbol`; "" when it does not."""
        found = self._judge(symbol, templates)
        return found.why if isinstance(found, Unknown) else ""

    def found(self, symbol: str, templates: tuple[Template, ...] = ()) -> Found | str:
        """As `look_up`, and of what is not found one of CAUSES."""
        found = self._judge(symbol, templates)
        return msgspec.structs.replace(found, list_version=self.version) if isinstance(found, Found) else found.cause

    def _judge(self, symbol: str, templates: tuple[Template, ...]) -> Found | Unknown:
        for template in templates:
            if label_fits(symbol, template):
                label = label_of(symbol, template)
                return self._weighed(label) if label else _wrong_check(symbol)
        if len(symbol) > GTIN_LENS[-1] or "\x1d" in symbol:      # every GS1 label that names goods is longer than a GTIN
            said = _gs1(symbol)
            if said is not None:
                return said if isinstance(said, Unknown) else self._labelled(said)
        if len(symbol) in GTIN_LENS and symbol.isascii() and symbol.isdigit():
            key = gtin_key(symbol)
            if key is None:
                return _wrong_check(symbol)
            item = self._items.get(key)
            if item is not None and item.unit == "kg":
                return _by_weight(item)
            return Found(item) if item else UNLISTED
        item = self._items.get(symbol)
        return Found(item) if item else UNLISTED

    def _labelled(self, said: Gs1) -> Found | Unknown:
        """The line that a GS1 label makes: its GTIN's goods, with the weight, amount or count that it says."""
        item = self._items.get(gtin_key(said.gtin) or "")
        varies = said.gtin.startswith("9")
        if item is None and varies:                      # filed under the number of its base unit
            stem = said.gtin[1:13]
            item = self._items.get(f"{stem}{check_digit(stem)}")
        if item is None:
            return UNLISTED if said.gtin else Unknown("label", "the label names no goods")
        if 0 in (said.weight_g, said.amount_fen, said.count):
            return NOTHING
        if varies and said.weight_g is said.amount_fen is said.count is None:
            return NOTHING                               # of variable measure, and the label does not say it
        if said.weight_g is not None and item.unit != "kg":
            return _by_piece(item)
        if said.weight_g is None and said.amount_fen is None and item.unit == "kg":
            return _by_weight(item)
        if (said.count or 1) > COUNT_MAX:
            return Unknown("label", f"the label counts more than {COUNT_MAX} pieces")
        if said.weight_g is None and said.amount_fen is not None and (item.unit == "kg" or said.count is None):
            return Found(item, qty_milli=_implied_milli(item, said.amount_fen), amount_fen=said.amount_fen)
        return Found(item, qty_milli=said.weight_g if said.weight_g is not None else 1000 * (said.count or 1),
                     amount_fen=said.amount_fen)

    def _weighed(self, label: Label) -> Found | Unknown:
        item = self._items.get(label.key)
        if item is None:
            return Unknown("", f"no price list knows the in-store item {label.key}")
        if label.weight_g == 0 or label.amount_fen == 0:
            return NOTHING
        if label.amount_fen is None:
            if item.unit != "kg":
                return _by_piece(item)
            return Found(item, qty_milli=label.weight_g or 0)
        if label.weight_g is not None:
            return Found(item, qty_milli=label.weight_g, amount_fen=label.amount_fen)
        return Found(item, qty_milli=_implied_milli(item, label.amount_fen), amount_fen=label.amount_fen)


def _gs1(symbol: str) -> Gs1 | Unknown | None:
    """What a GS1 label says, None when `symbol` is none, or what is wrong with it."""
    from device.drivers.input.gs1_bytes import NotGs1, gs1_of  # by the first label: a start has no time for its table
    try:
        return gs1_of(symbol)
    except NotGs1 as why:
        return Unknown("label", str(why))


def _by_weight(item: Item) -> Unknown:
    return Unknown("weigh", f"{item.name_en} is sold by weight: weigh it and scan the scale's label")


def _by_piece(item: Item) -> Unknown:
    return Unknown("piece", f"{item.name_en} is sold by the piece and cannot carry a weight label")


def _implied_milli(item: Item, amount_fen: int) -> int:
    # A price label does not say the weight; one kilogram would be a lie, so the receipt shows what the price implies.
    if item.unit != "kg" or item.price_fen <= 0:
        return 1000
    return max(1, (amount_fen * 2000 + item.price_fen) // (2 * item.price_fen))


def _wrong_check(symbol: str) -> Unknown:
    return Unknown("check", f"the check digit is wrong (it should be {check_digit(symbol[:-1])}): scan again")
