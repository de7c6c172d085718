"""`tillbox slot`: the process that alone may write the other slot and the boot state, at the end of a local socket.

Knows frames, bounds and where things lie in the image; refuses to know the line: it has no network, and whoever speaks to it is
believed nothing (`slots.py` looks at everything again).  Started by its socket, ends when nobody asks.

A frame is a line of JSON, at most LINE_MAX: {"verb", "n", "why", "bytes"}, then so many bytes.  The answer is a line of JSON:
{"ok": true, ...} or {"ok": false, "name", "error"}.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import msgspec

from device.mqtt import update_wire as wire
from device.trusted import verifiers
from device.update.card import Devices
from device.update.slots import Refused, Release, Slots

log = logging.getLogger("tillbox.slot")

SOCKET = "/run/tillbox-slot/slot.sock"
MAPPER, RUNNING, IMAGE = Path("/dev/mapper"), Path("/run/till/slot"), Path("/usr/lib/tillbox")
LINE_MAX = 4 * 1024
BODY_MAX = {"begin": wire.MANIFEST_MAX_BYTES, "index": wire.INDEX_MAX_BYTES, "base": wire.INDEX_MAX_BYTES,
            "piece": wire.PIECE_MAX_BYTES}
CALLER_S = 300.0                         # a caller that says nothing for so long has hung up
ALONE_S = 20.0                           # without a caller


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    verb: Annotated[str, msgspec.Meta(max_length=16)]
    n: Annotated[int, msgspec.Meta(ge=0, le=wire.INDEX_MAX_BYTES)] = 0
    why: Annotated[str, msgspec.Meta(max_length=300)] = ""
    bytes: Annotated[int, msgspec.Meta(ge=0, le=wire.INDEX_MAX_BYTES)] = 0


def answered(slots: Slots, ask: Ask, body: bytes) -> dict[str, Any]:
    """One verb done.  Refused for what is not."""
    verbs: dict[str, Callable[[], dict[str, Any]]] = {
        "told": slots.told, "begin": lambda: slots.begin(body), "index": lambda: slots.index(body),
        "base": lambda: slots.base(body), "copy": slots.copy, "piece": lambda: slots.piece(ask.n, body), "sync": slots.sync,
        "check": slots.check, "arm": slots.arm, "stop": slots.stop, "good": slots.good, "back": lambda: slots.back(ask.why),
        "swap": slots.swap}
    if ask.verb not in verbs:
        raise Refused("verb", f"the verb is one of {', '.join(verbs)}")
    return verbs[ask.verb]()


def served(slots: Slots, line: BinaryIO) -> bytes | None:
    """Take one frame from `line`; the answer, None when the caller hung up.  ValueError for a frame that is none."""
    head = line.readline(LINE_MAX + 1)
    if not head:
        return None
    if not head.endswith(b"\n"):
        raise ValueError("the line is too long, or cut")
    try:
        ask = msgspec.json.decode(head, type=Ask, strict=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"the line cannot be read: {why}") from None
    if ask.bytes > BODY_MAX.get(ask.verb, 0):
        raise ValueError(f"{ask.verb} takes at most {BODY_MAX.get(ask.verb, 0)} bytes")
    body = line.read(ask.bytes)
    if len(body) < ask.bytes:
        return None
    try:
        said: dict[str, Any] = {"ok": True, **answered(slots, ask, body)}
    except Refused as why:
        said = {"ok": False, "name": why.name, "error": why.sentence}
    except OSError as why:
        log.error("the card failed: %s", why)
        said = {"ok": False, "name": "card", "error": f"the card failed: {why.strerror}"}
    return msgspec.json.encode(said) + b"\n"


def serve(slots: Slots, door: socket.socket, *, alone_s: float = ALONE_S) -> None:
    """One caller after the other, until nobody comes for `alone_s`."""
    door.settimeout(alone_s)
    while True:
        try:
            caller, _ = door.accept()
        except TimeoutError:
            return
        with caller, caller.makefile("rb") as line:
            caller.settimeout(CALLER_S)
            try:
                while (said := served(slots, line)) is not None:
                    caller.sendall(said)
            except (ValueError, OSError) as why:
                log.warning("a caller was sent away: %s", why)


def opened(root: Path | None, boot: str, folder: Path) -> Slots:
    """The slots of this machine; `root` a folder with all of it as files, for tests."""
    image, mapper, running = (root, root, root / "slot") if root is not None else (IMAGE, MAPPER, RUNNING)
    release = _release(image / "release.json")
    names = {name: mapper / f"till-{name}" for name in ("this", "other", "state")}
    return Slots(Devices(names, folder), running.read_text().strip(), boot, release,
                 verifiers(str(image / "update.jwks"), "updates", "update"))


def _release(path: Path) -> Release:
    """What the image says of itself.  One that says nothing proves its starts, and takes a release for no board."""
    try:
        told = json.loads(path.read_text())
        return Release(str(told["version"]), int(told["ratchet"]), str(told["board"]))
    except (OSError, ValueError, KeyError, TypeError) as why:
        log.error("the image does not say what it is, so that nothing follows on it: %s", why)
        return Release("0", 0, "")


def main(argv: list[str]) -> int:
    """`tillbox slot serve [--boot ID] [--root FOLDER]`."""
    import argparse

    parser = argparse.ArgumentParser(prog="tillbox slot")
    parser.add_argument("what", choices=("serve", "trial-over", "show"))
    parser.add_argument("--boot", default="")
    parser.add_argument("--alone", type=float, default=ALONE_S, metavar="S")
    parser.add_argument("--root", type=Path, default=None)
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(message)s")
    if args.what != "serve":
        from device.update.slot_line import shown, trial_over
        place = str(args.root / "slot.sock") if args.root is not None else SOCKET
        return trial_over(place) if args.what == "trial-over" else shown(place)
    folder = Path(os.environ.get("STATE_DIRECTORY", "") or args.root or "/var/lib/tillbox-slot")
    try:
        slots = opened(args.root, args.boot, folder)
    except (OSError, ValueError, KeyError, AssertionError) as why:
        print(f"tillbox slot: this machine has no slots: {why}", file=sys.stderr)
        return 1
    if os.environ.get("LISTEN_FDS") == "1":
        door = socket.socket(fileno=3)
    else:
        door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place = args.root / "slot.sock"
        place.unlink(missing_ok=True)
        door.bind(os.path.relpath(place))
        door.listen(4)
    serve(slots, door, alone_s=args.alone)
    return 0
