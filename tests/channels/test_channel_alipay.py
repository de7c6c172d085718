"""Our Alipay client against the local server: over the real bytes, once over real HTTP; every clock moved by hand."""

from __future__ import annotations

import asyncio
import datetime
import json
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from device.drivers.channels import alipay_bytes as wire
from device.drivers.channels.alipay import AlipayCodec
from device.drivers.channels.alipay_proof_bytes import AlipayKeys
from device.drivers.channels.codec_bytes import FOLLOWED_MAX, Reply
from device.drivers.channels.https import FOLLOWS_MAX, HttpsChannel, told, unbuildable
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
from device.txn.inputs import ChannelSaid, QrReady, RefundWord, Said
from device.types import Account
from sim.channels.alipay import AlipayRules
from sim.channels.alipay_keys import authority
from sim.channels.alipay_server import FAULTS, AlipayServer
from sim.channels.keys import key_pair
from sim.channels.server import LOST

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
SHOP = Account("alipay", "shop", (("appid", "2021000000000001"), ("store_id", "S1")))
TEA = Intent("0000012345000000010Z", "alipay", SHOP, 900, "奶茶, {大}杯 \"x1\"", "2026-11-18T10:26:40.123+08:00",
             "2026-11-18T10:32:40+08:00")
CODE = msgspec.structs.replace(TEA, way="code", order_no="0000012345000000011Z")
BILL = FetchBill(SHOP, "2026-11-18")
TOKEN = "201708BBcanary"


class Shop:
    """One codec and one server on one clock, joined without a line."""

    def __init__(self, keys, mode="key", token="") -> None:
        app, platform, theirs = keys
        self.now_s = START_S
        self.rules = AlipayRules(lambda: int(self.now_s * 1000))
        self.server = AlipayServer(self.rules, app_public_pem=app.public_pem, platform=platform, app_auth_token=token,
                                   authority=theirs if mode == "cert" else None, now_s=lambda: self.now_s)
        held = AlipayKeys(app.private_pem, theirs.installed if mode == "cert" else platform.public_pem)
        self.codec = AlipayCodec(account="shop", keys=held, now_s=lambda: self.now_s, app_auth_token=token)
        self.sent, self.verdict = [], None

    def said(self, effect):
        """The answer of `effect` with all that follows, None when the line brought none."""
        try:
            request = self.codec.request(effect)
        except (KeyError, ValueError) as fault:
            return told(effect, unbuildable(effect, fault))
        for _ in range(1 + FOLLOWS_MAX):
            self.sent.append(request)
            answer = self.server.exchange(request.method, request.path, request.headers, request.body)
            if answer.kind in LOST:
                return None
            self.verdict = self.codec.read(effect, Reply(answer.status, {}, answer.body))
            if self.verdict.follow is None:
                return told(effect, self.verdict)
            request = self.codec.sealed(effect, self.verdict.follow)
        raise AssertionError("one question led to ever more questions")

    def paid(self, intent=TEA):
        """The paid order's own word; a QR order."""
        qr = self.said(PlaceOrder(intent))
        assert isinstance(qr, QrReady) and self.server.scan(qr.qr, "pay")["ok"]
        return self.said(QueryOrder(intent))

    def charge(self, outcome="pay", intent=CODE):
        code = self.server.code()
        self.server.code_outcome(code, outcome)
        return self.said(ChargeCode(intent, code))

    def calls(self):
        return [seen.call for seen in self.server.seen]


def back(fen=300, no="0000012345000000020Z", order=TEA):
    return RefundIntent(no, order.order_no, "alipay", SHOP, fen, 900, "退货", "2026-11-18T10:28:00+08:00")


@pytest.fixture(scope="module")
def keys():
    app = key_pair("app")
    return app, key_pair("alipay"), authority(app.public_pem)


@pytest.fixture
def shop(keys):
    return Shop(keys)


@pytest.fixture
def certified(keys):
    return Shop(keys, "cert")


