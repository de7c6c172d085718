"""A sysfs of input devices below a folder, as the kernel lays it out: what is plugged into which USB port."""

from __future__ import annotations

from pathlib import Path

SCANNER = frozenset((*range(2, 12), 28, *range(16, 26)))
PAD = frozenset((*range(71, 84), 28, 96))
POS_DESCRIPTOR = bytes.fromhex(      # page 8C, scanned data: id 2, byte count, three AIM bytes, 56 data, one continued bit
    "058c0902a10185020912a1020501093b150026ff00750895018102058c09fb09fc09fd9503810209fe95388202010600ff09019501810205"
    "8c09ff75012501950181027507810 3c0c0".replace(" ", ""))


class FakeSys:
    """`root` stands for /sys and `root`/dev for /dev."""

    def __init__(self, root: Path) -> None:
        self.root, self.dev = root, root / "dev"
        for folder in ("class/input", "class/hidraw", "dev/input"):
            (root / folder).mkdir(parents=True, exist_ok=True)

    def keyboard(self, number: int, port: str = "", *, name: str = "HID Keyboard", keys: frozenset[int] = SCANNER,
                 usb: tuple[str, str] = ("0c2e", "0b61"), interface: int = 0, node: bool = True) -> Path:
        """Plug one in; the path of its node, which is a FIFO unless `node` is false."""
        device = self._device(port, interface) / f"input/input{number}"
        (device / "id").mkdir(parents=True)
        (device / "capabilities").mkdir()
        (device / "name").write_text(f"{name}\n")
        (device / "uniq").write_text("\n")
        (device / "id/vendor").write_text(f"{usb[0]}\n")
        (device / "id/product").write_text(f"{usb[1]}\n")
        (device / "capabilities/key").write_text(bit_map(keys) + "\n")
        event = device / f"event{number}"
        event.mkdir()
        (event / "device").symlink_to(device)
        (self.root / f"class/input/event{number}").symlink_to(event)
        path = self.dev / f"input/event{number}"
        if node:
            import os
            os.mkfifo(path)
        return path

    def hid(self, number: int, port: str, descriptor: bytes = POS_DESCRIPTOR) -> Path:
        """A hidraw node."""
        device = self._device(port, 0) / f"0003:0C2E:0B6A.{number:04d}"
        raw = device / f"hidraw/hidraw{number}"
        raw.mkdir(parents=True)
        (device / "uevent").write_text("DRIVER=hid-generic\nHID_ID=0003:00000C2E:00000B6A\nHID_NAME=Honeywell 1450g\nHID_UNIQ=\n")
        (device / "report_descriptor").write_bytes(descriptor)
        (raw / "device").symlink_to(device)
        (self.root / f"class/hidraw/hidraw{number}").symlink_to(raw)
        return self.dev / f"hidraw{number}"

    def serial(self, name: str, port: str) -> None:
        """A serial port of that name."""
        usb = self._device(port, 0).parent
        tty = usb / f"{port}:1.0/tty/{name}"
        tty.mkdir(parents=True)
        for file, text in (("idVendor", "1a86"), ("idProduct", "55d3"), ("product", "USB Single Serial"), ("serial", "5A01")):
            (usb / file).write_text(text + "\n")
        (self.root / "class/tty").mkdir(exist_ok=True)
        (self.root / f"class/tty/{name}").symlink_to(tty)

    def unplug(self, number: int) -> None:
        """Take event node `number` away."""
        (self.root / f"class/input/event{number}").unlink()
        (self.dev / f"input/event{number}").unlink(missing_ok=True)

    def _device(self, port: str, interface: int) -> Path:
        if not port:
            return self.root / "devices/platform/gpio-keys"
        bus, _, way = port.partition("-")
        parts = way.split(".")
        folders = [f"usb{bus}", *(f"{bus}-{'.'.join(parts[:n])}" for n in range(1, len(parts) + 1)), f"{port}:1.{interface}"]
        return self.root.joinpath("devices/platform/3f980000.usb", *folders)


def bit_map(numbers: frozenset[int]) -> str:
    """The kernel's form of a bit map: words of 64 bits, hexadecimal, the highest first."""
    whole = sum(1 << n for n in numbers)
    words = []
    while whole:
        words.append(f"{whole & (1 << 64) - 1:x}")
        whole >>= 64
    return " ".join(reversed(words)) or "0"
