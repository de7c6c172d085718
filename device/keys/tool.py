"""`tillbox keys`: what is sealed on this box, and putting it in and out.  Secrets come from a file or a pipe, never from a
command line, and none is ever shown: a key is known by its fingerprint.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import secrets
import sys
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from device import real_clock
from device.ask import runs
from device.config import ChannelConfig, Config, account_of
from device.drivers import private_file
from device.drivers.channels.alipay_proof_bytes import pem_of
from device.drivers.channels.terminal_bytes import held_of
from device.errors import ConfigError, Outside
from device.inside import keep_inside
from device.keys.sealed import ACCOUNT, KINDS, Held, Name, fresh_key, whose
from device.keys.store import NO_SEAL, OVERLAP_DAYS, KeyStore, sealing_keys
from device.push.layers import Layers

KEY_BYTES_MAX = 32 * 1024
USAGE = """\
usage: tillbox keys list [--config FILE] [--json]
       tillbox keys import [--config FILE] CHANNEL KIND FILE|- [--serial NO] [--overlap DAYS]
       tillbox keys drop [--config FILE] CHANNEL/ACCOUNT/HOLDER [KIND VERSION]
       tillbox keys seal-new [--config FILE]
       tillbox keys reseal [--config FILE]
"""


def main(argv: list[str]) -> int:
    """0 when it is done, 1 when it cannot be, 2 for arguments that do not serve."""
    keep_inside()
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE, end="", file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    try:
        asked = _arguments(argv)
        config = Layers(Path(asked.config).read_text(encoding="utf-8"), which=asked.config).config()
    except (ValueError, OSError) as why:
        return _said(str(why), 2)
    except ConfigError as why:
        return _said(f"{asked.config} is refused: {'; '.join(why.reasons)}", 2)
    try:
        store = KeyStore(Path(config.state_dir) / "keys", sealing_keys(config.seal_key_file))
        WORDS[asked.word](store, config, asked)
    except BrokenPipeError:
        return 1
    except (Outside, ValueError, OSError) as why:
        return _said(str(why), 1)
    return 0


def _list(store: KeyStore, config: Config, asked: argparse.Namespace) -> None:
    today = {whose(account_of(c)) for c in config.channels}
    for name in store.names():
        if name.kind == ACCOUNT:
            continue
        line = {"account": name.whose, "kind": name.kind, "version": name.version, "in_use": name.whose in today,
                "sealed_with": "", "fingerprint": "", "serial": "", "made_at": "", "before_until": "", "why": ""}
        try:
            held = store.read(name)
            line |= {"sealed_with": store.sealed_with(name), "fingerprint": fingerprint(store, name, held.value),
                     "serial": held.serial, "made_at": held.made_at, "before_until": held.older_until}
        except Outside as why:
            line["why"] = why.what
        print(json.dumps(line) if asked.json else
              f"{name.whose}  {name.kind} {name.version}  {line['why'] or line['fingerprint']}"
              + (f"  serial {line['serial']}" if line["serial"] else "")
              + (f"  the one before until {line['before_until']}" if line["before_until"] else "")
              + ("" if line["in_use"] else "  (no longer in box.toml)"))


def _import(store: KeyStore, config: Config, asked: argparse.Namespace) -> None:
    c = next((c for c in config.channels if c.name == asked.channel), None)
    if c is None:
        raise ValueError(f"{asked.config} has no [channel.{asked.channel}]: a key belongs to an account that is set up there")
    if asked.kind not in KINDS.get(c.name, ()):
        raise ValueError(f"{c.name} keeps no {asked.kind}; it has {', '.join(KINDS.get(c.name, ())) or 'nothing to seal'}")
    held = _given(asked.file)
    if c.name == "alipay":                            # whose tools write bare base64
        held = pem_of(held)
    _proven(c, asked.kind, held)
    platform_key, ca, until = _public(c.platform_key_file), _public(c.ca_file), ""
    if asked.kind == "terminal_key":
        c = _terminal(c, held, config)
        name = store.keep_terminal(c, held)
    else:
        name, now = store.next_version(c, asked.kind), datetime.datetime.now().astimezone()
        until = (now.date() + datetime.timedelta(days=asked.overlap)).isoformat() if name.version > 1 else ""
        serial = (asked.serial or c.serial_no) if asked.kind == "private_key" else ""
        store.write(name, Held(held, serial=serial, made_at=now.isoformat(timespec="seconds"), older_until=until))
    store.remember(c, platform_key, ca)
    print(f"{name.whose} {name.kind} {name.version} is sealed: {fingerprint(store, name, held)}.  It is used from the next start on"
          + (f"; the one before is tried as well until {until}." if until else "."))
    if asked.file != "-":
        print(f"{asked.file} still holds it for anybody to read: destroy it.")


def _drop(store: KeyStore, config: Config, asked: argparse.Namespace) -> None:
    names = [name for name in store.names() if name.whose == asked.account]
    keys = [name for name in names if name.kind != ACCOUNT]
    if not keys:
        raise ValueError(f"No key of {asked.account} is sealed here; tillbox keys list names those that are.")
    if asked.kind:
        which = next((n for n in keys if (n.kind, n.version) == (asked.kind, asked.version)), None)
        if which is None:
            raise ValueError(f"{asked.account} has no {asked.kind} {asked.version}.")
        if any(n.kind == which.kind and n.version > which.version for n in keys):
            store.remove(which)                       # a newer one does all that it did
            print(f"{which.whose} {which.kind} {which.version} is gone from this box; revoke it at the channel, too.")
            return
        names = [which]
    _unneeded(store, config, asked.account)
    for name in sorted(names, key=lambda n: n.kind == ACCOUNT):        # what its orders were made with goes last
        store.remove(name)
    print(f"{asked.account} is gone from this box; revoke its keys at the channel, too.")


def _unneeded(store: KeyStore, config: Config, account: str) -> None:
    """Outside, one sentence, while the account is in use or the journal still needs it."""
    from device.accounts_due import due, needed
    from device.store_forward.tools import opened

    if account in {whose(account_of(c)) for c in config.channels}:
        raise _kept(account, "box.toml names it", "set up the account that takes its place first")
    path = Path(config.state_dir) / "journal.db"
    if not path.exists():
        return
    db = opened(path)
    try:
        last = db.execute("SELECT facts FROM journal ORDER BY n DESC LIMIT 1").fetchone()
        rows = ((n, bytes(row)) for n, row in db.execute("SELECT n, facts FROM journal ORDER BY n"))
        today = datetime.date.today().isoformat()                      # noqa: DTZ011  a shop's day
        if real_clock.clock_quality() != "ntp" and last is not None:              # a clock that ran ahead would let go of too much
            today = min(today, _day_of(bytes(last[0])))
        days = {c.name: c.refund_days_max for c in config.channels}
        need = needed(due(rows, today=today, days_of=lambda channel: days.get(channel, 365)), account)
    finally:
        db.conn.close()
    if need is not None and need.open:
        raise _kept(account, f"orders or refunds of it that are not over: {need.open}", "tillbox timeline tells of each")
    if need is not None:
        raise _kept(account, f"sales under it that can still be given back: {need.refundable}, the newest of {need.newest}",
                    "wait until they cannot, or give them back")


def _seal_new(store: KeyStore, config: Config, asked: argparse.Namespace) -> None:
    """A fresh sealing key: into `seal_key_file`, with everything sealed anew, or to a pipe for systemd-creds."""
    if not config.seal_key_file:
        if sys.stdout.isatty():
            raise ValueError("A sealing key is not shown: pipe it to systemd-creds, as docs/keys.md says.")
        print(fresh_key(secrets.token_bytes(32)).decode())
        return
    path, old = Path(config.seal_key_file), Path(config.seal_key_file + ".old")
    if old.exists() and not path.exists():            # a power cut came between the two steps below
        os.rename(old, path)
    if not old.exists():
        if path.exists():
            private_file.make(old, path.read_bytes())
        private_file.replace(path, fresh_key(secrets.token_bytes(32)) + b"\n")
    store = KeyStore(Path(config.state_dir) / "keys", sealing_keys(config.seal_key_file))
    count = store.reseal()
    old.unlink(missing_ok=True)
    private_file.sync_folder(path.parent)
    print(f"{path} holds a new sealing key; {count} keys were sealed anew.")


def _reseal(store: KeyStore, config: Config, asked: argparse.Namespace) -> None:
    if not sealing_keys(config.seal_key_file):
        raise Outside(f"Nothing is sealed anew: {NO_SEAL[0]}.", which="keys", hint=NO_SEAL[1], again=False)
    print(f"{store.reseal()} keys were sealed anew.")


WORDS = {"list": _list, "import": _import, "drop": _drop, "seal-new": _seal_new, "reseal": _reseal}


def fingerprint(store: KeyStore, name: Name, held: bytes) -> str:
    """Of a key pair SHA-256 of the public half (`openssl pkey -pubout -outform DER | sha256sum`), of a certificate of the whole of
    it; of a symmetric key something that tells it from others on this box, and no more."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    if name.kind == "private_key":
        key = serialization.load_pem_private_key(held, None, unsafe_skip_rsa_key_validation=True)
        public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return f"SHA256:{hashlib.sha256(public).hexdigest()}"
    if name.kind == "client_cert":
        return f"SHA256:{x509.load_pem_x509_certificate(held).fingerprint(hashes.SHA256()).hex()}"
    return f"here:{store.mark(name)}"


