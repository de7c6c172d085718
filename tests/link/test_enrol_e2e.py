"""A box's whole way into the fleet over the brokers that ship: code, identity, records over its own certificate, a fresh one.

Brokers, collector, desk and daemon are real and each its own process; nothing depends on how fast anything is.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from device.ask import DaemonAway, ask
from device.identity import enrol as box_enrol
from device.identity import enrol_line
from device.identity import folder as identity
from device.mqtt import enrol_wire
from device.store_forward.token import parse
from fleet import groups
from fleet.identity import enrol
from fleet.identity.ca import Authority
from fleet.identity.enrol_desk import DeskLine
from fleet.identity.enrol_tool import told, wall
from fleet.line import dressed
from fleet.records.store import Store, records
from sim.broker import MOSQUITTO, Broker, EnrolDoor
from sim.devices.keypad import KeypadModel
from tests import ROOT
from tests.broker_peer import Peer, context

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")

WAIT_S = 30.0
OFTEN = ("import device.identity.renewal as r, device.__main__ as m, sys; r.START_AFTER_S = r.LOOK_S = r.TICK_S = 0.3; "
         "sys.exit(m.main(sys.argv[1:]))")


class Fleet:
    """Tenant `shop` in `folder`: an authority, both brokers, a collector, and a desk in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, dict[str, subprocess.Popen[bytes]]()
        Authority.made(folder / "ca", "shop", now=lambda: _ago(300))
        self.ca = Authority(folder / "ca")
        self.ca.broker(["127.0.0.1"])
        for name in ("desk", "c1"):
            self.ca.client(f"shop/_collector/{name}", folder / name, use="collector")
        self.broker = Broker(folder / "broker", authority=self.ca)
        self.broker.start()
        self.door = EnrolDoor(self.broker)
        self.door.start()
        self.store = Store(folder / "cloud.db")
        groups.made(self.store.database, enrol.SCHEMA)
        self.line: DeskLine | None = None

    def desk(self, days_ago: int = 0) -> enrol.Desk:
        """Answer on the line, under a CA that believes it to be so many days ago."""
        desk = self.office(days_ago)
        self.serve(desk)
        return desk

    def office(self, days_ago: int = 0) -> enrol.Desk:
        ca = Authority(self.folder / "ca", now=lambda: _ago(days_ago))
        return enrol.Desk(self.store.database, ca, "shop", enrol.code_key(self.folder / "ca"), keys=told(self.folder / "ca"),
                          host="127.0.0.1", port=self.broker.port, wall=lambda: _ago(days_ago).isoformat())

    def serve(self, desk: enrol.Desk) -> None:
        self.line = DeskLine(desk.take, "127.0.0.1", self.broker.port, "shop", dress=dressed(self.folder / "desk"))
        self.line.start()
        assert self.line.ready.wait(WAIT_S)

    def run(self, name: str, *argv: str) -> None:
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen([sys.executable, *argv], cwd=ROOT, stdout=log, stderr=log)

    def collect(self) -> None:
        self.run("collector", "-m", "fleet", "collect", "--broker", f"127.0.0.1:{self.broker.port}", "--tenant", "shop", "--store",
                 str(self.folder / "cloud.db"), "--tls", str(self.folder / "c1"), "--ca", str(self.folder / "ca"))

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        process = self.running.pop(name)
        process.send_signal(how)
        return process.wait(timeout=WAIT_S)

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def committed(self) -> list[str]:
        """Kinds of the records that the cloud has, in order."""
        return [parse(token).payload.kind for token in records(self.store)["tokens"]]

    def close(self) -> None:
        for name in list(self.running):
            self.end(name, signal.SIGKILL)
        if self.line is not None:
            self.line.stop()
        self.door.stop()
        self.broker.stop()
        self.store.close()


