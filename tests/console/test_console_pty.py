"""The console's own process on a pty, read by a terminal emulator in 80x24, beside a dead daemon, a living one, and both."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

from bench.till import Till
from device.ask import ask, runs
from device.store_forward.tools import main as journal_tool
from device.types import Account, Terms
from docs.technician import PAGE, page, shown
from tests.console_noise import burst, rss_kb
from tests.console_room import Room, Terminal

CODES = set(re.findall(r"`([A-Z]+)`", page().partition("## Codes of failure")[2]))
# What cannot be well in this room: no scanner is configured, the record key's cloud is away, and no clock was set.
UNWELL = {"scan test": {"NONE"}, "swap": {"OWES"}, "doctor": {"WRONG"}}
DEAD = UNWELL | {"logs": {"DAEMON"}, "display test": {"DISPLAY"}}


EVIL = "A\\u001b[2J\\u001b]0;x\\u0007\\u009b1m\\u202eB"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """A box that sold once by QR, and whose daemon is dead."""
    room = Room(tmp_path / "box")
    till = Till(room.folder, terms=Terms(box="box-1", box_no="00BX01", accounts=(Account("wechat", "main", ()),)))
    till.qr_sale()
    till.close()
    (room.folder / "record.pem").rename(room.folder / "record.key")
    (room.folder / "prices.csv").write_text("gtin,name_zh,name_en,price_fen,unit,source\n6902538004045,水,Water,200,piece,x\n")
    return room


@pytest.fixture
def alive(room: Room) -> Iterator[Room]:
    """The same with a daemon that runs."""
    with daemon(room):
        yield room


class daemon:
    """A daemon of this room for a while."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def __enter__(self) -> None:
        with (self._room.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([sys.executable, "-m", "device", "run", "--config", str(self._room.toml)], stderr=log)
        end = time.monotonic() + 30
        while not runs(str(self._room.folder)):
            assert self._process.poll() is None and time.monotonic() < end, (self._room.folder / "log").read_text()
            time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        end = time.monotonic() + 10                  # the first signature comes a while after the start
        while time.monotonic() < end and self._process.poll() is None:
            lines = " ".join(ask(self._room.folder / "daemon.sock", "logs", count=500)["lines"])
            if lines.count(" RecordDue") <= lines.count(" RecordSigned"):
                break
            time.sleep(0.05)
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture
def at() -> Iterator[list[Terminal]]:
    """Terminals that a test opened."""
    opened: list[Terminal] = []
    yield opened
    for one in opened:
        one.close()


def terminal(room: Room, at: list[Terminal]) -> Terminal:
    at.append(Terminal(room))
    return at[-1]


def order_of(room: Room) -> str:
    db = sqlite3.connect(f"file:{room.folder}/journal.db?mode=ro", uri=True)
    try:
        facts = b"".join(bytes(row[0]) for row in db.execute("SELECT facts FROM journal")).decode()
    finally:
        db.close()
    return re.findall(r'"order_no":"([0-9A-Z]{20})"', facts)[0]


def records(room: Room, capsys: pytest.CaptureFixture[str]) -> list[dict]:
    """Payloads of the records in a dead box's journal."""
    capsys.readouterr()
    assert journal_tool([str(room.folder / "journal.db"), "export"]) == 0
    import base64
    return [json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "==")) for token in capsys.readouterr().out.split()]


def typed(t: Terminal, line: str, room: Room) -> str:
    """One command of the manual, every question that it puts answered; its whole answer."""
    t.type(line)
    said = ""
    while True:
        said += t.until_any(f"{room.box}> ", "y/n: ", "go on: ", "show? ")
        if said.endswith("y/n: "):
            t.type("y")
        elif said.endswith("go on: "):
            t.type(room.box)
        elif said.endswith("show? "):
            state = ask(room.folder / "daemon.sock", "state")["state"] if runs(str(room.folder)) else {"notice": "0000"}
            t.type(state["notice"].split()[-1])
        else:
            return said


@pytest.mark.parametrize("state", ["dead", "alive"])
def test_the_manual_is_tried_line_by_line(state: str, room: Room, at: list[Terminal]) -> None:
    """Every line that docs/technician.md shows ends as it says: `ok`, or a code of its table where this room has a fault."""
    assert PAGE.read_text(encoding="utf-8") == page(), "make docs"
    order = order_of(room)
    lines = [line.replace("ORDER", order) for line in shown(page()) if line != "exit"]
    assert len(lines) > 40
    if state == "alive":
        with daemon(room):
            _tried(lines, UNWELL, room, terminal(room, at))
    else:
        _tried(lines, DEAD, room, terminal(room, at))


def _tried(lines: list[str], unwell: dict[str, set[str]], room: Room, t: Terminal) -> None:
    t.login()
    for line in lines:
        last = re.findall(r"(?m)^(ok|failed: [A-Z]+)\b", typed(t, line, room))
        assert last, line
        code = last[-1].removeprefix("failed: ")
        name = next((name for name in unwell if line.startswith(name) and "--dry" not in line), "")
        assert code in (unwell[name] if name else {"ok"}), (line, code)
        assert code == "ok" or code in CODES, code
    t.type("exit")
    t.until("The session is over.")
    assert t.process.wait(10) == 0


