"""`tillbox appliance WORD`: what the image's own units call.  Each word is one step of a boot, and says in the log what it did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

USAGE = """\
usage: tillbox appliance data      look at the data partition, mend it, mount it, open it (root, early at boot)
       tillbox appliance first     take over what lies in tillbox/ of the boot partition, once (root)
       tillbox appliance walk [--config FILE]    have the daemon walk over its records, and keep what came of it
"""
BOOT, BOOT_AT = "/dev/mapper/till-boot", "/run/till/boot"
RULES = "/run/udev/rules.d/61-tillbox-console.rules"


def main(argv: list[str]) -> int:
    """0; 1 when a step did not come to its end; 2 for words that do not serve.  A fault that `data` found is said, and 0."""
    if argv == ["data"]:
        return _data()
    if argv == ["first"]:
        return _first()
    if argv[:1] == ["walk"] and (len(argv) == 1 or (len(argv) == 3 and argv[1] == "--config")):
        from device.appliance.walk import walked
        return walked(argv[2] if len(argv) == 3 else "/etc/tillbox/box.toml")
    print(USAGE, end="", file=sys.stderr)
    return 2


def _data() -> int:
    from device.appliance.partition import Partition

    partition = Partition()
    partition.ready()
    for line in partition.told:
        print(f"tillbox data: {line}", file=sys.stderr)
    return 0


def _first() -> int:
    from device.appliance import fault
    from device.appliance.first import Taken

    if fault.said() is not None:
        print("tillbox first: nothing is taken over while the data partition cannot be used", file=sys.stderr)
        return 0
    status = 0
    if os.path.exists(BOOT):
        status = _taken(Taken)
    else:
        Taken(Path("/nonexistent")).run()
    _console_port()
    return status


def _taken(taken: type) -> int:
    os.makedirs(BOOT_AT, mode=0o700, exist_ok=True)
    if subprocess.run(["mount", "-t", "vfat", "-o", "noatime,nosuid,nodev,noexec,umask=0077", BOOT, BOOT_AT]).returncode:
        print("tillbox first: the boot partition cannot be mounted", file=sys.stderr)
        taken(Path("/nonexistent")).run()
        return 1
    try:
        work = taken(Path(BOOT_AT))
        work.run()
        for line in work.told:
            print(f"tillbox first: {line}", file=sys.stderr)
        return 0
    except OSError as why:
        print(f"tillbox first: {why.filename}: {why.strerror}", file=sys.stderr)
        return 1
    finally:
        subprocess.run(["umount", BOOT_AT])


def _console_port() -> None:
    """A technician's console on the USB port that box.toml names: udev starts it whenever an adapter is plugged in there."""
    import tomllib
    try:
        port = tomllib.loads(Path("/etc/tillbox/box.toml").read_text(encoding="utf-8")).get("console", {}).get("port", "")
    except (OSError, ValueError, AttributeError):
        port = ""
    rule = console_rule(port)
    if rule:
        Path(RULES).parent.mkdir(parents=True, exist_ok=True)
        Path(RULES).write_text(rule)
        subprocess.run(["udevadm", "trigger", "--subsystem-match=tty", "--action=change"])


def console_rule(port: object) -> str:
    """udev's line for that port; "" for none, and for one that is no port."""
    import re
    if not isinstance(port, str) or not re.fullmatch(r"[0-9]+-[0-9]+(\.[0-9]+)*", port):
        return ""
    return (f'SUBSYSTEM=="tty", KERNEL=="ttyUSB[0-9]*|ttyACM[0-9]*", SUBSYSTEMS=="usb", KERNELS=="{port}", TAG+="systemd", '
            'ENV{SYSTEMD_WANTS}+="tillbox-console@%k.service"\n')
