"""Our WeChat client against the local server, over real HTTP; both clocks moved by hand."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import datetime
import itertools
import json
import socket
import threading

import pytest

from device.drivers.channels import wechat_bytes as wire
from device.drivers.channels import wechat_word_bytes as words
from device.drivers.channels.codec_bytes import Reply, cut_bytes
from device.drivers.channels.https import HttpsChannel
from device.drivers.channels.sim import ChannelSim
from device.drivers.channels.wechat import WechatCodec
from device.drivers.channels.wechat_certificates import open_sealed
from device.txn.effects import CloseOrder, Intent, PlaceOrder, QueryOrder, QueryRefund, RefundIntent, RefundOrder
from device.txn.inputs import ChannelSaid, DeviceSaid, QrReady, RefundWord, Said
from device.types import Account
from sim.channels.keys import key_pair, platform, seal
from sim.channels.wechat import WechatRules
from sim.channels.wechat_forms import REASONS
from sim.channels.wechat_orders import DAY_MS, HOUR_MS
from sim.channels.wechat_server import FAULTS, WechatServer

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
SHOP = Account("wechat", "shop", (("appid", "wx0000000000000001"), ("mchid", "1900000001"),
                                  ("notify_url", "https://shop.example/notify")))
TEA = Intent("0000012345000000010Z", "wechat", SHOP, 900, "奶茶 x1", "2026-11-18T10:26:40+08:00",
             "2026-11-18T10:31:40+08:00")
BACK = RefundIntent("0000012345000000020Z", TEA.order_no, "wechat", SHOP, 300, 900, "退货",
                    "2026-11-18T10:28:00+08:00")


@dataclasses.dataclass
class Counter:
    """Server, rules and one client.  `now_s` is everybody's time; `skew_s` is how far ours is ahead of theirs."""

    merchant: object
    theirs: object
    now_s: float = START_S
    skew_s: float = 0
    read_s: float = 5

    def __post_init__(self):
        self.rules = WechatRules(lambda: int(self.now_s * 1000))
        self.server = WechatServer(self.rules, merchant_public_pem=self.merchant.public_pem,
                                   merchant_serial=self.merchant.serial_no, platform=self.theirs,
                                   now_s=lambda: self.now_s)
        self.server.start()

    def does(self, *effects, before=lambda: None):
        """Answers of the effects, done one after the other by one client, and the health it told."""
        async def run():
            numbers = itertools.count()
            channel = HttpsChannel(WechatCodec(
                account="shop", private_key_pem=self.merchant.private_pem,
                serial_no=self.merchant.serial_no, platform_keys=self.theirs.public_keys(),
                now_s=lambda: self.now_s + self.skew_s, nonce=lambda: f"nonce{next(numbers)}"),
                base_url=self.server.url, read_s=self.read_s)
            try:
                answers = []
                for effect in effects:
                    answers.append(await (asyncio.to_thread(effect) if callable(effect) else channel.do(effect)))
            finally:
                await channel.close()
            return answers, [said async for said in channel.inputs()]
        return asyncio.run(run())

    def said(self, effect):
        return self.does(effect)[0][0]


@pytest.fixture(scope="module")
def keys():
    return key_pair("merchant"), platform()


@pytest.fixture
def counter(keys):
    made = Counter(*keys)
    yield made
    made.server.stop()


def placed_and_paid(counter):
    qr = counter.said(PlaceOrder(TEA))
    assert isinstance(qr, QrReady)
    assert counter.rules.scan(qr.qr, "pay")["ok"]


