"""The box's identity on its card: who it is, the keys of its line, and what the cloud is known by.

One folder, `identity_dir`, replaced as a whole: its name is a link that moves from one complete folder to the next, so that a kill
at any moment leaves the old identity or the new one.  Knows files; refuses to know how an identity is come by.

| file | what |
|---|---|
| `tls.key tls.pem` | key of the line, its certificate and chain |
| `encryption.key encryption.pem` | key that secrets in pushed configurations are sealed to, its certificate |
| `record.pem` | certificate of the record key, which itself lies where the signer has it |
| `ca.pem` | the CA that the broker is known by |
| `cloud.json` | `{"tenant", "box", "box_no", "host", "port", "ack": JWKS, "config": JWKS, "command": JWKS, "console": JWKS}` |
"""

from __future__ import annotations

import datetime
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from device.config import SECTIONS, Config, merged, parse
from device.drivers import private_file
from device.errors import ConfigError, DriverGone, Outside

if TYPE_CHECKING:
    from device.mqtt.enrol_wire import Identity

FILES = ("tls.key", "tls.pem", "encryption.key", "encryption.pem", "record.pem", "ca.pem", "cloud.json")
PURPOSES = ("ack", "command", "config", "console")           # whose keys a configuration names, and an identity brings
FILE_BYTES_MAX = 64 * 1024
WHICH = "identity"


class Jwks(msgspec.Struct, frozen=True):
    keys: tuple[dict[str, str], ...] = ()


class Cloud(msgspec.Struct, frozen=True):
    """What stands in `cloud.json`."""

    tenant: str
    box: str
    box_no: str
    host: str
    port: int
    ack: Jwks
    config: Jwks = Jwks()
    command: Jwks = Jwks()
    console: Jwks = Jwks()               # of an identity from before consoles had one: none


# Reading -----------------------------------------------------------------------------------------------------------

def cloud_of(folder: str | Path) -> Cloud | None:
    """What the cloud said at the enrolment, None for a box without an identity.  Outside when it cannot be read."""
    held = private_file.read(Path(folder) / "cloud.json", FILE_BYTES_MAX, which=WHICH)
    try:
        return None if held is None else msgspec.json.decode(held, type=Cloud)
    except msgspec.DecodeError as why:
        raise _unfit(folder, f"cloud.json cannot be read: {why}") from None


def enrolled(config: Config) -> bool:
    """Whether the configuration is that of a box with an identity."""
    return config.ack_key_file == str(file_of(config, "cloud.json"))


class Span(msgspec.Struct, frozen=True):
    """Of one certificate; `renew_at` two thirds of its life."""

    begins: datetime.datetime
    ends: datetime.datetime

    @property
    def renew_at(self) -> datetime.datetime:
        return self.begins + (self.ends - self.begins) * 2 / 3


def span_of(pem: bytes) -> Span:
    """The life of the first certificate in `pem`.  ValueError when there is none."""
    from cryptography import x509

    read = x509.load_pem_x509_certificate(pem)
    return Span(read.not_valid_before_utc, read.not_valid_after_utc)


def file_of(config: Config, name: str) -> Path:
    """Where one of FILES lies, whether it is there or not."""
    assert name in FILES, name
    return Path(config.identity_dir) / name


def overlaid(data: dict[str, Any], which: str = "config") -> dict[str, Any]:
    """A configuration's tables with what the identity says laid over them; as they are for a box without one.

    The names, the line's certificate and the cloud's keys are the identity's: a box is who its certificate says.  Where the broker
    is may also be said by the configuration, which then counts.  ConfigError when it calls the box by another name; Outside when
    the identity cannot be read.
    """
    folder = _folder(data)
    cloud = cloud_of(folder)
    if cloud is None:
        return data
    own = {"box": cloud.box, "box_no": cloud.box_no, "tenant": cloud.tenant}
    faults = [f"{name} is {data[name]!r}, and this box was enrolled as {value!r}: take the line out, or enrol it anew"
              for name, value in own.items() if data.get(name, value) != value]
    if faults:
        raise ConfigError(faults, which=which)
    if not isinstance(data.get("mqtt", {}), dict):
        return data | own                                    # `parse` says it better
    line = {"ca_file": str(folder / "ca.pem"), "cert_file": str(folder / "tls.pem"), "key_file": str(folder / "tls.key")}
    keys = {f"{purpose}_key_file": str(folder / "cloud.json") for purpose in PURPOSES}
    return merged({"mqtt": {"host": cloud.host, "port": cloud.port}}, data,
                  {**own, **keys, "encryption_key_file": str(folder / "encryption.key"), "mqtt": line})


