"""The scanner: from the last key to `Scanned`, a burst at full USB speed beside a slow card, and how soon a new one is seen.

The key's way is the real one: bytes of a kernel's events into a FIFO, thread, decoder, price list.  The kernel's queue of 64
events is a pipe that counts: what does not fit is lost, as it would be there.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any

from device.drivers.input.evdev_bytes import EV_KEY, EV_SYN, SYN_DROPPED, event_bytes
from device.drivers.input.scanner_evdev import EvdevScanner
from device.drivers.input.scanner_keys import key_codes
from device.drivers.input.scanner_strangers import LOOK_MS, Claim, Strangers
from device.goods import PriceList
from device.runner import REOPEN_MS
from device.txn.inputs import Scanned
from device.types import Item
from sim.devices.scanner import ScannerModel

TEA = "4891028705949"
PRICES = PriceList([Item(TEA, "茶", "Tea", 700)])
SCANS, BURST, LOOKS, NODES = 300, 40, 200, 8
KEY_MS_MAX, SEEN_MS_MAX, IDLE_MS_MAX = 1.0, 2000.0, 5.0
KERNEL_EVENTS = 64
COMMIT_S = 0.06           # the loop stands as long as a slow card takes


def rows() -> list[dict[str, Any]]:
    return [_key(), _burst(), _plug(), _idle()]


def _key() -> dict[str, Any]:
    """Milliseconds from the Enter that ends 13 digits to `Scanned`, with its goods."""
    took = sorted(asyncio.run(_keys()))
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    return {"name": "scan.key_to_scanned", "ms": round(p50, 3), "p99_ms": round(p99, 3), "goal_ms": KEY_MS_MAX, "scans": SCANS,
            "holds": p50 < KEY_MS_MAX}


async def _keys() -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        model = ScannerModel(Path(folder) / "scanner")
        inputs = EvdevScanner(str(model.path), PRICES.look_up).inputs()
        await anext(inputs)
        took, at_ms = [], 0
        for _ in range(SCANS):
            at_ms += 1000
            digits = enumerate(key_codes(TEA))
            model.send(b"".join(_report(code, value, at_ms + n) for n, (code, _, _) in digits for value in (1, 0)))
            waits = asyncio.ensure_future(anext(inputs))
            await asyncio.sleep(0.003)                # the digits are read; the scanner's last key comes
            began = time.perf_counter()
            model.send(_report(28, 1, at_ms + 14))
            said = await waits
            took.append((time.perf_counter() - began) * 1000)
            assert isinstance(said, Scanned) and said.found is not None
        await inputs.aclose()
        model.unplug()
        return took


def _report(code: int, value: int, at_ms: int) -> bytes:
    return (event_bytes((4, 4, 458_000 + code, at_ms)) + event_bytes((EV_KEY, code, value, at_ms))
            + event_bytes((EV_SYN, 0, 0, at_ms)))


class _Kernel:
    """A pipe that keeps as many events as the kernel does for one reader."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.lost = 0

    def report(self, code: int, value: int) -> None:
        at_ms = time.monotonic_ns() // 1_000_000
        waiting = int.from_bytes(fcntl.ioctl(self.writer, termios.FIONREAD, b"\0" * 4), "little") // 24
        if waiting + 4 > KERNEL_EVENTS:
            self.lost += 1
            if waiting < KERNEL_EVENTS:
                os.write(self.writer, event_bytes((EV_SYN, SYN_DROPPED, 0, at_ms)))
            return
        os.write(self.writer, _report(code, value, at_ms))


def _burst() -> dict[str, Any]:
    """13 digits and Enter, a report each millisecond, again and again, while the loop stands for a commit in every scan."""
    kernel = _Kernel()

    def beam() -> None:
        for _ in range(BURST):
            for code, _, _ in key_codes(TEA + "\r"):
                for value in (1, 0):
                    kernel.report(code, value)
                    time.sleep(0.001)
        os.close(kernel.writer)

    async def till() -> int:
        inputs = EvdevScanner(kernel.reader, PRICES.look_up).inputs()
        await anext(inputs)
        hand, whole = threading.Thread(target=beam), 0
        hand.start()
        async for said in inputs:
            whole += isinstance(said, Scanned) and said.symbol == TEA
            time.sleep(COMMIT_S)  # noqa: ASYNC251  this is what it is about
        hand.join()
        return whole

    whole = asyncio.run(till())
    return {"name": "scan.full_usb_speed", "scans": BURST, "whole": whole, "reports_lost": kernel.lost,
            "loop_stands_ms": COMMIT_S * 1000, "holds": whole == BURST and not kernel.lost}


def _plug() -> dict[str, Any]:
    """Milliseconds from a node's return until it is read, by the runner's own pace of looking."""

    async def till() -> float:
        with tempfile.TemporaryDirectory() as folder:
            model = ScannerModel(Path(folder) / "scanner")
            model.unplug()
            scanner = EvdevScanner(str(model.path), PRICES.look_up)

            async def listen() -> float:
                while True:
                    async for said in scanner.inputs():
                        if said == scanner.reads.ok():
                            return time.perf_counter()
                    await asyncio.sleep(REOPEN_MS / 1000)

            task = asyncio.ensure_future(listen())
            await asyncio.sleep(0.05)                 # it has just looked in vain: the longest wait there is
            began = time.perf_counter()
            model.plug()
            seen = await task
            await scanner.close()
            model.unplug()
            return (seen - began) * 1000

    took = asyncio.run(till())
    return {"name": "scan.hot_plug", "ms": round(took), "goal_ms": SEEN_MS_MAX, "holds": took < SEEN_MS_MAX}


def _idle() -> dict[str, Any]:
    """CPU milliseconds a second of watching for keyboards that nobody set up, when none comes."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder, "class/input")
        listed.mkdir(parents=True)
        for n in range(NODES):
            (listed / f"event{n}").symlink_to(f"../../devices/platform/usb1/1-1/1-1.{n}/1-1.{n}:1.0/input/input{n}/event{n}")
        strangers = Strangers((Claim(path=f"{folder}/by-path-scanner"),), sys=folder, dev=folder)
        strangers.look()
        began = time.process_time()
        for _ in range(LOOKS):
            strangers.look()
        a_second = (time.process_time() - began) * 1000 / LOOKS * 1000 / LOOK_MS
        strangers.let_go()
    return {"name": "scan.watch_idle", "cpu_ms_a_second": round(a_second, 3), "goal_ms": IDLE_MS_MAX, "nodes": NODES,
            "holds": a_second < IDLE_MS_MAX}
