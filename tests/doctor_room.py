"""A whole box for the doctor: every channel's server, a broker's door with TLS, device twins, a kernel in files, a daemon that is
alive or dead.  Everything is well until one thing is harmed; `close` ends it all.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import threading
import tomllib
from pathlib import Path
from typing import Any

from bench.till import Till
from device.doctor.tool import Report, examine
from sim.channels.keys import key_pair
from sim.channels.tls import TlsRoom, tls_room
from sim.counter import wiring
from sim.counter.boxes import Boxes
from sim.counter.channel import Channel
from sim.counter.channels import opened
from sim.counter.files import toml
from sim.counter.sealing import sealed
from sim.devices.keypad import KeypadModel
from sim.devices.printer import PrinterModel
from sim.devices.printer_ports import PtyPort, TcpPort
from sim.devices.scanner import ScannerModel
from tests.fake_sys import FakeSys

WELL = {"printer": "ok", "scanner": "ok", "keypad": "ok", "display": "ok", "signer": "ok", "link": "ok", "collector": "ok"}


class Door:
    """A broker's door: TLS, and not a word of MQTT."""

    def __init__(self, room: TlsRoom, *, client: str = "none") -> None:
        self.context = room.server_context(client=client)
        self.line = socket.create_server(("127.0.0.1", 0))
        self.port = self.line.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self.line.accept()
            except OSError:
                return
            caller.settimeout(5)
            try:
                with caller, self.context.wrap_socket(caller, server_side=True) as tls:
                    tls.recv(1)
            except (OSError, ssl.SSLError):
                continue

    def close(self) -> None:
        self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()
        self.thread.join(5)


class Alive:
    """A daemon's socket that tells `state`; one that hangs when it is None."""

    def __init__(self, run: Path, state: dict[str, Any] | None) -> None:
        self.path, self.state = run / "daemon.sock", state
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.line.bind(str(self.path))
        self.line.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self.line.accept()
            except OSError:
                return
            with caller:
                if caller.recv(4096) and self.state is not None:
                    caller.sendall(json.dumps({"ok": True, "state": self.state}).encode() + b"\n")

    def close(self) -> None:
        self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()
        self.thread.join(5)
        self.path.unlink()


