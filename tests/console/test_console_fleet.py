"""A box that was enrolled, its console, and head office: the code by `tillfleet console-code`, the bundle by `tillfleet bundle`."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from bench.till import Till
from device.config import Config
from device.console import bundle
from device.console.bundle_lines import bundled
from device.console.place import fleet_key
from device.identity import enrol as box_enrol
from device.mqtt import enrol_wire
from device.mqtt.jwe_wire import IV_BYTES, jwe_encrypted
from device.store_forward.tools import exported, opened
from device.types import Account, Terms
from fleet.__main__ import main as tillfleet
from tests.console_room import TOML, Room

SECRETS = '\n[cards]\ncard_key = "canary-canary-canary-canary-canary"\nstore = "S1"\n[mqtt]\npassword = "canary-2"\n'


class Fleet:
    """Head office's folder and database, by its own commands."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.at = ("--store", str(folder / "cloud.db"), "--ca", str(folder / "ca"))
        self.folder, self._capsys = folder, capsys
        assert tillfleet(["ca", "init", str(folder / "ca"), "--tenant", "shop"]) == 0
        capsys.readouterr()

    def says(self, *words: str) -> str:
        assert tillfleet([*words, *self.at]) == 0, self._capsys.readouterr().err
        return self._capsys.readouterr().out.strip()

    def refuses(self, *words: str) -> str:
        assert tillfleet([*words, *self.at]) == 2
        return self._capsys.readouterr().err


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fleet:
    return Fleet(tmp_path, capsys)


@pytest.fixture
def room(tmp_path: Path, fleet: Fleet) -> Room:
    """A box of the fleet, enrolled by files."""
    room = Room(tmp_path / "box")
    for name in ("console.pub", "encryption.key"):
        (room.folder / name).unlink()
    text = TOML.format(box="box-1", folder=room.folder).splitlines()
    room.toml.write_text("\n".join(line for line in text if not re.match(r"box|tenant", line)) + SECRETS)
    code = enrol_wire.code_of(json.loads(fleet.says("enrol", "box-1", "--json"))["code"])
    config: Config = box_enrol.config_for(str(room.toml), "box-1")
    request = box_enrol.prepared(config, code)
    (tmp_path / "request").write_bytes(request)
    reply = fleet.says("enrol", "answer", str(tmp_path / "request"), "--box-broker", "broker.example:8883")
    box_enrol.accepted(config, code, request, reply.encode() + b"\n")
    return room


