"""`tillbox scan`: what could be a scanner and where it sits, whether a scanner reads, and which of them just read a code."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from device.ask import DaemonAway, ask
from device.errors import ConfigError
from device.identity import folder as identity

EVERY_S = 0.2


def main(argv: list[str]) -> int:
    """0 when it was read, found or listed; 1 when nothing came, or no daemon answers; 2 when the arguments do not serve."""
    parser = argparse.ArgumentParser(prog="tillbox scan", description="Where scanners sit, whether they read, which is which.")
    parser.add_argument("do", choices=("list", "test", "pair"))
    parser.add_argument("code", nargs="?", default="", help="a code at hand to pair with; without it one is shown")
    parser.add_argument("--config", default="/etc/tillbox/box.toml")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    if args.do == "list":
        return list_all(args.json)
    try:
        config = identity.loaded(args.config)
    except (OSError, UnicodeDecodeError, ConfigError) as why:
        print(f"tillbox scan: {args.config} cannot be read: {why}", file=sys.stderr)
        return 2
    path = Path(config.run_dir) / "daemon.sock"
    try:
        begun = ask(path, "scan", do=args.do, code=args.code)
        if not begun["ok"]:
            print(f"tillbox scan: {begun['error']}", file=sys.stderr)
            return 1
        if args.do == "pair":
            _show(begun, args.code)
        else:
            print("Scan anything: it is shown here and not sold.", file=sys.stderr)
        return _told(_waited(path, begun["seconds"]), args.json)
    except DaemonAway as away:
        print(f"tillbox scan: {away}", file=sys.stderr)
        return 1


def _waited(path: Path, seconds: float) -> dict[str, Any]:
    ends = time.monotonic() + seconds + 1
    while True:
        scan = ask(path, "scan", do="look")["scan"]
        if scan["said"] or scan["found"] or scan["over"] or time.monotonic() > ends:
            return scan
        time.sleep(EVERY_S)


def _told(scan: dict[str, Any], as_json: bool) -> int:
    said, found = scan["said"], scan["found"]
    if as_json:
        print(json.dumps(scan, ensure_ascii=False))
    elif found:
        print(f"# {found['name'] or 'nameless'} ({found['usb']})", "[scanner]", 'kind = "evdev"',
              f'port = "{found["port"]}"' if found["port"] else f'path = "{found["path"]}"', sep="\n")
    elif said and said["why"]:
        print(f"{said['part']}: {said['why']}")
    elif said:
        what = said["symbol"] or f"{said['length']} characters"
        kind = f", kind {said['kind']}" if said["kind"] else ""
        print(f"{said['part']} reads {what}{kind}")
    else:
        print(*scan["heard"], "Nothing was read. Is it plugged in, and set to keyboard mode with a US keyboard?", sep="\n")
    return 0 if found or (said and not said["why"]) else 1


def list_all(as_json: bool = False, sysfs: str = "/sys", dev: str = "/dev") -> int:
    """What could be a scanner, one line each: its kind, USB port, vendor and product, path, name."""
    from device.drivers.input.hidpos_bytes import is_scanner
    from device.drivers.input_ports import hid_nodes, keyboards, report_descriptor, serial_nodes
    rows = [("keyboard", node) for node in keyboards(sysfs, dev) if node.types]
    rows += [("hid-pos", node) for node in hid_nodes(sysfs, dev) if is_scanner(report_descriptor(node.path, sysfs))]
    rows += [("serial", node) for node in serial_nodes(sysfs, dev)]
    for kind, node in rows:
        row = {"kind": kind, "path": node.path, "port": node.port, "usb": node.usb, "name": node.name, "serial": node.serial}
        print(json.dumps(row, ensure_ascii=False) if as_json else
              f"{kind:9} {node.port or '-':10} {node.usb:10} {node.path:20} {node.name}")
    if not rows and not as_json:
        print("Nothing that could be a scanner is plugged in.")
    return 0


def _show(begun: dict[str, Any], given: str) -> None:
    """The code to scan, as a QR of blanks where a terminal is, and in letters."""
    if not given and sys.stderr.isatty():
        from device.drivers.qr_bits import QUIET_MODULES, matrix, side
        bits = matrix(begun["code"])
        size = side(bits)
        light = "\x1b[7m  \x1b[0m"
        wide = light * (size + 2 * QUIET_MODULES)
        rows = [light * QUIET_MODULES + "".join(light if bits[y * size + x] else "  " for x in range(size)) + light * QUIET_MODULES
                for y in range(size)]
        print(*[wide] * QUIET_MODULES, *rows, *[wide] * QUIET_MODULES, sep="\n", file=sys.stderr)
    print(f"Scan {begun['code']} with the new scanner, within {begun['seconds']:.0f} s. Keyboards that nobody knows: "
          f"{begun['keyboards']}.", file=sys.stderr)
