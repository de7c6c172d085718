"""Two rules of a journal's chain for the box's verifier and the cloud's: which records are late, and which keys have given way.

Knows the walk along one journal, record after record; refuses to know signatures, links and stores.
"""

from __future__ import annotations

from typing import Any


class Late:
    """A broken signer's gap is followed by as many late records as it counts, and nothing else is late."""

    def __init__(self, *, known: bool) -> None:
        """`known`: nothing waits from before the first record."""
        self._waited: int | None = 0 if known else None      # late records that the last gap still counts; None: not known here

    def forget(self) -> None:
        """What waited is not known from here on."""
        self._waited = None

    def wrong(self, seq: int, kind: str, body: dict[str, Any], follows: bool) -> str:
        """What is wrong with the next record, "" for nothing.  `follows`: the walk missed no record before it."""
        late, waited = body.get("late") is True, self._waited if follows else None
        said = ""
        if kind == "signer_gap":
            count = body.get("count")
            waited = count if type(count) is int and count >= 0 else None
        elif waited is None:
            waited = None if late else 0
        elif late != (waited > 0):
            said = (f"Record {seq} is marked late, and no gap counts it." if late else
                    f"Record {seq} is not marked late, and the gap before it counts {waited} more.")
            waited = 0
        else:
            waited -= late
        self._waited = waited
        return said


class Retired:
    """Keys of one journal that have given way: the `key` record which introduces another is the last under the old one."""

    def __init__(self) -> None:
        self._kids: set[str] = set()

    def gave_way(self, kid: str, to: str) -> None:
        """A sound `key` record under `kid` introduces `to`, which may be one that had given way before."""
        self._kids = (self._kids | {kid}) - {to}

    def forget(self) -> None:
        """A new journal begins: that of a card restored from a backup has the old key and no other."""
        self._kids = set()

    def __contains__(self, kid: object) -> bool:
        return kid in self._kids
