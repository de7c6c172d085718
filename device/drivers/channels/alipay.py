"""Alipay with a merchant's keys: signs calls, proves replies.

Knows the app's private key and Alipay's keys.  Refuses to know sockets, and what a word means for a sale.

*Undo.*  A QR is closed (`trade.close`), which never moves money; a payer's code is cancelled (`trade.cancel`), which gives a
payment back by itself.  A close that finds no trade says `absent`: nobody had scanned the code, and it is watched until it is dead.
*Time stamps.*  What makes or moves money carries its intent's own time, so that a retry is the same bytes.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import msgspec

from device.drivers.channels import alipay_bytes as wire
from device.drivers.channels import alipay_words_bytes as words
from device.drivers.channels.alipay_bill_bytes import rows_of
from device.drivers.channels.alipay_proof_bytes import AlipayKeys, sealed, verify
from device.drivers.channels.codec_bytes import FOLLOWED_MAX, Reply, Request, Verdict, lie
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

METHODS: dict[type[Effect], str] = {PlaceOrder: wire.PLACE, ChargeCode: wire.PAY, QueryOrder: wire.QUERY, RefundOrder: wire.REFUND,
                                    QueryRefund: wire.REFUND_QUERY, FetchBill: wire.BILL}


class _Step(msgspec.Struct, frozen=True):
    """The question that an effect has asked last: its method, "" for a bill's file; what was answered before it.

    `held` is a reply that waits for the certificate being asked for.
    """

    method: str
    trail: words.Trail = ()
    held: Reply | None = None

    def __repr__(self) -> str:           # an answer names its payer
        return f"_Step({self.method!r}, {len(self.trail)} answers)"


class AlipayCodec:
    """A merchant account at Alipay, gateway 1.0 with RSA2.

    `keys` ours and Alipay's; `app_auth_token` the shop's authorisation where the app is a partner's, written nowhere; `now_s` Unix
    time.  Account fields: appid; optional notify_url, store_id, operator_id, terminal_id, seller_id, sys_service_provider_id.
    """

    channel, name = "alipay", "Alipay"
    does: frozenset[type[Effect]] = frozenset({PlaceOrder, ChargeCode, QueryOrder, CloseOrder, RefundOrder, QueryRefund, FetchBill})

    def __init__(self, *, account: str, keys: AlipayKeys, now_s: Callable[[], float], app_auth_token: str = "") -> None:
        self.account, self._keys, self._now_s = account, keys, now_s
        self._token = app_auth_token
        self._steps: dict[Effect, _Step] = {}          # of effects that led to a further question

    def request(self, effect: Any) -> Request:
        """As Codec.request."""
        self._steps.pop(effect, None)
        return self.sealed(effect, self._asked(effect))

    def _asked(self, effect: Any) -> Request:
        at = datetime.datetime.fromtimestamp(self._now_s(), wire.BEIJING).isoformat()
        match effect:
            case PlaceOrder(intent=intent):
                return wire.place_request(intent)
            case ChargeCode(intent=intent, code=code):
                return wire.charge_request(intent, code)
            case QueryOrder(intent=intent):
                return wire.order_request(wire.QUERY, intent, at)
            case CloseOrder(intent=intent):
                return wire.order_request(wire.CANCEL if intent.way == "code" else wire.CLOSE, intent, at)
            case RefundOrder(intent=refund):
                return wire.refund_request(refund, refund.made_at)
            case QueryRefund(intent=refund):
                return wire.refund_query_request(dict(refund.account.fields), refund.order_no, refund.refund_no, at)
            case FetchBill(account=account, day=day):
                return wire.bill_request(dict(account.fields), day, at)
        raise AssertionError(effect)

    def sealed(self, effect: Any, follow: Request) -> Request:
        """`follow` with our signature; a bill's file is fetched without one."""
        return follow if follow.method == "GET" else sealed(follow, self._keys, self._token)

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        step = self._steps.pop(effect, None) or _Step(_first_method(effect))
        if not step.method:
            return bill_read(effect, reply)
        if (odd := words.line_doubt(reply)) is not None:
            return odd
        try:
            if (held := step.held) is not None:
                self._learn(reply, wire.opened(held, step.method).cert_sn)
                return self._read(effect, held, msgspec.structs.replace(step, held=None))
            return self._read(effect, reply, step)
        except ValueError as why:
            return lie(str(why))

    def _read(self, effect: Any, reply: Reply, step: _Step) -> Verdict:
        envelope = wire.opened(reply, step.method)
        said = words.said_of(envelope.inner)
        if envelope.error and said["code"] in (words.OK, words.PAYING):
            raise ValueError("a success stands where only errors do")
        trail = (*step.trail, (step.method, said))
        if not envelope.sign:
            # The same number is the same refund, so even a hint may have it stamped anew: it can wait for days.
            stale = step.method == wire.REFUND and said.get("sub_code") == words.STALE
            return self._told(effect, trail) if stale else words.hint(step.method, said)
        key = self._keys.key(envelope.cert_sn, self._now_s())
        if key is None:
            if not envelope.cert_sn:
                raise ValueError("the reply names no certificate")
            at = datetime.datetime.fromtimestamp(self._now_s(), wire.BEIJING).isoformat()
            self._remember(effect, msgspec.structs.replace(step, held=reply))
            return Verdict("unknown", follow=wire.certificate_request(_fields(effect), envelope.cert_sn, at))
        verify(key, envelope)
        return self._told(effect, trail)

    def _told(self, effect: Any, trail: words.Trail) -> Verdict:
        verdict = self._word(effect, trail)
        if verdict.follow is not None:
            self._remember(effect, _Step(wire.form_fields(verdict.follow.body).get("method", ""), trail))
        return verdict

    def _remember(self, effect: Any, step: _Step) -> None:
        self._steps[effect] = step
        if len(self._steps) > FOLLOWED_MAX:
            del self._steps[next(iter(self._steps))]

    def _word(self, effect: Any, trail: words.Trail) -> Verdict:
        if isinstance(effect, FetchBill):
            return words.bill_word(trail[-1][1], day=effect.day, now_s=self._now_s())
        if isinstance(effect, (RefundOrder, QueryRefund)):
            return words.refund_word(trail, effect.intent, now_s=self._now_s())
        return words.order_word(trail, effect.intent, closing=isinstance(effect, CloseOrder), now_s=self._now_s())

    def _learn(self, reply: Reply, sn: str) -> None:
        self._keys.learn(words.said_of(wire.opened(reply, wire.CERTIFICATE).inner), sn)


def _first_method(effect: Any) -> str:
    if isinstance(effect, CloseOrder):
        return wire.CANCEL if effect.intent.way == "code" else wire.CLOSE
    return METHODS[type(effect)]


def _fields(effect: Any) -> dict[str, str]:
    return dict((effect.account if isinstance(effect, FetchBill) else effect.intent.account).fields)


def bill_read(effect: FetchBill, reply: Reply) -> Verdict:
    """The rows of a bill's file.  Nothing signs it: its own sums must agree, and its rows lie on that day."""
    if reply.status != 200:
        return Verdict("unknown", detail=f"the bill's file was answered with {reply.status}")
    try:
        return Verdict("bill", rows=rows_of(reply.body, day=effect.day))
    except ValueError as why:
        return lie(f"the bill cannot be read: {why}")
