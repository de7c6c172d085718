"""Papers for the golden pictures: each kind of a till's paper, and each dialect of printer, on both widths of paper."""

from __future__ import annotations

from device.drivers.printer.dialect_bytes import DIALECTS, Page
from device.drivers.printer.raster import Raster
from device.txn.books import Line, Sale, Tender, Totals
from device.txn.effects import Cut, Pair, PaperPart, QrCode, Ruler, Text
from device.txn.receipt import copy_of, refund_paper, report_paper, sale_paper
from device.types import Stamp, Terms
from sim.devices.printer import PrinterModel, Receipt

AT = Stamp("b1", 1, "2026-11-24T10:00:00+08:00", "ntp")
NO = "000001K7QF00000042X9"
TERMS = Terms(shop_zh="便利店 南山店", shop_en="Corner Shop Nanshan", cashier="07")
SALE = Sale(NO, [Line("6902538004045", "脉动青柠味600ml", "Mizone lime 600ml", 2000, 500, 1000),
                 Line("2100001000000", "苹果（红富士，产地陕西，特级）",
                      "Apples, Red Fuji from Shaanxi, finest", 512, 1280, 655, "kg"),
                 Line("6901939621608", "可口可乐330ml(听)", "Coca-Cola 330ml can", 1000, 250, 250)],
            [Tender("wechat", 1005, NO), Tender("cash", 900)], 1905, "07", "2026-11-24T10:00:00+08:00", 1000, 100)
ENGLISH: tuple[PaperPart, ...] = (
    Text("Café Zürich", "c", 2, True), Text("Rue de l'Université 5", "c"), Ruler(), Text("Crème brûlée, petite"),
    Pair("  2 x 3.50", "7.00"), Pair("Total", "€7.00", 2, True), Text("茶 and what code page 858 lacks: 合计", "r"),
    QrCode(NO), Cut())
RARE: tuple[PaperPart, ...] = (Text("生僻字 㐂 䶮 𠮷 ｶﾅ 한글 😀"), Pair("姓名 㛃", "¥1.00"), Cut())
PAPERS: dict[str, tuple[PaperPart, ...]] = {
    "sale": sale_paper(TERMS, SALE, AT), "copy": copy_of(sale_paper(TERMS, SALE, AT), 2),
    "refund": refund_paper(TERMS, NO, "000001K7QF00000043Y1", 655, "wechat", AT),
    "z": report_paper(TERMS, "Z", 12, "TBZK7QF000012", "2026-11-24",
                      Totals(sales=41, sales_fen=123_450, refunds=1, refunds_fen=655, voids=2, kicks=9, grand_fen=9_876_543,
                             methods={"wechat": 100_000, "cash": 23_450}), 1, 1, AT),
}
CHARSETS = {"western": "cp858", "cp437": "cp437", "utf8": "utf-8", "gb18030": "gb18030"}
WIDTHS = {"80": 48, "58": 32}


def printed(paper: tuple[PaperPart, ...], dialect: str, columns: int, **more) -> tuple[Receipt, list[bytes]]:
    """The piece a printer of this dialect makes of `paper`, and what it did not understand."""
    model = PrinterModel(columns, charset=CHARSETS.get(dialect, "gbk"))
    model.receive(Page(DIALECTS[dialect], Raster(), **more)(paper, columns))
    (receipt,) = model.receipts()
    return receipt, model.strange


def pictures() -> dict[str, bytes]:
    """Every golden receipt by its file name."""
    made = {}
    for mm, columns in WIDTHS.items():
        for name, paper in PAPERS.items():
            made[f"{name}_{mm}_chinese.png"] = printed(paper, "chinese", columns)[0].png
        for dialect in DIALECTS:
            if dialect != "chinese":
                made[f"sale_{mm}_{dialect}.png"] = printed(PAPERS["sale"], dialect, columns)[0].png
        for dialect in ("western", "chinese", "raster"):
            made[f"english_{mm}_{dialect}.png"] = printed(ENGLISH, dialect, columns)[0].png
        for dialect in ("chinese", "gb18030"):
            made[f"rare_{mm}_{dialect}.png"] = printed(RARE, dialect, columns)[0].png
    return made
