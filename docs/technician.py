"""Writes docs/technician.md from the console's table of commands: `make docs`.  A test tries what the page shows, line by line."""

from __future__ import annotations

import re
from pathlib import Path

from device.console.words import COMMANDS, Command

PAGE = Path(__file__).with_name("technician.md")
HEAD = """\
# The technician's console

A serial line at 115,200 baud, 8N1, 80 columns, any terminal; three wires do. It is a process of its own, works while the till's
daemon is dead, and the till does not stop because somebody is logged in. This page is written from the table of commands by
`make docs`; do not edit it by hand.

| where | how |
|---|---|
| the box's serial port | `systemctl enable --now tillbox-console@ttyAMA0.service`, once, when the box is set up |
| any other port or pty | `tillbox console --line /dev/ttyUSB0` |
| from a shell | `tillbox console --stdio` |

## Login

There is no password. The console asks for your name and a level (`look` reads; `work` tries the devices; `full` ends or changes
what the box is), and shows a challenge:

    Read this to head office:
      box box-1   name li   level work
      challenge 7K3Q-0ZF2-9A4M-11QX   (good for 30 minutes)
    code:

Head office answers with eight characters, by

    tillfleet console-code box-1 7K3Q-0ZF2-9A4M-11QX --level work --who li --store STORE --ca DIR

which finds out if a character was misheard, writes down who was let in where, and needs no line to the box. The code opens this
one session, as this person, at this level. Five wrong codes are free; then everybody waits a minute, two, four, up to a day, and a
power cut does not shorten that. Only a line of the form of a code counts as a try: noise on the cable locks nobody out.

Instead of a code you may paste an SSH signature by a certificate that lives at most a day, if `console.ssh_ca` in `box.toml` names
the CA:

    ssh-keygen -s ca -I li -n box-1 -V -1m:+30m id_ed25519.pub          (at head office; -n box-1.full for the level full)
    echo "tillbox console box-1 li work 7K3Q-0ZF2-9A4M-11QX" > told
    ssh-keygen -Y sign -n tillbox-console -f id_ed25519-cert.pub told   (then paste told.sig)

A box that was never enrolled and never sold is nobody's yet, and has nothing to check a code with: there `enrol HOST:PORT` needs no
login, for its one-use code is head office's own word. A box that was enrolled before consoles had keys has none either: log in by a
certificate, or enrol it anew from a shell.

While the daemon is dead, a device that was plugged in after the console started is seen after `exit` and another login.

The session ends by `exit`, by silence (`console.idle_s`, 15 minutes), and when the cable is pulled.

## What every command does

- The last line of an answer is `ok`, or `failed: CODE sentence`. CODE is the same in both languages and stays the same.
- `--dry` says what would be done, and does nothing.
- A dangerous command asks for the box's name before it does anything.
- Tab completes, the arrows go back in this session's history, Ctrl-C stops.
- Whatever is not printable leaves as `\\x1b` or `\\u202e`, written out: data cannot steer your terminal.
- Every command is on the card before it is done, and becomes a signed record (`command`, and `visit` for a handover) when the
  daemon lives.
- No command marks an order as paid, moves money, or takes a shell's line.

## Commands

| command | level | what it does | 说明 |
|---|---|---|---|
"""
CODES = """
## Codes of failure

| code | what it says |
|---|---|
| `USAGE` | no such command, or not with these words |
| `LEVEL` | this session's level is too low: `exit`, and ask for another |
| `NAME` | the box's name was not typed: nothing was done |
| `STOPPED` | Ctrl-C |
| `DAEMON` | only the daemon can do that, and it is dead or silent |
| `CONFIG` | `box.toml` is refused; `doctor` says why |
| `JOURNAL` | there is no journal, or it cannot be read: docs/recovery.md |
| `CHAIN` | the box's own chain of records does not hold: docs/verify.md |
| `WRONG` | `doctor` found something wrong |
| `UNREACHED` | `net`: a needed place cannot be reached |
| `NONE` | no such device is configured |
| `SILENT`, `SPOILED`, `SCANNER` | `scan test`: nothing came; what came was no symbol; the scanner's own word |
| `PRINTER`, `PAPER`, `DRAWER`, `DISPLAY` | the device's own word, or the technician said no |
| `UNKNOWN` | `timeline`: this journal never saw that number |
| `KEY` | `config why`: no such key |
| `ENROL` | the desk did not take the code; the line above says why |
| `OWES` | `swap`: something is not in the cloud or not decided yet |
| `REFUSED`, `FULL` | the daemon said no; the disk is full, or a dead card keeps nothing |
| `OUTSIDE`, `FAULT` | something outside failed in a way no command knows; a fault of the console's own |

## On the box's side

`tillbox-console@.service` runs the console as the till's own user in a closed room; its key for codes is agreed between the box's
encryption key and the fleet's console key (`console.pem` in the CA's folder), so the cloud stores no secret for any box. `bundle`
is encrypted to the same key: `tillfleet bundle FILE --ca DIR` opens it. So is `journal export`, for a box whose line or card is
failing: `tillfleet bundle FILE --ca DIR --records > told`, then `tillfleet collect told --store STORE` brings the records in. FILE
may be a copy of the terminal as well. The console's configuration is section `[console]` of docs/config.md.
"""


def page() -> str:
    """The whole page."""
    rows = "".join(f"| `{one.name}{' ' + one.asks if one.asks else ''}`{' †' if one.dangerous else ''} | {one.level or 'none'} | "
                   f"{one.help[1]} | {one.help[0]} |\n" for one in COMMANDS).replace("zh|en", "zh\\|en")
    return HEAD + rows + "\n† dangerous: asks for the box's name.\n\n## Examples\n\n" + "".join(map(_example, COMMANDS)) + CODES


def _example(one: Command) -> str:
    dry = [f"{one.name} --dry"] if re.fullmatch(one.args, "") and f"{one.name} --dry" not in one.tried else []
    return "".join(f"    box-1> {line}\n" for line in (*one.tried, *dry)) + "\n"


def shown(page: str) -> list[str]:
    """The lines that the page tells a technician to type."""
    return [line.partition("> ")[2] for line in page.splitlines() if line.startswith("    box-1> ")]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
