"""Alipay's business bill of one day, as the ZIP it comes in.

GBK text in members whose names are GBK without the flag that says so; text cells end with a tab, refunds are negative.
Source: Alipay open documentation, business bill (type trade).  Guesses: the fee's sign and its rounding to a fen, the share of
instalments, and what stands under 备注.
"""

from __future__ import annotations

import datetime
import io
import zipfile
from collections.abc import Iterable

from sim.channels.alipay import BEIJING, DAY_MS, HOUR_MS, SECOND_MS, Refund, Trade, moment, yuan

READY_MS = 9 * HOUR_MS                 # of the day after
FEE_MILLI = 6                          # 0.60 %
PLAN_MILLI = {"3": 18, "6": 45, "12": 75}      # of an instalment plan whose fee the shop bears
HEAD = ("支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,终端号,对方账户,订单金额（元）,"
        "商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,商家优惠（元）,券核销金额（元）,券名称,"
        "商家红包消费金额（元）,卡消费金额（元）,退款批次号/请求号,服务费（元）,分润（元）,备注")
SUM_HEAD = ("门店编号,门店名称,交易订单总笔数,退款订单总笔数,订单金额（元）,商家实收（元）,支付宝优惠（元）,商家优惠（元）,"
            "卡消费金额（元）,服务费（元）,分润（元）,实收净额（元）")

Row = tuple[int, int, int, str]        # when, amount and fee in fen with their signs, the line


class GbkName(zipfile.ZipInfo):
    """A member named in GBK, without the flag of UTF-8."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.filename.encode("gbk"), self.flag_bits & ~0x800


def ready(day: str, now_ms: int) -> bool:
    return now_ms >= start_ms(day) + DAY_MS + READY_MS


def start_ms(day: str) -> int:
    """ValueError for a text that is no day."""
    return int(datetime.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=BEIJING).timestamp()) * SECOND_MS


def rows_of(trades: Iterable[Trade], day: str) -> list[Row]:
    """Payments by the time they were made, refunds by the time they went back."""
    today = range(start_ms(day), start_ms(day) + DAY_MS)
    rows = [_row(t, None) for t in trades if t.paid_ms in today]
    rows += [_row(t, r) for t in trades for r in t.refunds if r.made_ms in today]
    return sorted(rows)


def packed(rows: list[Row], day: str, pid: str) -> bytes:
    """The ZIP: the detail file and the summary."""
    since, until = (f"{d[:4]}年{d[5:7]}月{d[8:10]}日 00:00:00" for d in (day, moment(start_ms(day) + DAY_MS)))
    made = moment(start_ms(day) + DAY_MS + READY_MS)
    until_made = f"{made[:4]}年{made[5:7]}月{made[8:10]}日 {made[11:]}"
    paid, back = [r for r in rows if r[1] > 0], [r for r in rows if r[1] < 0]
    head = [f"#账号：[{pid}0156]", f"#起始日期：[{since}]   终止日期：[{until}]"]
    detail = ["#支付宝业务明细查询", *head, f"#{'-' * 41}业务明细列表{'-' * 40}", HEAD, *(line for *_, line in rows),
              f"#{'-' * 41}业务明细列表结束{'-' * 36}",
              f"#交易合计：{len(paid)}笔，商家实收共{yuan(sum(r[1] for r in paid))}元，商家优惠共0.00元",
              f"#退款合计：{len(back)}笔，商家实收退款共{yuan(sum(r[1] for r in back))}元，商家优惠退款共0.00元",
              f"#导出时间：[{until_made}]", ""]
    whole, fee = sum(r[1] for r in rows), sum(r[2] for r in rows)
    sums = f"{len(paid)},{len(back)},{yuan(whole)},{yuan(whole)},0.00,0.00,0.00,{yuan(fee)},0.00,{yuan(whole + fee)}"
    summary = ["#支付宝业务汇总查询", *head, f"#{'-' * 41}业务汇总列表{'-' * 40}", SUM_HEAD, f"合计,,{sums}",
               f"#{'-' * 40}业务汇总列表结束{'-' * 37}", f"#导出时间：[{until_made}]", ""]
    out, stem = io.BytesIO(), f"{pid}0156_{day.replace('-', '')}_业务明细"
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, lines in ((f"{stem}.csv", detail), (f"{stem}(汇总).csv", summary)):
            info = GbkName(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, "\r\n".join(lines).encode("gb18030"))
    return out.getvalue()


def _row(trade: Trade, refund: Refund | None) -> Row:
    at = trade.paid_ms if refund is None else refund.made_ms
    amount = trade.amount_fen if refund is None else -refund.amount_fen
    plan = trade.content.get("extend_params", {})
    term = str(plan.get("hb_fq_num", ""))
    shop = str(plan.get("hb_fq_seller_percent", "")) == "100"
    milli = FEE_MILLI + (PLAN_MILLI[term] if term and shop else 0)
    fee = -((abs(amount) * milli + 500) // 1000) * (1 if refund is None else -1)
    note = f"花呗分期{term}期{'商家' if shop else '用户'}承担手续费" if term else ""
    content = trade.content
    cells = [trade.trade_no + "\t", trade.order_no + "\t", ("交易" if refund is None else "退款") + "\t",
             _cell(str(content["subject"])), moment(trade.made_ms), moment(at), _cell(str(content.get("store_id", ""))), "\t",
             _cell(str(content.get("operator_id", ""))), _cell(str(content.get("terminal_id", ""))), "*测(138****0000)",
             yuan(amount), yuan(amount), "0.00", "0.00", "0.00", "0.00", "0.00", "", "0.00\t", "0.00",
             (refund.refund_no if refund is not None else "") + "\t", yuan(fee), "0.00", note]
    return at, amount, fee, ",".join(cells)


def _cell(text: str) -> str:
    # A comma or a quote inside a cell stands in quotes.
    return ('"' + text.replace('"', '""') + '"' if "," in text or '"' in text else text) + "\t"
