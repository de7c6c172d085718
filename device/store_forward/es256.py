"""Checks an ES256 signature with a public key.  Knows no record, no file and no private key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from device.store_forward.token import SIGNATURE_BYTES, unb64

VerifyFn = Callable[[bytes, bytes], bool]


def public_verifier(jwk: dict[str, Any]) -> VerifyFn:
    """A function (signing input, raw 64-byte signature) -> True when the key of `jwk` made it.

    ValueError with one sentence when `jwk` is not a public EC key on P-256, or holds the private half.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    x, y = _point(jwk)
    try:
        key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise ValueError("the key is no point of P-256") from None
    algorithm = ec.ECDSA(hashes.SHA256())

    def verify(signing_input: bytes, signature: bytes) -> bool:
        if len(signature) != SIGNATURE_BYTES:
            return False
        half = SIGNATURE_BYTES // 2
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        try:
            key.verify(encode_dss_signature(r, s), signing_input, algorithm)
        except InvalidSignature:
            return False
        return True

    return verify


def _point(jwk: dict[str, Any]) -> tuple[int, int]:
    if not isinstance(jwk, dict) or jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
        raise ValueError("the key is not an EC key on P-256")
    if "d" in jwk:
        raise ValueError("the key holds its private half, which belongs nowhere but in the signer")
    try:
        x, y = unb64(jwk["x"]), unb64(jwk["y"])
    except (KeyError, TypeError, ValueError):
        raise ValueError("the key's x or y is not base64url") from None
    if len(x) != 32 or len(y) != 32:
        raise ValueError("the key's x or y is not 32 bytes long")
    return int.from_bytes(x, "big"), int.from_bytes(y, "big")
