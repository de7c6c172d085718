"""The counter around an emulated box: broker, channels, collector and printer on the host, the box in the machine.

Everything that `sim.counter` knows of a counter holds here, and its scripted days can be played; but scanner, keypad, panel, cables
and the daemon are the machine's.  Refuses to know QEMU: `Machine` does.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from device.ask import DaemonAway
from device.mqtt import enrol_wire
from fleet.records.store import Store
from sim.broker import Broker
from sim.channels.tls import TlsRoom, tls_room
from sim.counter import wiring
from sim.counter.boxes import Boxes
from sim.counter.calls import PRODUCTS_CSV, Refusal
from sim.counter.certificates import Certificates
from sim.counter.channel import Served
from sim.counter.channels import CHANNELS
from sim.counter.cloud_view import CloudView
from sim.counter.counter import Counter
from sim.counter.enrolment import desk_open
from sim.counter.files import toml, write
from sim.counter.fleet_desk import FleetDesk, courier_argv
from sim.counter.kept import Kept
from sim.counter.line import Line
from sim.devices.clock import ClockModel
from sim.devices.printer import PrinterModel
from sim.devices.printer_ports import TcpPort
from tests.appliance.keypad import qemu_key
from tests.appliance.machine import PRINTER, Machine
from tests.appliance.rig_line import RigError

HOST = "10.0.2.2"                        # this host, as the guest sees it
BOX_STATE = "/var/lib/tillbox"
PRINTER_SERIAL = "PRN00001"
PRINTER_LINK = f"/dev/serial/by-id/usb-QEMU_QEMU_USB_SERIAL_{PRINTER_SERIAL}-if00-port0"
TAKEN_S = 20.0                           # until a box that is emulated has taken a key
SCANS_MAX = 3
READY_S = 240.0


class Doors:
    """Ports of this host that stay the same as long as the test run, whatever listens behind them: a box of a snapshot has them in
    its configuration.  `close()` ends them."""

    def __init__(self) -> None:
        self._lines: dict[str, Line] = {}
        self.room: TlsRoom = tls_room(host=HOST)

    def to(self, name: str, far_port: int) -> Line:
        """The door `name`, leading to `far_port` from now on."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line(far_port)
        line.cut()
        line.far_port = far_port
        line.join()
        return line

    def close(self) -> None:
        for line in self._lines.values():
            line.cut()


