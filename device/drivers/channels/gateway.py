"""The gateway, for a box without any merchant's key: a terminal id and one symmetric key.

Knows the key and which nonces are under way.  Refuses to know sockets, and what a word means for a sale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from device.drivers.channels import gateway_bytes as wire
from device.drivers.channels import gateway_key_bytes as keys
from device.drivers.channels.codec_bytes import Reply, Request, Verdict, lie, without_code
from device.drivers.channels.gateway_agreement import Agreement
from device.drivers.channels.terminal_bytes import terminal_ok
from device.txn.effects import (
    ChargeCode,
    CloseOrder,
    Effect,
    FetchBill,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundOrder,
)

CALLS: dict[type[Effect], str] = {PlaceOrder: "place", ChargeCode: "charge", QueryOrder: "query", CloseOrder: "undo",
                                  RefundOrder: "refund", QueryRefund: "refund_query", FetchBill: "bill"}
ASKED_MAX = 64                         # nonces remembered: many times what can be under way at once


class Asked(NamedTuple):
    """A request under way: which terminal asked which call about which number, signed with which key."""

    terminal: str = ""
    call: str = ""
    number: str = ""
    secret: bytes = b""

    def __repr__(self) -> str:
        return f"Asked({self.terminal!r}, {self.call!r}, {self.number!r}, secret=...)"


class GatewayCodec:
    """A terminal at the gateway.

    `secret` 32 bytes or more, the terminal's; `now_s` Unix time; `nonce` a fresh ASCII string.  Account fields: terminal_id.
    A reply counts once, for the one call whose nonce it is signed over.  `older` is the key before `secret`, where a rotation
    left one: an unsigned 401 makes the next call try the other.
    """

    channel, name = "gateway", "the gateway"
    does: frozenset[type[Effect]] = frozenset(CALLS)

    def __init__(self, *, account: str, secret: bytes, now_s: Callable[[], float], nonce: Callable[[], str],
                 older: bytes = b"") -> None:
        self.account, self._now_s, self._nonce = account, now_s, nonce
        self._asked: dict[str, Asked] = {}                            # by nonce, oldest first
        self.use(secret, older)

    def use(self, secret: bytes, older: bytes) -> None:
        """Sign with `secret` from the next call on.  ValueError when it is too short."""
        if len(secret) < 32:
            raise ValueError("the terminal's secret is shorter than 32 bytes")
        self.secret, self._other = secret, older

    def request(self, effect: Any) -> Request:
        """As Codec.request."""
        call = CALLS[type(effect)]
        if isinstance(effect, FetchBill):
            plain = wire.bill_call(call, effect.day)
        elif isinstance(effect, (RefundOrder, QueryRefund)):
            plain = wire.refund_call(call, effect.intent)
        else:
            plain = wire.order_call(call, effect.intent, effect.code if isinstance(effect, ChargeCode) else "")
        return self.sealed(effect, plain)

    def sealed(self, effect: Any, follow: Request) -> Request:
        """`follow` with the headers that prove us; its nonce is what the reply must be signed over."""
        fields = dict(account_of(effect).fields)
        if fields.get("dialect"):
            raise ValueError("the order was made at another gateway under this account's name")
        return self._sealed(fields.get("terminal_id", ""), number_of(effect), follow)

    def _sealed(self, terminal: str, number: str, follow: Request) -> Request:
        if not terminal_ok(terminal):
            raise ValueError("the account's terminal_id is no terminal's")
        at_s, nonce = int(self._now_s()), self._nonce()
        self._asked[nonce] = Asked(terminal, follow.path.rpartition("/")[2], number, self.secret)
        if len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        return keys.sealed(follow, {"Tillbox-Terminal": terminal}, keys.derived(self.secret, terminal, "request"), at_s, nonce)

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        asked, odd = self._opened(reply)
        if odd is not None:
            return odd
        if asked.number != number_of(effect) or asked.call not in (CALLS[type(effect)], "bill_file"):
            return lie("the reply answers another question")
        if isinstance(effect, FetchBill):
            return wire.bill_word(asked.call, effect.day, reply.body)
        if isinstance(effect, (RefundOrder, QueryRefund)):
            return wire.refund_word(asked.call, effect.intent, reply.body)
        body = without_code(reply.body, effect.code) if isinstance(effect, ChargeCode) else reply.body
        return wire.order_word(asked.call, effect.intent, body)

    def rotate_request(self, terminal: str, agreement: Agreement) -> Request:
        """Ask for the next key; `agreement` is fresh."""
        return self._sealed(terminal, "", keys.rotate_call(agreement.public))

    def new_key(self, agreement: Agreement, reply: Reply) -> tuple[bytes, bytes] | Verdict:
        """(next, used): the key that `reply` to a rotation agrees to, not in use yet, and the one that asked for it.

        The verdict when the reply proves none.
        """
        asked, odd = self._opened(reply)
        if odd is not None:
            return odd
        theirs = keys.rotated(reply.body) if asked.call == "rotate" else b""
        try:
            shared = agreement.shared(theirs)
        except ValueError:
            return lie("the gateway's reply holds no key to agree with")
        return keys.common_key(shared, asked.secret, asked.terminal, "next", agreement.public, theirs), asked.secret

    def _opened(self, reply: Reply) -> tuple[Asked, Verdict | None]:
        """The question whose nonce the reply carries, and the verdict where that already decides."""
        nonce = reply.headers.get("tillbox-nonce", "")
        asked = self._asked.pop(nonce, Asked())
        odd = wire.unproven(reply, keys.proof_fault(reply, nonce, asked.secret, asked.terminal, "reply"))
        if reply.status == 401 and self._other and asked.secret == self.secret:      # not one signed before a rotation
            self.secret, self._other = self._other, self.secret
        return asked, odd


def account_of(effect: Any) -> Any:
    return effect.account if isinstance(effect, FetchBill) else effect.intent.account


def number_of(effect: Any) -> str:
    """What a reply must be about: the day of a bill, a refund's number, an order's."""
    if isinstance(effect, FetchBill):
        return effect.day
    return effect.intent.refund_no if isinstance(effect, (RefundOrder, QueryRefund)) else effect.intent.order_no
