"""X25519: two public keys in the open, one secret at both ends.  Knows the curve; what is made of the secret is not its business.

Source: RFC 7748.
"""

from __future__ import annotations


class Agreement:
    """Our half of one agreement: a fresh key pair, or the pair of `private`, 32 bytes.  ValueError for anything else."""

    def __init__(self, private: bytes = b"") -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._private = X25519PrivateKey.from_private_bytes(private) if private else X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    @property
    def private(self) -> bytes:
        return self._private.private_bytes_raw()

    def shared(self, theirs: bytes) -> bytes:
        """The common secret, 32 bytes.  ValueError for no public key, or one of low order: anybody would know the secret."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

        return self._private.exchange(X25519PublicKey.from_public_bytes(theirs))
