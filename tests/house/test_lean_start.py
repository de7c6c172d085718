"""What a start must not load: each of these rooms waits until somebody wants it, so that no start creeps up unseen."""


from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.boot import _accept
from device.uplink import LINK_AFTER_S
from sim.counter import wiring
from sim.counter.boxes import Boxes
from sim.counter.channels import opened
from sim.devices.keypad import KeypadModel
from sim.devices.scanner import ScannerModel

# What the daemon's own imports must not bring along; a name stands for all below it.
OF_OTHERS = ("PIL", "_cffi_backend", "bcrypt", "cryptography", "dataclasses", "difflib", "email", "escpos", "evdev", "html", "http",
             "paho", "pkcs11", "qrcode", "serial", "shutil", "sqlite_utils", "ssl", "tempfile", "typing_extensions", "unittest",
             "urllib.request", "usb", "xml")
OF_OURS = tuple(f"device.{room}" for room in """
    config_page console doctor drivers.channels.alipay drivers.channels.gateway drivers.channels.shouqianba
    drivers.channels.unionpay drivers.channels.wechat drivers.display.draw drivers.display.pole drivers.input.gs1_bytes
    drivers.input.keycard_bytes drivers.printer.raster drivers.qr_bits drivers.input.scanner_keys drivers.signer.file
    drivers.signer.pkcs11 identity.enrol identity.renewal keys.tool mqtt.client mqtt.config_wire mqtt.packing_wire
    push.chosen push.pusher scan_tool store_forward.tools store_forward.verify timeline
    """.split())
# What a box with a display, a gateway, a line and a signed rule table does without until the first scan stands in the basket.
UNTIL_A_SCAN = ("cryptography", "paho", "_ssl", "http", "qrcode", "json", "device.mqtt.client", "device.mqtt.packing_wire",
                "device.push.pusher", "device.doctor", "device.console")

LOADED = ("import sys; sys.argv = ['tillbox']; from device.lean import import_leanly; import_leanly(); import device.daemon; "
          "import json; print(json.dumps(sorted(sys.modules)))")


@pytest.fixture(scope="module")
def loaded() -> list[str]:
    """Every module of a fresh interpreter that has imported what `tillbox run` imports."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    said = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True, env=env)
    return [name for name in json.loads(said.stdout) if not name.startswith("json")]


@pytest.mark.parametrize("rooms", [OF_OTHERS, OF_OURS], ids=["of others", "of ours"])
def test_a_start_loads_none_of_these(rooms, loaded):
    assert [name for name in loaded if any(name == room or name.startswith(room + ".") for room in rooms)] == []
    assert "device.daemon" in loaded and "asyncio" in loaded


def test_a_box_takes_its_first_scan_without_these(tmp_path):
    boxes, devices = Boxes(tmp_path), (ScannerModel(tmp_path / "dev" / "scanner"), KeypadModel(tmp_path / "dev" / "keypad"))
    gateway = opened(tmp_path, "gateway")["gateway"]
    gateway.start()
    try:
        wiring.write_rules(tmp_path, 1)
        wiring.write_box(tmp_path, boxes, run_dir=tmp_path / "run", broker_port=1, printer_port=1, channels={"gateway": gateway})
        _until_a_scan(tmp_path, devices[0])        # the first start makes the key and checks the rules; no other needs to
        asked = next(names for names in (_until_a_scan(tmp_path, devices[0]) for _ in range(5)) if names)
    finally:
        for device in devices:
            device.unplug()
        gateway.stop()
    assert [name for name in asked if any(name == room or name.startswith(room + ".") for room in UNTIL_A_SCAN)] == []
    assert "PIL" in asked and "device.drivers.channels.gateway" in asked


def _until_a_scan(folder: Path, scanner: ScannerModel) -> list[str]:
    """The modules that a daemon had loaded when a scan stood in its basket; none when that took so long that the line began."""
    with (folder / "imports").open("w") as file:
        argv = [sys.executable, "-X", "importtime", "-m", "device", "run", "--config", str(folder / "box.toml")]
        daemon = subprocess.Popen(argv, stderr=file)
        try:
            until_s = time.monotonic() + 20
            while not (folder / "run" / "daemon.sock").exists():
                assert time.monotonic() < until_s and daemon.poll() is None, (folder / "imports").read_text()[-2000:]
                time.sleep(.01)
            ready_s = time.monotonic()
            _accept(folder, scanner)
            slow = time.monotonic() - ready_s > LINK_AFTER_S / 2
        finally:
            daemon.kill()
            daemon.wait()
    (folder / "run" / "daemon.sock").unlink()
    told = (line.split("|") for line in (folder / "imports").read_text().splitlines() if line.startswith("import time:"))
    return [] if slow else [words[2].strip() for words in told]


def test_what_was_left_out_can_be_had_afterwards():
    code = ("import sys; from device.lean import import_leanly, LEFT_OUT; import_leanly(); import asyncio; "
            "assert not set(LEFT_OUT) & set(sys.modules), sorted(sys.modules); "
            "import ssl, typing_extensions; assert ssl.SSLContext; import_leanly(); assert sys.modules['ssl'] is ssl")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_room_named_here_is_there():
    assert [room for room in OF_OURS if importlib.util.find_spec(room) is None] == []
