"""`tillbox enrol`: a one-use code becomes this box's identity, over the line or by two files carried by a person.

Keys are made here and never leave.  Before anything is asked, the keys and the very bytes of the request are on the card, so that
after a lost reply or a power cut the same command asks the same again, and gets the same answer.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any, NoReturn

from device import __version__
from device.config import Config
from device.drivers import private_file
from device.errors import ConfigError, DriverGone, Outside
from device.identity import folder as identity
from device.mqtt import csr_wire, enrol_wire
from device.mqtt.wire import WireError
from device.store_forward.token import b64

WORDS: dict[str, str] = {
    "used": "this code was used before, by another box or by this one: ask for a fresh one",
    "expired": "this code is older than a week: ask for a fresh one",
    "over": "this code is dead: five tries were made under it, or a newer one replaced it: ask for a fresh one",
    "wrong": "the desk does not know this code's secret: was it copied from another one? Each such try counts, and five kill it",
}
USAGE = """\
usage: tillbox enrol CODE --broker HOST:PORT [--ca FILE] [--config FILE] [--again]     over the line; CODE - reads a line
       tillbox enrol request CODE > FILE        without a line: a request to carry to `tillfleet enrol answer`
       tillbox enrol install FILE               and its answer, carried back; - reads standard input
"""


class Pending:
    """What a box keeps from its first request until the identity stands: the code, two private keys, the request's bytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self) -> dict[str, bytes]:
        """Its files by name, none when nothing is pending.  Outside when one may not be used."""
        held = {name: private_file.read(self.folder / name, 16 * 1024, which="enrol")
                for name in ("code", "request", "tls.key", "encryption.key")}
        return {name: raw for name, raw in held.items() if raw is not None} if None not in held.values() else {}

    def keep(self, files: dict[str, bytes]) -> None:
        draft = self.folder.with_name(self.folder.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        identity.write_folder(draft, files)
        self.drop()
        os.rename(draft, self.folder)
        private_file.sync_folder(self.folder.parent)

    def drop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def main(argv: list[str]) -> int:
    """Exit status: 0 enrolled (or the request is on standard output), 1 not, and one sentence says why, 2 for arguments."""
    from device.inside import keep_inside
    keep_inside()
    try:
        args = _arguments(argv)
        if args.word == "install":
            return _install(args)
        code = enrol_wire.code_of(sys.stdin.readline() if args.what == "-" else args.what)
        config = config_for(args.config, code.box)
        _free(config, args.again)
        request = prepared(config, code)
        if args.word == "request":
            sys.stdout.write(request.decode())
            return 0
        from device.identity.enrol_line import asked
        host, _, port = args.broker.rpartition(":")
        ca = Path(args.ca).read_bytes() if args.ca else b""
        print(_done(config, accepted(config, code, request, asked(host.strip("[]"), int(port), code, request, ca))))
    except _Usage as why:
        print(f"{USAGE}tillbox enrol: {why}", file=sys.stderr)
        return 2
    except ConfigError as why:
        print(f"tillbox enrol: {args.config} is refused: {'; '.join(why.reasons)}", file=sys.stderr)
        return 2
    except (Outside, ValueError) as why:
        print(f"tillbox enrol: {why}", file=sys.stderr)
        return 1
    except OSError as why:
        print(f"tillbox enrol: {why.filename}: {why.strerror}", file=sys.stderr)
        return 1
    return 0


def _install(args: argparse.Namespace) -> int:
    config = config_for(args.config, "")
    held = pending(config).read()
    if not held:
        raise _refused("no request of this box waits for an answer", "make one: tillbox enrol request CODE")
    code = enrol_wire.code_of(held["code"].decode())
    raw = sys.stdin.buffer.read(enrol_wire.REPLY_MAX_BYTES + 1) if args.what == "-" else Path(args.what).read_bytes()
    print(_done(config, accepted(config, code, held["request"], raw)))
    return 0


# One enrolment -----------------------------------------------------------------------------------------------------

def prepared(config: Config, code: enrol_wire.Code) -> bytes:
    """The request under `code`, on the card with its keys: the same bytes each time that the same code is given."""
    waiting = pending(config)
    held = waiting.read()
    if held and _same(enrol_wire.code_of(held["code"].decode()), code):
        return held["request"]
    record = record_key(config)
    tls, encryption = Key.fresh(), Key.fresh()
    csrs = [b64(csr_wire.request(code.box, key.jwk, key.signature)) for key in (tls, record, encryption)]
    request = enrol_wire.Request(1, code.id, code.box, b64(secrets.token_bytes(16)), csrs[0], csrs[1], csrs[2], __version__)
    raw = enrol_wire.request_encoded(request, code.secret)
    waiting.keep({"code": _kept(code), "request": raw, "tls.key": tls.pem, "encryption.key": encryption.pem})
    return raw


def accepted(config: Config, code: enrol_wire.Code, request: bytes, raw: bytes) -> enrol_wire.Identity:
    """The identity in the reply `raw`, on the card.  Outside, one sentence, when there is none; then nothing has changed."""
    try:
        reply, proven = enrol_wire.reply_decoded(raw, request, code.secret)
    except WireError as why:
        raise _refused(f"the reply is not taken: {why.sentence}", "give the same code again") from None
    if reply.result != "enrolled":
        told = reply.why if reply.result == "refused" else WORDS[reply.result]
        raise _refused(told + ("" if proven else " (so says somebody who did not prove to know it)"), "")
    who = reply.identity
    assert who is not None, "checked by reply_decoded"
    held = pending(config).read()
    if held.get("request") != request:
        raise _refused("the keys of this request are gone", "ask for a fresh code")
    _fits(who, code, Key(held["tls.key"]), Key(held["encryption.key"]), record_key(config))
    folder = Path(config.identity_dir)
    identity.install(folder, identity.files_of(who, held["tls.key"], held["encryption.key"]))
    pending(config).drop()                                   # only now: until here the same code gives the same identity
    return who


def record_key(config: Config) -> Any:
    """The record key of this box, made where there is none yet: `jwk`, `kid`, `signature(bytes)`."""
    from device.drivers.registry import signer_of

    journal = os.path.exists(Path(config.state_dir) / "journal.db")
    try:
        return signer_of(config, make=not journal)
    except Outside as why:
        if not journal:
            raise
        raise _refused(f"this box has a journal, and its record key cannot be used: {why.what}", "see docs/recovery.md") from None


def pending(config: Config) -> Pending:
    return Pending(Path(config.identity_dir + ".pending"))


class Key:
    """A P-256 key that lies in a file: the line's, or the one that secrets are sealed to.  ValueError for another kind."""

    def __init__(self, pem: bytes) -> None:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        self.pem = pem
        self._key: Any = load_pem_private_key(pem, None)
        self.jwk = jwk_of(self._key.public_key())

    @classmethod
    def fresh(cls) -> Key:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        return cls(ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))

    def signature(self, to_sign: bytes) -> bytes:
        """64 raw bytes, r and s."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        r, s = decode_dss_signature(self._key.sign(to_sign, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def jwk_of(public: Any) -> dict[str, str]:
    """The JWK of a P-256 key of the library.  ValueError for another kind."""
    numbers = getattr(public, "public_numbers", None)
    if numbers is None or getattr(getattr(public, "curve", None), "name", "") != "secp256r1":
        raise ValueError("a key is not on P-256")
    point = numbers()
    return {"kty": "EC", "crv": "P-256", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}


def chain_fault(tls_pem: bytes, ca_pem: bytes, jwk: dict[str, str], name: str) -> str:
    """What is wrong with a certificate for `name` and the key `jwk`, "" for nothing: its key, its name, who signed it."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.x509.oid import NameOID

    try:
        leaf, ca = x509.load_pem_x509_certificate(tls_pem), x509.load_pem_x509_certificate(ca_pem)
        names = [one.value for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        if jwk_of(leaf.public_key()) != {member: jwk[member] for member in ("kty", "crv", "x", "y")}:
            return "a certificate is for another key than ours"
        if names != [name]:
            return f"a certificate is for {names}, not for {name}"
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError):
        return "a certificate cannot be read, or another than the CA signed it"
    except InvalidSignature:
        return "a certificate is not signed by the CA"
    return ""