def test_a_sale_from_code_to_refund(counter):
    assert counter.said(QueryOrder(TEA)).said is Said.ABSENT
    qr = counter.said(PlaceOrder(TEA))
    assert qr.qr.startswith("weixin://wxpay/bizpayurl?pr=")
    assert counter.said(QueryOrder(TEA)) == ChannelSaid(TEA.order_no, Said.OPEN, 900)
    assert counter.rules.scan(qr.qr, "pay")["ok"]
    paid = counter.said(QueryOrder(TEA))
    assert (paid.said, paid.amount_fen, paid.detail) == (Said.PAID, 900, "")
    assert len(paid.channel_no) == 28
    assert counter.said(QueryRefund(BACK)).word is RefundWord.ABSENT
    assert counter.said(RefundOrder(BACK)).word is RefundWord.PROCESSING
    assert counter.said(QueryOrder(TEA)).said is Said.PAID              # trade_state REFUND
    counter.now_s += 60
    done = counter.said(QueryRefund(BACK))
    assert (done.word, done.amount_fen) == (RefundWord.DONE, 300)
    assert counter.said(RefundOrder(BACK)) == done                      # same number: same refund
    assert counter.rules.orders()[0] | {"captured_fen": 900, "refunded_fen": 300, "state": "part_refunded"} \
        == counter.rules.orders()[0]


def test_close_is_repeatable_and_never_undoes_a_payment(counter):
    assert counter.said(CloseOrder(TEA)).said is Said.ABSENT
    counter.said(PlaceOrder(TEA))
    assert [a.said for a in counter.does(CloseOrder(TEA), CloseOrder(TEA), QueryOrder(TEA))[0]] == [Said.CLOSED] * 3
    late = counter.said(PlaceOrder(TEA))
    assert (late.said, "ask" in late.detail) == (Said.UNKNOWN, True)


def test_paid_orders_say_ask_to_create_and_close(counter):
    placed_and_paid(counter)
    for effect in (PlaceOrder(TEA), CloseOrder(TEA)):
        answer = counter.said(effect)
        assert (answer.said, answer.detail) == (Said.UNKNOWN, "the order is paid already, says WeChat: ask")
    assert counter.rules.orders()[0]["state"] == "paid"


def test_a_retry_is_the_same_bytes_and_one_order(counter):
    counter.server.fault("lost_answer", call="create")
    (lost, qr), _ = counter.does(PlaceOrder(TEA), PlaceOrder(TEA))
    assert lost.said is Said.UNKNOWN
    assert isinstance(qr, QrReady)
    first, second = counter.server.seen
    assert first.body == second.body == (
        '{"appid":"wx0000000000000001","mchid":"1900000001","description":"奶茶 x1",'
        '"out_trade_no":"0000012345000000010Z","time_expire":"2026-11-18T10:31:40+08:00",'
        '"notify_url":"https://shop.example/notify","amount":{"total":900,"currency":"CNY"}}').encode()
    assert len(counter.rules.orders()) == 1


def test_nothing_is_sent_twice_by_itself(counter):
    counter.server.fault("lost_answer", count=None)
    assert counter.said(PlaceOrder(TEA)).said is Said.UNKNOWN
    assert counter.said(RefundOrder(BACK)).word is RefundWord.UNKNOWN
    assert [seen.call for seen in counter.server.seen] == ["create", "refund"]


UNPROVEN = [kind for kind in FAULTS if kind not in ("slow", "duplicate", "duplicate_reply", "lost_request")]


@pytest.mark.parametrize("kind", UNPROVEN)
def test_no_doubtful_reply_decides_anything(counter, kind):
    placed_and_paid(counter)
    counter.server.fault(kind, count=None)
    (query, close, refund, refund_query), health = counter.does(QueryOrder(TEA), CloseOrder(TEA), RefundOrder(BACK),
                                                                QueryRefund(BACK))
    assert query.said is Said.UNKNOWN
    assert close.said is Said.UNKNOWN
    assert (refund.word, refund_query.word) in [(RefundWord.UNKNOWN, RefundWord.UNKNOWN),
                                                (RefundWord.UNKNOWN, RefundWord.ABSENT)]
    assert all(answer.detail for answer in (query, refund))
    assert health[0].word in ("lying", "gone", "slow")


@pytest.mark.parametrize("kind", [k for k in UNPROVEN if k not in ("wrong_amount", "wrong_order")])
def test_no_doubtful_reply_shows_a_code_or_closes(counter, kind):
    counter.server.fault(kind, count=None)
    (place, close), _ = counter.does(PlaceOrder(TEA), CloseOrder(TEA))
    assert isinstance(place, ChannelSaid)
    assert place.said is Said.UNKNOWN
    assert close.said in (Said.UNKNOWN, Said.ABSENT) or kind == "truncated"      # half of an empty body is whole


