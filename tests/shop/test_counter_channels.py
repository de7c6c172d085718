"""The whole counter with every channel: each wallet at each QR, each code at whoever charges it, one channel's fault alone."""

from __future__ import annotations

import datetime
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from device.config import parse_toml
from sim.counter import wiring
from sim.counter.boxes import Boxes
from sim.counter.calls import Refusal
from sim.counter.channels import CHANNELS, PROFILES, opened
from sim.counter.counter import Counter
from sim.counter.sums import payload_of

TEA = "4891028705949"
WITHIN_S = 20

needs_broker = pytest.mark.skipif(
    not (Path("/usr/sbin/mosquitto").exists() or shutil.which("mosquitto")), reason="Mosquitto is not installed")


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counter]:
    counter = Counter(tmp_path_factory.mktemp("counter"), scale=20)
    counter.start()
    try:
        yield counter
    finally:
        counter.stop()


def seen(look: Callable[[], Any]) -> Any:
    """The first true value of `look`."""
    until_s = time.monotonic() + WITHIN_S
    while not (found := look()) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert found
    return found


def answered(counter: Counter) -> dict[str, Any]:
    try:
        return counter.state()
    except Refusal:                               # it is just starting
        return {}


def keys(counter: Counter, text: str) -> None:
    for key in text.split():
        counter.key(key)


def phase_is(counter: Counter, phase: str) -> None:
    seen(lambda: counter.state()["phase"] == phase)


def qr_after(counter: Counter, text: str) -> str:
    """The QR that a tea shows after these keys."""
    counter.scan(TEA)
    keys(counter, text)
    return seen(lambda: counter.display_json()["qr"])


def paid_by(counter: Counter, wallet: str, qr: str | None = None) -> None:
    """The phone pays, and CHECK asks at once instead of by the rule table's pace."""
    assert counter.phone_scan(wallet, qr, "pay")["paid"]
    keys(counter, "CHECK")
    phase_is(counter, "PAID")


def last_order(counter: Counter) -> dict[str, Any]:
    return counter.channel_orders()[-1]


@needs_broker
@pytest.mark.parametrize("wallet", ["wechat", "alipay", "unionpay", "ecny"])
def test_the_one_qr_of_pay_is_paid_by_any_wallet(counter: Counter, wallet: str):
    qr_after(counter, "PAY")
    paid_by(counter, wallet)
    assert (last_order(counter)["channel"], last_order(counter)["state"]) == ("gateway", "paid")


@needs_broker
@pytest.mark.parametrize(("key", "channel", "stranger"),
                         [("1", "wechat", "alipay"), ("2", "alipay", "wechat"), ("3", "unionpay", "wechat")])
def test_a_named_channels_qr_is_its_own_wallets(counter: Counter, key: str, channel: str, stranger: str):
    qr = qr_after(counter, f"{key} PAY")
    with pytest.raises(Refusal, match="cannot pay this QR"):
        counter.phone_scan(stranger, qr, "pay")
    assert counter.state()["phase"] == "AWAITING"
    paid_by(counter, channel, qr)
    assert (last_order(counter)["channel"], last_order(counter)["state"]) == (channel, "paid")


@needs_broker
@pytest.mark.parametrize(("wallet", "channel"), [("wechat", "wechat"), ("alipay", "alipay"), ("unionpay", "unionpay"),
                                                 ("ecny", "gateway")])
def test_a_payers_code_is_charged_by_its_own_channel_or_by_the_gateway(counter: Counter, wallet: str, channel: str):
    counter.scan(TEA)
    keys(counter, "CODE")
    counter.scan(counter.phone_code(wallet, "pay"))
    keys(counter, "CHECK")
    phase_is(counter, "PAID")
    assert (last_order(counter)["channel"], last_order(counter)["state"]) == (channel, "paid")


