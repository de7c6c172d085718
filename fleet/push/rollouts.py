"""Rollouts: a push becomes one document for each box, ring after ring, watched, stopped, undone.

Knows the tables `rollout` and `rollout_box` and what the gate says (`fleet/push/rollout.py`); refuses to know MQTT and keys: the
courier signs what is issued here, and asks `advance` for the next step.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from device.mqtt import config_wire as wire
from device.mqtt.wire import WireError
from fleet.database import Database
from fleet.push.config import Configs
from fleet.push.layers import Layer, differences
from fleet.push.rollout import Gate, Tally, rings_of, verdict

USUAL = Gate()


class Rollout(msgspec.Struct, frozen=True):
    id: str
    at: str
    who: str
    name: str
    n: int
    gate: str
    not_before: str
    expires: str
    payee: int
    ring: int
    rings: int
    ring_s: int
    looked_s: int
    state: str                           # running, done, stopped, aborted, superseded
    why: str


class Refused(Exception):
    """A push that no box will see; `reasons` by sentence, each with the boxes it is true of."""

    def __init__(self, reasons: Mapping[str, Sequence[str]]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class Rollouts:
    """Every method that writes runs inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db, self.configs = database, Configs(database)

    def push(self, layer: Layer | None, boxes: Sequence[str], who: str, at: str, *, percents: Sequence[int] = (100,),
             gate: Gate = USUAL, payee_change: bool = False, not_before: str = "", expires: str = "", epoch: int = 0) -> str:
        """Begin to roll out what the layers of now make for `boxes`; the rollout's id, "" when nothing would change.

        Refused with every reason of every box, and then the caller rolls everything back.
        """
        against: dict[str, list[str]] = {}
        for box in boxes:
            for id_, ring, rings in self._db.execute(
                    "SELECT r.id, r.ring, r.rings FROM rollout r JOIN rollout_box b ON b.rollout = r.id WHERE b.box = ? "
                    "AND r.state = 'running'", (box,)).fetchall():
                if ring < rings:
                    against.setdefault(f"rollout {id_} is under way: let it end, or abort it", []).append(box)
                else:                                 # every box of it has its document: from here on another one is watched
                    self._db.execute("UPDATE rollout SET state = 'superseded' WHERE id = ?", (id_,))
        changed = []
        for box in boxes if not against else ():
            body, reasons = self.configs.composed(box, payee_change=payee_change)
            for reason in [*reasons, *_unsendable(box, body, not_before, expires)]:
                against.setdefault(reason, []).append(box)
            before = self.configs.issued(box)
            if before is None or epoch > before.epoch or differences(before.body, body) or self.configs.standing(box).word in (
                    "rolled_back", "refused", "deferred"):
                changed.append(box)
        if against:
            raise Refused(against)
        if not changed:
            return ""
        id_ = secrets.token_hex(6)
        rings = rings_of(changed, percents, id_)
        self._db.execute("INSERT INTO rollout VALUES (?,?,?,?,?,?,?,?,?,0,?,0,0,'running','')",
                         (id_, at, who, layer.name if layer else "", layer.n if layer else 0, _json(gate), not_before, expires,
                          int(payee_change), len(rings)))
        for ring, some in enumerate(rings, 1):
            for box in some:
                self._db.execute("INSERT INTO rollout_box VALUES (?,?,?,?,0)", (id_, box, ring, epoch))
        self._release(self.listed(id_)[0], at)
        return id_

    def _release(self, one: Rollout, at: str) -> None:
        """Issue the next ring's documents."""
        ring = one.ring + 1
        for box, epoch in self._db.execute("SELECT box, epoch FROM rollout_box WHERE rollout = ? AND ring = ? ORDER BY box",
                                           (one.id, ring)).fetchall():
            body, _ = self.configs.composed(box, payee_change=bool(one.payee))
            place = self.configs.issue(box, body, one.who, at, rollout=one.id, not_before=one.not_before, expires=one.expires,
                                       epoch=epoch)
            self._db.execute("UPDATE rollout_box SET epoch = ?, version = ? WHERE rollout = ? AND box = ?", (*place, one.id, box))
        self._db.execute("UPDATE rollout SET ring = ?, ring_s = ? WHERE id = ?", (ring, _seconds(at), one.id))

    def listed(self, id_: str = "", *, running: bool = False) -> list[Rollout]:
        """The newest first."""
        where, args = ("WHERE id = ?", (id_,)) if id_ else ("WHERE state = 'running'" if running else "", ())
        fields = ", ".join(Rollout.__struct_fields__)
        rows = self._db.execute(f"SELECT {fields} FROM rollout {where} ORDER BY at DESC, id", args).fetchall()
        return [Rollout(*row) for row in rows]

    def tally(self, one: Rollout, at: str) -> Tally:
        tally, gate = Tally(), msgspec.json.decode(one.gate, type=Gate)
        for issued_at, state, here, left_s in self._db.execute(
                "SELECT i.at, CASE WHEN r.epoch = b.epoch AND r.version = b.version THEN r.state ELSE '' END, "
                "coalesce(s.here, 0), coalesce(s.left_s, 0) FROM rollout_box b "
                "JOIN issued i ON i.box = b.box AND i.epoch = b.epoch AND i.version = b.version "
                "LEFT JOIN reported r ON r.box = b.box LEFT JOIN session s ON s.box = b.box "
                "WHERE b.rollout = ? AND b.version > 0", (one.id,)).fetchall():
            issued_s = _seconds(issued_at)
            tally.count(state, _seconds(at) - issued_s, gate, away=not here and left_s < issued_s)
        return tally

    def advance(self, at: str) -> list[str]:
        """Look at every running rollout: release, stop or end; what was done, a sentence each.  One program at a time does it."""
        done = []
        for one in self.listed(running=True):
            claimed = self._db.execute("UPDATE rollout SET looked_s = ? WHERE id = ? AND looked_s = ? AND state = 'running'",
                                       (_seconds(at), one.id, one.looked_s)).rowcount
            if one.looked_s == _seconds(at) or not claimed:
                continue
            gate = msgspec.json.decode(one.gate, type=Gate)
            word, why = verdict(self.tally(one, at), gate, _seconds(at) - one.ring_s, last=one.ring >= one.rings)
            self._db.execute("UPDATE rollout SET why = ? WHERE id = ?", (why, one.id))
            if word == "next":
                self._release(one, at)
            elif word == "stop":
                self._end(one, "stopped", why)
            elif word == "done":
                self._end(one, "done", why)
            if word != "wait":
                done.append(f"rollout {one.id}: {word}: {why}")
        return done

    def _end(self, one: Rollout, state: str, why: str) -> None:
        self._db.execute("UPDATE rollout SET state = ?, why = ? WHERE id = ?", (state, why, one.id))
        if state in ("stopped", "aborted") and one.name:
            self._db.execute("UPDATE layer SET withdrawn = 1 WHERE name = ? AND n = ?", (one.name, one.n))

    def abort(self, id_: str, who: str, at: str, *, undo: bool) -> int:
        """Let no further box have it; with `undo`, issue what was before to those that have it.  How many were issued anew."""
        one = self._one(id_)
        if one.state not in ("running", "stopped"):
            raise ValueError(f"rollout {id_} is {one.state}")
        self._end(one, "aborted", f"by {who}")
        released = [box for (box,) in self._db.execute("SELECT box FROM rollout_box WHERE rollout = ? AND version > 0",
                                                       (id_,)).fetchall()] if undo else []
        for box in released:
            self.configs.issue(box, self.configs.composed(box, payee_change=bool(one.payee))[0], who, at)
        return len(released)

    def resume(self, id_: str, limit: int, at: str) -> None:
        """Go on with a rollout that stopped, under another limit (of 1,000)."""
        one = self._one(id_)
        if one.state != "stopped":
            raise ValueError(f"rollout {id_} is {one.state}, and only one that stopped goes on")
        gate = msgspec.structs.replace(msgspec.json.decode(one.gate, type=Gate), limit=limit)
        self._db.execute("UPDATE rollout SET state = 'running', gate = ?, ring_s = ? WHERE id = ?",
                         (_json(gate), _seconds(at), id_))
        self._db.execute("UPDATE layer SET withdrawn = 0 WHERE name = ? AND n = ?", (one.name, one.n))

    def _one(self, id_: str) -> Rollout:
        found = self.listed(id_) if id_ else []
        if not found:
            raise ValueError(f"there is no rollout {id_!r}")
        return found[0]


def _unsendable(box: str, body: wire.Body, not_before: str, expires: str) -> list[str]:
    """Why no document could be made of it: too long, or a time that is none."""
    try:
        wire.config_encoded(wire.Desired(2**40, 2**40, box, not_before, expires, body), "k" * 43, lambda signing_input: bytes(64))
    except WireError as why:
        return [why.sentence]
    return []


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _seconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp())
