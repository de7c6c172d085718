"""Planted: what a bill names as paid is refunded while the undo is still being repeated."""

from device.txn import machine
from device.txn.inputs import ChannelSaid, Said


def plant(put) -> None:
    honest = machine.on_bills

    def trusting(order, lines):
        paid_fen = sum(line.paid_fen for line in lines)
        if order.undoing and paid_fen and not sum(line.back_fen for line in lines):
            return ChannelSaid(order.intent.order_no, Said.PAID, paid_fen, "4200", undo=True)
        return honest(order, lines)
    put(machine, "on_bills", trusting)