@needs_broker
def test_a_card_is_tapped_at_the_terminal_that_asks_for_one(counter: Counter):
    with pytest.raises(Refusal, match="asks for no card"):
        counter.card_tap("pay")
    counter.scan(TEA)
    keys(counter, "5 PAY")
    phase_is(counter, "AWAITING")
    assert counter.card_tap("pay")["paid"]
    phase_is(counter, "PAID")
    assert (last_order(counter)["channel"], last_order(counter)["state"]) == ("card", "paid")


@needs_broker
def test_a_card_paid_while_the_cable_was_out_is_found_when_it_is_back(counter: Counter):
    counter.scan(TEA)
    keys(counter, "5 PAY")
    phase_is(counter, "AWAITING")
    counter.fault("channel_down", True, "card", None)
    seen(lambda: counter.state()["health"].get("channel:card") == "gone")
    assert counter.card_tap("pay")["paid"] and counter.state()["phase"] == "AWAITING"
    counter.fault("channel_down", False, "card", None)
    phase_is(counter, "PAID")


@needs_broker
def test_one_channel_down_leaves_the_others_and_is_shown_alone(counter: Counter):
    counter.fault("channel_down", True, "gateway", None)
    assert counter.faults.shown() == {"channel_down": ["gateway"]}
    qr = qr_after(counter, "1 PAY")
    paid_by(counter, "wechat", qr)
    counter.fault("channel_down", False, None, None)
    assert counter.faults.shown() == {}


@needs_broker
def test_what_is_scanned_right_after_the_scanner_was_put_back_or_the_power_came_is_not_lost(counter: Counter):
    keys(counter, "CLEAR CLEAR")
    phase_is(counter, "IDLE")
    for n in (1, 2):
        counter.fault("scanner", True, None, None)
        counter.fault("scanner", False, None, None)
        counter.scan(TEA)
        assert counter.state()["total_fen"] == 700 * n
    counter.fault("power_cut", True, None, 0.2)
    before = seen(lambda: counter.daemon.powered and answered(counter))["total_fen"]      # a cut may cost two seconds of scans
    counter.scan(TEA)
    assert counter.state()["total_fen"] == before + 700
    keys(counter, "CLEAR CLEAR")


@needs_broker
@pytest.mark.parametrize("jump_s", [30 * 3600, -20 * 365 * 86_400, 3 * 3600])
def test_a_clock_that_somebody_sets_moves_no_sale_and_no_business_day(counter: Counter, jump_s: int):
    keys(counter, "CLEAR CLEAR")
    paid_by(counter, "wechat", qr_after(counter, "PAY"))                  # a channel has said the time in this boot
    counter.fault("clock_jump", True, None, None, jump_s)
    for text, wallet in (("PAY", "alipay"), ("1 PAY", "wechat"), ("3 PAY", "unionpay")):
        paid_by(counter, wallet, qr_after(counter, text))
    assert counter.state()["health"]["clock"] == "wrong"
    if abs(jump_s) > 86_400:                          # nor does a boot under the wrong clock; less than a day may have gone by
        counter.fault("power_cut", True, None, 0.2)
        seen(lambda: counter.daemon.powered and answered(counter))
        paid_by(counter, "wechat", qr_after(counter, "1 PAY"))
    counter.fault("clock_jump", False, None, None)
    counter.scan(TEA)
    keys(counter, "CASH")
    assert "clock" not in counter.state()["health"]
    seen(lambda: counter.state()["unacked"] == 0)
    told = [one for one in map(payload_of, counter.cloud_records()["tokens"]) if one["kind"] == "sale"][-5:]
    assert all(abs(datetime.datetime.fromisoformat(one["at"]).timestamp() - time.time()) < 60 for one in told)
    assert not [one for one in map(payload_of, counter.cloud_records()["tokens"]) if one["kind"] == "z_report"]
    assert [one["clk"] for one in told[:3]] == ["anchored"] * 3


