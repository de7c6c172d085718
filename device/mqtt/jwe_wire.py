"""A secret on its way to one box: JWE compact, ECDH-ES with A256GCM on P-256 (RFC 7516, RFC 7518 section 4.6).

Knows this one combination and refuses every other; keys and randomness are handed in.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from device.store_forward.token import b64, unb64

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

JWE_MAX_BYTES = 16 * 1024
IV_BYTES, TAG_BYTES = 12, 16
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,2048}\.\.[A-Za-z0-9_-]{16}\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]{22}")


def jwe_encrypted(secret: bytes, to: EllipticCurvePublicKey, ephemeral: EllipticCurvePrivateKey, iv: bytes) -> str:
    """`secret` for the holder of `to`.  `ephemeral` a fresh P-256 key, `iv` 12 fresh random bytes: both for this one token."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDH
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    assert len(iv) == IV_BYTES, len(iv)
    mine = ephemeral.public_key().public_numbers()
    epk = {"kty": "EC", "crv": "P-256", "x": b64(mine.x.to_bytes(32, "big")), "y": b64(mine.y.to_bytes(32, "big"))}
    head = b64(json.dumps({"alg": "ECDH-ES", "enc": "A256GCM", "epk": epk}, separators=(",", ":")).encode())
    key = _derived(ephemeral.exchange(ECDH(), to))
    sealed = AESGCM(key).encrypt(iv, secret, head.encode())
    return f"{head}..{b64(iv)}.{b64(sealed[:-TAG_BYTES])}.{b64(sealed[-TAG_BYTES:])}"


def jwe_decrypted(token: str, key: EllipticCurvePrivateKey) -> bytes:
    """What was encrypted to `key`.  ValueError, one sentence that tells nothing of the secret, for anything else."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.ec import ECDH, SECP256R1, EllipticCurvePublicNumbers
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if len(token) > JWE_MAX_BYTES or not _TOKEN.fullmatch(token):
        raise ValueError("it is no compact JWE with a direct key")
    head, _, iv, sealed, tag = token.split(".")
    try:
        header: Any = json.loads(unb64(head))
        epk = header["epk"]
        if set(header) != {"alg", "enc", "epk"} or (header["alg"], header["enc"]) != ("ECDH-ES", "A256GCM"):
            raise ValueError
        if set(epk) != {"kty", "crv", "x", "y"} or (epk["kty"], epk["crv"]) != ("EC", "P-256"):
            raise ValueError
        x, y = (int.from_bytes(_32(epk[part]), "big") for part in ("x", "y"))
        theirs = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()      # ValueError for a point off the curve
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("its header is not ECDH-ES, A256GCM with a P-256 key and nothing else") from None
    try:
        return AESGCM(_derived(key.exchange(ECDH(), theirs))).decrypt(unb64(iv), unb64(sealed) + unb64(tag), head.encode())
    except (InvalidTag, ValueError):
        raise ValueError("it is damaged, or was made for another box") from None


def _derived(shared: bytes) -> bytes:
    # Concat KDF, one round of SHA-256: algorithm, no party information, 256 bits.
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (b"A256GCM", b"", b"")) + (256).to_bytes(4, "big")
    return hashlib.sha256((1).to_bytes(4, "big") + shared + info).digest()


def _32(text: str) -> bytes:
    raw = unb64(text)
    if len(raw) != 32:
        raise ValueError
    return raw
