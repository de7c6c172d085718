"""The console's side of the daemon's socket: what was typed becomes records, and the few deeds that only the daemon can do.

Knows JSON lines of the console's process, which runs as the same user; refuses to know logins, and moves no money.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from device.commands.inquiries import Inquiry
from device.errors import Outside
from device.txn import visits
from device.txn.desk import Verdict
from device.txn.inputs import Asked

log = logging.getLogger("tillbox")

ENTRIES_MAX = 100


class ConsoleDoor:
    """`ask` puts an input to the core; `inquiries` by verb."""

    def __init__(self, ask: Callable[[Asked], Awaitable[Verdict]], inquiries: Mapping[str, Inquiry]) -> None:
        self._ask, self._inquiries = ask, inquiries

    async def answered(self, line: bytes) -> dict[str, Any] | None:
        """The answer to one line, None when its verb is none of the console's.  Never raises: the till would end by it."""
        verb: Any = None
        try:
            asked = msgspec.json.decode(line, type=dict[str, Any])
            verb = asked.get("verb")
            if verb == "console":
                return await self._records(asked.get("entries", []))
            if verb == "console do":
                return await self._done(asked.get("entry", {}))
            if verb == "logs":
                return {"ok": True, **await self._inquiries["logs"](str(msgspec.convert(asked.get("count", 40), int)))}
        except (msgspec.DecodeError, RecursionError) as why:
            ours = verb in ("console", "console do", "logs")
            return {"ok": False, "error": f"The daemon cannot read that: {why}"} if ours else None
        if verb == "journal verify":
            try:
                return {"ok": True, "answer": await self._inquiries["journal verify"]("")}
            except Outside as why:
                return {"ok": False, "error": str(why)}
        return None

    async def _records(self, entries: Any) -> dict[str, Any]:
        """True once every entry is in the journal; those that were there already are, too.

        One that is none, from a rotten card, is let go of: it would stand before all that come after it.
        """
        kept = 0
        for raw in msgspec.convert(entries, list[Any])[:ENTRIES_MAX]:
            try:
                one = msgspec.convert(raw, visits.Typed)
            except msgspec.ValidationError as why:
                log.warning("an entry of the console's spool cannot be read, and is left out: %s", why)
                continue
            verdict = await self._ask(visits.asked(msgspec.structs.replace(one, do=False)))
            if verdict.told is not None and verdict.told.name == "full":
                return {"ok": False, "error": verdict.told.said, "kept": kept}
            kept += 1
        return {"ok": True, "kept": kept}

    async def _done(self, entry: Any) -> dict[str, Any]:
        verdict = await self._ask(visits.asked(msgspec.structs.replace(msgspec.convert(entry, visits.Typed), do=True)))
        told = verdict.told
        assert told is not None, entry
        return {"ok": True, "said": told.said} if told.ok else {"ok": False, "error": told.said, "name": told.name}
