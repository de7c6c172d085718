"""`tillfleet`: the cloud's commands, one family a module.  A family's `add(commands)` names its parsers and gives each the
function that runs it (`set_defaults(run=...)`): arguments in, exit status out.
"""

from __future__ import annotations

import argparse
import sys

from fleet import console_tool, rules_tool, settle_tool
from fleet.commands import courier_tool
from fleet.commands import tool as command_tool
from fleet.identity import ca_tool, enrol_tool
from fleet.push import tool as config_tool
from fleet.records import collect_tool, dates_tool, verify_tool
from fleet.update import tool as update_tool

FAMILIES = (
    ca_tool,
    collect_tool,
    verify_tool,
    rules_tool,
    command_tool,
    config_tool,
    update_tool,
    courier_tool,
    settle_tool,
    dates_tool,
    enrol_tool,
    console_tool,
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; 0 when all holds, 1 when not, 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(prog="tillfleet", description="The cloud end of Tillbox.")
    commands = parser.add_subparsers(dest="command", required=True)
    for family in FAMILIES:
        family.add(commands)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except (OSError, ValueError) as why:
        print(f"tillfleet {args.command}: {why}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
