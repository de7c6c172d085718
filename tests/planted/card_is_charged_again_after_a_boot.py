"""Planted: a boot forgets that the sale at the card terminal was started."""

from device.txn import books


def plant(put) -> None:
    honest = books.FOLDS["Booted"]

    def forgetful(b, f, at):
        honest(b, f, at)
        for order in b.orders.values():
            order.charged = False
    put(books, "FOLDS", {**books.FOLDS, "Booted": forgetful})
