"""Planted: money that comes after the close is ignored."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.inputs import Said


def plant(put) -> None:
    put(machine, "IGNORED", {**machine.IGNORED, (Phase.CLOSED, Said.PAID): "planted"})
