"""The record key in a chip, or in SoftHSM2, behind PKCS#11.  Knows tokens, sessions and PINs; nothing of what it signs.

The private half is made inside and never leaves.  The hash is made here: SoftHSM2 and some chips know CKM_ECDSA, not
CKM_ECDSA_SHA256; what CKM_ECDSA gives is r and s, 64 raw bytes, as a token wants them.  One session stays open, for a login costs
some twenty signatures.  Calls into a module block and cannot be cancelled, so they have a thread of their own; one that gives no
answer in its time is a broken signer, and the till does not wait for it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import json
import logging
import queue
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from device.drivers import private_file
from device.drivers.signer.file import TRIAL, missing
from device.errors import DriverGone, KeyMissing
from device.store_forward.token import SIGNATURE_BYTES, b64, seal, signing_input, thumbprint
from device.txn.effects import DropKey, Effect, MakeKey, SignReceipt, SignRecord, TrySigner
from device.txn.inputs import DeviceSaid, Input, KeyGone, KeyReady, ReceiptSigned, Signed

log = logging.getLogger("tillbox")

ANSWER_S = 10.0                          # the slowest chip we know takes 0.7 s for a signature
PIN_BYTES_MAX = 256
CURVE = bytes.fromhex("06082a8648ce3d030107")          # the object identifier of P-256, DER
POINT = bytes.fromhex("044104")                        # an octet string that holds an uncompressed point


class _Pair(NamedTuple):
    """A key pair of the token; the handles are those of the open session."""

    jwk: dict[str, str]
    public: Any
    private: Any


class Pkcs11Signer:
    """Signs records with a P-256 key labelled `label` in the token labelled `token` of the PKCS#11 `module`.

    `pin_file` is read at every login (mode 0600, ours); `refused_file` remembers a wrong PIN over starts.  `kid` is the key that
    the journal names: KeyMissing when the token is there and does not hold it.  A token that is not there, or does not answer
    within `answer_s`, breaks the signer and not the till: sales go on, and it is tried again.  Without `kid` the journal is
    new: a missing key is made, where `make` says so, and a token that cannot be used is a DriverGone.
    """

    does: frozenset[type[Effect]] = frozenset({SignRecord, SignReceipt, TrySigner, MakeKey, DropKey})
    at_once = 1

    def __init__(self, module: str, token: str, label: str, pin_file: str, kid: str = "", *, make: bool = True,
                 refused_file: str = "", answer_s: float = ANSWER_S) -> None:
        self._refused = _Refused(refused_file)
        self._module, self._token, self._label, self._pin_file = module, token, label, pin_file
        self._kid, self._make, self._answer_s = kid, make, answer_s
        self._library: Any = None
        self._session: Any = None
        self._pairs: dict[str, _Pair] = {}
        self._thread = _Thread()
        self._closed = asyncio.Event()
        try:
            self._wait(self._ready)
        except DriverGone as why:
            if not kid:
                raise
            log.error("%s; sales go on, and records wait for it", why)

    @property
    def kid(self) -> str:
        """Thumbprint of the public key, as it stands in every header."""
        return self._kid

    @property
    def jwk(self) -> dict[str, str]:
        """The public half, with its `kid`.  DriverGone while the token is away."""
        return {**self._wait(lambda: self._pair().jwk), "kid": self._kid}

    async def inputs(self) -> AsyncIterator[Input]:
        """Says nothing unasked; ends when closed."""
        await self._closed.wait()
        nothing: tuple[Input, ...] = ()
        for said in nothing:
            yield said

    async def do(self, effect: Effect) -> Input:
        """Sign the payload of one record, see whether that works, make the next key or destroy the last one.

        DriverGone, one sentence without a secret, when the token is gone, says an error twice, or does not answer in its time.
        """
        match effect:
            case SignRecord():
                self._kid = effect.kid or self._kid
                to_sign = signing_input(self._kid, effect.payload)
                return Signed(effect.seq, seal(to_sign, await self._soon(lambda: self._signature(to_sign))))
            case SignReceipt():
                self._kid = effect.kid or self._kid
                to_sign = signing_input(self._kid, effect.payload)
                return ReceiptSigned(effect.order_no, seal(to_sign, await self._soon(lambda: self._signature(to_sign))))
            case TrySigner():
                await self._soon(lambda: self._signature(TRIAL))
                return DeviceSaid("signer", "ok")
            case MakeKey():
                try:
                    return await self._soon(self._follow)
                except DriverGone as why:              # the key in use signs all the same
                    log.error("the record key cannot be changed: %s", why)
                    return KeyReady("", "", why.what)
        assert isinstance(effect, DropKey), effect
        try:
            return await self._soon(lambda: self._destroy(effect))
        except DriverGone as why:
            log.error("the old record key cannot be destroyed: %s", why)
            return KeyGone("", why.what)

    def sign(self, payload: bytes) -> str:
        """The token of `payload`; blocks."""
        to_sign = signing_input(self._kid, payload)
        return seal(to_sign, self.signature(to_sign))

    def signature(self, to_sign: bytes) -> bytes:
        """64 raw bytes, r and s, over the signing input of any token of this box; blocks.  DriverGone as `do`."""
        try:
            return self._wait(lambda: self._signature(to_sign))
        except KeyMissing as why:
            raise _gone(why.what, why.hint) from None

    async def close(self) -> None:
        """End `inputs` and the session."""
        self._closed.set()
        self._thread.end(self._drop)

    # In whose time

    def _wait(self, work: Callable[[], Any]) -> Any:
        begun = self._thread.begin(work)
        try:
            return begun.result(self._answer_s)
        except TimeoutError:
            begun.cancel()
            raise self._mute() from None

    async def _soon(self, work: Callable[[], Any]) -> Any:
        begun = self._thread.begin(work)
        try:
            async with asyncio.timeout(self._answer_s):
                return await asyncio.wrap_future(begun)
        except TimeoutError:
            raise self._mute() from None
        except KeyMissing as why:                      # another token was put there: at a start that stops the till
            raise _gone(why.what, why.hint) from None

    def _mute(self) -> DriverGone:
        return _gone(f"The token {self._token} does not answer.", "look at the chip and its line", again=True)

    # In the thread: the session, the key

    def _ready(self) -> None:
        """Open, with the journal's key at hand; a new journal's is made."""
        self._open()
        if self._kid:
            self._pair()
            return
        if len(self._pairs) > 1:
            raise _gone(f"The token {self._token} holds {len(self._pairs)} keys labelled {self._label}, and no journal says which.",
                        "name a label of its own for this journal's key")
        if not self._pairs and not self._make:
            raise _gone(f"The token {self._token} holds no key labelled {self._label}.", "a new journal makes one")
        self._kid = next(iter(self._pairs), "") or self._made()

    def _signature(self, to_sign: bytes) -> bytes:
        """A session that failed is opened once more before it is said."""
        import pkcs11
        hashed = hashlib.sha256(to_sign).digest()
        for last in (False, True):
            try:
                if self._session is None:
                    self._open()
                made = bytes(self._pair().private.sign(hashed, mechanism=pkcs11.Mechanism.ECDSA))
                if len(made) == SIGNATURE_BYTES:
                    return made
                raise _gone(f"The token {self._token} made a signature of {len(made)} bytes.", "ES256 has 64")
            except pkcs11.PKCS11Error as why:
                self._drop()
                if last:
                    raise self._failed(why) from None
            except (DriverGone, KeyMissing):
                self._drop()
                raise
        raise AssertionError

    def _pair(self) -> _Pair:
        """The journal's key.  KeyMissing when an open token does not hold it."""
        if self._session is None:
            self._open()
        found = self._pairs.get(self._kid)
        if found is None:
            held = f"holds {' and '.join(self._pairs)}" if self._pairs else "holds no key"
            raise missing(f"The token {self._token} {held} labelled {self._label}, and the journal's records are signed with "
                          f"{self._kid}.")
        return found

    def _open(self) -> None:
        """A session, logged in, and the keys of our label.  DriverGone."""
        pin = self._pin()
        try:
            import pkcs11
        except ImportError:
            raise _gone("python-pkcs11 is not installed.", "pip install 'tillbox[pkcs11]'") from None
        try:
            self._load(pkcs11)
            token = self._library.get_token(token_label=self._token)
            if token.flags & (pkcs11.TokenFlag.USER_PIN_LOCKED | pkcs11.TokenFlag.USER_PIN_FINAL_TRY):
                raise _gone(f"The token {self._token} has its PIN locked, or one try left.", "a person must log in, or reset it")
            self._session = token.open(rw=True, user_pin=pin)
            self._pairs = self._found()
        except pkcs11.PinIncorrect:
            self._refused.keep(pin)
            raise _gone(f"The token {self._token} refuses the PIN in {self._pin_file}.", "put the right PIN there") from None
        except pkcs11.PKCS11Error as why:
            self._drop()
            raise self._failed(why) from None

    def _load(self, pkcs11: Any) -> None:
        if self._library is None:
            try:
                self._library = pkcs11.lib(self._module)
            except pkcs11.PKCS11Error:
                raise _gone(f"The module {self._module} cannot be loaded.", "name signer.module in box.toml") from None
        self._library.reinitialize()                   # or it goes on seeing the tokens that were there

    def _found(self) -> dict[str, _Pair]:
        from pkcs11 import Attribute, KeyType, ObjectClass
        own = {Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: self._label}
        public_own, private_own = ({Attribute.CLASS: half, **own} for half in (ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY))
        publics = {bytes(key[Attribute.ID]): key for key in self._session.get_objects(public_own)}
        found = {}
        for private in self._session.get_objects(private_own):
            public = publics.get(bytes(private[Attribute.ID]))
            jwk = None if public is None or bytes(public[Attribute.EC_PARAMS]) != CURVE else _jwk(bytes(public[Attribute.EC_POINT]))
            if jwk is not None:
                found[thumbprint(jwk)] = _Pair(jwk, public, private)
        return found

    def _made(self) -> str:
        """A fresh pair under our label; its kid."""
        import pkcs11
        from pkcs11 import Attribute, KeyType
        try:
            curve = self._session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: CURVE}, local=True)
            curve.generate_keypair(store=True, id=secrets.token_bytes(16), label=self._label,
                                   private_template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False})
            before, self._pairs = set(self._pairs), self._found()
        except pkcs11.PKCS11Error as why:
            self._drop()
            raise self._failed(why) from None
        (kid,) = set(self._pairs) - before
        return kid

    def _follow(self) -> KeyReady:
        """The key that follows this one; one that was made for it before is taken."""
        self._pair()
        others = [kid for kid in self._pairs if kid != self._kid]
        if len(others) > 1:
            raise _gone(f"The token {self._token} holds {len(self._pairs)} keys labelled {self._label}, one of them is too many.",
                        "destroy those that no record names")
        kid = others[0] if others else self._made()
        return KeyReady(kid, json.dumps(self._pairs[kid].jwk))

    def _destroy(self, effect: DropKey) -> KeyGone:
        """The private half first: a public one alone is no key, and goes the next time."""
        import pkcs11
        from pkcs11 import Attribute, KeyType, ObjectClass
        if self._session is None:
            self._open()
        if effect.then not in self._pairs:
            raise _gone(f"The token {self._token} does not hold {effect.then}, which follows {effect.kid}.",
                        "put the right token back")
        try:
            if effect.kid in self._pairs:
                self._pairs[effect.kid].private.destroy()
            kept = {bytes(pair.private[Attribute.ID]) for kid, pair in self._pairs.items() if kid != effect.kid}
            own = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: KeyType.EC, Attribute.LABEL: self._label}
            for public in [key for key in self._session.get_objects(own) if bytes(key[Attribute.ID]) not in kept]:
                public.destroy()
            self._kid, self._pairs = effect.then, self._found()
        except pkcs11.PKCS11Error as why:
            self._drop()
            raise self._failed(why) from None
        return KeyGone(effect.kid)

    def _pin(self) -> str:
        held = private_file.read(self._pin_file, PIN_BYTES_MAX, which="signer")
        if held is None:
            raise _gone(f"There is no PIN file {self._pin_file}.", "name signer.pin_file in box.toml, mode 0600")
        try:
            pin = held.decode().strip()
        except UnicodeDecodeError:
            raise _gone(f"The PIN file {self._pin_file} holds no text.", "one line, the PIN") from None
        if self._refused.knows(pin):
            raise _gone(f"The token {self._token} refused the PIN in {self._pin_file} before.", "put the right PIN there")
        return pin

    def _failed(self, why: Exception) -> DriverGone:
        """By its class alone: what a module says may name anything."""
        name = type(why).__name__
        if name in ("NoSuchToken", "TokenNotPresent", "DeviceRemoved", "SlotIDInvalid"):
            return _gone(f"The token {self._token} is not there.", "look at the chip and its line", again=True)
        return _gone(f"The token {self._token} failed: {name}.", "see docs/keys.md", again=True)

    def _drop(self) -> None:
        session, self._session, self._pairs = self._session, None, {}
        if session is not None:
            import pkcs11
            try:
                session.close()
            except pkcs11.PKCS11Error:
                pass                                   # the token went first


