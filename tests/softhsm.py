"""A PKCS#11 token of a test's own: SoftHSM2 on a temporary folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "4711-Geheim"


class Token:
    """One token labelled `till`, its PIN in a file; `module` and `environ` are what a process needs to find it."""

    def __init__(self, folder: Path) -> None:
        if not os.path.exists(MODULE) or shutil.which("softhsm2-util") is None:
            pytest.skip("SoftHSM2 is not installed: apt-get install softhsm2")
        pytest.importorskip("pkcs11", reason="python-pkcs11 is not installed: pip install 'tillbox[pkcs11]'")
        self.folder, self.tokens, self.pin_file, self.module = folder, folder / "tokens", folder / "pin", MODULE
        self.environ = {"SOFTHSM2_CONF": str(folder / "softhsm2.conf")}
        (folder / "softhsm2.conf").write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\n"
                                              "log.level = ERROR\n")
        self.write_pin(PIN)
        self.put()

    def put(self) -> None:
        """An empty token."""
        self.tokens.mkdir(exist_ok=True)
        subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", "till", "--so-pin", "so-" + PIN, "--pin", PIN],
                       env={**os.environ, **self.environ}, check=True, stdout=subprocess.DEVNULL)

    def take(self) -> Path:
        """Pulled out; where it lies meanwhile."""
        away = self.folder / "away"
        self.tokens.rename(away)
        self.tokens.mkdir()
        return away

    def give_back(self, away: Path) -> None:
        shutil.rmtree(self.tokens)
        away.rename(self.tokens)

    def write_pin(self, pin: str) -> None:
        self.pin_file.write_text(pin + "\n")
        self.pin_file.chmod(0o600)

    @property
    def toml(self) -> str:
        """The section of box.toml."""
        return f'[signer]\nkind = "pkcs11"\nmodule = "{MODULE}"\ntoken = "till"\npin_file = "{self.pin_file}"\n'


@pytest.fixture
def token(tmp_path, monkeypatch) -> Token:
    folder = tmp_path / "hsm"
    folder.mkdir()
    made = Token(folder)
    monkeypatch.setenv("SOFTHSM2_CONF", made.environ["SOFTHSM2_CONF"])
    return made
