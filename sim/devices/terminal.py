"""A card terminal without hardware: its states, its journal, its bank, a card's holder, and every way its line goes wrong.

Speaks the bytes of docs/channels.md; time and the line are handed in (`terminal_port.py` is a pty or TCP).  It is as bad as
terminals in service: a second sale under a number it knows is a second sale, and a second refund pays out again.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import msgspec

from device.drivers.channels import card_frame_bytes as frame

OUTCOMES = ("pay", "abandon", "insufficient", "slow")
HOLDER_MS = 120_000            # without a card for so long it cancels by itself
REPEAT_MS, REPEATS_MAX = 1_000, 3
CANARY = "6222021234567890128" # the card's number: it must be found nowhere in the box
MASK = "622202*********0128"
FAULTS = {
    "lost_request": "no effect; nothing is heard",
    "nak": "no effect; the frame came spoilt",
    "nak_lies": "effect; the ACK is read as NAK, and no answer comes",
    "mute": "effect; neither ACK nor answer",
    "lost_ack": "effect; the answer comes without its ACK",
    "lost_answer": "effect; ACK, and no answer",
    "late": "effect; ACK, and the answer comes just before that of the next question",
    "dies": "effect; then its power fails before it says anything",
    "dead": "no effect; its power fails when it hears the request",
    "wrong_lrc": "effect; every repeat of the answer is spoilt",
    "wrong_lrc_once": "effect; the answer is spoilt, its repeat is not",
    "truncated": "effect; the answer ends half way",
    "noise": "effect; noise before and behind the answer",
    "duplicate_reply": "effect; the answer comes twice",
    "wrong_order": "effect; the answer is about another number",
    "wrong_amount": "effect; the answer names one fen more",
    "wrong_id": "effect; the answer belongs to another question",
    "wrong_terminal": "effect; another terminal's answer",
    "no_word": "effect; the answer's word is none",
    "unsealed": "effect; the answer carries no seal, or a wrong one",
    "unmasked": "effect; the answer carries the whole card number",
    "busy": "no effect; busy with another payment",
    "lost_news": "the end of a sale is told to nobody",
    "doubled_news": "the end of a sale is told again and again: our ACK is never heard",
}
LINE_ONLY = ("lost_news", "doubled_news")


class Charge(msgspec.Struct):
    """Money at the bank: taken, and given back or not."""

    amount_fen: int
    back: bool = False


class Txn(msgspec.Struct):
    """One sale as the terminal's journal has it; `state` is its word for ST."""

    order_no: str
    amount_fen: int
    reference: str
    began_ms: int
    state: str = "asking"
    code: str = ""
    pays_ms: int | None = None
    charge: Charge | None = None


class Refund(msgspec.Struct):
    refund_no: str
    order_no: str
    amount_fen: int
    reference: str
    state: str


class Fault(msgspec.Struct):
    kind: str
    call: str
    left: int | None


