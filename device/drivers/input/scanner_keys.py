"""Keys and bytes of a scanner in, symbols out.  Knows key tables, endings and pauses; opens nothing, knows no goods.

A scanner in keyboard mode types with the layout it was set to, whatever the system's layout is; ours is US.  Three
layers, each usable alone: `KeyEvents` (evdev events to characters), `KeyDecoder` (characters to symbols), `ByteDecoder`
(a serial line's bytes to symbols).
"""

from __future__ import annotations

import string

import msgspec

from device.drivers.input.evdev_bytes import EV_KEY, EV_SYN, PRESS, RELEASE, SYN_DROPPED, SYN_REPORT, Event
from device.drivers.input.layout_keys import (
    CAPSLOCK,
    LEFTALT,
    LEFTCTRL,
    LEFTSHIFT,
    LOCKS,
    PAD_DIGITS,
    RIGHTALT,
    RIGHTCTRL,
    RIGHTSHIFT,
    US_KEYS,
    digits_of,
    keys_of,
    third_of,
)
from device.goods import check_digit

SYMBOL_LEN_MAX = 200      # GS1-128 carries 48 characters, a digital link or a DataMatrix of the pharmacy some more
KEY_GAP_MS_MAX = 80       # scanners type every 7 to 16 ms, people above 80
HAND_MS = 50              # keys that come slower than this on the whole were typed by a person
HAND_PART = 5 / 8         # of a gap longer than the usual one: the same bound for a scanner that was slowed down
HAND_LEN_MAX = 2          # without a suffix so few keys prove no pace, and no symbol is so short
QUIET_MS = 150            # ends a symbol of a scanner that sends no suffix
STALE_MS = 1000           # no scanner pauses so long inside a symbol: what comes next is another one
GS = "\x1d"
ENDS = "\r\n\t"
ALT_DIGITS_MAX = 5        # Alt+54992 is a character of GBK
DIGITS_SEEN = 6           # of a row, and none else: a symbol under the wrong table

GS1_AIMS = ("]C1", "]e0", "]d2", "]Q3", "]J1")


class Read(msgspec.Struct, frozen=True):
    """What the scanner said: a `symbol`, or, when that is empty, `why` the scan is spoiled.

    `aim` is the symbology as the scanner named it, "]E0" say, "" when it did not.
    """

    symbol: str = ""
    why: str = ""
    aim: str = ""


def symbol_fault(text: str) -> str:
    """Why `text` can be no symbol, as one sentence; "" when it can.  GS (1D) is legal: it parts fields of GS1 symbols."""
    if not text:
        return "the scan is empty"
    if len(text) > SYMBOL_LEN_MAX:
        return f"the scan is longer than {SYMBOL_LEN_MAX} characters: scan one code at a time"
    if any(char < " " and char != GS or char == "\x7f" for char in text):
        return "the scan holds control characters: it is no goods and no payment code"
    if any(char > "\x7e" and not _chinese(char) for char in text):
        return "the scan holds characters other than ASCII: set the scanner to a US keyboard or to serial mode"
    if not text.strip(" " + GS):
        return "the scan is blank"
    return ""


def without_aim(text: str) -> str:
    """`text` less a leading AIM identifier such as "]E0" or "]Q3".  A symbol that is nothing else stays as it is."""
    aim = len(text) > 3 and text[0] == "]" and text[1:3].isascii() and text[1].isalpha() and text[2].isalnum()
    return text[3:] if aim else text


def _chinese(char: str) -> bool:
    """Characters, and the signs that stand between them."""
    return "\u4e00" <= char <= "\u9fff" or "\u3000" <= char <= "\u303f" or "\uff00" <= char <= "\uffef" or (
        "\u3400" <= char <= "\u4dbf" or "\u2010" <= char <= "\u2026")


def chinese(text: str, code_page: str) -> str:
    """`text`, whose high characters are bytes of `code_page`, as UTF-8 or else GBK has it, when that is Chinese throughout."""
    if text.isascii():
        return text
    try:
        raw = text.encode(code_page)
    except UnicodeEncodeError:
        return text
    for encoding in ("utf-8", "gb18030"):
        try:
            told = raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        if all(char < "\x80" or _chinese(char) for char in told):
            return told
    return text


def sought(read: Read) -> str:
    """What the price list is asked for: the symbol, told apart by what the scanner knows of its kind.

    A symbology that is GS1's puts its FNC1 in front; of an EAN with an add-on the EAN counts; UPC-E becomes its UPC-A.
    """
    text, aim = read.symbol, read.aim
    if aim in GS1_AIMS and "://" not in text:
        return text if text.startswith(GS) else GS + text
    if aim == "]E3" and len(text) in (15, 18):
        return text[:13]
    if aim == "]E0" and len(text) == 8 and text.isascii() and text.isdigit():
        return _upc_a(text)
    return text


