"""Planted: paper that may have been printed is simply printed again."""

from device.txn import machine
from device.txn.facts import ReceiptUnstarted


def plant(put) -> None:
    put(machine, "ReceiptUnsure", ReceiptUnstarted)
