"""Planted: a boot forgets that a cancel was on its way, and waits for the payer again."""

from device.txn import folding
from device.txn.books import Phase


def plant(put) -> None:
    honest = folding.FOLDS["Booted"]

    def forgetful(b, f, at):
        honest(b, f, at)
        for order in b.orders.values():
            if order.phase is Phase.CANCELLING:
                order.phase, order.cause = Phase.AWAITING, ""
    put(folding, "FOLDS", {**folding.FOLDS, "Booted": forgetful})