def _proven(c: ChannelConfig, kind: str, held: bytes) -> None:
    """ValueError, one sentence, for what is no key of this kind."""
    from device.drivers.channels.rsa_bytes import private_key

    if kind == "private_key":
        private_key(held)
    elif kind == "client_cert":
        _paired(held)
    elif kind == "terminal_key":
        if not held_of(held).newest:
            raise ValueError("there is no terminal's key in it")
    elif kind == "api_v3_key":
        if not held.isalnum() or len(held) != 32:
            raise ValueError("an APIv3 key is 32 letters and digits, and nothing else")
    elif not held.isascii() or not held.decode().isprintable() or b" " in held or not 8 <= len(held) <= 200:
        raise ValueError(f"{c.name}'s shared secret is 8 to 200 printable characters without blanks, and nothing else")


def _terminal(c: ChannelConfig, held: bytes, config: Config) -> ChannelConfig:
    """The terminal whose key this is.  Outside while the box runs: it changes that key by itself, and would write over this one."""
    if runs(config.run_dir):
        raise Outside("The box is running, and its terminal's key is its own to change.", which="keys", hint="stop it first")
    terminal = held_of(held).notes.get("terminal", c.terminal_id)
    if not terminal:
        raise ValueError("nothing says whose key this is: name the terminal_id in box.toml")
    return msgspec.structs.replace(c, terminal_id=terminal)


