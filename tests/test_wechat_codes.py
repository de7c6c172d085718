"""Payers' codes at WeChat, API v2: our codec against the local rules, over the real bytes; both clocks moved by hand."""

from __future__ import annotations

import datetime
import itertools

import msgspec
import pytest

from device.drivers import channel_wechat_v2_bytes as v2
from device.drivers.channel_bytes import Reply
from device.drivers.channel_https import FOLLOWS_MAX, told
from device.drivers.channel_wechat import WechatCodec
from device.txn.effects import ChargeCode, CloseOrder, Intent, QueryOrder, RefundIntent, RefundOrder
from device.txn.inputs import RefundWord, Said
from device.types import Account
from sim.channels.keys import key_pair, platform
from sim.channels.server import LOST
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import FAULTS, OWN_FAULTS, WechatServer

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
SHOP = Account("wechat", "shop", (("appid", "wx0000000000000001"), ("mchid", "1900000001"),
                                  ("notify_url", "https://shop.example/notify")))
TEA = Intent("0000012345000000010Z", "wechat", SHOP, 900, "奶茶 x1", "2026-11-18T10:26:40+08:00",
             "2026-11-18T10:28:25+08:00", "code")
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
        self.codec, self.verdict = WechatCodec(**self.keys), None

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
        return self.said(ChargeCode(TEA, code))


@pytest.fixture(scope="module")
def keys():
    return key_pair("merchant"), platform()


@pytest.fixture
def shop(keys):
    return Shop(*keys)


def test_a_charged_code_is_paid_queried_and_refunded_by_v3(shop):
    paid = shop.charge()
    assert (paid.said, paid.amount_fen, len(paid.channel_no)) == (Said.PAID, 900, 28)
    assert shop.said(QueryOrder(TEA)).said is Said.PAID
    back = RefundIntent("0000012345000000020Z", TEA.order_no, "wechat", SHOP, 300, 900, "退货", TEA.made_at)
    assert shop.said(RefundOrder(back)).word is RefundWord.PROCESSING


def test_a_password_is_asked_for_and_given(shop):
    assert shop.charge("slow").said is Said.OPEN
    assert shop.said(QueryOrder(TEA)).said is Said.OPEN
    shop.now_s += 31
    assert shop.said(QueryOrder(TEA)).said is Said.PAID


def test_a_payer_who_walks_away_is_reversed_after_fifteen_seconds_and_not_before(shop):
    shop.charge("abandon")
    assert shop.said(CloseOrder(TEA)).said is Said.UNKNOWN                 # recall: call again
    shop.now_s += 15
    for _ in range(2):
        undone = shop.said(CloseOrder(TEA))
        assert (undone.said, undone.undo) == (Said.CLOSED, True)
    assert shop.said(QueryOrder(TEA)).said is Said.CLOSED
    assert shop.rules.orders()[0]["state"] == "reversed"


def test_a_reversal_gives_a_paid_order_back(shop):
    shop.charge()
    assert shop.said(CloseOrder(TEA)).said is Said.CLOSED
    row = shop.rules.orders()[0]
    assert (row["state"], row["captured_fen"]) == ("reversed", 0)


def test_a_reversal_after_seven_days_is_refused_for_good(shop):
    shop.charge()
    shop.now_s += 8 * 86_400
    assert shop.said(CloseOrder(TEA)).said is Said.REFUSED


def test_an_order_nobody_charged_is_absent(shop):
    assert shop.said(CloseOrder(TEA)).said is Said.ABSENT


@pytest.mark.parametrize("what", ["insufficient", "old", "used", "made up"])
def test_what_can_never_be_paid_is_refused_in_words(shop, what):
    code = shop.server.code()
    if what == "old":
        shop.now_s += 61
    if what == "used":
        shop.said(ChargeCode(msgspec.structs.replace(TEA, order_no="0000012345000000030Z"), code))
    answer = shop.charge("insufficient" if what == "insufficient" else "pay", "134567890123456789" if what == "made up" else code)
    assert answer.said is Said.REFUSED and answer.detail and code not in answer.detail


def test_the_same_charge_is_the_same_bytes_and_charges_once(shop):
    code = shop.server.code()
    one, two = (shop.codec.request(ChargeCode(TEA, code)) for _ in range(2))
    shop.now_s += 5
    assert one == two == shop.codec.request(ChargeCode(TEA, code))
    shop.said(ChargeCode(TEA, code))
    assert shop.said(ChargeCode(TEA, code)).said is Said.UNKNOWN           # ORDERPAID: ask
    assert [o["captured_fen"] for o in shop.rules.orders()] == [900]


@pytest.mark.parametrize("call", ["micropay", "reverse"])
@pytest.mark.parametrize("kind", sorted(set(FAULTS) - {"slow", "duplicate", "duplicate_reply", *OWN_FAULTS}))
def test_no_fault_becomes_a_definite_word(shop, kind, call):
    if call == "reverse":
        shop.charge("abandon")
        shop.now_s += 20
    shop.server.fault(kind, call=call)
    answer = shop.charge() if call == "micropay" else shop.said(CloseOrder(TEA))
    harmless = call == "reverse" and kind in ("wrong_order", "wrong_amount")          # its reply names neither
    assert answer is None or answer.said is (Said.CLOSED if harmless else Said.UNKNOWN), answer


def test_a_code_stands_in_no_answer_and_no_repr(shop):
    code = shop.server.code()
    for kind in ("lying", "garbage", "wrong_amount"):
        shop.server.fault(kind, call="micropay")
        effect = ChargeCode(msgspec.structs.replace(TEA, order_no=f"{kind:0<20}"[:20].upper()), code)
        assert code not in repr(shop.said(effect)) + repr(effect)


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
