"""Ways to pay besides one QR: payers' codes, undos that move money, parts, other routes, questions and approvals."""

from __future__ import annotations

import json

import msgspec
import pytest

from device.txn import facts as wire
from device.txn.approval import badge_hash, pin_hash
from device.txn.books import Phase
from device.txn.effects import ChargeCode
from device.txn.inputs import BillSaid, ChannelSaid, DeviceSaid, QrReady, Rang, RefundSaid, RefundWord, Said, Scanned
from device.txn.show import render, state
from device.types import Account, Supervisor, Terms
from tests.counter import COLA, TEA, Counter

ACCOUNTS = tuple(Account(name, f"{name}:1", (("mchid", "1"),)) for name in ("wechat", "alipay", "unionpay", "gateway"))
TERMS = Terms(accounts=ACCOUNTS, route=("wechat", "gateway"), instalment_code="7Q4K")
WECHAT_CODE, ALIPAY_CODE, ECNY_CODE = "134567890123456789", "281234567890123456", "0112345678901234567"


def paying_by_code(code: str = WECHAT_CODE, terms: Terms = TERMS) -> tuple[Counter, str]:
    counter = Counter(terms)
    counter.scan(TEA)
    counter.press("CODE")
    counter.tell(Scanned(code))
    return counter, counter.order_no


def facts_of(counter: Counter) -> list:
    counter.journal.sync()
    return [f for row in counter.journal.durable for f in wire.decode(row.facts).facts]


def alerts(counter: Counter) -> list[str]:
    return [json.loads(f.body)["cause"] for f in facts_of(counter) if isinstance(f, wire.RecordDue) and f.kind == "payment_alert"]


def undone(no: str, said: Said, **more) -> ChannelSaid:
    return ChannelSaid(no, said, undo=True, **more)


# Asking

def test_a_channel_that_is_back_is_asked_at_once_about_what_is_open_there():
    counter = Counter(TERMS)
    counter.scan(TEA)
    no = counter.pay()
    counter.tell(DeviceSaid("channel:wechat", "gone", "no answer"))
    assert not counter.tell(DeviceSaid("channel:gateway", "ok")).again
    assert counter.tell(DeviceSaid("channel:wechat", "ok")).again == (no,)
    assert not counter.tell(DeviceSaid("channel:wechat", "ok")).again


# Codes

def test_a_payers_code_is_charged_once_and_stands_nowhere():
    counter, no = paying_by_code()
    (charge,) = [e for e in counter.once if isinstance(e, ChargeCode)]
    assert charge.code == WECHAT_CODE and charge.intent.way == "code"
    assert WECHAT_CODE not in repr(charge) + repr(counter.box.desk) + repr(state(counter.box.books, counter.box.desk, 0))
    assert not any(WECHAT_CODE.encode() in row.facts for row in counter.journal.durable) and not counter.journal.waiting_rows
    counter.cut_power()
    assert sum(isinstance(e, ChargeCode) for e in counter.once) == 1
    assert no in counter.wants("QueryOrder")


def test_one_code_goes_to_one_attempt():
    counter, no = paying_by_code()
    counter.say(no, Said.REFUSED)
    counter.press("CODE")
    verdict = counter.tell(Scanned(WECHAT_CODE))
    assert verdict.refused and WECHAT_CODE not in "".join(verdict.words)
    assert not counter.tell(Scanned("134567890123456788")).refused


@pytest.mark.parametrize(("code", "channel"), [(WECHAT_CODE, "wechat"), (ALIPAY_CODE, "alipay"), (ECNY_CODE, "gateway")])
def test_the_codes_first_digits_choose_the_channel(code, channel):
    counter, no = paying_by_code(code)
    assert counter.box.books.orders[no].intent.channel == channel


@pytest.mark.parametrize("symbol", ["6902538004045", "9934567890123456789", "13456789012345678",
                                    "１３４５６７８９０１２３４５６７８９"])
def test_what_is_no_payment_code_charges_nobody(symbol):
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("CODE")
    verdict = counter.tell(Scanned(symbol))
    assert verdict.refused and symbol not in "".join(verdict.words) and not counter.box.books.orders


