"""How often a repeatable effect is asked again.  Shared by the runner and by the simulated world, so that both keep one pace."""

from __future__ import annotations

from device.txn.effects import (
    CloseOrder,
    Effect,
    FetchBill,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundOrder,
    TrySigner,
)
from device.types import Terms

WATCH_FIRST_MS, WATCH_MS = 5_000, 60_000      # a closed order: late money is rare, and the channel counts our calls
# The later the rarer: until so long after its close one question every so long.  Some are watched for a day, and a shop closes
# hundreds of them: asked for every minute all of it, they would use up the calls that its customers wait for.
WATCH_PACE_MS, WATCH_LAST_MS = ((900_000, WATCH_MS), (7_200_000, 300_000)), 900_000
# A bill is made once a day, and asked for only while somebody waits for it: soon, for a box that is switched on at noon.
BILL_FIRST_MS, BILL_MS = 60_000, 1_800_000
RETRY_MS = (1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000)


def wait_ms(effect: Effect, tries: int, running_ms: int, now_ms: int, terms: Terms) -> int | None:
    """Milliseconds until `effect` is asked again after `tries` answers, `running_ms` after it began; None: not again.

    A query waits before its first question as well (`tries` 0), since nobody pays within the first second.  `now_ms` the
    monotonic clock of this boot.
    """
    rules = terms.rules_of(effect.intent.channel, effect.intent.way) if hasattr(effect, "intent") else None
    match effect:
        case QueryOrder(watch=True):
            if tries == 0:
                return WATCH_FIRST_MS
            return next((every for until, every in WATCH_PACE_MS if running_ms < until), WATCH_LAST_MS)
        case QueryOrder():
            return next((every for until, every in rules.pace_ms if running_ms < until), 60_000)
        case CloseOrder():
            return max(0, effect.not_before_ms - now_ms) if tries == 0 else min(rules.undo_every_ms * min(tries, 8), 60_000)
        case FetchBill():
            return BILL_FIRST_MS if tries == 0 else BILL_MS
        case QueryRefund():
            return rules.refund_query_ms
        case TrySigner():
            return RETRY_MS[min(tries + effect.breaks - 1, len(RETRY_MS) - 1)]
        case PlaceOrder() | RefundOrder():
            return 0 if tries == 0 else RETRY_MS[min(tries - 1, len(RETRY_MS) - 1)]
    return 0 if tries == 0 else RETRY_MS[min(tries - 1, len(RETRY_MS) - 1)]
