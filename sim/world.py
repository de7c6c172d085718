"""The whole system in one process on virtual time: the real box, journal, signing, forwarder and collector store.

One seed decides everything: what customers do, which answers are lost, repeated or late, where the box is killed or
loses its power.  Afterwards money is counted at the channel, in the journal, in the cloud and on paper.

    python -m sim.world --seed 1 --sales 1000 --json
"""

from __future__ import annotations

import argparse
import base64
import datetime
import heapq
import importlib
import itertools
import json
import random
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from device.box import Box
from device.drivers.channels.sim import ChannelSim
from device.drivers.signer_file import FileSigner
from device.mqtt import topics, wire
from device.pace import WATCH_MS, wait_ms
from device.store_forward.es256 import public_verifier
from device.store_forward.forwarder import Forwarder, Refused
from device.store_forward.journal import Journal
from device.txn import facts
from device.txn.books import Phase
from device.txn.effects import Alarm, Effect, KickDrawer, Pair, Print, QrCode, Recall, SignRecord, Text
from device.txn.inputs import (
    DeviceSaid,
    DrawerKicked,
    Input,
    LinkSaid,
    Pressed,
    Printed,
    PrintRefused,
    PrintUnsure,
    Rang,
    Recalled,
    Scanned,
    Signed,
    Started,
)
from device.txn.show import phase
from device.txn.wants import wants
from device.types import Account, Found, Item, Rules, Stamp, Terms
from fleet.collector import AckKey, Clerk
from fleet.store_sqlite import Store
from sim.channels.wechat import WechatRules

EPOCH = datetime.datetime(2026, 9, 1, 8, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=8)))
LAST_PAYER_S = 70             # the slowest wallet pays within a minute
MCHID, APPID = "1900000001", "wx0000000000000001"
GOODS = (Item("6902538004045", "脉动青柠味600ml", "Mizone lime 600ml", 500),
         Item("6901939621608", "可口可乐330ml(听)", "Coca-Cola 330ml can", 250),
         Item("4891028705949", "维他柠檬茶500ml", "Vita lemon tea 500ml", 700))
APPLES = Item("2100001000000", "苹果", "Apples", 1280, "kg")
FAULT_SETS = {"none": {}, "ci": {"lost_answer": .06, "lost_request": .06, "lying": .02, "twice": .05, "kill": .01,
                                 "paper": .01, "link": .15, "late": .1, "kill_paid": .2}}
TERMS = Terms(
    accounts=(Account("wechat", f"wechat:{MCHID}", (("appid", APPID), ("mchid", MCHID), ("notify_url", "https://shop.example/n"))),),
    rules=(("wechat", Rules(dead_after_ms=600_000)),), cash_round_fen=10)


