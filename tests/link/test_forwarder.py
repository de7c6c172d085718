"""The sending side on virtual time: whatever the line does, everything arrives once, and no more is asked of it than allowed."""

import random

import pytest

from device.mqtt.wire import BODY_MAX_BYTES, Ack, Batch
from device.store_forward.forwarder import WINDOW_MAX, Forwarder, Refused, Released
from device.store_forward.token import EMPTY_DIGEST, digest
from tests.record_chain import Chain, Key

JID = "j" * 22
LONG = [f"t.{n}.{'x' * 100}" for n in range(1, 1001)]


def _forwarder(tokens: list[str], seed: int = 1, upto: int = 0) -> Forwarder:
    def after(seq: int, limit: int) -> list[tuple[int, str]]:
        return [(seq + 1 + at, token) for at, token in enumerate(tokens[seq:seq + limit])]
    forwarder = Forwarder(JID, upto, EMPTY_DIGEST, tokens=after, seed=seed)
    forwarder.on_link(True, True, 0)
    return forwarder


def _ack(upto: int, tokens: list[str] = LONG, **more: object) -> Ack:
    return Ack("box-1", JID, upto, digest(tokens[upto - 1]) if upto else EMPTY_DIGEST, **more)


def test_slow_start_doubles_to_the_window_and_no_further() -> None:
    forwarder, sizes, now, upto = _forwarder(LONG), [], 0, 0
    while batches := forwarder.due(now):
        sizes.append(len(batches))
        for batch in batches:
            upto = batch.last
        now += 10
        assert forwarder.on_ack(_ack(upto), now) == Released(upto, digest(LONG[upto - 1]))
    assert sizes == [1, 2, 4, 8, 5] and upto == 1000
    assert forwarder.next_due_ms() is None


def test_one_batch_holds_what_the_wire_allows() -> None:
    big = [f"t.{n}.{'x' * 16_000}" for n in range(1, 11)]
    batch = _forwarder(big).due(0)[0]
    assert (batch.first, batch.last) == (1, 4)
    assert sum(len(t) + 1 for t in batch.tokens) <= BODY_MAX_BYTES


def test_nothing_leaves_while_the_line_is_down() -> None:
    forwarder = _forwarder(LONG)
    forwarder.on_link(False, False, 0)
    assert forwarder.due(10**9) == [] and forwarder.next_due_ms() is None


def test_without_a_collector_one_batch_every_ten_minutes() -> None:
    forwarder = _forwarder(LONG)
    forwarder.on_link(True, False, 1_000)
    sent = [now for now in range(1_000, 1_900_000, 500) for _ in forwarder.due(now)]
    assert sent == [601_000, 1_201_000, 1_801_000]
    assert forwarder.next_due_ms() == 2_401_000
    forwarder.on_link(True, True, 1_900_000)
    assert [b.first for b in forwarder.due(1_900_000)] == [1]


def test_silence_is_answered_by_growing_random_pauses_and_the_same_records() -> None:
    forwarder, now, sent = _forwarder(LONG, seed=5), 0, []
    while len(sent) < 14:
        for batch in forwarder.due(now):
            sent.append((now, batch))
        now = max(now + 1, forwarder.next_due_ms() or 0)
    assert {b for _, b in sent} == {sent[0][1]}
    gaps = [b - a for (a, _), (b, _) in zip(sent, sent[1:], strict=False)]
    assert all(5_000 <= gap <= 305_000 for gap in gaps)
    assert max(gaps[6:]) > 60_000, "the span never grew"
    assert gaps == _gaps_of(5) and gaps != _gaps_of(6)


def _gaps_of(seed: int) -> list[int]:
    forwarder, now, sent = _forwarder(LONG, seed=seed), 0, []
    while len(sent) < 14:
        sent += [now for _ in forwarder.due(now)]
        now = max(now + 1, forwarder.next_due_ms() or 0)
    return [b - a for a, b in zip(sent, sent[1:], strict=False)]


def test_hold_is_honoured() -> None:
    forwarder = _forwarder(LONG)
    batch = forwarder.due(0)[0]
    forwarder.on_ack(_ack(batch.last, hold_ms=60_000), 100)
    assert forwarder.due(60_099) == [] and forwarder.next_due_ms() == 60_100
    assert len(forwarder.due(60_100)) == 2


def test_wanted_records_go_first_and_once() -> None:
    forwarder = _forwarder(LONG)
    forwarder.on_ack(_ack(forwarder.due(0)[0].last), 10)
    forwarder.due(20)                                             # 51-100 lost, 101-150 arrives
    forwarder.on_ack(_ack(50, want=((51, 100),)), 30)
    again = forwarder.due(40)
    assert again[0].first == 51 and again[0].last == 100
    forwarder.on_ack(_ack(50, want=((51, 100),)), 50)             # a second answer, made before the repair came
    assert all(b.first > 100 for b in forwarder.due(60))


