"""Commands from afar at the core: who may, what follows, and that an id is done once, whatever is cut in between."""

from __future__ import annotations

import json

import pytest

from device.mqtt.cmd_wire import AGAIN, REFUND_FEN_MAX, ROLES, VERBS
from device.txn import facts as wire
from device.txn.books import COMMANDS_MAX
from device.txn.inputs import Asked, ChannelSaid, Pressed, RefundSaid, RefundWord, Said, Scanned
from tests.counter import COLA, TEA, Counter, counter_paying, records
from tests.txn.test_bills import overdue
from tests.txn.test_paying import TERMS

ARGS = {"refund": "00000100000000000000 1", "let go": "00000100000000000000"}


def rows(counter: Counter) -> list:
    return [fact for row in counter.journal.durable for fact in wire.decode(row.facts).facts]


def commands(counter: Counter) -> list[dict]:
    """Records of commands that are on the card, not only due in memory."""
    return [json.loads(f.body) for f in rows(counter) if isinstance(f, wire.RecordDue) and f.kind == "command"]


def sold(*goods) -> tuple[Counter, str]:
    counter, no = counter_paying(*goods)
    counter.say(no, Said.PAID, sum(g.item.price_fen for g in goods))
    return counter, no


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_is_for_its_roles_and_leaves_a_record_either_way(verb):
    for role in ROLES:
        counter = Counter()
        verdict = counter.tell(Asked("command-1", verb, ARGS.get(verb, ""), f"li:{role}"))
        assert (verdict.told.name == "role") == (role not in VERBS[verb].roles)
        assert [(c["id"], c["verb"], c["by"]) for c in commands(counter)] == [("command-1", verb, f"li:{role}")]


@pytest.mark.parametrize(("verb", "arg", "name"), [
    ("mark paid", "", "verb"), ("sh", "-c ls", "verb"), ("status", "all", "args"), ("logs", "0", "args"), ("logs", "501", "args"),
    ("logs", "-1", "args"), ("refund", "", "args"), ("refund", "00000100000000000000 0", "args"),
    ("refund", f"00000100000000000000 {REFUND_FEN_MAX + 1}", "args"), ("refund", "00000100000000000000 1 x", "args"),
    ("reboot", "\n", "args"), ("let go", "", "args"), ("let go", "00000100000000000000 now", "args"), ("let go", "0" * 19, "args")])
def test_what_is_no_command_is_refused_by_name_and_changes_nothing(verb, arg, name):
    counter = Counter()
    verdict = counter.tell(Asked("command-1", verb, arg, "wang:admin"))
    assert (verdict.told.ok, verdict.told.name) == (False, name) and verdict.told.said
    assert commands(counter) == [{"id": "command-1", "verb": verb if verb in VERBS else "unknown", "by": "wang:admin",
                                  "outcome": "refused", "why": name}]


def test_no_verb_marks_an_order_as_paid():
    for verb in VERBS:
        counter, no = counter_paying(TEA)
        before = len(rows(counter))
        counter.tell(Asked("command-1", verb, {"refund": f"{no} 500", "let go": no}.get(verb, ""), "wang:admin"))
        said = {type(f).__name__ for f in rows(counter)[before:]}
        assert not said & {"PaymentConfirmed", "SaleClosed", "TenderTaken"} and counter.phase == "AWAITING", verb


def test_an_id_has_one_answer_for_ever_and_another_command_under_it_is_refused():
    counter = Counter()
    first = counter.tell(Asked("command-1", "print test", "", "li:lead"))
    counter.cut_power()
    again = counter.tell(Asked("command-1", "print test", "", "li:lead"))
    assert again.told == first.told and again.facts == [] and len(counter.printed) == 1
    assert counter.tell(Asked("command-1", "reboot", "", "wang:admin")).told.name == "id"
    assert len(commands(counter)) == 1


def test_a_command_cut_before_its_row_was_kept_is_simply_not_done():
    counter = Counter()
    counter.journal.sync = lambda: None                 # the power goes before the card has it: nobody was told either
    counter.tell(Asked("command-1", "reboot", "", "wang:admin"))
    del counter.journal.sync
    counter.once.clear()
    counter.cut_power()
    assert not counter.box.books.commands and not counter.once


