"""What became of the payments that a box left open: each is asked of its channel, by the merchant's own key.

Knows the open orders that a box told and the file of accounts; refuses to move money, to close an order or to book one: what it
learns is written beside the records, for a person.  How a channel is asked and its answer proven is `settle_ask.py`'s; of a card
terminal it says why nobody is asked.
"""

from __future__ import annotations

import datetime
import http.client
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from device.drivers.channels.codec_bytes import Reply, Request
from device.mqtt.wire import OpenOrder, open_decoded
from fleet.settle_ask import ChannelAccount, asked, exchanged

SCHEMA = """
CREATE TABLE IF NOT EXISTS settled (box TEXT NOT NULL, order_no TEXT NOT NULL, channel TEXT NOT NULL, account TEXT NOT NULL,
    amount_fen INTEGER NOT NULL, word TEXT NOT NULL, channel_no TEXT NOT NULL, why TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (box, order_no))
"""
AGE_S_MAX = 366 * 86_400       # above it the order was made under a clock that nobody had set: it may be as young as the telling
DECIDED = ("paid", "not_paid", "booked")
NOT_ASKED = {
    "card": "the card terminal stands at the shop: look at its journal there, or see the acquirer's bill"}
NOT_PAID = {"absent": "the channel never held it", "closed": "it is closed, and nothing was taken",
            "given_back": "it was paid and given back", "refused": "the channel refused it"}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    account: list[ChannelAccount]


class Settled(msgspec.Struct, frozen=True):
    """One order: `paid`, `not_paid`, `unknown`, or `booked` when a committed sale has it already; `why` one sentence."""

    order_no: str
    channel: str
    account: str
    amount_fen: int
    word: Literal["paid", "not_paid", "unknown", "booked"]
    channel_no: str = ""
    why: str = ""


def accounts_in(text: str) -> dict[tuple[str, str], ChannelAccount]:
    """The accounts of a settle.toml by (channel, account).  ValueError with a sentence."""
    import tomllib
    try:
        found = msgspec.convert(tomllib.loads(text), _File).account
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as why:
        raise ValueError(f"the file of accounts cannot be used: {why}") from None
    by_name: dict[tuple[str, str], ChannelAccount] = {(one.channel, one.account): one for one in found}
    if len(by_name) != len(found):
        raise ValueError("the file of accounts names one account twice")
    for one in found:
        parts = urlsplit(one.base_url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
            raise ValueError(f"account {one.account}: base_url is neither https nor on this machine")
    return by_name


def settled(db: Any, box: str, accounts: Mapping[tuple[str, str], ChannelAccount], *, now_s: Callable[[], float], at: str,
            exchange: Callable[[ChannelAccount, Request], Reply] = exchanged) -> list[Settled]:
    """Ask about each order that `box` told last as open, and keep the answers in table `settled`.

    LookupError when the box never told any list.  Nothing is moved, closed or booked.
    """
    row = db.execute("SELECT body, at FROM open_now WHERE box = ?", (box,)).fetchone()
    if row is None:
        raise LookupError(f"box {box} never said which orders are open")
    told_s = datetime.datetime.fromisoformat(row[1]).timestamp()
    told = [_settled(db, order, accounts, now_s, exchange, told_s) for order in open_decoded(row[0].encode())]
    with db.transaction():
        db.made(SCHEMA)
        for one in told:
            db.execute("INSERT INTO settled (box, order_no, channel, account, amount_fen, word, channel_no, why, at) "
                       "VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (box, order_no) DO UPDATE SET word = excluded.word, "
                       "channel_no = excluded.channel_no, why = excluded.why, at = excluded.at",
                       (box, one.order_no, one.channel, one.account, one.amount_fen, one.word, one.channel_no, one.why, at))
    return told


def _settled(db: Any, order: OpenOrder, accounts: Mapping[tuple[str, str], ChannelAccount], now_s: Callable[[], float],
             exchange: Callable[[ChannelAccount, Request], Reply], told_s: float) -> Settled:
    def said(word: Any, channel_no: str = "", why: str = "") -> Settled:
        return Settled(order.order_no, order.channel, order.account, order.amount_fen, word, channel_no, why)

    if db.execute("SELECT 1 FROM sale s JOIN guard g USING (box, jid) WHERE s.number = ? AND s.seq <= g.upto",
                  (order.order_no,)).fetchone():
        return said("booked", why="a committed sale has it")
    account = accounts.get((order.channel, order.account))
    if account is None:
        return said("unknown", why=NOT_ASKED.get(order.channel, f"the file names no account {order.account!r} of {order.channel}"))
    try:
        verdict = asked(account, order, now_s, exchange, told_s if order.age_s > AGE_S_MAX else told_s - order.age_s)
    except (OSError, ValueError, http.client.HTTPException) as why:
        return said("unknown", why=f"it could not be asked: {why}")
    if verdict.word == "paid":
        return said("paid", verdict.channel_no, verdict.detail)
    if verdict.word in NOT_PAID:
        return said("not_paid", verdict.channel_no, NOT_PAID[verdict.word])
    return said("unknown", why=verdict.detail or "it can still be paid: ask again when its time is over")
