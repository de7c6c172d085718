"""Commands at the box's doors: what is not proven, not for this box or not of this connection does nothing, and is counted."""

from __future__ import annotations

import asyncio
import json
import logging

import msgspec
import pytest

from device.commands.doors import Commands, fitting, rows_of_sale
from device.commands.inquiries import inquiries
from device.commands.log_ring import LINE_CHARS_MAX, LINES_MAX, LogRing, masked
from device.commands.restart import EXIT_REBOOT, Restart
from device.mqtt import cmd_wire
from device.mqtt.wire import jws_encoded
from device.store_forward.es256 import public_verifier
from device.txn.effects import Reboot
from device.txn.inputs import RefundSaid, RefundWord, Said
from tests.canary import found
from tests.counter import TEA, Counter, counter_paying
from tests.house.test_unit_file import values_of
from tests.record_chain import Chain, Key

COMMAND, OTHER = Key(), Key()
WALL = "2026-09-01T10:00:00+08:00"


class Line:
    """A box's doors in front of the real core; what leaves on `cmd/res` is kept."""

    def __init__(self, counter: Counter | None = None, **questions) -> None:
        self.counter, self.session, self.sent, self.up, self.hurried = counter or Counter(), "s1", [], True, 0
        self.questions = questions

    def handed(self, *payloads: bytes) -> list[cmd_wire.CmdAnswer]:
        """The answers to what came, in their order."""
        before = len(self.sent)
        asyncio.run(self._handed(payloads))
        return [cmd_wire.answer_decoded(raw) for raw in self.sent[before:]]

    async def _handed(self, payloads) -> None:
        async def ask(command):
            return self.counter.tell(command)

        async def status(_: str):
            return {"phase": self.counter.phase}

        def publish(name: str, payload: bytes) -> bool:
            assert name == "cmd/res"
            if self.up:
                self.sent.append(payload)
            return self.up

        self.commands = Commands(
            "box-1", {COMMAND.kid: public_verifier(COMMAND.jwk)}, session=lambda: self.session, ask=ask, publish=publish,
            inquiries={"status": status, **self.questions}, wall=lambda: WALL, forward=self.hurry, update=lambda args: "",
            recalled=lambda no: rows_of_sale(self.counter.journal.recall, no))
        work = asyncio.create_task(self.commands.run())
        for payload in payloads:
            self.commands.came(payload)
        for _ in range(200):
            await asyncio.sleep(0)
        assert not work.done(), work
        work.cancel()

    def hurry(self) -> None:
        self.hurried += 1


def cmd(verb: str = "status", args: str = "", id: str = "command-1", box: str = "box-1", session: str = "s1",
        by: str = "wang:admin", key: Key = COMMAND, **more) -> bytes:
    payload = {"box": box, "id": id, "session": session, "verb": verb, "args": args, "by": by, **more}
    return jws_encoded(cmd_wire.CMD_TYP, json.dumps(payload).encode(), key.kid, key.sign)


def test_a_command_is_done_and_answered():
    line = Line()
    (answer,) = line.handed(cmd())
    assert (answer.ok, answer.id, json.loads(bytes(answer.answer))) == (True, "command-1", {"phase": "IDLE"})
    assert "command-1" in line.counter.box.books.commands


@pytest.mark.parametrize(("payload", "name"), [
    (cmd(key=OTHER), "CMD_KEY"), (cmd()[:-4] + b"AAAA", "CMD_SIGNATURE"), (b"", "CMD_SHAPE"), (b"x" * 5000, "CMD_SHAPE"),
    (jws_encoded("till-ack+jws", b"{}", COMMAND.kid, COMMAND.sign), "CMD_SHAPE"), (cmd(box="box-2"), "CMD_BOX"),
    (cmd(by="wang"), "CMD_PAYLOAD"), (cmd(id="x"), "CMD_PAYLOAD"), (cmd(verb="x" * 33), "CMD_PAYLOAD"),
    (cmd(args="9" * 201), "CMD_PAYLOAD"), (cmd(session=""), "CMD_PAYLOAD"), (cmd(id=7), "CMD_PAYLOAD"),
    (jws_encoded(cmd_wire.CMD_TYP, b"[" * 2000, COMMAND.kid, COMMAND.sign), "CMD_PAYLOAD")])
def test_what_is_not_proven_for_this_box_gets_no_answer_and_is_counted(payload, name):
    line = Line()
    assert line.handed(payload) == []
    assert line.commands.refused == {name: 1} and not line.counter.box.books.commands


