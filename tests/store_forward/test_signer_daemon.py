"""The daemon on a real token: made in it, away at a start, back while it sells; the PIN nowhere."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from device.__main__ import main
from device.ask import DaemonAway, ask
from device.daemon import EXIT_KEY
from device.store_forward.token import parse
from tests import ROOT, softhsm
from tests.softhsm import PIN, Token

token = softhsm.token
WORD = [sys.executable, "-m", "device"]


@pytest.fixture
def config(token: Token, tmp_path: Path) -> Path:
    path = tmp_path / "box.toml"
    path.write_text(f'box = "box-1"\nbox_no = "000001"\ntenant = "t"\nstate_dir = "{tmp_path}/box"\nrun_dir = "{tmp_path}/run"\n'
                    '[display]\nkind = "none"\n[scanner]\nkind = "none"\n[keypad]\nkind = "none"\n[printer]\nkind = "none"\n'
                    + token.toml)
    return path


@contextmanager
def running(config: Path) -> Iterator[Callable[[], str]]:
    """The daemon as a process; gives what it says of its signer.  Afterwards nothing that it said names the PIN."""
    log = config.with_name("log")
    with log.open("w") as out:
        run = subprocess.Popen([*WORD, "run", "--config", str(config)], cwd=ROOT, stderr=out)
        try:
            yield lambda: said(config)
        finally:
            run.send_signal(signal.SIGTERM)
            run.wait(timeout=30)
    assert run.returncode == 0 and PIN not in log.read_text()


def said(config: Path) -> str:
    """Health of its signer; `off` while nobody answers."""
    try:
        return ask(config.parent / "run" / "daemon.sock", "state")["state"]["health"]["signer"]
    except DaemonAway:
        return "off"


def becomes(health: Callable[[], str], word: str, limit_s: float = 20) -> bool:
    """Asked every 50 ms, until it says `word`."""
    end = time.monotonic() + limit_s
    while (now := health()) != word and time.monotonic() < end:
        time.sleep(.05)
    return now == word


def kinds(config: Path) -> list[tuple[str, bool]]:
    tokens = subprocess.run([*WORD, "journal", str(config.parent / "box/journal.db"), "export"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout
    keys = config.with_name("keys")
    keys.write_text(subprocess.run([*WORD, "key", str(config)], cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    subprocess.run([*WORD, "verify", "-", "--keys", str(keys)], cwd=ROOT, input=tokens, text=True, check=True)
    payloads = [parse(held).payload for held in tokens.split()]
    return [(p.kind, json.loads(bytes(p.body)).get("late") is True) for p in payloads]


def test_a_box_whose_token_is_away_starts_and_signs_when_it_is_back(config, token, capsys):
    with running(config) as health:
        assert becomes(health, "ok")
    away = token.take()
    assert main(["doctor", "--config", str(config), "--json", "--offline"]) == 1
    assert "record_key_unfit" in capsys.readouterr().out
    with running(config) as health:
        assert becomes(health, "broken")
        token.give_back(away)
        assert becomes(health, "ok")
    assert kinds(config) == [("boot", False), ("signer_gap", False), ("boot", True)]
    assert main(["doctor", "--config", str(config), "--json", "--offline"]) in (0, 1)
    assert "record_key" not in capsys.readouterr().out


def test_a_box_whose_token_was_replaced_does_not_start(config, token, capsys):
    with running(config) as health:
        assert becomes(health, "ok")
    kid = json.loads(subprocess.run([*WORD, "key", str(config)], cwd=ROOT, capture_output=True, check=True).stdout)["kid"]
    token.take()
    token.put()
    assert main(["run", "--config", str(config)]) == EXIT_KEY
    said = capsys.readouterr().err
    assert kid in said and "holds no key" in said and PIN not in said and len(said.splitlines()) == 1
