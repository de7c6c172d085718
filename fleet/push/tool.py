"""`tillfleet config`: push, status, diff, why, rollout, and what the cloud is told of a box.  Wires arguments and files."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from device.console.printing import safe
from device.errors import ConfigError, Outside
from device.store_forward.token import thumbprint
from fleet.commands.tool import POLL_S, store, wall, who
from fleet.database import Database
from fleet.groups import Groups, group_checked
from fleet.push import config as room
from fleet.push.layers import EVERYONE, SECRETS, STAND_IN, Given, Layer, flat, given
from fleet.push.rollout import Gate
from fleet.push.rollouts import Refused, Rollout, Rollouts

REASONS_SHOWN = 50


def add(commands: Any) -> None:
    config = commands.add_parser("config", help="push configurations to boxes, and see what became of them")
    whats = config.add_subparsers(dest="what", required=True)

    push = _one(whats, "push", _push, "lay FILE over what a group, a box or the fleet has, and roll it out")
    push.add_argument("file", nargs="?", metavar="FILE", help="TOML as box.toml, with a table [blobs] of file names; without "
                                                              "one, what the layers say now goes to boxes that lack it")
    _choice(push)
    push.add_argument("--back", type=int, default=0, metavar="N", help="instead of FILE: version N of that layer once more")
    push.add_argument("--ring", default="100", metavar="1,10,100", help="percents of the boxes, one ring after the other (100)")
    push.add_argument("--limit", type=float, default=5, metavar="PERCENT", help="failed or silent boxes that stop it (5)")
    push.add_argument("--soak", type=int, default=600, metavar="S", help="a ring is watched at least so long (600)")
    push.add_argument("--silent", type=int, default=3600, metavar="S", help="a box silent for so long counts as failed (3600)")
    push.add_argument("--allow-payee-change", action="store_true", help="money may go elsewhere than before")
    push.add_argument("--not-before", default="", metavar="RFC3339", help="when boxes take it: prices of tomorrow")
    push.add_argument("--expires", default="", metavar="RFC3339")
    push.add_argument("--epoch", type=int, default=0, help="above every document so far, after a key or a database was lost")
    push.add_argument("--wait", type=float, default=0, metavar="S", help="for the rollout's end, at most so long")

    history = _one(whats, "history", _history, "every version of a layer, the newest first, with what it says")
    history.add_argument("layer", metavar="all|group:G|box:B")

    status = _one(whats, "status", _status, "desired against reported of every box; those that differ first")
    _choice(status)

    diff = _one(whats, "diff", _diff, "what the layers of now, or FILE over them, would change at a box")
    diff.add_argument("box")
    diff.add_argument("file", nargs="?", metavar="FILE")
    diff.add_argument("--group", default="", help="lay FILE over this group instead of the box")
    diff.add_argument("--all", action="store_true", help="lay FILE over the fleet instead of the box")

    why = _one(whats, "why", _why, "which layer gives the value of KEY at a box, since when and by whom")
    why.add_argument("box")
    why.add_argument("key")

    rollout = _one(whats, "rollout", _rollout, "rollouts: list, ID, abort ID [--undo], resume ID --limit PERCENT")
    rollout.add_argument("words", nargs="*", metavar="ID|abort ID|resume ID")
    rollout.add_argument("--undo", action="store_true", help="with abort: give released boxes what they had before")
    rollout.add_argument("--limit", type=float, default=5, metavar="PERCENT", help="with resume")

    base = _one(whats, "base", _base, "tell the cloud a box's own box.toml, secrets left out: pushes are checked against it")
    base.add_argument("box")
    base.add_argument("file", type=Path, metavar="BOX.TOML")

    key = _one(whats, "key", _key, "tell the cloud a box's public encryption key, where enrolment has not")
    key.add_argument("box")
    key.add_argument("file", type=Path, metavar="JWK")


def _one(whats: Any, name: str, run: Callable[[Database, argparse.Namespace], int], says: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = whats.add_parser(name, help=says)
    parser.add_argument("--store", required=True, metavar="FILE|URL")
    parser.add_argument("--by", default=os.environ.get("TILLFLEET_BY", ""), metavar="NAME", help="for the history ($TILLFLEET_BY)")
    parser.add_argument("--json", action="store_true")

    def opened(args: argparse.Namespace) -> int:
        database = store(args.store, room.SCHEMA)
        try:
            return run(database, args)
        except ConfigError as why:
            for reason in why.reasons:
                _say(args, {"reason": reason, "boxes": []}, reason)
            return 1
        finally:
            database.close()
    parser.set_defaults(run=opened)
    return parser


def _choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--box", default="")
    parser.add_argument("--group", default="")
    parser.add_argument("--all", action="store_true")


def _say(args: argparse.Namespace, line: dict[str, Any], text: str) -> None:
    print(json.dumps(line, ensure_ascii=False) if args.json else text)


# push ------------------------------------------------------------------------------------------------------------------------

def _push(database: Database, args: argparse.Namespace) -> int:
    configs, at, by = room.Configs(database), wall(), who(args)
    boxes = Groups(database).named(box=args.box, group=args.group, everyone=args.all)
    gate = Gate(limit=_share(args.limit), soak_s=args.soak, silent_s=args.silent)
    percents = [int(part) for part in args.ring.split(",") if part.strip().isdigit()]
    if args.back and args.file:
        raise ValueError("a FILE or --back, not both")
    told = _given(args.file) if args.file else None
    try:
        with database.transaction():
            layer = None
            if args.back:
                layer = configs.put_again(_layer_name(args), args.back, by, at)
            elif told is not None:
                layer = _laid(configs, _layer_name(args), told, Path(args.file), boxes, by, at)
            id_ = Rollouts(database).push(layer, boxes, by, at, percents=percents, gate=gate, payee_change=args.allow_payee_change,
                               not_before=args.not_before, expires=args.expires, epoch=args.epoch)
    except Refused as why:
        return _refused(args, why)
    if not id_:
        _say(args, {"rollout": "", "boxes": 0}, "nothing would change")
        return 0
    return _rolled(database, args, id_, args.wait)


def _layer_name(args: argparse.Namespace) -> str:
    return EVERYONE if args.all else f"group:{group_checked(args.group)}" if args.group else f"box:{args.box}"


def _given(file: str) -> Given:
    path = Path(file)
    return given(path.read_text(encoding="utf-8"), lambda name: (path.parent / name).read_text(encoding="utf-8").strip(),
                 which=file)


def _laid(configs: room.Configs, name: str, told: Given, path: Path, boxes: Sequence[str], by: str, at: str) -> Layer:
    """The layer as the database keeps it: blobs by digest, secrets sealed to each box.  ConfigError with every reason."""
    reasons: list[str] = []
    blobs: dict[str, str] = {}
    for blob, file in told.blobs.items():
        try:
            data = (path.parent / file).read_bytes()
            room.blob_checked(blob, data)
            blobs[blob] = configs.put_blob(blob, data)
            configs.put_deltas(blob, blobs[blob], boxes)
        except OSError as why:
            reasons.append(f"blobs.{blob}: {file} cannot be read: {why.strerror}")
        except ConfigError as why:
            reasons += [f"blobs.{blob}: {reason}" for reason in why.reasons]
        except Outside as why:
            reasons.append(f"blobs.{blob}: {why}")
    layer = configs.put_layer(name, told.set, blobs, by, at)
    for key, secret in told.secrets.items():
        for box in boxes:
            jwk = configs.key(box)
            if jwk is None:
                reasons.append(f"{key} is a secret, and the cloud has no encryption key of {box}: enrol it, or "
                               "tillfleet config key")
            else:
                configs.put_sealed(layer, key, box, sealed_to(jwk, secret))
    if reasons:
        raise ConfigError(reasons, which=str(path))
    return layer


def sealed_to(jwk: dict[str, Any], secret: str) -> str:
    """`secret` as a JWE to the holder of the public key."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers, generate_private_key

    from device.mqtt.jwe_wire import IV_BYTES, jwe_encrypted
    from device.store_forward.token import unb64

    x, y = (int.from_bytes(unb64(jwk[part]), "big") for part in ("x", "y"))
    to = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    return jwe_encrypted(secret.encode(), to, generate_private_key(SECP256R1()), secrets.token_bytes(IV_BYTES))


