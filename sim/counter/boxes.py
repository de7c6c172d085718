"""The boxes that have stood at this counter, one after the other, each with a name, a number, a journal and a record key.

Knows names, folders and what a box that went took with it.  Refuses to know processes: whoever changes boxes stops the old one
first and starts the new one after.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fleet.keys import SigningKey
from sim.counter.files import write

SUMS = ("sales_fen", "refunds_fen", "count", "wallet_fen")


class Boxes:
    """`folder` the counter's.  Box n is `box-n`; the last one stands at the counter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._gone_file = folder / "gone.json"
        self.gone: list[dict[str, int]] = json.loads(self._gone_file.read_bytes()) if self._gone_file.exists() else []
        for name in ("run", "dev"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        ack = SigningKey(folder / "ack.pem")
        write(folder / "ack.jwk", json.dumps({**ack.jwk, "kid": ack.kid}).encode())
        self._make()

    @property
    def name(self) -> str:
        return f"box-{self._n}"

    @property
    def number(self) -> str:
        """Of the merchant, the head of every order number."""
        return f"{self._n:06d}"

    @property
    def home(self) -> Path:
        """Where this box keeps its state."""
        return self._home(self._n)

    def change(self, sums: dict[str, int]) -> None:
        """The box goes for good, with `sums` in its journal; a new one is made."""
        self.gone.append({name: sums[name] for name in SUMS})
        write(self._gone_file, json.dumps(self.gone).encode())
        self._make()

    def summed(self, sums: dict[str, Any]) -> dict[str, Any]:
        """`sums` of the box at the counter, with those that went."""
        return sums | {name: sums[name] + sum(gone[name] for gone in self.gone) for name in SUMS}

    @property
    def _n(self) -> int:
        return len(self.gone) + 1

    def _home(self, n: int) -> Path:
        return self._folder / ("box" if n == 1 else f"box-{n}")

    def _make(self) -> None:
        self.home.mkdir(mode=0o700, exist_ok=True)
