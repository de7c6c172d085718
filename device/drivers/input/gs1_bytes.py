"""GS1 element strings and digital links in, what a till needs of them out.  Knows the table of application identifiers and every
length in it; opens nothing, knows no price list.

Source: GS1 General Specifications, section 3 (identifiers), 7.8 (element strings), 7.12 (dates); GS1 Digital Link 1.2.
"""

from __future__ import annotations

import re
from functools import cache

import msgspec

from device.goods import check_digit

GS = "\x1d"
CNY = "156"                     # ISO 4217 number of the renminbi
TEXT_LEN_MAX = 200              # more than any label carries; what is longer is not looked into

# Identifier, or its first digits, to (fixed, shortest, longest, digits only).  `fixed` needs no separator behind it: those
# lengths stand in the readers' firmware.  A trailing "n" is any one digit: the number of decimals.
_FIXED = {"00": 18, "01": 14, "02": 14, "03": 14, "04": 16, **{f"1{n}": 6 for n in "12356789"}, "20": 2}
_RANGES: dict[str, tuple[int, int, bool]] = {
    "10": (1, 20, False), "21": (1, 20, False), "22": (1, 20, False), "235": (1, 28, False), "240": (1, 30, False),
    "241": (1, 30, False), "242": (1, 6, True), "243": (1, 20, False), "250": (1, 30, False), "251": (1, 30, False),
    "253": (13, 30, False), "254": (1, 20, False), "255": (13, 25, True), "30": (1, 8, True), "37": (1, 8, True),
    "390n": (1, 15, True), "391n": (4, 18, True), "392n": (1, 15, True), "393n": (4, 18, True), "394n": (4, 4, True),
    "395n": (6, 6, True), "400": (1, 30, False), "401": (1, 30, False), "402": (17, 17, True), "403": (1, 30, False),
    "420": (1, 20, False), "421": (4, 12, False), "422": (3, 3, True), "423": (3, 15, True), "424": (3, 3, True),
    "425": (3, 15, True), "426": (3, 3, True), "427": (1, 3, False), "7001": (13, 13, True), "7002": (1, 30, False),
    "7003": (10, 10, True), "7004": (1, 4, True), "7005": (1, 12, False), "7006": (6, 6, True), "7007": (6, 12, True),
    "7008": (1, 3, False), "7009": (1, 10, False), "7010": (1, 2, False), "7020": (1, 20, False), "7021": (1, 20, False),
    "7022": (1, 20, False), "7023": (1, 30, False), "703n": (4, 30, False), "7040": (4, 4, False), "71n": (1, 20, False),
    "723n": (3, 30, False), "8001": (14, 14, True), "8002": (1, 20, False), "8003": (14, 30, False), "8004": (1, 30, False),
    "8005": (6, 6, True), "8006": (18, 18, True), "8007": (1, 34, False), "8008": (8, 12, True), "8009": (1, 50, False),
    "8010": (1, 30, False), "8011": (1, 12, True), "8012": (1, 20, False), "8013": (1, 25, False), "8017": (18, 18, True),
    "8018": (18, 18, True), "8019": (1, 10, True), "8020": (1, 25, False), "8026": (18, 18, True), "8110": (1, 70, False),
    "8111": (4, 4, True), "8112": (1, 70, False), "8200": (1, 70, False), "90": (1, 30, False),
    **{f"9{n}": (1, 90, False) for n in "123456789"},
}
DATES = {"11": "made", "13": "packed", "15": "best before", "16": "sell by", "17": "expires"}
_KNOWN = frozenset("!\"%&'()*+,-./0123456789:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")   # character set 82


class NotGs1(Exception):
    """The text means to be GS1 and is not; one sentence."""


class Gs1(msgspec.Struct, frozen=True):
    """What a label says.  `gtin` 14 digits, check digit proven, "" when it names none; weight, amount and count None when it
    does not say; dates YYMMDD by identifier, a day of 00 is the month's last.
    """

    gtin: str = ""
    weight_g: int | None = None
    amount_fen: int | None = None
    count: int | None = None
    dates: tuple[tuple[str, str], ...] = ()
    lot: str = ""
    serial: str = ""