class Box:
    """`box-1` of the shop: a folder and a box.toml that names neither itself nor a broker."""

    def __init__(self, fleet: Fleet, name: str = "box") -> None:
        self.fleet, self.folder = fleet, fleet.folder / name
        self.folder.mkdir()
        self.keypad = KeypadModel(self.folder / "keypad")
        self.toml = fleet.folder / f"{name}.toml"
        self.toml.write_text(f'state_dir = "{self.folder}"\nrun_dir = "{self.folder}"\n[scanner]\nkind = "none"\n'
                             f'[keypad]\npath = "{self.folder}/keypad"\n[display]\nkind = "none"\n[printer]\nkind = "none"\n')

    def command(self, *argv: str, given: str = "") -> tuple[int, str, str]:
        done = subprocess.run([sys.executable, "-m", "device", *argv, "--config", str(self.toml)], input=given, text=True,
                              cwd=ROOT, capture_output=True, timeout=WAIT_S * 2)
        return done.returncode, done.stdout, done.stderr

    def enrol(self, code: enrol_wire.Code, *more: str) -> tuple[int, str, str]:
        return self.command("enrol", "-", "--broker", f"127.0.0.1:{self.fleet.door.port}", *more, given=enrol_wire.typed(code))

    def start(self) -> None:
        self.fleet.run("box", "-c", OFTEN, "run", "--config", str(self.toml))
        until(self.state, "the daemon did not come up")
        until(lambda: self.keypad.read_by(self.fleet.running["box"].pid), "nobody reads the keypad")

    def state(self) -> dict:
        with contextlib.suppress(DaemonAway, OSError):
            return ask(self.folder / "daemon.sock", "state").get("state", {})
        return {}


def _ago(days: int) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)


def until(what: Callable[[], object], why: str) -> None:
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.05)                              # another process' doing: there is no event to wait for


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    one = Fleet(tmp_path)
    try:
        yield one
    finally:
        one.close()


def test_a_box_is_enrolled_sells_over_its_own_certificate_and_renews_it(fleet: Fleet) -> None:
    """The certificate is given under a CA whose clock stands 250 days back: it is due for renewal the moment it is there."""
    desk, box = fleet.desk(days_ago=250), Box(fleet)
    code = desk.code_for("box-1")
    status, said, err = box.enrol(code)
    assert status == 0 and "enrolled: box box-1 of shop" in said and not err
    assert box.enrol(code)[0] == 1, "a code serves once"
    old = (box.folder / "identity" / "tls.pem").read_bytes()
    fleet.broker.refresh()
    fleet.collect()
    box.start()
    until(lambda: "shift_open" in fleet.committed() or "boot" in fleet.committed(), "no record reached the cloud")
    until(lambda: "the certificate of the line is renewed" in fleet.log("box"), fleet.log("box"))
    fresh = (box.folder / "identity" / "tls.pem").read_bytes()
    assert fresh != old and identity.span_of(fresh).ends > identity.span_of(old).ends
    before = len(fleet.committed())
    box.keypad.press("DRAWER")
    until(lambda: len(fleet.committed()) > before and box.state().get("unacked") == 0, "nothing arrives over the fresh certificate")
    assert fleet.end("box") == 0
    argv = [sys.executable, "-m", "fleet", "verify", "--store", str(fleet.folder / "cloud.db"), "--json"]
    verified = subprocess.run(argv, cwd=ROOT, capture_output=True)
    assert verified.returncode == 0, "every record holds under the key that the enrolment brought, and no file of keys is named"
    [kid] = {parse(token).kid for token in records(fleet.store)["tokens"]}
    assert kid in fleet.store.verifiers("box-1")
    assert [one.use for one in fleet.ca.issued("shop/box-1")].count("box") == 2


def test_a_desk_that_comes_while_a_box_asks_answers_it(fleet: Fleet, monkeypatch) -> None:
    """The first request finds nobody; the same bytes leave once more, and one reply comes."""
    monkeypatch.setattr(enrol_line, "ANSWERS_S", (0.5, 0.5, 20.0))
    box, desk = Box(fleet), fleet.office()
    code = desk.code_for("box-1")
    config = identity.loaded(box.toml, lacking={"box": "box-1", "box_no": "000000", "tenant": "tenant"})
    request = box_enrol.prepared(config, code)
    with ThreadPoolExecutor() as pool:
        reply = pool.submit(enrol_line.asked, "127.0.0.1", fleet.door.port, code, request)
        log = fleet.folder / "broker" / "mosquitto.log"
        until(lambda: f"as {code.id}" in log.read_text(), "the box did not come to the door")
        fleet.serve(desk)
        assert box_enrol.accepted(config, code, request, reply.result(WAIT_S)).box == "box-1"


