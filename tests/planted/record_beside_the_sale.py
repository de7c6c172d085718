"""Planted: the sale's record is not part of the sale's row."""

from device.txn import machine
from device.txn.facts import ScreenCleared


def plant(put) -> None:
    honest = machine.record.sale_due
    calls = iter(range(1_000_000))
    put(machine.record, "sale_due", lambda sale, **more: honest(sale, **more) if next(calls) % 5 else ScreenCleared())
