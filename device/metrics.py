"""`tillbox metrics` and `tillbox forward`: one question to the running daemon, for whoever looks after many boxes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device.ask import DaemonAway, ask
from device.errors import ConfigError
from device.identity import folder as identity


def main(argv: list[str]) -> int:
    """0 with the object on standard output, 1 when no daemon answers, 2 when the configuration cannot be read."""
    return _asked(argv, "metrics", "The running box in numbers.", lambda said, _: json.dumps(said, ensure_ascii=False))


def forward(argv: list[str]) -> int:
    """End every pause before the next try to send: 0 with what is done about it in one sentence, 1 and 2 as above."""
    return _asked(argv, "forward", "Send what waits now.",
                  lambda said, as_json: json.dumps({"forward": said}, ensure_ascii=False) if as_json else said)


def _asked(argv: list[str], verb: str, what: str, line: Callable[[Any, bool], str]) -> int:
    parser = argparse.ArgumentParser(prog=f"tillbox {verb}", description=what)
    parser.add_argument("--config", default="/etc/tillbox/box.toml")
    parser.add_argument("--json", action="store_true", help="one object a line; metrics are always so")
    args = parser.parse_args(argv)
    try:
        config = identity.loaded(args.config)
    except (OSError, UnicodeDecodeError, ConfigError) as why:
        print(f"tillbox {verb}: {args.config} cannot be read: {why}", file=sys.stderr)
        return 2
    try:
        said = ask(Path(config.run_dir) / "daemon.sock", verb)
        if verb not in said:
            raise DaemonAway(f"the daemon does not say its {verb}: {str(said.get('error', 'it gives another answer'))[:200]}")
    except DaemonAway as away:
        print(f"tillbox {verb}: {away}", file=sys.stderr)
        return 1
    print(line(said[verb], args.json))
    return 0
