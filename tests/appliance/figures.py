"""The appliance's figures on the emulated machine, one JSON line each: `.venv/bin/python -m tests.appliance.figures`.

Every figure is of software emulation on this host: ratios and bytes carry over to a board, seconds do not.  Each stands by itself:
one that cannot be had is a line that says why.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import ImageChops

from tests.appliance.goods import TEA
from tests.appliance.image import BuiltImage
from tests.appliance.machine import Machine
from tests.appliance.ready import Ready, made_ready
from tests.appliance.rig_line import RigError
from tests.appliance.shop import Doors, Shop

SALES, IDLE_S, SCANS = 30, 30, 10
WITHOUT_US = " ".join(f"systemd.mask={unit}" for unit in (
    "tillbox.service", "tillbox-console@ttyAMA0.service", "tillbox-check.timer", "tillbox-first.service", "tillbox-slot.socket",
    "tillbox-slot-trial.timer"))
OURS = r"""
import glob, json
rows = {}
for each in glob.glob("/proc/[0-9]*"):
    try:
        words = open(each + "/cmdline", "rb").read().split(b"\0")
        if not any(b"tillbox" in word for word in words) or b"/run/rig" in b" ".join(words):
            continue
        for line in open(each + "/smaps_rollup"):
            name, _, size = line.partition(":")
            if name in ("Rss", "Pss"):
                rows.setdefault(b" ".join(words).decode()[:80], {})[name.lower() + "_kb"] = int(size.split()[0])
    except OSError:
        pass
print(json.dumps(rows))
"""
CPU = "set -- $(cat /proc/$(systemctl show -p MainPID --value tillbox)/stat); echo $((${14} + ${15})); cut -d' ' -f1 /proc/uptime"


def main() -> int:
    room, doors = Path(tempfile.mkdtemp(prefix="till-figures-")), Doors()
    try:
        image = BuiltImage.found()
        say("image_size", lambda: sizes(image))
        ready = made_ready(image, room, doors)
        shop, machine = Shop(_copied(ready, room), doors), ready.machine()
        try:
            shop.start()
            with_us = say("boot_to_first_sale", lambda: boot_to_sale(shop, machine))
            say("memory", lambda: memory(machine))
            say("cpu_idle", lambda: idle(shop))
            say("scan_to_pixel", lambda: scan_to_pixel(shop))
            say("card_bytes", lambda: card_bytes(shop))
        finally:
            machine.end()
            shop.stop()
        say("boot_without_us", lambda: boot_without_us(ready, with_us))
    finally:
        doors.close()
        shutil.rmtree(room, ignore_errors=True)
    return 0


def say(name: str, figure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        told = figure()
    except (AssertionError, RuntimeError, OSError) as why:
        told = {"failed": str(why)[:300]}
    print(json.dumps({"figure": name} | told), flush=True)
    return told


def sizes(image: BuiltImage) -> dict[str, Any]:
    slot = next(image.folder.glob("*.slot"))
    return {"slot_bytes": slot.stat().st_size, "kernel_bytes": (image.folder / "Image").stat().st_size,
            "initrd_bytes": (image.folder / "initrd").stat().st_size}


def boot_to_sale(shop: Shop, machine: Machine) -> dict[str, Any]:
    """From the power switch until the first goods stand in a basket, on the guest's own clock."""
    machine.start()
    machine.rig.await_up()
    shop.stand(machine)
    shop.await_serving()
    served = machine.rig.ask("up")
    shop.scan(TEA)
    sold = machine.rig.ask("up")
    target = target_s(machine)
    shop.key("CANCEL")
    return {"serving_s": served, "first_goods_s": sold, "multi_user_s": target}


def boot_without_us(ready: Ready, with_us: dict[str, Any]) -> dict[str, Any]:
    machine = ready.machine(ready.boots.with_words(WITHOUT_US))
    try:
        machine.start()
        machine.rig.await_up()
        target = target_s(machine)
    finally:
        machine.end()
    ratio = {"ratio": round(with_us["first_goods_s"] / target, 3)} if "first_goods_s" in with_us else {}
    return {"multi_user_s": target} | ratio


def target_s(machine: Machine) -> float:
    """When multi-user.target was reached, seconds of the guest's monotonic clock."""
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s:
        said = machine.rig.sh("systemctl show -p ActiveEnterTimestampMonotonic --value multi-user.target").strip()
        if said.isdigit() and int(said):
            return int(said) / 1e6
        time.sleep(1)
    raise RigError("multi-user.target was never reached")


def memory(machine: Machine) -> dict[str, Any]:
    machine.rig.put("/run/rig/ours.py", OURS.encode())
    rows = json.loads(machine.rig.sh("python3 -S -E /run/rig/ours.py"))
    return {"rss_kb": sum(row["rss_kb"] for row in rows.values()), "pss_kb": sum(row["pss_kb"] for row in rows.values()),
            "each": rows}


def idle(shop: Shop) -> dict[str, Any]:
    shop.until(lambda: shop.state()["phase"] == "IDLE", what="an idle till")
    time.sleep(10)
    first = shop.machine.rig.sh(CPU).split()
    time.sleep(IDLE_S)
    last = shop.machine.rig.sh(CPU).split()
    ticks, passed = int(last[0]) - int(first[0]), float(last[1]) - float(first[1])
    return {"cpu_percent": round(ticks / passed, 2), "over_s": round(passed, 1)}


def scan_to_pixel(shop: Shop) -> dict[str, Any]:
    """From the Enter behind a barcode until another picture is on the screen, on this host's clock."""
    took: list[float] = []
    machine = shop.machine
    for _ in range(SCANS):
        for key in TEA:
            machine.press(key, scanner=True)
        time.sleep(0.02)
        before = machine.screen()
        began = time.monotonic()
        machine.press("ret", scanner=True, gap_s=0.01)
        while ImageChops.difference(before, machine.screen()).getbbox() is None and time.monotonic() - began < 10:
            pass
        took.append(time.monotonic() - began)
        time.sleep(0.5)
    shop.key("CANCEL")
    took.sort()
    return {"median_ms": round(took[len(took) // 2] * 1000), "most_ms": round(took[-1] * 1000), "scans": SCANS}


def card_bytes(shop: Shop) -> dict[str, Any]:
    shop.await_health("printer", "ok")
    shop.until(lambda: shop.state()["phase"] == "IDLE", what="an idle till")
    shop.machine.rig.sh("sync")
    before = shop.machine.disk_stats()
    for _ in range(SALES):
        shop.scan(TEA)
        shop.key("CASH")
        shop.until(lambda: shop.state()["phase"] in ("PAID", "IDLE") and not shop.state()["papers"], what="the paper")
    shop.until(shop.quiet, 120, "the records")
    shop.machine.rig.sh("sync")
    after = shop.machine.disk_stats()
    wrote = after["wr_bytes"] - before["wr_bytes"]
    return {"sales": SALES, "bytes": wrote, "bytes_for_1000": wrote * 1000 // SALES,
            "flushes": after["flush_operations"] - before["flush_operations"]}


def _copied(ready: Ready, room: Path) -> Path:
    return Path(shutil.copytree(ready.frozen, room / "counter"))


if __name__ == "__main__":
    sys.exit(main())
