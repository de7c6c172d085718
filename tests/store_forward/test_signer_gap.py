"""A broken signer: sales go on, and when it is back the chain says so first, then takes what waited, each marked late."""

from __future__ import annotations

import json
import random

import pytest

from device.box import Box
from device.drivers.signer.file import FileSigner
from device.pace import wait_ms
from device.store_forward.es256 import public_verifier
from device.store_forward.token import Payload, parse
from device.store_forward.verify import verify
from device.txn import facts as wire
from device.txn.effects import Effect, SignRecord, TrySigner
from device.txn.inputs import DeviceSaid, Said, Signed
from device.txn.show import render, state
from device.types import Terms
from tests.counter import COLA, TEA, Counter

GONE = DeviceSaid("signer", "gone", "The token till is not there.")


@pytest.fixture
def till(tmp_path) -> Till:
    return Till(FileSigner(tmp_path / "record.key"))


class Till(Counter):
    """A counter whose signer signs really, or is broken; `broken_at` are sequence numbers at which it breaks by itself."""

    seed = "AAAAAAAAAAAAAAAAAAAAAA"

    def __init__(self, signer: FileSigner) -> None:
        self.signer, self.well, self.minute, self.asked = signer, True, 0, list[Effect]()
        super().__init__()

    def tell(self, *events):
        self.minute += 1
        self.mono_ms += 1000
        self.wall = f"2026-09-01T10:{self.minute // 60 % 60:02}:{self.minute % 60:02}+08:00"
        return super().tell(*events)

    def _answer(self, effect: Effect) -> None:
        if isinstance(effect, (SignRecord, TrySigner)):
            self.asked.append(effect)
            if not self.well:
                if isinstance(effect, SignRecord):
                    self.tell(GONE)
            elif isinstance(effect, SignRecord):
                self.tell(Signed(effect.seq, self.signer.sign(effect.payload)))
            return
        super()._answer(effect)

    def sell(self, times: int = 1) -> None:
        for _ in range(times):
            self.scan(TEA)
            self.press("CASH")

    def breaks(self) -> None:
        self.well = False

    def comes_back(self) -> None:
        self.well = True
        if any(isinstance(effect, TrySigner) for effect in self.running):
            self.tell(DeviceSaid("signer", "ok"))

    def tokens(self) -> list[str]:
        """What could leave: tokens of rows on the card."""
        self.journal.sync()
        return [token for row in self.journal.durable for _, token in wire.tokens_of(row.facts)]

    def said(self) -> list[tuple[str, bool]]:
        """Kind of each record, and whether it is late."""
        return [(payload.kind, json.loads(bytes(payload.body)).get("late") is True) for payload in self.payloads()]

    def payloads(self) -> list[Payload]:
        return [parse(token).payload for token in self.tokens()]

    def whole(self) -> bool:
        return not list(verify(self.tokens(), {self.signer.kid: public_verifier(self.signer.jwk)}))


def test_sales_go_on_and_the_gap_is_told_before_what_waited_in_it(till):
    till.sell()
    till.breaks()
    till.sell(3)
    assert [kind for kind, _ in till.said()] == ["boot", "sale"] and len(till.box.books.due) == 3
    till.comes_back()
    till.sell()
    assert till.said()[2:] == [("signer_gap", False), *[("sale", True)] * 3, ("sale", False)] and till.whole()
    gap = till.payloads()[2]
    body, waited = json.loads(bytes(gap.body)), till.payloads()[3:6]
    assert body == {"count": 3, "since": waited[0].at, "until": gap.at, "cause": GONE.why}
    assert body["since"] < body["until"] and till.payloads()[-1].sum.count == 5


def test_a_person_sees_it_until_it_is_back(till):
    def shown() -> tuple[str, bool]:
        books, desk = till.box.books, till.box.desk
        return state(books, desk, 0)["health"]["signer"], any("签名器" in word for word in render(books, desk).footer)
    till.breaks()
    assert shown() == ("ok", False)                      # nothing was asked of it
    till.sell()
    assert shown() == ("broken", True)
    till.cut_power()                                     # the row was not on the card: it is found broken again
    assert shown() == ("broken", True)
    till.comes_back()
    assert shown() == ("ok", False)


def test_a_signature_that_only_takes_long_marks_nothing(till):
    till.breaks()
    kept, till._answer = till._answer, lambda effect: till.asked.append(effect) if isinstance(effect, SignRecord) else kept(effect)
    till.sell(2)
    till.well, till._answer = True, kept
    for effect in [e for e in till.asked if isinstance(e, SignRecord)][-1:]:
        till._answer(effect)
    assert till.said() == [("boot", False), ("sale", False), ("sale", False)] and till.whole()


