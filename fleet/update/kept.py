"""Releases as the cloud keeps them: manifests, indexes, pieces by what stands in them, rollouts, pins, and what boxes report.

Knows the tables, and how a release becomes one command for each box, ring after ring; refuses to know MQTT and keys: a manifest
comes signed, and the courier signs and sends the commands (`fleet/commands`).  A piece that two releases share is kept once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from device.mqtt import update_wire as wire
from device.mqtt.config_wire import CHUNK_BYTES
from fleet.commands.kept import Commands
from fleet.database import Database
from fleet.push.rollout import Gate, Tally, rings_of, verdict

SCHEMA = """
CREATE TABLE IF NOT EXISTS release (digest TEXT PRIMARY KEY, version TEXT NOT NULL, ratchet INTEGER NOT NULL, at TEXT NOT NULL,
    who TEXT NOT NULL, token TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS release_paper (sha256 TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS release_piece (mark TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS update_reported (box TEXT PRIMARY KEY, at TEXT NOT NULL, release TEXT NOT NULL, state TEXT NOT NULL,
    body TEXT NOT NULL, want INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS update_pin (box TEXT PRIMARY KEY, version TEXT NOT NULL, at TEXT NOT NULL,
    who TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS update_rollout (id TEXT PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, release TEXT NOT NULL,
    starts TEXT NOT NULL, gate TEXT NOT NULL, ring INTEGER NOT NULL, rings INTEGER NOT NULL, ring_s INTEGER NOT NULL,
    looked_s INTEGER NOT NULL, state TEXT NOT NULL, why TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS update_box (rollout TEXT NOT NULL, box TEXT NOT NULL, ring INTEGER NOT NULL, sent_s INTEGER NOT NULL,
    PRIMARY KEY (rollout, box)) WITHOUT ROWID;
"""
WORDS = {"fetching": "staged", "ready": "staged", "trial": "trial", "active": "active", "rolled_back": "rolled_back",
         "refused": "refused", "stopped": "refused"}     # an update's words in a gate's


class Rollout(msgspec.Struct, frozen=True):
    """`starts`: when boxes start it, as the command says."""

    id: str
    at: str
    who: str
    release: str
    starts: str
    gate: str
    ring: int
    rings: int
    ring_s: int
    looked_s: int
    state: str                           # running, done, stopped, aborted
    why: str


class Stand(NamedTuple):
    box: str
    told: wire.UpdateReported | None
    at: str
    pinned: str


class Releases:
    """Every method that writes runs inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db, self._commands = database, Commands(database)

    # Releases ----------------------------------------------------------------------------------------------------------------

    def put(self, token: bytes, papers: Iterable[bytes], pieces: Iterable[bytes], who: str, at: str) -> wire.Manifest:
        """Keep a release.  ValueError when papers and pieces are not the manifest's.  Whose signature it is, boxes look at."""
        manifest = self._read(token)
        named = {base.index for base in manifest.bases} | {manifest.index}
        for paper in papers:
            sha256 = hashlib.sha256(paper).hexdigest()
            if sha256 not in named:
                raise ValueError("an index is none of the manifest's")
            named.discard(sha256)
            self._db.execute("INSERT INTO release_paper (sha256, data) VALUES (?,?) ON CONFLICT DO NOTHING", (sha256, paper))
        if named:
            raise ValueError(f"{len(named)} indexes that the manifest names are missing: --base names the same slots as at signing")
        whole, size = hashlib.sha256(), 0
        for piece in pieces:
            whole.update(piece)
            size += len(piece)
            self._db.execute("INSERT INTO release_piece (mark, data) VALUES (?,?) ON CONFLICT DO NOTHING",
                             (wire.mark_of(piece).hex(), piece))
        if (whole.hexdigest(), size) != (manifest.sha256, manifest.bytes):
            raise ValueError("the slot image is not the one that was signed")
        self._db.execute("INSERT INTO release (digest, version, ratchet, at, who, token) VALUES (?,?,?,?,?,?) "
                         "ON CONFLICT DO NOTHING",
                         (digest_of(token), manifest.version, manifest.ratchet, at, who, token.decode()))
        return manifest

    @staticmethod
    def _read(token: bytes) -> wire.Manifest:
        return wire.manifest_decoded(token, _Anyones())

    def token(self, release: str) -> bytes:
        row = self._db.execute("SELECT token FROM release WHERE digest = ?", (release,)).fetchone()
        if row is None:
            raise ValueError(f"no release {release[:12]} is kept here")
        return str(row[0]).encode()

    def manifest(self, release: str) -> wire.Manifest:
        return self._read(self.token(release))

    def listed(self) -> list[tuple[str, str, int, str, str]]:
        """(digest, version, ratchet, at, who), the newest first."""
        return [tuple(row) for row in self._db.execute("SELECT digest, version, ratchet, at, who FROM release ORDER BY at DESC, "
                                                       "digest").fetchall()]

    # Boxes -------------------------------------------------------------------------------------------------------------------

    def take_report(self, box: str, told: wire.UpdateReported, at: str) -> None:
        self._db.execute("INSERT INTO update_reported (box, at, release, state, body, want) VALUES (?,?,?,?,?,?) ON CONFLICT (box) "
                         "DO UPDATE SET at = excluded.at, release = excluded.release, state = excluded.state, "
                         "body = excluded.body, want = excluded.want",
                         (box, at, told.release, told.state, wire.reported_encoded(told).decode(), int(bool(told.want))))

    def stand(self, box: str) -> Stand:
        row = self._db.execute("SELECT body, at FROM update_reported WHERE box = ?", (box,)).fetchone()
        return Stand(box, wire.reported_decoded(row[0].encode()) if row else None, row[1] if row else "", self.pinned(box))

    def pin(self, box: str, version: str, who: str, at: str) -> None:
        """No other version goes to the box by a rollout; "" takes the pin away."""
        self._db.execute("DELETE FROM update_pin WHERE box = ?", (box,))
        if version:
            self._db.execute("INSERT INTO update_pin (box, version, at, who) VALUES (?,?,?,?)", (box, version, at, who))

    def pinned(self, box: str) -> str:
        row = self._db.execute("SELECT version FROM update_pin WHERE box = ?", (box,)).fetchone()
        return row[0] if row else ""

    # What boxes ask for --------------------------------------------------------------------------------------------------------

    def asking(self) -> list[tuple[str, wire.UpdateReported]]:
        """Boxes that want chunks, each report given once."""
        found = []
        for box, body in self._db.execute("SELECT box, body FROM update_reported WHERE want = 1 ORDER BY at").fetchall():
            if self._db.execute("UPDATE update_reported SET want = 0 WHERE box = ? AND want = 1", (box,)).rowcount:
                found.append((box, wire.reported_decoded(body.encode())))
        return found

    def chunk(self, manifest: wire.Manifest, token: bytes, sha256: str, n: int) -> bytes:
        """Chunk `n` of a blob of that release; b"" for one that it does not name."""
        if sha256 == manifest.sha256:
            pieces = self._pieces(manifest.index)
            row = self._db.execute("SELECT data FROM release_piece WHERE mark = ?", (pieces[n].mark.hex(),)).fetchone() \
                if n < len(pieces) else None
            return bytes(row[0]) if row else b""
        data = b""
        if sha256 == digest_of(token):
            data = token
        elif sha256 == manifest.index or any(base.index == sha256 for base in manifest.bases):
            data = self._paper(sha256)
        return data[n * CHUNK_BYTES:(n + 1) * CHUNK_BYTES]

    def _paper(self, sha256: str) -> bytes:
        return bytes(self._db.execute("SELECT data FROM release_paper WHERE sha256 = ?", (sha256,)).fetchone()[0])

    def _pieces(self, index: str) -> list[wire.Piece]:
        if getattr(self, "_index", ("",))[0] != index:
            self._index = index, wire.index_decoded(self._paper(index), None)
        return self._index[1]

    # Rollouts ----------------------------------------------------------------------------------------------------------------

    def push(self, release: str, boxes: Sequence[str], who: str, at: str, *, starts: str = "quiet",
             percents: Sequence[int] = (100,), gate: Gate | None = None) -> tuple[str, list[str]]:
        """Begin to roll a release out; the rollout's id, "" when every box has it, and why boxes were left out."""
        manifest, out, left = self.manifest(release), [], []
        for box in boxes:
            stand = self.stand(box)
            if stand.pinned and stand.pinned != manifest.version:
                left.append(f"{box} is pinned to {stand.pinned}")
            elif self._db.execute("SELECT 1 FROM update_rollout r JOIN update_box b ON b.rollout = r.id WHERE b.box = ? AND "
                                  "r.state = 'running'", (box,)).fetchone():
                left.append(f"{box} is in a rollout that runs: let it end, or abort it")
            elif stand.told is not None and stand.told.runs == manifest.version:
                left.append(f"{box} runs it")
            elif stand.told is not None and manifest.ratchet < stand.told.ratchet:
                left.append(f"{box} runs ratchet {stand.told.ratchet}, and takes nothing lower")
            else:
                out.append(box)
        if not out:
            return "", left
        id_ = secrets.token_hex(6)
        rings = rings_of(out, percents, id_)
        self._db.execute("INSERT INTO update_rollout VALUES (?,?,?,?,?,?,0,?,0,0,'running','')",
                         (id_, at, who, release, starts, msgspec.json.encode(gate or Gate()).decode(), len(rings)))
        for ring, some in enumerate(rings, 1):
            for box in some:
                self._db.execute("INSERT INTO update_box VALUES (?,?,?,0)", (id_, box, ring))
        self._release(self.rollouts(id_)[0], at)
        return id_, left

    def _release(self, one: Rollout, at: str) -> None:
        """Ask the next ring."""
        ring = one.ring + 1
        boxes = [box for (box,) in self._db.execute("SELECT box FROM update_box WHERE rollout = ? AND ring = ? ORDER BY box",
                                                    (one.id, ring)).fetchall()]
        size = len(self.token(one.release))
        self._commands.ask(boxes, "update", f"{one.release} {size} {one.starts}", one.who, at)
        for box in boxes:
            self._db.execute("UPDATE update_box SET sent_s = ? WHERE rollout = ? AND box = ?", (_seconds(at), one.id, box))
        self._db.execute("UPDATE update_rollout SET ring = ?, ring_s = ? WHERE id = ?", (ring, _seconds(at), one.id))

    def rollouts(self, id_: str = "", *, running: bool = False) -> list[Rollout]:
        """The newest first."""
        where, args = ("WHERE id = ?", (id_,)) if id_ else ("WHERE state = 'running'" if running else "", ())
        fields = ", ".join(Rollout.__struct_fields__)
        return [Rollout(*row) for row in self._db.execute(f"SELECT {fields} FROM update_rollout {where} ORDER BY at DESC, id",
                                                          args).fetchall()]

    def tally(self, one: Rollout, at: str) -> Tally:
        tally, gate = Tally(), msgspec.json.decode(one.gate, type=Gate)
        for sent_s, state, here, left_s in self._db.execute(
                "SELECT b.sent_s, CASE WHEN r.release = ? THEN r.state ELSE '' END, coalesce(s.here, 0), coalesce(s.left_s, 0) "
                "FROM update_box b LEFT JOIN update_reported r ON r.box = b.box LEFT JOIN session s ON s.box = b.box "
                "WHERE b.rollout = ? AND b.sent_s > 0", (one.release, one.id)).fetchall():
            tally.count(WORDS.get(state, ""), _seconds(at) - sent_s, gate, away=not here and left_s < sent_s)
        return tally

    def advance(self, at: str) -> list[str]:
        """Look at every running rollout: ask the next ring, stop or end; what was done, a sentence each."""
        done = []
        for one in self.rollouts(running=True):
            claimed = self._db.execute("UPDATE update_rollout SET looked_s = ? WHERE id = ? AND looked_s = ? AND state = 'running'",
                                       (_seconds(at), one.id, one.looked_s)).rowcount
            if one.looked_s == _seconds(at) or not claimed:
                continue
            gate = msgspec.json.decode(one.gate, type=Gate)
            word, why = verdict(self.tally(one, at), gate, _seconds(at) - one.ring_s, last=one.ring >= one.rings)
            self._db.execute("UPDATE update_rollout SET why = ? WHERE id = ?", (why, one.id))
            if word == "next":
                self._release(one, at)
            elif word in ("stop", "done"):
                self._db.execute("UPDATE update_rollout SET state = ? WHERE id = ?",
                                 ("stopped" if word == "stop" else "done", one.id))
            if word == "stop":
                self._recall(one, one.who, at)
            if word != "wait":
                done.append(f"update rollout {one.id}: {word}: {why}")
        return done

    def abort(self, id_: str, who: str, at: str) -> int:
        """Ask nobody further, and those that have not started it to leave it; how many of them."""
        found = self.rollouts(id_) if id_ else []
        if not found or found[0].state not in ("running", "stopped"):
            raise ValueError(f"there is no rollout {id_!r} that runs or stopped")
        self._db.execute("UPDATE update_rollout SET state = 'aborted', why = ? WHERE id = ?", (f"by {who}", id_))
        return self._recall(found[0], who, at)

    def _recall(self, one: Rollout, who: str, at: str) -> int:
        boxes = [box for box, state in self._db.execute(
            "SELECT b.box, CASE WHEN r.release = ? THEN r.state ELSE '' END FROM update_box b LEFT JOIN update_reported r "
            "ON r.box = b.box WHERE b.rollout = ? AND b.sent_s > 0 ORDER BY b.box", (one.release, one.id)).fetchall()
            if state in ("", "fetching", "ready")]
        if boxes:
            self._commands.ask(boxes, "update", "stop", who, at)
        return len(boxes)


class UpdateDesk:
    """What a collector does with a box's report on its release.  Needs no key."""

    def __init__(self, database: Database) -> None:
        self._releases = Releases(database)

    def reported(self, box: str, payload: bytes, at: str) -> list[tuple[str, bytes]]:
        self._releases.take_report(box, wire.reported_decoded(payload), at)
        return []


class _Anyones(dict[str, Any]):
    def get(self, kid: str, default: Any = None) -> Any:
        return lambda signing_input, signature: True


def digest_of(token: bytes) -> str:
    return hashlib.sha256(token).hexdigest()


def _seconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp())
