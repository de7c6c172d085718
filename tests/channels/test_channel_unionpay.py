"""Our UnionPay client against the local server: over the real bytes, once over real HTTP; every clock moved by hand."""

from __future__ import annotations

import asyncio
import base64
import datetime
import hashlib
import zlib

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from device.drivers.channels import unionpay_bytes as wire
from device.drivers.channels.codec_bytes import Reply
from device.drivers.channels.https import HttpsChannel, told, unbuildable
from device.drivers.channels.unionpay import UnionpayCodec
from device.drivers.channels.unionpay_bill_bytes import _moment as moment
from device.drivers.channels.unionpay_proof_bytes import UNIONPAY, Signers
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
from device.txn.inputs import ChannelSaid, QrReady, Rang, RefundWord, Said, Scanned
from device.types import Account, Rules, Terms
from sim.channels.keys import key_pair
from sim.channels.server import LOST
from sim.channels.unionpay import UnionpayRules, clearing_day
from sim.channels.unionpay_server import FAULTS, UnionpayServer, authority, certified
from tests.counter import TEA as TEA_BOTTLE
from tests.counter import Counter

START_S = int(datetime.datetime.fromisoformat("2026-11-18T10:26:40+08:00").timestamp())
MERCHANT = "777290058110048"
SHOP = Account("unionpay", "shop", (("file_url", "https://files.example/"), ("mchid", MERCHANT), ("termId", "BOX00001")))
TEA = Intent("0000012345000000010Z", "unionpay", SHOP, 900, "奶茶 x1", "2026-11-18T10:26:40.123+08:00",
             "2026-11-18T10:31:40+08:00")
CODE = msgspec.structs.replace(TEA, way="code", order_no="0000012345000000011Z")
BILL = FetchBill(SHOP, "2026-11-18")


class Shop:
    """One codec and one server on one clock, joined without a line."""

    def __init__(self, merchant, theirs, signer: str = UNIONPAY) -> None:
        self.now_s = START_S
        self.rules = UnionpayRules(lambda: int(self.now_s * 1000), merchant=MERCHANT)
        self.server = UnionpayServer(self.rules, merchant_public_pem=merchant.public_pem, cert_id="68759663125", authority=theirs,
                                     now_s=lambda: self.now_s)
        self.codec = UnionpayCodec(account="shop", private_key_pem=merchant.private_pem, cert_id="68759663125",
                                   trust_pem=theirs.trust_pem, signer=signer, now_s=lambda: self.now_s)
        self.sent, self.verdict = [], None

    def said(self, effect):
        """The answer of `effect` with all that follows, None when the line brought none."""
        try:
            request = self.codec.request(effect)
        except (KeyError, ValueError) as fault:
            return told(effect, unbuildable(effect, fault))
        while True:
            self.sent.append(request)
            path = "/" if "://" in request.path else request.path
            answer = self.server.exchange(request.method, path, request.headers, request.body)
            if answer.kind in LOST:
                return None
            self.verdict = self.codec.read(effect, Reply(answer.status, {}, answer.body))
            if self.verdict.follow is None:
                return told(effect, self.verdict)
            request = self.codec.sealed(effect, self.verdict.follow)

    def paid(self):
        """The paid order's own word; a QR order."""
        qr = self.said(PlaceOrder(TEA))
        assert isinstance(qr, QrReady) and self.server.scan(qr.qr, "pay")["ok"]
        return self.said(QueryOrder(TEA))

    def charge(self, outcome="pay", intent=CODE):
        code = self.server.code()
        self.server.code_outcome(code, outcome)
        return self.said(ChargeCode(intent, code))


def back(shop, fen=300, no="0000012345000000020Z", channel_no=None):
    number = shop.said(QueryOrder(TEA)).channel_no if channel_no is None else channel_no
    return RefundIntent(no, TEA.order_no, "unionpay", SHOP, fen, 900, "退货", "2026-11-18T10:28:00+08:00", number)


@pytest.fixture(scope="module")
def keys():
    return key_pair("merchant"), authority()


@pytest.fixture
def shop(keys):
    return Shop(*keys)


