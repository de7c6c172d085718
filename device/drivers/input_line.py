"""Reading from anything that stands for an input device: an event node, a FIFO, a pty, a socket.  Knows bytes and silence, no key.

Opening an event node grabs it: without that every scan would also be typed into the machine's login prompt.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import select
import stat
import threading
import time

from device.errors import DriverBusy, DriverGone

READ_BYTES = 4096
HELD_BYTES_MAX = 64 * 1024      # that nobody has taken yet: beyond it the kernel keeps, and says what it dropped
INPUT_MAJOR = 13                # Linux's device number of event nodes
EVIOCGRAB = 0x40044590
EVIOCSCLOCKID = 0x400445A0
KEY_BYTES = 96                  # KEY_MAX is 0x2ff
EVIOCGKEY = 0x80004518 | KEY_BYTES << 16
KEY_UP_S, KEY_UP_TRIES = 0.05, 20
CLOCK_MONOTONIC = 1             # linux/time.h
SCANNER_KEYS = frozenset((*range(2, 12), 28))     # KEY_1 to KEY_0 and KEY_ENTER: what every scanner can type
PAD_KEYS = frozenset((79, 80, 81))                # KEY_KP1 to KEY_KP3


class InputLine:
    """A file descriptor read without blocking the loop.  Owns it: `close` closes it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ready: asyncio.Future[None] | None = None
        os.set_blocking(fd, False)

    async def read(self, quiet_ms: int | None = None) -> bytes | None:
        """What is there, at least a byte; b"" when the other end is gone; None after `quiet_ms` of silence."""
        data = self.now()
        if data is not None:
            return data
        loop, fd = asyncio.get_running_loop(), self._fd
        ready = self._ready = loop.create_future()
        loop.add_reader(fd, _wake, ready)
        try:
            await asyncio.wait([ready], timeout=None if quiet_ms is None else quiet_ms / 1000)
        finally:
            if self._fd == fd:
                loop.remove_reader(fd)
            self._ready = None
        return self.now()            # also after silence: a busy loop may have been late to both

    def drain(self) -> None:
        """Throw away what was said before anybody listened."""
        while self.now():
            pass

    def close(self) -> None:
        """Let go of the descriptor and end a read that waits on it; a second call does nothing."""
        if self._fd < 0:
            return
        if self._ready is not None:
            self._ready.get_loop().remove_reader(self._fd)
            _wake(self._ready)
        os.close(self._fd)
        self._fd = -1

    def now(self) -> bytes | None:
        """What is there without waiting: None when nothing is, b"" at the end.  DriverGone for a fault."""
        if self._fd < 0:
            return b""
        try:
            return os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as gone:
            if gone.errno in (errno.ENODEV, errno.EIO, errno.ECONNRESET, errno.ENXIO):      # unplugged
                return b""
            raise DriverGone(f"reading failed: {gone.strerror}", which="input", hint="unplug it and plug it in again") from gone