def test_a_collector_restored_from_an_old_copy_gets_what_it_misses() -> None:
    forwarder = _forwarder(LONG, upto=200)
    assert forwarder.due(0)[0].first == 201
    told = forwarder.on_ack(_ack(100, want=((101, 200),)), 10)
    assert isinstance(told, Refused) and told.name == "OldAck" and forwarder.upto == 200
    assert [b.first for b in forwarder.due(20)][:1] == [101]


@pytest.mark.parametrize(("ack", "name"), [
    (Ack("box-1", "other", 1, digest(LONG[0])), "OtherJournal"),
    (Ack("box-1", JID, 1, digest("something else")), "HeadDiffers"),
    (Ack("box-1", JID, 1001, digest("t.1001.x")), "AckAhead"),
    (Ack("box-1", JID, 1001, digest("t.1001.x"), verdict="rollback"), "Rollback"),
    (Ack("box-1", JID, 0, EMPTY_DIGEST, verdict="fork"), "Fork"),
    (Ack("box-1", "", 0, "", verdict="unreadable"), "Unreadable"),
])
def test_acks_that_release_nothing(ack: Ack, name: str) -> None:
    forwarder = _forwarder(LONG)
    forwarder.due(0)
    told = forwarder.on_ack(ack, 10)
    assert isinstance(told, Refused) and told.name == name and told.why
    assert (forwarder.upto, forwarder.head) == (0, EMPTY_DIGEST)
    assert bool(forwarder.halted) == (name in ("Rollback", "Fork"))
    if forwarder.halted:
        assert forwarder.due(10**9) == [] and forwarder.next_due_ms() is None


def test_a_late_rollback_word_about_records_we_hold_halts_nothing() -> None:
    forwarder = _forwarder(LONG)
    forwarder.due(0)
    assert forwarder.on_ack(_ack(50, verdict="rollback"), 10) == Released(50, digest(LONG[49]))
    assert not forwarder.halted


def test_unreadable_slows_down_and_is_shown_until_it_passes() -> None:
    forwarder = _forwarder(LONG)
    batch = forwarder.due(0)[0]
    forwarder.on_ack(_ack(0, verdict="unreadable", why="BAD_SIGNATURE: no", hold_ms=60_000), 10)
    assert forwarder.trouble == "BAD_SIGNATURE: no" and forwarder.due(60_009) == []
    assert forwarder.due(70_000)[0] == batch
    forwarder.on_ack(_ack(50), 70_100)
    assert forwarder.trouble == ""


def test_a_batch_the_link_could_not_take_goes_again() -> None:
    forwarder = _forwarder(LONG)
    batch = forwarder.due(0)[0]
    forwarder.unsent(batch, 0)
    assert forwarder.outstanding == 0 and forwarder.due(999) == []
    assert forwarder.due(1_000) == [batch]