def test_a_token_that_comes_after_the_signer_was_given_up_is_dropped(till):
    till.breaks()
    till.sell()
    effect = next(e for e in reversed(till.asked) if isinstance(e, SignRecord))
    till.tell(Signed(effect.seq, till.signer.sign(effect.payload)))
    assert len(till.box.books.due) == 1 and till.box.books.broken
    till.comes_back()
    assert till.said()[-2:] == [("signer_gap", False), ("sale", True)] and till.whole()


def test_one_that_breaks_again_before_it_signed_anything_tells_of_one_gap(till):
    till.breaks()
    till.sell()
    for _ in range(3):
        till.tell(DeviceSaid("signer", "ok"))            # it can be tried, and then fails over the gap itself
    till.sell()
    assert till.box.books.breaks == 4 and [due.kind for due in till.box.books.due].count("signer_gap") == 1
    till.comes_back()
    assert till.said()[-3:] == [("signer_gap", False), ("sale", True), ("sale", True)] and till.whole()
    assert json.loads(bytes(till.payloads()[-3].body))["count"] == 2 and till.box.books.breaks == 0


def test_one_that_breaks_again_between_late_records_tells_of_a_second_gap(till):
    till.breaks()
    till.sell(3)
    plain, left = till._answer, [2]

    def twice(effect: Effect) -> None:
        if isinstance(effect, SignRecord):
            left[0] -= 1
            till.well = left[0] >= 0
        plain(effect)
    till._answer = twice
    till.tell(DeviceSaid("signer", "ok"))
    till._answer = plain
    till.sell()
    till.comes_back()
    assert [pair for pair in till.said() if pair[0] != "boot"] == [
        ("signer_gap", False), ("sale", True), ("signer_gap", False), ("sale", True), ("sale", True), ("sale", True)]
    assert [json.loads(bytes(p.body))["count"] for p in till.payloads() if p.kind == "signer_gap"] == [3, 3] and till.whole()


def test_it_is_tried_the_less_the_oftener_it_broke(till):
    till.breaks()
    till.sell()
    (first,) = [e for e in till.running if isinstance(e, TrySigner)]
    till.tell(DeviceSaid("signer", "ok"))
    (second,) = [e for e in till.running if isinstance(e, TrySigner)]
    assert not any(isinstance(e, SignRecord) for e in till.running)
    waits = [[wait_ms(e, tries, 0, 0, Terms()) for tries in range(9)] for e in (first, second)]
    assert waits[0][:3] == [1000, 2000, 4000] and waits[1][:2] == [2000, 4000] and max(waits[0]) == 60_000


def test_too_many_unsigned_records_end_new_sales_and_nothing_else(till, monkeypatch):
    monkeypatch.setattr("device.box.DUE_MAX", 3)
    till.scan(COLA)
    no = till.pay()
    till.breaks()
    till.say(no, Said.PAID, COLA.item.price_fen)         # what is open comes to its end
    till.sell(2)
    assert len(till.box.books.due) == 3
    till.scan(TEA)
    assert not till.box.books.basket.lines and "签名器" in till.box.desk.words[0]
    till.comes_back()
    till.sell()
    assert till.whole() and till.said()[-1] == ("sale", False)


def test_a_kill_after_every_step_leaves_one_whole_chain_and_no_unmarked_late_record(tmp_path):
    """500 steps of one till with a fixed seed: the signer dies and returns, the power is cut, and sales go on."""
    dice, till, gaps = random.Random(11), Till(FileSigner(tmp_path / "record.key")), 0
    sold = 0
    for _ in range(500):
        match dice.randrange(8):
            case 0:
                till.breaks()
            case 1 | 2:
                till.comes_back()
            case 3:
                till.cut_power()
            case 4:
                till.journal.sync()
            case _:
                till.sell()
                sold += 1
        assert Box.folded(till.journal) is not None
    till.comes_back()
    till.tell(DeviceSaid("signer", "ok"))
    assert not till.box.books.due and not till.box.books.broken and till.whole()
    waiting = 0
    for payload in till.payloads():
        body = json.loads(bytes(payload.body))
        if payload.kind == "signer_gap":
            waiting, gaps = body["count"], gaps + 1
        else:
            assert (body.get("late") is True) == (waiting > 0), payload
            waiting = max(0, waiting - 1)
    assert [kind for kind, _ in till.said()].count("sale") == sold and gaps >= 10
