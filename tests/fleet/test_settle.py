"""A box burnt with payments open: the channels say what became of each, by their own proof, and nothing is moved."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from device.drivers.channels import unionpay_bytes
from device.drivers.channels.unionpay_bytes import BEIJING
from device.mqtt import wire
from device.mqtt.wire import OpenOrder
from device.txn.effects import Intent
from device.txn.numbers import order_number
from device.types import Account
from fleet.__main__ import main
from fleet.records.store import Store
from sim.channels.alipay import AlipayRules
from sim.channels.alipay_keys import authority as alipay_authority
from sim.channels.alipay_server import AlipayServer
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.keys import key_pair, platform
from sim.channels.shouqianba import ShouqianbaRules
from sim.channels.shouqianba_server import KEY as SHOUQIANBA_KEY
from sim.channels.shouqianba_server import ShouqianbaServer
from sim.channels.unionpay import UnionpayRules
from sim.channels.unionpay_server import UnionpayServer, authority
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import WechatServer
from tests.record_chain import Chain, Key

AT = "2026-07-14T09:26:53+08:00"
SECRET = b"0123456789abcdef0123456789abcdef"
MERCHANT, THEIRS = key_pair("merchant"), platform()
KEY = Key()
UNIONPAY = authority()
UNIONPAY_FAULTS = ["unclear", "half_booked", "foreign_root", "merchant_signed", "expired"]
CHANNELS = ["wechat", "gateway", "alipay", "shouqianba", "unionpay"]
ALIPAY = alipay_authority(MERCHANT.public_pem)
CERTIFICATE_FAULTS = ["foreign_root", "merchant_signed", "hidden", "unsigned", "lying"]
FAULTS = ["lying", "unsigned", "wrong_amount", "wrong_order", "down", "lost_answer", "page", "garbage", "huge"]


def no(n: int) -> str:
    return order_number("000001", "BVRN", n)


def ago(seconds: int) -> str:
    return (datetime.now(BEIJING) - timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


class Town:
    """Five channels, a store, and the file of accounts; orders are made and paid at the rules, as a box and a phone would."""

    def __init__(self, folder: Path, where: str) -> None:
        def now_ms() -> int:
            return time.time_ns() // 1_000_000
        self.folder, self.where = folder, where
        self.wechat = WechatServer(WechatRules(now_ms), merchant_public_pem=MERCHANT.public_pem, merchant_serial=MERCHANT.serial_no,
                                   platform=THEIRS)
        self.gateway = GatewayServer(GatewayRules(now_ms), secret=SECRET)
        self.alipay = AlipayServer(AlipayRules(now_ms), app_public_pem=MERCHANT.public_pem, platform=THEIRS.public)
        self.shouqianba = ShouqianbaServer(ShouqianbaRules(now_ms))
        self.unionpay = UnionpayServer(UnionpayRules(now_ms), merchant_public_pem=MERCHANT.public_pem, cert_id="68759663125",
                                       authority=UNIONPAY)
        self.servers = {"wechat": self.wechat, "gateway": self.gateway, "alipay": self.alipay, "shouqianba": self.shouqianba,
                        "unionpay": self.unionpay}
        for server in self.servers.values():
            server.start()
        key_id, pem = THEIRS.key_id, THEIRS.public.public_pem
        (folder / "merchant.pem").write_bytes(MERCHANT.private_pem)
        (folder / "wechat.pem").write_bytes(pem)
        (folder / "terminal.key").write_bytes(SECRET + b"\n")
        self.config = folder / "settle.toml"
        self.config.write_text(f'''
[[account]]
channel = "wechat"
account = "main"
base_url = "{self.wechat.url}"
appid = "wx0000000000000001"
mchid = "1900000001"
serial_no = "{MERCHANT.serial_no}"
private_key_file = "{folder}/merchant.pem"
platform_key_id = "{key_id}"
platform_key_file = "{folder}/wechat.pem"

[[account]]
channel = "gateway"
account = "main"
base_url = "{self.gateway.url}"
terminal_id = "T10001"
terminal_key_file = "{folder}/terminal.key"

[[account]]
channel = "alipay"
account = "main"
base_url = "{self.alipay.url}"
appid = "2021000000000001"
private_key_file = "{folder}/merchant.pem"
platform_key_file = "{folder}/wechat.pem"

[[account]]
channel = "gateway"
account = "shouqianba"
dialect = "shouqianba"
base_url = "{self.shouqianba.url}"
terminal_id = "100012340000001"
terminal_key_file = "{folder}/shouqianba.key"

[[account]]
channel = "unionpay"
account = "main"
base_url = "{self.unionpay.url}"
mchid = "777290058110048"
serial_no = "68759663125"
private_key_file = "{folder}/merchant.pem"
platform_key_file = "{folder}/unionpay.pem"
''')
        (folder / "unionpay.pem").write_bytes(UNIONPAY.trust_pem)
        (folder / "shouqianba.key").write_bytes(SHOUQIANBA_KEY + b"\n")

    def with_certificates(self) -> None:
        """Alipay's app goes by certificates from now on, and the file of accounts says so."""
        self.alipay.stop()
        self.alipay = AlipayServer(self.alipay.rules, app_public_pem=MERCHANT.public_pem, platform=THEIRS.public, authority=ALIPAY)
        self.alipay.start()
        self.servers["alipay"] = self.alipay
        (self.folder / "alipay.pem").write_bytes(ALIPAY.installed)
        self.config.write_text(f'''
[[account]]
channel = "alipay"
account = "main"
base_url = "{self.alipay.url}"
appid = "2021000000000001"
private_key_file = "{self.folder}/merchant.pem"
platform_key_file = "{self.folder}/alipay.pem"
''')

    def stop(self) -> None:
        for server in self.servers.values():
            server.stop()

    def placed(self, n: int, channel: str, then: str = "") -> OpenOrder:
        """An order of 9 yuan at the channel; `then` what the customer does."""
        made = time.strftime("%Y-%m-%dT%H:%M:%S+08:00", time.gmtime(time.time() + 8 * 3600))
        ends = time.strftime("%Y-%m-%dT%H:%M:%S+08:00", time.gmtime(time.time() + 8 * 3600 + 300))
        if channel == "wechat":
            status, said = self.wechat.rules.create({
                "appid": "wx0000000000000001", "mchid": "1900000001", "description": "tea", "out_trade_no": no(n),
                "time_expire": ends, "notify_url": "https://shop.example/n", "amount": {"total": 900, "currency": "CNY"}})
            assert status == 200, said
            if then:
                assert self.wechat.scan(said["code_url"], then)["ok"]
        elif channel == "alipay":
            said = self.alipay.rules.answer("alipay.trade.precreate", {
                "out_trade_no": no(n), "total_amount": "9.00", "subject": "tea", "product_code": "FACE_TO_FACE_PAYMENT"})
            assert said["code"] == "10000", said
            if then:
                assert self.alipay.scan(said["qr_code"], then)["ok"]
        elif channel == "shouqianba":
            said = self.shouqianba.rules.answer("precreate", json.dumps({
                "terminal_sn": "100012340000001", "client_sn": no(n), "total_amount": "900", "subject": "tea", "payway": "3",
                "sub_payway": "2", "operator": "01"}).encode())
            if then:
                assert self.shouqianba.scan(said["data"]["qr_code"], then, wallet="wechat")["ok"], said
            return OpenOrder(no(n), "gateway", "shouqianba", 900, 30)
        elif channel == "unionpay":
            said = self.unionpay.rules.answer(unionpay_bytes.form_fields(unionpay_bytes.place_request(Intent(
                no(n), "unionpay", Account("unionpay", "main", (("mchid", "777290058110048"),)), 900, "tea", made, ends)).body))
            assert said["respCode"] == "00", said
            if then:
                assert self.unionpay.scan(said["qrCode"], then)["ok"]
        else:
            status, body = self.gateway.rules.answer("place", json.dumps({
                "order_no": no(n), "amount_fen": 900, "way": "qr", "description": "tea", "made_at": made, "expires_at": ends,
                "extras": {}}).encode())
            assert status == 200, body
            if then:
                assert self.gateway.scan(json.loads(body)["qr"], then, wallet="wechat")["ok"]
        return OpenOrder(no(n), channel, "main", 900, 30, made)

    def never(self, n: int, channel: str) -> OpenOrder:
        """An order that the channel never held, three days old."""
        gateway = channel == "shouqianba"
        return OpenOrder(no(n), "gateway" if gateway else channel, channel if gateway else "main", 900, 3 * 86_400, ago(3 * 86_400))

    def burns(self, *orders: OpenOrder) -> None:
        store = Store(self.where, [KEY.jwk])
        with store.transaction():
            store.open_orders("box-1", wire.encoded(orders).decode(), datetime.now(UTC).isoformat(timespec="seconds"))
        store.close()

    def settle(self, capsys: pytest.CaptureFixture[str], box: str = "box-1") -> tuple[int, dict[str, tuple[str, str]], dict]:
        status = main(["settle", box, "--store", self.where, "--config", str(self.config), "--json"])
        *lines, summary = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        return status, {line["order_no"]: (line["word"], line["why"]) for line in lines}, summary


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path, str(tmp_path / "store.db"))
    yield made
    made.stop()


