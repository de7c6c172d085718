"""A channel without a wire: the same requests and the same reading of replies, over rules handed in.

Knows WeChat's calls as bytes.  Refuses to know whose rules they are; no pushed configuration can name it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol

from device.drivers.channels import wechat_bytes as wire
from device.drivers.channels import wechat_word_bytes as words
from device.drivers.channels.codec_bytes import Reply, Request, Verdict
from device.txn.effects import CloseOrder, Effect, FetchBill, PlaceOrder, QueryOrder, QueryRefund, RefundOrder
from device.txn.inputs import BillSaid, ChannelSaid, DeviceSaid, Input, QrReady, RefundSaid, RefundWord, Said


class Rules(Protocol):
    def answer(self, method: str, path: str, body: bytes, mchid: str) -> tuple[int, int, bytes]:
        """One call: (HTTP status, numeric reason or 0, reply body)."""
        ...


CALLS: dict[type[Effect], str] = {PlaceOrder: "place", QueryOrder: "query", CloseOrder: "close",
                                  RefundOrder: "refund", QueryRefund: "refund_query"}


class ChannelSim:
    """In-memory twin of a channel driver.

    `rules` is asked in place of a server.  `fault(call)` is asked first and names what goes wrong with this call: ""
    for nothing, `lost_request` (no effect, no answer), `lost_answer` (effect, no answer), `lying` (effect, unproven
    answer).
    """

    does: frozenset[type[Effect]] = frozenset({*CALLS, FetchBill})
    at_once = 4

    def __init__(self, rules: Rules, *, channel: str = "wechat", fault: Callable[[str], str] = lambda call: "") -> None:
        self._rules, self._fault, self._part = rules, fault, f"channel:{channel}"
        self._health, self._news = "", asyncio.Queue[DeviceSaid | None]()

    async def inputs(self) -> AsyncIterator[Input]:
        while (news := await self._news.get()) is not None:
            yield news

    async def do(self, effect: Effect) -> Input:
        """As any channel: one effect, one word; nothing raises."""
        return self.answer_to(effect)

    def answer_to(self, effect: Effect) -> Input:
        """What `do` answers, without a loop: for worlds that have none."""
        if isinstance(effect, FetchBill):
            return BillSaid(effect.account, effect.day, why="not made yet")
        call = CALLS[type(effect)]
        fault = self._fault(call)
        if isinstance(effect, (PlaceOrder, QueryOrder, CloseOrder)):
            order = effect.intent
            reply = self._reply(wire.order_call(call, order), dict(order.account.fields)["mchid"], fault)
            verdict = UNHEARD if reply is None else words.order_word(call, order, reply, doubt(fault), now_s=0)
            self._tell(verdict)
            if verdict.word == "qr":
                return QrReady(order.order_no, verdict.qr)
            return ChannelSaid(order.order_no, Said(verdict.word), verdict.amount_fen, verdict.channel_no,
                               verdict.detail, undo=call == "close")
        assert isinstance(effect, (RefundOrder, QueryRefund)), effect
        refund = effect.intent
        reply = self._reply(wire.refund_call(call, refund), dict(refund.account.fields)["mchid"], fault)
        verdict = UNHEARD if reply is None else words.refund_word(call, refund, reply, doubt(fault), now_s=0)
        self._tell(verdict)
        return RefundSaid(refund.refund_no, RefundWord(verdict.word), verdict.amount_fen, verdict.channel_no,
                          verdict.detail)

    async def close(self) -> None:
        self._news.put_nowait(None)

    def _reply(self, request: Request, mchid: str, fault: str) -> Reply | None:
        if fault == "lost_request":
            return None
        status, tail, body = self._rules.answer(request.method, request.path, request.body, mchid)
        if fault == "lost_answer":
            return None
        # A signature stands there, so that an unproven error counts for nothing, as on the wire.
        return Reply(status, {"wechatpay-signature": "-", "request-id": f"sim-{tail}"}, body)

    def _tell(self, verdict: Verdict) -> None:
        if verdict.health != self._health:
            self._health = verdict.health
            self._news.put_nowait(DeviceSaid(self._part, verdict.health, verdict.detail))


UNHEARD = Verdict("unknown", detail="no answer came", health="gone")


def doubt(fault: str) -> str:
    return "the reply's signature is wrong" if fault == "lying" else ""
