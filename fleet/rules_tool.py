"""`tillfleet rules`: a rule table of the channels, checked and signed for boxes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from fleet import files
from fleet.keys import SigningKey


def add(commands: Any) -> None:
    table = commands.add_parser("rules", help="sign a rule table of the channels for boxes")
    table.add_argument("file", type=Path, metavar="JSON")
    table.add_argument("--key", required=True, type=Path, metavar="PEM", help="made if missing; its public half is written "
                                                                              "beside it as .jwk, for rules_key_file")
    table.add_argument("--out", required=True, type=Path, metavar="FILE")
    table.set_defaults(run=_rules)


def _rules(args: argparse.Namespace) -> int:
    from device.errors import ConfigError
    from device.rules import sealed

    key = SigningKey(args.key)
    try:
        token = sealed(args.file.read_bytes(), key.kid, key.sign)
    except ConfigError as why:
        raise ValueError(f"{args.file}: {why}") from None
    files.written(args.key.with_suffix(".jwk"), json.dumps({**key.jwk, "kid": key.kid}) + "\n")
    files.written(args.out, token.decode() + "\n")
    return 0