class _Refused:
    """The PIN that the token refused last, as a salted digest: it is never tried twice, for the token counts and locks itself.

    Kept in a file, where there is one: a box that cannot start is started again every two seconds.
    """

    def __init__(self, path: str) -> None:
        self._path, self._held = path, b""

    def knows(self, pin: str) -> bool:
        if self._path and not self._held:
            self._held = private_file.read(self._path, PIN_BYTES_MAX, which="signer") or b""
        return bool(self._held) and _digest(self._held[:16], pin) == self._held[16:]

    def keep(self, pin: str) -> None:
        salt = secrets.token_bytes(16)
        self._held = salt + _digest(salt, pin)
        if self._path:
            try:
                private_file.replace(self._path, self._held)
            except OSError as error:
                log.error("%s cannot be written (%s): the next start tries the refused PIN again", self._path, error.strerror)


def _digest(salt: bytes, pin: str) -> bytes:
    return hashlib.sha256(salt + pin.encode()).digest()


class _Thread:
    """One thread that does one thing after the other.  What nobody waits for any more is not begun; it ends with the process."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[concurrent.futures.Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="signer", daemon=True).start()

    def begin(self, work: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        begun: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._queue.put((begun, work))
        return begun

    def end(self, last: Callable[[], Any]) -> None:
        self.begin(last)
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            begun, work = item
            if not begun.set_running_or_notify_cancel():
                continue
            try:
                begun.set_result(work())
            except BaseException as why:               # noqa: BLE001  whoever waits is told, whatever it was
                begun.set_exception(why)


def _jwk(point: bytes) -> dict[str, str] | None:
    if len(point) != len(POINT) + 64 or not point.startswith(POINT):
        return None
    return {"kty": "EC", "crv": "P-256", "x": b64(point[3:35]), "y": b64(point[35:])}


def _gone(what: str, hint: str, *, again: bool = False) -> DriverGone:
    return DriverGone(what, which="signer", hint=hint, again=again)


