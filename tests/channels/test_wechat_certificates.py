"""WeChat's own keys: certificates fetched, kept and rotated, the public key, and both at once; every clock moved by hand."""

from __future__ import annotations

import asyncio
import datetime

import msgspec
import pytest

from device.drivers.channels.https import HttpsChannel
from device.drivers.channels.wechat import WechatCodec
from device.drivers.channels.wechat_proof_bytes import certificate_signer
from device.drivers.private_file import PlainFile
from device.txn.effects import ChargeCode, CloseOrder, FetchBill, PlaceOrder, QueryOrder
from device.txn.inputs import QrReady, Said
from sim.channels.keys import key_pair, platform
from tests.channels.test_wechat_codes import SHOP, TEA, Shop

SPRING = datetime.datetime.fromisoformat("2026-03-01T00:00:00+08:00")
API_V3_KEY = "0123456789abcdef0123456789abcdef"
QR = msgspec.structs.replace(TEA, way="qr")


class Keys:
    """The merchant's pair, WeChat's, the certificate it signs with next, and one whose five years are over."""

    def __init__(self) -> None:
        self.merchant, self.theirs = key_pair("merchant"), platform(begun=SPRING)
        self.next = key_pair("next", begun=SPRING + datetime.timedelta(days=200))
        self.ended = key_pair("ended", begun=SPRING - datetime.timedelta(days=6 * 365))


@pytest.fixture(scope="module")
def keys():
    return Keys()


@pytest.fixture
def shop(keys, tmp_path):
    return fetching(keys, PlainFile(tmp_path / "certificates"))


def fetching(keys, file=None, **more) -> Shop:
    """A merchant that holds none of WeChat's keys, but the key that opens its certificates."""
    made = Shop(keys.merchant, keys.theirs, **({"platform_keys": {}, "api_v3_key": API_V3_KEY, "certificates_file": file} | more))
    made.server.certificates = True
    return made


def calls(shop) -> list[str]:
    """What the server was asked since the last look."""
    seen = [seen.call for seen in shop.server.seen]
    shop.server.seen.clear()
    return seen


def rebooted(shop) -> None:
    shop.codec = WechatCodec(**shop.keys)


def test_the_first_reply_waits_for_the_certificates_that_prove_it(shop):
    assert isinstance(shop.said(PlaceOrder(QR)), QrReady)
    assert shop.said(QueryOrder(QR)).said is Said.OPEN
    assert calls(shop) == ["create", "certificates", "query"]


def test_a_start_without_a_list_goes_by_the_kept_one(shop):
    shop.said(QueryOrder(QR))
    calls(shop)
    rebooted(shop)
    shop.server.fault("down", call="certificates", count=None)
    assert shop.said(QueryOrder(QR)).said is Said.ABSENT and shop.verdict.health == "ok"
    assert isinstance(shop.said(PlaceOrder(QR)), QrReady)
    assert calls(shop) == ["query", "create"]


def test_a_rotation_in_the_middle_of_the_day_costs_one_question(shop, keys):
    shop.rules.scan(shop.said(PlaceOrder(QR)).qr, "pay")
    calls(shop)
    shop.now_s += 3600
    old = shop.server.listed[0]
    shop.server.listed = [old, keys.next]                    # both are listed, and the new one signs from now on
    assert [shop.said(QueryOrder(QR)).said for _ in range(3)] == [Said.PAID] * 3
    assert calls(shop) == ["query", "certificates", "query", "query"]
    shop.server.listed = [keys.next, old]                    # a part of WeChat that has not changed yet
    assert shop.said(QueryOrder(QR)).said is Said.PAID
    rebooted(shop)
    assert shop.said(QueryOrder(QR)).said is Said.PAID and calls(shop) == ["query"] * 2


def test_a_certificate_that_wechat_withdrew_is_believed_no_more(shop, keys):
    shop.said(PlaceOrder(QR))
    shop.now_s += 3600
    old = shop.server.listed[0]
    shop.server.listed = [keys.next]
    assert shop.said(QueryOrder(QR)).said is Said.OPEN
    shop.server.listed = [old]                               # and whoever has its key signs on
    shop.server.fault("down", call="certificates", count=None)
    assert shop.said(QueryOrder(QR)).said is Said.UNKNOWN and "do not hold" in shop.verdict.detail


