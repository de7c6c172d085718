"""The house plan holds: arrows drawn from the source point down, or sideways inside their folder; never up.

The plan itself is one literal table in docs/floors.py.
"""

from __future__ import annotations

import pytest

from docs.arrows import arrows_of, breaches, circles, floor_of, sources_of
from tests import ROOT

SOURCES = sources_of(ROOT)

# Enough of a house that the planted arrows have somewhere to point.
HOUSE = {path: "" for path in (
    "device/__init__.py", "device/types.py", "device/clock.py", "device/config.py", "device/box.py", "device/daemon.py",
    "device/txn/__init__.py", "device/txn/inputs.py", "device/txn/machine.py", "device/store_forward/journal.py",
    "device/store_forward/token.py", "device/drivers/__init__.py", "device/drivers/contract.py", "device/drivers/printer/tcp.py",
    "device/drivers/printer/driver.py", "device/drivers/printer/escpos_bytes.py", "device/drivers/input/scanner_evdev.py",
    "device/drivers/registry.py", "device/mqtt/client.py", "device/runner.py", "fleet/records/collector.py", "sim/demo.py",
)}

BAD = [
    ("device/types.py", "from device.box import Box", "up"),
    ("device/types.py", "import socket", "socket"),
    ("device/types.py", "import PIL", "standard library"),
    ("device/types.py", "def f(path):\n    return open(path)", "open()"),
    ("device/types.py", "def f(path):\n    return path.open()", "open anything"),
    ("device/drivers/printer/escpos_bytes.py", "import time", "time"),
    ("device/drivers/printer/escpos_bytes.py", "from device.txn.inputs import Input", "up"),
    ("device/txn/inputs.py", "from device.txn.machine import decide", "across"),
    ("device/txn/machine.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from device.box import Box", "up"),
    ("device/txn/machine.py", "def f():\n    import random\n    return random", "random"),
    ("device/txn/machine.py", "import asyncio", "asyncio"),
    ("device/txn/machine.py", "from device.clock import Clock", "clock"),
    ("device/txn/machine.py", "import device.config", "config"),
    ("device/txn/machine.py", "from ..store_forward import journal", "up"),
    ("device/txn/machine.py", "import datetime\nnoon = datetime.datetime.now()", "clock"),
    ("device/txn/machine.py", "from importlib import import_module\nimport_module('device.daemon')", "up"),
    ("device/store_forward/journal.py", "from device.txn.inputs import Input", "past"),
    ("device/store_forward/journal.py", "import device.mqtt.client", "up"),
    ("device/drivers/printer/tcp.py", "from device.txn import machine", "past"),
    ("device/drivers/printer/tcp.py", "from device.drivers.input import scanner_evdev", "another"),
    ("device/drivers/printer/tcp.py", "from device.mqtt import client", "another"),
    ("device/drivers/printer/tcp.py", "from device.store_forward.journal import Journal", "past"),
    ("device/drivers/printer/tcp.py", "from escpos.printer import Dummy", "heavy"),
    ("device/box.py", "import asyncio", "asyncio"),
    ("device/box.py", "from device.daemon import main", "up"),
    ("device/runner.py", "import fleet.records.collector", "up"),
    ("device/daemon.py", "from sim import demo", "up"),
    ("fleet/records/collector.py", "from device.txn.machine import decide", "past"),
    ("fleet/records/collector.py", "import sim.demo", "up"),
    ("device/txn/deeper/thought.py", "", "no floor"),
]

GOOD = [
    ("device/drivers/printer/tcp.py", "from device.drivers import contract, printer_bytes, printer_driver"),
    ("device/drivers/printer/tcp.py", "def f():\n    from escpos.printer import Dummy\n    return Dummy"),
    ("device/drivers/registry.py", "from device.drivers import printer_tcp, scanner_evdev"),
    ("device/txn/machine.py", "from datetime import datetime\n\ndef f(wall):\n    return datetime.fromisoformat(wall)"),
    ("device/box.py", "from device.txn.machine import decide\nfrom device.store_forward.journal import Journal"),
    ("fleet/records/collector.py", "from device.store_forward.token import parse"),
    ("sim/demo.py", "import device.daemon, fleet.records.collector"),
]


@pytest.mark.parametrize(("path", "text", "word"), BAD)
def test_a_planted_arrow_is_caught(path: str, text: str, word: str) -> None:
    found = [str(breach) for breach in breaches(HOUSE | {path: text}) if breach.source == path]
    assert len(found) == 1 and word in found[0], found


@pytest.mark.parametrize(("path", "text"), GOOD)
def test_what_the_plan_allows_is_let_through(path: str, text: str) -> None:
    assert breaches(HOUSE | {path: text}) == []


def test_every_arrow_of_the_source_points_down_or_sideways() -> None:
    assert [str(breach) for breach in breaches(SOURCES)] == []


def test_a_planted_circle_is_caught() -> None:
    ring = {"device/box.py": "def f():\n    import device.runner", "device/runner.py": "import device.daemon",
            "device/daemon.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from device.box import Box"}
    assert circles(HOUSE | ring) == {("device/box.py", "device/daemon.py", "device/runner.py")} and circles(HOUSE) == set()


def test_no_files_lean_on_each_other_in_a_circle() -> None:
    """Two pairs apart, each one thought in two files: a price list names the type of a label's reading, which needs its check
    digit; a played channel and the desk where its codes are made."""
    assert circles(SOURCES) == {("device/drivers/input/gs1_bytes.py", "device/goods.py"),
                                ("sim/channels/wechat.py", "sim/channels/wechat_codes.py")}


def test_the_source_is_really_read() -> None:
    """A search that finds no file passes everything."""
    assert "device/txn/machine.py" in SOURCES and "device/txn/inputs.py" in SOURCES
    assert "device/types.py" in {arrow.target for arrow in arrows_of("device/txn/inputs.py", SOURCES)}
    assert len({floor_of(path) for path in SOURCES}) >= 8
