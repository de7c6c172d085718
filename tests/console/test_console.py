"""The technician's console without a pty: who may come in, what a line of noise does, what reaches the terminal and the spool."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.till import Till
from device.commands.console_door import ConsoleDoor
from device.commands.inquiries import DEFECTS_MAX, Tally
from device.console import challenge, net, printing, words
from device.console.asking import PRINTED_LINES_MAX, printed
from device.console.editor import END, HISTORY_MAX, LINE_CHARS_MAX, STOP, Editor
from device.console.spool import ENTRIES_MAX, Spool
from device.console.tries import FREE, WAIT_S, Tries
from device.store_forward import tools
from device.store_forward.token import TokenError
from device.store_forward.verify import Defect
from device.txn.desk import Verdict
from tests.console_room import Room

Script = Iterator[str | bytes]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "box")


# The editor ----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("keys", "line"), [
    (b"status\r", "status"), (b"stats\x7fus\r", "status"), (b"tatus\x01s\r", "status"), (b"stus\x1b[D\x1b[Dat\r", "status"),
    (b"status xx\x17\x17status\r", "status"), (b"junk\x15status\r", "status"),
    (b"statusjunk\x1b[D\x1b[D\x1b[D\x1b[D\x0b\r", "status"),
    (b"\x1bOHstatus\x1bOF\r", "status"), (b"xstatus\x1b[1~\x1b[3~\r", "status"), ("打印".encode() + b"\x7f\r", "打"),
    (b"st\x1b[200~atus\x1b[201~\r", "status"), (b"sta\x1b]0;rm -rf\x07tus\r", "status"), (b"sta\x1bP+q544e\x1b\\tus\r", "status"),
    (b"sta\xff\xc3tus\r", "status"), (b"sta\xe0\x80\x80tus\r", "status"), (b"st\x00at\x07us\n", "status"), (b"stat\t\r", "status "),
])
def test_keys_of_every_terminal_make_a_line(keys: bytes, line: str) -> None:
    editor = Editor(words.completed)
    assert editor.feed(keys)[1] == [line]


def test_a_line_may_come_byte_by_byte() -> None:
    editor = Editor()
    events = [event for byte in "中文 status\r\nnext\n\x03\x04".encode() for event in editor.feed(bytes([byte]))[1]]
    assert events == ["中文 status", "next", STOP, END]


def test_history_goes_back_and_is_of_this_session_alone() -> None:
    editor = Editor()
    editor.feed(b"".join(b"line %d\r" % n for n in range(HISTORY_MAX + 20)))
    assert editor.feed(b"\x1b[A\x1b[A\x1b[B\r")[1] == [f"line {HISTORY_MAX + 19}"]
    assert editor.feed(b"\x10" * 500 + b"\r")[1] == ["line 20"]
    editor.forget()
    assert editor.feed(b"\x1b[A\r")[1] == [""]


def test_a_secret_is_neither_echoed_nor_remembered() -> None:
    editor = Editor()
    editor.secret = True
    out, events = editor.feed(b"hunter2\x7f3\r")
    assert events == ["hunter3"] and b"hunt" not in out
    editor.secret = False
    assert editor.feed(b"\x1b[A\r")[1] == [""]


def test_a_million_lines_of_noise_hold_no_memory() -> None:
    """The editor takes all of them; nothing it sends could steer a terminal, and what it keeps is bounded."""
    dice, editor = random.Random(5), Editor(words.completed)
    noise = b"\n".join(dice.randbytes(dice.randrange(8)) for _ in range(20_000)) + b"\n"
    editor.feed(noise)
    lines = 0
    for n in range(50):
        if n == 48:
            tracemalloc.start()                      # it slows the loop down fourfold
        out, events = editor.feed(noise)
        lines += len(events)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert lines > 1_000_000 and held < 4_000_000
    assert not {c for c in out.decode() if ord(c) < 0x20} - {"\r", "\n", "\b"}
    assert len(editor.feed(b"\x00\r" + b"x" * 10_000 + b"\r")[1][-1]) == LINE_CHARS_MAX


# What reaches the terminal -------------------------------------------------------------------------------------------

def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    for evil in ("\x1b[2J", "\x1b]0;x\x07", "\r", "\x9b1m", "a\u202eb", "\u200b", "e\u0301", "\x00", "\u2028", "\ud800", "\u3164"):
        told = printing.safe(evil)
        assert all(c.isprintable() for c in told) and told != evil, evil
    assert printing.safe("可口可乐 330ml ¥2.50 \\") == "可口可乐 330ml ¥2.50 \\"


def test_no_line_is_wider_than_the_terminal() -> None:
    dice = random.Random(3)
    for _ in range(300):
        text = "".join(dice.choice("收银 ab c\x1b\u202e，7") for _ in range(dice.randrange(400)))
        lines = printing.wrapped(text)
        assert all(printing.cells(line) < printing.COLUMNS for line in lines)
        assert "".join(lines).replace(" ", "") == printing.safe(text).replace(" ", "")
    assert printing.cells(printing.padded("可口可乐", 5)) == 5 == printing.cells(printing.padded("a", 5))


# Who may come in -----------------------------------------------------------------------------------------------------

def test_nothing_is_done_before_a_login(room: Room) -> None:
    def script(said: Callable[[], str]) -> Script:
        yield from ("reboot", "status", "li", "work", "print test", "drawer test", "help", "lang zh")
    said = room.session(script)
    assert "ok" not in said.split("\n") and not (room.folder / "paper.bin").exists()
    assert "走一遍" not in said and "代码" in said


def test_a_code_opens_one_session_of_one_level(room: Room) -> None:
    said = room.visit("devices", "print test", "n", "reboot", level="look")
    assert "printer" in said and said.count("failed: LEVEL") == 2


def test_a_code_is_for_one_challenge(room: Room) -> None:
    codes = []

    def first(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        codes.append(room.code(said()))
        yield codes[0]
        yield "exit"

    def second(said: Callable[[], str]) -> Script:
        yield from ("li", "work", codes[0], "devices")
    said = room.session(first)
    assert "help lists the commands." in said and said.endswith("The session is over.\n")
    said = room.session(second)
    assert "That is not the code." in said and "printer" not in said


@pytest.mark.parametrize("other", [{"level": "full"}, {"who": "wang"}])
def test_a_code_for_another_level_or_person_opens_nothing(room: Room, other: dict[str, str]) -> None:
    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        heard = challenge.heard("box-1", "li", "work", challenge.grouped("".join(said().split("challenge ")[1][:19].split("-"))))
        named = {"box": "box-1", "who": "li", "level": "work"} | other
        from fleet.console import code_for
        yield code_for(room.fleet, room.jwk, "shop", challenge.Challenge(**named, boot=heard.boot, nonce=heard.nonce))
    assert "That is not the code." in room.session(script)


def test_what_was_misheard_at_head_office_is_found_there(room: Room) -> None:
    spoken = challenge.fresh("box-1", "li", "work", "boot", 0x2_6AF3_7BC0_48D1).spoken()
    assert challenge.heard("box-1", "li", "work", spoken.lower().replace("-", " ").replace("0", "o")).level == "work"
    swapped = spoken[:5] + spoken[6] + spoken[5] + spoken[7:]
    for box, who, level, text in (("box-2", "li", "work", spoken), ("box-1", "lo", "work", spoken), ("box-1", "li", "full", spoken),
                                  ("box-1", "li", "work", swapped), ("box-1", "li", "work", spoken[:-1])):
        with pytest.raises(ValueError):
            challenge.heard(box, who, level, text)


def test_five_tries_then_waits_that_grow_and_outlive_a_boot(tmp_path: Path) -> None:
    now = [0.0]
    tries = Tries(tmp_path / "console", "boot-1", lambda: now[0])
    assert [tries.count() for _ in range(FREE)] == [True] * FREE
    assert not tries.count() and tries.wait_s() == WAIT_S
    now[0] += WAIT_S
    assert tries.count() and tries.wait_s() == 2 * WAIT_S
    now[0] = 5.0                                     # the power was cut: seconds since the boot begin again, and so does the wait
    after = Tries(tmp_path / "console", "boot-2", lambda: now[0])
    assert after.wait_s() == 2 * WAIT_S and not after.count()
    now[0] += 2 * WAIT_S
    assert after.count() and after.wait_s() == 4 * WAIT_S
    after.clear()
    assert Tries(tmp_path / "console", "boot-2", lambda: now[0]).wait_s() == 0


def test_a_try_is_on_the_card_before_it_is_compared(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []

    def compared(*_: object) -> bool:
        counted.append(json.loads((room.folder / "console" / "tries").read_text())["tries"])
        return False
    monkeypatch.setattr(challenge, "answers", compared)

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work", *["ABCDEFGH"] * 8)
    said = room.session(script)
    assert counted == [1, 2, 3, 4, 5] and said.count("Too many wrong tries") == 3


def test_a_spoilt_count_waits_and_a_dead_card_leaves_one_try_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    tries = Tries(tmp_path / "console", "boot-1", lambda: now[0])
    assert tries.count()
    (tmp_path / "console" / "tries").write_bytes(b"\xff\x00")
    assert tries.wait_s() == WAIT_S and not tries.count()
    dead = Tries(tmp_path / "other", "boot-1", lambda: now[0])
    monkeypatch.setattr(dead, "_keep", lambda *_: (_ for _ in ()).throw(OSError(30, "read-only")))
    assert dead.count() and not dead.count()
    now[0] += WAIT_S
    assert dead.count()


def test_a_count_that_is_lost_or_cut_is_not_forgotten(tmp_path: Path) -> None:
    """Eight wrong codes, then one of the two files is spoilt: the wait is as long as it was, or begins anew."""
    now, file = [0.0], tmp_path / "console" / "tries"
    for n, spoil in enumerate((file.unlink, lambda: file.write_bytes(b""), lambda: file.write_bytes(b"[" * 4000),
                               lambda: file.write_text('{"tries": 1e999, "boot": "boot-1", "at_s": 0}'),
                               lambda: file.write_text('{"tries": 0, "boot": "boot-1", "at_s": 0}'),
                               lambda: (tmp_path / "console" / "lock").write_bytes(b""))):
        tries = Tries(tmp_path / "console", "boot-1", lambda: now[0])
        for _ in range(FREE + 3):
            now[0] += 10 * WAIT_S
            assert tries.count(), n
        spoil()
        for again in (tries, Tries(tmp_path / "console", "boot-1", lambda: now[0])):
            assert again.wait_s() == 8 * WAIT_S and not again.count(), n
        tries.clear()
        assert tries.wait_s() == 0 and tries.count(), n
        tries.clear()


def test_noise_before_a_login_locks_nobody_out(room: Room) -> None:
    dice = random.Random(7)

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        for _ in range(3000):
            yield bytes(dice.randrange(0x80, 0x100) for _ in range(dice.randrange(30))) + dice.choice((b"\r", b"\x1b[A", b"\n"))
        yield b"\r"
        yield room.code(said())
        yield "devices"
    assert "printer" in room.session(script)


def test_a_challenge_is_over_after_half_an_hour(room: Room) -> None:
    now = [0.0]

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        late = room.code(said())
        now[0] += challenge.LIFE_S + 1
        yield late
    said = room.session(script, mono_s=lambda: now[0])
    assert "older than 30 minutes" in said and "help lists" not in said and said.count("challenge ") >= 2


def test_a_console_that_waited_for_weeks_knows_the_box_of_today(room: Room) -> None:
    """Its process starts at boot; the box is enrolled, and its printer exchanged, long before somebody types a name."""
    def script(said: Callable[[], str]) -> Script:
        room.box = "box-2"
        head, _, _ = room.toml.read_text().replace('"box-1"', '"box-2"').partition("[printer]")
        room.toml.write_text(head + '[printer]\nkind = "tcp"\nhost = "127.0.0.1"\n')
        yield from ("li", "work")
        yield room.code(said())
        yield "devices"
    said = room.session(script)
    assert "box box-2 " in said and "box-2> " in said and "printer       tcp" in said


def test_silence_ends_a_session(room: Room) -> None:
    now = [0.0]

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        yield room.code(said())
        now[0] += 901
        yield b""
        yield "devices"
    said = room.session(script, mono_s=lambda: now[0])
    assert "Nobody typed for too long." in said and "printer" not in said


def test_a_box_that_is_nobodys_is_enrolled_by_its_code_alone(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def enrolled(argv: list[str]) -> int:
        asked.append(argv)
        print("enrolled as", argv[0])
        return 0
    monkeypatch.setattr("device.identity.enrol.main", enrolled)

    def script(said: Callable[[], str]) -> Script:
        yield from ("reboot", "li", "work", "enrol desk.example:8884", "box-2", "enrol desk.example:8884", "box-1", "box-1:CODE-1")
    said = room.session(script)
    assert asked == [["box-1:CODE-1", "--broker", "desk.example:8884", "--config", str(room.toml)]]
    assert said.count("failed: NAME") == 1 and said.endswith("enrolled as ***\nok\nThe session is over.\n") and "CODE-1" not in said
    (room.folder / "identity").mkdir()
    (room.folder / "identity" / "cloud.json").write_text("{}")
    room.session(script)
    assert len(asked) == 1


# An SSH certificate --------------------------------------------------------------------------------------------------

def keygen(*words: str, folder: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", *words], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def signer(tmp_path: Path) -> Path:
    for name in ("ca", "other", "li"):
        keygen("-t", "ed25519", "-N", "", "-f", name, folder=tmp_path)
    return tmp_path


@pytest.mark.parametrize(("ca", "more", "well"), [
    ("ca", ("-I", "li", "-n", "box-1", "-V", "-1m:+30m"), True), ("other", ("-I", "li", "-n", "box-1", "-V", "-1m:+30m"), False),
    ("ca", ("-I", "li", "-n", "box-2", "-V", "-1m:+30m"), False), ("ca", ("-I", "wang", "-n", "box-1", "-V", "-1m:+30m"), False),
    ("ca", ("-I", "li", "-n", "box-1", "-V", "-2h:-1h"), False), ("ca", ("-I", "li", "-n", "box-1", "-V", "-1d:+7d"), False),
    ("ca", ("-h", "-I", "li", "-n", "box-1", "-V", "-1m:+30m"), False),
])
def test_a_short_lived_certificate_of_the_fleets_ca_may_sign_instead(tmp_path: Path, signer: Path, ca: str, more: tuple[str, ...],
                                                                    well: bool) -> None:
    room = Room(tmp_path / "box", more=f'[console]\nssh_ca = "{(signer / "ca.pub").read_text().strip()}"\n')
    keygen("-s", ca, *more, "li.pub", folder=signer)

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        spoken = said().split("challenge ")[1][:19]
        (signer / "told").write_bytes(challenge.heard("box-1", "li", "work", spoken).signed_text())
        keygen("-Y", "sign", "-n", challenge.NAMESPACE, "-f", "li-cert.pub", "told", folder=signer)
        yield from (signer / "told.sig").read_text().splitlines()
        yield "devices"
    said = room.session(script)
    assert ("printer" in said) is well and ("The signature is not taken" in said) is not well


def test_a_bare_key_and_a_signature_over_something_else_open_nothing(tmp_path: Path, signer: Path) -> None:
    room = Room(tmp_path / "box", more=f'[console]\nssh_ca = "{(signer / "ca.pub").read_text().strip()}"\n')
    (signer / "told").write_bytes(b"something else\n")

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        keygen("-s", "ca", "-I", "li", "-n", "box-1", "-V", "-1m:+30m", "li.pub", folder=signer)
        for key in ("li", "li-cert.pub"):
            keygen("-Y", "sign", "-n", challenge.NAMESPACE, "-f", key, "told", folder=signer)
            yield from (signer / "told.sig").read_text().splitlines()
            (signer / "told.sig").unlink()
    said = room.session(script)
    assert "bare key" in said and "not over this challenge" in said


def test_a_signature_over_a_challenge_of_yesterday_opens_nothing(tmp_path: Path, signer: Path) -> None:
    room = Room(tmp_path / "box", more=f'[console]\nssh_ca = "{(signer / "ca.pub").read_text().strip()}"\n')
    keygen("-s", "ca", "-I", "li", "-n", "box-1", "-V", "-1m:+30m", "li.pub", folder=signer)
    now = [0.0]

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        spoken = said().split("challenge ")[1][:19]
        (signer / "told").write_bytes(challenge.heard("box-1", "li", "work", spoken).signed_text())
        keygen("-Y", "sign", "-n", challenge.NAMESPACE, "-f", "li-cert.pub", "told", folder=signer)
        now[0] += challenge.LIFE_S + 1
        yield from (signer / "told.sig").read_text().splitlines()
    said = room.session(script, mono_s=lambda: now[0])
    assert "older than 30 minutes" in said and "help lists" not in said and said.count("challenge ") >= 2


def test_a_silent_console_tells_a_daemon_that_lives_again(room: Room) -> None:
    now, told = [0.0], list[str]()

    def tell(entries: list[dict[str, object]]) -> bool:
        told.extend(str(one["verb"]) for one in entries if now[0] > 60)
        return now[0] > 60

    def script(said: Callable[[], str]) -> Script:
        yield from ("li", "work")
        yield room.code(said())
        yield "devices"
        for _ in range(4):
            now[0] += 20
            yield b""
    room.session(script, mono_s=lambda: now[0], tell=tell)
    assert told == ["login", "devices"]


def test_no_spoilt_signature_is_taken_and_none_breaks_the_console(signer: Path) -> None:
    """Every byte of two kinds of signatures changed, cut and doubled: one sentence each time."""
    import base64
    import time

    from device.console.sshsig import BEGIN, END, accepted
    asked = challenge.fresh("box-1", "li", "work", "boot", 12345)
    (signer / "told").write_bytes(asked.signed_text())
    ca, dice = (signer / "ca.pub").read_text(), random.Random(2)
    keygen("-t", "ecdsa", "-b", "256", "-N", "", "-f", "p256", folder=signer)
    for key in ("li", "p256"):
        keygen("-s", "ca", "-I", "li", "-n", "box-1", "-V", "-1m:+30m", f"{key}.pub", folder=signer)
        keygen("-Y", "sign", "-n", challenge.NAMESPACE, "-f", f"{key}-cert.pub", "told", folder=signer)
        armored = (signer / "told.sig").read_text()
        (signer / "told.sig").unlink()
        accepted(armored, asked, ca, time.time())
        raw = base64.b64decode("".join(armored.splitlines()[1:-1]))
        for at in range(len(raw)):
            flipped = raw[:at] + bytes([raw[at] ^ (1 << dice.randrange(8))]) + raw[at + 1:]
            for spoilt in (flipped, raw[:at], raw[:at] + raw[at:at + 1] + raw[at:]):
                with pytest.raises(ValueError):
                    accepted(f"{BEGIN}\n{base64.b64encode(spoilt).decode()}\n{END}", asked, ca, time.time())


def test_a_drawer_that_wants_a_supervisor_wants_the_level_full(tmp_path: Path) -> None:
    room = Room(tmp_path / "box")
    room.toml.write_text("approve_drawer = true\n" + room.toml.read_text())
    assert "failed: LEVEL" in room.visit("drawer test", "y", level="work")
    assert room.visit("drawer test", "y", level="full").count("ok") == 1


# Commands and the spool ----------------------------------------------------------------------------------------------

def test_every_command_has_help_a_dry_form_and_a_handler() -> None:
    import importlib
    for one in words.COMMANDS:
        assert all(one.help) and all(one.dry) and one.tried, one.name
        assert one.level in ("", *challenge.LEVELS)
        if one.does != "session":
            module, name = one.does.split(":")
            assert callable(getattr(importlib.import_module(f"device.console.{module}"), name)), one.does
    assert len(words.BY_NAME) == len(words.COMMANDS)


def test_a_dry_form_does_nothing_and_a_wrong_line_is_explained(room: Room) -> None:
    said = room.visit(*(f"{one.name} --dry" for one in words.COMMANDS if not one.asks and one.level), "statsu", "logs x", "config")
    assert said.split("\n").count("ok") == sum(not one.asks and bool(one.level) for one in words.COMMANDS)
    assert not (room.folder / "paper.bin").exists() and "did you mean status?" in said and "write it as: logs [N]" in said


def test_no_word_is_taken_for_an_option_of_the_tool_behind_a_command(room: Room) -> None:
    said = room.visit("timeline --help", "enrol --again", "enrol 127.0.0.1:9", "box-1", "-")
    assert said.count("failed: USAGE") == 2 and "failed: STOPPED" in said and "usage:" not in said


def test_dangerous_commands_ask_for_the_boxs_name(room: Room) -> None:
    said = room.visit("reboot", "box-2", "swap", "")
    assert said.count("failed: NAME") == 2


def test_a_broken_configuration_leaves_the_console(room: Room) -> None:
    room.toml.write_text(room.toml.read_text() + "[printer]\nkinds = 1\n")
    said = room.visit("doctor", "print test", "config show")
    assert said.count("failed: CONFIG") == 2 and "Cannot declare" in said
    room.toml.write_text(room.toml.read_text().replace("[printer]\nkinds = 1\n", "[scanners]\n"))


@pytest.mark.parametrize("broken", ["state_dri", "state_dir = x\n#"])
def test_a_box_that_sold_is_nobodys_by_no_typing_error(broken: str, room: Room) -> None:
    """Where it keeps its journal stands in the very line that is broken: that alone lets nobody enrol it without a login."""
    Till(room.folder).close()
    room.toml.write_text(room.toml.read_text().replace("state_dir", broken, 1))

    def script(said: Callable[[], str]) -> Script:
        yield "enrol 127.0.0.1:9"
    said = room.session(script)
    assert "nobody's" not in said and "That needs a login first." in said


def test_each_command_is_on_the_card_before_it_is_done(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    from device.console import looking
    seen: list[str] = []

    def devices(c: object) -> Iterator[str]:
        seen.extend(path.read_text() for path in (room.folder / "console").glob("spool-*"))
        yield "x"
    monkeypatch.setattr(looking, "devices", devices)
    room.visit("devices")
    assert '"verb": "devices"' in seen[0] and '"by": "li:technician"' in seen[0]


def test_the_spool_tells_each_entry_once_and_keeps_it_until_it_is_taken(tmp_path: Path) -> None:
    told: list[str] = []
    listening = [False]

    def tell(entries: list[dict[str, object]]) -> bool:
        assert len(entries) <= ENTRIES_MAX
        told.extend(f"{one['verb']} {one['outcome']}" for one in entries if listening[0])
        return listening[0]
    spool = Spool(tmp_path / "console", "boot", tell)
    spool.visitor("li", "work")
    for n in range(70):
        entry = spool.entry(f"verb{n}", "", "now")
        spool.begun(entry)
        spool.ended(entry, "ok")
    assert told == [] and spool.waiting() == 70
    cut = spool.entry("cut short", "", "now")
    spool.begun(cut)
    spool.close()                                    # the power goes, and the lock with the process
    listening[0] = True
    after = Spool(tmp_path / "console", "boot", tell)
    assert after.deliver() == 0 and after.deliver() == 0
    assert told == [f"verb{n} ok" for n in range(70)] + ["cut short unknown"]
    assert list((tmp_path / "console").glob("spool-*")) == []


def test_a_line_cut_in_half_costs_that_line_alone(tmp_path: Path) -> None:
    told: list[str] = []
    spool = Spool(tmp_path / "console", "boot", lambda entries: told.extend(str(one["verb"]) for one in entries) is None)
    spool.visitor("li", "work")
    (tmp_path / "console").mkdir()
    (tmp_path / "console" / "spool-0").write_bytes(b'{"id": "a", "verb": "x", "by": "li:technician"}\n{"id": "b", "verb": "y"')
    assert spool.deliver() == 0 and told == ["x"]


@pytest.mark.parametrize("rot", ['{"told": ["a"], "verb": "x"}',
                                 '{"id": "a", "verb": "x"}\n{"id": "a", "told": 5}', '{"told": [["a"]]}',
                                 '{"id": [1], "outcome": "ok"}', "[" * 5000])
def test_a_spool_of_a_rotten_card_stops_no_console(rot: str, tmp_path: Path) -> None:
    told: list[str] = []
    spool = Spool(tmp_path / "console", "boot", lambda entries: told.extend(str(one["verb"]) for one in entries) is None)
    (tmp_path / "console").mkdir()
    (tmp_path / "console" / "spool-0").write_text(rot + '\n{"id": "b", "verb": "good", "by": "li:technician"}\n')
    assert spool.waiting() >= 1 and spool.deliver() == 0 and told[-1:] == ["good"]


def test_what_a_full_card_takes_a_part_of_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "console", "boot", lambda entries: False)
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    with pytest.raises(OSError, match="no room"):
        spool.begun(spool.entry("reboot", "", "now"))


def test_no_line_to_the_daemon_is_longer_than_it_takes(tmp_path: Path) -> None:
    from device.daemon import SOCKET_LINE_MAX
    sizes: list[int] = []
    spool = Spool(tmp_path / "console", "boot", lambda entries: False)
    spool.visitor("li", "work")
    for _ in range(ENTRIES_MAX):
        entry = spool.entry("handover", "换了" * 100, "now")
        spool.begun(entry)
        spool.ended(entry, "ok", visit={"by": "li", "did": ["journal verify: ok"] * 60, "words": "换了" * 100})
    taking = Spool(tmp_path / "console", "boot", lambda entries: sizes.append(len(json.dumps(entries))) is None)
    spool.close()
    assert taking.deliver() == 0 and len(sizes) > 1 and max(sizes) < SOCKET_LINE_MAX - 1000


def test_a_place_is_reached_by_any_of_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with an IPv6 address first, on a line without IPv6, is no broken line."""
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
                 (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        asked = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *more, **named: found if host == "pay.example" else
                            asked(host, *more, **named))
        assert net.tried("pay.example", port) == ""
    assert net.tried("pay.example", port).startswith("no line")