class World:
    """A counter, its channel and its cloud.  `run()` plays `sales` customers and returns the counted summary."""

    def __init__(self, seed: int, sales: int, faults: dict[str, float], folder: Path) -> None:
        self.random = random.Random(seed)
        self.sales, self.faults, self.folder = sales, faults, folder
        self.now_ms, self._order = 0, itertools.count()
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.fired: Counter[str] = Counter()
        self.quiet = False                           # faults have stopped
        self.channel = WechatRules(lambda: self.now_ms + int(EPOCH.timestamp() * 1000), mchid=MCHID, appid=APPID, seed=seed)
        self.driver = ChannelSim(self.channel, fault=self._channel_fault)
        self.signer = FileSigner(str(folder / "record.pem"))
        self.ack_key = AckKey(folder / "ack.pem")
        self.ack_verifiers = {self.ack_key.kid: public_verifier(self.ack_key.jwk)}
        self.store = Store(folder / "cloud.db", [self.signer.jwk])
        self.clerk = Clerk(self.store, "shop", self.ack_key.kid, self.ack_key.sign, self._wall)
        self.paper: list[Print] = []                 # what really reached paper, torn or not
        self.torn: set[int] = set()
        self.kicks: list[int] = []
        self.paper_out = False
        self.boots = 0
        self.box: Box
        self._boot()

    # Time ----------------------------------------------------------------------------------------------------------

    def at(self, delay_ms: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now_ms + int(delay_ms), next(self._order), what))

    def run_until(self, done: Callable[[], bool], limit_ms: int) -> bool:
        """Let things happen until `done`; False when `limit_ms` of virtual time passed first."""
        end_ms = self.now_ms + limit_ms
        while not done():
            if not self._agenda or self._agenda[0][0] > end_ms:
                self.now_ms = end_ms
                return done()
            self.now_ms, _, what = heapq.heappop(self._agenda)
            what()
        return True

    def _wall(self) -> str:
        return (EPOCH + datetime.timedelta(milliseconds=self.now_ms)).isoformat(timespec="milliseconds")

    def _chance(self, name: str) -> bool:
        if self.quiet or self.random.random() >= self.faults.get(name, 0):
            return False
        self.fired[name] += 1
        return True

    # The box and its death ------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        self.boots += 1
        self.boot, self.born_ms = f"b{self.boots}", self.now_ms
        self.running: dict[Effect, tuple[int, int]] = {}      # effect -> (began_ms, tries)
        self.dying = False
        self.journal = Journal(self.folder / "journal.db", connect=self._connect, identity={"box": TERMS.box, "mode": "real"})
        self.box = Box(self.journal)
        self.tell(Started(self.boot, "world", TERMS, base64.urlsafe_b64encode(b"%16d" % 7).rstrip(b"=").decode(), self.signer.kid))
        self.tell(LinkSaid(True, True))
        _, upto, head = self.journal.acked()
        self.forwarder = Forwarder(self.box.books.chain.jid, upto, head, tokens=self._tokens, seed=self.boots)
        self.forwarder.on_link(True, True, self.now_ms)
        self._forward_soon(0, self.boots)

    def kill(self) -> None:
        """SIGKILL or the power cord: rows that were not synced are gone, everything in flight is void."""
        self._db.close()                              # what was not committed dies with the process
        self._boot()

    def _connect(self, path: str) -> sqlite3.Connection:
        self._db = sqlite3.connect(path)
        return self._db

    def _tokens(self, after: int, limit: int) -> list[tuple[int, str]]:
        return self.journal.tokens(after, limit, 64 * 1024, facts.tokens_of)

    def tell(self, event: Input) -> None:
        """One input to the box, and what follows from it."""
        boot = self.boots
        verdict, start, stop = self.box.handle(event, Stamp(self.boot, self.now_ms - self.born_ms, self._wall(), "ntp"))
        for effect in stop:
            self.running.pop(effect, None)
        if self._chance("kill"):
            self.at(0, lambda: self.kill() if boot == self.boots else None)
        for effect in start:
            self._start(effect)

    def _start(self, effect: Effect) -> None:
        if effect.kind != "repeatable":
            self.at(self.random.uniform(50, 900), lambda b=self.boots: self._once(effect, b))
        elif isinstance(effect, Alarm):
            self.running[effect] = (self.now_ms, 0)
            left = effect.at_ms - (self.now_ms - self.born_ms) if effect.boot == self.boot else 0
            self.at(max(0, left), lambda: self._answer(effect, Rang(effect.key)))
        elif effect in self.running:
            self.at(10, lambda: self._ask(effect, self.boots, again=False))
        else:
            self.running[effect] = (self.now_ms, 0)
            self._pace(effect)

    def _pace(self, effect: Effect) -> None:
        if effect not in self.running:
            return
        began, tries = self.running[effect]
        wait = wait_ms(effect, tries, self.now_ms - began, self.now_ms - self.born_ms, TERMS)
        if wait is not None:
            self.at(wait, lambda b=self.boots: self._ask(effect, b))

    def _ask(self, effect: Effect, boot: int, again: bool = True) -> None:
        """A repeatable effect reaches its driver; the answer takes its time, or never comes, or comes twice."""
        if boot != self.boots or effect not in self.running:
            return
        began, tries = self.running[effect]
        self.running[effect] = (began, tries + 1)
        match effect:
            case SignRecord():
                answer: Input = Signed(effect.seq, self.signer.sign(effect.payload))
                delay = 0.0
            case Recall():
                answer, delay = Recalled(effect.order_no, tuple(self.journal.recall(effect.order_no))), 1
            case _:
                answer, delay = self.driver.answer_to(effect), self.random.choice((80, 200, 900, 6_000))
        for copy in range(2 if self._chance("twice") else 1):
            self.at(delay + copy * self.random.uniform(0, 9_000), lambda: boot == self.boots and self.tell(answer))
        if again:
            self.at(delay, lambda: boot == self.boots and self._pace(effect))

    def _answer(self, effect: Effect, answer: Input) -> None:
        if effect in self.running:
            self.running.pop(effect)
            self.tell(answer)

    def _once(self, effect: Effect, boot: int) -> None:
        """The printer's side.  A box that dies meanwhile leaves what was printed on the paper."""
        alive = boot == self.boots
        if isinstance(effect, KickDrawer):
            self.kicks.append(effect.kick)
            return self.tell(DrawerKicked(effect.kick)) if alive else None
        if not alive:                                 # killed between the synced start and the first byte, or after it
            if self.random.random() < .5:
                self.paper.append(effect)
            return None
        if self.paper_out:
            return self.tell(PrintRefused(effect.job, "paper_out", "no paper"))
        self.paper.append(effect)
        if self._chance("paper"):
            self.torn.add(len(self.paper) - 1)
            return self.tell(PrintUnsure(effect.job, "mute after the cut"))
        return self.tell(Printed(effect.job, 2))

    # The line to the cloud ------------------------------------------------------------------------------------------

    def _forward_soon(self, delay_ms: float, boot: int) -> None:
        self.at(delay_ms, lambda: self._forward(boot))

    def _forward(self, boot: int) -> None:
        if boot != self.boots:
            return
        self.journal.sync()
        for batch in self.forwarder.due(self.now_ms):
            if self._chance("link"):
                continue
            payload = wire.batch_encoded(batch, "zlib")
            self.at(self.random.uniform(20, 3_000), lambda p=payload: self._arrive(p))
        self._forward_soon(2_000, boot)

    def _arrive(self, payload: bytes) -> None:
        for _, reply in self.clerk.handle([(topics.of_box("shop", TERMS.box, "up"), payload)]):
            if not self._chance("link"):
                self.at(self.random.uniform(20, 3_000), lambda r=reply, b=self.boots: self._acked(r, b))

    def _acked(self, reply: bytes, boot: int) -> None:
        if boot != self.boots:
            return
        ack = wire.ack_decoded(reply, self.ack_verifiers)
        released = self.forwarder.on_ack(ack, self.now_ms)
        if not isinstance(released, Refused):
            self.journal.ack(ack.jid, released.upto, released.head)
        else:
            assert released.name == "OldAck", released

    def _channel_fault(self, call: str) -> str:
        return next((f for f in ("lost_answer", "lost_request", "lying") if self._chance(f)), "")

    # Customers ------------------------------------------------------------------------------------------------------

    def press(self, *keys: str) -> None:
        for key in keys:
            for one in key if key.isdigit() else [key]:
                self.tell(Pressed(one))

    @property
    def phase(self) -> str:
        return phase(self.box.books, self.box.desk)

    def settle(self, seconds: float) -> None:
        self.run_until(lambda: False, int(seconds * 1000))

    def clear_counter(self) -> None:
        """Whatever stands on the counter goes, so that the next customer starts afresh."""
        for _ in range(40):
            if self.phase == "IDLE" or (self.phase in ("PAID", "REFUNDING") and not self.box.books.basket.lines):
                self.press("CLEAR")
                return
            self.press("CLEAR")
            if self.box.books.basket.order_no:
                self.press("CANCEL")
                self.settle(6)
                if self.phase == "CANCELLING":
                    self.press("PARK", "CANCEL")
            elif self.box.books.basket.lines:
                self.press("CANCEL")
        raise AssertionError(f"the counter never came free: {self.phase}")

    def scan_goods(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            item = self.random.choice(GOODS)
            self.tell(Scanned(item.gtin, Found(item)))
        if self.random.random() < .2:
            self.tell(Scanned(APPLES.gtin, Found(APPLES, self.random.randint(50, 3_000))))

    def wallet(self, after_s: float) -> None:
        """A phone scans what stands on the screen, if a QR does, and pays `after_s` later; the cord may go in that moment."""
        order = self.box.books.orders.get(self.box.books.basket.order_no)
        if order is not None and order.qr:
            qr = order.qr
            self.at(after_s * 1000, lambda: self._paid(qr))

    def _paid(self, qr: str) -> None:
        said = self.channel.scan(qr, "pay", openid=f"o{self.random.random()}")
        if said["ok"] and self._chance("kill_paid"):
            self.kill()
        if said["why"] == "the order is closed" and self._chance("late"):
            self.channel.pay_after_close(said["order_no"])

    def customer(self) -> None:
        kind = self.random.choice(("qr", "qr", "qr", "cash", "cash", "cancel", "race", "abandon", "replace", "park_given",
                                   "park_kept", "hold", "refund", "split"))
        self.fired[f"customer_{kind}"] += 1
        self.scan_goods()
        if not self.box.books.basket.lines:
            return                                    # the cord was pulled in the middle of it
        if kind == "cash":
            self.press(str(self.box.books.basket.total_fen + 1_000), "CASH")
            return self.settle(4)
        if kind == "hold":
            self.press("HOLD")
            self.settle(self.random.uniform(1, 10))
            if self.box.books.held and not self.box.books.basket.lines:
                self.press(str(min(self.box.books.held)), "HOLD")
                self.press("CASH")
            return None
        if kind == "split":
            self.press("100", "CASH")
        self.press("PAY")
        self.run_until(lambda: self.phase != "PLACING", 20_000)
        if kind in ("qr", "refund", "split"):
            self.wallet(self.random.uniform(.1, 6))
        elif kind == "race":
            self.wallet(self.random.uniform(0, .4))
            self.press("CANCEL")
        elif kind == "cancel":
            self.settle(self.random.uniform(1, 20))
            self.press("CANCEL")
        elif kind in ("park_given", "park_kept"):
            self.wallet(self.random.uniform(0, 60))
            self.press("PARK", "ENTER" if kind == "park_given" else "CANCEL")
        elif kind == "replace":
            self.wallet(self.random.uniform(0, 5))
            self.press("CASH")
        self.run_until(lambda: self.phase in ("PAID", "IDLE", "BASKET"), 40_000)
        order = self.box.books.orders.get(self.box.books.basket.order_no)
        if order is not None and order.phase is Phase.ASKING:
            self.press(self.random.choice(("ENTER", "CANCEL")))
        if kind == "refund" and self.phase == "PAID":
            no = next(reversed(self.box.books.sales))
            self.press("REFUND")
            self.tell(Scanned(no))
            self.press(*(("100",) if self.random.random() < .5 else ()), "ENTER")
            self.settle(5)
        return None

    def run(self) -> dict[str, object]:
        for _ in range(self.sales * 4):               # some customers buy nothing
            if self.box.books.chain.count >= self.sales:
                break
            if self._chance("paper"):
                self.paper_out = True
                self.at(60_000, self._new_roll)
            self.customer()
            self.settle(self.random.uniform(1, 15))
            self.clear_counter()
            if self.random.random() < .01:
                self.press("Z")
        self.quiet = True
        if self.paper_out:
            self._new_roll()
        self.clear_counter()
        self.settle(LAST_PAYER_S + WATCH_MS / 1000)  # who pays late is heard of at the next look at the closed order
        done = self.run_until(self._at_rest, 2 * 3_600_000)
        return self.count(done)

    def _new_roll(self) -> None:
        self.paper_out = False
        self.tell(DeviceSaid("printer", "ok"))

    def _at_rest(self) -> bool:
        b = self.box.books
        waits = b.due or b.refunds or any(p.state in ("due", "started") for p in b.papers.values()) or \
            any(o.phase is not Phase.CLOSED for o in b.orders.values())
        return not waits and self.forwarder.upto == b.chain.seq

    # Counting -------------------------------------------------------------------------------------------------------

    def count(self, at_rest: bool) -> dict[str, object]:
        """The same money in four places, and every breach by name."""
        b, breaches = self.box.books, []
        held = {o["order_no"]: (o["captured_fen"], o["refunded_fen"]) for o in self.channel.orders()}
        taken, back = Counter(), Counter()
        records = [json.loads(_payload(t)) for t in self.store.chain(TERMS.box, b.chain.jid)]
        cloud_fen = 0
        for r in records:
            if r["kind"] == "sale":
                cloud_fen += r["body"]["amount_fen"]
                for tender in r["body"]["tenders"]:
                    if tender["order_no"]:
                        taken[tender["order_no"]] += tender["amount_fen"]
            elif r["kind"] == "refund":
                cloud_fen -= r["body"]["amount_fen"]
        sales = {r["body"]["order_no"]: r["body"] for r in records if r["kind"] == "sale"}
        for r in records:
            if r["kind"] == "refund" and r["body"]["method"] != "cash":
                tenders = sales[r["body"]["order_no"]]["tenders"]
                back[next(t["order_no"] for t in tenders if t["order_no"])] += r["body"]["amount_fen"]
            elif r["kind"] == "payment_alert" and r["body"]["cause"].endswith("_given_back"):
                taken[r["body"]["order_no"]] += r["body"]["amount_fen"]
                back[r["body"]["order_no"]] += r["body"]["amount_fen"]
        for no, (captured, refunded) in held.items():
            if (captured, refunded) != (taken[no], back[no]):
                breaches.append(f"I2 {no}: channel {captured}-{refunded}, cloud {taken[no]}-{back[no]}")
        breaches += [f"I1 {no}: booked and never taken" for no in taken if no not in held]
        once = Counter(no for r in records if r["kind"] == "sale" for t in r["body"]["tenders"] if (no := t["order_no"]))
        breaches += [f"I1 {no}: booked {n} times" for no, n in once.items() if n > 1]
        printed = Counter(_receipt_no(p) for i, p in enumerate(self.paper) if _kind(p) == "sale")
        breaches += [f"I19 {no}: {n} receipts without COPY" for no, n in printed.items() if n > 1]
        breaches += [f"I19 {no}: a receipt and no sale" for no in printed if no not in sales]
        unsure = {p.ref for p in b.papers.values() if p.state in ("unsure", "copied")}
        missing = [no for no in sales if no not in printed and no not in unsure and no in {p.ref for p in b.papers.values()}]
        breaches += [f"I20 {no}: no receipt" for no in missing]
        if wants(b, self.box.desk) - set(self.running) - {e for e in wants(b, self.box.desk) if e.kind != "repeatable"}:
            breaches.append("the box wants what nobody runs")
        if not at_rest:
            breaches.append(f"I26 not at rest: {[o.phase for o in b.orders.values()]} refunds {len(b.refunds)} due {len(b.due)}")
        channel_fen = sum(c - r for c, r in held.values())
        journal_fen = b.chain.sales_fen - b.chain.refunds_fen
        if journal_fen != cloud_fen:
            breaches.append(f"I2 journal {journal_fen}, cloud {cloud_fen}")
        if channel_fen != b.wallet_fen:
            breaches.append(f"I2 channel {channel_fen}, wallets in the journal {b.wallet_fen}")
        self.journal.sync()
        refold = Box.folded(self.journal)
        if refold != b:
            breaches.append("I25 the journal folds to other books")
        return {"sales": b.chain.count, "boots": self.boots, "channel_fen": channel_fen, "wallet_fen": b.wallet_fen,
                "journal_fen": journal_fen, "cloud_fen": cloud_fen, "records": len(records), "papers": len(self.paper),
                "virtual_s": self.now_ms // 1000, "fired": dict(sorted(self.fired.items())), "breaches": breaches,
                "agree": not breaches}


def _payload(token: str) -> bytes:
    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _kind(effect: Print) -> str:
    """`sale` for a receipt without COPY, else anything else."""
    first = effect.paper[0]
    if isinstance(first, Text) and "COPY" in first.text:
        return "copy"
    total = any(isinstance(p, Pair) and p.left.startswith("合计") for p in effect.paper)
    return "sale" if total else "other"


def _receipt_no(effect: Print) -> str:
    return next(p.text for p in effect.paper if isinstance(p, QrCode))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.world", description="The whole system on virtual time, from one seed.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sales", type=int, default=1_000)
    parser.add_argument("--faults", choices=sorted(FAULT_SETS), default="ci")
    parser.add_argument("--plant", metavar="NAME", help="break the box on purpose, by tests/planted/NAME.py: must exit 1")
    parser.add_argument("--json", action="store_true", help="one object a line, the summary last")
    args = parser.parse_args(argv)
    if args.plant:
        importlib.import_module(f"tests.planted.{args.plant}").plant(setattr)
    began = time.monotonic()
    root = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=root) as folder:
        summary = World(args.seed, args.sales, FAULT_SETS[args.faults], Path(folder)).run()
    summary = {"seed": args.seed, **summary}
    if args.json:
        print(json.dumps(summary, ensure_ascii=False))
    else:
        print("\n".join(f"{name:14} {value}" for name, value in summary.items()))
        print(f"{args.sales / (time.monotonic() - began):.0f} customers a second")
    return 0 if summary["agree"] else 1


if __name__ == "__main__":
    sys.exit(main())
