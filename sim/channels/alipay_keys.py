"""Throw-away certificates as Alipay has them: a root file, an authority below it, Alipay's certificate and an app's.

Knows names and chains.  Refuses to know calls.  Made in memory, worth nothing.  Source: the published test certificates' names.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from cryptography.x509.oid import NameOID

ALIPAY = "支付宝(中国)网络技术有限公司-2088000000000015"


class Signer(msgspec.Struct, frozen=True):
    """A private key, its certificate as PEM, and the number Alipay gives that."""

    key: Any
    pem: bytes
    sn: str


class Authority(msgspec.Struct, frozen=True):
    """`others` sign instead of `alipay`, by the fault that says so."""

    root_pem: bytes
    root_sn: str
    alipay: Signer
    app_cert_pem: bytes
    app_sn: str
    others: dict[str, Signer]

    @property
    def installed(self) -> bytes:
        """What a client's platform_key_file holds: the portal's three files, one behind the other."""
        return self.app_cert_pem.rstrip() + self.alipay.pem + self.root_pem


def authority(app_public_pem: bytes, since: datetime.datetime | None = None) -> Authority:
    """A fresh one, with a certificate for the app's key.  Certificates begin at `since`, or a month ago."""
    certified = functools.partial(_certified, since or datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30))
    root_key, middle_key, first, second, foreign = (rsa.generate_private_key(65537, 2048) for _ in range(5))
    curve = ec.generate_private_key(ec.SECP256R1())
    root_name, middle_name = ca_name("R1"), ca_name("Class 2 R1")
    root = certified(root_key.public_key(), root_name, root_key, root_name, ca=True)
    odd = certified(curve.public_key(), ca_name("E1"), curve, ca_name("E1"), ca=True)      # not RSA: not in the root's number
    middle = certified(middle_key.public_key(), middle_name, root_key, root_name, ca=True)

    strange = certified(foreign.public_key(), ca_name("X1"), foreign, ca_name("X1"), ca=True)

    def leaf(key: Any, cn: str, by: Any = middle_key, above: x509.Certificate = middle) -> Signer:
        made = certified(key.public_key(), name(cn, "Alipay", "沙箱环境"), by, above.subject)
        return Signer(key, pem(made) + pem(above), sn_of(made))
    app = certified(load_pem_public_key(app_public_pem), name("2088000000000015-2021000000000001", "Alipay", "沙箱环境"),
                    middle_key, middle_name)
    return Authority(pem(root) + b"\n" + pem(odd), sn_of(root), leaf(first, ALIPAY), pem(app), sn_of(app), {
        "rotated": leaf(second, ALIPAY), "foreign_root": leaf(second, ALIPAY, foreign, strange),
        "merchant_signed": leaf(second, "2088000000000099-2021000000000099"), "hidden": leaf(foreign, ALIPAY)})


def sn_of(cert: x509.Certificate) -> str:
    told = {short: str(cert.issuer.get_attributes_for_oid(oid)[0].value) for short, oid in (
        ("CN", NameOID.COMMON_NAME), ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME), ("O", NameOID.ORGANIZATION_NAME),
        ("C", NameOID.COUNTRY_NAME))}
    text = f"CN={told['CN']},OU={told['OU']},O={told['O']},C={told['C']}{cert.serial_number}"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _certified(begun: datetime.datetime, key: Any, subject: x509.Name, by: Any, issuer: x509.Name, *,
               ca: bool = False) -> x509.Certificate:
    made = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
            .serial_number(x509.random_serial_number()).not_valid_before(begun)
            .not_valid_after(begun + datetime.timedelta(days=5 * 365)))
    if ca:
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return made.sign(by, SHA256())


def ca_name(which: str) -> x509.Name:
    return name(f"Ant Financial Certification Authority {which} local", "Certification Authority local", "Ant Financial local")


def name(cn: str, ou: str, o: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "CN"), x509.NameAttribute(NameOID.ORGANIZATION_NAME, o),
                      x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, ou), x509.NameAttribute(NameOID.COMMON_NAME, cn)])


def pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(Encoding.PEM)