def _refused(args: argparse.Namespace, why: Refused) -> int:
    for reason, boxes in sorted(why.reasons.items(), key=lambda one: -len(one[1])):
        more = f" and {len(boxes) - 3} more" if len(boxes) > 3 else ""
        _say(args, {"reason": reason, "boxes": list(boxes)}, f"{', '.join(boxes[:3])}{more}: {safe(reason)}")
    _say(args, {"refused": len(why.reasons)}, f"refused for {len(why.reasons)} reasons: nothing left the cloud")
    return 1


def _rolled(database: Database, args: argparse.Namespace, id_: str, wait_s: float) -> int:
    rollouts, until = Rollouts(database), time.monotonic() + wait_s
    while (one := rollouts.listed(id_)[0]).state == "running" and time.monotonic() < until:
        time.sleep(POLL_S)
    _say_rollout(rollouts, args, one)
    return 0 if one.state == "done" or (one.state == "running" and not wait_s) else 1


def _say_rollout(rollouts: Rollouts, args: argparse.Namespace, one: Rollout) -> None:
    tally = rollouts.tally(one, wall())
    line = {"rollout": one.id, "at": one.at, "by": one.who, "layer": one.name, "n": one.n, "state": one.state, "ring": one.ring,
            "rings": one.rings, "boxes": tally.boxes, "active": tally.active, "failed": tally.failed, "silent": tally.silent,
            "waiting": tally.waiting, "away": tally.away, "why": one.why}
    _say(args, line, f"rollout {one.id} of {one.name or 'the layers'} by {one.who}, {one.at}: {one.state}, ring {one.ring} of "
                     f"{one.rings}: {tally.boxes} boxes, {tally.active} active, {tally.failed} failed, {tally.silent} silent, "
                     f"{tally.waiting} waiting, {tally.away} away" + (f"; {one.why}" if one.why else ""))