def test_a_sale_from_code_to_refund(shop):
    paid = shop.paid()
    assert (paid.said, paid.amount_fen, len(paid.channel_no), paid.detail) == (Said.PAID, 900, 21, "")
    assert shop.said(QueryRefund(back(shop))).word is RefundWord.ABSENT
    assert shop.said(RefundOrder(back(shop))).word is RefundWord.PROCESSING
    assert shop.said(RefundOrder(back(shop))).word is RefundWord.PROCESSING          # a duplicate asks what became of the first
    shop.now_s += 60
    for effect in (QueryRefund(back(shop)), RefundOrder(back(shop))):
        done = shop.said(effect)
        assert (done.word, done.amount_fen) == (RefundWord.DONE, 300)
    assert shop.said(QueryOrder(TEA)).said is Said.PAID
    (row,) = shop.server.orders()
    assert (row["captured_fen"], row["refunded_fen"], row["state"]) == (900, 300, "part_refunded")


def test_accepted_is_not_paid(shop):
    """00 on a charge says that UnionPay took the request; the query alone tells of money."""
    answer = shop.charge("slow")
    assert (answer.said, answer.amount_fen) == (Said.OPEN, 0)
    assert shop.said(QueryOrder(CODE)).said is Said.UNKNOWN                           # 05: a payer is being asked
    shop.now_s += 31
    assert shop.said(QueryOrder(CODE)).said is Said.PAID


@pytest.mark.parametrize(("outcome", "after_s"), [("insufficient", 0), ("abandon", 61)])
def test_a_charge_that_fails_is_closed(shop, outcome, after_s):
    assert shop.charge(outcome).said is Said.OPEN
    shop.now_s += after_s
    assert shop.said(QueryOrder(CODE)).said is Said.CLOSED
    assert shop.server.orders()[0]["captured_fen"] == 0


def test_a_spoilt_code_is_refused_and_no_other_wallets_code_leaves_the_box(shop):
    code = shop.server.code()
    shop.now_s += 60
    for spoilt in (code, "6212345678901234567"):
        answer = shop.said(ChargeCode(CODE, spoilt))
        assert answer.said is Said.REFUSED and spoilt not in repr(answer)
    shop.sent.clear()
    assert shop.said(ChargeCode(CODE, "not a code")).said is Said.REFUSED
    assert not shop.sent


@pytest.mark.parametrize("intent", [TEA, CODE], ids=["qr", "code"])
def test_an_order_nobody_knows_is_not_given_up_while_it_may_be_on_its_way(shop, intent):
    """34 within the first minute may be said of a payment that was made: neither the query nor the undo lets go of it."""
    for effect in (QueryOrder(intent), CloseOrder(intent)):
        assert shop.said(effect).said is Said.UNKNOWN and shop.verdict.detail
    shop.now_s += 61
    for effect in (QueryOrder(intent), CloseOrder(intent)):
        assert shop.said(effect).said is Said.ABSENT


def test_an_undo_moves_no_money(shop):
    shop.said(PlaceOrder(TEA))
    shop.now_s += 61
    assert shop.said(CloseOrder(TEA)).said is Said.ABSENT                             # let go of, and asked about for a day
    qr = next(iter(shop.rules._qrs))
    shop.server.scan(qr, "insufficient")
    assert shop.said(QueryOrder(TEA)).said is Said.UNKNOWN                            # the payer may try another card
    assert shop.said(CloseOrder(TEA)).said is Said.UNKNOWN
    assert shop.server.scan(qr, "pay")["ok"]
    answer = shop.said(CloseOrder(TEA))
    assert (answer.said, answer.undo) == (Said.PAID, True)
    assert shop.server.orders()[0]["state"] == "paid"
    assert {wire.form_fields(r.body)["txnType"] for r in shop.sent} == {"01", "00"}   # nothing but asking


def test_a_qr_on_which_a_try_failed_is_dead_when_its_own_life_is_over(shop):
    """Its day may be one without trade, whose bill UnionPay never gives: the query's word is then all there ever is."""
    qr = shop.said(PlaceOrder(TEA)).qr
    shop.server.scan(qr, "insufficient")
    shop.now_s += wire.QR_LIFE_S
    assert shop.said(QueryOrder(TEA)).said is Said.UNKNOWN
    shop.now_s += wire.ARRIVAL_S_MAX + 1
    assert shop.said(QueryOrder(TEA)).said is Said.CLOSED


