"""The local Alipay server against a client that others wrote, python-alipay-sdk, in each of its modes; and the box's calls against
OpenSSL's own program, which shares no code with either.
"""

from __future__ import annotations

import base64
import datetime
import io
import shutil
import subprocess
import urllib.request
import zipfile
from urllib.parse import parse_qsl, quote_plus, urlsplit

import pytest

from device.drivers.channels.alipay import AlipayCodec
from device.drivers.channels.alipay_bytes import opened
from device.drivers.channels.alipay_proof_bytes import AlipayKeys
from device.drivers.channels.codec_bytes import Reply
from device.txn.effects import ChargeCode, Intent, PlaceOrder
from device.types import Account
from sim.channels.alipay import AlipayRules
from sim.channels.alipay_keys import authority
from sim.channels.alipay_server import AlipayServer
from sim.channels.keys import key_pair

sdk = pytest.importorskip("alipay")
pytestmark = pytest.mark.filterwarnings("ignore:X509.get_issuer is deprecated")       # theirs
START_S = int(datetime.datetime(2026, 11, 18, 2, 26, 40, tzinfo=datetime.UTC).timestamp())
APP_ID = "2021000000000001"


@pytest.fixture(scope="module")
def keys():
    app = key_pair("app")
    return app, key_pair("alipay"), authority(app.public_pem)


class Counter:
    """A server on a clock moved by hand, and their client pointed at it."""

    def __init__(self, keys, mode: str) -> None:
        app, platform, theirs = keys
        self.now_s = START_S
        self.rules = AlipayRules(lambda: self.now_s * 1000)
        self.server = AlipayServer(self.rules, app_public_pem=app.public_pem, platform=platform, now_s=lambda: self.now_s,
                                   authority=theirs if mode == "cert" else None,
                                   app_auth_token="201708BBtoken" if mode == "partner" else "")
        ours = {"appid": APP_ID, "app_private_key_string": app.private_pem.decode()}
        public = {"alipay_public_key_string": platform.public_pem.decode()}
        if mode == "cert":
            self.client = sdk.DCAliPay(
                **ours, app_public_key_cert_string=theirs.app_cert_pem.decode(),
                alipay_public_key_cert_string=theirs.alipay.pem.decode(), alipay_root_cert_string=theirs.root_pem.decode())
        elif mode == "partner":
            self.client = sdk.ISVAliPay(**ours, **public, app_auth_token="201708BBtoken")
        else:
            self.client = sdk.AliPay(**ours, **public)

    def __enter__(self):
        self.client._gateway = self.server.start() + "/gateway.do"
        return self

    def __exit__(self, *_):
        self.server.stop()


@pytest.fixture(params=["key", "cert", "partner"])
def counter(request, keys):
    with Counter(keys, request.param) as made:
        yield made


@pytest.fixture
def plain(keys):
    with Counter(keys, "key") as made:
        yield made


