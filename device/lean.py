"""What a start leaves out of the standard libraries it imports.

asyncio takes `ssl` where it finds it, and nothing of this daemon speaks TLS through asyncio: channels and the broker's library do,
in threads, and load it when they are first wanted.  msgspec takes `typing_extensions` where it happens to be installed, and asks
it for nothing that `typing` does not have.  The two are a twentieth of a start.
"""

from __future__ import annotations

import sys
from types import ModuleType

LEFT_OUT = ("ssl", "typing_extensions")


def import_leanly() -> None:
    """Import asyncio and msgspec without them.  Does nothing about one that is loaded already; both can be imported afterwards."""
    hidden: dict[str, ModuleType | None] = {name: None for name in LEFT_OUT if name not in sys.modules}
    sys.modules.update(hidden)                 # type: ignore[arg-type]    # None: as if it were not installed
    try:
        import asyncio

        import msgspec
        assert asyncio and msgspec
    finally:
        for name in hidden:
            del sys.modules[name]