def test_a_password_is_waited_for_and_said():
    counter, no = paying_by_code()
    counter.say(no, Said.OPEN)
    assert counter.phase == "AWAITING" and "password" in render(counter.box.books, counter.box.desk).title \
        or "密码" in render(counter.box.books, counter.box.desk).title
    counter.say(no, Said.PAID, 500)
    assert counter.phase == "PAID"


def test_a_code_refused_for_good_leaves_the_basket_and_a_tombstone():
    counter, no = paying_by_code()
    counter.say(no, Said.REFUSED)
    assert counter.phase == "BASKET" and counter.box.books.orders[no].phase is Phase.CLOSED
    assert no in counter.wants("QueryOrder")


# Undos that move money

def test_paid_while_a_reversal_is_on_its_way_is_not_refunded_beside_it():
    counter, no = paying_by_code()
    counter.press("CANCEL")
    assert no in counter.wants("CloseOrder")
    counter.say(no, Said.PAID, 500)
    counter.say(no, Said.PAID, 500)
    assert no in counter.wants("CloseOrder") and not counter.box.books.refunds
    assert sum(isinstance(f, wire.PaidUnderUndo) for f in facts_of(counter)) == 1
    counter.tell(undone(no, Said.CLOSED))
    assert not counter.box.books.refunds and alerts(counter) == ["undone"] and counter.phase == "BASKET"


def test_money_that_only_the_undo_saw_is_told_like_any_other():
    """Paid in the last moment and reversed by the same call: nobody owes anything, and the payer's phone shows a payment."""
    counter, no = paying_by_code()
    counter.press("CANCEL")
    counter.tell(undone(no, Said.GIVEN_BACK, amount_fen=500, channel_no="4200000007"))
    (alert,) = [json.loads(f.body) for f in facts_of(counter) if isinstance(f, wire.RecordDue) and f.kind == "payment_alert"]
    assert (alert["cause"], alert["channel_no"], alert["amount_fen"]) == ("undone", "4200000007", 500)
    assert not counter.box.books.refunds and counter.phase == "BASKET" and counter.box.books.wallet_fen == 0


def test_a_payment_that_can_never_be_undone_goes_back_by_a_refund():
    counter, no = paying_by_code()
    counter.press("CANCEL")
    counter.say(no, Said.PAID, 500)
    counter.tell(undone(no, Said.REFUSED))
    assert no not in counter.wants("CloseOrder")
    (refund,) = counter.box.books.refunds.values()
    assert (refund.intent.order_no, refund.intent.amount_fen) == (no, 500)


def test_an_undo_refused_before_anything_was_seen_waits_for_the_channels_word():
    counter, no = paying_by_code()
    counter.press("CANCEL")
    counter.tell(undone(no, Said.REFUSED))
    assert no not in counter.wants("CloseOrder") and not counter.box.books.refunds
    counter.say(no, Said.PAID, 500)
    assert len(counter.box.books.refunds) == 1


def test_the_reversal_waits_until_the_channel_takes_it():
    counter, no = paying_by_code()
    counter.mono_ms += 4_000
    made_ms = counter.box.books.orders[no].since_ms
    counter.press("CANCEL")
    (undo,) = (e for e in counter.running if type(e).__name__ == "CloseOrder")
    assert undo.not_before_ms == made_ms + 15_000


@pytest.mark.parametrize("cause", ["CANCEL", "time-out"])
def test_no_goods_are_given_on_a_code_whose_reversal_was_sent(cause):
    """The slip would say "booked when paid" while our own undo takes the money back."""
    counter, no = paying_by_code()
    if cause == "CANCEL":
        counter.press("CANCEL")
    else:
        counter.mono_ms += 45_000
        counter.tell(Rang(("order", no)))
    assert no in counter.wants("CloseOrder")
    verdict = counter.press("PARK ENTER")
    assert verdict.refused and not counter.box.books.orders[no].park and counter.order_no == no
    assert not counter.press("PARK CANCEL").refused and counter.box.books.orders[no].park == "give_back"


