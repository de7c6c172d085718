"""`bundle` and `journal export`: what head office needs of this box, packed and encrypted to the fleet's console key.

Only head office can open it (`tillfleet bundle`), so it may travel on a stick, by mail, or copied off the terminal.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from device.commands.log_ring import masked
from device.console import looking, settings
from device.console.asking import readable, told
from device.console.bundle_lines import bundled
from device.console.place import fleet_key
from device.console.session import Call, Failed
from device.drivers import private_file
from device.errors import Outside
from device.store_forward.token import TokenError, tokens_found
from device.store_forward.tools import exported, opened

PART_BYTES = 8 * 1024                    # of one JWE
KEPT = 3
EXPORT_BYTES_MAX = 3_000_000             # of records in one file: some 5,000, and five minutes on the line


def bundle(c: Call) -> Iterator[str]:
    key = fleet_key(c.place)
    yield from _handed(c, "bundle", packed(told_all(c), key), shown=bool(c.args))


def journal_export(c: Call) -> Iterator[str]:
    """What the cloud has not acknowledged, for a box whose line or card is failing: the same wrapping, about signed records."""
    key = fleet_key(c.place)
    if not c.place.journal.exists():
        raise Failed("JOURNAL", c.t("没有日志账", "there is no journal"))
    number, _, shown = c.args.partition(" ")
    try:
        with tempfile.TemporaryDirectory(prefix="tillbox-") as folder:
            db = opened(readable(c.place, Path(folder)))
            try:
                after = int(number) - 1 if number.isdigit() else int(next(iter(db["cursor"].rows))["upto"])
                tokens, first = _tokens(db, after)
                end = next(iter(db["journal"].rows_where(order_by="n desc", limit=1)), {"mark": 0})["mark"]
            finally:
                db.conn.close()
    except (OSError, sqlite3.Error, TokenError) as why:
        raise Failed("JOURNAL", str(why)) from None
    if not tokens:
        yield c.t("没有要导出的记录", "there is no record to export")
        return
    assert c.visit is not None
    last = first + len(tokens) - 1
    told = {"box": c.place.box, "software": c.place.software, "by": c.visit.who, "tokens": tokens}
    yield c.t(f"{len(tokens)} 条记录，第 {first} 到 {last} 条", f"{len(tokens)} records, {first} to {last}")
    yield from _handed(c, "records", packed(told, key), shown="print" in (number, shown))
    if last < end:
        yield c.t(f"还有 {end - last} 条：journal export {last + 1}", f"{end - last} more: journal export {last + 1}")


def _tokens(db: Any, after: int) -> tuple[list[str], int]:
    """Tokens of the rows that sign a record above `after`, as many as fit into EXPORT_BYTES_MAX; and the number of the first."""
    row = next(iter(db["journal"].rows_where("mark > ?", [after], order_by="n", limit=1)), None)
    if row is None:
        return [], after + 1
    tokens, size = list[str](), 0
    for token in exported(db, row["n"]):
        size += len(token)
        if tokens and size > EXPORT_BYTES_MAX:
            break
        tokens.append(token)
    return tokens, int(row["mark"]) - len(tokens_found(bytes(row["facts"]))) + 1


def _handed(c: Call, name: str, text: str, *, shown: bool) -> Iterator[str]:
    """A file of the console's own, the oldest let go of; on the screen, too, when that is wanted or the card takes nothing."""
    path = c.place.folder / f"{name}-{secrets.token_hex(4)}.txt"
    try:
        private_file.make_folder(c.place.folder)
        private_file.make(path, text.encode())
        for old in sorted(c.place.folder.glob(f"{name}-*.txt"), key=lambda one: one.stat().st_mtime)[:-KEPT]:
            old.unlink()
        yield f"{path}  {len(text)} B  SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
    except OSError as why:
        shown = True
        yield c.t(f"卡上写不下（{why.strerror}），请抄下以下各行：", f"the card takes nothing ({why.strerror}); copy these lines:")
    if shown:
        yield from text.splitlines()


def told_all(c: Call) -> dict[str, Any]:
    """Everything that goes into a bundle; every text masked as a log line is."""
    assert c.visit is not None
    said: dict[str, Any] = {"box": c.place.box, "software": c.place.software, "by": c.visit.who,
                            "faults": [masked(one) for one in c.place.faults]}
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
