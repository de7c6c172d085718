"""The console's line editor: bytes of a keyboard in, bytes for the screen and whole lines out.  Never raises.

Pure.  Knows UTF-8, the keys of every common terminal, history and completion; refuses to know commands: candidates come from
outside.  It moves the cursor by carriage return, blank and backspace alone, so any terminal will do, and it never sends an escape
sequence.  Sequences it does not know are swallowed, and so is noise: what is held is bounded whatever comes.
"""

from __future__ import annotations

from collections.abc import Callable

from device.console.printing import CELLS_MAX, cells, safe, width

LINE_CHARS_MAX = 400
HISTORY_MAX = 50
SEQUENCE_MAX = 64                        # bytes of an escape sequence, then it is noise and over
STOP, END = "\x03", "\x04"               # Ctrl-C, Ctrl-D on an empty line: as events, beside lines
CANDIDATES_SHOWN_MAX = 24

Complete = Callable[[str], list[str]]

_FINAL = {b"A": "up", b"B": "down", b"C": "right", b"D": "left", b"H": "home", b"F": "end"}
_TILDE = {b"1": "home", b"7": "home", b"4": "end", b"8": "end", b"3": "delete"}
_CONTROL = {0x01: "home", 0x02: "left", 0x05: "end", 0x06: "right", 0x08: "rub", 0x7F: "rub", 0x0B: "kill", 0x0C: "again",
            0x0E: "down", 0x10: "up", 0x15: "wipe", 0x17: "word"}


