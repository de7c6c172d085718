"""WeChat's trade bill of one day, as a file.

Source: WeChat Pay merchant documentation, trade bill (type ALL, 27 columns).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from sim.channels.wechat_forms import Refused
from sim.channels.wechat_orders import BEIJING, DAY_MS, HOUR_MS, SECOND_MS, Order, Refund

HEAD = ("交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,"
        "交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,"
        "充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,费率备注")
SUM_HEAD = ("总交易单数,应结订单总金额,退款总金额,充值券退款总金额,手续费总金额,订单总金额,"
            "申请退款总金额")
FEE_MILLI = 6                     # 0.60 %
REFUND_STATES = {"SUCCESS": "SUCCESS", "PROCESSING": "PROCESSING", "CLOSED": "FAIL", "ABNORMAL": "CHANGE"}


def trade_bill(orders: Iterable[Order], day: str, *, now_ms: int, appid: str, mchid: str) -> bytes:
    """The bill of `day` (YYYY-MM-DD, Beijing), type ALL, UTF-8.  Refused for a day that has none, or none yet.

    Rows are paid orders by the day of payment and refunds by the day they were accepted; values start with a
    backtick, amounts are yuan.  A fee is reported per row and given back with a refund.
    """
    try:
        start = datetime.datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=BEIJING)
    except ValueError:
        raise Refused("invalid", "/bill_date") from None
    start_ms = int(start.timestamp()) * SECOND_MS
    if now_ms < start_ms + DAY_MS + 9 * HOUR_MS:
        raise Refused("bill_soon")
    if now_ms > start_ms + 92 * DAY_MS:
        raise Refused("bill_old")
    today = range(start_ms, start_ms + DAY_MS)
    rows: list[tuple[int, list[str]]] = []
    paid_fen = back_fen = 0
    for order in orders:
        backs = [(refund, "REFUND") for refund in order.refunds if refund.made_ms in today]
        if order.reversed_ms in today:
            backs.append((Refund("", "", {}, order.total_fen, order.reversed_ms, 0, "SUCCESS"), "REVOKED"))
        if order.paid_ms in today:
            rows.append((order.paid_ms, _row(order, None, "SUCCESS", appid, mchid)))
            paid_fen += order.total_fen
        for refund, state in backs:
            rows.append((refund.made_ms, _row(order, refund, state, appid, mchid)))
            back_fen += refund.amount_fen
    if not rows:
        raise Refused("no_bill")
    sums = [str(len(rows)), yuan(paid_fen), yuan(back_fen), "0.00", fee(paid_fen - back_fen), yuan(paid_fen), yuan(back_fen)]
    told = [ticked(row) for _, row in sorted(rows, key=lambda r: r[0])]
    return "\r\n".join([HEAD, *told, SUM_HEAD, ticked(sums), ""]).encode()


def _row(order: Order, refund: Refund | None, state: str, appid: str, mchid: str) -> list[str]:
    at_ms = order.paid_ms if refund is None else refund.made_ms
    at = datetime.datetime.fromtimestamp(at_ms / SECOND_MS, BEIJING).strftime("%Y-%m-%d %H:%M:%S")
    paid, back = (order.total_fen, 0) if refund is None else (0, refund.amount_fen)
    returned = ["0", "0", "0.00", "0.00", "", ""] if refund is None else [
        refund.refund_id, refund.refund_no, yuan(back), "0.00", "ORIGINAL", REFUND_STATES[refund.status]]
    return [at, appid, mchid, order.sub_mchid or "0", "", order.transaction_id, order.order_no, order.openid, order.trade_type,
            state, "OTHERS", "CNY", yuan(paid), "0.00", *returned, order.content["description"], order.content.get("attach", ""),
            fee(paid - back), "0.60%", yuan(paid), yuan(back), ""]


def yuan(amount_fen: int) -> str:
    return f"{amount_fen // 100}.{amount_fen % 100:02d}"


def fee(amount_fen: int) -> str:
    """The fee on `amount_fen` in yuan with five decimals, exactly."""
    share = amount_fen * FEE_MILLI
    return f"{'-' if share < 0 else ''}{abs(share) // 100_000}.{abs(share) % 100_000:05d}"


def ticked(values: list[str]) -> str:
    return ",".join("`" + value for value in values)
