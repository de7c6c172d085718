"""The customer's screen as a picture.  Knows sizes, colours, captions; no device, no file but the font, no clock.

A frame is a handful of panels that tile it without gap or overlap.  A panel is a box, the name of its painter and every
value that the painter may look at; a panel equal to one of the frame before keeps its pixels, all others are painted
anew.  So nothing of an old frame, a QR least of all, can outlive the values it was drawn from.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from device.drivers import qr_bits
from device.errors import DriverGone
from device.txn.screen import Line, Screen

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

Box = tuple[int, int, int, int]                      # left, top, right, bottom; right and bottom are outside
Colour = tuple[int, int, int]

FONT_PATH = "/usr/share/fonts/truetype/wqy/wqy-microhei.ttc"
MODULE_PX_MIN = 4                                    # a QR module below this is hard to read from behind a counter
FONTS_KEPT = 3                                       # each open size keeps 0.85 MB of memory; opening one takes 0.1 ms
TOTAL_SHARE = 0.125                                  # height of the total's digits, as a share of the frame's height
SMALL_PX = 272                                       # a glass whose shorter side is no more than this has its own arrangement
LIGHT_PX = 320                                       # and up to here a QR is drawn with fewer, larger modules

PAPER, CARD, INK, MUTED, HAIR = (244, 246, 248), (255, 255, 255), (17, 27, 46), (84, 98, 120), (218, 224, 232)
BRAND, BRAND_DEEP, BRAND_PALE = (12, 74, 110), (8, 51, 77), (186, 220, 240)
FRESH = (226, 240, 250)
TONES: dict[str, tuple[Colour, Colour, Colour]] = {  # strip ground, strip ink, full-frame ground
    "plain": ((226, 240, 250), (8, 51, 77), BRAND),
    "good": ((217, 242, 228), (6, 78, 50), (10, 112, 72)),
    "bad": ((253, 226, 223), (138, 20, 14), (158, 27, 20)),
    "wait": ((255, 239, 204), (107, 62, 0), (128, 76, 0)),
}
WATERMARK: Colour = (200, 30, 30)

CAPTIONS: dict[str, tuple[str, str]] = {             # every word that does not come with the Screen
    "welcome": ("欢迎光临", "Welcome"),
    "total": ("合计", "Total"),
    "due": ("应付", "To pay"),
    "count": ("共 {n} 项", "{n} items"),
    "more": ("前面还有 {n} 项", "{n} more above"),
    "left": ("剩余时间", "Time left"),
    "ended": ("已到时", "Time is up"),
    "compare": ("付款前请核对店名与金额", "Check shop name and amount before you pay"),
    "order": ("单号", "Order"),
    "typed": ("输入", "Typed"),
    "training": ("训练模式", "TRAINING"),
    "words": ("核对", "Check"),
    "cash_only": ("暂时只收现金", "Cash only for now"),
    "cash_why": ("手机支付暂不可用", "No wallet can be taken at the moment"),
    "receipt": ("扫码领取电子小票", "Scan for your receipt"),
}
CHOICE = re.compile(r"^(.*?)[：:]?\s*ENTER\s+([^，,]+)[，,]\s*CANCEL\s+(.+)$")


class Panel(NamedTuple):
    """One tile of a frame: `box`, the painter's name, and all that it may look at."""

    box: Box
    painter: str
    args: tuple[Any, ...]


class Canvas:
    """Frames of one size, each drawn upon the one before.  One caller at a time.

    `draw(screen, now_ms)` returns the boxes that changed; `image` is the RGB picture that stands.  DriverGone when the
    font is missing.  `large`: large type in plain black on white.  `slide`, a picture of this size or None, may be set
    between two frames: it is what stands there while nobody is served.
    """

    slide: Slide | None = None

    def __init__(self, width: int, height: int, *, large: bool = False) -> None:
        from PIL import Image

        assert 64 <= width <= 4096 and 64 <= height <= 4096, (width, height)
        self.width, self.height, self.large = width, height, large
        self.image: Image.Image = Image.new("RGB", (width, height), PAPER)
        self._panels: frozenset[Panel] = frozenset()

    def draw(self, screen: Screen, now_ms: int) -> list[Box]:
        """Make the picture that of `screen` at monotonic `now_ms`; the boxes painted, empty when nothing changed."""
        panels = layout(screen, self.width, self.height, now_ms, large=self.large, slide=self.slide)
        fresh = [p for p in panels if p not in self._panels]
        self._panels = frozenset()                   # a painter that fails leaves nothing that could be taken as drawn
        for panel in fresh:
            self.image.paste(_painted(panel, screen.training, self.width, self.height, self.large), panel.box[:2])
        self._panels = frozenset(panels)
        return [p.box for p in fresh]

    def forget(self) -> None:
        """Paint everything at the next `draw`."""
        self._panels = frozenset()


class Slide:
    """A picture as large as the frame, and equal to no other."""

    def __init__(self, image: Image) -> None:
        self.image = image


def frame(screen: Screen, now_ms: int = 0, width: int = 800, height: int = 480, *, large: bool = False,
          slide: Slide | None = None) -> Image:
    """One frame drawn from nothing."""
    canvas = Canvas(width, height, large=large)
    canvas.slide = slide
    canvas.draw(screen, now_ms)
    return canvas.image


