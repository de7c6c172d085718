"""A throw-away authority for local channel servers: HTTPS on the loopback, and a client's certificate where one is asked for.

Knows three certificates and what a server does with them.  Refuses to know any channel.  Keys are made in memory and worth
nothing; OpenSSL loads a chain from a file only, so one is written for as long as that takes.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID


class TlsRoom(msgspec.Struct, frozen=True):
    """`ca_pem` the authority's certificate; `server_pem` and `client_pem` a certificate and its key each, by that authority."""

    ca_pem: bytes
    server_pem: bytes
    client_pem: bytes

    def server_context(self, *, client: str = "none") -> ssl.SSLContext:
        """For `ChannelServer(tls=...)`.  `client`: a client's certificate is `none` (not asked for), `asked` (a call without
        one arrives with `Ask.client` empty) or `required` (no handshake without one)."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as chain:
            chain.write(self.server_pem)
            chain.flush()
            context.load_cert_chain(chain.name)
        if client != "none":
            context.load_verify_locations(cadata=self.ca_pem.decode())
            context.verify_mode = {"asked": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}[client]
        return context

    def written(self, folder: Path) -> tuple[str, str]:
        """Paths for HttpsChannel: (`ca_file`, `client_cert`), written into `folder`."""
        ca, client = folder / "ca.pem", folder / "client.pem"
        ca.write_bytes(self.ca_pem)
        client.write_bytes(self.client_pem)
        return str(ca), str(client)


def tls_room(*, host: str = "127.0.0.1", client: str = "1900000001") -> TlsRoom:
    """A fresh authority, a server at `host` (an address) and a client whose subject is `client`."""
    ca_key, ca_name = ec.generate_private_key(ec.SECP256R1()), _name("Local channel authority")
    ca = (_begun(ca_name, ca_name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
          .add_extension(x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True)
          .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
          .sign(ca_key, SHA256()))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())

    def chain(name: str, address: str) -> bytes:
        key = ec.generate_private_key(ec.SECP256R1())
        begun = _begun(_name(name), ca_name, key).add_extension(issuer, critical=False)
        if address:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            begun = begun.add_extension(names, critical=False)
        return _pem(begun.sign(ca_key, SHA256())) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())

    return TlsRoom(_pem(ca), chain("Local channel", host), chain(client, ""))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _begun(name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=365)))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
