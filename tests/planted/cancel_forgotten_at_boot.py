"""Planted: a boot forgets that a cancel was on its way, and waits for the payer again."""

from device.txn import books
from device.txn.books import Phase


def plant(put) -> None:
    honest = books.FOLDS["Booted"]

    def forgetful(b, f, at):
        honest(b, f, at)
        for order in b.orders.values():
            if order.phase is Phase.CANCELLING:
                order.phase, order.cause = Phase.AWAITING, ""
    put(books, "FOLDS", {**books.FOLDS, "Booted": forgetful})
