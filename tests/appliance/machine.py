"""One emulated box: QEMU's `virt` machine with the image's disk, a screen, two keyboards, a network, a watchdog and the rig's port.

Knows how the machine is started, frozen, cut off and what can be plugged in; refuses to know what runs inside: that is the
image's, and the rig's where a test needs a hand in there.  Whatever happens, QEMU ends with the program that started it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from sim import leash
from tests.appliance.keyboard import DOWN_UP_S, keys_of
from tests.appliance.line import Line
from tests.appliance.qmp import Qmp, QmpError
from tests.appliance.rig_line import Rig

QEMU = "qemu-system-aarch64"
GRACE_S = 5.0
UNPLUG_S = 15.0
SCREEN_PX = (800, 480)
# The usual places on the machine's USB: a port has one place, whatever was plugged in first.
SCANNER, KEYPAD, THIRD, PRINTER, POLE, CARD = range(1, 7)


@dataclasses.dataclass(frozen=True)
class Boots:
    """What the machine is started from: the disk, and what a boot loader would have loaded from it.

    `firmware` in place of kernel, initrd and cmdline: U-Boot finds them on the disk itself.
    """

    disk: Path
    kernel: Path | None = None
    initrd: Path | None = None
    cmdline: str = ""
    firmware: Path | None = None
    nbd: Path | None = None            # a socket that serves the disk, in place of the file

    def with_words(self, words: str) -> Boots:
        """The same with more on the kernel's line."""
        return dataclasses.replace(self, cmdline=f"{self.cmdline} {words}")


