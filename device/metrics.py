"""`tillbox metrics`: one question to the running daemon, for whoever collects the figures of many boxes.  One JSON object."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from device.ask import DaemonAway, ask
from device.config import parse_toml
from device.errors import ConfigError


def main(argv: list[str]) -> int:
    """0 with the object on standard output, 1 when no daemon answers, 2 when the configuration cannot be read."""
    parser = argparse.ArgumentParser(prog="tillbox metrics", description="The running box in numbers.")
    parser.add_argument("--config", default="/etc/tillbox/box.toml")
    parser.add_argument("--json", action="store_true", help="always so: one object a line")
    args = parser.parse_args(argv)
    try:
        config = parse_toml(Path(args.config).read_text(encoding="utf-8"), which=args.config)
    except (OSError, UnicodeDecodeError, ConfigError) as why:
        print(f"tillbox metrics: {args.config} cannot be read: {why}", file=sys.stderr)
        return 2
    try:
        said = ask(Path(config.run_dir) / "daemon.sock", "metrics")
    except DaemonAway as away:
        print(f"tillbox metrics: {away}", file=sys.stderr)
        return 1
    print(json.dumps(said["metrics"], ensure_ascii=False))
    return 0
