"""The first partition: what a Raspberry Pi's own firmware reads, and U-Boot with its script.  Also the boards' device trees.

Files come from Debian's packages, unpacked and not run; config.txt, boot.scr and uboot.env are ours.  The emulated board reads
boot.scr alone.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from image.boot import boot_script, u_boot
from image.boot.device_tree import Node, cells, dump, handle, numbers, parse, pointed, text

# Pi 3, CM3 and Zero 2 W start from bootcode.bin and start.elf, the Pi 4's family from start4.elf.
FIRMWARE = ("bootcode.bin", "start.elf", "fixup.dat", "start4.elf", "fixup4.dat")

CONFIG = """\
# Read by the Raspberry Pi's firmware.  What each line does stands in docs/boot.md.
arm_64bit=1
kernel=u-boot.bin
upstream_kernel=1
enable_uart=1
disable_splash=1
disable_overscan=1
boot_delay=0
"""

# By Linux's name: the boards served, and under which other names their firmware may look for the same tree.
BOARDS = {
    "bcm2837-rpi-3-a-plus.dtb": (),
    "bcm2837-rpi-3-b.dtb": ("bcm2710-rpi-3-b.dtb",),
    "bcm2837-rpi-3-b-plus.dtb": ("bcm2710-rpi-3-b-plus.dtb",),
    "bcm2837-rpi-zero-2-w.dtb": ("bcm2710-rpi-zero-2-w.dtb", "bcm2710-rpi-zero-2.dtb"),
    "bcm2711-rpi-4-b.dtb": (),
    "bcm2711-rpi-400.dtb": (),
    "bcm2711-rpi-cm4-io.dtb": ("bcm2711-rpi-cm4.dtb",),
}

# What the Wi-Fi chips want, by package; paths as in the package.  A Zero 2 W's chip (43436) has no firmware in Debian 12.
WIFI = {
    "firmware-brcm80211": (
        "lib/firmware/cypress/cyfmac43430-sdio.bin", "lib/firmware/cypress/cyfmac43430-sdio.clm_blob",
        "lib/firmware/cypress/cyfmac43455-sdio.bin", "lib/firmware/cypress/cyfmac43455-sdio.clm_blob",
        "lib/firmware/brcm/brcmfmac43430-sdio.bin", "lib/firmware/brcm/brcmfmac43430-sdio.clm_blob",
        "lib/firmware/brcm/brcmfmac43455-sdio.bin", "lib/firmware/brcm/brcmfmac43455-sdio.clm_blob",
        "lib/firmware/brcm/brcmfmac43430-sdio.raspberrypi,3-model-b.txt",
        "lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,3-model-a-plus.txt",
        "lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,3-model-b-plus.txt",
        "lib/firmware/brcm/brcmfmac43455-sdio.raspberrypi,4-model-b.txt",
    ),
    "raspi-firmware": (
        "lib/firmware/brcm/brcmfmac43430-sdio.txt", "lib/firmware/brcm/brcmfmac43455-sdio.txt",
        "lib/firmware/brcm/brcmfmac43456-sdio.bin", "lib/firmware/brcm/brcmfmac43456-sdio.clm_blob",
        "lib/firmware/brcm/brcmfmac43456-sdio.txt",
    ),
}

ENVIRONMENT_SIZE = 0x4000                        # CONFIG_ENV_SIZE of Debian's rpi_arm64
# A key pressed, or a code scanned, while the box starts must not leave it at a prompt: no delay, no USB keyboard, no prompt.
ENVIRONMENT = {
    "bootdelay": "-2",
    "stdin": "serial", "stdout": "serial,vidconsole", "stderr": "serial,vidconsole",
    # 94 MiB for the kernel, where it may stay; U-Boot's own default has 36.  The firmware lays its tree far above.
    "kernel_addr_r": "0x00200000", "scriptaddr": "0x06000000", "fdt_addr_r": "0x06100000", "ramdisk_addr_r": "0x06200000",
    "bootcmd": "setenv devtype mmc; for devnum in 0 1 2; do if load mmc ${devnum}:1 ${scriptaddr} boot.scr; "
               "then source ${scriptaddr}; fi; done; "
               "setenv devtype usb; setenv devnum 0; usb start; "
               "if load usb 0:1 ${scriptaddr} boot.scr; then source ${scriptaddr}; fi; sleep 5; reset",
}


def files(debs: Mapping[str, Path], epoch: int = 0) -> dict[str, bytes]:
    """Every file of the partition by name.  `debs`: package files of raspi-firmware, u-boot-rpi and linux-image."""
    firmware = members(debs["raspi-firmware"], "usr/lib/raspi-firmware/")
    found = {name: firmware[name] for name in FIRMWARE}
    found["u-boot.bin"] = members(debs["u-boot-rpi"], "usr/lib/u-boot/rpi_arm64/")["u-boot.bin"]
    found["config.txt"] = CONFIG.encode("ascii")
    found["boot.scr"] = boot_script.build(epoch)
    found["uboot.env"] = u_boot.environment(ENVIRONMENT, ENVIRONMENT_SIZE)
    trees = dtbs(debs)
    for name, others in BOARDS.items():
        for other in (name, *others):
            found.setdefault(other, trees[name])
    return found


def dtbs(debs: Mapping[str, Path]) -> dict[str, bytes]:
    """The served boards' device trees by Linux's name, changed by `console`."""
    trees = members(debs["linux-image"], "usr/lib/linux-image-", "/broadcom/")
    return {name: console(trees[name]) for name in BOARDS}


def console(blob: bytes) -> bytes:
    """A board's tree in which the good serial line (PL011, ttyAMA0) stands on pins 14 and 15, for the technician.

    As made, it serves the board's own Bluetooth, and the pins get a lesser one whose speed follows the GPU's clock.  An overlay
    of the firmware's could say the same, but not to Debian's trees, which carry no symbols.  Other pins that the line asked for
    stay: on a Pi 3 the Wi-Fi chip's clock is one of them.
    """
    tree = parse(blob)
    root = tree.root
    line = root.at("soc/serial@7e201000")
    line.drop("bluetooth")
    pins = root.at("soc/gpio@7e200000/uart0_gpio14")
    kept = [number for number in numbers(line.says["pinctrl-0"]) if not pointed(root, number).name.startswith("uart0")]
    line.says |= {"status": text("okay"), "pinctrl-names": text("default"), "pinctrl-0": cells(handle(root, pins), *kept)}
    line.says.pop("uart-has-rtscts", None)
    root.at("soc/serial@7e215040").says["status"] = text("disabled")
    root.at("aliases").says["serial0"] = text("/soc/serial@7e201000")
    root.at("chosen").says["stdout-path"] = text("serial0:115200n8")
    return dump(tree)


def emulated(blob: bytes, width: int = 640, height: int = 480, at: int = 0x3C100000) -> bytes:
    """A Pi 3's tree as QEMU's raspi3b can be started with it; only tests want it.

    A plain framebuffer where that model has one.  Left out is what QEMU 7.2 has only half of: the watchdog, whose start it takes
    for an order to reset; the way to the GPU's own programs (sound), which ends in a kernel's panic; the GPU.
    """
    tree = parse(blob)
    for name in ("watchdog@7e100000", "mailbox@7e00b840", "gpu"):
        tree.root.at(f"soc/{name}").says["status"] = text("disabled")
    chosen: Node = tree.root.at("chosen")
    chosen.says |= {"#address-cells": cells(1), "#size-cells": cells(1), "ranges": b""}
    screen = chosen.add(f"framebuffer@{at:x}")
    screen.says |= {"compatible": text("simple-framebuffer"), "reg": cells(at, width * height * 2), "width": cells(width),
                    "height": cells(height), "stride": cells(width * 2), "format": text("r5g6b5"), "status": text("okay")}
    return dump(tree)


def members(deb: Path, start: str, middle: str = "") -> dict[str, bytes]:
    """Plain files of a package whose path begins with `start` and goes on with `middle`, by what follows them."""
    packed = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], check=True, capture_output=True).stdout
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if member.isfile() and path.startswith(start) and middle in path and (file := archive.extractfile(member)):
                found[path.removeprefix(start) if not middle else path.partition(middle)[2]] = file.read()
    return found
