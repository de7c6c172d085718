"""Alipay's keys and signatures, both ways: one public key, or certificates that may change in the middle of a day.

Knows how certificates are numbered, and which new one is Alipay's: it leads to a root that we hold, and bears the very name of the
one that was installed.  A merchant's certificate has the same root, so the name matters.  Refuses to know files, sockets and what
a reply means; the time comes from above.  The box and the cloud prove replies by this one piece.
Source: Alipay open documentation (certificate signing), its SDKs.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from device.drivers.channels import alipay_bytes as wire
from device.drivers.channels.alipay_words_bytes import OK
from device.drivers.channels.chain_bytes import led, may_sign
from device.drivers.channels.codec_bytes import Request
from device.drivers.channels.rsa_bytes import private_key, public_key

RSA_SIGNATURES = "1.2.840.113549.1.1."       # every RSA signature's OID begins so
NAME_ORDER = (("CN", "2.5.4.3"), ("OU", "2.5.4.11"), ("O", "2.5.4.10"), ("C", "2.5.4.6"))
APP_NAME = re.compile(r"\d{16}-\d{16}")            # merchant and app: the common name of an app's certificate
KEYS_MAX = 8


def number_of(issuer: str, serial: int) -> str:
    """How Alipay numbers a certificate: MD5 of its issuer, `CN=..,OU=..,O=..,C=..`, and its decimal serial; lower-case hex."""
    return hashlib.md5(f"{issuer}{serial}".encode(), usedforsecurity=False).hexdigest()


def cert_sn(cert: Any) -> str:
    """The number of a certificate."""
    told = {name.oid.dotted_string: str(name.value) for name in cert.issuer}
    return number_of(",".join(f"{short}={told.get(oid, 'None')}" for short, oid in NAME_ORDER), cert.serial_number)


def root_sn(certs: list[Any]) -> str:
    """The number of a root file: those of its certificates that are signed with RSA, in its order, joined by `_`."""
    return "_".join(cert_sn(cert) for cert in certs if cert.signature_algorithm_oid.dotted_string.startswith(RSA_SIGNATURES))


class AlipayKeys:
    """Our key and Alipay's.  `private_key_pem` and a public key in `platform_pem`: PEM, or bare base64 as the portal shows them.

    Certificates in `platform_pem`, one behind the other in any order, mean certificate mode: the app's, Alipay's and Alipay's root
    file.  The app's is known by our key, Alipay's by its name: other apps' are numbers.  ValueError, one sentence, for what does
    not fit together.
    """

    def __init__(self, private_key_pem: bytes, platform_pem: bytes) -> None:
        self.signer: Any = private_key(pem_of(private_key_pem))
        self.own: dict[str, str] = {}                  # what each request says of our certificates
        self._keys: dict[str, tuple[Any, float, float]] = {}
        ours = self.signer.public_key().public_numbers()
        if b"BEGIN CERTIFICATE" in platform_pem:
            self._sort(certificates(platform_pem, "platform_key_file"), ours)
        else:
            self._keys[""] = (public_key(pem_of(platform_pem)), float("-inf"), float("inf"))
        if any(key.public_numbers() == ours for key, _, _ in self._keys.values()):
            raise ValueError("platform_key_file holds our own key: take Alipay's from the portal, not the app's")

    def _sort(self, certs: list[Any], ours: Any) -> None:
        self._roots = [cert for cert in certs if cert.subject == cert.issuer]
        self._middle = [cert for cert in certs if cert.subject != cert.issuer and may_sign(cert)]
        leaves = [cert for cert in certs if cert not in self._roots and cert not in self._middle]
        app = next((cert for cert in leaves if cert.public_key().public_numbers() == ours), None)
        self._installed = [cert for cert in leaves if cert is not app and not APP_NAME.fullmatch(_common_name(cert))]
        for found, what in ((app, "the certificate of our key"), (self._installed, "Alipay's certificate"), (self._roots, "root")):
            if not found:
                raise ValueError(f"platform_key_file holds certificates, but not {what}: put the app's, Alipay's and Alipay's "
                                 "root file into it, one behind the other")
        self.own = {"app_cert_sn": cert_sn(app), "alipay_root_cert_sn": root_sn(self._roots)}
        for cert in self._installed:
            self._hold(cert)

    @property
    def by_certificate(self) -> bool:
        return bool(self.own)

    def key(self, sn: str, now_s: float) -> Any:
        """The key that a reply naming `sn` must be signed with; None when we hold none.  ValueError when it is not valid now."""
        found = self._keys.get(sn if self.by_certificate else "")
        if found is None:
            return None
        if not found[1] <= now_s <= found[2]:
            raise ValueError("Alipay's certificate is not valid today: check the clock, or install the new one")
        return found[0]

    def take(self, content: str, sn: str) -> None:
        """Hold the certificate in `content` (base64 of PEM) under `sn`.  ValueError, one sentence, when it is not Alipay's."""
        try:
            certs = certificates(base64.b64decode(content, validate=True), "the new certificate")
        except binascii.Error:
            raise ValueError("Alipay's new certificate is not base64") from None
        leaf = certs[0]
        if cert_sn(leaf) != sn:
            raise ValueError("Alipay sent another certificate than the one it signs with")
        if all(leaf.subject != cert.subject for cert in self._installed):
            raise ValueError("the new certificate does not bear Alipay's name: if it is Alipay's, put it into platform_key_file")
        # What comes along may stand between, but is never a root to us.
        days = led(leaf, [*self._roots, *self._middle, *(cert for cert in certs[1:] if cert.subject != cert.issuer)])
        if days is None:
            raise ValueError("Alipay's new certificate leads to no root that we hold")
        if len(self._keys) >= KEYS_MAX:
            self._keys.clear()
            for cert in self._installed:
                self._hold(cert)
        self._hold(leaf, days)

    def learn(self, said: Mapping[str, Any], sn: str) -> None:
        """Take the certificate `sn` that was asked for, out of the answer's members.  ValueError as `take`.

        The answer may be unsigned: the chain proves the certificate.
        """
        content = said.get("alipay_cert_content")
        if said["code"] != OK or not isinstance(content, str):
            raise ValueError("Alipay signs with a certificate that it does not show")
        self.take(content, sn)

    def _hold(self, cert: Any, days: tuple[float, float] | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

        key = cert.public_key()
        if not isinstance(key, RSAPublicKey) or key.key_size < 2048:
            raise ValueError("Alipay's certificate has a key that proves nothing")
        self._keys[cert_sn(cert)] = (key, *(days or (cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp())))


def sealed(plain: Request, keys: AlipayKeys, app_auth_token: str = "") -> Request:
    """`plain` with what our certificates are called, the shop's authorisation where there is one, and our signature."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    fields = wire.form_fields(plain.body) | keys.own | ({"app_auth_token": app_auth_token} if app_auth_token else {})
    signature = keys.signer.sign(wire.text_to_sign(fields), PKCS1v15(), SHA256())
    return wire.gateway_request(fields, base64.b64encode(signature).decode())


def verify(key: Any, envelope: wire.Envelope) -> None:
    """ValueError, one sentence, when the answer does not bear the signature of `key`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(base64.b64decode(envelope.sign, validate=True), envelope.inner, PKCS1v15(), SHA256())
    except (binascii.Error, InvalidSignature):
        raise ValueError("the reply's signature is wrong") from None


def certificates(pem: bytes, which: str) -> list[Any]:
    """Every certificate in `pem`, the first one first.  ValueError, one sentence, when there is none."""
    from cryptography import x509

    try:
        end = b"-----END CERTIFICATE-----"              # the portal's files have no line end behind it
        return x509.load_pem_x509_certificates(pem.replace(end, end + b"\n"))
    except ValueError:
        raise ValueError(f"{which} holds no readable PEM certificate") from None


def pem_of(raw: bytes) -> bytes:
    """A key as PEM; the portal shows bare base64, of PKCS#1 or PKCS#8 for a private one.  Whatever is none is returned as it is."""
    bare = b"".join(raw.split())
    try:
        der = b"" if b"-" in bare else base64.b64decode(bare, validate=True)
    except binascii.Error:
        return raw
    label = {b"\x02\x01\x00\x30": "PRIVATE KEY", b"\x02\x01\x00\x02": "RSA PRIVATE KEY"}.get(der[4:8], "PUBLIC KEY")
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n".encode() if der else raw


def _common_name(cert: Any) -> str:
    return next((str(name.value) for name in cert.subject if name.oid.dotted_string == dict(NAME_ORDER)["CN"]), "")
