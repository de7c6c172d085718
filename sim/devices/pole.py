"""A customer's pole as a model: bytes in, and what its glass shows.  Written from the makers' manuals, not from our codecs.

Knows cells, the cursor and lights; `PolePort` puts it behind a pty.  What it does not understand is counted in `odd`, and a
byte that is no command stands on the glass, as it would on a real one.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import tty
from pathlib import Path

COLUMNS, ROWS = 20, 2
LED_CELLS = 8
LED_LIGHTS = ("单价", "合计", "收款", "找零")
BIG = 10_000


class Pole:
    """Two rows of twenty cells.  A subclass takes the commands of one set out of what comes."""

    answers = False

    def __init__(self) -> None:
        self.odd = 0
        self.said = bytearray()              # what the pole answered
        self._buffer = bytearray()
        self.blank()

    def blank(self) -> None:
        """All cells dark: power on, or a clear."""
        self.cells = [bytearray(b" " * COLUMNS) for _ in range(ROWS)]
        self.at = 0

    def feed(self, data: bytes) -> None:
        """Take bytes, in any pieces."""
        self._buffer += data
        while self._buffer:
            used = self.step(bytes(self._buffer))
            if used == 0:
                break                        # a command that is not whole yet
            del self._buffer[:used]
        del self._buffer[:-BIG]

    def step(self, data: bytes) -> int:
        """Carry out what `data` begins with; bytes used, 0 to wait for more."""
        raise NotImplementedError

    def rows(self, charset: str = "ascii") -> list[str]:
        """The glass as text, twenty cells a row."""
        return [bytes(cells).decode(charset, "replace") for cells in self.cells]

    def put(self, byte: int) -> None:
        """One character at the cursor, which moves on and comes round."""
        self.cells[self.at // COLUMNS][self.at % COLUMNS] = byte
        self.at = (self.at + 1) % (COLUMNS * ROWS)

    def char(self, data: bytes) -> int:
        """The first byte as a character; a control byte is odd."""
        if data[0] < 0x20:
            self.odd += 1
        else:
            self.put(data[0])
        return 1

    def line(self, n: int, text: bytes) -> None:
        """Replace row `n` by up to twenty cells of `text`, the rest dark."""
        self.cells[n][:] = text[:COLUMNS].ljust(COLUMNS)


class Cd5220(Pole):
    """ESC Q A and B write a row each; in that string mode only CLR ends it."""

    def step(self, data: bytes) -> int:
        if data[0] == 0x0C:
            self.blank()
            return 1
        if data[0] != 0x1B:
            return self.char(data)
        if len(data) < 2:
            return 0
        if data[1] == 0x40:
            self.blank()
            return 2
        if data[1] in (0x11, 0x12, 0x13):
            return 2
        if data[1] != 0x51:
            self.odd += 1
            return 2
        end = data.find(b"\r")
        if end < 0 and len(data) < COLUMNS + 4:
            return 0
        if end < 0 or end > COLUMNS + 3 or data[2:3] not in (b"A", b"B"):
            self.odd += 1
            return 3
        self.line(data[2] - 0x41, data[3:end])
        return end + 1


class EpsonDmd(Pole):
    """ESC/POS of the DM-D: US $ places the cursor, US 01 overwrites, VT is home."""

    def step(self, data: bytes) -> int:
        lengths = {0x0C: 1, 0x0B: 1, 0x1B: 2, 0x1F: 2}
        need = lengths.get(data[0])
        if need is None:
            return self.char(data)
        if data[0] == 0x1F and data[1:2] == b"$":
            need = 4
        elif data[0] == 0x1F and data[1:2] in (b"C", b"X", b"E") or data[0] == 0x1B and data[1:2] in (b"t", b"="):
            need = 3
        if len(data) < need:
            return 0
        if data[0] == 0x0C or data[:2] == b"\x1b@":
            self.blank()
        elif data[0] == 0x0B:
            self.at = 0
        elif data[:2] == b"\x1f$":
            x, y = data[2], data[3]
            if 1 <= x <= COLUMNS and 1 <= y <= ROWS:
                self.at = (y - 1) * COLUMNS + x - 1
            else:
                self.odd += 1
        elif data[0] == 0x1F and data[1] not in b"\x01\x02\x03CXE":
            self.odd += 1
        return need


class Aedex(Pole):
    """!#1 and !#2 write a row each, up to a CR."""

    def step(self, data: bytes) -> int:
        if not b"!#".startswith(data[:2]):
            return self.char(data)
        end = data.find(b"\r")
        if end < 0:
            return 0 if len(data) < 64 else self.char(data)
        if data[2:3] in (b"1", b"2"):
            self.line(data[2] - 0x31, data[3:end])
        elif data[2:3] == b"9":
            self.line(0, data[3:end][:COLUMNS])
            self.line(1, data[3:end][COLUMNS:])
        elif data[2:3] == b"A":
            self.blank()
        else:
            self.odd += 1
        return end + 1


class Adm788(Pole):
    """SO writes the upper row, SI the lower one, each from its first cell."""

    def step(self, data: bytes) -> int:
        if data[0] == 0x0C:
            self.blank()
        elif data[0] in (0x0E, 0x0F):
            self.at = (data[0] - 0x0E) * COLUMNS
        elif data[0] in (0x10, 0x11, 0x12):
            return 2 if len(data) > 1 else 0
        else:
            return self.char(data)
        return 1


