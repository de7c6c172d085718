"""What a shop's day costs on the line, counted at the box's socket: TLS 1.3, certificates, the broker and the collector that ship.

A thousand sales of five goods by wallet, most of them in two rushes, on a clock that jumps; each message really passes the line,
and the clock moves on once it was answered.  Between messages the line is quiet: a keep-alive's bytes are measured, and counted for
each span of silence.  Telemetry is what a box says of itself: hello, birth, and its open orders.  TCP's own headers are not in it.
"""

from __future__ import annotations

import asyncio
import csv
import datetime
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.link_box import CONFIG
from bench.till import EPOCH, QR, Till
from device.config import parse_toml
from device.real_clock import RealClock
from device.txn.inputs import ChannelSaid, Pressed, QrReady, Said, Scanned
from device.types import Found, Item, Stamp
from device.uplink import Uplink
from fleet import line
from fleet.identity.ca import Authority
from fleet.keys import SigningKey
from fleet.records.collector import Collector
from fleet.records.store import Store
from sim.broker import Broker
from sim.tcp_line import TcpLine

SALES, GOODS, DAY_S, KEEPALIVE_S = 1_000, 5, 12 * 3600, 30
RUSHES_S = ((4.0 * 3600, 2_400.0), (9.5 * 3600, 3_600.0))   # middle and spread; two of three customers come in one
STEPS = ((0.0, "asked"), (1.0, "shown"), (9.0, "paid"), (11.0, "grouped"))    # the journal's rows wait two seconds for company
PINGS = 20
MB_MAX = {2: 1.8, 60: 1.0}
PRODUCTS = Path(__file__).parents[1] / "sim" / "data" / "products.csv"


