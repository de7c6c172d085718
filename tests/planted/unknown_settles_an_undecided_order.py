"""Planted: after its shelf life an order that nobody can tell of is taken for unpaid."""

import msgspec

from device.txn import machine
from device.txn.books import Phase
from device.txn.inputs import ChannelSaid, Said


def plant(put) -> None:
    honest = machine.DECIDERS[ChannelSaid]

    def tired(b, d, e, at):
        order = b.orders.get(e.order_no)
        if e.said is Said.UNKNOWN and order is not None and order.phase is Phase.UNDECIDED:
            e = msgspec.structs.replace(e, said=Said.CLOSED)
        return honest(b, d, e, at)
    put(machine, "DECIDERS", {**machine.DECIDERS, ChannelSaid: tired})