@pytest.mark.parametrize("mode", ["key", "cert"])
def test_a_sale_from_code_to_refund(keys, mode):
    shop = Shop(keys, mode)
    paid = shop.paid()
    assert (paid.said, paid.amount_fen, len(paid.channel_no), paid.detail) == (Said.PAID, 900, 28, "")
    assert shop.said(QueryRefund(back())).word is RefundWord.ABSENT
    for _ in range(2):                                                                # the second one moves nothing
        done = shop.said(RefundOrder(back()))
        assert (done.word, done.amount_fen) == (RefundWord.DONE, 300)
        shop.now_s += 11
    assert shop.said(QueryRefund(back())).word is RefundWord.DONE
    assert shop.said(QueryOrder(TEA)).said is Said.PAID
    (row,) = shop.server.orders()
    assert (row["captured_fen"], row["refunded_fen"], row["state"]) == (900, 300, "part_refunded")


# A QR that nobody scanned does not exist

def test_nobody_scanned_is_not_dead_before_two_hours(shop):
    shop.said(PlaceOrder(TEA))
    assert shop.said(QueryOrder(TEA)).said is Said.UNKNOWN and "scanned" in shop.verdict.detail
    assert shop.server.orders() == []
    shop.now_s += 7201
    assert shop.said(QueryOrder(TEA)).said is Said.ABSENT


def test_only_a_close_puts_an_unscanned_qr_aside_and_a_late_scan_is_found_and_closed(shop):
    qr = shop.said(PlaceOrder(TEA)).qr
    closed = shop.said(CloseOrder(TEA))
    assert (closed.said, closed.undo) == (Said.ABSENT, True)
    assert shop.server.scan(qr, "slow")["ok"]                                         # the code still worked
    assert shop.said(QueryOrder(TEA)).said is Said.OPEN                               # so the core closes it again
    assert shop.said(CloseOrder(TEA)).said is Said.CLOSED
    assert not shop.server.scan(qr, "pay")["ok"]
    shop.now_s += 31
    assert shop.said(QueryOrder(TEA)).said is Said.CLOSED


def test_a_late_payment_after_the_close_is_found(shop):
    qr = shop.said(PlaceOrder(TEA)).qr
    shop.said(CloseOrder(TEA))
    shop.server.scan(qr, "pay")
    assert shop.said(QueryOrder(TEA)).said is Said.PAID


def test_where_a_close_locks_the_code_nobody_can_pay_any_more(shop):
    shop.rules.close_locks_code = True
    qr = shop.said(PlaceOrder(TEA)).qr
    assert shop.said(CloseOrder(TEA)).said is Said.ABSENT
    assert shop.server.scan(qr, "pay") == {"ok": False, "why": "the trade is closed", "order_no": TEA.order_no}


def test_the_qr_ends_with_the_intent(shop):
    qr = shop.said(PlaceOrder(TEA)).qr
    shop.now_s += 360
    assert shop.server.scan(qr, "pay")["why"] == "the code is too old"


# Undo

def test_a_paid_qr_is_left_alone_by_its_close(shop):
    shop.paid()
    answer = shop.said(CloseOrder(TEA))
    assert (answer.said, answer.undo, answer.amount_fen) == (Said.PAID, True, 900)
    assert shop.server.orders()[0]["state"] == "paid"


@pytest.mark.parametrize(("outcome", "word", "state"), [("slow", Said.CLOSED, "closed"), ("pay", Said.GIVEN_BACK, "reversed")])
def test_a_charge_is_undone_by_a_cancel_that_says_whether_money_moved(shop, outcome, word, state):
    shop.charge(outcome)
    for _ in range(2):                                                                # repeated, it says the same
        answer = shop.said(CloseOrder(CODE))
        assert (answer.said, answer.undo) == (word, True)
    for _ in range(2):                                                                # its refund is seen later than its effect
        assert shop.said(QueryOrder(CODE)).said is word
        shop.now_s += 11
    assert shop.server.orders()[0]["state"] == state


def test_a_trade_closed_unpaid_is_told_from_one_that_was_given_back(shop):
    shop.paid()
    shop.said(RefundOrder(back(900)))                                                 # under a number of its own
    assert shop.said(QueryOrder(TEA)).said is Said.GIVEN_BACK
    qr = shop.said(PlaceOrder(other := msgspec.structs.replace(TEA, order_no="0000012345000000012Z"))).qr
    shop.server.scan(qr, "abandon")
    assert shop.said(QueryOrder(other)).said is Said.OPEN
    shop.now_s += 361
    for effect in (QueryOrder(other), CloseOrder(other)):
        assert shop.said(effect).said is Said.CLOSED
    assert shop.calls()[-3:] == ["close", "query", "refund_query"]


