"""`make deb`: the program and its units as one Debian package, for a stock Raspberry Pi OS or Debian 12.

The same /opt/tillbox as in the image, and those files of `systemd/` that its MANIFEST gives to every installation.  Nothing starts
when it is installed: a till without a configuration would only say so, again and again.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from device import __version__
from image import lock, program, units
from image.commands import BuildError, run, say
from image.places import ARCH, BUILD, REPOSITORY, sha256
from image.wheels import MACHINES

DEPENDS = ("python3 (>= 3.11)", "python3 (<< 3.12)", "python3-evdev", "systemd", "udev", "ca-certificates",
           "tzdata", "fonts-wqy-microhei")
DOCS = ("README.md", "CHANGELOG.md", "docs/technician.md", "docs/recovery.md", "docs/box.example.toml", "docs/config.md",
        "docs/doctor.md")

CONTROL = """\
Package: tillbox
Version: {version}
Architecture: {arch}
Maintainer: Tillbox <support@tillbox.invalid>
Installed-Size: {kib}
Depends: {depends}
Recommends: alsa-utils
Section: misc
Priority: optional
Description: software of a small box at a checkout counter
 Reads a barcode scanner and a keypad, shows total and payment code to the
 customer, asks the payment channel until the truth is known, prints the
 receipt, signs what happened and sends it to the cloud.
"""

POSTINST = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    systemd-sysusers tillbox.conf
    [ ! -e /usr/lib/tmpfiles.d/tillbox.conf ] || systemd-tmpfiles --create tillbox.conf || true
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        udevadm control --reload || true
        udevadm trigger --subsystem-match=tty --subsystem-match=input --subsystem-match=usbmisc --subsystem-match=graphics || true
        # An upgrade: the till goes on where it was, under the new program.
        systemctl try-restart tillbox.service || true
    fi
    if [ -z "$2" ]; then
        echo "tillbox: write /etc/tillbox/box.toml (/usr/share/doc/tillbox/box.example.toml), then: systemctl enable --now {units}"
    fi
fi
exit 0
"""

PRERM = """\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl --no-reload disable --now {units} || true
fi
exit 0
"""

POSTRM = """\
#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
if [ "$1" = purge ]; then
    # Signed records of sales, and the keys they are checked with, are not this package's to delete.
    echo "tillbox: /var/lib/tillbox and /etc/tillbox stay; they are the shop's books"
fi
exit 0
"""


def staged(stage: Path, version: str, arch: str, epoch: int) -> list[str]:
    """Lay the package's files below `stage`; the units that a person enables."""
    manifest = units.parsed((REPOSITORY / "systemd/MANIFEST").read_text())
    program.laid(stage, arch)
    program.compiled(stage, epoch)
    _write(stage / program.HOME / "pyvenv.cfg", program.SETTINGS)
    _write(stage / program.HOME / "bin/tillbox", program.COMMAND, 0o755)
    for name in ("python", "python3", "python3.11"):
        (stage / program.HOME / "bin" / name).symlink_to("/usr/bin/python3.11")
    (stage / program.SITE / "evdev").symlink_to("/usr/lib/python3/dist-packages/evdev")
    (stage / "usr/bin").mkdir(parents=True)
    (stage / "usr/bin/tillbox").symlink_to(f"/{program.HOME}/bin/tillbox")
    for file, place in manifest.everywhere:
        _write(stage / place, (REPOSITORY / "systemd" / file).read_text())
    for name in DOCS:
        if (REPOSITORY / name).exists():
            _write(stage / "usr/share/doc/tillbox" / Path(name).name, (REPOSITORY / name).read_text())
    changelog = f"tillbox ({version}) stable; urgency=medium\n\n  * See CHANGELOG.md.\n"
    (stage / "usr/share/doc/tillbox/changelog.gz").write_bytes(gzip.compress(changelog.encode(), 9, mtime=0))
    own = {units.template(file) for file, _ in manifest.everywhere}
    return [unit for unit in manifest.enabled if units.template(unit) in own and "@" not in unit]


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def built(out: Path, version: str = __version__, arch: str = ARCH) -> Path:
    """The package's file.  The same source gives the same bytes."""
    epoch = lock.read().epoch
    with tempfile.TemporaryDirectory() as place:
        stage = Path(place) / "tillbox"
        stage.mkdir(mode=0o755)
        enabled = " ".join(staged(stage, version, arch, epoch))
        for path in [stage, *stage.rglob("*")]:
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" or ".so" in path.suffixes else 0o644)
        kib = sum(path.lstat().st_size for path in stage.rglob("*") if path.is_file() and not path.is_symlink()) // 1024
        control = stage / "DEBIAN"
        control.mkdir(mode=0o755)
        _write(control / "control", CONTROL.format(version=version, arch=arch, kib=kib, depends=", ".join(DEPENDS)))
        for name, text in (("postinst", POSTINST), ("prerm", PRERM), ("postrm", POSTRM)):
            _write(control / name, text.replace("{units}", enabled), 0o755)
        sums = {path: hashlib.md5(path.read_bytes()).hexdigest() for path in sorted(stage.rglob("*"))
                if path.is_file() and not path.is_symlink() and control not in path.parents}
        _write(control / "md5sums", "".join(f"{digest}  {path.relative_to(stage)}\n" for path, digest in sums.items()))
        for path in [stage, *stage.rglob("*")]:
            os.utime(path, (epoch, epoch), follow_symlinks=False)
        out.mkdir(parents=True, exist_ok=True)
        file = out / f"tillbox_{version}_{arch}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", stage, file, epoch=epoch)
    return file


def main(argv: list[str] | None = None) -> int:
    asked = argparse.ArgumentParser(prog="python -m image.deb", description="Build the Debian package.")
    asked.add_argument("--out", type=Path, default=BUILD.parent / "deb")
    asked.add_argument("--arch", choices=sorted(MACHINES), default=ARCH)
    words = asked.parse_args(argv)
    try:
        file = built(words.out, arch=words.arch)
    except BuildError as error:
        say(str(error))
        return 1
    print(f"{sha256(file)}  {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
