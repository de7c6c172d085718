"""Where this console stands: the box's configuration, or what is left of it when it cannot be read.

A console is wanted most when the configuration is broken: then the defaults, the identity and the reasons are all there is, and a
login still works.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from device import __version__
from device.appliance import fault
from device.config import Config, ConsoleConfig, parse
from device.console.challenge import key_of
from device.drivers import private_file
from device.errors import ConfigError, DriverGone, Outside
from device.identity import folder as identity
from device.store_forward.token import unb64

BOOT_FILE = Path("/proc/sys/kernel/random/boot_id")


class Place(msgspec.Struct):
    """`config` None when the file is refused, `faults` then say why; `path` of box.toml."""

    path: str
    config: Config | None
    faults: list[str]
    box: str
    tenant: str
    state_dir: Path
    run_dir: Path
    identity_dir: Path
    key_file: Path
    encryption_key_file: Path
    console: ConsoleConfig
    lang: str

    software: str = __version__
    fault: tuple[str, str] | None = None         # code and sentence: the data partition cannot be used

    @property
    def folder(self) -> Path:
        """The console's own, in the state folder."""
        return self.state_dir / "console"

    @property
    def unclaimed(self) -> bool:
        """A box that belongs to nobody yet: it was never enrolled and never sold.  Where the file is refused nobody knows that."""
        if self.faults or self.fault is not None:
            return False
        return not (self.identity_dir / "cloud.json").exists() and not self.journal.exists()

    @property
    def socket(self) -> Path:
        return self.run_dir / "daemon.sock"

    @property
    def journal(self) -> Path:
        return self.state_dir / ("training" if self.config is not None and self.config.training else "") / "journal.db"


def at(path: str) -> Place:
    """The place of the box whose configuration file is `path`.  Never fails."""
    faults: list[str] = []
    try:
        config: Config | None = identity.loaded(path, lacking={"box": "box", "box_no": "000000", "tenant": "tenant"})
    except ConfigError as why:
        config, faults = None, list(why.reasons)
    except (OSError, UnicodeDecodeError, Outside) as why:
        config, faults = None, [str(why)]
    best = config if config is not None else left_of(path)
    lang = best.lang if best.console.lang == "same" else best.console.lang
    return Place(path, config, faults, best.box, best.tenant, Path(best.state_dir), Path(best.run_dir), Path(best.identity_dir),
                 Path(best.console_key_file), Path(best.encryption_key_file), best.console, lang, fault=fault.said())


def boot_of(run_dir: Path) -> str:
    """A name for this boot: the kernel's, or one kept where a boot empties (the unit's closed room does not show the kernel's)."""
    try:
        return BOOT_FILE.read_text().strip()
    except OSError:
        pass
    kept = Path(os.environ.get("RUNTIME_DIRECTORY", run_dir)) / "console.boot"
    try:
        private_file.make(kept, secrets.token_hex(16).encode())          # one that is there stays
        return kept.read_text().strip()
    except OSError:
        return secrets.token_hex(16)


def login_key(place: Place) -> bytes:
    """The 32 bytes that codes for this box are made with.  DriverGone, with what to do, when it has none."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDH, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    theirs = fleet_key(place)
    try:
        mine = load_pem_private_key(place.encryption_key_file.read_bytes(), None)
        assert isinstance(mine, EllipticCurvePrivateKey)
        return key_of(mine.exchange(ECDH(), theirs), place.tenant, place.box)
    except (OSError, ValueError, TypeError, AssertionError) as why:
        raise _none(f"this box's encryption key cannot be used ({type(why).__name__})") from None


def fleet_key(place: Place) -> Any:
    """The fleet's console key: codes are made with it, and bundles encrypted to it.  DriverGone when this box was given none."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    try:
        held = msgspec.json.decode(place.key_file.read_bytes(), type=dict[str, Any])
        jwks = held if "kty" in held or "keys" in held else held["console"]
        jwk = jwks.get("keys", [jwks])[0]
        x, y = (int.from_bytes(unb64(jwk[part]), "big") for part in ("x", "y"))
        return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except OSError:
        raise _none(f"{place.key_file} is not there") from None
    except (msgspec.DecodeError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise _none(f"{place.key_file} holds no console key of the fleet") from None


def _none(why: str) -> DriverGone:
    return DriverGone(f"no code can open this console: {why}", which="console", again=False,
                      hint="enrol the box anew, or log in by an SSH certificate")


def left_of(path: str) -> Config:
    """A configuration of defaults under what can still be read of the real one: folders, the name, the console's own section."""
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    read: dict[str, Any] = {}
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:                  # no TOML as a whole: each line above the first section by itself
        for line in text.partition("\n[")[0].splitlines():
            with contextlib.suppress(tomllib.TOMLDecodeError):
                read |= tomllib.loads(line)
    must = {"box": "box", "box_no": "000000", "tenant": "tenant"}
    keep: dict[str, Any] = dict(must)
    for name in ("box", "tenant", "state_dir", "run_dir", "identity_dir", "console_key_file", "encryption_key_file", "lang",
                 "console", "display"):
        if name in read and _parses({**must, name: read[name]}):
            keep[name] = read[name]
    try:
        return parse(identity.overlaid(keep), which=path)
    except (ConfigError, Outside):
        return parse(keep, which=path)


def _parses(table: dict[str, Any]) -> bool:
    try:
        parse(table, which="")
    except ConfigError:
        return False
    return True


def may_write(folder: Path) -> bool:
    return os.access(folder, os.W_OK)