def test_a_charge_nobody_knows_is_not_given_up_while_it_may_be_on_its_way(shop):
    for effect in (QueryOrder(CODE), CloseOrder(CODE)):
        assert shop.said(effect).said is Said.UNKNOWN
    shop.now_s += 61
    for effect in (QueryOrder(CODE), CloseOrder(CODE)):
        assert shop.said(effect).said is Said.ABSENT


def test_a_payer_who_beats_the_undo(shop):
    qr = shop.said(PlaceOrder(TEA)).qr
    shop.server.scan(qr, "abandon")
    shop.server.fault("beaten", count=None)
    assert shop.said(CloseOrder(TEA)).said is Said.PAID
    shop.charge("slow")
    assert shop.said(CloseOrder(CODE)).said is Said.GIVEN_BACK
    assert [row["state"] for row in shop.server.orders()] == ["paid", "reversed"]


@pytest.mark.parametrize("kind", ["retry_flag", "no_action", "system_error", "unavailable"])
def test_a_cancel_that_is_not_clear_is_repeated_until_it_is(shop, kind):
    shop.charge("pay")
    shop.server.fault(kind)
    assert shop.said(CloseOrder(CODE)).said is Said.UNKNOWN                           # paid, but never "paid, and left alone"
    assert shop.said(CloseOrder(CODE)).said is Said.GIVEN_BACK
    assert shop.server.orders()[0]["refunded_fen"] == 900


def test_a_cancel_that_is_wanted_again_decides_nothing_whatever_else_it_says(shop, monkeypatch):
    told = {"code": "10000", "out_trade_no": CODE.order_no, "retry_flag": "Y", "action": "close"}
    monkeypatch.setattr(shop.rules, "answer", lambda method, biz: told)
    assert shop.said(CloseOrder(CODE)).said is Said.UNKNOWN
    told |= {"retry_flag": "N", "action": "escheat"}
    assert shop.said(CloseOrder(CODE)).said is Said.UNKNOWN


def test_a_cancel_that_can_never_be_is_refused(shop):
    shop.charge("pay")
    shop.now_s += 25 * 3600
    answer = shop.said(CloseOrder(CODE))
    assert (answer.said, "TRADE_CANCEL_TIME_OUT" in answer.detail) == (Said.REFUSED, True)
    shop.rules.balance_fen = 0
    fresh = msgspec.structs.replace(CODE, order_no="0000012345000000013Z")
    shop.charge("pay", fresh)
    assert shop.said(CloseOrder(fresh)).said is Said.UNKNOWN                          # there may be money tomorrow


# Payers' codes

def test_a_payer_who_is_asked_for_a_password(shop):
    answer = shop.charge("slow")
    assert (answer.said, answer.amount_fen) == (Said.OPEN, 0)
    assert shop.said(QueryOrder(CODE)).said is Said.OPEN
    shop.now_s += 31
    assert shop.said(QueryOrder(CODE)).said is Said.PAID


def test_ten_thousand_and_three_may_be_paid_all_the_same(shop):
    shop.server.fault("paying")
    assert shop.charge("pay").said is Said.OPEN
    assert shop.said(QueryOrder(CODE)).said is Said.PAID


def test_a_charge_is_paid_refused_or_ends_by_itself(shop):
    assert shop.charge("pay").said is Said.PAID
    poor = msgspec.structs.replace(CODE, order_no="0000012345000000012Z")
    assert shop.charge("insufficient", poor).detail == "not enough money in the wallet (BUYER_BALANCE_NOT_ENOUGH)"
    gone = msgspec.structs.replace(CODE, order_no="0000012345000000013Z")
    assert shop.charge("abandon", gone).said is Said.OPEN
    shop.now_s += 301
    assert shop.said(QueryOrder(gone)).said is Said.CLOSED


