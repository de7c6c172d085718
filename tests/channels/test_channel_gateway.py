"""Our codec against the local gateway, over the real bytes without a line; both clocks moved by hand."""

from __future__ import annotations

import datetime
import itertools

import msgspec
import pytest

from device.drivers.channels import gateway_key_bytes as keys
from device.drivers.channels.codec_bytes import Reply, Request
from device.drivers.channels.gateway import ASKED_MAX, GatewayCodec
from device.drivers.channels.https import told
from device.txn.effects import (
    ChargeCode,
    CloseOrder,
    FetchBill,
    Intent,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundIntent,
    RefundOrder,
)
from device.txn.inputs import BillSaid, QrReady, RefundWord, Said
from device.types import Account
from sim.channels.gateway import WALLETS, GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.gateway_terminals import mac
from sim.channels.server import LOST

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
SHOP = Account("gateway", "main", (("terminal_id", "T10001"),))
TEA = Intent("0000012345000000010Z", "gateway", SHOP, 900, "奶茶 x1", "2026-11-18T10:26:40+08:00", "2026-11-18T10:31:40+08:00",
             extras=(("instalments", "3"),))
SHOWN = msgspec.structs.replace(TEA, way="code")
BACK = RefundIntent("0000012345000000020Z", TEA.order_no, "gateway", SHOP, 300, 900, "退货", "2026-11-18T10:28:00+08:00")
BILL = FetchBill(SHOP, "2026-11-18")
SECRET = b"0123456789abcdef0123456789abcdef"


class Shop:
    """One codec and one server on one clock, joined without a line."""

    def __init__(self) -> None:
        self.now_s, numbers = START_S, itertools.count()
        self.rules = GatewayRules(lambda: int(self.now_s * 1000))
        self.server = GatewayServer(self.rules, secret=SECRET, now_s=lambda: self.now_s)
        self.codec = GatewayCodec(account="main", secret=SECRET, now_s=lambda: self.now_s, nonce=lambda: f"nonce{next(numbers)}")

    def verdict(self, effect):
        """What the answer proves, a bill's file fetched too; None when the line brought none."""
        request = self.codec.request(effect)
        while True:
            answer = self.server.exchange(request.method, request.path, request.headers, request.body)
            if answer.kind in LOST:
                return None
            verdict = self.codec.read(effect, Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.body))
            if verdict.follow is None:
                return verdict
            request = self.codec.sealed(effect, verdict.follow)

    def said(self, effect):
        return told(effect, self.verdict(effect))

    def paid(self, wallet="wechat"):
        assert self.server.scan(self.said(PlaceOrder(TEA)).qr, "pay", wallet=wallet)["ok"]


@pytest.fixture
def shop():
    return Shop()


@pytest.mark.parametrize("wallet", WALLETS)
def test_any_wallet_pays_the_one_qr_and_the_reply_names_it(shop, wallet):
    assert shop.said(QueryOrder(TEA)).said is Said.ABSENT
    qr = shop.said(PlaceOrder(TEA))
    assert isinstance(qr, QrReady) and qr.qr.startswith("https://")
    assert shop.said(PlaceOrder(TEA)) == qr
    assert shop.said(QueryOrder(TEA)).said is Said.OPEN
    assert shop.server.scan(qr.qr, "pay", wallet=wallet)["ok"]
    paid = shop.said(QueryOrder(TEA))
    assert (paid.said, paid.amount_fen, paid.wallet) == (Said.PAID, 900, wallet)
    assert shop.said(CloseOrder(TEA)).said is Said.PAID              # left alone: its money goes back by a refund
    assert b'"extras":{"instalments":"3"}' in shop.server.seen[1].body
    assert shop.server.seen[1].body == shop.server.seen[2].body


@pytest.mark.parametrize("wallet", WALLETS)
def test_any_wallets_code_is_charged_once_and_its_undo_gives_back(shop, wallet):
    code = shop.server.code(wallet)
    assert code.startswith(WALLETS[wallet][0]) and len(code) == WALLETS[wallet][1]
    paid = shop.said(ChargeCode(SHOWN, code))
    assert (paid.said, paid.wallet) == (Said.PAID, wallet)
    other = msgspec.structs.replace(SHOWN, order_no="0000012345000000030Z")
    assert shop.said(ChargeCode(other, code)).said is Said.REFUSED
    assert [shop.said(CloseOrder(SHOWN)).said for _ in range(2)] == [Said.GIVEN_BACK] * 2
    assert shop.said(QueryOrder(SHOWN)).said is Said.GIVEN_BACK
    assert [row["state"] for row in shop.server.orders()] == ["reversed", "closed"]


@pytest.mark.parametrize(("outcome", "first", "later"), [("slow", Said.OPEN, Said.PAID), ("abandon", Said.OPEN, Said.CLOSED),
                                                         ("insufficient", Said.REFUSED, Said.CLOSED)])
def test_a_payer_may_take_time_leave_or_be_short(shop, outcome, first, later):
    code = shop.server.code()
    shop.server.code_outcome(code, outcome)
    assert shop.said(ChargeCode(SHOWN, code)).said is first
    shop.now_s += 30 if outcome == "slow" else 300
    assert shop.said(QueryOrder(SHOWN)).said is later


def test_an_undo_that_overtakes_its_order_kills_the_number(shop):
    assert shop.said(CloseOrder(SHOWN)).said is Said.CLOSED
    assert shop.said(ChargeCode(SHOWN, shop.server.code())).said is Said.REFUSED
    assert shop.server.orders() == []


