"""What a printed command card does: what its key would do on the keypad, and nothing while a payment is open."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from device.txn.approval import badge_scanned
from device.txn.books import Books
from device.txn.desk import Desk, Verdict, refuse
from device.txn.inputs import KEYS, Pressed
from device.types import Stamp

HEAD = "TBK."
DIGITS_MAX = 9
SAYS = {"off": "keycard_off", "bad": "keycard_bad", "store": "keycard_store", "revoked": "keycard_revoked"}
APPROVING = ("badge", "pin")                 # questions that no card answers: a PIN on paper would be no secret
WAYS_OUT = ("CLEAR", "CANCEL")


def is_card(symbol: str) -> bool:
    """Also in small letters, as a scanner with caps lock types it: refused, and not put on a screen as an unknown code."""
    return symbol[:len(HEAD)].upper() == HEAD


def card_scanned(b: Books, d: Desk, symbol: str, at: Stamp,
                 press: Callable[[Books, Desk, Pressed, Stamp], Verdict]) -> Verdict:
    """The verdict of the card's keys, one decision for all of them; `press` is what a key of the keypad does."""
    from device.drivers.input.keycard_bytes import CardRefused, card_of  # by the first card: a start has no time for it
    try:
        card = card_of(symbol, key=d.terms.cards.key, store=d.terms.cards.store, revoked=d.terms.cards.revoked, known=KEYS)
    except CardRefused as why:
        return refuse(SAYS[why.cause])
    if b.orders.get(b.basket.order_no) is not None:
        return refuse("keycard_paying")
    if card.supervisor:
        return badge_scanned(b, d, symbol) if d.mode in APPROVING else refuse("badge_idle")
    if d.mode in APPROVING and card.key not in WAYS_OUT:
        return refuse("keycard_pin")
    if not card.key:
        typed = d.typed + card.typed
        return Verdict(desk={"typed": typed}) if len(typed) <= DIGITS_MAX else refuse("digits_full")
    return press(b, msgspec.structs.replace(d, typed=card.typed or d.typed), Pressed(card.key), at)
