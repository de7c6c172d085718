"""Keyboard tables: evdev codes to characters under the layouts that scanners are sold with.  Knows no scanner.

The kernel hands out positions, not characters, whatever the system's own layout is: what counts is the country that the scanner
itself was set to.  Source: linux/input-event-codes.h and the national layouts.
"""

from __future__ import annotations

from functools import cache

LEFTCTRL, RIGHTCTRL, LEFTSHIFT, RIGHTSHIFT, LEFTALT, RIGHTALT = 29, 97, 42, 54, 56, 100
CAPSLOCK = 58
LOCKS = frozenset((CAPSLOCK, 69, 70))    # Caps, Num and Scroll lock: lights of a keyboard, no part of a symbol

# evdev code to (plain, shifted) under a US layout
US_KEYS: dict[int, tuple[str, str]] = {
    2: ("1", "!"), 3: ("2", "@"), 4: ("3", "#"), 5: ("4", "$"), 6: ("5", "%"), 7: ("6", "^"), 8: ("7", "&"),
    9: ("8", "*"), 10: ("9", "("), 11: ("0", ")"), 12: ("-", "_"), 13: ("=", "+"), 15: ("\t", "\t"),
    16: ("q", "Q"), 17: ("w", "W"), 18: ("e", "E"), 19: ("r", "R"), 20: ("t", "T"), 21: ("y", "Y"), 22: ("u", "U"),
    23: ("i", "I"), 24: ("o", "O"), 25: ("p", "P"), 26: ("[", "{"), 27: ("]", "}"), 28: ("\n", "\n"),
    30: ("a", "A"), 31: ("s", "S"), 32: ("d", "D"), 33: ("f", "F"), 34: ("g", "G"), 35: ("h", "H"), 36: ("j", "J"),
    37: ("k", "K"), 38: ("l", "L"), 39: (";", ":"), 40: ("'", '"'), 41: ("`", "~"), 43: ("\\", "|"),
    44: ("z", "Z"), 45: ("x", "X"), 46: ("c", "C"), 47: ("v", "V"), 48: ("b", "B"), 49: ("n", "N"), 50: ("m", "M"),
    51: (",", "<"), 52: (".", ">"), 53: ("/", "?"), 57: (" ", " "), 86: ("\\", "|"),
    # keypad block: the same with and without shift
    55: ("*", "*"), 71: ("7", "7"), 72: ("8", "8"), 73: ("9", "9"), 74: ("-", "-"), 75: ("4", "4"), 76: ("5", "5"),
    77: ("6", "6"), 78: ("+", "+"), 79: ("1", "1"), 80: ("2", "2"), 81: ("3", "3"), 82: ("0", "0"), 83: (".", "."),
    96: ("\n", "\n"), 98: ("/", "/"), 117: ("=", "="), 121: (",", ","), 179: ("(", "("), 180: (")", ")"),
}
PAD_DIGITS = {code: US_KEYS[code][0] for code in (71, 72, 73, 75, 76, 77, 79, 80, 81, 82)}


def _pairs(text: str, *codes: int) -> dict[int, tuple[str, str]]:
    """`text` in twos, plain and shifted, for `codes` in order."""
    return {code: (text[2 * n], text[2 * n + 1]) for n, code in enumerate(codes)}


_TOP = tuple(range(2, 14))               # the row of digits
LAYOUTS = ("us", "uk", "de", "fr", "be")
CAPS = ("ignore", "toggles", "inverted")


@cache
def keys_of(layout: str) -> dict[int, tuple[str, str]]:
    """The table of one of LAYOUTS."""
    match layout:
        case "uk":
            return US_KEYS | _pairs("2\"3£'@#~\\|", 3, 4, 40, 43, 86)
        case "de":
            return US_KEYS | _pairs("1!2\"3§4$5%6&7/8(9)0=ß?´`", *_TOP) | _pairs(
                "zZyYüÜ+*öÖäÄ^°#',;.:-_<>", 21, 44, 26, 27, 39, 40, 41, 43, 51, 52, 53, 86)
        case "fr" | "be":
            azerty = US_KEYS | _pairs("aAzZqQwWmM,?;.:/<>", 16, 17, 30, 44, 39, 50, 51, 52, 86)
            own = ("&1é2\"3'4(5-6è7_8ç9à0)°=+", "^¨$£ù%²~*µ!§") if layout == "fr" else (
                "&1é2\"3'4(5§6è7!8ç9à0)°-_", "^¨$*ù%²³µ£=+")
            return azerty | _pairs(own[0], *_TOP) | _pairs(own[1], 26, 27, 40, 41, 43, 53)
    return US_KEYS


def third_of(layout: str) -> dict[int, str]:
    """The third level, with the right Alt key."""
    codes, chars = {
        "de": ((3, 4, 8, 9, 10, 11, 12, 16, 18, 27, 86), "²³{[]}\\@€~|"),
        "fr": ((3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 18), "~#{[|`\\^@]}€"),
        "be": ((2, 3, 4, 7, 10, 11, 26, 27, 40, 43, 53, 86), "|@#^{}[]´`~\\"),
    }.get(layout, ((), ""))
    return dict(zip(codes, chars, strict=True))


def digits_of(layout: str) -> frozenset[str]:
    """What digits look like that were typed for another country: French and Belgian keys want shift for them, all others none."""
    return frozenset(keys_of(layout)[code][layout not in ("fr", "be")] for code in range(2, 12))
