"""Payers' codes at WeChat, API v2 and v3: our codec against the local rules, over the real bytes; both clocks moved by hand."""

from __future__ import annotations

import datetime
import itertools
import json

import msgspec
import pytest

from device.drivers.channels import wechat_v2_bytes as v2
from device.drivers.channels.codec_bytes import Reply
from device.drivers.channels.https import FOLLOWS_MAX, told
from device.drivers.channels.wechat import WechatCodec
from device.txn.effects import ChargeCode, CloseOrder, Intent, QueryOrder, RefundIntent, RefundOrder
from device.txn.inputs import RefundWord, Said
from device.types import Account
from sim.channels.keys import key_pair, platform
from sim.channels.server import LOST
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import FAULTS, WechatServer

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
SHOP = Account("wechat", "shop", (("appid", "wx0000000000000001"), ("mchid", "1900000001"),
                                  ("notify_url", "https://shop.example/notify")))
TEA = Intent("0000012345000000010Z", "wechat", SHOP, 900, "奶茶 x1", "2026-11-18T10:26:40+08:00",
             "2026-11-18T10:28:25+08:00", "code")
V3 = msgspec.structs.replace(TEA, account=Account("wechat", "shop", (*SHOP.fields[:1], ("code_api", "v3"), *SHOP.fields[1:])))
KEY = "192006250b4c09247ec02edce69f6a2d"


class Shop:
    """One codec and one server on one clock, joined without a line; `more` goes to the codec."""

    def __init__(self, merchant, theirs, **more) -> None:
        self.now_s, numbers = START_S, itertools.count()
        self.rules = WechatRules(lambda: int(self.now_s * 1000))
        self.server = WechatServer(self.rules, merchant_public_pem=merchant.public_pem, merchant_serial=merchant.serial_no,
                                   platform=theirs, now_s=lambda: self.now_s, api_v2_key=KEY)
        self.keys = {"account": "shop", "private_key_pem": merchant.private_pem, "serial_no": merchant.serial_no,
                     "platform_keys": theirs.public_keys(), "now_s": lambda: self.now_s,
                     "nonce": lambda: f"nonce{next(numbers)}", "api_v2_key": KEY} | more
        self.codec, self.verdict, self.tea = WechatCodec(**self.keys), None, TEA

    def said(self, effect, spoil=lambda n, reply: reply):
        """The answer of `effect` with all that follows, None when the line brought none; `spoil` touches the n-th reply."""
        request = self.codec.request(effect)
        for n in itertools.count():
            path = request.path.removeprefix(self.server.url)
            answer = self.server.exchange(request.method, path, request.headers, request.body)
            if answer.kind in LOST:
                return None
            reply = Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.body)
            self.verdict = self.codec.read(effect, spoil(n, reply))
            if self.verdict.follow is None:
                return told(effect, self.verdict)
            assert n < FOLLOWS_MAX
            request = self.codec.sealed(effect, self.verdict.follow)

    def charge(self, outcome: str = "pay", code: str = ""):
        code = code or self.server.code()
        if outcome != "pay":
            self.server.code_outcome(code, outcome)
        return self.said(ChargeCode(self.tea, code))


@pytest.fixture(scope="module")
def keys():
    return key_pair("merchant"), platform()


@pytest.fixture(params=["v2", "v3"])
def shop(keys, request):
    """A counter that charges by micropay, and one that charges by codepay and holds no v2 key."""
    if request.param == "v2":
        return Shop(*keys)
    made = Shop(*keys, api_v2_key="", code_api="v3")
    made.tea = V3
    return made


def calls_of(shop):
    """The local server's words for a charge and its undo."""
    return ("micropay", "reverse") if shop.tea == TEA else ("codepay", "codepay_reverse")


def test_a_charged_code_is_paid_queried_and_refunded_by_v3(shop):
    paid = shop.charge()
    assert (paid.said, paid.amount_fen, len(paid.channel_no)) == (Said.PAID, 900, 28)
    assert shop.said(QueryOrder(shop.tea)).said is Said.PAID
    back = RefundIntent("0000012345000000020Z", shop.tea.order_no, "wechat", shop.tea.account, 300, 900, "退货", shop.tea.made_at)
    assert shop.said(RefundOrder(back)).word is RefundWord.PROCESSING


def test_a_password_is_asked_for_and_given(shop):
    assert shop.charge("slow").said is Said.OPEN
    assert shop.said(QueryOrder(shop.tea)).said is Said.OPEN
    shop.now_s += 31
    assert shop.said(QueryOrder(shop.tea)).said is Said.PAID


