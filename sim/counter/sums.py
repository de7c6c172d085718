"""Five tellings of the same money: channel, bill, journal, cloud and paper.  Knows arithmetic and what the papers say.

All amounts are fen over the whole life of a state folder.

    channel_fen   captured less refunded at the payment channels: wallet and card money only
    bills_fen     the same from the channels' own bills, as the box's readers take them; of channels that file none, channel_fen
    journal_fen   sales less refunds as the box's signed running totals say them, cash included
    cloud_fen     the same from the records that the collector has committed, each added by itself
    paper_fen     the same from what stands on paper: totals of receipts less refund slips; a COPY counts only where its
                  original never came out whole
    wallet_fen    of journal and cloud: tenders by wallet less refunds to wallets, to set against channel_fen
    cash_fen      what is left: journal_fen less channel_fen when all agree
    by_channel    {"channel_fen", "cloud_fen", "bill_fen"} of each channel; bill_fen None where it files none
    bill_differences  payments of which bill and cloud tell different sums, one by one
"""

from __future__ import annotations

import base64
import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from device.drivers.channels.codec_bytes import BillRow

UNDECIDED = frozenset({"placing", "awaiting", "cancelling", "asking", "returning"})
BILL_DAYS_MAX = 80
NOT_WALLETS = frozenset({"cash", "rounding"})


Bills = Mapping[str, Sequence[BillRow] | None]
"""Every row of every bill, by channel; None for one that files none."""


def summary(state: Mapping[str, Any], journal: Mapping[str, int], tokens: Sequence[str], verified: bool,
            orders: Sequence[Mapping[str, Any]], papers: Iterable[str], bills: Bills = MappingProxyType({})) -> dict[str, Any]:
    """A day's last line: `{"sales", "channel_fen", "journal_fen", "cloud_fen", "paper_fen", "undecided", "agree"}`.

    `agree`: journal, cloud and paper are equal, the channels are equal to the wallet money of both books, each channel's orders
    and bill are equal to what the cloud has of it, payment by payment, the cloud has every record of the journal with a good
    signature, and nothing is undecided.  More keys follow, as above.
    """
    cloud, channel = cloud_sums(tokens), channel_fen(orders)
    journal_fen = journal["sales_fen"] - journal["refunds_fen"]
    paper = paper_fen(papers)
    open_now = undecided(state)
    agree = (journal_fen == cloud["net_fen"] == paper and channel == journal["wallet_fen"] == cloud["wallet_fen"]
             and journal["count"] == cloud["count"] and verified and open_now == 0)
    paid, back = paid_by_channel(tokens), back_of(tokens)
    channels = {name: {"channel_fen": channel_fen(order for order in orders if order["channel"] == name),
                       "cloud_fen": sum(paid.get(name, {}).values()), "bill_fen": None if rows is None else bill_fen(rows)}
                for name, rows in bills.items()}
    differ = sum(len(bill_differences(rows, paid.get(name, {}), back)) for name, rows in bills.items() if rows is not None)
    agree &= differ == 0 and all(told["channel_fen"] == told["cloud_fen"] and told["bill_fen"] in (None, told["cloud_fen"])
                                 for told in channels.values())
    return {"sales": cloud["sales"], "channel_fen": channel, "journal_fen": journal_fen, "cloud_fen": cloud["net_fen"],
            "paper_fen": paper, "undecided": open_now, "agree": agree, "cash_fen": journal_fen - journal["wallet_fen"],
            "wallet_fen": journal["wallet_fen"], "refunds": cloud["refunds"], "verified": verified,
            "bills_fen": sum(told["channel_fen"] if told["bill_fen"] is None else told["bill_fen"] for told in channels.values()),
            "bill_differences": differ, "by_channel": channels}


def undecided(state: Mapping[str, Any]) -> int:
    """Payments and refunds whose end is not known yet."""
    return sum(order["phase"] in UNDECIDED for order in state.get("orders", ())) + len(state.get("refunds", ()))


def channel_fen(orders: Iterable[Mapping[str, Any]]) -> int:
    return sum(order["captured_fen"] - order["refunded_fen"] for order in orders)


def payload_of(token: str) -> dict[str, Any]:
    """What a compact token carries, unchecked.  ValueError when it is none."""
    parts = token.split(".")
    if len(parts) != 3:
        raise ValueError("a token has three parts")
    return json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))


