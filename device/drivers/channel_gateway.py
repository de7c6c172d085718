"""The gateway, for a box without any merchant's key: a terminal id and one symmetric key.

Knows the key and which nonces are under way.  Refuses to know sockets, and what a word means for a sale.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from device.drivers import channel_gateway_bytes as wire
from device.drivers.channel_bytes import Reply, Request, Verdict, lie
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
        self._asked: dict[str, tuple[str, str, str, bytes]] = {}      # nonce: terminal, call, number, key; oldest first
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
        return self._sealed(dict(account_of(effect).fields).get("terminal_id", ""), number_of(effect), follow)

    def _sealed(self, terminal: str, number: str, follow: Request) -> Request:
        if not (terminal.isascii() and terminal.isalnum()):
            raise ValueError("the account's terminal_id is no terminal's")
        at_s, nonce = int(self._now_s()), self._nonce()
        self._asked[nonce] = (terminal, follow.path.rpartition("/")[2], number, self.secret)
        if len(self._asked) > ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        key = wire.derived(self.secret, terminal, "request")
        return Request(follow.method, follow.path, follow.body, {
            "Content-Type": "application/json", "Tillbox-Terminal": terminal, "Tillbox-Time": str(at_s),
            "Tillbox-Nonce": nonce, "Tillbox-Signature": wire.signature(key, wire.request_text(follow, at_s, nonce))})

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        call, number, odd = self._opened(reply)
        if odd is not None:
            return odd
        if number != number_of(effect) or call not in (CALLS[type(effect)], "bill_file"):
            return lie("the reply answers another question")
        if isinstance(effect, FetchBill):
            return wire.bill_word(call, effect.day, reply.body)
        if isinstance(effect, (RefundOrder, QueryRefund)):
            return wire.refund_word(call, effect.intent, reply.body)
        return wire.order_word(call, effect.intent, reply.body)

    def rotate_request(self, terminal: str) -> Request:
        """Ask for the next key; asked again before that one was used, the gateway gives the same."""
        return self._sealed(terminal, "", wire.rotate_call())

    def new_key(self, reply: Reply) -> bytes:
        """The next key that `reply` to a rotation brings, b"" when it proves none.  It is not in use yet."""
        call, _, odd = self._opened(reply)
        return wire.new_key(reply.body) if odd is None and call == "rotate" else b""

    def _opened(self, reply: Reply) -> tuple[str, str, Verdict | None]:
        """Call and number whose nonce the reply carries, and the verdict where that already decides."""
        nonce = reply.headers.get("tillbox-nonce", "")
        terminal, call, number, secret = self._asked.pop(nonce, ("", "", "", b""))
        odd = wire.unproven(reply, self._proof_fault(reply, terminal, nonce, secret))
        if reply.status == 401 and self._other and secret == self.secret:      # not one that was signed before a rotation
            self.secret, self._other = self._other, self.secret
        return call, number, odd

    def _proof_fault(self, reply: Reply, terminal: str, nonce: str, secret: bytes) -> str:
        given = reply.headers.get("tillbox-signature", "")
        if not given:
            return "the reply carries no signature"
        if not terminal:
            return "the reply answers no question under way"
        key = wire.derived(secret, terminal, "reply")
        right = wire.signature(key, wire.reply_text(reply.status, nonce, reply.body))
        return "" if hmac.compare_digest(right.encode(), given.encode()) else "the reply's signature is wrong"


def account_of(effect: Any) -> Any:
    return effect.account if isinstance(effect, FetchBill) else effect.intent.account


def number_of(effect: Any) -> str:
    """What a reply must be about: the day of a bill, a refund's number, an order's."""
    if isinstance(effect, FetchBill):
        return effect.day
    return effect.intent.refund_no if isinstance(effect, (RefundOrder, QueryRefund)) else effect.intent.order_no
