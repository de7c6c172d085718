"""Our program as a box and a Debian package have it: the device's own code, compiled the same way twice, no simulator."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from image import commands, deb, program, wheels
from tests import ROOT

FEW = ["device/__init__.py", "device/crockford.py", "device/rules.json", "device/errors.py"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program of four files and no wheels: the network is not asked, and compiling takes no time."""
    try:
        program.python311()
    except commands.BuildError:
        pytest.skip("no Python 3.11 here")
    monkeypatch.setattr(wheels, "fetched", lambda arch="arm64": [])
    monkeypatch.setattr(program, "sources", lambda: FEW)


def test_only_the_box_s_own_code_goes_to_a_box() -> None:
    found = program.sources()
    assert {"device/__main__.py", "device/rules.json", "device/txn/machine.py"} <= set(found)
    assert {path.split("/")[0] for path in found} == {"device"}
    assert not [path for path in found if "__pycache__" in path or path.endswith(".pyc")]


def test_compiled_files_say_no_time_and_no_place_of_the_builders(few: None, tmp_path: Path) -> None:
    made = []
    for name, mtime in (("one", 1_000_000_000), ("two", 1_600_000_000)):
        program.laid(tmp_path / name)
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (mtime, mtime))
        program.compiled(tmp_path / name, 1_700_000_000)
        made.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in (tmp_path / name).rglob("*.pyc")})
    assert made[0] == made[1] and len(made[0]) == 3
    for content in made[0].values():
        assert content[:4] == importlib.util.MAGIC_NUMBER or content[:2] == (3495).to_bytes(2, "little")
        assert content[4:8] == b"\x01\0\0\0"                   # by hash, never checked
        assert str(tmp_path).encode() not in content and b"/opt/tillbox/lib/python3.11/site-packages/device/" in content


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb here")
def test_the_package_is_the_same_twice_and_holds_what_a_stock_system_lacks(few: None, tmp_path: Path) -> None:
    files = [deb.built(tmp_path / name, "1.2.3", "arm64") for name in ("one", "two")]
    assert files[0].name == "tillbox_1.2.3_arm64.deb"
    assert files[0].read_bytes() == files[1].read_bytes()
    listed = subprocess.run(["dpkg-deb", "-c", files[0]], capture_output=True, text=True, check=True).stdout
    for path in ("./opt/tillbox/bin/tillbox", "./usr/lib/systemd/system/tillbox.service", "./usr/lib/udev/rules.d/60-tillbox.rules",
                 "./usr/lib/sysusers.d/tillbox.conf", "./usr/bin/tillbox -> /opt/tillbox/bin/tillbox",
                 "./usr/share/doc/tillbox/technician.md",
                 "./opt/tillbox/lib/python3.11/site-packages/device/crockford.py"):
        assert any(line.endswith(f" {path}") for line in listed.splitlines()), path
    assert all(" root/root " in line for line in listed.splitlines())
    assert "/system/tillbox-data.service" not in listed        # the image's alone: a stock system has its own disks
    control = subprocess.run(["dpkg-deb", "-f", files[0]], capture_output=True, text=True, check=True).stdout
    assert "Version: 1.2.3\n" in control and "python3 (<< 3.12)" in control and "\nArchitecture: arm64\n" in control
    subprocess.run(["dpkg-deb", "-e", files[0], tmp_path / "control"], check=True)
    for script in ("postinst", "prerm", "postrm"):
        assert subprocess.run(["sh", "-n", tmp_path / "control" / script]).returncode == 0
        assert "rm -" not in (tmp_path / "control" / script).read_text()      # books are never a package's to delete
        assert "{" not in (tmp_path / "control" / script).read_text()


def test_what_a_wheel_brings_for_compilers_stays_out() -> None:
    assert wheels.UNWANTED.search("msgspec/_core.pyi") and wheels.UNWANTED.search("paho/tests/x.py")
    for kept in ("cryptography/hazmat/bindings/_rust.abi3.so", "escpos/capabilities.json"):
        assert not wheels.UNWANTED.search(kept)


def test_the_host_packages_of_the_image_are_one_script() -> None:
    script = ROOT / "setup/appliance.sh"
    assert script.stat().st_mode & 0o111 and subprocess.run(["bash", "-n", script]).returncode == 0
    assert "non-free" not in subprocess.run(["bash", "-c", f"sed 's/#.*//' {script}"], capture_output=True, text=True).stdout
