"""What stands on paper: receipts, slips and reports as printer-free parts.  Paper tells the truth and nothing else."""

from __future__ import annotations

from device.txn.books import Basket, Order, Sale, Tally, Totals
from device.txn.check_words import check_words
from device.txn.effects import Barcode, Cut, Pair, PaperPart, QrCode, Ruler, Text
from device.txn.words import CAUSES, WALLETS, yuan
from device.types import Stamp, Terms

Paper = tuple[PaperPart, ...]


def _head(terms: Terms, title: str = "") -> list[PaperPart]:
    parts: list[PaperPart] = [Text("*** 培训 TRAINING ***", "c", 2, True)] if terms.training else []
    parts += [Text(terms.shop_zh, "c", 2, True), Text(terms.shop_en, "c")]
    return [*parts, Text(title, "c", 1, True)] if title else parts


def _tail(terms: Terms, at: Stamp) -> list[PaperPart]:
    tail: list[PaperPart] = [Text(f"{at.wall[:19].replace('T', ' ')}  收银员 / Cashier {terms.cashier}")]
    return [*tail, *([Text("*** 培训 TRAINING ***", "c", 2, True)] if terms.training else []), Cut()]


def _goods(lines) -> list[PaperPart]:
    parts: list[PaperPart] = []
    for line in lines:
        parts.append(Text(line.name_zh if line.name_zh == line.name_en else f"{line.name_zh} {line.name_en}"))
        parts.append(Pair(f"  {quantity(line.qty_milli, line.unit)} x {yuan(line.price_fen)}", yuan(line.amount_fen)))
    return parts


def quantity(qty_milli: int, unit: str) -> str:
    """`3`, or `0.512 kg` of goods sold by weight."""
    return f"{qty_milli // 1000}" if unit == "piece" else f"{qty_milli // 1000}.{qty_milli % 1000:03d} {unit}"


def sale_paper(terms: Terms, sale: Sale, at: Stamp, note: str = "") -> Paper:
    parts = [*_head(terms), Ruler(), *_goods(sale.lines), Ruler(),
             Pair("合计 / Total", yuan(sale.amount_fen), 2, True)]
    for tender in sale.tenders:
        name = tender.wallet or tender.method         # of a gateway the customer knows the wallet alone
        zh, en = WALLETS.get(name, (name, name))
        parts.append(Pair(f"{zh} / {en} {tender.payer}".strip(), yuan(tender.amount_fen)))
    if sale.tendered_fen:
        parts += [Pair("实收 / Tendered", yuan(sale.tendered_fen)), Pair("找零 / Change", yuan(sale.change_fen))]
    if note:
        parts.append(Text(note, "c"))
    if sale.price_lists:
        parts.append(Text(f"价目 / Prices {' '.join(sale.price_lists)}"))
    for tender in sale.tenders:                       # what stood beside the QR that was paid: 29 columns at most
        if tender.order_no and tender.way == "qr":
            parts.append(Text("核对 Check " + " ".join(check_words(tender.order_no))))
    return (*parts, Text(f"单号 / No. {sale.order_no}"), QrCode(sale.order_no), *_tail(terms, at))


def refund_paper(terms: Terms, order_no: str, refund_no: str, amount_fen: int, method: str, at: Stamp) -> Paper:
    zh, en = WALLETS.get(method, (method, method))
    return (*_head(terms, "退款凭证 / Refund slip"), Ruler(), Pair("退款 / Refund", yuan(amount_fen), 2, True),
            Pair("方式 / By", f"{zh} / {en}"), Text(f"退款号 / Refund no. {refund_no}"),
            Text(f"单号 / No. {order_no}"), *_tail(terms, at))


def hold_paper(terms: Terms, basket: Basket, slot: int, code: str, at: Stamp) -> Paper:
    return (*_head(terms, f"挂单 / Held  {slot}"), Ruler(), *_goods(basket.lines), Ruler(),
            Pair("未付 / Not paid", yuan(basket.total_fen)), Barcode(code), *_tail(terms, at))