def test_a_new_record_key_is_wished_for_once_at_a_time():
    counter = Counter()
    assert counter.tell(Asked("command-1", "rotate key", "", "wang:admin")).told.ok
    assert any(isinstance(f, wire.KeyWished) for f in rows(counter))
    refused = counter.tell(Asked("command-2", "rotate key", "", "wang:admin")).told
    assert refused.name == "key" and refused.name not in AGAIN, "it would be asked again for ever, and answered the same"


def test_old_ids_are_forgotten_and_the_books_stay_small():
    counter = Counter()
    for n in range(COMMANDS_MAX + 5):
        counter.tell(Asked(f"command-{n}", "status", "", "li:lead"))
    assert len(counter.box.books.commands) == COMMANDS_MAX and "command-4" not in counter.box.books.commands


def test_a_restart_waits_for_the_customer_and_happens_once_over_all_boots():
    counter = Counter()
    counter.scan(TEA)
    assert counter.tell(Asked("command-1", "reboot", "", "chen:technician")).told.ok
    assert not counter.once
    counter.press("CLEAR")
    assert [type(e).__name__ for e in counter.once] == ["Reboot"]
    assert any(isinstance(f, wire.RebootStarted) for f in rows(counter)), "it began before it was on the card"
    counter.cut_power()
    counter.tell(Asked("command-1", "reboot", "", "chen:technician"))
    assert [type(e).__name__ for e in counter.once] == ["Reboot"]


def test_a_power_cut_fulfils_a_restart_that_nobody_began():
    counter = Counter()
    counter.scan(TEA)
    counter.tell(Asked("command-1", "reboot", "", "chen:technician"))
    counter.cut_power()
    counter.press("CLEAR")
    assert not counter.once


def test_a_refund_from_afar_goes_to_the_wallet_and_its_record_names_who_asked():
    counter, no = sold(TEA, COLA)
    told = counter.tell(Asked("command-1", "refund", f"{no} 250", "zhao:accountant")).told
    (refund_no,) = counter.wants("RefundOrder")
    assert told.ok and refund_no in told.said
    counter.cut_power()
    assert counter.tell(Asked("command-1", "refund", f"{no} 250", "zhao:accountant")).told == told
    assert counter.wants("RefundOrder") == {refund_no}
    counter.tell(RefundSaid(refund_no, RefundWord.DONE, "R1"))
    body = next(one for one in records(counter) if one["kind"] == "refund")
    assert (body["amount_fen"], body["approved_by"]) == (250, "zhao:accountant")
    assert commands(counter)[0]["args"] == f"{no} 250"


def test_a_refund_from_afar_disturbs_nobody_at_the_counter():
    counter, no = sold(TEA)
    counter.scan(COLA)
    before = (counter.phase, counter.box.desk, counter.box.books.shown)
    counter.tell(Asked("command-1", "refund", f"{no} 500", "zhao:accountant"))
    assert (counter.phase, counter.box.desk, counter.box.books.shown) == before and counter.box.books.refunds


@pytest.mark.parametrize(("case", "name"), [("more", "sum"), ("other box", "sale"), ("unknown", "sale"), ("cash", "sum"),
                                            ("twice", "sum"), ("before the first is through", "refund")])
def test_the_rules_of_money_hold_from_afar(case, name):
    counter, no = sold(TEA)
    fen = 500
    if case == "more":
        fen = 501
    elif case == "other box":
        no = "ZZZZZZ" + no[6:]
    elif case == "unknown":
        no = no[:10] + "9999999999"
    elif case == "cash":
        counter.scan(COLA)
        counter.press("CASH")
        no = list(counter.box.books.sales)[-1]
        fen = 250
    else:
        counter.tell(Asked("command-0", "refund", f"{no} {500 if case == 'twice' else 100}", "zhao:accountant"))
        fen = 100
        if case == "twice":
            counter.tell(RefundSaid(*counter.wants("RefundOrder"), RefundWord.DONE, "R1"))
    wanted = len(counter.box.books.refunds)
    told = counter.tell(Asked("command-1", "refund", f"{no} {fen}", "zhao:accountant")).told
    assert (told.ok, told.name) == (False, name), told
    assert len(counter.box.books.refunds) == wanted


