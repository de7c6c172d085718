"""Planted: a channel that does not know the order yet is taken at its word, while the request is on its way."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.inputs import Said


def plant(put) -> None:
    put(machine, "IGNORED", {pair: why for pair, why in machine.IGNORED.items() if pair != (Phase.PLACING, Said.ABSENT)})
    put(machine, "MOVES", {**machine.MOVES, (Phase.PLACING, Said.ABSENT): machine.close})
