"""Evdev codes of a numeric keypad in, key names of the till out.  Knows the layout; opens nothing, knows no sale."""

from __future__ import annotations

from device.drivers.input.evdev_bytes import EV_KEY, EV_SYN, PRESS, RELEASE, SYN_DROPPED, SYN_REPORT, Event
from device.errors import ConfigError

# Names a layout may use, linux/input-event-codes.h, written without KEY_
CODES: dict[str, int] = {
    "ESC": 1, "1": 2, "2": 3, "3": 4, "4": 5, "5": 6, "6": 7, "7": 8, "8": 9, "9": 10, "0": 11, "MINUS": 12,
    "EQUAL": 13, "BACKSPACE": 14, "TAB": 15, "Q": 16, "W": 17, "E": 18, "R": 19, "T": 20, "Y": 21, "U": 22, "I": 23,
    "O": 24, "P": 25, "ENTER": 28, "LEFTCTRL": 29, "A": 30, "S": 31, "D": 32, "F": 33, "G": 34, "H": 35, "J": 36,
    "K": 37, "L": 38, "Z": 44, "X": 45, "C": 46, "V": 47, "B": 48, "N": 49, "M": 50, "COMMA": 51, "DOT": 52,
    "SLASH": 53, "KPASTERISK": 55, "SPACE": 57, "F1": 59, "F2": 60, "F3": 61, "F4": 62, "F5": 63, "F6": 64, "F7": 65,
    "F8": 66, "F9": 67, "F10": 68, "NUMLOCK": 69, "KP7": 71, "KP8": 72, "KP9": 73, "KPMINUS": 74, "KP4": 75,
    "KP5": 76, "KP6": 77, "KPPLUS": 78, "KP1": 79, "KP2": 80, "KP3": 81, "KP0": 82, "KPDOT": 83, "F11": 87,
    "F12": 88, "KPENTER": 96, "KPSLASH": 98, "HOME": 102, "UP": 103, "PAGEUP": 104, "LEFT": 105, "RIGHT": 106,
    "END": 107, "DOWN": 108, "PAGEDOWN": 109, "INSERT": 110, "DELETE": 111, "KPEQUAL": 117, "KPPLUSMINUS": 118,
    "KPCOMMA": 121, "CALC": 140, "KPLEFTPAREN": 179, "KPRIGHTPAREN": 180, "F13": 183, "F14": 184, "F15": 185,
    "F16": 186, "F17": 187, "F18": 188, "F19": 189, "F20": 190, "F21": 191, "F22": 192, "F23": 193, "F24": 194,
}

# The keys of a bare 17-key number block make a whole sale; function keys, which programmable keypads can send, do the rest.
# The first line that names a key is the one `EVENTS_OF` types.
LAYOUT: dict[str, str] = {
    "KP0": "0", "KP1": "1", "KP2": "2", "KP3": "3", "KP4": "4", "KP5": "5", "KP6": "6", "KP7": "7", "KP8": "8",
    "KP9": "9", "KPENTER": "ENTER", "BACKSPACE": "CLEAR", "KPASTERISK": "QTY", "KPMINUS": "VOID", "KPPLUS": "PAY",
    "KPDOT": "CODE", "KPSLASH": "CASH", "ESC": "CANCEL",
    "F1": "CHECK", "F2": "HOLD", "F3": "PARK", "F4": "REFUND", "F5": "REPRINT", "F6": "DRAWER", "F7": "X", "F8": "Z",
    "F13": "00",
    "0": "0", "1": "1", "2": "2", "3": "3", "4": "4", "5": "5", "6": "6", "7": "7", "8": "8", "9": "9",
    "ENTER": "ENTER", "DELETE": "CLEAR", "TAB": "CODE", "KPEQUAL": "CHECK",
    # a block that keeps num lock to itself, and has it off
    "HOME": "7", "UP": "8", "PAGEUP": "9", "LEFT": "4", "RIGHT": "6", "END": "1", "DOWN": "2", "PAGEDOWN": "3", "INSERT": "0",
}

KEYS = tuple(dict.fromkeys(LAYOUT.values()))      # the till's keys; a test holds them equal to the core's own list


def layout_codes(over: dict[str, str] | None = None) -> dict[int, str]:
    """Evdev code to key name: the default layout with `over` laid on it.

    `over` maps evdev names, with or without KEY_, to names of `KEYS`; "" takes a key away.  ConfigError names every
    fault, also a key of the till that can no longer be typed.
    """
    reasons: list[str] = []
    codes = {CODES[name]: key for name, key in LAYOUT.items()}
    for name, key in (over or {}).items():
        code = CODES.get(name.upper().removeprefix("KEY_"))
        if code is None:
            reasons.append(f"keypad.layout.{name}: no such key; use a name such as KP1, KPPLUS or F13")
        elif key and key not in KEYS:
            reasons.append(f"keypad.layout.{name}: {key!r} is no key of the till; they are {' '.join(KEYS)}")
        elif key:
            codes[code] = key
        else:
            codes.pop(code, None)
    # "00" is a comfort: two zeros say the same, and most keypads type them as such
    lost = [key for key in KEYS if key != "00" and key not in codes.values()]
    if lost and not reasons:
        reasons.append(f"keypad.layout: no key left for {' '.join(lost)}")
    if reasons:
        raise ConfigError(reasons, which="config")
    return codes


class KeypadEvents:
    """Evdev events in, key names out.  Never raises.  A press counts; releases, autorepeat and unknown keys do not.

    After a kernel overrun the rest of its report is ignored: a key nobody pressed is worse than one pressed twice.
    """

    def __init__(self, codes: dict[int, str] | None = None) -> None:
        self._codes = layout_codes() if codes is None else codes
        self._overrun = False

    def feed(self, event: Event | tuple[int, int, int, int]) -> str | None:
        """Take one (type, code, value, at_ms); return the key pressed by it."""
        kind, code, value, _ = event
        if kind == EV_SYN and code in (SYN_DROPPED, SYN_REPORT):
            self._overrun = code == SYN_DROPPED
        elif kind == EV_KEY and value == PRESS and not self._overrun:
            return self._codes.get(code)
        return None


def _events_of(code: int) -> list[tuple[int, int, int]]:
    return [(EV_KEY, code, PRESS), (EV_SYN, SYN_REPORT, 0), (EV_KEY, code, RELEASE), (EV_SYN, SYN_REPORT, 0)]


# What a keypad with the default layout sends for each key of the till: (type, code, value) each.
EVENTS_OF: dict[str, list[tuple[int, int, int]]] = {
    key: _events_of(next(CODES[name] for name, typed in LAYOUT.items() if typed == key)) for key in KEYS
}
