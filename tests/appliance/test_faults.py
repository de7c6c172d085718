"""What a shop does to a box: the network goes, the till freezes, the whole system freezes, the clock has forgotten the year."""

from __future__ import annotations

import datetime

import pytest

from tests.appliance.goods import NOODLES, TEA, TEA_FEN
from tests.appliance.ready import Ready
from tests.appliance.shop import Shop

WATCHDOG_S = 30
FREEZES_PID_1 = r"""
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
assert libc.ptrace(PTRACE_SEIZE, 1, None, None) == 0, ctypes.get_errno()
assert libc.ptrace(PTRACE_INTERRUPT, 1, None, None) == 0, ctypes.get_errno()
time.sleep(600)
"""


def test_the_network_goes_in_the_middle_of_a_payment_and_comes_back(shop: Shop) -> None:
    shop.await_health("printer", "ok")
    shop.rung_up(TEA)
    shop.machine.link(False)
    shop.key("PAY")
    shop.until(lambda: shop.state()["phase"] == "PLACING", what="an order that is being placed")
    assert not shop.machine.qr()
    shop.machine.link(True)
    qr = shop.machine.await_qr("https://pay.local/", 90)
    shop.phone_scan("alipay", qr, "pay")
    shop.until(shop.quiet, 90, "the paper and the record")
    assert shop.summary()["agree"]


def test_cash_sells_without_a_network_and_every_record_arrives_later(shop: Shop) -> None:
    shop.await_health("printer", "ok")
    shop.machine.link(False)
    for _ in range(3):
        shop.rung_up(TEA)
        shop.key("CASH")
        shop.until(lambda: shop.state()["phase"] in ("PAID", "IDLE") and not shop.state()["papers"], what="the paper")
    assert shop.summary()["sales"] == 0 and len(shop.receipts()) == 3
    shop.machine.link(True)
    shop.until(shop.quiet, 120, "the records")
    told = shop.summary()
    assert told["agree"] and told["sales"] == 3 and told["cash_fen"] == 3 * TEA_FEN


def test_a_frozen_daemon_is_started_again_and_the_open_sale_goes_on(shop: Shop) -> None:
    shop.await_health("printer", "ok")
    shop.rung_up(TEA)
    shop.rung_up(NOODLES)
    shop.key("PAY")
    qr = shop.machine.await_qr("https://pay.local/", 40)
    frozen = shop.daemon.pid
    shop.machine.rig.sh(f"kill -STOP {frozen}")
    shop.until(lambda: shop.daemon.pid not in (None, frozen), WATCHDOG_S + 60, "the watchdog's restart")
    shop.await_serving()
    shop.until(lambda: shop.state()["phase"] == "AWAITING", what="the open sale, placed again as it was")
    assert shop.machine.await_qr("https://pay.local/", 30) == qr
    shop.phone_scan("wechat", qr, "pay")
    shop.until(shop.quiet, 90, "the paper and the record")
    assert [paper["state"] for paper in shop.receipts()] == ["printed"] and shop.summary()["agree"]


@pytest.mark.limit(600)
def test_a_frozen_system_is_reset_by_the_hardware_and_the_open_sale_goes_on(shop: Shop) -> None:
    shop.await_health("printer", "ok")
    shop.rung_up(TEA)
    shop.key("PAY")
    qr = shop.machine.await_qr("https://pay.local/", 40)
    shop.machine.rig.put("/run/rig/freeze.py", FREEZES_PID_1.encode())
    shop.machine.rig.sh("setsid python3 -S -E /run/rig/freeze.py >/dev/null 2>&1 &")
    shop.machine.qmp.event("WATCHDOG", 120)
    shop.machine.qmp.event("RESET", 30)
    shop.machine.rig.await_up()
    shop.await_serving()
    assert shop.machine.await_qr("https://pay.local/", 60) == qr
    shop.phone_scan("wechat", qr, "pay")
    shop.until(shop.quiet, 120, "the paper and the record")
    assert shop.summary()["agree"]


@pytest.mark.limit(600)
def test_a_box_that_wakes_in_1970_sells_and_learns_the_date(shop: Shop, ready: Ready) -> None:
    shop.machine.end()
    shop.machine = machine = ready.machine(rtc="1970-01-01T00:00:00")
    machine.start()
    machine.rig.await_up()
    shop.stand(machine)
    assert shop.await_serving()["phase"] == "IDLE"
    shop.await_health("printer", "ok")
    shop.rung_up(TEA)
    shop.key("CASH")
    shop.until(shop.quiet, 120, "paper, and the record at the cloud")
    assert shop.summary()["agree"]
    year = datetime.datetime.fromtimestamp(float(machine.rig.sh("date +%s")), datetime.UTC).year
    assert year >= 2026, "the system's own clock never believes 1970: systemd starts at its build's date"
