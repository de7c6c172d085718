"""Another box's sale is given back under a lease: two real boxes, the cloud's real clerk and store, and what is lost between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import ClassVar

import msgspec
import pytest

from device.errors import DriverGone
from device.mqtt import ask_wire, topics, wire
from device.mqtt.cloud import Cloud, told
from device.store_forward.es256 import public_verifier
from device.store_forward.token import digest, parse, seal, signing_input
from device.txn.effects import AskSale
from device.txn.inputs import Configured, LinkSaid, Rang, RefundSaid, RefundWord, Said, SaleAnswered, Scanned, Signed
from device.types import Account, Terms
from fleet.records.collector import Clerk
from fleet.records.store import Store
from fleet.records.store_schema import GUARD_NEW
from tests.counter import TEA, Counter
from tests.record_chain import Key

ACCOUNTS = (Account("wechat", "wechat:1", (("mchid", "1"),)), Account("gateway", "gateway:1", ()))
KEYS = {"box-1": Key(), "box-2": Key()}
CLOUD = Key()
AT = "2026-09-01T10:00:00+08:00"


@pytest.fixture(autouse=True)
def on_either_database(place, monkeypatch):
    """A lease is money that two boxes could give back: each story is told on both."""
    monkeypatch.setattr(Town, "place", staticmethod(place), raising=False)
    yield
    while Town.made:
        Town.made.pop().close()


class Town:
    """One cloud and two boxes; a box's records arrive when `deliver` is called, its questions when `ask` is."""

    place: ClassVar[Callable[[], str]] = staticmethod(lambda: ":memory:")    # of who tells a story once

    made: ClassVar[list[Store]] = []

    def __init__(self) -> None:
        self.store = Store(self.place(), [{**key.jwk, "box": box} for box, key in KEYS.items()])
        self.made.append(self.store)
        self.at = AT
        self.clerk = Clerk(self.store, "shop", CLOUD.kid, CLOUD.sign, lambda: self.at)
        self.home, self.away = self.box("box-1", "000001"), self.box("box-2", "000002")

    def box(self, name: str, number: str, **terms) -> Till:
        return Till(name, Terms(box=name, box_no=number, accounts=ACCOUNTS, route=("wechat",), **terms))

    def deliver(self, till: Till) -> None:
        fresh, till.tokens = till.tokens, []
        if fresh:
            last, jid = till.box.books.chain.seq, till.box.books.chain.jid
            batch = wire.Batch(jid, last - len(fresh) + 1, last, digest(fresh[-1]), tuple(fresh))
            (reply,) = self.clerk.handle([(topics.up("shop", till.terms.box), wire.batch_encoded(batch))])
            assert wire.ack_decoded(reply[1], {CLOUD.kid: public_verifier(CLOUD.jwk)}).upto == last

    def ask(self, till: Till) -> SaleAnswered:
        """The cloud's answer to what the box asks now."""
        (asked,) = [e for e in till.running if isinstance(e, AskSale)]
        return self.answer(till.terms.box, asked.ask_id, asked.order_no)

    def answer(self, box: str, ask_id: str, order_no: str) -> SaleAnswered:
        ask = ask_wire.ask_encoded(ask_wire.Ask(box, ask_id, "sale_by_order", order_no), KEYS[box].kid, KEYS[box].sign)
        ((topic, raw),) = self.clerk.handle([(topics.of_box("shop", box, "ask"), ask)])
        assert topic == topics.of_box("shop", box, "answer")
        return told(ask_wire.answer_decoded(raw, {CLOUD.kid: public_verifier(CLOUD.jwk)}))


