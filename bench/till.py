"""A till for benches: the real box, journal and signer in `folder`; customers come by call, and time is handed in.

Knows no measure.  `Till` plays whole sales back to back; `paced` plays them at a till's pace through the real runner, on
a loop whose clock jumps to the next thing due, so that a minute of trade takes no minute.
"""

from __future__ import annotations

import asyncio
import datetime
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from device.drivers.signer.file import FileSigner
from device.recovery.recovering import opened
from device.runner import Runner
from device.txn.effects import Effect, KickDrawer, PlaceOrder, Print, QueryOrder, SignRecord
from device.txn.inputs import (
    ChannelSaid,
    DrawerKicked,
    Input,
    Pressed,
    Printed,
    QrReady,
    Said,
    Scanned,
    Signed,
    Started,
)
from device.txn.show import phase
from device.types import Account, Found, Item, Stamp, Terms

IDENTITY = {"box": "box-1", "mode": "real"}
TERMS = Terms(accounts=(Account("wechat", "wechat:1900000001", (
    ("appid", "wx0000000000000001"), ("mchid", "1900000001"), ("notify_url", "https://shop.example/n"))),))
GOODS = (Found(Item("6902538004045", "脉动青柠味600ml", "Mizone lime 600ml", 500)),
         Found(Item("6901939621608", "可口可乐330ml(听)", "Coca-Cola 330ml can", 250)))
SEED = "MDAwMDAwMDAwMDAwMDAwMA"
EPOCH = datetime.datetime(2026, 9, 1, 8, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=8)))
INPUT_MS = 400               # between two inputs, as the stamps say it
QR = "weixin://wxpay/bizpayurl?pr=p4lpSuKzz"


class Till:
    """Whole sales back to back.  `signatures` counts what was signed; the card is the journal's own business."""

    def __init__(self, folder: Path, boot: str = "b1", terms: Terms = TERMS, seed: str = SEED) -> None:
        self.signer = FileSigner(folder / "record.pem")
        found = opened(folder / "journal.db", folder / "second", identity=IDENTITY)
        self.found, self.journal, self.box = found, found.journal, found.box
        self.boot, self.mono_ms, self.signatures = boot, 0, 0
        self._wall = EPOCH.isoformat(timespec="milliseconds")
        self.tell(Started(boot, "bench", terms, seed, self.signer.kid, **found.started()))

    def tell(self, event: Input) -> None:
        """One input; signer, printer and drawer answer at once."""
        self.mono_ms += INPUT_MS
        _, start, _ = self.box.handle(event, self._stamp())
        for effect in start:
            if isinstance(effect, SignRecord):
                self.signatures += 1
                self.tell(Signed(effect.seq, self.signer.sign(effect.payload)))
            elif isinstance(effect, Print):
                self.tell(Printed(effect.job, 3))
            elif isinstance(effect, KickDrawer):
                self.tell(DrawerKicked(effect.kick))

    def qr_sale(self) -> None:
        """Two goods, PAY, the QR, the wallet's money, the paper and the signed record."""
        self._scan()
        self.tell(Pressed("PAY"))
        no = self.box.books.basket.order_no
        self.tell(QrReady(no, QR))
        self.tell(ChannelSaid(no, Said.PAID, 750, f"42000{self.mono_ms:020d}"))
        assert phase(self.box.books, self.box.desk) == "PAID", "the QR sale was not made"

    def cash_sale(self) -> None:
        """Two goods, exact cash, the drawer, the paper and the signed record."""
        self._scan()
        self.tell(Pressed("CASH"))
        assert phase(self.box.books, self.box.desk) == "PAID", "the cash sale was not made"

    def close(self) -> None:
        self.journal.close()

    def _scan(self) -> None:
        for found in GOODS:
            self.tell(Scanned(found.item.gtin, found))

    def _stamp(self) -> Stamp:
        return Stamp(self.boot, self.mono_ms, self._wall, "ntp")      # to tell the time is the daemon's work


