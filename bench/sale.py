"""What a sale costs the card and the processor, beside the bare commits and the bare signature that it cannot do without.

The floor of a QR sale is two transactions in an otherwise equal database, without its index, one `fdatasync` of the same bytes
beside each of them, for the second copy, and one ES256 signature over as many bytes as a record has; of a cash sale, one of each.
The transactions carry the rows of such
a sale, encoded before: nobody can keep fewer bytes of it and still say the same after a power cut.  Floor and till take turns in
blocks on the same card.  Bytes are what the process hands to the kernel (`wchar`: write-ahead log and checkpoints), and,
stated beside it, what the kernel counts in dirtied pages of 4 KiB (`write_bytes`), which is more.
"""

from __future__ import annotations

import asyncio
import functools
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bench.append import BareCopy
from bench.till import GOODS, Paced, Till
from bench.turns import in_turns
from device.drivers.display.file import FileDisplay
from device.drivers.signer.file import FileSigner
from device.store_forward.token import signing_input
from device.txn.inputs import Pressed, Scanned
from device.txn.numbers import order_number
from device.txn.show import render

PACED_SALES = 24
GOODS_FEW, FEW_EVERY_S = 2, 0.8             # scanned and paid within one group of rows
GOODS_MANY, MANY_EVERY_S = 12, 1.5
BLOCKS, SALES = 32, 12                      # sales a block
BARE_RECORD_BYTES = 450
COMMITS_MAX = {"qr": 4, "cash": 2}
SIGNATURES_MAX = 2
KB_MAX = 45.0
RATIO_MIN = 0.4
FLAT_SALES, FLAT_ROWS_A_SALE = 100_000, 7
FLAT_MIN = 0.9                              # of the rate of a young journal: below it would be growth, above it noise
FRAMES = 12
FRAME_GROWTH_MAX = 1.1


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("qr", "cash"):
            yield from _paced(folder, kind)
        yield from _throughput(folder)
        yield from _grown(folder)


# At a till's pace --------------------------------------------------------------------------------------------------------

def _paced(folder: Path, kind: str) -> list[dict[str, Any]]:
    few = _per_sale(_fresh(folder, f"few_{kind}"), kind, GOODS_FEW, FEW_EVERY_S)
    many = _per_sale(_fresh(folder, f"many_{kind}"), kind, GOODS_MANY, MANY_EVERY_S)
    name = f"sale.{kind}"
    goals = {"commits": COMMITS_MAX[kind], "signatures": SIGNATURES_MAX, "kb": KB_MAX}
    found = [_most(f"{name}_{what}", few[what], "kB" if what == "kb" else "a sale", goal) for what, goal in goals.items()]
    # Told without a goal: pages of the file system; and a long basket, where every two seconds of scanning are a commit.
    return [*found, _told(f"{name}_dirtied", few["dirtied_kb"], "kB"),
            _told(f"{name}_{GOODS_MANY}_goods_commits", many["commits"], "a sale"),
            _told(f"{name}_{GOODS_MANY}_goods_kb", many["kb"], "kB")]


def _per_sale(folder: Path, kind: str, goods: int, every_s: float) -> dict[str, float]:
    till = Paced(folder)
    commits, signatures, before = till.journal.commits, till.signatures, _io()
    for _ in range(PACED_SALES):
        till.sale(goods, every_s, qr=kind == "qr")
    after = _io()
    spent = {"commits": till.journal.commits - commits, "signatures": till.signatures - signatures,
             "kb": (after["wchar"] - before["wchar"]) / 1000, "dirtied_kb": (after["write_bytes"] - before["write_bytes"]) / 1000}
    till.close()
    return {what: amount / PACED_SALES for what, amount in spent.items()}