def test_no_mutation_of_a_proven_command_is_obeyed():
    """Bytes flipped, cut, doubled, moved between two commands: 0 of 600 pass."""
    import random
    dice, line = random.Random(4), Line()
    whole, other = cmd("reboot"), cmd("status", id="command-2")
    spoilt = []
    for _ in range(600):
        raw, at = bytearray(whole), dice.randrange(len(whole))
        match dice.randrange(4):
            case 0:
                raw[at] = dice.choice([b for b in b"ABCabc019-_.=" if b != raw[at]])
            case 1:
                del raw[at:at + dice.randrange(1, 20)]
            case 2:
                raw[at:at] = raw[at:at + dice.randrange(1, 20)]
            case 3:
                parts = whole.split(b".")
                n = dice.randrange(3)
                parts[n] = other.split(b".")[n] if n else parts[1]
                raw = bytearray(b".".join(parts))
        spoilt.append(bytes(raw))
    # A last character holds four bits that no byte has: two spellings of one signature are one signature.
    spoilt = [raw for raw in spoilt if raw[:-1] != whole[:-1]]
    assert line.handed(*spoilt) == [] and not line.counter.box.books.commands and not line.counter.once
    assert line.commands.refused.total() == len(spoilt) > 550


def test_a_question_that_fails_by_our_own_fault_does_not_end_the_till():
    async def broken(_: str):
        raise KeyError("x")
    line = Line(doctor=broken)
    (answer, after) = line.handed(cmd("doctor"), cmd(id="command-2"))
    assert (answer.ok, answer.name) == (False, "failed") and "KeyError" in answer.error and after.ok


def test_a_command_of_another_session_is_refused_so_that_the_cloud_may_sign_it_again():
    """Recorded on the wire and played again after a restart, a reboot must not happen a second time."""
    line = Line()
    recorded = cmd("reboot")
    assert line.handed(recorded)[0].ok
    line.counter.cut_power()
    line.counter.once.clear()
    line.session = "s2"
    (answer,) = line.handed(recorded)
    assert answer.name == "session" and answer.name in cmd_wire.AGAIN and not line.counter.once


def test_while_the_line_is_down_no_session_is_right():
    line = Line()
    line.session = ""
    assert not line.handed(cmd())[0].ok


@pytest.mark.parametrize(("payload", "name"), [(cmd("open a shell"), "verb"), (cmd("logs", "many"), "args"),
                                               (cmd("refund", by="li:technician"), "role")])
def test_what_the_table_refuses_is_answered_counted_and_on_record(payload, name):
    line = Line()
    (answer,) = line.handed(payload)
    assert (answer.ok, answer.name) == (False, name) and line.commands.refused == {f"CMD_{name.upper()}": 1}
    assert not line.counter.box.books.commands["command-1"].ok


def test_an_answer_that_was_lost_is_given_again_under_the_same_id_and_nothing_is_done_twice():
    counter, no = counter_paying(TEA)
    counter.say(no, Said.PAID, 500)
    line = Line(counter)
    line.up = False
    assert line.handed(cmd("refund", f"{no} 500")) == [] and counter.wants("RefundOrder")
    line.up = True
    counter.cut_power()
    line.session = "s2"
    (answer,) = line.handed(cmd("refund", f"{no} 500", session="s2"))
    assert answer.ok and counter.wants("RefundOrder").pop() in json.loads(bytes(answer.answer))
    assert len(counter.box.books.refunds) == 1


def test_a_question_asked_twice_is_one_record_and_forward_now_is_done_once():
    line = Line()
    told = line.handed(cmd(), cmd(), cmd("forward now", id="command-2"), cmd("forward now", id="command-2"))
    assert [a.ok for a in told] == [True] * 4 and told[0].answer == told[1].answer and line.hurried == 1
    assert list(line.counter.box.books.commands) == ["command-1", "command-2"]


def test_a_line_of_commands_has_an_end():
    told = Line().handed(*(cmd(id=f"command-{n}") for n in range(20)))
    assert [a.name for a in told].count("busy") == 4 and sum(a.ok for a in told) == 16


def test_a_refund_of_an_older_sale_is_found_by_the_number_of_one_of_its_payments():
    counter, no = counter_paying(TEA)
    counter.say(no, Said.PAID, 500)
    line = Line(counter)
    line.handed(cmd("refund", f"{no} 400"))
    counter.tell(RefundSaid(*counter.wants("RefundOrder"), RefundWord.DONE, "R1"))
    counter.box.books.sales.clear()
    assert line.handed(cmd("refund", f"{no} 200", id="command-2"))[0].name == "sum"
    assert line.handed(cmd("refund", f"{no} 100", id="command-3"))[0].ok


def test_an_answer_too_long_loses_its_oldest_lines():
    told = json.loads(bytes(fitting({"lines": [f"{n} " + "字" * 100 for n in range(500)], "more": 1})))
    assert told["cut"] and told["lines"][-1].startswith("499 ") and 50 < len(told["lines"]) < 500
    assert json.loads(bytes(fitting("x" * 60_000))) == {"cut": True}


