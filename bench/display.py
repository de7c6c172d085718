"""How fast the customer's screen is, against the bare cost of the same picture.

The floor of a frame is Pillow drawing that very picture, every position and size already decided, into an image of the
whole screen, packing it and writing it to an open file.  Both take turns in blocks, so that a busy machine is unfair to
both alike; a ratio is the median of the blocks' ratios.  Files stand in memory where there is such a folder, as the file display
asks for: on a disk, ext4 flushes each frame that is renamed over the last one, and the slowest hundredth takes three floors.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from device.drivers import display_draw, qr_bits
from device.drivers.display_fb import FbDisplay, Geometry
from device.drivers.display_file import FileDisplay
from device.drivers.display_pixels import packed
from device.txn.screen import Line, Screen

WIDTH, HEIGHT = 800, 480
BLOCKS, FRAMES = 40, 5                  # frames a block, each of another basket
RATIO_MAX = 2.0
QR_MS_MAX = 15.0
QR_URL_CHARS = 84
MEMORY = "/dev/shm"
NAMES = ("农夫山泉饮用天然水 550ml", "康师傅红烧牛肉面五连包", "香蕉", "可口可乐 330ml 罐装", "奥利奥夹心饼干 97g",
         "清风原木纯品抽纸")

Call = tuple[str, tuple[Any, ...], dict[str, Any]]


def rows() -> list[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`; values in milliseconds."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder:
        there = Geometry(WIDTH, HEIGHT, "XRGB8888", WIDTH * 4)
        fb = os.path.join(folder, "fb0")
        with open(fb, "wb") as file:
            file.truncate(WIDTH * HEIGHT * 4)
        return [*_frame_rows("display.fb_basket", FbDisplay(fb, geometry=there), folder),
                *_frame_rows("display.file_basket", FileDisplay(os.path.join(folder, "frame"), WIDTH, HEIGHT), folder),
                _qr_row(), _first_qr_row()]


def _frame_rows(name: str, display: Any, folder: str) -> list[dict[str, Any]]:
    screens = [_basket(n) for n in range(BLOCKS * FRAMES + 1)]
    ours: list[list[float]] = []
    bare: list[list[float]] = []

    async def measure() -> None:
        await display.show(screens[0], 0)
        with open(os.path.join(folder, "bare"), "w+b", buffering=0) as file:
            for block in range(BLOCKS):
                part = screens[1 + block * FRAMES:1 + (block + 1) * FRAMES]
                scripts = [_script(screen) for screen in part]
                turns = [_ours, _bare] if block % 2 else [_bare, _ours]
                for turn in turns:
                    if turn is _ours:
                        ours.append([await _ours(display, screen) for screen in part])
                    else:
                        bare.append([_bare(script, file) for script in scripts])
        await display.close()

    asyncio.run(measure())
    value, floor = (statistics.median(ms for block in side for ms in block) for side in (ours, bare))
    ratio = statistics.median(statistics.median(a) / statistics.median(b) for a, b in zip(ours, bare, strict=True))
    value_p99, floor_p99 = (_p99([ms for block in side for ms in block]) for side in (ours, bare))
    return [_row(name, value, floor, ratio), _row(name + "_p99", value_p99, floor_p99, value_p99 / floor_p99)]


async def _ours(display: Any, screen: Screen) -> float:
    start = time.perf_counter()
    await display.show(screen, 0)
    return (time.perf_counter() - start) * 1e3


def _bare(script: list[Call], file: Any) -> float:
    from PIL import Image, ImageDraw

    start = time.perf_counter()
    image = Image.new("RGB", (WIDTH, HEIGHT), display_draw.PAPER)
    draw = ImageDraw.Draw(image)
    for verb, args, named in script:
        getattr(draw, verb)(*args, **named)
    os.pwrite(file.fileno(), packed(image, "XRGB8888"), 0)
    return (time.perf_counter() - start) * 1e3


class _Recorder:
    """Stands in for a sheet's pencil and keeps each call with its place in the whole frame."""

    def __init__(self, left: int, top: int, script: list[Call]) -> None:
        self._left, self._top, self._script = left, top, script

    def __getattr__(self, verb: str) -> Any:
        def keep(place: tuple[float, ...], *args: Any, **named: Any) -> None:
            moved = tuple(v + (self._top if n % 2 else self._left) for n, v in enumerate(place))
            self._script.append((verb, (moved, *args), named))
        return keep


def _script(screen: Screen) -> list[Call]:
    """Every stroke of one frame, ready to be repeated."""
    script: list[Call] = []
    for panel in display_draw.layout(screen, WIDTH, HEIGHT, 0):
        sheet = display_draw._Sheet(panel.box, display_draw.PAPER, HEIGHT)
        sheet.draw = _Recorder(panel.box[0], panel.box[1], script)
        display_draw.PAINTERS[panel.painter](sheet, *panel.args)
    return script


def _qr_row() -> dict[str, Any]:
    qr_bits.warm()
    spent = []
    for n in range(15):
        url = f"https://qr.alipay.com/bax{n:04d}".ljust(QR_URL_CHARS, "x")
        start = time.process_time()
        qr_bits.matrix(url)
        spent.append((time.process_time() - start) * 1e3)
    value = statistics.median(spent)
    return {"name": "display.qr_cpu", "value": round(value, 2), "unit": "ms", "floor": None, "ratio": None, "goal": QR_MS_MAX,
            "holds": value <= QR_MS_MAX}


def _first_qr_row() -> dict[str, Any]:
    """Told without a goal: what a process spends on its first symbol.  The daemon does so a second after its first frame."""
    code = "import time; from device.drivers import qr_bits; start = time.process_time(); qr_bits.warm(); " \
           "print((time.process_time() - start) * 1e3)"
    spent = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)]
    return {"name": "display.first_qr_cpu", "value": round(statistics.median(spent), 2), "unit": "ms", "floor": None,
            "ratio": None, "goal": None, "holds": True}


def _basket(n: int) -> Screen:
    lines = tuple(Line(NAMES[(n + k) % len(NAMES)], str(1 + (n + k) % 9), 100 + 37 * ((n + k) % 80)) for k in range(6))
    total = sum(line.amount_fen for line in lines) + n
    return Screen("BASKET", "阳光便利店", lines=lines, lines_total=6 + n, total_fen=total, big=f"¥{total // 100}.{total % 100:02d}")


def _p99(values: list[float]) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * 99 // 100)]


def _row(name: str, value: float, floor: float, ratio: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": "ms", "floor": round(floor, 2), "ratio": round(ratio, 2),
            "goal": RATIO_MAX, "holds": ratio <= RATIO_MAX}