def test_a_retry_is_the_same_bytes_with_the_same_time_and_one_order(shop):
    shop.server.fault("lost_answer", call="create")
    assert shop.said(PlaceOrder(TEA)) is None
    shop.now_s += 40
    again = shop.said(PlaceOrder(TEA))
    assert shop.sent[0] == shop.sent[1]
    fields = wire.form_fields(shop.sent[0].body)
    assert (fields["orderId"], fields["txnTime"], fields["txnAmt"]) == (TEA.order_no, "20261118102640", "900")
    assert (again.said, "(12)" in again.detail) == (Said.UNKNOWN, True)               # its code went with the lost answer
    assert len(shop.server.orders()) == 1


def test_the_same_number_under_another_time_is_a_second_order(shop):
    """The trap that the frozen time avoids: the server keeps UnionPay's rule."""
    shop.said(PlaceOrder(TEA))
    later = msgspec.structs.replace(TEA, made_at="2026-11-18T10:26:41+08:00")
    assert isinstance(shop.said(PlaceOrder(later)), QrReady)
    assert len(shop.server.orders()) == 2


def calls(shop):
    """Every call once, over a paid QR order and a charge that was accepted."""
    shop.paid()
    shop.charge("slow")
    refund, fresh = back(shop), msgspec.structs.replace(TEA, order_no="0000012345000000012Z")
    return {"query": QueryOrder(TEA), "close": CloseOrder(TEA), "refund": RefundOrder(refund), "refund_query": QueryRefund(refund),
            "place": PlaceOrder(fresh), "charge": ChargeCode(msgspec.structs.replace(CODE, order_no=fresh.order_no),
                                                             shop.server.code()), "bill": BILL}


GOOD = {"slow", "duplicate", "duplicate_reply", "rotated", "braces", "bill_missing", "bill_extra", "bill_altered"}
PARTLY = {"lost_request", "unclear", "half_booked", "bill_torn"}


CASES = [(kind, call) for kind in sorted(set(FAULTS) - GOOD - PARTLY)
         for call in ("query", "close", "refund", "refund_query", "place", "charge", "bill")
         if (kind, call) != ("wrong_amount", "bill")]                     # a bill's reply names no amount


@pytest.mark.parametrize(("kind", "call"), CASES)
def test_no_doubtful_reply_decides_anything(shop, kind, call):
    effect = calls(shop)[call]
    shop.now_s += 26 * 3600 if call == "bill" else 0
    shop.server.fault(kind, count=None)
    answer = shop.said(effect)
    if answer is None:
        assert kind in LOST
    elif call == "bill":
        assert not answer.ready and answer.why
    else:
        word = getattr(answer, "said", None) or answer.word
        allowed = {"unknown"} | ({"absent"} if kind == "wrong_amount" and call == "refund_query" else set())   # no amount in it
        assert word in allowed and shop.verdict.health in ("lying", "gone", "slow", "ok")
        assert answer.detail or word == "absent"


@pytest.mark.parametrize(("kind", "health"), [("wrong_order", "lying"), ("wrong_amount", "lying"), ("merchant_signed", "lying"),
                                              ("foreign_root", "lying"), ("expired", "lying"), ("unsigned", "lying"),
                                              ("down", "gone"), ("busy", "slow")])
def test_health_says_what_was_wrong(shop, kind, health):
    shop.paid()
    shop.server.fault(kind)
    assert shop.said(QueryOrder(TEA)).said is Said.UNKNOWN
    assert shop.verdict.health == health and shop.verdict.detail


@pytest.mark.parametrize("kind", ["unclear", "half_booked"])
def test_money_that_is_not_clear_is_neither_paid_nor_refused(shop, kind):
    shop.paid()
    shop.server.fault(kind, call="query", count=2)
    held = 900 if kind == "half_booked" else 0                # what was taken is said, for a person must know
    said = [shop.said(effect) for effect in (QueryOrder(TEA), CloseOrder(TEA))]
    assert [(one.said, one.amount_fen) for one in said] == [(Said.UNKNOWN, held)] * 2
    assert shop.said(QueryOrder(TEA)).said is Said.PAID


