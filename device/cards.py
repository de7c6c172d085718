"""`tillbox cards`: sheets of printed command cards, and what box.toml keeps of a supervisor's.  Reads the configuration, writes
PNGs.

The card key comes from `[cards]` of the configuration and stands on no paper and no screen; what a card says can be read by
whoever holds it, and does nothing at another store.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from pathlib import Path

from device.config import Config
from device.drivers.input.keycard_bytes import SUPERVISOR, card_text
from device.drivers.qr_bits import QUIET_MODULES, matrix, side
from device.errors import ConfigError, Outside
from device.identity import folder as identity
from device.txn.approval import badge_hash, pin_hash
from device.txn.inputs import KEYS

DOTS_MM = 8                       # 203 dpi, what shops' own printers have
PAGE_MM = (210, 297)
QRS, BARS = ((90, 54), 2, 5), ((190, 28), 1, 10)       # a card in millimetres, and how many across and down
QR_MM, BAR_DOTS, BARS_MM = 40, 2, 16
QUIET_BARS = 10                   # modules wanted on each side of a Code 128
NAMES = {"ENTER": "确认", "CLEAR": "清除", "QTY": "数量", "VOID": "删行", "PAY": "收款", "CODE": "付款码", "CASH": "现金",
         "CHECK": "查询", "HOLD": "挂单", "PARK": "转挂", "CANCEL": "取消", "REFUND": "退款", "REPRINT": "补打",
         "DRAWER": "钱箱", "X": "X 报表", "Z": "Z 日结", SUPERVISOR: "主管"}
SHEET = (*(key for key in KEYS if not key.isdigit()), *"1234567890", "00", "1-PAY", "2-PAY", "3-PAY", "5-PAY")


def main(argv: list[str]) -> int:
    """0 with the names of the sheets on standard output; 1 when they cannot be made, 2 for arguments that do not serve."""
    parser = argparse.ArgumentParser(prog="tillbox cards", description="Command cards of this store, as PNG sheets of A4.")
    parser.add_argument("keys", nargs="*", metavar="KEYS", help="PAY, 1-PAY, 50 ...; `key` prints a fresh card key; `supervisor "
                        "NAME` reads a PIN on standard input and makes one card; none: a card of each key")
    parser.add_argument("--config", default="/etc/tillbox/box.toml")
    parser.add_argument("--bars", action="store_true", help="Code 128 in place of QRs, for scanners with a single line")
    parser.add_argument("--out", default="cards", help="sheets are OUT-1.png, OUT-2.png ...")
    asked = parser.parse_args(argv)
    if asked.keys == ["key"]:
        print(secrets.token_urlsafe(32))
        return 0
    try:
        config = identity.loaded(asked.config)
    except (OSError, UnicodeDecodeError, ConfigError) as why:
        print(f"tillbox cards: {asked.config} cannot be read: {why}", file=sys.stderr)
        return 2
    if not config.cards.card_key:
        print(f"tillbox cards: {asked.config} has no [cards] with card_key and store; `tillbox cards key` prints a fresh key",
              file=sys.stderr)
        return 1
    try:
        if asked.keys[:1] == ["supervisor"]:
            return _supervisor(config, asked.keys[1:], asked.out, asked.bars)
        return _written(config, [(keys, *_card(config, keys)) for keys in asked.keys or SHEET], asked.out, asked.bars)
    except ValueError as why:
        print(f"tillbox cards: {why}", file=sys.stderr)
        return 2
    except Outside as why:
        print(f"tillbox cards: {why}", file=sys.stderr)
        return 1


def _card(config: Config, keys: str) -> tuple[str, str]:
    """The text of a fresh card, and its number."""
    text = card_text(config.cards.card_key, config.cards.store, keys, secrets.randbits(30), KEYS)
    return text, text.split(".")[3]


def _supervisor(config: Config, names: list[str], out: str, bars: bool) -> int:
    pin = sys.stdin.readline().strip()
    pin_ok = pin.isascii() and pin.isdigit() and 4 <= len(pin) <= 9
    if len(names) != 1 or not names[0].isprintable() or '"' in names[0] or "\\" in names[0] or not pin_ok:
        raise ValueError("supervisor wants one NAME, and a PIN of 4 to 9 digits on standard input")
    text, number = _card(config, SUPERVISOR)
    print(f'[[supervisor]]\nname = "{names[0]}"\nbadge = "{badge_hash(text)}"\npin = "{pin_hash(pin, secrets.token_hex(8))}"')
    print(f'# to take the card away again: [cards] revoked = ["{number}"]')
    return _written(config, [(SUPERVISOR, text, number)], out, bars, names[0])


def _written(config: Config, made: list[tuple[str, str, str]], out: str, bars: bool, holder: str = "") -> int:
    from PIL import Image

    (wide, high), across, down = BARS if bars else QRS
    page_of = across * down
    for page, at in enumerate(range(0, len(made), page_of), 1):
        sheet = Image.new("1", (PAGE_MM[0] * DOTS_MM, PAGE_MM[1] * DOTS_MM), 1)
        for n, (keys, text, number) in enumerate(made[at:at + page_of]):
            left = (PAGE_MM[0] - across * wide) // 2 + n % across * wide
            top = (PAGE_MM[1] - down * high) // 2 + n // across * high
            draw = _bars if bars else _qr
            draw(sheet, left * DOTS_MM, top * DOTS_MM, text, _names(config, keys, number, holder))
        path = Path(f"{out}-{page}.png")
        try:
            sheet.save(path, dpi=(DOTS_MM * 25.4,) * 2)
            path.chmod(0o600)                        # a card is a key of the till
        except OSError as why:
            print(f"tillbox cards: {path} cannot be written: {why.strerror}", file=sys.stderr)
            return 1
        print(path)
    return 0


def _names(config: Config, keys: str, number: str, holder: str) -> list[tuple[int, str]]:
    """What stands beside the symbol: (millimetres of a line, its text)."""
    typed, _, key = keys.rpartition("-")
    return [(12, holder or f"{typed} {key}".strip()), (9, f"{typed} {NAMES.get(key, '')}".strip() or "数字"),
            (4, f"{config.shop_zh[:12]}  {config.cards.store}"), (4, f"No. {number}")]


def _qr(sheet, left: int, top: int, text: str, names: list[tuple[int, str]]) -> None:
    from PIL import Image, ImageDraw

    wide, high = QRS[0][0] * DOTS_MM, QRS[0][1] * DOTS_MM
    draw = ImageDraw.Draw(sheet)
    draw.fontmode = "1"
    draw.rectangle((left, top, left + wide, top + high), outline=0)
    bits = matrix(text)
    size = side(bits)
    dots = QR_MM * DOTS_MM // (size + 2 * QUIET_MODULES)
    symbol = Image.frombytes("L", (size, size), bits).resize((size * dots,) * 2, Image.Resampling.NEAREST)
    sheet.paste(symbol, (left + QUIET_MODULES * dots, top + (high - size * dots) // 2))
    x, y = left + (QR_MM + 4) * DOTS_MM, top + 7 * DOTS_MM
    for height_mm, line in names:
        draw.text((x, y), line, font=_font(line, height_mm * DOTS_MM * 3 // 4, left + wide - x - 2 * DOTS_MM), fill=0)
        y += (height_mm + 1) * DOTS_MM


def _bars(sheet, left: int, top: int, text: str, names: list[tuple[int, str]]) -> None:
    from barcode.codex import Code128
    from PIL import ImageDraw

    wide, high = BARS[0][0] * DOTS_MM, BARS[0][1] * DOTS_MM
    draw = ImageDraw.Draw(sheet)
    draw.fontmode = "1"
    draw.rectangle((left, top, left + wide, top + high), outline=0)
    (modules,) = Code128(text).build()
    x = left + QUIET_BARS * BAR_DOTS
    for n, module in enumerate(modules):
        if module == "1":
            draw.rectangle((x + n * BAR_DOTS, top + 2 * DOTS_MM, x + (n + 1) * BAR_DOTS - 1, top + (2 + BARS_MM) * DOTS_MM), fill=0)
    beside = x + (len(modules) + QUIET_BARS) * BAR_DOTS
    room = left + wide - beside - 2 * DOTS_MM
    for y_mm, height_mm, line in ((2, 9, names[0][1]), (12, 7, names[1][1])):
        draw.text((beside, top + y_mm * DOTS_MM), line, font=_font(line, height_mm * DOTS_MM * 3 // 4, room), fill=0)
    foot = "   ".join(line for _, line in names[2:])
    draw.text((x, top + (BARS_MM + 4) * DOTS_MM), foot, font=_font(foot, 4 * DOTS_MM, wide // 2), fill=0)


def _font(line: str, size: int, wide: int):
    from PIL import ImageFont

    from device.drivers.display.draw import FONT_PATH
    while True:
        try:
            font = ImageFont.truetype(FONT_PATH, size)
        except OSError as why:
            raise Outside(f"the font {FONT_PATH} is missing: {why}", which="cards",
                          hint="apt-get install fonts-wqy-microhei") from None
        if size <= 16 or font.getlength(line) <= wide:
            return font
        size -= 2
