"""A board's device tree, changed in four places and otherwise as it was; and what else lies in the first partition."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from image.boot import part1, u_boot
from image.boot.device_tree import Node, Tree, cells, dump, handle, numbers, parse, pointed, text


def board() -> bytes:
    """As much of a Pi 3's tree as `console` reads: the line serves Bluetooth, with the Wi-Fi chip's clock among its pins."""
    root = Node("")
    root.add("aliases").says |= {"serial0": text("/soc/serial@7e201000"), "serial1": text("/soc/serial@7e215040")}
    root.add("chosen").says["stdout-path"] = text("serial1:115200n8")
    soc = root.add("soc")
    gpio = soc.add("gpio@7e200000")
    for name, number in (("uart0_gpio14", None), ("uart0_gpio32", 8), ("gpclk2_gpio43", 9), ("uart1_gpio14", 16)):
        node = gpio.add(name)
        node.says["brcm,pins"] = cells(14, 15)
        if number:
            node.says["phandle"] = cells(number)
    line = soc.add("serial@7e201000")
    line.says |= {"status": text("okay"), "pinctrl-0": cells(8, 9), "uart-has-rtscts": b""}
    line.add("bluetooth").says["max-speed"] = cells(2000000)
    soc.add("serial@7e215040").says |= {"status": text("okay"), "pinctrl-0": cells(16)}
    for name in ("watchdog@7e100000", "mailbox@7e00b840", "gpu"):
        soc.add(name).says["compatible"] = text("brcm,some")
    return dump(Tree(root, cells(0, 0, 0, 4096) + bytes(16), 0))


def lines(node: Node, depth: int = 0) -> list[str]:
    said = [f"{'  ' * depth}{node.name} {name}={value!r}" for name, value in node.says.items()]
    return said + [line for one in node.below for line in lines(one, depth + 1)]


def test_a_tree_comes_back_as_it_was():
    tree = parse(board())
    assert dump(tree) == board()
    assert tree.reserved == cells(0, 0, 0, 4096) + bytes(16)
    assert tree.root.at("/soc/serial@7e201000/bluetooth").says == {"max-speed": cells(2000000)}


@pytest.mark.skipif(not shutil.which("dtc"), reason="dtc is in device-tree-compiler, which is not installed here")
def test_dtc_reads_the_same_tree(tmp_path: Path):
    (tmp_path / "ours.dtb").write_bytes(part1.console(board()))
    source = subprocess.run(["dtc", "-q", "-I", "dtb", "-O", "dts", tmp_path / "ours.dtb"], check=True, capture_output=True).stdout
    assert b"bluetooth" not in source and b'stdout-path = "serial0:115200n8"' in source
    made = subprocess.run(["dtc", "-q", "-I", "dts", "-O", "dtb"], input=source, check=True, capture_output=True).stdout
    again, ours = parse(made), parse((tmp_path / "ours.dtb").read_bytes())
    assert lines(again.root) == lines(ours.root) and again.reserved == ours.reserved


@pytest.mark.parametrize("blob", [b"", bytes(64), board()[:20], b"\xd0\x0d\xfe\xee" + board()[4:]])
def test_what_is_no_tree_is_refused(blob: bytes):
    with pytest.raises(ValueError):
        parse(blob)


def test_a_node_that_is_not_there_is_named():
    with pytest.raises(KeyError, match="soc/none"):
        parse(board()).root.at("soc/none")


def test_the_console_gets_the_good_line_and_the_wifi_chip_keeps_its_clock():
    before, after = parse(board()).root, parse(part1.console(board())).root
    line = after.at("soc/serial@7e201000")
    assert [pointed(after, number).name for number in numbers(line.says["pinctrl-0"])] == ["uart0_gpio14", "gpclk2_gpio43"]
    assert not line.below and line.says["status"] == text("okay")
    assert after.at("soc/serial@7e215040").says["status"] == text("disabled"), "two lines on the same pins would fight"
    assert after.at("chosen").says["stdout-path"] == text("serial0:115200n8")
    handles = [node.says["phandle"] for node in after.all() if "phandle" in node.says]
    assert len(handles) == len(set(handles))
    changed = {line.split("=")[0].strip() for line in set(lines(before)) ^ set(lines(after))}
    assert changed == {"uart0_gpio14 phandle", "serial@7e201000 pinctrl-0", "serial@7e201000 pinctrl-names", "bluetooth max-speed",
                       "serial@7e201000 uart-has-rtscts", "serial@7e215040 status", "chosen stdout-path"}


def test_the_emulated_board_has_a_framebuffer_and_nothing_that_the_model_has_half():
    root = parse(part1.emulated(part1.console(board()))).root
    screen = root.at("chosen/framebuffer@3c100000")
    assert numbers(screen.says["reg"]) == (0x3C100000, 640 * 480 * 2) and screen.says["format"] == text("r5g6b5")
    for name in ("watchdog@7e100000", "mailbox@7e00b840", "gpu"):
        assert root.at(f"soc/{name}").says["status"] == text("disabled")


def test_a_number_is_given_once():
    root = Node("")
    one, two = root.add("one"), root.add("two")
    assert (handle(root, one), handle(root, two), handle(root, one)) == (1, 2, 1)


def package(path: Path, files: dict[str, bytes]) -> Path:
    """A Debian package with these files and nothing else."""

    with tarfile.open(path.with_suffix(".data"), "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo("./" + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with tarfile.open(path.with_suffix(".control"), "w:gz"):
        pass
    out = b"!<arch>\n"
    for name, data in (("debian-binary", b"2.0\n"), ("control.tar.gz", path.with_suffix(".control").read_bytes()),
                       ("data.tar.gz", path.with_suffix(".data").read_bytes())):
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    path.write_bytes(out)
    return path


@pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="not a Debian machine: no dpkg-deb")
def test_the_first_partition_holds_what_firmware_and_u_boot_read(tmp_path: Path):
    u_boots = {f"usr/lib/u-boot/{board}/u-boot.bin": board.encode() for board in ("rpi_arm64", "rpi_3")}
    debs = {
        "raspi-firmware": package(tmp_path / "fw.deb", {f"usr/lib/raspi-firmware/{name}": name.encode()
                                                        for name in (*part1.FIRMWARE, "start_x.elf")}),
        "u-boot-rpi": package(tmp_path / "ub.deb", u_boots),
        "linux-image": package(tmp_path / "k.deb", {f"usr/lib/linux-image-6.1/broadcom/{name}": board() for name in part1.BOARDS}),
    }
    found = part1.files(debs, 7)
    assert found["u-boot.bin"] == b"rpi_arm64" and "start_x.elf" not in found
    assert found.keys() >= {"bcm2837-rpi-3-b.dtb", "bcm2710-rpi-zero-2-w.dtb", "bcm2711-rpi-4-b.dtb"}
    assert found["bcm2837-rpi-3-b.dtb"] == part1.console(board())
    assert found == part1.files(debs, 7)
    assert all(len(name.partition(".")[0]) <= 64 and "/" not in name for name in found)


def test_u_boot_on_a_pi_asks_nobody_and_comes_back_when_nothing_starts():
    words = part1.ENVIRONMENT
    assert words["bootdelay"] == "-2" and "usbkbd" not in words["stdin"]
    assert words["bootcmd"].endswith("reset") and "preboot" not in words
    assert len(u_boot.environment(words, part1.ENVIRONMENT_SIZE)) == 0x4000


def test_the_firmware_is_told_little_and_in_lines_it_knows():
    said = dict(line.split("=") for line in part1.CONFIG.splitlines() if not line.startswith("#"))
    assert said["arm_64bit"] == "1" and said["kernel"] == "u-boot.bin" and said["enable_uart"] == "1"
