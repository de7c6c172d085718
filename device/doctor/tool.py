"""`tillbox doctor`: what is wrong with this box, and what to do about it, one line a finding.

Reads only: it makes no key, takes no lock that the daemon wants, and asks a running daemon instead of opening its journal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from device.ask import DaemonAway, ask, runs
from device.doctor import box as doctor_box
from device.doctor import keys as doctor_keys
from device.doctor import online as doctor_online
from device.doctor.look import Finding, Look
from device.errors import ConfigError, Outside
from device.gateway import with_terminal
from device.inside import keep_inside
from device.keys.store import KeyStore, sealing_keys
from device.push.layers import Layers

Check = Callable[[Look], Iterable[Finding]]

# What is looked at, in this order.  A check that cannot look says so as a finding; none changes anything.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("configuration file", doctor_box.config_file),
    ("pushed configuration", doctor_box.pushed),
    ("daemon", doctor_box.daemon),
    ("journal", doctor_box.journal),
    ("record key", doctor_box.record_key),
    ("room on the card", doctor_box.room),
    ("clock", doctor_box.clock),
    ("devices", doctor_box.devices),
    ("price list and rules", doctor_box.lists),
    ("cloud's files", doctor_box.cloud_files),
    ("enrolment", doctor_box.enrolment),
    ("sealing key", doctor_keys.sealing),
    ("sealed keys", doctor_keys.sealed),
    ("plain keys", doctor_keys.plain),
    ("each channel", doctor_keys.channels),
    ("accounts that are still needed", doctor_keys.accounts),
    ("what a thief could do", doctor_keys.thief),
)
ONLINE: tuple[tuple[str, Check], ...] = (
    ("broker's line", doctor_online.broker),
    ("payment lines", doctor_online.channels),
)


def main(argv: list[str]) -> int:
    """0 when nothing is wrong, 1 when something is, 2 for arguments that do not serve."""
    keep_inside()
    parser = _Parser(prog="tillbox doctor", description="What is wrong with this box, and what to do about it.")
    parser.add_argument("--config", default="/etc/tillbox/box.toml", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one object a finding, the summary last")
    parser.add_argument("--online", action="store_true", help="also the broker's line and a question to each payment channel")
    try:
        asked = parser.parse_args(argv)
    except ValueError as why:
        print(f"tillbox doctor: {why}", file=sys.stderr)
        return 2
    checks = CHECKS + (ONLINE if asked.online else ())
    look = _look(asked.config)
    wrong = known = 0
    for finding in look if isinstance(look, list) else _found(look, checks):
        wrong += bool(finding.action)
        known += not finding.action
        print(json.dumps(msgspec.to_builtins(finding), ensure_ascii=False) if asked.json else _told(finding), flush=True)
    done = 1 if isinstance(look, list) else 1 + len(checks)              # reading the configuration is the first
    print(json.dumps({"checks": done, "wrong": wrong, "to_know": known}) if asked.json else
          f"{done} checks: {wrong or 'nothing'} wrong, {known} to know")
    return 1 if wrong else 0


def looked(path: str) -> list[Finding]:
    """Every finding of the checks that need no network, for the box whose configuration file is `path`."""
    look = _look(path)
    return look if isinstance(look, list) else list(_found(look, CHECKS))


def _found(look: Look, checks: tuple[tuple[str, Check], ...]) -> Iterator[Finding]:
    for _, check in checks:
        yield from check(look)


def _look(path: str) -> Look | list[Finding]:
    """What the checks look at, or why nothing can be looked at."""
    try:
        config = Layers(Path(path).read_text(encoding="utf-8"), which=path, finished=lambda alone: alone).config()
    except (OSError, UnicodeDecodeError) as why:
        return [Finding("config_unread", "config", f"{path} cannot be read: {getattr(why, 'strerror', '') or why}.",
                        "name the box's file with --config")]
    except ConfigError as why:
        return [Finding("config_refused", "config", f"{reason}.", f"put it right in {path}; docs/config.md lists every key")
                for reason in why.reasons]
    except Outside as why:
        return [Finding("identity_unread", "identity", why.what, why.hint)]
    seal_fault = ""
    try:
        sealing = sealing_keys(config.seal_key_file)
    except Outside as why:
        sealing, seal_fault = (), why.what
    state: dict[str, Any] = {}
    running = runs(config.run_dir)
    if running:
        try:
            state = ask(Path(config.run_dir) / "daemon.sock", "state").get("state", {})
        except DaemonAway:
            pass                                             # said by the daemon's check
    return Look(path, with_terminal(config), KeyStore(Path(config.state_dir) / "keys", sealing), running, state, seal_fault)


def _told(finding: Finding) -> str:
    head = f"{'WRONG' if finding.action else 'know '}  {finding.part}: {finding.sentence}  [{finding.code}]"
    return f"{head}\n       -> {finding.action}" if finding.action else head


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)