@pytest.mark.parametrize("kind", ["rotated", "braces"])
def test_a_new_certificate_and_odd_values_are_no_fault(shop, kind):
    shop.server.fault(kind, count=None)
    assert shop.paid().said is Said.PAID


def test_a_doubled_request_is_one_order_and_one_refund(shop):
    shop.paid()
    refund = back(shop)
    shop.server.fault("duplicate", count=None)
    assert shop.said(RefundOrder(refund)).word is RefundWord.PROCESSING
    assert shop.server.orders()[0]["refunded_fen"] == 300


@pytest.mark.parametrize(("fen", "number"), [(901, None), (300, "0" * 21)])
def test_a_refund_that_cannot_be_is_refused_once_its_own_number_is_known_to_be_nobodys(shop, fen, number):
    shop.paid()
    refund = back(shop, fen, channel_no=number)
    assert shop.said(RefundOrder(refund)).word is RefundWord.UNKNOWN
    shop.now_s += 200
    said = shop.said(RefundOrder(refund))
    assert (said.word, "(3" in said.detail) == (RefundWord.REFUSED, True)
    assert shop.server.orders()[0]["refunded_fen"] == 0


@pytest.mark.parametrize("code", ["45", "36", "35", "31"])
def test_a_refund_that_was_made_is_never_called_refused(shop, code):
    """Its answer was lost, and the repeat is refused because of the first: a second number would give the money back twice."""
    shop.paid()
    refund = back(shop, 900)
    shop.server.fault("lost_answer", call="refund")
    assert shop.said(RefundOrder(refund)) is None
    shop.now_s += 200
    shop.server.refuses_repeats_with = code
    said = shop.said(RefundOrder(refund))
    assert (said.word, said.amount_fen) == (RefundWord.DONE, 900)


def test_a_refund_without_the_payments_number_sends_nothing(shop):
    answer = shop.said(RefundOrder(back(shop, channel_no="")))
    assert (answer.word, "queryId" in answer.detail, shop.sent) == (RefundWord.UNKNOWN, True, [])


def test_a_terminal_that_is_not_named_is_said_in_words(shop):
    account = Account("unionpay", "shop", (("mchid", MERCHANT),))
    answer = shop.said(ChargeCode(msgspec.structs.replace(CODE, account=account), shop.server.code()))
    assert (answer.said, "termId" in answer.detail, "'" in answer.detail) == (Said.REFUSED, True, False)


@pytest.mark.parametrize("more", [{"order_no": "A-B-C-D-E-F"}, {"made_at": "2026-11-18T10:26:40"},
                                  {"account": Account("unionpay", "shop", ())}])
def test_an_order_that_unionpay_cannot_take_sends_nothing(shop, more):
    answer = shop.said(PlaceOrder(msgspec.structs.replace(TEA, **more)))
    assert (answer.said, bool(answer.detail), shop.sent) == (Said.REFUSED, True, [])


def test_the_test_systems_name_must_be_asked_for(keys):
    assert Shop(*keys, signer="00040000:SIGN").said(PlaceOrder(TEA)).said is Said.UNKNOWN


def test_a_wrong_key_or_number_is_refused_in_one_sentence(keys):
    shop = Shop(key_pair("other"), keys[1])
    shop.server._merchant = load_pem_public_key(keys[0].public_pem)
    answer = shop.said(PlaceOrder(TEA))
    assert (answer.said, answer.detail) == (
        Said.REFUSED, "UnionPay does not accept our signature: check key and certificate number (11)")


@pytest.mark.parametrize("old_first", [True, False])
def test_a_middle_certificate_that_was_renewed_stands_beside_the_old_one(keys, old_first):
    """The same key under new dates: a trust file holds both for a while, and the one that is over must not stand in the way."""
    root_key, middle_key, leaf_key = (rsa.generate_private_key(65537, 2048) for _ in range(3))
    root = certified(root_key, "Root", root_key, "Root")
    old, new = (certified(middle_key, "CA", root_key, "Root", years=years) for years in (-6, 0))
    leaf = certified(leaf_key, f"041@8310000000083040@{UNIONPAY}@00016495", middle_key, "CA", ca=False)
    pems = [cert.public_bytes(Encoding.PEM) for cert in ((root, old, new) if old_first else (root, new, old))]
    now_s = leaf.not_valid_before_utc.timestamp() + 86_400
    key = Signers(b"".join(pems), UNIONPAY).key(leaf.public_bytes(Encoding.PEM).decode(), now_s)
    assert key.public_numbers() == leaf_key.public_key().public_numbers()