class Outside:
    """What stands for the whole module: the channels' servers and their keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "dev").mkdir()
        self.channels: dict[str, Channel] = opened(folder, "all")
        self.tls, self.strange = tls_room(), tls_room()
        for channel in self.channels.values():
            channel.start()
        self.sections = {name: channel.section() for name, channel in self.channels.items()}
        self.pems = {path: Path(path).read_bytes() for section in self.sections.values() for key, path in section.items()
                     if key.endswith("_file") and isinstance(path, str)}
        self.other = key_pair("Another shop")

    def close(self) -> None:
        for channel in self.channels.values():
            channel.stop()


class Room:
    """`table` is box.toml, `home` the state, `root` has the kernel's files; `state` what the daemon says, None for a dead one."""

    def __init__(self, folder: Path, outside: Outside) -> None:
        self.folder, self.outside, self.channels = folder, outside, outside.channels
        self.state: dict[str, Any] | None = None
        self.hangs = False
        self._ends: list[Any] = []
        boxes = Boxes(folder)
        self.home = boxes.home
        for path, pem in outside.pems.items():
            Path(path).write_bytes(pem)
        dev = folder / "dev"
        self.printer = PrinterModel()
        self.printer_port = self.ending(TcpPort(self.printer))
        self.scanner, self.keypad = ScannerModel(dev / "scanner"), KeypadModel(dev / "keypad")
        wiring.write_rules(folder, 1)
        wiring.write_box(folder, boxes, run_dir=folder / "run", broker_port=1, printer_port=self.printer_port.port,
                         channels=self.channels)
        self.table = tomllib.loads((folder / "box.toml").read_text())
        (folder / "ca.pem").write_bytes(outside.tls.ca_pem)
        self.door = self.ending(Door(outside.tls))
        self.table |= {"mqtt": {"host": "127.0.0.1", "port": self.door.port, "ca_file": f"{folder}/ca.pem"},
                       "record_key_file": f"{self.home}/record.pem", "second_copy_dir": f"{self.home}/second"}
        sold = Till(self.home)
        sold.cash_sale()
        sold.close()
        self.root = folder / "root"
        self._kernel()

    def _kernel(self) -> None:
        self.file("sys/class/net/eth0/carrier", "1")
        self.file("sys/class/net/eth0/operstate", "up")
        self.file("proc/net/route", "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU\n"
                                    "eth0 00000000 0100A8C0 0003 0 0 100 00000000 0 0 0\n")
        self.file("etc/resolv.conf", "nameserver 192.0.2.53\n")
        self.file("sys/block/mmcblk0/device/life_time", "0x01 0x02")
        self.file("sys/block/mmcblk0/device/pre_eol_info", "0x01")
        self.file("sys/fs/ext4/mmcblk0p2/errors_count", "0")
        self.file("sys/class/watchdog/watchdog0/state", "active")
        self.file("sys/class/watchdog/watchdog0/bootstatus", "0")
        self.file("run/systemd/system/here", "")
        self.file("sys/class/graphics/fb0/virtual_size", "800,480")
        self.file("sys/class/graphics/fb0/bits_per_pixel", "32")
        self.plugged = FakeSys(self.root / "sys")
        (self.root / "dev").symlink_to(self.root / "sys/dev")

    def file(self, path: str, text: str) -> Path:
        """A file of the kernel's, or of the machine's."""
        there = self.root / path
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_text(text + ("\n" if text and not text.endswith("\n") else ""))
        return there

    def ending(self, one: Any) -> Any:
        self._ends.append(one)
        return one

    def put(self, section: str, **fields: Any) -> None:
        """Keys of one section of box.toml; `channel.NAME` for a channel, "" for the top."""
        at = self.table
        for name in filter(None, section.split(".")):
            at = at.setdefault(name, {})
        at |= fields

    def says(self, **health: str) -> None:
        """The daemon lives, and says this of its parts."""
        self.state = {"health": WELL | {part.replace("__", ":"): word for part, word in health.items()}, "pid": os.getpid()}

    def serial_printer(self) -> PtyPort:
        """The same printer behind a serial port."""
        port = self.ending(PtyPort(PrinterModel(), self.folder / "dev" / "printer"))
        self.table["printer"] = {"kind": "serial", "path": str(port.path), "baud": 115200}
        return port

    def holds(self, path: Path) -> int:
        """A program that has `path` open; its pid."""
        with open(path, "rb+", buffering=0) as held:
            holder = subprocess.Popen(["sleep", "60"], stdin=held)
        self._ends.append(_Ended(holder))
        (self.root / "proc" / str(holder.pid)).symlink_to(f"/proc/{holder.pid}")
        return holder.pid

    def other_key(self, channel: str) -> None:
        """Another private key of the same account is sealed here."""
        pem = self.folder / "other.pem"
        pem.write_bytes(self.outside.other.private_pem)
        section = self.table["channel"][channel]
        self.table = sealed(self.folder, {**self.table, "channel": {**self.table["channel"],
                                          channel: {**section, "private_key_file": str(pem)}}})

    def examined(self, *, online: bool = True) -> Report:
        (self.folder / "box.toml").write_text(toml(self.table))
        (self.folder / "box.toml").chmod(0o600)
        alive = Alive(self.folder / "run", None if self.hangs else self.state) if self.state is not None or self.hangs else None
        try:
            return examine(str(self.folder / "box.toml"), root=self.root, online=online)
        finally:
            if alive is not None:
                alive.close()

    def close(self) -> None:
        self.scanner.unplug()
        self.keypad.unplug()
        while self._ends:
            self._ends.pop().close()


class _Ended:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