def test_a_box_that_was_replaced_is_out_and_its_successor_is_in(fleet: Fleet) -> None:
    desk = fleet.desk()
    old, new = Box(fleet, "old"), Box(fleet, "new")
    numbers = []
    for box in (old, new):
        status, said, err = box.enrol(desk.code_for("box-1"))
        assert status == 0, err
        numbers.append(identity.loaded(box.toml).box_no)
    assert numbers[0] == numbers[1]
    fleet.broker.refresh()
    until_s = time.monotonic() + 20
    with pytest.raises(ConnectionError):
        while time.monotonic() < until_s:                        # the broker reads the list when it gets to its signal
            Peer(fleet.broker.port, context(old.folder / "identity"), client_id="shop/box-1").close()
    Peer(fleet.broker.port, context(new.folder / "identity"), client_id="shop/box-1").close()


def test_a_listener_of_another_ca_learns_nothing(fleet: Fleet, tmp_path: Path) -> None:
    fleet.desk()
    box, other = Box(fleet), Authority.made(tmp_path / "other", "shop")
    code = enrol.Desk(fleet.store.database, other, "shop", bytes(32), wall=wall).code_for("box-1")
    status, _, err = box.enrol(code)
    assert status == 1 and "shows no certificate of the CA that the code names: nothing was told to it" in err
    (tmp_path / "ours.pem").write_bytes(fleet.ca.ca_pem)
    assert "no certificate of the CA" in box.enrol(code, "--ca", str(tmp_path / "ours.pem"))[2]
    (tmp_path / "theirs.pem").write_bytes(other.ca_pem)
    assert "does not hold" in box.enrol(code, "--ca", str(tmp_path / "theirs.pem"))[2]
    assert code.id not in (fleet.folder / "broker" / "mosquitto.log").read_text(), "not even the code's name was said"
    [row] = [row for row in enrol.Desk(fleet.store.database, other, "shop", bytes(32), wall=wall).codes()]
    assert row[4:] == (0, "open")


def test_the_clouds_command_prints_a_code_that_a_camera_reads(fleet: Fleet) -> None:
    at = ["--store", str(fleet.folder / "cloud.db"), "--ca", str(fleet.folder / "ca")]
    argv = [sys.executable, "-m", "fleet", "enrol", "box-1", *at]
    shown = subprocess.run(argv, cwd=ROOT, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8"}).stdout.decode()
    first, _, symbol = shown.partition("\n\n")
    from PIL import Image
    rows = [line.removeprefix("\x1b[97;40m").removesuffix("\x1b[0m") for line in symbol.strip().splitlines()]
    image = Image.new("L", (len(rows[0]), 2 * len(rows)), 0)
    for y, row in enumerate(rows):
        for x, block in enumerate(row):
            image.putpixel((x, 2 * y), 255 * (block in "█▀"))
            image.putpixel((x, 2 * y + 1), 255 * (block in "█▄"))
    import zxingcpp
    [read] = zxingcpp.read_barcodes(image.resize((image.width * 4, image.height * 4), Image.Resampling.NEAREST))
    scanned, typed = enrol_wire.code_of(read.text), enrol_wire.code_of(first)
    assert (scanned.id, scanned.secret, scanned.pin[:10]) == (typed.id, typed.secret, typed.pin)
    assert scanned.pin == bytes.fromhex(fleet.ca.fingerprint)
    box = Box(fleet)
    ask_file = fleet.folder / "ask.txt"
    ask_file.write_text(box.command("enrol", "request", first)[1])
    answered = subprocess.run([*argv[:4], "answer", str(ask_file), *argv[5:], "--box-broker", "broker.example:8883"], cwd=ROOT,
                              capture_output=True)
    assert answered.returncode == 0, answered.stderr
    status, said, _ = box.command("enrol", "install", "-", given=answered.stdout.decode())
    assert status == 0 and "broker broker.example:8883" in said
    listed = subprocess.run([*argv[:4], "list", *argv[5:], "--json"], cwd=ROOT, capture_output=True).stdout.splitlines()
    assert [json.loads(line).get("state") for line in listed] == [None, "used"]