def gs1_of(text: str, *, sure: bool = False) -> Gs1 | None:
    """What `text` says in GS1's language, None when it is not written in it.  NotGs1 when it is, and wrongly.

    A separator in front or inside, parentheses, a digital link, or `sure` (the reader named the symbology) make it GS1; an
    identifier 01 with a GTIN of right check digit alone makes it likely, and then a fault is None: it may be a shop's own code.
    """
    if len(text) > TEXT_LEN_MAX:
        return None
    link = _link().fullmatch(text) if text[:4].lower() == "http" else None
    if link is not None:
        return _told(_link_elements(link))
    if text.startswith(("(01)", "(02)")):
        return _told(_written_elements(text))
    if sure or GS in text:
        return _told(elements(text))
    # 19 digits that begin with 01 are how an e-CNY code looks, and no label needs that length.
    if re.match("01[0-9]{14}", text) and _check_ok(text[2:16]) and not re.fullmatch("[0-9]{19}", text):
        try:
            return _told(elements(text))
        except NotGs1:
            return None
    return None


def elements(text: str) -> list[tuple[str, str]]:
    """The (identifier, value) pairs of an element string, each of right length and characters.  NotGs1 with the first fault.

    GS, a reader's form of FNC1, ends a field of variable length; one in front, behind, or after a fixed field is let pass.
    """
    found: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        if text[at] == GS:
            at += 1
            continue
        ai, shortest, longest, digits, fixed = _identifier(text, at)
        at += len(ai)
        end = at + longest if fixed else text.find(GS, at) if GS in text[at:] else len(text)
        value = text[at:end]
        if fixed and GS in value:
            value = value[:value.index(GS)]
        _fits(ai, value, shortest, longest, digits)
        found.append((ai, value))
        at += len(value)
    if not found:
        raise NotGs1("the label carries nothing")
    return found


def _identifier(text: str, at: int) -> tuple[str, int, int, bool, bool]:
    two = text[at:at + 2]
    if two in _FIXED:
        return two, _FIXED[two], _FIXED[two], True, True
    four = text[at:at + 4]
    if len(four) == 4 and four.isascii() and four.isdigit() and "31" <= two <= "36":
        return four, 6, 6, True, True
    if two == "41" and text[at:at + 3].isdigit() and text[at:at + 3].isascii() and len(text[at:at + 3]) == 3:
        return text[at:at + 3], 13, 13, True, True
    for size in (2, 3, 4):
        ai = text[at:at + size]
        known = _RANGES.get(ai)
        if known is None and len(ai) == size and ai.isascii() and ai.isdigit():
            known = _RANGES.get(ai[:-1] + "n")
        if known is not None:
            return ai, *known, False
    raise NotGs1(f"the label has {four[:4]!a} where an application identifier should stand")


def _fits(ai: str, value: str, shortest: int, longest: int, digits: bool) -> None:
    if not shortest <= len(value) <= longest:
        wanted = str(longest) if shortest == longest else f"{shortest} to {longest}"
        raise NotGs1(f"field {ai} of the label has {len(value)} characters instead of {wanted}")
    if digits and not (value.isascii() and value.isdigit()):
        raise NotGs1(f"field {ai} of the label is not made of digits")
    if not _KNOWN.issuperset(value):
        raise NotGs1(f"field {ai} of the label holds a character that GS1 does not know")
    if ai in ("00", "01", "02", "03") and not _check_ok(value):
        raise NotGs1(f"the check digit of field {ai} is wrong: scan it again")
    if ai in DATES and not _date_ok(value):
        raise NotGs1(f"field {ai} of the label is no date")