def test_a_signature_probe_proves_nothing_and_is_no_lie(counter):
    counter.server.fault("signtest")
    (probed, qr), health = counter.does(PlaceOrder(TEA), PlaceOrder(TEA))
    assert (probed.said, "probe" in probed.detail) == (Said.UNKNOWN, True)
    assert isinstance(qr, QrReady)
    assert [h.word for h in health] == ["slow", "ok"]


def test_a_clock_six_minutes_off_says_check_the_clock(counter):
    counter.skew_s = 360
    answer, health = counter.does(PlaceOrder(TEA))
    assert answer[0].said is Said.UNKNOWN                                        # theirs is 401 SIGN_ERROR
    assert "check the clock" in answer[0].detail
    assert health == [DeviceSaid("channel:wechat", "lying", answer[0].detail)]
    assert counter.server.seen[0].status == 401
    assert counter.rules.orders() == []


def test_an_unsigned_refusal_counts_only_when_the_clocks_agree():
    body = b'{"code":"SIGN_ERROR","message":"..."}'
    reply = Reply(401, {"date": "Wed, 18 Nov 2026 10:26:40 GMT"}, body)
    real_s = START_S + 8 * 3600
    assert words.place_verdict(reply, "unsigned", now_s=real_s).word == "refused"
    assert words.place_verdict(reply, "unsigned", now_s=real_s + 301).word == "unknown"


def test_a_wrong_key_is_refused_in_one_sentence(counter, keys):
    counter.merchant = dataclasses.replace(counter, merchant=keys[1].public).merchant
    answer = counter.said(PlaceOrder(TEA))
    assert (answer.said, answer.detail) == (
        Said.REFUSED, "WeChat does not accept our signature: check merchant key and serial (SIGN_ERROR at signature)")


def test_parameters_are_refused_by_name(counter):
    long = Intent(TEA.order_no, "wechat", SHOP, 0, "tea", TEA.made_at, TEA.expires_at)
    answer = counter.said(PlaceOrder(long))
    assert (answer.said, answer.detail) == (Said.REFUSED, "WeChat takes no such order (PARAM_ERROR at /amount/total)")


def test_an_order_sent_too_late_is_asked_after_not_given_up(counter):
    counter.now_s += 600
    answer = counter.said(PlaceOrder(TEA))
    assert (answer.said, "time is over" in answer.detail) == (Said.UNKNOWN, True)


def test_other_content_under_our_number_is_asked_after(counter):
    counter.said(PlaceOrder(TEA))
    other = Intent(TEA.order_no, "wechat", SHOP, 901, "tea", TEA.made_at, TEA.expires_at)
    assert counter.said(PlaceOrder(other)).said is Said.UNKNOWN
    mismatch = counter.said(QueryOrder(other))
    assert (mismatch.said, mismatch.detail) == (Said.UNKNOWN, "WeChat holds 900 fen where we asked 901")


def test_an_account_without_its_fields_or_its_key_sends_nothing(counter):
    bare = Account("wechat", "shop", (("mchid", "1900000001"),))
    other = Account("wechat", "other", SHOP.fields)
    for account, said in ((bare, Said.REFUSED), (other, Said.UNKNOWN)):
        answer = counter.said(PlaceOrder(Intent(TEA.order_no, "wechat", account, 1, "tea", TEA.made_at,
                                                TEA.expires_at)))
        assert answer.said is said
        assert answer.detail
    assert not counter.server.seen


def test_a_refund_over_the_sum_is_refused_and_an_empty_balance_is_not(counter):
    placed_and_paid(counter)
    too_much = RefundIntent("R1", TEA.order_no, "wechat", SHOP, 901, 900, "", BACK.made_at)
    assert counter.said(RefundOrder(too_much)).word is RefundWord.REFUSED
    counter.rules.balance_fen = 10
    assert counter.said(RefundOrder(BACK)).word is RefundWord.UNKNOWN
    counter.rules.balance_fen = 1000
    assert counter.said(RefundOrder(BACK)).word is RefundWord.PROCESSING


