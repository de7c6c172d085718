"""Planted: money seen under an undo that moves money is refunded beside it."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.inputs import Said


def plant(put) -> None:
    honest = machine.MOVES[Phase.CANCELLING, Said.PAID]

    def eager(b, d, order, said, at):
        return machine.late(b, d, order, said, at) if order.undo_moves else honest(b, d, order, said, at)
    put(machine, "MOVES", {**machine.MOVES, (Phase.CANCELLING, Said.PAID): eager})
