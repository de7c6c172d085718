"""No stale QR stays, wherever the last life showed it: box.toml may be refused by now, or name another display."""

from __future__ import annotations

import asyncio
import io
import os
import socket

import pytest
import zxingcpp
from PIL import Image

from device import daemon, last_words
from device.daemon import Daemon
from device.drivers.display.file import FileDisplay
from device.drivers.signer.file import FileSigner
from device.push.layers import Layers
from device.txn.screen import Screen
from sim.devices.display import frame_png

QR = "weixin://wxpay/bizpayurl?pr=AbCdEfG00"


class Shop:
    """A box whose daemon showed a QR in `frame` and was cut off."""

    def __init__(self, folder):
        self.folder, self.toml, self.frame = folder, folder / "box.toml", folder / "frame"
        self.write(self.frame)
        FileSigner(folder / "record.key", "")
        self.lives_and_dies()
        asyncio.run(FileDisplay(str(self.frame)).show(Screen("AWAITING", "扫码付款", qr=QR, total_fen=500), 0))
        assert shown(self.frame) == [QR]

    def write(self, frame, more=""):
        self.toml.write_text(f"box = 'box-8'\nbox_no = '00000A'\ntenant = 'corner'\nstate_dir = '{self.folder}'\n{more}\n"
                             f"run_dir = '{self.folder}/run'\nrecord_key_file = '{self.folder}/record.key'\n"
                             "scanner = {kind = 'none'}\nkeypad = {kind = 'none'}\nprinter = {kind = 'none'}\n"
                             f"[display]\nkind = 'file'\npath = '{frame}'\n")

    def lives_and_dies(self):
        made = Daemon(Layers(self.toml.read_text(), which="").alone)
        made.journal.close()

    def starts(self):
        return daemon.main(["--config", str(self.toml)])


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setattr(daemon, "keep_inside", lambda: None)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    return Shop(tmp_path)


def shown(path):
    """The QRs that a phone finds there."""
    return [found.text for found in zxingcpp.read_barcodes(Image.open(io.BytesIO(frame_png(str(path)))).convert("L"))]


@pytest.mark.parametrize("harm", ["no_such_key = 1", "= no TOML at all"])
def test_a_refused_file_leaves_no_qr(shop, harm, capsys):
    shop.write(shop.frame, more=harm)
    assert shop.starts() == 2 and shown(shop.frame) == []
    assert "tillbox cannot start" in capsys.readouterr().err


def test_a_file_that_is_gone_leaves_no_qr_where_systemd_says_the_state_is(shop, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(shop.folder))
    shop.toml.unlink()
    assert shop.starts() == 2 and shown(shop.frame) == []


def test_a_refused_file_beside_a_living_daemon_touches_nothing(shop):
    (shop.folder / "run").mkdir(exist_ok=True)
    shop.write(shop.frame, more="no_such_key = 1")
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(shop.folder / "run" / "daemon.sock"))
        living.listen()
        assert shop.starts() == 2
    assert shown(shop.frame) == [QR]


def test_another_display_in_the_file_leaves_no_qr_on_the_old_one(shop):
    shop.write(shop.folder / "other")
    shop.lives_and_dies()
    assert not shop.frame.exists() or shown(shop.frame) == []


def test_another_display_and_a_start_that_fails_leave_none_either(shop):
    shop.write(shop.folder / "other")
    (shop.folder / "record.key").rename(shop.folder / "its.key")
    (shop.folder / "journal.db").write_bytes(b"no journal")
    (shop.folder / "journal.db-wal").unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
        with pytest.raises(SystemExit):
            shop.starts()
    assert shown(shop.frame) == [] == shown(shop.folder / "other")


def test_a_state_folder_that_is_not_ours_is_said_on_the_glass(shop, monkeypatch, capsys):
    def refused(*_args, **_more):
        raise PermissionError(13, "Permission denied", str(shop.folder))

    monkeypatch.setattr(daemon, "opened", refused)
    assert shop.starts() == 1 and shown(shop.frame) == []
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("note", [b"", b"{", b'{"displays": 7}', b"[" * 50_000, b'{"displays": [], "run_dir": "x"}'])
def test_a_rotten_note_stops_no_start(shop, note):
    (shop.folder / last_words.NOTE).write_bytes(note)
    shop.lives_and_dies()
    assert last_words._noted(str(shop.folder)).displays[0].path == str(shop.frame)
