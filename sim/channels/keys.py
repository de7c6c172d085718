"""Throw-away keys for local channel servers: made in memory, worth nothing, never written down.

Knows RSA pairs, self-signed certificates and WeChat's sealing.  Refuses to know any real account.
"""

from __future__ import annotations

import base64
import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID


class KeyPair(msgspec.Struct, frozen=True):
    """An RSA pair with a certificate over it.

    `serial_no` is the certificate's serial as 40 upper-case hex digits, the form WeChat shows it in.
    """

    private_pem: bytes
    public_pem: bytes
    certificate_pem: bytes
    serial_no: str


class Platform(msgspec.Struct, frozen=True):
    """What WeChat Pay signs with: a public key named `key_id` (PUB_KEY_ID_...), and an older platform certificate."""

    key_id: str
    public: KeyPair
    certificate: KeyPair

    def public_keys(self) -> dict[str, bytes]:
        """Both keys by the serial that replies name them with, as a client holds them while a merchant moves."""
        return {self.key_id: self.public.public_pem, self.certificate.serial_no: self.certificate.public_pem}


def key_pair(name: str, *, begun: datetime.datetime | None = None, bits: int = 2048) -> KeyPair:
    """A fresh pair; the certificate is self-signed for `name` and lives five years from `begun`, by default from yesterday."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    begun = begun or datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    serial = x509.random_serial_number() | 1 << 158        # full width, so that the hex form has 40 digits
    certificate = (x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(private.public_key())
                   .serial_number(serial).not_valid_before(begun).not_valid_after(begun + datetime.timedelta(days=5 * 365))
                   .sign(private, SHA256()))
    return KeyPair(
        private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                              serialization.NoEncryption()),
        private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        certificate.public_bytes(serialization.Encoding.PEM),
        f"{serial:040X}")


def platform(*, begun: datetime.datetime | None = None, bits: int = 2048) -> Platform:
    """Fresh platform keys for both modes; `begun` as of `key_pair`, `bits` of the public key."""
    public = key_pair("Local WeChat Pay public key", bits=bits)
    return Platform(f"PUB_KEY_ID_{int(public.serial_no, 16) % 10 ** 34:034d}", public,
                    key_pair("Local WeChat Pay platform", begun=begun))


def seal(text: bytes, *, api_v3_key: bytes, nonce: str, associated_data: str) -> str:
    """AES-256-GCM as WeChat seals certificates and notices: base64 of ciphertext and tag.

    `api_v3_key` 32 bytes, `nonce` 12 ASCII characters.
    """
    return base64.b64encode(AESGCM(api_v3_key).encrypt(nonce.encode(), text, associated_data.encode())).decode("ascii")
