"""The record key in a file, mode 0600.  Knows how to make, guard and use it; knows nothing of what it signs.

Whoever reads the file can sign as this box: a chip is better, and this is what a box without one has.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from device.errors import DriverGone, KeyMissing
from device.store_forward.token import b64, seal, signing_input, thumbprint
from device.txn.effects import Effect, SignRecord
from device.txn.inputs import Input, Signed

KEY_BYTES_MAX = 4096                     # a P-256 key in PEM takes 241


class FileSigner:
    """Signs records with an EC P-256 key kept in `path` (PEM, PKCS #8).

    `kid` is the key that the journal names: KeyMissing when the file is gone or holds another one.  Without it the journal
    is new, and a missing key is made.  DriverGone, with one sentence, when the file may be read by others, is not ours, or
    holds another kind of key; a file that cannot be used is never replaced.  Signatures are deterministic (RFC 6979), so a
    repeated request gives the same token, and take about 50 us: they run in the loop.
    """

    does: frozenset[type[Effect]] = frozenset({SignRecord})
    at_once = 1

    def __init__(self, path: str | Path, kid: str = "") -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        self._numbers_of = decode_dss_signature
        self._path = Path(path)
        self._key = _load(self._path, kid)
        self._algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        numbers = self._key.public_key().public_numbers()
        self._jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")),
                     "y": b64(numbers.y.to_bytes(32, "big"))}
        self._kid = thumbprint(self._jwk)
        if kid and self._kid != kid:
            raise _missing(f"The key file {self._path} holds key {self._kid}, and the journal's records are signed with {kid}.")
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
        assert isinstance(effect, SignRecord), effect
        return Signed(effect.seq, self.sign(effect.payload))

    def sign(self, payload: bytes) -> str:
        """The token of `payload`."""
        to_sign = signing_input(self._kid, payload)
        r, s = self._numbers_of(self._key.sign(to_sign, self._algorithm))
        return seal(to_sign, r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    async def close(self) -> None:
        """End `inputs`; no file is held open."""
        self._closed.set()


def _load(path: Path, kid: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        pem = _read(path)
        if pem is None and kid:
            raise _missing(f"The key file {path} is gone, and the journal's records are signed with its key {kid}.")
        if pem is None:
            _make(path)
            pem = _read(path)
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


def _read(path: Path) -> bytes | None:
    """The file's bytes, or None when there is none.  Its mode is asked of the open file: no gap for a swap."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            raise _gone(f"The key file {path} is not a plain file.", "name a file")
        if about.st_mode & 0o077:
            raise _gone(f"The key file {path} may be read by others (mode {about.st_mode & 0o777:04o}).", f"chmod 600 {path}")
        if about.st_uid not in (os.geteuid(), 0):
            raise _gone(f"The key file {path} belongs to another user.", f"chown it to the user of the service: {path}")
        return os.read(fd, KEY_BYTES_MAX)
    finally:
        os.close(fd)


def _make(path: Path) -> None:
    """A fresh key under `path`, whole or not at all; a key that appeared meanwhile stays."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(fd, pem)
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(draft, path)         # refuses to replace, which a rename would do
        except FileExistsError:
            pass
    finally:
        os.unlink(draft)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _missing(what: str) -> KeyMissing:
    return KeyMissing(what, which="signer", hint="put that key back; when it is lost for good, see docs/recovery.md", again=False)


def _gone(what: str, hint: str) -> DriverGone:
    return DriverGone(what, which="signer", hint=hint, again=False)
