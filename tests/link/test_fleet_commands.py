"""Commands in the cloud: kept until the box says hello, signed for that session, sent until answered, and on record for ever."""

from __future__ import annotations

import json

import msgspec
import pytest

from device.mqtt import cmd_wire, topics, wire
from device.store_forward.es256 import public_verifier
from fleet.__main__ import main
from fleet.commands.courier import Courier, command_room
from fleet.commands.kept import LIVES_S, RESEND_S, SCHEMA, CommandDesk, Commands
from fleet.commands.tool import verb_of
from fleet.database import opened
from fleet.groups import SCHEMA as GROUPS
from fleet.groups import Groups, made
from fleet.keys import SigningKey


def at(seconds: int) -> str:
    return f"2026-09-01T{10 + seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}+08:00"


def hello(session: str) -> bytes:
    return wire.encoded(wire.Hello((), session, software="0.1"))


class Desk:
    """The cloud's side over one database, with a clock moved by hand."""

    def __init__(self, where: object = ":memory:") -> None:
        self.database = opened(str(where))
        made(self.database, GROUPS, SCHEMA)
        self.desk, self.commands, self.groups = CommandDesk(self.database), Commands(self.database), Groups(self.database)

    def hello(self, box: str, session: str, when: int = 0) -> None:
        with self.database.transaction():
            self.desk.hello(box, hello(session), at(when))

    def ask(self, *boxes: str, verb: str = "status", args: str = "", by: str = "li:admin", when: int = 0) -> list[str]:
        with self.database.transaction():
            return self.commands.ask(boxes, verb, args, by, at(when))

    def due(self, when: int = 0) -> list[cmd_wire.Cmd]:
        with self.database.transaction():
            return self.commands.due(at(when))

    def said(self, id: str, box: str = "box-1", ok: bool = True, **more) -> None:
        answer = cmd_wire.CmdAnswer(box, id, ok, msgspec.Raw(b'"fine"') if ok else msgspec.UNSET, **more)
        with self.database.transaction():
            self.desk.result(box, cmd_wire.answer_encoded(answer), at(9))

    def state(self, id: str) -> str:
        return next(one.state for one in self.commands.listed() if one.id == id)


@pytest.fixture
def desk(place):
    one = Desk(place())
    yield one
    one.database.close()


def test_a_command_waits_for_the_hello_and_names_its_session(desk):
    (id_,) = desk.ask("box-1")
    assert desk.due() == []
    desk.hello("box-1", "s1")
    assert desk.due() == [cmd_wire.Cmd("box-1", id_, "s1", "status", "", "li:admin")]
    desk.said(id_)
    assert desk.state(id_) == "done" and desk.due(RESEND_S + 1) == []


def test_what_was_not_answered_leaves_again_under_the_next_session_at_once_and_in_the_same_after_a_while(desk):
    (id_,) = desk.ask("box-1")
    desk.hello("box-1", "s1")
    assert [c.session for c in desk.due(0)] == ["s1"] and desk.due(RESEND_S - 1) == []
    assert [c.id for c in desk.due(RESEND_S)] == [id_]
    desk.hello("box-1", "s2", RESEND_S)
    assert [(c.id, c.session) for c in desk.due(RESEND_S + 1)] == [(id_, "s2")]


def test_what_was_sent_before_the_clouds_clock_was_put_back_leaves_again(desk):
    (id_,) = desk.ask("box-1")
    desk.hello("box-1", "s1")
    assert [c.id for c in desk.due(50_000)] == [id_]
    assert [c.id for c in desk.due(10)] == [id_] and desk.due(10 + RESEND_S - 1) == []


@pytest.mark.parametrize("name", sorted(cmd_wire.AGAIN))
def test_a_refusal_of_the_moment_leaves_it_waiting_and_another_ends_it(desk, name):
    (id_,) = desk.ask("box-1")
    desk.said(id_, ok=False, error="not now", name=name)
    assert desk.state(id_) == "waiting"
    desk.said(id_, ok=False, error="never", name="role")
    assert desk.state(id_) == "refused"
    desk.said(id_)
    assert desk.state(id_) == "refused", "the first word is the last"


def test_another_boxes_answer_is_none(desk):
    (id_,) = desk.ask("box-1")
    desk.said(id_, box="box-2")
    assert desk.state(id_) == "waiting"
    with pytest.raises(wire.WireError, match="names box"):
        desk.desk.result("box-2", cmd_wire.answer_encoded(cmd_wire.CmdAnswer("box-1", id_, False, error="no")), at(0))


@pytest.mark.parametrize(("verb", "args"), [("status", ""), ("refund", "00000100000000000000 5"), ("reboot", "")])
def test_what_waits_too_long_is_over_and_money_soonest(desk, verb, args):
    (id_,) = desk.ask("box-1", verb=verb, args=args)
    lives_s = LIVES_S[cmd_wire.VERBS[verb].kind]
    desk.database.execute("UPDATE command SET until_s = until_s - ?", (lives_s - 10,))
    desk.hello("box-1", "s1")
    assert [c.id for c in desk.due(9)] == [id_] and desk.due(10) == []
    assert desk.state(id_) == "expired" and LIVES_S["money"] < LIVES_S["question"]


