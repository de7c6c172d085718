"""What the collector's store holds, as the page shows it: counted and checked anew only when something was committed."""

from __future__ import annotations

from typing import Any

from fleet.records.proof import defects
from fleet.records.store import Store, records
from sim.counter.sums import cloud_sums, payload_of

LAST_SHOWN = 60                # records on the page; GET /cloud/records has them all


class CloudView:
    """One look at `store`; a look at an unchanged store costs nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mark: tuple[int, str] | None = None
        self._told: dict[str, Any] = {}

    def told(self) -> dict[str, Any]:
        """`{"count", "verified", "defect", "sales_fen", "refunds_fen", "last"}`; `last` newest first, `{"seq", "kind", "at",
        "amount_fen"}` each."""
        guards = self._store.guards()
        mark = (sum(upto for _, _, upto, _ in guards), guards[-1][3] if guards else "")
        if self._mark != mark:
            tokens, found = records(self._store)["tokens"], defects(self._store)
            last, sums = [payload_of(token) for token in tokens[-LAST_SHOWN:]], cloud_sums(tokens)
            self._mark, self._told = mark, {
                "count": len(tokens), "verified": not found, "defect": found[0][4] if found else "",
                "sales_fen": sums["sales_fen"], "refunds_fen": sums["refunds_fen"],
                "last": [{"seq": p["seq"], "kind": p["kind"], "at": p["at"], "amount_fen": p["body"].get("amount_fen")}
                         for p in reversed(last)]}
        return self._told
