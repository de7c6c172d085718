"""A tenant's certificate authority: one root, what it issued, what it revoked, in one folder.

Knows names, purposes and lifetimes; refuses to know who may have a certificate: whoever may write in the folder decides that.
Private keys are made by those who use them and are never seen here, except the root's own.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import ipaddress
import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from device.mqtt import topics
from fleet import files
from fleet.keys import SigningKey

ROOT_DAYS = 20 * 365
CRL_DAYS = 400                           # a broker refuses everybody once its list is over
BACK_DATED = datetime.timedelta(days=1)  # a box without a battery clock is a little behind
RENEWED_AT = 2 / 3                       # of its life
DAYS_MAX = 825
# What signs acknowledgements, and so on; the last agrees with each box on what its console is opened by.
KEYS = {"ack": "ack.pem", "config": "config.pem", "command": "command.pem", "console": "console.pem"}

SHARE_FILE = "share"                     # the group of the collectors' shared subscriptions, which no box may know

_CLOUD = {use: re.compile(rf"_{use}/[a-z0-9-]{{1,32}}") for use in ("collector", "courier")}
_SERVICES = ("_enrol",)                  # the bridge of the enrolment listener
_HOST = re.compile(r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_CN_MAX = 64                             # RFC 5280, ub-common-name

# What a certificate is good for.  Without its own purpose a record key's certificate would open a TLS connection, too.
_RECORD_KEY = "2.25.269302310711325178530230310312931517010"
_ENCRYPTION_KEY = "2.25.269302310711325178530230310312931517011"
_PURPOSES = {"box": "1.3.6.1.5.5.7.3.2", "collector": "1.3.6.1.5.5.7.3.2",
             "courier": "1.3.6.1.5.5.7.3.2", "service": "1.3.6.1.5.5.7.3.2",
             "broker": "1.3.6.1.5.5.7.3.1", "record": _RECORD_KEY, "encryption": _ENCRYPTION_KEY}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS issued (serial TEXT PRIMARY KEY, name TEXT NOT NULL, use TEXT NOT NULL, not_before TEXT NOT NULL,
    not_after TEXT NOT NULL, sha256 TEXT NOT NULL, revoked TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS issued_name ON issued (name, use);
"""


class CaError(ValueError):
    """Something that this authority does not sign, or a folder that is none; the sentence says why."""


class Issued(NamedTuple):
    """One certificate.  `serial` in hex; times RFC 3339 in UTC; `revoked` "" or when."""

    serial: str
    name: str
    use: str
    not_before: str
    not_after: str
    sha256: str
    revoked: str

    def renewal_due(self) -> str:
        """When two thirds of its life are over."""
        begin, end = _moment(self.not_before), _moment(self.not_after)
        return _text(begin + (end - begin) * RENEWED_AT)


