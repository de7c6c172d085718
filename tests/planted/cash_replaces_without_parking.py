"""Planted: cash closes the sale, and the attempt it replaces goes on as if nothing had happened."""

from device.txn import keys
from device.txn.facts import CancelWished, OrderParked


def plant(put) -> None:
    honest = keys.KEY_RULES["CASH"]

    def blunt(b, d, n, at):
        verdict = honest(b, d, n, at)
        verdict.facts = [f for f in verdict.facts if not isinstance(f, (OrderParked, CancelWished))]
        return verdict
    put(keys, "KEY_RULES", {**keys.KEY_RULES, "CASH": blunt})
