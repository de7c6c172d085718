"""What the line to the cloud carries: a backlog from one box to committed, acknowledged rows, and beside it what paho does alone.

Three measures in one run, on the same broker: a record a message to PUBACK at paho's best window; bare batches of 50 into SQLite;
the box's own journal through its forwarder to the collector's store, every acknowledgement believed, while it sells.  The collector
is as shipped, its background beside it, and how long that takes until every signature is checked is told too.  Then the memory of a
box with a million records waiting, once it has sent some thousands of them.  `TILLBOX_BENCH_RECORDS` is another backlog than the
100,000.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import link_backlog
from sim.broker import Broker

RECORDS, SINGLES = 100_000, 10_000
PIPED = 25_000                           # the bare pipe is held back by nothing, and the broker drops what it cannot queue: 32 MB
WINDOWS, ROUNDS = (1, 20, 100), 3        # the best window by its median: one round in five is a third faster than the others
WAITING, WAITING_SENT = 1_000_000, 5_000
TOKEN_BYTES = 1_150
SINGLE_MIN, PIPE_MIN, LATENCY_MAX, RSS_MAX_MB = 1.5, 0.4, 1.25, 60
SALE_EVERY_MS, QUIET_S = 100, 4


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(Broker(folder / "broker"))
        yield from _drain(folder, broker.port, int(os.environ.get("TILLBOX_BENCH_RECORDS", RECORDS)))
        yield _memory(folder, broker.port)


def _drain(folder: Path, port: int, records: int) -> Iterator[dict[str, Any]]:
    single = max(statistics.median(SINGLES / _spent(_run("bench.link_floor", "single", port, TOKEN_BYTES, SINGLES, window))
                                   for _ in range(ROUNDS)) for window in WINDOWS)
    pipe = _piped(folder, port)
    jwk = link_backlog.made(folder / "box", records)
    said = drained(folder, port, jwk, records)
    rate = records / _spent(said)
    for name, floor, goal in (("single", single, SINGLE_MIN), ("pipe", pipe, PIPE_MIN)):
        yield {"name": f"link.drain_to_ack_by_{name}", "value": round(rate), "unit": "records/s", "floor": round(floor),
               "ratio": round(rate / floor, 3), "goal": goal, "holds": rate / floor >= goal}
    checked = records / (said["checked_s"] - said["began_s"])
    yield {"name": "link.drain_to_checked", "value": round(checked), "unit": "records/s", "floor": round(rate),
           "ratio": round(checked / rate, 3), "goal": None, "holds": True}
    for name, times in (("sale", "sold"), ("scan_waits", "waited")):
        quiet, sending = (statistics.median(said[times][when]) for when in ("quiet", "sending"))
        bound = LATENCY_MAX if name == "sale" else None
        yield {"name": f"link.{name}_while_draining", "value": round(sending, 2), "unit": "ms", "floor": round(quiet, 2),
               "ratio": round(sending / quiet, 3), "goal": bound, "holds": bound is None or sending / quiet <= bound}


def drained(folder: Path, port: int, jwk: dict[str, Any], upto: int, box: str = "box", sales_ms: float = SALE_EVERY_MS,
            quiet_s: float = QUIET_S) -> dict[str, Any]:
    """What bench.link_box says once `upto` is let go of by a collector of its own; `checked_s`: every signature was checked."""
    store = folder / f"{box}.store.db"
    (folder / "keys.jwks").write_text(json.dumps({"keys": [jwk]}))
    with subprocess.Popen([sys.executable, "-m", "fleet", "collect", "--broker", f"127.0.0.1:{port}", "--tenant", "bench", "--json",
                           "--store", str(store), "--keys", str(folder / "keys.jwks")],
                          stdout=subprocess.PIPE) as collector:
        try:
            assert collector.stdout is not None
            assert json.loads(collector.stdout.readline())["event"] == "started"
            key = json.loads(store.with_name(store.name + ".ack.jwks").read_text())["keys"][0]
            (folder / "ack.jwk").write_text(json.dumps(key))
            said = _run("bench.link_box", folder / box, port, folder / "ack.jwk", upto, sales_ms, quiet_s)
            return {**said, "checked_s": _all_checked(store, upto)}
        finally:
            collector.terminate()


def _all_checked(store: Path, upto: int) -> float:
    with contextlib.closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        while (db.execute("SELECT max(checked) FROM guard").fetchone()[0] or 0) < upto:
            time.sleep(0.02)
    return time.monotonic()


def _piped(folder: Path, port: int) -> float:
    with subprocess.Popen([sys.executable, "-m", "bench.link_floor", "sink", str(port), str(PIPED), str(folder / "bare.db")],
                          stdout=subprocess.PIPE) as sink:
        assert sink.stdout is not None
        sink.stdout.readline()
        began_s = _run("bench.link_floor", "pipe", port, TOKEN_BYTES, PIPED)["began_s"]
        return PIPED / (json.loads(sink.stdout.readline())["ended_s"] - began_s)


def _memory(folder: Path, port: int) -> dict[str, Any]:
    jwk = link_backlog.made(folder / "million", WAITING, signed=2 * WAITING_SENT, around=False)
    said = drained(folder, port, jwk, WAITING_SENT, "million", 0, 0)
    return {"name": "link.rss_with_1000000_waiting", "value": round(said["rss_mb"], 1), "unit": "MB", "floor": None, "ratio": None,
            "goal": RSS_MAX_MB, "holds": said["rss_mb"] <= RSS_MAX_MB}


def _run(module: str, *args: object) -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-m", module, *map(str, args)], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _spent(said: dict[str, Any]) -> float:
    return said["ended_s"] - said["began_s"]

