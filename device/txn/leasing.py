"""Another box's sale: its money goes back only under a lease of the cloud, and the cloud always learns what became of it.

A lease stands in the journal from the moment it is taken.  It ends with the refund it was taken for, with the cashier's turning
away, with its time or with a boot; a record says what was begun under it, so nothing stays reserved for ever.  It covers
wallets only: a drawer refuses nothing, and a card goes back at the terminal that took it.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import msgspec

from device.txn import record
from device.txn.books import Books, Line, Sale, Tender
from device.txn.desk import Desk, Verdict, refuse
from device.txn.facts import Fact, LeaseEnded, LeaseTaken, RefundIntended, SaleRecalled
from device.txn.inputs import SaleAnswered
from device.txn.words import say, yuan
from device.types import Account, Stamp, Terms

HOLDING = ("pick", "badge", "pin")        # the questions during which the cashier holds the receipt


class _Line(msgspec.Struct):
    gtin: str
    name: str
    qty_milli: int
    price_fen: int
    amount_fen: int


class _Tender(msgspec.Struct):
    method: str
    amount_fen: int
    order_no: str = ""
    channel_no: str = ""
    account: str = ""
    way: str = "qr"
    wallet: str = ""


class _Body(msgspec.Struct):
    order_no: str
    amount_fen: int
    cashier: str
    lines: list[_Line]
    tenders: list[_Tender]


def foreign(b: Books, no: str) -> bool:
    """True for an order number that this journal never gave out."""
    return no[:10] != b.box_no + b.salt


def ask(b: Books, d: Desk, no: str, at: Stamp) -> Verdict:
    """The receipt of another box was scanned for a refund."""
    if not (d.up and d.collector):
        return refuse("lease_offline")
    if d.asking[1] == no:                             # scanned once more: a second question would find the first one's lease
        return Verdict(words=say("lease_asking", no=no), tone="wait", desk={"typed": ""})
    return Verdict(words=say("lease_asking", no=no), tone="wait",
                   desk={"asking": (f"{b.boot}-{at.mono_ms}", no, at.mono_ms), "typed": ""})


def on_sale_answered(b: Books, d: Desk, e: SaleAnswered, at: Stamp) -> Verdict:
    waited = e.ask_id == d.asking[0] and d.mode == "refund"
    over = {"asking": ("", "", 0)} if e.ask_id == d.asking[0] else {}
    if not waited:                                    # nobody stands there any more: the cloud may have its lease back
        return Verdict([given_back(e.lease, e.order_no)] if e.lease and e.lease not in b.leases else [], desk=over)
    sale = None if e.why else sale_of(e, d.terms)
    if sale is None or not e.lease:
        facts: list[Fact] = [given_back(e.lease, e.order_no)] if e.lease else []
        return Verdict(facts, say("lease_none", no=e.order_no, why=e.why or "its sale cannot be read here"), "bad",
                       refused=True, desk=over | {"mode": ""})
    left = sum(fen for _, fen in e.left_fen)
    facts = [LeaseTaken(e.lease, sale.order_no, d.asking[2] + e.for_ms), SaleRecalled(sale)]
    cash = any(t.method in ("cash", "card") for t in sale.tenders)
    return Verdict(facts, say("lease_pick_cash" if cash else "refund_pick", left=yuan(left)), "wait",
                   desk=over | {"mode": "pick", "pick": sale, "typed": "", "lease": e.lease})


def sale_of(e: SaleAnswered, terms: Terms) -> Sale | None:
    """The sale as this box may give it back; None when it cannot be read, or when its money went to another merchant."""
    try:
        body = msgspec.json.decode(e.body, type=_Body)
        datetime.datetime.fromisoformat(e.at)
    except (msgspec.MsgspecError, ValueError):
        return None
    tenders = [_tender(t, terms) for t in body.tenders]
    left = dict(e.left_fen)
    returned = {t.order_no or t.method: t.amount_fen - left.get(t.order_no, 0) for t in tenders if t.method != "rounding"}
    strange = {t.order_no for t, own in zip(body.tenders, tenders, strict=True) if left.get(t.order_no) and own.account is None}
    if strange or set(left) - {t.order_no for t in tenders} or any(back < 0 for back in returned.values()):
        return None
    lines = [Line(x.gtin, x.name, x.name, x.qty_milli, x.price_fen, x.amount_fen) for x in body.lines]
    return Sale(body.order_no, lines, tenders, body.amount_fen, body.cashier, e.at, refunded_fen=sum(returned.values()),
                parts=e.parts, returned=returned)


def _tender(said: _Tender, terms: Terms) -> Tender:
    account: Account | None = terms.account_of(said.method) if said.order_no else None
    if account is not None and said.account and account.account != said.account:
        account = None
    return Tender(said.method, said.amount_fen, said.order_no, said.channel_no, account, way=said.way, wallet=said.wallet)


def fault(b: Books, d: Desk, sale: Sale, at: Stamp) -> Verdict | None:
    """Why `sale` may not be given back now, when it is another box's; None when it may, or is ours."""
    if not foreign(b, sale.order_no):
        return None
    lease = b.leases.get(d.lease)
    return refuse("lease_over") if lease is None or lease.sale_no != sale.order_no or at.mono_ms >= lease.due_ms else None


def ended(b: Books, d: Desk, verdict: Verdict) -> list[Fact]:
    """The verdict's facts, and the end of every lease whose receipt nobody holds after it."""
    live = {**{lease: held.sale_no for lease, held in b.leases.items()},
            **{f.lease: f.sale_no for f in verdict.facts if isinstance(f, LeaseTaken)}}
    if not live:
        return verdict.facts
    held = verdict.desk.get("lease", d.lease) if verdict.desk.get("mode", d.mode) in HOLDING else ""
    facts = list(verdict.facts)
    for lease, sale_no in live.items():
        if lease != held:
            begun = [f for f in verdict.facts if isinstance(f, RefundIntended) and f.lease == lease]
            facts += [LeaseEnded(lease), given_back(lease, sale_no, begun)]
    return facts


def given_back(lease: str, sale_no: str, begun: Sequence[RefundIntended] = ()) -> Fact:
    """The record that a lease is over; what was begun under it may still fail, and then `failed` says so."""
    return record.due("lease", lease=lease, order_no=sale_no, begun=[
        {"paid_no": f.intent.order_no, "refund_no": f.intent.refund_no, "amount_fen": f.intent.amount_fen} for f in begun])


def failed(lease: str, sale_no: str, refund_no: str, paid_no: str, amount_fen: int) -> Fact:
    """The record that a refund begun under a lease moved nothing."""
    return record.due("lease", lease=lease, order_no=sale_no, failed=[
        {"paid_no": paid_no, "refund_no": refund_no, "amount_fen": amount_fen}])