class Editor:
    """`prompt` is what stands before the line.  `secret` echoes nothing and remembers nothing.

    feed(data): what came from the terminal; returns bytes for it and the events of those bytes: each a line, STOP or END.
    """

    def __init__(self, complete: Complete = lambda head: []) -> None:
        self.prompt, self.secret = "> ", False
        self._complete = complete
        self._line: list[str] = []
        self._at = 0
        self._shown = 0                              # cells of the window that are on the screen now
        self._from = 0                               # first character of the window
        self._history: list[str] = []
        self._back = 0                               # how far back in the history; 0 is the line being typed
        self._typed: list[str] = []
        self._sequence: bytes | None = None          # an escape sequence so far
        self._utf8, self._wants = b"", 0             # a character so far, and the bytes it still lacks
        self._after_cr = False
        self._out: list[str] = []
        self._events: list[str] = []

    def feed(self, data: bytes) -> tuple[bytes, list[str]]:
        for byte in data:
            self._byte(byte)
        out, events = "".join(self._out).encode(), self._events
        self._out, self._events = [], []
        return out, events

    def shown(self) -> bytes:
        """The prompt and whatever is typed so far, for a fresh line."""
        self._shown = 0
        self._out.append(self.prompt)
        self._draw(prompt=False)
        out = "".join(self._out).encode()
        self._out = []
        return out

    def forget(self) -> None:
        """A session is over: nothing of it is left for the next."""
        self._history.clear()
        self._line, self._typed, self._at, self._back, self._from, self._shown = [], [], 0, 0, 0, 0
        self._sequence, self._utf8, self._wants = None, b"", 0

    # Bytes to keys ---------------------------------------------------------------------------------------------------

    def _byte(self, byte: int) -> None:
        if self._sequence is not None:
            self._escape(byte)
            return
        if self._wants:
            if 0x80 <= byte < 0xC0:
                self._utf8 += bytes((byte,))
                self._wants -= 1
                if not self._wants:
                    self._insert(self._utf8.decode("utf-8", "ignore"))       # nothing, for what is no character
                return
            self._wants = 0                          # broken off: the byte is a key of its own
        if 0x20 <= byte < 0x7F:
            self._after_cr = False
            self._insert(chr(byte))
        elif byte in (0x0D, 0x0A):
            if byte == 0x0A and self._after_cr:
                self._after_cr = False
                return
            self._after_cr = byte == 0x0D
            self._enter()
        elif byte == 0x1B:
            self._sequence = b""
        elif 0xC2 <= byte < 0xF5:
            self._utf8, self._wants = bytes((byte,)), 1 if byte < 0xE0 else 2 if byte < 0xF0 else 3
        elif byte == 0x03:
            self._leave()
            self._events.append(STOP)
        elif byte == 0x04:
            if self._line:
                self._key("delete")
            else:
                self._events.append(END)
        elif byte == 0x09:
            self._tab()
        elif byte in _CONTROL:
            self._key(_CONTROL[byte])

    def _escape(self, byte: int) -> None:
        held = self._sequence or b""
        if byte in (0x18, 0x1A) or len(held) >= SEQUENCE_MAX:
            self._sequence = None
        elif byte == 0x1B:
            self._sequence = b"" if held[:1] not in (b"]", b"P", b"X", b"^", b"_") else held + b"\x1b"
        elif byte in (0x0D, 0x0A, 0x03) and held[:1] not in (b"]", b"P", b"X", b"^", b"_"):
            self._sequence = None                    # no sequence goes on beyond a line
            self._byte(byte)
        elif held[:1] in (b"]", b"P", b"X", b"^", b"_"):      # a string: over at BEL or ESC \
            self._sequence = None if byte == 0x07 or held.endswith(b"\x1b") or byte in (0x0D, 0x0A) else held + bytes((byte,))
            if byte in (0x0D, 0x0A):
                self._byte(byte)
        elif not held:
            self._sequence = bytes((byte,)) if byte in b"[O]PX^_" else None
        elif held[:1] == b"O":
            self._sequence = None
            self._key(_FINAL.get(bytes((byte,)), ""))
        elif 0x40 <= byte < 0x7F:
            self._sequence = None
            self._key(_TILDE.get(held[1:].split(b";")[0], "") if byte == 0x7E else _FINAL.get(bytes((byte,)), ""))
        else:
            self._sequence = held + bytes((byte,))

    # Keys to the line --------------------------------------------------------------------------------------------------

    def _insert(self, c: str) -> None:
        if not c or safe(c) != c or len(self._line) >= LINE_CHARS_MAX:
            return
        at_end = self._at == len(self._line)
        self._line.insert(self._at, c)
        self._at += 1
        if self.secret:
            return
        if at_end and self._shown + width(c) <= self._room():
            self._shown += width(c)
            self._out.append(c)
        else:
            self._draw()

    def _key(self, key: str) -> None:
        line, at = self._line, self._at
        if key == "rub" and at:
            c = line.pop(at - 1)
            self._at -= 1
            if self._at == len(line) and self._from == 0 and not self.secret:
                self._shown -= width(c)
                n = width(c)
                self._out.append("\b" * n + " " * n + "\b" * n)
                return
        elif key == "delete" and at < len(line):
            del line[at]
        elif key == "left" and at:
            self._at -= 1
            if self._at >= self._from and not self.secret:
                self._out.append("\b" * width(line[at - 1]))
                return
        elif key == "right" and at < len(line):
            self._at += 1
        elif key in ("home", "end"):
            self._at = 0 if key == "home" else len(line)
        elif key == "kill":
            del line[at:]
        elif key == "wipe":
            del line[:at]
            self._at = 0
        elif key == "word":
            to = at
            while to and line[to - 1] == " ":
                to -= 1
            while to and line[to - 1] != " ":
                to -= 1
            del line[to:at]
            self._at = to
        elif key == "again":
            self._out.append("\r\n")
            self._shown = 0
        elif key in ("up", "down") and not self.secret:
            self._recall(1 if key == "up" else -1)
        else:
            return
        if not self.secret:
            self._draw()

    def _recall(self, by: int) -> None:
        back = min(max(self._back + by, 0), len(self._history))
        if self._back == 0:
            self._typed = list(self._line)
        self._back = back
        self._line = list(self._history[-back]) if back else list(self._typed)
        self._at = len(self._line)

    def _enter(self) -> None:
        line = "".join(self._line)
        self._leave()
        if line.strip() and not self.secret and line not in self._history[-1:]:
            self._history.append(line)
            del self._history[:-HISTORY_MAX]
        self._events.append(line)

    def _leave(self) -> None:
        self._out.append("\r\n")
        self._line, self._typed, self._at, self._back, self._from, self._shown = [], [], 0, 0, 0, 0

    def _tab(self) -> None:
        if self.secret or self._at != len(self._line):
            return
        head = "".join(self._line)
        found = self._complete(head)
        if not found:
            return
        common = _common(found)
        if len(common) > len(head) and common.startswith(head):
            for c in common[len(head):]:
                self._insert(c)
        elif len(found) > 1:
            words = [one[len(head.rpartition(" ")[0]):].strip() or one for one in found[:CANDIDATES_SHOWN_MAX]]
            self._out.append("\r\n" + safe("  ".join(words))[:CELLS_MAX] + "\r\n" + self.prompt)
            self._shown = 0
            self._draw(prompt=False)

    # The line to the screen --------------------------------------------------------------------------------------------

    def _room(self) -> int:
        return max(CELLS_MAX - cells(self.prompt), 8)

    def _draw(self, prompt: bool = True) -> None:
        """The window of the line that holds the cursor, over whatever stood there; the cursor back to its place."""
        if self.secret:
            return
        self._from = min(self._from, self._at)
        while cells("".join(self._line[self._from:self._at])) > self._room():
            self._from += 1
        if self._at == len(self._line) and self._from:                # nothing behind it: show as much before it as fits
            while self._from and cells("".join(self._line[self._from - 1:self._at])) <= self._room():
                self._from -= 1
        text, used = "", 0
        for c in self._line[self._from:]:
            if used + width(c) > self._room():
                break
            text, used = text + c, used + width(c)
        gap = max(self._shown - used, 0)
        behind = used - cells("".join(self._line[self._from:self._at]))
        self._out.append(("\r" + self.prompt if prompt else "") + text + " " * gap + "\b" * (gap + behind))
        self._shown = used


def _common(found: list[str]) -> str:
    first, last = min(found), max(found)
    return first[:next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))]
