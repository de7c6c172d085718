"""What it costs to start and to stand still: processor time to ready, memory, idling, and a journal of a million rows.

The floor of a start is a bare interpreter that imports the given packages at once.  Daemons are real processes on device
models; processor time is the kernel's own, over all threads.  All of them run from compiled files, as on a box, in a
folder of their own: the first start fills it and is not counted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.till import IDENTITY, Till
from device.ask import ask
from device.box import RESTATE_ROWS, Box
from device.store_forward.journal import Journal
from sim.counter import wiring
from sim.counter.boxes import Boxes
from sim.counter.channels import opened
from sim.counter.counter import Counter
from sim.devices.keypad import KeypadModel
from sim.devices.scanner import ScannerModel

PACKAGES = ("asyncio, sqlite3, serial, evdev, paho.mqtt.client, escpos.printer, sqlite_utils, cryptography.x509, PIL.Image, "
            "PIL.ImageDraw, PIL.ImageFont")
PROFILE = "gateway"                      # the box as it ships: no merchant's key on it
STARTS = 8
SETTLED_S = 2.5
READY_RATIO_MAX = 0.5
RSS_MB_MAX = 60.0
IDLE_S, IDLE_PERCENT_MAX = 10.0, 0.5
ROWS_FEW, ROWS_MANY = 1_000, 1_000_000
BOOTS, BOOT_RATIO_MAX = 30, 1.2
WAIT_S, SCAN_AGAIN_S = 20.0, 0.3
CODE = "4891028705949"


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with _compiled(folder / "compiled"):
            yield from _start_rows(folder)
            yield from _sold_rows(folder)
        yield _rows_row(folder)


@contextlib.contextmanager
def _compiled(there: Path) -> Iterator[None]:
    """Let every program started meanwhile keep its compiled files in `there`, whatever the caller's shell says."""
    before = dict(os.environ)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(there)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


# To ready ----------------------------------------------------------------------------------------------------------------

def _start_rows(folder: Path) -> Iterator[dict[str, Any]]:
    there = folder / "start"
    there.mkdir()
    boxes = Boxes(there)
    channels = {"gateway": opened(there, PROFILE)["gateway"]}      # not every shop has a card terminal and its pyserial
    for channel in channels.values():
        channel.start()
    wiring.write_rules(there, 1)
    wiring.write_box(there, boxes, run_dir=there / "run", broker_port=1, printer_port=1, channels=channels)
    devices = ScannerModel(there / "dev" / "scanner"), KeypadModel(there / "dev" / "keypad")
    ours: list[float] = []
    bare: list[float] = []
    for n in range(STARTS + 1):                      # the first pair compiles, warms the page cache and is not counted
        for side in (0, 1) if n % 2 else (1, 0):
            spent = _bare_ms() if side else _started_ms(there, devices[0])
            if n:
                (bare if side else ours).append(spent)
    settled = _started_ms(there, devices[0], SETTLED_S)
    for device in devices:
        device.unplug()
    for channel in channels.values():
        channel.stop()
    value, floor = statistics.median(ours), statistics.median(bare)
    ratio = statistics.median(a / b for a, b in zip(ours, bare, strict=True))
    yield _row("boot.ready_cpu", value, "ms", floor, ratio, READY_RATIO_MAX, ratio)
    # Told without a goal: with what a scan can do without, the broker's library and that of the QR, loaded a second later.
    yield {"name": "boot.settled_cpu", "value": round(settled, 2), "unit": "ms", "floor": round(floor, 2),
           "ratio": round(settled / floor, 3), "goal": None, "holds": True}


def _started_ms(there: Path, scanner: ScannerModel, after_s: float = 0.0) -> float:
    """Processor milliseconds until READY=1 was said and a scan stood in the basket, or `after_s` later."""
    address = there / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(address))
        line.settimeout(WAIT_S)
        daemon = subprocess.Popen([sys.executable, "-m", "device", "run", "--config", str(there / "box.toml")],
                                  env=os.environ | wiring.unit_memory() | {"NOTIFY_SOCKET": str(address)},
                                  stderr=subprocess.DEVNULL)
        try:
            while b"READY=1" not in line.recv(4096):
                pass
            _accept(there, scanner)
            time.sleep(after_s)
            return _cpu_ms(daemon.pid)
        finally:
            daemon.kill()
            daemon.wait()


def _accept(there: Path, scanner: ScannerModel) -> None:
    """Scan once; again only when that one was lost, for a reader that just opens drops what came before it."""
    lines, until_s, again_s = _lines(there), time.monotonic() + WAIT_S, 0.0
    while _lines(there) == lines:
        now_s = time.monotonic()
        if now_s > until_s:
            raise RuntimeError("no scan was accepted")
        if now_s > again_s:
            with contextlib.suppress(RuntimeError):  # nobody reads it yet
                scanner.scan(CODE)
                again_s = now_s + SCAN_AGAIN_S
        time.sleep(0.01)


