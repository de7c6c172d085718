"""`python -m bench.link_box FOLDER PORT ACK_JWK UPTO SALES_EVERY_MS QUIET_S`: one box at work, a program of its own.

The real journal, box, forwarder and connection on one loop, at the priority that its unit gives it; every so often a cash sale of
two goods, timed from the moment at which its key fell due to the moment at which everything it binds is on the card.  Prints one
JSON object: when the first batch left and the last record was let go of, on the machine's own clock; the sales' times while quiet
and while sending, and how long each waited for its turn; the most memory it took.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.till import Till
from device.config import parse_toml
from device.mqtt import wire
from device.real_clock import RealClock
from device.uplink import Uplink

CONFIG = """
box = "box-1"
box_no = "000001"
tenant = "bench"
state_dir = "{folder}"
run_dir = "{folder}"
ack_key_file = "{ack}"
record_key_file = "{folder}/record.pem"
[display]
kind = "none"
[mqtt]
host = "127.0.0.1"
port = {port}
batch_s = {batch_s}
"""


class Work:
    """One box; `sold` the milliseconds of each sale from when it fell due, `waited` those before it began: by whether records were
    being sent.
    """

    def __init__(self, folder: Path, port: int, ack: str, *, batch_s: int = 2) -> None:
        self.till = Till(folder, "b2")
        clock = RealClock("b2")
        config = parse_toml(CONFIG.format(folder=folder, ack=ack, port=port, batch_s=batch_s), which="bench")
        self.uplink = Uplink(config, self.till.journal, self.till.box, clock, "b2")
        self.uplink.begin(lambda _: None)
        self.sold: dict[str, list[float]] = {"quiet": [], "sending": []}
        self.waited: dict[str, list[float]] = {"quiet": [], "sending": []}
        self.sending = False

    async def customers(self, every_ms: float) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s += every_ms / 1000
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            when = "sending" if self.sending else "quiet"
            self.waited[when].append((loop.time() - due_s) * 1000)
            self.till.cash_sale()
            self.sold[when].append((loop.time() - due_s) * 1000)
            self.uplink.forward()

    async def until(self, holds: Callable[[], bool], pause_s: float = 0.002) -> float:
        while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(pause_s)
        return time.monotonic()


def main(argv: list[str]) -> int:
    folder, port, ack, upto, every_ms, quiet_s = Path(argv[0]), int(argv[1]), argv[2], int(argv[3]), float(argv[4]), float(argv[5])
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with contextlib.suppress(PermissionError):       # root alone may; its row then is of a box without its unit
        os.setpriority(os.PRIO_PROCESS, 0, _unit_nice())
    print(json.dumps(asyncio.run(_drained(Work(folder, port, ack), upto, every_ms, quiet_s))), flush=True)
    return 0


def _unit_nice() -> int:
    unit = (Path(__file__).parents[1] / "systemd" / "tillbox.service").read_text()
    return next(int(line.removeprefix("Nice=")) for line in unit.splitlines() if line.startswith("Nice="))


async def _drained(work: Work, upto: int, every_ms: float, quiet_s: float) -> dict[str, Any]:
    sales = asyncio.create_task(work.customers(every_ms)) if every_ms else None
    await asyncio.sleep(quiet_s)
    line = asyncio.create_task(work.uplink.run())
    forwarder = work.uplink.forwarder
    assert forwarder is not None
    try:
        async with asyncio.timeout(600):
            began_s = await work.until(lambda: forwarder.outstanding > 0)
            work.sending = True
            ended_s = await work.until(lambda: forwarder.upto >= upto)
            work.sending = False
    finally:
        line.cancel()
        if sales is not None:
            sales.cancel()
        await asyncio.gather(line, *([sales] if sales else []), return_exceptions=True)
        work.till.close()
    return {"began_s": began_s, "ended_s": ended_s, "records": upto, "enc": wire.ENCODINGS[-1], "sold": work.sold,
            "waited": work.waited, "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
