"""What the collector commits: every link and signature checked, nothing twice, nothing over another, no answer too early."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from device.mqtt import topics, wire
from device.mqtt.wire import Ack, Batch
from device.store_forward.es256 import public_verifier
from device.store_forward.token import EMPTY_DIGEST, digest
from fleet.__main__ import main
from fleet.keys import SigningKey
from fleet.records.checking import check_all
from fleet.records.collector import Clerk
from fleet.records.proof import defects
from fleet.records.store import AHEAD_MAX, QUARANTINE_MAX, Store, records, sums
from tests.record_chain import Chain, Key

KEY, ACK_KEY = Key(), Key()
Place = Callable[[], str]
AT = "2026-07-14T09:26:53+08:00"


class Desk:
    """A clerk over a store, spoken to in batches, answering in acks."""

    def __init__(self, where: Path | str, keys: list | None = None) -> None:
        self.store = Store(where, [KEY.jwk] if keys is None else keys)
        self.clerk = Clerk(self.store, "shop", ACK_KEY.kid, ACK_KEY.sign, lambda: AT)

    def up(self, *batches: Batch | bytes, box: str = "box-1") -> Ack:
        return self.say(*[("up", b if isinstance(b, bytes) else wire.batch_encoded(b)) for b in batches], box=box)[-1]

    def say(self, *messages: tuple[str, bytes], box: str = "box-1") -> list[Ack]:
        replies = self.clerk.handle([(topics.of_box("shop", box, name), payload) for name, payload in messages])
        assert all(topic == topics.ack("shop", box) for topic, _ in replies)
        return [wire.ack_decoded(raw, {ACK_KEY.kid: public_verifier(ACK_KEY.jwk)}) for _, raw in replies]


def _whole(desk: Desk, chain: Chain) -> bool:
    return records(desk.store)["tokens"] == chain.tokens and not defects(desk.store)


def test_batches_in_order_are_committed_and_summed(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(60)
    chain.add("refund", {"order_no": "N1", "amount_fen": 30})
    ack = desk.up(chain.batch(1, 50))
    assert (ack.upto, ack.head, ack.verdict, ack.want, ack.at) == (50, digest(chain.tokens[49]), "ok", (), AT)
    assert desk.up(chain.batch(51, 61)).upto == 61
    assert _whole(desk, chain)
    assert sums(desk.store)["count"] == 0, "counted before every signature was checked"
    check_all(desk.store, AT)
    assert sums(desk.store) == {"sales_fen": 6000, "refunds_fen": 30, "count": 61}
    assert records(desk.store)["keys"][0]["kid"] == KEY.kid


def test_a_repeat_changes_nothing_and_is_acknowledged(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(10)
    first = desk.up(chain.batch(1, 10))
    assert desk.up(chain.batch(1, 10)) == first
    assert desk.up(chain.batch(3, 7)) == first
    assert _whole(desk, chain) and desk.store.alarms() == []


def test_many_batches_share_one_commit_and_one_answer(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(9)
    answers = desk.say(*[("up", wire.batch_encoded(chain.batch(n, n))) for n in range(1, 10)])
    assert [a.upto for a in answers] == [9]


def test_a_gap_is_wanted_and_what_came_above_it_is_kept(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(40)
    desk.up(chain.batch(1, 10))
    ack = desk.up(chain.batch(21, 30))
    assert (ack.upto, ack.want, ack.verdict) == (10, ((11, 20),), "ok")
    assert desk.up(chain.batch(33, 40)).want == ((11, 20), (31, 32))
    assert len(records(desk.store)["tokens"]) == 10
    assert desk.up(chain.batch(11, 20)).upto == 30
    assert desk.up(chain.batch(31, 32)).upto == 40
    assert _whole(desk, chain)


def test_too_far_above_a_gap_nothing_is_kept(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY)
    chain.tokens = ["x"] * (AHEAD_MAX + 1)
    chain.add()
    ack = desk.up(chain.batch(AHEAD_MAX + 2, AHEAD_MAX + 2))
    assert (ack.upto, ack.want) == (0, ((1, AHEAD_MAX),))
    assert desk.store.token("box-1", chain.jid, AHEAD_MAX + 2) is None


def test_another_content_under_a_known_number_is_a_fork_and_never_an_overwrite(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(10)
    clone = Chain(KEY)
    clone.tokens, clone.sum = chain.tokens[:5], {"sales_fen": 500, "refunds_fen": 0, "count": 5}
    clone.add(body={"order_no": "CLONE", "amount_fen": 999})
    clone.grow(4)
    desk.up(chain.batch(1, 10))
    ack = desk.up(clone.batch(6, 10))
    assert (ack.verdict, ack.upto, ack.head) == ("fork", 10, digest(chain.tokens[9]))
    assert records(desk.store)["tokens"] == chain.tokens
    assert [(a[2], a[3]) for a in desk.store.alarms()] == [(6, "Fork")]
    desk.up(clone.batch(6, 10))
    assert len(desk.store.alarms()) == 1
    assert [d[3] for d in defects(desk.store)] == ["FORK"]


def test_a_branch_that_goes_on_from_another_head_is_a_fork(place: Place) -> None:
    desk, chain, clone = Desk(place()), Chain(KEY).grow(5), Chain(KEY)
    clone.add(body={"order_no": "CLONE", "amount_fen": 1})
    clone.grow(6)
    desk.up(chain.batch(1, 5))
    ack = desk.up(clone.batch(6, 7))
    assert (ack.verdict, ack.upto) == ("fork", 5) and records(desk.store)["tokens"] == chain.tokens


def test_a_branch_kept_above_a_gap_is_found_when_the_gap_closes(place: Place) -> None:
    desk, chain, clone = Desk(place()), Chain(KEY).grow(7), Chain(KEY)
    clone.add(body={"order_no": "CLONE", "amount_fen": 1})
    clone.grow(6)
    assert desk.up(clone.batch(6, 7)).verdict == "ok"
    ack = desk.up(chain.batch(1, 5))
    assert (ack.verdict, ack.upto) == ("fork", 5)


def test_a_fork_is_not_washed_away_by_the_next_batch_of_the_same_commit(place: Place) -> None:
    desk, chain, clone = Desk(place()), Chain(KEY).grow(3), Chain(KEY)
    clone.add(body={"order_no": "CLONE", "amount_fen": 1})
    ack = desk.up(chain.batch(1, 2), clone.batch(1, 1), chain.batch(3, 3))
    assert (ack.verdict, ack.upto) == ("fork", 3) and ack.why


def test_the_same_record_under_another_valid_signature_is_the_same_record(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(4)
    desk.up(chain.batch(1, 4))
    chain.tokens[3] = chain.signed_again(4)                  # the box lost its own copy and signed again
    ack = desk.up(chain.batch(4, 4))
    assert (ack.verdict, ack.upto, ack.head) == ("ok", 4, digest(chain.tokens[3]))
    chain.grow(2)
    assert desk.up(chain.batch(5, 6)).upto == 6
    assert _whole(desk, chain) and desk.store.alarms() == []


def _unreadables() -> dict[str, bytes]:
    chain, other = Chain(KEY).grow(4), Chain(Key()).grow(3)
    foreign = Chain(KEY, box="box-2").grow(1)
    swapped = Batch(chain.jid, 1, 2, digest(other.tokens[1]), (chain.tokens[0], other.tokens[1]))
    spoilt = chain.tokens[0][:-6] + ("AAAAAA" if chain.tokens[0][-6:] != "AAAAAA" else "BBBBBB")
    return {
        "BATCH_HEADER": b"\x00\x01",
        "KEY_UNKNOWN": wire.batch_encoded(other.batch(1, 3)),
        "WRONG_PLACE": wire.batch_encoded(foreign.batch(1, 1)),
        "BROKEN_LINK": wire.batch_encoded(swapped),
        "WRONG_HEAD": wire.batch_encoded(Batch(chain.jid, 1, 1, EMPTY_DIGEST, (chain.tokens[0],))),
        "BAD_SIGNATURE": wire.batch_encoded(Batch(chain.jid, 1, 1, digest(spoilt), (spoilt,))),
    }


@pytest.mark.parametrize("name", sorted(_unreadables()))
def test_an_unreadable_batch_is_put_aside_whole_and_stops_nothing(place: Place, name: str) -> None:
    desk, chain, raw = Desk(place()), Chain(KEY).grow(4), _unreadables()[name]
    desk.up(chain.batch(1, 1))
    ack = desk.up(raw) if name != "BAD_SIGNATURE" else Desk(place()).up(raw)
    assert ack.verdict == "unreadable" and ack.why.startswith(name) and 0 < ack.hold_ms <= 600_000
    if name != "BAD_SIGNATURE":
        assert desk.store.quarantined()[0][:2] == ("box-1", name)
    assert desk.up(raw, chain.batch(2, 4)).upto == 4
    assert _whole(desk, chain)


def test_a_bad_signature_late_in_a_batch_keeps_none_of_it(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(3)
    last = chain.tokens[2].rpartition(".")[0] + "." + chain.tokens[1].rpartition(".")[2]
    ack = desk.up(Batch(chain.jid, 1, 3, digest(last), (*chain.tokens[:2], last)))
    assert (ack.verdict, ack.upto) == ("unreadable", 0)
    assert records(desk.store)["tokens"] == []
    assert desk.up(chain.batch(1, 3)).upto == 3


def test_quarantine_is_bounded(place: Place) -> None:
    desk = Desk(place())
    desk.say(*[("up", b"rubbish %d" % n) for n in range(QUARANTINE_MAX + 5)])
    assert len(desk.store.quarantined()) == QUARANTINE_MAX


def test_a_key_record_introduces_its_key_for_its_own_box_only(place: Place) -> None:
    desk, chain, fresh = Desk(place()), Chain(KEY).grow(2), Key()
    chain.add("key", {"jwk": fresh.jwk})
    chain.key = fresh
    chain.grow(2)
    ack = desk.up(chain.batch(4, 5))                         # its key stands in the gap: wanted, not unreadable
    assert (ack.verdict, ack.want) == ("ok", ((1, 3),))
    assert desk.up(chain.batch(1, 5)).upto == 5
    assert [k["kid"] for k in records(desk.store)["keys"]] == [KEY.kid, fresh.kid]
    assert _whole(desk, chain)
    other = Chain(fresh, box="box-2").grow(1)
    assert desk.up(other.batch(1, 1), box="box-2").why.startswith("KEY_UNKNOWN")


def test_a_key_bound_to_a_box_signs_for_no_other(place: Place) -> None:
    desk = Desk(place(), keys=[{**KEY.jwk, "box": "box-1"}])
    assert desk.up(Chain(KEY).grow(1).batch(1, 1)).upto == 1
    assert desk.up(Chain(KEY, box="box-2").grow(1).batch(1, 1), box="box-2").verdict == "unreadable"


def test_a_kill_between_commit_and_answer_loses_and_doubles_nothing(place: Place) -> None:
    chain, where = Chain(KEY).grow(6), place()
    killed = Desk(where)
    killed.up(chain.batch(1, 6))                             # committed; the answer never leaves
    again = Desk(where)
    assert again.up(chain.batch(1, 6)).upto == 6
    assert _whole(again, chain)


def test_a_kill_before_the_commit_leaves_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, where = Chain(KEY).grow(6), place()
    desk = Desk(where)
    monkeypatch.setattr(desk.store, "_write_guards", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        desk.up(chain.batch(1, 6))
    again = Desk(where)
    assert again.store.guards() == [] and records(again.store)["tokens"] == []
    assert again.up(chain.batch(1, 6)).upto == 6


def test_hello_is_answered_with_where_the_cloud_stands(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(6)
    desk.up(chain.batch(1, 6))

    def hello(upto: int) -> Ack:
        journals = (wire.JournalHead(chain.jid, 1, upto + 1, digest(chain.tokens[upto - 1])),)
        return desk.say(("hello", wire.encoded(wire.Hello(journals, "nonce"))))[0]
    assert (hello(6).upto, hello(6).verdict) == (6, "ok")
    assert (hello(4).upto, hello(4).verdict) == (6, "rollback")
    chain.tokens[5] = digest("cloned").ljust(60, "x")
    assert hello(6).verdict == "fork"
    assert desk.say(("hello", b"{")) == [] and desk.store.quarantined()[0][1] == "HELLO"


def test_a_taker_that_breaks_takes_back_its_own_and_stops_nothing(place: Place) -> None:
    desk, chain = Desk(place()), Chain(KEY).grow(3)

    def broken(box: str, payload: bytes, at: str) -> list:
        desk.store.open_orders(box, "half", at)
        raise KeyError(payload.decode())
    desk.clerk.register("cmd/res", broken)
    desk.clerk.register("cmd/res", lambda box, payload, at: [(topics.ack("shop", box), b"answer")])
    replies = desk.clerk.handle([(topics.of_box("shop", "box-1", "cmd/res"), b"x"),
                                 (topics.up("shop", "box-1"), wire.batch_encoded(chain.batch(1, 3)))])
    assert replies[0][1] == b"answer" and desk.store.guard("box-1", chain.jid)[0] == 3
    assert desk.store.database.execute("SELECT count(*) FROM open_now").fetchone() == (0,)
    assert [q[:2] for q in desk.store.quarantined()] == [("box-1", "NOT_TAKEN")]
    assert "cmd/res" in desk.clerk.names


def test_two_journals_are_summed_and_listed_in_order_of_arrival(place: Place) -> None:
    desk, old, new = Desk(place()), Chain(KEY, jid="z" * 21 + "A").grow(3), Chain(KEY, jid="a" * 21 + "A").grow(2)
    desk.up(old.batch(1, 3))
    desk.up(new.batch(1, 2))
    assert records(desk.store)["tokens"] == old.tokens + new.tokens
    check_all(desk.store, AT)
    assert sums(desk.store)["count"] == 5


def test_the_ack_key_is_made_once_and_readable_by_its_owner_only(tmp_path: Path) -> None:
    made = SigningKey(tmp_path / "ack.pem")
    assert (tmp_path / "ack.pem").stat().st_mode & 0o777 == 0o600
    assert SigningKey(tmp_path / "ack.pem").kid == made.kid
    assert public_verifier(made.jwk)(b"x", made.sign(b"x"))


def test_verify_command_finds_what_was_changed_behind_its_back(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    chain, where, keys = Chain(KEY).grow(5), place(), tmp_path / "keys.jwks"
    keys.write_text(json.dumps({"keys": [KEY.jwk]}))
    desk = Desk(where)
    desk.up(chain.batch(1, 5))
    call = ["verify", "--store", where, "--keys", str(keys), "--json"]
    assert main(call) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["sales_fen"], summary["unchecked"]) == (500, 5)
    assert main(["check", "--once", *call[1:]]) == 0
    assert json.loads(capsys.readouterr().out) == {"checked": 5, "waiting": 0, "stopped": 0}
    desk.store.database.execute("DELETE FROM record WHERE seq = 3")
    assert main(call) == 1
    assert {"GAP", "LINK"} <= {json.loads(line).get("error") for line in capsys.readouterr().out.splitlines()}
    desk.store.database.execute("UPDATE guard SET checked = 0, sales_fen = 0, count = 0")
    assert main(["check", "--once", *call[1:]]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[0])["stopped"].startswith("GAP: record 3")
    assert main(["verify", "--store", str(tmp_path / "none.db"), "--keys", str(keys)]) == 2


def test_the_store_is_held_to_the_rules_of_late_records_and_of_retired_keys(place: Place) -> None:
    desk, chain, old = Desk(place()), Chain(KEY).grow(1), KEY
    chain.add("signer_gap", {"count": 2})
    chain.add("drawer", {"late": True})
    chain.add("drawer")                                      # the second one that waited is not marked
    chain.add("drawer", {"late": True})                      # and nothing counts this one
    new = Key()
    chain.add("key", {"kid": new.kid, "jwk": new.jwk})
    chain.key = new
    chain.add()
    chain.key = old                                          # a thief with the key that was destroyed
    chain.add()
    desk.up(chain.batch(1, len(chain.tokens)))
    check_all(desk.store, AT)
    assert [(d[2], d[3]) for d in defects(desk.store) if d[3] in ("LATE_WRONG", "KEY_RETIRED")] == [
        (4, "LATE_WRONG"), (5, "LATE_WRONG"), (8, "KEY_RETIRED")]