class Till(Counter):
    """A counter that signs its records for real and keeps the tokens for the line."""

    seed = "A" * 22

    def __init__(self, name: str, terms: Terms) -> None:
        self.tokens: list[str] = []
        self.key = KEYS[name]
        super().__init__(terms)
        self.tell(LinkSaid(True, True))

    def _answer(self, effect) -> None:
        if type(effect).__name__ == "SignRecord":
            signing = signing_input(self.key.kid, effect.payload)
            token = seal(signing, self.key.sign(signing))
            self.tokens.append(token)
            self.tell(Signed(effect.seq, token))
        else:
            super()._answer(effect)

    def sold(self) -> str:
        """One tea by WeChat; the order's and sale's number."""
        self.scan(TEA)
        no = self.pay()
        self.say(no, Said.PAID, 500)
        return no

    def asks_back(self, no: str):
        self.press("REFUND")
        return self.tell(Scanned(no))

    def refund(self, word: RefundWord) -> str:
        (no,) = self.box.books.refunds
        self.tell(RefundSaid(no, word, self.box.books.refunds[no].intent.amount_fen))
        return no


def left(town: Town, no: str) -> int:
    """What a third box would be offered; its lease is taken out again."""
    answer = town.answer("box-2", f"probe-{no}", no)
    if answer.lease:
        town.store._db.execute("DELETE FROM lease WHERE lease = ?", (answer.lease,))
    return sum(fen for _, fen in answer.left_fen)


def test_another_boxs_sale_is_given_back_under_a_lease():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    assert "asking the cloud" in town.away.asks_back(no).words[1]
    verdict = town.away.tell(town.ask(town.away))
    assert "¥5.00" in verdict.words[1] and not verdict.refused
    town.away.press("200 ENTER")
    (refund,) = town.away.box.books.refunds.values()
    assert (refund.intent.order_no, refund.intent.amount_fen, refund.intent.paid_fen) == (no, 200, 500)
    assert refund.intent.account.account == "wechat:1" and refund.intent.channel_no == "4200000001" and refund.lease
    town.deliver(town.away)
    assert left(town, no) == 300                      # begun is gone, although the channel has not confirmed it yet
    town.away.refund(RefundWord.DONE)
    town.deliver(town.away)
    assert left(town, no) == 300 and not town.store.leases.open_leases()
    assert town.away.box.books.wallet_fen == -200


def test_without_the_cloud_it_is_refused_in_one_sentence():
    town = Town()
    no = town.home.sold()
    town.away.tell(LinkSaid(True, False))
    verdict = town.away.asks_back(no)
    assert verdict.refused and "needs the cloud" in verdict.words[1] and not verdict.facts
    assert not any(isinstance(e, AskSale) for e in town.away.running)


def test_a_sale_the_cloud_does_not_know_is_said_in_words():
    town = Town()
    no = town.home.sold()                             # its record never left
    town.away.asks_back(no)
    verdict = town.away.tell(town.ask(town.away))
    assert verdict.refused and "does not know" in verdict.words[1] and town.away.phase == "IDLE"


def test_two_boxes_never_hold_the_same_money():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    third = town.box("box-1", "000003")               # asks under its own number
    town.away.asks_back(no)
    town.away.tell(town.ask(town.away))
    third.asks_back(no)
    verdict = third.tell(town.ask(third))
    assert verdict.refused and "another box" in verdict.words[1]


@pytest.mark.parametrize("ends", ["CLEAR", "REFUND", "X", "boot", "time"])
def test_a_lease_that_was_not_used_goes_back(ends):
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    town.away.tell(town.ask(town.away))
    town.deliver(town.away)
    assert left(town, no) == 0
    if ends == "boot":
        town.away.cut_power()
    elif ends == "time":
        (lease,) = town.away.box.books.leases
        town.away.mono_ms += 600_001
        town.away.tell(Rang(("lease", lease)))
    else:
        town.away.press(ends)
    assert not town.away.box.books.leases
    town.deliver(town.away)
    assert left(town, no) == 500


def test_after_its_time_a_lease_begins_nothing():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    town.away.tell(town.ask(town.away))
    town.away.mono_ms += 600_000
    verdict = town.away.press("ENTER")
    assert verdict.refused and "scan the receipt again" in verdict.words[1] and not town.away.box.books.refunds


def test_a_lease_of_a_box_that_fell_silent_stays_reserved():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    town.away.tell(town.ask(town.away))
    town.away.press("ENTER")                          # begun, and the line is cut
    town.at = "2026-09-03T10:00:00+08:00"
    assert left(town, no) == 0
    town.deliver(town.away)
    assert left(town, no) == 0                        # it had really begun


