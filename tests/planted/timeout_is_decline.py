"""Planted: no answer counts as a closed order."""

import msgspec

from device.txn import machine
from device.txn.inputs import ChannelSaid, Said


def plant(put) -> None:
    honest = machine.DECIDERS[ChannelSaid]

    def hasty(b, d, e, at):
        order = b.orders.get(e.order_no)
        if e.said is Said.UNKNOWN and order is not None and order.phase in (machine.Phase.AWAITING, machine.Phase.CANCELLING):
            e = msgspec.structs.replace(e, said=Said.CLOSED)
            b.orders[e.order_no].dead_after_ms = 1
        return honest(b, d, e, at)
    put(machine, "DECIDERS", {**machine.DECIDERS, ChannelSaid: hasty})
