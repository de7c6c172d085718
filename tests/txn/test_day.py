"""The business day and its reports, told as stories."""

from __future__ import annotations

import pytest

from device.box import Box
from device.txn import facts as wire
from device.txn.inputs import (
    RefundSaid,
    RefundWord,
    Said,
    Scanned,
)
from tests.counter import COLA, TEA, Counter, records


def test_z_closes_the_day_and_the_grand_total_goes_on():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH Z")
    counter.scan(TEA)
    counter.press("CASH Z")
    reports = [r for r in records(counter) if r["kind"] == "z_report"]
    assert [(r["no"], r["sales_fen"], r["grand_fen"]) for r in reports] == [(1, 500, 500), (2, 500, 1000)]


def test_a_sale_after_midnight_belongs_to_yesterday_until_the_cut_off():
    counter = Counter()
    counter.wall = "2026-09-02T03:59:00+08:00"
    counter.scan(TEA)
    counter.press("CASH")
    assert counter.box.books.day.day == "2026-09-01"


def test_z_of_a_day_without_sales_names_the_business_day():
    counter = Counter()
    counter.wall = "2026-09-02T01:00:00+08:00"
    counter.press("Z")
    assert "2026-09-01" in str([p for p in counter.printed[-1].paper if "Business day" in str(p)])
    assert [r["day"] for r in records(counter) if r["kind"] == "z_report"] == ["2026-09-01"]


def test_x_reports_are_numbered_on_over_a_z():
    counter = Counter()
    counter.press("X Z X")
    assert [(r["kind"], r["no"]) for r in records(counter) if "report" in r["kind"]] == [
        ("x_report", 1), ("z_report", 1), ("x_report", 2)]


def reports(counter: Counter) -> list[tuple]:
    return [(r["no"], r["day"], r["sales_fen"], r["refunds_fen"], r.get("auto", False))
            for r in records(counter) if r["kind"] == "z_report"]


def test_a_forgotten_z_is_made_by_itself_before_the_first_sale_of_the_next_day():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH")
    counter.wall = "2026-09-02T03:59:00+08:00"                # still yesterday's
    counter.scan(COLA)
    counter.press("CASH")
    assert reports(counter) == []
    counter.wall = "2026-09-02T04:00:00+08:00"
    counter.scan(TEA, 2)
    counter.press("CASH")
    assert reports(counter) == [(1, "2026-09-01", 750, 0, True)]
    day = counter.box.books.day
    assert (day.day, day.z_no, day.sales_fen, day.grand_fen) == ("2026-09-02", 1, 1000, 1750)
    assert [p.kind for p in counter.box.books.papers.values()] == ["sale", "sale", "sale", "z"]      # the customer's paper first
    assert "Made by itself" in str(counter.printed[-1].paper)
    row = next(wire.decode(r.facts).facts for r in counter.journal.durable if b"DayClosed" in r.facts)
    kinds = [f.kind if isinstance(f, wire.RecordDue) else type(f).__name__ for f in row]
    assert kinds.index("z_report") < kinds.index("DayClosed") < kinds.index("SaleClosed")
    counter.press("Z")
    assert reports(counter)[1:] == [(2, "2026-09-02", 1000, 0, False)]


@pytest.mark.parametrize("method", ["cash", "wallet"])
def test_a_refund_alone_opens_and_repairs_a_day_too(method):
    counter = Counter()
    counter.scan(TEA)
    if method == "cash":
        counter.press("CASH")
    else:
        counter.say(counter.pay(), Said.PAID, 500)
    (no,) = counter.box.books.sales
    counter.wall = "2026-09-03T12:00:00+08:00"
    counter.press("REFUND")
    counter.tell(Scanned(no))
    counter.press("ENTER")
    for refund in counter.wants("RefundOrder"):
        assert reports(counter) == []                         # asked for; not given back yet
        counter.tell(RefundSaid(refund, RefundWord.DONE))
    assert reports(counter) == [(1, "2026-09-01", 500, 0, True)]
    counter.wall = "2026-09-04T12:00:00+08:00"
    counter.scan(TEA)
    counter.press("CASH")
    assert reports(counter)[1:] == [(2, "2026-09-03", 0, 500, True)]
    counter.journal.sync()
    assert Box.folded(counter.journal) == counter.box.books


def test_a_clock_that_goes_back_closes_no_day():
    counter = Counter()
    counter.scan(TEA)
    counter.press("CASH")
    counter.wall = "2026-08-30T12:00:00+08:00"
    counter.scan(TEA)
    counter.press("CASH")
    assert reports(counter) == [] and counter.box.books.day.sales == 2
