"""An SSH signature over a challenge, by a key that a short-lived certificate of the fleet's CA vouches for.

Made with stock OpenSSH: `ssh-keygen -Y sign -n tillbox-console -f KEY-cert.pub`, beside KEY.  The certificate's key
id is the technician's name; its principals say where: the box's name up to level `work`, `BOX.full` for `full`.  Refuses
certificates that live longer than a day, keys other than Ed25519 and ECDSA on P-256.
Sources: OpenSSH PROTOCOL.sshsig, PROTOCOL.certkeys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

from device.console.challenge import NAMESPACE, Challenge

BEGIN, END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
LINES_MAX = 40
LIFE_S_MAX = 24 * 3600
_MAGIC, _P256 = b"SSHSIG", b"ecdsa-sha2-nistp256"
_HASHES = {b"sha256": hashlib.sha256, b"sha512": hashlib.sha512}


def accepted(armored: str, challenge: Challenge, ca: str, now_s: float) -> None:
    """Returns when the signature answers the challenge; ValueError, one sentence, when not.  `ca` an OpenSSH public key."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        SSHCertificate,
        SSHCertificateType,
        load_ssh_public_identity,
    )
    from cryptography.hazmat.primitives.serialization.ssh import load_ssh_public_key

    public, hash_name, signature = _opened(armored)
    kind = _string(public, 0)[0]
    if not kind.endswith(b"-cert-v01@openssh.com"):
        raise ValueError("it is made by a bare key: sign with -f KEY-cert.pub, a certificate of the fleet's CA")
    try:
        cert = load_ssh_public_identity(kind + b" " + base64.b64encode(public))
        authority = load_ssh_public_key(ca.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError) as why:
        raise ValueError(f"the certificate or the CA's key cannot be read: {type(why).__name__}") from None
    assert isinstance(cert, SSHCertificate), kind
    try:
        cert.verify_cert_signature()
        key, signed_by = cert.public_key(), cert.signature_key()
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm, NotImplementedError):
        raise ValueError("the certificate's own signature is wrong") from None
    if signed_by != authority:
        raise ValueError("the certificate is of another CA than console.ssh_ca")
    if cert.type is not SSHCertificateType.USER or cert.critical_options:
        raise ValueError("it is no plain user certificate")
    if not cert.valid_after <= now_s < cert.valid_before:
        raise ValueError("the certificate is not valid now, by this box's clock")
    if cert.valid_before - cert.valid_after > LIFE_S_MAX:
        raise ValueError("the certificate lives longer than a day: a visit's lives for half an hour")
    if cert.key_id.decode("utf-8", "replace") != challenge.who:
        raise ValueError("the certificate is another person's than the name that was typed")
    place = challenge.box + (".full" if challenge.level == "full" else "")
    if place.encode() not in cert.valid_principals:
        raise ValueError(f"the certificate is not for {place}")
    _proven(key, signature, _signed(hash_name, challenge.signed_text()))


def _opened(armored: str) -> tuple[bytes, bytes, bytes]:
    """Public key, hash and signature of an armored signature in our namespace."""
    body = armored.replace(BEGIN, "").replace(END, "")
    try:
        raw = base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error:
        raise ValueError("the signature is cut or mistyped") from None
    if raw[:6] != _MAGIC or raw[6:10] != b"\0\0\0\x01":
        raise ValueError("it is no SSH signature")
    public, at = _string(raw, 10)
    namespace, at = _string(raw, at)
    reserved, at = _string(raw, at)
    hash_name, at = _string(raw, at)
    signature, at = _string(raw, at)
    if at != len(raw) or reserved:
        raise ValueError("the signature holds more than a signature")
    if namespace != NAMESPACE.encode():
        raise ValueError(f"it is made for another use: sign with -n {NAMESPACE}")
    if hash_name not in _HASHES:
        raise ValueError("it names a hash that is not taken")
    return public, hash_name, signature


def _signed(hash_name: bytes, message: bytes) -> bytes:
    digest = _HASHES[hash_name](message).digest()
    return _MAGIC + b"".join(len(part).to_bytes(4, "big") + part for part in (NAMESPACE.encode(), b"", hash_name, digest))


def _proven(key: Any, signature: bytes, told: bytes) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    name, at = _string(signature, 0)
    raw, end = _string(signature, at)
    whole = end == len(signature)
    try:
        if isinstance(key, ed25519.Ed25519PublicKey) and name == b"ssh-ed25519" and whole:
            key.verify(raw, told)
        elif isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1) and whole and name == _P256:
            r, at = _string(raw, 0)
            s, end = _string(raw, at)
            if end != len(raw):
                raise InvalidSignature
            key.verify(encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big")), told, ec.ECDSA(hashes.SHA256()))
        else:
            raise ValueError("the key is neither Ed25519 nor ECDSA on P-256")
    except InvalidSignature:
        raise ValueError("the signature is not over this challenge") from None


def _string(raw: bytes, at: int) -> tuple[bytes, int]:
    size = int.from_bytes(raw[at:at + 4], "big")
    end = at + 4 + size
    if len(raw) < at + 4 or end > len(raw):
        raise ValueError("the signature is cut or mistyped")
    return raw[at + 4:end], end