@pytest.mark.parametrize(("ends", "word"), [("ABNORMAL", RefundWord.ABNORMAL), ("CLOSED", RefundWord.REFUSED)])
def test_a_refund_may_still_fail(counter, ends, word):
    placed_and_paid(counter)
    counter.rules.refund_ends = ends
    counter.said(RefundOrder(BACK))
    counter.now_s += 60
    assert counter.said(QueryRefund(BACK)).word is word
    assert counter.rules.orders()[0]["refunded_fen"] == 0


def test_a_connection_is_kept_and_a_dead_one_is_noticed_before_sending(counter):
    def restart():
        counter.server.stop()
        counter.server.start()
    answers, health = counter.does(PlaceOrder(TEA), QueryOrder(TEA), restart, CloseOrder(TEA), QueryOrder(TEA))
    assert [a.said for a in answers if isinstance(a, ChannelSaid)] == [Said.OPEN, Said.CLOSED, Said.CLOSED]
    assert [h.word for h in health] == ["ok"]


def test_a_doubled_reply_does_not_answer_the_next_question(counter):
    counter.server.fault("duplicate_reply", count=1)
    (qr, query, close), _ = counter.does(PlaceOrder(TEA), QueryOrder(TEA), CloseOrder(TEA))
    assert isinstance(qr, QrReady)
    assert (query.said, close.said) == (Said.OPEN, Said.CLOSED)


def test_a_request_that_the_network_doubles_is_one_order_and_one_refund(counter):
    counter.server.fault("duplicate", count=None)
    placed_and_paid(counter)
    assert counter.said(RefundOrder(BACK)).word is RefundWord.PROCESSING
    assert counter.rules.orders()[0]["refunded_fen"] == 300


def test_faults_end_by_kind(counter):
    counter.server.fault("down", count=None)
    counter.server.fault("lying", count=None)
    assert counter.said(QueryOrder(TEA)).detail == "WeChat answered 503"
    counter.server.clear("down")
    assert counter.said(QueryOrder(TEA)).detail == "the reply's signature is wrong"
    counter.server.clear()
    assert counter.said(QueryOrder(TEA)).said is Said.ABSENT
    assert counter.server.orders() == []


def test_gone_and_back_is_told_once(counter):
    counter.server.stop()
    answers, health = counter.does(PlaceOrder(TEA), PlaceOrder(TEA), counter.server.start, PlaceOrder(TEA))
    assert [a.said for a in answers[:2]] == [Said.UNKNOWN, Said.UNKNOWN]
    assert "no connection to WeChat" in answers[0].detail
    assert isinstance(answers[3], QrReady)
    assert [h.word for h in health] == ["gone", "ok"]


def test_a_withheld_answer_is_unknown_and_took_effect(counter):
    counter.read_s = 0.2
    counter.server.fault("slow", call="create")
    answers, health = counter.does(PlaceOrder(TEA))
    assert answers[0].said is Said.UNKNOWN
    assert [h.word for h in health] == ["slow"]
    assert counter.rules.orders()[0]["state"] == "open"


