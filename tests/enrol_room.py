"""What a test of an enrolment needs: a certificate authority of a few lines, a desk over a database, a box's folder."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from device.config import Config
from device.identity.folder import loaded
from device.mqtt.enrol_wire import Keys
from fleet import groups
from fleet.identity.enrol import SCHEMA, Desk
from fleet.records.store import Store
from tests.record_chain import Key

NOW = datetime.datetime(2026, 7, 14, 9, 26, 53, tzinfo=datetime.timezone(datetime.timedelta(hours=8)))
ACK, CONFIG, COMMAND = Key(), Key(), Key()


class Stand:
    """A CA in memory, as `fleet.identity.ca.Authority`, `ahead` of our clock; `revoked` names in their order."""

    def __init__(self) -> None:
        self.key, self.revoked, self.issued = ec.generate_private_key(ec.SECP256R1()), list[str](), list[tuple[str, str]]()
        self.ahead = datetime.timedelta(0)
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.certificate = self._made(self._subject, self.key.public_key(), 3650, ca=True)
        self.ca_pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.fingerprint = self.certificate.fingerprint(hashes.SHA256()).hex()

    def issue(self, csr_pem: bytes, name: str, *, use: str, days: int = 365) -> bytes:
        key: Any = x509.load_pem_x509_csr(csr_pem).public_key()
        self.issued.append((name, use))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._made(subject, key, days, use=use).public_bytes(serialization.Encoding.PEM) + self.ca_pem

    def revoke(self, name: str) -> None:
        self.revoked.append(name)

    def _made(self, subject: x509.Name, key: Any, days: int, *, ca: bool = False, use: str = "") -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC) + self.ahead
        made = (x509.CertificateBuilder().subject_name(subject).issuer_name(self._subject).public_key(key)
                .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
                .not_valid_after(now + datetime.timedelta(days=days))
                .add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True))
        if use == "broker":
            made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False).add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        return made.sign(self.key, hashes.SHA256())


class Office:
    """A desk of tenant `shop` with the clock `now`, moved by hand."""

    def __init__(self, where: Path | str = ":memory:", authority: Any = None) -> None:
        self.store = Store(where)
        self.now = NOW
        self.db = self.store.database
        groups.made(self.db, SCHEMA)
        self.authority = authority or Stand()
        self.desk = Desk(self.db, self.authority, "shop", bytes(32), keys=Keys((ACK.jwk,), (CONFIG.jwk,), (COMMAND.jwk,)),
                         host="broker.example", wall=self.wall)

    def wall(self) -> str:
        return self.now.isoformat()

    def later(self, **span: int) -> None:
        self.now += datetime.timedelta(**span)
        self.authority.ahead += datetime.timedelta(**span)


class Shop:
    """A box's folder with a box.toml that does not say who the box is."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.toml = folder, folder / "box.toml"
        folder.mkdir(parents=True, exist_ok=True)
        self.toml.write_text(f'state_dir = "{folder}"\nrun_dir = "{folder}"\n{more}')

    def config(self, **lacking: str) -> Config:
        return loaded(self.toml, lacking={"box": "box-1", "box_no": "000000", "tenant": "tenant", **lacking})

    def enrolled(self) -> Config:
        """As the daemon reads it; ConfigError for a box that nobody named."""
        return loaded(self.toml)
