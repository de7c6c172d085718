"""Planted: a payment that comes before the answer to its request counts as late."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.inputs import Said


def plant(put) -> None:
    put(machine, "MOVES", {**machine.MOVES, (Phase.PLACING, Said.PAID): machine.late})
