"""Which rule table the box runs with: the one that ships, or a newer one that the fleet signed.

A table once taken is kept in the state folder, so that neither an older one nor a spoilt file undoes it.  Beside it stands
a proof of the box's own that its signature was checked: a MAC, under the bytes of the record key, of the table and of the keys
it was checked with.  Whoever could forge that could sign records; and a start need not load the verifier, which costs more
than all else that it loads at once.  A box whose record key lies in a chip has no such proof, and checks at every start.
"""

from __future__ import annotations

import hmac
import logging
import os
from pathlib import Path

import msgspec

from device import rules
from device.config import Config, written_rules
from device.drivers import private_file
from device.errors import ConfigError, Outside
from device.trusted import verifiers
from device.types import Rules, Terms

log = logging.getLogger("tillbox")

KEY_BYTES_MAX = 4096


def ruled(terms: Terms, config: Config) -> tuple[Terms, str]:
    """The terms under the newest rule table at hand, and the sentence that says what is wrong with the fleet's."""
    table, fault = _newest(config)
    own = dict(table.rules)
    for channel in () if config.rules_file else config.channels:                    # box.toml speaks where no fleet does
        said = written_rules(channel)
        if said:
            own[channel.name] = msgspec.structs.replace(own.get(channel.name, Rules()), **said)
        if (code := own.get(f"{channel.name}.code")) is not None:                   # a refund is the same, however it was paid
            refunds = {field: value for field, value in said.items() if field.startswith("refund_")}
            own[f"{channel.name}.code"] = msgspec.structs.replace(code, **refunds)
    for channel in config.channels:                                                 # no table knows what a gateway speaks
        if channel.dialect == "shouqianba" and channel.name in own:
            own[channel.name] = msgspec.structs.replace(own[channel.name], undo_moves_money=True)
    return msgspec.structs.replace(terms, rules=tuple(sorted(own.items())), codes=table.codes,
                                   rules_version=table.version), fault


def _newest(config: Config) -> tuple[rules.RuleTable, str]:
    table, fault = rules.parse((Path(__file__).with_name("rules.json")).read_bytes(), which="the rule table that ships"), ""
    kept, taken = Path(config.state_dir) / "rules.taken", b""
    for path in (kept, Path(config.rules_file)) if config.rules_file else ():
        try:
            token = path.read_bytes().strip()
            if token == taken:
                continue
            told = _kept(kept, token, config) if path == kept else _signed(path, token, config)
        except (OSError, Outside) as why:
            if path != kept:
                log.error("the rule table is not taken: %s", why)
                fault = f"the rule table is not taken: {why}"
            continue
        if told.version > table.version:
            table, taken = told, token
            if path != kept:
                _replace(kept, token)
                _prove(kept, token, config)
        elif path != kept and told.version < table.version:
            fault = f"the rule table is not taken: version {told.version} is older than {table.version}"
            log.error("%s", fault)
    return table, fault


def _signed(path: Path, token: bytes, config: Config) -> rules.RuleTable:
    return rules.opened(token, verifiers(config.rules_key_file, "a rule table", "rules"), which=str(path))


def _kept(path: Path, token: bytes, config: Config) -> rules.RuleTable:
    """The table that was taken: by the proof beside it, or else by its signature."""
    proof = _proof(token, config)
    try:
        if proof and hmac.compare_digest(_beside(path).read_bytes(), proof):
            return rules.proven(token, which=str(path))
    except (OSError, ConfigError):
        pass
    told = _signed(path, token, config)
    _prove(path, token, config)
    return told


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".proof")


def _prove(path: Path, token: bytes, config: Config) -> None:
    proof = _proof(token, config)
    if proof:
        _replace(_beside(path), proof)


def _proof(token: bytes, config: Config) -> bytes:
    """b"" where this box has no secret to prove by, or no key to check with."""
    if config.signer.kind != "file":
        return b""
    try:
        secret = private_file.read(config.record_key_file, KEY_BYTES_MAX, which="signer")
        keys = Path(config.rules_key_file).read_bytes()
    except (OSError, Outside):
        return b""
    said = b"tillbox: this rule table was checked\0" + len(keys).to_bytes(8, "big") + keys + token
    return hmac.digest(secret, said, "sha256").hex().encode() if secret else b""


def _replace(path: Path, held: bytes) -> None:
    fresh = path.with_suffix(path.suffix + ".new")
    fresh.write_bytes(held)
    os.replace(fresh, path)