def _share(percent: float) -> int:
    if not 0 <= percent <= 100:
        raise ValueError(f"{percent:g} % is no share")
    return round(percent * 10)


# status, diff, why, rollout --------------------------------------------------------------------------------------------------

def _history(database: Database, args: argparse.Namespace) -> int:
    for version in room.Configs(database).history(args.layer):
        said = {**{key: "***" if value == {"sealed": True} else value for key, value in flat(version.said)},
                **{f"blobs.{name}": sha256[:12] for name, sha256 in version.blobs.items()}}
        _say(args, {"layer": args.layer, "n": version.n, "at": version.at, "by": version.who, "withdrawn": version.withdrawn,
                    "set": said},
             f"{args.layer} version {version.n} by {version.who}, {version.at}{', withdrawn' if version.withdrawn else ''}"
             + "".join(f"\n    {key} = {json.dumps(value, ensure_ascii=False)}" for key, value in said.items()))
    return 0


def _status(database: Database, args: argparse.Namespace) -> int:
    """0 when every box runs what it should."""
    configs, known = room.Configs(database), Groups(database)
    chosen = bool(args.box) or bool(args.group) or args.all
    boxes = known.named(box=args.box, group=args.group, everyone=args.all) if chosen else known.all()
    standings = sorted(map(configs.standing, boxes), key=lambda one: (one.word == "active", one.box))
    for one in standings:
        _say(args, one._asdict(), f"{one.box:<16} {one.word:<12} desired {one.desired}, runs {one.active}"
             + (f" since {one.since}" if one.since and one.word != "active" else "") + (f": {safe(one.why)}" if one.why else "")
             + "".join(f"\n    {safe(reason)}" for reason in one.reasons))
    drift = sum(one.word != "active" for one in standings)
    _say(args, {"boxes": len(standings), "drift": drift}, f"{len(standings)} boxes, {drift} differ")
    return 1 if drift else 0


