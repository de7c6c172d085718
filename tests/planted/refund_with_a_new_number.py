"""Planted: a refund that was not answered is asked again under another number."""

import msgspec

from device.txn import wants
from device.txn.effects import RefundOrder


def plant(put) -> None:
    honest, tries = wants.wants_of, iter(range(1_000_000))

    def restless(key, books, desk):
        effects = honest(key, books, desk)
        if key[0] != "refund":
            return effects
        return {RefundOrder(msgspec.structs.replace(e.intent, refund_no=e.intent.refund_no[:-3] + f"{next(tries) % 1000:03d}",
                                                    amount_fen=1)) for e in effects}
    put(wants, "wants_of", restless)
    from device import box
    put(box, "wants_of", restless)
