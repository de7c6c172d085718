"""`tillbox doctor`: what is wrong with this box, and what to do about it: every finding, and of them the root.

Reads only: it makes no key, takes no lock that the daemon wants, and asks a running daemon instead of opening its journal.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from device.appliance import fault
from device.ask import DaemonAway, ask, runs
from device.console.printing import safe
from device.doctor import box as doctor_box
from device.doctor import copy as doctor_copy
from device.doctor import counter as doctor_counter
from device.doctor import kernel as doctor_kernel
from device.doctor import keys as doctor_keys
from device.doctor import online as doctor_online
from device.doctor.codes import CODES, RANK, WELL
from device.doctor.look import Finding, Look, found
from device.doctor.said import Said, heard
from device.doctor.words_zh import ZH
from device.errors import ConfigError, Outside
from device.gateway import with_terminal
from device.inside import keep_inside
from device.keys.store import KeyStore, sealing_keys
from device.push.layers import Layers

Check = Callable[[Look], Iterable[Finding]]


class Report(msgspec.Struct, frozen=True):
    """The root in `code part sentence action` and its Chinese; code `ok`, and no action, when nothing is wrong.

    `findings` are all, the root's own among them, in the order of the checks; `wrong` of them want something done.
    """

    code: str
    part: str
    sentence: str
    action: str
    sentence_zh: str
    action_zh: str
    findings: tuple[Finding, ...]
    checks: int
    wrong: int
    to_know: int



# What is looked at, in this order.  A check that cannot look says so as a finding; none changes anything.
CHECKS: tuple[tuple[str, Check], ...] = (
    ("configuration file", doctor_box.config_file),
    ("pushed configuration", doctor_box.pushed),
    ("update", doctor_box.updated),
    ("daemon", doctor_box.daemon),
    ("journal", doctor_box.journal),
    ("record key", doctor_box.record_key),
    ("last walk over the records", doctor_box.last_walk),
    ("room on the card", doctor_box.room),
    ("clock", doctor_box.clock),
    ("starts", doctor_box.starts),
    ("second copy", doctor_copy.copy),
    ("wear of the card", doctor_kernel.wear),
    ("watchdog", doctor_kernel.watchdog),
    ("network", doctor_kernel.link),
    ("devices", doctor_counter.looked),
    ("equal scanners", doctor_counter.twins),
    ("size of the display", doctor_counter.geometry),
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
    ("lines to broker and channels", doctor_online.lines),
)


def main(argv: list[str]) -> int:
    """0 when nothing is wrong, 1 when something is, 2 for arguments that do not serve."""
    keep_inside()
    parser = _Parser(prog="tillbox doctor", description="What is wrong with this box, and what to do about it.")
    parser.add_argument("--config", default="/etc/tillbox/box.toml", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one object on one line: the root, and every finding")
    parser.add_argument("--offline", action="store_true", help="without the broker's line and a question to each payment channel")
    parser.add_argument("--online", action="store_true", help=argparse.SUPPRESS)        # what it does anyway
    parser.add_argument("--root", default="/", metavar="DIR", help="where /sys, /proc, /etc and /run are looked for")
    try:
        asked = parser.parse_args(argv)
    except ValueError as why:
        print(f"tillbox doctor: {why}", file=sys.stderr)
        return 2
    report = examine(asked.config, online=not asked.offline, root=asked.root,
                     told=_nobody if asked.json else lambda finding: print(_told(finding), flush=True))
    if asked.json:
        print(json.dumps(msgspec.to_builtins(report), ensure_ascii=False))
    else:
        print(*_ended(report), sep="\n")
    return 1 if report.wrong else 0


def _nobody(finding: Finding) -> None:
    """Hears nothing."""


def examine(path: str, *, online: bool = True, root: str | Path = "/", told: Callable[[Finding], object] = _nobody) -> Report:
    """Everything that is wrong with the box whose configuration file is `path`, and the root of it.

    `online`: the lines to broker and channels too, a few seconds, at most 40.  `told` hears each finding as it is found.  Raises
    nothing for what is wrong with a box; changes nothing.
    """
    checks = CHECKS + (ONLINE if online else ())
    look = _look(path, Path(root))
    findings = []
    for finding in look if isinstance(look, list) else _found(look, checks):
        findings.append(finding)
        told(finding)
    done = 1 if isinstance(look, list) else 1 + len(checks)              # reading the configuration is the first
    return reported(findings, done)


def reported(findings: Sequence[Finding], checks: int) -> Report:
    """The root among `findings`: of those that want something done the first in the order of causes."""
    wrong = [finding for finding in findings if finding.action]
    at = min(wrong, key=lambda finding: RANK[finding.code]) if wrong else Finding(WELL.code, "box", WELL.sentence, "")
    zh, zh_do = ZH[at.code]
    return Report(at.code, at.part, at.sentence, at.action, zh, zh_do, tuple(findings), checks, len(wrong),
                  len(findings) - len(wrong))


def looked(path: str) -> list[Finding]:
    """Every finding of the checks that need no network, for the box whose configuration file is `path`."""
    return list(examine(path, online=False).findings)


def _found(look: Look, checks: tuple[tuple[str, Check], ...]) -> Iterator[Finding]:
    """What every check finds; one that the file system stops in the middle says so, and the next has its turn."""
    for name, check in checks:
        try:
            yield from check(look)
        except OSError as why:
            yield found("part_unwell", "doctor", f"The check of the {name} could not look: {why}.",
                        "look at that file or folder, and at the card")


def _look(path: str, root: Path) -> Look | list[Finding]:
    """What the checks look at, or why nothing can be looked at."""
    if (why_not := fault.said(root)) is not None:
        code, sentence = why_not
        return [found(code if code in CODES else "data_gone", "card", sentence)]
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
    said: Said | None = None
    unfit, running = "", runs(config.run_dir)
    if running:
        try:
            said = heard(ask(Path(config.run_dir) / "daemon.sock", "state").get("state"))
        except (DaemonAway, ValueError) as why:              # said by the daemon's check
            unfit = str(why)
    return Look(path, with_terminal(config), KeyStore(Path(config.state_dir) / "keys", sealing), running, said, seal_fault, root,
                unfit)


def _told(finding: Finding) -> str:
    head = safe(f"{'WRONG' if finding.action else 'know '}  {finding.part}: {finding.sentence}  [{finding.code}]")
    return f"{head}\n       -> {safe(finding.action)}" if finding.action else head


def _ended(report: Report) -> list[str]:
    """The end of the tree: one sentence, one next action, one code, in both languages."""
    lines = [f"{report.checks} checks: {report.wrong or 'nothing'} wrong, {report.to_know} to know",
             safe(f"{report.code}: {report.part}: {report.sentence} {report.sentence_zh}")]
    return [*lines, f"  -> {safe(report.action)}", f"  -> {safe(report.action_zh)}"] if report.action else lines


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)