def _io() -> dict[str, int]:
    pairs = (line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return {name: int(value) for name, value in pairs}


# Back to back ------------------------------------------------------------------------------------------------------------

class _Bare:
    """The work itself: commits and signatures, and nothing around them."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "bare.db", isolation_level=None)
        for pragma in ("locking_mode = EXCLUSIVE", "auto_vacuum = INCREMENTAL", "journal_mode = WAL", "synchronous = FULL"):
            self._db.execute(f"PRAGMA {pragma}").fetchall()
        self._db.execute("CREATE TABLE journal(n INTEGER PRIMARY KEY, mark INTEGER NOT NULL, facts BLOB NOT NULL)")
        self._copy = BareCopy(folder)
        signer = FileSigner(folder / "bare.pem")
        key = load_pem_private_key((folder / "bare.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key, self._algorithm = key, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        self._record = signing_input(signer.kid, b"x" * BARE_RECORD_BYTES)

    def sale(self, commits: list[list[tuple[bytes]]]) -> None:
        for rows_of_commit in commits:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO journal(mark, facts) VALUES (0, ?)", rows_of_commit)
            self._db.execute("COMMIT")
            self._copy.keep(b"".join(facts for (facts,) in rows_of_commit))
        self._key.sign(self._record, self._algorithm)

    def close(self) -> None:
        self._db.close()
        self._copy.close()


def _throughput(folder: Path) -> Iterator[dict[str, Any]]:
    there = _fresh(folder, "throughput")
    till, bare = Till(there), _Bare(there)
    for kind, sale, count in (("qr", till.qr_sale, 2), ("cash", till.cash_sale, 1)):
        commits = _commits_of(till, sale)
        assert len(commits) == count, "the till syncs more often than its floor"
        ours, floor = in_turns(sale, functools.partial(bare.sale, commits), blocks=BLOCKS, calls=SALES)
        ratio = statistics.median(b / a for a, b in zip(ours, floor, strict=True))
        yield {"name": f"sale.{kind}_rate", "value": round(1 / statistics.median(ours)), "unit": "sales/s",
               "floor": round(1 / statistics.median(floor)), "ratio": round(ratio, 3), "goal": RATIO_MIN,
               "holds": ratio >= RATIO_MIN}
    till.close()
    bare.close()


def _commits_of(till: Till, sale: Callable[[], None]) -> list[list[tuple[bytes]]]:
    """The rows that one sale commits, by commit; the first brings along what waited of the sale before."""
    sale()
    done, commits = till.journal.durable_last, []
    sync = till.journal.sync

    def watched() -> None:
        nonlocal done
        sync()
        commits.append([(facts,) for _, facts in till.journal.rows(done + 1)])
        done = till.journal.durable_last

    till.journal.sync = watched                      # type: ignore[method-assign]
    sale()
    till.journal.sync = sync                         # type: ignore[method-assign]
    return commits


# After the 100,000th sale ------------------------------------------------------------------------------------------------

def _grown(folder: Path) -> Iterator[dict[str, Any]]:
    """The same till on a journal of 100,000 sales and on a young one."""
    young, old = _fresh(folder, "young"), _fresh(folder, "old")
    for there in (young, old):
        till = Till(there)
        for _ in range(100):
            till.qr_sale()
        till.close()
    _age(old / "journal.db", FLAT_SALES)
    shutil.rmtree(old / "second")                    # it tells of the young journal, and would heal the old one back to that
    fresh, aged = Till(young, "b2"), Till(old, "b2")
    assert aged.journal.last > FLAT_SALES * FLAT_ROWS_A_SALE
    for kind in ("qr", "cash"):
        spent, floor = in_turns(getattr(aged, f"{kind}_sale"), getattr(fresh, f"{kind}_sale"), blocks=BLOCKS, calls=SALES)
        ratio = statistics.median(b / a for a, b in zip(spent, floor, strict=True))
        yield {"name": f"sale.{kind}_rate_after_100000", "value": round(1 / statistics.median(spent)), "unit": "sales/s",
               "floor": round(1 / statistics.median(floor)), "ratio": round(ratio, 3), "goal": FLAT_MIN,
               "holds": ratio >= FLAT_MIN}
    yield _frames(folder, fresh, aged)
    fresh.close()
    aged.close()


def _age(path: Path, sales: int) -> None:
    """Give a young journal `sales` more, by copying the rows of one and moving its own behind them.

    Rows are real ones, and the index has an order number for each sale, rising as real ones do.
    """
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    last = db.execute("SELECT max(n) FROM journal").fetchone()[0]
    one = db.execute("SELECT facts FROM journal ORDER BY n DESC LIMIT ?", (FLAT_ROWS_A_SALE,)).fetchall()
    more = sales * FLAT_ROWS_A_SALE
    db.execute("BEGIN")
    kept = db.execute("SELECT n, mark, facts FROM journal ORDER BY n").fetchall()
    refs = db.execute("SELECT ref, n FROM refs").fetchall()
    db.execute("DELETE FROM journal")
    db.execute("DELETE FROM refs")
    db.executemany("INSERT INTO journal VALUES (?, 0, ?)", ((n + 1, one[n % len(one)][0]) for n in range(more)))
    db.executemany("INSERT INTO refs VALUES (?, ?)",
                   ((order_number("000001", "0000", n + 1), (n + 1) * FLAT_ROWS_A_SALE) for n in range(sales)))
    db.executemany("INSERT INTO journal VALUES (?, ?, ?)", ((n + more, mark, facts) for n, mark, facts in kept))
    db.executemany("INSERT INTO refs VALUES (?, ?)", ((ref, n + more) for ref, n in refs))
    db.execute("UPDATE meta SET value = value + ? WHERE key = 'fold_from'", (more,))
    db.execute("COMMIT")
    assert db.execute("SELECT max(n) FROM journal").fetchone()[0] == last + more
    db.close()


def _frames(folder: Path, fresh: Till, aged: Till) -> dict[str, Any]:
    """Scan to frame written, on both."""
    sides = [(till, FileDisplay(str(folder / f"frame{n}"))) for n, till in enumerate((aged, fresh))]

    async def scanned(till: Till, display: FileDisplay) -> float:
        start = time.perf_counter()
        till.tell(Scanned(GOODS[0].item.gtin, GOODS[0]))
        await display.show(render(till.box.books, till.box.desk), till.mono_ms)
        return (time.perf_counter() - start) * 1e3

    async def measure() -> tuple[list[float], list[float]]:
        spent: tuple[list[float], list[float]] = ([], [])
        for block in range(BLOCKS):
            for side in (0, 1) if block % 2 else (1, 0):
                till, display = sides[side]
                spent[side].append(statistics.median([await scanned(till, display) for _ in range(FRAMES)]))
                till.tell(Pressed("CASH"))
        for _, display in sides:
            await display.close()
        return spent

    ours, floor = asyncio.run(measure())
    ratio = statistics.median(a / b for a, b in zip(ours, floor, strict=True))
    return {"name": "sale.scan_to_frame_after_100000", "value": round(statistics.median(ours), 2), "unit": "ms",
            "floor": round(statistics.median(floor), 2), "ratio": round(ratio, 3), "goal": FRAME_GROWTH_MAX,
            "holds": ratio <= FRAME_GROWTH_MAX}


def _fresh(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _most(name: str, value: float, unit: str, goal: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "floor": None, "ratio": None, "goal": goal,
            "holds": value <= goal}


def _told(name: str, value: float, unit: str) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "floor": None, "ratio": None, "goal": None, "holds": True}
