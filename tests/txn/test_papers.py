"""Receipts and other papers, told as stories: what is printed, and what never twice."""

from __future__ import annotations

import msgspec
import pytest

from device.box import Box
from device.txn import facts as wire
from device.txn import show
from device.txn.check_words import THINGS
from device.txn.effects import Cut, Pair, QrCode, Text
from device.txn.inputs import (
    DeviceSaid,
    Printed,
    PrintRefused,
    PrintUnsure,
    Recalled,
    Said,
    Scanned,
    Started,
)
from device.txn.wants import wants
from device.types import Stamp
from tests.counter import COLA, TEA, Counter, counter_paying


def test_at_most_one_receipt_without_copy():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REPRINT REPRINT")
    copies = [p.paper[0].text for p in counter.printed]
    assert ["COPY" in text for text in copies] == [False, True, True]
    assert "COPY 2" in copies[2]


def test_paper_that_may_not_be_whole_is_never_printed_again_by_itself():
    counter, no = counter_paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    counter.tell(PrintUnsure(1, "cable"))
    counter.cut_power()
    assert not [e for e in wants(counter.box.books, counter.box.desk) if type(e).__name__ == "Print"]


def test_a_cut_while_printing_asks_a_person():
    counter, no = counter_paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    counter.printer = True
    counter.cut_power()
    assert counter.printed == [] and "COPY" in counter.box.desk.words[1]


def test_paper_waits_for_a_printer_that_took_no_byte():
    from device.txn.inputs import DeviceSaid
    counter, no = counter_paying()
    counter.printer = False
    counter.say(no, Said.PAID, 500)
    counter.tell(PrintRefused(1, "paper_out", "no paper"))
    counter.printer = True
    assert counter.printed == []
    counter.tell(DeviceSaid("printer", "ok"))
    assert len(counter.printed) == 1


def test_a_drawer_never_opens_late():
    from device.txn.inputs import DeviceSaid
    counter = Counter()
    counter.tell(DeviceSaid("printer", "gone"))
    counter.scan(TEA)
    counter.press("CASH")
    assert counter.box.books.kicks == {}


def test_a_copy_settles_the_paper_that_nobody_was_sure_of():
    counter = Counter(printer=False)
    counter.scan(TEA)
    counter.press("CASH")
    counter.tell(PrintUnsure(1, "it went silent"))
    counter.press("REPRINT")
    counter.tell(Printed(2, 3))
    assert show.state(counter.box.books, counter.box.desk, 0)["papers"] == []
    assert [p.state for p in counter.box.books.papers.values()] == ["copied", "printed"]


def recalled(counter: Counter, no: str):
    """The journal answers what the box looks for, until it looks for nothing more."""
    verdict = None
    while no:
        verdict = counter.tell(Recalled(no, tuple(counter.journal.recall(no))))
        no = counter.box.desk.looking
    return verdict


def test_a_report_of_long_ago_is_printed_again_by_its_barcode_or_its_number():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH Z X Z")
    code = next(p.text for p in counter.printed[1].paper if type(p).__name__ == "Barcode")
    counter.box.books.papers.clear()                          # long ago
    counter.press("0 REPRINT")
    counter.tell(Scanned(code))
    recalled(counter, code)
    assert counter.printed[-1].paper[1:] == counter.printed[1].paper and "COPY 1" in counter.printed[-1].paper[0].text
    counter.box.books.papers.clear()
    counter.press("0 REPRINT 1 Z")
    recalled(counter, code)
    assert "COPY 2" in counter.printed[-1].paper[0].text and counter.box.books.day.z_no == 2      # and no day was closed by it
    counter.press("0 REPRINT X")
    recalled(counter, counter.box.desk.looking)
    assert "X report" in str(counter.printed[-1].paper)
    counter.press("0 REPRINT 9 Z")
    assert recalled(counter, counter.box.desk.looking).refused


def test_copies_are_counted_over_the_life_of_a_receipt():
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REPRINT")
    for n in (2, 3):
        counter.box.books.papers.clear()                      # long ago
        counter.press("0 REPRINT")
        counter.tell(Scanned(no))
        recalled(counter, no)
        assert f"COPY {n}" in counter.printed[-1].paper[0].text
    counter.box.books.sales.clear()
    counter.press("REFUND")                                   # copies are no sales
    counter.tell(Scanned(no))
    recalled(counter, no)
    assert "5.00" in counter.box.desk.words[1]


