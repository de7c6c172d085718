"""An enrolled box that means harm, against the cloud's parts: nobody else waits, nothing falls over, and a person is not fooled.

`python -m tests.cloud_attacks` throws as many as are asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from device.mqtt import cmd_wire, config_wire, wire
from device.mqtt.client import COLLECTORS_MAX, Link
from device.store_forward.token import digest
from fleet.__main__ import main
from fleet.identity.enrol_desk import DeskLine
from fleet.keys import SigningKey
from fleet.push.config import TOLD_MAX
from fleet.records.collector import RECEIVE_MAX, Collector
from fleet.records.patience import BATCHES_MAX, OTHERS_MAX, SPOILT_MAX, WINDOW_S, Patience
from fleet.records.store import ALARMS_MAX, VERIFIERS_MAX, Store
from tests.cloud_attacks import AT, ATTACKS, HOSTILE, Cloud, full_reports, played, well
from tests.record_chain import Chain, Key

Place = Callable[[], str]


def test_whatever_a_box_says_the_others_are_served_and_nothing_falls_over(place: Place, tmp_path: Path) -> None:
    told = played(7, 120, place(), tmp_path)
    assert well(told), told
    assert told["kinds"] == len({attack.__name__ for attack in ATTACKS})


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(str(tmp_path / "store.db"), tmp_path)


def test_a_report_that_grows_when_it_is_kept_ends_no_courier(cloud: Cloud) -> None:
    """Left-out values stand in what is kept: so it may be longer than anything that is let in."""
    import random
    (message,) = full_reports(random.Random(1), cloud)
    assert len(message[1]) == config_wire.REPORTED_MAX_BYTES
    cloud.together([message])
    assert not cloud.store.quarantined()
    cloud.ticks()
    assert main(["config", "status", "--store", cloud.where]) == 1


@pytest.mark.parametrize("told", [10**15 - 1, TOLD_MAX + 1, TOLD_MAX])
def test_a_box_that_tells_of_a_version_no_push_could_rise_above_can_still_be_pushed_to(cloud: Cloud, told: int) -> None:
    from fleet.push.layers import EVERYONE
    from fleet.push.rollouts import Rollouts
    cloud.ticks()
    cloud.together([("config/reported", config_wire.reported_encoded(config_wire.Reported(told, told, "", "active")))])
    with cloud.store.database.transaction():
        Rollouts(cloud.store.database).configs.put_layer(EVERYONE, {"shop_en": "Corner two"}, {}, "li", AT)
        Rollouts(cloud.store.database).push(None, [HOSTILE], "li", AT)
    (parcel,) = [one for one in cloud.ticks() if one.topic.endswith("config/desired")]
    assert parcel.payload
    issued = Rollouts(cloud.store.database).configs.issued(HOSTILE)
    assert issued is not None and (issued.place > (told, told)) == (told == TOLD_MAX)


def test_what_a_box_writes_cannot_move_an_admins_cursor_or_forge_a_line(cloud: Cloud, capsys: pytest.CaptureFixture[str],
                                                                       tmp_path: Path) -> None:
    evil = "\x1b[2J\nN1 wechat main 9.00: paid"
    cloud.together([
        ("open", wire.encoded((wire.OpenOrder("N1\nN2 w m", "wechat", "x\x1b[2J\x9b", 900, 3),))),
        ("config/reported", config_wire.reported_encoded(config_wire.Reported(0, 1, "", "refused", evil, reasons=(evil,)))),
        ("cmd/res", cmd_wire.answer_encoded(cmd_wire.CmdAnswer(HOSTILE, cloud.asked[0], False, error=evil, name="no")))])
    capsys.readouterr()
    for words, lines in ((["settle", HOSTILE, "--config", str(tmp_path / "settle.toml")], 2), (["config", "status"], 4),
                         (["cmd", "list"], 5)):
        main([*words, "--store", cloud.where])
        out = capsys.readouterr().out
        assert "\x1b" not in out and "\x9b" not in out and len(out.splitlines()) == lines, out


def test_ends_that_a_box_says_and_takes_back_fill_no_table(cloud: Cloud) -> None:
    cloud.chain.grow(1)
    cloud.together([("up", wire.batch_encoded(cloud.chain.batch(1, 1)))])
    hellos = [("hello", wire.encoded(wire.Hello((wire.JournalHead(cloud.chain.jid, 1, n, "x" * 43),), "s")))
              for far in range(ALARMS_MAX + 50) for n in (10**6 + far, 2)]
    for at in range(0, len(hellos), 100):
        cloud.together(hellos[at:at + 100])
    alarms = cloud.store.alarms()
    assert len(alarms) == ALARMS_MAX and alarms[-1][3] == "TooMany" and cloud.served()


def test_keys_without_end_are_not_all_held_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet.records import store as module
    monkeypatch.setattr(module, "VERIFIERS_MAX", 3)
    key = Key()
    store = Store(":memory:", [key.jwk])
    for n in range(10):
        assert store.verifier(f"box-{n}", key.kid) is not None
    assert len(store._verifiers) <= 3 < VERIFIERS_MAX


def test_a_flood_that_nothing_holds_back_is_not_queued(tmp_path: Path) -> None:
    """Only what is confirmed counts against what the broker may hand over at once: QoS 0 would fill our memory."""
    collector = Collector(Store(":memory:"), "127.0.0.1", 1, "shop", SigningKey(tmp_path / "ack.pem"))
    chain = Chain(Key()).grow(1)
    for qos in (0, 1):
        for mid in range(RECEIVE_MAX):
            collector._client.on_message(None, None, SimpleNamespace(
                qos=qos, mid=mid, topic="tb1/shop/box-1/up", payload=wire.batch_encoded(chain.batch(1, 1))))
    assert collector._came.qsize() == RECEIVE_MAX and digest(chain.tokens[0])


@pytest.mark.parametrize(("name", "most"), [("up", BATCHES_MAX), ("hello", OTHERS_MAX)])
def test_a_box_that_floods_is_heard_again_in_the_next_window_and_another_always(name: str, most: int) -> None:
    now_s = [0.0]
    patience = Patience(lambda: now_s[0])
    assert all(patience.hears("box-1", name) for _ in range(most)) and not patience.hears("box-1", name)
    assert patience.hears("box-2", name)
    now_s[0] = WINDOW_S
    assert patience.hears("box-1", name)
    for _ in range(SPOILT_MAX):
        patience.spoilt("box-1")
    assert not patience.hears("box-1", "up") and not patience.hears("box-1", "open") and patience.hears("box-2", "up")


def test_a_flood_is_taken_off_the_brokers_hands_unread_and_the_next_boxs_record_is_committed(tmp_path: Path) -> None:
    """What a broker cannot hand over it drops, everybody's: so what is not heard is confirmed at once."""
    key = Key()
    collector = Collector(Store(":memory:", [key.jwk]), "127.0.0.1", 1, "shop", SigningKey(tmp_path / "ack.pem"))
    confirmed: list[int] = []
    collector._client.ack = lambda mid, qos: confirmed.append(mid)

    def came(mid: int, box: str, payload: bytes) -> None:
        collector._client.on_message(None, None, SimpleNamespace(qos=1, mid=mid, topic=f"tb1/shop/{box}/up", payload=payload))

    for _ in range(SPOILT_MAX + 1):                  # as the worker does: what came is taken, and what is spoilt is counted
        came(1, "box-1", b"rubbish")
        while not collector._came.empty():
            collector.clerk.handle_opened([collector._came.get()[-1]])
    assert len(collector.clerk.store.quarantined()) == SPOILT_MAX
    came(2, "box-2", wire.batch_encoded(Chain(key, "box-2").grow(1).batch(1, 1)))
    assert confirmed == [1] and collector._came.qsize() == 1


