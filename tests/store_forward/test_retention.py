"""What the cloud has may leave the card, oldest first: boot, refunds and the line never miss it, and the room comes back."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bench.till import EPOCH, IDENTITY, Till
from device.box import Box
from device.mqtt import wire
from device.recovery.retention import Retention
from device.store_forward.forwarder import Forwarder, Released
from device.store_forward.journal import Journal
from device.store_forward.token import digest
from device.txn import facts
from device.txn.inputs import LinkSaid, Recalled, RefundWord
from fleet.records.checking import check_all
from tests.txn.test_leases import Town

DAY_S = 86_400


class Kept:
    """A till with sales behind it, all said again at the end, and what lets go of its rows."""

    def __init__(self, folder: Path, sales: int = 30, keep_days: int = 30, near_bytes: int = 0) -> None:
        self.folder = folder
        self.till = Till(folder)
        for _ in range(sales):
            self.till.cash_sale()
        self.journal = self.till.journal
        self.till.box.restate(self.till._stamp())
        self.now_s = EPOCH.timestamp()
        self.retention = Retention(self.journal, keep_days, lambda: self.now_s, lambda: True, near_bytes)

    def tokens(self, after: int, limit: int = 50) -> list[tuple[int, str]]:
        return self.journal.tokens(after, limit, wire.BODY_MAX_BYTES, facts.tokens_of)

    def acked(self, upto: int) -> None:
        (found,) = self.tokens(upto - 1, 1)
        assert found[0] == upto and self.journal.ack(self.till.box.books.chain.jid, upto, digest(found[1]))

    def trimmed(self) -> int:
        gone = 0
        while went := self.retention.step():
            gone += went
        return gone


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def test_nothing_leaves_before_the_cloud_has_it_whatever_its_age(kept: Kept) -> None:
    kept.now_s += 4_000 * DAY_S
    assert kept.trimmed() == 0 and kept.journal.first == 1
    kept.acked(11)
    assert kept.trimmed() > 0
    assert kept.journal.first_seq == 11 and kept.tokens(0, 1)[0][0] == 11, "the last confirmed record stays to be compared"


def test_nothing_leaves_before_its_time_while_there_is_room(kept: Kept) -> None:
    kept.acked(31)
    kept.now_s += 30 * DAY_S - 60
    assert kept.trimmed() == 0
    kept.now_s += 120
    assert kept.trimmed() > 50


def test_near_the_quota_confirmed_rows_go_young_and_the_oldest_first(tmp_path: Path) -> None:
    kept = Kept(tmp_path, near_bytes=1 << 62)
    kept.acked(20)
    assert kept.retention.step() > 0 and kept.journal.first > 1
    kept.trimmed()
    assert kept.journal.first_seq == 20 and [seq for seq, _ in kept.tokens(0)] == list(range(20, 32))


def test_a_start_folds_the_same_books_and_goes_on_selling(kept: Kept) -> None:
    kept.acked(31)
    kept.now_s += 31 * DAY_S
    kept.trimmed()
    before = kept.till.box.books
    kept.till.close()
    journal = Journal(kept.folder / "journal.db", identity=IDENTITY)
    assert journal.first > 100 and Box.folded(journal) == before and journal.acked()[1] == 31
    journal.close()
    again = Till(kept.folder, "b2")
    again.cash_sale()
    assert again.box.books.chain.seq == 33
    again.close()


def test_the_confirmation_is_on_the_card_before_what_it_allows_is_gone(kept: Kept) -> None:
    kept.acked(31)                                     # in memory alone: a cut now would forget it
    kept.now_s += 31 * DAY_S
    kept.trimmed()
    kept.journal._db.close()                           # the cut
    journal = Journal(kept.folder / "journal.db", identity=IDENTITY)
    assert journal.acked()[1] == 31 and journal.first_seq == 31
    journal.close()


def test_the_line_goes_on_and_a_repeated_confirmation_is_still_compared(kept: Kept) -> None:
    kept.acked(20)
    kept.now_s += 31 * DAY_S
    kept.trimmed()
    jid, upto, head = kept.journal.acked()
    forwarder = Forwarder(jid, upto, head, tokens=kept.tokens, seed=1)
    forwarder.on_link(True, True, 0)
    assert forwarder.on_ack(wire.Ack("box-1", jid, upto, head), 0) == Released(upto, head)
    (batch,) = forwarder.due(10)
    assert (batch.first, batch.last) == (21, 31)
    forwarder.on_ack(wire.Ack("box-1", jid, upto, head, want=((5, 8),)), 20)
    assert forwarder.due(30_000) == [] or forwarder.trouble == "", "what is not kept any more is not made up"


def test_the_room_comes_back_and_the_index_forgets(tmp_path: Path) -> None:
    kept = Kept(tmp_path, sales=300)
    kept.acked(301)
    pages = kept.journal._db.execute("PRAGMA page_count").fetchone()[0]
    room = kept.journal.room_bytes()
    kept.now_s += 31 * DAY_S
    kept.trimmed()
    assert kept.journal._db.execute("PRAGMA page_count").fetchone()[0] < 0.3 * pages
    assert kept.journal._db.execute("PRAGMA freelist_count").fetchone()[0] < 0.05 * pages
    assert kept.journal.room_bytes() > room + 500_000
    kept.till.close()
    db = sqlite3.connect(tmp_path / "journal.db")
    first = db.execute("SELECT min(n) FROM journal").fetchone()[0]
    assert db.execute("SELECT count(*) FROM refs WHERE n < ?", (first,)).fetchone()[0] == 0
    db.close()


def test_a_step_is_small(tmp_path: Path) -> None:
    kept = Kept(tmp_path, sales=80)
    kept.acked(81)
    kept.now_s += 31 * DAY_S
    assert kept.retention.step() == 200 and kept.journal.first == 201


def test_a_receipt_whose_rows_are_gone_is_given_back_by_the_clouds_word() -> None:
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.home.box.books.sales.clear()
    town.home.asks_back(no)
    verdict = town.home.tell(Recalled(no, (), trimmed=True))
    assert "asking the cloud" in verdict.words[1] and not town.home.box.desk.looking
    assert "¥5.00" in town.home.tell(town.ask(town.home)).words[1]
    town.home.press("ENTER")
    (refund,) = town.home.box.books.refunds.values()
    assert (refund.intent.order_no, refund.intent.amount_fen) == (no, 500)
    town.home.refund(RefundWord.DONE)
    town.deliver(town.home)
    check_all(town.store, town.at)
    assert not town.store.leases.open_leases() and town.home.box.books.wallet_fen == 0


def test_without_the_cloud_such_a_receipt_waits_and_a_whole_journal_asks_nobody() -> None:
    town = Town()
    no = town.home.sold()
    town.home.box.books.sales.clear()
    town.home.asks_back(no)
    whole = town.home.tell(Recalled(no, ()))
    assert whole.refused and not town.home.box.desk.asking[1]
    town.home.tell(LinkSaid(True, False))
    town.home.asks_back(no)
    away = town.home.tell(Recalled(no, (), trimmed=True))
    assert away.refused and "needs the cloud" in away.words[1] and not away.facts