def cloud_sums(tokens: Iterable[str]) -> dict[str, int]:
    """`{"sales", "refunds", "count", "sales_fen", "refunds_fen", "net_fen", "wallet_fen"}` of committed records."""
    sums = dict.fromkeys(("sales", "refunds", "count", "sales_fen", "refunds_fen", "net_fen", "wallet_fen"), 0)
    for token in tokens:
        record = payload_of(token)
        body = record["body"]
        if record["kind"] == "sale":
            sums["sales"] += 1
            sums["sales_fen"] += body["amount_fen"]
            sums["wallet_fen"] += sum(t["amount_fen"] for t in body["tenders"] if t["method"] not in NOT_WALLETS)
        elif record["kind"] == "refund":
            sums["refunds"] += 1
            sums["refunds_fen"] += body["amount_fen"]
            sums["wallet_fen"] -= body["amount_fen"] if body["method"] not in NOT_WALLETS else 0
    return sums | {"net_fen": sums["sales_fen"] - sums["refunds_fen"], "count": sums["sales"] + sums["refunds"]}


def paid_by_channel(tokens: Iterable[str]) -> dict[str, dict[str, int]]:
    """What the cloud's records say was paid and not given back: by channel, by the payment's own number."""
    paid: dict[str, dict[str, int]] = {}
    for token in tokens:
        record = payload_of(token)
        body = record["body"]
        if record["kind"] == "sale":
            told = [(t["method"], t.get("order_no", ""), t["amount_fen"]) for t in body["tenders"]]
        elif record["kind"] == "refund":
            told = [(body["method"], body.get("paid_no", body.get("order_no", "")), -body["amount_fen"])]
        else:
            continue
        for method, number, fen in told:
            if method not in NOT_WALLETS:
                of = paid.setdefault(method, {})
                of[number] = of.get(number, 0) + fen
    return paid


def back_of(tokens: Iterable[str]) -> dict[str, str]:
    """The payment's number by the refund's, for bills whose refunds name their own number only."""
    bodies = [record["body"] for record in map(payload_of, tokens) if record["kind"] == "refund"]
    return {body["refund_no"]: body.get("paid_no", body["order_no"]) for body in bodies if body.get("refund_no")}


def first_day(tokens: Sequence[str], today: datetime.date) -> datetime.date:
    """The day before the oldest record's, at most as long ago as channels file bills: the first whose bill may name a payment."""
    first = datetime.datetime.fromisoformat(payload_of(tokens[0])["at"]).date() if tokens else today
    return max(min(first, today), today - datetime.timedelta(days=BILL_DAYS_MAX)) - datetime.timedelta(days=1)


def bill_fen(rows: Iterable[BillRow]) -> int:
    return sum(row.amount_fen if row.kind == "paid" else -row.amount_fen for row in rows)


def bill_differences(rows: Iterable[BillRow], paid: Mapping[str, int], back: Mapping[str, str]) -> list[str]:
    """Numbers of payments of which the bill says another sum than `paid`; one that either does not name counts as nothing."""
    billed: dict[str, int] = {}
    for row in rows:
        number = row.order_no or back.get(row.refund_no, row.refund_no)
        billed[number] = billed.get(number, 0) + (row.amount_fen if row.kind == "paid" else -row.amount_fen)
    return sorted(number for number in billed.keys() | paid.keys() if billed.get(number, 0) != paid.get(number, 0))


_TOTAL = re.compile(r"合计 ?/ ?Total\s+[¥￥](\d+)\.(\d\d)")
_REFUND = re.compile(r"退款 ?/ ?Refund\s+[¥￥](\d+)\.(\d\d)")
_ORDER_NO = re.compile(r"单号 ?/ ?No\.\s*([0-9A-HJKMNP-TV-Z]{20})")
_REFUND_NO = re.compile(r"退款号 ?/ ?Refund no\.\s*([0-9A-HJKMNP-TV-Z]{20})")


def is_copy(paper: str) -> bool:
    """Whether the banner of a copy stands on it."""
    return re.search(r"\bCOPY\b", paper) is not None


def order_no_of(paper: str) -> str:
    """The order a paper belongs to, "" when it names none."""
    found = _ORDER_NO.search(paper)
    return found[1] if found else ""


def paper_fen(papers: Iterable[str]) -> int:
    """Net takings as the papers tell them; training papers count nothing."""
    originals, copies = 0, {}
    seen: set[str] = set()
    for paper in papers:
        told = _told(paper)
        if told is None:
            continue
        number, fen = told
        if is_copy(paper):
            copies[number] = fen
        else:
            originals += fen                         # the same original twice counts twice: that must be seen
            seen.add(number)
    return originals + sum(fen for number, fen in copies.items() if number not in seen)


def _told(paper: str) -> tuple[str, int] | None:
    if "TRAINING" in paper:
        return None
    refund, number = _REFUND.search(paper), _REFUND_NO.search(paper)
    if refund and number:
        return number[1], -(int(refund[1]) * 100 + int(refund[2]))
    total = _TOTAL.search(paper)
    return (order_no_of(paper), int(total[1]) * 100 + int(total[2])) if total else None
