"""Planted: PAID is PAID, whatever the amount."""

from device.txn import machine
from device.txn.desk import Verdict


def plant(put) -> None:
    def careless(b, d, order, e, at):
        move = machine.MOVES.get((order.phase, e.said))
        return move(b, d, order, e, at) if move is not None else Verdict()
    put(machine, "_dispute", careless)