class Authority:
    """The authority in `folder`, as `made` left it.  CaError when there is none.

    `ca_pem`, and `fingerprint`, the SHA-256 of the root's DER in hex, never change; `now()` gives an aware moment.  Any number of
    programs may use one folder at once.
    """

    def __init__(self, folder: Path | str, *, now: Callable[[], datetime.datetime] | None = None) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import serialization

        self.folder, self._now = Path(folder), now or (lambda: datetime.datetime.now(datetime.UTC))
        try:
            self.ca_pem = (self.folder / "ca.pem").read_bytes()
            self._key: Any = serialization.load_pem_private_key((self.folder / "ca.key").read_bytes(), None)
        except FileNotFoundError as why:
            raise CaError(f"{self.folder} holds no authority: {Path(why.filename).name} is missing (tillfleet ca init)") from None
        self._root = x509.load_pem_x509_certificate(self.ca_pem)
        if self._root.public_key() != self._key.public_key():
            raise CaError(f"{self.folder}: ca.key is not the key of ca.pem")
        units = self._root.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
        self.tenant = topics.tenant_checked(str(units[0].value) if units else "")
        self.fingerprint = hashlib.sha256(self._root.public_bytes(serialization.Encoding.DER)).hexdigest()

    @classmethod
    def made(cls, folder: Path | str, tenant: str, *, now: Callable[[], datetime.datetime] | None = None,
             days: int = ROOT_DAYS) -> Authority:
        """A new authority for `tenant` in `folder`, with the cloud's signing keys.  CaError when there is one already."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509.oid import NameOID

        folder = Path(folder)
        topics.tenant_checked(tenant)
        if (folder / "ca.pem").exists():
            raise CaError(f"{folder} holds an authority already")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _key(folder / "ca.key")
        moment = (now or (lambda: datetime.datetime.now(datetime.UTC)))()
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tillbox"),
                          x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, tenant),
                          x509.NameAttribute(NameOID.COMMON_NAME, f"Tillbox root of {tenant}")])
        root = (x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
                .serial_number(x509.random_serial_number()).not_valid_before(moment - BACK_DATED)
                .not_valid_after(moment + datetime.timedelta(days=days))
                .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
                .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                .sign(key, hashes.SHA256()))
        for file in KEYS.values():
            path = folder / file
            files.written(path.with_suffix(".jwks"), SigningKey(path).jwks())
        with contextlib.suppress(FileExistsError):
            files.made(folder / SHARE_FILE, f"collect-{secrets.token_hex(16)}\n")
        files.made(folder / "ca.pem", root.public_bytes(serialization.Encoding.PEM), mode=0o644)      # last: now it is one
        one = cls(folder, now=now)
        one.write_crl()
        return one

    # Certificates ----------------------------------------------------------------------------------------------------

    def issue(self, csr_pem: bytes, name: str, *, use: str = "box", days: int = 365) -> bytes:
        """A certificate for `name` over the key of a request, as PEM; it is on the list before it is given away.

        `use`: `box` (its TLS line), `record`, `encryption` (names `tenant/box`), `collector`
        (`tenant/_collector/id`), `courier` (`tenant/_courier/id`), `service`.
        Whatever else the request asks for is not read.  CaError for a name that is none, a request that its key did not sign, a
        key that is not P-256.
        """
        from cryptography import x509
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.x509.oid import NameOID

        self._name_checked(name, use)
        try:
            request = x509.load_pem_x509_csr(csr_pem)
            said = [str(a.value) for a in request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
            proven = request.is_signature_valid
            public = request.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm) as why:
            raise CaError(f"the request of {name} cannot be read: {why}") from None
        if not proven:
            raise CaError(f"the request of {name} is not signed by its own key")
        if said not in ([name], [name.partition("/")[2]]):     # a box that is being enrolled does not know its tenant yet
            raise CaError(f"the request says it is of {', '.join(said)[:70] or 'nobody'}, not of {name}")
        return self._signed(public, name, use, days)

    def broker(self, hosts: Sequence[str], *, days: int = 365) -> bytes:
        """A server certificate for a broker that is reached by `hosts`, names or addresses; its key stays in `broker.key`.

        Writes `broker.pem` and returns it.  CaError for something that is no host.
        """
        from cryptography import x509

        if not hosts:
            raise CaError("a broker needs at least one name by which boxes reach it")
        names: list[x509.GeneralName] = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                if not _HOST.fullmatch(host):
                    raise CaError(f"{host[:60]!r} is neither a host name in small letters nor an address") from None
                names.append(x509.DNSName(host))
        path = self.folder / "broker.key"
        pem = self._signed(_key(path).public_key(), hosts[0], "broker", days, x509.SubjectAlternativeName(names))
        files.written(self.folder / "broker.pem", pem)
        return pem

    def broker_hosts(self) -> list[str]:
        """The names in the broker's certificate; CaError when there is none."""
        from cryptography import x509

        try:
            made = x509.load_pem_x509_certificate((self.folder / "broker.pem").read_bytes())
        except FileNotFoundError:
            raise CaError(f"{self.folder} has no certificate for a broker (tillfleet ca broker)") from None
        names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(name.value) for name in names]

    def client(self, name: str, folder: Path, *, use: str, days: int = 365) -> None:
        """A certificate for a part of the cloud, or a simulated box: `tls.key`, `tls.pem`, `ca.pem` and, for a collector, `share`
        in `folder`.
        """
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.x509.oid import NameOID

        self._name_checked(name, use)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = _key(folder / "tls.key")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
        files.written(folder / "tls.pem", self.issue(csr.public_bytes(serialization.Encoding.PEM), name, use=use, days=days))
        files.written(folder / "ca.pem", self.ca_pem)
        if use == "collector":
            files.written(folder / SHARE_FILE, (self.folder / SHARE_FILE).read_bytes(), mode=0o600)

    def _signed(self, public: Any, name: str, use: str, days: int, *more: Any) -> bytes:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID

        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
            raise CaError(f"the key of {name} is not one of P-256")
        if not 1 <= days <= DAYS_MAX:
            raise CaError(f"a certificate holds for 1 to {DAYS_MAX} days, not {days}")
        now = self._now()
        begin = max(now - BACK_DATED, self._root.not_valid_before_utc)
        end = min(now + datetime.timedelta(days=days), self._root.not_valid_after_utc)
        if end <= now:
            raise CaError("the root's own certificate is over")
        serial = x509.random_serial_number()
        builder = (x509.CertificateBuilder().subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                   .issuer_name(self._root.subject).public_key(public).serial_number(serial)
                   .not_valid_before(begin).not_valid_after(end)
                   .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
                   .add_extension(_usage(digital_signature=use != "encryption", key_agreement=use == "encryption"), critical=True)
                   .add_extension(x509.ExtendedKeyUsage([x509.ObjectIdentifier(_PURPOSES[use])]), critical=False)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False))
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        made = builder.sign(self._key, hashes.SHA256())
        der = made.public_bytes(serialization.Encoding.DER)
        with self._index() as index:
            index.execute("INSERT INTO issued VALUES (?,?,?,?,?,?,'')", (
                f"{serial:x}", name, use, _text(made.not_valid_before_utc), _text(made.not_valid_after_utc),
                hashlib.sha256(der).hexdigest()))
        return made.public_bytes(serialization.Encoding.PEM)

    def _name_checked(self, name: str, use: str) -> None:
        tenant, slash, rest = name.partition("/")
        if use not in _PURPOSES or use == "broker":
            raise CaError(f"{use!r} is no use of a certificate: box, record, encryption, collector, courier or service")
        if tenant != self.tenant or not slash:
            raise CaError(f"{name[:70]!r} is no name of tenant {self.tenant}, such as {self.tenant}/box-1")
        if len(name) > _CN_MAX:
            raise CaError(f"{name[:70]!r} has {len(name)} characters; a certificate's name holds {_CN_MAX}")
        if use in _CLOUD and not _CLOUD[use].fullmatch(rest):
            raise CaError(f"{name!r} is no {use}: {self.tenant}/_{use}/ID, ID of a-z, 0-9 and '-'")
        if use == "service" and rest not in _SERVICES:
            raise CaError(f"{name!r} is no service: " + " or ".join(f"{self.tenant}/{s}" for s in _SERVICES))
        if use in ("box", "record", "encryption"):
            try:
                topics.box_checked(rest)
            except topics.TopicError as why:
                raise CaError(str(why)) from None

    # What was issued, and what is over --------------------------------------------------------------------------------

    def issued(self, name: str = "") -> list[Issued]:
        """Everything issued, or all for `name`, the oldest first."""
        with self._index() as index:
            rows = index.execute("SELECT * FROM issued WHERE ? IN ('', name) ORDER BY not_before, rowid", (name,)).fetchall()
        return [Issued(*row) for row in rows]

    def due(self, name: str) -> bool:
        """True when `name` has no certificate for a line, or the newest is past two thirds of its life."""
        good = [one for one in self.issued(name) if not one.revoked and one.use not in ("record", "encryption")]
        return not good or good[-1].renewal_due() <= _text(self._now())

    def revoke(self, name: str, *, serial: str = "") -> int:
        """Revoke every certificate of `name`, or the one with `serial` alone; the list is written before this returns.

        How many there were; 0 when all were revoked before.  Brokers must be given the new list: docs/broker.md.
        """
        with self._index() as index:
            done = index.execute("UPDATE issued SET revoked = ? WHERE name = ? AND revoked = '' AND ? IN ('', serial)",
                                 (_text(self._now()), name, serial)).rowcount
        self.write_crl()
        return done

    @property
    def crl_pem(self) -> bytes:
        return (self.folder / "crl.pem").read_bytes()

    def crl_until(self) -> datetime.datetime:
        """When the list is over, and a broker that still has it refuses everybody."""
        from cryptography import x509

        until = x509.load_pem_x509_crl(self.crl_pem).next_update_utc
        assert until is not None, "a list of ours has an end"
        return until

    def crl_due(self) -> bool:
        """True when a third of the list's time is over: a new one should be with every broker long before the end."""
        return self.crl_until() < self._now() + datetime.timedelta(days=CRL_DAYS) * RENEWED_AT

    def write_crl(self) -> None:
        """`crl.pem` anew, whole or not at all: what is revoked and not yet over."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        now = self._now()
        with self._index() as index:                        # held while the file is written: the newest list stays
            rows = index.execute("SELECT serial, revoked FROM issued WHERE revoked != '' AND not_after > ?",
                                 (_text(now - BACK_DATED),)).fetchall()
            builder = (x509.CertificateRevocationListBuilder().issuer_name(self._root.subject).last_update(self._newer(now))
                       .next_update(now + datetime.timedelta(days=CRL_DAYS))
                       .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
                       .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False))
            for serial, when in rows:
                builder = builder.add_revoked_certificate(x509.RevokedCertificateBuilder().serial_number(int(serial, 16))
                                                          .revocation_date(_moment(when)).build())
            files.written(self.folder / "crl.pem",
                          builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def _newer(self, now: datetime.datetime) -> datetime.datetime:
        """The date of the next list.  Of two lists with the same date a broker that read both would believe the older one."""
        from cryptography import x509

        dated = now - BACK_DATED
        with contextlib.suppress(FileNotFoundError):
            before = x509.load_pem_x509_crl(self.crl_pem).last_update_utc
            dated = max(dated, before + datetime.timedelta(seconds=1))
        return dated

    @contextlib.contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The list, held alone until the end: kept whole, or as it was."""
        index = sqlite3.connect(self.folder / "issued.db", timeout=30, isolation_level=None)
        try:
            index.executescript("PRAGMA synchronous = FULL;" + _SCHEMA)
            index.execute("BEGIN IMMEDIATE")
            with index:
                yield index
        finally:
            index.close()


def _key(path: Path) -> Any:
    """The P-256 key in `path`, mode 0600, made when it is not there."""
    from cryptography.hazmat.primitives import serialization

    SigningKey(path)
    return serialization.load_pem_private_key(path.read_bytes(), None)


def _usage(*, digital_signature: bool = False, key_agreement: bool = False, key_cert_sign: bool = False,
           crl_sign: bool = False) -> Any:
    from cryptography import x509

    return x509.KeyUsage(digital_signature=digital_signature, content_commitment=False, key_encipherment=False,
                         data_encipherment=False, key_agreement=key_agreement, key_cert_sign=key_cert_sign, crl_sign=crl_sign,
                         encipher_only=False, decipher_only=False)


def _text(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)
