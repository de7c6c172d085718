"""Four tellings of the same money: channel, journal, cloud and paper.  Knows arithmetic and what the papers say.

All amounts are fen over the whole life of a state folder.

    channel_fen   captured less refunded at the payment channels: wallet money only
    journal_fen   sales less refunds as the box's signed running totals say them, cash included
    cloud_fen     the same from the records that the collector has committed, each added by itself
    paper_fen     the same from what stands on paper: totals of receipts less refund slips; a COPY counts only where its
                  original never came out whole
    wallet_fen    of journal and cloud: tenders by wallet less refunds to wallets, to set against channel_fen
    cash_fen      what is left: journal_fen less channel_fen when all agree
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

UNDECIDED = frozenset({"placing", "awaiting", "cancelling", "asking", "returning"})
NOT_WALLETS = frozenset({"cash", "rounding"})


def summary(state: Mapping[str, Any], journal: Mapping[str, int], tokens: Sequence[str], verified: bool,
            orders: Iterable[Mapping[str, Any]], papers: Iterable[str]) -> dict[str, Any]:
    """A day's last line: `{"sales", "channel_fen", "journal_fen", "cloud_fen", "paper_fen", "undecided", "agree"}`.

    `agree`: journal, cloud and paper are equal, the channel is equal to the wallet money of both books, the cloud has
    every record of the journal with a good signature, and nothing is undecided.  `cash_fen` and `wallet_fen` follow.
    """
    cloud, channel = cloud_sums(tokens), channel_fen(orders)
    journal_fen = journal["sales_fen"] - journal["refunds_fen"]
    paper = paper_fen(papers)
    open_now = undecided(state)
    agree = (journal_fen == cloud["net_fen"] == paper and channel == journal["wallet_fen"] == cloud["wallet_fen"]
             and journal["count"] == cloud["count"] and verified and open_now == 0)
    return {"sales": cloud["sales"], "channel_fen": channel, "journal_fen": journal_fen, "cloud_fen": cloud["net_fen"],
            "paper_fen": paper, "undecided": open_now, "agree": agree, "cash_fen": journal_fen - journal["wallet_fen"],
            "wallet_fen": journal["wallet_fen"], "refunds": cloud["refunds"], "verified": verified}


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
