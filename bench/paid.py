"""The box's own share of scan to paid: what is left of a wallet sale when the channel's answers cost nothing.

The time inside `Box.handle`, commits included, of one good scanned, PAY, the QR's arrival and the channel's PAID, until
receipt and record have been handed out; beside it the same with 200 parked payments in the books.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.till import GOODS, QR, Till
from device.txn.inputs import ChannelSaid, Input, Pressed, QrReady, Said, Scanned

SALES, PARKED = 400, 200
P99_MS_MAX = 50.0


class Timed(Till):
    """A till that sums what its box takes."""

    taken_s = 0.0

    def tell(self, event: Input) -> None:
        began = time.perf_counter()
        super().tell(event)
        self.taken_s += time.perf_counter() - began

    def order(self) -> str:
        """One good, PAY and its QR: the number of the order that now waits for its wallet."""
        self.tell(Scanned(GOODS[0].item.gtin, GOODS[0]))
        self.tell(Pressed("PAY"))
        no = self.box.books.basket.order_no
        self.tell(QrReady(no, QR))
        return no


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    for parked in (0, PARKED):
        with tempfile.TemporaryDirectory() as folder:
            till = Timed(Path(folder))
            for _ in range(parked):
                till.order()
                till.tell(Pressed("PARK"))
                till.tell(Pressed("ENTER"))
            assert sum(1 for o in till.box.books.orders.values() if o.park) == parked
            p99_ms = sorted(_sale_ms(till) for _ in range(SALES))[int(SALES * 0.99)]
            till.close()
        yield {"name": f"paid.own_share_p99_{parked}_parked", "value": round(p99_ms, 2), "unit": "ms", "floor": None,
               "ratio": None, "goal": P99_MS_MAX, "holds": p99_ms <= P99_MS_MAX}


def _sale_ms(till: Timed) -> float:
    before = till.taken_s
    no = till.order()
    till.tell(ChannelSaid(no, Said.PAID, 500, f"42000{till.mono_ms:020d}"))
    assert no in till.box.books.sales
    return (till.taken_s - before) * 1000
