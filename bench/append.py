"""What it costs to keep a signed record for good: journal, second copy and signature, beside the bare calls it cannot do without.

The floor of one record is one commit (WAL, `synchronous=FULL`) of the same bytes in an otherwise equal table, one ES256 signature,
and one `fdatasync` of the same bytes over bytes that are there already.  Both sides take turns in blocks on the same card.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.till import IDENTITY
from bench.turns import in_turns, seconds
from device.drivers.signer.file import FileSigner
from device.recovery.recovering import opened
from device.store_forward.journal import Row
from device.store_forward.second_copy import Stand
from device.store_forward.token import EMPTY_DIGEST, digest

BLOCKS, RECORDS = 40, 15
RATIO_MIN = 0.7
GROUP, GROUPS, GROUPED_MIN = 50, 40, 5_000
PAYLOAD = b'{"v":1,"box":"box-1","jid":"' + b"x" * 420 + b'"}'


class _Bare:
    """The calls themselves."""

    def __init__(self, folder: Path, signer: FileSigner) -> None:
        self._signer = signer
        self._db = sqlite3.connect(folder / "bare.db", isolation_level=None)
        for pragma in ("locking_mode = EXCLUSIVE", "auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._db.execute("CREATE TABLE journal(n INTEGER PRIMARY KEY, mark INTEGER NOT NULL, facts BLOB NOT NULL)")
        self._copy = BareCopy(folder)

    def record(self) -> None:
        token = self._signer.sign(PAYLOAD).encode()
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("INSERT INTO journal(mark, facts) VALUES (0, ?)", (token,))
        self._db.execute("COMMIT")
        self._copy.keep(token)

    def close(self) -> None:
        self._db.close()
        self._copy.close()


class BareCopy:
    """Bytes over bytes that are there already, and one sync: what a second copy costs at least."""

    BYTES = 1024 * 1024

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "bare.copy", os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self._file, bytes(self.BYTES), 0)
        os.fsync(self._file)
        self._at = 0

    def keep(self, data: bytes) -> None:
        if self._at + len(data) > self.BYTES:
            self._at = 0
        os.pwrite(self._file, data, self._at)
        os.fdatasync(self._file)
        self._at += len(data)

    def close(self) -> None:
        os.close(self._file)


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        signer = FileSigner(folder / "record.pem")
        journal, bare = opened(folder / "journal.db", folder / "second", identity=IDENTITY).journal, _Bare(folder, signer)
        seq, head = 0, EMPTY_DIGEST

        def record(sync: bool = True) -> None:
            nonlocal seq, head
            token = signer.sign(PAYLOAD)
            seq, head = seq + 1, digest(token)
            journal.append(Row(token.encode(), seq, (), Stand(head, seq, 1)), sync=sync)

        def group() -> None:
            for n in range(GROUP):
                record(n == GROUP - 1)

        ours, floor = in_turns(record, bare.record, blocks=BLOCKS, calls=RECORDS)
        ratio = statistics.median(b / a for a, b in zip(ours, floor, strict=True))
        yield {"name": "append.record_rate", "value": round(1 / statistics.median(ours)), "unit": "records/s",
               "floor": round(1 / statistics.median(floor)), "ratio": round(ratio, 3), "goal": RATIO_MIN,
               "holds": ratio >= RATIO_MIN}
        rate = GROUP / statistics.median(seconds(group) for _ in range(GROUPS))
        yield {"name": "append.grouped_rate", "value": round(rate), "unit": "records/s", "floor": None, "ratio": None,
               "goal": GROUPED_MIN, "holds": rate >= GROUPED_MIN}
        journal.close()
        bare.close()
