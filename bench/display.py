"""How fast the customer's screen is, against the bare cost of the same picture.

The floor of a frame is Pillow drawing that very picture, every position and size already decided, into an image of the
whole screen, packing it and writing it to an open file.  Both take turns in blocks, so that a busy machine is unfair to
both alike; a ratio is the median of the blocks' ratios.  The floor of a change is the same of the changed panels alone: their
strokes into one image of their size each, packed, and copied row by row or in one piece to where they stand.  Files stand in
memory where there is such a folder, as the file display asks for: on a disk, ext4 flushes each frame that is renamed over the
last one, and the slowest hundredth takes three floors.
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

from device.drivers import qr_bits
from device.drivers.display import draw as display_draw
from device.drivers.display.fb import FbDisplay, Geometry
from device.drivers.display.file import FileDisplay
from device.drivers.display.pixels import BYTES_OF, Box, packed, spans, turned, turned_box
from device.txn.screen import Line, Screen

WIDTH, HEIGHT = 800, 480
BLOCKS, FRAMES = 40, 5                  # frames a block, each of another basket
RATIO_MAX = 2.0
CHANGE_RATIO_MAX = 1.5
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
                *_change_rows(folder),
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


def _change_rows(folder: str) -> list[dict[str, Any]]:
    """What a scan and a second of the countdown change, on both pixel formats and on a panel that hangs upright."""
    basket = [_basket(n) for n in range(BLOCKS * FRAMES + 1)]
    pay = Screen("AWAITING", "请用微信扫码付款", big="¥33.99", total_fen=3399, qr="weixin://wxpay/bizpayurl?pr=AbCdEfG00",
                 wallets=("微信", "WeChat"), words=("苹果 27", "APPLE 27"), deadline=("b", 600_000))
    cases = [("display.change_scan", "XRGB8888", 0, [(screen, 0) for screen in basket]),
             ("display.change_clock", "XRGB8888", 0, [(pay, n * 1000) for n in range(BLOCKS * FRAMES + 1)]),
             ("display.change_scan_565", "RGB565", 0, [(screen, 0) for screen in basket]),
             ("display.change_scan_turned", "XRGB8888", 90, [(screen, 0) for screen in basket])]
    return [_change_row(name, form, rotation, shown, folder) for name, form, rotation, shown in cases]


def _change_row(name: str, form: str, rotation: int, shown: list[tuple[Screen, int]], folder: str) -> dict[str, Any]:
    wide, high = (HEIGHT, WIDTH) if rotation == 90 else (WIDTH, HEIGHT)
    there = Geometry(wide, high, form, wide * BYTES_OF[form])
    path = os.path.join(folder, "changed")
    with open(path, "wb") as file:
        file.truncate(there.line_length * high)
    display = FbDisplay(path, rotation=rotation, geometry=there)
    ratios, ours, bare = [], [], []

    async def measure() -> None:
        await display.show(*shown[0])
        last = shown[0]
        with open(os.path.join(folder, "bare"), "w+b", buffering=0) as file:
            for block in range(BLOCKS):
                mine, floor = [], []
                for now in shown[1 + block * FRAMES:1 + (block + 1) * FRAMES]:
                    strokes = _changed(last, now)
                    if block % 2:                    # taking turns in who is first
                        floor.append(_bare_change(strokes, there, rotation, file))
                    start = time.perf_counter()
                    await display.show(*now)
                    mine.append((time.perf_counter() - start) * 1e3)
                    if not block % 2:
                        floor.append(_bare_change(strokes, there, rotation, file))
                    last = now
                ours.extend(mine)
                bare.extend(floor)
                ratios.append(statistics.median(mine) / statistics.median(floor))
        await display.close()

    asyncio.run(measure())
    return _row(name, statistics.median(ours), statistics.median(bare), statistics.median(ratios), CHANGE_RATIO_MAX)


def _changed(last: tuple[Screen, int], now: tuple[Screen, int]) -> list[tuple[Box, list[Call]]]:
    """The panels that differ between two screens, each with its strokes."""
    before = set(display_draw.layout(last[0], WIDTH, HEIGHT, last[1]))
    return [(panel.box, _strokes(panel, 0, 0)) for panel in display_draw.layout(now[0], WIDTH, HEIGHT, now[1])
            if panel not in before]


def _bare_change(strokes: list[tuple[Box, list[Call]]], there: Geometry, rotation: int, file: Any) -> float:
    from PIL import Image, ImageDraw

    start = time.perf_counter()
    for box, script in strokes:
        image = Image.new("RGB", (box[2] - box[0], box[3] - box[1]), display_draw.PAPER)
        draw = ImageDraw.Draw(image)
        for verb, args, named in script:
            getattr(draw, verb)(*args, **named)
        data = packed(turned(image, rotation), there.form)
        place = turned_box(box, WIDTH, HEIGHT, rotation)
        for offset, row in spans(data, place, there.form, there.line_length):
            os.pwrite(file.fileno(), row, offset)
    return (time.perf_counter() - start) * 1e3


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
        script += _strokes(panel, panel.box[0], panel.box[1])
    return script


def _strokes(panel: Any, left: int, top: int) -> list[Call]:
    script: list[Call] = []
    sheet = display_draw._Sheet(panel.box, display_draw.PAPER, HEIGHT)
    sheet.draw = _Recorder(left, top, script)
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


def _row(name: str, value: float, floor: float, ratio: float, goal: float = RATIO_MAX) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": "ms", "floor": round(floor, 2), "ratio": round(ratio, 2),
            "goal": goal, "holds": ratio <= goal}
