"""`tillfleet console-code`: let a technician into a box's console; and `tillfleet bundle`: open what a console packed."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any

from fleet import console, groups
from fleet.clock import wall
from fleet.database import opened
from fleet.identity import enrol


def add(commands: Any) -> None:
    code = commands.add_parser("console-code", help="console-code BOX CHALLENGE --level L --who NAME; or list: docs/technician.md")
    code.add_argument("box", metavar="BOX|list")
    code.add_argument("challenge", nargs="*", help="as it was read out, four groups of four")
    code.add_argument("--level", default="work", metavar="look|work|full")
    code.add_argument("--who", default="", metavar="NAME", help="the technician, as typed at the box")
    code.add_argument("--by", default=os.environ.get("TILLFLEET_BY", ""), metavar="NAME", help="who gives the code ($TILLFLEET_BY)")
    code.add_argument("--store", required=True, metavar="PLACE", help="the collector's: a file, or postgresql://...")
    code.add_argument("--ca", required=True, type=Path, metavar="DIR", help="folder of the tenant's authority")
    code.add_argument("--json", action="store_true")
    code.set_defaults(run=_code)

    bundle = commands.add_parser("bundle", help="bundle FILE: what a box's console packed, as JSON")
    bundle.add_argument("file", type=Path, help="- reads standard input")
    bundle.add_argument("--records", action="store_true", help="the records of a journal export, one a line, for tillfleet collect")
    bundle.add_argument("--ca", required=True, type=Path, metavar="DIR", help="folder of the tenant's authority")
    bundle.set_defaults(run=_bundle)


def _code(args: argparse.Namespace) -> int:
    from fleet.identity.ca import Authority

    database = opened(args.store)
    try:
        groups.made(database, enrol.SCHEMA, console.SCHEMA)
        desk = console.ConsoleDesk(database, Authority(args.ca).tenant, args.ca / "console.pem")
        if args.box == "list" and not args.challenge:
            for at, box, who, level, by in desk.given():
                print(json.dumps({"at": at, "box": box, "who": who, "level": level, "by": by}) if args.json else
                      f"{at} {box:<16} {who} {level}  by {by}")
            return 0
        if not args.who:
            raise ValueError("say who stands at the box: --who NAME")
        code = desk.code(args.box, "".join(args.challenge), args.level, args.who, by=args.by or getpass.getuser(), at=wall())
        print(json.dumps({"box": args.box, "who": args.who, "level": args.level, "code": code}) if args.json else
              f"{code[:4]} {code[4:]}")
        return 0
    finally:
        database.close()


def _bundle(args: argparse.Namespace) -> int:
    raw = sys.stdin.buffer.read() if str(args.file) == "-" else args.file.read_bytes()
    told = console.bundle_opened(raw, console.private_key(args.ca / "console.pem"))
    if args.records:
        print("\n".join(console.records_in(told)))
    else:                                            # Chinese as it is; what steers a terminal as JSON writes it
        print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1]
                      for c in json.dumps(told, ensure_ascii=False, indent=1)))
    return 0