def test_a_reply_that_trickles_for_ever_is_cut(counter):
    counter.read_s = 0.2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def trickle():
            line, _ = listener.accept()
            with line:
                try:
                    while not ended.wait(0.05):
                        line.sendall(b"H")
                except OSError:
                    pass                                     # cut, as it should be

        thread = threading.Thread(target=trickle)
        thread.start()

        async def run():
            channel = HttpsChannel(WechatCodec(
                account="shop", private_key_pem=counter.merchant.private_pem, serial_no="1", platform_keys={},
                now_s=lambda: START_S, nonce=lambda: "n"),
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", connect_s=0.2, read_s=0.2)
            try:
                return await asyncio.wait_for(channel.do(PlaceOrder(TEA)), 5)
            finally:
                await channel.close()

        answer = asyncio.run(run())
        ended.set()
        thread.join()
    assert (answer.said, answer.detail) == (Said.UNKNOWN, "WeChat did not finish its answer in time")


def test_requests_are_what_whoever_signed_them_sent(keys):
    request = wire.query_request(order_no="A|B*1", fields={"mchid": "1"})
    assert request.path == "/v3/pay/transactions/out-trade-no/A%7CB%2A1?mchid=1"
    assert wire.text_to_sign(request, 1554208460, "n") == f"GET\n{request.path}\n1554208460\nn\n\n".encode()
    assert wire.authorization(mchid="1", serial_no="2", at_s=3, nonce="4", signature=b"5") == (
        'WECHATPAY2-SHA256-RSA2048 mchid="1",nonce_str="4",timestamp="3",serial_no="2",signature="NQ=="')


def test_text_is_cut_between_characters_and_times_lose_their_fraction():
    assert cut_bytes("茶" * 50, 127) == "茶" * 42
    assert wire.whole_seconds("2026-11-18T10:31:40.123+08:00") == "2026-11-18T10:31:40+08:00"
    assert wire.whole_seconds("2026-11-18T02:31:40Z") == "2026-11-18T02:31:40+00:00"
    with pytest.raises(ValueError, match="no offset"):
        wire.whole_seconds("2026-11-18T02:31:40")


def test_every_word_of_the_tables_is_in_the_vocabulary():
    assert set(words.TRADE_WORDS.values()) <= set(Said)
    assert set(words.REFUND_WORDS.values()) <= set(RefundWord)
    for call, rows in words.ERROR_WORDS.items():
        said = {word for word, _ in rows.values()}
        assert said <= {"place": {"refused"}, "charge": {"refused"}, "refund": {"refused"}, "reverse": {"absent", "refused"},
                        "bill": {"refused", "unknown"}}.get(call, {"absent"})


def test_deep_nesting_and_odd_types_are_only_unknown():
    for body in (b"[" * 200_000, b'{"code_url":7}', b"null", b'{"code_url":"https://evil.example/"}', b"\xff"):
        assert words.place_verdict(Reply(200, {}, body), "", now_s=0).word == "unknown"


def test_sealed_text_opens_as_published():
    """AES-256-GCM with the associated data `certificate`, recomputed with two independent libraries."""
    key, sealed = b"0123456789abcdef0123456789abcdef", "Aaml06TFiG3N+E2wfq040E45tfzq8MiLuYmezg=="
    assert open_sealed(api_v3_key=key, nonce="abcdefghijkl", associated_data="certificate",
                       ciphertext=sealed) == "hello 微信".encode()
    assert seal("hello 微信".encode(), api_v3_key=key, nonce="abcdefghijkl", associated_data="certificate") == sealed
    spoiled = base64.b64encode(b"\x00" + base64.b64decode(sealed)[1:]).decode()
    with pytest.raises(ValueError, match="does not open"):
        open_sealed(api_v3_key=key, nonce="abcdefghijkl", associated_data="certificate", ciphertext=spoiled)


# The rules by themselves

def create_body(**more):
    return {"appid": "wx0000000000000001", "mchid": "1900000001", "description": "tea", "out_trade_no": "B01T0001",
            "notify_url": "https://shop.example/notify", "amount": {"total": 900, "currency": "CNY"}} | more


@dataclasses.dataclass
class Clock:
    now: int = START_S * 1000

    def __call__(self):
        return self.now


def test_a_repeat_gives_a_new_code_and_kills_the_old_one():
    rules = WechatRules(Clock())
    old, new = (rules.create(create_body())[1]["code_url"] for _ in range(2))
    assert old != new
    assert rules.scan(old, "pay")["why"] == "the code was replaced by a newer one"
    assert rules.scan(new, "pay")["ok"]


@pytest.mark.parametrize("more", [{"surplus": 1}, {"attach": None}, {"amount": {"total": 1, "x": 2}},
                                  {"amount": {"total": 1.0}}, {"amount": {"total": True}}, {"out_trade_no": "short"},
                                  {"notify_url": "https://a.example/?b=1"}, {"description": "x" * 128},
                                  {"time_expire": "2026-11-18 10:31:40"}, {"amount": {"total": 0}}])
def test_odd_parameters_are_refused(more):
    status, said = WechatRules(Clock()).create(create_body(**more))
    assert (status, said["code"]) == (400, "PARAM_ERROR")


def test_codes_grow_old_and_slow_wallets_lose_races():
    clock = Clock()
    rules = WechatRules(clock)
    qr = rules.create(create_body())[1]["code_url"]
    assert not rules.scan(qr, "insufficient")["ok"]
    assert rules.scan(qr, "abandon")["ok"]
    assert rules.scan(qr, "pay", openid="o-other")["why"] == "another wallet has scanned this order"
    assert rules.scan(qr, "slow", slow_s=10)["ok"]
    clock.now += 9_999
    assert rules.close("B01T0001", {"mchid": "1900000001"}) == (204, None)
    clock.now += 10_000
    assert rules.orders()[0]["state"] == "closed"
    qr = rules.create(create_body(out_trade_no="B01T0002"))[1]["code_url"]
    assert rules.scan(qr, "slow", slow_s=10)["ok"]
    clock.now += 10_000
    assert rules.orders()[1]["state"] == "paid"
    qr = rules.create(create_body(out_trade_no="B01T0003"))[1]["code_url"]
    clock.now += 2 * HOUR_MS
    assert rules.scan(qr, "pay")["why"] == "the code is too old"


def test_an_order_that_nobody_paid_is_closed_after_a_week():
    clock = Clock()
    rules = WechatRules(clock)
    rules.create(create_body())
    clock.now += 7 * DAY_MS - 1
    assert rules.orders()[0]["state"] == "open"
    clock.now += 1
    assert rules.orders()[0]["state"] == "closed"


def test_each_reason_has_its_own_message():
    assert len({reason.message for reason in REASONS.values()}) == len(REASONS)


def refund_body(number, fen):
    return {"out_trade_no": "B01T0001", "out_refund_no": number,
            "amount": {"refund": fen, "total": 900, "currency": "CNY"}}


def test_refunds_keep_their_limits():
    clock = Clock()
    rules = WechatRules(clock)
    assert rules.refund(refund_body("R0", 1))[0] == 404
    qr = rules.create(create_body())[1]["code_url"]
    assert rules.refund(refund_body("R0", 1))[1]["message"] == "the order is not paid"
    rules.scan(qr, "pay")
    assert rules.refund(refund_body("R1", 1))[0] == 200
    assert rules.refund(refund_body("R1", 2))[1]["message"] == "repeated with other parameters"
    assert rules.refund(refund_body("R2", 1))[0] == 429
    for part in range(2, 51):
        clock.now += 60_000
        assert rules.refund(refund_body(f"R{part}", 1))[0] == 200
    clock.now += 60_000
    assert rules.refund(refund_body("R51", 1))[1]["message"] == "50 partial refunds at most"
    assert rules.refund(refund_body("R51", 900))[1]["message"] == "refunds would exceed the amount paid"
    assert rules.orders()[0]["refunded_fen"] == 50


def test_a_year_after_payment_is_too_late():
    clock = Clock()
    rules = WechatRules(clock)
    rules.scan(rules.create(create_body())[1]["code_url"], "pay")
    clock.now += 366 * DAY_MS
    assert rules.refund(refund_body("R1", 1))[1]["message"] == "paid more than a year ago"


# The twin

def test_the_twin_speaks_the_same_words():
    rules, faults = WechatRules(lambda: START_S * 1000), iter(["lost_answer", "", "", "lying", ""])
    twin = ChannelSim(rules, fault=lambda call: next(faults, ""))
    assert twin.answer_to(PlaceOrder(TEA)).said is Said.UNKNOWN
    qr = twin.answer_to(PlaceOrder(TEA))
    assert twin.answer_to(QueryOrder(TEA)).said is Said.OPEN
    rules.scan(qr.qr, "pay")
    assert twin.answer_to(QueryOrder(TEA)).said is Said.UNKNOWN
    assert twin.answer_to(CloseOrder(TEA)).said is Said.UNKNOWN
    paid = asyncio.run(twin.do(QueryOrder(TEA)))
    assert (paid.said, paid.amount_fen) == (Said.PAID, 900)
    assert json.loads(rules.answer("GET", "/nowhere", b"", "1900000001")[2])["code"] == "RESOURCE_NOT_EXISTS"
    assert asyncio.run(twin.do(RefundOrder(BACK))).word is RefundWord.PROCESSING