def test_an_unknown_certificate_is_asked_after_every_ten_minutes_at_most(shop):
    shop.said(PlaceOrder(QR))
    calls(shop)
    shop.now_s += 3600
    shop.server.fault("unknown_certificate", call="query", count=None)
    for _ in range(300):
        assert shop.said(QueryOrder(QR)).said is Said.UNKNOWN
        shop.now_s += 6
    assert calls(shop).count("certificates") == 3
    shop.now_s -= 3600                                       # a clock that was put right forbids nothing
    shop.said(QueryOrder(QR))
    assert calls(shop) == ["query", "certificates"]


UNPROVEN = ["lying", "signtest", "unsigned", "clock_off", "unknown_certificate", "garbage", "page", "system_error", "busy", "down",
            "redirect", "lost_answer", "lost_request", "truncated"]


@pytest.mark.parametrize("kind", UNPROVEN)
def test_a_list_that_is_not_proven_proves_nothing(shop, kind):
    shop.server.fault(kind, call="certificates")
    answer = shop.said(PlaceOrder(QR))
    assert answer is None or (answer.said is Said.UNKNOWN and answer.detail)
    answer = shop.said(PlaceOrder(QR))                       # not asked again at once
    assert answer.said is Said.UNKNOWN and len(calls(shop)) == 3 - (kind == "lost_request")
    shop.now_s += 20
    assert isinstance(shop.said(PlaceOrder(QR)), QrReady)


@pytest.mark.parametrize("kind", ["signtest", "unsigned", "clock_off", "lying"])
def test_only_an_unknown_serial_makes_us_ask(shop, kind):
    shop.said(QueryOrder(QR))
    calls(shop)
    shop.server.fault(kind)
    assert shop.said(PlaceOrder(QR)).said is Said.UNKNOWN
    assert calls(shop) == ["create"]


def test_a_list_that_another_key_sealed_does_not_open(keys, tmp_path):
    shop = fetching(keys, PlainFile(tmp_path / "certificates"), api_v3_key="another" + "x" * 25)
    answer = shop.said(PlaceOrder(QR))
    assert answer.said is Said.UNKNOWN and "check the APIv3 key" in answer.detail and "xxx" not in answer.detail
    assert not (tmp_path / "certificates").exists()


@pytest.mark.parametrize("spoil", [lambda kept: b"", lambda kept: kept[:-9], lambda kept: b"\xff" + kept,
                                   lambda kept: kept.replace(b'"ciphertext":"', b'"ciphertext":"AA')])
def test_a_kept_list_that_was_touched_is_none(shop, tmp_path, spoil):
    """Whoever can write the card and does not hold the APIv3 key plants no certificate."""
    shop.said(QueryOrder(QR))
    file = tmp_path / "certificates"
    assert API_V3_KEY.encode() not in file.read_bytes() and b"BEGIN" not in file.read_bytes()
    file.write_bytes(spoil(file.read_bytes()))
    calls(shop)
    rebooted(shop)
    assert shop.said(QueryOrder(QR)).said is Said.ABSENT and calls(shop) == ["query", "certificates"]


def test_a_card_that_takes_no_list_costs_only_the_next_start_a_question(keys, tmp_path):
    shop = fetching(keys, PlainFile(tmp_path / "no folder" / "certificates"))
    assert isinstance(shop.said(PlaceOrder(QR)), QrReady)


def test_a_certificate_is_believed_within_its_days_only(shop, keys):
    shop.server.listed = [shop.server.listed[0], keys.ended]
    answer = shop.said(PlaceOrder(QR))
    assert (answer.said, "not valid today" in answer.detail) == (Said.UNKNOWN, True)
    shop.server.listed.pop()
    shop.now_s += 20
    assert isinstance(shop.said(PlaceOrder(QR)), QrReady)
    shop.now_s += 5 * 365 * 86_400                           # and nobody lists a newer one
    answer = shop.said(QueryOrder(QR))
    assert (answer.said, "not valid today" in answer.detail) == (Said.UNKNOWN, True)


