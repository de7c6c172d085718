"""The local UnionPay server against a client that shares no code with it or with the box: OpenSSL's own program signs and checks.

There is no maintained client to install.  So this one writes its forms by hand and takes every proof from `openssl dgst` and
`openssl verify`; the box's own requests are checked by the same program.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import io
import re
import shutil
import subprocess
import urllib.request
import zipfile
import zlib
from urllib.parse import quote

import pytest

from device.drivers.channels.unionpay import UnionpayCodec
from device.txn.effects import Intent, PlaceOrder
from device.types import Account
from sim.channels.keys import key_pair
from sim.channels.unionpay import UnionpayRules
from sim.channels.unionpay_server import UnionpayServer, authority

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
START_S = int(datetime.datetime(2026, 11, 18, 2, 26, 40, tzinfo=datetime.UTC).timestamp())
MERCHANT, CERT_ID = "777290058110048", "68759663125"


@pytest.fixture(scope="module")
def keys():
    return key_pair("merchant"), authority()


class Client:
    """Asks by hand; a reply counts when openssl says that chain and signature hold."""

    def __init__(self, keys, room) -> None:
        self.merchant, self.theirs = keys
        self.now_s, self.room = START_S, room
        self.rules = UnionpayRules(lambda: self.now_s * 1000, merchant=MERCHANT)
        self.server = UnionpayServer(self.rules, merchant_public_pem=self.merchant.public_pem, cert_id=CERT_ID,
                                     authority=self.theirs, now_s=lambda: self.now_s)
        (room / "key.pem").write_bytes(self.merchant.private_pem)
        (room / "key.pub").write_bytes(self.merchant.public_pem)
        root, middle = re.findall(rb"-----BEGIN.*?-----END CERTIFICATE-----\n", self.theirs.trust_pem, re.DOTALL)
        (room / "root.pem").write_bytes(root)
        (room / "middle.pem").write_bytes(middle)

    def openssl(self, *words: str, fed: bytes = b"") -> bytes:
        done = subprocess.run(["openssl", *words], input=fed, capture_output=True, cwd=self.room, timeout=20)
        if done.returncode:
            raise AssertionError(done.stderr.decode() + done.stdout.decode())
        return done.stdout

    def ask(self, path: str, **fields: str) -> dict[str, str]:
        fields |= {"version": "5.1.0", "encoding": "UTF-8", "signMethod": "01", "bizType": "000000", "channelType": "08",
                   "accessType": "0", "merId": MERCHANT, "certId": CERT_ID}
        signature = self.openssl("dgst", "-sha256", "-sign", "key.pem", fed=hexed(joined(fields)))
        fields["signature"] = base64.b64encode(signature).decode()
        body = "&".join(f"{k}={quote(v, safe='')}" for k, v in fields.items()).encode()
        with urllib.request.urlopen(urllib.request.Request(self.server.url + path, body), timeout=10) as reply:
            return self.checked(reply.read().decode())

    def checked(self, text: str) -> dict[str, str]:
        said = dict(pair.split("=", 1) for pair in re.split(r"&(?=[A-Za-z]+=)", text))
        (self.room / "leaf.pem").write_text(said["signPubKeyCert"])
        self.openssl("verify", "-CAfile", "root.pem", "-untrusted", "middle.pem", "leaf.pem")
        subject = self.openssl("x509", "-in", "leaf.pem", "-noout", "-subject", "-nameopt", "utf8,-esc_msb").decode()
        assert subject.split("@")[2] == "中国银联股份有限公司"
        (self.room / "leaf.pub").write_bytes(self.openssl("x509", "-in", "leaf.pem", "-noout", "-pubkey"))
        (self.room / "reply.sig").write_bytes(base64.b64decode(said.pop("signature")))
        self.openssl("dgst", "-sha256", "-verify", "leaf.pub", "-signature", "reply.sig", fed=hexed(joined(said)))
        return said


def joined(fields: dict[str, str]) -> str:
    return "&".join(f"{k}={fields[k]}" for k in sorted(fields))


def hexed(text: str) -> bytes:
    return hashlib.sha256(text.encode()).hexdigest().encode()


@pytest.fixture
def client(keys, tmp_path):
    made = Client(keys, tmp_path)
    made.server.start()
    yield made
    made.server.stop()


PAY, QUERY = "/gateway/api/backTransReq.do", "/gateway/api/queryTrans.do"
ORDER = {"orderId": "A000000000000001", "txnTime": "20261118102640"}


def test_an_openssl_client_sells_refunds_and_reads_the_bill(client):
    made = client.ask(PAY, txnType="01", txnSubType="07", txnAmt="900", currencyCode="156", backUrl="http://www.specialUrl.com",
                      **ORDER)
    assert made["respCode"] == "00"
    assert client.server.scan(made["qrCode"], "pay")["ok"]
    paid = client.ask(QUERY, txnType="00", txnSubType="00", **ORDER)
    assert (paid["respCode"], paid["origRespCode"], paid["txnAmt"]) == ("00", "00", "900")
    back = client.ask(PAY, txnType="04", txnSubType="00", txnAmt="300", origQryId=paid["queryId"], orderId="R000000000000001",
                      txnTime="20261118103000", backUrl="http://www.specialUrl.com")
    assert back["respCode"] == "00"
    client.now_s += 26 * 3600
    file = client.ask("/", txnType="76", txnSubType="01", settleDate="1118", fileType="00", txnTime="20261119122640")
    archive = zipfile.ZipFile(io.BytesIO(zlib.decompress(base64.b64decode(file["fileContent"]))))
    table = archive.read(f"INN26111888ZM_{MERCHANT}").splitlines()
    assert [(line[112:144].decode().strip(), int(line[66:78]), len(line)) for line in table] == [
        (ORDER["orderId"], 900, 608), ("R000000000000001", 300, 608)]


def test_a_void_is_whole_and_of_the_same_settlement_day(client):
    made = client.ask(PAY, txnType="01", txnSubType="07", txnAmt="900", currencyCode="156", backUrl="http://a.example", **ORDER)
    client.server.scan(made["qrCode"], "pay")
    number = client.ask(QUERY, txnType="00", txnSubType="00", **ORDER)["queryId"]

    def void(no: str, fen: str) -> str:
        return client.ask(PAY, txnType="31", txnSubType="00", txnAmt=fen, origQryId=number, orderId=no, txnTime="20261118103000",
                          backUrl="http://a.example")["respCode"]
    assert void("V000000000000001", "899") == "36"
    client.now_s += 13 * 3600                                    # 23:26 is the next settlement day
    assert void("V000000000000002", "900") == "36"
    client.now_s -= 13 * 3600
    assert void("V000000000000003", "900") == "00"
    assert client.server.orders()[0]["state"] == "reversed"
    assert client.ask(PAY, txnType="99", txnSubType="01", **ORDER)["respCode"] == "32"


def test_openssl_refuses_our_liar_and_a_foreign_root(client):
    for kind, why in (("lying", "erif"), ("foreign_root", "erif")):
        client.server.fault(kind)
        with pytest.raises(AssertionError, match=why):
            client.ask(QUERY, txnType="00", txnSubType="00", **ORDER)


def test_openssl_verifies_what_the_box_signs(client):
    codec = UnionpayCodec(account="shop", private_key_pem=client.merchant.private_pem, cert_id=CERT_ID,
                          trust_pem=client.theirs.trust_pem, now_s=lambda: START_S)
    intent = Intent("0000012345000000010Z", "unionpay", Account("unionpay", "shop", (("mchid", MERCHANT),)), 900, "奶茶",
                    "2026-11-18T10:26:40+08:00", "2026-11-18T10:31:40+08:00")
    from urllib.parse import parse_qsl
    fields = dict(parse_qsl(codec.request(PlaceOrder(intent)).body.decode()))
    (client.room / "ours.sig").write_bytes(base64.b64decode(fields.pop("signature")))
    said = client.openssl("dgst", "-sha256", "-verify", "key.pub", "-signature", "ours.sig", fed=hexed(joined(fields)))
    assert said == b"Verified OK\n"
    fields["txnAmt"] = "901"
    with pytest.raises(AssertionError, match="erif"):
        client.openssl("dgst", "-sha256", "-verify", "key.pub", "-signature", "ours.sig", fed=hexed(joined(fields)))