def test_a_payer_who_walks_away_is_reversed_after_fifteen_seconds_and_not_before(shop):
    shop.charge("abandon")
    assert shop.said(CloseOrder(shop.tea)).said is Said.UNKNOWN                 # recall: call again
    shop.now_s += 15
    for _ in range(2):
        undone = shop.said(CloseOrder(shop.tea))
        assert (undone.said, undone.undo) == (Said.CLOSED, True)
    assert shop.said(QueryOrder(shop.tea)).said is Said.CLOSED
    assert shop.rules.orders()[0]["state"] == "reversed"


def test_a_reversal_gives_a_paid_order_back_and_says_so(shop):
    """The reversal itself says only that the order is dead: the query behind it names the payment that went back."""
    paid = shop.charge()
    undone = shop.said(CloseOrder(shop.tea))
    assert (undone.said, undone.undo, undone.channel_no) == (Said.GIVEN_BACK, True, paid.channel_no)
    again = shop.said(QueryOrder(shop.tea))
    assert (again.said, again.amount_fen, again.channel_no) == (Said.GIVEN_BACK, 900, paid.channel_no)
    row = shop.rules.orders()[0]
    assert (row["state"], row["captured_fen"]) == ("reversed", 0)


def test_a_reversal_that_nobody_can_ask_after_is_done_all_the_same(shop):
    """Paid in the last moment or not: dead, and nothing of it is with us.  The sentence says what is not known."""
    shop.charge()
    shop.server.fault("unsigned", call="query", count=None)
    undone = shop.said(CloseOrder(shop.tea))
    assert (undone.said, "went back" in undone.detail) == (Said.CLOSED, True)
    shop.server.clear()
    shop.server.fault("lost_answer", call="query")
    assert shop.said(CloseOrder(shop.tea)) is None                              # the line broke: unknown, and asked again
    assert shop.said(CloseOrder(shop.tea)).said is Said.GIVEN_BACK
    assert [o["captured_fen"] for o in shop.rules.orders()] == [0]


def test_a_reversal_that_wechat_does_not_show_yet_is_undecided(shop):
    shop.charge("abandon")
    shop.now_s += 20
    held = shop.rules._query
    for state in ("SUCCESS", "USERPAYING"):
        shop.rules._query = lambda order, *who, state=state: (200, held(order, *who)[1] | {"trade_state": state})
        assert shop.said(CloseOrder(shop.tea)).said is Said.UNKNOWN
    shop.rules._query = held
    assert shop.said(CloseOrder(shop.tea)).said is Said.CLOSED


def test_a_reversal_after_seven_days_is_refused_for_good(shop):
    shop.charge()
    shop.now_s += 8 * 86_400
    assert shop.said(CloseOrder(shop.tea)).said is Said.REFUSED


def test_an_order_nobody_charged_is_absent(shop):
    assert shop.said(CloseOrder(shop.tea)).said is Said.ABSENT


@pytest.mark.parametrize("what", ["insufficient", "old", "used", "made up"])
def test_what_can_never_be_paid_is_refused_in_words(shop, what):
    code = shop.server.code()
    if what == "old":
        shop.now_s += 61
    if what == "used":
        shop.said(ChargeCode(msgspec.structs.replace(shop.tea, order_no="0000012345000000030Z"), code))
    answer = shop.charge("insufficient" if what == "insufficient" else "pay", "134567890123456789" if what == "made up" else code)
    assert answer.said is Said.REFUSED and answer.detail and code not in answer.detail


def test_the_same_charge_is_the_same_bytes_and_charges_once(shop):
    code = shop.server.code()
    one, two = (shop.codec.request(ChargeCode(shop.tea, code)) for _ in range(2))
    shop.now_s += 5
    late = shop.codec.request(ChargeCode(shop.tea, code))
    assert (one.path, one.body) == (two.path, two.body) == (late.path, late.body)
    assert shop.tea.account != SHOP or one == two == late                  # v2 has its nonce in the body
    shop.said(ChargeCode(shop.tea, code))
    assert shop.said(ChargeCode(shop.tea, code)).said is Said.UNKNOWN           # ORDERPAID: ask
    assert [o["captured_fen"] for o in shop.rules.orders()] == [900]


@pytest.mark.parametrize("undo", [False, True])
@pytest.mark.parametrize("kind", sorted(set(FAULTS) - {"slow", "duplicate", "duplicate_reply"}))
def test_no_fault_becomes_a_definite_word(shop, kind, undo):
    charge, reverse = calls_of(shop)
    if undo:
        shop.charge("abandon")
        shop.now_s += 20
    shop.server.fault(kind, call=reverse if undo else charge)
    answer = shop.said(CloseOrder(shop.tea)) if undo else shop.charge()
    named = {"micropay": ("wrong_order", "wrong_amount"), "codepay": ("wrong_amount",)}[charge]      # what an undo's reply lacks
    harmless = undo and kind in named
    assert answer is None or answer.said is (Said.CLOSED if harmless else Said.UNKNOWN), answer