@pytest.mark.parametrize(("policy", "goods"), [("ENTER", "given"), ("CANCEL", "kept")])
def test_what_no_channel_and_no_bill_decided_is_let_go_by_a_named_person_and_counts_as_unknown(policy, goods):
    counter = Counter(TERMS)
    no = overdue(counter, policy=policy)
    told = counter.tell(Asked("command-1", "let go", no, "zhao:accountant")).told
    assert told.ok and "unknown" in told.said and no not in counter.box.books.orders and no not in counter.box.books.sales
    assert not counter.wants("QueryOrder") and not counter.box.books.refunds
    (alert,) = [one for one in records(counter) if one["kind"] == "payment_alert" and one["cause"] == "let_go"]
    assert (alert["by"], alert["goods"], alert["amount_fen"]) == ("zhao:accountant", goods, 500)
    counter.cut_power()
    assert no not in counter.box.books.orders
    assert counter.tell(Asked("command-1", "let go", no, "zhao:accountant")).told == told, "the same answer for ever"


def test_a_payment_that_its_channel_can_still_decide_is_not_let_go():
    counter, no = counter_paying(TEA)
    told = counter.tell(Asked("command-1", "let go", no, "zhao:accountant")).told
    assert (told.name, counter.phase) == ("early", "AWAITING") and no in counter.box.books.orders
    counter.press("CANCEL")
    counter.say(no, Said.CLOSED)
    assert counter.tell(Asked("command-2", "let go", no, "zhao:accountant")).told.name == "early", "money may still come late"
    counter.say(no, Said.PAID, 500)
    assert counter.box.books.refunds, "and does"
    assert counter.tell(Asked("command-3", "let go", "00000100000000000000", "zhao:accountant")).told.name == "order"


def test_money_that_the_channel_holds_stands_in_the_record_of_what_was_let_go():
    counter = Counter(TERMS)
    no = overdue(counter)
    counter.tell(ChannelSaid(no, Said.UNKNOWN, 500, detail="its booking is not clear (74)"))
    assert counter.tell(Asked("command-1", "let go", no, "wang:admin")).told.ok
    alert = [one for one in records(counter) if one["kind"] == "payment_alert"][-1]
    assert (alert["cause"], alert["held_fen"]) == ("let_go", 500)


def test_an_older_sale_is_found_in_the_journals_index_with_what_went_back_before():
    counter, no = sold(TEA)
    counter.tell(Asked("command-0", "refund", f"{no} 400", "zhao:accountant"))
    counter.tell(RefundSaid(*counter.wants("RefundOrder"), RefundWord.DONE, "R1"))
    counter.box.books.sales.clear()
    rows_of_sale = tuple(counter.journal.recall(no))
    assert counter.tell(Asked("command-1", "refund", f"{no} 200", "zhao:accountant", recalled=rows_of_sale)).told.name == "sum"
    assert counter.tell(Asked("command-2", "refund", f"{no} 100", "zhao:accountant", recalled=rows_of_sale)).told.ok


def test_a_full_card_answers_questions_and_begins_nothing():
    counter, no = sold(TEA)
    counter.journal.room = 0
    assert counter.tell(Asked("command-1", "status", "", "li:lead")).told.ok
    for n, (verb, arg) in enumerate((("refund", f"{no} 500"), ("print test", ""), ("reboot", ""))):
        assert counter.tell(Asked(f"command-x{n}", verb, arg, "wang:admin")).told.name == "full"
    told = [counter.tell(Asked(f"command-y{n}", "status", "", "li:lead")).told.name for n in range(120)]
    assert 90 < told.count("") < 100 and told[-1] == "full", "the reserve is there for other things"
    counter.journal.room = 1 << 30
    assert counter.tell(Asked("command-x0", "refund", f"{no} 500", "wang:admin")).told.ok, "it may come again"


def test_the_counter_goes_on_as_before_after_a_command():
    counter = Counter()
    counter.tell(Asked("command-1", "status", "", "li:lead"))
    counter.tell(Scanned(TEA.item.gtin, TEA), Pressed("PAY"))
    assert counter.wants("PlaceOrder") == {counter.order_no}
