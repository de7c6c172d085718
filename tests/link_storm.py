"""`python -m tests.link_storm --kills 100 [--seed N] [--store sqlite|postgresql]`: the link under every fault at once.

Two real boxes (journal, core, forwarder, connection) sell on; two collectors are processes at one store; Mosquitto keeps nothing.
Broker and collectors are killed at random moments, as often as asked each; links are cut and slow; batches come twice and out of
order; PostgreSQL crashes now and then too.  Each box's backlog and its age, the very numbers of its `/state`, are looked at all the
time.  In the end every record of both journals must stand in the store once, in order, with every signature checked.  Prints one
JSON object; exits 1 when anything was lost, doubled, out of order or not seen.

Only patience is shortened, or a hundred kills would take an hour: a box tries again after tenths of a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from bench.link_box import CONFIG
from bench.till import TERMS, Till
from device.config import parse_toml
from device.mqtt.client import Link
from device.real_clock import RealClock
from device.store_forward import forwarder
from device.types import Stamp
from device.uplink import Uplink
from fleet.keys import SigningKey
from fleet.records.checking import check_all
from fleet.records.proof import defects
from fleet.records.store import Store, sums
from sim import leash
from sim.broker import Broker
from sim.counter.line import Line
from sim.postgres import Postgres

ROOT = Path(__file__).resolve().parent.parent
BOXES, COLLECTORS = 2, 2
SALE_EVERY_S = 0.08
LOOK_EVERY_S = 0.05
END_WITHIN_S = 120.0
PATIENCE_MS, PAUSE_MAX_MS = 800, 400


class RoughUplink(Uplink):
    """The box's own uplink, on whose way out batches are doubled and overtake each other."""

    dice = random.Random(0)
    doubled = overtaken = 0

    def _made(self) -> Link:
        link = super()._made()
        link._pause_min_ms, link._pause_max_ms = 50, PAUSE_MAX_MS
        publish, loop = link.publish_up, asyncio.get_running_loop()

        def roughly(payload: bytes) -> bool:
            fate = self.dice.random()
            if fate < 0.10:
                RoughUplink.doubled += publish(payload)
            elif fate < 0.25:
                RoughUplink.overtaken += 1
                loop.call_later(self.dice.uniform(0, 0.3), publish, payload)
                return True
            return publish(payload)
        link.publish_up = roughly  # type: ignore[method-assign]
        return link


class Shop(Till):
    """One box at work behind its own line."""

    def __init__(self, folder: Path, name: str, far_port: int, ack: Path, dice: random.Random) -> None:
        folder.mkdir()
        self.clock = RealClock("b1", quality=lambda: "ntp")
        super().__init__(folder, terms=msgspec.structs.replace(TERMS, box=name))
        self.line = Line(far_port, lambda: dice.uniform(0, 0.08) if dice.random() < 0.2 else 0.0)
        text = CONFIG.format(folder=folder, ack=ack, port=self.line.port, batch_s=0).replace('"box-1"', f'"{name}"')
        self.uplink = RoughUplink(parse_toml(text, which="storm"), self.journal, self.box, self.clock, "b1")
        self.uplink.begin(lambda _: None)
        self.name, self.looks = name, [(0, 0)]

    def _stamp(self) -> Stamp:
        return self.clock.stamp()

    @property
    def jid(self) -> str:
        return self.box.books.chain.jid

    async def sell(self) -> None:
        while True:
            await asyncio.sleep(SALE_EVERY_S)
            self.cash_sale()
            self.uplink.forward()

    def tokens(self) -> list[str]:
        found: list[str] = []
        while more := self.uplink.tokens(len(found), 500):
            found += [token for _, token in more]
        return found


class Cloud:
    """Collectors as processes of their own, at one store."""

    def __init__(self, folder: Path, where: str, port: int) -> None:
        self.folder, self.where, self.port = folder, where, port
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, n: int) -> None:
        with open(self.folder / f"collector-{n}.log", "ab") as log:
            self.running[n] = leash.started(
                [sys.executable, "-m", "fleet", "collect", "--broker", f"127.0.0.1:{self.port}", "--tenant", "bench", "--store",
                 self.where, "--keys", str(self.folder / "keys.jwks"), "--ack-key", str(self.folder / "ack.pem"), "--id", f"c{n}"],
                cwd=ROOT, stdout=log, stderr=log)

    def kill(self, n: int, how: signal.Signals = signal.SIGKILL) -> None:
        process = self.running.pop(n)
        process.send_signal(how)
        process.wait(30)

    def close(self) -> None:
        for n in list(self.running):
            self.kill(n)


def storm(folder: Path, kills: int, seed: int, server: Postgres | None, where: str) -> dict[str, Any]:
    """Play it; what was found, `whole` when nothing is wrong.  `where` the store; `server` is killed too when there is one."""
    dice = random.Random(seed)
    RoughUplink.dice = dice
    RoughUplink.doubled = RoughUplink.overtaken = 0
    patience, forwarder.TIMEOUT_MIN_MS = forwarder.TIMEOUT_MIN_MS, PATIENCE_MS
    try:
        with ExitStack() as stack:
            broker = stack.enter_context(Broker(folder / "broker"))
            key = SigningKey(folder / "ack.pem")
            (folder / "ack.jwk").write_text(json.dumps({**key.jwk, "kid": key.kid}))
            shops = [Shop(folder / f"box-{n}", f"box-{n}", broker.port, folder / "ack.jwk", dice) for n in range(1, BOXES + 1)]
            for shop in shops:
                stack.callback(shop.close)
                stack.callback(shop.line.cut)
            keys = [{**shop.signer.jwk, "box": shop.name} for shop in shops]
            (folder / "keys.jwks").write_text(json.dumps({"keys": keys}))
            cloud = Cloud(folder, where, broker.port)
            stack.callback(cloud.close)
            done = asyncio.run(_played(dice, kills, shops, broker, cloud, server))
            for n in list(cloud.running):
                cloud.kill(n, signal.SIGTERM)
            return {**done, **_found(where, keys, shops)}
    finally:
        forwarder.TIMEOUT_MIN_MS = patience


