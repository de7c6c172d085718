"""The whole counter on one machine: the real daemon on device models, a real broker, channel servers and a collector.

Knows how the parts are wired and switched; refuses to know what they say to each other.  The daemon is reached through
FIFOs, TCP, files and its own socket only.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import random
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from device.ask import DaemonAway, ask
from device.doctor.tool import examine
from device.timeline import story_of
from fleet.line import dressed
from fleet.records.proof import defects
from fleet.records.store import Store, records
from sim.broker import Broker
from sim.channels.gateway import WALLETS as CODE_FORMS
from sim.counter import wiring
from sim.counter.boxes import Boxes
from sim.counter.calls import Refusal
from sim.counter.certificates import RECORDER, Certificates
from sim.counter.channel import BEIJING
from sim.counter.channels import Card, opened
from sim.counter.cloud_view import CloudView
from sim.counter.enrolment import enrolled
from sim.counter.faults import Faults
from sim.counter.fleet_desk import FleetDesk, courier_argv
from sim.counter.hardware import Hardware, Port
from sim.counter.kept import Kept
from sim.counter.line import Line
from sim.counter.sums import first_day, is_copy, order_no_of, summary, undecided
from sim.counter.technician import Technician
from sim.devices.clock import ClockModel
from sim.devices.display import frame_no, frame_png
from sim.devices.keypad import KeypadModel
from sim.devices.printer import MODEL, PrinterModel
from sim.devices.printer_ports import TcpPort
from sim.devices.scanner import ScannerModel
from sim.postgres import Postgres
from sim.recorder import Recorder

READY_S_MAX = 20.0
AWAY = ("gone", "error")        # words of a part that hears nothing; one that misreads does
SETTLE_S_MAX = 1.0             # a daemon that does not take a key within a second is busy or gone; the call returns
SLOW_WALLET_S = 8.0
POWER_CUT_S = 3.0
JUMP_S = 30 * 3600.0           # more than a day: what the box must not follow by itself
KEEP_EVERY_S = 1.0             # a counter that is killed forgets no more of the outside than this
POWER_GONE = Refusal("The box has no power just now.", 409)


class Counter:
    """One counter in `folder`, made if needed; what an earlier run left there goes on.

    `profile` is one of PROFILES in `channels.py`; `scale` divides every time of the rule table, for days that must not take
    as long as they tell; `cloud` is where the collector keeps records, `sqlite` or `postgresql`, which forgets them at the end.
    `start()` returns when the daemon takes input; `stop()` ends everything that was started.
    Implements the calls of `sim.counter.calls`.
    """

    def __init__(self, folder: Path, *, profile: str = "all", scale: int = 1, record: bool = False, cloud: str = "sqlite") -> None:
        self.folder, self._profile, self._scale, self._record = folder.resolve(), profile, scale, record
        self._cloud = cloud
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._ends: list[Callable[[], None]] = []    # what was started, to be ended in the other order
        self._seen: tuple[float, dict[str, Any]] = (0.0, {})
        self._state: dict[str, Any] = {}
        self._screen: dict[str, Any] = {}
        self._paper = b""
        self._random = random.SystemRandom()

    # Starting and ending

    def start(self) -> None:
        """Start every part.  Raises what the part raises, after ending those already started."""
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._ends.append(wiring.taken(self.folder).close)
        self.run_dir, forget = wiring.run_dir(self.folder)
        self._ends.append(forget)
        self.certificates = Certificates(self.folder, wiring.TENANT)
        recorder = self.certificates.give(RECORDER) if self._record else None
        self.broker = Broker(self.folder / "broker", authority=self.certificates.authority,
                             watcher=self.certificates.full(RECORDER) if recorder else "")
        self.broker.start()
        self._ends.append(self.broker.stop)
        if recorder:
            self._ends.append(Recorder(self.broker.port, self.folder / "payloads.jsonl", dressed(recorder)).stop)
        self.line = Line(self.broker.port)
        self._ends.append(self.line.cut)
        self.boxes = Boxes(self.folder)
        devices = self.folder / "dev"
        self.clock, self._cloud_clock = ClockModel(devices / "clock"), ClockModel(self.folder / "cloud.clock")
        self._ends += [self.clock.close, self._cloud_clock.close]
        self.channels = opened(self.folder, self._profile, self._now_s)
        for channel in self.channels.values():
            channel.start()
            self._ends.append(channel.stop)
        self.scanner, self.keypad = ScannerModel(devices / "scanner"), KeypadModel(devices / "keypad")
        self._ends += [self._unplug_scanner, self.keypad.unplug]
        self.printer = PrinterModel()
        wiring.printed_before(self.folder, self.printer)
        self.hardware = Hardware(self.folder, self.printer)
        self._ends.append(self.hardware.unplug)
        self.printer_port: Port = TcpPort(self.printer)
        self._ends.append(self._end_printer)
        self.faults = self._switches()
        self._ends.append(self.faults.stop)
        wiring.write_rules(self.folder, self._scale)
        self._write_box()
        self.store_at = self._database()
        self.collector = Kept(wiring.collector_argv(self.folder, self.folder / "cloud.clock", self.broker.port, self.store_at),
                              self.folder / "collector.log")
        self.collector.start()
        self._ends.append(self.collector.close)
        self.desk = FleetDesk(self.folder, self.store_at)
        self.technician = Technician(self.folder, self.store_at)
        self._ends.append(self.technician.close)
        self.courier = Kept(courier_argv(self.folder, self.folder / "cloud.clock", self.broker.port, self.store_at, wiring.TENANT),
                            self.folder / "courier.log")
        self.courier.start()
        self._ends.append(self.courier.close)
        self._enrol()
        self.store = Store(self.store_at)
        self._ends.append(self.store.close)
        self.cloud = CloudView(self.store)
        self.daemon = Kept([sys.executable, "-m", "sim.devices.clock", str(devices / "clock"), "device", "run", "--config",
                            str(self.folder / "box.toml")], self.folder / "daemon.log", os.environ | wiring.unit_memory())
        self.daemon.start()
        self._ends.append(self.daemon.close)
        keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)
        keeper.start()
        self._ends += [keeper.join, self._stopping.set]
        self._await_ready()

    def stop(self) -> None:
        """End timers, processes, servers and threads.  Harmless when called twice."""
        while self._ends:
            self._ends.pop()()

    def _write_box(self) -> None:
        wiring.write_box(self.folder, self.boxes, run_dir=self.run_dir, broker_port=self.line.port,
                         printer_port=getattr(self.printer_port, "port", 0), channels=self.channels, devices=self.hardware.sections)

    def _enrol(self) -> None:
        enrolled(self.folder, self.certificates, self.broker, self.store_at, self.boxes)

    def _database(self) -> str:
        """Where the collector keeps records: a file's name or a server's address."""
        if self._cloud == "sqlite":
            return str(self.folder / "cloud.db")
        server = Postgres()
        self._ends.append(server.close)
        server.start()
        return server.database()

    def _now_s(self) -> float:
        """What time it is for everybody but a box whose clock is wrong."""
        return time.time() + self._cloud_clock.passed_s

    def _await_ready(self) -> None:
        until_s, before = time.monotonic() + READY_S_MAX, self.daemon.starts
        while time.monotonic() < until_s:
            with contextlib.suppress(DaemonAway):
                self._ask("state")
                return
            if self.daemon.starts > before + 5:
                break
            time.sleep(0.05)
        tail = (self.folder / "daemon.log").read_text("utf-8", "replace")[-1500:]
        raise RuntimeError(f"the daemon did not come up; the end of its log:\n{tail}")

    def _keep(self) -> None:
        """What the outside holds reaches the disk while it runs: a counter that is killed cannot write it any more."""
        while not self._stopping.wait(KEEP_EVERY_S):
            for channel in self.channels.values():
                channel.keep()
            self._paper = wiring.keep_paper(self.folder, self.printer, self._paper)

    def _end_printer(self) -> None:
        self.printer_port.close()
        wiring.keep_paper(self.folder, self.printer, self._paper)

    # Hands

    def scan(self, code: str) -> None:
        """The scanner reads `code`; returns when the daemon took it."""
        if self.scanner.plugged:
            self._need_reader(self.scanner, "scanner")
        before = self._scans()
        try:
            self.scanner.scan(code)
        except ValueError as cannot:
            raise Refusal(f"This scanner cannot read that: {cannot}.") from None
        except RuntimeError as gone:
            raise Refusal(f"Nothing was scanned: {gone}.", 409) from None
        self._settle(self.scanner)
        until_s = time.monotonic() + SETTLE_S_MAX
        while before is not None and self._scans() == before and time.monotonic() < until_s:
            time.sleep(0.002)                        # a thread of the daemon's takes the keys; they are a scan a moment later

    def key(self, key: str) -> None:
        """One key; returns when the daemon took it."""
        self._need_reader(self.keypad, "keypad")
        try:
            self.keypad.press(key)
        except RuntimeError as gone:
            raise Refusal(f"The key reached nobody: {gone}.", 409) from None
        self._settle(self.keypad)

    def _scans(self) -> dict[str, int] | None:
        """What the daemon counted of its scanner; None while it is away."""
        with contextlib.suppress(DaemonAway):
            return self._ask("state")["state"]["scanners"].get("scanner")
        return None

    def _need_reader(self, device: ScannerModel | KeypadModel, part: str) -> None:
        """Nothing is typed into a box that is off.  One that is just starting, or has not found a device that was put back, is
        waited for: what it had not opened yet it would throw away, as a kernel does."""
        until_s = time.monotonic() + READY_S_MAX / 4
        while True:
            if not self.daemon.powered:
                raise POWER_GONE
            pid = self.daemon.pid
            with contextlib.suppress(DaemonAway):
                if pid is not None and device.read_by(pid) and self._ask("state")["state"]["health"][part] not in AWAY:
                    return
            if time.monotonic() > until_s:
                raise Refusal(f"The box does not listen to its {part}: see its log.", 409)
            time.sleep(0.02)

    def _settle(self, device: ScannerModel | KeypadModel) -> None:
        # Two devices are two wires: without this a key could overtake the scan that was called before it.
        until_s = time.monotonic() + SETTLE_S_MAX
        while time.monotonic() < until_s and _unread(device):
            time.sleep(0.002)
        with contextlib.suppress(DaemonAway):
            self._ask("state")

    def phone_scan(self, wallet: str, qr: str | None, outcome: str) -> dict[str, Any]:
        """A wallet scans `qr`, None what the display shows.  Refusal in the wallet's own words when it cannot."""
        if qr is None:
            qr = self.display_json().get("qr") or ""
            if not qr:
                raise Refusal("No QR is shown, so the phone has nothing to scan.", 409)
        channel = next((one for one in self.channels.values() if one.qr and qr.startswith(one.qr)), None)
        if channel is None:
            raise Refusal("The wallet refuses: that is no payment code.", 409)
        said = channel.scan(qr, wallet, outcome, SLOW_WALLET_S)
        if not said["ok"] and outcome != "insufficient":
            raise Refusal(f"The wallet refuses: {said['why']}.", 409)
        return {"order_no": said["order_no"], "paid": outcome == "pay"}

    def phone_code(self, wallet: str, outcome: str) -> str:
        """A fresh payment code of the wallet's own form, known to whoever may charge it; its payer will do `outcome`."""
        head, length = CODE_FORMS[wallet]
        code = head + "".join(self._random.choice("0123456789") for _ in range(length - len(head)))
        for channel in self.channels.values():
            channel.shown(code, wallet, outcome, SLOW_WALLET_S)
        return code

    def card_tap(self, outcome: str) -> dict[str, Any]:
        """A holder presents a card at the terminal.  Refusal when it asks nobody."""
        card = self.channels.get("card")
        order_no = card.tap(outcome, SLOW_WALLET_S) if isinstance(card, Card) else ""
        if not order_no:
            raise Refusal("The card terminal asks for no card just now.", 409)
        return {"order_no": order_no, "paid": outcome == "pay"}

    def pass_time(self, seconds: float) -> dict[str, Any]:
        """So much time passes at once, for the box, its channels and the cloud."""
        for clock in (self.clock, self._cloud_clock):
            clock.onward(seconds)
        return {"passed_s": self._cloud_clock.passed_s}

    def change_box(self) -> dict[str, Any]:
        """The box goes for good, and a new one is put in its place.  Refusal while anything of it is on its way: what a box that
        burns takes along is docs/recovery.md's matter."""
        if not self.quiet():
            raise Refusal("The old box has payments, papers or records on their way.", 409)
        sums = self._asked("sums")["sums"]
        self.daemon.stop()
        self.technician.close()
        self.certificates.authority.revoke(self.certificates.full(self.boxes.name))
        self.broker.refresh()
        self.boxes.change(sums)
        self._write_box()
        self._enrol()
        self.daemon.start()
        return {"box": self.boxes.name, "box_no": self.boxes.number}

    def change_devices(self, kinds: dict[str, str], opening_ticket: bool) -> dict[str, Any]:
        """Other devices are put there while the box is off, and it is switched on again.  Refusal while anything is on its way."""
        if not self.quiet():
            raise Refusal("The box has payments, papers or records on their way.", 409)
        self.daemon.stop()
        if "scanner" in kinds:
            self.scanner.unplug()
            self.scanner = self.hardware.scanner(kinds["scanner"])
        if "printer" in kinds:
            self.printer_port.close()
            self.printer_port = self.hardware.printer(kinds["printer"])
        if "display" in kinds:
            self.hardware.display(kinds["display"])
        if "sound" in kinds:
            self.hardware.sound(kinds["sound"])
        self.hardware.sections["opening_ticket"] = opening_ticket
        self._write_box()
        self._enrol()
        self.daemon.start()
        self._await_ready()
        return {"devices": kinds}

    def doctor(self) -> dict[str, Any]:
        """What `tillbox doctor` says of the box; the lines to its channels left alone."""
        return msgspec.to_builtins(examine(str(self.folder / "box.toml"), online=False))

    def timeline(self) -> dict[str, Any]:
        """The story of the newest sale on paper.  Refusal when there is none."""
        sold = [row["order_no"] for row in self.receipts() if row["order_no"]]
        story = story_of(sold[-1], str(self.folder / "box.toml")) if sold else None
        if story is None:
            raise Refusal("Nothing was sold yet.", 404)
        return msgspec.to_builtins(story) | {"whats": sorted({step.what for step in story.steps})}

    def push(self, keys: dict[str, Any], payee_change: bool) -> dict[str, Any]:
        """Push a configuration to the box, as its fleet's admin does."""
        self.desk.box_changed(self.boxes.name)
        return self.desk.push(self.boxes.name, keys, payee_change)

    def command(self, verb: str, args: str) -> dict[str, Any]:
        """A command from the cloud, and its answer."""
        return self.desk.command(self.boxes.name, verb, args)

    def console_type(self, line: str) -> dict[str, Any]:
        """The technician types a line at the box's console."""
        return self.technician.type(line)

    def console_code(self) -> dict[str, Any]:
        """The technician reads the challenge to head office, and types what it answers."""
        return self.technician.head_office(self.boxes.name)

    def console(self) -> list[str]:
        """What stands on the technician's terminal."""
        return self.technician.screen()

    # Ears

    def sound(self) -> bytes:
        """The WAV that was heard last."""
        try:
            return (self.folder / "dev" / "sound.wav").read_bytes()
        except FileNotFoundError:
            raise Refusal("Nothing has been heard yet.", 404) from None

    def _sound_name(self) -> str:
        try:
            return str((self.folder / "dev" / "sound.wav").stat().st_mtime_ns)
        except FileNotFoundError:
            return ""

    # Eyes

    def display_png(self) -> bytes:
        path, tries = str(self.folder / "dev" / "frame"), 3
        if not frame_no(path):
            raise Refusal("Nothing has been drawn yet.", 404)
        while True:
            try:
                return frame_png(path)
            except (ValueError, OSError):            # read while it was being replaced
                tries -= 1
                if not tries:
                    raise Refusal("The frame cannot be read.", 409) from None
                time.sleep(0.02)

    def display_json(self) -> dict[str, Any]:
        return self._asked("screen")["screen"]

    def state(self) -> dict[str, Any]:
        return self._asked("state")["state"] | ({"pole": self.hardware.shown()} if self.hardware.pole is not None else {})

    def receipts(self) -> list[dict[str, Any]]:
        """What stands on paper, oldest first.  `state` is the daemon's word for the job, or `torn` for half a paper."""
        words: dict[tuple[str, bool], list[str]] = {}
        for job in self._jobs():
            words.setdefault((job["order_no"], bool(job["copy"])), []).append(job["state"])
        rows = []
        for paper in reversed(self.printer.receipts()):      # the daemon forgets old jobs: the newest match first
            order_no, copy = order_no_of(paper.text), is_copy(paper.text)
            said = words.get((order_no, copy))
            state = said.pop() if said else "printed"
            rows.append({"n": paper.n, "order_no": order_no, "copy": copy,
                         "state": "torn" if paper.state == "torn" else state})
        return rows[::-1]

    def receipt(self, n: int, form: str) -> bytes:
        papers = self.printer.receipts()
        if not 1 <= n <= len(papers):
            raise Refusal(f"There is no receipt {n}: {len(papers)} were printed.", 404)
        paper = papers[n - 1]
        return {"txt": paper.text.encode(), "png": paper.png, "bin": paper.raw}[form]

    def cloud_records(self) -> dict[str, Any]:
        return records(self.store)

    def fleet(self) -> dict[str, Any]:
        """What the fleet's admin sees of the box."""
        return self.desk.shown(self.boxes.name)

    def channel_orders(self) -> list[dict[str, Any]]:
        """What every channel holds, in the order of the box's numbers, which is that of their making."""
        return sorted((row for channel in self.channels.values() for row in channel.orders()), key=lambda row: row["order_no"])

    def overview(self) -> dict[str, Any]:
        """Everything the page shows, at most five times a second whoever asks."""
        with self._lock:
            if time.monotonic() - self._seen[0] > 0.2:
                self._seen = (time.monotonic(), self._looked())
            return self._seen[1]

    def _looked(self) -> dict[str, Any]:
        up = False
        with contextlib.suppress(DaemonAway):
            self._state, self._screen, up = self._ask("state")["state"], self._ask("screen")["screen"], True
        return {"state": self._state, "display": self._screen, "frame": self._frame_name(), "receipts": self.receipts(),
                "orders": self.channel_orders(), "cloud": self.cloud.told(), "faults": self.faults.shown(),
                "sound": self._sound_name(), "console": self.technician.screen(),
                "daemon": {"up": up, "pid": self.daemon.pid, "starts": self.daemon.starts}}

    def _frame_name(self) -> str:
        try:
            return str(frame_no(str(self.folder / "dev" / "frame")) or "")
        except (ValueError, OSError):
            return ""                                # read while it was being replaced: the next look finds it

    def _jobs(self) -> list[dict[str, Any]]:
        """The daemon's jobs that put bytes on paper, in the order in which they did."""
        with contextlib.suppress(DaemonAway):
            return [job for job in self._ask("receipts")["receipts"] if job["state"] != "due"]
        return []

    def _ask(self, verb: str) -> dict[str, Any]:
        answer = ask(self.run_dir / "daemon.sock", verb)
        if not answer.get("ok"):
            raise DaemonAway(f"the daemon refused {verb}: {answer.get('error')}")
        return answer

    def _asked(self, verb: str) -> dict[str, Any]:
        try:
            return self._ask(verb)
        except DaemonAway as away:
            raise Refusal(f"The box is off: {away}.", 503) from None

    # Faults

    def fault(self, kind: str, on: bool, channel: str | None, seconds: float | None, jump_s: float = JUMP_S) -> dict[str, Any]:
        """Switch a fault; with `seconds` it ends by itself.  A power cut always does."""
        if kind == "power_cut" and on:
            seconds = seconds if seconds is not None else POWER_CUT_S
        self._jump_s = jump_s
        self.faults.switch(kind, on, channel, seconds)
        return {}

    def _switches(self) -> Faults:
        switches = {
            "link": lambda on, _: self.line.cut() if on else self.line.join(),
            "broker": lambda on, _: self._broker(on),
            "collector": lambda on, _: self.collector.stop() if on else self.collector.start(),
            "scanner": lambda on, _: self.scanner.unplug() if on else self.scanner.plug(),
            "keypad": lambda on, _: self.keypad.unplug() if on else self.keypad.plug(),
            "display": lambda on, _: self.hardware.plugged(not on),
            "power_cut": lambda on, seconds: self.daemon.cut(seconds) if on else self.daemon.start(),
            "printer_paper": lambda on, _: self.printer.paper(out=on),
            "printer_off": lambda on, _: self.printer.power(not on),
            "printer_dies": lambda on, _: self._printer_dies(on),
            "printer_low": lambda on, _: self.printer.paper(low=on),
            "printer_cover": lambda on, _: self.printer.cover(on),
            "printer_cutter": lambda on, _: self.printer.fault(cutter=on),
            "printer_hot": lambda on, _: self.printer.fault(hot=on),
            "printer_mute": lambda on, _: self.printer.silence(on),
            "printer_model": lambda on, _: self._printer_model(on),
            "clock_jump": lambda on, _: self.clock.set(self._jump_s if on else 0.0),
        }
        return Faults(switches, {name: channel.fault for name, channel in self.channels.items()})

    def _broker(self, down: bool) -> None:
        if down == self.broker.runs:
            self.broker.stop() if down else self.broker.start()

    def _unplug_scanner(self) -> None:
        self.scanner.unplug()                        # whichever stands there then

    def _printer_dies(self, on: bool) -> None:
        self.printer.die_after(wiring.DIES_AFTER_BYTES if on else None)
        if not on:
            self.printer.power(True)

    def _printer_model(self, other: bool) -> None:
        """Another printer was put in the place of ours; its port lets go of the old connection, as the new one's would."""
        self.printer.name = "OTHER-80" if other else MODEL
        if isinstance(self.printer_port, TcpPort):
            self.printer_port.drop()

    # The end of a day

    def quiet(self) -> bool:
        """True when nothing is on its way: every record acknowledged, every paper out, every payment decided."""
        try:
            state = self._ask("state")["state"]
        except DaemonAway:
            return False
        return (state["unacked"] == 0 and undecided(state) == 0
                and not any(paper["state"] in ("due", "started") for paper in state.get("papers", ())))

    def summary(self) -> dict[str, Any]:
        """The tellings of the money, as `sim.counter.sums` defines them.  Refusal when the daemon is away."""
        papers, tokens = [paper.text for paper in self.printer.receipts()], records(self.store)["tokens"]
        since = first_day(tokens, datetime.datetime.fromtimestamp(self._now_s(), BEIJING).date())
        bills = {name: channel.bills(since) for name, channel in self.channels.items()}
        sums = self.boxes.summed(self._asked("sums")["sums"])
        return summary(self.state(), sums, tokens, not defects(self.store), self.channel_orders(), papers, bills)


def _unread(device: ScannerModel | KeypadModel) -> int:
    """Bytes that a device has sent and nobody has read."""
    try:
        return struct.unpack("i", fcntl.ioctl(device._fd, termios.FIONREAD, b"\0\0\0\0"))[0]
    except OSError:
        return 0                                     # unplugged meanwhile
