"""Keys and bytes of a scanner in, symbols out.  Knows the US key table, endings and pauses; opens nothing, knows no goods.

A scanner in keyboard mode types with the layout it was set to, whatever the system's layout is; ours is US.  Three
layers, each usable alone: `KeyEvents` (evdev events to characters), `KeyDecoder` (characters to symbols), `ByteDecoder`
(a serial line's bytes to symbols).
"""

from __future__ import annotations

import re
import string

import msgspec

from device.drivers.evdev_bytes import EV_KEY, EV_SYN, PRESS, RELEASE, SYN_DROPPED, SYN_REPORT, Event

SYMBOL_LEN_MAX = 64       # GS1-128 carries 48 characters; the rest is room for a shop's own codes
KEY_GAP_MS_MAX = 80       # scanners type every 7 to 16 ms, people above 80
QUIET_MS = 150            # ends a symbol of a scanner that sends no suffix
STALE_MS = 1000           # no scanner pauses so long inside a symbol: what comes next is another one
GS = "\x1d"
ENDS = "\r\n\t"

LEFTCTRL, RIGHTCTRL, LEFTSHIFT, RIGHTSHIFT, LEFTALT, RIGHTALT = 29, 97, 42, 54, 56, 100
LOCKS = frozenset((58, 69, 70))          # Caps, Num and Scroll lock: lights of a keyboard, no part of a symbol

# evdev code to (plain, shifted), linux/input-event-codes.h under a US layout
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
_PAD_DIGITS = {code: US_KEYS[code][0] for code in (71, 72, 73, 75, 76, 77, 79, 80, 81, 82)}

_AIM = re.compile(r"\][A-Za-z][0-9A-Za-z]")


class Read(msgspec.Struct, frozen=True):
    """What the scanner said: a `symbol`, or, when that is empty, `why` the scan is spoiled."""

    symbol: str = ""
    why: str = ""


def symbol_fault(text: str) -> str:
    """Why `text` can be no symbol, as one sentence; "" when it can.  GS (1D) is legal: it parts fields of GS1 symbols."""
    if not text:
        return "the scan is empty"
    if len(text) > SYMBOL_LEN_MAX:
        return f"the scan is longer than {SYMBOL_LEN_MAX} characters: scan one code at a time"
    if any(char < " " and char != GS or char == "\x7f" for char in text):
        return "the scan holds control characters: it is no goods and no payment code"
    if not text.isascii():
        return "the scan holds characters other than ASCII: set the scanner to a US keyboard or to serial mode"
    if not text.strip(" " + GS):
        return "the scan is blank"
    return ""


def without_aim(text: str) -> str:
    """`text` less a leading AIM identifier such as "]E0" or "]Q3".  A symbol that is nothing else stays as it is."""
    return text[3:] if len(text) > 3 and _AIM.match(text) else text


class KeyDecoder:
    """Characters of a scanner in, symbols out.  Never raises.

    feed(key, at_ms): one character and milliseconds of any steady clock.  CR, LF and TAB end a symbol; alone, as a
    prefix or as the second half of CR LF they mean nothing.  A symbol too long, or broken by a pause or by `spoil`, is
    dropped whole and told once: half a barcode can be another product's.  With `suffix=False` a pause ends the symbol
    instead of breaking it, for scanners that send no suffix; the reader then also calls `quiet` once the line has been
    silent for `quiet_ms`.
    """

    def __init__(self, *, suffix: bool = True, gap_ms: int = 0) -> None:
        self.dropped = 0
        self._suffix = suffix
        self._gap_ms = gap_ms or (KEY_GAP_MS_MAX if suffix else QUIET_MS)
        self._keys, self._last_ms, self._why = "", 0, ""

    @property
    def quiet_ms(self) -> int | None:
        """After how long a silence `quiet` is due; None while nothing is half said."""
        if not self._keys and not self._why:
            return None
        return max(STALE_MS, self._gap_ms) if self._suffix else self._gap_ms

    def feed(self, key: str, at_ms: int) -> Read | None:
        """Take one character; return what it completes."""
        pause_ms, self._last_ms = at_ms - self._last_ms, at_ms
        read = None
        if self._keys or self._why:
            if pause_ms > (self.quiet_ms or 0):
                read = self.quiet()
            elif self._suffix and pause_ms > self._gap_ms:
                self.spoil("the scan broke off in the middle: scan it again")
        if key in ENDS:
            return read or self._end()
        self._keys = (self._keys + key)[: SYMBOL_LEN_MAX + 4]       # an AIM prefix, and one too many marks the overrun
        return read

    def spoil(self, why: str) -> None:
        """What is being read cannot be trusted; the first reason stands."""
        self._why = self._why or why

    def quiet(self) -> Read | None:
        """The line fell silent: give out, or give up, what is half said."""
        if self._suffix and self._keys:
            self.spoil("the scan broke off before its end: scan it again")
        return self._end()

    def _end(self) -> Read | None:
        text, why = without_aim(self._keys), self._why
        self._keys, self._why = "", ""
        if not text and not why:
            return None
        why = why or symbol_fault(text)
        self.dropped += bool(why)
        return Read(why=why) if why else Read(symbol=text)