def test_a_spoilt_code_is_refused_and_no_other_wallets_code_leaves_the_box(shop):
    code = shop.server.code()
    shop.now_s += 60
    for spoilt in (code, "281234567890123456"):
        answer = shop.said(ChargeCode(CODE, spoilt))
        assert answer.said is Said.REFUSED and spoilt not in repr(answer)
    shop.sent.clear()
    assert shop.said(ChargeCode(CODE, "not a code")).said is Said.REFUSED
    assert not shop.sent


def test_no_code_and_no_token_stands_where_somebody_reads(keys):
    shop = Shop(keys, token=TOKEN)
    code = shop.server.code()
    effect = ChargeCode(CODE, code)
    assert shop.said(effect).said is Said.PAID
    shop.said(QueryOrder(CODE))
    assert code.encode() in shop.sent[0].body
    paths = [request.path for request in shop.sent]                                   # what an access log holds
    for text in (repr(effect), repr(shop.verdict), repr(shop.rules.trades()), *paths):
        assert code not in text and TOKEN not in text
    assert all(TOKEN.encode() in request.body for request in shop.sent)


def test_money_in_digital_yuan_says_so(shop):
    shop.rules.e_cny = True
    assert (shop.paid().wallet, shop.charge().wallet) == ("ecny", "ecny")


# Repeats

def test_a_retry_is_the_same_bytes_and_one_order(shop):
    for effect in (PlaceOrder(TEA), RefundOrder(back())):
        shop.server.fault("lost_answer")
        assert shop.said(effect) is None
        shop.now_s += 400 if isinstance(effect, RefundOrder) else 40
        again = shop.said(effect)
        assert shop.sent[0] == shop.sent[1]
        if isinstance(again, QrReady):
            shop.server.scan(again.qr, "pay")
            shop.sent.clear()
    assert again.word is RefundWord.DONE and shop.calls()[-2:] == ["refund", "refund_query"]
    assert [(row["captured_fen"], row["refunded_fen"]) for row in shop.server.orders()] == [(900, 300)]


def test_a_question_differs_in_its_time_alone(shop):
    for effect in (QueryOrder(TEA), CloseOrder(TEA), CloseOrder(CODE), QueryRefund(back()), BILL):
        one = shop.codec.request(effect)
        shop.now_s += 1
        two = shop.codec.request(effect)
        assert one.body == two.body
        first, second = (parse_qs(urlsplit(r.path).query) for r in (one, two))
        assert {name for name in first if first[name] != second[name]} == {"timestamp", "sign"}


def test_a_refund_that_waited_too_long_is_stamped_anew_under_its_number(shop):
    """Whether Alipay looks at the stamp is not known; a refund must get through either way."""
    shop.paid()
    shop.server.window_s = 900
    shop.now_s += 3 * 86400
    shop.sent.clear()
    assert shop.said(RefundOrder(back())).word is RefundWord.DONE
    assert len(shop.sent) == 2 and shop.sent[0].body == shop.sent[1].body
    late = msgspec.structs.replace(TEA, order_no="0000012345000000012Z")
    assert "check the clock" in shop.said(PlaceOrder(late)).detail
    shop.server.fault("stamp_old", count=None)
    assert shop.said(RefundOrder(back(no="0000012345000000021Z"))).word is RefundWord.UNKNOWN


def test_a_number_that_is_used_is_asked_after_not_given_up(shop):
    shop.said(PlaceOrder(TEA))
    dearer = msgspec.structs.replace(TEA, amount_fen=901)
    assert (shop.said(PlaceOrder(dearer)).said, "other content" in shop.verdict.detail) == (Said.UNKNOWN, True)
    shop.server.scan(next(iter(shop.rules._qrs)), "pay")
    assert (shop.said(PlaceOrder(TEA)).said, "paid already" in shop.verdict.detail) == (Said.UNKNOWN, True)
    assert shop.said(QueryOrder(dearer)).said is Said.UNKNOWN and shop.verdict.health == "lying"


# Refunds

@pytest.mark.parametrize(("fen", "order"), [(901, TEA), (300, CODE)])
def test_a_refund_that_cannot_be_is_refused_once_its_query_knows_nothing_either(shop, fen, order):
    shop.paid()
    assert shop.said(RefundOrder(back(fen, order=order))).word is RefundWord.REFUSED
    assert shop.calls()[-2:] == ["refund", "refund_query"]


