"""RSA keys of a payment channel, from PEM.  Knows what makes a key usable; no file, no channel, no message."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey


def private_key(pem: bytes) -> RSAPrivateKey:
    """Our own key, proven by one signature.  ValueError, one sentence, when `pem` holds none, or one that does not sign or is
    not whole.

    The library's own check looks for primes, which costs 60 ms of every start and lets a key of another kind pass.  A signature
    alone lets damage pass, for OpenSSL signs round a part that is wrong: so its numbers are held against each other, for 20 us.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError("the private key is locked with a password, which nobody types at a start: write it without one "
                         "(openssl pkey -in OLD -out NEW), for its owner's eyes alone") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the private key file holds no readable PEM key") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("the private key is not an RSA key")
    try:
        key.public_key().verify(key.sign(b"tillbox", PKCS1v15(), SHA256()), b"tillbox", PKCS1v15(), SHA256())
    except (ValueError, InvalidSignature):
        raise ValueError("the private key is damaged: what it signs does not hold") from None
    if not _whole(key):
        raise ValueError("the private key is damaged: its numbers do not belong together") from None
    return key


def _whole(key: RSAPrivateKey) -> bool:
    """True when every number that a key file repeats is the one it repeats.  Source: RFC 8017, section 3.2."""
    try:
        n = key.private_numbers()
    except ValueError:
        return False
    p, q, d, e = n.p, n.q, n.d, n.public_numbers.e
    return (p * q == n.public_numbers.n and d * e % (p - 1) == 1 and d * e % (q - 1) == 1
            and n.dmp1 == d % (p - 1) and n.dmq1 == d % (q - 1) and n.iqmp * q % p == 1)


def public_key(pem: bytes) -> RSAPublicKey:
    """The other side's key.  ValueError, one sentence, when `pem` holds none."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the public key file holds no readable PEM public key") from None
    if not isinstance(key, RSAPublicKey):
        raise ValueError("the public key is not an RSA key")
    return key