def test_goods_given_on_a_code_are_never_reversed():
    counter, no = paying_by_code()
    counter.press("PARK ENTER")
    counter.mono_ms += 45_000
    counter.tell(Rang(("order", no)))
    assert no not in counter.wants("CloseOrder")
    counter.mono_ms += 10_000_000
    counter.tell(Rang(("overdue", no)))
    assert no not in counter.wants("CloseOrder") and counter.box.books.orders[no].phase is Phase.UNDECIDED
    counter.say(no, Said.PAID, 500)
    assert [s.order_no for s in counter.box.books.sales.values()] == [no]


# The bill decides

def overdue(policy: str) -> tuple[Counter, str]:
    counter, no = paying_by_code()
    counter.press(f"PARK {policy}")
    counter.mono_ms += 10_000_000
    counter.tell(Rang(("overdue", no)))
    assert any(type(e).__name__ == "FetchBill" for e in counter.running)
    return counter, no


def test_the_bill_books_what_was_paid_for_goods_that_went():
    counter, no = overdue("ENTER")
    counter.tell(BillSaid(ACCOUNTS[0], "2026-09-01", True, (("paid", no, "", 500, "4200"),)))
    assert no in counter.box.books.sales
    assert not any(type(e).__name__ == "FetchBill" for e in counter.running)


def test_the_bill_gives_back_what_was_paid_for_goods_that_stayed_once_no_undo_can():
    counter, no = overdue("CANCEL")
    counter.tell(BillSaid(ACCOUNTS[0], "2026-09-01", True, (("paid", no, "", 500, "4200"),)))
    assert not counter.box.books.refunds and no in counter.wants("CloseOrder")      # it may be under way this very moment
    counter.tell(undone(no, Said.REFUSED))
    counter.tell(BillSaid(ACCOUNTS[0], "2026-09-01", True, (("paid", no, "", 500, "4200"),)))
    assert [r.intent.order_no for r in counter.box.books.refunds.values()] == [no]


def test_a_bill_that_does_not_name_the_order_closes_it():
    counter, no = overdue("ENTER")
    counter.tell(BillSaid(ACCOUNTS[0], "2026-09-01", False, (), "not made yet"))
    assert counter.box.books.orders[no].phase is Phase.UNDECIDED
    counter.tell(BillSaid(ACCOUNTS[0], "2026-09-01", True, (("paid", "another", "", 500, "4200"),)))
    assert counter.box.books.orders[no].phase is Phase.CLOSED and "goods_given_unpaid" in alerts(counter)


def test_a_bill_that_shows_the_money_back_refunds_nothing():
    counter, no = overdue("CANCEL")
    counter.tell(BillSaid(ACCOUNTS[0], "2026-09-01", True, (("paid", no, "", 500, "4200"), ("refund", no, "", 500, "5000"))))
    assert not counter.box.books.refunds and counter.box.books.orders[no].phase is Phase.CLOSED


# Parts

def test_two_wallets_and_cash_pay_one_sale():
    counter = Counter(TERMS)
    counter.scan(TEA, 2)
    counter.press("300 PAY")
    first = counter.order_no
    assert counter.box.books.orders[first].intent.amount_fen == 300
    counter.tell(QrReady(first, "weixin://1"))
    counter.say(first, Said.PAID, 300)
    assert counter.phase == "BASKET" and counter.box.books.basket.due_fen == 700
    counter.press("200 CASH")
    counter.press("CODE")
    counter.tell(Scanned(ALIPAY_CODE))
    second = counter.order_no
    counter.say(second, Said.PAID, 500)
    (sale,) = counter.box.books.sales.values()
    assert [(t.method, t.amount_fen) for t in sale.tenders] == [("wechat", 300), ("cash", 200), ("alipay", 500)]
    assert counter.box.books.wallet_fen == 800


def test_a_dropped_basket_gives_its_wallet_part_back():
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("300 PAY")
    no = counter.order_no
    counter.say(no, Said.PAID, 300)
    counter.press("CANCEL")
    (refund,) = counter.box.books.refunds.values()
    assert (refund.intent.order_no, refund.intent.amount_fen, refund.cause) == (no, 300, "dropped")
    counter.tell(RefundSaid(refund.intent.refund_no, RefundWord.DONE, 300))
    assert counter.box.books.wallet_fen == 0 and not counter.box.books.basket.lines


def test_a_part_that_is_more_than_is_due_is_refused():
    counter = Counter(TERMS)
    counter.scan(TEA)
    assert counter.press("501 PAY").refused and not counter.box.books.orders


