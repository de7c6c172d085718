"""Whose signature under a WeChat reply counts: keys out of PEM, and one check.

Knows public keys and certificates with their days.  Refuses to know files, sockets, which keys a merchant has and what a reply
means; the time comes from above.  The box and the cloud prove replies by this one piece.  Source: WeChat Pay API v3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from device.drivers.channels import wechat_bytes as wire
from device.drivers.channels.codec_bytes import Reply
from device.drivers.channels.rsa_bytes import public_key

KEY_BITS_MIN = 2048


class Signer(NamedTuple):
    """A key of WeChat's, and between which Unix times it is believed."""

    key: Any
    since_s: float = 0
    until_s: float = float("inf")


def held_signer(serial: str, pem: bytes) -> Signer:
    """A key that a person brought: a public key never ends, a certificate does."""
    return certificate_signer(serial, pem) if b"BEGIN CERTIFICATE" in pem else Signer(public_key(pem))


def certificate_signer(serial: str, pem: bytes) -> Signer:
    """The key of a certificate with its days.  ValueError, one sentence, for another serial or a key that proves nothing."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        key = certificate.public_key()
    except (ValueError, TypeError):
        raise ValueError("the platform certificate cannot be read") from None
    if serial.upper().lstrip("0") != f"{certificate.serial_number:X}":
        raise ValueError(f"the platform certificate's serial is {certificate.serial_number:040X}, not {serial}")
    if not isinstance(key, RSAPublicKey) or key.key_size < KEY_BITS_MIN:
        raise ValueError("the platform certificate has a key that proves nothing")
    return Signer(key, certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp())


def proof_fault(signers: Mapping[str, Signer], reply: Reply, now_s: float) -> str:
    """As `wechat_bytes.proof_fault`, by `signers` from serial (capitals) to key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    def verify(serial: str, signature: bytes, text: bytes) -> str:
        signer = signers.get(serial.upper())
        if signer is None:
            return wire.KEY_DOUBT
        if not signer.since_s <= now_s <= signer.until_s:
            return wire.DAYS_DOUBT
        try:
            signer.key.verify(signature, text, PKCS1v15(), SHA256())
        except InvalidSignature:
            return wire.WRONG_DOUBT
        return ""
    return wire.proof_fault(reply, now_s=now_s, verify=verify)