@needs_broker
def test_a_counter_goes_on_where_it_was_stopped_at_every_channel(tmp_path: Path):
    first = Counter(tmp_path, scale=20)
    first.start()
    try:
        for text, wallet in (("PAY", "ecny"), ("1 PAY", "wechat"), ("2 PAY", "alipay"), ("3 PAY", "unionpay")):
            paid_by(first, wallet, qr_after(first, text))
        first.scan(TEA)
        keys(first, "5 PAY")
        phase_is(first, "AWAITING")
        first.card_tap("pay")
        phase_is(first, "PAID")
        sold = first.channel_orders()
        receipt = seen(lambda: [row["order_no"] for row in first.receipts() if row["order_no"] == sold[-1]["order_no"]])[0]
    finally:
        first.stop()
    again = Counter(tmp_path, scale=20)
    again.start()
    try:
        assert again.channel_orders() == sold and {row["channel"] for row in sold} == set(CHANNELS)
        keys(again, "CLEAR REFUND")
        again.scan(receipt)
        keys(again, "ENTER")
        seen(lambda: again.channel_orders()[-1]["state"] == "refunded")
    finally:
        again.stop()


def test_a_code_charged_at_one_channel_is_spent_at_every_other(tmp_path: Path):
    channels = opened(tmp_path, "all")
    for channel in channels.values():
        channel.shown("130000000000000001", "wechat", "pay", 1)
    wechat, gateway = channels["wechat"].server.rules, channels["gateway"].server.rules
    charge = {"out_trade_no": "0000012345000000010Z", "total_fee": "900", "body": "tea", "auth_code": "130000000000000001"}
    assert wechat.codes.micropay(charge)["result_code"] == "SUCCESS"
    asked = {"order_no": "0000012345000000011Z", "amount_fen": 900, "way": "code", "description": "tea", "extras": {},
             "made_at": "2026-01-01T00:00:00+08:00", "expires_at": "2999-01-01T00:00:00+08:00", "code": "130000000000000001"}
    assert gateway._charge(asked)["result"] == "refused"
    for channel in channels.values():
        channel.keep()
    known = opened(tmp_path, "all")
    assert known["unionpay"].server.rules.spent == {"130000000000000001"} and set(known) == set(CHANNELS)


def test_a_box_of_the_gateway_alone_holds_no_merchants_key(tmp_path: Path):
    folders = {profile: tmp_path / profile for profile in PROFILES}
    boxes = {}
    for profile, folder in folders.items():
        folder.mkdir()
        stood = Boxes(folder)
        channels = opened(folder, profile)
        for channel in channels.values():
            channel.start()
        wiring.write_box(folder, stood, run_dir=folder, broker_port=1883, printer_port=9100, channels=channels)
        for channel in channels.values():
            channel.stop()
        boxes[profile] = parse_toml((folder / "box.toml").read_text())
    assert boxes["all"].merchant_keys_on_box and not boxes["gateway"].merchant_keys_on_box
    assert [c.name for c in boxes["all"].channels] == ["wechat", "alipay", "unionpay", "gateway", "card"]
    assert [c.name for c in boxes["gateway"].channels] == ["gateway", "card"]
    assert {file.name for file in (folders["gateway"] / "keys").iterdir()} == {"ca.pem", "card.json", "gateway.key"}


@needs_broker
def test_a_technician_logs_in_at_the_counter_and_prints(counter: Counter) -> None:
    """The real console on a pty, head office by `tillfleet console-code`; the daemon goes on selling all the while."""
    for line in ("", "lang en", "li", "work"):
        counter.console_type(line)
    counter.console_code()
    counter.console_type("status")
    counter.console_type("print test")
    seen(lambda: "y/n:" in counter.console()[-1])
    counter.console_type("y")
    seen(lambda: counter.console()[-1] == "box-1>")
    assert counter.console()[-2] == "ok" and "The daemon runs." in counter.console()
    seen(lambda: any("打印测试" in paper.text for paper in counter.printer.receipts()))
    counter.console_type("handover all done")
    seen(lambda: [one for one in map(payload_of, counter.cloud_records()["tokens"])
                  if one["kind"] == "visit" and one["body"]["words"] == "all done" and one["body"]["passed"] == ["print test"]])
    counter.console_type("exit")
    seen(lambda: counter.console()[-1] == "name:" or "姓名:" in counter.console()[-1])
