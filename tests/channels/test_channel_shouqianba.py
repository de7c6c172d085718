"""Our codec against the local Shouqianba, over the real bytes without a line; both clocks moved by hand."""

from __future__ import annotations

import asyncio
import datetime
import json

import msgspec
import pytest

from device.drivers.channels import shouqianba_bytes as wire
from device.drivers.channels.codec_bytes import FOLLOWED_MAX, Reply
from device.drivers.channels.https import HttpsChannel, told
from device.drivers.channels.shouqianba import ShouqianbaCodec
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
from device.txn.inputs import QrReady, RefundWord, Said
from device.types import Account
from sim.channels.server import LOST
from sim.channels.shouqianba import CODES, PAYWAYS, QRS, ShouqianbaRules
from sim.channels.shouqianba_server import KEY, ShouqianbaServer
from sim.channels.tls import tls_room

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
SN = "100012340000001"
SHOP = Account("gateway", "main", (("dialect", "shouqianba"), ("terminal_id", SN)))
TEA = Intent("0000012345000000010Z", "gateway", SHOP, 900, "奶茶 x1", "2026-11-18T10:26:40+08:00", "2026-11-18T10:31:40+08:00",
             extras=(("wallet", "wechat"),))
SHOWN = msgspec.structs.replace(TEA, way="code", extras=())
BACK = RefundIntent("0000012345000000020Z", TEA.order_no, "gateway", SHOP, 300, 900, "退货", "2026-11-18T10:28:00+08:00")
ALL = msgspec.structs.replace(BACK, refund_no="0000012345000000030Z", amount_fen=900)