class TerminalModel:
    """The terminal `terminal_id`.  `now_ms` milliseconds; `say` takes its bytes; `receive` gives it the box's.

    `host` is `online`, `offline` (nothing is sent) or `mute` (the bank takes it and is not heard: pending until it is online
    again, and then as `settles` says, `approved` or `voided`).  `closed_batch`: voids are refused from here on.
    """

    channel = "card"

    def __init__(self, now_ms: Callable[[], int], *, terminal_id: str = "T1", secret: bytes = b"") -> None:
        self.terminal_id, self.secret, self._now_ms = terminal_id, secret, now_ms
        self.say: Callable[[bytes], None] = lambda data: None
        self.powered, self.host, self.settles, self.closed_batch = True, "online", "approved", False
        self.holds: collections.deque[str] = collections.deque()       # what the next holders do at once
        self.fired: collections.Counter[str] = collections.Counter()
        self.heard: list[frame.Message] = []
        self.txns: list[Txn] = []
        self.refunds: list[Refund] = []
        self._faults: list[Fault] = []
        self._frames = frame.Frames()
        self._serial = 0
        self._last: bytes = b""                        # the answer that a NAK wants again
        self._spoils = ""
        self._late = b""
        self._news: tuple[bytes, int, int] | None = None      # what no ACK has been heard for, how often said, when again

    # Hands

    def tap(self, outcome: str = "pay", *, slow_s: float = 10) -> bool:
        """The holder does `outcome` at the terminal that asks; False when it asks nobody."""
        assert outcome in OUTCOMES, outcome
        txn = self.asking
        if txn is None or not self.powered:
            return False
        if outcome == "slow":
            txn.pays_ms = self._now_ms() + int(slow_s * 1000)
        elif outcome == "pay":
            self._pay(txn)
        else:
            txn.state, txn.code = ("declined", "51") if outcome == "insufficient" else ("cancelled", "")
            self._tell(txn)
        return True

    @property
    def asking(self) -> Txn | None:
        return next((t for t in self.txns if t.state == "asking"), None)

    def power(self, on: bool) -> None:
        """Off, a sale nobody has paid is gone; on, one that the bank was not heard about is settled first."""
        if on == self.powered:
            return
        self.powered, self._news, self._frames = on, None, frame.Frames()
        if not on:
            for txn in self.txns:
                if txn.state == "asking":
                    txn.state, txn.pays_ms = "cancelled", None
        else:
            self.tick()

    def fault(self, kind: str, *, call: str = "any", count: int | None = 1) -> None:
        """Let the next `count` calls (None: all until `clear`) of `call`, or `any`, suffer `kind`, a key of FAULTS."""
        assert kind in FAULTS, kind
        self._faults.append(Fault(kind, call, count))

    def clear(self) -> None:
        self._faults.clear()

    def orders(self) -> list[dict[str, Any]]:
        """What the bank holds, as every channel server tells it; a number charged twice counts twice."""
        self.tick()
        rows: dict[str, dict[str, Any]] = {}
        for txn in self.txns:
            row = rows.setdefault(txn.order_no, {"channel": self.channel, "order_no": txn.order_no, "amount_fen": txn.amount_fen,
                                                 "captured_fen": 0, "refunded_fen": 0, "state": "closed"})
            row["captured_fen"] += txn.charge.amount_fen if txn.charge is not None and not txn.charge.back else 0
            row["state"] = {"asking": "open", "pending": "open", "approved": "paid", "voided": "reversed"}.get(txn.state, "closed")
        for refund in self.refunds:
            if refund.state == "refunded":
                row = rows[refund.order_no]
                row["refunded_fen"] += refund.amount_fen
                row["state"] = "refunded" if row["refunded_fen"] >= row["captured_fen"] else "part_refunded"
        return list(rows.values())

    # Time

    def next_ms(self) -> int | None:
        """When `tick` has something to do, None for never."""
        due = [t.pays_ms if t.pays_ms is not None else t.began_ms + HOLDER_MS for t in self.txns if t.state == "asking"]
        return min([*due, *([self._news[2]] if self._news else [])], default=None)

    def tick(self) -> None:
        """Whatever the time has brought."""
        if not self.powered:
            return
        now = self._now_ms()
        for txn in self.txns:
            if txn.state == "asking" and txn.pays_ms is not None and txn.pays_ms <= now:
                self._pay(txn)
            elif txn.state == "asking" and txn.pays_ms is None and txn.began_ms + HOLDER_MS <= now:
                txn.state = "cancelled"
                self._tell(txn)
            elif txn.state in ("pending", "voiding") and self.host == "online":
                self._settle(txn)
        for refund in self.refunds:
            if refund.state == "pending" and self.host == "online":
                refund.state = "refunded"
        if self._news is not None and self._news[2] <= now:
            self._say_news(self._news[0], self._news[1] + 1)

    def _pay(self, txn: Txn) -> None:
        txn.pays_ms = None
        if self.host == "offline":
            txn.state, txn.code = "declined", "91"
        else:
            txn.charge = Charge(txn.amount_fen)
            txn.state = "approved" if self.host == "online" else "pending"
        self._tell(txn)

    def _settle(self, txn: Txn) -> None:
        voids = txn.state == "voiding" or self.settles == "voided"
        txn.state = "voided" if voids else "approved"
        if voids and txn.charge is not None:
            txn.charge.back = True
        self._tell(txn)

    # The line

    def receive(self, data: bytes) -> None:
        """Bytes of the box.  Off, they fall on the floor."""
        if not self.powered:
            return
        self.tick()
        for heard in self._frames.feed(data):
            if heard.kind == "frame":
                message = frame.read(heard.body, [], self.secret)
                if message is not None:
                    self._asked(_unmasked(heard.body, message))
            elif heard.kind == "noise":
                self.say(frame.NAK)
            elif heard.kind == "ack":
                if self._news is not None and not self._suffers("news", "doubled_news"):
                    self._news = None
            elif self._last:
                self._say_reply(self._last)

    def _asked(self, said: frame.Message) -> None:
        self.heard.append(said)
        kind = self._fault_of(said.call)
        if kind == "nak":
            self.say(frame.NAK)
        if kind == "dead":
            self.power(False)
        if kind in ("lost_request", "nak", "dead"):
            return
        if self._late:
            self.say(self._late)
            self._late = b""
        answer = self._busy(said) if kind == "busy" else self._effect(said)
        if kind == "dies":
            self.power(False)
        if kind not in ("mute", "lost_ack", "dies"):
            self.say(frame.NAK if kind == "nak_lies" else frame.ACK)
        if kind in ("mute", "lost_answer", "nak_lies", "dies", "late"):
            self._last = b""
            if kind == "late":
                self._late = self._written(said, answer, kind)
            return
        self._spoils = kind
        self._last = self._written(said, answer, kind)
        self._say_reply(self._last)
        if kind == "duplicate_reply":
            self._say_reply(self._last)
        if said.call == "SA" and answer.get("ST") == "asking" and self.holds:
            self.tap(self.holds.popleft())

    def _effect(self, said: frame.Message) -> dict[str, str]:
        parts = said.parts
        if parts.get("TI") != self.terminal_id:
            return {"TI": self.terminal_id, "ST": "refused"}
        calls = {"HL": self._hello, "SA": self._sale, "QY": self._query, "VO": self._void, "RF": self._refund,
                 "RQ": self._query_refund}
        return {"TI": self.terminal_id} | calls[said.call](parts)

    def _hello(self, parts: dict[str, str]) -> dict[str, str]:
        return {"ST": "busy" if self.asking else "offline" if self.host == "offline" else "ready"}

    def _sale(self, parts: dict[str, str]) -> dict[str, str]:
        if self.asking is not None:
            return {"NO": parts["NO"], "ST": "busy"}
        self._serial += 1
        txn = Txn(parts["NO"], int(parts["AM"]), f"0012-{self._serial:06d}", self._now_ms())
        self.txns.append(txn)
        return self._state(txn)

    def _query(self, parts: dict[str, str]) -> dict[str, str]:
        txn = self._found(parts["NO"])
        return self._state(txn) if txn is not None else {"NO": parts["NO"], "ST": "none"}

    def _void(self, parts: dict[str, str]) -> dict[str, str]:
        txn = self._found(parts["NO"])
        if txn is None:
            return {"NO": parts["NO"], "ST": "none"}
        if txn.state == "asking":
            txn.state, txn.pays_ms = "cancelled", None
        elif txn.state == "pending":
            txn.state = "voiding"
        elif txn.state == "approved" and not self.closed_batch and not self._back_fen(txn.order_no):
            txn.state = "voiding"
            if self.host == "online":
                txn.state = "voided"
                if txn.charge is not None:
                    txn.charge.back = True
        return self._state(txn)

    def _refund(self, parts: dict[str, str]) -> dict[str, str]:
        txn = next((t for t in self.txns if t.reference == parts["RE"] and t.order_no == parts["NO"]), None)
        amount = int(parts["AM"])
        left = 0 if txn is None or txn.state != "approved" else txn.amount_fen - self._back_fen(txn.order_no)
        if amount > left:
            return {"RN": parts["RN"], "ST": "refused", "RC": "12"}
        self._serial += 1
        refund = Refund(parts["RN"], parts["NO"], amount, f"0012-{self._serial:06d}",
                        "refunded" if self.host == "online" else "pending")
        self.refunds.append(refund)
        return self._refund_state(refund)

    def _query_refund(self, parts: dict[str, str]) -> dict[str, str]:
        refund = next((r for r in self.refunds if r.refund_no == parts["RN"]), None)
        return self._refund_state(refund) if refund is not None else {"RN": parts["RN"], "ST": "none"}

    def _found(self, order_no: str) -> Txn | None:
        return next((t for t in reversed(self.txns) if t.order_no == order_no), None)

    def _back_fen(self, order_no: str) -> int:
        return sum(r.amount_fen for r in self.refunds if r.order_no == order_no and r.state != "refused")

    def _state(self, txn: Txn) -> dict[str, str]:
        state = "pending" if txn.state == "voiding" else txn.state
        parts = {"NO": txn.order_no, "ST": state}
        if state in ("approved", "voided"):
            parts |= {"AM": str(txn.amount_fen), "RE": txn.reference, "CD": MASK, "RC": "00"}
        return parts | ({"RC": txn.code} if txn.code else {})

    def _refund_state(self, refund: Refund) -> dict[str, str]:
        return {"RN": refund.refund_no, "ST": refund.state, "AM": str(refund.amount_fen), "RE": refund.reference}

    def _busy(self, said: frame.Message) -> dict[str, str]:
        numbers = {tag: said.parts[tag] for tag in ("NO", "RN") if tag in said.parts}
        return {"TI": self.terminal_id, **numbers, "ST": "busy"}

    def _tell(self, txn: Txn) -> None:
        """The end of a sale, unasked; said again until it is acknowledged, but not for ever."""
        if self._suffers("news", "lost_news"):
            return
        self._serial += 1
        parts = {"TI": self.terminal_id} | self._state(txn)
        if self._suffers("news", "unmasked"):
            parts["CD"] = CANARY
        self._say_news(frame.framed(frame.written("EV", f"{self._serial:08x}", parts, self.secret)), 1)

    def _say_news(self, data: bytes, times: int) -> None:
        self._news = (data, times, self._now_ms() + REPEAT_MS) if times < REPEATS_MAX else None
        self.say(data)

    def _written(self, said: frame.Message, answer: dict[str, str], kind: str) -> bytes:
        parts, ident, secret = dict(answer), said.id, self.secret
        match kind:
            case "wrong_order":
                parts |= {tag: parts[tag][:-1] + ("1" if parts[tag][-1] != "1" else "2") for tag in ("NO", "RN") if tag in parts}
            case "wrong_amount" if "AM" in parts:
                parts["AM"] = str(int(parts["AM"]) + 1)
            case "wrong_id":
                ident = "0" * 8
            case "wrong_terminal":
                parts["TI"] = "T999"
            case "no_word":
                parts["ST"] = "fine"
            case "unsealed":
                secret = b"another secret" if secret else b""
            case "unmasked":
                parts |= {"CD": CANARY, "TX": f"card {CANARY[:4]} {CANARY[4:8]} {CANARY[8:]}"}
        return frame.framed(frame.written(said.call.lower(), ident, parts, secret))

    def _say_reply(self, data: bytes) -> None:
        if self._spoils in ("wrong_lrc", "wrong_lrc_once"):
            data = data[:-1] + bytes([data[-1] ^ 0x40])
            self._spoils = "" if self._spoils == "wrong_lrc_once" else self._spoils
        elif self._spoils == "truncated":
            data = data[:len(data) // 2]
        elif self._spoils == "noise":
            data = b"\x00\xff\x02\x99" + data + b"\x7f\x02"
        self.say(data)

    def _fault_of(self, call: str) -> str:
        for fault in self._faults:
            if fault.call in ("any", call) and fault.kind not in LINE_ONLY:
                self._spend(fault)
                return fault.kind
        return ""

    def _suffers(self, call: str, kind: str) -> bool:
        fault = next((f for f in self._faults if f.kind == kind and f.call in ("any", call)), None)
        if fault is not None:
            self._spend(fault)
        return fault is not None

    def _spend(self, fault: Fault) -> None:
        self.fired[fault.kind] += 1
        if fault.left is not None:
            fault.left -= 1
            if fault.left <= 0:
                self._faults.remove(fault)


def _unmasked(body: bytes, message: frame.Message) -> frame.Message:
    """The message with its numbers as sent: an order number may hold twelve digits, and the terminal has no reason to hide them."""
    raw = dict((part[:2], part[2:]) for part in body.decode("ascii").split(frame.FS)[2:])
    return msgspec.structs.replace(message, parts={tag: raw[tag] for tag in message.parts})