def test_a_broker_that_lies_about_collectors_fells_no_box_and_fills_no_memory() -> None:
    """An exception in the line's reader ends the till, and the broker would say it again, retained, at the next connect."""
    async def scenario() -> None:
        told: list[tuple[bool, bool]] = []
        link = Link("127.0.0.1", 1, "shop", "box-1", on_message=lambda name, payload: None,
                    on_state=lambda up, collector: told.append((up, collector)), hello=lambda session: b"{}")
        for n in range(2 * COLLECTORS_MAX):
            link._collector_came(f"tb1/shop/_collector/c{n}/state", wire.encoded(wire.Status("down", n)))
            link._collector_came(f"tb1/shop/_collector/c{n}/state", b'{"state":"up","connect":1,"x":' + b"[" * 30_000)
        assert len(link._collectors) <= COLLECTORS_MAX and not link.collector
        link._collector_came("tb1/shop/_collector/c1/state", wire.encoded(wire.Status("up", 10**6)))
        assert link.collector and told[-1] == (False, True)

    asyncio.run(scenario())


def test_a_request_that_breaks_its_reader_does_not_end_the_enrolment_desk() -> None:
    def broken(raw: bytes, code_id: str) -> bytes | None:
        if raw == b"bad":
            raise RuntimeError("what a library did not foresee")
        return b"answer"
    line, said = DeskLine(broken, "127.0.0.1", 1, "shop"), []
    client = SimpleNamespace(publish=lambda topic, payload, qos: said.append(payload))
    for raw in (b"bad", b"good"):
        line._came(client, "tb1/_enrol/00TB0X/ask", raw)
    assert said == [b"answer"] and not line.ended.is_set()


def test_a_collector_that_can_tell_nothing_more_ends_by_name(tmp_path: Path) -> None:
    collector = Collector(Store(":memory:"), "127.0.0.1", 1, "shop", SigningKey(tmp_path / "ack.pem"))
    broken = ValueError("no key signs any more")
    def signed(reply: object) -> object:
        raise broken
    collector.clerk.signed = signed  # type: ignore[method-assign, assignment]
    collector._teller.start()
    collector._worker.start()
    collector._done.put(([], [("topic", b"")]))
    assert collector.ended.wait(20) and collector.failure is broken