class Machine:
    """One machine in `folder`.  `disk` is never written: what the guest writes goes to `folder`/disk.qcow2, made when absent.

    `rtc` as QEMU's -rtc base: "utc", or the moment at which a box without a battery wakes.
    """

    def __init__(self, folder: Path, boots: Boots, *, memory_mb: int = 512, rtc: str = "utc", screen: tuple[int, int] = SCREEN_PX,
                 size_mb: int = 4096) -> None:
        self.folder, self.boots, self._memory_mb, self._rtc, self._screen = folder, boots, memory_mb, rtc, screen
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = Path(tempfile.mkdtemp(prefix="till-"))       # a socket's address holds 107 bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._plugged: dict[str, str] = {}
        self.disk = folder / "disk.qcow2"
        if not self.disk.exists() and boots.nbd is None:
            below = ["-F", "raw", "-b", str(boots.disk.resolve())]
            ran("qemu-img", "create", "-q", "-f", "qcow2", *below, str(self.disk), f"{size_mb}M")

    # Power

    def start(self, *, snapshot: str = "") -> None:
        """Switch on, or go on from `snapshot`.  Returns as soon as its lines stand, long before the guest is up."""
        assert self._process is None, "the machine runs already"
        for old in self._lines.iterdir():
            old.unlink()
        argv = self._argv() + (["-loadvm", snapshot] if snapshot else [])
        with open(self.folder / "qemu.log", "ab") as log:
            self._process = leash.started(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.qmp = Qmp(self._lines / "qmp")
            self.console = Line(self._lines / "console")
            self.rig = Rig(Line(self._lines / "rig"))
        except (OSError, QmpError):
            self.cut()
            raise RuntimeError(f"QEMU did not start: {(self.folder / 'qemu.log').read_text()[-1000:]}") from None
        self._plugged = {}

    def cut(self) -> None:
        """The power cord: nothing more is written, nothing is said.  Harmless when it is off."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(GRACE_S)
        for name in ("rig", "console", "qmp"):
            with contextlib.suppress(AttributeError):
                getattr(self, name).close()

    def end(self) -> None:
        """Off, and its lines taken away."""
        self.cut()
        for each in self._lines.iterdir():
            each.unlink()
        self._lines.rmdir()

    def snapshot(self, name: str) -> None:
        """Keep this very moment in the disk file, to go on from as often as wanted.  Nothing may be plugged in beyond what is
        always there: QEMU cannot keep USB serial ports."""
        assert not self._plugged, f"unplug {sorted(self._plugged)} first"
        self.qmp.hmp(f"savevm {name}")

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def cpu_s(self) -> float:
        """Processor time that the machine used on this host."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # Hands

    def scan(self, code: str, gap_s: float = DOWN_UP_S) -> None:
        """The scanner on QEMU's keyboard types `code` and Enter: slow for a scanner, and as fast as that keyboard can."""
        for name, shifted in keys_of(code + "\n"):
            self.press(name, shifted=shifted, gap_s=gap_s, scanner=True)

    def type(self, text: str, gap_s: float = DOWN_UP_S) -> None:
        """Type at the keyboard that was plugged in last: the keypad, unless a test put in another."""
        for name, shifted in keys_of(text):
            self.press(name, shifted=shifted, gap_s=gap_s)

    def press(self, name: str, *, shifted: bool = False, gap_s: float = DOWN_UP_S, scanner: bool = False) -> None:
        """One key, by QEMU's name."""
        moves = [("shift", True)] * shifted + [(name, True), (name, False)] + [("shift", False)] * shifted
        where = {"device": "video0"} if scanner else {}         # the scanner is bound to the screen, so nothing else gets its keys
        for key, down in moves:
            event = {"type": "key", "data": {"down": down, "key": {"type": "qcode", "data": key}}}
            self.qmp("input-send-event", events=[event], **where)
            time.sleep(gap_s)

    def plug_keyboard(self, name: str, port: int, serial: str) -> None:
        """A keyboard of that serial number in that port.  `type` and `press` are its own until it is pulled."""
        bound = {"display": "video0"} if name == "scanner" else {}
        self.qmp("device_add", driver="usb-kbd", id=name, bus="xhci.0", port=str(port), serial=serial, **bound)
        self._plugged[name] = ""

    def plug_serial(self, name: str, port: int, serial: str, backend: dict[str, Any]) -> None:
        """A USB serial adapter in that port, its other end at QEMU's chardev `backend`."""
        self.qmp("chardev-add", id=f"c-{name}", backend=backend)
        self.qmp("device_add", driver="usb-serial", id=name, chardev=f"c-{name}", bus="xhci.0", port=str(port), serial=serial,
                 always_plugged=True)
        self._plugged[name] = f"c-{name}"

    def gadget_printer(self, hear: Callable[[bytes], None]) -> Line:
        """The wire of the rig's own printer, which is /dev/usb/lp0 in there: `hear` gets what is printed."""
        return Line(self._lines / "printer", hear=hear)

    def unplug(self, name: str) -> None:
        """Pull it out, whatever it was doing; returns when it is gone."""
        since = len(self.qmp.events)
        self.qmp("device_del", id=name)
        with contextlib.suppress(AssertionError):
            self.qmp.event("DEVICE_DELETED", UNPLUG_S, since=since, device=name)
        chardev = self._plugged.pop(name, "")
        if chardev:
            with contextlib.suppress(QmpError):
                self.qmp("chardev-remove", id=chardev)

    def link(self, up: bool) -> None:
        """The network cable."""
        self.qmp("set_link", name="nic0", up=up)

    # Eyes

    def screen(self) -> Image.Image:
        """What the panel shows, pixel by pixel: never what the guest believes of it."""
        path = self._lines / "screen.png"
        self.qmp("screendump", filename=str(path), format="png")
        with Image.open(path) as shown:
            return shown.convert("RGB")

    def qr(self) -> str:
        """The QR on the panel, "" when none can be read."""
        import zxingcpp

        return next((one.text for one in zxingcpp.read_barcodes(self.screen()) if one.format == zxingcpp.BarcodeFormat.QRCode), "")

    def await_qr(self, head: str, within_s: float) -> str:
        """The QR that begins with `head`, as soon as a phone could read it."""
        until_s, seen = time.monotonic() + within_s, ""
        while time.monotonic() < until_s:
            seen = self.qr()
            if seen.startswith(head) and seen:
                return seen
            time.sleep(0.05)
        raise AssertionError(f"no QR that begins with {head!r} within {within_s:g} s; the last one read: {seen!r}")

    def disk_stats(self) -> dict[str, int]:
        """QEMU's counters of the disk: `wr_bytes`, `wr_operations`, `flush_operations` and so on."""
        return next(one["stats"] for one in self.qmp("query-blockstats") if "disk0" in (one.get("device"), one.get("qdev"))
                    or one.get("device") == "d0" or "virtio" in str(one.get("qdev", "")))

    def _argv(self) -> list[str]:
        boots = self.boots
        if boots.nbd is None:
            drive = ["-drive", f"file={self.disk},if=none,id=d0,format=qcow2,discard=unmap"]
        else:
            drive = ["-drive", f"file=nbd+unix:///?socket={boots.nbd},if=none,id=d0,format=raw,cache=writeback"]
        if boots.firmware is not None:
            start = ["-bios", str(boots.firmware)]
        else:
            start = ["-kernel", str(boots.kernel), "-initrd", str(boots.initrd), "-append", boots.cmdline]
        lines = self._lines
        return [
            QEMU, "-M", "virt", "-accel", "tcg,thread=multi", "-cpu", "cortex-a53", "-m", str(self._memory_mb), "-smp", "2",
            "-nodefaults", "-no-user-config", "-display", "none", "-rtc", f"base={self._rtc}", *start, *drive,
            "-device", "virtio-blk-pci,drive=d0,id=disk0,romfile=", "-device", "virtio-rng-pci",
            "-qmp", f"unix:{lines}/qmp,server=on,wait=off",
            "-chardev", f"socket,id=con,path={lines}/console,server=on,wait=off,logfile={self.folder}/console.log,logappend=on",
            "-serial", "chardev:con",
            "-device", "virtio-serial-pci", "-chardev", f"socket,id=rig,path={lines}/rig,server=on,wait=off",
            "-device", "virtserialport,chardev=rig,name=tillbox.rig",
            "-chardev", f"socket,id=prn,path={lines}/printer,server=on,wait=off",
            "-device", "virtserialport,chardev=prn,name=tillbox.printer",
            "-device", f"virtio-gpu-pci,id=video0,xres={self._screen[0]},yres={self._screen[1]}",
            "-device", "qemu-xhci,id=xhci,p2=15,p3=1",
            "-device", f"usb-kbd,id=scanner,bus=xhci.0,port={SCANNER},serial=SCAN0001,display=video0",
            "-device", f"usb-kbd,id=keypad,bus=xhci.0,port={KEYPAD},serial=KEYS0001",
            "-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,id=nic0,romfile=",
            "-device", "i6300esb,id=dog", "-action", "watchdog=reset"]


def ran(*argv: str, within_s: float = 120.0) -> str:
    """The output of a program; RuntimeError with its own words when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=within_s)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-1500:]}")
    return done.stdout