def test_a_terminal_of_80_by_24_shows_it_as_it_is_meant(room: Room, at: list[Terminal]) -> None:
    """Read by pyte: no line is broken by the terminal, the cursor stands behind the prompt, Chinese takes two cells."""
    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    t = terminal(room, at)
    t.login()
    sound = room.toml.read_text()
    room.toml.write_text(f'"{EVIL}" = 1\n' + sound)
    assert "A\\x1b[2J\\x1b]0;x\\x07\\x9b1m\\u202eB" in "".join(t.command("config show").split("\n"))
    room.toml.write_text(sound)
    for line in ("lang zh", "help", "status", "config why printer.kind"):
        t.command(line)
    t.keys("conf\tw\tprinter.kinds\x7f\x1b[D\x1b[D\x1b[C\x1b[C")
    t.until("printer.kind")
    stream.feed(t.raw)
    assert b"\x1b" not in t.raw and len(screen.display) == 24
    shown_ = [line.rstrip() for line in screen.display]
    assert shown_[screen.cursor.y] == "box-1> config why printer.kind" and screen.cursor.x == len(shown_[screen.cursor.y])
    assert "printer.kind = file   (box.toml)" in shown_ and "ok" in shown_
    raw = t.raw.decode().split("\r\n")
    assert max(sum(2 if ord(c) > 0x2E7F else 1 for c in line.rpartition("\r")[2]) for line in raw) < 80
    t.type("")
    t.keys("中文" * 60 + "\x01x\x05y" + "\x7f" * 3)
    t.until("y")
    stream.feed(t.raw)
    assert max(len(line.rstrip()) for line in screen.display) <= 80


def test_what_was_typed_while_the_daemon_was_dead_becomes_records_once(room: Room, at: list[Terminal],
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    """A visit that begins beside a dead daemon and ends beside a living one; the last words come with the next console."""
    t = terminal(room, at)
    t.login()
    t.command("devices")
    assert "console entries  3" in t.command("queue")
    with daemon(room):
        assert "passed: " in t.command("handover daemon was dead")
        t.command("net")
        assert "console entries  1" in t.command("queue")              # itself
    t.command("config diff")
    t.unplug()
    assert t.process.wait(10) == 0
    with daemon(room):
        again = terminal(room, at)
        again.login(who="wang")
    made = [one for one in records(room, capsys) if one["body"].get("via") == "console"]
    told = [(one["body"]["verb"], one["body"]["by"], one["body"]["outcome"]) for one in made]
    li = "li:technician"
    assert told == [("login", li, "ok"), ("devices", li, "ok"), ("queue", li, "ok"), ("handover", li, "done"), ("net", li, "ok"),
                    ("queue", li, "ok"), ("config diff", li, "ok"), ("login", "wang:technician", "ok")]
    visit = next(one["body"] for one in made if one["kind"] == "visit")
    assert visit["words"] == "daemon was dead" and visit["did"] == ["devices: ok", "queue: ok"]
    assert len({one["body"]["id"] for one in made}) == len(made)


def test_a_visit_reported_to_a_dead_daemon_is_signed_when_it_lives(room: Room, at: list[Terminal],
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    t = terminal(room, at)
    t.login()
    typed(t, "print test", room)
    assert "not signed yet" not in t.command("handover new cable") and (room.folder / "paper.bin").stat().st_size > 200
    t.unplug()
    with daemon(room):
        terminal(room, at).login()
    visit = [one for one in records(room, capsys) if one["kind"] == "visit"]
    assert len(visit) == 1 and visit[0]["body"]["passed"] == ["print test"] and visit[0]["body"]["words"] == "new cable"


def test_a_kill_in_mid_command_is_told_as_unknown(alive: Room, at: list[Terminal], capsys: pytest.CaptureFixture[str]) -> None:
    t = terminal(alive, at)
    t.login()
    t.type("display test")
    t.until("show? ")
    t.process.kill()
    t.process.wait()
    again = terminal(alive, at)
    again.login()
    logs = again.command("logs 20")
    assert "CommandDone" in logs
    t2 = again.command("queue")
    assert "console entries  1" in t2


def test_pulling_the_cable_ends_the_session_and_the_next_needs_a_login(room: Room, at: list[Terminal]) -> None:
    t = terminal(room, at)
    t.login()
    t.unplug()
    assert t.process.wait(10) == 0
    assert "name:" in terminal(room, at).until("name:")


def test_noise_on_the_real_line_neither_kills_it_nor_fills_memory(room: Room, at: list[Terminal]) -> None:
    """A burst of random lines, a login through it, a burst again."""
    t = terminal(room, at)
    t.until("name:")
    for line in ("li", "work", "ABCDEFGH"):              # a wrong code: whatever a try loads is loaded
        t.type(line)
    t.until("not the code")
    dice = random.Random(9)
    burst(t, 1_000, dice)
    before = rss_kb(t.process.pid)
    burst(t, 10_000, dice)
    assert t.process.poll() is None
    assert rss_kb(t.process.pid) < before + 2_000
    t.drain(0.3)
    t.keys(b"\x18\x03\r")
    t.until("name:")
    assert not {c for c in t.raw if c < 0x20} - {0x0D, 0x0A, 0x08}
    t.login_now()
    assert "printer" in t.command("devices")


def test_a_port_has_one_console(room: Room, at: list[Terminal]) -> None:
    t = terminal(room, at)
    t.until("name:")
    port = Path(f"/proc/{t.process.pid}/fd").iterdir()
    name = next(os.readlink(one) for one in port if os.readlink(one).startswith("/dev/pts/"))
    second = subprocess.run([sys.executable, "-m", "device", "console", "--line", name, "--config", str(room.toml)],
                            capture_output=True, text=True, timeout=20)
    assert second.returncode == 1 and second.stderr.startswith("tillbox console: ") and "Traceback" not in second.stderr
    t.login_now()