def test_goods_cannot_be_given_on_a_part():
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("300 PAY")
    no = counter.order_no
    assert counter.press("PARK ENTER").refused and not counter.box.books.orders[no].park


# Routes

def test_a_route_that_gives_no_qr_is_left_once_it_is_known_dead():
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("PAY")
    first = counter.order_no
    counter.mono_ms += 8_000
    counter.tell(Rang(("slow", first)))
    assert counter.phase == "CANCELLING" and len(counter.box.books.orders) == 1        # never two live routes
    counter.say(first, Said.ABSENT)
    second = counter.order_no
    assert counter.box.books.orders[second].intent.channel == "gateway" and second != first
    counter.mono_ms += 8_000
    counter.tell(Rang(("slow", second)))
    assert counter.box.books.orders[second].phase is Phase.PLACING                     # there is no third


def test_a_channel_that_is_down_is_passed_over():
    counter = Counter(TERMS)
    for _ in range(3):
        counter.scan(TEA)
        counter.press("PAY")
        no = counter.order_no
        counter.mono_ms += 8_000
        counter.tell(Rang(("slow", no)))
        counter.say(no, Said.CLOSED)
        again = counter.order_no
        counter.tell(QrReady(again, "https://q"))
        counter.say(again, Said.PAID, 500)
    counter.scan(TEA)
    counter.press("PAY")
    assert counter.box.books.orders[counter.order_no].intent.channel == "gateway"


@pytest.mark.parametrize("word", ["gone", "slow", "lying"])
def test_a_channel_that_does_not_answer_about_an_open_payment_gets_no_other_meanwhile(word):
    """Its close would not be answered either, and the customer would wait for that as well."""
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("PAY")
    counter.tell(DeviceSaid("channel:wechat", word))
    counter.press("CASH")                                     # it stays open there, and is asked about
    counter.scan(TEA)
    counter.press("PAY")
    assert counter.box.books.orders[counter.order_no].intent.channel == "gateway"
    counter.press("CASH")
    counter.tell(DeviceSaid("channel:wechat", "ok"))
    counter.scan(TEA)
    counter.press("PAY")
    assert counter.box.books.orders[counter.order_no].intent.channel == "wechat"


def test_a_channel_that_did_not_answer_and_is_asked_nothing_is_tried():
    counter = Counter(TERMS)
    counter.tell(DeviceSaid("channel:wechat", "gone"))
    counter.scan(TEA)
    counter.press("PAY")
    assert counter.box.books.orders[counter.order_no].intent.channel == "wechat"


def test_a_named_wallet_falls_back_to_the_gateway_and_no_further():
    counter = Counter(TERMS)
    counter.tell(DeviceSaid("channel:alipay", "error"))
    counter.scan(TEA)
    counter.press("2 PAY")
    assert counter.box.books.orders[counter.order_no].intent.channel == "gateway"


# Instalments

def test_instalments_stand_in_the_intent_and_in_the_record():
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.tell(Scanned("TBC-FQ-6-SHOP-7Q4K"))
    counter.press("2 PAY")
    no = counter.order_no
    assert counter.box.books.orders[no].intent.extras == (("fee_payer", "shop"), ("instalments", "6"))
    counter.say(no, Said.PAID, 500)
    sale = next(json.loads(f.body) for f in facts_of(counter) if isinstance(f, wire.RecordDue) and f.kind == "sale")
    assert (sale["tenders"][0]["instalments"], sale["tenders"][0]["fee_payer"]) == (6, "shop")
    counter.scan(COLA)
    counter.press("2 PAY")
    assert counter.box.books.orders[counter.order_no].intent.extras == ()


@pytest.mark.parametrize("symbol", ["TBC-FQ-6-SHOP", "TBC-FQ-6-SHOP-", "TBC-FQ-6-SHOP-7Q4L", "TBC-FQ-6-SHOP-7Q4K-"])
def test_a_card_that_anybody_can_show_makes_the_shop_bear_no_fee(symbol):
    counter = Counter(TERMS)
    counter.scan(TEA)
    verdict = counter.tell(Scanned(symbol))
    assert verdict.refused and not counter.box.desk.extras and "7Q4" not in "".join(verdict.words)
    assert Counter(msgspec.structs.replace(TERMS, instalment_code="")).tell(Scanned("TBC-FQ-6-SHOP-")).refused
    assert not counter.tell(Scanned("TBC-FQ-6-PAYER")).refused


