"""Planted: a refund that nobody answered counts as given back."""

import msgspec

from device.txn import machine
from device.txn.inputs import RefundSaid, RefundWord


def plant(put) -> None:
    honest = machine.DECIDERS[RefundSaid]

    def hopeful(b, d, e, at):
        return honest(b, d, msgspec.structs.replace(e, word=RefundWord.DONE) if e.word is RefundWord.UNKNOWN else e, at)
    put(machine, "DECIDERS", {**machine.DECIDERS, RefundSaid: hopeful})