class Shop(Counter):
    """The counter in `folder`; `start()` opens it without a box, `stand(machine)` puts the box there."""

    daemon: Any

    def __init__(self, folder: Path, doors: Doors, devices: dict[str, Any] | None = None) -> None:
        super().__init__(folder, profile="gateway")
        self._doors, self._devices = doors, devices or {}

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("run", "dev", "keys", "channels"):
            (self.folder / name).mkdir(exist_ok=True)
        self._ends.append(wiring.taken(self.folder).close)
        self.certificates = Certificates(self.folder, wiring.TENANT)
        if HOST not in self.certificates.authority.broker_hosts():
            self.certificates.authority.broker(["127.0.0.1", HOST])
        self.broker = Broker(self.folder / "broker", authority=self.certificates.authority)
        self.broker.start()
        self._ends.append(self.broker.stop)
        self.line = self._doors.to("broker", self.broker.port)
        self._ends.append(self.line.cut)
        self.boxes = Boxes(self.folder)
        self._cloud_clock = ClockModel(self.folder / "cloud.clock")
        self._ends.append(self._cloud_clock.close)
        write(self.folder / "keys" / "ca.pem", self._doors.room.ca_pem)
        kind = CHANNELS["gateway"]
        assert issubclass(kind, Served)
        self.channels = {"gateway": kind(self.folder, self._now_s, self._doors.room, set())}
        for name, channel in self.channels.items():
            channel.start()
            self._ends.append(channel.stop)
            self._doors.to(name, int(channel.server.url.rpartition(":")[2]))
        self.printer = PrinterModel()
        wiring.printed_before(self.folder, self.printer)
        self.printer_port = TcpPort(self.printer)
        self._ends.append(self._end_printer)
        wiring.keys_given(self.folder)
        self.store_at = str(self.folder / "cloud.db")
        self.collector = Kept(wiring.collector_argv(self.folder, self.folder / "cloud.clock", self.broker.port, self.store_at),
                              self.folder / "collector.log")
        self.collector.start()
        self._ends.append(self.collector.close)
        self.desk = FleetDesk(self.folder, self.store_at)
        self.courier = Kept(courier_argv(self.folder, self.folder / "cloud.clock", self.broker.port, self.store_at, wiring.TENANT),
                            self.folder / "courier.log")
        self.courier.start()
        self._ends.append(self.courier.close)
        self.store = Store(self.store_at)
        self._ends.append(self.store.close)
        self.cloud = CloudView(self.store)
        self.faults = self._switches()
        self._ends.append(self.faults.stop)

    # The box's side of it

    def box_toml(self) -> bytes:
        """What whoever flashes the card gives the box: its devices and its channel.  Who it is comes from the fleet."""
        gateway = self.channels["gateway"].section()
        table = {
            "shop_zh": "街角便利店", "shop_en": "Corner Shop", "prices_file": "prices.csv", "route": ["gateway"],
            "approve_refund_fen": 0,
            "scanner": {"kind": "evdev", "port": "1-1"}, "keypad": {"kind": "evdev", "port": "1-2"},
            "display": {"kind": "fb", "path": "/dev/fb0"},
            "printer": {"kind": "serial", "path": PRINTER_LINK, "baud": 115_200},
            "channel": {"gateway": gateway | {"base_url": f"https://{HOST}:{self._door('gateway')}", "ca_file": "ca.pem",
                                              "private_key_file": "gateway.key"}},
        } | self._devices
        return toml(table).encode()

    def state_files(self) -> dict[str, bytes]:
        """Files of the box's state folder that the card brings along."""
        return {"ca.pem": self._doors.room.ca_pem, "gateway.key": (self.folder / "keys" / "gateway.key").read_bytes(),
                "prices.csv": PRODUCTS_CSV.read_bytes()}

    @contextlib.contextmanager
    def enrolment(self) -> Iterator[tuple[enrol_wire.Code, str]]:
        """The desk and its door are open: (a fresh code, HOST:PORT as the box reaches the door)."""
        with desk_open(self.folder, self.certificates, self.broker, self.store_at, self.boxes,
                       told=(HOST, self.line.port)) as (code, port):
            yield code, f"{HOST}:{self._doors.to('enrol', port).port}"

    def _door(self, name: str) -> int:
        return self._doors.to(name, int(self.channels[name].server.url.rpartition(":")[2])).port

    # The box stands at the counter

    def stand(self, machine: Machine) -> None:
        """`machine` is on; its cables are plugged in here."""
        self.machine = machine
        self.daemon = _GuestDaemon(self)
        self.plug_printer()

    def plug_printer(self) -> None:
        addr = {"type": "inet", "data": {"host": "127.0.0.1", "port": str(getattr(self.printer_port, "port", 0))}}
        self.machine.plug_serial("printer", PRINTER, PRINTER_SERIAL,
                                 {"type": "socket", "data": {"addr": addr, "server": False, "reconnect": 1}})

    def refit(self, **devices: Any) -> None:
        """Other sections of box.toml from now on, and the till started again under them, as a technician does it."""
        self._devices |= devices
        self.machine.rig.put("/etc/tillbox/box.toml", self.box_toml())
        self.machine.rig.sh("systemctl restart tillbox", within_s=90)

    def await_health(self, part: str, word: str, within_s: float = 60.0) -> None:
        """Until the daemon says so of that part."""
        self.until(lambda: self.state()["health"].get(part) == word, within_s, f"{part} {word}")

    def sold_by_qr(self, *codes: str, wallet: str = "wechat") -> str:
        """One sale of those goods, paid by the QR on the panel; its order number."""
        for code in codes:
            self.scan(code)
        self.key("PAY")
        qr = self.machine.await_qr("https://pay.local/", 40)
        said = self.phone_scan(wallet, qr, "pay")
        return str(said["order_no"])

    def await_serving(self, within_s: float = READY_S) -> dict[str, Any]:
        """Until the daemon answers and its scanner and keypad are there; its state."""
        until_s, state = time.monotonic() + within_s, dict[str, Any]()
        while time.monotonic() < until_s:
            with contextlib.suppress(DaemonAway):
                state = self._ask("state")["state"]
                if all(state["health"].get(part) == "ok" for part in ("scanner", "keypad")):
                    return state
            time.sleep(0.3)
        raise AssertionError(f"the box serves nobody after {within_s:g} s; health: {state.get('health')}")

    def until(self, holds: Any, within_s: float = 60.0, what: str = "") -> Any:
        """Ask until `holds()` is true; its value.  AssertionError with `what` when it never is."""
        until_s = time.monotonic() + within_s
        while True:
            with contextlib.suppress(DaemonAway):
                if value := holds():
                    return value
            if time.monotonic() > until_s:
                raise AssertionError(f"it did not come within {within_s:g} s: {what}")
            time.sleep(0.2)

    # Hands and eyes, as `sim.counter.Counter`

    def scan(self, code: str, *, gadget: bool = False) -> None:
        """By the scanner on QEMU's keyboard, or by the rig's own, the `gadget`; returns when the daemon took it: another device
        is another wire, and a key could overtake a scan."""
        before = self._scans()
        if gadget:
            self.gadget("scan", code=code)
        else:
            self.machine.scan(code)
        until_s = time.monotonic() + TAKEN_S
        while self._scans() == before and time.monotonic() < until_s:
            time.sleep(0.05)

    def rung_up(self, code: str) -> None:
        """Scan as a cashier does: once more where the box told that it dropped the read, which an emulated machine makes it do."""
        total_fen = self.state()["total_fen"]
        for _ in range(SCANS_MAX):
            self.scan(code)
            if self.state()["total_fen"] > total_fen:
                return
        raise AssertionError(f"{code} was not taken in {SCANS_MAX} scans")

    def gadget(self, does: str, **how: Any) -> Any:
        """What the rig does with its own USB devices: rig/gadgets.py."""
        return self.machine.rig.ask("gadget", do=does, **{"with": how})

    def plug_gadget_printer(self) -> None:
        """The printer model behind the rig's /dev/usb/lp0."""
        self.gadget("plug_printer")
        line = self.machine.gadget_printer(self.printer.receive)
        self.printer.say = line.say

    def _scans(self) -> dict[str, Any] | None:
        with contextlib.suppress(DaemonAway):
            return self._ask("state")["state"]["scanners"]
        return None

    def key(self, key: str) -> None:
        for one in "00" if key == "00" else (key,):
            self.machine.press(qemu_key("0" if key == "00" else one))
        with contextlib.suppress(DaemonAway):
            self._ask("state")

    def display_png(self) -> bytes:
        out = io.BytesIO()
        self.machine.screen().save(out, "PNG")
        return out.getvalue()

    def state(self) -> dict[str, Any]:
        return self._asked("state")["state"]

    def doctor(self) -> dict[str, Any]:
        return json.loads(self.machine.rig.sh("/opt/tillbox/bin/tillbox doctor --json", fine=True))

    def _ask(self, verb: str) -> dict[str, Any]:
        try:
            return self.machine.rig.daemon(verb)
        except RigError as away:
            raise DaemonAway(str(away)) from None

    def _keep(self) -> None:
        raise NotImplementedError("what the outside holds is kept by `freeze`")

    def freeze(self, to: Path) -> None:
        """Keep everything of the host's side in `to`, for many a shop that goes on from here.  Call when it is quiet; ends it."""
        for channel in self.channels.values():
            channel.keep()
        wiring.keep_paper(self.folder, self.printer, b"")
        self.stop()
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("run", "lock", "dev"))


class _GuestDaemon:
    """The daemon in the machine, switched like `sim.counter.kept.Kept`."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self.powered = True

    @property
    def pid(self) -> int | None:
        said = self._shop.machine.rig.sh("systemctl show -p MainPID --value tillbox", fine=True).strip()
        return int(said) or None if said.isdigit() else None

    @property
    def starts(self) -> int:
        return int(self._shop.machine.rig.sh("systemctl show -p NRestarts --value tillbox").strip() or 0)

    def start(self) -> None:
        if not self.powered:
            self._shop.machine.start()
            self._shop.machine.rig.await_up()
            self.powered = True
            self._shop.plug_printer()
        else:
            self._shop.machine.rig.sh("systemctl start tillbox")

    def stop(self) -> None:
        self._shop.machine.rig.sh("systemctl stop tillbox")

    def cut(self, seconds: float) -> None:
        """The cord; `start` puts it back."""
        self.powered = False
        self._shop.machine.cut()


def said(value: Any) -> str:
    """A value for a message."""
    return msgspec.json.encode(value).decode()[:2000]


__all__ = ["HOST", "Doors", "Refusal", "Shop"]
