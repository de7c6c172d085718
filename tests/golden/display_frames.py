"""The golden pictures of displays: each state on the usual panel, each size and both languages, large type, poles and an OLED.

A panel is drawn by the driver's own canvas; a pole's glass by the model that was written from its manual, out of the very bytes
that left for it.
"""

from __future__ import annotations

import io

import msgspec
from PIL import Image

from device.drivers.display.draw import Slide, frame
from device.drivers.display.oled import picture
from device.drivers.display.pole_bytes import DIALECTS, frame_of
from device.drivers.display.pole_text import glass_of
from device.txn.screen import Line, Screen
from sim.devices.pole import MODELS
from sim.devices.pole_glass import glass_image

URL = "https://qr.alipay.com/bax03431ljhokirwl38f00a7"
RECEIPT = "https://r.example.org/0000017K3M00000012AB"
LINES = (Line("农夫山泉饮用天然水 550ml", "2", 400), Line("香蕉", "0.512 kg", 409),
         Line("心相印茶语丝享系列抽取式面巾纸三层120抽6包装超值家庭装", "1", 2590))
GOODS = (Line("Spring water 550ml", "2", 400), Line("Bananas", "0.512 kg", 409), Line("Facial tissue 3 ply, 6 packs", "1", 2590))
WORDS = ("苹果 27", "APPLE 27")
IDLE = Screen("IDLE", "阳光便利店", notice="欢迎光临")
BASKET = Screen("BASKET", "阳光便利店", lines=LINES, lines_total=3, total_fen=3399, big="¥33.99")
PAY = Screen("AWAITING", "请用任意钱包扫码付款", lines=LINES, lines_total=3, total_fen=3399, big="¥33.99", qr=URL, words=WORDS,
             order_no="0000017K3M00000012AB", wallets=("微信", "支付宝", "云闪付", "数字人民币"), deadline=("b", 285_000))
PAID = Screen("PAID", "付款成功", big="¥33.99", total_fen=3399, tone="good", notice="找零 ¥16.01", change_fen=1601)
CASH = msgspec.structs.replace(IDLE, cash_only=True, notice="暂时只收现金")
STATES = {
    "idle": IDLE, "basket": BASKET, "pay": PAY, "paid": PAID, "cash-only": CASH,
    "checking": Screen("CANCELLING", "正在取消，请勿付款", big="¥33.99", total_fen=3399, tone="wait"),
    "choice": Screen("CANCELLING", "取消时已付款：ENTER 交货，CANCEL 退款", big="¥33.99", tone="wait", deadline=("b", 30_000)),
    "receipt": msgspec.structs.replace(PAID, receipt_qr=RECEIPT, footer=("打印机缺纸",)),
    "trouble": msgspec.structs.replace(BASKET, tone="bad", notice="未知条码 6901234567892", typed="3 x2",
                                     footer=("离线：记录待上传",)),
    "training": msgspec.structs.replace(BASKET, training=True),
}
ENGLISH = {
    "basket": msgspec.structs.replace(BASKET, title="Sunshine", lines=GOODS, lang="en"),
    "pay": msgspec.structs.replace(PAY, title="Scan with WeChat to pay", wallets=("WeChat", "微信"), lang="en"),
    "paid": msgspec.structs.replace(PAID, title="Paid", notice="Change ¥16.01", lang="en"),
}
SIZES = ((320, 240), (480, 320), (480, 800), (1280, 800), (240, 320))


def pictures() -> dict[str, bytes]:
    """Every golden picture by its file's name."""
    return {name: _png(image) for name, image in images().items()}


def images() -> dict[str, Image.Image]:
    """The same before they are packed."""
    made: dict[str, Image.Image] = {f"800x480-{name}": frame(screen) for name, screen in STATES.items()}
    made |= {f"800x480-en-{name}": frame(screen) for name, screen in ENGLISH.items()}
    made |= {f"800x480-large-{name}": frame(STATES[name], large=True) for name in ("basket", "pay", "trouble")}
    made["800x480-slide"] = frame(msgspec.structs.replace(IDLE, footer=("打印机缺纸",)), slide=Slide(_poster(800, 480)))
    for width, height in SIZES:
        made |= {f"{width}x{height}-{name}": frame(STATES[name], 0, width, height) for name in ("basket", "pay", "receipt")}
    for dialect in DIALECTS:
        made[f"pole-{dialect}"] = _poles(dialect, "ascii")
    made["pole-cd5220-gbk"] = _poles("cd5220", "gbk")
    made |= {f"oled-{name}": picture(glass_of(STATES[name], 285, "gbk"), 128, 64).resize((256, 128))
             for name in ("basket", "pay", "paid")}
    return {f"{name}.png": image for name, image in made.items()}


def _poles(dialect: str, charset: str) -> Image.Image:
    """The states of one pole, one below the other."""
    said = STATES if charset == "gbk" else STATES | {"basket": ENGLISH["basket"], "pay": ENGLISH["pay"]}
    glasses = []
    for name in ("idle", "cash-only", "basket", "pay", "checking", "paid"):
        pole = MODELS[dialect]()
        pole.feed(DIALECTS[dialect].reset + frame_of(glass_of(said[name], 285, charset), dialect, charset))
        glasses.append(glass_image(pole, charset))
    sheet = Image.new("RGB", (glasses[0].width, sum(glass.height for glass in glasses)))
    for n, glass in enumerate(glasses):
        sheet.paste(glass, (0, n * glass.height))
    return sheet


def _poster(width: int, height: int) -> Image.Image:
    """What a shop might send: two colours and no letter, so that it stands for any picture."""
    poster = Image.linear_gradient("L").resize((width, height))
    return Image.merge("RGB", (poster.point(lambda v: 250 - v // 6), poster.point(lambda v: 190 - v // 3),
                               poster.point(lambda v: 60 + v // 4)))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    colours = image.convert("RGB").quantize(160) if image.mode == "RGB" and len(image.getcolors(1 << 24) or ()) > 256 else image
    colours.save(out, "PNG", optimize=True)
    return out.getvalue()
