"""The record key that the journal names: gone or another, the box says so and makes none; a new journal makes its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.till import Till
from device import daemon
from device.__main__ import main
from device.daemon import EXIT_KEY
from device.drivers.signer.file import FileSigner
from device.errors import KeyMissing
from tests import ROOT


@pytest.fixture
def box(tmp_path: Path) -> Path:
    """`box.toml` of a till that sold, its journal and its key; the folder of the state is `box` beside it."""
    till = Till(tmp_path)
    till.cash_sale()
    till.close()
    state = tmp_path / "box"
    state.mkdir()
    shutil.move(tmp_path / "journal.db", state / "journal.db")
    shutil.move(tmp_path / "record.pem", state / "record.key")
    config = tmp_path / "box.toml"
    config.write_text(f'box = "box-1"\nbox_no = "000001"\ntenant = "t"\nstate_dir = "{state}"\nrun_dir = "{tmp_path}/run"\n'
                      f'record_key_file = "{state}/record.key"\n[display]\nkind = "none"\n')
    return config


def gone(key: Path) -> None:
    key.unlink()


def another(key: Path) -> None:
    key.unlink()
    FileSigner(key)


@pytest.mark.parametrize("harm, word", [(gone, "is gone"), (another, "holds key")])
def test_a_key_that_is_not_the_journals_stops_the_box_in_one_sentence(harm, word, box, capsys):
    key = box.parent / "box" / "record.key"
    kid = FileSigner(key).kid
    harm(key)
    kept = key.read_bytes() if key.exists() else None
    for _ in range(2):
        assert main(["run", "--config", str(box)]) == EXIT_KEY == 4
        said = capsys.readouterr().err
        assert word in said and kid in said and str(key) in said and "recovery.md" in said and len(said.splitlines()) == 1
    assert (key.read_bytes() if key.exists() else None) == kept


def test_the_right_key_is_taken_and_a_new_journal_makes_one(box, tmp_path):
    key = box.parent / "box" / "record.key"
    kid = FileSigner(key).kid
    assert FileSigner(key, kid).kid == kid
    fresh = FileSigner(tmp_path / "fresh")
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o600
    with pytest.raises(KeyMissing):
        FileSigner(tmp_path / "fresh", kid)
    with pytest.raises(KeyMissing):
        FileSigner(tmp_path / "none", fresh.kid)
    assert not (tmp_path / "none").exists()


def test_lost_for_good_the_documented_way_sells_again_under_a_new_journal_and_key(box):
    """Moves the journal away, starts the daemon as a process, and asks it which key it signs with."""
    state = box.parent / "box"
    (state / "record.key").unlink()
    shutil.move(state / "journal.db", box.parent / "old.db")
    word = [sys.executable, "-m", "device"]
    run = subprocess.Popen([*word, "run", "--config", str(box)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stderr is not None
        assert any("journal=" in line for line in run.stderr)
        shown = subprocess.run([*word, "key", str(box)], cwd=ROOT, capture_output=True, text=True, check=True)
        jwk = json.loads(shown.stdout)
        assert jwk["kid"] == FileSigner(state / "record.key").kid and jwk["box"] == "box-1" and "d" not in jwk
    finally:
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=30)
    assert run.returncode == 0
    assert (state / "journal.db").exists()


def test_the_command_makes_no_key(box, capsys):
    key = box.parent / "box" / "record.key"
    key.unlink()
    assert main(["key", str(box)]) == 1
    assert "no record key" in capsys.readouterr().err and not os.path.lexists(key)
    assert daemon.show_key([str(box) + ".none"]) == 2
