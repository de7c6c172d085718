"""`tillbox appliance WORD`: what the image's own units call.  Each word is one step of a boot, and says in the log what it did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

USAGE = """\
usage: tillbox appliance data      mend, mount and open the data partition; take over what came with the card (root, at boot)
       tillbox appliance walk [--config FILE]    have the daemon walk over its records, and keep what came of it
"""
BOOT, BOOT_AT = "/dev/mapper/till-boot", "/run/till/boot"
RULES = "/run/udev/rules.d/61-tillbox-console.rules"


def main(argv: list[str]) -> int:
    """0; 1 when a step did not come to its end; 2 for words that do not serve.  A fault that `data` found is said, and 0."""
    if argv == ["data"]:
        return _data()
    if argv[:1] == ["walk"] and (len(argv) == 1 or (len(argv) == 3 and argv[1] == "--config")):
        from device.appliance.walk import walked
        return walked(argv[2] if len(argv) == 3 else "/etc/tillbox/box.toml")
    print(USAGE, end="", file=sys.stderr)
    return 2


def _data() -> int:
    from device.appliance.partition import Partition

    partition = Partition()
    sells = partition.ready()
    for line in partition.told:
        print(f"tillbox data: {line}", file=sys.stderr)
    if sells:
        _first()
        _console_port()
    return 0


def _first() -> None:
    """What came with the card; a card's first partition that cannot be read keeps no box from selling."""
    from device.appliance import mounts
    from device.appliance.first import Taken

    at = Path(BOOT_AT)
    at.mkdir(mode=0o700, parents=True, exist_ok=True)
    work, mounted = Taken(at), False
    try:
        mounts.mount(BOOT, at, "vfat", "umask=0077")
        mounted = True
    except OSError as why:
        print(f"tillbox data: the boot partition cannot be mounted: {why.strerror}", file=sys.stderr)
    try:
        work.run()
    except OSError as why:
        print(f"tillbox data: {why.filename}: {why.strerror}", file=sys.stderr)
    finally:
        if mounted:
            mounts.umount(at)
    for line in work.told:
        print(f"tillbox data: {line}", file=sys.stderr)


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
