"""What the cloud is told of orders that no channel has decided yet, so that a box that burns hides none of them.

Knows which orders count as open and how often they may be said; refuses to know connections and records.  One list at a time:
the newest replaces the one before it, and an empty one says that nothing is open.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable

from device.mqtt import wire
from device.txn.books import Order, Phase

log = logging.getLogger("tillbox")

EVERY_MS = 10_000
LIST_MAX = 220               # what one message holds with room to spare, whatever the names in it


class OpenOrders:
    """`orders()` gives the orders of the books by number, `now_s()` the wall in seconds; a list leaves every `every_ms` at most."""

    def __init__(self, orders: Callable[[], dict[str, Order]], now_s: Callable[[], float],
                 every_ms: int = EVERY_MS) -> None:
        self._orders, self._now_s, self._every_ms = orders, now_s, max(every_ms, EVERY_MS)
        self._said: tuple[str, ...] | None = None      # numbers of the list that left on this connection; None: none has
        self._left_ms = -self._every_ms
        self._waits = False

    def connected(self) -> None:
        """A fresh connection: whatever the broker kept may be gone."""
        self._said = None

    def due(self, now_ms: int) -> bytes | None:
        """The list to send now, None for nothing new or too early.  Tell `left` when it did."""
        found = [order for order in self._orders().values() if is_open(order)]
        self._waits = tuple(order.intent.order_no for order in found) != self._said
        if not self._waits or (self._said is not None and now_ms < self._left_ms + self._every_ms):
            return None
        return wire.encoded(self._listed(found))

    def left(self, now_ms: int) -> None:
        """The list that `due` gave was handed over."""
        self._said = tuple(order.intent.order_no for order in self._orders().values() if is_open(order))
        self._left_ms, self._waits = now_ms, False

    def next_due_ms(self) -> int | None:
        """When a change that came too early may leave; None when nothing waits."""
        return self._left_ms + self._every_ms if self._waits else None

    def _listed(self, found: list[Order]) -> tuple[wire.OpenOrder, ...]:
        if len(found) > LIST_MAX:
            log.error("%d orders are undecided, the cloud is told of the newest %d", len(found), LIST_MAX)
        now_s = self._now_s()
        return tuple(wire.OpenOrder(o.intent.order_no, o.intent.channel, o.intent.account.account, o.intent.amount_fen,
                                    _age_s(o.intent.made_at, now_s), o.intent.made_at, o.intent.way) for o in found[-LIST_MAX:])


def is_open(order: Order) -> bool:
    """Money may have moved for it, or may yet, and no record says so.  A closed one counts once only a bill can decide it."""
    return order.phase is not Phase.CLOSED or order.bill_decides


def _age_s(made_at: str, now_s: float) -> int:
    return max(0, int(now_s - datetime.datetime.fromisoformat(made_at).timestamp()))
