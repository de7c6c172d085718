"""Commands to boxes as the cloud keeps them: who asked what of which boxes, under which session it left, and what came of it.

Knows the table and each command's way from asked to answered; refuses to know MQTT and keys: `due` gives what may be signed now,
and the courier signs and sends it.  A command is kept until its box says hello, and asked again under the same id until it is
answered or its time is over: a box does each id once.
"""

from __future__ import annotations

import datetime
import json
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from device.mqtt import cmd_wire, wire
from device.mqtt.topics import box_checked
from fleet.database import Database
from fleet.groups import Groups

SCHEMA = """
CREATE TABLE IF NOT EXISTS command (id TEXT PRIMARY KEY, batch TEXT NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL,
    who TEXT NOT NULL, box TEXT NOT NULL, verb TEXT NOT NULL, args TEXT NOT NULL, until_s INTEGER NOT NULL, state TEXT NOT NULL,
    session TEXT NOT NULL, sent_s INTEGER NOT NULL, sends INTEGER NOT NULL, answer TEXT NOT NULL,
    answered TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS command_state ON command (state, box);
CREATE INDEX IF NOT EXISTS command_batch ON command (batch);
"""

RESEND_S = 60                            # in one session; under a new one a command leaves at once
BATCH_MAX = 64                           # commands that leave together
LIVES_S = {"question": 86_400, "device": 7 * 86_400, "money": 3_600}     # how long a command waits for its box


class Command(msgspec.Struct, frozen=True):
    """`state`: `waiting`, `done`, `refused`, `expired`, `withdrawn`; `answer` JSON of the box; `_s` seconds of the epoch."""

    id: str
    batch: str
    n: int
    at: str
    who: str
    box: str
    verb: str
    args: str
    until_s: int
    state: str
    session: str
    sent_s: int
    sends: int
    answer: str
    answered: str


class Commands:
    """The table `command` of `database`; every method runs inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def ask(self, boxes: Sequence[str], verb: str, args: str, by: str, at: str, lives_s: int = 0) -> list[str]:
        """Keep one command for each box; their ids, `BATCH-N`.  ValueError for what no box would do, and then none is kept."""
        fault = cmd_wire.fault_of(verb, args, by)
        if fault is not None:
            raise ValueError(fault.sentence)
        kind = cmd_wire.VERBS[verb].kind
        if kind == "money" and len(boxes) != 1:
            raise ValueError(f"{verb} moves money: it is for one box at a time")
        msgspec.convert(by, cmd_wire.By)
        until_s = _seconds(at) + (lives_s or LIVES_S[kind])
        batch, ids = secrets.token_hex(8), []
        for n, box in enumerate(boxes):
            ids.append(f"{batch}-{n}")
            self._db.execute("INSERT INTO command VALUES (?,?,?,?,?,?,?,?,?,'waiting','',0,0,'','')",
                             (ids[-1], batch, n, at, by, box_checked(box), verb, args, until_s))
        return ids

    def due(self, at: str) -> list[cmd_wire.Cmd]:
        """What leaves now, marked as sent: no other courier sends it as well.  What waited too long is over."""
        now_s = _seconds(at)
        self._db.execute("UPDATE command SET state = 'expired', answered = ? WHERE state = 'waiting' AND until_s <= ?", (at, now_s))
        found = self._db.execute(
            "SELECT c.id, c.session, c.sent_s, s.session FROM command c JOIN session s ON s.box = c.box WHERE c.state = 'waiting' "
            f"AND (c.session <> s.session OR c.sent_s <= ? OR c.sent_s > ?) ORDER BY c.at, c.batch, c.n LIMIT {BATCH_MAX}",
            (now_s - RESEND_S, now_s)).fetchall()     # sent in the future: this clock was put back, and nobody waits for it
        leaving: list[cmd_wire.Cmd] = []
        for id_, under, sent_s, session in found:
            claimed = self._db.execute("UPDATE command SET session = ?, sent_s = ?, sends = sends + 1 WHERE id = ? AND session = ? "
                                       "AND sent_s = ? AND state = 'waiting'", (session, now_s, id_, under, sent_s)).rowcount
            for row in self._rows("id = ?", (id_,)) if claimed else ():
                leaving.append(cmd_wire.Cmd(row.box, row.id, session, row.verb, row.args, row.who))
        return leaving

    def answered(self, box: str, answer: cmd_wire.CmdAnswer, at: str) -> bool:
        """Take a box's answer; False when it is to nothing that waits.  A refusal of the moment leaves the command waiting."""
        if answer.name in cmd_wire.AGAIN:
            return self._db.execute("UPDATE command SET answer = ? WHERE id = ? AND box = ? AND state = 'waiting'",
                                    (answer.error, answer.id, box)).rowcount == 1
        state = "done" if answer.ok else "refused"
        said = _json({"error": answer.error, "name": answer.name})
        if not isinstance(answer.answer, msgspec.UnsetType):
            said = bytes(answer.answer).decode()
        return self._db.execute("UPDATE command SET state = ?, answer = ?, answered = ? WHERE id = ? AND box = ? "
                                "AND state = 'waiting'", (state, said, at, answer.id, box)).rowcount == 1

    def withdraw(self, batch: str, at: str) -> int:
        """Ask no more for what of a batch is not answered yet; what left may be done all the same."""
        return self._db.execute("UPDATE command SET state = 'withdrawn', answered = ? WHERE batch = ? AND state = 'waiting'",
                                (at, batch)).rowcount

    def listed(self, *, box: str = "", batch: str = "", limit: int = 100) -> list[Command]:
        """The newest first."""
        where, args = " AND ".join(f"{name} = ?" for name, value in (("box", box), ("batch", batch)) if value), [box, batch]
        return self._rows(where or "1 = 1", [value for value in args if value], f"ORDER BY at DESC, batch, n LIMIT {int(limit)}")

    def _rows(self, where: str, args: Sequence[Any] = (), order: str = "ORDER BY at, batch, n") -> list[Command]:
        fields = ", ".join(Command.__struct_fields__)
        return [Command(*row) for row in self._db.execute(f"SELECT {fields} FROM command WHERE {where} {order}", args).fetchall()]


class CommandDesk:
    """What a collector does with boxes' messages about commands: remembers sessions, keeps answers.  Needs no key."""

    def __init__(self, database: Database) -> None:
        self.groups, self.commands = Groups(database), Commands(database)

    def hello(self, box: str, payload: bytes, at: str) -> list[tuple[str, bytes]]:
        told = wire.hello_decoded(payload)
        self.groups.heard(box, told.session, told.software, at)
        return []

    def status(self, box: str, payload: bytes, at: str) -> list[tuple[str, bytes]]:
        told = wire.status_decoded(payload)
        self.groups.status(box, told.state == "up", told.connect, _seconds(at))
        return []

    def result(self, box: str, payload: bytes, at: str) -> list[tuple[str, bytes]]:
        answer = cmd_wire.answer_decoded(payload)
        if answer.box != box:
            raise wire.WireError("CMD_ANSWER", f"the answer names box {answer.box!r}")
        self.commands.answered(box, answer, at)
        return []


def _seconds(at: str) -> int:
    return int(datetime.datetime.fromisoformat(at).timestamp())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