def park_paper(terms: Terms, order: Order, policy: str, slip: int, at: Stamp) -> Paper:
    words = ("货已交付；到账后入账 / Goods given; booked when paid" if policy == "book"
             else "货未交付；到账将退回 / Goods kept; a late payment is given back")
    return (*_head(terms, f"付款未明 / Payment undecided  {slip}"), Ruler(),
            Pair("金额 / Amount", yuan(order.intent.amount_fen)), Text(words),
            Text(f"单号 / No. {order.intent.order_no}"), QrCode(order.intent.order_no), *_tail(terms, at))


def alert_paper(terms: Terms, title: str, order_no: str, amount_fen: int, at: Stamp, channel_fen: int = 0) -> Paper:
    """`channel_fen` is what the channel holds, where that is another amount."""
    held = [Pair("渠道到账 / Channel holds", yuan(channel_fen))] if channel_fen else []
    return (*_head(terms, title), Ruler(), Pair("金额 / Amount", yuan(amount_fen)), *held, Text(f"单号 / No. {order_no}"),
            *_tail(terms, at))


def report_paper(terms: Terms, letter: str, number: int, code: str, day: str, totals: Totals, held: int, parked: int, at: Stamp,
                 auto: bool = False) -> Paper:
    """`code` is the barcode that REPRINT finds it by.  `auto`: nobody pressed the key."""
    note = [Text("当日未结，自动日结 / Made by itself: the day was left open", "c")] if auto else []
    parts = [*_head(terms, f"{letter} 报表 / {letter} report  No. {number}"), *note, Ruler(),
             Pair("营业日 / Business day", day),
             Pair(f"销售 / Sales  {totals.sales}", yuan(totals.sales_fen)),
             Pair(f"退款 / Refunds  {totals.refunds}", yuan(-totals.refunds_fen)),
             Pair(f"删除 / Voids  {totals.voids}", yuan(totals.voids_fen)),
             Pair("钱箱 / Drawer openings", str(totals.kicks)), Ruler()]
    for method, fen in sorted(totals.methods.items()):
        zh, en = WALLETS.get(method, (method, method))
        parts.append(Pair(f"{zh} / {en}", yuan(fen)))
    for channel, tally in by_channel(totals).items():
        zh, en = WALLETS.get(channel, (channel, channel))
        took = f"  {tally.ms / tally.paid / 1000:.1f} s" if tally.paid else ""
        parts.append(Pair(f"{zh} / {en}  成功 / Paid", f"{tally.paid} / {tally.attempts}{took}"))
        parts += _bad_hours(channel, totals)
    return (*parts, Ruler(), Pair("净额 / Net", yuan(totals.sales_fen - totals.refunds_fen), 1, True),
            Pair("累计 / Grand total", yuan(totals.grand_fen)), Pair("挂单 / Held", str(held)),
            Pair("未明 / Undecided", str(parked)), Barcode(code), *_tail(terms, at))


def _bad_hours(channel: str, totals: Totals) -> list[PaperPart]:
    """The hours in which a channel failed, and why: hours in which all was paid are no news."""
    hours: dict[str, Tally] = {}
    for key, tally in sorted(totals.tallies.items()):
        name, _, hour = key.split()
        if name == channel:
            hours.setdefault(hour, Tally()).add(tally)
    return [Pair(f"  {hour}:00  " + "  ".join(f"{'/'.join(CAUSES.get(cause, (cause,)))} {count}"
                                              for cause, count in sorted(tally.failed.items())),
                 f"{tally.paid} / {tally.attempts}") for hour, tally in hours.items() if tally.failed]


def by_channel(totals: Totals) -> dict[str, Tally]:
    """The day's attempts summed by channel."""
    sums: dict[str, Tally] = {}
    for key, tally in sorted(totals.tallies.items()):
        sums.setdefault(key.split()[0], Tally()).add(tally)
    return sums


def copy_of(paper: Paper, n: int) -> Paper:
    """The same paper, marked as its `n`-th copy."""
    return (Text(f"*** 副本 COPY {n} ***", "c", 2, True), *paper)
