"""Receipts and other papers, told as stories: what is printed, and what never twice."""

from __future__ import annotations

from device.box import Box
from device.txn import facts as wire
from device.txn import show
from device.txn.inputs import (
    DeviceSaid,
    Printed,
    PrintRefused,
    PrintUnsure,
    Recalled,
    Said,
    Scanned,
)
from device.txn.wants import wants
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
