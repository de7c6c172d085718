"""What time it is in the cloud, as documents say it."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def wall() -> str:
    """RFC 3339 to the second, with this machine's offset."""
    return datetime.fromtimestamp(time.time(), UTC).astimezone().isoformat(timespec="seconds")
