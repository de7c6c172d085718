"""The opening ticket: told once a business day, before its first sale, and never in a sale's way."""

from __future__ import annotations

import asyncio

import pytest

from bench.till import Till
from device.opening import Opening
from device.txn.facts import ReceiptDue, decode
from device.txn.inputs import BoxTried, Ill

WELL = {"code": "ok", "sentence_zh": "全部正常。", "action_zh": "", "findings": [
    {"code": "not_enrolled", "part": "identity", "sentence": "This box is not enrolled.", "action": ""}]}
FINDINGS = [{"code": f"part_{n}", "part": "x", "sentence": f"Part {n} is ill.", "action": "mend it"} for n in range(12)]
ILL = {"code": "printer_paper_low", "sentence_zh": "打印纸将用尽。", "action_zh": "备好新纸卷", "findings": [
    *FINDINGS,
    {"code": "printer_paper_low", "part": "printer", "sentence": "The roll is near its end.", "action": "have a new one at hand"}]}


class Shop:
    def __init__(self, folder, reports):
        self.today, self.counted, self.told, self.asked = "2026-09-01", "", [], 0
        self.opening = Opening("box.toml", str(folder), day=lambda: self.today, sold=lambda: self.counted, post=self.told.append,
                               settle_s=0)
        self.reports = reports
        self.opening._doctor = self.doctor

    async def doctor(self):
        self.asked += 1
        return self.reports.pop(0)


async def turns(n=20):
    for _ in range(n):
        await asyncio.sleep(0)


def played(shop, *moves):
    async def day():
        work = asyncio.create_task(shop.opening.run())
        await turns()
        for move in moves:
            move(shop)
            shop.opening.stirred()
            await turns()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    asyncio.run(day())
    return shop.told


def tomorrow(shop):
    shop.today = "2026-09-02"


def sold(shop):
    shop.counted = shop.today


def test_a_day_has_one_ticket_and_the_next_day_s_first_hand_brings_its_own(tmp_path):
    shop = Shop(tmp_path, [WELL, WELL])
    told = played(shop, sold, sold, tomorrow, sold)
    assert [(one.day, one.well, one.ills) for one in told] == [("2026-09-01", True, ()), ("2026-09-02", True, ())]


def test_a_box_that_starts_again_on_the_same_day_or_after_a_sale_prints_none(tmp_path):
    assert len(played(Shop(tmp_path, [WELL]))) == 1
    again, late = Shop(tmp_path, []), Shop(tmp_path / "other", [])
    late.counted = late.today
    assert (played(again), again.asked) == (played(late), late.asked) == ([], 0)


def test_what_is_not_well_is_named_the_root_first_and_the_rest_counted(tmp_path):
    (told,) = played(Shop(tmp_path, [ILL]))
    root = Ill("printer_paper_low", "打印纸将用尽。备好新纸卷", "The roll is near its end. -> have a new one at hand")
    assert not told.well and told.ills[0] == root
    assert len(told.ills) == 8 and told.more == 5
    (unsaid,) = played(Shop(tmp_path / "other", [None]))
    assert not unsaid.well and unsaid.ills[0].code == "doctor"


@pytest.mark.parametrize("event, words", [
    (BoxTried("2026-09-01", True), "全部正常 / All green"),
    (BoxTried("2026-09-01", False, (Ill("dns", "域名解析不通。", "No name can be looked up."),), 2), "[dns]")])
def test_the_slip_is_one_paper_and_touches_no_money(tmp_path, event, words):
    till = Till(tmp_path)
    before = (till.box.books.chain.seq, till.box.books.chain.sales_fen)
    till.tell(event)
    till.journal.sync()
    (due,) = [fact for _, row in till.journal.rows() for fact in decode(row).facts if isinstance(fact, ReceiptDue)]
    till.close()
    assert due.kind == "opening" and words in str(due.paper)
    assert (till.box.books.chain.seq, till.box.books.chain.sales_fen) == before
