"""Planted: a boot forgets that the sale at the card terminal was started."""

from device.txn import folding


def plant(put) -> None:
    honest = folding.FOLDS["Booted"]

    def forgetful(b, f, at):
        honest(b, f, at)
        for order in b.orders.values():
            order.charged = False
    put(folding, "FOLDS", {**folding.FOLDS, "Booted": forgetful})
