"""The second copy: every journal row since the last verified snapshot, in other files, best on another partition.

Knows bytes, row numbers and marks; no money, and no SQLite.  A copy is a folder of segments, each a file of fixed size that is
filled with zeros once and used again and again, so that keeping rows writes over bytes that are there and costs one `fdatasync`
and no commit of the file system.  What one commit of the journal kept is one frame: it proves itself by a CRC, its place by a
SHA-256 over all frames of its segment before it, and its head says in clear what must never go back.  Its rows are deflated, as
one stream through the segment: rows say much the same again and again, and flash wears by the byte.  A restating row begins a
segment; when it was read back from the medium, segments that nobody needs any more are free.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from device.errors import CopyFailed, JournalHeld

SEGMENT_BYTES = 256 * 1024
COPY_BYTES_MAX = 32 * 1024 * 1024        # segments kept for records that the cloud has not confirmed are at most so many
ZEROS = bytes(64 * 1024)
MAGIC = b"TBc1"
FRESH, RESTATES = 1, 2                   # flags: a deflate stream begins here; the first row restates
_HEAD = struct.Struct(">4s8sQBIQQQQI44s")  # magic, lineage, serial, flags, length, first n, last n, mark, orders, boots, head
_TAIL = struct.Struct(">I16s")           # CRC-32 of head and payload; link
FRAME_BYTES = _HEAD.size + _TAIL.size
WHOLE_MAX = 2                            # segments whose rows stay in memory while all are looked through
GROUP_ROWS = 400                         # rows of one frame, when a copy is laid anew


class Stand(NamedTuple):
    """What must never go back: the chain's head, the counter of order numbers, the count of boots."""

    head: str = ""
    orders: int = 0
    boots: int = 0


class Copied(NamedTuple):
    """One journal row as the copy keeps it; `restates`: folding may begin here."""

    n: int
    mark: int
    refs: tuple[str, ...]
    facts: bytes
    restates: bool = False
    stand: Stand = Stand()


class _Group(msgspec.Struct, array_like=True, frozen=True):
    """What a frame carries: (mark, refs, facts) of rows that follow one another, and the journal's cursor where it moved."""

    rows: tuple[tuple[int, tuple[str, ...], bytes], ...]
    acked: tuple[str, int, str] | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Group)


class Held(NamedTuple):
    """What a copy holds.  `rows` follow one another without a gap, the first one restating; `older` go before them, as far back
    as the segments reach, and are empty when the two do not meet; they may be many, and are read anew each time.

    `broken`: something in the middle cannot be read, or the beginning.  `ragged`: the last frame is there in part.  `top`, `stand`:
    the highest row number and counters that any readable frame names.
    """

    lineage: str = ""
    rows: tuple[Copied, ...] = ()
    older: Iterable[Copied] = ()
    acked: tuple[str, int, str] = ("", 0, "")
    broken: bool = False
    ragged: bool = False
    top: int = 0
    stand: Stand = Stand()

    @property
    def there(self) -> bool:
        return bool(self.rows) or self.broken

    @property
    def last(self) -> int:
        return self.rows[-1].n if self.rows else 0


_NONE = Copied(0, 0, (), b"")


class _Segment(NamedTuple):
    serial: int
    lineage: bytes
    rows: tuple[Copied, ...]
    acked: tuple[str, int, str] | None
    end: int                             # where the next frame would begin
    link: bytes
    broken: bool
    ragged: bool
    top: int
    stand: Stand
    path: Path
    parted: bool = False                 # of the rows only the first and the last are here


class _Older:
    """The rows of whole segments, read one segment at a time."""

    def __init__(self, segments: Sequence[_Segment]) -> None:
        self._segments = segments

    def __iter__(self) -> Iterator[Copied]:
        for segment in self._segments:
            yield from _whole(segment).rows


def looked_at(folder: Path, owner: str) -> Held:
    """What `folder` holds of `owner`, for whoever only looks: no lock, no file.  OSError when it cannot be read."""
    found = _all_scanned([(int(path.stem[5:]), path) for path in sorted(folder.glob("copy-*.seg")) if path.stem[5:].isdigit()])
    mine = [s for s in found if s.rows or s.broken or s.ragged]
    number = zlib.crc32(owner.encode()) & 0xFFFF
    return _held([s for s in mine if not s.lineage or int.from_bytes(s.lineage[2:4], "big") == number])