class KeyEvents:
    """Evdev events of a scanner in keyboard mode in, symbols out.  Never raises.

    Shift, Ctrl (Ctrl+] is GS, Ctrl+M is CR) and Alt with keypad digits are understood; autorepeat, releases and lock
    keys mean nothing.  A kernel overrun (SYN_DROPPED) or a key that no table knows breaks the symbol.
    """

    def __init__(self, *, suffix: bool = True, gap_ms: int = 0) -> None:
        self.symbols = KeyDecoder(suffix=suffix, gap_ms=gap_ms)
        self._held: set[int] = set()
        self._alt = ""                    # keypad digits typed while Alt is down
        self._overrun = False

    def feed(self, event: Event | tuple[int, int, int, int]) -> Read | None:
        """Take one (type, code, value, at_ms); return what it completes."""
        kind, code, value, at_ms = event
        if kind == EV_SYN and code == SYN_DROPPED:
            self._overrun = True
            self._held.clear()            # nobody can say which releases were lost
            self._alt = ""
            self.symbols.spoil("keys were lost on the way from the scanner: scan it again")
        elif kind == EV_SYN and code == SYN_REPORT:
            self._overrun = False         # what the kernel queued up to here belongs to the loss
        elif kind == EV_KEY and not self._overrun:
            if code in (LEFTCTRL, RIGHTCTRL, LEFTSHIFT, RIGHTSHIFT, LEFTALT, RIGHTALT):
                return self._modifier(code, value, at_ms)
            if value == PRESS and code not in LOCKS:
                return self._key(code, at_ms)
        return None

    def quiet(self) -> Read | None:
        """As `KeyDecoder.quiet`."""
        return self.symbols.quiet()

    def _modifier(self, code: int, value: int, at_ms: int) -> Read | None:
        if value != RELEASE:
            self._held.add(code)
            return None
        self._held.discard(code)
        if code not in (LEFTALT, RIGHTALT) or not self._alt:
            return None
        digits, self._alt = self._alt, ""
        char = _alt_char(digits)
        if not char:
            self.symbols.spoil("the scanner typed an Alt code that is no character: set it to a US keyboard")
            return None
        return self.symbols.feed(char, at_ms)

    def _key(self, code: int, at_ms: int) -> Read | None:
        if self._held & {LEFTALT, RIGHTALT} and code in _PAD_DIGITS:
            self._alt = (self._alt + _PAD_DIGITS[code])[:5]
            return None
        if code not in US_KEYS:
            self.symbols.spoil(f"the scanner typed key {code}, which is no character: set it to a US keyboard")
            return None
        plain, shifted = US_KEYS[code]
        char = shifted if self._held & {LEFTSHIFT, RIGHTSHIFT} else plain
        if self._held & {LEFTCTRL, RIGHTCTRL} and (char.isalpha() or char in "[\\]^_"):
            char = chr(ord(char) & 0x1F)
        return self.symbols.feed(char, at_ms)


class ByteDecoder:
    """Bytes of a serial scanner in, symbols out.  CR, LF, CR LF, TAB or (with `suffix=False`) a pause end one.  Never raises."""

    def __init__(self, *, suffix: bool = True, gap_ms: int = 0) -> None:
        # A serial line comes in lumps, timed when we read them and not when they were sent: only long pauses mean anything.
        self.symbols = KeyDecoder(suffix=suffix, gap_ms=gap_ms or (STALE_MS if suffix else QUIET_MS))

    def feed(self, data: bytes, at_ms: int) -> list[Read]:
        """Take what one read gave; return every symbol it completes, oldest first."""
        reads = (self.symbols.feed(chr(byte), at_ms) for byte in data)
        return [read for read in reads if read]

    def quiet(self) -> Read | None:
        """As `KeyDecoder.quiet`."""
        return self.symbols.quiet()


def _alt_char(digits: str) -> str:
    # With a leading zero Windows-1252, without it code page 437, as Windows reads them; "" when there is no such character.
    number = int(digits)
    if not 0 < number < 256 or len(digits) > 4:
        return ""
    if number < 32:
        return chr(number)                # GS comes as Alt+029 or Alt+29
    return bytes([number]).decode("cp1252" if digits[0] == "0" else "cp437", errors="ignore")


def key_codes(text: str) -> list[tuple[int, bool, bool]]:
    """The keys a US scanner types for `text`: (evdev code, shift, ctrl) each.  ValueError for what it cannot type."""
    return [_code_of(char) for char in text]


def _code_of(char: str) -> tuple[int, bool, bool]:
    if char == "\r":
        char = "\n"
    if char in _CODES:
        code, shift = _CODES[char]
        return code, shift, False
    if char == GS:
        return 27, False, True
    if len(char) == 1 and "\x01" <= char <= "\x1a":
        return _CODES[string.ascii_lowercase[ord(char) - 1]][0], False, True
    raise ValueError(f"a US keyboard has no key for {char!r}")


_CODES: dict[str, tuple[int, bool]] = {}
for _code, (_plain, _shifted) in US_KEYS.items():
    _CODES.setdefault(_plain, (_code, False))
    _CODES.setdefault(_shifted, (_code, True))