def _lines(there: Path) -> int:
    return ask(there / "run" / "daemon.sock", "screen")["screen"]["lines_total"]


def _bare_ms() -> float:
    code = f"import time, {PACKAGES}\nprint(time.process_time() * 1000)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)


def _cpu_ms(pid: int) -> float:
    """Of every thread that lives; a thread that ended is in the process's own ticks only, which are too coarse."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6


# After a sale ------------------------------------------------------------------------------------------------------------

def _sold_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Of the second counter: the first one's daemon compiles what a box brings along compiled, and its heap shows that for ever."""
    with _sold(folder / "first"):
        pass
    with _sold(folder / "second") as counter:
        pid = counter.daemon.pid
        assert pid is not None
        value = _resident_kb(pid) / 1000
        yield _row("boot.rss_after_a_sale", value, "MB", None, None, RSS_MB_MAX, value)
        time.sleep(2)
        before, start = _cpu_ms(pid), time.monotonic()
        time.sleep(IDLE_S)
        percent = (_cpu_ms(pid) - before) / 10 / (time.monotonic() - start)
        yield _row("boot.idle_cpu", percent, "%", None, None, IDLE_PERCENT_MAX, percent)


@contextlib.contextmanager
def _sold(folder: Path) -> Iterator[Counter]:
    """A counter that has sold once, and whose record the cloud has."""
    counter = Counter(folder, profile=PROFILE)
    counter.start()
    try:
        counter.scan(CODE)
        counter.key("PAY")
        _until(lambda: counter.state()["phase"] == "AWAITING")
        counter.phone_scan("wechat", None, "pay")
        _until(lambda: counter.receipts() and counter.quiet() and counter.cloud_records()["tokens"])
        yield counter
    finally:
        counter.stop()


def _resident_kb(pid: int) -> int:
    """Counted page by page: `VmRSS` of the status adds up what each core noted last, and may be megabytes off."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split("Rss:")[1].split()[0])


def _until(done: Any) -> None:
    until_s = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > until_s:
            raise RuntimeError("the counter never got so far")
        time.sleep(0.05)


# A million rows ----------------------------------------------------------------------------------------------------------

def _rows_row(folder: Path) -> dict[str, Any]:
    """Journal opened and books folded.  The long journal stands just before it would say its books again: the worst moment."""
    few, many = folder / "few", folder / "many"
    for there, last in ((few, ROWS_FEW), (many, RESTATE_ROWS * 2)):
        there.mkdir()
        till = Till(there)
        while till.journal.last < last - 10:
            till.qr_sale()
        till.close()
    _lengthen(many / "journal.db", ROWS_MANY)
    ours: list[float] = []
    floor: list[float] = []
    for n in range(BOOTS):
        for side in (0, 1) if n % 2 else (1, 0):
            (floor if side else ours).append(_boot_ms(few if side else many))
    shutil.rmtree(many)
    ratio = statistics.median(a / b for a, b in zip(ours, floor, strict=True))
    return _row("boot.fold_1000000_rows", statistics.median(ours), "ms", statistics.median(floor), ratio, BOOT_RATIO_MAX, ratio)


def _lengthen(path: Path, rows_wanted: int) -> None:
    """Put copies of a journal's rows before them, until it has as many as wanted."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    kept = db.execute("SELECT n, mark, facts FROM journal ORDER BY n").fetchall()
    refs = db.execute("SELECT ref, n FROM refs").fetchall()
    more = rows_wanted - kept[-1][0]
    short = [facts for _, _, facts in kept if len(facts) < 300]
    db.execute("BEGIN")
    db.execute("DELETE FROM journal")
    db.execute("DELETE FROM refs")
    db.executemany("INSERT INTO journal VALUES (?, 0, ?)", ((n + 1, short[n % len(short)]) for n in range(more)))
    db.executemany("INSERT INTO journal VALUES (?, ?, ?)", ((n + more, mark, facts) for n, mark, facts in kept))
    db.executemany("INSERT INTO refs VALUES (?, ?)", ((ref, n + more) for ref, n in refs))
    db.execute("UPDATE meta SET value = value + ? WHERE key = 'fold_from'", (more,))
    db.execute("COMMIT")
    db.close()


def _boot_ms(there: Path) -> float:
    start = time.perf_counter()
    journal = Journal(there / "journal.db", identity=IDENTITY)
    box = Box(journal)
    spent = (time.perf_counter() - start) * 1e3
    assert box.books.chain.seq
    journal.close()
    return spent


def _row(name: str, value: float, unit: str, floor: float | None, ratio: float | None, goal: float,
         judged: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "floor": floor and round(floor, 2),
            "ratio": ratio and round(ratio, 3), "goal": goal, "holds": judged <= goal}