class SecondCopy:
    """The one writer of a copy's folder, made if needed.  CopyFailed when it cannot be used, Outside when another process has it.

    `owner` names box and mode: what another left in the folder is not read.  Each time a copy is laid anew its *lineage* gets a
    higher number, and the journal keeps it, so that an older copy that turns up again is known for one.

    `read` says what is there; then either `go_on` continues it or `begin` lays it anew; only then `keep` takes rows.  After any
    OSError the copy is dead: what of its last rows reached the medium is unknown until it is read again.
    """

    def __init__(self, folder: str | Path, owner: str = "", *, segment_bytes: int = SEGMENT_BYTES,
                 bytes_max: int = COPY_BYTES_MAX) -> None:
        self.folder, self._segment_bytes, self._bytes_max = Path(folder), segment_bytes, bytes_max
        self.lineage = ""
        self._owner = zlib.crc32(owner.encode()) & 0xFFFF
        self._file = -1
        self._serial = self._end = self._size = 0
        self._link = b""
        self._stream: Any = None                         # the deflate stream of the current segment
        self._marks: dict[int, tuple[int, bool]] = {}    # serial to (highest mark in it, begins a generation); the current one too
        self._free: list[int] = []
        self._was: list[Path] = []
        self._dead = False
        self.syncs = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalHeld(f"The journal's second copy {folder} is held by another process.", which="second copy", again=False,
                              hint="stop it first: one box has one daemon") from None
        except OSError as why:
            raise self.failed(why) from None

    # Reading -------------------------------------------------------------------------------------------------------

    def read(self) -> Held:
        """What the folder holds of its owner's newest lineage; looked at frame by frame, nothing is changed."""
        try:
            segments = _all_scanned(self._files())
        except OSError as why:
            raise self.failed(why) from None
        mine = [s for s in segments if s.rows or s.broken or s.ragged]
        return _held([s for s in mine if not s.lineage or int.from_bytes(s.lineage[2:4], "big") == self._owner])

    def _files(self) -> list[tuple[int, Path]]:
        found = [(int(path.stem[5:]), path) for path in self.folder.glob("copy-*.seg") if path.stem[5:].isdigit()]
        return sorted(found)

    # Beginning -----------------------------------------------------------------------------------------------------

    def go_on(self, held: Held) -> None:
        """Continue behind what `read` found whole; a ragged end is written over."""
        assert held.rows and not held.broken
        try:
            self._go_on(held)
        except OSError as why:
            raise self.failed(why) from None

    def _go_on(self, held: Held) -> None:
        last, empty, strange = None, [], []
        for serial, path in self._files():
            found = _scanned(path, serial)
            if found.rows and found.lineage.hex() == held.lineage:
                self._marks[serial] = (found.rows[-1].mark, found.rows[0].restates)
                last = found
            elif found.rows or found.broken or found.ragged:
                strange.append(path)
            else:
                empty.append((serial, path))
        assert last is not None
        for serial, path in empty:                       # begun, and not written to before the power went; or free
            if serial > last.serial or path.stat().st_size != self._segment_bytes:
                path.unlink()
            else:
                self._free.append(serial)
        self.lineage = held.lineage
        self._serial, self._end, self._link = last.serial, last.end, last.link
        self._file = os.open(self._path(last.serial), os.O_RDWR | os.O_CLOEXEC)
        self._size = os.fstat(self._file).st_size
        self._aside(strange)

    def begin(self, rows: Iterable[Copied], acked: tuple[str, int, str], after: str = "") -> str:
        """Lay the copy anew from `rows`, the first of them restating or row 1, and return its lineage, which the journal keeps.

        Its number is above that of `after`, the journal's older one, and of whatever lies in the folder.

        What stood here before stays until `forget` moves it into a folder `was-N` beside the new segments.
        """
        try:
            old = self._files()
            self._serial = old[-1][0] if old else 0
            found = [_scanned(path, serial).lineage for serial, path in old]
            number = 1 + max(generation(lineage) for lineage in (after, *(one.hex() for one in found)))
            self.lineage = f"{number:04x}{self._owner:04x}{secrets.token_hex(4)}"
            self._marks, self._free = {}, []
            self._roll()
            self._write([*rows], acked if acked[0] else None)
            self._verify()
        except OSError as why:
            raise self.failed(why) from None
        self._was = [path for _, path in old]
        return self.lineage

    def forget(self) -> None:
        """Move aside what `begin` replaced, now that the journal names the new lineage."""
        try:
            self._aside(self._was)
        except OSError as why:
            raise self.failed(why) from None
        self._was = []

    def _aside(self, paths: Sequence[Path]) -> None:
        if not paths:
            return
        kept = sorted(self.folder.glob("was-*"), key=lambda there: int(there.name[4:]))
        for there in kept[:-1]:                          # one older copy is evidence, a hundred fill the card
            for path in there.iterdir():
                path.unlink()
            there.rmdir()
        there = self.folder / f"was-{int(kept[-1].name[4:]) + 1 if kept else 1}"
        there.mkdir()
        for path in paths:
            os.rename(path, there / path.name)
        os.fsync(self._lock)

    # Keeping -------------------------------------------------------------------------------------------------------

    def keep(self, rows: Sequence[Copied], acked: tuple[str, int, str] | None = None, acked_mark: int = 0) -> None:
        """Take what one commit of the journal kept; when it returns, the medium has it.  Outside after any error, for good.

        `acked` the journal's cursor where it moved; records up to `acked_mark` need not be kept for the cloud.
        """
        assert self._file >= 0 and not self._dead, "the second copy failed before, or was never begun"
        try:
            start = 0
            for at, row in enumerate(rows):
                if row.restates:
                    if at > start:
                        self._write(rows[start:at], None)
                    self._roll()
                    start = at
            self._write(rows[start:], acked)
            if any(row.restates for row in rows):
                self._verify()
                self._let_go(acked_mark)
        except OSError as why:
            self._dead = True
            raise self.failed(why) from None

    def close(self) -> None:
        """Let go of the folder; whatever was kept is on the medium."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def failed(self, why: OSError) -> CopyFailed:
        return CopyFailed(f"The second copy {self.folder} cannot be used: {why.strerror or why}.", which="second copy", again=False,
                       hint="look at its partition; the journal itself is whole, see docs/recovery.md")

    def _write(self, rows: Sequence[Copied], acked: tuple[str, int, str] | None) -> None:
        """Rows of one commit as one frame, and on the medium; many of them as several."""
        for at in range(0, max(len(rows), 1 if acked else 0), GROUP_ROWS):
            some = rows[at:at + GROUP_ROWS]
            self._frame(some, acked if at + GROUP_ROWS >= len(rows) else None)

    def _frame(self, rows: Sequence[Copied], acked: tuple[str, int, str] | None) -> None:
        plain = _encoder.encode(_Group(tuple((row.mark, row.refs, row.facts) for row in rows), acked))
        for _ in range(2):
            fresh = self._stream is None
            if fresh:
                self._stream = zlib.compressobj(1, zlib.DEFLATED, -15, 9)
            payload = self._stream.compress(plain) + self._stream.flush(zlib.Z_SYNC_FLUSH)
            size = FRAME_BYTES + len(payload)
            if self._end + size <= self._size:
                break
            self._roll(size + 1024)                      # its own stream begins there, so it may come out a little longer
        first, last = (rows[0], rows[-1]) if rows else (_NONE, _NONE)
        stand = last.stand
        flags = FRESH * fresh + RESTATES * first.restates
        body = _HEAD.pack(MAGIC, bytes.fromhex(self.lineage), self._serial, flags, len(payload), first.n, last.n, last.mark,
                          stand.orders, stand.boots, stand.head.encode("ascii")) + payload
        self._link = _linked(self._link, body)
        data = body + _TAIL.pack(zlib.crc32(body), self._link)
        if os.pwrite(self._file, data, self._end) != size:
            raise OSError(errno.EIO, "a write came back short")
        os.fdatasync(self._file)
        self.syncs += 1
        self._end += size
        if rows:
            before = self._marks.get(self._serial)
            self._marks[self._serial] = (last.mark, before[1] if before else first.restates)

    def _roll(self, need: int = 0) -> None:
        """Go on in the next segment: a free one under a new name, or a new one filled with zeros."""
        serial = self._serial + 1
        path = self._path(serial)
        old = self._free.pop(0) if self._free and need <= self._segment_bytes else None
        if old is not None:
            os.rename(self._path(old), path)
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        else:
            draft = self.folder / "new.seg"
            file = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            size = max(self._segment_bytes, need)
            for at in range(0, size, len(ZEROS)):
                os.pwrite(file, ZEROS[:size - at], at)
            os.fsync(file)
            os.rename(draft, path)
        os.fsync(self._lock)
        if self._file >= 0:
            os.close(self._file)
        self._file, self._serial, self._end, self._size = file, serial, 0, os.fstat(file).st_size
        self._stream = None
        self._link = _seed(bytes.fromhex(self.lineage), serial)

    def _verify(self) -> None:
        """The current segment as the medium gives it back, not as the page cache remembers it."""
        os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_DONTNEED)
        found = _scanned(self._path(self._serial), self._serial)
        if found.broken or found.ragged or found.end != self._end or (found.end and found.link != self._link):
            raise OSError(errno.EIO, "what was written does not come back")

    def _let_go(self, upto: int) -> None:
        """Free what nobody needs: older than the generation before this one, and confirmed by the cloud or beyond the bound."""
        begins = [serial for serial in sorted(self._marks) if self._marks[serial][1]]
        keep_from = begins[-2] if len(begins) > 1 else (begins[0] if begins else 0)
        total = len(self._marks) * self._segment_bytes
        for serial in sorted(self._marks):
            if serial >= keep_from:
                break
            if self._marks[serial][0] > upto and total <= self._bytes_max:
                break
            del self._marks[serial]
            total -= self._segment_bytes
            if os.stat(self._path(serial)).st_size == self._segment_bytes:
                self._free.append(serial)
            else:
                os.unlink(self._path(serial))

    def _path(self, serial: int) -> Path:
        return self.folder / f"copy-{serial:010d}.seg"


# Frames ------------------------------------------------------------------------------------------------------------

def _seed(lineage: bytes, serial: int) -> bytes:
    return hashlib.sha256(b"tillbox second copy" + lineage + serial.to_bytes(8, "big")).digest()[:16]


def _linked(link: bytes, body: bytes) -> bytes:
    return hashlib.sha256(link + body).digest()[:16]


class _Frame(NamedTuple):
    lineage: bytes
    flags: int
    first: int
    last: int
    stand: Stand
    body: bytes                          # head and payload
    link: bytes


def _scanned(path: Path, serial: int) -> _Segment:
    """The frames of one segment, up to the first that does not hold; of what stands behind it only the numbers are heard."""
    data = path.read_bytes()
    rows: list[Copied] = []
    acked: tuple[str, int, str] | None = None
    lineage, link, end, stand, top = b"", b"", 0, Stand(), 0
    inflater: Any = None
    while (frame := _frame_at(data, end, serial)) is not None:
        if not lineage:
            lineage, link = frame.lineage, _seed(frame.lineage, serial)
        if frame.lineage != lineage or frame.link != _linked(link, frame.body):
            break
        if frame.flags & FRESH:
            inflater = zlib.decompressobj(-15)
        try:
            group = _decoder.decode(inflater.decompress(frame.body[_HEAD.size:]))
        except (AttributeError, zlib.error, msgspec.DecodeError):
            break
        link, end = frame.link, end + len(frame.body) + _TAIL.size
        acked = group.acked or acked
        for k, (mark, refs, facts) in enumerate(group.rows):
            rows.append(Copied(frame.first + k, mark, refs, facts, not k and bool(frame.flags & RESTATES), frame.stand))
        if group.rows:
            stand, top = _higher(stand, frame.stand), max(top, frame.last)
    ragged, broken = _begins(data, end, serial), False
    at = data.find(MAGIC, end + 1)
    while at >= 0:                                       # whatever was written behind the break proves that rows are missing
        frame = _frame_at(data, at, serial)
        if frame is not None:
            broken, lineage = True, lineage or frame.lineage
            if frame.last:
                stand, top = _higher(stand, frame.stand), max(top, frame.last)
        at = data.find(MAGIC, at + 1)
    return _Segment(serial, lineage, tuple(rows), acked, end, link, broken, ragged and not broken, top, stand, path)


def _all_scanned(files: Iterable[tuple[int, Path]]) -> list[_Segment]:
    """Every segment; whole are the last ones alone, and none from before the last that begins a generation."""
    found: list[_Segment] = []
    whole = 0                                            # from here on they are
    for serial, path in files:
        segment = _scanned(path, serial)
        due = len(found) if segment.rows and segment.rows[0].restates else max(whole, len(found) - WHOLE_MAX + 1)
        for at in range(whole, due):
            rows = found[at].rows
            ends = rows if len(rows) < 2 else (rows[0], rows[-1])
            found[at] = found[at]._replace(rows=tuple(map(_bare, ends)), parted=True)
        whole = due
        found.append(segment)
    return found


def _bare(row: Copied) -> Copied:
    return row._replace(refs=(), facts=b"")


def _whole(segment: _Segment) -> _Segment:
    return _scanned(segment.path, segment.serial) if segment.parted else segment


def _frame_at(data: bytes, at: int, serial: int) -> _Frame | None:
    """The frame of this segment that stands whole at `at`, None where none does."""
    if not _begins(data, at, serial) or at + FRAME_BYTES > len(data):
        return None
    _, lineage, _, flags, size, first, last, _, orders, boots, head = _HEAD.unpack_from(data, at)
    end = at + _HEAD.size + size
    if end + _TAIL.size > len(data):
        return None
    body = data[at:end]
    crc, link = _TAIL.unpack_from(data, end)
    if zlib.crc32(body) != crc:
        return None
    return _Frame(lineage, flags, first, last, Stand(head.rstrip(b"\0").decode("ascii"), orders, boots), body, link)


def _begins(data: bytes, at: int, serial: int) -> bool:
    """True when a frame of this segment begins here, whole or not: a stale one names the serial that the file had before."""
    return data[at:at + 4] == MAGIC and data[at + 12:at + 20] == serial.to_bytes(8, "big")


def _higher(a: Stand, b: Stand) -> Stand:
    return Stand(b.head or a.head, max(a.orders, b.orders), max(a.boots, b.boots))


def generation(lineage: str) -> int:
    """The number of a lineage, 0 of none."""
    return int(lineage[:4] or "0", 16)


def _held(segments: list[_Segment]) -> Held:
    lineage = max((s.lineage for s in segments), key=lambda one: one[:2], default=b"")
    mine = [s for s in segments if s.lineage in (lineage, b"")]       # one without any is rotten from its start
    if not any(s.lineage for s in mine):
        return Held(broken=bool(mine))
    stand, top, acked = Stand(), 0, ("", 0, "")
    for segment in mine:
        stand, top = _higher(stand, segment.stand), max(top, segment.top)
        acked = segment.acked or acked
    first = next((k for k in reversed(range(len(mine))) if mine[k].rows and mine[k].rows[0].restates), -1)
    if first < 0:                                        # a young journal: its first row restates nothing, and is row 1
        first = next((k for k, s in enumerate(mine) if s.rows and s.rows[0].n == 1), -1)
    broken = any(s.broken for s in mine[max(0, first):]) or any(not s.rows for s in mine) or first < 0
    rows: list[Copied] = []
    for at, segment in enumerate(mine[first:] if first >= 0 else ()):
        whole = not rows or (segment.rows and segment.rows[0].n == rows[-1].n + 1)
        if not whole:
            broken = True
            break
        rows += _whole(segment).rows
        if segment.broken or (segment.ragged and at < len(mine) - first - 1):
            broken = True
            break
    older: list[_Segment] = []
    for segment in reversed(mine[:max(0, first)]):
        due = (older[0].rows[0].n if older else rows[0].n) - 1
        if segment.broken or segment.ragged or not segment.rows or segment.rows[-1].n != due:
            break
        older.insert(0, segment)
    return Held(lineage.hex(), tuple(rows), _Older(older), acked, broken, mine[-1].ragged, top, stand)