def loaded(path: str | Path, *, lacking: dict[str, Any] | None = None) -> Config:
    """The configuration file at `path` under the identity of this box.  OSError, UnicodeDecodeError, ConfigError, Outside.

    `lacking` what to take for keys that neither has: for the commands that make an identity.
    """
    import tomllib

    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError([f"not TOML: {fault}"], which=str(path)) from fault
    return parse(merged(lacking or {}, overlaid(data, str(path))), which=str(path))


def _folder(data: dict[str, Any]) -> Path:
    """`identity_dir` as `parse` will have it, of tables that it has not looked at yet."""
    defaults = {key.name: key.default for key in SECTIONS[""]}
    state, own = (data.get(name, defaults[name]) for name in ("state_dir", "identity_dir"))
    return Path(str(state)) / str(own)


# Writing -----------------------------------------------------------------------------------------------------------

def files_of(identity: Identity, tls_key: bytes, encryption_key: bytes) -> dict[str, bytes]:
    """The content of the folder for a fresh identity."""
    keys = identity.keys
    cloud = Cloud(identity.tenant, identity.box, identity.box_no, identity.host, identity.port, Jwks(keys.ack), Jwks(keys.config),
                  Jwks(keys.command), Jwks(keys.console))
    return {"tls.key": tls_key, "tls.pem": identity.tls.encode(), "encryption.key": encryption_key,
            "encryption.pem": identity.encryption.encode(), "record.pem": identity.record.encode(),
            "ca.pem": identity.ca.encode(), "cloud.json": msgspec.json.format(msgspec.json.encode(cloud), indent=1) + b"\n"}


def install(folder: str | Path, files: dict[str, bytes]) -> None:
    """The identity is `files`, whole, when this returns; killed before, it is what it was.  OSError, Outside."""
    import shutil  # not for a start

    assert set(files) == set(FILES), sorted(files)
    link = Path(folder)
    if link.exists() and not link.is_symlink():
        raise _unfit(link, "it is a folder that no enrolment made")
    fresh = link.with_name(f"{link.name}.{secrets.token_hex(4)}")
    write_folder(fresh, files)
    draft = link.with_name(f".{link.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(fresh.name)
    os.replace(draft, link)
    private_file.sync_folder(link.parent)
    for older in _generations(link):
        if older.name != fresh.name:
            shutil.rmtree(older, ignore_errors=True)


def changed(folder: str | Path, files: dict[str, bytes]) -> None:
    """The identity with some of its files replaced, as one: old or new.  OSError, Outside."""
    held = {name: private_file.read(Path(folder) / name, FILE_BYTES_MAX, which=WHICH) for name in FILES}
    gone = [name for name, raw in held.items() if raw is None]
    if gone:
        raise _unfit(folder, f"{gone[0]} is gone")
    install(folder, {name: raw for name, raw in held.items() if raw is not None} | files)


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """A folder of private files on the card, where there was none."""
    private_file.make_folder(folder)
    for name, held in files.items():
        private_file.make(folder / name, held)


def _generations(link: Path) -> list[Path]:
    """Folders that `install` made, the one in use and any that a kill left behind."""
    return [path for path in link.parent.glob(f"{link.name}.*") if path.is_dir() and not path.is_symlink()
            and len(path.suffix) == 9 and not set(path.suffix[1:]) - set("0123456789abcdef")]


def _unfit(folder: str | Path, why: str) -> Outside:
    return DriverGone(f"The identity in {folder} cannot be used: {why}.", which=WHICH, again=False,
                      hint="move it away and enrol the box anew; what it sold stays")
