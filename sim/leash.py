"""Programs that end with the one that started them, even when that one is killed and can say nothing more.

Knows process ids and one pipe; refuses to know what the programs do.  A watcher, a small program of its own, holds the
other end of the pipe: when it closes, for whatever reason, everything that was started is killed.  Linux's own parent-death
signal would not do: it hangs on the thread that forked, and is lost when a program changes its user, as Mosquitto does.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import threading
from typing import Any

# Run by a bare interpreter (-I -S), some 10 ms.  It answers each number: until then the starter has not reaped the process,
# so that the pidfd is certainly its own.
_WATCHER = """\
import os, select, signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
held, poll = set(), select.poll()
poll.register(0, select.POLLIN)
def asked():
    line = os.read(0, 64)
    if not line:
        return False
    try:
        one = os.pidfd_open(int(line))
    except OSError:
        pass
    else:
        held.add(one)
        poll.register(one, select.POLLIN)
    os.write(1, b".")
    return True
def ended(one):
    poll.unregister(one)
    held.discard(one)
    os.close(one)
    return True
while all([ended(fd) if fd else asked() for fd, _ in poll.poll()]):
    pass
for one in held:
    try:
        signal.pidfd_send_signal(one, signal.SIGKILL)
    except OSError:
        pass
"""


class Leash:
    """One watcher and what it watches.  `let_go` when all has ended in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watcher: subprocess.Popen[bytes] | None = None

    def started(self, argv: list[str], **how: Any) -> subprocess.Popen[bytes]:
        """As `subprocess.Popen`; SIGKILL when this program ends, however it ends."""
        with self._lock:
            if self._watcher is None:
                self._watcher = subprocess.Popen([sys.executable, "-I", "-S", "-c", _WATCHER], stdin=subprocess.PIPE, bufsize=0,
                                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
            process = subprocess.Popen(argv, **how)
            assert self._watcher.stdin is not None and self._watcher.stdout is not None
            self._watcher.stdin.write(b"%d\n" % process.pid)
            self._watcher.stdout.read(1)
        return process

    def let_go(self) -> None:
        """End the watcher, and whatever still runs."""
        with self._lock:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.communicate()


LEASH = Leash()                # one a program: what it watches is this program's own end
atexit.register(LEASH.let_go)
started = LEASH.started