@pytest.mark.parametrize("channel", CHANNELS)
def test_paid_never_asked_and_still_open_are_told_apart(town: Town, capsys: pytest.CaptureFixture[str], channel: str) -> None:
    town.burns(town.placed(1, channel, "pay"), town.never(2, channel), town.placed(3, channel))
    status, words, summary = town.settle(capsys)
    assert [words[no(n)][0] for n in (1, 2, 3)] == ["paid", "not_paid", "unknown"] and "never held" in words[no(2)][1]
    assert status == 1 and (summary["paid"], summary["unknown"], summary["paid_fen"]) == (1, 1, 900)
    before = [dict(o) for o in town.servers[channel].orders()]
    town.settle(capsys)
    assert before == town.servers[channel].orders(), "something was moved"


@pytest.mark.parametrize("channel, fault", [(channel, fault) for channel in CHANNELS for fault in FAULTS
                                            if (channel, fault) != ("shouqianba", "unsigned")] + [("alipay", "rotated")]
                         + [("unionpay", fault) for fault in UNIONPAY_FAULTS])
def test_a_word_without_its_proof_decides_nothing(town: Town, capsys: pytest.CaptureFixture[str], channel: str, fault: str) -> None:
    town.burns(town.placed(1, channel, "pay"))
    server = town.servers[channel]
    server.fault(fault, count=None)
    status, words, _ = town.settle(capsys)
    assert status == 1 and words[no(1)][0] == "unknown" and words[no(1)][1]
    server.clear()
    status, words, _ = town.settle(capsys)
    assert status == 0 and words[no(1)][0] == "paid"