def test_head_office_lets_a_technician_in_and_keeps_who_it_was(room: Room, fleet: Fleet) -> None:
    def script(said: Callable[[], str]) -> Iterator[str | bytes]:
        yield from ("li", "full")
        spoken = re.findall(r"challenge ([0-9A-Z-]{19})", said())[-1]
        assert "misheard" in fleet.refuses("console-code", "box-1", spoken, "--level", "work", "--who", "li")
        other = spoken_for("box-2", spoken)
        assert "no box box-2" in fleet.refuses("console-code", "box-2", other, "--level", "full", "--who", "li")
        yield fleet.says("console-code", "box-1", *spoken.split("-"), "--level", "full", "--who", "li", "--by", "chen")
        yield "bundle print"
    said = room.session(script)
    assert "li, level full." in said and said.endswith("ok\nbox-1> "), said
    given = json.loads(fleet.says("console-code", "list", "--json"))
    assert (given["box"], given["who"], given["level"], given["by"]) == ("box-1", "li", "full", "chen")
    file = next((room.folder / "console").glob("bundle-*.txt"))
    capsys = fleet._capsys
    assert tillfleet(["bundle", str(file), "--ca", str(fleet.folder / "ca")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "canary" not in json.dumps(told) and "********" in json.dumps(told["config"])
    assert told["box"] == "box-1" and told["by"] == "li" and any("printer" in line for line in told["config"])
    copied = fleet.folder / "copied"                 # what a person marks on the screen: too much before it and behind it
    copied.write_text(said.replace("\n", "\r\n"))
    assert tillfleet(["bundle", str(copied), "--ca", str(fleet.folder / "ca")]) == 0
    assert json.loads(capsys.readouterr().out) == told
    lines = file.read_text().splitlines()
    assert len(lines) > 10 and max(map(len, lines)) < 80
    for spoilt in (lines[:-1], lines[:4] + lines[5:], [*lines[:4], lines[5], lines[4], *lines[6:]], lines[:2] + lines[-1:],
                   lines[3:]):
        file.write_text("\n".join(spoilt))
        assert tillfleet(["bundle", str(file), "--ca", str(fleet.folder / "ca")]) == 2, spoilt


def test_no_second_code_for_one_challenge_stays_out_of_the_list(room: Room, fleet: Fleet) -> None:
    """The check characters are no secret: who may ask for codes could have asked for `look`, which is listed, then for `full`."""
    def script(said: Callable[[], str]) -> Iterator[str | bytes]:
        yield from ("li", "full")
        spoken = re.findall(r"challenge ([0-9A-Z-]{19})", said())[-1]
        asked = ("console-code", "box-1", spoken, "--level", "full", "--who", "li")
        as_look = spoken_for("box-1", spoken, level="look")
        fleet.says("console-code", "box-1", as_look, "--level", "look", "--who", "li", "--by", "chen")
        refused = fleet.refuses(*asked)
        assert "answered at" in refused and "by chen, for li at level look" in refused
        yield from (b"\x03", "li", "full")
        spoken = re.findall(r"challenge ([0-9A-Z-]{19})", said())[-1]
        asked = ("console-code", "box-1", spoken, "--level", "full", "--who", "li")
        code = fleet.says(*asked)
        assert code == fleet.says(*asked)                # asked again, for the line was bad: one row
        yield code
    assert "li, level full." in room.session(script)
    assert len(fleet.says("console-code", "list", "--json").splitlines()) == 2


def test_a_box_with_a_dead_line_gives_its_records_by_the_console(room: Room, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encrypted on the box, read off a screen, brought in at head office: what the cloud has not, in order, and no more of it."""
    till = Till(room.folder, terms=Terms(box="box-1", box_no="00BX01", accounts=(Account("wechat", "main", ()),)))
    for _ in range(3):
        till.qr_sale()
    till.close()
    db = opened(room.folder / "journal.db")
    whole = list(exported(db))
    db.conn.close()
    monkeypatch.setattr(bundle, "EXPORT_BYTES_MAX", sum(map(len, whole[1:3])))

    def script(said: Callable[[], str]) -> Iterator[str | bytes]:
        yield from ("li", "work")
        spoken = re.findall(r"challenge ([0-9A-Z-]{19})", said())[-1]
        yield fleet.says("console-code", "box-1", spoken, "--level", "work", "--who", "li")
        yield from ("journal export 2 print", "journal export 99")
    said = room.session(script)
    assert "2 records, 2 to 3" in said and f"{len(whole) - 3} more: journal export 4" in said
    assert whole[1] not in said.replace("\n", "") and "there is no record to export" in said
    copied, ca = fleet.folder / "copied", ("--ca", str(fleet.folder / "ca"))
    copied.write_text(said)
    fleet._capsys.readouterr()
    assert tillfleet(["bundle", str(copied), "--records", *ca]) == 0
    assert fleet._capsys.readouterr().out.split() == whole[1:3]
    assert not list((room.folder / "console").glob("bundle-*")) and len(list((room.folder / "console").glob("records-*"))) == 1


@pytest.mark.parametrize(("packed", "more", "said"), [
    (b"no zlib", (), "is no bundle"), (zlib.compress(b"["), (), "is no bundle"), (zlib.compress(b"[1]"), (), "is no bundle"),
    (zlib.compress(b"[" * 100_000), (), "is no bundle"), (zlib.compress(b'"' + b" " * (40 << 20)), (), "larger than 32 MiB"),
    (zlib.compress(b'{"box": "x"}'), ("--records",), "no journal export"),
    (zlib.compress(b'{"tokens": ["a.b.\\u001b[2J"]}'), ("--records",), "is no record"),
])
def test_head_office_believes_no_bundle_further_than_its_form(packed: bytes, more: tuple[str, ...], said: str, room: Room,
                                                              fleet: Fleet) -> None:
    """The key to encrypt one lies on every box, so anybody who holds a box can make one."""
    file = made_by_a_thief(packed, room, fleet)
    assert tillfleet(["bundle", str(file), *more, "--ca", str(fleet.folder / "ca")]) == 2
    err = fleet._capsys.readouterr().err
    assert said in err and "\x1b" not in err


def test_no_bundle_steers_the_terminal_at_head_office(room: Room, fleet: Fleet) -> None:
    told = {"box": "水 \x9b2J\u202e\x1b]0;x\x07\n"}
    file = made_by_a_thief(zlib.compress(json.dumps(told).encode()), room, fleet)
    fleet._capsys.readouterr()
    assert tillfleet(["bundle", str(file), "--ca", str(fleet.folder / "ca")]) == 0
    out = fleet._capsys.readouterr().out
    assert "水" in out and json.loads(out) == told and all(c.isprintable() or c == "\n" for c in out)


def made_by_a_thief(packed: bytes, room: Room, fleet: Fleet) -> Path:
    key = fleet_key(room.place())
    parts = [jwe_encrypted(packed[at:at + bundle.PART_BYTES], key, ec.generate_private_key(ec.SECP256R1()), bytes(IV_BYTES))
             for at in range(0, len(packed), bundle.PART_BYTES)]
    file = fleet.folder / "forged"
    file.write_text("\n".join(bundled(hashlib.sha256(packed).hexdigest(), parts)))
    return file


def spoken_for(box: str, spoken: str, level: str = "full") -> str:
    """The challenge as another box of the same random bits would say it."""
    from device.console.challenge import Challenge
    stem = spoken.replace("-", "")
    return Challenge(box, "li", level, stem[10:14], stem[:10]).spoken()


def test_a_box_enrolled_before_consoles_had_keys_says_so(room: Room) -> None:
    file = room.folder / "identity" / "cloud.json"
    told = json.loads(file.read_text())
    del told["console"]
    file.write_text(json.dumps(told))

    def script(said: Callable[[], str]) -> Iterator[str | bytes]:
        yield from ("li", "full", "ABCDEFGH")
    assert "enrol the box anew" in room.session(script).replace("\n", " ")