def test_a_success_in_which_no_money_moved_is_no_refund(shop):
    shop.paid()
    shop.server.fault("unmoved")
    assert shop.said(RefundOrder(back())).word is RefundWord.ABSENT                   # asked again under the same number
    assert shop.said(RefundOrder(back())).word is RefundWord.DONE


def test_a_refund_number_with_another_amount_is_neither_done_nor_refused(shop):
    shop.paid()
    shop.said(RefundOrder(back(300)))
    shop.now_s += 11
    assert shop.said(RefundOrder(back(400))).word is RefundWord.UNKNOWN and shop.verdict.health == "lying"
    shop.rules.balance_fen = 0
    assert shop.said(RefundOrder(back(100, "0000012345000000021Z"))).word is RefundWord.UNKNOWN


# Instalments

@pytest.mark.parametrize(("payer", "fee"), [("shop", -73), ("payer", -5)])
def test_a_plan_reaches_the_bill_with_its_share_of_the_fee(shop, payer, fee):
    plan = msgspec.structs.replace(TEA, extras=(("fee_payer", payer), ("instalments", "12")))
    assert shop.paid(plan).said is Said.PAID
    assert shop.charge(intent=msgspec.structs.replace(plan, way="code", order_no=CODE.order_no)).said is Said.PAID
    shop.now_s += 26 * 3600
    shop.said(BILL)
    assert [row.fee_milli_fen for row in shop.verdict.rows] == [fee * 1000] * 2


# The bill

def test_the_bill_names_payments_refunds_and_cancels(shop):
    shop.paid()
    shop.charge()
    shop.said(CloseOrder(CODE))
    shop.said(RefundOrder(back()))
    assert (shop.said(BILL).ready, "not ready" in shop.verdict.detail) == (False, True)
    shop.now_s += 26 * 3600
    bill = shop.said(BILL)
    assert bill.ready and {row[:4] for row in bill.rows} == {
        ("paid", TEA.order_no, "", 900), ("paid", CODE.order_no, "", 900),
        ("refund", TEA.order_no, "0000012345000000020Z", 300), ("refund", CODE.order_no, CODE.order_no, 900)}
    assert shop.sent[-1].method == "GET" and not shop.sent[-1].body


@pytest.mark.parametrize("kind", sorted(kind for kind in FAULTS if kind.startswith("bill_")))
def test_a_bill_that_is_not_the_days_own_is_not_believed(shop, kind):
    shop.paid()
    shop.now_s += 26 * 3600
    shop.server.fault(kind, count=None)
    bill = shop.said(BILL) if kind != "bill_elsewhere" else elsewhere(shop)
    assert not bill.ready and bill.why and shop.server.fired[kind]
    shop.server.clear()
    assert len(shop.said(BILL).rows) == 1


def elsewhere(shop):
    bill = shop.said(BILL)
    assert "not Alipay's" in bill.why and shop.calls()[-1] == "bill"                  # the stranger was never asked
    return bill


def test_a_link_is_good_for_half_a_minute(shop):
    shop.now_s += 26 * 3600
    request = shop.codec.request(BILL)
    answer = shop.server.exchange(request.method, request.path, request.headers, request.body)
    follow = shop.codec.sealed(BILL, shop.codec.read(BILL, Reply(200, {}, answer.body)).follow)
    shop.now_s += 31
    answer = shop.server.exchange(follow.method, follow.path, follow.headers, follow.body)
    assert shop.codec.read(BILL, Reply(answer.status, {}, answer.body)).word == "unknown"


@pytest.mark.parametrize(("how", "sure_s"), [("file", 0), ("word", 0), ("no_data", 36 * 3600)])
def test_a_day_without_trade_has_an_empty_bill(shop, how, sure_s):
    shop.server.empty_bill = how
    midnight_s = START_S + 13 * 3600 + 33 * 60 + 20
    shop.now_s = midnight_s + 10 * 3600
    assert shop.said(BILL).ready is (not sure_s)
    shop.now_s = midnight_s + 36 * 3600
    bill = shop.said(BILL)
    assert (bill.ready, bill.rows) == (True, ())


# What must not be believed