def test_a_unionpay_code_that_nobody_paid_is_unknown_for_its_day_by_the_younger_of_two_clocks(
        town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """34 is what UnionPay says of a QR that can still be paid: only time makes a `no` of it, and a box's clock may be wrong."""
    def never(n: int, age_s: int, made_at: str) -> OpenOrder:
        return OpenOrder(no(n), "unionpay", "main", 900, age_s, made_at)
    day = 86_400
    town.burns(never(1, day - 60, ago(day - 60)), never(2, day + 60, ago(day + 60)), never(3, 60, "1970-01-01T08:00:07.000+08:00"),
               never(4, 3 * day, ago(60)), never(5, 10, ago(10)))
    _, words, _ = town.settle(capsys)
    assert [words[no(n)][0] for n in range(1, 6)] == ["unknown", "not_paid", "unknown", "unknown", "unknown"]
    assert "for a day" in words[no(1)][1] and "on its way" in words[no(5)][1]


def test_unionpay_is_asked_by_the_second_an_order_was_made_in_and_an_older_box_is_told_of(
        town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    paid = town.placed(1, "unionpay", "pay")
    town.burns(paid, msgspec.structs.replace(paid, order_no=no(2), made_at=""),
               msgspec.structs.replace(paid, order_no=no(3), made_at="2026-13-40T10:26:40+08:00"))
    status, words, _ = town.settle(capsys)
    assert status == 1 and words[no(1)][0] == "paid" and "given back" in words[no(1)][1]
    assert words[no(2)][0] == "unknown" and "older software" in words[no(2)][1]
    assert words[no(3)][0] == "unknown" and "could not be asked" in words[no(3)][1]


@pytest.mark.parametrize(("code", "says"), [("42", "its booking is not clear (42)"), ("74", "(74)"), ("75", "(75)"),
                                            ("64", "the code may be scanned again")])
def test_money_whose_booking_is_not_clear_is_neither_paid_nor_not(town: Town, capsys: pytest.CaptureFixture[str], code: str,
                                                                  says: str) -> None:
    town.burns(town.placed(1, "unionpay", "pay"))
    (trade,) = town.unionpay.rules._trades.values()
    trade.result = code
    status, words, summary = town.settle(capsys)
    assert status == 1 and words[no(1)][0] == "unknown" and says in words[no(1)][1] and summary["paid_fen"] == 0


def test_what_a_committed_sale_has_is_booked_and_asked_of_nobody(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    from fleet.records.checking import check_all

    chain = Chain(KEY)
    tender = {"method": "wechat", "amount_fen": 900, "order_no": no(1), "channel_no": "42"}
    chain.add("sale", {"order_no": no(1), "amount_fen": 900, "cashier": "01", "lines": [], "tenders": [tender]})
    store = Store(town.where, [KEY.jwk])
    with store.transaction():
        store.take("box-1", chain.batch(1, 1), AT)
    check_all(store, AT)
    store.close()
    town.burns(OpenOrder(no(1), "wechat", "main", 900, 30))
    status, words, summary = town.settle(capsys)
    assert status == 0 and words[no(1)][0] == "booked" and summary["booked"] == 1


def test_what_cannot_be_asked_is_named_and_kept_in_the_store(town: Town, place: Callable[[], str],
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    town.where = place()
    town.burns(OpenOrder(no(1), "card", "main", 900, 30), OpenOrder(no(2), "wechat", "other", 900, 30),
               town.placed(3, "gateway", "pay"))
    status, words, _ = town.settle(capsys)
    assert status == 1 and "stands at the shop" in words[no(1)][1] and "no account 'other'" in words[no(2)][1]
    store = Store(town.where)
    rows = store.database.execute("SELECT order_no, word FROM settled WHERE box = 'box-1' ORDER BY order_no").fetchall()
    store.close()
    assert [tuple(row) for row in rows] == [(no(1), "unknown"), (no(2), "unknown"), (no(3), "paid")]


def test_a_box_that_told_nothing_and_a_file_that_does_not_serve_end_in_one_sentence(town: Town,
                                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    town.burns()
    assert town.settle(capsys) == (0, {}, {"box": "box-1", "orders": 0, "paid": 0, "not_paid": 0, "booked": 0, "unknown": 0,
                                           "paid_fen": 0})
    more = ["--store", town.where, "--config", str(town.config)]
    assert main(["settle", "box-9", *more]) == 2 and "never said" in capsys.readouterr().err
    town.config.write_text('[[account]]\nchannel = "wechat"\naccount = "main"\nbase_url = "http://api.example"\n')
    assert main(["settle", "box-1", *more]) == 2 and "neither https" in capsys.readouterr().err


# Keys: certificates, and files that do not serve ----------------------------------------------------------------------

def test_alipay_by_certificates_tells_paid_never_asked_and_open_apart(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    town.with_certificates()
    town.burns(town.placed(1, "alipay", "pay"), town.never(2, "alipay"), town.placed(3, "alipay"))
    _, words, summary = town.settle(capsys)
    assert [words[no(n)][0] for n in (1, 2, 3)] == ["paid", "not_paid", "unknown"] and summary["paid_fen"] == 900


def test_alipays_new_certificate_is_fetched_and_proven_by_its_root(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    town.with_certificates()
    town.burns(town.placed(1, "alipay", "pay"))
    town.alipay.fault("rotated", count=None)
    status, words, _ = town.settle(capsys)
    assert status == 0 and words[no(1)][0] == "paid"


@pytest.mark.parametrize("fault", CERTIFICATE_FAULTS)
def test_a_certificate_that_is_not_alipays_decides_nothing(town: Town, capsys: pytest.CaptureFixture[str], fault: str) -> None:
    town.with_certificates()
    town.burns(town.placed(1, "alipay", "pay"))
    town.alipay.fault(fault, count=None)
    status, words, _ = town.settle(capsys)
    assert status == 1 and words[no(1)][0] == "unknown" and "prove itself" in words[no(1)][1]


def test_a_public_key_where_the_app_goes_by_certificates_is_told_of(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    town.with_certificates()
    town.burns(town.placed(1, "alipay", "pay"))
    (town.folder / "alipay.pem").write_bytes(THEIRS.public.public_pem)
    status, words, _ = town.settle(capsys)
    assert status == 1 and words[no(1)][0] == "unknown" and "app-cert-sn" in words[no(1)][1]


def test_wechats_platform_key_may_be_a_certificate_of_that_serial(town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    """As merchants of before 2024 have it: WeChat signs by its certificate unless its public key is asked for."""
    (town.folder / "wechat.pem").write_bytes(THEIRS.certificate.certificate_pem)
    town.config.write_text(town.config.read_text().replace(THEIRS.key_id, THEIRS.certificate.serial_no))
    town.wechat.certificates = True
    town.burns(town.placed(1, "wechat", "pay"))
    assert town.settle(capsys)[1][no(1)][0] == "paid"


@pytest.mark.parametrize("channel", ["wechat", "alipay", "unionpay"])
def test_a_key_file_with_a_password_is_one_sentence_and_the_others_are_asked(town: Town, capsys: pytest.CaptureFixture[str],
                                                                             channel: str) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    locked = town.folder / "locked.pem"
    locked.write_bytes(load_pem_private_key(MERCHANT.private_pem, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    parts = town.config.read_text().split("[[account]]")
    town.config.write_text("[[account]]".join(
        part.replace("merchant.pem", "locked.pem") if f'channel = "{channel}"' in part else part for part in parts))
    town.burns(town.placed(1, channel, "pay"), town.placed(2, "gateway", "pay"))
    status, words, _ = town.settle(capsys)
    why = words[no(1)][1]
    assert status == 1 and words[no(1)][0] == "unknown" and words[no(2)][0] == "paid"
    assert str(locked) in why and "locked with a password" in why and "openssl pkey" in why


@pytest.mark.parametrize(("file", "held", "says"), [
    ("merchant.pem", None, "cannot be read: No such file"), ("merchant.pem", b"", "holds no readable PEM key"),
    ("merchant.pem", b"-----BEGIN PRIVATE KEY-----\n", "no readable PEM"), ("wechat.pem", b"junk", "no readable PEM public key")])
def test_a_file_that_holds_no_key_is_named(town: Town, capsys: pytest.CaptureFixture[str], file: str, held: bytes | None,
                                           says: str) -> None:
    path = town.folder / file
    path.unlink() if held is None else path.write_bytes(held)
    town.burns(town.placed(1, "wechat", "pay"), town.placed(2, "alipay", "pay"))
    _, words, _ = town.settle(capsys)
    assert all(word == "unknown" and str(path) in why for word, why in words.values())
    assert says in words[no(1)][1]


# How the payer was asked ----------------------------------------------------------------------------------------------

def test_a_payers_code_that_failed_at_unionpay_took_nothing_and_a_qr_may_be_scanned_again(
        town: Town, capsys: pytest.CaptureFixture[str]) -> None:
    placed = town.placed(1, "unionpay", "pay")
    (trade,) = town.unionpay.rules._trades.values()
    trade.result = "64"
    for way, word in (("code", "not_paid"), ("qr", "unknown"), ("", "unknown")):
        town.burns(msgspec.structs.replace(placed, way=way))
        assert town.settle(capsys)[1][no(1)][0] == word


def test_an_order_made_under_a_clock_that_nobody_had_set_is_as_young_as_the_telling(town: Town,
                                                                                   capsys: pytest.CaptureFixture[str]) -> None:
    town.burns(OpenOrder(no(1), "alipay", "main", 900, 56 * 365 * 86_400, "1970-01-01T08:00:07+08:00", "qr"))
    assert town.settle(capsys)[1][no(1)][0] == "unknown"