class Shop:
    """One codec and one server on one clock, joined without a line."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.rules = ShouqianbaRules(lambda: int(self.now_s * 1000))
        self.server = ShouqianbaServer(self.rules, now_s=lambda: self.now_s)
        self.codec = ShouqianbaCodec(account="main", key=KEY)

    def verdict(self, effect):
        """What the answer proves, its follow-up asked too; None when the line brought none."""
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

    def paid(self):
        assert self.server.scan(self.said(PlaceOrder(TEA)).qr, "pay")["ok"]


@pytest.fixture
def shop():
    return Shop()


# Bytes

def test_the_published_signature():
    body = '{"terminal_sn":"100000000000001","client_sn":"T1","subject":"奶茶"}'.encode()
    assert wire.signature(body, KEY) == "86d9a68b69833dc67254de3d96622b67"
    sent = wire.sealed("/upay/v2/pay", json.loads(body), "100000000000001", KEY)
    assert sent.body == body and sent.headers["Authorization"] == "100000000000001 86d9a68b69833dc67254de3d96622b67"


def test_every_request_is_as_documented_and_a_retry_is_the_same(shop):
    code = "281234567890123456"
    common = f'{{"terminal_sn":"{SN}","client_sn":"{TEA.order_no}"'
    buying = common + ',"total_amount":"900","subject":"奶茶 x1","operator":"tillbox"'
    right = {
        PlaceOrder(TEA): ("/upay/v2/precreate", buying + ',"payway":"3","sub_payway":"2"}'),
        ChargeCode(SHOWN, code): ("/upay/v2/pay", buying + f',"dynamic_id":"{code}"}}'),
        QueryOrder(TEA): ("/upay/v2/query", common + "}"),
        CloseOrder(TEA): ("/upay/v2/cancel", common + "}"),
        RefundOrder(BACK): ("/upay/v2/refund", common + f',"refund_request_no":"{BACK.refund_no}","refund_amount":"300",'
                                                        '"operator":"tillbox"}'),
    }
    right[QueryRefund(BACK)] = right[RefundOrder(BACK)]
    for effect, (path, body) in right.items():
        request = shop.codec.request(effect)
        assert (request.method, request.path, request.body.decode()) == ("POST", path, body)
        assert request == shop.codec.request(effect)
    assert wire.order_call("revoke", TEA) == ("/upay/v2/revoke", {"terminal_sn": SN, "client_sn": TEA.order_no})
    noticed = msgspec.structs.replace(TEA, account=Account("gateway", "main", (
        ("dialect", "shouqianba"), ("notify_url", "https://shop.example/n"), ("operator", "03"), ("terminal_id", SN))))
    assert b'"operator":"03","notify_url":"https://shop.example/n"' in shop.codec.request(PlaceOrder(noticed)).body


@pytest.mark.parametrize(("effect", "why"), [
    (PlaceOrder(msgspec.structs.replace(TEA, extras=())), "names none it takes"),
    (PlaceOrder(msgspec.structs.replace(TEA, extras=(("wallet", "ecny"),))), "names none it takes"),
    (ChargeCode(SHOWN, "fp" + "0" * 31), "longer than"),
    (RefundOrder(msgspec.structs.replace(BACK, refund_no="0" * 21)), "longer than"),
    (QueryOrder(msgspec.structs.replace(TEA, account=Account("gateway", "main", (("terminal_id", "T1"),)))), "another gateway"),
])
def test_what_it_could_not_take_is_never_sent(shop, effect, why):
    with pytest.raises(ValueError, match=why):
        shop.codec.request(effect)


def test_there_is_no_bill():
    assert FetchBill not in ShouqianbaCodec.does and {PlaceOrder, ChargeCode, RefundOrder} <= ShouqianbaCodec.does


# Sales

@pytest.mark.parametrize("payway", PAYWAYS)
def test_a_qr_is_for_the_one_wallet_that_the_order_names(shop, payway):
    tea = msgspec.structs.replace(TEA, extras=(("wallet", PAYWAYS[payway]),))
    assert shop.said(QueryOrder(tea)).said is Said.ABSENT
    qr = shop.said(PlaceOrder(tea))
    assert isinstance(qr, QrReady) and qr.qr.startswith(QRS[payway])
    assert shop.said(QueryOrder(tea)).said is Said.OPEN
    for other in {*PAYWAYS.values(), "ecny"} - {PAYWAYS[payway]}:
        assert not shop.server.scan(qr.qr, "pay", wallet=other)["ok"]
    assert shop.server.scan(qr.qr, "pay", wallet=PAYWAYS[payway])["ok"]
    paid = shop.said(QueryOrder(tea))
    assert (paid.said, paid.amount_fen, paid.wallet, len(paid.channel_no)) == (Said.PAID, 900, PAYWAYS[payway], 16)


@pytest.mark.parametrize("wallet", CODES)
def test_a_code_of_any_wallet_is_charged_once_and_its_cancel_gives_back(shop, wallet):
    code = shop.server.code(wallet)
    paid = shop.said(ChargeCode(SHOWN, code))
    assert (paid.said, paid.wallet) == (Said.PAID, wallet)
    other = msgspec.structs.replace(SHOWN, order_no="0000012345000000030Z")
    assert shop.said(ChargeCode(other, code)).said is Said.REFUSED
    assert [shop.said(CloseOrder(SHOWN)).said for _ in range(2)] == [Said.CLOSED] * 2       # NOOP the second time
    assert shop.said(QueryOrder(SHOWN)).said is Said.CLOSED
    assert [row["state"] for row in shop.server.orders()] == ["reversed", "closed"]


@pytest.mark.parametrize(("outcome", "first", "later"), [("slow", Said.OPEN, Said.PAID), ("abandon", Said.OPEN, Said.CLOSED),
                                                         ("insufficient", Said.REFUSED, Said.CLOSED)])
def test_a_payer_may_take_time_leave_or_be_short(shop, outcome, first, later):
    code = shop.server.code()
    shop.server.code_outcome(code, outcome)
    assert shop.said(ChargeCode(SHOWN, code)).said is first
    shop.now_s += 30 if outcome == "slow" else 240
    assert shop.said(QueryOrder(SHOWN)).said is later


def test_a_code_too_old_or_none_is_refused_in_their_words_without_the_code(shop):
    old, none = shop.server.code(), "131111111111111111"
    shop.now_s += 60
    for n, (code, why) in enumerate(((old, "过期的支付条码"), (none, "条码错误"))):
        said = shop.said(ChargeCode(msgspec.structs.replace(SHOWN, order_no=f"A{n}"), code))
        assert (said.said, said.detail) == (Said.REFUSED, why)
    body = json.dumps({"result_code": "200", "biz_response": {"result_code": "PAY_FAIL", "error_message": f"条码 {none} 错误"}})
    shop.codec.request(charge := ChargeCode(SHOWN, none))
    assert shop.codec.read(charge, Reply(200, {}, body.encode())).detail == "条码 … 错误"
    long = body.replace(none, "x" * 70 + none)                 # their sentence is cut to 80 characters, through the code
    shop.codec.request(charge)
    assert "1" not in shop.codec.read(charge, Reply(200, {}, long.encode())).detail


def test_a_number_is_never_bought_twice(shop):
    """Their rule: the same number is a conflict, whatever its content."""
    code = shop.server.code()
    assert shop.said(ChargeCode(SHOWN, code)).said is Said.PAID
    assert shop.verdict(ChargeCode(SHOWN, shop.server.code())).word == "unknown"            # it may well be paid: it is
    assert shop.said(QueryOrder(SHOWN)).said is Said.PAID
    again = msgspec.structs.replace(TEA, order_no="0000012345000000040Z")
    shop.said(PlaceOrder(again))
    refused = shop.said(PlaceOrder(again))                     # the first QR was lost on the way, and there is no way to it
    assert refused.said is Said.REFUSED and "PAY again" in refused.detail
    assert shop.said(CloseOrder(again)).said is Said.CLOSED
    assert [row["state"] for row in shop.server.orders()] == ["paid", "closed"]


def test_an_undo_that_finds_no_order_says_so_and_one_after_its_day_never_works(shop):
    assert shop.said(CloseOrder(TEA)).said is Said.ABSENT
    shop.paid()
    shop.now_s += 86_400
    shop.server.first.day = shop.server.terminals.today()
    refused = shop.said(CloseOrder(TEA))
    assert refused.said is Said.REFUSED and "after its day" in refused.detail
    assert shop.said(RefundOrder(ALL)).word is RefundWord.DONE             # which is how its money goes back
    assert shop.server.orders()[0]["state"] == "refunded"


def test_an_order_given_back_by_other_hands_is_no_sale(shop):
    """A shopkeeper refunds on Shouqianba's own page while the box is off: what it finds when it comes back is not money."""
    shop.paid()
    shop.said(RefundOrder(ALL))
    assert shop.said(QueryOrder(TEA)).said is Said.GIVEN_BACK
    assert shop.said(CloseOrder(TEA)).said is Said.GIVEN_BACK          # nor is anything left to refund beside it