@pytest.mark.parametrize(("told", "shown"), [
    ("http://li:canary@proxy:3128", "http://***@proxy:3128"), ("li:canary@proxy:3128", "***@proxy:3128"),
    ("li:can//ary@proxy", "***@proxy"), ("http://li:can//ary@proxy", "http://***@proxy"), ("http://proxy:3128", "http://proxy:3128")])
def test_no_proxys_password_is_shown(told: str, shown: str, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", told)
    said = room.visit("net")
    assert f"https_proxy={shown}" in said and "canary" not in said


def test_a_dead_boxs_chain_is_walked_without_being_held_in_memory(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    Till(room.folder).close()
    (room.folder / "record.pem").rename(room.folder / "record.key")
    monkeypatch.setattr(tools, "exported", lambda db: ("x" * 2000 for _ in range(10_000)))
    tracemalloc.start()
    try:
        said, peak = room.visit("journal verify"), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "failed: CHAIN" in said and peak < 16_000_000


@pytest.mark.parametrize("rot", [sqlite3.DatabaseError("database disk image is malformed"), TokenError("TOO_LONG", "no token")])
def test_a_rotten_journal_is_told_as_one(rot: Exception, room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def exported(db: object) -> Iterator[str]:
        yield "x"
        raise rot
    Till(room.folder).close()
    monkeypatch.setattr(tools, "exported", exported)
    assert f"failed: JOURNAL {rot}" in room.visit("journal verify")


def test_a_report_that_no_card_keeps_is_not_said_to_be_kept(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")
    assert "kept until it can be signed" in room.visit("handover all well")
    append = Spool._append
    monkeypatch.setattr(Spool, "_append", staticmethod(lambda fd, event: full() if "visit" in event else append(fd, event)))
    said = room.visit("handover all well")
    assert "kept until" not in said and "failed: FULL" in said and "this report becomes no record" in said.replace("\n", " ")
    assert (room.folder / "paper.bin").read_bytes().count(b"all well") == 2


@pytest.mark.parametrize("line", [{"verb": "logs", "count": []}, {"verb": "logs", "count": "x"}, {"verb": "console", "entries": 5},
                                  {"verb": "console do", "entry": []}, {"verb": "console do"}])
def test_no_line_at_the_daemons_door_ends_the_till(line: dict[str, object]) -> None:
    async def lines(args: str) -> dict[str, object]:
        return {"lines": [args]}

    async def never(asked: object) -> Verdict:
        raise AssertionError(asked)
    door = ConsoleDoor(never, {"logs": lines})
    said = asyncio.run(door.answered(json.dumps(line).encode()))
    assert said is not None and said["ok"] is False and "cannot read that" in str(said["error"])
    assert asyncio.run(door.answered(b'{"verb": "logs", "count": 5}')) == {"ok": True, "lines": ["5"]}


# What was left over --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("asked", "near"), [("help xyz", ""), ("help statsu", "did you mean status?"),
                                          ("help print tset", "print test")])
def test_help_of_no_command_is_a_failure(asked: str, near: str, room: Room) -> None:
    said = room.visit(asked, "exit")
    assert "failed: USAGE that is no command" in said and near in said and "journal verify" not in said


def test_a_code_pasted_with_its_command_is_neither_echoed_nor_kept(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """One burst of bytes: the command, the name that it asks for, the code."""
    given: list[list[str]] = []
    monkeypatch.setattr("device.identity.enrol.main", lambda argv: given.append(argv) or 0)
    said = room.visit(b"enrol desk.example:8884\rbox-1\rS3CR-ET77\r", b"\x10\x10\r", b"\x03", "exit")
    assert given[0][0] == "S3CR-ET77" and "S3CR-ET77" not in said and "desk.example" in said


def test_a_name_server_that_hangs_leaves_ctrl_c_to_the_technician(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room, over = Room(tmp_path / "box", more='[mqtt]\nhost = "broker.example"\n'), threading.Event()
    monkeypatch.setattr(net, "tried", lambda host, port: str(over.wait(30)))
    began = time.monotonic()
    said = room.visit("net", b"\x03", "exit")
    over.set()
    assert "failed: STOPPED" in said and time.monotonic() - began < 5


def test_what_a_tool_prints_is_kept_within_bounds() -> None:
    def babbles(argv: list[str]) -> int:
        for n in range(100_000):
            print(f"record {n} is wrong")
        print("the last word", end="", file=sys.stderr)
        return 1

    status, lines = printed(babbles, [])
    assert (status, len(lines), lines[-2:]) == (1, PRINTED_LINES_MAX + 1, ["record 99999 is wrong", "the last word"])


def test_a_chain_that_is_wrong_everywhere_is_counted_and_not_kept() -> None:
    class Wrong:
        def feed(self, token: str) -> list[Defect]:
            return [Defect("LINK", int(token), "it does not follow")]

    tally = Tally()
    tally.walk(Wrong(), [str(n) for n in range(5000)])           # type: ignore[arg-type]
    assert tally.wrong == 5000 and [d.line for d in tally.first] == list(range(DEFECTS_MAX))
