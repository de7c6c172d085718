"""Planted: PAID after the close of an undone order is refunded at once, however old the answer is."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.inputs import Said


def plant(put) -> None:
    put(machine, "MOVES", {**machine.MOVES, (Phase.CLOSED, Said.PAID): machine.late})