def test_a_part_given_back_is_still_a_payment(shop):
    shop.paid()
    shop.said(RefundOrder(BACK))
    assert shop.said(QueryOrder(TEA)).said is Said.PAID


def test_an_order_dies_after_four_minutes(shop):
    qr = shop.said(PlaceOrder(TEA)).qr
    shop.now_s += 239
    assert shop.said(QueryOrder(TEA)).said is Said.OPEN
    shop.now_s += 1
    assert shop.said(QueryOrder(TEA)).said is Said.CLOSED and not shop.server.scan(qr, "pay")["ok"]


# Refunds

def test_a_refund_number_is_one_refund_and_a_repeat_is_told_done(shop):
    shop.paid()
    assert shop.said(RefundOrder(BACK)).word is RefundWord.DONE
    shop.now_s += 1
    assert [shop.said(effect).word for effect in (RefundOrder(BACK), QueryRefund(BACK))] == [RefundWord.DONE] * 2    # NOOP
    assert shop.server.orders()[0]["refunded_fen"] == 300
    rest = msgspec.structs.replace(BACK, refund_no="R2", amount_fen=600)
    assert shop.said(RefundOrder(rest)).word is RefundWord.DONE
    assert shop.server.orders()[0]["state"] == "refunded"


def test_a_refund_under_way_is_asked_about_with_the_same_number(shop):
    shop.paid()
    shop.rules.refund_after_ms = 1_000
    assert shop.said(RefundOrder(BACK)).word is RefundWord.PROCESSING
    shop.now_s += 1
    assert shop.said(QueryRefund(BACK)).word is RefundWord.DONE


@pytest.mark.parametrize(("ends", "word"), [("refused", RefundWord.REFUSED), ("abnormal", RefundWord.UNKNOWN)])
def test_a_refund_may_fail_or_leave_everybody_in_doubt(shop, ends, word):
    shop.paid()
    shop.rules.refund_ends = ends
    assert [shop.said(effect).word for effect in (RefundOrder(BACK), QueryRefund(BACK))] == [word, word]
    assert shop.server.orders()[0]["refunded_fen"] == 0


