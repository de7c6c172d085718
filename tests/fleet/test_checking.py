"""After the door: every single signature, branches kept, ends held, and several collectors at one store."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device.mqtt import topics, wire
from device.mqtt.wire import Batch
from device.store_forward.token import digest, seal, signing_input
from fleet.records import checking
from fleet.records.checking import Checker, again, check_all, examined, settle, waiting
from fleet.records.collector import Clerk
from fleet.records.door import mirrored
from fleet.records.proof import defects, walked
from fleet.records.store import BRANCH_MAX, Store, records, sums
from tests.fleet.test_collector import ACK_KEY, AT, KEY, Desk
from tests.record_chain import Chain

Place = Callable[[], str]


def _spoilt(chain: Chain, seq: int, total: int) -> None:
    """A chain of `total` records whose record `seq` has no valid signature, and all others do: only the key's owner can."""
    chain.grow(seq - 1)
    chain.add()
    chain.tokens[-1] = chain.tokens[-1].rpartition(".")[0] + "." + "A" * 86
    chain.grow(total - seq)


def test_a_bad_signature_within_a_batch_passes_the_door_and_stops_what_counts(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY)
    _spoilt(chain, 4, 9)
    assert desk.up(chain.batch(1, 9)).upto == 9
    assert waiting(desk.store) == 9
    check_all(desk.store, AT)
    assert sums(desk.store) == {"sales_fen": 300, "refunds_fen": 0, "count": 3}
    assert desk.store.alarms() == [("box-1", chain.jid, 4, "BadSignature", "the signature of record 4 does not hold")]
    assert waiting(desk.store) == 0 and again(desk.store, "box-1") == 1 and waiting(desk.store) == 6
    check_all(desk.store, AT)
    assert len(desk.store.alarms()) == 1 and sums(desk.store)["count"] == 3
    assert walked(desk.store)[1]["count"] == 3, "verify and the background count the same"
    assert {"BAD_SIGNATURE", "BADSIGNATURE"} == {d[3] for d in defects(desk.store)}