@pytest.mark.parametrize("trust", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_trust_file_without_a_root_is_refused_at_once(keys, trust):
    with pytest.raises(ValueError, match="certificate"):
        UnionpayCodec(account="shop", private_key_pem=keys[0].private_pem, cert_id="1", trust_pem=trust, now_s=lambda: START_S)


def test_a_middle_certificate_alone_is_no_trust(keys):
    middle = keys[1].trust_pem[keys[1].trust_pem.rindex(b"-----BEGIN"):]
    with pytest.raises(ValueError, match="no root"):
        UnionpayCodec(account="shop", private_key_pem=keys[0].private_pem, cert_id="1", trust_pem=middle, now_s=lambda: START_S)


# Published bytes

PUBLISHED = {"transType": "01", "sysReserved": "{aaa=a&bbb=b}", "merId": "888888888888888", "signMethod": "01",
             "certId": "68759663125", "version": "5.1.0"}
# The test merchant's public key.  It was recovered as the common divisor of two published signatures of one client (of version
# 5.0.0 and 5.1.0), each raised to 65537 less its padded digest: had either text or digest been another, there would be none.
TEST_KEY_N = int(
    "d982913e2458f17d2010cfb85a1ab083eb6fdb69b15affc7039e518a95fa6f9747c2973eeb372c89f178110f0cd7c7eec8025e7100db904aba8511bca1b6b726"
    "31913ac542e95bba5e0e64ed8200ba78b559d3878587715e570dbace59370614bb6447227c98bb80fc20216dfa625b093649bc92ae39839327cac5ea7a8750f4"
    "1b16988270eeb0b2edbe0859cb0faec4d9ddd11055b3fafec0315e3791c7ac6b49b99414394b62a3f7f914efdacc7ea6806da3f8bd02a57fca2d81e7812ff21a"
    "f9a780bd3d5a0bd52a04e038a35a0662809b417f961f3ee27dc1193925b60a17849e43e855d25d1b3cb77f9ecc4fd644a61bb79143a0c92f38529eeba3fbcbe3",
    16)
SIGNATURE = (
    "nCDm51Cju6CG0kvYNKJI0hlMMlPqKn2IftnBFWkeNftrNKxczLB2kAyASv6Tr3PeOauGvgzv9KEpBBkZY1f7nhOuv/WfZVEHt4oWmxcd24TrEZ5dDtQb4tamzUszl0p+"
    "TXDW4tqxzbwjjQ++acYtthLadhG44Cce0Lnno7LWIKDh1Fe6wsMMAEXsJwZX7nIcskeymOTF98FopOt/RFsIHSJ4Z0UuqZ6gEOjPzSbqTgm2SeAMFMmxMToUmY+doQHl"
    "a5GNkI4VJox10LIZBlA8SRTwL6qt3kdHhFyP7mRw2WbjzUA9kuqPtFhC7ucKJ5tFG1YmbnX5upg0Mg9h2UlofQ==")


def test_a_published_signature_holds_over_our_text():
    """python-unionpay's own test, version 5.1.0, signed with UnionPay's public test certificate."""
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256

    text = wire.text_to_sign(PUBLISHED | {"signature": "x", "empty": ""})
    RSAPublicNumbers(65537, TEST_KEY_N).public_key().verify(base64.b64decode(SIGNATURE), wire.digest(text), PKCS1v15(), SHA256())


def test_published_texts_digests_and_file_bytes():
    short = {"transType": "01", "sysReserved": "{aaa=a&bbb=b}", "merId": "888888888888888"}
    assert wire.text_to_sign(short) == b"merId=888888888888888&sysReserved={aaa=a&bbb=b}&transType=01"
    assert wire.form(short) == b"merId=888888888888888&sysReserved=%7Baaa%3Da%26bbb%3Db%7D&transType=01"
    eleven = wire.text_to_sign(PUBLISHED | {"signMethod": "11", "certId": ""})              # the shared key of that test is empty
    assert hashlib.sha256(eleven + b"&" + wire.digest(b"")).hexdigest() == (
        "bda8e705fe9d67022f71e8ca14752abc402368ed142b3bc71837ac9dec99c18e")
    asked = {"bizType": "000000", "encoding": "UTF-8", "merId": MERCHANT, "orderId": "A0000001", "signMethod": "01",
             "txnTime": "20260101120000", "version": "5.1.0"}
    assert wire.digest(wire.text_to_sign(asked)) == b"9c357409034dd308612a38f70df67614f34f675e6ef98a5bb31682feb08867bb"
    assert zlib.decompress(base64.b64decode("eJwrSS0uiU9JLEkEABL5A7o=")) == b"test_data"


@pytest.mark.parametrize(("body", "said"), [
    ("accessType=0&respCode=34&respMsg=查无此交易[2600000]&txnType=00",
     {"accessType": "0", "respCode": "34", "respMsg": "查无此交易[2600000]", "txnType": "00"}),
    ("a=1+1==&b={x=1&y={z=2&w=[3&4]}}&c=/+=", {"a": "1+1==", "b": "{x=1&y={z=2&w=[3&4]}}", "c": "/+="}),
    ("pem=-----BEGIN-----\nAB+/=\n-----END-----\n&e=", {"pem": "-----BEGIN-----\nAB+/=\n-----END-----\n", "e": ""}),
])
def test_replies_are_parted_outside_brackets(body, said):
    assert wire.pairs_of(body.encode()) == said


@pytest.mark.parametrize("body", [b"", b"a", b"=1", b"a=1&a=2", b"a={b&c=1", b"\xff=1", b"<html>", b"{" * 100_000])
def test_a_reply_that_is_no_form_is_refused(body):
    with pytest.raises(ValueError):
        wire.pairs_of(body)


def test_nothing_secret_stands_in_a_word_or_a_repr(shop):
    shop.paid()
    code = shop.server.code()
    effect = ChargeCode(CODE, code)
    assert code not in repr(effect) and code not in repr(shop.said(effect)) and code not in repr(shop.verdict)
    assert "PRIVATE" not in repr(vars(shop.codec))


# The bill

def day_of(shop):
    """A day with a QR paid and partly refunded, and a sale after 23:00; it is noon of the next."""
    shop.paid()
    shop.said(RefundOrder(back(shop)))
    shop.now_s = START_S + 13 * 3600
    late = msgspec.structs.replace(CODE, made_at="2026-11-18T23:26:40+08:00")
    shop.charge(intent=late)
    shop.now_s = START_S + 26 * 3600


def test_the_bill_is_fetched_unpacked_and_read(shop):
    shop.paid()
    assert not shop.said(BILL).ready
    shop.said(RefundOrder(back(shop)))
    shop.now_s += 26 * 3600
    said = shop.said(BILL)
    assert said.ready, said.why
    number = shop.said(QueryOrder(TEA)).channel_no
    assert said.rows[0] == ("paid", TEA.order_no, "", 900, number)
    assert said.rows[1][:4] == ("refund", TEA.order_no, "0000012345000000020Z", 300)
    fields = wire.form_fields(shop.codec.request(BILL).body)
    assert (fields["txnType"], fields["settleDate"], fields["fileType"], "orderId" in fields) == ("76", "1118", "00", False)


def test_the_settlement_day_ends_at_eleven(shop):
    day_of(shop)
    assert [row[1] for row in shop.said(BILL).rows] == [TEA.order_no, TEA.order_no]
    assert clearing_day((START_S + 13 * 3600) * 1000) == "2026-11-19"
    shop.now_s += 24 * 3600
    (row,) = shop.said(FetchBill(SHOP, "2026-11-19")).rows
    assert row[1] == CODE.order_no


@pytest.mark.parametrize("policy", ["ENTER", "CANCEL"])
def test_what_was_paid_after_eleven_at_night_is_found_by_the_real_core(shop, policy):
    """It stands in the next day's file: booked where the goods were given, given back where they were kept."""
    rules = Rules(give_up_ms=63_000, dead_after_ms=86_400_000)             # as the rule table has them: the undo only asks
    counter = Counter(Terms(accounts=(SHOP,), route=("unionpay",), rules=(("unionpay.code", rules),)))
    counter.wall = "2026-11-18T23:30:00+08:00"
    shop.now_s = int(datetime.datetime.fromisoformat(counter.wall).timestamp())
    counter.scan(TEA_BOTTLE)
    counter.press("CODE")
    counter.tell(Scanned(shop.server.code()))
    no = counter.order_no
    (charge,) = (e for e in counter.once if isinstance(e, ChargeCode))
    assert shop.said(charge).said is Said.OPEN                              # and the answer never comes home
    counter.press(f"PARK {policy}")
    counter.mono_ms += 63_000
    counter.tell(Rang(("order", no)))
    counter.mono_ms += 90_000_000
    counter.tell(Rang(("overdue", no)))
    shop.now_s += 35 * 3600
    while bills := [e for e in counter.running if isinstance(e, FetchBill)]:
        counter.tell(*map(shop.said, bills))
        assert {e.day for e in bills} == {"2026-11-18", "2026-11-19", "2026-11-20"}
    if policy == "ENTER":
        assert [t.channel_no for t in counter.box.books.sales[no].tenders] == [shop.said(QueryOrder(charge.intent)).channel_no]
    else:
        (refund,) = counter.box.books.refunds.values()
        assert shop.said(RefundOrder(refund.intent)).word is RefundWord.PROCESSING


def test_a_refund_of_an_earlier_day_names_its_sale(shop):
    """The file of the refund's day does not list the sale; its own column does, and an undecided order is not paid twice over."""
    shop.paid()
    shop.now_s += 24 * 3600
    shop.said(RefundOrder(msgspec.structs.replace(back(shop, 900), made_at="2026-11-19T10:28:00+08:00")))
    shop.now_s += 26 * 3600
    (row,) = shop.said(FetchBill(SHOP, "2026-11-19")).rows
    assert row[:4] == ("refund", TEA.order_no, "0000012345000000020Z", 900)


@pytest.mark.parametrize(("day", "text", "at"), [
    ("2027-01-01", "1231230500", "2026-12-31T23:05:00+08:00"), ("2026-12-31", "0101000500", "2027-01-01T00:05:00+08:00"),
    ("2026-12-31", "1231100000", "2026-12-31T10:00:00+08:00"), ("2027-01-01", "0101100000", "2027-01-01T10:00:00+08:00")])
def test_a_time_without_a_year_lies_beside_its_settlement_day(day, text, at):
    assert moment(1, text, day) == at


def test_an_empty_day_and_one_not_ready_sound_alike_and_are_both_unknown(shop):
    for day in ("2026-11-17", "2026-11-18"):
        said = shop.said(FetchBill(SHOP, day))
        assert (said.ready, "empty" in said.why) == (False, True)


@pytest.mark.parametrize(("kind", "sums"), [("bill_missing", [900]), ("bill_extra", [900, 300, 900]), ("bill_altered", [901, 300])])
def test_a_bill_that_was_touched_is_read_as_it_is_for_the_books_to_find(shop, kind, sums):
    day_of(shop)
    shop.server.fault(kind, call="bill")
    assert [row[3] for row in shop.said(BILL).rows] == sums


def test_a_torn_bill_is_no_bill(shop):
    day_of(shop)
    shop.server.fault("bill_torn", call="bill")
    said = shop.said(BILL)
    assert not said.ready and "cannot be" in said.why and shop.verdict.health == "lying"


# Over a real line

def test_a_sale_and_a_bill_over_http(shop):
    url = shop.server.start()
    account = Account("unionpay", "shop", (("file_url", f"{url}/"), *SHOP.fields[1:]))
    tea = msgspec.structs.replace(TEA, account=account)

    async def run():
        channel = HttpsChannel(shop.codec, base_url=url)
        try:
            qr = await channel.do(PlaceOrder(tea))
            shop.server.scan(qr.qr, "pay")
            paid = await channel.do(QueryOrder(tea))
            shop.now_s += 26 * 3600
            return paid, await channel.do(FetchBill(account, "2026-11-18"))
        finally:
            await channel.close()
    try:
        paid, bill = asyncio.run(run())
    finally:
        shop.server.stop()
    assert isinstance(paid, ChannelSaid) and paid.said is Said.PAID
    assert bill.ready and bill.rows == (("paid", TEA.order_no, "", 900, paid.channel_no),)
