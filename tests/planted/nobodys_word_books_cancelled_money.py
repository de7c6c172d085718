"""Planted: money that came while cancelling is booked when nobody answers the question, or the box starts anew."""

from device.txn import machine
from device.txn.books import Phase
from device.txn.inputs import ChannelSaid, Said


def plant(put) -> None:
    honest = machine._give_back

    def selling(b, d, order, channel_no, at):
        if order.phase is not Phase.ASKING:
            return honest(b, d, order, channel_no, at)
        said = ChannelSaid(order.intent.order_no, Said.PAID, order.intent.amount_fen, channel_no)
        return machine.book(b, d, order, said, at).facts
    put(machine, "_give_back", selling)
