"""The payer's side of a channel server: what wallets do, and what the channel holds, beside calls that are being served.

Knows the lock that rules are asked under.  What a wallet may do, and under which names, is the business of `rules`.
"""

from __future__ import annotations

from typing import Any

from sim.channels.server import ChannelServer


class PayersServer(ChannelServer):
    """A ChannelServer whose `rules` have `scan`, `code`, `code_outcome` and `orders`, each as it says there."""

    rules: Any

    def scan(self, qr: str, outcome: str, **how: Any) -> dict[str, Any]:
        with self._lock:
            return self.rules.scan(qr, outcome, **how)

    def code(self, wallet: str = "") -> str:
        """A payer's fresh code; of the rules' own first wallet when none is named."""
        with self._lock:
            return self.rules.code(wallet) if wallet else self.rules.code()

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        with self._lock:
            self.rules.code_outcome(code, outcome, slow_s)

    def orders(self) -> list[dict[str, Any]]:
        with self._lock:
            return self.rules.orders()