def test_a_record_that_says_nothing_readable_within_a_batch_is_named(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(2)
    head = {"v": 1, "box": "box-1", "jid": chain.jid, "seq": 3, "prev": digest(chain.tokens[-1]), "at": AT, "clk": "ntp",
            "boot": "b", "mono_ms": 3, "kind": "sale", "sum": {"sales_fen": 300, "refunds_fen": 0, "count": 3}}
    twice = json.dumps(head, separators=(",", ":"))[:-1] + ',"body":{"amount_fen":1,"amount_fen":100}}'
    signing = signing_input(KEY.kid, twice.encode())
    chain.tokens.append(seal(signing, KEY.sign(signing)))
    chain.grow(2)
    assert desk.up(chain.batch(1, 5)).upto == 5
    check_all(desk.store, AT)
    assert [a[2:4] for a in desk.store.alarms()] == [(3, "KeyTwice")] and sums(desk.store)["count"] == 2


def test_a_wrong_total_is_an_alarm_and_our_own_sum_goes_on(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(2)
    chain.sum["sales_fen"] -= 50
    chain.grow(1)
    desk.up(chain.batch(1, 3))
    check_all(desk.store, AT)
    assert [a[2:4] for a in desk.store.alarms()] == [(3, "Sum")]
    assert sums(desk.store) == {"sales_fen": 300, "refunds_fen": 0, "count": 3}


def test_of_two_checkers_at_one_piece_one_settles(place: Place) -> None:
    where = place()
    desk, chain = Desk(where), Chain(KEY).grow(30)
    desk.up(chain.batch(1, 30))
    other = Store(where, [KEY.jwk])
    mine, theirs = examined(desk.store, "box-1", chain.jid, 20), examined(other, "box-1", chain.jid)
    assert mine is not None and theirs is not None
    with desk.store.transaction():
        assert settle(desk.store, mine, AT)
    with other.transaction():
        assert not settle(other, theirs, AT)
    check_all(other, AT)
    assert sums(other) == {"sales_fen": 3000, "refunds_fen": 0, "count": 30}


def test_a_checker_behind_the_door_examines_at_low_priority_and_settles_at_the_doors(place: Place,
                                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(60)
    desk.up(chain.batch(1, 50))
    desk.up(chain.batch(51, 60))
    nice: list[tuple[str, int]] = []

    def noted(name: str) -> None:
        was = getattr(checking, name)

        def asked(*given: Any) -> Any:
            nice.append((name, os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
            return was(*given)
        monkeypatch.setattr(checking, name, asked)
    for name in ("examined", "_unproven", "settle"):
        noted(name)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert Checker(desk.store, lambda: AT, behind=True).some() == 60 and sums(desk.store)["count"] == 60
    low = max(mine, checking.BEHIND_NICE)
    assert {("examined", low), ("_unproven", low), ("settle", mine)} == set(nice)


def test_the_background_lives_no_longer_than_its_collector(place: Place, tmp_path: Path) -> None:
    where = place()
    desk, chain = Desk(where), Chain(KEY).grow(60)
    desk.up(chain.batch(1, 50))
    script = tmp_path / "collector.py"
    script.write_text(f"""if 1:
        import time
        from fleet.records.background import Background
        background = Background({str(where)!r}, [{KEY.jwk!r}], lambda: {AT!r})
        background.go()
        print(background._pid, flush=True)
        time.sleep(60)
        """)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as collector:
        assert collector.stdout is not None
        pid = int(collector.stdout.readline())
        until_s = time.monotonic() + 20
        while sums(desk.store)["count"] < 50 and time.monotonic() < until_s:
            time.sleep(0.01)
        assert sums(desk.store)["count"] == 50
        collector.kill()
        collector.wait()
        while Path(f"/proc/{pid}").exists() and time.monotonic() < until_s:
            time.sleep(0.01)
        assert not Path(f"/proc/{pid}").exists()


def test_a_signature_turned_round_on_the_way_is_no_fork(place: Place) -> None:
    """With (r, s) anybody can make (r, N - s): a broker that does must not make a box look cloned."""
    desk, chain = Desk(place()), Chain(KEY).grow(6)
    turned = mirrored(chain.tokens[2])
    assert desk.up(Batch(chain.jid, 1, 3, digest(turned), (*chain.tokens[:2], turned))).upto == 3
    ack = desk.up(chain.batch(4, 6))
    assert (ack.verdict, ack.upto) == ("ok", 6)
    assert records(desk.store)["tokens"] == chain.tokens and defects(desk.store) == []
    check_all(desk.store, AT)
    assert sums(desk.store)["count"] == 6 and desk.store.alarms() == []


def _clone(chain: Chain, at: int, grow: int) -> Chain:
    clone = Chain(chain.key)
    clone.tokens, clone.sum = chain.tokens[:at], {"sales_fen": 100 * at, "refunds_fen": 0, "count": at}
    clone.add(body={"order_no": "CLONE", "amount_fen": 999})
    return clone.grow(grow - 1)


def test_both_branches_of_a_fork_are_kept_whole_and_alarmed_once(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(12)
    clone = _clone(chain, 5, 20)
    desk.up(chain.batch(1, 10))
    assert [desk.up(clone.batch(a, b)).verdict for a, b in ((1, 8), (9, 16), (17, 25), (9, 16))] == ["fork"] * 4
    assert desk.up(chain.batch(11, 12)).upto == 12
    assert records(desk.store)["tokens"] == chain.tokens
    assert desk.store.branches("box-1", chain.jid) == list(enumerate(clone.tokens[5:], 6))
    assert [(a[2], a[3]) for a in desk.store.alarms()] == [(6, "Fork")]
    assert BRANCH_MAX > 20


def test_a_branch_kept_above_a_gap_makes_room_for_what_follows(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(14)
    clone = _clone(chain, 5, 5)
    desk.up(chain.batch(1, 3))
    assert desk.up(clone.batch(7, 10)).want == ((4, 6),)
    ack = desk.up(chain.batch(4, 6))
    assert (ack.verdict, ack.upto) == ("fork", 6)
    assert desk.up(chain.batch(7, 14)).upto == 14
    assert records(desk.store)["tokens"] == chain.tokens
    assert [seq for seq, _ in desk.store.branches("box-1", chain.jid)] == [7, 8, 9, 10]
    check_all(desk.store, AT)
    assert sums(desk.store)["count"] == 14


def _hello(desk: Desk, chain: Chain, last: int) -> str:
    heads = (wire.JournalHead(chain.jid, 1, last + 1, digest(chain.tokens[last - 1])),)
    return desk.say(("hello", wire.encoded(wire.Hello(heads, "nonce"))))[0].verdict


def test_a_tail_that_the_box_had_and_lost_before_it_came_is_an_alarm(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(9)
    desk.up(chain.batch(1, 4))
    assert _hello(desk, chain, 9) == "ok" and _hello(desk, chain, 9) == "ok" and desk.store.alarms() == []
    assert _hello(desk, chain, 6) == "ok"
    assert [(a[2], a[3]) for a in desk.store.alarms()] == [(9, "CutTail")]


def test_an_end_that_changed_before_it_came_is_an_alarm(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(7)
    desk.up(chain.batch(1, 4))
    _hello(desk, chain, 7)
    other = _clone(chain, 5, 4)
    desk.up(other.batch(5, 9))
    _hello(desk, other, 9)
    assert [(a[2], a[3]) for a in desk.store.alarms()] == [(7, "EndChanged")]


def test_an_end_that_came_on_another_branch_is_a_fork_and_nothing_else(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(7)
    desk.up(chain.batch(1, 7))
    clone = _clone(chain, 5, 2)
    _hello(desk, clone, 7)
    assert desk.up(clone.batch(6, 7)).verdict == "fork"
    _hello(desk, clone, 7)
    _hello(desk, chain, 7)
    assert [(a[2], a[3]) for a in desk.store.alarms()] == [(6, "Fork")]
    _hello(desk, _clone(chain, 6, 1), 7)                     # a third one, whose record 7 never came
    _hello(desk, chain, 7)
    assert [(a[2], a[3]) for a in desk.store.alarms()] == [(6, "Fork"), (7, "EndChanged")]


def test_what_a_database_cannot_hold_is_put_aside_and_stops_nothing(place: Place) -> None:
    desk, chain, bad = Desk(place()), Chain(KEY), Chain(KEY, jid="b" * 21 + "A")
    bad.add(body={"order_no": "N\x001", "amount_fen": 5, "tenders": []})
    bad.add("refund", {"order_no": "N\x001", "refund_no": "R\x00", "amount_fen": 5, "method": "wechat", "paid_no": "N\x001"})
    bad.add("refund", {"order_no": "N1", "refund_no": "R" * 3000, "amount_fen": 2**60, "method": "wechat", "paid_no": "N1"})
    chain.grow(3)
    say = [("up", wire.batch_encoded(bad.batch(1, 2))), ("up", wire.batch_encoded(bad.batch(3, 3))),
           ("open", b'[{"order_no":"\\u0000","channel":"a","account":"b","amount_fen":1,"age_s":1}]'), ("hello", b"\x00"),
           ("up", wire.batch_encoded(chain.batch(1, 3)))]
    assert desk.say(*say)[-1].upto == 3
    check_all(desk.store, AT)
    assert sums(desk.store)["count"] == 5
    assert {name for _, name, _ in desk.store.quarantined()} == {"HELLO", "AMOUNT_NOT_INTEGER"}


def test_the_one_message_that_the_database_refuses_is_found_and_the_others_go_on(place: Place, monkeypatch) -> None:
    """A row that is there already though its guard says otherwise, as after a store restored by hand: not ours to overwrite."""
    desk, chain, other = Desk(place()), Chain(KEY).grow(4), Chain(KEY, box="box-2").grow(4)
    desk.up(chain.batch(1, 4))
    desk.store.database.execute("UPDATE guard SET upto = 0, top = 0, head = ?", (digest(""),))
    replies = desk.clerk.handle([(topics.up("shop", "box-1"), wire.batch_encoded(chain.batch(1, 4))),
                                 (topics.up("shop", "box-2"), wire.batch_encoded(other.batch(1, 4)))])
    assert len(replies) == 2 and desk.store.guard("box-2", other.jid)[0] == 4
    assert [q[:2] for q in desk.store.quarantined()] == [("box-1", "NOT_KEPT")]


@pytest.mark.parametrize("seed", range(3))
def test_several_collectors_serve_one_box_in_turn(place: Place, seed: int) -> None:
    """Three collectors at one store, each on its own thread; batches of two boxes come doubled, reordered and to anybody."""
    where, dice = place(), random.Random(seed)
    chains = [Chain(KEY).grow(120), Chain(KEY, box="box-2").grow(120)]
    batches = [(c, a, min(120, a + dice.randrange(3, 9))) for c in chains for a in range(1, 121, 4)] * 2
    near = sorted(range(len(batches)), key=lambda n: n % (len(batches) // 2) % 30 + dice.uniform(0, 6))
    desks = [Desk(where) for _ in range(3)]
    failures: list[BaseException] = []

    def work(desk: Desk, mine: list[int]) -> None:
        try:
            for n in mine:
                chain, first, last = batches[n]
                message = (topics.up("shop", chain.box), wire.batch_encoded(chain.batch(first, last)))
                desk.clerk.handle([message])
        except BaseException as why:  # noqa: BLE001 - told to the test
            failures.append(why)

    threads = [threading.Thread(target=work, args=(desk, near[n::3])) for n, desk in enumerate(desks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = desks[0].store
    for chain in chains:
        assert store.chain(chain.box, chain.jid) == chain.tokens
    assert defects(store) == [] and store.quarantined() == []
    check_all(store, AT)
    assert sums(store)["count"] == 240


def test_records_stand_in_parts_by_box_and_day_and_a_day_made_late_is_no_loss(postgres) -> None:
    where = postgres.database("template_store")
    store = Store(where, [KEY.jwk])
    days = iter(["2026-07-14T09:00:00+08:00", "2026-07-16T07:59:00+08:00", "2026-07-16T08:01:00+08:00"])
    chain = Chain(KEY).grow(9)
    for first in (1, 4, 7):
        at = next(days)
        clerk = Clerk(store, "shop", ACK_KEY.kid, ACK_KEY.sign, lambda at=at: at)
        clerk.handle([(topics.up("shop", "box-1"), wire.batch_encoded(chain.batch(first, first + 2)))])
    parts = store.database.execute("SELECT tableoid::regclass::text, count(*) FROM record GROUP BY 1 ORDER BY 1").fetchall()
    assert [(name[10:], n) for name, n in parts] == [("20260714", 3), ("20260715", 3), ("20260716", 3)]
    assert len({name[:9] for name, _ in parts}) == 1
    assert store.chain("box-1", chain.jid) == chain.tokens and defects(store) == []
    with store.transaction():                                # and one that nobody made ahead
        store._rows._days.clear()
        store.take("box-2", Chain(KEY, box="box-2").grow(2).batch(1, 2), "2027-01-01T00:00:00Z")
    assert store.guard("box-2", chain.jid)[0] == 2
    assert json.loads(json.dumps(sums(store)))["count"] == 0
