"""A release goes out to a real box: daemon, slots, Mosquitto, collector and courier, each a process of its own; the machine is two
files and a boot loader's rules."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from device.commands.restart import EXIT_REBOOT
from device.update import boot_state
from sim.broker import MOSQUITTO, Broker
from tests import ROOT
from tests.link.test_fleet_e2e import WAIT_S, Fleet, until

pytestmark = pytest.mark.skipif(not (Path(MOSQUITTO).exists() or shutil.which("mosquitto")), reason="needs Mosquitto")

SLOT_BYTES = 2_000_000


def image(version: int) -> bytes:
    shared, own = random.Random(1), random.Random(version)
    return bytes(200_000) + shared.randbytes(600_000) + own.randbytes(200_000 + version * 11) + shared.randbytes(300_000)


class Shop(Fleet):
    """The fleet's box on a machine with slots."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(folder, port)
        self.root, self.boots = folder / "machine", 0
        self.root.mkdir()
        self.releases = {}
        for slot in "ab":
            (self.root / slot).write_bytes(bytes(SLOT_BYTES))
        state = bytearray(boot_state.SPAN * boot_state.SECTOR)
        for at in boot_state.WITHIN:
            state[at:at + 512] = boot_state.encode(boot_state.DEFAULTS)
        (self.root / "till-state").write_bytes(state)
        for version in (1, 2):
            (folder / f"{version}.slot").write_bytes(image(version))
            self.releases[image(version)] = {"version": f"0.{version}.0", "ratchet": version, "board": "virt"}
        (self.root / "a").write_bytes(image(1).ljust(SLOT_BYTES, b"\0"))
        assert self.tillfleet_alone("update", "sign", str(folder / "2.slot"), "--key", str(folder / "update.pem"), "--version",
                                    "0.2.0", "--ratchet", "2", "--board", "virt", "--base", f"0.1.0={folder / '1.slot'}") == 0
        shutil.copy(folder / "update.jwks", self.root / "update.jwks")

    def tillfleet_alone(self, *argv: str) -> int:
        argv = (sys.executable, "-m", "fleet", *argv)
        return subprocess.run(argv, cwd=ROOT, timeout=WAIT_S, stdout=subprocess.DEVNULL).returncode

    @property
    def tries(self) -> boot_state.BootState:
        state = (self.root / "till-state").read_bytes()
        return boot_state.read(*(state[at:at + 512] for at in boot_state.WITHIN))

    def power_on(self) -> str:
        """A start of the machine: the boot loader's choice, then slots and daemon; the slot."""
        slot, after = boot_state.chosen(self.tries)
        with open(self.root / "till-state", "r+b") as file:
            for at in boot_state.WITHIN:
                file.seek(at)
                file.write(boot_state.encode(after))
        release = next(told for data, told in self.releases.items() if (self.root / slot).read_bytes().startswith(data))
        (self.root / "release.json").write_text(json.dumps(release))
        (self.root / "slot").write_text(slot)
        for name, at in (("this", slot), ("other", boot_state.other(slot))):
            (self.root / f"till-{name}").unlink(missing_ok=True)
            (self.root / f"till-{name}").symlink_to(at)
        self.boots += 1
        with open(self.folder / "slots.log", "ab") as log:
            self.running["slots"] = subprocess.Popen(
                [sys.executable, "-m", "device", "slot", "serve", "--root", str(self.root), "--boot", f"boot-{self.boots}",
                 "--alone", "60"], cwd=ROOT, stdout=log, stderr=log)
        until((self.root / "slot.sock").exists, "the slots do not come up")
        self.start("box")
        return slot

    def powered_off(self, how: signal.Signals = signal.SIGKILL) -> None:
        for name in ("box", "slots"):
            self.end(name, how)
        (self.root / "slot.sock").unlink()

    def restarted(self) -> str:
        """The box asked for a restart of the machine, and gets it."""
        assert self.running.pop("box").wait(timeout=WAIT_S * 2) == EXIT_REBOOT
        self.end("slots", signal.SIGKILL)
        (self.root / "slot.sock").unlink()
        return self.power_on()

    def update(self) -> dict:
        return self.tillfleet("update", "status")[1][0]

    def push(self) -> tuple[int, list[dict]]:
        return self.tillfleet("update", "push", str(self.folder / "2.slot"), "--base", f"0.1.0={self.folder / '1.slot'}", "--box",
                              "box-1", "--start", "now", "--by", "li:admin")


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("TILLBOX_SLOTS", str(tmp_path / "machine" / "slot.sock"))
    monkeypatch.setenv("TILLBOX_UPDATE_S", "20")
    with Broker(tmp_path / "broker") as broker:
        one = Shop(tmp_path, broker.port)
        try:
            for name in ("collector", "courier"):
                one.start(name)
            yield one
        finally:
            for name in list(one.running):
                one.end(name, signal.SIGKILL)


def test_a_release_is_pushed_cut_started_proven_and_kept(shop):
    assert shop.power_on() == "a"
    until(lambda: shop.tries.left("a") == boot_state.TRIES, "the first start did not prove itself")
    until(lambda: shop.update().get("runs") == "0.1.0", "the box says nothing of what it runs")
    assert shop.push()[0] == 0
    until(lambda: shop.update()["state"] in ("fetching", "ready"), "the command does not come")
    shop.powered_off()                                 # wherever it stands
    assert shop.power_on() == "a"
    assert shop.restarted() == "b"
    assert (shop.root / "b").read_bytes().startswith(image(2))
    until(lambda: shop.update()["state"] == "active", "the release is not kept")
    told = shop.update()
    assert (told["runs"], told["ratchet"], told["slot"], told["other"]) == ("0.2.0", 2, "b", "0.1.0")
    assert shop.tries == boot_state.BootState(("b", "a"), 3, 3) and shop.state()["update"]["state"] == "active"
    until(lambda: shop.tillfleet("update", "rollout")[1][0]["state"] == "done", "the rollout does not end")
    _, again = shop.push()
    assert again[0]["left_out"] == "box-1 runs it"


def test_a_release_that_reaches_no_cloud_goes_back_by_itself_and_says_why(shop, monkeypatch):
    monkeypatch.setenv("TILLBOX_UPDATE_S", "5")
    shop.power_on()
    until(lambda: shop.update().get("runs") == "0.1.0" and shop.tries.left("a") == 3, "the box says nothing of what it runs")
    shop.push()
    assert shop.running["box"].wait(timeout=WAIT_S * 2) == EXIT_REBOOT
    shop.end("collector")                              # nobody confirms a record of the new start
    assert shop.restarted() == "b"
    assert shop.restarted() == "a"                     # by itself, after its time
    shop.start("collector")
    until(lambda: (shop.update()["state"], shop.update()["runs"]) == ("rolled_back", "0.1.0"), "the cause does not reach the cloud")
    assert "the cloud confirmed no record" in shop.update()["why"]
    assert shop.tries.left("b") == 0 and shop.tries.order[0] == "a"
