"""The daemon's unit: as closed as systemd can prove offline, open to our devices, and fed by a watchdog."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import ROOT

SYSTEMD = ROOT / "systemd"
UNIT = SYSTEMD / "tillbox.service"
CONSOLE = SYSTEMD / "tillbox-console@.service"
GATE = re.search(r"^UNITS := (.*)$", (ROOT / "Makefile").read_text(), re.M)
EXPOSURE_TENTHS_MAX = {unit: int(tenths) for tenths, _, unit in (word.partition(":") for word in GATE[1].split())} if GATE else {}
SERVICES = sorted(SYSTEMD.glob("*.service"), key=str)
TIMERS = sorted(SYSTEMD.glob("*.timer"), key=str)


def exposure_gate(unit: Path) -> subprocess.CompletedProcess[str]:
    """`systemd-analyze` over one unit file; exit status 0 when its exposure is at most the limit."""
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing: bash setup/debian.sh installs it"
    return subprocess.run(
        ["systemd-analyze", "--no-pager", "security", "--offline=true", f"--threshold={EXPOSURE_TENTHS_MAX[unit.name]}",
         str(unit)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "LC_ALL": "C"})


def values_of(key: str) -> list[str]:
    lines = [line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [value for name, value in lines if name == key]


def test_the_gate_of_make_unit_leaves_no_unit_out() -> None:
    assert sorted(EXPOSURE_TENTHS_MAX) == [unit.name for unit in SERVICES]
    assert EXPOSURE_TENTHS_MAX[UNIT.name] <= 15 and EXPOSURE_TENTHS_MAX[CONSOLE.name] <= 10


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_the_units_are_exposed_by_no_more_than_their_limits(unit: Path) -> None:
    result = exposure_gate(unit)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr


def test_the_gate_catches_a_unit_that_was_opened(tmp_path: Path) -> None:
    opened = tmp_path / "tillbox.service"
    opened.write_text(UNIT.read_text().replace("CapabilityBoundingSet=\n", ""))
    assert exposure_gate(opened).returncode != 0


@pytest.mark.parametrize("unit", SERVICES + TIMERS, ids=lambda unit: unit.name)
def test_systemd_reads_every_line(unit: Path) -> None:
    """`verify` warns of an unknown key and goes on; here any word from it but the missing program is a failure."""
    result = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    said = [line for line in result.stderr.splitlines()
            if unit.stem.rstrip("@") in line and "is not executable" not in line]
    assert said == []


def test_notify_and_watchdog() -> None:
    assert values_of("Type") == ["notify"] and values_of("WatchdogSec") == ["30"]
    assert values_of("User") == ["tillbox"] and values_of("Restart") == ["always"]


def test_memory_reaches_no_core_file_and_the_sealing_key_may_be_missing() -> None:
    """systemd takes a missing credential for an error when its path is absolute, and only then."""
    assert values_of("LimitCORE") == ["0"]
    assert values_of("LoadCredentialEncrypted") == ["tillbox-seal", "tillbox-seal-old", "tillbox-pin"]


def test_devices_are_listed_and_the_rest_is_closed() -> None:
    allowed = {value.split()[0] for value in values_of("DeviceAllow")}
    assert values_of("DevicePolicy") == ["closed"]
    assert {"char-input", "char-ttyUSB", "char-ttyACM", "char-fb", "char-usb"} <= allowed
    assert "char-usblp" not in allowed, "the kernel has no such group, and systemd would leave it out in silence"
    assert values_of("PrivateDevices") == [], "it hides every device the box lives on"


def test_adapters_that_come_later_are_still_ours() -> None:
    """DeviceAllow turns names into numbers once: the drivers must be loaded before."""
    for key in ("Wants", "After"):
        words = " ".join(values_of(key)).split()
        assert {"modprobe@usbserial.service", "modprobe@cdc_acm.service", "modprobe@usblp.service"} <= set(words)


def test_the_unit_waits_for_no_network() -> None:
    """Cash sells without one."""
    assert "network-online.target" not in UNIT.read_text().replace("# Not After=network-online.target", "")


def test_nodes_and_user_have_one_name() -> None:
    rules = [line for line in (SYSTEMD / "60-tillbox.rules").read_text().splitlines() if line and not line.startswith("#")]
    groups = {part.split('"')[1] for line in rules for part in line.split(", ") if part.startswith("GROUP=")}
    assert groups == {"tillbox"}
    assert not any(line.startswith('KERNEL=="ttyUSB0"') or "ttyUSB0" in line for line in rules)
    assert (SYSTEMD / "tillbox.sysusers").read_text().splitlines()[-1].split()[:2] == ["u", "tillbox"]


def test_every_file_here_has_a_place_on_the_box() -> None:
    lines = [line.split() for line in (SYSTEMD / "MANIFEST").read_text().splitlines() if line and not line.startswith("#")]
    listed = [line[1] for line in lines if line[0] in ("all", "image")]
    there = [str(path.relative_to(SYSTEMD)) for path in SYSTEMD.rglob("*") if path.is_file() and path.name != "MANIFEST"]
    assert sorted(listed) == sorted(there)
    assert all(len(line) == 3 and line[2].startswith("/") for line in lines if line[0] in ("all", "image", "link"))
    units = {unit for line in lines if line[0] == "enable" for unit in line[1:] if unit.startswith("tillbox")}
    assert all((SYSTEMD / re.sub("@[^.]*", "@", unit)).exists() for unit in units)


def test_nothing_of_the_image_listens_or_logs_in() -> None:
    image = SYSTEMD / "image"
    assert {"DNSStubListener=no", "LLMNR=no", "MulticastDNS=no"} <= set((image / "resolved.conf").read_text().splitlines())
    for network in image.glob("*.network"):
        assert {"LLMNR=no", "MulticastDNS=no"} <= set(network.read_text().splitlines()), network.name
    masked = " ".join(line for line in (SYSTEMD / "MANIFEST").read_text().splitlines() if line.startswith("mask"))
    assert {"getty@tty1.service", "serial-getty@ttyAMA0.service", "ctrl-alt-del.target"} <= set(masked.split())
    assert "RuntimeWatchdogSec=14" in (image / "watchdog.conf").read_text()


def test_the_unit_is_a_unit() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    assert parser.sections() == ["Unit", "Service", "Install"]