class EagerLine:
    """As `InputLine`, emptied by a thread of its own.

    The kernel keeps 64 events of a node: at full USB speed that is 20 ms of keys, and a commit to a slow card blocks the loop for
    longer.  What the kernel drops then is half a barcode.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd, self._line = fd, InputLine(fd)
        self._signal = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._held, self._ended, self._closing = bytearray(), False, False
        self._fault: DriverGone | None = None
        self._ready: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None

    async def read(self, quiet_ms: int | None = None) -> bytes | None:
        """As `InputLine.read`."""
        loop = asyncio.get_running_loop()
        if self._thread is None and not self._closing:
            self._thread = threading.Thread(target=self._empty, args=(loop,), name="input", daemon=True)
            self._thread.start()
        ends_s = None if quiet_ms is None else loop.time() + quiet_ms / 1000
        while True:
            ready = self._ready = loop.create_future()
            data = self._taken()
            if data is not None:
                return data
            left_s = None if ends_s is None else ends_s - loop.time()
            if left_s is not None and left_s <= 0:
                return None
            await asyncio.wait([ready], timeout=left_s)      # the bell may be of what was taken before: look, and wait on

    def drain(self) -> None:
        """As `InputLine.drain`; before the first read."""
        assert self._thread is None
        self._line.drain()

    def close(self) -> None:
        """As `InputLine.close`."""
        if self._closing:
            return
        self._closing = True
        os.eventfd_write(self._signal, 1)
        if self._thread is not None:
            self._thread.join()
        self._line.close()
        os.close(self._signal)
        if self._ready is not None:
            _wake(self._ready)

    def _taken(self) -> bytes | None:
        with self._lock:
            data, full = bytes(self._held), len(self._held) >= HELD_BYTES_MAX
            self._held.clear()
        if full:
            os.eventfd_write(self._signal, 1)
        if data:
            return data
        if self._fault is not None:
            raise self._fault
        return b"" if self._ended or self._closing else None

    def _empty(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._ended and not self._closing:
            eyes = select.poll()
            eyes.register(self._signal, select.POLLIN)
            if len(self._held) < HELD_BYTES_MAX:
                eyes.register(self._fd, select.POLLIN)
            if any(fd == self._signal for fd, _ in eyes.poll()):
                os.eventfd_read(self._signal)
                continue
            try:
                data = self._line.now()
            except DriverGone as fault:
                self._fault, data = fault, b""
            if data is None:
                continue
            with self._lock:
                self._held += data
                self._ended = not data
            try:
                loop.call_soon_threadsafe(self._ring)
            except RuntimeError:          # the loop has ended: nobody listens any more
                return

    def _ring(self) -> None:
        if self._ready is not None:
            _wake(self._ready)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


class KeyDown(DriverBusy):
    """A key of the node is held down."""


def open_events(path: str, *, which: str, needed: frozenset[int] = frozenset(), eager: bool = False,
                pressed: str = "wait") -> InputLine | EagerLine:
    """Open the event node, FIFO or pty at `path`; an event node is grabbed.

    `needed` are evdev codes that the node must have; `eager` for what types faster than the loop may be late.  While a key is
    `pressed`: `wait`, up to a second, so call it in a thread; `refuse` with KeyDown; `take` it all the same.
    DriverGone when nothing is there, DriverBusy when another program holds it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as fault:
        raise DriverGone(f"{path} cannot be opened: {fault.strerror}", which=which, hint="is it plugged in?") from fault
    try:
        kind = os.fstat(fd)
        if stat.S_ISCHR(kind.st_mode) and os.major(kind.st_rdev) == INPUT_MAJOR:
            _grab(fd, path, which, needed, pressed)
        return EagerLine(fd) if eager else InputLine(fd)
    except BaseException:
        os.close(fd)
        raise


def _grab(fd: int, path: str, which: str, needed: frozenset[int], pressed: str = "wait") -> None:
    try:
        fcntl.ioctl(fd, EVIOCSCLOCKID, CLOCK_MONOTONIC.to_bytes(4, "little"))
        for _ in range(KEY_UP_TRIES if pressed != "take" else 0):
            if not any(fcntl.ioctl(fd, EVIOCGKEY, bytes(KEY_BYTES))):
                break                                # else its release would come to us, and the console's key repeat for ever
            if pressed == "refuse":
                raise KeyDown(f"a key of {path} is held down", which=which, hint="let it go")
            time.sleep(KEY_UP_S)
        fcntl.ioctl(fd, EVIOCGRAB, 1)
    except OSError as fault:
        if fault.errno == errno.EBUSY:
            raise DriverBusy(f"another program holds {path}", which=which, hint="stop it, then plug again") from fault
        raise DriverGone(f"{path} cannot be grabbed: {fault.strerror}", which=which) from fault
    if needed and missing_keys(path, needed):
        raise DriverGone(f"{path} lacks the keys it should have: it is no {which}", which=which, hint="name its other interface")


def missing_keys(path: str, needed: frozenset[int]) -> frozenset[int]:
    """Those of `needed` that the event node at `path` lacks, as evdev codes; empty also when python-evdev is not there."""
    try:
        import evdev
    except ImportError:
        return frozenset()
    try:
        node = evdev.InputDevice(path)
    except OSError:                       # it went between the two opens: the read will say so
        return frozenset()
    try:
        return needed - frozenset(node.capabilities().get(evdev.ecodes.EV_KEY, ()))
    finally:
        node.close()
