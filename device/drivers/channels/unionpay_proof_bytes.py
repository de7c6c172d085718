"""UnionPay's signatures, both ways: how a request is signed, and whose signature under a reply counts.

Knows RSA over the form's text and the certificate that each reply brings along.  Refuses to know files, sockets and what a reply
means; the time comes from above.  The box and the cloud prove replies by this one piece.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from device.drivers.channels import unionpay_bytes as wire
from device.drivers.channels.chain_bytes import led
from device.drivers.channels.codec_bytes import Request

UNIONPAY = "中国银联股份有限公司"       # the third part of the subject's name; merchants' certificates have the same roots
SIGNERS_MAX = 8


def sealed(plain: Request, cert_id: str, key: Any) -> Request:
    """`plain` with our certificate's number and the signature of `key`, the merchant's RSA key, in its form."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    fields = wire.form_fields(plain.body) | {"certId": cert_id}
    signature = key.sign(wire.digest(wire.text_to_sign(fields)), PKCS1v15(), SHA256())
    body = wire.form(fields | {"signature": base64.b64encode(signature).decode()})
    return Request(plain.method, plain.path, body, {
        "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8", "User-Agent": "tillbox"})


def proof_fault(said: Mapping[str, str], signers: Signers, now_s: float) -> str:
    """Why the proof of a reply with fields `said` does not hold, one sentence; "" when it does."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    if (said.get("version"), said.get("signMethod")) != ("5.1.0", "01"):
        return "the reply is not signed as version 5.1.0 signs"
    try:
        key = signers.key(said.get("signPubKeyCert", ""), now_s)
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
