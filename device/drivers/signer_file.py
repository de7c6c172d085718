"""The record key in a file, mode 0600.  Knows how to make, guard and use it; knows nothing of what it signs.

Whoever reads the file can sign as this box: a chip is better, and this is what a box without one has.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

from device.drivers import private_file
from device.errors import DriverGone, KeyMissing
from device.store_forward.token import b64, seal, signing_input, thumbprint
from device.txn.effects import DropKey, Effect, MakeKey, SignReceipt, SignRecord, TrySigner
from device.txn.inputs import DeviceSaid, Input, KeyGone, KeyReady, ReceiptSigned, Signed

log = logging.getLogger("tillbox")

TRIAL = b"tillbox: can you sign?"        # no token begins like this, so what signs it signs nothing
KEY_BYTES_MAX = 4096                     # a P-256 key in PEM takes 241


class FileSigner:
    """Signs records with an EC P-256 key kept in `path` (PEM, PKCS #8).

    `kid` is the key that the journal names: KeyMissing when the file is gone or holds another one.  Without it the journal
    is new, and a missing key is made, where `make` says so.  DriverGone, with one sentence, when the file may be read by
    others, is not ours, or holds another kind of key; a file that cannot be used is never replaced.  Signatures are
    deterministic (RFC 6979), so a repeated request gives the same token, and take about 50 us: they run in the loop.
    """

    does: frozenset[type[Effect]] = frozenset({SignRecord, SignReceipt, TrySigner, MakeKey, DropKey})
    at_once = 1

    def __init__(self, path: str | Path, kid: str = "", *, make: bool = True) -> None:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        self._numbers_of = decode_dss_signature
        self._path = Path(path)
        self._next = self._path.with_name(self._path.name + ".next")
        self._algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        self._closed = asyncio.Event()
        pem = _pem(self._path)
        if pem is None and not kid and not make:
            raise _gone(f"There is no record key at {path}.", "a new journal makes one; for another, see docs/recovery.md")
        if pem is None and not kid:
            pem = _made(self._path)
        self._use(_Key(self._path, pem) if pem is not None else None, kid)

    def _use(self, key: _Key | None, kid: str) -> None:
        """Sign under `kid` from now on: the key in the file, or the one made to follow it."""
        if key is None or (kid and key.kid != kid):
            pem = _pem(self._next)
            follows = _Key(self._next, pem) if pem is not None else None
            if follows is None or follows.kid != kid:
                raise missing(f"The key file {self._path} is gone, and the journal's records are signed with its key {kid}."
                              if key is None else
                              f"The key file {self._path} holds key {key.kid}, and the journal's records are signed with {kid}.")
            key = follows
        self._key = key

    @property
    def kid(self) -> str:
        """Thumbprint of the public key, as it stands in every header."""
        return self._key.kid

    @property
    def jwk(self) -> dict[str, str]:
        """The public half, with its `kid`."""
        return {**self._key.jwk, "kid": self.kid}

    async def inputs(self) -> AsyncIterator[Input]:
        """Says nothing unasked; ends when closed."""
        await self._closed.wait()
        for nothing in ():
            yield nothing

    async def do(self, effect: Effect) -> Input:
        """Sign the payload of one record, see whether that works, make the next key or destroy the last one.

        TokenError TOO_LONG for a payload that makes no legal token.
        """
        match effect:
            case SignRecord():
                if effect.kid and effect.kid != self.kid:
                    self._turn(effect.kid)
                return Signed(effect.seq, self.sign(effect.payload))
            case SignReceipt():
                if effect.kid and effect.kid != self.kid:
                    self._turn(effect.kid)
                return ReceiptSigned(effect.order_no, self.sign(effect.payload))
            case TrySigner():
                self.signature(TRIAL)
                return DeviceSaid("signer", "ok")
            case MakeKey():
                try:
                    return self._follow()
                except DriverGone as why:              # the key in use signs all the same
                    log.error("the record key cannot be changed: %s", why)
                    return KeyReady("", "", why.what)
        assert isinstance(effect, DropKey), effect
        try:
            return self._drop(effect)
        except DriverGone as why:
            log.error("the old record key cannot be destroyed: %s", why)
            return KeyGone("", why.what)

    def sign(self, payload: bytes) -> str:
        """The token of `payload`."""
        to_sign = signing_input(self.kid, payload)
        return seal(to_sign, self.signature(to_sign))

    def signature(self, to_sign: bytes) -> bytes:
        """64 raw bytes, r and s, over the signing input of any token of this box."""
        r, s = self._numbers_of(self._key.private.sign(to_sign, self._algorithm))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    async def close(self) -> None:
        """End `inputs`; no file is held open."""
        self._closed.set()

    def _turn(self, kid: str) -> None:
        try:
            pem = _pem(self._path)
            self._use(_Key(self._path, pem) if pem is not None else None, kid)
        except KeyMissing as why:
            raise _gone(why.what, why.hint) from None

    def _follow(self) -> KeyReady:
        """The key that follows this one; one that was made for it before is taken."""
        pem = _pem(self._next)
        made = _Key(self._next, pem if pem is not None else _made(self._next))
        return KeyReady(made.kid, json.dumps(made.jwk))

    def _drop(self, effect: DropKey) -> KeyGone:
        """One rename puts the new key in the old one's place: before it both are there, after it the new one alone."""
        pem, follows = _pem(self._path), _pem(self._next)
        if follows is not None and _Key(self._next, follows).kid == effect.then and pem is not None:
            if _Key(self._path, pem).kid == effect.kid:
                try:
                    os.replace(self._next, self._path)
                    private_file.sync_folder(self._path.parent)
                except OSError as error:
                    raise _gone(f"The key file {self._path} cannot be replaced: {error.strerror}.", "look at the card") from None
        if self.kid == effect.kid:
            self._turn(effect.then)
        return KeyGone(effect.kid)


class _Key:
    """The P-256 key in `pem`, which came from `path`.  DriverGone for anything else."""

    def __init__(self, path: Path, pem: bytes) -> None:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        try:
            key = load_pem_private_key(pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _gone(f"The key file {path} holds no readable PEM key.",
                        "put the right file back; it is never replaced") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise _gone(f"The key in {path} is not an EC key on P-256.", "records are signed with ES256 only")
        numbers = key.public_key().public_numbers()
        self.private = key
        self.jwk = {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32, "big")), "y": b64(numbers.y.to_bytes(32, "big"))}
        self.kid = thumbprint(self.jwk)


def _pem(path: Path) -> bytes | None:
    try:
        return private_file.read(path, KEY_BYTES_MAX, which="signer")
    except OSError as error:
        raise _unusable(path, error) from None


def _made(path: Path) -> bytes:
    """A fresh key under `path`, or the one that appeared there meanwhile."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    try:
        private_file.make(path, ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    except OSError as error:
        raise _unusable(path, error) from None
    pem = _pem(path)
    assert pem is not None
    return pem


def missing(what: str) -> KeyMissing:
    return KeyMissing(what, which="signer", hint="put that key back; when it is lost for good, see docs/recovery.md", again=False)


def _gone(what: str, hint: str) -> DriverGone:
    return DriverGone(what, which="signer", hint=hint, again=False)


def _unusable(path: Path, error: OSError) -> DriverGone:
    return _gone(f"The key file {path} cannot be used: {error.strerror}.", "check the path and its folder")