def _told(pairs: list[tuple[str, str]]) -> Gs1:
    """NotGs1 also when two fields contradict each other: a label that says two weights says none."""
    said: dict[str, str] = {}
    for ai, value in pairs:
        name = ai[:3] if ai[0] == "3" and len(ai) == 4 else ai
        if said.setdefault(name, f"{ai}={value}") != f"{ai}={value}":
            raise NotGs1(f"the label says field {name} twice, and not the same")
    by = dict(pairs)
    weights = [_weight_g(ai, value) for ai, value in pairs if ai.startswith("310")]
    amounts = [_amount_fen(ai, value) for ai, value in pairs if ai[:3] in ("392", "393")]
    if any(ai[:3] in ("320", "356", "357") for ai in by) and not weights:
        raise NotGs1("the label's weight is in pounds or ounces")
    if len(set(amounts)) > 1:
        raise NotGs1("the label says two amounts")
    if "01" in by and "02" in by:
        raise NotGs1("the label names goods and a carton's content at once")
    if ("02" in by) != ("37" in by):                # section 4.14: neither says anything without the other
        raise NotGs1("the label names a carton's content or its count, and not the other")
    count = by.get("37") or by.get("30")
    return Gs1(by.get("01") or by.get("02") or "", weights[0] if weights else None, amounts[0] if amounts else None,
               int(count) if count else None, tuple((ai, by[ai]) for ai in DATES if ai in by), by.get("10", ""), by.get("21", ""))


def _weight_g(ai: str, value: str) -> int:
    decimals = int(ai[3])
    if decimals > 5:
        raise NotGs1(f"field {ai} of the label has more decimals than digits")
    return (int(value) * 2000 + 10 ** decimals) // (2 * 10 ** decimals)         # kg; half a gram is rounded up


def _amount_fen(ai: str, value: str) -> int:
    decimals = int(ai[3])
    if ai.startswith("393"):
        if value[:3] != CNY:
            raise NotGs1("the label's amount is in another currency")
        value = value[3:]
    fen, rest = divmod(int(value) * 100, 10 ** decimals)
    if rest:
        raise NotGs1("the label's amount is no whole number of fen")
    return fen


@cache
def _link() -> re.Pattern[str]:
    # made when the first one is scanned: a start has no time for it
    return re.compile(r"https?://[^/?#\s]+(?:/[^?#\s]*)?/(?:01|gtin)/([0-9]{8,14})((?:/[^/?#\s]+/[^/?#\s]+)*)/?(?:\?([^#\s]*))?(?:#.*)?",
                      re.IGNORECASE)


def _link_elements(link: re.Match[str]) -> list[tuple[str, str]]:
    from urllib.parse import unquote

    pairs = [("01", link[1].rjust(14, "0"))]
    parts = link[2].split("/")[1:]
    pairs += zip(parts[::2], parts[1::2], strict=True)
    for part in (link[3] or "").split("&"):
        name, _, value = part.partition("=")
        if re.fullmatch("[0-9]{2,4}", name):                # what else stands behind the ? is the shop's own
            pairs.append((name, value))
    return [_one(ai, unquote(value)) for ai, value in pairs]


def _written_elements(text: str) -> list[tuple[str, str]]:
    pairs = re.findall(r"\(([0-9]{2,4})\)([^(]*)", text)
    if "".join(f"({ai}){value}" for ai, value in pairs) != text:
        raise NotGs1("the label's parentheses do not fit")
    return [_one(ai, value) for ai, value in pairs]


def _one(ai: str, value: str) -> tuple[str, str]:
    found, shortest, longest, digits, _ = _identifier(ai + value, 0)
    if found != ai:
        raise NotGs1(f"the label has {ai[:4]!a} where an application identifier should stand")
    _fits(ai, value, shortest, longest, digits)
    return ai, value


def _check_ok(digits: str) -> bool:
    return check_digit(digits[:-1]) == int(digits[-1])


def _date_ok(value: str) -> bool:
    month, day = int(value[2:4]), int(value[4:])
    # Two digits of a year leave its century, and so one leap year, open: 29 February is let pass in each fourth year.
    longest = 29 - bool(int(value[:2]) % 4) if month == 2 else 31 - (month in (4, 6, 9, 11))
    return 1 <= month <= 12 and day <= longest