def test_a_channel_without_instalments_is_not_asked_for_them():
    counter = Counter(msgspec.structs.replace(TERMS, accounts=ACCOUNTS[:1]))
    counter.scan(TEA)
    counter.tell(Scanned("TBC-FQ-6-SHOP-7Q4K"))
    assert counter.press("1 PAY").refused and counter.tell(Scanned("TBC-FQ-7-SHOP-7Q4K")).refused


# "I have paid"

def test_the_number_on_the_phone_is_answered_in_words():
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("PAY")
    no = counter.order_no
    assert "not decided" in counter.tell(Scanned(no)).words[1]
    counter.say(no, Said.PAID, 500)
    assert "paid" in counter.tell(Scanned(no)).words[1]
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("ENTER")
    assert "given back" in counter.tell(Scanned(no)).words[1]


@pytest.mark.parametrize(("number", "word"), [("ours", "Nobody"), ("theirs", "Not of this box")])
def test_a_number_nobody_here_made(number, word):
    from device.txn.numbers import order_number
    counter = Counter(TERMS)
    no = order_number("000001" if number == "ours" else "000002", counter.box.books.salt, 77)
    verdict = counter.tell(Scanned(no))
    if counter.box.desk.looking:
        from device.txn.inputs import Recalled
        verdict = counter.tell(Recalled(no, tuple(counter.journal.recall(no))))
    assert word in verdict.words[1] and not counter.box.desk.mode


# Approval

BOSS = Supervisor("王", badge_hash("BOSS-1"), pin_hash("4711", "x"))


def refunding(amount: str = "ENTER") -> Counter:
    counter = Counter(msgspec.structs.replace(TERMS, approve_refund_fen=300, supervisors=(BOSS,)))
    counter.scan(TEA)
    counter.press("PAY")
    no = counter.order_no
    counter.say(no, Said.PAID, 500)
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press(amount)
    return counter


def test_a_small_refund_needs_nobody():
    assert len(refunding("300 ENTER").box.books.refunds) == 1


def test_a_large_refund_waits_for_badge_and_pin():
    counter = refunding()
    assert not counter.box.books.refunds
    counter.press("4 7 1 1 ENTER")
    assert not counter.box.books.refunds                                  # a PIN without a badge
    counter.tell(Scanned("BOSS-1"))
    counter.press("4 7 1 1")
    assert "4711" not in render(counter.box.books, counter.box.desk).typed
    counter.press("ENTER")
    (refund,) = counter.box.books.refunds.values()
    assert refund.approved_by == "王" and not any(b"4711" in r.facts or b"BOSS-1" in r.facts for r in counter.journal.durable)


def test_three_wrong_pins_end_it_and_are_recorded():
    counter = refunding()
    assert counter.tell(Scanned("BOSS-2")).refused
    counter.tell(Scanned("BOSS-1"))
    for _ in range(3):
        counter.press("1 1 1 1 ENTER")
    assert not counter.box.books.refunds and alerts(counter) == ["approval_refused"] and not counter.box.desk.mode


# Refunds that fail later, and counts

def test_a_refund_that_the_channel_could_not_pay_out_is_told_once_and_stands():
    counter = refunding("300 ENTER")
    (no,) = counter.box.books.refunds
    for _ in range(2):
        counter.tell(RefundSaid(no, RefundWord.ABNORMAL, detail="account closed"))
    assert alerts(counter) == ["refund_stuck"] and no in counter.box.books.refunds