@pytest.mark.parametrize("empty", [True, False])
def test_a_merchant_without_certificates_is_told_to_bring_the_public_key(keys, empty):
    shop = fetching(keys, platform_keys={keys.theirs.key_id: keys.theirs.public.public_pem})
    shop.server.certificates, shop.server.listed = empty, []
    assert shop.said(QueryOrder(QR)).said is Said.ABSENT
    shop.server.fault("unknown_certificate", call="query", count=None)
    for _ in range(3):
        answer = shop.said(QueryOrder(QR))
        assert answer.said is Said.UNKNOWN
        shop.now_s += 30
    assert calls(shop).count("certificates") == 1
    shop.now_s += 600
    assert "bring its public key" in shop.said(QueryOrder(QR)).detail


def test_an_unknown_public_key_is_in_no_list(keys):
    shop = fetching(keys)
    shop.server.fault("unknown_serial", count=None)
    assert shop.said(QueryOrder(QR)).said is Said.UNKNOWN
    assert calls(shop) == ["query"]


def test_a_merchant_on_its_way_to_the_public_key_gets_replies_under_both(keys):
    shop = fetching(keys, platform_keys={keys.theirs.key_id: keys.theirs.public.public_pem})
    shop.server.by_certificate = True
    shop.rules.scan(shop.said(PlaceOrder(QR)).qr, "pay")
    assert [shop.said(QueryOrder(QR)).said for _ in range(6)] == [Said.PAID] * 6
    assert calls(shop).count("certificates") == 1
    shop.server.certificates = False                         # it has arrived
    assert shop.said(QueryOrder(QR)).said is Said.PAID


def test_a_bill_behind_a_rotation_is_read_in_one_question(shop):
    shop.rules.scan(shop.said(PlaceOrder(QR)).qr, "pay")
    shop.now_s += 26 * 3600
    rebooted(shop)
    shop.codec = WechatCodec(**(shop.keys | {"certificates_file": None}))
    calls(shop)
    assert [row[1] for row in shop.said(FetchBill(SHOP, "2026-11-18")).rows] == [QR.order_no]
    assert calls(shop) == ["bill", "certificates", "bill_file"]


def test_a_reversal_is_asked_after_and_proven_behind_a_rotation(shop):
    """Four calls of one undo: the reversal by v2, the question whether it moved money, the list that proves its answer."""
    assert shop.said(ChargeCode(TEA, shop.server.code())).said is Said.PAID
    assert shop.said(CloseOrder(TEA)).said is Said.GIVEN_BACK
    assert calls(shop) == ["micropay", "reverse", "query", "certificates"]


def test_a_certificate_may_also_be_brought_as_a_file(keys):
    theirs = keys.theirs.certificate
    shop = Shop(keys.merchant, keys.theirs, platform_keys={theirs.serial_no: theirs.certificate_pem})
    shop.server.certificates = True
    assert shop.said(QueryOrder(QR)).said is Said.ABSENT
    shop.now_s += 5 * 365 * 86_400
    assert "not valid today" in shop.said(QueryOrder(QR)).detail
    with pytest.raises(ValueError, match="serial is"):
        certificate_signer("AB", theirs.certificate_pem)


@pytest.mark.parametrize("key", ["short", "x" * 33, "钥" * 32])
def test_an_apiv3_key_of_the_wrong_form_is_refused_at_once_and_not_repeated(keys, key):
    with pytest.raises(ValueError, match="32 characters") as refused:
        fetching(keys, api_v3_key=key)
    assert key not in str(refused.value)


def test_over_a_line_a_place_asks_twice_and_shows_a_code(shop):
    url = shop.server.start()

    async def run():
        channel = HttpsChannel(shop.codec, base_url=url)
        try:
            return await channel.do(PlaceOrder(QR))
        finally:
            await channel.close()
    try:
        assert isinstance(asyncio.run(run()), QrReady)
    finally:
        shop.server.stop()
    assert calls(shop) == ["create", "certificates"]
