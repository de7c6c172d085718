"""A receipt printer without hardware: takes ESC/POS bytes and lays out what would stand on paper.

It obeys commands as printers do, also those it would be better not to obey: real-time codes inside image data,
commands inside a product name.  It answers for itself only: no proof without paper, no answer when mute or off.  It
knows nothing of the box's own encoder and shares no code with it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from sim.devices.printer_commands import command_size
from sim.devices.printer_ink import CELL_W
from sim.devices.printer_paper import Paper, Receipt

MODEL = "TILLBOX"


class PrinterModel:
    """The printer itself, without a cable.  Thread-safe.

    `columns` 48 or 32.  `answers_status` DLE EOT, `answers_queued` GS r, `answers_id` GS ( H, `name` is its answer to
    GS I 67, "" for none.  `charset` is what bytes from 0x80 on are in.  `buffer_bytes` is the input buffer: a full one stops
    the cable, see `room`.  `byte_s` seconds it takes for each byte, 0 for no limit.  `draws` False leaves pictures out.
    Faults are switched by the methods below; `say` is where its answers go.
    """

    def __init__(self, columns: int = 48, *, answers_status: bool = True, answers_queued: bool = True,
                 answers_id: bool = True, name: str = MODEL, charset: str = "gbk",
                 buffer_bytes: int = 65_536, byte_s: float = 0.0, draws: bool = True) -> None:
        self._paper = Paper(columns * CELL_W, self._line_fed, charset, draws)
        self.name, self.cutter_jammed, self.head_hot, self.beeps = name, False, False, 0
        self.answers_status, self.answers_queued, self.answers_id = answers_status, answers_queued, answers_id
        self.buffer_bytes, self.byte_s = buffer_bytes, byte_s
        self.powered, self.mute, self.cover_open, self.paper_low, self.paper_out = True, False, False, False, False
        self.drawer_open, self.drawer_kicks, self.drawer_stuck = False, 0, False
        self._drawer_high_open = True
        self.say: Callable[[bytes], None] = lambda data: None
        self.changed: list[Callable[[], None]] = []    # called after a switch was turned
        self._lock = threading.RLock()
        self._lines_left: int | None = None
        self._cover_lines: int | None = None
        self._bytes_left: int | None = None
        self._queue, self._dle = bytearray(), bytearray()

    # --- switches ---

    def power(self, on: bool) -> None:
        """Off: the buffer is lost and unfinished paper is torn; nobody answers until it is on again."""
        with self._lock:
            if self.powered and not on:
                self._tear()
            self.powered = on
        self._tell()

    def die_after(self, bytes_n: int | None) -> None:
        """The power goes `bytes_n` bytes of job from now, real-time questions not counted; None takes it back."""
        with self._lock:
            self._bytes_left = bytes_n

    def paper(self, *, out: bool | None = None, low: bool | None = None, lines_left: int | None = None) -> None:
        """Take the roll out, put one in (which prints what waits), or let it end after `lines_left` more lines."""
        with self._lock:
            self.paper_out = self.paper_out if out is None else out
            self.paper_low = self.paper_low if low is None else low
            self._lines_left = lines_left
            self._run()
        self._tell()

    def cover(self, is_open: bool) -> None:
        """Open or close the cover; a closed one prints what waits."""
        with self._lock:
            self.cover_open = is_open
            self._run()
        self._tell()

    def cover_after(self, lines: int) -> None:
        """Somebody opens the cover behind so many more lines."""
        with self._lock:
            self._cover_lines = lines

    def fault(self, *, cutter: bool | None = None, hot: bool | None = None) -> None:
        """Jam the cutter, overheat the head, or take it back, which prints what waits."""
        with self._lock:
            self.cutter_jammed = self.cutter_jammed if cutter is None else cutter
            self.head_hot = self.head_hot if hot is None else hot
            self._run()
        self._tell()

    @property
    def offline(self) -> bool:
        """True while it prints nothing."""
        return self.paper_out or self.cover_open or self.cutter_jammed or self.head_hot

    def silence(self, on: bool) -> None:
        """Mute: it prints and answers nothing, as behind a one-way cable."""
        self.mute = on

    def drawer_low(self) -> None:
        """A drawer whose switch pulls the wire down while it is open."""
        self._drawer_high_open = False

    def close_drawer(self) -> None:
        """A hand closes the drawer."""
        with self._lock:
            self.drawer_open = False

    # --- what came out ---

    def receipts(self) -> list[Receipt]:
        """Every piece of paper so far, oldest first; a piece that is still being printed is not among them."""
        with self._lock:
            return list(self._paper.receipts)

    @property
    def strange(self) -> list[bytes]:
        """What it did not understand."""
        return self._paper.strange

    @property
    def room(self) -> int:
        """Bytes the input buffer still takes."""
        with self._lock:
            return max(0, self.buffer_bytes - len(self._queue))

    def receive(self, data: bytes) -> None:
        """Bytes from the cable.  Real-time commands are obeyed at once wherever they stand, the rest waits its turn."""
        with self._lock:
            for byte in data:
                if not self.powered:
                    break
                self._take(byte)
            self._run()
        if not self.powered:
            self._tell()

    # --- input side ---

    def _take(self, byte: int) -> None:
        dle = self._dle
        dle.append(byte)
        if dle[0] != 0x10:
            dle.clear()
            self._queue_byte(byte)
        elif len(dle) == 1:
            return
        elif dle[1] == 0x04 and len(dle) < 3 or dle[1] == 0x05 and len(dle) < 3 or dle[1] == 0x14 and len(dle) < 5:
            return
        elif dle[1] == 0x04 and 1 <= dle[2] <= 4:
            self._answer_status(dle[2])
            dle.clear()
        elif dle[1] == 0x05 and dle[2] in (1, 2):
            if dle[2] == 2:
                self._queue.clear()
            dle.clear()
        elif dle[1] == 0x14 and dle[2] == 1 and dle[3] in (0, 1):
            self._kick()
            dle.clear()
        else:
            held = bytes(dle)
            dle.clear()
            self._queue_byte(held[0])
            for other in held[1:]:
                self._take(other)

    def _queue_byte(self, byte: int) -> None:
        self._queue.append(byte)
        if self._bytes_left is not None:
            self._bytes_left -= 1
            if self._bytes_left <= 0:
                self._bytes_left = None
                self._run()
                self._tear()
                self.powered = False

    def _answer_status(self, n: int) -> None:
        byte = 0x12
        if n == 1:
            byte |= 0x04 * (self.drawer_open is self._drawer_high_open) | 0x08 * self.offline
        elif n == 2:
            byte |= 0x04 * self.cover_open | 0x20 * self.paper_out | 0x40 * (self.cutter_jammed or self.head_hot)
        elif n == 3:
            byte |= 0x08 * self.cutter_jammed | 0x40 * self.head_hot
        elif n == 4:
            byte |= 0x0C * (self.paper_low or self.paper_out) | 0x60 * self.paper_out
        self._speak(bytes([byte]), self.answers_status)

    def _speak(self, data: bytes, able: bool = True) -> None:
        if able and not self.mute and self.powered:
            self.say(data)

    # --- interpreter ---

    def _run(self) -> None:
        while self._queue and not self.offline:
            if not self._queue[0]:                     # skipped by every printer where it waits for no argument
                self._queue = self._queue.lstrip(b"\0")
                continue
            size = command_size(self._queue, self._paper.pairs)
            if size is None or size > len(self._queue):
                return
            command = bytes(self._queue[:size])
            del self._queue[:size]
            self._obey(command)

    def _obey(self, command: bytes) -> None:
        name = command[:2]
        if name == b"\x1dr":
            queued = {1: 0x03 * self.paper_low, 2: 0x01 * self.drawer_open}
            if command[2] & 0x0F in queued:
                self._speak(bytes([queued[command[2] & 0x0F]]), self.answers_queued)
            return
        if command[:3] == b"\x1d(H":
            if command[5:7] == b"00":
                self._speak(b"\x37\x22" + command[7:11] + b"\x00", self.answers_id)
            return
        if name == b"\x1dI":
            self._speak(b"_" + self.name.encode() + b"\x00" if command[2] >= 65 else b"\x02", bool(self.name))
            return
        if name == b"\x1bB":
            self.beeps += command[2]
        elif name == b"\x1bp":
            self._kick(command)
        else:
            self._paper.obey(command)

    # --- drawer ---

    def _kick(self, command: bytes = b"") -> None:
        self.drawer_kicks += 1
        self._paper.kicked(command)
        self.drawer_open = self.drawer_open or not self.drawer_stuck

    def _tear(self) -> None:
        self._paper.tear()
        self._queue, self._dle = bytearray(), bytearray()

    def _line_fed(self) -> None:
        if self._lines_left is not None:
            self._lines_left -= 1
            if self._lines_left <= 0:
                self._lines_left, self.paper_out = None, True
        if self._cover_lines is not None:
            self._cover_lines -= 1
            if self._cover_lines <= 0:
                self._cover_lines, self.cover_open = None, True

    def _tell(self) -> None:
        for call in list(self.changed):
            call()