def test_the_first_receipt_of_a_day_is_found_beside_the_report_in_its_row():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH")
    counter.wall = "2026-09-02T10:00:00+08:00"
    counter.scan(COLA)
    counter.press("CASH")
    no = list(counter.box.books.sales)[-1]
    receipt, report = (p.paper for p in counter.printed[-2:])
    counter.box.books.papers.clear()
    for code, paper in ((no, receipt), (next(p.text for p in report if type(p).__name__ == "Barcode"), report)):
        counter.press("0 REPRINT")
        counter.tell(Scanned(code))
        recalled(counter, code)
        assert counter.printed[-1].paper[1:] == paper


def test_a_box_without_a_printer_keeps_the_newest_papers_waiting_and_loses_none():
    from device.txn.books import WAITING_MAX
    counter = Counter()
    counter.tell(DeviceSaid("printer", "gone"))
    for _ in range(WAITING_MAX + 5):
        counter.scan(COLA)
        counter.press("CASH")
    papers = counter.box.books.papers
    assert [p.job for p in papers.values()] == list(range(6, WAITING_MAX + 6))
    assert show.state(counter.box.books, counter.box.desk, 0)["papers_shelved"] == 5
    assert any("更早 5 张" in part for part in show.footer(counter.box.books, counter.box.desk))
    counter.journal.sync()
    assert Box.folded(counter.journal) == counter.box.books
    facts = [f for row in counter.journal.durable for f in wire.decode(row.facts).facts]
    first = next(f.sale.order_no for f in facts if isinstance(f, wire.SaleClosed))
    counter.tell(DeviceSaid("printer", "ok"))
    assert len(counter.printed) == WAITING_MAX                # the newest came out, in their order
    counter.press("0 REPRINT")
    counter.tell(Scanned(first))
    recalled(counter, first)
    assert "COPY 1" in counter.printed[-1].paper[0].text and first in str(counter.printed[-1].paper)
    counter.press("Z")
    assert counter.box.books.shelved == 0


def minutes_later(counter: Counter, minutes: int) -> None:
    """Time passes for both clocks."""
    import datetime
    counter.mono_ms += minutes * 60_000
    counter.wall = (datetime.datetime.fromisoformat(counter.wall) + datetime.timedelta(minutes=minutes)).isoformat()


def booted_anew(counter: Counter, clk: str, up_ms: int) -> None:
    """The box starts with a clock of quality `clk` on a machine that is up for `up_ms`."""
    counter.journal.cut()
    counter.box, counter.boots, counter.mono_ms = Box(counter.journal), counter.boots + 1, 0
    started = Started(f"boot{counter.boots}", "test", counter.terms, counter.seed, "kid", up_ms=up_ms)
    counter.box.handle(started, Stamp(f"boot{counter.boots}", 0, counter.wall, clk))


def sold_without_paper(sales: int = 3) -> Counter:
    counter = Counter()
    counter.tell(DeviceSaid("printer", "gone"))
    for _ in range(sales):
        counter.scan(TEA)
        counter.press("CASH")
    return counter


def test_a_printer_that_comes_back_in_the_morning_does_not_print_last_night():
    for cut in (False, True):
        counter = sold_without_paper()
        counter.press("Z")
        minutes_later(counter, 600)
        if cut:                                        # the box was off as well, and its monotonic clock knows nothing
            counter.cut_power()
        counter.tell(DeviceSaid("printer", "ok"))
        assert [p.paper[2].text for p in counter.printed] == ["Z 报表 / Z report  No. 1"]    # what the shop itself needs
        assert "3" in counter.box.desk.words[1] and "REPRINT" in counter.box.desk.words[1]
        waiting = show.state(counter.box.books, counter.box.desk, counter.mono_ms)["papers"]
        assert [(p["state"], p["age_s"]) for p in waiting] == [("late", 36_000)] * 3
        counter.press("4 REPRINT")                     # the first of them: never printed, so it is no copy
        assert counter.printed[-1].job == 1 and "COPY" not in str(counter.printed[-1].paper)
        counter.press("4 REPRINT")
        assert "COPY 1" in counter.printed[-1].paper[0].text
        counter.press("Z")                             # the day is over: the rest is found in the journal
        assert not [p for p in counter.box.books.papers.values() if p.state == "late"]


def test_a_printer_that_was_away_for_a_minute_prints_what_it_missed():
    counter = sold_without_paper()
    minutes_later(counter, 1)
    counter.tell(DeviceSaid("printer", "paper_low"))
    assert [p.job for p in counter.printed] == [1, 2, 3]


