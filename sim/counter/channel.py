"""What every payment channel of a counter is: payers in front, an account of the box's behind, books that outlive a stop.

Knows what a counter does with a channel, and what an HTTPS server with rules adds to that.  Refuses to know any channel by name:
those stand in `channels.py`.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import msgspec

from device.drivers.channels.codec_bytes import BillRow
from sim.channels.memory import kept, put_back
from sim.channels.tls import TlsRoom
from sim.counter.files import write

SLOW_S = 6.0                   # how late a slow channel answers
BILLS_LATER_S = 3 * 86_400     # by then every channel has filed today, also one whose day ends at 23:00
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
WALLETS = {"wechat": "WeChat", "alipay": "Alipay", "unionpay": "UnionPay", "ecny": "e-CNY"}
T = TypeVar("T")


class Channel:
    """One channel of the counter in `folder`.

    `name` as in `[channel.NAME]`; `qr` how its QRs begin, "" when it shows none; `wallets` who can scan them; `codes` whose payment
    codes it charges.  `files` is what it has: keys of its own in `keys/`, its memory in `channels/NAME.json`.
    """

    name: ClassVar[str]
    qr: ClassVar[str] = ""
    wallets: ClassVar[tuple[str, ...]] = ()
    codes: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self._folder, self._keys, self._memory = folder, folder / "keys", folder / "channels" / f"{self.name}.json"
        self._written = self._memory.read_bytes() if self._memory.exists() else b""
        self._faults: set[str] = set()

    # What each channel fills in

    def start(self) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Serve no more."""
        raise NotImplementedError

    def held(self) -> bytes:
        """All that it must not forget."""
        raise NotImplementedError

    def section(self) -> dict[str, Any]:
        """Its section of `box.toml`; key files are written."""
        raise NotImplementedError

    def orders(self) -> list[dict[str, Any]]:
        """What it holds, as `GET /channel/orders` tells it."""
        raise NotImplementedError

    def fault(self, kind: str, on: bool) -> None:
        """Switch `channel_slow`, `channel_lying` or `channel_down`."""
        raise NotImplementedError

    def bills(self, since: datetime.date) -> list[BillRow] | None:
        """Every row of its bills from the day `since` on, as they will lie ready some mornings later; None: it files none."""
        return None

    def scanned(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        """A wallet that can read it scans `qr`: `{"ok", "why", "order_no"}`."""
        raise NotImplementedError

    def shown(self, code: str, wallet: str, outcome: str, slow_s: float) -> None:
        """`wallet` shows `code`; `outcome` is what its payer does when this channel charges it."""

    # What all of them do alike

    def stop(self) -> None:
        self.end()
        self.keep()

    def keep(self) -> None:
        """Write what a stop must not take along, when it has changed."""
        held = self.held()
        if held != self._written:
            write(self._memory, held)
            self._written = held

    def scan(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        """As `scanned`; a wallet that can pay no such QR says so."""
        if wallet not in self.wallets:
            takers = " or ".join(WALLETS[each] for each in self.wallets)
            return {"ok": False, "why": f"{WALLETS[wallet]} cannot pay this QR, it is for {takers}", "order_no": ""}
        return self.scanned(qr, wallet, outcome, slow_s)

    def kept_keys(self, shape: type[T], make: Callable[[], T]) -> T:
        """Its keys, made on the folder's first start; worth nothing, and there for the life of the folder."""
        file = self._keys / f"{self.name}.json"
        if not file.exists():
            write(file, msgspec.json.encode(make()))
        return msgspec.json.decode(file.read_bytes(), type=shape)

    def key_file(self, name: str, held: bytes) -> str:
        write(self._keys / name, held)
        return str(self._keys / name)

    def down_changes(self, kind: str, on: bool) -> bool | None:
        """Note a fault; whether the channel goes down (True) or comes back (False) by it, None for neither."""
        was = "channel_down" in self._faults
        (self._faults.add if on else self._faults.discard)(kind)
        now = "channel_down" in self._faults
        return now if now != was else None


class Served(Channel):
    """A channel behind an HTTPS server with rules.  `room` is the authority of this run's HTTPS; `spent` the payers' codes that any
    channel charged, one set for all of them."""

    def __init__(self, folder: Path, now_s: Callable[[], float], room: TlsRoom, spent: set[str]) -> None:
        super().__init__(folder, now_s)
        self.room = room
        self.prepare()
        self.server = self.made(now_s)
        if self._written:
            put_back(self.server, self._written)
        self.share(spent)

    # What each of them fills in

    def prepare(self) -> None:
        """Read its keys, or make them."""
        raise NotImplementedError

    def made(self, now_s: Callable[[], float]) -> Any:
        """Its server with empty books, on that clock."""
        raise NotImplementedError

    def account(self) -> dict[str, Any]:
        """Its section of `box.toml`, but for the address and its roots; key files are written."""
        raise NotImplementedError

    def bill(self, server: Any, day: str) -> Iterable[BillRow]:
        """The rows of the bill of `day`, YYYY-MM-DD, which `server` files, as the box's own reader takes them."""
        raise NotImplementedError

    def share(self, spent: set[str]) -> None:
        """Know of codes charged elsewhere, and let others know of its own."""
        spent |= self.server.rules.spent
        self.server.rules.spent = spent

    def show(self, code: str, wallet: str) -> None:
        """Make a payer's code known."""
        self.server.rules.shown(code)

    # As Channel

    def start(self) -> None:
        self.server.start()

    def end(self) -> None:
        self.server.stop()

    def held(self) -> bytes:
        return kept(self.server)

    def section(self) -> dict[str, Any]:
        return {"base_url": self.server.url, "ca_file": str(self._keys / "ca.pem")} | self.account()

    def orders(self) -> list[dict[str, Any]]:
        return self.server.orders()

    def scanned(self, qr: str, wallet: str, outcome: str, slow_s: float) -> dict[str, Any]:
        return self.server.scan(qr, outcome, slow_s=slow_s)

    def shown(self, code: str, wallet: str, outcome: str, slow_s: float) -> None:
        if wallet in self.codes:
            with self.server._lock:
                self.show(code, wallet)
                self.server.code_outcome(code, outcome, slow_s)

    def fault(self, kind: str, on: bool) -> None:
        down = self.down_changes(kind, on)
        if down is not None:
            self.server.stop() if down else self.server.start()
        self.server.clear()
        if "channel_slow" in self._faults:
            self.server.fault("slow", count=None, seconds=SLOW_S)
        if "channel_lying" in self._faults:
            self.server.fault("lying", count=None)

    def bills(self, since: datetime.date) -> list[BillRow]:
        later = self.made(lambda: self.now_s() + BILLS_LATER_S)      # a copy of its books, on a clock that is ahead
        put_back(later, self.held())
        last = datetime.datetime.fromtimestamp(self.now_s(), BEIJING).date() + datetime.timedelta(days=1)
        days = (since + datetime.timedelta(days=n) for n in range((last - since).days + 1))
        return [row for day in days for row in self.bill(later, day.isoformat())]
