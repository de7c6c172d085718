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
from device.drivers.keycard_bytes import SUPERVISOR, card_text
from device.drivers.qr_bits import QUIET_MODULES, matrix, side
from device.errors import ConfigError, Outside
from device.identity import folder as identity
from device.txn.approval import badge_hash, pin_hash
from device.txn.inputs import KEYS

DOTS_MM = 8                       # 203 dpi, what shops' own printers have
PAGE_MM, CARD_MM = (210, 297), (90, 54)
ACROSS, DOWN = 2, 5
QR_MM = 40
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
            return _supervisor(config, asked.keys[1:], asked.out)
        return _written(config, [(keys, *_card(config, keys)) for keys in asked.keys or SHEET], asked.out)
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


def _supervisor(config: Config, names: list[str], out: str) -> int:
    pin = sys.stdin.readline().strip()
    pin_ok = pin.isascii() and pin.isdigit() and 4 <= len(pin) <= 9
    if len(names) != 1 or not names[0].isprintable() or '"' in names[0] or "\\" in names[0] or not pin_ok:
        raise ValueError("supervisor wants one NAME, and a PIN of 4 to 9 digits on standard input")
    text, number = _card(config, SUPERVISOR)
    print(f'[[supervisor]]\nname = "{names[0]}"\nbadge = "{badge_hash(text)}"\npin = "{pin_hash(pin, secrets.token_hex(8))}"')
    print(f'# to take the card away again: [cards] revoked = ["{number}"]')
    return _written(config, [(SUPERVISOR, text, number)], out, names[0])


def _written(config: Config, made: list[tuple[str, str, str]], out: str, holder: str = "") -> int:
    from PIL import Image

    page_of = ACROSS * DOWN
    for page, at in enumerate(range(0, len(made), page_of), 1):
        sheet = Image.new("1", (PAGE_MM[0] * DOTS_MM, PAGE_MM[1] * DOTS_MM), 1)
        for n, (keys, text, number) in enumerate(made[at:at + page_of]):
            left = (PAGE_MM[0] - ACROSS * CARD_MM[0]) // 2 + n % ACROSS * CARD_MM[0]
            top = (PAGE_MM[1] - DOWN * CARD_MM[1]) // 2 + n // ACROSS * CARD_MM[1]
            _draw(sheet, left * DOTS_MM, top * DOTS_MM, config, keys, text, number, holder)
        path = Path(f"{out}-{page}.png")
        try:
            sheet.save(path, dpi=(DOTS_MM * 25.4,) * 2)
            path.chmod(0o600)                        # a card is a key of the till
        except OSError as why:
            print(f"tillbox cards: {path} cannot be written: {why.strerror}", file=sys.stderr)
            return 1
        print(path)
    return 0


def _draw(sheet, left: int, top: int, config: Config, keys: str, text: str, number: str, holder: str) -> None:
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(sheet)
    draw.fontmode = "1"
    wide, high = CARD_MM[0] * DOTS_MM, CARD_MM[1] * DOTS_MM
    draw.rectangle((left, top, left + wide, top + high), outline=0)
    bits = matrix(text)
    size = side(bits)
    dots = QR_MM * DOTS_MM // (size + 2 * QUIET_MODULES)
    symbol = Image.frombytes("L", (size, size), bits).resize((size * dots,) * 2, Image.Resampling.NEAREST)
    sheet.paste(symbol, (left + QUIET_MODULES * dots, top + (high - size * dots) // 2))
    typed, _, key = keys.rpartition("-")
    x = left + (QR_MM + 4) * DOTS_MM
    rows = ((12, holder or (f"{typed} {key}" if typed else key)), (9, f"{typed} {NAMES.get(key, '')}".strip() or "数字"),
            (4, f"{config.shop_zh[:12]}  {config.cards.store}"), (4, f"No. {number}"))
    y = top + 7 * DOTS_MM
    for height_mm, line in rows:
        font = _font(line, height_mm * DOTS_MM * 3 // 4, left + wide - x - 2 * DOTS_MM)
        draw.text((x, y), line, font=font, fill=0)
        y += (height_mm + 1) * DOTS_MM


def _font(line: str, size: int, wide: int):
    from PIL import ImageFont

    from device.drivers.display_draw import FONT_PATH
    while True:
        try:
            font = ImageFont.truetype(FONT_PATH, size)
        except OSError as why:
            raise Outside(f"the font {FONT_PATH} is missing: {why}", which="cards",
                          hint="apt-get install fonts-wqy-microhei") from None
        if size <= 16 or font.getlength(line) <= wide:
            return font
        size -= 2
