"""What a local channel must not forget when its server is stopped: its orders, codes and keys as JSON, and back.

Knows the insides of each channel's rules, by one struct a channel.  Refuses to know files, and what the orders mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from sim.channels import alipay, gateway, unionpay, wechat_codes, wechat_orders
from sim.channels.alipay_server import AlipayServer
from sim.channels.gateway_server import GatewayServer
from sim.channels.gateway_terminals import Terminal
from sim.channels.unionpay_server import UnionpayServer
from sim.channels.wechat_server import WechatServer
from sim.devices import terminal


def kept(server: Any) -> bytes:
    """All that the channel behind `server` holds."""
    write, _ = MEMORIES[server.rules.channel]
    with server._lock:
        return msgspec.json.encode(write(server))


def put_back(server: Any, held: bytes) -> None:
    """The channel as it was when `kept` wrote `held`; for a server that is not started yet.  ValueError for other bytes."""
    _, read = MEMORIES[server.rules.channel]
    read(server, held)


class Wechat(msgspec.Struct):
    orders: list[wechat_orders.Order]
    qrs: dict[str, str]
    codes: dict[str, wechat_codes.Code]
    due: list[tuple[int, str]]
    count: int


def of_wechat(server: WechatServer) -> Wechat:
    rules = server.rules
    return Wechat(list(rules._orders.values()), rules._codes, rules.codes._codes, rules._due, rules._count)


def to_wechat(server: WechatServer, held: bytes) -> None:
    rules, was = server.rules, msgspec.json.decode(held, type=Wechat)
    rules._orders = {order.order_no: order for order in was.orders}
    rules._codes, rules.codes._codes, rules._due, rules._count = was.qrs, was.codes, was.due, was.count
    rules._paid = {order.transaction_id: order for order in was.orders if order.transaction_id}
    rules._refunds = {refund.refund_no: (order, refund) for order in was.orders for refund in order.refunds}
    rules.codes.spent |= {code for code, told in was.codes.items() if told.order_no}


class Gateway(msgspec.Struct):
    orders: list[gateway.Order]
    codes: dict[str, gateway.Code]
    terminal: Terminal                 # its keys change: without them the box would be a stranger


def of_gateway(server: GatewayServer) -> Gateway:
    return Gateway(list(server.rules._orders.values()), server.rules._codes, server.first)


def to_gateway(server: GatewayServer, held: bytes) -> None:
    rules, was = server.rules, msgspec.json.decode(held, type=Gateway)
    rules._orders, rules._codes = {order.order_no: order for order in was.orders}, was.codes
    rules._refunds = {refund.refund_no: (order, refund) for order in was.orders for refund in order.refunds}
    rules.spent |= {code for code, told in was.codes.items() if told.order_no}
    server.first.secret, server.first.nexts = was.terminal.secret, was.terminal.nexts


class Alipay(msgspec.Struct):
    trades: list[alipay.Trade]
    tickets: list[alipay.Ticket]
    codes: dict[str, alipay.Code]
    due: list[tuple[int, str]]
    count: int


def of_alipay(server: AlipayServer) -> Alipay:
    rules = server.rules
    return Alipay(list(rules._trades.values()), list(rules._tickets.values()), rules._codes, rules._due, rules._count)


def to_alipay(server: AlipayServer, held: bytes) -> None:
    rules, was = server.rules, msgspec.json.decode(held, type=Alipay)
    rules._trades = {trade.order_no: trade for trade in was.trades}
    rules._by_no = {trade.trade_no: trade for trade in was.trades}
    rules._tickets = {ticket.order_no: ticket for ticket in was.tickets}
    rules._qrs = {ticket.qr: ticket for ticket in was.tickets}
    rules._codes, rules._due, rules._count = was.codes, was.due, was.count
    rules.spent |= {code for code, told in was.codes.items() if told.order_no}


class Unionpay(msgspec.Struct):
    """A trade names its origin and the origin its backs: here each stands alone, with its origin's key beside it."""

    trades: list[tuple[unionpay.Trade, tuple[str, str] | None]]
    codes: dict[str, unionpay.Code]
    count: int


def of_unionpay(server: UnionpayServer) -> Unionpay:
    rules = server.rules
    trades = [(msgspec.structs.replace(trade, origin=None, backs=[]),
               (trade.origin.order_no, trade.origin.txn_time) if trade.origin else None) for trade in rules._trades.values()]
    return Unionpay(trades, rules._codes, rules._count)


def to_unionpay(server: UnionpayServer, held: bytes) -> None:
    rules, was = server.rules, msgspec.json.decode(held, type=Unionpay)
    rules._trades = {(trade.order_no, trade.txn_time): trade for trade, _ in was.trades}
    for trade, origin in was.trades:
        if origin is not None:
            trade.origin = rules._trades[origin]
            trade.origin.backs = [*trade.origin.backs, trade]
    rules._by_query_id = {trade.query_id: trade for trade, _ in was.trades if trade.query_id}
    rules._qrs = {trade.qr: trade for trade, _ in was.trades if trade.qr}
    rules._codes, rules._count = was.codes, was.count
    rules.spent |= {code for code, told in was.codes.items() if told.used}


class Journal(msgspec.Struct):
    txns: list[terminal.Txn]
    refunds: list[terminal.Refund]
    serial: int


def of_terminal(model: terminal.TerminalModel) -> bytes:
    """The card terminal's own journal, and its bank's: a device, not a server, so it stands beside the table below."""
    return msgspec.json.encode(Journal(model.txns, model.refunds, model._serial))


def to_terminal(model: terminal.TerminalModel, held: bytes) -> None:
    was = msgspec.json.decode(held, type=Journal)
    model.txns, model.refunds, model._serial = was.txns, was.refunds, was.serial


MEMORIES: dict[str, tuple[Callable[[Any], Any], Callable[[Any, bytes], None]]] = {
    "wechat": (of_wechat, to_wechat), "alipay": (of_alipay, to_alipay),
    "unionpay": (of_unionpay, to_unionpay), "gateway": (of_gateway, to_gateway)}