def _fits(who: enrol_wire.Identity, code: enrol_wire.Code, tls: Key, encryption: Key, record: Any) -> None:
    import ssl

    try:
        ca = hashlib.sha256(ssl.PEM_cert_to_DER_cert(who.ca)).digest()
    except ValueError:
        ca = b""
    fault = ""
    if ca[:len(code.pin)] != code.pin:
        fault = "its CA is not the one that the code names"
    elif who.box != code.box:
        fault = f"it is for box {who.box}, the code for {code.box}"
    for pem, key in ((who.tls, tls), (who.record, record), (who.encryption, encryption)):
        fault = fault or chain_fault(pem.encode(), who.ca.encode(), key.jwk, f"{who.tenant}/{who.box}")
    if fault:
        raise _refused(f"the desk's reply is proven and does not fit: {fault}", "tell the fleet's people; ask for a fresh code")


def _done(config: Config, who: enrol_wire.Identity) -> str:
    return (f"enrolled: box {who.box} of {who.tenant}, number {who.box_no}, broker {who.host}:{who.port}; "
            "restart tillbox to sell under it")


# Arguments ---------------------------------------------------------------------------------------------------------

def config_for(path: str, box: str) -> Config:
    """The box's configuration, which need not say yet who it is; the code does.  Outside when it says another name."""
    config = identity.loaded(path, lacking={"box": box or "box", "box_no": "000000", "tenant": "tenant"})
    if box and config.box != box:
        raise _refused(f"this is box {config.box}, and the code is for {box}",
                       "use the code made for this box, or put `box` in box.toml right: a box that sold keeps its name")
    return config


