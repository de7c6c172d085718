"""The card terminal's calls: what each asks, what an answer proves, and what the response codes mean to a person.

Pure.  Knows our dialect, docs/channels.md.  Refuses to know the line, and any word of the terminal's own: what a person
reads is written here, so nothing that a terminal sends as text can reach screen, paper or record.
"""

from __future__ import annotations

import re

from device.drivers.channels.card_frame_bytes import Message
from device.drivers.channels.codec_bytes import OrderFields, RefundFields, Verdict, lie

AMOUNT = re.compile(r"[1-9][0-9]{0,8}")
REFERENCE = re.compile(r"[0-9A-Z-]{1,11}")     # too short for any card number
CARD = re.compile(r"[0-9]{0,6}\*+([0-9]{4})")
TERMINAL = re.compile(r"[0-9A-Za-z]{1,11}")

# What each word of the terminal proves, by call; any other word, and any other call, proves nothing.
ORDER_WORDS: dict[str, dict[str, str]] = {
    "SA": {"approved": "paid", "asking": "open", "declined": "refused", "cancelled": "closed", "busy": "refused",
           "refused": "refused"},
    "QY": {"approved": "paid", "asking": "open", "declined": "refused", "cancelled": "closed", "voided": "given_back",
           "none": "absent"},
    "VO": {"approved": "paid", "asking": "open", "declined": "closed", "cancelled": "closed", "voided": "given_back",
           "none": "absent"},
}
REFUND_WORDS: dict[str, dict[str, str]] = {
    "RF": {"refunded": "done", "pending": "processing", "refused": "refused"},
    "RQ": {"refunded": "done", "pending": "processing", "refused": "refused", "none": "absent"},
}
SAYS = {
    "busy": "the card terminal is busy with another payment",
    "refused": "the card terminal does not take this request",
    "declined": "the card was declined",
    "cancelled": "it was cancelled at the card terminal",
    "pending": "the card terminal waits for its bank",
    "approved": "the card terminal cannot void it any more",
}
# Field 39 of ISO 8583, as far as a cashier can do something about it.
CODES = {
    "05": "the bank declined the card", "12": "the card cannot be used for this", "14": "the card's number is wrong",
    "33": "the card has expired", "38": "the PIN was wrong too often", "41": "the card is reported lost",
    "43": "the card is reported stolen", "51": "not enough money on the card", "54": "the card has expired",
    "55": "the PIN was wrong", "61": "more than the card's limit", "65": "the card was used too often today",
    "75": "the PIN was wrong too often", "91": "the card's bank does not answer", "96": "the bank has a fault",
}


def order_call(order: OrderFields) -> dict[str, str]:
    """The parts of SA, QY and VO.  ValueError when the order cannot be put to a terminal."""
    parts = {"TI": terminal_of(order), "NO": order.order_no, "AM": str(order.amount_fen)}
    if not AMOUNT.fullmatch(parts["AM"]):
        raise ValueError("the amount is none that a terminal takes")
    return parts


def refund_call(call: str, refund: RefundFields) -> dict[str, str]:
    """The parts of RF and RQ.  ValueError likewise."""
    parts = {"TI": terminal_of(refund), "RN": refund.refund_no}
    if call == "RQ":
        return parts
    if not AMOUNT.fullmatch(str(refund.amount_fen)) or not REFERENCE.fullmatch(refund.channel_no):
        raise ValueError("the terminal's reference of the payment is not known")
    return parts | {"NO": refund.order_no, "RE": refund.channel_no, "AM": str(refund.amount_fen)}


def terminal_of(asked: OrderFields | RefundFields) -> str:
    """The number of the terminal that a request was frozen for.  ValueError when the account names none."""
    terminal_id = dict(asked.account.fields).get("terminal_id", "")
    if not TERMINAL.fullmatch(terminal_id):
        raise ValueError("the account's terminal_id is no terminal's")
    return terminal_id


def order_word(call: str, order: OrderFields, said: Message) -> Verdict:
    """What the terminal's answer to `call`, or its own message (as QY), proves about `order`."""
    parts, state = said.parts, said.parts.get("ST", "")
    if parts.get("TI") != terminal_of(order):
        return lie("another card terminal answers than the one this was asked of")
    if parts.get("NO") != order.order_no:
        return lie("the card terminal answers about another order")
    word = ORDER_WORDS[call].get(state, "unknown")
    if word != "paid":
        known = word != "unknown" or state in ("pending", "busy", "refused")
        return Verdict(word, detail=_why(word, state, parts), health="ok" if known else "lying")
    amount, reference = parts.get("AM", ""), parts.get("RE", "")
    if not AMOUNT.fullmatch(amount) or not REFERENCE.fullmatch(reference):
        return lie("the card terminal says approved, and not how much or under which reference")
    card = CARD.fullmatch(parts.get("CD", ""))
    return Verdict("paid", int(amount), reference, SAYS["approved"] if call == "VO" else "",
                   payer=f"****{card[1]}" if card else "")


def refund_word(call: str, refund: RefundFields, said: Message) -> Verdict:
    """What the terminal's answer to `call` proves about `refund`."""
    parts, state = said.parts, said.parts.get("ST", "")
    if parts.get("TI") != terminal_of(refund):
        return lie("another card terminal answers than the one this was asked of")
    if parts.get("RN") != refund.refund_no:
        return lie("the card terminal answers about another refund")
    word = REFUND_WORDS[call].get(state, "unknown")
    if word == "unknown":
        return lie("the card terminal's word on a refund is none")
    if word != "done":
        return Verdict(word, detail=_why(word, state, parts))
    if parts.get("AM") != str(refund.amount_fen):
        return lie("the card terminal says that another amount went back")
    reference = parts.get("RE", "")
    return Verdict("done", refund.amount_fen, reference if REFERENCE.fullmatch(reference) else "")


def _why(word: str, state: str, parts: dict[str, str]) -> str:
    if word in ("open", "absent", "given_back", "processing"):
        return ""
    return CODES.get(parts.get("RC", ""), SAYS.get(state, "the card terminal's word is none"))