def test_a_refund_that_cannot_be_made_is_looked_up_before_it_is_denied(shop):
    """A server that looks at the order first answers our own second try so: it must not be taken for money still there."""
    shop.paid()
    assert shop.said(RefundOrder(msgspec.structs.replace(BACK, amount_fen=901))).word is RefundWord.REFUSED      # nothing went back
    assert shop.said(RefundOrder(ALL)).word is RefundWord.DONE
    other = msgspec.structs.replace(ALL, refund_no="R9")
    assert shop.said(RefundOrder(other)).word is RefundWord.DONE          # the payer has it all: so much is proven
    part = shop.verdict(RefundOrder(msgspec.structs.replace(BACK, refund_no="R8")))
    assert part.word == "unknown" and "own page" in part.detail            # whether these 300 are in it, nobody here can tell
    assert shop.server.orders()[0]["refunded_fen"] == 900


def test_a_refund_is_done_only_when_no_more_is_left_than_it_leaves(shop):
    right = {"order_status": "PARTIAL_REFUNDED"}
    for left, word in (("600", "done"), ("0", "done"), (600, "done"), ("", "done"), ("601", "unknown"), ("900", "unknown"),
                       ("-1", "unknown"), ("many", "unknown")):
        assert answer_to(shop, RefundOrder(BACK), "REFUND_SUCCESS", **right, net_amount=left).word == word, left


@pytest.mark.parametrize("result", ["CANCEL_SUCCESS", "CANCEL_ABORT_SUCCESS"])
def test_a_cancel_that_names_no_order_cancels_none(shop, result):
    for about in ({}, {"order_status": "CANCELED", "total_amount": ""}):
        verdict = answer_to(shop, CloseOrder(TEA), result, **about)
        assert (verdict.word, verdict.health) == ("unknown", "lying")


def test_looks_that_are_never_answered_do_not_pile_up(shop):
    for n in range(3 * FOLLOWED_MAX):
        number = msgspec.structs.replace(ALL, refund_no=f"R{n}")
        assert answer_to(shop, RefundOrder(number), "FAIL", "UPAY_REFUND_INVALID_ORDER_STATE").word == "follow"
    assert len(shop.codec._looking) == FOLLOWED_MAX


def test_a_refused_check_in_is_one_short_sentence_and_no_key_shows():
    body = json.dumps({"result_code": "400", "error_code": "X\n" * 9_000}).encode()
    told_ = wire.key_in(Reply(200, {}, body), SN)
    assert isinstance(told_, str) and told_.isprintable() and len(told_) < 150
    assert "k" * 32 not in repr(wire.Said(terminal_key="k" * 32))


def test_a_look_that_was_cut_off_does_not_read_the_next_answer(shop):
    shop.paid()
    shop.said(RefundOrder(ALL))
    other = RefundOrder(msgspec.structs.replace(ALL, refund_no="R9"))
    shop.server.fault("lost_answer", call="query")
    assert shop.verdict(other) is None and other in shop.codec._looking
    assert shop.said(other).word is RefundWord.DONE and not shop.codec._looking


# Words and faults

EFFECTS = {"precreate": PlaceOrder(TEA), "query": QueryOrder(TEA), "cancel": CloseOrder(TEA), "refund": RefundOrder(BACK),
           "refund again": QueryRefund(BACK), "pay": None}
TRUE = ("slow", "duplicate", "duplicate_reply")


