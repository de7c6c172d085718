"""The enrolment desk without a line: one-use codes, what boxes ask for under them, and certificates renewed over the live line.

Knows who may become which box, once; refuses to know MQTT.  Everything is in the collector's own database but the codes'
secrets: those are drawn from a key beside the CA's, so that a copy of the database enrols nobody.  A proof by a shared secret can
be made by whoever can check it, so a hash in the database would have served a thief as well as the secret itself; and who has
the CA's folder needs no code.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec

from device import crockford
from device.mqtt import ask_wire, csr_wire, enrol_wire, topics
from device.mqtt.wire import WireError
from device.store_forward.token import b64, thumbprint, unb64
from fleet import files

log = logging.getLogger("tillfleet.enrol")

# A box that was just replaced may keep its connection until its successor makes one: it gets no certificate in that gap.
YOUNG = datetime.timedelta(days=30)
RENEWED_PAUSE_S = 3600                   # a box that asks for more certificates than one an hour is ill

SCHEMA = """
CREATE TABLE IF NOT EXISTS enrolled (box TEXT PRIMARY KEY, box_no TEXT NOT NULL UNIQUE, made TEXT NOT NULL, at TEXT NOT NULL,
    times INTEGER NOT NULL, software TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS enrol_code (id TEXT PRIMARY KEY, box TEXT NOT NULL, made TEXT NOT NULL, expires TEXT NOT NULL,
    tries INTEGER NOT NULL, state TEXT NOT NULL, request TEXT NOT NULL, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS box_key (box TEXT NOT NULL, purpose TEXT NOT NULL, kid TEXT NOT NULL, jwk TEXT NOT NULL,
    at TEXT NOT NULL, PRIMARY KEY (box, purpose, kid));
CREATE TABLE IF NOT EXISTS renewed (box TEXT PRIMARY KEY, kid TEXT NOT NULL, chain TEXT NOT NULL, at TEXT NOT NULL);
"""


class Authority(Protocol):
    """The certificate authority, as `fleet.identity.ca` has it."""

    ca_pem: bytes
    fingerprint: Any                     # SHA-256 of the CA certificate's DER, hex or bytes

    def issue(self, csr_pem: bytes, name: str, *, use: str, days: int = 365) -> bytes: ...
    def revoke(self, name: str) -> Any: ...


class Tables(Protocol):
    """The collector's database, as `fleet.database` has it."""

    def execute(self, sql: str, args: Any = ()) -> Any: ...
    def transaction(self) -> AbstractContextManager[None]: ...


class Desk:
    """One tenant's.  `told` is what each box learns of the cloud; `code_key` 32 bytes from `code_key`; `wall()` RFC 3339."""

    def __init__(self, db: Tables, authority: Authority, tenant: str, code_key: bytes, *, keys: enrol_wire.Keys | None = None,
                 host: str = "", port: int = 8883, wall: Callable[[], str]) -> None:
        self._db, self._authority, self.tenant = db, authority, topics.tenant_checked(tenant)
        self._code_key, self._keys, self._host, self._port, self._wall = code_key, keys, host, port, wall

    # Codes -----------------------------------------------------------------------------------------------------------

    def code_for(self, box: str, box_no: str = "") -> enrol_wire.Code:
        """A fresh code for `box`, whose older open codes end.  `box_no` for a box that had its number before this desk knew it.

        ValueError when the number is another box's, or the box has another one.
        """
        topics.box_checked(box)
        now = self._wall()
        expires = (_moment(now) + datetime.timedelta(days=enrol_wire.LIFE_DAYS)).isoformat()
        code_id = crockford.digits(secrets.randbits(30), enrol_wire.ID_CHARS)
        with self._db.transaction():
            self._numbered(box, box_no, now)
            self._db.execute("UPDATE enrol_code SET state = 'replaced' WHERE box = ? AND state = 'open'", (box,))
            self._db.execute("INSERT INTO enrol_code VALUES (?,?,?,?,0,'open','','')", (code_id, box, now, expires))
        return enrol_wire.Code(box, code_id, self._secret(code_id, box), fingerprint(self._authority))

    def codes(self) -> list[tuple[str, str, str, str, int, str]]:
        """(box, box_no, id, expires, tries, state) of every code, the newest first; state `open used over expired replaced`."""
        now = self._wall()
        rows = self._db.execute("SELECT c.box, e.box_no, c.id, c.expires, c.tries, c.state FROM enrol_code c "
                                "JOIN enrolled e ON e.box = c.box ORDER BY c.made DESC, c.id").fetchall()
        return [(*row[:5], self._state(row[5], row[4], row[3], now)) for row in map(tuple, rows)]

    def boxes(self) -> list[tuple[str, str, str, int]]:
        """(box, box_no, when it was last enrolled or "", how often) of every box that ever had a code."""
        return self._db.execute("SELECT box, box_no, at, times FROM enrolled ORDER BY box").fetchall()

    def _numbered(self, box: str, box_no: str, now: str) -> None:
        """Give `box` its number; it keeps the one it has.  Unique among the tenant's boxes for ever."""
        known = self._db.execute("SELECT box_no FROM enrolled WHERE box = ?", (box,)).fetchone()
        if known is not None:
            if box_no and box_no != known[0]:
                raise ValueError(f"box {box} has the number {known[0]}, and no number changes")
            return
        if box_no and (len(box_no) != 6 or set(box_no) - set(crockford.ALPHABET)):
            raise ValueError(f"box number {box_no[:20]!r} is not six digits and letters without I, L, O and U")
        while True:
            number = box_no or crockford.digits(secrets.randbits(30), 6)
            taken = self._db.execute("SELECT box FROM enrolled WHERE box_no = ?", (number,)).fetchone()
            if taken is None:
                break
            if box_no:
                raise ValueError(f"number {box_no} is that of box {taken[0]}")
        self._db.execute("INSERT INTO enrolled VALUES (?,?,?,'',0,'')", (box, number, now))

    def _secret(self, code_id: str, box: str) -> bytes:
        told = f"tillbox enrol 1 code\n{self.tenant}\n{box}\n{code_id}".encode()
        return hmac.digest(self._code_key, told, "sha256")[:enrol_wire.SECRET_BYTES]

    @staticmethod
    def _state(state: str, tries: int, expires: str, now: str) -> str:
        if state == "open" and tries >= enrol_wire.TRIES:
            return "over"
        return "expired" if state == "open" and _moment(now) >= _moment(expires) else state

    # Requests --------------------------------------------------------------------------------------------------------

    def take(self, raw: bytes, code_id: str = "") -> bytes | None:
        """The reply to one request, or None when it is under no code of ours: another tenant's desk may know it.

        `code_id` the id in the topic it came on.  The try is on disk before the proof is looked at.  WireError ENROL_SHAPE.
        """
        request = enrol_wire.request_decoded(raw)
        if code_id and request.id != code_id:
            raise WireError("ENROL_SHAPE", f"the request under code {code_id} names {request.id}")
        now = self._wall()
        with self._db.transaction():
            row = self._db.execute("SELECT box, expires, tries, state FROM enrol_code WHERE id = ?", (request.id,)).fetchone()
            if row is None:
                return None
            if row[2] < enrol_wire.TRIES:
                self._db.execute("UPDATE enrol_code SET tries = tries + 1 WHERE id = ?", (request.id,))
        box, expires, tries, state = row
        secret = self._secret(request.id, box)
        refusal = enrol_wire.Reply(1, request.id, "over", now)
        if tries >= enrol_wire.TRIES or state == "replaced":
            return enrol_wire.unproven(refusal)              # nothing is checked any more
        if not enrol_wire.request_holds(raw, secret):
            log.warning("a request under the code %s of box %s is not proven: try %d of %d", request.id, box, tries + 1,
                        enrol_wire.TRIES)
            return enrol_wire.unproven(msgspec.structs.replace(refusal, result="wrong"))
        if state == "used":
            return self._used(request.id, raw, secret, now)
        if _moment(now) >= _moment(expires):
            return enrol_wire.reply_encoded(msgspec.structs.replace(refusal, result="expired"), raw, secret)
        return self._enrolled(request, raw, box, secret, now)

    def _used(self, code_id: str, raw: bytes, secret: bytes, now: str) -> bytes:
        """The same reply to the same request, whose reply was lost; to any other, that the code is used."""
        digest, reply = self._db.execute("SELECT request, reply FROM enrol_code WHERE id = ?", (code_id,)).fetchone()
        if reply and hmac.compare_digest(digest, _digest(raw)):
            return reply.encode()
        return enrol_wire.reply_encoded(enrol_wire.Reply(1, code_id, "used", now), raw, secret)

    def _enrolled(self, request: enrol_wire.Request, raw: bytes, box: str, secret: bytes, now: str) -> bytes:
        try:
            jwks = self._keys_of(request, box)
        except ValueError as why:
            log.error("box %s is not enrolled: %s", box, why)
            refused = enrol_wire.Reply(1, request.id, "refused", now, why=str(why))
            return enrol_wire.reply_encoded(refused, raw, secret)
        name = f"{self.tenant}/{box}"
        with self._db.transaction():
            won = self._db.execute("UPDATE enrol_code SET state = 'used', request = ? WHERE id = ? AND state = 'open'",
                                   (_digest(raw), request.id))
            if won.rowcount != 1:                            # another desk was quicker
                return self._used(request.id, raw, secret, now)
            box_no, times = self._db.execute("SELECT box_no, times FROM enrolled WHERE box = ?", (box,)).fetchone()
            if times:
                self._authority.revoke(name)                 # before the new ones are made: whoever holds the old box is out
            tls, record, encryption = (
                self._authority.issue(csr_wire.pem(unb64(csr)), name, use=use).decode()
                for csr, use in ((request.tls_csr, "box"), (request.record_csr, "record"), (request.encryption_csr, "encryption")))
            assert self._keys is not None and self._host, "a desk that answers knows what to tell"
            who = enrol_wire.Identity(self.tenant, box, box_no, tls, record, encryption, self._authority.ca_pem.decode(),
                                      self._host, self._port, self._keys)
            reply = enrol_wire.reply_encoded(enrol_wire.Reply(1, request.id, "enrolled", now, who), raw, secret)
            self._db.execute("UPDATE enrol_code SET reply = ? WHERE id = ?", (reply.decode(), request.id))
            self._db.execute("UPDATE enrolled SET at = ?, times = times + 1, software = ? WHERE box = ?",
                             (now, request.software, box))
            for purpose, jwk in jwks.items():
                self._db.execute("INSERT INTO box_key VALUES (?,?,?,?,?) ON CONFLICT (box, purpose, kid) DO UPDATE SET "
                                 "at = excluded.at", (box, purpose, thumbprint(jwk), _json(jwk), now))
            self._db.execute("INSERT INTO key (kid, box, jwk, jid, seq) VALUES (?,?,?,'',0) ON CONFLICT DO NOTHING",
                             (thumbprint(jwks["record"]), box, _json(jwks["record"])))
        log.info("box %s is enrolled, number %s, record key %s%s", box, box_no, thumbprint(jwks["record"]),
                 "; its older certificates are revoked" if times else "")
        return reply

    def _keys_of(self, request: enrol_wire.Request, box: str) -> dict[str, dict[str, str]]:
        """The three public keys, each proven to be held.  ValueError for one that is not, or not one's own."""
        if request.box != box:
            raise ValueError(f"the code is for box {box}, the request for {request.box}")
        jwks = {"tls": public_of(request.tls_csr), "record": public_of(request.record_csr),
                "encryption": public_of(request.encryption_csr)}
        kids = {purpose: thumbprint(jwk) for purpose, jwk in jwks.items()}
        if len(set(kids.values())) != len(kids):
            raise ValueError("one key is to serve two purposes: each wants its own")
        for purpose, kid in kids.items():
            other = self._db.execute("SELECT box FROM box_key WHERE kid = ? AND (box <> ? OR purpose <> ?)",
                                     (kid, box, purpose)).fetchone() or \
                self._db.execute("SELECT box FROM key WHERE kid = ? AND box <> ?", (kid, box)).fetchone()
            if other is not None:
                raise ValueError(f"the {purpose} key is already in use by box {other[0]}: a card that was copied keeps its keys; "
                                 "start this box on an empty one")
        return jwks


class Renewals:
    """Fresh TLS certificates for enrolled boxes that ask over their live connection, inside the caller's transaction.

    `refuses(name)` says why a box gets none any more, "" when it may: one that was revoked keeps a connection that it has.
    """

    def __init__(self, db: Tables, authority: Authority, tenant: str, *, refuses: Callable[[str], str] = lambda name: "") -> None:
        self._db, self._authority, self._tenant, self._refuses = db, authority, topics.tenant_checked(tenant), refuses

    def answer(self, box: str, ask: ask_wire.Ask, at: str) -> ask_wire.Answer:
        """The answer to `renew`: a chain, or why there is none.  The same key asked for again has the same chain."""
        name = f"{self._tenant}/{box}"
        try:
            jwk = public_of(ask.csr)
        except ValueError as fault:
            return self._none(box, ask, str(fault))
        kid = thumbprint(jwk)
        if (why := self._refuses(name)):
            return self._none(box, ask, why)
        last = self._db.execute("SELECT kid, chain, at FROM renewed WHERE box = ?", (box,)).fetchone()
        if last is not None and last[0] == kid:
            return ask_wire.Answer(box, ask.id, chain=last[1])
        enrolled = self._db.execute("SELECT at FROM enrolled WHERE box = ? AND times > 0", (box,)).fetchone()
        if enrolled is None:
            return self._none(box, ask, "this box was not enrolled here")
        if _moment(at) - _moment(enrolled[0]) < YOUNG:
            return self._none(box, ask, f"it was enrolled less than {YOUNG.days} days ago")
        if last is not None and (_moment(at) - _moment(last[2])).total_seconds() < RENEWED_PAUSE_S:
            return self._none(box, ask, "it had a fresh certificate less than an hour ago")
        if self._db.execute("SELECT 1 FROM box_key WHERE kid = ?", (kid,)).fetchone() is not None:
            return self._none(box, ask, "a fresh certificate wants a fresh key")
        chain = self._authority.issue(csr_wire.pem(unb64(ask.csr)), name, use="box").decode()
        self._db.execute("INSERT INTO renewed VALUES (?,?,?,?) ON CONFLICT (box) DO UPDATE SET kid = excluded.kid, "
                         "chain = excluded.chain, at = excluded.at", (box, kid, chain, at))
        self._db.execute("INSERT INTO box_key VALUES (?,'tls',?,?,?)", (box, kid, _json(jwk), at))
        log.info("box %s has a fresh certificate", box)
        return ask_wire.Answer(box, ask.id, chain=chain)

    @staticmethod
    def _none(box: str, ask: ask_wire.Ask, why: str) -> ask_wire.Answer:
        log.warning("box %s gets no fresh certificate: %s", box, why)
        return ask_wire.Answer(box, ask.id, why=why)


def renewals(db: Tables, authority: Any) -> Renewals:
    """Those of `fleet.identity.ca.Authority`: a name all of whose certificates are revoked has no more."""
    def refuses(name: str) -> str:
        over = [bool(one.revoked) for one in authority.issued(name) if one.use == "box"]
        return f"the certificates of {name} are revoked" if over and all(over) else ""
    return Renewals(db, authority, authority.tenant, refuses=refuses)


def fingerprint(authority: Authority) -> bytes:
    """The 32 bytes of the CA's fingerprint."""
    told = authority.fingerprint
    return bytes(told) if isinstance(told, bytes) else bytes.fromhex(str(told).replace(":", ""))


def code_key(folder: Path) -> bytes:
    """The key that the secrets of codes are drawn from: `enrol.key` in the CA's folder, mode 0600, made when it is not there."""
    path = folder / "enrol.key"
    if not path.exists():
        with contextlib.suppress(FileExistsError):            # another program was a moment faster
            files.made(path, secrets.token_hex(32).encode() + b"\n")
    held = path.read_text().strip()
    if len(held) != 64 or set(held) - set("0123456789abcdef"):
        raise ValueError(f"{path} holds no key of 32 bytes in hex")
    return bytes.fromhex(held)


def public_of(csr: str) -> dict[str, str]:
    """The public JWK in a request (DER in base64url) that its private half signed.  ValueError with one sentence."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        read = x509.load_der_x509_csr(unb64(csr))
        key, holds = read.public_key(), read.is_signature_valid
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("a certificate request cannot be read") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("a certificate request is for another kind of key than P-256")
    if not holds:
        raise ValueError("a certificate request is not signed by its own key")
    point = key.public_numbers()
    return {"crv": "P-256", "kty": "EC", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw.strip()).hexdigest()


def _json(jwk: dict[str, str]) -> str:
    return msgspec.json.encode(jwk).decode()


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