def everything(shop):
    """Every call once, over a paid QR order and a charge that was accepted."""
    shop.paid()
    shop.charge("slow")
    fresh = msgspec.structs.replace(TEA, order_no="0000012345000000012Z")
    return {"query": QueryOrder(TEA), "close": CloseOrder(TEA), "cancel": CloseOrder(CODE), "refund": RefundOrder(back()),
            "refund_query": QueryRefund(back()), "place": PlaceOrder(fresh),
            "charge": ChargeCode(msgspec.structs.replace(fresh, way="code"), shop.server.code()), "bill": BILL}


GOOD = {"slow", "duplicate", "duplicate_reply", "braces"}                             # as good as none
ONE_CALL = {"paying", "retry_flag", "no_action", "unmoved", "beaten"}                 # told above
BY_CERTIFICATE = {"rotated", "foreign_root", "merchant_signed", "hidden"}
DOUBTFUL = sorted(kind for kind in set(FAULTS) - GOOD - ONE_CALL if not kind.startswith("bill_"))
CASES = [(kind, call) for kind in DOUBTFUL
         for call in ("query", "close", "cancel", "refund", "refund_query", "place", "charge", "bill")]


@pytest.mark.parametrize(("kind", "call"), CASES)
def test_no_doubtful_reply_decides_anything(shop, kind, call):
    effect = everything(shop)[call]
    shop.now_s += 26 * 3600 if call == "bill" else 0
    shop.server.fault(kind, count=None)
    answer = shop.said(effect)
    assert shop.server.fired[kind]
    if answer is None:
        assert kind in LOST
    elif call == "bill":
        assert (kind in ("wrong_order", "wrong_amount")) == answer.ready               # a bill's reply names neither
    elif kind == "wrong_amount" and call in ("close", "cancel", "place", "refund_query", "refund"):
        assert answer is not None                                                      # these name none, or the sum of all refunds
    elif kind == "error_unsigned" and call == "place" or kind == "stamp_old" and call == "place":
        assert answer.said is Said.REFUSED                                             # a hint; the core still asks and closes
    else:
        word = getattr(answer, "said", None) or answer.word
        assert word in ("unknown", "absent") and (word == "unknown" or call == "refund_query"), answer
        assert word == "absent" or answer.detail


@pytest.mark.parametrize("call", ["query", "close", "cancel", "refund", "refund_query", "place", "charge", "bill"])
@pytest.mark.parametrize("kind", sorted(BY_CERTIFICATE - {"rotated"}))
def test_no_other_certificate_proves_anything(certified, kind, call):
    effect = everything(certified)[call]
    certified.now_s += 26 * 3600 if call == "bill" else 0
    certified.server.fault(kind, count=None)
    answer = certified.said(effect)
    assert certified.calls()[-1] == "certificate" and certified.verdict.health == "lying"
    assert not answer.ready if call == "bill" else (getattr(answer, "said", None) or answer.word) == "unknown"


def test_a_certificate_may_change_in_the_middle_of_a_day(certified):
    certified.server.fault("rotated", count=None)
    assert certified.charge().said is Said.PAID
    assert certified.calls() == ["pay", "certificate"]                                # the charge is not sent again to read it
    assert certified.paid().said is Said.PAID and certified.calls().count("certificate") == 1
    certified.server.clear()
    assert certified.said(QueryOrder(TEA)).said is Said.PAID                          # the old one still counts


def test_questions_that_are_never_answered_do_not_pile_up_and_show_no_payer(shop):
    shop.server.fault("lost_answer", call="refund_query", count=None)
    for n in range(FOLLOWED_MAX + 3):
        assert shop.said(RefundOrder(back(no=f"0000012345{n:010d}"))) is None
    assert len(shop.codec._steps) == FOLLOWED_MAX
    assert "out_trade_no" not in repr(shop.codec._steps) and "sub_code" not in repr(shop.codec._steps)


def test_a_new_certificate_and_a_long_question_fit_one_effect(certified):
    qr = certified.said(PlaceOrder(TEA)).qr
    certified.server.scan(qr, "abandon")
    certified.now_s += 361
    certified.server.fault("rotated", count=None)
    assert certified.said(CloseOrder(TEA)).said is Said.CLOSED
    assert certified.calls()[-4:] == ["close", "certificate", "query", "refund_query"]


