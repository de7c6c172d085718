"""The box's sealed keys on disk: one file each in the state folder's `keys`, and the sealing keys that open them.

Knows files, and what box.toml said of each account while it was the one in use.  Refuses to know any channel's bytes and what
is owed to whom.  A stolen card gives these files away and nothing in them, as long as the sealing key is not on it.
"""

from __future__ import annotations

import datetime
import logging
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from device.config import SECTIONS, ChannelConfig, Config
from device.drivers import private_file
from device.drivers.channels.accounts import KeySet
from device.errors import Outside
from device.keys.sealed import ACCOUNT, HOLDER, NONCE_BYTES, Held, Name, SealingKey, holder_of, named, sealed_by
from device.types import Account

log = logging.getLogger("tillbox")

CREDENTIAL = "tillbox-seal"                      # systemd's name for it; `-old` while a change of it is under way
SEALED_BYTES_MAX = 64 * 1024
OVERLAP_DAYS = 14
NO_SEAL = ("no sealing key is at hand", "give the service the credential tillbox-seal, or name a seal_key_file; see docs/keys.md")


class Remembered(NamedTuple):
    """What box.toml said of an account while it was in use: its section without secrets, and the public files it named."""

    config: ChannelConfig
    platform_key: bytes
    ca: bytes


def sealing_keys(seal_key_file: str, environ: Mapping[str, str] = os.environ) -> tuple[SealingKey, ...]:
    """The sealing keys at hand; the first one seals, all of them open.  Outside, one sentence, for one that cannot be used.

    systemd's credential comes before the file; each may have a former one beside it, `-old` or `.old`.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    places = [Path(folder, CREDENTIAL), Path(folder, CREDENTIAL + "-old")] if folder else []
    places += [Path(seal_key_file), Path(seal_key_file + ".old")] if seal_key_file else []
    found = []
    for place in places:
        held = private_file.read(place, 1024, which="keys")
        if held is None:
            continue
        try:
            found.append(SealingKey(held))
        except ValueError as why:
            raise Outside(f"The sealing key {place} cannot be used: {why}.", which="keys", again=False) from None
    return tuple(found)


def store_of(config: Config) -> KeyStore:
    """The sealed keys of a box; they stay closed, and the log says why, when its sealing key cannot be used."""
    try:
        sealing = sealing_keys(config.seal_key_file)
    except Outside as why:
        log.error("sealed keys stay closed: %s", why)
        sealing = ()
    return KeyStore(Path(config.state_dir) / "keys", sealing)


class KeyStore:
    """Sealed keys in `folder`.  `sealing` as `sealing_keys` gives them; without any, nothing is sealed or opened."""

    def __init__(self, folder: str | Path, sealing: tuple[SealingKey, ...]) -> None:
        self._folder, self._sealing = Path(folder), sealing

    @property
    def seals(self) -> bool:
        """Whether a sealing key is at hand."""
        return bool(self._sealing)

    def names(self) -> list[Name]:
        """Every key in the store, in order; files of other names are not looked at."""
        try:
            files = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(name for file in files if (name := named(file)) is not None)

    def read(self, name: Name) -> Held:
        """What is sealed under `name`.  Outside, one sentence, when it is not there, damaged, or no key at hand opens it."""
        return self._opened(name)[1]

    def mark(self, name: Name) -> str:
        """A fingerprint that means something on this box only.  Outside as `read`."""
        key, held = self._opened(name)
        return key.mark(held.value)

    def sealed_with(self, name: Name) -> str:
        """The id of the sealing key, hex.  Outside when the file is no sealed one."""
        try:
            return sealed_by(self._bytes(name)).hex()
        except ValueError as why:
            raise _damaged(name, why) from None

    def write(self, name: Name, held: Held) -> None:
        """Seal `held` under `name`: on the card when this returns, or as it was.  Outside when nothing can be sealed."""
        if not self._sealing:
            raise Outside(f"The key {name.whose} is not kept: {NO_SEAL[0]}.", which="keys", hint=NO_SEAL[1], again=False)
        try:
            private_file.make_folder(self._folder)
            private_file.replace(self._folder / name.file, self._sealing[0].seal(name, held, secrets.token_bytes(NONCE_BYTES)))
        except OSError as error:
            raise Outside(f"The key {name.whose} is not kept: {error.strerror}.", which="keys", hint="look at the card") from None

    def remove(self, name: Name) -> None:
        """Forget a key.  Flash keeps old pages: what is to be worthless must be revoked where it counts."""
        (self._folder / name.file).unlink(missing_ok=True)
        private_file.sync_folder(self._folder)

    def reseal(self) -> int:
        """Seal everything with the first sealing key; returns how many files were not.  Outside as `read` and `write`."""
        behind = [name for name in self.names() if self.sealed_with(name) != self._sealing[0].id.hex()]
        for name in behind:
            self.write(name, self.read(name))
        return len(behind)

    def key_file(self, name: Name) -> SealedFile:
        """A place for a key that the box changes by itself."""
        return SealedFile(self, name)

    # What channels are made of ---------------------------------------------------------------------------------------

    def sets(self, c: ChannelConfig, platform_key: bytes, ca_file: str, today: str = "") -> list[KeySet]:
        """The sealed keys of the account in `c`, newest first; a second set while the one before is still tried; [] for none."""
        today = today or datetime.date.today().isoformat()                       # noqa: DTZ011  a shop's day
        newest, before = {}, {}
        for kind, held in self._versions(c).items():
            newest[kind] = self.read(held[-1])
            lasts = len(held) > 1 and newest[kind].older_until >= today
            before[kind] = self.read(held[-2]) if lasts else newest[kind]
        if not newest:
            return []
        whole = [_key_set(kinds, c, platform_key, ca_file) for kinds in ([newest] if before == newest else [newest, before])]
        terminal = self.terminal(c) if "terminal_key" in newest else None       # which keeps the key before it in itself
        return whole if terminal is None else [msgspec.structs.replace(whole[0], terminal=self.key_file(terminal))]

    def older(self, account: Account) -> Remembered | None:
        """What was remembered of an account that box.toml names no more, None for one that never was here.  Outside as `read`."""
        name = Name(account.channel, account.account, holder_of(account), ACCOUNT)
        return _recalled(self.read(name)) if name in self.names() else None

    def remember(self, c: ChannelConfig, platform_key: bytes, ca: bytes) -> None:
        """Keep what box.toml says of an account whose keys are sealed here, so that its orders can end under another's reign.

        Of an account without a sealed key nothing is kept.  Outside as `write`.
        """
        if not self.holds(c):
            return
        table = {key.name: msgspec.to_builtins(getattr(c, key.name)) for key in SECTIONS["channel.*"]
                 if not key.secret and key.type != "file"}
        said = msgspec.json.encode(_Kept(c.name, table, platform_key, ca), order="sorted")
        name = _named(c, ACCOUNT)
        if name not in self.names() or self.read(name).value != said:
            self.write(name, Held(said, made_at=_now()))

    def holds(self, c: ChannelConfig) -> bool:
        """Whether a key of the account in `c` is sealed here."""
        return bool(self._versions(c))

    def channels(self) -> list[str]:
        """Channels of which a key is sealed here, in use or not."""
        return sorted({name.channel for name in self.names() if name.kind != ACCOUNT and name.channel in HOLDER})

    def next_version(self, c: ChannelConfig, kind: str) -> Name:
        """The name of the next key of this kind."""
        return _named(c, kind, max((name.version for name in self._versions(c).get(kind, [])), default=0) + 1)

    def terminal(self, c: ChannelConfig) -> Name | None:
        """The gateway's terminal that this box is: the one box.toml names, else the newest."""
        held = [n for n in self._terminals(c) if n.holder == c.terminal_id or not c.terminal_id]
        return max(held, key=lambda n: n.version, default=None)

    def keep_terminal(self, c: ChannelConfig, held: bytes) -> Name:
        """Seal the key of the terminal that `c` names, which is from here on the newest.  Outside as `write`."""
        before = self._terminals(c)
        name = _named(c, "terminal_key", max((n.version for n in before), default=0) + 1)
        self.key_file(name).write(held)
        for older in before:
            if older.holder == name.holder:
                self.remove(older)
        return name

    def _terminals(self, c: ChannelConfig) -> list[Name]:
        return [n for n in self.names() if (n.channel, n.account, n.kind) == (c.name, c.account, "terminal_key")]

    def _versions(self, c: ChannelConfig) -> dict[str, list[Name]]:
        found: dict[str, list[Name]] = {}
        whose = _named(c, ACCOUNT).whose
        for name in self.names():
            if name.whose == whose and name.kind != ACCOUNT:
                found.setdefault(name.kind, []).append(name)
        return found

    def _opened(self, name: Name) -> tuple[SealingKey, Held]:
        sealed = self._bytes(name)
        try:
            for key in self._sealing:
                if key.id == sealed_by(sealed):
                    return key, key.open(name, sealed)
        except ValueError as why:
            raise _damaged(name, why) from None
        lacks = "it was sealed with a sealing key that is not at hand" if self._sealing else NO_SEAL[0]
        raise Outside(f"The sealed key {name.whose} {name.kind} stays closed: {lacks}.", which="keys", hint=NO_SEAL[1], again=False)

    def _bytes(self, name: Name) -> bytes:
        held = private_file.read(self._folder / name.file, SEALED_BYTES_MAX, which="keys")
        if held is None:
            raise Outside(f"The sealed key {name.whose} {name.kind} is gone.", which="keys", hint="import it again", again=False)
        return held


