"""The keypad's keys as QEMU's key names.  Knows the till's default layout; refuses to know the machine."""

from __future__ import annotations

from device.drivers.input.keypad_keys import LAYOUT

_QEMU = {"KPENTER": "kp_enter", "KPASTERISK": "kp_multiply", "KPMINUS": "kp_subtract", "KPPLUS": "kp_add", "KPDOT": "kp_decimal",
         "KPSLASH": "kp_divide", "ENTER": "ret", "KPEQUAL": "kp_equals"} | {f"KP{n}": f"kp_{n}" for n in range(10)}


def qemu_key(key: str) -> str:
    """QEMU's name of the keypad's first key that types `key`.  KeyError for a key that QEMU's keyboard does not have: "00"."""
    name = next(evdev for evdev, till in LAYOUT.items() if till == key and not evdev.startswith("F1") or till == key == "00")
    if name == "F13":
        raise KeyError(key)
    return _QEMU.get(name, name.lower())
