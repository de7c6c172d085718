"""Planted: a slow attempt is left for another route at once, while it can still be paid."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.paying import other_route, rerouted


def plant(put) -> None:
    honest = machine._slow

    def hasty(b, d, order, at):
        live = order.phase is Phase.PLACING and b.basket.order_no == order.intent.order_no
        return rerouted(b, d, order, [], at) if live and other_route(d, order) else honest(b, d, order, at)
    put(machine, "_slow", hasty)