@pytest.mark.parametrize("call", EFFECTS)
@pytest.mark.parametrize("kind", [kind for kind in ShouqianbaServer.faults if kind not in TRUE])
def test_no_fault_decides_anything(shop, kind, call):
    if call == "pay":
        effect = ChargeCode(SHOWN, shop.server.code())
    else:
        effect = EFFECTS[call]
        if call != "precreate":
            shop.paid()
        if call == "refund again":
            shop.rules.refund_after_ms = 1_000
            shop.said(RefundOrder(BACK))
            shop.now_s += 1
    shop.server.fault(kind, count=None)
    verdict = shop.verdict(effect)
    if verdict is not None:
        # Proven by the line, like everything here: a request with another key was not looked at.
        word = {("old_key", "pay"): "refused", ("in_progress", "refund"): "processing",
                ("in_progress", "refund again"): "processing"}.get((kind, call), "unknown")
        assert (verdict.word, bool(verdict.detail)) == (word, True), verdict
        assert verdict.health in ("lying", "gone", "slow", "key") or kind in ("in_progress", "error")
        assert getattr(effect, "code", "no code") not in verdict.detail
    shop.server.clear()
    if kind != "old_key":
        assert shop.codec.doubted is False
    after = shop.verdict(effect).word
    lost_qr = call == "precreate" and kind not in ("lost_request", "down", "busy", "redirect", "maintenance", "old_key")
    charged = call == "pay" and kind not in ("lost_request", "down", "busy", "redirect", "maintenance", "old_key")
    assert after == "refused" if lost_qr else after == "unknown" if charged else after in ("qr", "paid", "done", "closed")
    if charged:
        assert shop.verdict(QueryOrder(SHOWN)).word == "paid"
    assert len(shop.server.orders()) == 1


def answer_to(shop, effect, result, error="", **data):
    """The verdict on a well-formed reply with this result, error and order."""
    about = {"client_sn": TEA.order_no, "total_amount": "900", "sn": "7890000000000001", **data}
    said = {"result_code": result, "error_code": error} | ({"data": about} if data else {})
    request = shop.codec.request(effect)
    assert request.body
    return shop.codec.read(effect, Reply(200, {}, json.dumps({"result_code": "200", "biz_response": said}).encode()))


@pytest.mark.parametrize("call", ["pay", "precreate", "cancel", "refund", "query"])
def test_every_documented_word_has_its_meaning_and_every_other_none(shop, call):
    effect = {"pay": ChargeCode(SHOWN, "131111111111111111"), "precreate": PlaceOrder(TEA), "cancel": CloseOrder(TEA),
              "refund": RefundOrder(BACK), "query": QueryOrder(TEA)}[call]
    states = {"paid": "PAID", "open": "CREATED", "qr": "CREATED", "closed": "CANCELED", "done": "REFUNDED",
              "refused": "PAY_CANCELED"}
    for result, word in wire.RESULTS[call].items():
        if word:
            more = {"order_status": states.get(word, "PAY_ERROR"), "payway": "3", "qr_code": "weixin://wxpay/bizpayurl?pr=x"}
            assert answer_to(shop, effect, result, **more).word == word, result
    for result in {name for words in wire.RESULTS.values() for name in words} - set(wire.RESULTS[call]) | {"", "PAID", "SUCCESSS"}:
        assert answer_to(shop, effect, result, order_status="PAID", payway="3").word == "unknown", result
    for (asked, word), right in wire.AGREE.items():
        if asked == call:
            result = next(name for name, said in wire.RESULTS[call].items() if said == word)
            for state in set(wire.STATES) - set(right):
                assert answer_to(shop, effect, result, order_status=state).word == "unknown", (result, state)


@pytest.mark.parametrize("state", [*wire.STATES, "SOMETHING_NEW", ""])
def test_every_state_of_an_order_has_its_meaning(shop, state):
    verdict = answer_to(shop, QueryOrder(TEA), "SUCCESS", order_status=state, payway="3")
    assert verdict.word == wire.STATES.get(state, "unknown")
    assert bool(verdict.detail) == (verdict.word == "unknown")


CANCELLED = {"UPAY_ORDER_NOT_EXISTS": "absent", "UPAY_ORDER_NOT_EXIST": "absent", "UPAY_CANCEL_ORDER_NOOP": "closed",
             "UPAY_CANCEL_INVALID_ORDER_STATE": "follow", "UPAY_TCP_ORDER_NOT_REFUNDABLE": "refused", "TRADE_TIMEOUT": "unknown"}
REFUNDED = {"UPAY_REFUND_ORDER_NOOP": "done", "UPAY_REFUND_INVALID_ORDER_STATE": "follow", "TRADE_TIMEOUT": "unknown",
            "REFUNDABLE_AMOUNT_NOT_ENOUGH": "follow", "SELLER_BALANCE_NOT_ENOUGH": "refused", "UPAY_ORDER_NOT_EXISTS": "refused"}