@pytest.mark.parametrize(("kind", "health"), [("wrong_order", "lying"), ("wrong_amount", "lying"), ("lying", "lying"),
                                              ("unsigned", "lying"), ("garbage", "lying"), ("page", "lying"), ("down", "gone"),
                                              ("busy", "slow"), ("unavailable", "slow"), ("system_error", "ok")])
def test_health_says_what_was_wrong(shop, kind, health):
    shop.paid()
    shop.server.fault(kind)
    assert shop.said(QueryOrder(TEA)).said is Said.UNKNOWN
    assert shop.verdict.health == health and shop.verdict.detail


@pytest.mark.parametrize("mode", ["key", "cert"])
def test_braces_quotes_and_slashes_in_strings_are_no_fault(keys, mode):
    shop = Shop(keys, mode)
    shop.server.fault("braces", count=None)
    assert shop.paid().said is Said.PAID
    assert shop.charge().said is Said.PAID
    assert shop.said(RefundOrder(back())).word is RefundWord.DONE


def test_a_doubled_request_is_one_order_and_one_refund(shop):
    shop.server.fault("duplicate", count=None)
    shop.paid()
    shop.said(RefundOrder(back()))
    assert [(row["captured_fen"], row["refunded_fen"]) for row in shop.server.orders()] == [(900, 300)]


def test_an_error_without_a_signature_is_a_hint_at_most(shop):
    shop.charge("pay")
    shop.server.fault("error_unsigned", count=None)
    assert shop.said(PlaceOrder(TEA)).detail == "Alipay does not know this appid (isv.invalid-app-id)"
    for effect in (QueryOrder(CODE), CloseOrder(CODE), CloseOrder(TEA), RefundOrder(back())):
        answer = shop.said(effect)
        assert (getattr(answer, "said", None) or answer.word) == "unknown"
    fresh = msgspec.structs.replace(CODE, order_no="0000012345000000012Z")
    assert shop.charge("pay", fresh).said is Said.UNKNOWN


@pytest.mark.parametrize("said", [
    {"code": "10000", "out_trade_no": TEA.order_no, "trade_status": "TRADE_SUCCESS", "total_amount": "9.00"},
    {"code": "10000", "out_trade_no": TEA.order_no, "trade_status": "TRADE_SUCCESS", "trade_no": "1"},
    {"code": "10000", "trade_status": "TRADE_SUCCESS", "trade_no": "1", "total_amount": "9.00"},
    {"code": "10000", "out_trade_no": TEA.order_no, "trade_status": "TRADE_SUCCESS", "trade_no": "1", "total_amount": "9" * 999},
    {"code": "10000", "out_trade_no": TEA.order_no, "trade_status": ["TRADE_SUCCESS"]},
    {"code": "10000", "out_trade_no": TEA.order_no, "trade_status": "PAID"}, {"code": 10000}, {"code": "99999"}, {},
    {"code": "40004", "sub_code": 7}, {"code": "40004", "sub_code": "ACQ.TRADE_NOT_EXIST", "out_trade_no": "X"}])
def test_a_signed_answer_that_names_too_little_proves_nothing(shop, monkeypatch, said):
    monkeypatch.setattr(shop.rules, "answer", lambda method, biz: said)
    assert shop.said(QueryOrder(TEA)).said is Said.UNKNOWN and shop.verdict.detail


@pytest.mark.parametrize("qr", ["weixin://x", "https://qr.alipay.com.evil.example/x", "https://qr.alipay.com/a b",
                                "https://qr.alipay.com/" + "x" * 600, "", None, 7])
def test_a_code_that_no_wallet_could_scan_is_not_shown(shop, monkeypatch, qr):
    monkeypatch.setattr(shop.rules, "answer", lambda method, biz: {"code": "10000", "out_trade_no": TEA.order_no, "qr_code": qr})
    assert shop.said(PlaceOrder(TEA)).said is Said.UNKNOWN and shop.verdict.health == "lying"


@pytest.mark.parametrize("more", [{"order_no": "A-B"}, {"made_at": "2026-11-18T10:26:40"}, {"amount_fen": 0},
                                  {"account": Account("alipay", "shop", ())}, {"extras": (("instalments", "7"),)}])