def test_refunds_are_one_a_number_and_the_bill_has_every_row(shop):
    assert shop.said(QueryRefund(BACK)).word is RefundWord.ABSENT
    shop.paid("ecny")
    shop.rules.refund_after_ms = 1_000
    assert [shop.said(RefundOrder(BACK)).word for _ in range(2)] == [RefundWord.PROCESSING] * 2
    shop.now_s += 1
    assert shop.said(QueryRefund(BACK)).word is RefundWord.DONE
    assert shop.server.orders()[0]["refunded_fen"] == 300
    assert shop.said(RefundOrder(msgspec.structs.replace(BACK, refund_no="R2", amount_fen=601))).word is RefundWord.REFUSED
    assert shop.said(BILL) == BillSaid(SHOP, BILL.day, why="the bill is not ready yet")
    shop.now_s += 86_400
    bill = shop.said(BILL)
    assert bill.ready
    assert [row[:4] for row in bill.rows] == [("paid", TEA.order_no, "", 900), ("refund", TEA.order_no, BACK.refund_no, 300)]


EFFECTS = {"place": PlaceOrder(TEA), "query": QueryOrder(TEA), "undo": CloseOrder(TEA), "refund": RefundOrder(BACK),
           "refund_query": QueryRefund(BACK), "bill": BILL, "charge": None}
TRUE = ("slow", "duplicate", "duplicate_reply")           # the line's business, or none at all


@pytest.mark.parametrize("call", EFFECTS)
@pytest.mark.parametrize("kind", [kind for kind in GatewayServer.faults if kind not in TRUE])
def test_no_fault_decides_anything(shop, kind, call):
    if call == "charge":
        effect = ChargeCode(SHOWN, shop.server.code())
    else:
        effect = EFFECTS[call]
        if call != "place":
            shop.paid()
        if call in ("refund_query", "bill"):
            shop.said(RefundOrder(BACK))
            shop.now_s += 86_400 * (call == "bill")
    shop.server.fault(kind, count=None)
    verdict = shop.verdict(effect)
    assert verdict is None or (verdict.word, bool(verdict.detail)) == ("unknown", True), verdict
    if verdict is not None:
        assert verdict.health in ("lying", "gone", "slow")
        assert getattr(effect, "code", "no code") not in verdict.detail
    shop.server.clear()
    assert shop.verdict(effect).word in ("qr", "paid", "done", "bill")        # and once faults stop, the truth
    assert len(shop.server.orders()) == 1


def test_a_reply_counts_once_and_for_its_own_question_only(shop):
    request = shop.codec.request(QueryOrder(TEA))
    answer = shop.server.exchange(request.method, request.path, request.headers, request.body)
    reply = Reply(200, {k.lower(): v for k, v in answer.headers.items()}, answer.body)
    assert shop.codec.read(QueryOrder(TEA), reply).word == "absent"
    again = shop.codec.read(QueryOrder(TEA), reply)
    assert (again.word, again.health) == ("unknown", "lying")
    request = shop.codec.request(QueryOrder(TEA))
    answer = shop.server.exchange(request.method, request.path, request.headers, request.body)
    crossed = Reply(200, {k.lower(): v for k, v in answer.headers.items()}, answer.body)
    assert shop.codec.read(CloseOrder(TEA), crossed).detail == "the reply answers another question"
    for _ in range(3 * ASKED_MAX):
        shop.codec.request(QueryOrder(TEA))
    assert len(shop.codec._asked) == ASKED_MAX


def test_a_payers_code_stands_in_no_word_and_the_key_in_no_repr(shop):
    code = shop.server.code()
    charge = ChargeCode(SHOWN, code)
    shop.rules._said = lambda order, word="", **more: {"order_no": order.order_no, "amount_fen": order.amount_fen,
                                                       "result": "refused", "detail": "x" * 70 + code}
    verdict = shop.verdict(charge)
    assert verdict.word == "refused" and code[:4] not in verdict.detail
    shop.codec.request(charge)
    assert SECRET.decode() not in repr(shop.codec._asked)


def test_keys_of_the_two_directions_differ_and_a_clock_too_far_off_is_said(shop):
    assert keys.derived(SECRET, "T10001", "request") != keys.derived(SECRET, "T10001", "reply")
    shop.codec._now_s = lambda: shop.now_s + 301
    verdict = shop.verdict(PlaceOrder(TEA))
    assert verdict.word == "unknown" and "the clock" in verdict.detail
    assert shop.server.orders() == []
    with pytest.raises(ValueError, match="shorter"):
        GatewayCodec(account="main", secret=b"short", now_s=lambda: 0, nonce=lambda: "n")


def test_signatures_are_those_of_the_document():
    """The two figures of docs/channels.md, recomputed by the server's own derivation as well."""
    asked = Request("POST", "/v1/query", b'{"order_no":"A1","amount_fen":900,"way":"qr"}')
    rows = (("request", keys.request_text(asked, 1554208460, "n1"),
             "4856020aaadf6947439355a4541b55dd5dc2d89255bb9f56f038a8f04a27698f"),
            ("reply", keys.reply_text(200, "n1", b"{}"),
             "72c4c7d314e13c5ddd596073ec0b6ce428d916d94a26bb5f18e6831a66261102"))
    for direction, text, right in rows:
        assert keys.signature(keys.derived(SECRET, "T10001", direction), text) == mac(SECRET, "T10001", direction, text) == right
