"""Configurations as the cloud keeps them: layers with their history, what was issued to each box, and what each box reported.

Knows the tables, those of rollouts too, and how layers become one document for each box; refuses to know MQTT and keys: the courier
signs what is issued.  Plain secrets never reach the database: a layer's are kept sealed to each box.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from device.errors import ConfigError
from device.mqtt import config_wire as wire
from device.mqtt.delta_wire import delta_made
from device.store_forward.token import thumbprint
from fleet.database import Database
from fleet.groups import Groups
from fleet.push.layers import EVERYONE, Layer, composed, differences, reasons_against

SCHEMA = """
CREATE TABLE IF NOT EXISTS layer (name TEXT NOT NULL, n INTEGER NOT NULL, at TEXT NOT NULL, who TEXT NOT NULL, said TEXT NOT NULL,
    blobs TEXT NOT NULL, withdrawn INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, n)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sealed (name TEXT NOT NULL, n INTEGER NOT NULL, key TEXT NOT NULL, box TEXT NOT NULL, jwe TEXT NOT NULL,
    kid TEXT NOT NULL, PRIMARY KEY (name, n, key, box)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blob (sha256 TEXT PRIMARY KEY, name TEXT NOT NULL, size INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS delta (sha256 TEXT PRIMARY KEY, base TEXT NOT NULL, leads TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS issued (box TEXT NOT NULL, epoch INTEGER NOT NULL, version INTEGER NOT NULL, at TEXT NOT NULL,
    who TEXT NOT NULL, rollout TEXT NOT NULL, not_before TEXT NOT NULL, expires TEXT NOT NULL, body TEXT NOT NULL,
    token TEXT NOT NULL, digest TEXT NOT NULL, session TEXT NOT NULL, sent_s INTEGER NOT NULL, newest INTEGER NOT NULL,
    PRIMARY KEY (box, epoch, version)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS issued_newest ON issued (newest, sent_s);
CREATE TABLE IF NOT EXISTS reported (box TEXT PRIMARY KEY, at TEXT NOT NULL, epoch INTEGER NOT NULL, version INTEGER NOT NULL,
    state TEXT NOT NULL, body TEXT NOT NULL, want INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS box_toml (box TEXT PRIMARY KEY, at TEXT NOT NULL, said TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollout (id TEXT PRIMARY KEY, at TEXT NOT NULL, who TEXT NOT NULL, name TEXT NOT NULL,
    n INTEGER NOT NULL, gate TEXT NOT NULL, not_before TEXT NOT NULL, expires TEXT NOT NULL, payee INTEGER NOT NULL,
    ring INTEGER NOT NULL, rings INTEGER NOT NULL, ring_s INTEGER NOT NULL, looked_s INTEGER NOT NULL, state TEXT NOT NULL,
    why TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS rollout_box (rollout TEXT NOT NULL, box TEXT NOT NULL, ring INTEGER NOT NULL, epoch INTEGER NOT NULL,
    version INTEGER NOT NULL, PRIMARY KEY (rollout, box)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS box_key (box TEXT NOT NULL, purpose TEXT NOT NULL, kid TEXT NOT NULL, jwk TEXT NOT NULL,
    at TEXT NOT NULL, PRIMARY KEY (box, purpose, kid));
"""
DELTA_BASES_MAX = 4
TOLD_MAX = 10**9                         # a box that tells a higher epoch or version has not counted: no push could rise above it
STRANGE = "it tells of a document that was not issued here"


class Issued(NamedTuple):
    """The newest document of a box, before or after the courier signed it."""

    epoch: int
    version: int
    at: str
    who: str
    body: wire.Body
    digest: str
    rollout: str

    @property
    def place(self) -> tuple[int, int]:
        return self.epoch, self.version


class Version(NamedTuple):
    """One version of a layer; a rollout that stopped withdrew it."""

    n: int
    at: str
    who: str
    withdrawn: bool
    said: dict[str, Any]
    blobs: dict[str, str]


class Standing(NamedTuple):
    """Desired against reported of one box; `word` is `active` when they agree, else why not."""

    box: str
    desired: str
    active: str
    word: str
    since: str
    why: str
    reasons: tuple[str, ...]
    refused: int


class Configs:
    """Every method that writes runs inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._db, self.groups = database, Groups(database)

    # Layers --------------------------------------------------------------------------------------------------------------

    def layer(self, name: str) -> Layer | None:
        """The newest version of a layer that was not withdrawn."""
        row = self._db.execute("SELECT n, said, blobs FROM layer WHERE name = ? AND withdrawn = 0 ORDER BY n DESC LIMIT 1",
                               (name,)).fetchone()
        return None if row is None else Layer(name, row[0], msgspec.json.decode(row[1]), msgspec.json.decode(row[2]))

    def layers(self, box: str) -> list[Layer]:
        """What lies over box.toml, the lowest first."""
        names = [EVERYONE, *(f"group:{group}" for group in self.groups.of(box)), f"box:{box}"]
        return [layer for layer in map(self.layer, names) if layer is not None]

    def history(self, name: str) -> list[Version]:
        """The versions of a layer, the newest first."""
        return [Version(n, at, who, bool(gone), msgspec.json.decode(said), msgspec.json.decode(blobs))
                for n, at, who, gone, said, blobs in self._db.execute(
                    "SELECT n, at, who, withdrawn, said, blobs FROM layer WHERE name = ? ORDER BY n DESC", (name,)).fetchall()]

    def put_layer(self, name: str, said: dict[str, Any], blobs: dict[str, str], who: str, at: str) -> Layer:
        n = self._db.execute("SELECT coalesce(max(n), 0) FROM layer WHERE name = ?", (name,)).fetchone()[0] + 1
        self._db.execute("INSERT INTO layer (name, n, at, who, said, blobs) VALUES (?,?,?,?,?,?)",
                         (name, n, at, who, _json(said), _json(blobs)))
        return Layer(name, n, said, blobs)

    def put_again(self, name: str, n: int, who: str, at: str) -> Layer:
        """Version `n` of a layer once more, as its newest, with the secrets sealed for it.  ValueError for no such version."""
        row = self._db.execute("SELECT said, blobs FROM layer WHERE name = ? AND n = ?", (name, n)).fetchone()
        if row is None:
            raise ValueError(f"{name} has no version {n}: tillfleet config history lists them")
        layer = self.put_layer(name, msgspec.json.decode(row[0]), msgspec.json.decode(row[1]), who, at)
        self._db.execute("INSERT INTO sealed (name, n, key, box, jwe, kid) SELECT name, ?, key, box, jwe, kid FROM sealed "
                         "WHERE name = ? AND n = ?", (layer.n, name, n))
        return layer

    def put_sealed(self, layer: Layer, key: str, box: str, jwe: str) -> None:
        """Keep a secret of a layer, sealed to the key that the box has now."""
        self._db.execute("INSERT INTO sealed (name, n, key, box, jwe, kid) VALUES (?,?,?,?,?,?)",
                         (layer.name, layer.n, key, box, jwe, thumbprint(self.key(box) or {})))

    def put_blob(self, name: str, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self._db.execute("INSERT INTO blob (sha256, name, size, data) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
                         (sha256, name, len(data), data))
        return sha256

    def put_deltas(self, name: str, sha256: str, boxes: Sequence[str]) -> int:
        """Shorter ways to a blob from those that `boxes` hold; how many are worth it."""
        bases: dict[str, int] = {}
        for box in boxes:
            issued = self.issued(box)
            had = issued.body.blobs.get(name) if issued is not None else None
            if had is not None and had.sha256 != sha256:
                bases[had.sha256] = bases.get(had.sha256, 0) + 1
        made, new = 0, self.blob_bytes(sha256)
        for base in sorted(bases, key=lambda one: -bases[one])[:DELTA_BASES_MAX]:
            delta = delta_made(self.blob_bytes(base), new)
            if len(delta) * 2 < len(new):
                way = self.put_blob("delta", delta)
                self._db.execute("INSERT INTO delta (sha256, base, leads) VALUES (?,?,?) ON CONFLICT DO NOTHING",
                                 (way, base, sha256))
                made += 1
        return made

    def blob_bytes(self, sha256: str) -> bytes:
        return bytes(self._db.execute("SELECT data FROM blob WHERE sha256 = ?", (sha256,)).fetchone()[0])

    def _blob(self, sha256: str) -> wire.Blob:
        size = self._db.execute("SELECT size FROM blob WHERE sha256 = ?", (sha256,)).fetchone()[0]
        ways = self._db.execute("SELECT d.base, d.sha256, b.size FROM delta d JOIN blob b ON b.sha256 = d.sha256 "
                                f"WHERE d.leads = ? ORDER BY b.size LIMIT {DELTA_BASES_MAX}", (sha256,)).fetchall()
        return wire.Blob(sha256, size, tuple(wire.Delta(*way) for way in ways))

    # What a box knows of itself, and the cloud of it -------------------------------------------------------------------------

    def put_base(self, box: str, text: str, at: str) -> None:
        self._db.execute("INSERT INTO box_toml (box, at, said) VALUES (?,?,?) ON CONFLICT (box) DO UPDATE SET at = excluded.at, "
                         "said = excluded.said", (box, at, text))

    def base(self, box: str) -> str:
        row = self._db.execute("SELECT said FROM box_toml WHERE box = ?", (box,)).fetchone()
        return row[0] if row else ""

    def put_key(self, box: str, jwk: Mapping[str, Any], kid: str, at: str) -> None:
        self._db.execute("INSERT INTO box_key (box, purpose, kid, jwk, at) VALUES (?,'encryption',?,?,?) "
                         "ON CONFLICT (box, purpose, kid) DO UPDATE SET at = excluded.at", (box, kid, _json(dict(jwk)), at))

    def key(self, box: str) -> dict[str, Any] | None:
        """The newest encryption key of a box, as a public JWK."""
        row = self._db.execute("SELECT jwk FROM box_key WHERE box = ? AND purpose = 'encryption' ORDER BY at DESC LIMIT 1",
                               (box,)).fetchone()
        return msgspec.json.decode(row[0]) if row else None

    # Documents ---------------------------------------------------------------------------------------------------------------

    def issued(self, box: str) -> Issued | None:
        row = self._db.execute("SELECT epoch, version, at, who, body, digest, rollout FROM issued WHERE box = ? AND newest = 1",
                               (box,)).fetchone()
        return None if row is None else Issued(row[0], row[1], row[2], row[3], msgspec.json.decode(row[4], type=wire.Body),
                                               row[5], row[6])

    def composed(self, box: str, *, payee_change: bool = False) -> tuple[wire.Body, list[str]]:
        """What the layers of now make for a box, and what stands against it."""
        def sealed(layer: Layer, key: str) -> str:
            row = self._db.execute("SELECT jwe, kid FROM sealed WHERE name = ? AND n = ? AND key = ? AND box = ?",
                                   (layer.name, layer.n, key, box)).fetchone()
            mine = self.key(box)
            return row[0] if row and mine is not None and row[1] == thumbprint(mine) else ""   # a replaced box has another key
        body, reasons = composed(self.layers(box), sealed, self._blob, payee_change=payee_change or self._payee_pending(box))
        before = self.issued(box)
        return body, reasons + reasons_against(box, self.base(box), before.body if before else wire.Body(), body)

    def _payee_pending(self, box: str) -> bool:
        """A document that let money go elsewhere was issued, and the box does not run it yet: the next one says so, too."""
        told = self.report(box)
        active = (told.active.epoch, told.active.version) if told else (0, 0)
        rows = self._db.execute("SELECT body FROM issued WHERE box = ? AND (epoch > ? OR (epoch = ? AND version > ?))",
                                (box, active[0], *active)).fetchall()
        return any(msgspec.json.decode(body, type=wire.Body).payee_change for (body,) in rows)

    def differences(self, box: str) -> list[tuple[str, str, str, str]]:
        """(key, before, after, origin) of what the layers of now would change of what was issued last."""
        before = self.issued(box)
        return differences(before.body if before else wire.Body(), self.composed(box)[0])

    def issue(self, box: str, body: wire.Body, who: str, at: str, *, rollout: str = "", not_before: str = "", expires: str = "",
              epoch: int = 0) -> tuple[int, int]:
        """Keep the next document of a box for the courier.  Its place rises above what was issued and what the box told, if that
        can be true."""
        last, told = self.issued(box), self.report(box)
        heard = (told.epoch, told.version) if told and max(told.epoch, told.version) <= TOLD_MAX else (0, 0)
        known = max([(epoch, 0), last.place if last else (0, 0), heard])
        place = known[0], known[1] + 1
        self._db.execute("UPDATE issued SET newest = 0 WHERE box = ? AND newest = 1", (box,))
        self._db.execute("INSERT INTO issued VALUES (?,?,?,?,?,?,?,?,?,'','','',0,1)",
                         (box, *place, at, who, rollout, not_before, expires, _json(body)))
        return place

    # Reports -----------------------------------------------------------------------------------------------------------------

    def take_report(self, box: str, told: wire.Reported, at: str) -> None:
        self._db.execute("INSERT INTO reported (box, at, epoch, version, state, body, want) VALUES (?,?,?,?,?,?,?) "
                         "ON CONFLICT (box) DO UPDATE SET at = excluded.at, epoch = excluded.epoch, version = excluded.version, "
                         "state = excluded.state, body = excluded.body, want = excluded.want",
                         (box, at, told.epoch, told.version, told.state, wire.reported_encoded(told).decode(),
                          int(bool(told.want))))

    def report(self, box: str) -> wire.Reported | None:
        row = self._db.execute("SELECT body FROM reported WHERE box = ?", (box,)).fetchone()
        return msgspec.json.decode(row[0], type=wire.Reported) if row else None    # kept whole: it may be longer than what came

    def standing(self, box: str) -> Standing:
        issued, told = self.issued(box), self.report(box)
        active = f"{told.active.epoch}.{told.active.version}" if told else "?"
        refused = told.refused if told else 0
        if issued is None:
            strange = told is not None and bool(told.active.version)
            return Standing(box, "-", active, "ahead" if strange else "active", "", STRANGE if strange else "", (), refused)
        desired = f"{issued.epoch}.{issued.version}"
        if told is None or (told.epoch, told.version) < issued.place:
            return Standing(box, desired, active, "silent", issued.at, "it has not said a word of it", (), refused)
        if (told.epoch, told.version) > issued.place or (issued.digest and told.digest != issued.digest):
            return Standing(box, desired, active, "ahead", issued.at, STRANGE, (), refused)
        return Standing(box, desired, active, told.state, issued.at, told.why, told.reasons, refused)


class ConfigDesk:
    """What a collector does with a box's report on its configuration.  Needs no key."""

    def __init__(self, database: Database) -> None:
        self._configs = Configs(database)

    def reported(self, box: str, payload: bytes, at: str) -> list[tuple[str, bytes]]:
        self._configs.take_report(box, wire.reported_decoded(payload), at)
        return []


def blob_checked(name: str, data: bytes) -> None:
    """ConfigError with every reason for a blob that no box would take; the signature of a rule table is the box's to check."""
    from device import rules
    from device.price_file import read_prices

    if not data or len(data) > wire.BLOB_MAX_BYTES:
        raise ConfigError([f"it has {len(data)} bytes; 1 to {wire.BLOB_MAX_BYTES} can be sent"], which=f"blobs.{name}")
    if name == "prices":
        read_prices(data, which="blobs.prices")
    elif name == "rules":
        rules.opened(data.strip(), _Anyones(), which="blobs.rules")
    elif not name.startswith("picture/") or not data.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        raise ConfigError(["it is neither prices nor rules, nor picture/NAME as PNG or JPEG"], which=f"blobs.{name}")


class _Anyones(dict[str, Any]):
    def get(self, kid: str, default: Any = None) -> Any:
        return lambda signing_input, signature: True


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
