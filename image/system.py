"""What makes Debian's tree a till: our units and users, no login, no place of the builder's, and folders to mount on."""

from __future__ import annotations

import json
from pathlib import Path

from image import lists, units
from image.commands import BuildError
from image.places import REPOSITORY
from image.root import Root

# Systemd's own units that have nothing to do on a till, besides those that systemd/MANIFEST masks.
MASKED = ("systemd-logind.service", "systemd-user-sessions.service", "systemd-firstboot.service", "systemd-pcrphase.service",
          "systemd-pcrphase-sysinit.service", "systemd-update-utmp-runlevel.service", "systemd-update-done.service",
          "ldconfig.service",
          "systemd-hwdb-update.service", "systemd-journal-catalog-update.service", "systemd-machine-id-commit.service",
          "systemd-pstore.service", "systemd-boot-system-token.service", "proc-sys-fs-binfmt_misc.automount", "remote-fs.target",
          "systemd-ask-password-wall.path", "systemd-ask-password-console.path", "sys-fs-fuse-connections.mount",
          "dev-hugepages.mount")
FOLDERS = {"data": 0o755, "var/lib/tillbox": 0o700, "var/lib/tillbox/second": 0o700, "etc/tillbox": 0o755,
           "etc/wpa_supplicant": 0o700, "var/lib/tillbox-slot": 0o700, "boot": 0o755, "dev": 0o755, "proc": 0o555,
           "sys": 0o555, "run": 0o755, "tmp": 0o1777, "var/tmp": 0o1777, "var/log": 0o755, "var/cache": 0o755,
           "var/lib/systemd": 0o755}
# A number of their own for each: the data partition's files carry it over every update.
NUMBERS = {"tillbox": 800, "tillbox-slot": 801, "tillbox-sign": 802, "tillbox-console": 803}


def settle(root: Root, version: str, board: str, ratchet: int, update_keys: bytes | None = None) -> None:
    """Everything but the program and the kernel."""
    root.drop(*lists.names("trim.list"), "etc/systemd/system/*.wants/*", "etc/systemd/system/dbus-*",
              "usr/lib/systemd/system/*getty*", "usr/lib/systemd/system-generators/*getty*", "usr/lib/systemd/system/*/getty*")
    for name, mode in FOLDERS.items():
        root.folder(name, mode)
    root.symlink("etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")
    root.file("etc/machine-id", b"", 0o444)                  # each start gets its own; the box's name is its key
    root.file("etc/hostname", b"tillbox\n")
    root.file("etc/hosts", b"127.0.0.1 localhost tillbox\n::1 localhost\n")
    root.symlink("etc/localtime", "/usr/share/zoneinfo/Asia/Shanghai")
    root.file("etc/timezone", b"Asia/Shanghai\n")
    root.file("etc/fstab", b"# nothing: the initrd mounts the root, tillbox-data the data partition\n")
    root.symlink("etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
    root.symlink("etc/mtab", "/proc/self/mounts")
    root.file("usr/lib/clock-epoch", b"")                    # its time is the earliest that systemd believes
    root.file("usr/lib/tillbox/release.json", json.dumps({"version": version, "ratchet": ratchet, "board": board}).encode() + b"\n")
    if update_keys is not None:
        root.file("usr/lib/tillbox/update.jwks", update_keys)
    release = root.read("usr/lib/os-release").decode()
    root.file("usr/lib/os-release", (release + f"IMAGE_ID=tillbox\nIMAGE_VERSION={version}\n").encode())
    ours(root, REPOSITORY / "systemd")
    users(root)


def ours(root: Root, folder: Path) -> None:
    """The files of `systemd/`, where its MANIFEST says; units enabled and masked as systemctl would."""
    manifest = units.parsed((folder / "MANIFEST").read_text())
    for file, place in (*manifest.everywhere, *manifest.image):
        root.file(place, (folder / file).read_bytes())
    for path, target in manifest.links.items():
        root.symlink(path, target)
    waiting, done = list(manifest.enabled), set()
    while waiting:
        unit = waiting.pop()
        if unit in done:
            continue
        done.add(unit)
        source = f"usr/lib/systemd/system/{units.template(unit)}"
        if source not in root:
            raise BuildError(f"systemd/MANIFEST enables {unit}, and nothing in the image has it")
        said = units.links(unit, root.read(source).decode())
        waiting += said["also"]
        for name in said["links"]:
            root.symlink(f"etc/systemd/system/{name}", f"/{source}")
    for unit in {*MASKED, *manifest.masked}:
        root.symlink(f"etc/systemd/system/{unit}", "/dev/null")


def users(root: Root) -> None:
    """The users of our sysusers files, under fixed numbers, no shell, no password."""
    for path in [path for path in root.paths() if path.startswith("usr/lib/sysusers.d/tillbox")]:
        for line in root.read(path).decode().splitlines():
            words = line.split()
            if len(words) < 2 or words[0] not in ("u", "g"):
                continue
            if words[1] not in NUMBERS:
                raise BuildError(f"{words[1]} has no number of its own in image/system.py")
            name, number = words[1], NUMBERS[words[1]]
            rows = {"etc/group": f"{name}:x:{number}:\n", "etc/gshadow": f"{name}:!*::\n"}
            if words[0] == "u":
                rows |= {"etc/passwd": f"{name}:x:{number}:{number}:Tillbox:/var/lib/tillbox:/usr/sbin/nologin\n",
                         "etc/shadow": f"{name}:!*:1::::::\n"}
            for file, row in rows.items():
                text = root.read(file).decode()
                if f"\n{name}:" not in "\n" + text:
                    root.file(file, (text + row).encode(), 0o640 if "shadow" in file else 0o644)