def _free(config: Config, again: bool) -> None:
    """Refuse to throw an identity away that nobody offered."""
    cloud = identity.cloud_of(config.identity_dir)
    if cloud is not None and not again:
        raise _refused(f"this is box {cloud.box} of {cloud.tenant} already",
                       "say --again to give its certificates up for new ones; its number and its records stay")


def _same(one: enrol_wire.Code, other: enrol_wire.Code) -> bool:
    """Whether two readings are of one code, typed or scanned."""
    return (one.box, one.id, one.secret) == (other.box, other.id, other.secret)


def _kept(code: enrol_wire.Code) -> bytes:
    return (enrol_wire.qr_text(code) if len(code.pin) == 32 else enrol_wire.typed(code)).encode()


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="tillbox enrol", usage=USAGE)
    parser.add_argument("what", nargs="+")
    parser.add_argument("--broker", metavar="HOST:PORT", default="")
    parser.add_argument("--ca", metavar="FILE", default="")
    parser.add_argument("--config", metavar="FILE", default="/etc/tillbox/box.toml")
    parser.add_argument("--again", action="store_true")
    args = argparse.Namespace(**vars(parser.parse_args(argv)))
    *word, args.what = args.what
    args.word = word[0] if word else ""
    if len(word) > 1 or args.word not in ("", "request", "install"):
        raise _Usage("the words are request and install")
    host, _, port = args.broker.rpartition(":")
    if not args.word and (not host or not port.isdigit() or not 0 < int(port) < 65_536):
        raise _Usage("name the enrolment listener: --broker HOST:PORT")
    return args


class _Usage(Exception):
    pass


def _refused(what: str, hint: str) -> DriverGone:
    return DriverGone(what, which="enrol", hint=hint, again=False)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Usage(message)
