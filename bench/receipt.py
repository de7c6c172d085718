"""CPU time from a receipt's parts to its bytes: twelve lines of goods, as text and as dots, on 80 mm paper.

The median of many; what the first receipt of a dialect that draws pays besides, Pillow and its font, has a row of its own.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.till import GOODS, TERMS
from device.drivers.printer import escpos_bytes as escpos
from device.drivers.printer.dialect_bytes import DIALECTS, Page
from device.drivers.printer.raster import Raster
from device.txn.books import Line, Sale, Tender
from device.txn.receipt import sale_paper
from device.types import Stamp

CPU_MS_MAX = 30.0
FIRST_CPU_MS_MAX = 400.0
LINES, ROUNDS = 12, 40
FIRST = """
import time
from bench.receipt import PAPER, encoders
encode = encoders()["raster"]
at = time.process_time()
encode(PAPER, 48)
print((time.process_time() - at) * 1000)
"""


def _paper():
    goods = [GOODS[n % len(GOODS)].item for n in range(LINES)]
    lines = [Line(i.gtin, i.name_zh, i.name_en, 2000, i.price_fen, 2 * i.price_fen) for i in goods]
    total = sum(line.amount_fen for line in lines)
    sale = Sale("000001K7QF00000042X9", lines, [Tender("wechat", total, "000001K7QF00000042X9")], total, "1",
                "2026-11-24T10:00:00+08:00")
    return sale_paper(TERMS, sale, Stamp("b1", 1, "2026-11-24T10:00:00+08:00", "ntp"))


PAPER = _paper()


def encoders() -> dict[str, Callable[..., bytes]]:
    """Who makes bytes, by the name of its row."""
    return {"text": escpos.paper_bytes, **{name: Page(DIALECTS[name], Raster()) for name in ("western", "raster")}}


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    for name, encode in encoders().items():
        yield _row(f"receipt.bytes_{name}", statistics.median(_cpu_ms(encode) for _ in range(ROUNDS)), CPU_MS_MAX)
    first = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, check=True)
    yield _row("receipt.bytes_raster_first", float(first.stdout), FIRST_CPU_MS_MAX)


def _cpu_ms(encode: Callable[..., bytes]) -> float:
    began = time.process_time()
    encode(PAPER, escpos.COLUMNS_80MM)
    return (time.process_time() - began) * 1000


def _row(name: str, cpu_ms: float, goal: float) -> dict[str, Any]:
    return {"name": name, "value": round(cpu_ms, 2), "unit": "cpu_ms", "floor": None, "ratio": None, "goal": goal,
            "holds": cpu_ms <= goal}
