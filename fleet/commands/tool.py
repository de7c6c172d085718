"""`tillfleet cmd`: ask something of a box or of many, wait for the answers, look at what was asked; and `tillfleet group`."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import time
from typing import Any

from device.console.printing import safe
from fleet import groups
from fleet.clock import wall
from fleet.commands import kept as room
from fleet.database import Database, opened

POLL_S = 0.2


def add(commands: Any) -> None:
    cmd = commands.add_parser("cmd", help="ask boxes: BOX VERB [ARGS], or --group G VERB; cmd list; cmd withdraw BATCH")
    cmd.add_argument("words", nargs="+", metavar="BOX VERB [ARGS]", help="docs/commands.md has the verbs")
    cmd.add_argument("--store", required=True, metavar="FILE|URL")
    cmd.add_argument("--group", default="", help="every box of this group")
    cmd.add_argument("--all", action="store_true", help="every box that ever said hello")
    cmd.add_argument("--by", default=os.environ.get("TILLFLEET_BY", ""), metavar="NAME:ROLE", help="who asks ($TILLFLEET_BY)")
    cmd.add_argument("--wait", type=float, default=0, metavar="S", help="for the answers, at most so long")
    cmd.add_argument("--for", dest="lives_s", type=int, default=0, metavar="S", help="how long it may wait for its box")
    cmd.add_argument("--box", default="", help="with list: of this box alone")
    cmd.add_argument("--batch", default="", help="with list: of this batch alone")
    cmd.add_argument("--json", action="store_true")
    cmd.set_defaults(run=_cmd)

    group = commands.add_parser("group", help="group list [GROUP]; group put GROUP BOX...; group drop GROUP BOX...")
    group.add_argument("what", choices=("list", "put", "drop"))
    group.add_argument("group", nargs="?", default="")
    group.add_argument("boxes", nargs="*", metavar="BOX")
    group.add_argument("--store", required=True, metavar="FILE|URL")
    group.set_defaults(run=_group)


def _cmd(args: argparse.Namespace) -> int:
    database = store(args.store, room.SCHEMA)
    words: list[str] = args.words
    try:
        if words[0] == "list" and len(words) == 1:
            return _told(room.Commands(database).listed(box=args.box, batch=args.batch), args.json, of="list")
        if words[0] == "withdraw" and len(words) == 2:
            with database.transaction():
                count = room.Commands(database).withdraw(words[1], wall())
            print(json.dumps({"batch": words[1], "withdrawn": count}) if args.json else f"{count} withdrawn")
            return 0
        many = bool(args.group) or args.all
        verb, rest = verb_of(words if many else words[1:])
        boxes = groups.Groups(database).named(box="" if many else words[0], group=args.group, everyone=args.all)
        if not args.by:
            raise ValueError("say who asks: --by NAME:ROLE, or $TILLFLEET_BY")
        with database.transaction():
            ids = room.Commands(database).ask(boxes, verb, rest, args.by, wall(), args.lives_s)
        batch = ids[0].rpartition("-")[0]
        return _told(_waited(database, batch, args.wait), args.json, of="ask", patient=args.wait > 0)
    finally:
        database.close()


def _waited(database: Database, batch: str, wait_s: float) -> list[room.Command]:
    until = time.monotonic() + wait_s
    while True:
        found = room.Commands(database).listed(batch=batch, limit=100_000)
        if all(one.state != "waiting" for one in found) or time.monotonic() >= until:
            return found
        time.sleep(POLL_S)


def _told(found: list[room.Command], as_json: bool, *, of: str, patient: bool = True) -> int:
    """One line a command, the sums last; 0 when each was done, or kept if nobody waits."""
    sums: dict[str, int] = {}
    for one in found:
        sums[one.state] = sums.get(one.state, 0) + 1
        answer = json.loads(one.answer) if one.answer and one.state in ("done", "refused") else one.answer
        line = {"id": one.id, "at": one.at, "by": one.who, "box": one.box, "verb": one.verb, "args": one.args, "state": one.state,
                "sends": one.sends, "answered": one.answered, "answer": answer}
        print(json.dumps(line, ensure_ascii=False) if as_json else
              f"{one.at} {one.box:<16} {one.verb} {one.args}".rstrip() + f"  by {one.who}: {one.state} "
              + (safe(answer) if isinstance(answer, str) else _shown(answer)))
    print(json.dumps({"commands": len(found), **sums}) if as_json else
          f"{len(found)} commands" + "".join(f", {count} {state}" for state, count in sorted(sums.items())))
    well = {"done"} if patient else {"done", "waiting"}
    return 0 if of == "list" or set(sums) <= well else 1


def _shown(answer: object) -> str:
    """A box's JSON for a person's terminal."""
    return "\n".join(map(safe, json.dumps(answer, ensure_ascii=False, indent=2).split("\n")))


def verb_of(words: list[str]) -> tuple[str, str]:
    """A verb of one or two words and what follows it.  ValueError when nothing is said."""
    from device.mqtt.cmd_wire import VERBS

    if not words:
        raise ValueError(f"say what: {', '.join(VERBS)}")
    count = 2 if " ".join(words[:2]) in VERBS else 1
    return " ".join(words[:count]), " ".join(words[count:])


def _group(args: argparse.Namespace) -> int:
    database = store(args.store)
    try:
        known = groups.Groups(database)
        if args.what == "list":
            for box in known.boxes(args.group) if args.group else known.all():
                print(box if args.group else f"{box} {' '.join(known.of(box))}".rstrip())
            return 0
        if not args.group or not args.boxes:
            raise ValueError(f"{args.what} takes a group and boxes")
        with database.transaction():
            (known.put if args.what == "put" else known.drop)(args.group, args.boxes)
        return 0
    finally:
        database.close()


def store(where: str, *schemas: str) -> Database:
    """The cloud's database with these tables in it."""
    database = opened(where)
    groups.made(database, groups.SCHEMA, *schemas)
    return database


def who(args: argparse.Namespace) -> str:
    """Who did it, for the history."""
    return str(args.by or getpass.getuser())