class Day:
    """One box on a jumping clock behind a counted line."""

    def __init__(self, folder: Path, port: int, batch_s: int, goods: list[Found]) -> None:
        self.now_s, self.goods, self.random = 0.0, goods, random.Random(5)
        self.line = TcpLine(port)
        folder.mkdir()
        self.till = _Dated(folder, self)
        text = CONFIG.format(folder=folder, ack=folder.parent / "ca" / "ack.jwk", port=self.line.port, batch_s=batch_s)
        text += "".join(f'{name}_file = "{folder.parent / "b1" / file}"\n'
                        for name, file in (("ca", "ca.pem"), ("cert", "tls.pem"), ("key", "tls.key")))
        self.uplink = Uplink(parse_toml(text, which="bench"), self.till.journal, self.till.box,
                             RealClock("b1", quality=lambda: "ntp", system_s=lambda: EPOCH.timestamp() + self.now_s,
                                       mono_s=lambda: self.now_s), "b1")
        self.uplink.begin(lambda _: None)
        self.pings, self._spoke_s = 0, 0.0

    async def run(self) -> dict[str, float]:
        events = self._events()
        told = asyncio.create_task(self.uplink.run())
        await self._until(lambda: self.uplink.link is not None and self.uplink.link.up and self.uplink.link.collector)
        await self._quiet()
        forwarder, room = self.uplink.forwarder, self.uplink.open
        assert forwarder is not None
        while True:
            waits = [ms / 1000 for ms in (forwarder.next_due_ms(), room.next_due_ms()) if ms is not None]
            if not events and not waits:
                break
            if waits and (not events or min(waits) <= events[-1][0]):
                self.now_s = max(self.now_s, min(waits) + 0.001)
            else:
                self.now_s, what = events.pop()
                getattr(self.till, what)()
            before = self.line.sent
            self.uplink.forward()
            await self._quiet()
            if self.line.sent != before:
                self.pings += int((self.now_s - self._spoke_s) // KEEPALIVE_S)
                self._spoke_s = self.now_s
        self.pings += int((DAY_S - self._spoke_s) // KEEPALIVE_S)
        day = self.line.sent + self.line.received
        a_ping = await self._pinged()
        assert forwarder.upto == self.till.box.books.chain.seq > SALES, "not everything arrived"
        told.cancel()
        await asyncio.gather(told, return_exceptions=True)
        self.till.close()
        self.line.close()
        return {"bytes": day + self.pings * a_ping, "pings": self.pings, "ping_bytes": a_ping, "up": self.line.sent}

    def _events(self) -> list[tuple[float, str]]:
        """When what happens, the last first.  One till serves one customer at a time: a sale begins when the one before is over."""
        wished = []
        for n in range(SALES):
            middle, spread = RUSHES_S[n % 2]
            at_s = self.random.gauss(middle, spread) if n % 3 else self.random.uniform(0, DAY_S)
            wished.append(min(max(at_s, 60.0), DAY_S - 600))
        events, free_s = [], 0.0
        for at_s in sorted(wished):
            at_s = max(at_s, free_s)
            events += [(at_s + more_s, what) for more_s, what in STEPS]
            free_s = events[-1][0] + 0.1
        return events[::-1]

    async def _quiet(self) -> None:
        """Everything under way was answered, in both directions."""
        link, forwarder = self.uplink.link, self.uplink.forwarder
        assert link is not None and forwarder is not None
        await self._until(lambda: not forwarder.outstanding and not link._unconfirmed)
        seen = -1
        while seen != self.line.sent + self.line.received:
            seen = self.line.sent + self.line.received
            await asyncio.sleep(0.002)

    async def _pinged(self) -> float:
        assert self.uplink.link is not None and self.uplink.link._client is not None
        before = self.line.sent + self.line.received
        for _ in range(PINGS):
            self.uplink.link._client._send_pingreq()  # type: ignore[no-untyped-call]
            await asyncio.sleep(0.02)
        return (self.line.sent + self.line.received - before) / PINGS

    async def _until(self, holds: Any) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.001)


class _Dated(Till):
    """A till whose stamps are the day's, and whose sales come in steps."""

    def __init__(self, folder: Path, day: Day) -> None:
        self.day = day
        super().__init__(folder)

    def _stamp(self) -> Stamp:
        wall = (EPOCH + datetime.timedelta(seconds=self.day.now_s)).isoformat(timespec="milliseconds")
        return Stamp(self.boot, int(self.day.now_s * 1000) + 1_000, wall, "ntp")

    def asked(self) -> None:
        for found in self.day.random.sample(self.day.goods, GOODS):
            self.tell(Scanned(found.item.gtin, found))
        self.tell(Pressed("PAY"))
        assert self.box.books.basket.order_no

    def shown(self) -> None:
        self.tell(QrReady(self.box.books.basket.order_no, QR))

    def paid(self) -> None:
        no = self.box.books.basket.order_no
        channel_no = f"4200002026{self.day.random.randrange(10**18):018d}"
        self.tell(ChannelSaid(no, Said.PAID, self.box.books.basket.due_fen, channel_no))

    def grouped(self) -> None:
        self.journal.sync()


def rows() -> Iterator[dict[str, Any]]:
    """Rows `{"name","value","unit","floor","ratio","goal","holds"}`."""
    with PRODUCTS.open(encoding="utf-8", newline="") as file:
        goods = [Found(Item(row["gtin"], row["name_zh"], row["name_en"], int(row["price_fen"]))) for row in csv.DictReader(file)]
    for batch_s, goal in MB_MAX.items():
        with tempfile.TemporaryDirectory() as name:
            said = _day(Path(name), batch_s, goods)
        mb = said["bytes"] / 1e6
        yield {"name": f"link.day_bytes_at_{batch_s}_s", "value": round(mb, 3), "unit": "MB", "floor": None, "ratio": None,
               "goal": goal, "holds": mb <= goal}
        yield {"name": f"link.day_keepalives_at_{batch_s}_s", "value": round(said["pings"] * said["ping_bytes"] / 1e6, 3),
               "unit": "MB", "floor": None, "ratio": None, "goal": None, "holds": True}


def _day(folder: Path, batch_s: int, goods: list[Found]) -> dict[str, float]:
    authority = Authority.made(folder / "ca", "bench")
    authority.broker(["127.0.0.1"])
    authority.client("bench/box-1", folder / "b1", use="box")
    authority.client("bench/_collector/c1", folder / "c1", use="collector")
    key = SigningKey(folder / "ca" / "ack.pem")
    (folder / "ca" / "ack.jwk").write_text(json.dumps(key.jwk))
    with Broker(folder / "broker", authority=authority) as broker:
        day = Day(folder / "day", broker.port, batch_s, goods)
        store = Store(folder / "store.db", [day.till.signer.jwk])
        collector = Collector(store, "127.0.0.1", broker.port, "bench", key, dress=line.dressed(folder / "c1"),
                              share=line.share_of(folder / "c1"))
        collector.start()
        try:
            return asyncio.run(day.run())
        finally:
            collector.stop()
            store.close()