def test_the_ring_of_log_lines_is_bounded_and_holds_nothing_secret():
    secrets = {"code": b"134512345678901234", "token": COMMAND.kid.encode(), "jws": cmd()[:60]}
    ring, log = LogRing(), logging.getLogger("ring")
    log.propagate = False
    log.addHandler(ring)
    log.setLevel(logging.INFO)
    for secret in secrets.values():
        log.warning("the payer showed %s, password=%s and Bearer %s", secret.decode(), "hunter2hunter2", secret.decode())
    log.warning("order_no=0000017K3M00000042YZ paid\x1b[2J\n%s", "x y " * 200)
    assert not found({**secrets, "password": b"hunter2hunter2"}, [("ring", "\n".join(ring.last(LINES_MAX)).encode())])
    assert "order_no=0000017K3M00000042YZ paid\\x1b" in ring.last(1)[0] and len(ring.last(1)[0]) <= LINE_CHARS_MAX
    for n in range(LINES_MAX + 1):
        log.info("%d", n)
    assert len(ring.last(LINES_MAX)) == LINES_MAX and ring.last(1)[0].endswith(str(LINES_MAX))


def test_masks_leave_what_a_technician_needs():
    for line in ("OrderIntended order_no=0000017K3M00000042YZ", "no key to check commands with", "printer gone /dev/usb/lp0",
                 "RecordSigned seq=1234567"):
        assert masked(line) == line


def grown(count: int) -> Chain:
    chain = Chain(OTHER)
    for _ in range(count):
        chain.add("drawer", {})
    return chain


@pytest.mark.parametrize("spoilt", [False, True])
def test_the_chain_is_walked_over_where_it_lies(spoilt):
    chain = grown(450)
    if spoilt:
        chain.tokens[300] = chain.tokens[299]
    asked = inquiries("", state=dict, metrics=dict, ring=LogRing(), tokens=chain.after, jwk=lambda: {**OTHER.jwk, "kid": OTHER.kid})
    told = asyncio.run(asked["journal verify"](""))
    assert (told["whole"], told["finished"], told["records"]) == (not spoilt, True, 450), told
    assert bool(told["defects"]) == spoilt


def test_records_under_a_key_that_is_gone_are_counted_apart_and_prove_nothing_alone():
    for signed, whole in ((20, True), (0, False)):
        chain = grown(30)
        chain.key = COMMAND
        for _ in range(signed):
            chain.add("drawer", {})
        asked = inquiries("", state=dict, metrics=dict, ring=LogRing(), tokens=chain.after,
                          jwk=lambda: {**COMMAND.jwk, "kid": COMMAND.kid})
        told = asyncio.run(asked["journal verify"](""))
        assert (told["whole"], told["by_other_keys"], told["found"]) == (whole, 30, 0)


def test_a_journal_whose_first_records_are_gone_is_walked_from_what_is_kept():
    chain = grown(30)
    asked = inquiries("", state=dict, metrics=dict, ring=LogRing(), jwk=lambda: {**OTHER.jwk, "kid": OTHER.kid},
                      tokens=lambda after, limit: chain.after(max(after, 10), limit))
    assert asyncio.run(asked["journal verify"](""))["whole"]


def test_the_doctor_says_a_file_it_cannot_read(tmp_path):
    asked = inquiries(str(tmp_path / "box.toml"), state=dict, metrics=dict, ring=LogRing(), tokens=Chain(OTHER).after, jwk=dict)
    told = asyncio.run(asked["doctor"](""))
    assert (told["wrong"], told["findings"][0]["code"]) == (1, "config_unread")


def test_a_restart_ends_the_daemon_with_the_status_that_its_unit_waits_for():
    ended: list[int] = []
    asyncio.run(Restart(ended.append).do(Reboot("command-1")))
    (line,) = values_of("ExecStopPost")
    assert ended == [EXIT_REBOOT] and f'"$EXIT_STATUS" != {EXIT_REBOOT} ' in line and line.endswith("systemctl --no-block reboot'")


def test_the_bytes_of_a_command_and_its_answer():
    one = cmd_wire.cmd_decoded(cmd("logs", "20"), {COMMAND.kid: public_verifier(COMMAND.jwk)})
    assert msgspec.to_builtins(one) == {"box": "box-1", "id": "command-1", "session": "s1", "verb": "logs", "args": "20",
                                        "by": "wang:admin"}
    said = cmd_wire.CmdAnswer("box-1", "command-1", False, error="no", name="verb", at=WALL)
    assert cmd_wire.answer_encoded(said) == (b'{"box":"box-1","id":"command-1","ok":false,"error":"no","name":"verb","at":"'
                                             + WALL.encode() + b'"}')
    assert cmd_wire.answer_decoded(cmd_wire.answer_encoded(said)) == said
