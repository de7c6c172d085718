"""What a person sees: one true frame for each state, and `/state` in the shape that scripts rely on."""

from __future__ import annotations

import msgspec

from device.txn.inputs import DeviceSaid, LinkSaid, Said
from device.txn.show import render, state
from tests.counter import COLA, TEA, TERMS, Counter


def screen(counter: Counter):
    return render(counter.box.books, counter.box.desk)


def test_paid_is_said_once_and_large():
    counter = Counter()
    counter.scan(TEA)
    counter.say(counter.pay(), Said.PAID, 500)
    assert (screen(counter).title, screen(counter).notice, screen(counter).big) == ("付款成功", "", "¥5.00")


def test_change_stays_on_the_screen_until_the_next_customer():
    counter = Counter()
    counter.scan(COLA)
    counter.press("1000 CASH")
    assert "¥7.50" in screen(counter).notice
    counter.scan(TEA)
    assert screen(counter).notice == "" and screen(counter).phase == "BASKET"


def test_the_total_stands_before_any_tender():
    counter = Counter()
    counter.scan(TEA, 2)
    assert screen(counter).big == "¥10.00" and screen(counter).qr == ""


def test_english_is_english_throughout():
    counter = Counter(msgspec.structs.replace(TERMS, lang="en"))
    counter.scan(TEA)
    counter.press("PAY PARK")
    shown = screen(counter)
    assert max(shown.title + shown.notice + shown.lines[0].name + "".join(shown.footer)) < "⺀"      # no Chinese character


def test_what_is_not_well_stands_in_the_footer_in_words():
    counter = Counter()
    counter.tell(LinkSaid(True, True))
    assert screen(counter).footer == ()
    counter.tell(DeviceSaid("printer", "paper_out"), LinkSaid(False))
    assert screen(counter).footer == ("打印机缺纸", "离线：记录待上传")


def test_a_key_that_cannot_be_kept_is_no_silent_channel():
    counter = Counter()
    counter.tell(LinkSaid(True, True), DeviceSaid("channel:gateway", "key", "why"))
    assert screen(counter).footer == ("网关密钥需处理：请通知技术员",)
    counter.tell(DeviceSaid("channel:gateway", "gone"))
    assert screen(counter).footer == ("任意钱包支付暂不可用，可收现金",)


def test_cash_only_is_said_while_it_is_true_and_no_longer():
    counter = Counter()
    counter.tell(LinkSaid(True, True))
    assert not screen(counter).cash_only and screen(counter).notice == "欢迎光临"
    counter.tell(DeviceSaid("channel:wechat", "error"))
    assert screen(counter).cash_only and screen(counter).notice == "暂时只收现金"
    counter.tell(DeviceSaid("channel:wechat", "ok"))
    assert not screen(counter).cash_only
    counter.tell(DeviceSaid("channel:wechat", "gone"))            # and nobody asks it: it may be back, and is tried
    assert not screen(counter).cash_only
    counter.scan(TEA)
    no = counter.pay()
    counter.press("PARK ENTER")
    counter.tell(DeviceSaid("channel:wechat", "gone"))
    assert screen(counter).cash_only                              # the parked one is still asked about, in vain
    counter.say(no, Said.PAID, 500)
    counter.tell(DeviceSaid("channel:wechat", "ok"))
    assert not screen(counter).cash_only


def test_the_two_words_are_on_the_screen_and_on_the_cashiers_side():
    counter = Counter()
    counter.scan(TEA)
    counter.pay()
    words = screen(counter).words
    assert len(words) == 2 and state(counter.box.books, counter.box.desk, 0)["orders"][0]["words"] == words
    counter.press("CANCEL")
    assert screen(counter).words == () == screen(counter).wallets


def test_a_deadline_is_named_and_not_counted():
    counter = Counter()
    counter.scan(TEA)
    counter.pay()
    boot, due_ms = screen(counter).deadline
    counter.mono_ms += 10_000
    assert screen(counter).deadline == (boot, due_ms) == ("boot1", 300_000)


def test_state_has_the_keys_that_scripts_rely_on():
    counter = Counter()
    counter.scan(TEA)
    counter.pay()
    counter.press("PARK ENTER")
    told = state(counter.box.books, counter.box.desk, counter.mono_ms + 5_000)
    assert {"phase", "lines", "total_fen", "orders", "parked", "held", "health", "notice"} <= set(told)
    assert [(p["slip"], p["policy"], p["age_s"]) for p in told["parked"]] == [(1, "book", 5)]


def test_an_age_goes_on_over_a_boot():
    counter = Counter()
    counter.scan(TEA)
    counter.pay()
    counter.wall = "2026-09-01T10:07:00+08:00"
    counter.cut_power()
    (order,) = state(counter.box.books, counter.box.desk, counter.mono_ms)["orders"]
    assert (order["age_s"], order["shelf_s"]) == (420, 7_080)