def test_a_late_copy_is_what_reprint_prints_and_nothing_waits_unseen():
    counter = sold_without_paper(1)
    counter.tell(DeviceSaid("printer", "ok"))
    counter.tell(DeviceSaid("printer", "gone"))
    counter.press("REPRINT")
    counter.journal.sync()
    minutes_later(counter, 600)
    for _ in range(2):                                 # each start says so, not only the first
        counter.cut_power()
        assert "REPRINT" in counter.box.desk.words[1]
    assert "Papers that wait: 1" in show.footer(counter.box.books, msgspec.structs.replace(
        counter.box.desk, terms=msgspec.structs.replace(counter.terms, lang="en")))
    counter.press("REPRINT")
    assert [(p.job, "COPY 1" in p.paper[0].text) for p in counter.printed] == [(1, False), (2, True)]
    assert not [p for p in counter.box.books.papers.values() if p.state != "printed"]


@pytest.mark.parametrize(("clk", "up_ms", "asks"), [
    ("unset", 9_000, True),                            # switched on again, and nothing has set the clock: it goes on where it stood
    ("restored", 9_000, True), ("ntp", 9_000, False), ("anchored", 9_000, False),
    ("unset", 400_000, False),                         # the program alone was started again
    ("unset", 0, False)])                              # a machine that does not say how long it is up
def test_without_a_time_a_receipt_of_before_the_night_asks_a_person(clk, up_ms, asks):
    counter = Counter()
    booted_anew(counter, "ntp", 10_000)
    minutes_later(counter, 5)
    counter.tell(DeviceSaid("printer", "gone"))
    counter.scan(TEA)
    counter.press("CASH")
    counter.journal.sync()
    booted_anew(counter, clk, up_ms)
    counter.tell(DeviceSaid("printer", "ok"))
    assert [p.state for p in counter.box.books.papers.values()] == (["late"] if asks else ["started"])


def test_a_clock_that_went_back_makes_old_papers_old():
    counter = sold_without_paper()
    counter.wall = "1970-01-01T08:00:00+08:00"
    counter.cut_power()
    assert counter.printed == [] and "3" in counter.box.desk.words[1]


def test_how_well_a_paper_is_known_to_be_printed_is_said():
    counter = Counter(printer=False)
    truths = []
    for job, proof in ((1, 0), (2, 3)):
        counter.scan(TEA)
        counter.press("CASH")
        counter.tell(Printed(job, proof))
        truths.append(show.state(counter.box.books, counter.box.desk, 0)["paper_last"]["truth"])
    assert truths == ["已发送，未确认", "已打印"]


def test_the_receipt_stands_on_the_display_while_no_paper_can_be_had():
    from msgspec.structs import replace

    from tests.counter import TERMS
    counter = Counter(replace(TERMS, receipt_url="https://r.example/{no}?f={fen}"))
    counter.scan(TEA)
    counter.press("CASH")
    assert show.render(counter.box.books, counter.box.desk).receipt_qr == ""
    counter.tell(DeviceSaid("printer", "paper_out"))
    counter.scan(TEA)
    assert show.render(counter.box.books, counter.box.desk).receipt_qr == ""          # a basket lies there
    counter.press("CASH")
    no = list(counter.box.books.sales)[-1]
    assert show.render(counter.box.books, counter.box.desk).receipt_qr == f"https://r.example/{no}?f=500"
    counter.tell(DeviceSaid("printer", "ok"))
    assert show.render(counter.box.books, counter.box.desk).receipt_qr == "" and len(counter.printed) == 2


def test_a_drawer_opens_for_its_causes_and_the_record_names_them():
    from tests.counter import records
    counter, no = counter_paying()
    counter.say(no, Said.PAID, 500)
    counter.press("REPRINT X Z")
    kicks = lambda: [e for e in counter.once if type(e).__name__ == "KickDrawer"]   # noqa: E731
    assert kicks() == []                               # neither a wallet's sale, nor a reprint, nor a report
    counter.tell(DeviceSaid("printer", "paper_out"))   # change is due also without paper
    counter.scan(TEA)
    counter.press("CASH REPRINT DRAWER")
    assert len(kicks()) == 2
    counter.scan(TEA)
    counter.press("200 CASH CANCEL")
    assert len(kicks()) == 4
    said = [(r["kind"], r.get("drawer") or r.get("cause")) for r in records(counter) if r["kind"] in ("sale", "drawer", "void")]
    assert said == [("sale", None), ("sale", "cash sale"), ("drawer", "key"), ("drawer", "part cash"), ("void", "cash back")]
    counter.tell(DeviceSaid("printer", "gone"))
    assert counter.press("DRAWER").refused and len(kicks()) == 4


