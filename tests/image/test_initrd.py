"""The initrd's parts: an archive any cpio reads, a program's libraries, a script that calls nothing it does not carry."""

from __future__ import annotations

import re
import shutil
import stat
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from image.boot import cpio, initrd
from image.boot.elf import needed

SCRIPT = initrd.INIT.read_text()

# Of busybox's applets, those that a start script may think of; a shell's own words are not among them.
KNOWN = set("""ash awk base64 basename blkid blockdev cat chmod chown chroot clear cmp cp crc32 cut date dd depmod dirname dmesg du
env expr find free grep gunzip gzip halt head hexdump hostname id insmod kill killall ln losetup ls lsmod mdev mkdir mkfifo mknod
mktemp modprobe mount mountpoint mv nproc od pidof pivot_root poweroff printf ps pwd readlink realpath reboot reset rm rmdir rmmod
sed seq sha256sum sh sleep sort stat switch_root sync sysctl tail tar tee test timeout touch tr truncate tty umount uname uniq
usleep vi wc which xargs xxd zcat""".split())


def test_the_script_is_a_script():
    assert subprocess.run(["sh", "-n", initrd.INIT]).returncode == 0
    assert SCRIPT.startswith("#!/bin/sh\n")


def test_the_script_calls_only_what_the_initrd_carries():
    code = re.sub(r"#.*", "", re.sub(r'(?:fail|say) "[^"]*"', "", SCRIPT))
    called = {word for word in re.findall(r"[a-z_0-9]+", code) if word in KNOWN}
    called -= {"test", "sh", "reset", "timeout"} - set(initrd.APPLETS)
    assert called <= set(initrd.APPLETS), called - set(initrd.APPLETS)


def test_every_failure_ends_in_a_new_start_and_none_in_a_shell():
    failing = SCRIPT[SCRIPT.index("fail() {"):].split("}\n")[0]
    assert "reboot -f" in failing
    assert not re.search(r"exec (sh|ash|/bin/sh)|\bsh -i|setsid|cttyhack|getty", SCRIPT)
    said = [line for line in SCRIPT.splitlines() if re.search(r"\bfail [^(]", line)]
    assert len(said) > 10 and all(re.search(r'fail "[a-z][^"]*[a-z)]"', line) for line in said)


def test_the_watchdogs_driver_is_loaded_before_anything_can_fail():
    assert initrd.MODULES[0] == "bcm2835_wdt"
    assert SCRIPT.index("insmod") < min(found.start() for found in re.finditer(r'fail "', SCRIPT))


def test_nobody_holds_the_watchdog_once_its_feeder_is_gone(tmp_path: Path):
    """systemd could not open it: a `sleep` that outlived the feeder once held it for five seconds more."""
    feed = SCRIPT[SCRIPT.index("feed() {"):].split("\n}\n")[0] + "\n}\n"
    dog = tmp_path / "dog"
    script = (f'{feed}feed 3>"$1" >/dev/null & until [ -s "$1" ]; do :; done; sleep 0.2\n'
              'kill -9 $!; wait $! 2>/dev/null; echo gone; read -r wait\n')
    with subprocess.Popen(["sh", "-c", script, "sh", dog], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True) as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "gone\n"
        held = [found for found in Path("/proc").glob("[0-9]*/fd/*") if _points_at(found, dog)]
        shell.communicate("\n")
    assert held == []


def _points_at(descriptor: Path, file: Path) -> bool:
    try:
        return descriptor.readlink() == file
    except OSError:
        return False


def test_the_root_is_read_whole_before_it_is_mounted_and_restarts_later_when_a_byte_turns():
    steps = [SCRIPT.index(step) for step in ("of=/dev/null", 'checked till-root "1 restart_on_corruption"', "mount -t squashfs")]
    assert steps == sorted(steps)


def test_the_archive_is_the_same_whatever_the_order_and_cpio_reads_it(tmp_path: Path):
    one = {"init": cpio.file(b"#!/bin/sh\n", 0o755), "bin/sh": cpio.link("busybox"), "dev": cpio.folder()}
    packed = cpio.archive(one)
    assert packed == cpio.archive(dict(reversed(one.items())))
    assert cpio.squeezed(packed) == cpio.squeezed(packed)
    if not shutil.which("cpio"):
        pytest.skip("cpio is not installed here")
    subprocess.run(["cpio", "-i", "-d", "--quiet"], input=packed, cwd=tmp_path, check=True)
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert stat.S_IMODE((tmp_path / "init").stat().st_mode) == 0o755
    assert (tmp_path / "bin/sh").readlink() == Path("busybox")
    assert (tmp_path / "dev").is_dir()


def test_a_program_says_what_it_needs():
    ours = needed(Path(sys.executable).resolve().read_bytes())
    assert "libc.so.6" in ours and any(name.startswith("/lib") and "ld-" in name for name in ours)
    with pytest.raises(ValueError):
        needed(b"#!/bin/sh\n")


def elf(names: tuple[str, ...], interpreter: str = "") -> bytes:
    """As little of a program as its header can be, mapped at address 0."""
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    parts, body, at = [], b"", 64 + 3 * 56
    if interpreter:
        parts.append((3, at, len(interpreter) + 1))
        body += interpreter.encode() + b"\0"
    tags, offset = b"", 1
    for name in names:
        tags += struct.pack("<qQ", 1, offset)
        offset += len(name) + 1
    strings_at = at + len(body)
    body += strings
    parts.append((2, at + len(body), len(tags) + 32))
    body += tags + struct.pack("<qQqQ", 5, strings_at, 0, 0)
    parts.append((1, 0, at + len(body)))
    head = b"\x7fELF\x02\x01".ljust(32, b"\0") + struct.pack("<Q", 64).ljust(22, b"\0") + struct.pack("<HH", 56, len(parts))
    return head.ljust(64, b"\0") + b"".join(
        struct.pack("<IIQQQQQQ", kind, 4, start, start, 0, size, size, 8) for kind, start, size in parts).ljust(168, b"\0") + body


def test_libraries_of_libraries_come_along_and_the_loader_stands_where_the_kernel_looks(tmp_path: Path, monkeypatch):
    tree = {"usr/bin/busybox": b"busybox", "usr/sbin/dmsetup": elf(("libdm.so.1", "libc.so.6"), "/lib/ld-linux-aarch64.so.1")}
    lib = "usr/lib/aarch64-linux-gnu/"
    tree |= {lib + "libdm.so.1": elf(("libc.so.6", "libm.so.6", "ld-linux-aarch64.so.1")),
             lib + "libc.so.6": elf(("ld-linux-aarch64.so.1",)),
             lib + "libm.so.6": elf(("libc.so.6",)), lib + "ld-linux-aarch64.so.1": elf(())}
    monkeypatch.setattr(initrd, "_modules", lambda modules, kernel: [tmp_path / "two.ko", tmp_path / "one.ko"])
    for name in ("one.ko", "two.ko"):
        (tmp_path / name).write_bytes(name.encode())
    found = initrd.entries(tree.__getitem__, tmp_path, "6.1")
    assert {path for path in found if path.startswith("lib/")} == {
        "lib/ld-linux-aarch64.so.1", *(f"lib/aarch64-linux-gnu/{name}" for name in ("libdm.so.1", "libc.so.6", "libm.so.6"))}
    assert found["modules/order"].data == b"two.ko\none.ko\n", "in the order they are loaded"
    assert found["init"].mode & 0o111 and found["sbin/dmsetup"].mode & 0o111
    assert initrd.build(tree.__getitem__, tmp_path, "6.1", 1) == initrd.build(tree.__getitem__, tmp_path, "6.1", 2)
