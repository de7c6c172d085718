"""A box with sealed keys for tests: its folder, its box.toml, its sealing key elsewhere, and `tillbox keys` as a call."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from device.__main__ import main
from device.config import Config, parse_toml
from device.gateway import with_terminal
from device.keys.sealed import fresh_key
from device.keys.store import KeyStore, sealing_keys

SEALING = fresh_key(bytes(range(32)))


class SealedBox:
    """Everything in `folder`: `box` the state, `seal/seal.key` the sealing key, `box.toml`.  `wechat` fields of the channel."""

    def __init__(self, folder: Path, **wechat: str) -> None:
        self.folder, self.state, self.toml, self.seal = folder, folder / "box", folder / "box.toml", folder / "seal" / "seal.key"
        for made in (self.state, self.seal.parent):
            made.mkdir(exist_ok=True)
        self.seal.touch(mode=0o600)
        self.seal.write_bytes(SEALING + b"\n")
        self.configure(**wechat)

    def configure(self, channel: str = "wechat", top: str = "", **fields: Any) -> Config:
        """Write box.toml anew; a field that is left out has what a WeChat shop has."""
        given = {"base_url": "http://127.0.0.1:1", **({} if channel != "wechat" else {
            "appid": "wx0000000000000001", "mchid": "1900000001", "notify_url": "https://example.com/n", "serial_no": "51",
            "platform_key_id": "PUB_KEY_ID_01", "platform_key_file": str(self.folder / "platform.pem")}), **fields}
        section = "\n".join(f"{name} = {value if isinstance(value, int) else chr(34) + str(value) + chr(34)}"
                            for name, value in given.items())
        self.toml.write_text(f'box = "box-1"\nbox_no = "000001"\ntenant = "t"\nmerchant_keys_on_box = true\n{top}\n'
                             f'state_dir = "{self.state}"\nrun_dir = "{self.folder}/run"\nseal_key_file = "{self.seal}"\n'
                             f'[display]\nkind = "none"\n[printer]\nkind = "none"\n[scanner]\nkind = "none"\n'
                             f'[keypad]\nkind = "none"\n[channel.{channel}]\n{section}\n')
        return self.config

    @property
    def config(self) -> Config:
        """As every command reads it."""
        return with_terminal(parse_toml(self.toml.read_text()))

    @property
    def store(self) -> KeyStore:
        return KeyStore(self.state / "keys", sealing_keys(str(self.seal), {}))

    def keys(self, *argv: str, given: bytes = b"") -> tuple[int, str, str]:
        """`tillbox keys ...`: status, what it printed, what it complained of."""
        return command("keys", argv[0], "--config", str(self.toml), *argv[1:], given=given)


def command(*argv: str, given: bytes = b"") -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given))):
        status = main(list(argv))
    return status, out.getvalue(), err.getvalue()