def test_a_drawer_may_want_a_supervisor():
    from msgspec.structs import replace

    from device.txn.approval import badge_hash, pin_hash
    from device.types import Supervisor
    from tests.counter import TERMS, records
    boss = Supervisor("Wang", badge_hash("BADGE-1"), pin_hash("2468", "s"))
    counter = Counter(replace(TERMS, approve_drawer=True, supervisors=(boss,)))
    kicks = lambda: [e for e in counter.once if type(e).__name__ == "KickDrawer"]   # noqa: E731
    counter.press("DRAWER")
    counter.tell(Scanned("BADGE-1"))
    assert counter.phase == "IDLE"                     # no refund stands on the customer's screen
    counter.press("2468 ENTER")
    assert len(kicks()) == 1 and records(counter)[-1] | {"approved_by": "Wang", "cause": "key"} == records(counter)[-1]
    counter.press("DRAWER CANCEL")
    counter.tell(Scanned("BADGE-1"))
    counter.press("2468 ENTER DRAWER")
    counter.tell(Scanned("BADGE-1"))
    counter.press("1111 ENTER")
    assert len(kicks()) == 1


def test_a_shown_receipt_may_be_signed_and_say_all_of_itself(tmp_path):
    import asyncio
    import json
    from base64 import urlsafe_b64decode

    from msgspec.structs import replace

    from device.drivers.signer.file import FileSigner
    from device.store_forward.es256 import public_verifier
    from device.store_forward.token import TokenError, parse
    from device.txn.effects import SignReceipt
    from tests.counter import TERMS
    signer = FileSigner(tmp_path / "record.key", make=True)
    counter = Counter(replace(TERMS, receipt_url="https://r.example/#{jws}"))
    counter.tell(DeviceSaid("printer", "paper_out"))
    counter.scan(TEA)
    counter.press("CASH")
    no = list(counter.box.books.sales)[-1]
    (effect,) = [e for e in counter.running if isinstance(e, SignReceipt)]
    assert show.render(counter.box.books, counter.box.desk).receipt_qr == ""          # not before it is signed
    counter.tell(asyncio.run(signer.do(replace(effect, kid=""))))
    assert not [e for e in counter.running if isinstance(e, SignReceipt)]
    shown = show.render(counter.box.books, counter.box.desk).receipt_qr
    token = shown.removeprefix("https://r.example/#")
    assert len(shown) < 512                            # what a QR on a till's screen may hold
    body = token.split(".")[1]
    assert json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4))) == {
        "box": "box-1", "receipt": no, "amount_fen": 500, "at": counter.wall}
    to_sign, _, signature = token.rpartition(".")
    assert public_verifier(signer.jwk)(to_sign.encode(), urlsafe_b64decode(signature + "=="))
    with_record = None
    try:
        with_record = parse(token)
    except TokenError:
        pass
    assert with_record is None                         # nobody can pass it off as a record
    counter.scan(TEA)                                  # the next customer's receipt is not this one's
    counter.press("CASH")
    assert show.render(counter.box.books, counter.box.desk).receipt_qr == ""


def test_the_two_words_that_stood_beside_the_qr_stand_on_the_receipt():
    counter = Counter()
    counter.scan(TEA)
    no = counter.pay()
    words = show.render(counter.box.books, counter.box.desk).words
    counter.say(no, Said.PAID, 500)
    told = [part.text for part in counter.printed[-1].paper if isinstance(part, Text)]
    assert f"核对 Check {words[0]} {words[1]}" in told
    counter.scan(TEA)
    counter.press("CASH")
    assert not any("核对" in part.text for part in counter.printed[-1].paper if isinstance(part, Text))


def test_no_pair_of_words_is_too_wide_for_the_narrow_paper():
    assert all(len(f"核对 Check {zh} 99 {en} 99".encode("gbk")) <= 32 for zh, en in THINGS)
    assert len(THINGS) == len(set(THINGS)) == 32


# What stands of a paper in the journal

def test_a_paper_is_kept_without_what_is_as_usual_and_one_written_in_full_is_the_same():
    plain = (Text("便利店", "c", 2, True), Text("a"), Pair("x", "y"), Pair("合计", "¥1.00", 2, True), QrCode("n"), QrCode("n", 4),
             Cut())
    entry = wire.Entry(Stamp("b1", 1, "2026-09-01T08:00:00.000+08:00", "ntp"), (wire.ReceiptDue(1, "sale", "n", plain),))
    row = wire.encode(entry)
    assert b'{"type":"Text","text":"a"}' in row and b'{"type":"Pair","left":"x","right":"y"}' in row
    full = row.replace(b'"text":"a"}', b'"text":"a","align":"l","size":1,"bold":false}').replace(
        b'"right":"y"}', b'"right":"y","size":1,"bold":false}').replace(b'"QrCode","text":"n"}', b'"QrCode","text":"n","module":6}')
    assert len(full) == len(row) + 67 and wire.decode(full) == wire.decode(row) == entry
