"""The demo's box holds its channels' keys as a box should: sealed.  The sealing key lies beside the box's folder, not in it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from device.config import ChannelConfig, parse
from device.keys.sealed import HOLDER, KINDS, Held, Name, fresh_key
from device.keys.store import store_of
from sim.counter.files import write

PLAIN = {"private_key": "private_key_file", "client_cert": "client_cert_file", "secret": "secret", "api_v3_key": "api_v3_key"}


def sealed(folder: Path, table: dict[str, Any]) -> dict[str, Any]:
    """`table`, a box.toml, without the keys that it named or held: they are sealed, and their files are gone."""
    seal = folder / "seal.key"
    if not seal.exists():
        write(seal, fresh_key(secrets.token_bytes(32)) + b"\n")
    table = table | {"seal_key_file": str(seal)}
    config = parse(table)
    store, sections = store_of(config), dict(table["channel"])
    for c in (c for c in config.channels if c.name != "gateway"):        # whose key the box changes, and its server reads
        for kind in KINDS[c.name]:
            if (held := _held(c, PLAIN[kind])):
                name = Name(c.name, c.account, getattr(c, HOLDER[c.name]), kind)
                if name not in store.names() or store.read(name).value != held:
                    store.write(name, Held(held, serial=c.serial_no if kind == "private_key" else ""))
                sections[c.name] = {key: value for key, value in sections[c.name].items() if key != PLAIN[kind]}
                if PLAIN[kind].endswith("_file"):
                    Path(getattr(c, PLAIN[kind])).unlink()
    return table | {"channel": sections}


def _held(c: ChannelConfig, key: str) -> bytes:
    said: str = getattr(c, key)
    return Path(said).read_bytes() if said and key.endswith("_file") else said.encode()