def test_a_code_stands_in_no_answer_and_no_repr(shop):
    code = shop.server.code()
    for kind in ("lying", "garbage", "wrong_amount"):
        shop.server.fault(kind, call=calls_of(shop)[0])
        effect = ChargeCode(msgspec.structs.replace(shop.tea, order_no=f"{kind:0<20}"[:20].upper()), code)
        assert code not in repr(shop.said(effect)) + repr(effect)


@pytest.mark.parametrize("kind", ["unsigned", "lying"])
def test_by_v3_a_refusal_counts_when_wechat_proves_it(keys, kind):
    """Whoever can write a reply without a key may not tell the cashier that a code took nothing."""
    shop = Shop(*keys, api_v2_key="", code_api="v3")
    shop.tea = V3
    shop.server.fault(kind)
    answer = shop.charge("insufficient")
    assert answer.said is Said.UNKNOWN and answer.detail
    assert shop.charge("insufficient").said is Said.UNKNOWN                # USERPAYING or burnt: the query tells
    shop.now_s += 20
    assert shop.said(CloseOrder(V3)).said is Said.CLOSED


def test_by_v3_a_payer_who_is_asked_may_also_be_a_202(keys):
    shop = Shop(*keys, api_v2_key="", code_api="v3")
    shop.tea, shop.rules.codes.payers_answer_202 = V3, True
    shop.server.fault("unsigned", call="codepay")
    assert shop.charge("slow").said is Said.UNKNOWN
    shop.tea = msgspec.structs.replace(V3, order_no="0000012345000000031Z")
    assert shop.charge("slow").said is Said.OPEN


def test_a_code_charged_by_one_api_is_undone_by_the_same_whatever_was_set_since(keys):
    """The account in the intent says it; a key that is gone by then leaves the undo unsaid, and never goes the other way."""
    shop = Shop(*keys)
    shop.charge()
    shop.codec = WechatCodec(**(shop.keys | {"code_api": "v3"}))
    assert shop.codec.request(CloseOrder(TEA)).path == "/secapi/pay/reverse"
    assert shop.codec.request(CloseOrder(V3)).path == f"/v3/pay/transactions/out-trade-no/{TEA.order_no}/reverse"
    shop.codec = WechatCodec(**(shop.keys | {"code_api": "v3", "api_v2_key": ""}))
    with pytest.raises(ValueError, match="v2 key"):
        shop.codec.request(CloseOrder(TEA))


def test_a_charge_by_v3_says_what_wechat_wants_to_know(keys):
    shop = Shop(*keys, api_v2_key="", code_api="v3")
    request = shop.codec.request(ChargeCode(V3, "134567890123456789"))
    assert (request.path, json.loads(request.body)) == ("/v3/pay/transactions/codepay", {
        "appid": "wx0000000000000001", "mchid": "1900000001", "description": "奶茶 x1", "out_trade_no": TEA.order_no,
        "payer": {"auth_code": "134567890123456789"}, "amount": {"total": 900, "currency": "CNY"},
        "scene_info": {"device_ip": "127.0.0.1", "store_info": {"out_id": "1900000001"}}})


def test_the_published_signatures():
    fields = {"appid": "wxd930ea5d5a258f4f", "body": "test", "device_info": "1000", "mch_id": "10000100",
              "nonce_str": "ibuaiVcKdpRxkhJA"}
    assert v2.sign(fields, KEY) == "9A0A8659F005D6984697E2CA0A9CF3B7"
    assert v2.hmac_sign(fields, KEY) == "6A9AE1657590FD6257D693A078E1C3E4BB6BA4DC30B23E0EE2496E54170DACD6"


@pytest.mark.parametrize("body", [
    b"", b"<xml>", b"<xml><a>1</b></xml>", b"<xml><a><b>1</b></a></xml>", b"<xml><a>1</a><a>2</a></xml>", b"\xff<xml></xml>",
    b'<!DOCTYPE x [<!ENTITY e "x">]><xml><a>&e;</a></xml>', b"<xml>" + b"<a>1</a>" * 200 + b"</xml>",
    b"<xml><a>" + b"x" * 70_000 + b"</a></xml>"])
def test_what_is_no_flat_xml_is_refused(body):
    with pytest.raises(ValueError):
        v2.decoded(body)


def test_xml_goes_both_ways():
    fields = {"a": "1 < 2 & 3", "b": "奶茶"}
    assert v2.decoded(v2.encoded(fields)) == fields and v2.decoded(b"<xml>\n<a>1 &lt; 2</a>\n</xml>") == {"a": "1 < 2"}
    with pytest.raises(ValueError):
        v2.encoded({"a": "]]>"})
