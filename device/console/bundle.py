"""`bundle`: what head office needs to see of this box, masked, packed, and encrypted to the fleet's console key.

Only head office can open it (`tillfleet bundle`), so it may travel on a stick, by mail, or copied off the terminal.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from device.commands.log_ring import masked
from device.console import looking, settings
from device.console.asking import told
from device.console.bundle_lines import bundled
from device.console.place import fleet_key
from device.console.session import Call, Failed
from device.drivers import private_file
from device.errors import Outside

PART_BYTES = 8 * 1024                    # of one JWE
KEPT = 3


def bundle(c: Call) -> Iterator[str]:
    key = fleet_key(c.place)
    text = packed(told_all(c), key)
    name = f"bundle-{secrets.token_hex(4)}.txt"
    try:
        private_file.make_folder(c.place.folder)
        private_file.make(c.place.folder / name, text.encode())
        for old in sorted(c.place.folder.glob("bundle-*.txt"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            old.unlink()
        yield f"{c.place.folder / name}  {len(text)} B  SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    except OSError as why:
        yield c.t(f"卡上写不下（{why.strerror}），请抄下以下各行：", f"the card takes nothing ({why.strerror}); copy these lines:")
        yield from text.splitlines()
    if c.args:
        yield from text.splitlines()


def told_all(c: Call) -> dict[str, Any]:
    """Everything that goes into a bundle; every text masked as a log line is."""
    assert c.visit is not None
    said: dict[str, Any] = {"box": c.place.box, "software": c.place.software, "by": c.visit.who, "faults": c.place.faults}
    for name, lines in (("status", looking.status), ("doctor", looking.doctor), ("devices", looking.devices),
                        ("queue", looking.queue), ("config", settings.diff)):
        said[name] = [masked(line) for line in _lines(lines, c)]
    logs = told(c.place, "logs", count=500)
    said["logs"] = logs["lines"] if logs is not None else []
    metrics = told(c.place, "metrics")
    said["metrics"] = metrics["metrics"] if metrics is not None else {}
    return said


def packed(told: dict[str, Any], key: Any) -> str:
    """The lines of `bundle_lines` about it, each with a newline."""
    from cryptography.hazmat.primitives.asymmetric import ec

    from device.mqtt.jwe_wire import IV_BYTES, jwe_encrypted

    raw = zlib.compress(json.dumps(told, ensure_ascii=False).encode(), 9)
    parts = [raw[at:at + PART_BYTES] for at in range(0, len(raw), PART_BYTES)]
    tokens = [jwe_encrypted(part, key, ec.generate_private_key(ec.SECP256R1()), secrets.token_bytes(IV_BYTES)) for part in parts]
    return "".join(f"{line}\n" for line in bundled(hashlib.sha256(raw).hexdigest(), tokens))


def _lines(lines: Callable[[Call], Iterator[str]], c: Call) -> Iterator[str]:
    alone = c.without_args()
    try:
        yield from lines(alone)
    except Failed as why:
        yield f"failed: {why.code} {why.sentence}"
    except Outside as why:
        yield f"failed: {why}"
