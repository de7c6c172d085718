"""Planted: a closed number is forgotten as soon as the channel calls it closed once more."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.desk import Verdict
from device.txn.facts import OrderForgotten
from device.txn.inputs import Said


def plant(put) -> None:
    def hasty(b, d, order, said, at):
        return Verdict([OrderForgotten(order.intent.order_no)])
    put(machine, "MOVES", {**machine.MOVES, (Phase.CLOSED, Said.CLOSED): hasty, (Phase.CLOSED, Said.ABSENT): hasty})
