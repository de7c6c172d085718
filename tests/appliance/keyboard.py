"""Characters and keypad keys as QEMU's key names.  Knows a US keyboard; refuses to know what is typed."""

from __future__ import annotations

DOWN_UP_S = 0.012              # a down and an up each: QEMU's keyboard holds 16 events and is asked every 10 ms; faster loses ups

_SIGNS = {" ": "spc", "-": "minus", "=": "equal", "[": "bracket_left", "]": "bracket_right", ";": "semicolon", "'": "apostrophe",
          "`": "grave_accent", "\\": "backslash", ",": "comma", ".": "dot", "/": "slash", "\n": "ret", "\t": "tab"}
_SHIFTED = dict(zip('!@#$%^&*()_+{}:"~|<>?', "1234567890-=[];'`\\,./", strict=True))


def keys_of(text: str) -> list[tuple[str, bool]]:
    """(QEMU's name, with shift) of each character.  KeyError for one that a US keyboard does not have."""
    return [_key(one) for one in text]


def _key(one: str) -> tuple[str, bool]:
    if one in _SHIFTED:
        return _key(_SHIFTED[one])[0], True
    if one.isascii() and one.isalnum():
        return one.lower(), one.isupper()
    return _SIGNS[one], False