async def _played(dice: random.Random, kills: int, shops: list[Shop], broker: Broker, cloud: Cloud,
                  server: Postgres | None) -> dict[str, Any]:
    faults = ["broker", "collector"] * kills + ["link"] * max(1, kills // 2) + ["database"] * (max(1, kills // 10) if server else 0)
    dice.shuffle(faults)
    for n in range(COLLECTORS):
        cloud.start(n)
    tasks = [asyncio.create_task(work) for shop in shops for work in (shop.uplink.run(), _looked(shop))]
    sales = [asyncio.create_task(shop.sell()) for shop in shops]
    began_s = time.monotonic()
    try:
        await _until(lambda: all(shop.uplink.forwarder.upto > 0 for shop in shops), tasks + sales, END_WITHIN_S)
        for fault in faults:
            upto = sum(shop.uplink.forwarder.upto for shop in shops)
            await _until(lambda upto=upto: sum(shop.uplink.forwarder.upto for shop in shops) > upto, tasks + sales, 2.0, must=False)
            await asyncio.sleep(dice.uniform(0, 0.2))
            await _struck(fault, dice, shops, broker, cloud, server)
        for task in sales:
            task.cancel()
        for shop in shops:
            shop.journal.sync()
            shop.uplink.forward()
        await _until(lambda: all(shop.uplink.unacked == 0 for shop in shops), tasks, END_WITHIN_S)
        await asyncio.sleep(2 * LOOK_EVERY_S)
    finally:
        for task in (*tasks, *sales):
            task.cancel()
        await asyncio.gather(*tasks, *sales, return_exceptions=True)
    looks = [look for shop in shops for look in shop.looks]
    return {"kills": {name: faults.count(name) for name in sorted(set(faults))}, "seconds": round(time.monotonic() - began_s),
            "doubled_on_the_way": RoughUplink.doubled, "overtaken": RoughUplink.overtaken, "looks": len(looks),
            "queue_max": max(queue for queue, _ in looks), "age_max_s": max(age for _, age in looks),
            "end": [shop.looks[-1] for shop in shops]}


async def _struck(fault: str, dice: random.Random, shops: list[Shop], broker: Broker, cloud: Cloud,
                  server: Postgres | None) -> None:
    if fault == "broker":
        broker.kill()
        await asyncio.sleep(dice.uniform(0, 0.2))
        await asyncio.to_thread(broker.start)
    elif fault == "collector":
        n = dice.choice(sorted(cloud.running))
        cloud.kill(n)
        cloud.start(n)
    elif fault == "link":
        line = dice.choice(shops).line
        line.cut()
        await asyncio.sleep(dice.uniform(0, 0.5))
        line.join()
    else:
        assert server is not None
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(dice.uniform(0, 0.5))
        await asyncio.to_thread(server.start)


async def _looked(shop: Shop) -> None:
    """What `/state` says of the line, all the time."""
    while True:
        shop.looks.append((shop.uplink.unacked, shop.uplink.oldest_s()))
        await asyncio.sleep(LOOK_EVERY_S)


async def _until(holds: Any, tasks: list[asyncio.Task[None]], within_s: float, *, must: bool = True) -> None:
    until_s = time.monotonic() + within_s
    while not holds():
        for task in tasks:
            if task.done():
                task.result()
        if time.monotonic() > until_s:
            assert not must, "nothing moves any more"
            return
        await asyncio.sleep(0.01)


def _found(where: str, keys: list[dict[str, Any]], shops: list[Shop]) -> dict[str, Any]:
    """The store against the journals, record by record."""
    store = Store(where, keys)
    try:
        check_all(store, "2026-09-01T08:00:00+08:00")
        told = [shop.tokens() for shop in shops]
        kept = [store.chain(shop.name, shop.jid) for shop in shops]
        rows = store.database.execute("SELECT count(*) FROM record").fetchone()[0]
        lost = sum(len(set(ours) - set(theirs)) for ours, theirs in zip(told, kept, strict=True))
        named = [d[3] for d in defects(store)] + [q[1] for q in store.quarantined()]
        counted = sums(store)["count"] == sum(shop.box.books.chain.count for shop in shops)
        return {"records": sum(map(len, told)), "lost": lost, "doubled": rows - sum(map(len, kept)), "order": told == kept,
                "named": named, "counted": counted,
                "whole": told == kept and not named and counted and rows == sum(map(len, told))}
    finally:
        store.close()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.link_storm", description=str(__doc__).split("\n\n")[1])
    parser.add_argument("--kills", type=int, default=100, help="of the broker, and as many of collectors (100)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=("sqlite", "postgresql"), default="postgresql")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        server = stack.enter_context(Postgres(durable=True)) if args.store == "postgresql" else None
        where = server.database() if server else f"{folder}/store.db"
        found = storm(Path(folder), args.kills, args.seed, server, where)
    print(json.dumps({"store": args.store, "seed": args.seed, **found}))
    return 0 if found["whole"] and seen(found) else 1


def seen(found: dict[str, Any]) -> bool:
    """Whether the backlog could be seen to grow and to age, and to be gone in the end."""
    often = found["looks"] > BOXES * found["seconds"] / LOOK_EVERY_S / 2
    return often and found["queue_max"] > 0 and all(tuple(end) == (0, 0) for end in found["end"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