class _Jump(selectors.DefaultSelector):
    """Waits for nothing: time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nobody will ever do anything again"
        self.now_s += max(0.0, timeout)
        return super().select(0)


class _Clock:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def stamp(self) -> Stamp:
        wall = (EPOCH + datetime.timedelta(seconds=self._loop.time())).isoformat(timespec="milliseconds")
        return Stamp("b1", self.now_ms(), wall, "ntp")


class _Part:
    """A driver that takes its time and then says the one thing it always says."""

    at_once = 4

    def __init__(self, answer: Callable[[Any], Awaitable[Input]], *does: type[Effect]) -> None:
        self._answer, self.does = answer, frozenset(does)

    async def inputs(self) -> AsyncIterator[Input]:
        await asyncio.Event().wait()
        nothing: Input
        for nothing in ():
            yield nothing

    async def do(self, effect: Effect) -> Input:
        return await self._answer(effect)

    async def close(self) -> None:
        """Holds nothing."""


class Paced:
    """A till under the real runner.  `sale(goods, every_s, qr=)` serves one customer, then waits for the next one.

    From the last scan to PAY or CASH 0.8 s; the channel's answers 0.3 s; the phone pays 6 s after the QR stands; a paper
    takes 1.2 s.  Ten seconds lie between two customers.
    """

    TO_KEY_S, CHANNEL_S, WALLET_S, PAPER_S, BETWEEN_S = 0.8, 0.3, 6.0, 1.2, 10.0

    def __init__(self, folder: Path) -> None:
        self.signer, self.signatures = FileSigner(folder / "record.pem"), 0
        found = opened(folder / "journal.db", folder / "second", identity=IDENTITY)
        self.journal = found.journal
        self._jump = _Jump()
        self._loop = asyncio.SelectorEventLoop(self._jump)
        self._loop.time = lambda: self._jump.now_s       # type: ignore[method-assign]
        self._pays_at_s = 0.0
        parts: dict[str, Any] = {"signer": _Part(self._sign), "printer": _Part(self._paper, Print, KickDrawer),
                                 "channel:wechat": _Part(self._channel)}
        self.runner = Runner(found.box, parts, _Clock(self._loop))
        self._run = self._loop.create_task(self.runner.run(Started("b1", "bench", TERMS, SEED, self.signer.kid)))
        self._loop.run_until_complete(asyncio.sleep(self.BETWEEN_S))

    def sale(self, goods: int, every_s: float, *, qr: bool) -> None:
        self._loop.run_until_complete(self._sale(goods, every_s, qr))
        box = self.runner.box
        assert phase(box.books, box.desk) == "PAID" and not box.journal.waiting, "the sale was not made"

    def close(self) -> None:
        self._run.cancel()
        self._loop.run_until_complete(asyncio.wait([self._run]))
        self._loop.close()
        self.journal.close()

    async def _sale(self, goods: int, every_s: float, qr: bool) -> None:
        for n in range(goods):
            if n:
                await asyncio.sleep(every_s)
            found = GOODS[n % len(GOODS)]
            self.runner.post(Scanned(found.item.gtin, found))
        await asyncio.sleep(self.TO_KEY_S)
        self.runner.post(Pressed("PAY" if qr else "CASH"))
        await asyncio.sleep(self.CHANNEL_S + self.WALLET_S + 3 if qr else 0)
        await asyncio.sleep(self.BETWEEN_S)

    async def _sign(self, effect: SignRecord) -> Input:
        self.signatures += 1
        return await self.signer.do(effect)

    async def _paper(self, effect: Print | KickDrawer) -> Input:
        await asyncio.sleep(self.PAPER_S if isinstance(effect, Print) else 0.1)
        return Printed(effect.job, 3) if isinstance(effect, Print) else DrawerKicked(effect.kick)

    async def _channel(self, effect: PlaceOrder | QueryOrder) -> Input:
        await asyncio.sleep(self.CHANNEL_S)
        intent, now_s = effect.intent, self._loop.time()
        if isinstance(effect, PlaceOrder):
            self._pays_at_s = now_s + self.WALLET_S
            return QrReady(intent.order_no, QR)
        if now_s < self._pays_at_s:
            return ChannelSaid(intent.order_no, Said.OPEN, intent.amount_fen)
        return ChannelSaid(intent.order_no, Said.PAID, intent.amount_fen, f"42000{int(now_s * 1000):020d}")
