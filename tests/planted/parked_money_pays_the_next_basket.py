"""Planted: late money of a parked order, whose goods were kept, pays what now lies on the counter."""

import msgspec

from device.txn import machine


def plant(put) -> None:
    honest, replace = machine.give_back, msgspec.structs.replace

    def greedy(b, d, order, said, at):
        if order.park and b.basket.lines and not b.basket.order_no and b.basket.due_fen == order.intent.amount_fen:
            counter = replace(b, basket=replace(b.basket, order_no=order.intent.order_no))
            return machine.book(counter, d, replace(order, park="", basket=None), said, at)
        return honest(b, d, order, said, at)
    put(machine, "give_back", greedy)