class _Undone(Exception):
    """Nothing of a try may stay in the database."""


def _diff(database: Database, args: argparse.Namespace) -> int:
    configs = room.Configs(database)
    found: list[tuple[str, str, str, str]] = []
    against: list[str] = []
    try:
        with database.transaction():
            if args.file:
                name = EVERYONE if args.all else f"group:{group_checked(args.group)}" if args.group else f"box:{args.box}"
                _laid(configs, name, _given(args.file), Path(args.file), [args.box], who(args), wall())
            found, against = configs.differences(args.box), configs.composed(args.box)[1]
            raise _Undone
    except _Undone:
        pass
    for key, before, after, origin in found:
        _say(args, {"key": key, "before": before, "after": after, "origin": origin}, f"{key}: {before} -> {after}  ({origin})")
    for reason in against:
        _say(args, {"reason": reason}, f"refused: {reason}")
    _say(args, {"changes": len(found), "reasons": len(against)}, f"{len(found)} keys change")
    return 1 if against else 0


def _why(database: Database, args: argparse.Namespace) -> int:
    configs = room.Configs(database)
    for layer in reversed(configs.layers(args.box)):
        values = {**dict(flat(layer.set)), **{f"blobs.{name}": sha256 for name, sha256 in layer.blobs.items()}}
        under = {key: value for key, value in values.items() if key == args.key or key.startswith(args.key + ".")}
        if under:
            at, by = next((one.at, one.who) for one in configs.history(layer.name) if one.n == layer.n)
            for key, value in under.items():
                said = "***" if value == {"sealed": True} else value
                _say(args, {"key": key, "value": said, "layer": layer.name, "n": layer.n, "at": at, "by": by},
                     f"{key} = {json.dumps(said, ensure_ascii=False)}: {layer.name}, version {layer.n} by {by}, {at}")
            return 0
    _say(args, {"key": args.key, "layer": "box.toml"}, f"{args.key}: no layer of the cloud says it, but box.toml or the default")
    return 0


def _rollout(database: Database, args: argparse.Namespace) -> int:
    rollouts, words = Rollouts(database), args.words
    if not words or words == ["list"]:
        for one in rollouts.listed():
            _say_rollout(rollouts, args, one)
        return 0
    id_ = words[-1]
    if len(words) == 2 and words[0] == "abort":
        with database.transaction():
            rollouts.abort(id_, who(args), wall(), undo=args.undo)
    elif len(words) == 2 and words[0] == "resume":
        with database.transaction():
            rollouts.resume(id_, _share(args.limit), wall())
    elif len(words) != 1:
        raise ValueError("rollout takes nothing, an ID, abort ID or resume ID")
    found = rollouts.listed(id_)
    if not found:
        raise ValueError(f"there is no rollout {id_}")
    _say_rollout(rollouts, args, found[0])
    return 0


# What the cloud is told ------------------------------------------------------------------------------------------------------

def _base(database: Database, args: argparse.Namespace) -> int:
    import re

    from device.config import parse_toml

    text = args.file.read_text(encoding="utf-8")
    parse_toml(text, which=str(args.file))
    names = "|".join(sorted(SECRETS))
    kept = re.sub(rf'(?m)^(\s*(?:{names})\s*=\s*)(?:"[^"\n]*"|\'[^\'\n]*\')', rf'\1"{STAND_IN}"', text)
    parse_toml(kept, which=f"{args.file}, secrets left out")
    with database.transaction():
        room.Configs(database).put_base(args.box, kept, wall())
    return 0


def _key(database: Database, args: argparse.Namespace) -> int:
    try:
        jwk = json.loads(args.file.read_text())
        public = {part: str(jwk[part]) for part in ("crv", "kty", "x", "y")}
    except (ValueError, KeyError, TypeError) as why:
        raise ValueError(f"{args.file} holds no public key: {why}") from None
    sealed_to(public, "probe")                        # a point off the curve is found here
    with database.transaction():
        room.Configs(database).put_key(args.box, public, thumbprint(public), wall())
    return 0