class SealedFile:
    """A KeyFile whose content is sealed."""

    def __init__(self, store: KeyStore, name: Name) -> None:
        self._store, self._name = store, name

    def read(self) -> bytes:
        return self._store.read(self._name).value

    def write(self, held: bytes) -> None:
        self._store.write(self._name, Held(held, made_at=_now()))


def _key_set(kinds: dict[str, Held], c: ChannelConfig, platform_key: bytes, ca_file: str) -> KeySet:
    cert = kinds["client_cert"].value if "client_cert" in kinds else b""
    serial = kinds["private_key"].serial if "private_key" in kinds else ""
    return KeySet(private_key=kinds["private_key"].value if "private_key" in kinds else b"",
                  secret=kinds["secret"].value.decode() if "secret" in kinds else "", platform_key=platform_key,
                  api_v3_key=kinds["api_v3_key"].value.decode() if "api_v3_key" in kinds else "",
                  serial_no=serial or c.serial_no, client_cert=private_file.in_memory(cert) if cert else c.client_cert_file,
                  ca_file=ca_file)


class _Kept(msgspec.Struct):
    name: str
    table: dict[str, Any]
    platform_key: bytes
    ca: bytes


def _recalled(held: Held) -> Remembered:
    """A section as `remember` kept it; keys that a later release added have their defaults, those it dropped are gone."""
    kept = msgspec.json.decode(held.value, type=_Kept)
    values = {}
    for key in SECTIONS["channel.*"]:
        absent = "" if key.secret or key.type == "file" else key.default
        values[key.name] = kept.table[key.name] if key.name in kept.table else absent
    return Remembered(msgspec.convert({"name": kept.name, **values}, ChannelConfig), kept.platform_key, kept.ca)


def _named(c: ChannelConfig, kind: str, version: int = 1) -> Name:
    return Name(c.name, c.account, getattr(c, HOLDER[c.name]), kind, version)


def _damaged(name: Name, why: ValueError) -> Outside:
    return Outside(f"The sealed key {name.whose} {name.kind} does not open: {why}.", which="keys", again=False,
                   hint="import it again")


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
