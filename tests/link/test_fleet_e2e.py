"""The fleet's admin against a real box: daemon, Mosquitto, collector and courier each in a process of its own.

Waiting is for events, with a limit; nothing depends on how fast anything is.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from device.ask import DaemonAway, ask
from device.commands.restart import EXIT_REBOOT
from fleet.keys import SigningKey
from sim.broker import MOSQUITTO, Broker
from tests import ROOT
from tests.link import test_enrol_e2e as enrolment

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")

WAIT_S = 30.0


class Fleet:
    """One box and the cloud's programs in `folder`; `tillfleet` runs a command of the cloud and gives its lines."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        for name in ("ack", "command"):
            key = SigningKey(folder / f"{name}.pem")
            (folder / f"{name}.jwk").write_text(json.dumps({**key.jwk, "kid": key.kid}))
        (folder / "box.toml").write_text(self.toml())
        jwk = subprocess.run([sys.executable, "-c", "import sys, json; from device.drivers.signer.file import FileSigner; "
                              "print(json.dumps(FileSigner(sys.argv[1]).jwk))", str(folder / "record.key")],
                             cwd=ROOT, capture_output=True, check=True).stdout
        (folder / "boxes.jwks").write_text(json.dumps({"keys": [{**json.loads(jwk), "box": "box-1"}]}))

    def toml(self) -> str:
        f = self.folder
        return (f'box = "box-1"\nbox_no = "00000A"\ntenant = "shop"\nstate_dir = "{f}/box"\nrun_dir = "{f}/run"\n'
                f'record_key_file = "{f}/record.key"\nack_key_file = "{f}/ack.jwk"\ncommand_key_file = "{f}/command.jwk"\n'
                f'[scanner]\nkind = "none"\n[keypad]\nkind = "none"\n[display]\nkind = "none"\n'
                f'[mqtt]\nhost = "127.0.0.1"\nport = {self.port}\n')

    def start(self, name: str) -> None:
        at = ["--broker", f"127.0.0.1:{self.port}", "--tenant", "shop", "--store", str(self.folder / "cloud.db")]
        argv = {"box": ["device", "run", "--config", str(self.folder / "box.toml")],
                "collector": ["fleet", "collect", *at, "--keys", str(self.folder / "boxes.jwks"), "--ack-key",
                              str(self.folder / "ack.pem")],
                "courier": ["fleet", "courier", *at, "--command-key", str(self.folder / "command.pem")]}[name]
        with open(self.folder / f"{name}.log", "ab") as log:
            self.running[name] = subprocess.Popen([sys.executable, "-m", *argv], cwd=ROOT, stdout=log, stderr=log)

    def end(self, name: str, how: signal.Signals = signal.SIGTERM) -> int:
        process = self.running.pop(name)
        process.send_signal(how)
        return process.wait(timeout=WAIT_S)

    def tillfleet(self, *argv: str) -> tuple[int, list[dict]]:
        done = subprocess.run([sys.executable, "-m", "fleet", *argv, "--store", str(self.folder / "cloud.db"), "--json"],
                              cwd=ROOT, capture_output=True, timeout=WAIT_S * 2)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def cmd(self, *words: str, by: str = "li:admin", wait: float = WAIT_S) -> tuple[int, dict]:
        code, lines = self.tillfleet("cmd", "box-1", *words, "--by", by, "--wait", str(wait))
        return code, lines[0]

    def state(self) -> dict:
        with contextlib.suppress(DaemonAway, OSError):
            return ask(self.folder / "run" / "daemon.sock", "state").get("state", {})
        return {}


def until(what: Callable[[], object], why: str) -> None:
    end = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.05)                              # another process' doing: there is no event to wait for


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Broker(tmp_path / "broker") as broker:
        one = Fleet(tmp_path, broker.port)
        try:
            yield one
        finally:
            for name in list(one.running):
                one.end(name, signal.SIGKILL)


