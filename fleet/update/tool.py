"""`tillfleet update`: sign a slot image, push a release in rings, look how far boxes are, pin them.  Wires arguments and files."""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from device.mqtt import update_wire as wire
from device.mqtt.wire import WireError
from fleet import files
from fleet.commands.kept import SCHEMA as COMMANDS
from fleet.commands.tool import POLL_S, store, wall, who
from fleet.database import Database
from fleet.groups import Groups
from fleet.keys import SigningKey
from fleet.push.rollout import Gate
from fleet.update import kept
from fleet.update.cutting import index_of, pieces_of


def add(commands: Any) -> None:
    update = commands.add_parser("update", help="sign a slot image, roll it out to boxes, see what became of it")
    whats = update.add_subparsers(dest="what", required=True)

    sign = whats.add_parser("sign", help="SLOT becomes a release: SLOT.update, a manifest under the update key; needs no database")
    sign.add_argument("slot", type=Path)
    sign.add_argument("--key", type=Path, required=True, metavar="PEM",
                      help="made when it is not there; its .jwks goes into images")
    sign.add_argument("--version", required=True)
    sign.add_argument("--ratchet", type=int, required=True, help="boxes never take a lower one again")
    sign.add_argument("--board", action="append", default=[], metavar="NAME", help="once for each board that it is for")
    sign.add_argument("--base", action="append", default=[], metavar="VERSION=SLOT", help="an earlier slot image: only differences "
                      "travel to boxes that run it")
    sign.add_argument("--min-version", default="")
    sign.add_argument("--not-before", default="", metavar="RFC3339")
    sign.add_argument("--notes", default="")
    sign.add_argument("--json", action="store_true")
    sign.set_defaults(run=_sign)

    push = _one(whats, "push", _push, "keep a signed release and roll it out")
    push.add_argument("slot", type=Path, help="the image; SLOT.update lies beside it")
    push.add_argument("--base", action="append", default=[], metavar="VERSION=SLOT", help="as at signing")
    push.add_argument("--box", default="")
    push.add_argument("--group", default="")
    push.add_argument("--all", action="store_true")
    push.add_argument("--start", default="quiet", metavar="quiet|now|HH:MM-HH:MM", help="when a box that has it starts it: after a "
                      "quarter of an hour without a customer (quiet), as soon as nobody is there, or in the shop's closed hours")
    push.add_argument("--ring", default="100", metavar="1,10,100", help="percents of the boxes, one ring after the other (100)")
    push.add_argument("--limit", type=float, default=5, metavar="PERCENT", help="failed or silent boxes that stop it (5)")
    push.add_argument("--soak", type=int, default=86_400, metavar="S", help="a ring is watched at least so long (a day)")
    push.add_argument("--silent", type=int, default=2 * 86_400, metavar="S",
                      help="a box silent for so long counts as failed (2 days)")
    push.add_argument("--wait", type=float, default=0, metavar="S")

    status = _one(whats, "status", _status, "what each box runs, and how far it is with the newest release")
    status.add_argument("--box", default="")
    status.add_argument("--group", default="")
    status.add_argument("--all", action="store_true")

    rollout = _one(whats, "rollout", _rollout, "rollouts: list, ID, abort ID")
    rollout.add_argument("words", nargs="*", metavar="ID|abort ID")

    pin = _one(whats, "pin", _pin, "no rollout takes these boxes to another version; `-` takes the pin away")
    pin.add_argument("version", metavar="VERSION|-")
    pin.add_argument("--box", default="")
    pin.add_argument("--group", default="")
    pin.add_argument("--all", action="store_true")