def seconds_left(screen: Screen, now_ms: int) -> int | None:
    """Whole seconds to the deadline, rounded up, never below 0; None without a deadline."""
    return None if screen.deadline is None else max(0, -((now_ms - screen.deadline[1]) // 1000))


def qr_level(width: int, height: int) -> str:
    """How much of a symbol may be spoilt: on a small glass large modules help a phone more than many of them."""
    return "L" if min(width, height) <= LIGHT_PX else "M"


def qr_module_px(text: str, width: int, height: int) -> int:
    """Pixels of one module of a payment's QR on such a glass; under MODULE_PX_MIN where the code is too long for it."""
    modules = qr_bits.side(qr_bits.matrix(text, qr_level(width, height))) + 2 * qr_bits.QUIET_MODULES
    return _alone_room(width, height) // modules


def may_slide(screen: Screen) -> bool:
    """True while a picture may stand there: nobody is served and nothing has to be said."""
    return (screen.phase == "IDLE" and screen.tone == "plain" and screen.notice in CAPTIONS["welcome"]
            and not (screen.big or screen.qr or screen.receipt_qr or screen.cash_only or screen.typed or screen.training))


# Layout: which panels a screen has, and where

def layout(screen: Screen, width: int, height: int, now_ms: int, *, large: bool = False, slide: Slide | None = None) -> list[Panel]:
    """The panels of `screen`; together they cover the frame exactly once."""
    lang, mark = screen.lang, screen.training
    foot = height - _part(height, 0.11 if large else 0.085)
    hint = CAPTIONS["compare"][_at(lang)] if screen.qr else ""

    def foot_panel(ground: Colour) -> list[Panel]:
        return [Panel((0, foot, width, height), "foot", (screen.footer, screen.typed, hint, ground, mark))]

    if screen.qr and min(width, height) <= SMALL_PX:
        return _small_pay_panels(screen, width, height, now_ms)
    if screen.qr:
        return _pay_panels(screen, width, height, foot, now_ms, large, foot_panel(CARD))
    if screen.receipt_qr and screen.big:
        return _receipt_panels(screen, width, height, foot, foot_panel(TONES[screen.tone][2]))
    if may_slide(screen) and slide is not None:
        if not screen.footer:
            return [Panel((0, 0, width, height), "slide", (slide,))]
        return [*foot_panel(CARD), Panel((0, 0, width, foot), "slide", (slide,))]
    if screen.phase == "IDLE" and screen.cash_only and screen.tone != "bad" and not screen.big:
        return [*foot_panel(TONES["wait"][2]), Panel((0, 0, width, foot), "cash", (screen.title, lang, mark))]
    if screen.phase == "IDLE" and screen.tone == "plain" and not screen.big:
        return [*foot_panel(BRAND), Panel((0, 0, width, foot), "idle", (screen.title, screen.notice, lang, mark))]
    if screen.phase == "BASKET" or (screen.lines and screen.phase not in ("PLACING", "AWAITING", "CANCELLING", "PAID")):
        return _basket_panels(screen, width, height, foot, large, foot_panel(CARD))
    tone = "wait" if screen.phase == "CANCELLING" and screen.tone == "plain" else screen.tone
    return [*foot_panel(TONES[tone][2]),
            Panel((0, 0, width, foot), "statement", (screen.title, screen.big, screen.notice, tone,
                                                     _clock(seconds_left(screen, now_ms)), lang, mark))]


def _basket_panels(screen: Screen, width: int, height: int, foot: int, large: bool, panels: list[Panel]) -> list[Panel]:
    lang, mark = screen.lang, screen.training
    head, total = _part(height, 0.115), foot - _part(height, 0.36 if large else 0.235)
    strip = total - (_part(height, 0.115) if screen.notice else 0)
    panels += [Panel((0, 0, width, head), "head", (screen.title, "", lang, mark)),
               Panel((0, head, width, strip), "lines", (screen.lines, screen.lines_total, lang, mark)),
               Panel((0, total, width, foot), "total",
                     (screen.big or _yuan(screen.total_fen), screen.lines_total or len(screen.lines), lang, mark))]
    if screen.notice:
        panels.append(Panel((0, strip, width, total), "strip", (screen.notice, screen.tone, mark)))
    return panels


def _pay_panels(screen: Screen, width: int, height: int, foot: int, now_ms: int, large: bool, panels: list[Panel]) -> list[Panel]:
    """QR left and words right; upright screens have the QR above the words."""
    lang, mark, level = screen.lang, screen.training, qr_level(width, height)
    modules = qr_bits.side(qr_bits.matrix(screen.qr, level)) + 2 * qr_bits.QUIET_MODULES
    head, upright = _part(height, 0.115), height > width
    room = min(width, (foot - head) * (66 if width < 480 else 60) // 100) if upright else min(foot - head, width * 6 // 10)
    if room // modules < MODULE_PX_MIN:
        return _alone_panels(screen, width, height, now_ms)
    side = room // modules * modules
    panels.append(Panel((0, 0, width, head), "head", (screen.title, "", lang, mark)))
    if upright:
        panels.append(Panel((0, head, width, head + side), "qr", (screen.qr, level, mark)))
        left, top = 0, head + side
    else:
        left, top = side + min((room - side), _part(width, 0.03)), head
        panels.append(Panel((0, head, left, foot), "qr", (screen.qr, level, mark)))
    tall = foot - top
    cuts = [top, *(top + tall * share // 100 for share in ((58, 74) if upright else (50, 70) if large else (42, 60))), foot]
    words = (screen.notice, screen.tone) if screen.notice else ("", "plain")
    return [*panels, Panel((left, cuts[0], width, cuts[1]), "amount", (screen.big or _yuan(screen.total_fen), lang, mark)),
            Panel((left, cuts[1], width, cuts[2]), "clock", (_clock(seconds_left(screen, now_ms)), lang, mark)),
            Panel((left, cuts[2], width, cuts[3]), "words", (_wallets(screen), screen.words, screen.order_no, *words, lang, mark))]


def _small_pay_panels(screen: Screen, width: int, height: int, now_ms: int) -> list[Panel]:
    """A small glass has no room for head and foot: the QR in its corner, the amount along the whole lower edge."""
    lang, mark, level, upright = screen.lang, screen.training, qr_level(width, height), height > width
    modules = qr_bits.side(qr_bits.matrix(screen.qr, level)) + 2 * qr_bits.QUIET_MODULES
    strip = _part(height, 0.145)
    room = min(width, (height - strip) * 70 // 100) if upright else min(height - strip, width * 66 // 100)
    if room // modules < MODULE_PX_MIN:
        return _alone_panels(screen, width, height, now_ms)
    side = room // modules * modules
    foot = height - strip
    qr = (0, 0, width, side) if upright else (0, 0, side, foot)
    aside = (0, side, width, foot) if upright else (side, 0, width, foot)
    cut = width * (78 if upright else 70) // 100
    words = (screen.notice, screen.tone) if screen.notice else ("", "plain")
    return [Panel(qr, "qr", (screen.qr, level, mark)),
            Panel(aside, "aside", (screen.title, _wallets(screen), screen.words, *words, screen.typed, lang, mark)),
            Panel((0, foot, cut, height), "sum", (screen.big or _yuan(screen.total_fen), mark)),
            Panel((cut, foot, width, height), "clock", (_clock(seconds_left(screen, now_ms)), lang, mark))]


def _alone_room(width: int, height: int) -> int:
    """The side of the square that a QR has with nothing but the total above or beside it."""
    return min(width, height - _part(height, 0.145)) if height > width else min(height, width * 3 // 4)


def _alone_panels(screen: Screen, width: int, height: int, now_ms: int) -> list[Panel]:
    """A code too long for its place beside everything else: the QR over the whole glass, total and clock in a strip above it, or
    in a column beside it where the glass is wider than high."""
    lang, mark, level = screen.lang, screen.training, qr_level(width, height)
    room, big, clock = _alone_room(width, height), screen.big or _yuan(screen.total_fen), _clock(seconds_left(screen, now_ms))
    words = (screen.notice, screen.tone) if screen.notice else ("", "plain")
    aside = (screen.title, _wallets(screen), screen.words, *words, screen.typed, lang, mark)
    if height > width:
        strip, cut = _part(height, 0.145), width * 70 // 100
        low = strip + room if height - strip - room >= height // 6 else height
        panels = [Panel((0, 0, cut, strip), "sum", (big, mark)), Panel((cut, 0, width, strip), "clock", (clock, lang, mark)),
                  Panel((0, strip, width, low), "qr", (screen.qr, level, mark))]
        return panels if low == height else [*panels, Panel((0, low, width, height), "aside", aside)]
    cuts = (0, height * 22 // 100, height * 38 // 100, height)
    return [Panel((0, 0, room, height), "qr", (screen.qr, level, mark)),
            Panel((room, cuts[0], width, cuts[1]), "sum", (big, mark)),
            Panel((room, cuts[1], width, cuts[2]), "clock", (clock, lang, mark)),
            Panel((room, cuts[2], width, cuts[3]), "aside", aside)]


def _receipt_panels(screen: Screen, width: int, height: int, foot: int, panels: list[Panel]) -> list[Panel]:
    """Paid, and no paper to be had: the receipt as a QR, on the ground that says so."""
    lang, mark, level = screen.lang, screen.training, qr_level(width, height)
    if height > width:
        cut = foot * 45 // 100
        qr, said = (0, cut, width, foot), (0, 0, width, cut)
    else:
        side = min(foot, width * 55 // 100)
        qr, said = (0, 0, side, foot), (side, 0, width, foot)
    return [*panels, Panel(qr, "receipt", (screen.receipt_qr, level, screen.tone, lang, mark)),
            Panel(said, "statement", (screen.title, screen.big, screen.notice, screen.tone, "", lang, mark))]


def _wallets(screen: Screen) -> tuple[str, ...]:
    return tuple(dict.fromkeys(screen.wallets))


# Painters: one a panel, each on a picture of its own size

class _Sheet:
    """A picture being painted, with text that fits."""

    def __init__(self, box: Box, ground: Colour, frame_short: int, frame_tall: int = 0, large: bool = False) -> None:
        from PIL import Image, ImageDraw

        self.w, self.h, self.tall, self.large = box[2] - box[0], box[3] - box[1], frame_tall or frame_short, large
        self.muted, self.hair = (INK, MUTED) if large else (MUTED, HAIR)
        self.image: Image = Image.new("RGB", (self.w, self.h), ground)
        self.draw: ImageDraw = ImageDraw.Draw(self.image)
        self.pad = max(4, frame_short * 4 // 100)

    def text(self, text: str, x: float, y: float, *, size: float, width: float, colour: Colour, anchor: str = "lm",
             shrink: float = 1.0) -> float:
        """Write one line, smaller down to `shrink` of `size`, then with an ellipsis; the width used."""
        font = _font(int(size))
        wide = font.getlength(text)                  # measured once where it fits, as nearly all of it does
        if wide > int(width):
            font = _fitting(text, int(size), int(width), shrink)
            text = _cut(text, font, int(width))
            wide = font.getlength(text)
        self.draw.text((x, y), text, font=font, fill=colour, anchor=anchor)
        return wide

    def lines(self, text: str, x: float, y: float, *, size: float, width: float, height: float, colour: Colour,
              anchor: str = "mm") -> None:
        """Write `text` wrapped and centred on (x, y) in a width x height room, as large as fits, at most `size`."""
        size, floor = int(size), 9
        while True:
            font = _font(size)
            rows, step = _wrapped(text, font, int(width)), int(size * 1.28)
            if size <= floor or (len(rows) * step <= height and all(font.getlength(row) <= int(width) for row in rows)):
                break
            size = max(floor, size * 9 // 10)
        rows = rows[: max(1, int(height // step))]
        top = y - (len(rows) - 1) * step / 2
        for n, row in enumerate(rows):
            self.draw.text((x, top + n * step), _cut(row, font, int(width)), font=font, fill=colour, anchor=anchor)

    def money(self, text: str, right: float, middle: float, *, ink: float, width: float, colour: Colour,
              anchor: str = "r") -> tuple[float, int]:
        """An amount whose digits are `ink` pixels tall, less where `width` is short; the sign is small.  (width, ink)."""
        sign, digits = (text[0], text[1:]) if text[:1] == "¥" else ("", text)
        size = _size_of_ink(int(ink))
        size = _largest(10, size, width, lambda n: _font(n).getlength(digits) + _font(n * 6 // 10).getlength(sign))
        big, small = _font(size), _font(size * 6 // 10)
        wide = big.getlength(digits) + small.getlength(sign)
        left = {"r": right - wide, "m": right - wide / 2, "l": right}[anchor]
        top, bottom = big.getbbox("0", anchor="ls")[1::2]
        base = middle - (top + bottom) / 2
        bold = size // 60                            # the font has one weight; a stroke is the other
        self.draw.text((left, base), sign, font=small, fill=colour, anchor="ls", stroke_width=bold // 2)
        self.draw.text((left + small.getlength(sign), base), digits, font=big, fill=colour, anchor="ls", stroke_width=bold)
        return wide, bottom - top


def _painted(panel: Panel, training: bool, width: int, height: int, large: bool = False) -> Image:
    box = panel.box
    sheet = _Sheet(box, CARD if large else PAPER, min(width, height), height, large)
    PAINTERS[panel.painter](sheet, *panel.args)
    if training and panel.painter not in ("qr", "receipt"):           # a QR that no phone can read would teach nothing
        sheet.image.paste(WATERMARK, (0, 0), _watermark(width, height).crop(box))
    return sheet.image


def _paint_head(s: _Sheet, title: str, right: str, lang: str, mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=BRAND)
    s.text(title, s.pad, s.h / 2, size=s.h * 0.56, width=s.w - 2 * s.pad, colour=CARD, shrink=0.7)


def _paint_idle(s: _Sheet, title: str, notice: str, lang: str, mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=BRAND)
    s.draw.rectangle((0, s.h - max(3, s.h // 80), s.w, s.h), fill=BRAND_PALE)
    wide, other = s.w - 4 * s.pad, CAPTIONS["welcome"][1 - _at(lang)]
    s.lines(title, s.w / 2, s.h * 0.36, size=s.h * 0.20, width=wide, height=s.h * 0.42, colour=CARD)
    half = s.w * 0.06
    s.draw.rectangle((s.w / 2 - half, s.h * 0.60, s.w / 2 + half, s.h * 0.60 + max(2, s.h // 130)), fill=BRAND_PALE)
    lead = notice or CAPTIONS["welcome"][_at(lang)]
    s.lines(lead, s.w / 2, s.h * 0.72, size=s.h * 0.115, width=wide, height=s.h * 0.17, colour=CARD)
    if lead in CAPTIONS["welcome"]:
        s.text(other, s.w / 2, s.h * 0.86, size=s.h * 0.075, width=wide, colour=BRAND_PALE, anchor="mm")


def _paint_lines(s: _Sheet, lines: tuple[Line, ...], lines_total: int, lang: str, mark: bool) -> None:
    """The newest line lowest, marked, and on two rows where its name is long; older ones above, one row each."""
    row = max(16, s.pad * (84 if s.large else 47) // 20)
    size, qty_wide, sum_wide = row * 0.62, s.w * 0.16, s.w * 0.22
    name_wide = s.w - 2 * s.pad - qty_wide - sum_wide
    first = _wrapped(lines[-1].name, _font(int(size)), int(name_wide))[0] if lines else ""
    newest_rows = 2 if lines and first != lines[-1].name.rstrip() and s.h >= 1.8 * row else 1
    room = max(1, s.h // row - (newest_rows - 1))
    hidden = max(lines_total, len(lines)) - min(len(lines), room)
    told = hidden and room > 2
    if told:
        room, hidden = room - 1, hidden + (1 if len(lines) >= room else 0)
    shown = lines[-room:]
    y = 0
    if told:
        s.text(CAPTIONS["more"][_at(lang)].format(n=hidden), s.pad, y + row / 2, size=size * 0.8, width=s.w - 2 * s.pad,
               colour=s.muted)
        y += row
    for n, line in enumerate(shown):
        newest = n == len(shown) - 1
        tall = row * (newest_rows if newest else 1)
        if newest:
            s.draw.rectangle((0, y, s.w, y + tall - 1), fill=FRESH)
            s.draw.rectangle((0, y, max(3, s.pad // 3), y + tall - 1), fill=BRAND)
        else:
            s.draw.line((s.pad, y + tall - 1, s.w - s.pad, y + tall - 1), fill=s.hair)
        middle = y + tall / 2
        if newest and newest_rows == 2:
            for k, part in enumerate((first, line.name[len(first):].strip())):
                s.text(part, s.pad, y + row * (0.55 + 0.9 * k), size=size, width=name_wide, colour=INK)
        else:
            s.text(line.name, s.pad, middle, size=size, width=name_wide, colour=INK)
        s.text("×" + line.qty if line.qty.isdigit() else line.qty, s.w - s.pad - sum_wide, middle, size=size * 0.88,
               width=qty_wide - s.pad / 2, colour=s.muted, anchor="rm", shrink=0.7)
        s.text(_yuan(line.amount_fen), s.w - s.pad, middle, size=size, width=sum_wide - s.pad / 2, colour=INK, anchor="rm",
               shrink=0.2)                                      # small, but never cut: a part of a sum is another sum
        y += tall


def _paint_total(s: _Sheet, big: str, count: int, lang: str, mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=CARD)
    s.draw.rectangle((0, 0, s.w, max(2, s.h // 40)), fill=BRAND)
    first, second = _both("total", lang)
    share = 0.24 if s.large else TOTAL_SHARE + 0.02
    if s.w < s.tall * (1.0 if s.large else 0.5):       # no room beside the sum: the words above it
        half, line = s.w / 2 - 1.2 * s.pad, min(s.h * 0.15, s.w * 0.1)
        s.text(first, s.pad, s.h * 0.16, size=line, width=half, colour=INK)
        s.text(CAPTIONS["count"][_at(lang)].format(n=count), s.w - s.pad, s.h * 0.16, size=line * 0.8, width=half, colour=s.muted,
               anchor="rm", shrink=0.5)
        s.money(big, s.w - s.pad, s.h * 0.6, ink=min(s.tall * share, s.h * 0.6), width=s.w - 2 * s.pad, colour=INK)
        return
    wide, _ = s.money(big, s.w - s.pad, s.h * 0.52, ink=s.tall * share, width=s.w * (0.8 if s.large else 0.69), colour=INK)
    left = s.w - wide - 2.5 * s.pad
    used = s.text(first, s.pad, s.h * 0.34, size=s.h * 0.30, width=left, colour=INK, shrink=0.45)
    if left - used - s.pad / 2 > s.h * 0.3:
        s.text(second, s.pad * 1.4 + used, s.h * 0.37, size=s.h * 0.18, width=left - used - s.pad * 0.4, colour=s.muted)
    s.text(CAPTIONS["count"][_at(lang)].format(n=count), s.pad, s.h * 0.72, size=s.h * 0.20, width=left, colour=s.muted, shrink=0.5)


def _paint_strip(s: _Sheet, notice: str, tone: str, mark: bool) -> None:
    ground, ink, strong = TONES[tone]
    s.draw.rectangle((0, 0, s.w, s.h), fill=ground)
    s.draw.rectangle((0, 0, max(4, s.pad // 2), s.h), fill=strong)
    s.lines(notice, s.pad * 1.4, s.h / 2, size=s.h * 0.50, width=s.w - 2.4 * s.pad, height=s.h * 0.94, colour=ink, anchor="lm")


def _paint_foot(s: _Sheet, footer: tuple[str, ...], typed: str, hint: str, ground: Colour, mark: bool) -> None:
    """What is not well, and the digits being typed; with nothing to say it takes the frame's own ground."""
    s.draw.rectangle((0, 0, s.w, s.h), fill=TONES["wait"][0] if footer else ground)
    if ground == CARD:
        s.draw.line((0, 0, s.w, 0), fill=s.hair)
    right = float(s.w - s.pad)
    if typed:
        font = _fitting(typed, int(s.h * 0.72), int(s.w * 0.45), 0.6)
        wide = font.getlength(_cut(typed, font, int(s.w * 0.45)))
        s.draw.rounded_rectangle((right - wide - s.pad, s.h * 0.08, right + s.pad * 0.4, s.h * 0.92), radius=s.h * 0.2, fill=INK,
                                 outline=CARD)
        s.draw.text((right - s.pad * 0.3, s.h / 2), _cut(typed, font, int(s.w * 0.45)), font=font, fill=CARD, anchor="rm")
        right -= wide + 1.6 * s.pad
    left = float(s.pad)
    if footer:
        r = s.h * 0.16
        s.draw.ellipse((left, s.h / 2 - r, left + 2 * r, s.h / 2 + r), fill=TONES["wait"][2])
        left += 3.4 * r
    words = " · ".join(footer) or hint
    if words and right - left > s.h:
        s.text(words, left, s.h / 2, size=s.h * 0.54, width=right - left, colour=TONES["wait"][1] if footer else s.muted,
               shrink=0.75)


def _paint_qr(s: _Sheet, qr: str, level: str, mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=CARD)                   # light all around: the quiet zone and more
    _symbol(s, qr, level, s.w / 2, s.h / 2, min(s.w, s.h))


def _symbol(s: _Sheet, text: str, level: str, x: float, y: float, room: int) -> int:
    """The QR of `text` centred on (x, y), as large as `room` allows with its quiet zone; the side of its dark part."""
    from PIL import Image

    bits = qr_bits.matrix(text, level)
    side = qr_bits.side(bits)
    module = max(1, room // (side + 2 * qr_bits.QUIET_MODULES))
    symbol = Image.frombytes("L", (side, side), bits).resize((side * module,) * 2, Image.Resampling.NEAREST)
    s.image.paste(symbol, (int(x) - side * module // 2, int(y) - side * module // 2))
    return side * module


def _paint_receipt(s: _Sheet, text: str, level: str, tone: str, lang: str, mark: bool) -> None:
    """The receipt's QR on a card, with what it is below."""
    ground, ink, strong = TONES[tone]
    s.draw.rectangle((0, 0, s.w, s.h), fill=strong)
    edge, line = s.pad, max(14, s.h * 0.11)
    room = int(min(s.w - 2 * edge, s.h - 2 * edge - line))
    left, top = (s.w - room) / 2, (s.h - room - line) / 2
    s.draw.rounded_rectangle((left, top, left + room, top + room + line), radius=s.pad * 0.6, fill=CARD)
    _symbol(s, text, level, s.w / 2, top + room / 2, room)
    s.text(CAPTIONS["receipt"][_at(lang)], s.w / 2, top + room + line * 0.4, size=line * 0.62, width=room - s.pad, colour=ink,
           anchor="mm", shrink=0.5)


def _paint_slide(s: _Sheet, slide: Slide) -> None:
    s.image.paste(slide.image, (0, 0))


def _paint_cash(s: _Sheet, title: str, lang: str, mark: bool) -> None:
    """No wallet works: said before anybody takes out a phone, in both languages alike."""
    pale, _, strong = TONES["wait"]
    s.draw.rectangle((0, 0, s.w, s.h), fill=strong)
    s.text(title, s.w / 2, s.h * 0.10, size=s.h * 0.08, width=s.w - 4 * s.pad, colour=pale, anchor="mm", shrink=0.7)
    wide, tall = min(s.h * 0.42, s.w * 0.5), min(s.h * 0.22, s.w * 0.26)
    x, y, line = s.w / 2, s.h * 0.32, max(2, s.h // 110)
    s.draw.rounded_rectangle((x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2), radius=tall * 0.12, fill=CARD)
    edge = 2 * line
    s.draw.rounded_rectangle((x - wide / 2 + edge, y - tall / 2 + edge, x + wide / 2 - edge, y + tall / 2 - edge),
                             radius=tall * 0.08, outline=strong, width=line)
    s.draw.ellipse((x - tall * 0.3, y - tall * 0.3, x + tall * 0.3, y + tall * 0.3), fill=strong)
    s.draw.text((x, y), "¥", font=_font(int(tall * 0.42)), fill=CARD, anchor="mm")
    for n, (size, share) in enumerate(((0.155, 0.57), (0.105, 0.725))):
        s.text(_both("cash_only", lang)[n], x, s.h * share, size=s.h * size, width=s.w - 3 * s.pad, colour=CARD, anchor="mm",
               shrink=0.5)
    for n, why in enumerate(_both("cash_why", lang)):
        s.text(why, x, s.h * (0.845 + 0.075 * n), size=s.h * 0.055, width=s.w - 3 * s.pad, colour=pale, anchor="mm", shrink=0.6)


def _paint_amount(s: _Sheet, big: str, lang: str, mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=CARD)
    first, second = _both("due", lang)
    inset = min(s.pad, s.w * 0.03)
    s.text(f"{first}  {second}", inset, s.h * 0.15, size=s.h * 0.17, width=s.w - 2 * inset, colour=s.muted, shrink=0.7)
    s.money(big, inset, s.h * 0.62, ink=min(s.tall * (0.2 if s.large else TOTAL_SHARE + 0.02), s.h * 0.66), width=s.w - 2 * inset,
            colour=INK, anchor="l")


def _paint_sum(s: _Sheet, big: str, mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=CARD)
    s.draw.line((0, 0, s.w, 0), fill=s.hair)
    s.money(big, s.pad / 2, s.h / 2, ink=s.tall * TOTAL_SHARE, width=s.w - 0.7 * s.pad, colour=INK, anchor="l")


def _paint_aside(s: _Sheet, title: str, wallets: tuple[str, ...], words: tuple[str, ...], notice: str, tone: str, typed: str,
                 lang: str, mark: bool) -> None:
    """Beside the QR of a small glass: what to do, with whose app, and the two words."""
    s.draw.rectangle((0, 0, s.w, s.h), fill=CARD)
    wide, pad = s.w - s.pad, s.pad * 0.6
    ground, ink, _ = TONES[tone if notice else "plain"]
    if s.w > 1.6 * s.h:                               # below the QR: wide and low
        s.draw.rounded_rectangle((pad / 2, 0, s.w - pad / 2, s.h * 0.44), radius=pad, fill=ground)
        s.lines(notice or title, s.w / 2, s.h * 0.22, size=s.h * 0.26, width=wide - pad, height=s.h * 0.42, colour=ink)
        half = s.w * 0.52 if words else s.w
        s.lines(typed or " · ".join(wallets), half / 2, s.h * 0.72, size=s.h * 0.2, width=half - 1.5 * pad, height=s.h * 0.46,
                colour=INK if typed else BRAND)
        if words:
            _told_words(s, words, lang, half, s.h * 0.52, s.w - pad / 2, s.h * 0.94)
        return
    s.draw.rounded_rectangle((pad / 2, pad / 2, s.w - pad, s.h * 0.42), radius=pad, fill=ground)
    s.lines(notice or title, (s.w - pad / 2) / 2, s.h * 0.215, size=s.tall * 0.085, width=wide - 1.5 * pad, height=s.h * 0.36,
            colour=ink)
    s.lines(" · ".join(wallets), (s.w - pad / 2) / 2, s.h * 0.56, size=s.tall * 0.07, width=wide, height=s.h * 0.24, colour=BRAND)
    if words:
        _told_words(s, words, lang, pad / 2, s.h * 0.72, s.w - pad, s.h * (0.86 if typed else 0.95))
    if typed:
        s.text(typed, s.w - pad, s.h * 0.94, size=s.tall * 0.06, width=wide, colour=INK, anchor="rm", shrink=0.6)


def _told_words(s: _Sheet, words: tuple[str, ...], lang: str, left: float, top: float, right: float, bottom: float) -> None:
    """The two words in a frame of their own: large, for they are compared across a counter."""
    tall = bottom - top
    s.draw.rounded_rectangle((left, top, right, bottom), radius=tall * 0.22, outline=BRAND, width=max(1, int(tall / 22)))
    caption, inset = CAPTIONS["words"][_at(lang)], tall * 0.25
    middle, wide = (top + bottom) / 2, right - left - 2 * inset
    if wide < 4.5 * tall:                             # no room for what they are for: the docs say it
        s.text(words[_at(lang)], (left + right) / 2, middle, size=tall * 0.56, width=wide, colour=BRAND_DEEP, anchor="mm",
               shrink=0.45)
        return
    used = s.text(caption, left + inset, middle, size=tall * 0.42, width=wide * 0.3, colour=s.muted, shrink=0.6)
    s.text(words[_at(lang)], right - inset, middle, size=tall * 0.56, width=wide - used - 0.4 * inset, colour=BRAND_DEEP,
           anchor="rm", shrink=0.45)


def _paint_clock(s: _Sheet, clock: str, lang: str, mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=CARD)
    if not clock:
        return
    inset = min(s.pad, s.w * 0.03)
    ended = clock == "0:00"
    ground, ink, _ = TONES["bad" if ended else "plain"]
    s.draw.rounded_rectangle((inset, s.h * 0.06, s.w - inset, s.h * 0.94), radius=s.h * 0.16, fill=ground)
    wide = s.text(clock, s.w - inset * 2, s.h / 2, size=s.h * 0.56, width=s.w - 4 * inset, colour=ink, anchor="rm", shrink=0.4)
    left = s.w - 6 * inset - wide
    if left > 1.1 * s.h:
        s.text(CAPTIONS["ended" if ended else "left"][_at(lang)], inset * 2, s.h / 2, size=s.h * 0.36, width=left, colour=ink,
               shrink=0.6)


def _paint_words(s: _Sheet, wallets: tuple[str, ...], words: tuple[str, ...], order_no: str, notice: str, tone: str, lang: str,
                 mark: bool) -> None:
    s.draw.rectangle((0, 0, s.w, s.h), fill=CARD)
    inset = min(s.pad, s.w * 0.03)
    wide = s.w - 2 * inset
    if s.h < 0.14 * s.tall and not notice:            # a low room: side by side
        half = s.w / 2 if words else s.w
        s.lines(" · ".join(wallets), half / 2, s.h / 2, size=s.h * 0.34, width=half - 2 * inset, height=s.h * 0.9, colour=BRAND)
        if words:
            _told_words(s, words, lang, half, s.h * 0.12, s.w - inset, s.h * 0.88)
        return
    if notice:                                        # a question or a warning outranks what is good to know
        ground, ink, strong = TONES[tone]
        s.draw.rounded_rectangle((inset, s.h * 0.03, s.w - inset, s.h * (0.64 if words else 0.92)), radius=s.h * 0.08, fill=ground)
        s.lines(notice, s.w / 2, s.h * (0.335 if words else 0.475), size=s.h * 0.2, width=wide - 2 * inset,
                height=s.h * (0.56 if words else 0.8), colour=ink)
    else:
        s.text(" · ".join(wallets), inset, s.h * 0.15, size=s.h * 0.21, width=wide, colour=BRAND, shrink=0.5)
        if order_no and not s.large:
            short = " ".join((order_no[-8:-4], order_no[-4:])) if len(order_no) >= 8 else order_no
            s.text(f"{CAPTIONS['order'][_at(lang)]} … {short}", inset, s.h * 0.87, size=s.h * 0.15, width=wide, colour=s.muted,
                   shrink=0.6)
    if words:
        top, bottom = (0.69, 0.97) if notice else (0.34, 0.9) if s.large else (0.34, 0.70)
        _told_words(s, words, lang, inset, s.h * top, s.w - inset, s.h * bottom)


def _paint_statement(s: _Sheet, title: str, big: str, notice: str, tone: str, clock: str, lang: str, mark: bool) -> None:
    """One thing said with the whole frame: paid, waiting, refused, or a choice of two keys."""
    asked = CHOICE.match(notice) or CHOICE.match(title)
    s.draw.rectangle((0, 0, s.w, s.h), fill=TONES[tone][2])
    if asked:
        return _choice(s, asked, big, clock, TONES[tone])
    wide, middle, pale = s.w - 4 * s.pad, s.w / 2, TONES[tone][0]
    # With nothing below, the group of sign, sentence and amount stands in the middle.
    drop = 0 if notice or clock else s.h * (0.09 if big else 0.17)
    r = min(s.h * 0.14, s.w * 0.2)
    _sign(s, tone, middle, s.h * 0.175 + drop, r)
    s.lines(title, middle, s.h * 0.43 + drop, size=s.h * 0.125, width=wide, height=s.h * 0.17, colour=CARD)
    if big:
        s.money(big, middle, s.h * 0.625 + drop, ink=s.h * 0.155, width=wide, colour=CARD, anchor="m")
    if notice:
        top, bottom = (s.h * 0.755, s.h * 0.965) if big else (s.h * 0.58, s.h * 0.90)
        s.draw.rounded_rectangle((2 * s.pad, top, s.w - 2 * s.pad, bottom), radius=s.h * 0.03, fill=CARD)
        s.lines(notice, middle, (top + bottom) / 2, size=s.h * 0.125, width=wide - 2 * s.pad, height=bottom - top,
                colour=TONES[tone][1])
    elif clock:
        s.text(f"{CAPTIONS['left'][_at(lang)]} {clock}", middle, s.h * 0.86, size=s.h * 0.08, width=wide, colour=pale, anchor="mm")


def _choice(s: _Sheet, asked: re.Match[str], big: str, clock: str, tone: tuple[Colour, Colour, Colour]) -> None:
    lead, *answers = asked.groups()
    wide = s.w - 3 * s.pad
    s.lines(lead, s.w / 2, s.h * 0.17, size=s.h * 0.13, width=wide, height=s.h * 0.28, colour=CARD)
    s.text("   ".join(x for x in (big, clock) if x), s.w / 2, s.h * 0.385, size=s.h * 0.11, width=wide, colour=tone[0], anchor="mm",
           shrink=0.2)
    for n, (key, words) in enumerate(zip(("ENTER", "CANCEL"), answers, strict=True)):
        left = s.pad + n * (s.w - s.pad) / 2
        right = left + (s.w - 3 * s.pad) / 2
        s.draw.rounded_rectangle((left, s.h * 0.49, right, s.h * 0.95), radius=s.h * 0.03, fill=CARD)
        centre, ground = (left + right) / 2, TONES[("good", "bad")[n]]
        cap = min((right - left) * 0.42, s.h * 0.26)
        s.draw.rounded_rectangle((centre - cap, s.h * 0.525, centre + cap, s.h * 0.665), radius=s.h * 0.025, fill=ground[2])
        s.text(key, centre, s.h * 0.595, size=s.h * 0.09, width=2 * cap * 0.92, colour=CARD, anchor="mm", shrink=0.5)
        s.lines(words.strip(), centre, s.h * 0.81, size=s.h * 0.12, width=right - left - s.pad, height=s.h * 0.25, colour=ground[1])


def _sign(s: _Sheet, tone: str, x: float, y: float, r: float) -> None:
    """A tick, an exclamation mark or three dots in a disc: the frame's meaning without its words."""
    s.draw.ellipse((x - r, y - r, x + r, y + r), fill=CARD)
    ink, line = TONES[tone][2], max(3, int(r * 0.22))
    if tone == "good":
        s.draw.line((x - r * 0.48, y + r * 0.02, x - r * 0.12, y + r * 0.38, x + r * 0.50, y - r * 0.36), fill=ink, width=line,
                    joint="curve")
    elif tone == "bad":
        s.draw.rounded_rectangle((x - line * 0.6, y - r * 0.58, x + line * 0.6, y + r * 0.18), radius=line * 0.5, fill=ink)
        s.draw.ellipse((x - line * 0.7, y + r * 0.34, x + line * 0.7, y + r * 0.34 + line * 1.4), fill=ink)
    else:
        for step in (-1, 0, 1):
            cx, d = x + step * r * 0.48, r * 0.15
            s.draw.ellipse((cx - d, y - d, cx + d, y + d), fill=ink)


PAINTERS: dict[str, Callable[..., None]] = {
    "head": _paint_head, "idle": _paint_idle, "lines": _paint_lines, "total": _paint_total, "strip": _paint_strip,
    "foot": _paint_foot, "qr": _paint_qr, "amount": _paint_amount, "clock": _paint_clock, "words": _paint_words,
    "statement": _paint_statement, "receipt": _paint_receipt, "slide": _paint_slide, "cash": _paint_cash, "sum": _paint_sum,
    "aside": _paint_aside,
}


# Letters

@lru_cache(maxsize=FONTS_KEPT)
def _font(size: int) -> FreeTypeFont:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(FONT_PATH, max(6, size), index=0, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DriverGone("the font WenQuanYi Micro Hei is missing", which="display", hint="apt install fonts-wqy-microhei",
                         again=False) from error


@lru_cache(maxsize=64)
def _size_of_ink(ink: int) -> int:
    """The font size whose digits stand `ink` pixels tall."""
    def tall(size: int) -> float:
        _, top, _, bottom = _font(size).getbbox("0", anchor="ls")
        return bottom - top

    least = max(6, ink)
    return least + bisect_left(range(least, 2 * least), ink, key=tall)


def _fitting(text: str, size: int, width: int, shrink: float) -> FreeTypeFont:
    return _font(_largest(max(8, int(size * shrink)), size, width, lambda n: _font(n).getlength(text)))


def _largest(least: int, size: int, width: float, wide: Callable[[int], float]) -> int:
    """The largest size from `least` to `size` at which `wide` is no more than `width`; `least` when none is."""
    if size <= least or wide(size) <= width:
        return size
    return max(least, least - 1 + bisect_right(range(least, size), width, key=wide))


def _cut(text: str, font: FreeTypeFont, width: int) -> str:
    """`text`, or as much of its start as fits with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if font.getlength(text[:middle] + "…") <= width else (low, middle - 1)
    return text[:low].rstrip() + "…"


def _wrapped(text: str, font: FreeTypeFont, width: int) -> list[str]:
    """`text` in rows no wider than `width`: between words, and anywhere between Chinese characters."""
    rows, row = [], ""
    for piece in re.findall(r"[!-~¥]+[，。：？！、]?|\s+|.[，。：？！、）」…]?", text):
        if not row or font.getlength((row + piece).rstrip()) <= width:
            row += piece
        else:
            rows.append(row.rstrip())
            row = piece.lstrip()
    return [*rows, row.rstrip()] if row.strip() or not rows else rows


@lru_cache(maxsize=2)
def _watermark(width: int, height: int) -> Image:
    """A faint slanting row of words over the whole frame, as a mask."""
    from PIL import Image, ImageDraw

    words, font = "   ".join(CAPTIONS["training"]) + "      ", _font(height // 9)
    wide, step = int(font.getlength(words)), height * 3 // 10
    reach = width + height
    sheet = Image.new("L", (reach, reach), 0)
    draw = ImageDraw.Draw(sheet)
    for n, y in enumerate(range(0, reach, step)):
        for x in range(-(n % 2) * wide // 2, reach, wide):
            draw.text((x, y), words, font=font, fill=64)
    turned = sheet.rotate(20, resample=Image.Resampling.BILINEAR)
    left, top = (reach - width) // 2, (reach - height) // 2
    return turned.crop((left, top, left + width, top + height))


def _at(lang: str) -> int:
    return 0 if lang == "zh" else 1


def _both(key: str, lang: str) -> tuple[str, str]:
    """A caption in the leading language, then in the other."""
    pair = CAPTIONS[key]
    return pair[_at(lang)], pair[1 - _at(lang)]


def _part(whole: int, share: float) -> int:
    return round(whole * share)


def _clock(seconds: int | None) -> str:
    return "" if seconds is None else f"{seconds // 60}:{seconds % 60:02d}"


def _yuan(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}¥{abs(fen) // 100}.{abs(fen) % 100:02d}"
