"""The record key in a file, mode 0600.  Knows how to make, guard and use it; knows nothing of what it signs.

Whoever reads the file can sign as this box: a chip is better, and this is what a box without one has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from device.drivers import private_file
from device.errors import DriverGone, KeyMissing
from device.store_forward.token import b64, seal, signing_input, thumbprint
from device.txn.effects import Effect, SignRecord, TrySigner
from device.txn.inputs import DeviceSaid, Input, Signed

TRIAL = b"tillbox: can you sign?"        # no token begins like this, so what signs it signs nothing
KEY_BYTES_MAX = 4096                     # a P-256 key in PEM takes 241


class FileSigner:
    """Signs records with an EC P-256 key kept in `path` (PEM, PKCS #8).

    `kid` is the key that the journal names: KeyMissing when the file is gone or holds another one.  Without it the journal
    is new, and a missing key is made, where `make` says so.  DriverGone, with one sentence, when the file may be read by
    others, is not ours, or holds another kind of key; a file that cannot be used is never replaced.  Signatures are
    deterministic (RFC 6979), so a repeated request gives the same token, and take about 50 us: they run in the loop.
    """

    does: frozenset[type[Effect]] = frozenset({SignRecord, TrySigner})
    at_once = 1

    def __init__(self, path: str | Path, kid: str = "", *, make: bool = True) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        self._numbers_of = decode_dss_signature
        self._path = Path(path)
        self._key = _load(self._path, kid, make)
        self._algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        numbers = self._key.public_key().public_numbers()
        self._jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")),
                     "y": b64(numbers.y.to_bytes(32, "big"))}
        self._kid = thumbprint(self._jwk)
        if kid and self._kid != kid:
            raise missing(f"The key file {self._path} holds key {self._kid}, and the journal's records are signed with {kid}.")
        self._closed = asyncio.Event()

    @property
    def kid(self) -> str:
        """Thumbprint of the public key, as it stands in every header."""
        return self._kid

    @property
    def jwk(self) -> dict[str, str]:
        """The public half, with its `kid`."""
        return {**self._jwk, "kid": self._kid}

    async def inputs(self) -> AsyncIterator[Input]:
        """Says nothing unasked; ends when closed."""
        await self._closed.wait()
        for nothing in ():
            yield nothing

    async def do(self, effect: Effect) -> Input:
        """Sign the payload of one record.  TokenError TOO_LONG for a payload that makes no legal token."""
        if isinstance(effect, TrySigner):
            self.signature(TRIAL)
            return DeviceSaid("signer", "ok")
        assert isinstance(effect, SignRecord), effect
        return Signed(effect.seq, self.sign(effect.payload))

    def sign(self, payload: bytes) -> str:
        """The token of `payload`."""
        to_sign = signing_input(self._kid, payload)
        return seal(to_sign, self.signature(to_sign))

    def signature(self, to_sign: bytes) -> bytes:
        """64 raw bytes, r and s, over the signing input of any token of this box."""
        r, s = self._numbers_of(self._key.sign(to_sign, self._algorithm))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    async def close(self) -> None:
        """End `inputs`; no file is held open."""
        self._closed.set()


def _load(path: Path, kid: str, make: bool) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        pem = private_file.read(path, KEY_BYTES_MAX, which="signer")
        if pem is None and kid:
            raise missing(f"The key file {path} is gone, and the journal's records are signed with its key {kid}.")
        if pem is None and not make:
            raise _gone(f"There is no record key at {path}.", "a new journal makes one; for another, see docs/recovery.md")
        if pem is None:
            _make(path)
            pem = private_file.read(path, KEY_BYTES_MAX, which="signer")
    except OSError as error:
        raise _gone(f"The key file {path} cannot be used: {error.strerror}.", "check the path and its folder") from None
    assert pem is not None
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _gone(f"The key file {path} holds no readable PEM key.", "put the right file back; it is never replaced") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise _gone(f"The key in {path} is not an EC key on P-256.", "records are signed with ES256 only")
    return key


def _make(path: Path) -> None:
    """A fresh key under `path`."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private_file.make(path, ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def missing(what: str) -> KeyMissing:
    return KeyMissing(what, which="signer", hint="put that key back; when it is lost for good, see docs/recovery.md", again=False)


def _gone(what: str, hint: str) -> DriverGone:
    return DriverGone(what, which="signer", hint=hint, again=False)