def _one(whats: Any, name: str, run: Callable[[Database, argparse.Namespace], int], says: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = whats.add_parser(name, help=says)
    parser.add_argument("--store", required=True, metavar="FILE|URL")
    parser.add_argument("--by", default=os.environ.get("TILLFLEET_BY", ""), metavar="NAME:ROLE", help="who asks ($TILLFLEET_BY)")
    parser.add_argument("--json", action="store_true")

    def opened(args: argparse.Namespace) -> int:
        database = store(args.store, COMMANDS, kept.SCHEMA)
        try:
            return run(database, args)
        except WireError as why:
            raise ValueError(why.sentence) from None
        finally:
            database.close()
    parser.set_defaults(run=opened)
    return parser


def _say(args: argparse.Namespace, line: dict[str, Any], text: str) -> None:
    print(json.dumps(line, ensure_ascii=False) if args.json else text)


# sign, push --------------------------------------------------------------------------------------------------------------------

def _sign(args: argparse.Namespace) -> int:
    key = SigningKey(args.key)
    files.written(args.key.with_suffix(".jwks"), key.jwks())
    index = index_of(args.slot)
    with args.slot.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    bases = tuple(wire.Base(version, hashlib.sha256(table).hexdigest(), len(table)) for version, table in _bases(args.base))
    manifest = wire.Manifest(args.version, args.ratchet, tuple(args.board or ["arm64"]), sha256, args.slot.stat().st_size,
                             hashlib.sha256(index).hexdigest(), len(index), bases, args.min_version, args.not_before, args.notes)
    try:
        token = wire.manifest_encoded(manifest, key.kid, key.sign)
    except WireError as why:
        raise ValueError(why.sentence) from None
    out = manifest_beside(args.slot)
    files.written(out, token)
    new = _new_share(args.slot, [slot for _, slot in map(_base, args.base)])
    _say(args, {"manifest": str(out), "release": kept.digest_of(token), "version": manifest.version, "ratchet": manifest.ratchet,
                "bytes": manifest.bytes, "kid": key.kid, "new_permille": new},
         f"{out}: {manifest.version}, ratchet {manifest.ratchet}, {manifest.bytes} bytes, release {kept.digest_of(token)[:12]}"
         + (f"; {new / 10:g} % of it is new to boxes that run a base" if args.base else ""))
    return 0


def manifest_beside(slot: Path) -> Path:
    return slot.with_name(slot.name + ".update")


def _base(told: str) -> tuple[str, Path]:
    version, equals, slot = told.partition("=")
    if not equals:
        raise ValueError(f"--base is VERSION=SLOT, not {told!r}")
    return version, Path(slot)


def _bases(told: list[str]) -> list[tuple[str, bytes]]:
    return [(version, index_of(slot)) for version, slot in map(_base, told)]


def _pieces(slot: Path) -> Iterator[bytes]:
    with slot.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield from pieces_of(data)


def _new_share(slot: Path, bases: list[Path]) -> int:
    """Of 1,000 bytes, how many no base holds."""
    have = {wire.mark_of(piece) for base in bases for piece in _pieces(base)}
    fresh = {mark: len(piece) for piece in _pieces(slot) if (mark := wire.mark_of(piece)) not in have and piece.strip(b"\0")}
    return round(1000 * sum(fresh.values()) / slot.stat().st_size)


def _push(database: Database, args: argparse.Namespace) -> int:
    releases, at, by = kept.Releases(database), wall(), who(args)
    boxes = Groups(database).named(box=args.box, group=args.group, everyone=args.all)
    gate = Gate(limit=round(args.limit * 10), soak_s=args.soak, silent_s=args.silent)
    percents = [int(part) for part in args.ring.split(",") if part.strip().isdigit()]
    token = manifest_beside(args.slot).read_bytes()
    with database.transaction():
        papers = [index_of(args.slot), *(table for _, table in _bases(args.base))]
        releases.put(token, papers, _pieces(args.slot), by, at)
        id_, left = releases.push(kept.digest_of(token), boxes, by, at, starts=args.start, percents=percents, gate=gate)
    for sentence in left:
        _say(args, {"left_out": sentence}, f"left out: {sentence}")
    if not id_:
        _say(args, {"rollout": "", "boxes": 0}, "no box is to be updated")
        return 0
    until = time.monotonic() + args.wait
    while (one := releases.rollouts(id_)[0]).state == "running" and time.monotonic() < until:
        time.sleep(POLL_S)
    _say_rollout(releases, args, one)
    return 0 if one.state == "done" or one.state == "running" and not args.wait else 1


def _say_rollout(releases: kept.Releases, args: argparse.Namespace, one: kept.Rollout) -> None:
    tally, version = releases.tally(one, wall()), releases.manifest(one.release).version
    line = {"rollout": one.id, "at": one.at, "by": one.who, "version": version, "starts": one.starts, "state": one.state,
            "ring": one.ring, "rings": one.rings, "boxes": tally.boxes, "active": tally.active, "failed": tally.failed,
            "silent": tally.silent, "waiting": tally.waiting, "away": tally.away, "why": one.why}
    _say(args, line, f"rollout {one.id} of {version} by {one.who}, {one.at}: {one.state}, ring {one.ring} of {one.rings}: "
                     f"{tally.boxes} boxes, {tally.active} active, {tally.failed} failed, {tally.silent} silent, {tally.waiting} "
                     f"waiting, {tally.away} away" + (f"; {one.why}" if one.why else ""))


# status, rollout, pin ------------------------------------------------------------------------------------------------------------

def _status(database: Database, args: argparse.Namespace) -> int:
    """0 when no box's newest release failed."""
    releases, known = kept.Releases(database), Groups(database)
    chosen = bool(args.box) or bool(args.group) or args.all
    boxes = known.named(box=args.box, group=args.group, everyone=args.all) if chosen else known.all()
    bad = 0
    for one in map(releases.stand, boxes):
        told = one.told or wire.UpdateReported("")
        bad += told.state in ("rolled_back", "refused")
        line = {"box": one.box, "runs": told.runs, "ratchet": told.ratchet, "slot": told.slot, "other": told.other,
                "new": told.version, "state": told.state, "have": told.have, "bytes": told.bytes,
                "why": told.why, "at": one.at, "pinned": one.pinned}
        share = f" {100 * told.have // told.bytes} %" if told.bytes and told.state == "fetching" else ""
        _say(args, line, f"{one.box:<16} runs {told.runs or '?'} (ratchet {told.ratchet}) in slot {told.slot or '?'}"
             + (f"; {told.version} {told.state}{share}" if told.state else "") + (f": {told.why}" if told.why else "")
             + (f"; pinned to {one.pinned}" if one.pinned else ""))
    _say(args, {"boxes": len(boxes), "failed": bad}, f"{len(boxes)} boxes, {bad} failed")
    return 1 if bad else 0


def _rollout(database: Database, args: argparse.Namespace) -> int:
    releases, words = kept.Releases(database), args.words
    if len(words) == 2 and words[0] == "abort":
        with database.transaction():
            count = releases.abort(words[1], who(args), wall())
        _say(args, {"recalled": count}, f"{count} boxes are asked to leave it; those that start it already go on")
    elif len(words) > 1:
        raise ValueError("rollout takes nothing, an ID, or abort ID")
    for one in releases.rollouts(words[-1] if words else ""):
        _say_rollout(releases, args, one)
    return 0


def _pin(database: Database, args: argparse.Namespace) -> int:
    boxes = Groups(database).named(box=args.box, group=args.group, everyone=args.all)
    version = "" if args.version == "-" else args.version
    with database.transaction():
        for box in boxes:
            kept.Releases(database).pin(box, version, who(args), wall())
    _say(args, {"boxes": len(boxes), "pinned": version},
         f"{len(boxes)} boxes " + (f"are pinned to {version}" if version else "are free"))
    return 0