def test_a_refund_that_fails_gives_its_part_back_to_everybody():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    town.away.tell(town.ask(town.away))
    town.away.press("ENTER")
    town.away.refund(RefundWord.REFUSED)
    town.deliver(town.away)
    assert left(town, no) == 500


def test_the_same_question_asked_again_is_one_lease():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    first, again = town.ask(town.away), town.ask(town.away)
    assert first.lease == again.lease and first.left_fen == again.left_fen
    town.away.tell(first)
    town.away.press("ENTER")
    before = len(town.away.box.books.due), town.away.box.books.chain.seq
    town.away.tell(again)                             # the network repeats the answer
    town.deliver(town.away)
    assert left(town, no) == 0 and before[1] <= town.away.box.books.chain.seq


def test_an_answer_nobody_waits_for_gives_its_lease_back():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    answer = town.ask(town.away)
    town.away.press("CLEAR")
    verdict = town.away.tell(answer)
    assert not town.away.box.books.leases and verdict.words is None
    town.deliver(town.away)
    assert left(town, no) == 500


def test_cash_goes_back_only_at_its_own_box():
    town = Town()
    town.home.scan(TEA, 2)
    town.home.press("400 CASH PAY")
    no = town.home.order_no
    town.home.say(no, Said.PAID, 600)
    town.deliver(town.home)
    town.away.asks_back(no)
    verdict = town.away.tell(town.ask(town.away))
    assert "¥6.00" in verdict.words[1] and "cash and cards go back at their own box" in verdict.words[1]
    assert town.away.press("601 ENTER").refused
    town.away.press("600 ENTER")
    assert [r.intent.amount_fen for r in town.away.box.books.refunds.values()] == [600]


def test_the_home_box_goes_on_by_itself_and_the_cloud_counts_it():
    town = Town()
    no = town.home.sold()
    town.home.asks_back(no)
    town.home.press("100 ENTER")
    town.home.refund(RefundWord.DONE)
    town.deliver(town.home)
    assert left(town, no) == 400


def test_money_of_another_merchant_is_not_given_back_here():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away = Till("box-2", Terms(box="box-2", box_no="000002", accounts=(Account("wechat", "wechat:2", ()),)))
    town.away.asks_back(no)
    verdict = town.away.tell(town.ask(town.away))
    assert verdict.refused and not town.away.box.books.leases
    town.deliver(town.away)
    assert left(town, no) == 500


def test_a_card_goes_back_only_at_the_terminal_that_took_it():
    town = Town()
    terminal = Account("card", "main", (("terminal_id", "T1"),))
    for till in (town.home, town.away):
        till.tell(Configured(msgspec.structs.replace(till.terms, accounts=(*ACCOUNTS, terminal))))
    town.home.scan(TEA)
    town.home.press("5 PAY")
    no = town.home.order_no
    town.home.say(no, Said.PAID, 500)
    town.deliver(town.home)
    town.away.asks_back(no)
    verdict = town.away.tell(town.ask(town.away))
    assert verdict.refused and "cards go back at their own box" in verdict.words[1] and not town.away.box.books.leases


def test_a_question_of_nobody_is_not_answered():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    ask = ask_wire.Ask("box-2", "x", "sale_by_order", no)
    for raw in (ask_wire.ask_encoded(ask, CLOUD.kid, CLOUD.sign), ask_wire.ask_encoded(ask, KEYS["box-2"].kid, CLOUD.sign),
                b"rubbish", ask_wire.ask_encoded(ask_wire.Ask("box-1", "x", "sale_by_order", no), KEYS["box-2"].kid,
                                                 KEYS["box-2"].sign)):
        assert town.clerk.handle([(topics.of_box("shop", "box-2", "ask"), raw)]) == []
    assert not town.store.leases.open_leases() and len(town.store.quarantined()) == 4


def test_the_refund_record_names_payment_and_lease():
    town = Town()
    no = town.home.sold()
    town.deliver(town.home)
    town.away.asks_back(no)
    town.away.tell(town.ask(town.away))
    town.away.press("ENTER")
    town.away.refund(RefundWord.DONE)
    records = [parse(token).payload for token in town.away.tokens]
    bodies = [json.loads(bytes(record.body)) for record in records if record.kind == "refund"]
    assert [(b["order_no"], b["paid_no"], b["amount_fen"], bool(b["lease"])) for b in bodies] == [(no, no, 500, True)]


