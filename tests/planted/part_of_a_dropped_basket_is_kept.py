"""Planted: a basket that is given up gives no wallet part back."""

from device.txn import keys


def plant(put) -> None:
    put(keys, "parts_back", lambda b, basket, cause, at: [])
