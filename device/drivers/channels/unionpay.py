"""UnionPay with a merchant's keys: signs requests, proves replies.

Knows the merchant's private key and the roots that UnionPay's certificates must lead to.  Refuses to know sockets, and what a word
means for a sale.

*Undo.*  ACP has no close for a QR that nobody paid, and whether its reversal (99/01) takes QR products is not confirmed; a void
(31) works until about 23:00 only, a refund (04) on the day of payment too.  So an undo only asks.  A payer's code that failed
is closed; what is paid says so and goes back by a refund under its own journaled number.  A QR that nobody has paid is unknown
to UnionPay: the till lets go of it, asks on until it is dead, and gives back what is paid into it.  No undo of ours moves money.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from device.drivers.channels import unionpay_bytes as wire
from device.drivers.channels.codec_bytes import Reply, Request, Verdict, lie
from device.drivers.channels.rsa_bytes import private_key
from device.drivers.channels.unionpay_bill_bytes import rows_of, unpacked
from device.drivers.channels.unionpay_proof_bytes import UNIONPAY, Signers, proof_fault, sealed
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


class UnionpayCodec:
    """A merchant account at UnionPay, ACP 5.1.0.

    `private_key_pem` the merchant's (from its PFX), `cert_id` the decimal serial of its certificate.  `trust_pem` UnionPay's
    root and middle certificates; `signer` the third part of the common name that replies must be signed under, the test system's is
    "00040000:SIGN".  `now_s` Unix time.  Account fields: mchid; termId for payers' codes; file_url for bills; notify_url, optional.
    """

    channel, name = "unionpay", "UnionPay"
    does: frozenset[type[Effect]] = frozenset({PlaceOrder, ChargeCode, QueryOrder, CloseOrder, RefundOrder, QueryRefund, FetchBill})

    def __init__(self, *, account: str, private_key_pem: bytes, cert_id: str, trust_pem: bytes, signer: str = UNIONPAY,
                 now_s: Callable[[], float]) -> None:
        if not cert_id.isdigit():
            raise ValueError("the certificate's serial is written in decimal digits")
        self.account, self._cert_id, self._now_s = account, cert_id, now_s
        self._refusals: dict[RefundOrder, str] = {}         # codes of refunds whose number is being asked after
        self._key: Any = private_key(private_key_pem)
        self._signers = Signers(trust_pem, signer or UNIONPAY)

    def request(self, effect: Any) -> Request:
        """As Codec.request."""
        self._refusals.pop(effect, None)
        return self.sealed(effect, self._asked(effect))

    def _asked(self, effect: Any) -> Request:
        match effect:
            case PlaceOrder(intent=intent):
                return wire.place_request(intent)
            case ChargeCode(intent=intent, code=code):
                return wire.charge_request(intent, code)
            case QueryOrder(intent=intent) | CloseOrder(intent=intent):
                return wire.query_request(dict(intent.account.fields), intent.order_no, intent.made_at)
            case RefundOrder(intent=refund):
                return wire.refund_request(refund)
            case QueryRefund(intent=refund):
                return wire.query_request(dict(refund.account.fields), refund.refund_no, refund.made_at)
            case FetchBill(account=account, day=day):
                now = datetime.datetime.fromtimestamp(self._now_s(), wire.BEIJING)
                return wire.file_request(dict(account.fields), day, now.strftime("%Y%m%d%H%M%S"))
        raise AssertionError(effect)

    def sealed(self, effect: Any, follow: Request) -> Request:
        """`follow` with our certificate's number and our signature in its form."""
        return sealed(follow, self._cert_id, self._key)

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        if (odd := wire.line_doubt(reply)) is not None:
            return odd
        try:
            said = wire.pairs_of(reply.body)
        except ValueError:
            return lie("the reply is not what UnionPay documents")
        if doubt := proof_fault(said, self._signers, self._now_s()):
            return lie(doubt)
        asked = wire.form_fields(self._asked(effect).body)
        if isinstance(effect, FetchBill):
            del asked["txnTime"]                          # its own time is now, not the bill's
        elif isinstance(effect, RefundOrder) and said.get("txnType") == "00":
            asked |= {"txnType": "00"}                    # the answer to what followed a duplicate
            del asked["txnAmt"]
        if doubt := wire.echo_doubt(said, asked):
            return lie(doubt)
        return self._verdict(effect, said)

    def _verdict(self, effect: Any, said: dict[str, str]) -> Verdict:
        match effect:
            case PlaceOrder():
                return wire.place_verdict(said)
            case ChargeCode():
                return wire.charge_verdict(said)
            case QueryOrder(intent=intent) | CloseOrder(intent=intent):
                return wire.query_verdict(said, intent, age_s=self._age_s(intent.made_at))
            case RefundOrder(intent=refund) if said["txnType"] == "04":
                verdict = wire.refund_verdict(said, refund)
                if verdict.follow is not None:
                    self._refusals[effect] = said["respCode"]
                return verdict
            case RefundOrder(intent=refund) if said["respCode"] == wire.ABSENT:
                return wire.refused_verdict(self._refusals.pop(effect, ""), self._age_s(refund.made_at))
            case RefundOrder(intent=refund) | QueryRefund(intent=refund):
                return wire.refund_query_verdict(said, refund)
        assert isinstance(effect, FetchBill), effect
        if (late := wire.file_verdict(said)) is not None:
            return late
        try:
            table = unpacked(said.get("fileContent", ""), day=effect.day, merchant=said["merId"])
            return Verdict("bill", rows=rows_of(table, day=effect.day))
        except ValueError as why:
            return lie(f"the bill cannot be read: {why}")

    def _age_s(self, made_at: str) -> float:
        return self._now_s() - datetime.datetime.fromisoformat(made_at).timestamp()