def test_a_store_of_an_older_release_learns_its_sales(tmp_path):
    town = Town()
    town.store = Store(tmp_path / "cloud.db", [{**key.jwk, "box": box} for box, key in KEYS.items()])
    town.clerk = Clerk(town.store, "shop", CLOUD.kid, CLOUD.sign, lambda: AT)
    no = town.home.sold()
    town.deliver(town.home)
    for table in ("sale", "given", "lease"):
        town.store._db.execute(f"DROP TABLE {table}")
    town.store._db.execute("DROP INDEX guard_due")
    for column, _ in GUARD_NEW:
        town.store._db.execute(f"ALTER TABLE guard DROP COLUMN {column}")
    town.store._db.execute("PRAGMA user_version = 1")
    town.store.close()
    town.store = Store(tmp_path / "cloud.db", [{**key.jwk, "box": box} for box, key in KEYS.items()])
    town.clerk = Clerk(town.store, "shop", CLOUD.kid, CLOUD.sign, lambda: AT)
    assert left(town, no) == 500


# The line

def cloud(sent: list, answers: bool = True, up: bool = True) -> Cloud:
    desk = Cloud("box-2", lambda: KEYS["box-2"].kid, KEYS["box-2"].sign, {CLOUD.kid: public_verifier(CLOUD.jwk)},
                 lambda name, payload: up and (sent.append((name, payload)) or True), patience_s=0.01 if not answers else 5)
    return desk


def answered(ask_id: str, order_no: str, key: Key = CLOUD, box: str = "box-2") -> bytes:
    answer = ask_wire.Answer(box, ask_id, order_no, "", AT, lease=ask_wire.Lease("L1", 1000, (ask_wire.Left(order_no, 5),)))
    return ask_wire.answer_encoded(answer, key.kid, key.sign)


NO = "000001ABCD0000000100"
EFFECT = AskSale("b-1", NO)


def test_the_answer_that_is_proven_and_asked_for_comes_back():
    async def story():
        sent: list = []
        desk, left = cloud(sent), asyncio.Event()
        publish = desk._publish
        desk._publish = lambda name, payload: (publish(name, payload), left.set())[0]
        waiting = asyncio.create_task(desk.do(EFFECT))
        await left.wait()
        desk.came(answered("b-1", NO, KEYS["box-1"]))             # not the cloud's key
        desk.came(answered("b-2", NO))                            # not asked
        desk.came(answered("b-1", NO, box="box-1"))               # not to us
        assert not waiting.done()
        desk.came(answered("b-1", NO))
        said = await waiting
        assert sent[0][0] == "ask" and ask_wire.ask_decoded(sent[0][1], {KEYS["box-2"].kid: public_verifier(KEYS["box-2"].jwk)})
        return said.lease, said.left_fen
    assert asyncio.run(story()) == ("L1", ((NO, 5),))


def test_a_late_answer_is_told_once_and_a_silent_cloud_is_said():
    async def story():
        desk = cloud([], answers=False)
        silent = await desk.do(EFFECT)
        desk.came(answered("b-1", NO))
        desk.came(answered("b-1", NO))                            # repeated on the way
        await desk.close()
        return silent.why, [late.lease async for late in desk.inputs()]
    assert asyncio.run(story()) == ("the cloud does not answer", ["L1"])


def test_a_question_that_cannot_be_signed_is_answered_in_a_sentence():
    def sign(_: bytes) -> bytes:
        raise DriverGone("The token till is not there.", which="signer")
    desk = Cloud("box-2", lambda: KEYS["box-2"].kid, sign, {}, lambda name, payload: True)
    assert asyncio.run(desk.do(EFFECT)).why == "The token till is not there."


def test_a_line_that_is_down_is_said_at_once():
    assert asyncio.run(cloud([], up=False).do(EFFECT)).why == "the line to the cloud is down"