def test_an_admin_asks_a_box_that_is_away_and_everything_is_done_once(fleet):
    for name in ("collector", "courier"):
        fleet.start(name)
    code, kept = fleet.cmd("reboot", wait=0)
    assert (code, kept["state"]) == (0, "waiting"), "a box that never spoke is waited for"
    fleet.start("box")
    assert fleet.running["box"].wait(timeout=WAIT_S) == EXIT_REBOOT
    fleet.start("box")                                # as systemd does
    until(lambda: fleet.tillfleet("cmd", "list", "--box", "box-1")[1][-1].get("done") == 1, "the answer never came")

    code, status = fleet.cmd("status")
    assert code == 0 and status["answer"]["phase"] == "IDLE" and "health" in status["answer"]
    code, whole = fleet.cmd("journal", "verify", by="zhao:accountant")
    assert code == 0 and whole["answer"]["whole"] and whole["answer"]["records"] >= 3
    code, logs = fleet.cmd("logs", "20", by="chen:technician")
    assert code == 0 and any("command" in line for line in logs["answer"]["lines"])
    assert fleet.cmd("doctor")[1]["answer"]["findings"]
    code, refused = fleet.cmd("refund", "00000A00000000000000", "5")
    assert (code, refused["state"], refused["answer"]["name"]) == (1, "refused", "sale")

    assert fleet.running["box"].poll() is None, "it restarted twice"
    until(lambda: fleet.state().get("unacked") == 0, "the records of the commands never arrived")
    from device.store_forward.token import parse
    from fleet.records.store import Store, records
    store = Store(fleet.folder / "cloud.db")
    kept = [json.loads(bytes(p.body)) for p in (parse(token).payload for token in records(store)["tokens"]) if p.kind == "command"]
    store.close()
    assert [(k["verb"], k["outcome"]) for k in kept] == [
        ("reboot", "done"), ("status", "answered"), ("journal verify", "answered"), ("logs", "answered"), ("doctor", "answered"),
        ("refund", "refused")]


def test_an_enrolled_box_obeys_its_clouds_keys_over_its_own_certificate_and_opens_its_secrets(tmp_path):
    """The authority's keys, the broker that ships, its ACL, and an encryption key that enrolment told the cloud."""
    shop = enrolment.Fleet(tmp_path)
    store = ["--store", str(tmp_path / "cloud.db"), "--json"]

    def tillfleet(*argv: str) -> tuple[int, list[dict]]:
        done = subprocess.run([sys.executable, "-m", "fleet", *argv, *store], cwd=ROOT, capture_output=True, timeout=WAIT_S * 2)
        assert done.stdout, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]
    try:
        box = enrolment.Box(shop)
        assert box.enrol(shop.desk().code_for("box-1"))[0] == 0
        shop.ca.client("shop/_courier/k1", tmp_path / "k1", use="courier")
        shop.broker.refresh()
        shop.collect()
        shop.run("courier", "-m", "fleet", "courier", "--broker", f"127.0.0.1:{shop.broker.port}", "--tenant", "shop", "--id", "k1",
                 *store, "--tls", str(tmp_path / "k1"), "--command-key", str(tmp_path / "ca" / "command.pem"), "--config-key",
                 str(tmp_path / "ca" / "config.pem"))
        box.start()
        code, (status, *_) = tillfleet("cmd", "box-1", "status", "--by", "li:lead", "--wait", str(WAIT_S))
        assert code == 0 and status["answer"]["phase"] == "IDLE", (status, shop.log("courier"), shop.log("box"))
        (tmp_path / "prices.csv").write_text("gtin,name_zh,name_en,price_fen,unit,source\n6902538004045,脉动,Mizone,550,piece,t\n")
        (tmp_path / "a.toml").write_text('shop_zh = "店"\ninstalment_code = "the-canary"\n[blobs]\nprices = "prices.csv"\n')
        push = ["config", "push", str(tmp_path / "a.toml"), "--all", "--by", "li"]
        code, (rollout,) = tillfleet(*push, "--wait", str(WAIT_S))
        assert code == 0 and (rollout["state"], rollout["active"]) == ("done", 1), (rollout, shop.log("box"))
        code, lines = tillfleet("config", "status")
        assert code == 0 and lines[0]["desired"] == lines[0]["active"] == "0.1"
        assert "***" in next(line for line in box.command("config")[1].splitlines() if line.startswith("instalment_code"))
        (tmp_path / "a.toml").write_text('shop_zhh = "x"\n')
        code, lines = tillfleet(*push)
        assert code == 1 and "did you mean" in lines[0]["reason"] and box.state()["phase"] == "IDLE"
        for name in ("cloud.db", "box", "courier.log", "box.log"):
            for path in (tmp_path / name).rglob("*") if (tmp_path / name).is_dir() else [tmp_path / name]:
                assert not path.is_file() or b"the-canary" not in path.read_bytes(), path
    finally:
        shop.close()