def _paired(held: bytes) -> None:
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(private_file.in_memory(held))
    except ssl.SSLError:
        raise ValueError("it is not a PEM certificate with its own private key behind it, without a password") from None


def _given(file: str) -> bytes:
    """The secret, without the line's end that an editor leaves.  ValueError for far too much of it, or nothing."""
    if file == "-":
        held = sys.stdin.buffer.read(KEY_BYTES_MAX + 1)
    else:
        with open(file, "rb") as source:
            held = source.read(KEY_BYTES_MAX + 1)
    if not held.strip() or len(held) > KEY_BYTES_MAX:
        raise ValueError(f"There is no key in what was given: it holds {'too much' if held.strip() else 'nothing'}.")
    return held.strip()


def _public(file: str) -> bytes:
    return Path(file).read_bytes() if file else b""


def _day_of(row: bytes) -> str:
    from device.txn import facts
    return facts.decode(row).at.wall[:10]


def _kept(account: str, why: str, hint: str) -> Outside:
    return Outside(f"The keys of {account} stay: {why}.", which="keys", hint=hint, again=False)


def _said(sentence: str, status: int) -> int:
    print(f"tillbox keys: {sentence}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _arguments(argv: list[str]) -> argparse.Namespace:
    shared: Any = _Parser(add_help=False)
    shared.add_argument("--config", default="/etc/tillbox/box.toml")
    parser = _Parser(prog="tillbox keys", add_help=False)
    words = parser.add_subparsers(dest="word", required=True, parser_class=_Parser)
    words.add_parser("list", parents=[shared]).add_argument("--json", action="store_true")
    taken = words.add_parser("import", parents=[shared])
    for what in ("channel", "kind", "file"):
        taken.add_argument(what)
    taken.add_argument("--serial", default="")
    taken.add_argument("--overlap", type=int, default=OVERLAP_DAYS)
    dropped = words.add_parser("drop", parents=[shared])
    dropped.add_argument("account")
    dropped.add_argument("kind", nargs="?", default="")
    dropped.add_argument("version", nargs="?", type=int, default=0)
    for word in ("seal-new", "reseal"):
        words.add_parser(word, parents=[shared])
    return parser.parse_args(argv)