def test_an_order_that_alipay_cannot_take_sends_nothing(shop, more):
    answer = shop.said(PlaceOrder(msgspec.structs.replace(TEA, **more)))
    assert (answer.said, bool(answer.detail), shop.sent) == (Said.REFUSED, True, [])


# Keys

def test_keys_that_do_not_fit_are_said_at_once(keys):
    app, platform, theirs = keys
    root = theirs.root_pem
    for why, ours, platform_pem in (
            ("our own key", app.private_pem, app.public_pem),
            ("not root", app.private_pem, theirs.app_cert_pem + theirs.alipay.pem),
            ("not the certificate of our key", platform.private_pem, theirs.installed),
            ("not Alipay's certificate", app.private_pem, theirs.app_cert_pem + theirs.others["merchant_signed"].pem + root),
            ("no readable PEM certificate", app.private_pem, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            ("no readable PEM key", b"???", platform.public_pem), ("no readable PEM public key", app.private_pem, b"???")):
        with pytest.raises(ValueError, match=why) as fault:
            AlipayKeys(ours, platform_pem)
        assert "BEGIN" not in str(fault.value)


def test_keys_may_be_the_bare_base64_that_the_portal_shows(keys):
    from cryptography.hazmat.primitives import serialization as s

    app, platform, _ = keys
    bare = b"".join(line for line in platform.public_pem.splitlines() if b"-----" not in line)
    for form in (s.PrivateFormat.PKCS8, s.PrivateFormat.TraditionalOpenSSL):
        pem = s.load_pem_private_key(app.private_pem, None).private_bytes(s.Encoding.PEM, form, s.NoEncryption())
        ours = b"".join(line for line in pem.splitlines() if b"-----" not in line)
        assert AlipayKeys(ours, bare).signer.private_numbers() == s.load_pem_private_key(app.private_pem, None).private_numbers()


def test_a_wrong_key_number_or_authorisation_is_said_in_one_sentence(keys):
    shop = Shop(keys, token=TOKEN)
    assert shop.paid().said is Said.PAID
    shop.server.app_auth_token = "another"
    answer = shop.said(PlaceOrder(msgspec.structs.replace(TEA, order_no="0000012345000000012Z")))
    assert (answer.said, "authorisation" in answer.detail, TOKEN in repr(answer)) == (Said.REFUSED, True, False)
    stranger = Shop((key_pair("other"), *keys[1:]))
    stranger.server._app = shop.server._app
    assert "private_key_file" in stranger.said(PlaceOrder(TEA)).detail and stranger.verdict.key_refused


def test_an_old_certificate_is_told(certified):
    certified.now_s += 6 * 365 * 86400
    certified.said(QueryOrder(TEA))
    assert "not valid today" in certified.verdict.detail


# Over a real line

def test_over_real_http_with_the_file_of_the_bill(certified):
    certified.server.start()
    channel = HttpsChannel(certified.codec, base_url=certified.server.url)

    async def day():
        qr = await channel.do(PlaceOrder(TEA))
        certified.server.scan(qr.qr, "pay")
        paid = await channel.do(CloseOrder(TEA))
        done = await channel.do(RefundOrder(back()))
        certified.now_s += 26 * 3600
        bill = await channel.do(BILL)
        await channel.close()
        return paid, done, bill
    try:
        paid, done, bill = asyncio.run(day())
    finally:
        certified.server.stop()
    assert isinstance(paid, ChannelSaid) and paid.said is Said.PAID
    assert done.word is RefundWord.DONE and len(bill.rows) == 2


def test_parameters_may_stand_in_either_place_but_not_twice(shop):
    request = shop.codec.request(PlaceOrder(TEA))
    query, body = urlsplit(request.path).query, request.body.decode()
    ways = ((f"/gateway.do?{query}", body), (f"/gateway.do?{query}&{body}", ""), ("/gateway.do", f"{query}&{body}"),
            (f"http://openapi.alipay.com/gateway.do?{query}", body))
    for path, form in ways:
        answer = shop.server.exchange("POST" if form else "GET", path, wire.FORM, form.encode())
        assert json.loads(answer.body)["alipay_trade_precreate_response"]["code"] == "10000"
    answer = shop.server.exchange("POST", f"/gateway.do?{query}&app_id=9", wire.FORM, body.encode())
    assert "error_response" in json.loads(answer.body)