def misread(read: Read) -> bool:
    """Whether a symbol of the shelf came with a wrong check digit: the scanner, or the label, is bad."""
    text = read.symbol
    if not (text.isascii() and text.isdigit()) or not (len(text) == 13 or (read.aim in ("]E0", "]E4") and len(text) in (8, 12))):
        return False
    if read.aim == "]E0" and len(text) == 8:
        text = _upc_a(text)
    return check_digit(text[:-1]) != int(text[-1])


def _upc_a(upc_e: str) -> str:
    # Source: GS1 General Specifications 5.2.2.4.2; the sixth digit says where the zeros were taken out.
    system, d, check = upc_e[0], upc_e[1:7], upc_e[7]
    if d[5] in "012":
        body = d[:2] + d[5] + "0000" + d[2:5]
    elif d[5] == "3":
        body = d[:3] + "00000" + d[3:5]
    elif d[5] == "4":
        body = d[:4] + "00000" + d[4]
    else:
        body = d[:5] + "0000" + d[5]
    return system + body + check


class KeyDecoder:
    """Characters of a scanner in, symbols out.  Never raises.

    feed(key, at_ms): one character and milliseconds of any steady clock.  CR, LF and TAB end a symbol; alone, as a
    prefix or as the second half of CR LF they mean nothing.  A symbol too long, or broken by a pause or by `spoil`, is
    dropped whole and told once: half a barcode can be another product's.  With `suffix=False` a pause ends the symbol
    instead of breaking it, for scanners that send no suffix; the reader then also calls `quiet` once the line has been
    silent for `quiet_ms`.  What came slower than a scanner types was typed by a person and is no scan; `paced=False` for a
    line that says nothing of pace.  `gs` is what the scanner sends in place of GS; `code_page` what its high characters are of;
    `odd` the characters that a symbol of digits consists of when it was typed for another country.
    """

    def __init__(self, *, suffix: bool = True, gap_ms: int = 0, gs: str = "", paced: bool = True,
                 code_page: str = "cp1252", odd: frozenset[str] = frozenset()) -> None:
        self.dropped = 0
        self._odd = odd
        self._suffix, self._gs, self._paced, self._code_page = suffix, gs, paced, code_page
        self._gap_ms = gap_ms or (KEY_GAP_MS_MAX if suffix else QUIET_MS)
        self._hand_ms = max(HAND_PART * gap_ms, min(gap_ms or HAND_MS, HAND_MS))
        self._keys, self._last_ms, self._why = "", 0, ""
        self._gaps, self._slow, self._took_ms = 0, 0, 0

    @property
    def quiet_ms(self) -> int | None:
        """After how long a silence `quiet` is due; None while nothing is half said."""
        if not self._keys and not self._why:
            return None
        return max(STALE_MS, self._gap_ms) if self._suffix else self._gap_ms

    def pulse(self, at_ms: int) -> Read | None:
        """A key that is no character of its own went down; return what the pause before it ended."""
        pause_ms, self._last_ms = at_ms - self._last_ms, at_ms
        if not self._keys and not self._why:
            return None
        if pause_ms > (self.quiet_ms or 0):
            return self.quiet()
        self._gaps, self._took_ms = self._gaps + 1, self._took_ms + pause_ms
        self._slow += pause_ms > self._gap_ms
        return None

    def feed(self, key: str, at_ms: int) -> Read | None:
        """Take one character; return what it completes."""
        read = self.pulse(at_ms)
        if key in ENDS:
            return read or self._end()
        self._keys = (self._keys + key)[: SYMBOL_LEN_MAX + 4]       # an AIM prefix, and one too many marks the overrun
        return read

    def spoil(self, why: str, at_ms: int) -> Read | None:
        """What is being read from `at_ms` on cannot be trusted; the first reason stands.  Return what the pause before ended."""
        read = self.pulse(at_ms)
        self._why = self._why or why
        return read

    def quiet(self) -> Read | None:
        """The line fell silent: give out, or give up, what is half said."""
        if self._suffix and self._keys:
            self._why = self._why or self._broken() or "the scan broke off before its end: scan it again"
        return self._end()

    def _broken(self) -> str:
        """What the pace says against what was read."""
        if self._paced and self._gaps >= 2 and (2 * self._slow >= self._gaps or self._took_ms > self._hand_ms * self._gaps):
            return TYPED
        if self._paced and not self._suffix and len(self._keys) <= HAND_LEN_MAX:
            return TYPED
        if not (self._slow and self._suffix):
            return ""
        return "the scan broke off in the middle: scan it again"

    def _end(self) -> Read | None:
        text, why = self._keys, self._why or (self._broken() if self._keys else "")
        self._keys, self._why = "", ""
        self._gaps, self._slow, self._took_ms = 0, 0, 0
        bare = without_aim(text)
        aim = text[: len(text) - len(bare)]
        if not bare and not why:
            return None
        if self._gs:
            bare = bare.replace(self._gs, GS)
        if len(bare) >= DIGITS_SEEN and self._odd.issuperset(bare):
            why = why or LAYOUT
        bare = chinese(bare, self._code_page)
        why = why or symbol_fault(bare)
        self.dropped += bool(why)
        return Read(why=why) if why else Read(symbol=bare, aim=aim)


