"""The `tillbox` command: the daemon, and the tools that read what it writes.  Each word loads only what it needs."""

from __future__ import annotations

import gc
import sys

USAGE = """\
usage: tillbox run --config FILE     the daemon
       tillbox verify FILE --keys JWKS [--from SEQ:HEAD] [--json]
       tillbox dates FILE [--json]   when each record really happened, and how wrong that can be
       tillbox journal FILE [list|show N|export|stats|schema]
       tillbox timeline [FILE] ORDER [--config FILE] [--lang zh|en] [--json]
       tillbox config FILE [--why KEY]      what the box would run with, secrets masked; which layer gave one value
       tillbox enrol CODE --broker HOST:PORT [--config FILE]   become a box of the fleet; `tillbox enrol` says more
       tillbox gateway activate CODE [--config FILE] [--vendor FILE] [--again]
       tillbox doctor [--config FILE] [--online] [--json]   what is wrong with this box, and what to do about it
       tillbox console --line PORT|--stdio [--config FILE]   the technician's console; docs/technician.md
       tillbox metrics [--config FILE]      the running box in numbers, one JSON object
       tillbox forward [--config FILE]      send what waits now: ends every pause between two tries
       tillbox scan list|test|pair [CODE] [--config FILE] [--json]   where scanners sit, whether they read, which is which
       tillbox cards [KEYS|key|supervisor NAME] [--config FILE] [--out NAME]   command cards of this store, as PNG sheets
       tillbox supervisor NAME       badge and PIN on standard input, a line each; prints what box.toml keeps of them
       tillbox keys [list|import|drop|seal-new|reseal] [--config FILE]   the channels' keys, sealed
       tillbox appliance data|walk    the steps of an image's boot; docs/units.md
       tillbox key FILE              the public half of that box's record key, as the cloud wants it
       tillbox slot show             the two root slots: what runs, what waits, tries left (docs/update.md)
       tillbox key rotate FILE       another record key, from the next start on
"""


def main(argv: list[str] | None = None) -> int:
    """Run one word of the command line; 2 for a word that does not exist."""
    word, *rest = (sys.argv[1:] if argv is None else argv) or ["help"]
    if word == "run":
        gc.disable()                                  # a twentieth of a start; on again when the daemon is ready
        from device.lean import import_leanly
        import_leanly()
        from device.daemon import main as run
        return run(rest)
    if word == "verify":
        from device.store_forward.verify import main as verify
        return verify(rest)
    if word == "dates":
        from device.store_forward.dates import main as dates
        return dates(rest)
    if word == "journal":
        from device.store_forward.tools import main as journal
        return journal(rest)
    if word == "timeline":
        from device.timeline import main as timeline
        return timeline(rest)
    if word == "slot":
        from device.update.slot_server import main as slot
        return slot(rest)
    if word == "config":
        from device.daemon import show_config
        return show_config(rest)
    if word == "key":
        from device.daemon import show_key
        return show_key(rest)
    if word == "enrol":
        from device.identity.enrol import main as enrol
        return enrol(rest)
    if word == "gateway":
        from device.daemon import gateway
        return gateway(rest)
    if word == "doctor":
        from device.doctor.tool import main as doctor
        return doctor(rest)
    if word == "metrics":
        from device.metrics import main as metrics
        return metrics(rest)
    if word == "forward":
        from device.metrics import forward
        return forward(rest)
    if word == "keys":
        from device.keys.tool import main as keys
        return keys(rest)
    if word == "scan":
        from device.scan_tool import main as scan
        return scan(rest)
    if word == "cards":
        from device.cards import main as cards
        return cards(rest)
    if word == "supervisor":
        from device.daemon import show_supervisor
        return show_supervisor(rest)
    if word == "appliance":
        from device.appliance.tool import main as appliance
        return appliance(rest)
    if word == "console":
        from device.console.tool import main as console
        return console(rest)
    if word == "--version":
        from device import __version__
        print(__version__)
        return 0
    print(USAGE, end="", file=sys.stdout if word in ("help", "-h", "--help") else sys.stderr)
    return 0 if word in ("help", "-h", "--help") else 2


if __name__ == "__main__":
    sys.exit(main())
