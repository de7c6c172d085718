"""What stands in the file of a terminal's keys: the newest key, the one before, and notes that came with them.

Pure.  A key stands alone on its line; a note is a name, a blank and its value.  Refuses to know where the file lies and who
made the keys.
"""

from __future__ import annotations

import re

import msgspec

KEY = re.compile(rb"[!-~]{32,256}")
# Its id, the name it was activated under, the wallets it takes, the newest key's day, and that a newer one was asked for.
NOTES = ("terminal", "device", "wallets", "day", "asked")
VALUE_CHARS_MAX = 128
TERMINAL_CHARS_MAX = 32


class Held(msgspec.Struct, frozen=True):
    """`newest` and `older` printable ASCII, b"" for none; `notes` by name."""

    newest: bytes = b""
    older: bytes = b""
    notes: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Held(..., notes={self.notes!r})"


def terminal_ok(terminal_id: str) -> bool:
    """Whether a request could name this terminal: letters and digits, so that no header breaks."""
    return terminal_id.isascii() and terminal_id.isalnum() and len(terminal_id) <= TERMINAL_CHARS_MAX


def held_of(held: bytes) -> Held:
    """What a file, or a `secret` of the configuration, holds.  ValueError, one sentence, for anything else.

    Raw bytes would hold a blank or a line's end now and then, and be cut there: a key is printable.
    """
    keys: list[bytes] = []
    notes: dict[str, str] = {}
    for line in held.split(b"\n"):
        name, blank, value = line.partition(b" ")
        if blank and name.decode("ascii", "replace") in NOTES:
            notes[name.decode()] = value.decode("ascii", "replace")[:VALUE_CHARS_MAX]
        elif line:
            keys.append(line)
    if len(keys) > 2 or not all(KEY.fullmatch(key) for key in keys):
        raise ValueError("a terminal's key is 32 or more printable characters without blanks, one line each: write it as hex")
    newest, older, *_ = [*keys, b"", b""]
    return Held(newest, older, notes)


def held_text(held: Held) -> bytes:
    """The file's bytes; `held_of` reads them back."""
    notes = [f"{name} {held.notes[name]}".encode() for name in NOTES if held.notes.get(name)]
    return b"".join(line + b"\n" for line in (held.newest, held.older, *notes) if line)