def test_their_client_sells_by_qr_refunds_and_finds_the_bill(counter):
    shop = counter.client
    made = shop.api_alipay_trade_precreate("奶茶", "B01T0001", "9.00", product_code="FACE_TO_FACE_PAYMENT", timeout_express="5m")
    assert (made["code"], made["out_trade_no"]) == ("10000", "B01T0001")
    unseen = shop.api_alipay_trade_query(out_trade_no="B01T0001")
    assert (unseen["code"], unseen["sub_code"], unseen["buyer_pay_amount"]) == ("40004", "ACQ.TRADE_NOT_EXIST", "0.00")
    assert counter.server.scan(made["qr_code"], "pay")["ok"]
    paid = shop.api_alipay_trade_query(out_trade_no="B01T0001")
    assert (paid["trade_status"], paid["total_amount"]) == ("TRADE_SUCCESS", "9.00")
    assert shop.api_alipay_trade_query(trade_no=paid["trade_no"])["out_trade_no"] == "B01T0001"
    assert shop.api_alipay_trade_close(out_trade_no="B01T0001")["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    for moved in ("Y", "N"):
        back = shop.api_alipay_trade_refund("3.00", out_trade_no="B01T0001", out_request_no="R0001")
        assert (back["fund_change"], back["refund_fee"]) == (moved, "3.00")
    counter.now_s += 10
    told = shop.api_alipay_trade_fastpay_refund_query("R0001", out_trade_no="B01T0001")
    assert (told["refund_status"], told["refund_amount"]) == ("REFUND_SUCCESS", "3.00")
    counter.now_s += 26 * 3600
    bill = shop.server_api("alipay.data.dataservice.bill.downloadurl.query", {"bill_type": "trade", "bill_date": "2026-11-18"})
    with urllib.request.urlopen(bill["bill_download_url"], timeout=5) as reply:
        packed = zipfile.ZipFile(io.BytesIO(reply.read()))
    names = [info.filename.encode("cp437").decode("gbk") for info in packed.infolist()]
    assert names == ["20880000000000150156_20261118_业务明细.csv", "20880000000000150156_20261118_业务明细(汇总).csv"]
    text = packed.read(packed.infolist()[0]).decode("gb18030")
    assert "#交易合计：1笔，商家实收共9.00元" in text and "#退款合计：1笔，商家实收退款共-3.00元" in text
    assert counter.server.orders() == [{"channel": "alipay", "order_no": "B01T0001", "amount_fen": 900, "captured_fen": 900,
                                        "refunded_fen": 300, "state": "part_refunded"}]


def test_their_client_charges_codes_and_cancels_them(counter):
    shop = counter.client
    code = counter.server.code()
    paid = shop.api_alipay_trade_pay("B01T0001", "bar_code", code, "奶茶", total_amount="9.00")
    assert (paid["code"], paid["total_amount"]) == ("10000", "9.00")
    assert shop.api_alipay_trade_pay("B01T0002", "bar_code", code, "奶茶", total_amount="9.00")["sub_code"] == (
        "ACQ.PAYMENT_AUTH_CODE_INVALID")
    cancelled = shop.api_alipay_trade_cancel(out_trade_no="B01T0001")
    assert (cancelled["action"], cancelled["retry_flag"]) == ("refund", "N")
    slow = counter.server.code()
    counter.server.code_outcome(slow, "slow")
    assert shop.api_alipay_trade_pay("B01T0003", "bar_code", slow, "奶茶", total_amount="9.00")["code"] == "10003"
    assert shop.api_alipay_trade_cancel(out_trade_no="B01T0003")["action"] == "close"
    assert "action" not in shop.api_alipay_trade_cancel(out_trade_no="B01T0404")
    assert [row["state"] for row in counter.server.orders()] == ["reversed", "closed"]


def test_their_client_rejects_our_liar_and_our_unsigned_answer(plain):
    plain.server.fault("lying")
    with pytest.raises(sdk.exceptions.AliPayValidationError):
        plain.client.api_alipay_trade_query(out_trade_no="B01T0001")
    plain.client._appid = "2021000000000009"
    with pytest.raises(sdk.exceptions.AliPayException, match="invalid-app-id"):
        plain.client.api_alipay_trade_query(out_trade_no="B01T0001")


def test_a_wrong_key_is_refused_and_an_old_time_where_somebody_looks(keys, plain):
    stranger = sdk.AliPay(appid=APP_ID, app_private_key_string=key_pair("other").private_pem.decode(),
                          alipay_public_key_string=keys[1].public_pem.decode())
    stranger._gateway = plain.client._gateway
    with pytest.raises(sdk.exceptions.AliPayException, match="invalid-signature"):
        stranger.api_alipay_trade_query(out_trade_no="B01T0001")
    plain.server.window_s = 600                                      # their clock is the machine's, ours stands in 2026
    with pytest.raises(sdk.exceptions.AliPayException, match="invalid-timestamp"):
        plain.client.api_alipay_trade_query(out_trade_no="B01T0001")


def test_their_numbers_of_our_certificates_are_ours(keys):
    app, _, theirs = keys
    own = AlipayKeys(app.private_pem, theirs.installed).own
    assert own == {"app_cert_sn": sdk.DCAliPay.get_cert_sn(theirs.app_cert_pem),
                   "alipay_root_cert_sn": sdk.DCAliPay.get_root_cert_sn(theirs.root_pem.decode())}


# The box's own bytes

SHOP = Account("alipay", "shop", (("appid", APP_ID),))
TEA = Intent("0000012345000000010Z", "alipay", SHOP, 900, "奶茶+1", "2026-11-18T10:26:40+08:00", "2026-11-18T10:32:40+08:00")


def openssl(room, *words: str, fed: bytes) -> bytes:
    done = subprocess.run(["openssl", *words], input=fed, capture_output=True, cwd=room, timeout=20)
    if done.returncode:
        raise AssertionError(done.stderr.decode() + done.stdout.decode())
    return done.stdout


def codec_of(keys) -> AlipayCodec:
    app, platform, _ = keys
    return AlipayCodec(account="shop", keys=AlipayKeys(app.private_pem, platform.public_pem), now_s=lambda: START_S)


@pytest.mark.parametrize("effect", [PlaceOrder(TEA), ChargeCode(TEA, "281234567890123456")])
def test_their_client_signs_what_the_box_signs(keys, plain, effect):
    """The same parameters, the same signature: RSA's is deterministic."""
    request = codec_of(keys).request(effect)
    fields = dict(parse_qsl(urlsplit(request.path).query) + parse_qsl(request.body.decode()))
    signature = fields.pop("sign")
    assert plain.client.sign_data(dict(fields)).endswith(f"&sign={quote_plus(signature)}")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_proves_both_sides(keys, plain, tmp_path):
    app, platform, _ = keys
    (tmp_path / "app.pub").write_bytes(app.public_pem)
    (tmp_path / "alipay.pub").write_bytes(platform.public_pem)
    request = codec_of(keys).request(PlaceOrder(TEA))
    fields = dict(parse_qsl(urlsplit(request.path).query) + parse_qsl(request.body.decode()))
    (tmp_path / "ours.sig").write_bytes(base64.b64decode(fields.pop("sign")))
    text = "&".join(f"{k}={fields[k]}" for k in sorted(fields)).encode()
    verify = ("dgst", "-sha256", "-verify", "app.pub", "-signature", "ours.sig")
    assert openssl(tmp_path, *verify, fed=text) == b"Verified OK\n"
    with pytest.raises(AssertionError, match="erif"):
        openssl(tmp_path, *verify, fed=text.replace(b"9.00", b"0.90"))
    plain.server.fault("braces", count=None)
    sent = urllib.request.Request(plain.server.url + request.path, request.body, request.headers)
    with urllib.request.urlopen(sent, timeout=5) as reply:
        envelope = opened(Reply(200, {}, reply.read()), "alipay.trade.precreate")
    (tmp_path / "theirs.sig").write_bytes(base64.b64decode(envelope.sign))
    checked = openssl(tmp_path, "dgst", "-sha256", "-verify", "alipay.pub", "-signature", "theirs.sig", fed=envelope.inner)
    assert checked == b"Verified OK\n" and b"\\/" in envelope.inner and b"} b {" in envelope.inner


def test_an_absolute_request_line_is_taken_as_their_official_client_sends_it(keys, plain):
    """The official Python SDK writes `POST http://host/path HTTP/1.1`."""
    import http.client

    request = codec_of(keys).request(PlaceOrder(TEA))
    line = http.client.HTTPConnection("127.0.0.1", urlsplit(plain.server.url).port, timeout=5)
    line.request("POST", plain.server.url + request.path, request.body, request.headers)
    assert b'"code":"10000"' in line.getresponse().read()
    line.close()
