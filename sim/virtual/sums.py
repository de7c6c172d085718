"""The same money counted in every place: at the channels, in the journal's rows, in the collector's store and on paper.

Every breach has its name.  Refuses to know how it came about: `tillbox timeline` and the seed tell.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from typing import Any, NamedTuple

from device.box import Box
from device.txn import facts as wire
from device.txn.effects import Pair, Print, QrCode, Text
from device.txn.facts import LatePaymentFound, PaymentConfirmed, RefundConfirmed
from device.txn.wants import wants
from sim.virtual.shop import Shop


class Held(NamedTuple):
    """What one place holds of one order: taken, and given back."""

    taken_fen: int = 0
    back_fen: int = 0

    @property
    def fen(self) -> int:
        """What is left.  An undo that moves money is a refund to some channels, and to others no payment."""
        return self.taken_fen - self.back_fen


class Sums:
    """`breaches` are sentences; `broken` the orders that some of them are about."""

    def __init__(self, shop: Shop, at_rest: bool) -> None:
        self.shop, self.breaches, self.broken = shop, list(shop.breaches), set(shop.broken)
        shop.till.journal.sync()
        self.records = [json.loads(payload_of(t)) for t in shop.cloud.store.chain(
            shop.till.terms.box, shop.till.books.chain.jid)]
        self.sales = {r["body"]["order_no"]: r["body"] for r in self.records if r["kind"] == "sale"}
        self.channel = {row["order_no"]: row for channel in shop.channels.values() for row in channel.orders()}
        self.journal = self._journal()
        self.cloud = self._cloud()
        self._money()
        self._paper()
        self._box(at_rest)
        self._late()

    def say(self, what: str, no: str = "") -> None:
        self.breaches.append(what)
        if no:
            self.broken.add(no)

    def fen_by_channel(self) -> dict[str, int]:
        """What each channel holds for the shop in the end."""
        held: Counter[str] = Counter({channel.name: 0 for channel in self.shop.channels.values()})
        for row in self.channel.values():
            held[row["channel"]] += row["captured_fen"] - row["refunded_fen"]
        return dict(held)

    # Places

    def _journal(self) -> dict[str, Held]:
        taken, back = Counter[str](), Counter[str]()
        for _, row in self.shop.till.journal.rows():
            for fact in wire.decode(row).facts:
                match fact:
                    case PaymentConfirmed():
                        taken[fact.order_no] += fact.amount_fen
                    case LatePaymentFound():
                        taken[fact.order_no] += self.shop.attempts[fact.order_no]
                    case RefundConfirmed():
                        back[fact.order_no] += fact.amount_fen
        return {no: Held(taken[no], back[no]) for no in {*taken, *back}}

    def _cloud(self) -> dict[str, Held]:
        taken, back = Counter[str](), Counter[str]()
        for record in self.records:
            body = record["body"]
            match record["kind"]:
                case "sale":
                    for tender in body["tenders"]:
                        if tender["order_no"]:
                            taken[tender["order_no"]] += tender["amount_fen"]
                case "refund" if body["method"] != "cash":
                    back[body["paid_no"]] += body["amount_fen"]
                case "payment_alert" if body["cause"].endswith("_given_back"):
                    taken[body["order_no"]] += body["amount_fen"]
                    back[body["order_no"]] += body["amount_fen"]
        return {no: Held(taken[no], back[no]) for no in {*taken, *back}}

    # Laws

    def _money(self) -> None:
        shop, books = self.shop, self.shop.till.books
        for no in sorted({*self.channel, *self.journal, *self.cloud}):
            row = self.channel.get(no)
            there = Held(row["captured_fen"], row["refunded_fen"]) if row is not None else Held()
            ours, cloud = self.journal.get(no, Held()), self.cloud.get(no, Held())
            if not there.fen == ours.fen == cloud.fen:
                self.say(f"I2 {no}: channel {tuple(there)}, journal {tuple(ours)}, cloud {tuple(cloud)}", no)
            if row is not None and no not in shop.attempts:
                self.say(f"I3 {no}: at the channel, and never intended", no)
            if row is not None and row["captured_fen"] not in (0, row["amount_fen"]):
                self.say(f"I1 {no}: {row['captured_fen']} fen taken of {row['amount_fen']}", no)
            if there.back_fen > there.taken_fen:
                self.say(f"I6 {no}: more given back than taken", no)
        booked = Counter(no for body in self.sales.values() for t in body["tenders"] if (no := t["order_no"]))
        for no, times in booked.items():
            if times > 1:
                self.say(f"I1 {no}: booked {times} times", no)
        journal_fen = books.chain.sales_fen - books.chain.refunds_fen
        if journal_fen != self.cloud_fen:
            self.say(f"I2 journal {journal_fen} fen, cloud {self.cloud_fen} fen")
        if self.channel_fen != books.wallet_fen:
            self.say(f"I2 channels {self.channel_fen} fen, wallets in the journal {books.wallet_fen} fen")

    @property
    def channel_fen(self) -> int:
        return sum(self.fen_by_channel().values())

    @property
    def cloud_fen(self) -> int:
        sign = {"sale": 1, "refund": -1}
        return sum(sign[r["kind"]] * r["body"]["amount_fen"] for r in self.records if r["kind"] in sign)

    def _paper(self) -> None:
        papers = self.shop.till.books.papers.values()
        printed = Counter(_receipt_no(paper) for paper in self.shop.roll.paper if _is_receipt(paper))
        for no, copies in printed.items():
            if copies > 1:
                self.say(f"I19 {no}: {copies} receipts without COPY", no)
            if no not in self.sales:
                self.say(f"I19 {no}: a receipt and no sale", no)
        unsure = {p.ref for p in papers if p.state in ("unsure", "copied")}
        for no in {p.ref for p in papers} & self.sales.keys() - printed.keys() - unsure:
            self.say(f"I20 {no}: no receipt", no)

    def _box(self, at_rest: bool) -> None:
        till = self.shop.till
        wanted = {effect for effect in wants(till.books, till.box.desk) if effect.kind == "repeatable"}
        if till.alive and wanted - set(till.runner._tasks):
            self.say("the box wants what nobody runs")
        if not at_rest:
            left = [f"{no} {o.phase}" for no, o in till.books.orders.items() if o.phase != "closed"]
            self.say(f"I26 not at rest: {left}, {len(till.books.refunds)} refunds, {len(till.books.due)} records")
            self.broken |= {line.split()[0] for line in left}
        if Box.folded(till.journal) != till.books:
            self.say("I25 the journal folds to other books")


    def _late(self) -> None:
        """Exactly those records are marked that waited for a broken signer, and each gap says how many they are."""
        waiting = 0
        for record in self.records:
            if record["kind"] == "signer_gap":
                waiting = record["body"]["count"]
            elif (record["body"].get("late") is True) != (waiting > 0):
                self.say(f"I14 record {record['seq']}: {'no' if waiting else 'a'} mark of a gap, and it stands "
                         f"{'in' if waiting else 'outside of'} one")
            else:
                waiting = max(0, waiting - 1)


def payload_of(token: str) -> bytes:
    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _is_receipt(effect: Print) -> bool:
    """A receipt without COPY."""
    first = effect.paper[0]
    if isinstance(first, Text) and "COPY" in first.text:
        return False
    return any(isinstance(p, Pair) and p.left.startswith("合计") for p in effect.paper)


def _receipt_no(effect: Print) -> str:
    return next(p.text for p in effect.paper if isinstance(p, QrCode))


def at_rest_summary(sums: Sums) -> dict[str, Any]:
    """The figures that both scripts print."""
    shop = sums.shop
    books = shop.till.books
    return {"sales": books.chain.count, "payments": len(shop.attempts), "boots": shop.till.boots,
            "channel_fen": sums.channel_fen, "wallet_fen": books.wallet_fen,
            "journal_fen": books.chain.sales_fen - books.chain.refunds_fen, "cloud_fen": sums.cloud_fen,
            "records": len(sums.records), "papers": len(shop.roll.paper), "virtual_s": shop.clock.ms() // 1000,
            "trace": shop.till.trace}
