"""Odd things where files and answers should be: the doctor ends in one code, and with no traceback."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from bench.till import Till
from device.ask import runs
from device.doctor import online
from device.timeline import main as timeline
from device.txn.numbers import order_number
from tests.sealed_box import SealedBox, command


@pytest.fixture
def box(tmp_path):
    made = SealedBox(tmp_path)
    sold = Till(made.state)
    sold.cash_sale()
    sold.close()
    return made


def folder_at(name):
    def harm(box):
        there = box.state / name
        there.unlink() if there.is_file() else shutil.rmtree(there, ignore_errors=True)
        there.mkdir()
    return harm


def edit(old, new):
    def harm(box):
        assert old in box.toml.read_text()
        box.toml.write_text(box.toml.read_text().replace(old, new))
    return harm


def file_for_keys(box):
    shutil.rmtree(box.state / "keys", ignore_errors=True)
    (box.state / "keys").write_text("no folder")


ODD = {
    "a folder for the journal": (folder_at("journal.db"), "journal_unreadable"),
    "no state folder": (lambda box: shutil.rmtree(box.state), "state_gone"),
    "a file for the folder of keys": (file_for_keys, "part_unwell"),
    "a file for the run folder": (lambda box: (box.folder / "run").write_text("x"), "daemon_down"),
    "a folder for the display": (edit('[display]\nkind = "none"', '[display]\nkind = "fb"\npath = "/tmp"'), "display_gone"),
    "a folder for a scanner": (edit('[scanner]\nkind = "none"', '[scanner]\nkind = "serial"\npath = "/tmp"'), "scanner_gone"),
    "a folder for paper": (edit('[printer]\nkind = "none"', '[printer]\nkind = "file"\npath = "/tmp"'), "printer_gone"),
    "a folder for the rules": (edit("[display]", 'rules_file = "/tmp"\n[display]'), "rules_gone"),
    "a folder for the roots": (edit("[display]", '[mqtt]\nhost = "127.0.0.1"\nca_file = "/tmp"\n[display]'), "cloud_file_gone"),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_things_have_their_code_and_no_traceback(box, what):
    harm, code = ODD[what]
    harm(box)
    status, out, err = command("doctor", "--config", str(box.toml), "--json", "--offline")
    assert status == 1 and not err and code in {one["code"] for one in json.loads(out)["findings"]}, out


@pytest.mark.parametrize("answer", [b"[]\n", b'{"ok":true,"state":[]}\n', b"no json\n"])
def test_a_daemon_that_answers_something_else_is_mute(box, answer):
    (box.folder / "run").mkdir(exist_ok=True)
    talks = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); print(flush=True)\n" \
            "while True:\n c,_=s.accept()\n if c.recv(4096): c.sendall(eval(sys.argv[2]))\n c.close()"
    daemon = subprocess.Popen([sys.executable, "-c", talks, str(box.folder / "run" / "daemon.sock"), repr(answer)],
                              stdout=subprocess.PIPE)
    try:
        daemon.stdout.readline()
        status, out, _ = command("doctor", "--config", str(box.toml), "--json", "--offline")
    finally:
        daemon.kill()
        daemon.communicate()
    assert status == 1 and "daemon_mute" in {one["code"] for one in json.loads(out)["findings"]}


def test_a_frozen_daemon_with_a_full_backlog_holds_nobody_up(tmp_path):
    with socket.socket(socket.AF_UNIX) as frozen:
        frozen.bind(str(tmp_path / "daemon.sock"))
        frozen.listen(0)
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(str(tmp_path / "daemon.sock"))
        began = time.monotonic()
        assert runs(str(tmp_path), timeout_s=0.2) and time.monotonic() - began < 2
        for one in waiting:
            one.close()


@pytest.mark.parametrize("no", ["", "\udcff", "\x1b[31m", "%"])
def test_a_timeline_of_no_number_is_refused(box, no, capsys):
    with pytest.raises(SystemExit) as ended:
        timeline(["--config", str(box.toml), no])
    assert ended.value.code == 2 and "\x1b" not in capsys.readouterr().err


def test_a_timeline_of_a_rotten_row_says_so(box, capsys):
    no = order_number("000001", "1Q4V", 7)
    db = sqlite3.connect(box.state / "journal.db")
    db.execute("UPDATE journal SET facts = 5 WHERE n = 3")
    db.execute("UPDATE journal SET facts = ? WHERE n = 2", (f'"{no}"',))
    db.commit()
    db.close()
    assert timeline(["--config", str(box.toml), no]) == 2 and "cannot be read" in capsys.readouterr().err


def test_a_resolver_that_hangs_holds_no_printer_up(box, monkeypatch):
    edit('[printer]\nkind = "none"', '[printer]\nkind = "tcp"\nhost = "printer.shop.example"\nport = 9100')(box)
    ended = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *asked, **more: ended.wait(20))
    monkeypatch.setattr(online, "NAME_S_MAX", 0.2)
    began = time.monotonic()
    try:
        _, out, _ = command("doctor", "--config", str(box.toml), "--json", "--offline")
    finally:
        ended.set()
    assert time.monotonic() - began < 5 and "not looked up in time" in out and "printer_gone" in out
