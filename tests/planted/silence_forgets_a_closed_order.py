"""Planted: a closed order is forgotten when its shelf life is over, though nobody answered since its close."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.desk import Verdict
from device.txn.facts import OrderForgotten
from device.txn.inputs import Rang


def plant(put) -> None:
    honest = machine.DECIDERS[Rang]

    def tired(b, d, e, at):
        order = b.orders.get(e.key[1]) if e.key[0] == "order" else None
        if order is not None and order.phase is Phase.CLOSED and at.mono_ms >= order.due_ms:
            return Verdict([OrderForgotten(order.intent.order_no)])
        return honest(b, d, e, at)
    put(machine, "DECIDERS", {**machine.DECIDERS, Rang: tired})