def test_attempts_are_counted_by_channel_and_hour_with_their_causes():
    counter, no = paying_by_code()
    counter.say(no, Said.REFUSED)
    counter.press("1 PAY")
    second = counter.order_no
    counter.mono_ms += 3_000
    counter.say(second, Said.PAID, 500)
    tallies = counter.box.books.day.tallies
    assert tallies["wechat code 10"].failed == {"refused": 1}
    assert (tallies["wechat qr 10"].paid, tallies["wechat qr 10"].ms) == (1, 3_000)
    counter.press("Z")
    report = next(json.loads(f.body) for f in facts_of(counter) if isinstance(f, wire.RecordDue) and f.kind == "z_report")
    assert [(c["way"], c["hour"], c["attempts"], c["paid"], c["ms"], c["failed"]) for c in report["channels"]] == [
        ("code", 10, 1, 0, 0, {"refused": 1}), ("qr", 10, 1, 1, 3_000, {})]
    assert any(getattr(part, "right", "") == "1 / 2  3.0 s" for part in counter.printed[-1].paper)


def test_a_long_code_that_looks_like_an_order_number_is_still_a_code():
    from device.txn.numbers import order_number_ok
    code = "28000000000000229651"
    assert order_number_ok(code)
    counter, no = paying_by_code(code)
    assert counter.box.books.orders[no].intent.channel == "alipay"


# Found by the search of every order of events (sim.search), and mended

def closed_by_its_undo() -> tuple[Counter, str]:
    counter, no = paying_by_code()
    counter.press("CANCEL")
    counter.tell(undone(no, Said.CLOSED))
    assert counter.box.books.orders[no].phase is Phase.CLOSED
    return counter, no


def test_a_paid_that_is_older_than_the_undo_refunds_nothing_beside_it():
    """The charge took its time to answer; meanwhile the reversal gave the money back."""
    counter, no = closed_by_its_undo()
    counter.say(no, Said.PAID, 500)
    assert no in counter.wants("CloseOrder") and not counter.box.books.refunds
    counter.tell(undone(no, Said.CLOSED))
    assert not counter.box.books.refunds and counter.box.books.wallet_fen == 0 and alerts(counter) == ["undone"]


def test_a_paid_that_is_told_again_and_again_is_given_back_and_counted_once():
    counter, no = paying_by_code()
    counter.press("CANCEL")
    for _ in range(3):
        counter.say(no, Said.PAID, 500)
        counter.tell(undone(no, Said.CLOSED))
    assert alerts(counter) == ["undone"] and counter.box.books.day.tallies["wechat code 10"].failed == {"cashier": 1}


def test_a_charge_that_comes_after_its_undo_is_undone_too():
    counter, no = closed_by_its_undo()
    counter.say(no, Said.PAID, 500)
    counter.tell(undone(no, Said.REFUSED))
    assert [r.intent.order_no for r in counter.box.books.refunds.values()] == [no]      # and one that never can be is refunded


def test_silence_forgets_no_closed_number_the_channels_next_word_does():
    """Paid a moment after its close, and then the line was down for longer than the channel's own patience."""
    counter, no = closed_by_its_undo()
    counter.mono_ms += 90_000_000
    counter.tell(Rang(("order", no)))
    assert no in counter.wants("QueryOrder") and any(type(e).__name__ == "FetchBill" for e in counter.running)
    counter.say(no, Said.UNKNOWN)
    assert no in counter.box.books.orders
    counter.say(no, Said.CLOSED)
    assert no not in counter.box.books.orders and not any(type(e).__name__ == "FetchBill" for e in counter.running)


def test_a_bill_that_names_a_closed_order_as_paid_is_heard():
    counter = Counter(TERMS)
    counter.scan(TEA)
    no = counter.pay()
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    counter.mono_ms += 90_000_000
    counter.tell(Rang(("order", no)))
    counter.tell(BillSaid(ACCOUNTS[0], "2026-09-01", True, (("paid", no, "", 500, "4200"),)))
    assert [r.intent.order_no for r in counter.box.books.refunds.values()] == [no]


@pytest.mark.parametrize("keys", ["CANCEL", "CASH", "PARK CANCEL"])
def test_what_runs_is_what_is_wanted_after_a_key_on_an_undecided_order(keys):
    from device.txn.wants import wants
    counter = Counter(TERMS)
    counter.scan(TEA)
    no = counter.pay()
    counter.press("CANCEL")
    counter.mono_ms += 90_000_000
    counter.tell(Rang(("overdue", no)))
    counter.press(keys)
    assert {e for e in wants(counter.box.books, counter.box.desk) if e.kind == "repeatable"} == counter.running