class _Cloud:
    """A collector that keeps what it gets in any order, and counts what came twice."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.kept, self.twice = tokens, {}, 0

    def take(self, batch: Batch) -> Ack:
        for at, token in enumerate(batch.tokens):
            self.twice += batch.first + at in self.kept
            self.kept.setdefault(batch.first + at, token)
        upto = 0
        while upto + 1 in self.kept:
            upto += 1
        above = min((s for s in self.kept if s > upto), default=0)
        return _ack(upto, self.tokens, want=((upto + 1, above - 1),) if above else ())


@pytest.mark.parametrize("seed", range(12))
def test_everything_arrives_over_a_line_that_loses_doubles_and_reorders(seed: int) -> None:
    """Batches and acknowledgements are lost, doubled and late; line and collector come and go; the box restarts."""
    chance = random.Random(seed)
    tokens = LONG[:600]
    written = 100
    def after(seq: int, limit: int) -> list[tuple[int, str]]:
        return [(seq + 1 + at, t) for at, t in enumerate(tokens[seq:min(written, seq + limit)])]
    forwarder, cloud = Forwarder(JID, 0, EMPTY_DIGEST, tokens=after, seed=seed), _Cloud(tokens)
    on_the_way: list[tuple[int, int, Batch | Ack]] = []
    forwarder.on_link(True, True, 0)
    now = order = 0
    released = 0
    while forwarder.upto < len(tokens):
        assert now < 48 * 3_600_000, f"stuck at {forwarder.upto}"
        event = chance.random()
        bad = now < 3_600_000
        if bad and event < 0.01:
            forwarder.on_link(chance.random() < 0.7, chance.random() < 0.7, now)
        elif bad and event < 0.015:
            forwarder = Forwarder(JID, forwarder.upto, forwarder.head, tokens=after, seed=order)
            forwarder.on_link(True, True, now)
        elif not bad and forwarder.next_due_ms() is None:
            forwarder.on_link(True, True, now)
        written = min(len(tokens), written + (event < 0.3))
        for batch in forwarder.due(now):
            assert forwarder.outstanding <= WINDOW_MAX
            for _ in range(chance.choice([0, 1, 1, 2]) if bad else 1):
                order += 1
                on_the_way.append((now + chance.randrange(8_000), order, batch))
        for one in sorted(w for w in on_the_way if w[0] <= now):
            on_the_way.remove(one)
            if isinstance(one[2], Batch):
                answer = cloud.take(one[2])
                for _ in range(chance.choice([0, 1, 1, 2]) if bad else 1):
                    order += 1
                    on_the_way.append((now + chance.randrange(8_000), order, answer))
            else:
                told = forwarder.on_ack(one[2], now)
                if isinstance(told, Released):
                    assert told.upto >= released and told.head == digest(tokens[told.upto - 1])
                    released = told.upto
                else:
                    assert told.name == "OldAck"
        now += chance.randrange(200, 2_000)
    assert cloud.kept == dict(enumerate(tokens, 1))


def test_real_tokens_pass_too() -> None:
    chain = Chain(Key()).grow(3)
    forwarder = Forwarder(chain.jid, 0, EMPTY_DIGEST, tokens=chain.after, seed=1)
    forwarder.on_link(True, True, 0)
    assert forwarder.due(0) == [chain.batch(1, 3)]


def test_a_batch_waits_for_company_and_a_full_one_does_not() -> None:
    forwarder = _forwarder(LONG[:3])
    forwarder.lag_ms = 58_000
    assert forwarder.due(1_000) == [] and forwarder.next_due_ms() == 59_000
    assert forwarder.due(58_999) == [] and [(b.first, b.last) for b in forwarder.due(59_000)] == [(1, 3)]
    full = _forwarder(LONG)
    full.lag_ms = 58_000
    assert [(b.first, b.last) for b in full.due(0)] == [(1, 50)]


def test_the_lag_hides_no_resend() -> None:
    tokens = LONG[:3]
    forwarder = _forwarder(tokens)
    forwarder.lag_ms = 58_000
    forwarder.due(0)
    forwarder.due(58_000)
    tokens.append(LONG[3])
    forwarder.on_ack(_ack(0), 58_001)
    forwarder.due(58_001)
    assert forwarder.next_due_ms() == 63_000, "the batch on its way is looked after before the next one leaves"


def test_a_person_ends_every_pause_but_the_one_the_collector_asked_for() -> None:
    silent = _forwarder(LONG, seed=5)
    for now in range(0, 400_000, 500):
        silent.due(now)
    assert silent.due(400_000) == [] and silent.hurry(400_000) == 0
    assert [b.first for b in silent.due(400_000)] == [1]
    unheard = _forwarder(LONG)
    unheard.on_link(True, False, 1_000)
    unheard.hurry(2_000)
    assert [b.first for b in unheard.due(2_000)] == [1] and unheard.due(2_500) == []
    held = _forwarder(LONG)
    held.on_ack(_ack(held.due(0)[0].last, hold_ms=60_000), 100)
    assert held.hurry(1_100) == 59 and held.due(1_100) == []
    lagging = _forwarder(LONG[:3])
    lagging.lag_ms = 58_000
    assert lagging.due(0) == []
    lagging.hurry(5)
    assert [b.last for b in lagging.due(5)] == [3]


def test_an_acknowledged_batch_that_was_just_sent_is_not_read_again() -> None:
    asked: list[int] = []

    def after(seq: int, limit: int) -> list[tuple[int, str]]:
        asked.append(seq)
        return [(seq + 1 + at, token) for at, token in enumerate(LONG[seq:seq + limit])]
    forwarder, upto = Forwarder(JID, 0, EMPTY_DIGEST, tokens=after, seed=1, lag_ms=100, top=lambda: len(LONG)), 0
    forwarder.on_link(True, True, 0)
    while batches := forwarder.due(0):
        assert len(forwarder._heads) <= 9                # under way, and the last one that was released
        upto = batches[-1].last
        assert forwarder.on_ack(_ack(upto), 0) == forwarder.on_ack(_ack(upto), 0) == Released(upto, digest(LONG[upto - 1]))
        assert isinstance(forwarder.on_ack(Ack("box-1", JID, upto, "x" * 43), 0), Refused)
        forwarder.next_due_ms()
    assert upto == 1000 and [seq for seq in asked if seq < 1000] == list(range(0, 1000, 50))
    forwarder.on_link(True, True, 0)
    assert forwarder.next_due_ms() is None