class Dsp800(Pole):
    """EOT SOH command … ETB; each command is answered ACK, one that is none NAK."""

    answers = True

    def step(self, data: bytes) -> int:
        if data[0] != 0x04:
            return self.char(data)
        end = data.find(b"\x17")
        if end < 0:
            return 0 if len(data) < 16 else self.char(data)
        body = data[1:end]
        if body[:2] == b"\x01P" and len(body) == 3 and 0x31 <= body[2] < 0x31 + COLUMNS * ROWS:
            self.at = body[2] - 0x31
            self.said += b"\x06"
        elif body[:2] == b"\x01C" and len(body) == 4 and 0x31 <= body[2] <= body[3] < 0x31 + COLUMNS * ROWS:
            for cell in range(body[2] - 0x31, body[3] - 0x30):
                self.cells[cell // COLUMNS][cell % COLUMNS] = 0x20
            self.at = body[2] - 0x31
            self.said += b"\x06"
        else:
            self.odd += 1
            self.said += b"\x15"
        return end + 1


class Led8(Pole):
    """Eight digits, points between them, and the lights 单价 合计 收款 找零; takes both ways of saying the lights."""

    def blank(self) -> None:
        super().blank()
        self.number = ""
        self.lit: tuple[str, ...] = getattr(self, "lit", ())

    def step(self, data: bytes) -> int:
        if data[0] in (0x0C, 0x18):
            self.blank()
            return 1
        if data[0] == 0x02:
            if len(data) < 2 or data[1:2] == b"L" and len(data) < 6 or data[1:2] == b"B" and len(data) < 3:
                return 0
            if data[1:2] == b"L" and set(data[2:6]) <= set(b"01"):
                self.lit = tuple(name for name, on in zip(LED_LIGHTS, data[2:6], strict=True) if on == 0x31)
                return 6
            return 3 if data[1:2] == b"B" else self.char(data)
        if data[0] != 0x1B:
            return self.char(data)
        if len(data) < 2:
            return 0
        if data[1:2] == b"@":
            self.lit = ()
            self.blank()
            return 2
        if data[1:2] == b"s":
            if len(data) < 3:
                return 0
            n = data[2] - 0x30
            if not 0 <= n <= 4:
                self.odd += 1
            self.lit = LED_LIGHTS[n - 1:n] if 1 <= n <= 4 else ()
            return 3
        end = data.find(b"\r")
        if end < 0 and len(data) < 19:
            return 0
        told = data[3:end].decode("ascii", "replace")
        if end < 0 or data[1:3] != b"QA" or end > 18 or set(told) - set("0123456789.-") or len(told.replace(".", "")) > LED_CELLS:
            self.odd += 1
            return 2
        self.number = told
        return end + 1

    def rows(self, charset: str = "ascii") -> list[str]:
        """One row: the number."""
        return [self.number]

    def put(self, byte: int) -> None:
        self.odd += 1                        # it has no letters


MODELS: dict[str, type[Pole]] = {"cd5220": Cd5220, "epson": EpsonDmd, "aedex": Aedex, "adm788": Adm788, "dsp800": Dsp800,
                                 "led8": Led8, "led8n": Led8}


class PolePort:
    """`pole` behind a pty at `path`, a link; `unplug` and `plug` as a hand would; `stuck` true: nothing is read any more."""

    def __init__(self, pole: Pole, path: str) -> None:
        self.pole, self.path = pole, path
        self.stuck = False
        self.taken = 0                       # bytes that came
        self._moved = threading.Condition()
        self.plug()

    def plug(self) -> None:
        """A fresh port behind the link; the pole has just got its power."""
        self._master, slave = os.openpty()
        tty.setraw(slave)
        Path(self.path).unlink(missing_ok=True)
        os.symlink(os.ttyname(slave), self.path)
        os.close(slave)
        self.pole.blank()
        self._end_r, self._end_w = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="pole", daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """The cable is out: writers get EIO, the link is gone."""
        os.write(self._end_w, b"x")
        self._thread.join(5)
        for fd in (self._master, self._end_r, self._end_w):
            os.close(fd)
        Path(self.path).unlink(missing_ok=True)

    def shows(self, wanted, wait_s: float = 5.0) -> bool:
        """Wait until `wanted(pole)`; False after `wait_s` seconds."""
        with self._moved:
            return self._moved.wait_for(lambda: wanted(self.pole), wait_s)

    def _serve(self) -> None:
        while True:
            reads = [self._end_r] if self.stuck else [self._master, self._end_r]
            ready, _, _ = select.select(reads, [], [], 0.05)
            if self._end_r in ready:
                return
            if self._master not in ready:
                continue
            with contextlib.suppress(OSError):        # nobody has the other end open now
                data = os.read(self._master, 4096)
                with self._moved:
                    self.taken += len(data)
                    self.pole.feed(data)
                    said, self.pole.said = bytes(self.pole.said), bytearray()
                    self._moved.notify_all()
                if said:
                    os.write(self._master, said)
                continue
            select.select([self._end_r], [], [], 0.02)
