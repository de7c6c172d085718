"""The record key in a file, mode 0600.  Knows how to make, guard and use it; knows nothing of what it signs.

Whoever reads the file can sign as this box: a chip is better, and this is what a box without one has.
"""

from __future__ import annotations

import asyncio
import binascii
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from device.drivers import private_file
from device.errors import DriverGone, KeyMissing
from device.store_forward.token import b64, seal, signing_input, thumbprint
from device.txn.effects import DropKey, Effect, MakeKey, SignReceipt, SignRecord, TrySigner
from device.txn.inputs import DeviceSaid, Input, KeyGone, KeyReady, ReceiptSigned, Signed

log = logging.getLogger("tillbox")

TRIAL = b"tillbox: can you sign?"        # no token begins like this, so what signs it signs nothing
WARM_AFTER_S = 0.5                       # counted from the first time that anybody could sign
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
        self._path = Path(path)
        self._next = self._path.with_name(self._path.name + ".next")
        self._closed, self._loading = asyncio.Event(), asyncio.Lock()
        self._over_s = 0.0                           # when a start is over, by the loop's clock
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
        """Makes ready to sign, aside, once a start is over; `error` when that cannot be.  Ends when closed."""
        try:
            await self._readied()
        except DriverGone as why:
            yield DeviceSaid("signer", "error", why.what)
        await self._closed.wait()

    async def _readied(self) -> None:
        """What signs is at hand.  DriverGone.  A start signs nothing, so it is loaded when that is over, and by a thread."""
        if self._key.loaded or "cryptography" in sys.modules:
            self._key.load()
            return
        loop = asyncio.get_running_loop()
        self._over_s = self._over_s or loop.time() + WARM_AFTER_S
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), self._over_s - loop.time())
        if not self._closed.is_set():
            async with self._loading:
                await asyncio.to_thread(self._key.load)

    async def do(self, effect: Effect) -> Input:
        """Sign the payload of one record, see whether that works, make the next key or destroy the last one.

        TokenError TOO_LONG for a payload that makes no legal token.
        """
        match effect:
            case SignRecord():
                if effect.kid and effect.kid != self.kid:
                    self._turn(effect.kid)
                await self._readied()
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
        return self._key.signature(to_sign)

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
        return KeyReady(made.kid, msgspec.json.encode(made.jwk).decode())

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
    """The P-256 key in `pem`, which came from `path`.  DriverGone for anything else.

    Written as this box writes one, its public half is read off the bytes, and the library that signs is loaded by the first
    signature: a start names the key and signs nothing.  DriverGone then, when the private half is not that of the public one.
    """

    def __init__(self, path: Path, pem: bytes) -> None:
        self._path, self._pem = path, pem
        point = _public_point(pem)
        self._sign = self._loaded() if point is None else None
        if point is not None:
            self._name(point)

    def signature(self, to_sign: bytes) -> bytes:
        """64 raw bytes, r and s."""
        return (self._sign or self.load())(to_sign)

    @property
    def loaded(self) -> bool:
        return self._sign is not None

    def load(self) -> Callable[[bytes], bytes]:
        """Have at hand what signs.  DriverGone."""
        if self._sign is None:
            self._sign, self._pem = self._loaded(), b""
        return self._sign

    def _name(self, point: bytes) -> None:
        self.jwk = {"kty": "EC", "crv": "P-256", "x": b64(point[:32]), "y": b64(point[32:])}
        self.kid = thumbprint(self.jwk)
        self._point = point

    def _loaded(self) -> Callable[[bytes], bytes]:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
        try:
            key = load_pem_private_key(self._pem, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _gone(f"The key file {self._path} holds no readable PEM key.",
                        "put the right file back; it is never replaced") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
            raise _gone(f"The key in {self._path} is not an EC key on P-256.", "records are signed with ES256 only")
        numbers = ec.derive_private_key(key.private_numbers().private_value, ec.SECP256R1()).public_key().public_numbers()
        point = numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        if getattr(self, "_point", point) != point:
            raise _gone(f"The key file {self._path} is spoilt: its two halves are not of one key.",
                        "put the right file back; it is never replaced")
        self._name(point)
        algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)

        def sign(to_sign: bytes) -> bytes:
            r, s = decode_dss_signature(key.sign(to_sign, algorithm))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return sign


# PKCS #8 of a P-256 key with its public half, as `_made` writes it: what stands around the two (RFC 5208, 5915, 5480).
_DER_HEAD = bytes.fromhex("308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420")
_DER_BETWEEN = bytes.fromhex("a14403420004")
_PEM_HEAD, _PEM_TAIL = b"-----BEGIN PRIVATE KEY-----", b"-----END PRIVATE KEY-----"


def _public_point(pem: bytes) -> bytes | None:
    """The 64 bytes of the public half, None for a key written in any other way."""
    lines = pem.split()
    if pem.split(b"\n")[:1] != [_PEM_HEAD] or pem.rstrip(b"\n")[-len(_PEM_TAIL):] != _PEM_TAIL:
        return None
    try:
        der = binascii.a2b_base64(b"".join(lines[3:-3]), strict_mode=True)
    except binascii.Error:
        return None
    at = len(_DER_HEAD) + 32
    fits = der.startswith(_DER_HEAD) and der[at:at + len(_DER_BETWEEN)] == _DER_BETWEEN and len(der) == at + len(_DER_BETWEEN) + 64
    return der[-64:] if fits else None


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
