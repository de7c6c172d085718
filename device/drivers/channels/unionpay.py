"""UnionPay with a merchant's keys: signs requests, proves replies.

Knows the merchant's private key and the roots that UnionPay's certificates must lead to.  Refuses to know sockets, and what a word
means for a sale.

*Undo.*  ACP has no close for a QR that nobody paid, and whether its reversal (99/01) takes QR products is not confirmed; a void
(31) works until about 23:00 only, a refund (04) on the day of payment too.  So an undo only asks.  A payer's code that failed
is closed; what is paid says so and goes back by a refund under its own journaled number.  A QR that nobody has paid is unknown
to UnionPay: the till lets go of it, asks on until it is dead, and gives back what is paid into it.  No undo of ours moves money.
"""

from __future__ import annotations

import base64
import binascii
import datetime
from collections.abc import Callable
from typing import Any

from device.drivers.channels import unionpay_bytes as wire
from device.drivers.channels.chain import led
from device.drivers.channels.codec_bytes import Reply, Request, Verdict, lie
from device.drivers.channels.rsa import private_key
from device.drivers.channels.unionpay_bill_bytes import rows_of, unpacked
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

UNIONPAY = "中国银联股份有限公司"       # the third part of the subject's name; merchants' certificates have the same roots
SIGNERS_MAX = 8


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
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        fields = wire.form_fields(follow.body) | {"certId": self._cert_id}
        signature = self._key.sign(wire.digest(wire.text_to_sign(fields)), PKCS1v15(), SHA256())
        body = wire.form(fields | {"signature": base64.b64encode(signature).decode()})
        return Request(follow.method, follow.path, body, {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8", "User-Agent": "tillbox"})

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        if (odd := wire.line_doubt(reply)) is not None:
            return odd
        try:
            said = wire.pairs_of(reply.body)
        except ValueError:
            return lie("the reply is not what UnionPay documents")
        if doubt := self._doubt(said):
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

    def _doubt(self, said: dict[str, str]) -> str:
        """Why the reply's proof does not hold, one sentence; "" when it does."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        if (said.get("version"), said.get("signMethod")) != ("5.1.0", "01"):
            return "the reply is not signed as version 5.1.0 signs"
        try:
            key = self._signers.key(said.get("signPubKeyCert", ""), self._now_s())
            signature = base64.b64decode(said.get("signature", ""), validate=True)
            key.verify(signature, wire.digest(wire.text_to_sign(said)), PKCS1v15(), SHA256())
        except ValueError as why:
            return "the reply's signature is no base64" if isinstance(why, binascii.Error) else str(why)
        except InvalidSignature:
            return "the reply's signature is wrong"
        return ""


class Signers:
    """Who may sign replies: whoever shows a certificate of the right name that leads to a root we hold.

    `trust_pem` roots (self-signed) and middle certificates, PEM; ValueError, one sentence, when it holds no root.  A reply brings
    its certificate along, so UnionPay may change it in the middle of a day.
    """

    def __init__(self, trust_pem: bytes, signer: str) -> None:
        from cryptography import x509

        try:
            self._held = x509.load_pem_x509_certificates(trust_pem)
        except ValueError:
            raise ValueError("the trust file holds no readable PEM certificates") from None
        if not any(cert.subject == cert.issuer for cert in self._held):
            raise ValueError("the trust file holds no root certificate: put UnionPay's root and middle one into it")
        self._signer = signer
        self._known: dict[str, tuple[Any, float, float]] = {}      # a proven certificate, its key and its days

    def key(self, pem: str, now_s: float) -> Any:
        """The public key in `pem`.  ValueError, one sentence, when nothing vouches for it now."""
        if pem not in self._known:
            if len(self._known) >= SIGNERS_MAX:
                self._known.clear()
            self._known[pem] = self._proven(pem, now_s)
        key, since_s, until_s = self._known[pem]
        if not since_s <= now_s <= until_s:
            raise ValueError("UnionPay's certificate is not valid today: check the clock")
        return key

    def _proven(self, pem: str, now_s: float) -> tuple[Any, float, float]:
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

        try:
            cert = x509.load_pem_x509_certificate(pem.encode())
            key, names = cert.public_key(), cert.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        except (ValueError, TypeError):
            raise ValueError("the reply carries no readable certificate") from None
        parts = str(names[0].value).split("@") if len(names) == 1 else []
        if len(parts) < 3 or parts[2] != self._signer:
            raise ValueError("the reply is signed by somebody else than UnionPay")
        if not isinstance(key, RSAPublicKey) or key.key_size < 2048:
            raise ValueError("the reply's certificate has a key that proves nothing")
        days = led(cert, self._held)
        if days is None:
            raise ValueError("the reply's certificate leads to no root that we hold")
        return key, *days
