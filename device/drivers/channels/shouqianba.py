"""Shouqianba, an aggregator for a box without a merchant's key: a terminal number and a key that changes every day.

Knows the key, and which refunds and undos are being looked up.  Refuses to know sockets and when a key is due.  It has no
bill that a terminal could read.
"""

from __future__ import annotations

from typing import Any

import msgspec

from device.drivers.channels import shouqianba_bytes as wire
from device.drivers.channels.codec_bytes import FOLLOWED_MAX, Reply, Request, Verdict, without_code
from device.txn.effects import ChargeCode, CloseOrder, Effect, PlaceOrder, QueryOrder, QueryRefund, RefundOrder

DIALECT = "shouqianba"
CALLS: dict[type[Effect], str] = {PlaceOrder: "precreate", ChargeCode: "pay", QueryOrder: "query", CloseOrder: "cancel",
                                  RefundOrder: "refund", QueryRefund: "refund"}


class ShouqianbaCodec:
    """A terminal at Shouqianba.  `key` its key of today.

    Account fields: dialect, terminal_id, operator, notify_url.  `doubted` is set by a reply that refuses the key: the next
    call does well to fetch a new one first.
    """

    channel, name = "gateway", "Shouqianba"
    does: frozenset[type[Effect]] = frozenset(CALLS)

    def __init__(self, *, account: str, key: bytes) -> None:
        self.account, self.key, self.doubted = account, key, False
        self._looking: dict[Effect, None] = {}                # whose order is being looked up, oldest first

    def use(self, key: bytes) -> None:
        """Sign with `key` from the next call on."""
        self.key, self.doubted = key, False

    def request(self, effect: Any) -> Request:
        """As Codec.request."""
        self._looking.pop(effect, None)
        if dict(effect.intent.account.fields).get("dialect") != DIALECT:
            raise ValueError("the order was made at another gateway under this account's name")
        if isinstance(effect, (RefundOrder, QueryRefund)):
            path, body = wire.refund_call(effect.intent)
        else:
            code = effect.code if isinstance(effect, ChargeCode) else ""
            path, body = wire.order_call(CALLS[type(effect)], effect.intent, code)
        return self._sealed(effect, path, body)

    def sealed(self, effect: Any, follow: Request) -> Request:
        """As Codec.sealed: what `read` asks to follow is sealed already."""
        return follow

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        if isinstance(effect, ChargeCode):                    # their sentences are free text, and a code is a bearer token
            reply = msgspec.structs.replace(reply, body=without_code(reply.body, effect.code))
        verdict = self._read(effect, reply)
        self.doubted = self.doubted or verdict.detail == wire.KEY_REFUSED
        return verdict

    def _read(self, effect: Any, reply: Reply) -> Verdict:
        refund = isinstance(effect, (RefundOrder, QueryRefund))
        if effect in self._looking:
            del self._looking[effect]
            return wire.looked(effect.intent, reply) if refund else wire.undone(effect.intent, reply)
        verdict = (wire.refund_word(effect.intent, reply) if refund
                   else wire.order_word(CALLS[type(effect)], effect.intent, reply))
        if verdict.word != "look":
            return verdict
        self._looking[effect] = None
        if len(self._looking) > FOLLOWED_MAX:
            del self._looking[next(iter(self._looking))]
        return Verdict("follow", follow=self._sealed(effect, *wire.order_call("query", effect.intent)))

    def _sealed(self, effect: Any, path: str, body: dict[str, str]) -> Request:
        return wire.sealed(path, body, dict(effect.intent.account.fields)["terminal_id"], self.key)
