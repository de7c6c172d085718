"""The last log lines in memory, masked, for a technician who is far away.

Knows lines; refuses to know who asks.  No file and no journal of the system is read: what is not in this ring cannot leave the box.
The house logs no secret (`tests/canary.py` looks for them); the mask is the second lock on that door.
"""

from __future__ import annotations

import logging
import re
from collections import deque

LINES_MAX = 500
LINE_CHARS_MAX = 300

# What a payer's code, a card, a signed token or a key would look like.  Order numbers have letters, and stay.
_SECRETS = re.compile(r"\b[0-9]{15,}\b|\bey[A-Za-z0-9_-]{16,}(\.[A-Za-z0-9_-]*)*|-----BEGIN.*|\b[A-Za-z0-9+/_-]{43,}={0,2}"
                      r"|(?i:\b(key|secret|password|token|pin|authorization)\s*[=:]\s*|\b(bearer)\s+)\S+")


class LogRing(logging.Handler):
    """Keeps the newest `LINES_MAX` lines of the logger it is added to."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._lines: deque[str] = deque(maxlen=LINES_MAX)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(masked(self.format(record)))

    def last(self, count: int) -> list[str]:
        """The newest `count` lines, oldest first."""
        return list(self._lines)[-count:]


def masked(line: str) -> str:
    """One line of at most `LINE_CHARS_MAX` printable characters in which nothing that could be a secret is left."""
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in line[:4 * LINE_CHARS_MAX])
    return _SECRETS.sub(lambda found: f"{found[2] or found[3] or ''} ***".strip(), plain)[:LINE_CHARS_MAX]