TYPED = "typed by hand, not scanned: use the keypad"
LAYOUT = "the scanner types for another country's keyboard: set it to US, or say its layout"


class KeyEvents:
    """Evdev events of a scanner in keyboard mode in, symbols out.  Never raises.

    Shift, Ctrl (Ctrl+] is GS, Ctrl+M is CR) and Alt with keypad digits are understood; autorepeat, releases and lock
    keys mean nothing.  A kernel overrun (SYN_DROPPED) or a key that no table knows breaks the symbol.  `layout` and `caps` are
    of `layout_keys`: a scanner that `toggles` presses caps lock around its capitals, one that is `inverted`
    reckons with a caps lock that is on.
    """

    def __init__(self, *, suffix: bool = True, gap_ms: int = 0, gs: str = "", layout: str = "us", caps: str = "ignore") -> None:
        self.symbols = KeyDecoder(suffix=suffix, gap_ms=gap_ms, gs=gs, odd=digits_of(layout))
        self._keys, self._third, self._caps = keys_of(layout), third_of(layout), caps
        self._capital = False
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
            return self.symbols.spoil("keys were lost on the way from the scanner: scan it again", at_ms)
        if kind == EV_SYN and code == SYN_REPORT:
            self._overrun = False         # what the kernel queued up to here belongs to the loss
        elif kind == EV_KEY and not self._overrun:
            if code in (LEFTCTRL, RIGHTCTRL, LEFTSHIFT, RIGHTSHIFT, LEFTALT, RIGHTALT):
                return self._modifier(code, value, at_ms)
            if value == PRESS and code not in LOCKS:
                return self._key(code, at_ms)
            if value == PRESS and code == CAPSLOCK:
                self._capital = not self._capital
        return None

    def quiet(self) -> Read | None:
        """As `KeyDecoder.quiet`."""
        return self.symbols.quiet()

    def _modifier(self, code: int, value: int, at_ms: int) -> Read | None:
        if value != RELEASE:
            self._held.add(code)
            return self.symbols.pulse(at_ms) if value == PRESS else None
        self._held.discard(code)
        if code not in (LEFTALT, RIGHTALT) or not self._alt:
            return None
        digits, self._alt = self._alt, ""
        char = _alt_char(digits)
        if not char:
            return self.symbols.spoil("the scanner typed an Alt code that is no character: set it to a US keyboard", at_ms)
        return self.symbols.feed(char, at_ms)

    def _key(self, code: int, at_ms: int) -> Read | None:
        if self._held & {LEFTALT, RIGHTALT} and code in PAD_DIGITS:
            read = self.symbols.pulse(at_ms)
            self._alt = (self._alt + PAD_DIGITS[code])[: ALT_DIGITS_MAX + 1]
            return read
        if code not in self._keys:
            return self.symbols.spoil(f"the scanner typed key {code}, which is no character: set it to a US keyboard", at_ms)
        plain, shifted = self._keys[code]
        char = shifted if self._held & {LEFTSHIFT, RIGHTSHIFT} else plain
        if RIGHTALT in self._held:
            char = self._third.get(code, char)
        if self._held & {LEFTCTRL, RIGHTCTRL}:
            if code == 27:
                char = GS                 # Ctrl and the key that is ] on a US keyboard, whatever stands on it elsewhere
            elif char.isascii() and (char.isalpha() or char in "[\\]^_"):
                char = chr(ord(char) & 0x1F)
        elif self._caps == "inverted" or (self._caps == "toggles" and self._capital):
            char = char.swapcase() if char.isascii() else char
        return self.symbols.feed(char, at_ms)


class ByteDecoder:
    """Bytes of a serial scanner in, symbols out.  CR, LF, CR LF, TAB or (with `suffix=False`) a pause end one.  Never raises."""

    def __init__(self, *, suffix: bool = True, gap_ms: int = 0, gs: str = "") -> None:
        # A serial line comes in lumps, timed when we read them and not when they were sent: only long pauses mean anything.
        self.symbols = KeyDecoder(suffix=suffix, gap_ms=gap_ms or (STALE_MS if suffix else QUIET_MS), gs=gs, paced=False,
                                  code_page="latin-1")

    def feed(self, data: bytes, at_ms: int) -> list[Read]:
        """Take what one read gave; return every symbol it completes, oldest first."""
        reads = (self.symbols.feed(chr(byte), at_ms) for byte in data)
        return [read for read in reads if read]

    def quiet(self) -> Read | None:
        """As `KeyDecoder.quiet`."""
        return self.symbols.quiet()


def _alt_char(digits: str) -> str:
    # With a leading zero Windows-1252, without it code page 437, above 255 GBK, as Windows reads them; "" when there is no such
    # character.
    number = int(digits)
    if number < 1 or len(digits) > ALT_DIGITS_MAX or number > 0xFFFF:
        return ""
    if number < 32:
        return chr(number)                # GS comes as Alt+029 or Alt+29
    if number > 255:
        return number.to_bytes(2, "big").decode("gbk", errors="ignore")
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
