"""Planted: the channel is asked before the intent is on the card."""

from device.txn import effects, facts


def plant(put) -> None:
    put(effects.PlaceOrder, "binds", False)
    put(facts, "SYNCED", facts.SYNCED - {facts.OrderIntended})