@pytest.mark.parametrize(("verb", "args", "by", "why"), [
    ("mark paid", "", "li:admin", "is no command"), ("refund", "x", "li:admin", "does not take"),
    ("reboot", "", "li:lead", "not for the role lead"), ("status", "", "li", "not for the role"),
    ("status", "", "li li:admin", "Expected")])
def test_what_no_box_would_do_is_refused_before_it_is_kept(desk, verb, args, by, why):
    with pytest.raises((ValueError, msgspec.ValidationError), match=why):
        desk.ask("box-1", verb=verb, args=args, by=by)
    assert desk.commands.listed() == []


def test_money_moves_at_one_box_at_a_time(desk):
    with pytest.raises(ValueError, match="one box"):
        desk.ask("box-1", "box-2", verb="refund", args="00000100000000000000 5")


def test_two_couriers_send_each_command_once(place):
    where = place()
    one, other = Desk(where), Desk(where)
    one.hello("box-1", "s1")
    one.ask(*["box-1"] * 5)
    first, second = one.due(), other.due()
    assert (len(first), len(second)) == (5, 0)
    for cmd in first:
        one.said(cmd.id)
    assert [c.state for c in other.commands.listed(box="box-1")] == ["done"] * 5 and other.commands.withdraw("x", at(0)) == 0
    one.database.execute("UPDATE command SET state = 'waiting', until_s = 0")
    assert other.due() == [] and {c.state for c in one.commands.listed()} == {"expired"}
    one.database.close()
    other.database.close()


def test_a_courier_signs_with_its_key_for_that_box_alone(desk, tmp_path):
    key, sent = SigningKey(tmp_path / "command.pem"), []
    courier = Courier(desk.database, "127.0.0.1", 1, "shop", [command_room(desk.database, "shop", key)], wall=lambda: at(0))
    courier._client.publish = lambda topic, payload, qos, retain: sent.append((topic, payload, qos, retain))
    desk.hello("box-2", "s2")
    (_, id_) = desk.ask("box-1", "box-2")
    assert courier.tick() == 1 and courier.tick() == 0
    ((topic, payload, qos, retain),) = sent
    assert (topic, qos, retain) == (topics.of_box("shop", "box-2", "cmd"), 1, False)
    assert cmd_wire.cmd_decoded(payload, {key.kid: public_verifier(key.jwk)}).id == id_


def told(capsys, *argv: str) -> tuple[int, list[dict]]:
    code = main(list(argv))
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_many_boxes_at_once_leave_a_trail_of_who_what_which_and_what_came_of_it(tmp_path, capsys):
    where = ["--store", str(tmp_path / "store.db")]
    assert main(["group", "put", "north", "box-1", "box-2", "box-3", *where]) == 0
    assert main(["group", "drop", "north", "box-3", *where]) == 0
    code, lines = told(capsys, "cmd", "print", "test", "--group", "north", "--by", "li:lead", "--json", *where)
    assert code == 0 and [(x["box"], x["verb"], x["by"], x["state"]) for x in lines[:-1]] == [
        ("box-1", "print test", "li:lead", "waiting"), ("box-2", "print test", "li:lead", "waiting")]
    desk = Desk(tmp_path / "store.db")
    desk.said(lines[0]["id"])
    desk.said(lines[1]["id"], box="box-2", ok=False, error="no", name="role")
    desk.database.close()
    code, lines = told(capsys, "cmd", "list", "--json", *where)
    assert code == 0 and lines[-1] == {"commands": 2, "done": 1, "refused": 1}
    assert [x["answer"] for x in lines[:-1]] == ["fine", {"error": "no", "name": "role"}]


def test_withdrawn_is_asked_no_more(tmp_path, capsys):
    where = ["--store", str(tmp_path / "store.db")]
    _, lines = told(capsys, "cmd", "box-1", "reboot", "--by", "li:admin", "--json", *where)
    code, (line,) = told(capsys, "cmd", "withdraw", lines[0]["id"].split("-")[0], "--json", *where)
    assert (code, line["withdrawn"]) == (0, 1)
    desk = Desk(tmp_path / "store.db")
    desk.hello("box-1", "s1")
    assert desk.due() == []
    desk.database.close()


@pytest.mark.parametrize(("words", "why"), [
    (["box-1"], "say what"), (["box-1", "status"], "say who asks"), (["Box 1", "status", "--by", "li:admin"], "is not 1 to 32"),
    (["status", "--group", "nobody", "--by", "li:admin"], "has no box"),
    (["box-1", "status", "--all", "--by", "li:admin"], "no box has ever|is no command")])
def test_a_command_line_that_does_not_serve_is_one_sentence(tmp_path, capsys, monkeypatch, words, why):
    import re
    monkeypatch.delenv("TILLFLEET_BY", raising=False)
    assert main(["cmd", *words, "--store", str(tmp_path / "store.db")]) == 2
    assert re.search(why, capsys.readouterr().err)


def test_a_verb_has_one_word_or_two():
    assert verb_of("journal verify".split()) == ("journal verify", "") and verb_of("logs 20".split()) == ("logs", "20")
    assert verb_of("refund 00000100000000000000 5".split()) == ("refund", "00000100000000000000 5")