@pytest.mark.parametrize(("effect", "result", "errors"), [
    (CloseOrder(TEA), "FAIL", CANCELLED), (CloseOrder(TEA), "CANCEL_ERROR", CANCELLED), (RefundOrder(BACK), "FAIL", REFUNDED),
    (ChargeCode(SHOWN, "131111111111111111"), "FAIL", {"CLIENT_SN_CONFLICT": "unknown", "TRADE_HAS_SUCCESS": "unknown",
                                                       "UPAY_STORE_OVER_DAILY_LIMIT": "refused", "EXPIRED_BARCODE": "refused",
                                                       "UNEXPECTED_PROVIDER_ERROR": "unknown", "TRADE_TIMEOUT": "unknown",
                                                       "": "unknown"}),
    (ChargeCode(SHOWN, "131111111111111111"), "PAY_FAIL", {"CLIENT_SN_CONFLICT": "unknown", "BUYER_OVER_DAILY_LIMIT": "refused"}),
    (PlaceOrder(TEA), "PRECREATE_FAIL", {"CLIENT_SN_CONFLICT": "refused", "TRADE_HAS_SUCCESS": "unknown"}),
    (QueryOrder(TEA), "FAIL", {"UPAY_ORDER_NOT_EXISTS": "absent", "TRADE_NOT_EXIST": "unknown"})])
def test_errors_say_what_the_result_leaves_open(shop, effect, result, errors):
    for error, word in errors.items():
        assert answer_to(shop, effect, result, error).word == word, error


def test_money_is_only_believed_about_our_order_our_terminal_and_our_amount(shop):
    right = {"order_status": "PAID", "payway": "3", "terminal_sn": SN}
    for effect, result in ((QueryOrder(TEA), "SUCCESS"), (ChargeCode(SHOWN, "131111111111111111"), "PAY_SUCCESS")):
        assert answer_to(shop, effect, result, **right).word == "paid"
        assert answer_to(shop, effect, result, **right | {"total_amount": 900}).word == "paid"       # a number, against their word
        for wrong in ({"client_sn": "X"}, {"terminal_sn": "X"}, {"total_amount": "901"}, {"total_amount": ""}, {"payway": None}):
            verdict = answer_to(shop, effect, result, **right | wrong)
            assert (verdict.word, verdict.health) == ("unknown", "lying"), wrong
    assert answer_to(shop, ChargeCode(SHOWN, "131111111111111111"), "PAY_SUCCESS").word == "unknown"     # no order at all
    assert answer_to(shop, QueryOrder(TEA), "SUCCESS", **right | {"payway": "77"}).wallet == ""         # paid, by whom ever
    assert answer_to(shop, QueryOrder(TEA), "SUCCESS", **right | {"payway": "18"}).wallet == "bestpay"


@pytest.mark.parametrize("qr", ["", "http://qr.example.com", "javascript:x", "https://q\n", "https://" + "q" * 600])
def test_a_qr_that_no_wallet_could_scan_is_none(shop, qr):
    verdict = answer_to(shop, PlaceOrder(TEA), "PRECREATE_SUCCESS", order_status="CREATED", qr_code=qr)
    assert (verdict.word, verdict.health) == ("unknown", "lying")


def test_a_line_that_proves_another_is_never_believed(tmp_path):
    """Replies are not signed: TLS is all their proof, so a certificate by another authority ends the call."""
    ours, theirs = tls_room(), tls_room()
    server = ShouqianbaServer(ShouqianbaRules(lambda: START_S * 1000), now_s=lambda: START_S, tls=theirs.server_context())
    server.start()

    async def asked(room, folder):
        folder.mkdir()
        channel = HttpsChannel(ShouqianbaCodec(account="main", key=KEY), base_url=server.url, ca_file=room.written(folder)[0])
        try:
            return await channel.do(QueryOrder(TEA)), list(channel.health._waiting)
        finally:
            await channel.close()
    try:
        wrong, health = asyncio.run(asked(ours, tmp_path / "ours"))
        assert (wrong.said, health[0].word) == (Said.UNKNOWN, "lying") and "certificate is not Shouqianba's" in wrong.detail
        assert not server.seen
        assert asyncio.run(asked(theirs, tmp_path / "theirs"))[0].said is Said.ABSENT
    finally:
        server.stop()
